//! Whether an image's tag ends in `-arm64` (contract section 3, rule 5). Pure; called by
//! `make`, once for each hop.

use super::policy::Policy;
use super::route::{Stop, invalid_gate};
use super::versions::{Scheme, architecture};
use crate::journal::Mode;
use crate::machine::failure::Failure;

/// The architecture whose images have a suffix.
const ARM64: &str = "arm64";

/// The hop's tag, and what an operator should know of it.
///
/// # Errors
/// `POLICY_INVALID_GATE` in dashboard mode when `arch_support.arm64` is no version.
pub fn tag_for(
    stop: &Stop,
    running_tag: Option<&str>,
    policy: Option<&Policy>,
    scheme: Scheme<'_>,
    mode: Mode,
) -> Result<(String, Option<String>), Failure> {
    let plain = || stop.tag.clone();
    match running_tag.and_then(architecture) {
        None => return Ok((plain(), None)),
        Some(ARM64) => {}
        Some(other) => {
            let note = format!("-{other} of the running tag is not appended to {}", stop.tag);
            return Ok((plain(), Some(note)));
        }
    }
    if architecture(&stop.tag).is_some() {
        return Ok((plain(), None));
    }
    let suffixed = format!("{}-{ARM64}", stop.tag);
    let Some(bound) = policy.and_then(|policy| policy.support_of(ARM64)) else {
        return Ok((suffixed, None));
    };
    match (scheme.rank(bound), scheme.rank(&stop.tag), mode) {
        (Some(bound), Some(target), _) if target >= bound => Ok((suffixed, None)),
        (Some(_), Some(_), _) => {
            let note = format!(
                "-{ARM64} of the running tag is not appended to {}: such images begin with {bound}",
                stop.tag
            );
            Ok((plain(), Some(note)))
        }
        (None, _, Mode::Dashboard) => Err(invalid_gate("arch_support.arm64", bound, &scheme)),
        (None, _, Mode::Manual) | (_, None, _) => {
            let note = format!(
                "-{ARM64} is appended to {}, because the running tag has it: whether such an \
                 image exists can't be told from arch_support.arm64 {bound:?}",
                stop.tag
            );
            Ok((suffixed, Some(note)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(version: &str, running: Option<&str>, bound: Option<&str>, mode: Mode) -> String {
        let policy = Policy {
            arch_support: bound.map(|b| ("arm64".to_owned(), b.to_owned())).into_iter().collect(),
            ..Policy::default()
        };
        let stop =
            Stop { version: version.to_owned(), tag: version.to_owned(), why: String::new() };
        match tag_for(&stop, running, Some(&policy), Scheme::Semantic, mode) {
            Ok((tag, note)) => format!("{tag}{}", if note.is_some() { " (note)" } else { "" }),
            Err(failure) => failure.code.to_string(),
        }
    }

    #[test]
    fn the_suffix_follows_the_running_tag_from_the_supported_version_on() {
        let arm = Some("1.9.1-arm64");
        let dashboard = Mode::Dashboard;
        assert_eq!(tag("1.9.7", arm, Some("1.9.1"), dashboard), "1.9.7-arm64");
        assert_eq!(tag("1.9.1", arm, Some("1.9.1"), dashboard), "1.9.1-arm64");
        assert_eq!(tag("1.9.0", arm, Some("1.9.1"), dashboard), "1.9.0 (note)");
        assert_eq!(tag("1.9.7", arm, None, dashboard), "1.9.7-arm64");
        assert_eq!(tag("1.9.7", Some("1.9.6"), Some("1.9.1"), dashboard), "1.9.7");
        assert_eq!(tag("1.9.7", None, Some("1.9.1"), dashboard), "1.9.7");
        assert_eq!(tag("1.9.7", Some("1.9.6-amd64"), None, dashboard), "1.9.7 (note)");
    }

    #[test]
    fn a_bound_that_is_no_version_refuses_the_dashboard_alone() {
        let arm = Some("1.9.1-arm64");
        assert_eq!(tag("1.9.7", arm, Some("soon"), Mode::Dashboard), "POLICY_INVALID_GATE");
        assert_eq!(tag("1.9.7", arm, Some("soon"), Mode::Manual), "1.9.7-arm64 (note)");
    }
}
