//! The effects of the way back. Each looks first and is done when the world is as it was.

use super::containers::{Which, is_running, is_same_policy, name_of, no_restart};
use super::{Effects, done};
use crate::app::supervisor;
use crate::error::Trouble;
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
            // A request of an earlier attempt may have taken the name since.
            self.remove_strays(known).await?;
            self.set_name(which, &next.temporary_name).await?;
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
        self.set_name(self.old(known), &known.hop.old.name).await?;
        done()
    }

    pub(super) async fn start_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.start(known, self.old(known), self.next(known)?).await?;
        done()
    }

    /// Starts exactly the programs that ran. A container that was stopped and started again
    /// has started them itself; then there is nothing left to do.
    pub(super) async fn resume_programs(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        if let Some(programs) = known.programs.filter(|programs| !programs.running.is_empty()) {
            supervisor::start(self.engine, &known.hop.old.id, &programs.running).await?;
        }
        done()
    }

    pub(super) async fn rearm_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.set_policy(self.old(known), &known.hop.old.restart_policy).await?;
        done()
    }

    /// Undoes what has been done to the old container since it was put back: by its host or its
    /// engine, which were started again, or by a request of a daemon that was killed, which the
    /// engine came to only now. Answers whether there was anything.
    pub(super) async fn put_back(&self, known: &Known<'_>) -> Result<bool, Trouble> {
        let (old, hop) = (self.old(known), known.hop);
        let mut was_changed = false;
        if let Some(next) = known.next {
            let next = Which { id: &next.id, role: "new" };
            was_changed = self.start_what_was_stopped(known, old, next).await?;
        }
        let container = self.inspect_present(old.id, old.role).await?;
        if !is_running(&container) {
            // It ended by itself, which is for its gate to judge.
            return Ok(was_changed);
        }
        if name_of(&container) != hop.old.name {
            self.say(&format!("the {old} is called {} again", hop.old.name)).await;
            self.set_name(old, &hop.old.name).await?;
            was_changed = true;
        }
        if !is_same_policy(&container["HostConfig"]["RestartPolicy"], &hop.old.restart_policy) {
            self.say(&format!("the {old} gets its restart policy again")).await;
            self.set_policy(old, &hop.old.restart_policy).await?;
            was_changed = true;
        }
        let stopped = self.stopped_programs(known).await;
        if !stopped.is_empty() {
            self.say(&format!("in the {old}, {} started again", stopped.join(", "))).await;
            supervisor::start(self.engine, old.id, &stopped).await?;
            was_changed = true;
        }
        Ok(was_changed)
    }

    /// Those of the programs that ran which somebody has stopped. What the supervisor does not
    /// say is for the gate to find.
    async fn stopped_programs(&self, known: &Known<'_>) -> Vec<String> {
        let Some(ran) = known.programs.filter(|programs| !programs.running.is_empty()) else {
            return Vec::new();
        };
        let now = supervisor::programs(self.engine, &known.hop.old.id).await;
        let now = now.ok().flatten().unwrap_or_default();
        let stopped = now.into_iter().filter(|program| program.state == "STOPPED");
        stopped.map(|program| program.name).filter(|name| ran.running.contains(name)).collect()
    }

    /// By label, not only by id: the step that created it may have been interrupted before it
    /// could tell the id. A server that an export left behind carries the label too.
    pub(super) async fn remove_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.remove_lone_server(known).await?;
        self.remove_labelled().await?;
        done()
    }
}
