//! The runtime manifest: the image's name, and what a container of it needs.
//!
//! Read by `fetch`, asked by `make`. What it says of ports, volumes and environment is only
//! ever added where it is missing (design section 4); its restart policy is checked and not
//! used, because the container's own is kept. Values of its environment are never shown (I10).

use super::shape::{Field, Misshapen};
use super::versions::Scheme;
use crate::machine::facts::{Overlay, OverlayPort, OverlayVolume};

/// Where the core's health is when the manifest names no endpoint.
const HEALTH_PATH: &str = "/api/v1/health";

/// A manifest whose fields have the types that they must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `payramapp/payram`
    pub image_repo: String,
    /// `/api/v1/health`
    pub health_path: String,
    defaults: Section,
    overrides: Vec<(String, Section)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Section {
    container_name: Option<String>,
    ports: Vec<OverlayPort>,
    volumes: Vec<OverlayVolume>,
    environment: Vec<(String, String)>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// A sentence: which field, what was expected, what was found.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let document = crate::json::read(json)?;
        Self::from_field(&Field::root(&document)).map_err(|misshapen| misshapen.to_string())
    }

    /// The container's name; the one for `version` where that is known and has its own.
    pub fn container_name(&self, version: Option<(&str, Scheme<'_>)>) -> Option<&str> {
        version
            .and_then(|(version, scheme)| {
                self.overrides_of(version, scheme)
                    .filter_map(|s| s.container_name.as_deref())
                    .last()
            })
            .or(self.defaults.container_name.as_deref())
    }

    /// What a container of this version needs: the defaults, and over them the overrides for
    /// this version: a port by its number and protocol, a volume by its destination, a
    /// variable by its name.
    pub fn overlay(&self, version: &str, scheme: Scheme<'_>) -> Overlay {
        let mut merged = self.defaults.clone();
        for section in self.overrides_of(version, scheme) {
            merge(&mut merged.ports, &section.ports, |p| (p.container, p.protocol.clone()));
            merge(&mut merged.volumes, &section.volumes, |v| v.destination.clone());
            merge(&mut merged.environment, &section.environment, |(key, _)| key.clone());
        }
        Overlay {
            ports: merged.ports,
            volumes: merged.volumes,
            environment: merged
                .environment
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        }
    }

    fn overrides_of<'a>(
        &'a self,
        version: &str,
        scheme: Scheme<'_>,
    ) -> impl Iterator<Item = &'a Section> {
        let wanted = scheme.version_text(version);
        self.overrides
            .iter()
            .filter(move |(of, _)| scheme.version_text(of) == wanted)
            .map(|(_, section)| section)
    }

    fn from_field(root: &Field<'_>) -> Result<Self, Misshapen> {
        let defaults = match root.optional("defaults")? {
            Some(field) => section(&field)?,
            None => Section::default(),
        };
        let overrides = match root.optional("overrides")? {
            Some(list) => list
                .items()?
                .iter()
                .map(|item| {
                    Ok((item.required("version")?.filled_text()?.to_owned(), section(item)?))
                })
                .collect::<Result<_, Misshapen>>()?,
            None => Vec::new(),
        };
        Ok(Self {
            image_repo: repository(&root.required("image")?.required("repo")?)?,
            health_path: match root.optional("health_check")? {
                Some(check) => health_path(&check)?,
                None => HEALTH_PATH.to_owned(),
            },
            defaults,
            overrides,
        })
    }
}

fn merge<T: Clone, K: PartialEq>(into: &mut Vec<T>, from: &[T], key: impl Fn(&T) -> K) {
    for item in from {
        match into.iter_mut().find(|there| key(there) == key(item)) {
            Some(there) => *there = item.clone(),
            None => into.push(item.clone()),
        }
    }
}

/// A repository without tag or digest; the tag is what an upgrade decides.
fn repository(field: &Field<'_>) -> Result<String, Misshapen> {
    let repo = field.filled_text()?;
    let spelled = repo.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:[]".contains(c));
    let tagged = repo.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let host = repo.split_once('/').map(|(host, _)| host).filter(|host| host.contains(['.', ':']));
    let path = host.and_then(|host| repo.strip_prefix(host)).unwrap_or(repo);
    let is_lower = !path.contains(|c: char| c.is_ascii_uppercase());
    if !spelled || !is_lower || tagged || repo.starts_with(['/', '-', '.']) || repo.ends_with('/') {
        return Err(field.text_is_not("a repository without a tag, as payramapp/payram"));
    }
    Ok(repo.to_owned())
}

fn health_path(check: &Field<'_>) -> Result<String, Misshapen> {
    let Some(field) = check.optional("endpoint")? else { return Ok(HEALTH_PATH.to_owned()) };
    let path = field.text()?;
    if !path.starts_with('/') || path.starts_with("//") || path.contains(char::is_whitespace) {
        return Err(field.text_is_not("a path that starts with /"));
    }
    Ok(path.to_owned())
}

fn section(field: &Field<'_>) -> Result<Section, Misshapen> {
    if let Some(policy) = field.optional("restart_policy")? {
        policy.text()?;
    }
    Ok(Section {
        container_name: match field.optional("container_name")? {
            Some(name) => Some(container_name(&name)?),
            None => None,
        },
        ports: list(field, "ports", port)?,
        volumes: list(field, "volumes", volume)?,
        environment: match field.optional("environment")? {
            Some(environment) => environment
                .entries()?
                .into_iter()
                .map(|(key, value)| variable(&environment, key, &value))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
    })
}

fn list<T>(
    field: &Field<'_>,
    name: &str,
    item: fn(&Field<'_>) -> Result<T, Misshapen>,
) -> Result<Vec<T>, Misshapen> {
    match field.optional(name)? {
        Some(list) => list.items()?.iter().map(item).collect(),
        None => Ok(Vec::new()),
    }
}

/// Engine API reference, "Create a container": `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn container_name(field: &Field<'_>) -> Result<String, Misshapen> {
    let name = field.filled_text()?;
    let spelled = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !spelled || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(field.text_is_not("a container's name"));
    }
    Ok(name.to_owned())
}

fn port(field: &Field<'_>) -> Result<OverlayPort, Misshapen> {
    let protocol = match field.optional("protocol")? {
        Some(protocol) => {
            let name = protocol.text()?.to_ascii_lowercase();
            if !["tcp", "udp", "sctp"].contains(&name.as_str()) {
                return Err(protocol.text_is_not("tcp, udp or sctp"));
            }
            name
        }
        None => "tcp".to_owned(),
    };
    Ok(OverlayPort {
        container: field.required("container")?.port()?,
        host: field.optional("host")?.map(|host| host.port()).transpose()?,
        protocol,
    })
}

fn volume(field: &Field<'_>) -> Result<OverlayVolume, Misshapen> {
    let destination = field.required("destination")?;
    if !destination.text()?.starts_with('/') {
        return Err(destination.text_is_not("an absolute path"));
    }
    Ok(OverlayVolume {
        source: field.required("source")?.filled_text()?.to_owned(),
        destination: destination.text()?.to_owned(),
        readonly: field.optional("readonly")?.map(|r| r.truth()).transpose()?.unwrap_or(false),
    })
}

fn variable(
    environment: &Field<'_>,
    key: &str,
    value: &Field<'_>,
) -> Result<(String, String), Misshapen> {
    if key.is_empty() || key.contains(['=', '\0']) {
        return Err(environment.is_not("names of variables without = and not empty"));
    }
    Ok((key.to_owned(), value.text()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::testing::{MANIFEST, any_json, mutate};

    fn full() -> Value {
        json!({
            "image": {"repo": "payramapp/payram"},
            "defaults": {
                "container_name": "payram", "restart_policy": "always",
                "ports": [{"container": 80, "host": 8080, "protocol": "tcp"}],
                "volumes": [{"source": "/data", "destination": "/root/payram", "readonly": true}],
                "environment": {"AES_KEY": "hunter2", "MODE": "prod"},
            },
            "overrides": [{
                "version": "2.0.0", "container_name": "payram2",
                "ports": [{"container": 443, "host": 8443, "protocol": "tcp"}],
                "volumes": [{"source": "/d", "destination": "/root/payram", "readonly": true}],
                "environment": {"MODE": "next"},
            }],
            "health_check": {"endpoint": "/healthz"},
        })
    }

    fn parse(manifest: &Value) -> Result<Manifest, String> {
        Manifest::parse(manifest.to_string().as_bytes())
    }

    #[test]
    fn the_published_manifest_is_read() {
        let manifest = Manifest::parse(MANIFEST.as_bytes()).expect("the published manifest");
        assert_eq!(manifest.image_repo, "payramapp/payram");
        assert_eq!(manifest.health_path, "/api/v1/health");
        assert_eq!(manifest.container_name(None), None);
        assert_eq!(manifest.overlay("1.9.7", Scheme::Semantic), Overlay::default());
    }

    #[test]
    fn an_override_is_merged_over_the_defaults_for_its_version_alone() {
        let manifest = parse(&full()).expect("well formed");
        let plain = manifest.overlay("1.9.7", Scheme::Semantic);
        assert_eq!(plain.ports.len(), 1);
        assert_eq!(plain.environment, ["AES_KEY=hunter2", "MODE=prod"]);
        let merged = manifest.overlay("v2.0.0-arm64", Scheme::Semantic);
        assert_eq!(merged.ports.iter().map(|p| p.container).collect::<Vec<_>>(), [80, 443]);
        assert_eq!(merged.volumes.len(), 1);
        assert_eq!(merged.volumes[0].source, "/d");
        assert_eq!(merged.environment, ["AES_KEY=hunter2", "MODE=next"]);
        assert_eq!(manifest.container_name(None), Some("payram"));
        assert_eq!(manifest.container_name(Some(("2.0.0", Scheme::Semantic))), Some("payram2"));
    }

    #[test]
    fn a_wrong_field_is_named_with_what_was_expected_and_found() {
        let cases = [
            (json!({}), "field image: expected a value, found nothing"),
            (
                json!({"image": {"repo": "payram:1.9"}}),
                "field image.repo: expected a repository without a tag, as payramapp/payram, \
                 found \"payram:1.9\"",
            ),
            (
                json!({"image": {"repo": "p"}, "defaults": {"ports": [{"container": 70000}]}}),
                "field defaults.ports[0].container: expected a port from 1 to 65535, found 70000",
            ),
            (
                json!({"image": {"repo": "p"}, "overrides": [{"ports": []}]}),
                "field overrides[0].version: expected a value, found nothing",
            ),
            (
                json!({"image": {"repo": "p"}, "health_check": {"endpoint": "http://evil/"}}),
                "field health_check.endpoint: expected a path that starts with /, \
                 found \"http://evil/\"",
            ),
            (
                json!({"image": {"repo": "p"}, "defaults": {"volumes": [
                    {"source": "s", "destination": "relative"}]}}),
                "field defaults.volumes[0].destination: expected an absolute path, \
                 found \"relative\"",
            ),
        ];
        for (manifest, expected) in cases {
            assert_eq!(parse(&manifest).expect_err("misshapen"), expected);
        }
    }

    #[test]
    fn an_error_about_the_environment_shows_no_value() {
        let manifest =
            json!({"image": {"repo": "p"}, "defaults": {"environment": {"AES_KEY": 48151623}}});
        assert_eq!(
            parse(&manifest).expect_err("a number"),
            "field defaults.environment.AES_KEY: expected a text, found a number"
        );
    }

    #[test]
    fn a_registry_with_a_port_is_a_repository() {
        let manifest = json!({"image": {"repo": "127.0.0.1:5000/payramapp/payram"}});
        assert!(parse(&manifest).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ignored = Manifest::parse(&bytes);
        }

        #[test]
        fn a_field_of_another_type_is_never_accepted(at in 0usize..200, junk in any_json()) {
            let mut document = full();
            if let Some(path) = mutate(&mut document, at, junk) {
                let error = parse(&document).expect_err("a field has another type");
                prop_assert!(error.contains(&path), "{} does not name {}", error, path);
            }
        }
    }
}
