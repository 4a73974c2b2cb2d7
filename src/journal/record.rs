//! The shapes that go into the journal and come out of it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::machine::facts::{CoreRules, Overlay, TargetImage};
use crate::machine::failure::FailureCode;

/// `job-` and a UUID version 7: unique, and sorted by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// A job id that was never given out before.
    pub fn fresh() -> Self {
        Self(format!("job-{}", uuid::Uuid::now_v7()))
    }

    /// A fresh id that sorts after another, also where the clock was set back since.
    pub(crate) fn after(last: Option<&JobId>) -> Self {
        let fresh = Self::fresh();
        match last {
            Some(last) if fresh <= *last => last.successor().unwrap_or(fresh),
            Some(_) | None => fresh,
        }
    }

    /// An id of the millisecond after this one's.
    fn successor(&self) -> Option<Self> {
        let uuid = uuid::Uuid::parse_str(self.0.strip_prefix("job-")?).ok()?;
        let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
        let millis = seconds.checked_mul(1000)?.checked_add(u64::from(nanos / 1_000_000) + 1)?;
        let nanos = u32::try_from(millis % 1000).ok()? * 1_000_000;
        let at = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos);
        Some(Self(format!("job-{}", uuid::Uuid::new_v7(at))))
    }

    /// From the text of an id, as the journal holds it.
    pub(crate) fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Eight characters of its random part, for names of containers.
    pub fn short(&self) -> &str {
        let start = self.0.len().saturating_sub(8);
        self.0.get(start..).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a row; grows by one.
pub type Seq = i64;

/// Who decides what may be done (contract section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// The policy decides.
    Dashboard,
    /// The operator decides.
    Manual,
}

impl Mode {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Dashboard => "DASHBOARD",
            Mode::Manual => "MANUAL",
        }
    }
}

/// What was asked, and the route that was planned for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobBody {
    /// Who decides.
    pub mode: Mode,
    /// `latest`, `2.0.0`.
    pub requested_target: String,
    /// The version to end at.
    pub resolved_target: String,
    /// What the caller said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version that served when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
    /// The container to upgrade.
    pub container_name: String,
    /// How the version that serves is asked for health and version.
    pub from_rules: CoreRules,
    /// Ports, volumes and environment that the manifest adds where they are missing, of a hop that
    /// says nothing of its own: so wrote an earlier program.
    pub overlay: Overlay,
    /// Whether only the plan was wanted (`EXECUTION_MODE=dry-run`).
    pub dry_run: bool,
    /// The route.
    pub hops: Vec<HopTarget>,
    /// What a person has to do once it has ended well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<Task>,
}

/// Something that a person does once an upgrade has ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// A sentence: what, and why.
    pub what: String,
    /// The command that does it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// One hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HopTarget {
    /// The version, as its core will report it.
    pub version: String,
    /// Its image.
    pub target: TargetImage,
    /// How it is asked for health and version.
    pub rules: CoreRules,
    /// Why the route stops there.
    pub why: String,
    /// What the manifest adds for this version; none in the journal of an earlier program, which
    /// knew only the job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
}

impl JobBody {
    /// What the manifest adds to the container of this hop, counted from 1.
    pub fn overlay_of(&self, hop: usize) -> &Overlay {
        let own = hop.checked_sub(1).and_then(|index| self.hops.get(index));
        own.and_then(|target| target.overlay.as_ref()).unwrap_or(&self.overlay)
    }
}

/// The kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// A job was accepted; body: [`JobBody`].
    Job,
    /// A hop begins; body: [`crate::machine::Hop`].
    Hop,
    /// A step is about to run; name: the step.
    Intent,
    /// What came of it; name: the step, body: [`crate::machine::Outcome`].
    Outcome,
    /// Where it led; name: the event, body: [`crate::machine::Transition`].
    Transition,
    /// The job has come to rest; body: [`Ending`].
    End,
    /// A line for a person.
    Log,
    /// An event of the history; name: type, body: [`HistoryEvent`] without its first fields.
    Event,
}

impl RowKind {
    /// As the table holds it.
    pub fn as_str(self) -> &'static str {
        match self {
            RowKind::Job => "job",
            RowKind::Hop => "hop",
            RowKind::Intent => "intent",
            RowKind::Outcome => "outcome",
            RowKind::Transition => "transition",
            RowKind::End => "end",
            RowKind::Log => "log",
            RowKind::Event => "event",
        }
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        [
            RowKind::Job,
            RowKind::Hop,
            RowKind::Intent,
            RowKind::Outcome,
            RowKind::Transition,
            RowKind::End,
            RowKind::Log,
            RowKind::Event,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

/// How a job came to rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// None when it ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_code: Option<FailureCode>,
    /// A sentence for a person.
    pub message: String,
}

/// One row, as `journal export` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The row's number.
    pub seq: Seq,
    /// RFC 3339.
    pub at: String,
    /// Milliseconds since the epoch, as stored.
    #[serde(skip)]
    pub at_ms: i64,
    /// Its kind.
    pub kind: RowKind,
    /// The job, if it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The hop, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop: Option<i64>,
    /// See [`RowKind`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// JSON, or the text of a log line.
    pub body: String,
    /// Hex sha256.
    pub hash: String,
}

/// An event of the history (contract section 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEvent {
    /// The row's number, as text.
    pub id: String,
    /// RFC 3339.
    pub timestamp: String,
    /// `upgrade`, `backup`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `started`, `succeeded`, …
    pub status: String,
    /// A sentence.
    pub message: String,
    /// Further facts, text to text.
    pub data: BTreeMap<String, String>,
}

/// An event that is about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// `upgrade`, `backup`, …
    pub kind: &'static str,
    /// `started`, `succeeded`, …
    pub status: &'static str,
    /// A sentence.
    pub message: String,
    /// Further facts.
    pub data: BTreeMap<String, String>,
}

/// The stored part of an event.
#[derive(Serialize, Deserialize)]
pub(super) struct EventBody {
    pub message: String,
    pub data: BTreeMap<String, String>,
}

impl Row {
    /// When it was written.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.at_ms)
    }

    /// What its body says.
    ///
    /// # Errors
    /// A sentence where it is not understood.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_str(&self.body).map_err(|error| {
            format!("the body of a row of kind {} is not understood: {error}", self.kind.as_str())
        })
    }
}

/// Reads the nine columns in the table's order.
pub(super) fn row(raw: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let at_ms: i64 = raw.get(1)?;
    let kind: String = raw.get(2)?;
    Ok(Row {
        seq: raw.get(0)?,
        at: Timestamp::from_millis(at_ms).rfc3339(),
        at_ms,
        kind: RowKind::from_text(&kind).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(
                2,
                rusqlite::types::Type::Text,
                format!("unknown kind of row '{kind}'").into(),
            )
        })?,
        job: raw.get(3)?,
        hop: raw.get(4)?,
        name: raw.get(5)?,
        status: raw.get(6)?,
        body: raw.get(7)?,
        hash: raw.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_an_earlier_program_wrote_has_one_overlay_for_all_of_its_hops() {
        let hop = |version: &str, own: serde_json::Value| {
            let mut hop = serde_json::json!({
                "version": version, "target": {"repo": "payramapp/payram", "tag": version},
                "rules": {"kind": "legacy"}, "why": "the target",
            });
            if own.is_object() {
                hop["overlay"] = own;
            }
            hop
        };
        let overlay = |variable: &str| serde_json::json!({"ports": [], "volumes": [], "environment": [variable]});
        let body = |hops: [serde_json::Value; 2]| -> JobBody {
            let body = serde_json::json!({
                "mode": "MANUAL", "requestedTarget": "2.0.0", "resolvedTarget": "2.0.0",
                "fromVersion": "1.9.6", "containerName": "payram",
                "fromRules": {"kind": "legacy"}, "overlay": overlay("JOB=1"), "dryRun": false,
                "hops": hops,
            });
            serde_json::from_value(body).expect("a body")
        };
        let environment = |body: &JobBody, hop: usize| body.overlay_of(hop).environment.join(" ");
        let none = serde_json::Value::Null;
        let earlier = body([hop("1.9.8", none.clone()), hop("2.0.0", none)]);
        assert_eq!(
            (environment(&earlier, 1), environment(&earlier, 2)),
            ("JOB=1".into(), "JOB=1".into())
        );
        let own = body([hop("1.9.8", overlay("FIRST=1")), hop("2.0.0", overlay("SECOND=1"))]);
        assert_eq!(
            (environment(&own, 1), environment(&own, 2)),
            ("FIRST=1".into(), "SECOND=1".into())
        );
        let text = serde_json::to_string(&earlier).expect("JSON");
        assert!(!text.contains("null"), "the body of an earlier job stays as it was: {text}");
    }

    #[test]
    fn an_id_sorts_after_the_last_one_though_the_clock_was_set_back() {
        let mut last = JobId::fresh();
        for _ in 0..3 {
            let next = JobId::after(Some(&last));
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        // Given out while the clock was some thousand years ahead.
        let ahead = JobId::from_text("job-1fffffff-ffff-7000-8000-000000000000".into());
        let next = JobId::after(Some(&ahead));
        assert!(next > ahead, "{next} after {ahead}");
        assert_ne!(next, JobId::after(Some(&ahead)));
    }
}
