//! Quarantined versions in a plan: is the image that a tag names now one that failed here?
//!
//! Called by `api` after `make`, and by `inspect`. The registry is asked which image a tag
//! names; [`judge`] decides, without I/O. In dashboard mode a route with a quarantined version
//! on it, also in its middle, is refused; in manual mode gates don't bind and neither does this
//! one: the plan says so, and it needs no `--force`.
//!
//! The safe side: where the registry can't be asked, a tag is taken to name what it named when
//! its version failed.

use serde::Serialize;

use super::{Plan, PlanState};
use crate::engine::Engine;
use crate::journal::{Mode, Quarantined};
use crate::machine::failure::{Failure, FailureCode};

/// A version on the way that failed here before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedVersion {
    /// The version.
    pub version: String,
    /// `payramapp/payram:1.9.7`
    pub image: String,
    /// The digest, or the image's id where it has none.
    pub digest: String,
    /// When it failed, RFC 3339.
    pub failed_at: String,
    /// How.
    pub failure_code: String,
    /// Why, in a sentence.
    pub reason: String,
    /// Why it is not certain that the tag still names this image; none when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsure: Option<String>,
    /// The command that ends the quarantine.
    pub clear: String,
}

/// Looks at each hop of the plan, notes what is quarantined, and refuses the plan for it where
/// the policy decides. Asks the registry only when something is quarantined at all.
pub async fn check(engine: &dyn Engine, plan: &mut Plan, entries: &[Quarantined]) {
    if !entries.iter().any(Quarantined::stands) {
        return;
    }
    for hop in &plan.route {
        plan.quarantined.extend(look(engine, &hop.image, entries).await);
    }
    let Some(first) = plan.quarantined.first().cloned() else { return };
    match plan.mode {
        Mode::Dashboard if plan.state == PlanState::Ready => plan.refuse(&refusal(&first)),
        Mode::Dashboard => {}
        Mode::Manual => {
            let notes = plan
                .quarantined
                .iter()
                .map(|one| format!("manual mode goes ahead nevertheless: {}", sentence(one)));
            plan.notes.extend(notes);
        }
    }
}

/// What of the entries the image behind `repo:tag` is now.
pub(crate) async fn look(
    engine: &dyn Engine,
    image: &str,
    entries: &[Quarantined],
) -> Option<QuarantinedVersion> {
    let (repo, tag) = image.rsplit_once(':')?;
    let asked = engine.registry_digest(repo, tag).await;
    judge(image, asked.as_deref(), entries)
}

/// What of the entries the image behind `repo:tag` is, by what its registry says. Pure.
fn judge(
    image: &str,
    asked: Result<&str, &String>,
    entries: &[Quarantined],
) -> Option<QuarantinedVersion> {
    let mut standing = entries.iter().filter(|entry| entry.stands());
    let is_named_so = |entry: &Quarantined| image_of(entry) == image;
    let found = |entry: &Quarantined, unsure: Option<String>| QuarantinedVersion {
        version: entry.version.clone(),
        image: image.to_owned(),
        digest: entry.digest().to_owned(),
        failed_at: entry.failed.rfc3339(),
        failure_code: entry.failure.code.to_string(),
        reason: entry.failure.message.clone(),
        unsure,
        clear: clearing(&entry.version),
    };
    match asked {
        Ok(digest) => standing.find_map(|entry| match entry.image.digest.as_deref() {
            Some(bad) if bad == digest => Some(found(entry, None)),
            Some(_) => None,
            None => is_named_so(entry).then(|| {
                let unsure = "its image had no digest that could be compared with the registry's";
                found(entry, Some(unsure.to_owned()))
            }),
        }),
        Err(why) => standing.find(|entry| is_named_so(entry)).map(|entry| {
            found(entry, Some(format!("the registry can't be asked what the tag names now: {why}")))
        }),
    }
}

/// `repo:tag` of a version that failed.
pub(crate) fn image_of(entry: &Quarantined) -> String {
    format!("{}:{}", entry.target.repo, entry.target.tag)
}

/// The command that ends the quarantine of a version.
pub(crate) fn clearing(version: &str) -> String {
    format!("payram-updater recover --clear-quarantine {version}")
}

/// When and why it failed, as a sentence.
pub(crate) fn sentence(one: &QuarantinedVersion) -> String {
    let unsure = one.unsure.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!(
        "{} is quarantined: its image {} failed here at {} with {}: {}{unsure}",
        one.version,
        short(&one.digest),
        one.failed_at,
        one.failure_code,
        one.reason
    )
}

/// Why the dashboard does not go there.
fn refusal(one: &QuarantinedVersion) -> Failure {
    let message = format!(
        "{}; it is offered again when its tag names another image, or after {}",
        sentence(one),
        one.clear
    );
    Failure::new(FailureCode::VersionQuarantined, message)
}

/// The same beside other news, where the reason is told elsewhere.
pub(super) fn refusal_in_brief(one: &QuarantinedVersion) -> Failure {
    let message = format!(
        "{} is quarantined since it failed here at {} with {}; to have it offered again: {}",
        one.version, one.failed_at, one.failure_code, one.clear
    );
    Failure::new(FailureCode::VersionQuarantined, message)
}

/// A digest with its first twelve digits, as engines print it.
fn short(digest: &str) -> &str {
    let digits = digest.find(':').map_or(0, |colon| colon + 1);
    digest.get(..digits + 12).unwrap_or(digest)
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
