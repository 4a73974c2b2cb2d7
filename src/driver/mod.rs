//! Runs jobs: *intent → effect → outcome → transition*, until the machine rests.
//!
//! The daemon owns one [`Driver`] under the state lock. `api` submits plans to it and reads
//! the journal beside it; the driver is the only one that writes. Which job is run, and when, is
//! here; `hop` runs the hops of one. What to do is the machine's decision, how to do it is in
//! `effects`, what to tell a person about it in `narrate`.

mod backup;
mod cleanup;
mod context;
mod control;
mod copy_out;
mod effects;
mod hop;
mod lock;
mod measured;
mod narrate;
mod planned;
mod prepare;
mod quarantine;
mod recover;
mod recovery;
mod rehearsal;
mod restore;
mod restore_effects;
mod restore_narrate;
mod set_aside;
mod shop;
mod steps;
mod sync;
mod view;
mod waits;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Resume, Settings};
use crate::engine::Engine;
use crate::journal::{
    Ending, JobBody, JobId, JobRecord, Journal, JournalError, LastJob, NewEvent, Reader,
    RehearsalRecord, RestoreRecord,
};
use crate::machine::facts::ProbationEnd;
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Phase, Step};

use control::{Control, Why};

pub use backup::{CopyEnd, MadeBackup, NotBegun};
pub use cleanup::{Cleaned, CleanupError, Rubbish};
pub use lock::{LockError, StateLock};
pub use measured::{Measured, last_downtime};
pub use narrate::{closing_message, downtime_seconds};
pub use planned::make_plan;
pub use recover::RecoverError;
pub use recovery::{
    Consent, CopySeen, Decision, Good, Hand, Later, Names, Remedy, Seen, Serving, Sight, Stranger,
    World, decide, look,
};
pub use rehearsal::RehearsalView;
pub use restore::RestorePlan;
pub use steps::activity;
pub(crate) use view::file_of;
pub use view::{JobView, ProbationView, version_of};
pub use waits::{WaitsFor, Worker, may_turn, waits_for};

/// Before the journal is tried again after it could not be read or written.
const JOURNAL_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Before tidying is tried again; it is doubled each time, up to the second of them.
const TIDY_PAUSE: Duration = Duration::from_secs(5);
const TIDY_PAUSE_AT_MOST: Duration = Duration::from_secs(60 * 60);

/// How far the step in hand is; shown while it runs, kept nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, as far as known; 0 when unknown.
    pub total_bytes: u64,
}

impl Progress {
    /// Of 100, when the whole is known.
    pub fn percent(&self) -> Option<u8> {
        (self.total_bytes > 0)
            .then(|| ((self.done_bytes.min(self.total_bytes)) * 100 / self.total_bytes) as u8)
    }
}

/// The one that runs jobs.
pub struct Driver {
    settings: Arc<Settings>,
    engine: Arc<dyn Engine>,
    journal: Arc<Journal>,
    reader: Reader,
    progress: Arc<watch::Sender<Progress>>,
    wake: Notify,
    stop: CancellationToken,
    /// What it was told.
    control: Control,
    /// The job that was under way before this program began.
    found: Option<JobId>,
    /// The restore that was.
    found_restore: Option<JobId>,
    /// The rehearsal that was.
    found_rehearsal: Option<JobId>,
    /// Whether a backup is being made by hand; no job begins while it is.
    by_hand: Mutex<bool>,
    /// How far it is.
    backup_progress: watch::Sender<Option<Progress>>,
    /// The run of a container that the watch after a verdict saw last: of what brought it about
    /// the engine forgets after a while.
    watched_run: Mutex<String>,
    _lock: StateLock,
}

impl Driver {
    /// A driver over this journal; the lock proves that nobody else writes to it.
    ///
    /// # Errors
    /// When the journal can't be opened.
    pub fn new(
        settings: Arc<Settings>,
        engine: Arc<dyn Engine>,
        lock: StateLock,
        stop: CancellationToken,
    ) -> Result<Self, JournalError> {
        let path = settings.journal_path();
        let journal = Arc::new(Journal::open(&path)?);
        let reader = Reader::open(&path)?;
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let found = reader.active_job()?.map(|job| job.id);
        let found_restore = reader.active_restore()?.map(|job| job.id);
        let found_rehearsal = reader.active_rehearsal()?.map(|job| job.id);
        let is_released = settings.resume != Resume::Manual || found.is_none();
        Ok(Self {
            settings,
            engine,
            journal,
            reader,
            progress,
            wake: Notify::new(),
            stop,
            control: Control::new(is_released),
            found,
            found_restore,
            found_rehearsal,
            by_hand: Mutex::new(false),
            backup_progress: watch::Sender::new(None),
            watched_run: Mutex::default(),
            _lock: lock,
        })
    }

    /// Accepts a job; it begins at once. A dry run is journaled and at rest already. What its plan
    /// noted is in its log.
    ///
    /// # Errors
    /// When one is active (I8), or a backup is being made by hand.
    pub fn submit(&self, body: &JobBody, notes: &[String]) -> Result<JobId, NotBegun> {
        let ending = body.dry_run.then(|| Ending {
            failure_code: None,
            message: format!(
                "dry run: stopped after the plan to {}, nothing was changed",
                body.resolved_target
            ),
        });
        let events = [narrate::upgrade_started(body)];
        let job = self.begin(|| self.journal.begin(body, &events, ending.as_ref()))?;
        tracing::info!(job = %job, target = body.resolved_target, "job accepted");
        for note in notes {
            self.journal.log(&job, None, &format!("plan: {note}"))?;
        }
        self.wake.notify_one();
        Ok(job)
    }

    /// Journals events that belong to no job.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub async fn note(&self, events: Vec<NewEvent>) -> Result<(), JournalError> {
        let journal = Arc::clone(&self.journal);
        durable(move || journal.note(&events)).await
    }

    /// Cancels a job that is under way and not yet verified, also one that is not being worked on:
    /// it goes back as after a failure. Another job is not touched.
    pub fn cancel(&self, job: &JobId) {
        self.control.cancel(job);
        if self.found.as_ref() == Some(job) {
            self.control.release();
        }
        self.wake.notify_one();
    }

    /// What becomes of a job that is under way, as far as it is this program's.
    pub fn with_worker<T>(&self, then: impl FnOnce(Worker<'_>) -> T) -> T {
        let blocked = self.blocked();
        then(match &blocked {
            Some(reason) => Worker::Blocked(reason),
            None if !self.control.is_released() => Worker::Holds,
            None => Worker::AtWork,
        })
    }

    /// A job as it is shown, with the progress of the step in hand.
    pub fn view(&self, job: &JobRecord) -> JobView {
        self.with_worker(|worker| JobView::with(job, self.progress(), worker))
    }

    /// The same of a job of whichever kind.
    pub fn view_last(&self, job: &LastJob) -> JobView {
        self.with_worker(|worker| JobView::of_last(job, self.progress(), worker))
    }

    /// The progress of the step in hand.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Why nothing is done: the journal can't be used (I3). None while it can.
    pub fn blocked(&self) -> Option<String> {
        self.control.blocked()
    }

    /// Resumes what is unfinished, then runs jobs as they come, until told to stop. Ends
    /// between two steps, with everything journaled.
    pub async fn run(&self) {
        self.control.begins_to_run();
        if let Err(error) = self.sweep_ended_rehearsals().await {
            tracing::warn!(%error, "whether a rehearsal left something is not known");
        }
        let mut tidies_in = TIDY_PAUSE;
        while !self.stop.is_cancelled() {
            let pause = match self.work().await {
                Ok(is_tidy) => {
                    self.control.set_blocked(None);
                    let pause = (!is_tidy).then_some(tidies_in);
                    tidies_in =
                        if is_tidy { TIDY_PAUSE } else { TIDY_PAUSE_AT_MOST.min(tidies_in * 2) };
                    pause
                }
                Err(error) => {
                    self.control.set_blocked(Some(error.to_string()));
                    // Without a journal nothing may be done (I3): wait until it is back.
                    tracing::error!(%error, "the journal can't be used; nothing is done until it can");
                    Some(JOURNAL_RETRY_PAUSE)
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Runs what is unfinished until it rests; for a command that works without a daemon.
    ///
    /// # Errors
    /// When the journal can't be read or written.
    pub async fn run_to_rest(&self) -> Result<(), JournalError> {
        self.work().await.map(drop)
    }

    /// Returns whether nothing is left to do after the last upgrade.
    async fn work(&self) -> Result<bool, JournalError> {
        loop {
            if let Some(restore) = self.reader.active_restore()? {
                if !self.take_up_restore(&restore).await? {
                    return Ok(true);
                }
                continue;
            }
            if let Some(rehearsal) = self.reader.active_rehearsal()? {
                if !self.take_up_rehearsal(&rehearsal).await? {
                    return Ok(true);
                }
                continue;
            }
            let Some(job) = self.reader.active_job()? else { break };
            if !self.control.is_released() {
                self.tell_that_it_waits(&job).await?;
                return Ok(true);
            }
            // A new version that may serve already is verified, or goes back by itself.
            let is_before_swap = may_be_called_off(job.phase()) && job.phase() != Phase::Swapped;
            let by_setting = self.settings.resume == Resume::Rollback && self.is_found(&job);
            let token = self.control.take_in_hand(&job.id, |why| match why {
                Why::Cancelled => may_be_called_off(job.phase()),
                Why::TurnedBack => is_before_swap,
                Why::Nobody => is_before_swap && by_setting,
            });
            let ran = self.drive(&job, &token).await;
            self.control.lay_down();
            if !ran? {
                return Ok(true);
            }
        }
        self.wind_up_the_last().await
    }

    /// Answers whether to go on.
    async fn take_up_restore(&self, restore: &RestoreRecord) -> Result<bool, JournalError> {
        let token = self.control.take_in_hand(&restore.id, |why| why == Why::Cancelled);
        let ran = self.drive_restore(restore, &token).await;
        self.control.lay_down();
        ran
    }

    /// Answers whether to go on.
    async fn take_up_rehearsal(&self, rehearsal: &RehearsalRecord) -> Result<bool, JournalError> {
        let token = self.control.take_in_hand(&rehearsal.id, |why| why == Why::Cancelled);
        let ran = self.drive_rehearsal(rehearsal, &token).await;
        self.control.lay_down();
        ran
    }

    /// Once, where every watcher reads it.
    async fn tell_that_it_waits(&self, job: &JobRecord) -> Result<(), JournalError> {
        if self.control.has_told() {
            return Ok(());
        }
        let Some(waits) = waits_for(job, Worker::Holds) else { return Ok(()) };
        let (journal, id, line) = (Arc::clone(&self.journal), job.id.clone(), waits.sentence());
        tracing::warn!(job = %job.id, "{line}");
        let events = [narrate::waiting(job, &line)];
        durable(move || {
            journal.log(&id, None, &line)?;
            journal.note_of(&id, &events)
        })
        .await
    }

    /// Whose word calls this job off: a person's, or a setting's after a restart.
    fn who_calls_off(&self, job: &JobId) -> &'static str {
        match self.control.is_persons_word(job) {
            true => "the operator",
            false => "RESUME=rollback, after a restart,",
        }
    }

    /// Whether this job was under way before this program began.
    fn is_found(&self, job: &JobRecord) -> bool {
        self.found.as_ref() == Some(&job.id)
    }

    /// The watch over the last upgrade goes on where it was, then what is not needed any more is
    /// tidied away; what did not come to its end is tried again, at every start and after a pause:
    /// the new version may only be starting, as after a reboot. Returns whether it has come to its
    /// end.
    async fn wind_up_the_last(&self) -> Result<bool, JournalError> {
        let Some(job) = self.reader.last_executed_job()? else { return Ok(true) };
        let step = |job: &JobRecord| job.hop().and_then(|hop| hop.machine.step());
        // A command that works without a daemon does not stay that long.
        if step(&job) == Some(Step::Probation) && !self.control.is_running() {
            return Ok(true);
        }
        self.wind_up(&job, false).await?;
        let last = self.reader.last_executed_job()?;
        Ok(last.as_ref().and_then(step).is_none())
    }
}

/// Where a failed version's database is moved to: beside the one in use, so that a rename does.
fn failed_path(source: &str, job: &JobId, hop: usize) -> String {
    format!("{source}.failed-{}-{hop}", job.short())
}

/// What a failed version's database is called where its server is outside of the container: letters
/// and digits that need no quotes.
fn failed_database(job: &JobId, hop: usize) -> String {
    format!("payram_failed_{}_{hop}", job.short())
}

/// Where the rows that a failed version wrote are exported to: beside its database.
fn export_path(failed: &str) -> String {
    format!("{failed}.rows.sql")
}

fn may_be_called_off(phase: Phase) -> bool {
    matches!(phase, Phase::Planned | Phase::BackedUp | Phase::Pulled | Phase::Swapped)
}

/// Why no upgrade may begin after this one: a person must decide about it first.
pub fn refusal_after(last: &JobRecord) -> Option<Failure> {
    let is_put_right = last.ending.as_ref().is_some_and(|ending| ending.failure_code.is_none());
    let is_left = last.phase() == Phase::NeedsOperator && !last.is_active() && !is_put_right;
    // A directory that two servers worked on is no ground for another upgrade.
    let probation = last.hop().and_then(|hop| hop.machine.state().known().probation);
    let is_damaged = probation.is_some_and(|found| found.end == ProbationEnd::Damaged);
    (is_left || is_damaged).then(|| {
        Failure::new(
            FailureCode::RecoveryRequired,
            format!(
                "the upgrade to {} stopped and needs a decision first: payram-updater recover",
                last.body.resolved_target
            ),
        )
    })
}

/// Runs a journal write where it may block.
async fn durable<T: Send + 'static>(
    write: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    match tokio::task::spawn_blocking(write).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
