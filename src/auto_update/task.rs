//! The task that looks for a new version and begins the upgrade to it.
//!
//! Started by `serve` beside the API. It changes nothing itself: it plans as a dashboard does and
//! hands the plan to the driver, which takes one job at a time (I8).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::decide::{Decision, Seen, decide};
use super::stored::Stored;
use super::view::{last_look, newest};
use super::{AUTO_UPDATE, FAILED, STARTED, SUCCEEDED, WAITING};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::config::window::Local;
use crate::driver::{Driver, NotBegun, make_plan};
use crate::engine::Engine;
use crate::journal::{HistoryEvent, JobRecord, JournalError, Mode, NewEvent, Quarantined, Reader};
use crate::machine::failure::FailureCode;
use crate::plan::{Plan, Request};

/// Between two decisions; most of them are that nothing is due.
const WAKES_EVERY: Duration = Duration::from_secs(5);

/// What the journal says of a job that was begun here.
const SOURCE: &str = "auto-update";

/// The one that looks.
pub struct AutoUpdate {
    settings: Arc<Settings>,
    engine: Arc<dyn Engine>,
    driver: Arc<Driver>,
    reader: Arc<Reader>,
    stop: CancellationToken,
}

/// What the journal says.
struct Recorded {
    last_look: Option<Timestamp>,
    newest: Option<HistoryEvent>,
    last_job: Option<JobRecord>,
    quarantined: Vec<Quarantined>,
}

impl AutoUpdate {
    /// One that has this driver upgrade.
    pub fn new(
        settings: Arc<Settings>,
        engine: Arc<dyn Engine>,
        driver: Arc<Driver>,
        reader: Arc<Reader>,
        stop: CancellationToken,
    ) -> Self {
        Self { settings, engine, driver, reader, stop }
    }

    /// Looks whenever a look is due, until told to stop.
    pub async fn run(self) {
        // What was said last, so that the log is not filled with it.
        let mut complained = String::new();
        while !self.stop.is_cancelled() {
            match self.turn().await {
                Ok(()) => complained.clear(),
                Err(error) => {
                    let complaint = error.to_string();
                    if complaint != complained {
                        tracing::warn!("auto-update does nothing: {complaint}");
                        complained = complaint;
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(WAKES_EVERY) => {}
            }
        }
    }

    async fn turn(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Some(stored) = Stored::read(&self.settings.state_dir)?.filter(|it| it.enabled) else {
            return Ok(());
        };
        let recorded = self.read().await?;
        let now = Timestamp::now();
        let decision = decide(&Seen {
            now,
            local: Local::at(now),
            stored: &stored,
            window: &self.settings.auto_update_window,
            last_look: recorded.last_look,
            last_job: recorded.last_job.as_ref(),
        });
        match decision {
            Decision::Off | Decision::NotDue(_) => {}
            Decision::Waits(reason) => {
                // Once for each thing that is waited for, restarts included.
                let is_told = recorded
                    .newest
                    .is_some_and(|event| event.status == WAITING && event.message == reason);
                if !is_told {
                    self.note(WAITING, reason, &[]).await?;
                }
            }
            Decision::Look => self.look(&recorded).await?,
        }
        Ok(())
    }

    async fn look(&self, recorded: &Recorded) -> Result<(), JournalError> {
        let request = Request {
            mode: Mode::Dashboard,
            requested_target: "latest".to_owned(),
            source: Some(SOURCE.to_owned()),
            current_version: None,
            force: false,
        };
        let (engine, last) = (self.engine.as_ref(), recorded.last_job.as_ref());
        let quarantined = &recorded.quarantined;
        // Nobody is asked how long the shop may be down.
        let plan = make_plan(&self.settings, engine, &request, quarantined, last, None).await;
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let Some(body) = plan.job.clone() else {
            let (status, message) = refused(&plan);
            let code = plan.failure_code.as_str();
            return self.note(status, message, &[("failureCode", code)]).await;
        };
        match self.driver.make_way("an upgrade").await {
            Ok(()) => {}
            Err(NotBegun::Journal(error)) => return Err(error),
            // It did not end in time: the next look finds that out.
            Err(NotBegun::Job(_) | NotBegun::Backup | NotBegun::Failed(_)) => return Ok(()),
        }
        let (driver, notes) = (Arc::clone(&self.driver), plan.notes.clone());
        let submitting = tokio::task::spawn_blocking(move || driver.submit(&body, &notes));
        let submitted = match submitting.await {
            Ok(submitted) => submitted,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        match submitted {
            Ok(job) => {
                let message = format!("begins an upgrade: {}", plan.message);
                let data = [("jobId", job.as_str()), ("resolvedTarget", &plan.resolved_target)];
                self.note(STARTED, message, &data).await
            }
            // Somebody was faster: the look waits for the end of it.
            Err(NotBegun::Job(_) | NotBegun::Backup) => Ok(()),
            Err(NotBegun::Journal(error)) => Err(error),
            Err(NotBegun::Failed(failure)) => {
                let code = failure.code.to_string();
                self.note(FAILED, failure.message, &[("failureCode", &code)]).await
            }
        }
    }

    async fn note(
        &self,
        status: &'static str,
        message: String,
        data: &[(&str, &str)],
    ) -> Result<(), JournalError> {
        tracing::info!("auto-update {message}");
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let event = NewEvent { kind: AUTO_UPDATE, status, message, data: data.collect() };
        self.driver.note(vec![event]).await
    }

    async fn read(&self) -> Result<Recorded, JournalError> {
        let reader = Arc::clone(&self.reader);
        let reading = tokio::task::spawn_blocking(move || {
            Ok(Recorded {
                last_look: last_look(&reader)?,
                newest: newest(&reader, None)?,
                last_job: reader.last_executed_job()?,
                quarantined: reader.quarantine()?,
            })
        });
        match reading.await {
            Ok(read) => read,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// How a look that begins nothing is recorded.
fn refused(plan: &Plan) -> (&'static str, String) {
    let nothing = [FailureCode::AlreadyOnTarget, FailureCode::DowngradeNotAllowed];
    match nothing.iter().any(|code| plan.failure_code == code.as_str()) {
        true => (SUCCEEDED, format!("found nothing to do: {}", plan.message)),
        false => (FAILED, format!("leaves it: {} ({})", plan.message, plan.failure_code)),
    }
}
