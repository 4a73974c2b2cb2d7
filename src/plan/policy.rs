//! The upgrade policy: which releases there are, and which gates lie between them.
//!
//! Read by `fetch`, asked by `route`, `architecture` and `updates`. This is its shape and
//! nothing else: whether a gate's version is a version depends on `DEBUG_VERSION_MODE`, and is
//! for `route` to say.

use super::shape::{Field, Misshapen};
use crate::json;

/// A policy whose fields have the types that they must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The version that `latest` means; none when the policy doesn't say.
    pub latest: Option<String>,
    /// From this version on the core answers health and version by its API.
    pub updater_api_init_version: Option<String>,
    /// Every version that the dashboard may go to, the newest first.
    pub releases: Vec<String>,
    /// Versions that are not to be jumped over.
    pub breakpoints: Vec<Gate>,
    /// Versions that an operator must pass by hand.
    pub stop_points: Vec<Gate>,
    /// From which version on images with an architecture's suffix exist: `arm64` → `1.9.1`.
    pub arch_support: Vec<(String, String)>,
    /// The version at which `latest` ends in dashboard mode.
    pub dashboard_max: Option<String>,
}

/// A breakpoint or a stop point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The version that the gate stands at.
    pub version: String,
    /// Why.
    pub reason: Option<String>,
    /// Where it is explained.
    pub docs: Option<String>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// A sentence: which field, what was expected, what was found.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document = json::read(text)?;
        Self::from_field(&Field::root(&document)).map_err(|misshapen| misshapen.to_string())
    }

    /// From which version on images with this architecture's suffix exist.
    pub fn support_of(&self, architecture: &str) -> Option<&str> {
        self.arch_support
            .iter()
            .find(|(name, _)| name == architecture)
            .map(|(_, version)| version.as_str())
    }

    fn from_field(root: &Field<'_>) -> Result<Self, Misshapen> {
        if let Some(version) = root.optional("schema_version")? {
            version.number()?;
        }
        Ok(Self {
            latest: text(root, "latest")?.filter(|latest| !latest.trim().is_empty()),
            updater_api_init_version: filled(root, "updater_api_init_version")?,
            releases: root
                .required("releases")?
                .items()?
                .iter()
                .map(|release| release.filled_text().map(str::to_owned))
                .collect::<Result<_, _>>()?,
            breakpoints: gates(root, "breakpoints")?,
            stop_points: gates(root, "stop_points")?,
            arch_support: match root.optional("arch_support")? {
                Some(support) => support
                    .entries()?
                    .into_iter()
                    .map(|(name, version)| Ok((name.to_owned(), version.text()?.to_owned())))
                    .collect::<Result<_, Misshapen>>()?,
                None => Vec::new(),
            },
            dashboard_max: filled(root, "dashboard_max")?,
        })
    }
}

fn gates(root: &Field<'_>, name: &str) -> Result<Vec<Gate>, Misshapen> {
    let Some(list) = root.optional(name)? else { return Ok(Vec::new()) };
    let gate = |gate: &Field<'_>| {
        Ok(Gate {
            version: gate.required("version")?.text()?.to_owned(),
            reason: text(gate, "reason")?.filter(|reason| !reason.trim().is_empty()),
            docs: text(gate, "docs")?.filter(|docs| !docs.trim().is_empty()),
        })
    };
    list.items()?.iter().map(gate).collect()
}

fn text(field: &Field<'_>, name: &str) -> Result<Option<String>, Misshapen> {
    field.optional(name)?.map(|found| found.text().map(str::to_owned)).transpose()
}

fn filled(field: &Field<'_>, name: &str) -> Result<Option<String>, Misshapen> {
    field.optional(name)?.map(|found| found.filled_text().map(str::to_owned)).transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::testing::{POLICY, any_json, mutate};

    fn error(policy: Value) -> String {
        Policy::parse(policy.to_string().as_bytes()).expect_err("it is misshapen")
    }

    #[test]
    fn the_published_policy_is_read() {
        let policy = Policy::parse(POLICY.as_bytes()).expect("the published policy");
        assert_eq!(policy.latest.as_deref(), Some("3.3.0"));
        assert_eq!(policy.releases.len(), 60);
        assert_eq!(policy.breakpoints[0].version, "2.0.0");
        assert_eq!(policy.support_of("arm64"), Some("1.9.1"));
        assert_eq!(policy.support_of("riscv64"), None);
        assert_eq!(policy.updater_api_init_version.as_deref(), Some("1.9.6"));
    }

    #[test]
    fn only_releases_must_be_there_and_unknown_fields_do_not_matter() {
        let policy = Policy::parse(br#"{"releases":[],"motd":7,"stop_points":null}"#);
        assert_eq!(policy, Ok(Policy::default()));
    }

    #[test]
    fn a_wrong_field_is_named_with_what_was_expected_and_found() {
        assert_eq!(
            error(json!({"releases": ["1.0.0", 2]})),
            "field releases[1]: expected a text, found a number"
        );
        assert_eq!(
            error(json!({"releases": [], "breakpoints": [{"version": 2.0}]})),
            "field breakpoints[0].version: expected a text, found a number"
        );
        assert_eq!(
            error(json!({"releases": [], "stop_points": [{"reason": "r"}]})),
            "field stop_points[0].version: expected a value, found nothing"
        );
        assert_eq!(
            error(json!({"releases": [], "arch_support": ["arm64"]})),
            "field arch_support: expected an object, found a list"
        );
        assert_eq!(
            error(json!({"latest": "1.0.0"})),
            "field releases: expected a value, found nothing"
        );
        assert_eq!(error(json!([])), "field (document): expected an object, found a list");
        assert!(Policy::parse(b"<html>").expect_err("no JSON").contains("line 1"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ignored = Policy::parse(&bytes);
        }

        #[test]
        fn a_field_of_another_type_is_never_accepted(
            at in 0usize..200,
            junk in any_json(),
        ) {
            let mut document = json!({
                "schema_version": 1, "latest": "2.0.0", "updater_api_init_version": "1.9.6",
                "releases": ["2.0.0", "1.0.0"],
                "breakpoints": [{"version": "2.0.0", "reason": "r", "docs": "d"}],
                "stop_points": [{"version": "1.5.0", "reason": "r", "docs": "d"}],
                "arch_support": {"arm64": "1.9.1"}, "dashboard_max": "2.0.0",
            });
            if let Some(path) = mutate(&mut document, at, junk) {
                let error = error(document);
                prop_assert!(error.contains(&path), "{} does not name {}", error, path);
            }
        }
    }
}
