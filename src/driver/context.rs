//! What the steps of one hop work with: settings, engine, journal, and the facts that more than one
//! of them goes by. What a step alone needs is in its [`Work`](crate::machine::Work).
//!
//! Made by `hop` for each attempt; the verbs that the steps share (`effects`) are methods of it.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use tokio::sync::watch;

use super::narrate::short;
use super::prepare::SavedSpec;
use super::{Progress, durable};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::database::{self, Database};
use crate::engine::Engine;
use crate::error::{Trouble, fail};
use crate::journal::{HopRecord, JobRecord, Journal};
use crate::machine::facts::{Copy, NextContainer, Programs, Quiesced, Restored};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Fact, Hop, Phase, State};

/// Which hop of which job is run.
pub(super) struct At<'a> {
    pub job: &'a JobRecord,
    pub hop: usize,
    pub began: Timestamp,
    /// Whether the next upgrade waits for this hop's watch to end.
    pub is_followed: bool,
    /// When it was verified, by the host's clock; none before that.
    pub verified_ms: Option<i64>,
}

impl<'a> At<'a> {
    pub fn of(job: &'a JobRecord, hop: &HopRecord, is_followed: bool) -> Self {
        let verified = hop.transitions.iter().rev().find(|(_, each)| each.to == Phase::Verified);
        let verified_ms = verified.map(|(at, _)| at.millis());
        Self { job, hop: job.hops.len(), began: hop.began, is_followed, verified_ms }
    }
}

/// Which of the two containers a verb is about; for messages.
#[derive(Clone, Copy)]
pub(in crate::driver) struct Which<'a> {
    pub id: &'a str,
    pub role: &'static str,
}

impl<'a> Which<'a> {
    /// The new one.
    pub fn next(next: &'a NextContainer) -> Self {
        Self { id: &next.id, role: "new" }
    }
}

impl std::fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} container {}", self.role, short(self.id))
    }
}

/// One attempt at one step.
pub(super) struct StepContext<'a> {
    pub settings: &'a Settings,
    pub engine: &'a dyn Engine,
    pub journal: &'a Arc<Journal>,
    pub progress: &'a watch::Sender<Progress>,
    pub at: &'a At<'a>,
    /// The plan.
    pub hop: &'a Hop,
    /// The new container, once it was created.
    pub next_container: Option<&'a NextContainer>,
    /// The copy of the database, once it was made.
    pub copy: Option<&'a Copy>,
    /// The programs that ran before the cut-over, once they were noted.
    pub programs: Option<&'a Programs>,
    /// What quiescing found, from there on.
    pub quiesced: Option<&'a Quiesced>,
    /// The database that was put back, once it was.
    pub restored: Option<&'a Restored>,
    /// The old container's id where it was removed by somebody and made again.
    pub remade: OnceLock<String>,
    /// The run that the watch after a verdict saw last.
    pub watched_run: &'a Mutex<String>,
}

impl<'a> StepContext<'a> {
    /// Over what is known in this state.
    pub fn new(
        (settings, engine): (&'a Settings, &'a dyn Engine),
        journal: &'a Arc<Journal>,
        progress: &'a watch::Sender<Progress>,
        watched_run: &'a Mutex<String>,
        at: &'a At<'a>,
        state: &'a State,
    ) -> Self {
        let known = state.known();
        Self {
            settings,
            engine,
            journal,
            progress,
            at,
            hop: known.hop,
            next_container: known.next,
            copy: known.copy,
            programs: known.programs,
            quiesced: known.quiesced,
            restored: known.restored,
            remade: OnceLock::new(),
            watched_run,
        }
    }
}

impl StepContext<'_> {
    /// The old container, for verbs and messages.
    pub fn old(&self) -> Which<'_> {
        Which { id: self.old_id(), role: "old" }
    }

    /// Its id: another one where it was removed by somebody and made again.
    pub fn old_id(&self) -> &str {
        self.remade.get().map_or(self.hop.old.id.as_str(), String::as_str)
    }

    /// The other one of the two containers.
    pub fn other_than(&self, which: Which<'_>) -> Result<Which<'_>, Trouble> {
        match which.id == self.old_id() {
            true => self.next(),
            false => Ok(self.old()),
        }
    }

    /// The next container, which must have been created.
    pub fn next(&self) -> Result<Which<'_>, Trouble> {
        match self.next_container {
            Some(next) => Ok(Which { id: &next.id, role: "new" }),
            None => fail(FailureCode::Unknown, "the new container was never created"),
        }
    }

    /// A line for a person. A journal that can't take it will refuse the outcome too, and that
    /// is where it is answered.
    pub async fn say(&self, line: &str) {
        tracing::info!(job = %self.at.job.id, hop = self.at.hop, "{line}");
        let (journal, job, hop) = (Arc::clone(self.journal), self.at.job.id.clone(), self.at.hop);
        let line = line.to_owned();
        let written = durable(move || journal.log(&job, Some(hop), &line)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "a log line could not be journaled");
        }
    }

    /// The database as the old container's environment names it.
    pub fn database(&self) -> Result<Database, Failure> {
        let spec = SavedSpec::read(&self.hop.old.spec_file)?;
        database::locate(&spec.environment(), &self.settings.pg)
    }

    /// The value of [`names::HOP_LABEL`](crate::names::HOP_LABEL) for this hop.
    pub fn hop_label(&self) -> String {
        format!("{}/{}", self.at.job.id, self.at.hop)
    }

    /// Short, for names of containers: the job's, and the hop's after the first.
    pub fn id_of_hop(&self) -> String {
        match self.at.hop {
            1 => self.at.job.id.short().to_owned(),
            hop => format!("{}-{hop}", self.at.job.id.short()),
        }
    }

    pub async fn inspect(&self, id: &str) -> Result<Option<Value>, Trouble> {
        Ok(self.engine.inspect_container(id).await?)
    }

    /// The inspection of a container that must be there.
    pub async fn inspect_present(&self, id: &str, role: &str) -> Result<Value, Trouble> {
        match self.inspect(id).await? {
            Some(container) => Ok(container),
            None => fail(
                FailureCode::ContainerNotFound,
                format!("the {role} container {} is gone", short(id)),
            ),
        }
    }

    /// The database's directory on this host, once it is known; none where it is elsewhere.
    pub fn directory(&self) -> Option<&Path> {
        match self.copy {
            Some(Copy::Directory { source, .. }) => Some(Path::new(source)),
            Some(Copy::Dump { .. }) | None => None,
        }
    }
}

/// The end of a step that leaves nothing to know but that it is done.
pub(super) fn done() -> Result<Fact, Trouble> {
    Ok(Fact::Done)
}
