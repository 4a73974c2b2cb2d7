//! `quiesce`: the application falls silent and the database is read after its last write. It is
//! the first part of the downtime, so whatever can be done before it or beside it is.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::containers::occupies_database;
use super::{Effects, fail};
use crate::app::supervisor;
use crate::clock::{self, Timestamp};
use crate::database::{self, Access, Runner};
use crate::error::Trouble;
use crate::machine::facts::{Copy, Fingerprint, Programs, Quiesced, Uptime};
use crate::machine::failure::FailureCode;
use crate::machine::{Fact, Known};

/// How long rows may be counted at the cut-over: it is downtime, so the large tables are left
/// to the server's own counters.
const CUT_OVER_BUDGET: Duration = Duration::from_millis(500);

/// How long a checkpoint may take while the application serves.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks for the last answer while the programs are stopped.
const LAST_ANSWER_EVERY: Duration = Duration::from_millis(25);

/// When the application last answered, by both clocks.
struct LastAnswer {
    at_ms: Option<i64>,
    up: Option<Uptime>,
}

impl LastAnswer {
    fn now() -> Self {
        Self { at_ms: Some(Timestamp::now().millis()), up: clock::uptime() }
    }
}

impl Effects<'_> {
    pub(super) async fn quiesce(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let Some(programs) = known.programs.cloned() else {
            return fail(FailureCode::SupervisorctlFailed, "the programs were never noted");
        };
        let container = self.inspect_present(self.old_id(known), "old").await?;
        if !occupies_database(&container) {
            // It ended by itself between two steps; what it held can't be asked any more.
            let last_answer_ms = programs.last_answer_ms;
            return Ok(Fact::Quiesced(Box::new(Quiesced {
                programs,
                fingerprint: None,
                last_answer_ms,
                last_answer_up: None,
                cluster: None,
                lock_file: self.lock_file(known),
            })));
        }
        if let Some(Copy::Directory { source, .. }) = known.copy {
            // A moment ago it was so, too; from here on a mistake costs downtime.
            let works = self.works_nowhere_but_in(known, &container, Path::new(source)).await?;
            if let Err(unseen) = works {
                // Somebody stopped it, or it ended: its directory is there all the same, and what
                // serves on it in the end is compared with the copy.
                self.say(&format!("the database's server is gone: {unseen}")).await;
            }
        }
        let target = self.database(known)?;
        let runner = Runner::new(self.engine, self.old_id(known), &target);
        self.checkpoint(&runner).await;
        let (is_said_stopped, last) = self.ask_for_silence(known, &container, &programs).await?;
        let (fingerprint, identity) = tokio::join!(
            self.fingerprint_in_silence(known, &runner, is_said_stopped),
            database::identity(&runner, self.ask_within()),
        );
        let fingerprint = fingerprint?;
        let cluster = match identity {
            Ok(identity) => Some(identity.cluster),
            Err(trouble) => {
                self.say(&format!("which cluster is served was not noted: {trouble}")).await;
                None
            }
        };
        if let Some(Copy::Dump { path, .. }) = known.copy
            && target.access == Access::InContainer
        {
            // Its server ends with the container: now is the last moment (I6).
            self.dump_restore_point(known, Path::new(path)).await?;
        }
        Ok(Fact::Quiesced(Box::new(Quiesced {
            programs,
            fingerprint,
            last_answer_ms: last.at_ms,
            last_answer_up: last.up,
            cluster,
            lock_file: self.lock_file(known),
        })))
    }

    /// Has the server write to disk now what it would write when it is stopped, while the
    /// application serves. A courtesy: without it the stop takes longer.
    pub(super) async fn checkpoint(&self, runner: &Runner<'_>) {
        if let Err(reason) = database::checkpoint(runner, CHECKPOINT_WITHIN).await {
            tracing::info!(job = %self.at.job.id, hop = self.at.hop, "no checkpoint: {reason}");
        }
    }

    /// Asks that the programs stop, and watches for the application's last answer meanwhile.
    /// Answers whether the supervisor named all as stopped.
    async fn ask_for_silence(
        &self,
        known: &Known<'_>,
        container: &Value,
        programs: &Programs,
    ) -> Result<(bool, LastAnswer), Trouble> {
        let mut last = LastAnswer { at_ms: programs.last_answer_ms, up: None };
        if self.answers(container).await {
            last = LastAnswer::now();
        }
        if programs.running.is_empty() {
            return Ok((false, last));
        }
        let watch = async {
            loop {
                if self.answers(container).await {
                    last = LastAnswer::now();
                }
                tokio::time::sleep(LAST_ANSWER_EVERY).await;
            }
        };
        let ask = async {
            let (engine, old) = (self.engine, self.old_id(known));
            supervisor::ask_to_stop(engine, old, &programs.running).await
        };
        let asked = tokio::select! {
            asked = ask => asked,
            () = watch => Ok(false),
        };
        Ok((asked?, last))
    }

    /// The database after the last write (I6), once it is certain that the programs are silent.
    ///
    /// What the supervisor said of them is looked at while the database is read, not before, to
    /// be down for less; where it does not hold, what was read counts for nothing.
    async fn fingerprint_in_silence(
        &self,
        known: &Known<'_>,
        runner: &Runner<'_>,
        is_said_stopped: bool,
    ) -> Result<Option<Fingerprint>, Trouble> {
        let (engine, old) = (self.engine, self.old_id(known));
        let names = known.programs.map(|programs| programs.running.as_slice()).unwrap_or_default();
        let mut read = None;
        if is_said_stopped {
            let (stopped, found) = tokio::join!(
                supervisor::are_stopped(engine, old, names),
                database::fingerprint(runner, CUT_OVER_BUDGET),
            );
            read = stopped?.then_some(found);
        }
        let read = match read {
            Some(read) => read,
            None => {
                if !names.is_empty() {
                    supervisor::stop(engine, old, names).await?;
                }
                database::fingerprint(runner, CUT_OVER_BUDGET).await
            }
        };
        match read {
            Ok(fingerprint) => Ok(Some(fingerprint)),
            Err(failure) => {
                self.say(&format!("the database was not fingerprinted: {failure}")).await;
                Ok(None)
            }
        }
    }
}
