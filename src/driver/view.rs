//! A job as the API, the commands and `inspect` show it: computed from what the journal folds
//! to whenever it is asked. Pure.

use serde::Serialize;

use super::Progress;
use super::narrate::{closing_message, downtime_seconds};
use super::rehearsal::RehearsalView;
use super::steps::activity;
use super::waits::{WaitsFor, Worker, waits_for, waits_of_restore};
use crate::clock::Timestamp;
use crate::journal::{JobRecord, LastJob, Mode, RehearsalRecord, RestoreRecord, Task};
use crate::machine::facts::{Export, ProbationEnd};
use crate::machine::{JobState, Phase, State};
use crate::rehearsal::RehearsalStep;
use crate::restore::{Place, RestoreStep};

/// The version that the container of this id runs, where it is the old or the next one of the job's
/// last hop.
pub fn version_of(job: &JobRecord, id: &str) -> Option<String> {
    let known = job.hop()?.machine.state().known();
    if known.next.is_some_and(|next| next.id == id) {
        return Some(known.hop.version.clone());
    }
    known.hop.from.clone().filter(|_| known.hop.old.id == id)
}

/// A job as `GET /upgrade/status` shows it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its id.
    pub job_id: String,
    /// Who decided.
    pub mode: String,
    /// Who asked, as it said of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// As asked.
    pub requested_target: String,
    /// The version to end at.
    pub resolved_target: String,
    /// The state of contract section 1.
    pub state: String,
    /// How it failed; empty when it did not.
    pub failure_code: String,
    /// A sentence.
    pub message: String,
    /// The dump, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_path: Option<String>,
    /// The failed version's database, where it was moved aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_database_path: Option<String>,
    /// The file of the rows that the failed version wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_path: Option<String>,
    /// How many rows of it are not in the shop's database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_set_aside: Option<u64>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// The machine's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// The step in hand, of a job that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
    /// What that step does, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<&'static str>,
    /// Of the step in hand, 0 to 100, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// Bytes done of the step in hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<u64>,
    /// Bytes in all, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// The version that served when it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
    /// The versions of the route, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<String>,
    /// Of all hops together, from outside: last good answer before to first good answer after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<f64>,
    /// Of each hop that is known, in the order of `hops`; none of an upgrade of one hop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hop_downtimes: Vec<f64>,
    /// Whether the application answers now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// The version that answers now, where its container is one of this upgrade's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving_version: Option<String>,
    /// Why nothing is done although the job is under way: its journal can't be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// Who must act, and how, when nothing goes on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// The watch after the verdict, of an upgrade that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probation: Option<ProbationView>,
    /// `restore` or `rehearsal`; none of an upgrade.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The report of a rehearsal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalView>,
    /// What was in the place of a restored database, kept under this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_database: Option<String>,
    /// What a person has to do now that it has ended well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<Task>,
    /// For programs: whether the job is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

/// The watch after the verdict, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbationView {
    /// `watching`, `passed`, `nextUpgrade`, `troubled`, `damaged` or `toConfirm`.
    pub state: &'static str,
    /// RFC 3339: until when it is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What was found, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

impl ProbationView {
    /// Of a job whose last hop is verified and has one.
    pub fn of(job: &JobRecord) -> Option<Self> {
        let hop = job.hop()?;
        let State::Verified(verified) = hop.machine.state() else { return None };
        if !verified.is_watched_on() {
            return None;
        }
        let seconds = verified.swapped.backed_up.hop.probation_seconds.unwrap_or_default();
        let Some(probation) = &verified.probation else {
            let (at, _) = hop.transitions.iter().rev().find(|(_, t)| t.to == Phase::Verified)?;
            let until = at.millis().saturating_add(i64::try_from(seconds).ok()? * 1000);
            let until = Some(Timestamp::from_millis(until).rfc3339());
            return Some(Self { state: "watching", until, findings: Vec::new() });
        };
        let state = match probation.end {
            ProbationEnd::Passed => "passed",
            ProbationEnd::NextUpgrade => "nextUpgrade",
            ProbationEnd::Troubled => "troubled",
            ProbationEnd::Damaged => "damaged",
            ProbationEnd::ToConfirm => "toConfirm",
        };
        Some(Self { state, until: None, findings: probation.findings.clone() })
    }

    /// For a person.
    pub fn sentence(&self) -> String {
        let kept = "the old container, its image and the restore point are kept";
        match &self.until {
            Some(until) => format!("it is watched until {until}; {kept} until then"),
            None => format!("after the verdict: {}; {kept}", self.findings.join("; ")),
        }
    }
}

impl JobView {
    /// When there was never a job.
    pub fn idle() -> Self {
        Self { state: JobState::Idle.as_str().to_owned(), ..Self::default() }
    }

    /// Of a job; `progress` of the step in hand.
    pub fn of(job: &JobRecord, progress: Progress) -> Self {
        let hop = job.hop();
        let known = hop.map(|hop| hop.machine.state().known());
        let is_active = job.is_active();
        let step = hop.filter(|_| is_active).and_then(|hop| hop.machine.step());
        let has_bytes = step.is_some() && progress.done_bytes > 0;
        let downtime: Vec<f64> =
            job.hops.iter().filter_map(|hop| downtime_seconds(&hop.machine)).collect();
        Self {
            job_id: job.id.to_string(),
            mode: job.body.mode.as_str().to_owned(),
            source: job.body.source.clone(),
            requested_target: job.body.requested_target.clone(),
            resolved_target: job.body.resolved_target.clone(),
            state: job.state().as_str().to_owned(),
            failure_code: failure_code(job),
            message: message(job),
            backup_path: known.and_then(|known| known.backup).map(|backup| backup.path.clone()),
            failed_database_path: known
                .and_then(|known| known.restored)
                .map(|restored| restored.failed.clone()),
            export_path: known.and_then(|known| known.export).and_then(file_of),
            rows_set_aside: known.and_then(|known| known.export).and_then(rows_of),
            created_at: job.created.rfc3339(),
            updated_at: job.updated.rfc3339(),
            phase: Some(job.phase().as_str()),
            step: step.map(|step| step.as_str()),
            activity: step.map(activity),
            progress: if has_bytes { progress.percent() } else { None },
            done_bytes: has_bytes.then_some(progress.done_bytes),
            total_bytes: (has_bytes && progress.total_bytes > 0).then_some(progress.total_bytes),
            from_version: job.body.from_version.clone(),
            hops: job.body.hops.iter().map(|hop| hop.version.clone()).collect(),
            downtime_seconds: (!downtime.is_empty()).then(|| downtime.iter().sum()),
            hop_downtimes: if job.body.hops.len() > 1 { downtime } else { Vec::new() },
            serving: None,
            serving_version: None,
            blocked: None,
            waits_for: waits_for(job, Worker::AtWork),
            probation: ProbationView::of(job),
            kind: None,
            rehearsal: None,
            kept_database: None,
            afterwards: match job.phase() {
                Phase::Verified if !is_active => job.body.afterwards.clone(),
                _ => Vec::new(),
            },
            active: Some(is_active),
        }
    }

    /// Of a restore. Its phases are those of an upgrade: planned as long as nothing was changed,
    /// swapped once the backup's database has the place, verified at a good end.
    pub fn of_restore(job: &RestoreRecord, progress: Progress) -> Self {
        let (body, restore) = (&job.body, &job.restore);
        let is_active = job.is_active();
        let step = restore.step().filter(|_| is_active);
        let failure_code = job.ending.as_ref().and_then(|ending| ending.failure_code);
        let state = match (&job.ending, failure_code, step) {
            (Some(_), Some(_), _) => JobState::Failed,
            (Some(_), None, _) => JobState::Ready,
            (None, _, Some(RestoreStep::Verify)) => JobState::Verifying,
            (None, _, Some(RestoreStep::Load)) if !job.is_pending => JobState::Ready,
            (None, _, _) => JobState::Executing,
        };
        let phase = match (&job.ending, restore.place) {
            (Some(_), _) if restore.stuck.is_some() => Phase::NeedsOperator,
            (Some(_), _) if failure_code.is_none() => Phase::Verified,
            (None, _) if restore.failure.is_some() => Phase::RollingBack,
            (_, Place::Backup) => Phase::Swapped,
            (_, Place::PresentAgain) => Phase::RolledBack,
            (_, Place::Present) => Phase::Planned,
        };
        let has_bytes = step.is_some() && progress.done_bytes > 0;
        Self {
            job_id: job.id.to_string(),
            mode: Mode::Manual.as_str().to_owned(),
            state: state.as_str().to_owned(),
            failure_code: failure_code.map(|code| code.to_string()).unwrap_or_default(),
            message: match (&job.ending, step) {
                (Some(ending), _) => ending.message.clone(),
                (None, Some(step)) => step.activity().to_owned(),
                (None, None) => String::new(),
            },
            backup_path: Some(body.file.clone()),
            created_at: job.created.rfc3339(),
            updated_at: job.updated.rfc3339(),
            phase: Some(phase.as_str()),
            step: step.map(RestoreStep::as_str),
            activity: step.map(RestoreStep::activity),
            progress: if has_bytes { progress.percent() } else { None },
            done_bytes: has_bytes.then_some(progress.done_bytes),
            total_bytes: (has_bytes && progress.total_bytes > 0).then_some(progress.total_bytes),
            from_version: body.serving_version.clone(),
            downtime_seconds: restore.downtime_seconds(),
            waits_for: waits_of_restore(job),
            kind: Some("restore"),
            kept_database: (restore.place == Place::Backup).then(|| body.aside.clone()),
            active: Some(is_active),
            ..Self::default()
        }
    }

    /// Of a rehearsal, which has no phase: nothing of the shop is ever changed by it.
    pub fn of_rehearsal(job: &RehearsalRecord, progress: Progress) -> Self {
        let (body, is_active) = (&job.body, job.is_active());
        let step = job.rehearsal.step().filter(|_| is_active);
        let failure_code = job.ending.as_ref().and_then(|ending| ending.failure_code);
        let state = match (&job.ending, failure_code, step) {
            (Some(_), Some(_), _) => JobState::Failed,
            (Some(_), None, _) => JobState::Ready,
            (None, _, Some(RehearsalStep::Pull)) if !job.is_pending => JobState::Ready,
            (None, _, _) => JobState::Executing,
        };
        let has_bytes = step.is_some() && progress.done_bytes > 0;
        Self {
            job_id: job.id.to_string(),
            mode: body.mode.clone(),
            source: body.source.clone(),
            requested_target: body.requested_target.clone(),
            resolved_target: body.resolved_target.clone(),
            state: state.as_str().to_owned(),
            failure_code: failure_code.map(|code| code.to_string()).unwrap_or_default(),
            message: match (&job.ending, step) {
                (Some(ending), _) => ending.message.clone(),
                (None, Some(step)) => step.activity().to_owned(),
                (None, None) => String::new(),
            },
            created_at: job.created.rfc3339(),
            updated_at: job.updated.rfc3339(),
            step: step.map(RehearsalStep::as_str),
            activity: step.map(RehearsalStep::activity),
            progress: if has_bytes { progress.percent() } else { None },
            done_bytes: has_bytes.then_some(progress.done_bytes),
            total_bytes: (has_bytes && progress.total_bytes > 0).then_some(progress.total_bytes),
            from_version: body.from_version.clone(),
            hops: vec![body.version.clone()],
            kind: Some("rehearsal"),
            rehearsal: Some(RehearsalView::of(job)),
            active: Some(is_active),
            ..Self::default()
        }
    }

    /// The same of a job of whichever kind.
    pub fn of_last(job: &LastJob, progress: Progress, worker: Worker<'_>) -> Self {
        match (job, worker) {
            (LastJob::Upgrade(job), worker) => Self::with(job, progress, worker),
            (LastJob::Restore(job), Worker::Blocked(reason)) if job.is_active() => {
                let blocked = Some(reason.to_owned());
                Self { blocked, ..Self::of_restore(job, progress) }
            }
            (LastJob::Restore(job), _) => Self::of_restore(job, progress),
            (LastJob::Rehearsal(job), Worker::Blocked(reason)) if job.is_active() => {
                let blocked = Some(reason.to_owned());
                Self { blocked, ..Self::of_rehearsal(job, progress) }
            }
            (LastJob::Rehearsal(job), _) => Self::of_rehearsal(job, progress),
        }
    }

    /// The same, where the one that should work on it may not.
    pub fn with(job: &JobRecord, progress: Progress, worker: Worker<'_>) -> Self {
        let mut view = Self::of(job, progress);
        view.waits_for = waits_for(job, worker);
        match (worker, &view.waits_for) {
            (Worker::Holds, Some(waits)) if job.is_active() => {
                view.message = waits.sentence();
                // No step is in hand.
                (view.activity, view.progress) = (None, None);
                (view.done_bytes, view.total_bytes) = (None, None);
            }
            (Worker::Blocked(reason), _) if job.is_active() => {
                view.blocked = Some(reason.to_owned());
            }
            (_, _) => {}
        }
        view
    }
}

/// The file of an export, when there is one.
pub(crate) fn file_of(export: &Export) -> Option<String> {
    match export {
        Export::Written { path, .. } => Some(path.clone()),
        Export::Nothing | Export::Missing { .. } => None,
    }
}

/// How many rows of the failed version are in that file and not in the shop's database.
fn rows_of(export: &Export) -> Option<u64> {
    match export {
        Export::Written { tables, .. } => Some(tables.iter().map(|it| it.set_aside()).sum()),
        Export::Nothing => Some(0),
        Export::Missing { .. } => None,
    }
}

/// The code of a job that ended badly; empty otherwise.
fn failure_code(job: &JobRecord) -> String {
    let code = job.ending.as_ref().and_then(|ending| ending.failure_code);
    code.map(|code| code.to_string()).unwrap_or_default()
}

fn message(job: &JobRecord) -> String {
    match (&job.ending, job.hop()) {
        (Some(ending), _) => ending.message.clone(),
        (None, Some(hop)) => match hop.machine.step() {
            Some(step) => activity(step).to_owned(),
            None => closing_message(&hop.machine),
        },
        (None, None) => format!("upgrade to {} is about to begin", job.body.resolved_target),
    }
}
