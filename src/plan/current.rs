//! Which version serves, from what is said of it. Pure; called by `make`.
//!
//! The core's own report wins over what the caller states: the gates are counted from this
//! version, and a request must not be able to move them (I9); and it is the version that a way
//! back is verified against. What the caller states counts where the core is silent and an
//! operator asks (manual mode).

use super::versions::Scheme;
use crate::journal::Mode;

/// What is said of the version that serves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    /// By the core itself.
    pub reported: Option<&'a str>,
    /// By the request.
    pub stated: Option<&'a str>,
    /// By the container's version label.
    pub label: Option<&'a str>,
    /// By the tag of its image, which says what was asked for and not what runs.
    pub tag: Option<&'a str>,
}

/// The version, and what an operator should know of it.
pub(super) fn current(
    evidence: &Evidence<'_>,
    mode: Mode,
    scheme: Scheme<'_>,
) -> (Option<String>, Option<String>) {
    let stated = evidence.stated.filter(|_| mode == Mode::Manual);
    let said = [evidence.reported, stated, evidence.label];
    let mut said = said.into_iter().flatten().filter(|text| !text.trim().is_empty());
    let chosen = match scheme {
        Scheme::Semantic => said.next(),
        // A core in debug mode may report a number that no release is named after.
        Scheme::Position(_) => {
            said.clone().find(|text| scheme.rank(text).is_some()).or_else(|| said.next())
        }
    };
    if let Some(version) = chosen {
        let version = scheme.version_text(version);
        let note = evidence
            .stated
            .map(|stated| scheme.version_text(stated))
            .filter(|stated| !stated.is_empty() && *stated != version)
            .map(|stated| format!("the request says that {stated} serves; it is {version}"));
        return (Some(version), note);
    }
    let by_tag = evidence.tag.filter(|tag| mode == Mode::Manual && scheme.rank(tag).is_some());
    match by_tag {
        Some(tag) => {
            let version = scheme.version_text(tag);
            let note = format!("that {version} serves is taken from the image's tag alone");
            (Some(version), Some(note))
        }
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(evidence: Evidence<'_>, mode: Mode) -> Option<String> {
        current(&evidence, mode, Scheme::Semantic).0
    }

    #[test]
    fn what_a_request_states_counts_in_manual_mode_alone_and_after_the_core() {
        let all = Evidence {
            reported: Some("v1.9.6"),
            stated: Some("2.5.0"),
            label: Some("1.9.5"),
            tag: Some("1.9.4"),
        };
        assert_eq!(version(all, Mode::Dashboard).as_deref(), Some("1.9.6"));
        let silent = Evidence { reported: None, ..all };
        assert_eq!(version(silent, Mode::Manual).as_deref(), Some("2.5.0"));
        assert_eq!(version(silent, Mode::Dashboard).as_deref(), Some("1.9.5"));
        let labelled = Evidence { stated: None, ..silent };
        assert_eq!(version(labelled, Mode::Dashboard).as_deref(), Some("1.9.5"));
        let (_, note) = current(&all, Mode::Dashboard, Scheme::Semantic);
        assert_eq!(note.as_deref(), Some("the request says that 2.5.0 serves; it is 1.9.6"));
    }

    #[test]
    fn the_images_tag_is_believed_in_manual_mode_alone() {
        let tagged = Evidence { tag: Some("1.9.4-arm64"), ..Evidence::default() };
        assert_eq!(version(tagged, Mode::Dashboard), None);
        assert_eq!(version(tagged, Mode::Manual).as_deref(), Some("1.9.4"));
        let latest = Evidence { tag: Some("latest"), label: Some(" "), ..Evidence::default() };
        assert_eq!(version(latest, Mode::Manual), None);
    }

    #[test]
    fn in_debug_mode_the_version_that_is_among_the_releases_is_taken() {
        let releases = ["blue".to_owned()];
        let scheme = Scheme::Position(&releases);
        let evidence =
            Evidence { reported: Some("1.0.0"), label: Some("blue"), ..Evidence::default() };
        assert_eq!(current(&evidence, Mode::Dashboard, scheme).0.as_deref(), Some("blue"));
    }
}
