//! The daemon's answers, as far as the commands read them. What is missing is empty: an older
//! or newer daemon may answer. Where JSON is asked for, the answer itself is passed on.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Exit;
use super::client::ClientError;
use crate::machine::{JobState, Phase};

/// A job (contract section 1).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Job {
    pub job_id: String,
    pub mode: String,
    pub requested_target: String,
    pub resolved_target: String,
    pub state: String,
    pub failure_code: String,
    pub message: String,
    pub backup_path: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub phase: Option<String>,
    pub step: Option<String>,
    pub activity: Option<String>,
    pub progress: Option<f64>,
    pub done_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub from_version: Option<String>,
    pub hops: Vec<String>,
    pub downtime_seconds: Option<f64>,
    pub hop_downtimes: Vec<f64>,
    pub serving: Option<bool>,
    pub serving_version: Option<String>,
    pub blocked: Option<String>,
    pub waits_for: Option<WaitsFor>,
    pub active: Option<bool>,
    pub probation: Option<Probation>,
    pub rows_set_aside: Option<u64>,
    pub afterwards: Vec<Task>,
    pub recovery_playbook: Option<Playbook>,
    pub auto_update: Option<AutoUpdate>,
    pub kind: Option<String>,
    pub kept_database: Option<String>,
    pub rehearsal: Option<super::report::Report>,
}

/// What auto-update does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AutoUpdate {
    pub enabled: bool,
    pub interval_hours: Option<u32>,
    pub last_look: Option<String>,
    pub message: Option<String>,
    pub error: Option<String>,
}

impl AutoUpdate {
    /// For a person; none where it is off and nobody wanted it otherwise.
    pub(super) fn sentence(&self) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(format!("off: {error}"));
        }
        let hours = self.interval_hours.unwrap_or_default();
        let why = self.message.as_deref().unwrap_or("has not looked yet");
        let last = self.last_look.as_deref().map(super::screen::date_time);
        let last = last.map(|last| format!("; looked {last} UTC")).unwrap_or_default();
        self.enabled.then(|| format!("every {hours} h, {why}{last}"))
    }
}

/// Who must act, and how, when nothing goes on by itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WaitsFor {
    pub who: String,
    pub how: Vec<String>,
}

/// The watch after a verdict.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Probation {
    pub state: String,
    pub until: Option<String>,
    pub findings: Vec<String>,
}

impl Probation {
    /// For a person; none when there is nothing to say any more.
    pub(super) fn sentence(&self) -> Option<String> {
        let kept = "the old container and the restore point are kept";
        match (&self.until, self.findings.is_empty()) {
            (Some(until), _) => {
                let until = super::screen::date_time(until);
                Some(format!("until {until} UTC; {kept} until then"))
            }
            (None, false) => Some(format!(
                "{}; {kept}; what can be done: payram-updater recover",
                self.findings.join("; ")
            )),
            (None, true) => None,
        }
    }
}

impl Job {
    /// Whether there was never a job.
    pub(super) fn is_none(&self) -> bool {
        self.state == JobState::Idle.as_str() || self.job_id.is_empty()
    }

    /// The machine's state, when it is one that this program knows.
    pub(super) fn phase(&self) -> Option<Phase> {
        let name = self.phase.as_deref()?;
        Phase::ALL.into_iter().find(|phase| phase.as_str() == name)
    }

    /// Whether the job is under way: every state but `IDLE`, `FAILED` and a finished `READY`.
    pub(super) fn is_active(&self) -> bool {
        if self.is_none() || self.state == JobState::Failed.as_str() {
            return false;
        }
        let has_finished =
            self.state == JobState::Ready.as_str() && self.phase() == Some(Phase::Verified);
        self.active.unwrap_or(!has_finished)
    }

    /// The exit code of a job that has ended.
    pub(super) fn exit(&self) -> Exit {
        if self.state != JobState::Failed.as_str() && self.failure_code.is_empty() {
            return Exit::Done;
        }
        match self.phase() {
            Some(Phase::RolledBack) => Exit::RolledBack,
            Some(Phase::NeedsOperator) => Exit::NeedsOperator,
            Some(
                Phase::Planned
                | Phase::BackedUp
                | Phase::Pulled
                | Phase::Swapped
                | Phase::Verified
                | Phase::RollingBack,
            )
            | None => Exit::Failed,
        }
    }

    /// Whether it is no upgrade but a restore.
    pub(super) fn is_restore(&self) -> bool {
        self.kind.as_deref() == Some("restore")
    }

    /// Whether it is no upgrade but a rehearsal.
    pub(super) fn is_rehearsal(&self) -> bool {
        self.kind.as_deref() == Some("rehearsal")
    }

    /// `1.9.6 → 1.9.7`, `restore of FILE`, or `rehearsal of 1.9.7`.
    pub(super) fn way(&self) -> String {
        if self.is_restore() {
            let path = self.backup_path.as_deref().unwrap_or_default();
            return format!("restore of {}", path.rsplit('/').next().unwrap_or_default());
        }
        if let Some(rehearsal) = &self.rehearsal {
            return format!("rehearsal of {}", rehearsal.version);
        }
        let to = match self.resolved_target.as_str() {
            "" => &self.requested_target,
            resolved => resolved,
        };
        match self.from_version.as_deref() {
            Some(from) if !from.is_empty() => format!("{from} → {to}"),
            Some(_) | None => to.to_owned(),
        }
    }
}

/// What to do about a failure (contract section 10).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Playbook {
    pub code: String,
    pub severity: String,
    pub title: String,
    pub user_message: String,
    pub ssh_steps: Vec<String>,
    pub docs_url: Option<String>,
    pub data_risk: String,
    pub backup_path: Option<String>,
}

/// `GET /upgrade/playbook`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PlaybookAnswer {
    pub playbook: Option<Playbook>,
}

/// `POST /upgrade/plan`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Plan {
    pub state: String,
    pub mode: String,
    pub requested_target: String,
    pub resolved_target: String,
    pub failure_code: String,
    pub message: String,
    pub image_repo: String,
    pub container_name: String,
    pub from_version: Option<String>,
    pub route: Vec<RouteHop>,
    pub stopped_at: Option<StoppedAt>,
    pub checks: Vec<Check>,
    pub owners: Vec<Owner>,
    pub afterwards: Vec<Task>,
    pub on_failure: Option<String>,
    pub expected_downtime_seconds: Option<f64>,
    pub expected_downtime_from: Option<String>,
    pub notes: Vec<String>,
    pub quarantined: Vec<Quarantined>,
    pub plan_hash: Option<String>,
}

impl Plan {
    /// Whether it can't be run.
    pub(super) fn is_refused(&self) -> bool {
        self.state != JobState::Ready.as_str()
    }
}

/// A version of a plan's route that failed on this host before.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Quarantined {
    pub version: String,
    pub failure_code: String,
}

/// A hop of a plan's route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RouteHop {
    pub version: String,
    pub image: String,
    pub why: String,
}

/// The gate that ends a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StoppedAt {
    pub version: String,
    pub reason: Option<String>,
    pub docs: Option<String>,
}

/// A check of the preflight.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Check {
    pub name: String,
    pub passed: bool,
    pub message: String,
    pub need_bytes: Option<u64>,
    pub have_bytes: Option<u64>,
}

/// Something that a person does once an upgrade has ended well.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Task {
    pub what: String,
    pub command: Option<String>,
}

/// Somebody else who manages the container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Owner {
    pub name: String,
    pub refuses: bool,
    pub message: String,
    pub hand_over: Vec<String>,
}

/// `POST /upgrade/run`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RunAnswer {
    pub job_id: String,
    pub state: String,
    pub failure_code: String,
    pub message: String,
}

/// `GET /upgrade/jobs`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Jobs {
    pub jobs: Vec<Job>,
}

/// `POST /upgrade/cancel`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CancelAnswer {
    pub message: String,
}

/// `GET /upgrade/logs?format=json`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LogAnswer {
    pub job_id: String,
    pub lines: Vec<LogLine>,
}

/// A line of a job's log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LogLine {
    pub seq: i64,
    pub at: String,
    pub text: String,
}

/// `GET /upgrade/history`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HistoryAnswer {
    pub events: Vec<HistoryEvent>,
}

/// An event of the history.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HistoryEvent {
    pub timestamp: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub message: String,
}

/// Reads an answer as the shape it should have.
pub(super) fn read<T: DeserializeOwned>(
    path: &'static str,
    value: &Value,
) -> Result<T, ClientError> {
    T::deserialize(value).map_err(|error| ClientError::Protocol { path, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, phase: &str, code: &str) -> Job {
        Job {
            job_id: "job-1".into(),
            state: state.into(),
            phase: Some(phase.into()),
            failure_code: code.into(),
            ..Job::default()
        }
    }

    #[test]
    fn the_exit_code_says_where_the_merchant_is() {
        assert_eq!(job("READY", "VERIFIED", "").exit(), Exit::Done);
        assert_eq!(job("FAILED", "ROLLED_BACK", "HEALTHCHECK_FAILED").exit(), Exit::RolledBack);
        assert_eq!(job("FAILED", "NEEDS_OPERATOR", "MIGRATION_FAILED").exit(), Exit::NeedsOperator);
        assert_eq!(job("FAILED", "PLANNED", "DOCKER_ERROR").exit(), Exit::Failed);
        assert_eq!(job("FAILED", "VERIFIED", "POLICY_FETCH_FAILED").exit(), Exit::Failed);
        assert_eq!(job("FAILED", "SOMETHING_NEWER", "X").exit(), Exit::Failed);
    }

    #[test]
    fn a_ready_job_is_active_until_it_has_finished() {
        assert!(job("READY", "PLANNED", "").is_active());
        assert!(job("EXECUTING", "ROLLING_BACK", "").is_active());
        assert!(!job("READY", "VERIFIED", "").is_active());
        assert!(!job("FAILED", "ROLLED_BACK", "X").is_active());
        assert!(!Job { state: "IDLE".into(), ..Job::default() }.is_active());
        let dry_run = Job { active: Some(false), ..job("READY", "PLANNED", "") };
        assert!(!dry_run.is_active());
    }
}
