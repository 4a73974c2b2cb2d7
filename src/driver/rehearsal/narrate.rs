//! What a person is told of a rehearsal: log lines, events of the history, how it ended, and the
//! report in numbers. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::journal::{Ending, NewEvent, RehearsalRecord};
use crate::rehearsal::{
    Changes, Copied, Rehearsal, RehearsalBody, RehearsalFact, RehearsalOutcome, RehearsalStep,
    Stood, Tried, Verdict,
};

/// What every end of a rehearsal has in common, whatever it found.
const UNTOUCHED: &str = "Nothing was stopped, and the shop's data was not touched";

/// A rehearsal's report, as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalView {
    /// `passed`, `refused`, `unsure` or `skipped`; none while it runs, and of one that was called
    /// off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// The version that was tried.
    pub version: String,
    /// From the beginning to the end, of one that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<Copied>,
    /// How the new version stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Tried>,
    /// How the present version stood on what the new one had made of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_back: Option<Tried>,
    /// How the present version stood in the same isolation, where the new one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Tried>,
}

impl RehearsalView {
    /// Of a rehearsal.
    pub fn of(record: &RehearsalRecord) -> Self {
        let rehearsal = &record.rehearsal;
        let millis = record.updated.millis() - record.created.millis();
        Self {
            verdict: rehearsal.verdict().filter(|_| !record.is_active()).map(Verdict::as_str),
            version: record.body.version.clone(),
            seconds: (!record.is_active()).then_some(millis as f64 / 1000.0),
            copy: rehearsal.copied.clone(),
            new: rehearsal.new.clone(),
            way_back: rehearsal.old.clone(),
            control: rehearsal.control.clone(),
        }
    }
}

/// It begins.
pub(super) fn started(body: &RehearsalBody) -> NewEvent {
    let message = format!("rehearsal of {} on a copy of the shop's data began", body.version);
    NewEvent { kind: "rehearsal", status: "started", message, data: data(body) }
}

/// It came to rest.
pub(super) fn ended(body: &RehearsalBody, rehearsal: &Rehearsal, ending: &Ending) -> NewEvent {
    let mut data = data(body);
    if let Some(code) = ending.failure_code {
        data.insert("failureCode".into(), code.to_string());
    }
    if let Some(verdict) = rehearsal.verdict() {
        data.insert("verdict".into(), verdict.as_str().into());
    }
    let seconds = rehearsal.new.as_ref().and_then(|tried| tried.answers_after_seconds);
    if let Some(seconds) = seconds {
        data.insert("answersAfterSeconds".into(), format!("{seconds:.3}"));
    }
    let status = if ending.failure_code.is_none() { "succeeded" } else { "failed" };
    NewEvent { kind: "rehearsal", status, message: ending.message.clone(), data }
}

fn data(body: &RehearsalBody) -> BTreeMap<String, String> {
    let mut data = BTreeMap::from([
        ("mode".to_owned(), body.mode.clone()),
        ("requestedTarget".to_owned(), body.requested_target.clone()),
        ("resolvedTarget".to_owned(), body.resolved_target.clone()),
        ("version".to_owned(), body.version.clone()),
    ]);
    if let Some(from) = &body.from_version {
        data.insert("fromVersion".into(), from.clone());
    }
    data
}

/// What came of a step.
pub(super) fn log_lines(
    step: RehearsalStep,
    outcome: &RehearsalOutcome,
    body: &RehearsalBody,
) -> Vec<String> {
    match outcome {
        RehearsalOutcome::Done { fact: RehearsalFact::Copied(copied) } => {
            let mut lines = vec![format!("{step}: {}", of_copy(copied))];
            lines.extend(copied.mounts.iter().map(|mount| format!("in the copy {mount}")));
            lines
        }
        RehearsalOutcome::Done { fact: RehearsalFact::Tried(tried) } => {
            let mut lines = vec![format!("{step}: {} {}", who(step, body), stood(tried))];
            let of = |when: &str, changes: &Option<Changes>| match changes {
                Some(changes) => {
                    lines_of(changes).map(|line| format!("{when}: {line}")).collect::<Vec<String>>()
                }
                None => Vec::new(),
            };
            lines.extend(of("up to its first answer", &tried.migration));
            lines.extend(of("afterwards", &tried.written));
            lines
        }
        RehearsalOutcome::Done { fact: RehearsalFact::Pulled { .. } | RehearsalFact::Swept } => {
            vec![format!("{step}: done")]
        }
        RehearsalOutcome::Failed { failure } => vec![format!("{step} failed: {failure}")],
        RehearsalOutcome::Interrupted => {
            vec![format!("{step}: found unfinished after a restart; what is left is removed")]
        }
        RehearsalOutcome::CalledOff { failure } => vec![failure.to_string()],
    }
}

fn who(step: RehearsalStep, body: &RehearsalBody) -> String {
    let old = body.from_version.as_deref().unwrap_or("the present version");
    match step {
        RehearsalStep::TryOld => format!("{old}, on what {} left,", body.version),
        RehearsalStep::Control => format!("{old}, in the same isolation,"),
        RehearsalStep::Pull
        | RehearsalStep::Copy
        | RehearsalStep::TryNew
        | RehearsalStep::Sweep => body.version.clone(),
    }
}

fn of_copy(copied: &Copied) -> String {
    let rows = copied.rows.map_or("rows not counted".to_owned(), |rows| format!("{rows} rows"));
    format!(
        "a database of {} bytes, {} tables, {rows}, rebuilt and compared in {:.1} s",
        copied.database_bytes, copied.tables, copied.seconds
    )
}

fn stood(tried: &Tried) -> String {
    let after = tried
        .answers_after_seconds
        .map_or(String::new(), |seconds| format!(" {seconds:.1} s after its start"));
    match &tried.stood {
        Stood::Serves => {
            format!("answered{after} and stayed well for {:.0} s", tried.stayed_seconds)
        }
        Stood::Fails { found, .. } => format!("failed: {found}"),
        Stood::Unjudged { found } => format!("could not be judged: {found}"),
    }
}

fn lines_of(changes: &Changes) -> impl Iterator<Item = &String> {
    changes.schema.iter().chain(&changes.rows)
}

/// How it came to rest.
pub(super) fn ending(body: &RehearsalBody, rehearsal: &Rehearsal) -> Ending {
    let version = &body.version;
    let broke = rehearsal.broke.as_ref().map(|(_, failure)| failure.message.as_str());
    let found = |tried: &Option<Tried>| match tried.as_ref().map(|tried| &tried.stood) {
        Some(Stood::Fails { found, .. } | Stood::Unjudged { found }) => found.clone(),
        Some(Stood::Serves) | None => String::new(),
    };
    let said = match rehearsal.verdict() {
        Some(Verdict::Passed) => {
            let after = rehearsal.new.as_ref().and_then(|tried| tried.answers_after_seconds);
            let after = after.map_or(String::new(), |seconds| {
                format!(": it answered {seconds:.1} s after its start, and stayed well")
            });
            format!(
                "{version} serves on a copy of the shop's data{after}. {}",
                way_back(body, rehearsal)
            )
        }
        Some(Verdict::Refused) => {
            let old = body.from_version.as_deref().unwrap_or("the present version");
            format!(
                "{version} does not serve on a copy of the shop's data, and {old} does in the same isolation: {}. {UNTOUCHED}",
                found(&rehearsal.new)
            )
        }
        Some(Verdict::Unsure) => {
            format!(
                "whether {version} serves can't be said from a rehearsal: {}. {UNTOUCHED}",
                unsure(rehearsal, &found)
            )
        }
        Some(Verdict::Skipped) => {
            format!(
                "{version} was not tried: {}. {UNTOUCHED}",
                broke.unwrap_or("it is not known why")
            )
        }
        None => format!(
            "the rehearsal of {version} was not finished: {}. {UNTOUCHED}",
            broke.unwrap_or("it was cancelled")
        ),
    };
    let mut message = said;
    if let Some(left) = &rehearsal.left {
        message.push_str(&format!(
            ". The copy could not be removed: {left}; it is tried again when the updater is started"
        ));
    }
    Ending { failure_code: rehearsal.failure_code(), message }
}

fn unsure(rehearsal: &Rehearsal, found: &dyn Fn(&Option<Tried>) -> String) -> String {
    let new = found(&rehearsal.new);
    let unreachable = rehearsal.new.as_ref().and_then(|tried| tried.unreachable.as_deref());
    if let Some(line) = unreachable {
        return format!(
            "it failed ({new}), and its log names what it could not reach without a network: {line}"
        );
    }
    match (&rehearsal.control, &rehearsal.broke) {
        (Some(_), _) => format!(
            "it failed ({new}), and so does the present version in the same isolation ({})",
            found(&rehearsal.control)
        ),
        (None, Some((_, failure))) if new.is_empty() => failure.message.clone(),
        (None, Some((_, failure))) => {
            format!(
                "it failed ({new}), and the present version could not be tried beside it: {failure}"
            )
        }
        (None, None) => new,
    }
}

/// What going back would mean, as far as it was tried.
fn way_back(body: &RehearsalBody, rehearsal: &Rehearsal) -> String {
    let old = body.from_version.as_deref().unwrap_or("the present version");
    match rehearsal.old.as_ref().map(|tried| &tried.stood) {
        Some(Stood::Serves) => format!("{old} serves on what it made of the data"),
        Some(Stood::Fails { found, .. }) => {
            format!("{old} does not serve on what it made of the data: {found}")
        }
        Some(Stood::Unjudged { found }) => {
            format!("whether {old} serves on what it made of the data can't be said: {found}")
        }
        None => format!("whether {old} serves on what it made of the data was not tried"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::failure::{Failure, FailureCode};

    fn body() -> RehearsalBody {
        serde_json::from_value(serde_json::json!({
            "kind": "rehearsal", "mode": "MANUAL", "requestedTarget": "2.0.0",
            "resolvedTarget": "2.0.0", "version": "2.0.0", "fromVersion": "1.9.6",
            "container": "payram", "target": {"repo": "payramapp/payram", "tag": "2.0.0"},
            "rules": {"kind": "legacy"}, "fromRules": {"kind": "legacy"},
            "overlay": {"ports": [], "volumes": [], "environment": []}, "directory": "/r",
        }))
        .expect("a body")
    }

    fn tried(stood: Stood, unreachable: Option<&str>) -> RehearsalOutcome {
        let tried = Tried {
            stood,
            version: None,
            answers_after_seconds: Some(3.2),
            stayed_seconds: 20.0,
            migration: None,
            written: None,
            unreachable: unreachable.map(str::to_owned),
            memory_bytes: None,
            disk_bytes: None,
        };
        RehearsalOutcome::Done { fact: RehearsalFact::Tried(Box::new(tried)) }
    }

    fn copied() -> Vec<RehearsalOutcome> {
        let copied: Copied = serde_json::from_value(serde_json::json!({
            "databaseBytes": 1, "tables": 1, "seconds": 1.0, "memoryLimitBytes": 1,
        }))
        .expect("a copy");
        vec![
            RehearsalOutcome::Done { fact: RehearsalFact::Pulled { image_id: "i".into() } },
            RehearsalOutcome::Done { fact: RehearsalFact::Copied(copied) },
        ]
    }

    fn said(outcomes: impl IntoIterator<Item = RehearsalOutcome>) -> String {
        let end = outcomes.into_iter().fold(Rehearsal::new(), |rehearsal, outcome| {
            rehearsal.apply(outcome).expect("it fits")
        });
        ending(&body(), &end).message
    }

    fn fails() -> Stood {
        Stood::Fails { code: FailureCode::HealthcheckFailed, found: "health is 500".into() }
    }

    #[test]
    fn each_end_says_what_was_seen_and_that_nothing_was_stopped() {
        let with = |more: Vec<RehearsalOutcome>| said(copied().into_iter().chain(more));
        let passed = with(vec![tried(Stood::Serves, None), tried(fails(), None)]);
        assert!(passed.contains("answered 3.2 s") && passed.contains("1.9.6 does not serve on"));
        let refused = with(vec![tried(fails(), None), tried(Stood::Serves, None)]);
        assert!(refused.contains("health is 500") && refused.contains(UNTOUCHED), "{refused}");
        let control = with(vec![tried(fails(), None), tried(fails(), None)]);
        assert!(control.contains("so does the present version"), "{control}");
        let network = with(vec![tried(fails(), Some("no such host")), tried(Stood::Serves, None)]);
        assert!(network.contains("could not reach without a network"), "{network}");
        let skipped = said([RehearsalOutcome::Failed {
            failure: Failure::new(FailureCode::DiskSpaceLow, "/r: need 9.00 GB"),
        }]);
        assert!(skipped.contains("was not tried: /r: need 9.00 GB"), "{skipped}");
        let off = said([RehearsalOutcome::Interrupted]);
        assert!(off.contains("was not finished") && off.contains(UNTOUCHED), "{off}");
    }
}
