//! `recover --clear-quarantine VERSION`: an operator says that a version which failed here may be
//! offered again. It is a record in the journal like any other; nothing else is changed.
//!
//! Called by `api` and, without a daemon, by the command itself, both under the state lock.

use std::sync::Arc;

use super::recovery::{Decision, Remedy};
use super::{Driver, RecoverError, durable};
use crate::app::core::is_same_version;
use crate::journal::{CLEARED, NewEvent, QUARANTINE, Quarantined, Release, Released};

impl Driver {
    /// Ends the quarantine of every image of this version, unless it is only asked.
    ///
    /// # Errors
    /// When the journal can't be read or written.
    pub async fn clear_quarantine(
        &self,
        version: &str,
        is_dry: bool,
    ) -> Result<Decision, RecoverError> {
        let entries = self.reader.quarantine()?;
        let (decision, events) = clearing(&entries, version);
        if !is_dry && !events.is_empty() {
            let journal = Arc::clone(&self.journal);
            tracing::info!(version, "quarantine cleared");
            durable(move || journal.note(&events)).await?;
        }
        Ok(decision)
    }
}

/// What to answer, and what to journal. Pure.
fn clearing(entries: &[Quarantined], version: &str) -> (Decision, Vec<NewEvent>) {
    let of_version = || entries.iter().filter(|one| is_same_version(&one.version, version));
    let standing: Vec<&Quarantined> = of_version().filter(|one| one.stands()).collect();
    if let Some(newest) = standing.first() {
        let message = format!(
            "the quarantine of {} ends: it may be offered again. It failed here at {} with {}: {}",
            newest.version,
            newest.failed.rfc3339(),
            newest.failure.code,
            newest.failure
        );
        let events = standing.into_iter().map(event).collect();
        return (Decision::will("clear_quarantine", Remedy::Nothing, message), events);
    }
    if let Some((version, released)) =
        of_version().find_map(|one| Some((&one.version, one.released.as_ref()?)))
    {
        let message = format!("{version} is not quarantined any more: {}", how(released));
        return (Decision::will("none", Remedy::Nothing, message), Vec::new());
    }
    let message = format!("{version} is not quarantined");
    (Decision::refused(message, listed(entries)), Vec::new())
}

fn how(released: &Released) -> String {
    let how = match released.by {
        Release::Cleared => "an operator cleared it",
        Release::Verified => "it was verified later",
        Release::Recorded => "it was recorded as good by sync",
    };
    format!("{how} at {}", released.at.rfc3339())
}

fn listed(entries: &[Quarantined]) -> String {
    let mut versions: Vec<&str> =
        entries.iter().filter(|one| one.stands()).map(|one| one.version.as_str()).collect();
    versions.dedup();
    match versions.is_empty() {
        true => "no version is quarantined".to_owned(),
        false => format!("quarantined are: {}", versions.join(", ")),
    }
}

fn event(one: &Quarantined) -> NewEvent {
    let data = [
        ("version".to_owned(), one.version.clone()),
        ("image".to_owned(), format!("{}:{}", one.target.repo, one.target.tag)),
        ("digest".to_owned(), one.digest().to_owned()),
    ];
    NewEvent {
        kind: QUARANTINE,
        status: CLEARED,
        message: format!("{} may be offered again: an operator cleared it", one.version),
        data: data.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::machine::facts::{PulledImage, TargetImage};
    use crate::machine::failure::{Failure, FailureCode};

    fn failed(version: &str, digest: &str) -> Quarantined {
        Quarantined {
            version: version.to_owned(),
            target: TargetImage { repo: "payramapp/payram".to_owned(), tag: version.to_owned() },
            image: PulledImage { id: "sha256:id".to_owned(), digest: Some(digest.to_owned()) },
            failed: Timestamp::from_millis(1_769_860_800_250),
            failure: Failure::new(FailureCode::HealthcheckFailed, "health answered 500"),
            released: None,
        }
    }

    #[test]
    fn every_image_of_the_version_is_cleared_and_no_other() {
        let entries =
            [failed("2.0.0", "sha256:b"), failed("2.1.0", "sha256:c"), failed("2.0.0", "sha256:a")];
        let (decision, events) = clearing(&entries, "v2.0.0");
        assert!(decision.success && decision.action == "clear_quarantine", "{decision:?}");
        let digests: Vec<&str> = events.iter().map(|event| event.data["digest"].as_str()).collect();
        assert_eq!(digests, ["sha256:b", "sha256:a"]);
    }

    #[test]
    fn a_version_that_never_failed_is_refused_with_those_that_did() {
        let entries = [failed("2.0.0", "sha256:b"), failed("2.1.0", "sha256:c")];
        let (decision, events) = clearing(&entries, "1.9.7");
        assert!(!decision.success && events.is_empty());
        assert_eq!(decision.message, "1.9.7 is not quarantined");
        assert_eq!(decision.refusals, ["quarantined are: 2.0.0, 2.1.0"]);
        let (decision, _) = clearing(&[], "1.9.7");
        assert_eq!(decision.refusals, ["no version is quarantined"]);
    }

    #[test]
    fn clearing_again_changes_nothing_and_says_since_when() {
        let released = Released { at: Timestamp::from_millis(0), by: Release::Cleared };
        let entry = Quarantined { released: Some(released), ..failed("2.0.0", "sha256:b") };
        let (decision, events) = clearing(&[entry], "2.0.0");
        assert!(decision.success && decision.action == "none" && events.is_empty());
        let since = "2.0.0 is not quarantined any more: an operator cleared it at 1970-";
        assert!(decision.message.starts_with(since), "{}", decision.message);
    }
}
