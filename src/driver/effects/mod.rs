//! The effects: each observes the world first, by container id and label (I4), does what is
//! missing, and answers what it found. It decides nothing about what comes next.
//!
//! An error of the engine whose effect is uncertain is an unknown outcome: the step runs again
//! and looks. An engine that can't be reached is waited for, because a restart of it in the
//! middle of an upgrade is ordinary.

mod assess;
mod backward;
mod carry;
mod companions;
mod containers;
mod copy;
mod export;
mod forward;
mod gate;
mod habits;
mod late;
mod lone;
mod outside;
mod own_database;
mod probation;
mod redact;
mod remake;
mod second_server;
mod sequences;
mod silence;
mod stale_lock;
mod strangers;
mod unmounted;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

pub(super) use containers::{name_of, occupies_database, was_started};
pub(super) use remake::REMADE_LABEL;

use super::Progress;
use super::hop::At;
use super::prepare::SavedSpec;
use crate::config::Settings;
use crate::database::{self, Database};
use crate::engine::{Engine, EngineError};
use crate::error::Trouble;
use crate::journal::Journal;
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Fact, Known, Outcome, Phase, State, Step};

/// How long an engine that can't be reached is waited for before the attempt counts.
const ENGINE_RETURNS_WITHIN: Duration = Duration::from_secs(120);

/// Label of the containers that this product creates: `JOB/HOP`.
pub(crate) const HOP_LABEL: &str = "io.payram.updater.hop";

/// What the effects of one hop work with.
pub(super) struct Effects<'a> {
    pub settings: &'a Settings,
    pub engine: &'a dyn Engine,
    pub journal: &'a Arc<Journal>,
    pub progress: &'a watch::Sender<Progress>,
    pub at: &'a At<'a>,
    /// The old container's id where it was removed by somebody and made again.
    pub remade: OnceLock<String>,
    /// The run that the watch after a verdict saw last.
    pub watched_run: &'a Mutex<String>,
}

fn fail<T>(code: FailureCode, message: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::failed(code, message))
}

impl Effects<'_> {
    /// Runs a step's effect to its end.
    pub async fn run(&self, step: Step, state: &State) -> Outcome {
        self.wait_for_engine().await;
        let known = state.known();
        if matches!(state.phase(), Phase::Swapped | Phase::Verified | Phase::RollingBack)
            && let Ok(Some(id)) = self.find_remade().await
        {
            // Set here alone, once for each run.
            self.remade.set(id).ok();
        }
        let result = match self.old_is_alone_at(step, &known).await {
            Ok(()) => self.act(step, &known).await,
            Err(trouble) => Err(trouble),
        };
        match result {
            Ok(fact) => Outcome::Done { fact },
            Err(Trouble::Failed(failure)) => Outcome::Failed { failure },
            Err(Trouble::Unknown(failure)) => Outcome::Unknown { failure },
        }
    }

    /// From the copy on nobody but the old version may work in the directory, until the new one
    /// is started.
    async fn old_is_alone_at(&self, step: Step, known: &Known<'_>) -> Result<(), Trouble> {
        let is_looked_for = matches!(
            step,
            Step::PreCopy
                | Step::DisarmOld
                | Step::NotePrograms
                | Step::Quiesce
                | Step::StopOld
                | Step::RestorePoint
        );
        match is_looked_for {
            true => self.old_is_alone(step, known).await,
            false => Ok(()),
        }
    }

    async fn act(&self, step: Step, known: &Known<'_>) -> Result<Fact, Trouble> {
        match step {
            Step::BackUp => self.back_up(known).await,
            Step::ProveBackup => self.prove_backup(known).await,
            Step::Pull => self.pull(known).await,
            Step::CreateNext => self.create_next(known).await,
            Step::PreCopy => self.pre_copy(known).await,
            Step::DisarmOld => self.disarm_old(known).await,
            Step::NotePrograms => self.note_programs(known).await,
            Step::Quiesce => self.quiesce(known).await,
            Step::StopOld => self.stop_old(known).await,
            Step::RestorePoint => self.restore_point(known).await,
            Step::RenameOld => self.rename_old(known).await,
            Step::RenameNext => self.rename_next(known).await,
            Step::StartNext => self.start_next(known).await,
            Step::StartAgain => self.start_again(known).await,
            Step::Verify => self.verify(known).await,
            Step::ArmNext => self.arm_next(known).await,
            Step::Probation => self.probation(known).await,
            Step::Tidy => self.tidy(known).await,
            Step::DisarmNext => self.disarm_next(known).await,
            Step::AssessDatabase => self.assess_database(known).await,
            Step::StopNext => self.stop_next(known).await,
            Step::RestoreDatabase => self.restore_database(known).await,
            Step::RestoreFiles => self.restore_files(known).await,
            Step::RestoreNextName => self.restore_next_name(known).await,
            Step::RestoreOldName => self.restore_old_name(known).await,
            Step::StartOld => self.start_old(known).await,
            Step::ResumePrograms => self.resume_programs(known).await,
            Step::RearmOld => self.rearm_old(known).await,
            Step::VerifyOld => self.verify_old(known).await,
            Step::AssessAgain => self.assess_again(known).await,
            Step::ExportRows => self.export_rows(known).await,
            Step::RemoveNext => self.remove_next(known).await,
            Step::DiscardCopy => self.discard_copy(known).await,
        }
    }

    /// Until the engine answers, or for as long as is sensible; the step itself then says what
    /// it met.
    async fn wait_for_engine(&self) {
        let deadline = tokio::time::Instant::now() + ENGINE_RETURNS_WITHIN;
        let mut said = false;
        while let Err(error @ EngineError::Unreachable { .. }) = self.engine.reach().await {
            if tokio::time::Instant::now() >= deadline {
                return;
            }
            if !said {
                self.say(&format!("waiting for the container engine: {error}")).await;
                said = true;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A line for a person. A journal that can't take it will refuse the outcome too, and that
    /// is where it is answered.
    async fn say(&self, line: &str) {
        tracing::info!(job = %self.at.job.id, hop = self.at.hop, "{line}");
        let (journal, job, hop) = (Arc::clone(self.journal), self.at.job.id.clone(), self.at.hop);
        let line = line.to_owned();
        let written = super::durable(move || journal.log(&job, Some(hop), &line)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "a log line could not be journaled");
        }
    }

    /// The database as the old container's environment names it.
    fn database(&self, known: &Known<'_>) -> Result<Database, Failure> {
        let spec = SavedSpec::read(&known.hop.old.spec_file)?;
        database::locate(&spec.environment(), &self.settings.pg)
    }

    /// The value of [`HOP_LABEL`] for this hop.
    fn hop_label(&self) -> String {
        format!("{}/{}", self.at.job.id, self.at.hop)
    }

    /// Short, for names of containers: the job's, and the hop's after the first.
    fn id_of_hop(&self) -> String {
        match self.at.hop {
            1 => self.at.job.id.short().to_owned(),
            hop => format!("{}-{hop}", self.at.job.id.short()),
        }
    }

    async fn inspect(&self, id: &str) -> Result<Option<Value>, Trouble> {
        Ok(self.engine.inspect_container(id).await?)
    }

    /// The inspection of a container that must be there.
    async fn inspect_present(&self, id: &str, role: &str) -> Result<Value, Trouble> {
        match self.inspect(id).await? {
            Some(container) => Ok(container),
            None => fail(
                FailureCode::ContainerNotFound,
                format!("the {role} container {} is gone", super::narrate::short(id)),
            ),
        }
    }
}

fn done() -> Result<Fact, Trouble> {
    Ok(Fact::Done)
}
