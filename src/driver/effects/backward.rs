//! The effects of the way back. Each looks first and is done when the world is as it was.

use super::containers::{Which, no_restart, occupies_database, was_started};
use super::{Effects, done};
use crate::app::supervisor;
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::machine::failure::FailureCode;
use crate::machine::{Fact, Known};

impl Effects<'_> {
    pub(super) async fn disarm_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        // Gone is as good: nothing of it starts by itself.
        if let Some(next) = self.next_that_is_there(known).await? {
            self.set_policy(next, &no_restart()).await?;
        }
        done()
    }

    pub(super) async fn stop_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.remove_lone_server(known).await?;
        if let Some(next) = self.next_that_is_there(known).await? {
            self.stop(next).await?;
        }
        done()
    }

    pub(super) async fn restore_next_name(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        if let (Some(next), Some(which)) = (known.next, self.next_that_is_there(known).await?) {
            self.give_up_the_name(known, which, &next.temporary_name).await?;
        }
        done()
    }

    /// The next container, unless a way back that was taken before has removed it.
    async fn next_that_is_there<'k>(
        &self,
        known: &Known<'k>,
    ) -> Result<Option<Which<'k>>, Trouble> {
        let Some(next) = known.next else { return Ok(None) };
        let is_there = self.inspect(&next.id).await?.is_some();
        Ok(is_there.then_some(Which { id: &next.id, role: "new" }))
    }

    pub(super) async fn restore_old_name(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.ensure_old(known).await?;
        self.set_name(self.old(known), &known.hop.old.name).await?;
        done()
    }

    pub(super) async fn start_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.ensure_old(known).await?;
        if self.remade.get().is_some() {
            // Made again in this very step, it missed those that give it its name and its policy.
            self.set_name(self.old(known), &known.hop.old.name).await?;
            self.set_policy(self.old(known), &known.hop.old.restart_policy).await?;
        }
        let old = self.inspect_present(self.old_id(known), "old").await?;
        if occupies_database(&old) {
            // It was never stopped: its server's lock file is no stale one.
            return done();
        }
        // A server that works there changes what is looked at next.
        self.nobody_works_there(known, "the old version is not started").await?;
        // In another directory it would serve, and take payments, on another database.
        self.must_be_as_noted(known).await?;
        self.start(known, self.old(known), self.next(known)?).await?;
        done()
    }

    /// Starts exactly the programs that ran. A container that was stopped and started again
    /// has started them itself; then there is nothing left to do.
    pub(super) async fn resume_programs(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let programs = match known.programs {
            Some(programs) if !programs.running.is_empty() => programs,
            Some(_) | None => return done(),
        };
        let started = supervisor::start(self.engine, self.old_id(known), &programs.running).await;
        if let Err(trouble) = started {
            let old = self.inspect_present(self.old_id(known), "old").await?;
            let restarts = old["RestartCount"].as_i64().unwrap_or_default();
            if Inspection(&old).runs_steadily() && restarts == 0 {
                return Err(trouble);
            }
            // It ends again and again: its gate says so, with its last lines.
            let which = self.old(known);
            self.say(&format!("the {which} does not stay up; its programs are not started")).await;
        }
        done()
    }

    pub(super) async fn rearm_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.ensure_old(known).await?;
        let old = self.inspect_present(self.old_id(known), "old").await?;
        if !occupies_database(&old) {
            // Armed, it may be started by the engine.
            self.nobody_works_there(known, "the old version is not started").await?;
        }
        self.set_policy(self.old(known), &known.hop.old.restart_policy).await?;
        done()
    }

    /// By label, not only by id: the step that created it may have been interrupted before it
    /// could tell the id. A server that an export left behind carries the label too.
    pub(super) async fn remove_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.remove_lone_server(known).await?;
        let is_another = known.failure.is_some_and(|f| f.code == FailureCode::DatabaseMismatch);
        if let (true, Some(next)) = (is_another, self.next_that_is_there(known).await?)
            && self.inspect(next.id).await?.is_some_and(|container| was_started(&container))
        {
            // What it took is in a database of its own, which would go with it (I7).
            self.say(&format!(
                "the {next} is kept, stopped: it served from another database than the shop's, and what it took is in there"
            ))
            .await;
            return done();
        }
        self.remove_labelled().await?;
        done()
    }
}
