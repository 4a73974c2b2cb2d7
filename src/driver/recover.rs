//! `recover`, done: what [`super::recovery`] decided about the last job is carried out. A way back
//! that is taken again becomes the active job, and the loop runs it like any other.

use std::sync::Arc;
use std::time::Duration;

use super::recovery::{Consent, Decision, Hand, Remedy, decide, look, old_container};
use super::{Driver, NotBegun, durable, effects, narrate};
use crate::app::core::{Place, Probe, Search};
use crate::engine::EngineError;
use crate::history::read_last_good;
use crate::journal::{JobRecord, JournalError};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Event, Forbidden};

/// How long a container that `recover` started may take to answer; shorter than a command waits.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// How long `recover` waits for the tidying that it asked for.
const TIDIES_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is said while a restore has the shop in hand: it comes to its end by itself.
pub(super) const PUT_BACK: &str = "a backup is being put back, which comes to its end by itself";
pub(super) const WATCH: &str = "watch it: payram-updater watch";

/// Why a recovery could not even be decided.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The machine.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

impl Driver {
    /// Decides what is to be done about the last job and, unless it is only asked, does it: a
    /// way back that is taken again becomes the active job and runs like any other.
    ///
    /// # Errors
    /// When the journal can't be used. An engine that can't be asked is an answer.
    pub async fn recover(&self, consent: Consent, is_dry: bool) -> Result<Decision, RecoverError> {
        if self.reader.active_restore()?.is_some() {
            return Ok(Decision::refused(PUT_BACK, WATCH));
        }
        let job = self.reader.last_executed_job()?;
        let engine = self.engine.as_ref();
        let is_held = self.control.is_held();
        let hand = Hand { is_driven: self.is_driven(), is_held };
        let good = read_last_good(&self.reader)?;
        let looked = look(engine, &self.settings, job.as_ref(), good.as_ref(), hand).await;
        let sight = match looked {
            Ok(sight) => sight,
            Err(error) => return Ok(self.unseen(&error)),
        };
        let decision = decide(job.as_ref(), &sight, consent);
        if is_dry {
            return Ok(decision);
        }
        self.make_way_for_recovery().await?;
        if let (Remedy::StartGood, Some(good)) = (decision.remedy, &sight.good) {
            return self.start_again(job.as_ref(), &good.id, decision).await;
        }
        let Some(job) = job else { return Ok(decision) };
        let known = job.hop().map(|hop| hop.machine.state().known());
        match decision.remedy {
            // What was good last is dealt with already.
            Remedy::Nothing | Remedy::StartGood => {}
            Remedy::GoOn => {
                self.control.release();
                self.wake.notify_one();
            }
            Remedy::TurnBack => {
                self.control.turn_back(&job.id);
                self.wake.notify_one();
            }
            Remedy::Tidy => {
                self.control.release();
                self.wake.notify_one();
                self.wait_tidy().await?;
            }
            Remedy::TakeWayBack(event) => self.take_way_back(&job, event).await?,
            Remedy::StartOld => {
                if let Some(known) = known {
                    let old = old_container(engine, Some(&job), known.hop).await?;
                    let old = old.as_ref().and_then(|old| old["Id"].as_str());
                    let id = old.unwrap_or(&known.hop.old.id);
                    return self.start_again(Some(&job), id, decision).await;
                }
            }
            Remedy::StartNext => {
                if let Some(next) = known.and_then(|known| known.next) {
                    return self.start_again(Some(&job), &next.id, decision).await;
                }
            }
        }
        Ok(decision)
    }

    /// Takes the way that an operator was shown, and no other: what is decided now must be what
    /// `shown` names, and where rows would be forgotten the machine stops again when it finds
    /// others than those.
    ///
    /// # Errors
    /// When the journal or the engine can't be asked.
    pub async fn recover_as_shown(
        &self,
        consent: Consent,
        shown: &str,
    ) -> Result<Decision, RecoverError> {
        let decision = self.recover(consent, true).await?;
        if decision.shown != shown {
            return Ok(decision.changed());
        }
        self.make_way_for_recovery().await?;
        match (decision.remedy, self.reader.last_executed_job()?) {
            (Remedy::TakeWayBack(Event::RecoverRestoring), Some(job)) => {
                self.take_way_back(&job, Event::RecoverRestoringShown).await?;
                Ok(decision)
            }
            (Remedy::TakeWayBack(Event::RecoverCarrying), Some(job)) => {
                self.take_way_back(&job, Event::RecoverCarryingShown).await?;
                Ok(decision)
            }
            (_, _) => self.recover(consent, false).await,
        }
    }

    /// A rehearsal is nobody's way to anything: it ends first.
    async fn make_way_for_recovery(&self) -> Result<(), RecoverError> {
        match self.make_way("a recovery").await {
            Ok(()) => Ok(()),
            Err(NotBegun::Journal(error)) => Err(error.into()),
            Err(NotBegun::Job(job)) => Err(JournalError::AlreadyActive { job }.into()),
            // Of a job that is to begin.
            Err(NotBegun::Backup | NotBegun::Failed(_)) => Ok(()),
        }
    }

    /// Whether a job is being worked on now.
    fn is_driven(&self) -> bool {
        self.control.is_at_work()
    }

    /// The answer when the engine can't be asked: nothing is known, so nothing is done.
    fn unseen(&self, error: &EngineError) -> Decision {
        let failure = Failure::from(error);
        let again = match error {
            EngineError::Unreachable { .. } => "systemctl start docker && payram-updater recover",
            EngineError::Unknown { .. }
            | EngineError::Refused { .. }
            | EngineError::Protocol { .. } => {
                "payram-updater recover once more; if it stays: systemctl restart docker"
            }
        };
        Decision::failed(
            failure.code,
            format!("container engine: {error}"),
            "the container engine can't be asked, so it is not known what serves: nothing is done",
            again,
        )
    }

    /// Starts a container that should run, with the intent journaled first (I3), and sees that
    /// its application answers.
    async fn start_again(
        &self,
        job: Option<&JobRecord>,
        id: &str,
        decision: Decision,
    ) -> Result<Decision, RecoverError> {
        let (journal, job) = (Arc::clone(&self.journal), job.map(|job| job.id.clone()));
        let line = format!("recover: starting container {}", narrate::short(id));
        durable(move || match job {
            Some(job) => journal.log(&job, None, &line),
            None => journal.note(&[narrate::start_by_recovery(line)]),
        })
        .await?;
        let docker = &self.settings.docker_bin;
        let not_done = |failure: Failure, then: String| Decision {
            success: false,
            message: format!("{}; it did not serve: {}", decision.message, failure.message),
            code: failure.code.to_string(),
            refusals: vec![then],
            ..decision.clone()
        };
        if let Err(error) = self.engine.start(id).await {
            let then = format!("fix that, then: {docker} start {}", narrate::short(id));
            return Ok(not_done(Failure::from(&error), then));
        }
        match self.answers_soon(id).await {
            Ok(place) => {
                let message = format!("{}; it answers at {place}", decision.message);
                Ok(Decision { message, ..decision })
            }
            Err(found) => {
                let then = format!("find out why: {docker} logs --tail 50 {}", narrate::short(id));
                let failure = Failure::new(FailureCode::HealthcheckFailed, found);
                Ok(not_done(failure, then))
            }
        }
    }

    /// Where the application in a container that was started answers, or why it does not.
    async fn answers_soon(&self, id: &str) -> Result<Place, String> {
        let limit = self.settings.start_timeout.min(STARTS_WITHIN);
        let deadline = tokio::time::Instant::now() + limit;
        let mut search = Search::new(Probe::of(&self.settings));
        loop {
            let found = match self.engine.inspect_container(id).await {
                Err(error) => error.to_string(),
                Ok(None) => return Err("it is gone".to_owned()),
                Ok(Some(container)) if !effects::occupies_database(&container) => {
                    return Err(format!(
                        "it ended at once (exit code {})",
                        container["State"]["ExitCode"]
                    ));
                }
                Ok(Some(container)) => match search.look(self.engine.as_ref(), &container).await {
                    Ok(place) => return Ok(place),
                    Err(silent) => silent.to_string(),
                },
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(format!("no answer within {} s: {found}", limit.as_secs()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Until what an upgrade left over is cleared, where this driver's loop is at it.
    async fn wait_tidy(&self) -> Result<(), JournalError> {
        let deadline = tokio::time::Instant::now() + TIDIES_WITHIN;
        while self.control.is_running() && tokio::time::Instant::now() < deadline {
            let job = self.reader.last_executed_job()?;
            if job.as_ref().and_then(JobRecord::hop).is_none_or(|hop| hop.machine.step().is_none())
            {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn take_way_back(&self, job: &JobRecord, event: Event) -> Result<(), RecoverError> {
        let Some(hop) = job.hop() else { return Ok(()) };
        let (_, transition) = hop.machine.clone().recover(event)?;
        let (journal, id, number) = (Arc::clone(&self.journal), job.id.clone(), job.hops.len());
        let events = [narrate::recovery_started(job, event)];
        durable(move || journal.reopen(&id, number, transition, &events)).await?;
        self.control.release();
        self.wake.notify_one();
        Ok(())
    }
}
