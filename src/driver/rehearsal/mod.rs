//! Runs a rehearsal: *intent → effect → outcome*, until [`crate::rehearsal`] says that it has ended.
//!
//! The API begins one, which makes it the active job; the driver's loop calls
//! [`Driver::drive_rehearsal`]. It is nobody's way to anything: an upgrade, a restore and a recovery
//! end it first, and what an interrupted one left is swept up at the next start, never taken up.
//!
//! | file | subject |
//! |---|---|
//! | `steps` | what each step does |
//! | `look` | the shop, as far as a copy is made of it |
//! | `set` | the copy: the database rebuilt, and what else is mounted |
//! | `mounts` | what a version is given of the container's mounts |
//! | `trial` | one version on a copy, watched and judged |
//! | `traces` | what a version leaves: its log, its room on disk |
//! | `room` | memory and space |
//! | `narrate` | what a person is told |

mod look;
mod mounts;
mod narrate;
mod room;
mod set;
mod steps;
mod traces;
mod trial;

pub use narrate::RehearsalView;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::steps::{Steps, Work, place};
use super::{Driver, NotBegun, Progress, durable};
use crate::journal::{
    HopTarget, JobBody, JobId, JournalError, RehearsalRecord, RehearsalSettlement,
};
use crate::machine::Step;
use crate::machine::failure::{Failure, FailureCode};
use crate::names::REHEARSAL_LABEL;
use crate::rehearsal::{Kind, Rehearsal, RehearsalBody, RehearsalOutcome, RehearsalStep};

/// How long one that gives way may take to be swept up.
const GIVES_WAY_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks for containers of it that find none in a row: a request that was dropped half way may
/// still be carried out.
const LOOKS_WITHOUT: u32 = 2;

/// Between two of them.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// Looks at most.
const SWEEPS: u32 = 20;

impl Driver {
    /// Begins a rehearsal of the first stop of what was planned: from here on it is the active job.
    ///
    /// # Errors
    /// When another job is under way, a backup is made by hand, or the last upgrade is still being
    /// watched.
    pub fn begin_rehearsal(
        &self,
        plan: &JobBody,
        first: &HopTarget,
        digest: Option<String>,
    ) -> Result<JobId, NotBegun> {
        if let Some(last) = self.reader.last_executed_job()?
            && last.hop().and_then(|hop| hop.machine.step()) == Some(Step::Probation)
        {
            return Err(NotBegun::Failed(Failure::new(
                FailureCode::ConcurrencyBlocked,
                format!(
                    "the upgrade to {} is still being watched; rehearse when that is over (payram-updater status says until when)",
                    last.body.resolved_target
                ),
            )));
        }
        let body = RehearsalBody {
            kind: Kind::Rehearsal,
            mode: plan.mode.as_str().to_owned(),
            requested_target: plan.requested_target.clone(),
            resolved_target: plan.resolved_target.clone(),
            version: first.version.clone(),
            from_version: plan.from_version.clone(),
            source: plan.source.clone(),
            container: plan.container_name.clone(),
            target: first.target.clone(),
            rules: first.rules.clone(),
            from_rules: plan.from_rules.clone(),
            overlay: plan.overlay_of(1).clone(),
            digest,
            directory: self.settings.rehearsal_dir.to_string_lossy().into_owned(),
        };
        let events = [narrate::started(&body)];
        let job = self.begin(|| self.journal.begin_rehearsal(&body, &events))?;
        tracing::info!(job = %job, version = body.version, "rehearsal accepted");
        self.wake.notify_one();
        Ok(job)
    }

    /// Ends a rehearsal that is under way, for what may not wait for it: an upgrade, a restore, a
    /// recovery.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn make_way(&self, for_what: &'static str) -> Result<(), NotBegun> {
        let Some(active) = self.reader.active_rehearsal()? else { return Ok(()) };
        self.control.give_way(&active.id, for_what);
        self.wake.notify_one();
        if !self.control.is_running() {
            let off = CancellationToken::new();
            off.cancel();
            self.drive_rehearsal(&active, &off).await?;
        }
        let deadline = Instant::now() + GIVES_WAY_WITHIN;
        while self.reader.active_rehearsal()?.is_some_and(|found| found.id == active.id) {
            if Instant::now() >= deadline {
                return Err(NotBegun::Job(active.id));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Runs the steps that are due; answers whether to go on with other work.
    pub(super) async fn drive_rehearsal(
        &self,
        record: &RehearsalRecord,
        off: &CancellationToken,
    ) -> Result<bool, JournalError> {
        let mut rehearsal = record.rehearsal.clone();
        let mut work = Work::default();
        // Whatever was begun by a program that has ended since: what it knew is gone.
        let is_taken_up = record.is_pending
            || rehearsal.step() != Some(RehearsalStep::Pull)
            || self.found_rehearsal.as_ref() == Some(&record.id);
        if is_taken_up && let Some(step) = rehearsal.step() {
            if !record.is_pending {
                self.intend_rehearsal(record, step).await?;
            }
            rehearsal = self
                .settle_rehearsal(record, rehearsal, step, RehearsalOutcome::Interrupted)
                .await?;
        }
        let deadline = Instant::now() + self.settings.rehearsal_within;
        while let Some(step) = rehearsal.step() {
            self.intend_rehearsal(record, step).await?;
            self.control.set_blocked(None);
            let outcome = self.attempt_rehearsal(record, step, (&mut work, deadline), off).await;
            rehearsal = self.settle_rehearsal(record, rehearsal, step, outcome).await?;
        }
        Ok(!self.stop.is_cancelled())
    }

    async fn intend_rehearsal(
        &self,
        record: &RehearsalRecord,
        step: RehearsalStep,
    ) -> Result<(), JournalError> {
        let (journal, job) = (Arc::clone(&self.journal), record.id.clone());
        durable(move || journal.rehearsal_intent(&job, step)).await.map(drop)
    }

    async fn attempt_rehearsal(
        &self,
        record: &RehearsalRecord,
        step: RehearsalStep,
        (work, deadline): (&mut Work, Instant),
        off: &CancellationToken,
    ) -> RehearsalOutcome {
        self.progress.send_replace(Progress::default());
        tracing::info!(job = %record.id, %step, "step begins");
        let steps = Steps { driver: self, record, deadline };
        let effect = AssertUnwindSafe(steps.run(step, work)).catch_unwind();
        let may_be_left = step != RehearsalStep::Sweep;
        let outcome = tokio::select! {
            biased;
            () = off.cancelled(), if may_be_left => self.called_off(record, step),
            () = self.stop.cancelled(), if may_be_left => {
                let message = format!("the updater was told to end at {step}");
                let failure = Failure::new(FailureCode::StepInterrupted, message);
                RehearsalOutcome::CalledOff { failure }
            }
            outcome = effect => outcome.unwrap_or_else(|_| RehearsalOutcome::Failed {
                failure: Failure::new(
                    FailureCode::Unknown,
                    format!("{step}: the updater met a fault of its own; see its log"),
                ),
            }),
        };
        self.progress.send_replace(Progress::default());
        outcome
    }

    /// By whose word it ends.
    fn called_off(&self, record: &RehearsalRecord, step: RehearsalStep) -> RehearsalOutcome {
        let message = match self.control.gives_way_for(&record.id) {
            Some(for_what) => format!("ended at {step} for {for_what}"),
            None => format!("cancelled by the operator at {step}"),
        };
        RehearsalOutcome::CalledOff { failure: Failure::new(FailureCode::Cancelled, message) }
    }

    async fn settle_rehearsal(
        &self,
        record: &RehearsalRecord,
        rehearsal: Rehearsal,
        step: RehearsalStep,
        outcome: RehearsalOutcome,
    ) -> Result<Rehearsal, JournalError> {
        let (outcome, rehearsal) = match rehearsal.clone().apply(outcome.clone()) {
            Ok(after) => (outcome, after),
            // A fault of ours counts as a failed step.
            Err(misplaced) => {
                let failure = Failure::new(FailureCode::Unknown, misplaced.to_string());
                let outcome = RehearsalOutcome::Failed { failure };
                let after = rehearsal.clone().apply(outcome.clone());
                (outcome, after.unwrap_or(rehearsal))
            }
        };
        let ending = rehearsal.step().is_none().then(|| narrate::ending(&record.body, &rehearsal));
        let then = RehearsalSettlement {
            log: narrate::log_lines(step, &outcome, &record.body),
            events: ending
                .iter()
                .map(|ending| narrate::ended(&record.body, &rehearsal, ending))
                .collect(),
            ending,
        };
        for line in &then.log {
            tracing::info!(job = %record.id, %step, "{line}");
        }
        let (journal, job) = (Arc::clone(&self.journal), record.id.clone());
        durable(move || journal.settle_rehearsal(&job, step, &outcome, &then)).await?;
        Ok(rehearsal)
    }

    /// Removes what rehearsals that have ended left: containers and directories. Called when the
    /// loop begins; what can't be removed is told in the log and tried again at the next start.
    pub(super) async fn sweep_ended_rehearsals(&self) -> Result<(), JournalError> {
        let ended = self.reader.ended_rehearsals()?;
        if ended.is_empty() {
            return Ok(());
        }
        let active = self.reader.active_rehearsal()?.map(|record| record.id);
        let left = match self.engine.containers(Some(REHEARSAL_LABEL)).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "whether a rehearsal left containers is not known");
                return Ok(());
            }
        };
        for (job, directory) in ended {
            let is_left = left.iter().any(|one| is_of(&one.labels, &job))
                || place(Path::new(&directory), job.short()).exists();
            if !is_left || active.as_ref() == Some(&job) {
                continue;
            }
            match self.sweep(&job, &directory).await {
                Ok(()) => tracing::info!(%job, "swept up what a rehearsal had left"),
                Err(failure) => tracing::warn!(%job, %failure, "a rehearsal is not swept up"),
            }
        }
        Ok(())
    }

    /// Removes the containers of a rehearsal with what the engine made for them alone, and then its
    /// directory.
    ///
    /// # Errors
    /// What is left, and why.
    async fn sweep(&self, job: &JobId, directory: &str) -> Result<(), Failure> {
        let label = format!("{REHEARSAL_LABEL}={job}");
        let failure = |error: crate::engine::EngineError| Failure::from(&error);
        let (mut looks_without, mut looks) = (0, 0);
        while looks_without < LOOKS_WITHOUT {
            let found = self.engine.containers(Some(&label)).await.map_err(failure)?;
            looks_without = if found.is_empty() { looks_without + 1 } else { 0 };
            looks += 1;
            for container in &found {
                self.engine.kill(&container.id).await.map_err(failure)?;
                match self.engine.remove_with_anonymous(&container.id).await {
                    // Gone, or being removed: the next look says which.
                    Err(error) if !matches!(error.status(), Some(404 | 409)) => {
                        return Err(failure(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            if looks > SWEEPS {
                let message = format!("containers of rehearsal {job} can't be removed");
                return Err(Failure::new(FailureCode::DockerError, message));
            }
            if looks_without < LOOKS_WITHOUT {
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        }
        let root = place(Path::new(directory), job.short());
        let removing = root.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(removing)).await;
        match removed {
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("remove {}: {error}", root.display());
                Err(Failure::new(FailureCode::RuntimeInspectionFailed, message))
            }
            Ok(_) => Ok(()),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

fn is_of(labels: &[(String, String)], job: &JobId) -> bool {
    labels.iter().any(|(key, value)| key == REHEARSAL_LABEL && value == job.as_str())
}
