//! What an engine does late: a request of a daemon that was killed, or of an attempt that was given
//! up, may be carried out when a later attempt has gone on already.
//!
//! On the way forward that is harmless but for a second new container; on the way back it is done
//! to the old one, which is put back as it was before it is believed. An engine has no means to
//! take a request back, so what it does later still is not found.

use serde_json::Value;

use super::containers::{is_same_policy, name_of, occupies_database, was_started};
use crate::app::supervisor;
use crate::driver::context::{StepContext, Which};
use crate::driver::narrate::short;
use crate::error::Trouble;
use crate::names;
use crate::names::HOP_LABEL;

impl StepContext<'_> {
    /// Creates a container of this hop. One that a late request has made under the same name goes
    /// first.
    pub(in crate::driver) async fn create(
        &self,
        name: &str,
        specification: &Value,
    ) -> Result<String, Trouble> {
        const CONFLICT: Option<u16> = Some(409);
        match self.engine.create_container(name, specification).await {
            Err(error) if error.status() == CONFLICT => {}
            created => return Ok(created?),
        }
        self.remove_strays().await;
        match self.engine.create_container(name, specification).await {
            Err(error) if error.status() == CONFLICT && self.inspect(name).await?.is_none() => {
                // The engine keeps the name for one that it is still making.
                Err(Trouble::Unknown((&error).into()))
            }
            created => Ok(created?),
        }
    }

    /// Removes what late requests have made: containers of this hop that were never started,
    /// under the names that only an upgrade gives. What can't be removed is said, and stands in
    /// nobody's way.
    pub(in crate::driver) async fn remove_strays(&self) {
        if let Err(trouble) = self.try_to_remove_strays().await {
            self.say(&format!("what was created late is not removed: {trouble}")).await;
        }
    }

    async fn try_to_remove_strays(&self) -> Result<(), Trouble> {
        let label = format!("{HOP_LABEL}={}", self.hop_label());
        let names =
            [self.temporary_name(), self.lone_server_name(), self.second_lone_server_name()];
        let ours = [Some(self.old_id()), self.next_container.map(|next| next.id.as_str())];
        for found in self.engine.containers(Some(&label)).await? {
            if ours.contains(&Some(found.id.as_str())) || !names.contains(&found.name) {
                continue;
            }
            if self.inspect(&found.id).await?.is_some_and(|stray| !was_started(&stray)) {
                self.remove(Which { id: &found.id, role: "stray" }).await?;
                let id = short(&found.id);
                self.say(&format!("removed container {id}, which was created late")).await;
            }
        }
        Ok(())
    }

    /// Frees the shop's name by giving the new container its first one again, or where that is
    /// taken another: which one it is does not matter.
    pub(in crate::driver) async fn give_up_the_name(
        &self,
        next: Which<'_>,
        name: &str,
    ) -> Result<(), Trouble> {
        match self.set_name(next, name).await {
            Err(Trouble::Failed(_)) => {}
            done => return done,
        }
        self.remove_strays().await;
        match self.set_name(next, name).await {
            Err(Trouble::Failed(_)) => {
                self.set_name(next, &format!("{name}-{}", short(next.id))).await
            }
            done => done,
        }
    }

    /// Undoes what was done to the old container since it was put back. Answers whether the
    /// application was down for it, so that it is to be verified anew.
    pub(in crate::driver) async fn put_back(&self) -> Result<bool, Trouble> {
        let (old, hop) = (self.old(), self.hop);
        let mut was_down = self.start_old_again().await?;
        let container = self.inspect_present(old.id, old.role).await?;
        if !occupies_database(&container) {
            // It ended by itself, which is for its gate to judge.
            return Ok(was_down);
        }
        if name_of(&container) != hop.old.name {
            self.say(&format!("the {old} is called {} again", hop.old.name)).await;
            self.set_name(old, &hop.old.name).await?;
        }
        if !is_same_policy(&container["HostConfig"]["RestartPolicy"], &hop.old.restart_policy) {
            self.say(&format!("the {old} gets its restart policy again")).await;
            self.set_policy(old, &hop.old.restart_policy).await?;
        }
        let stopped = self.stopped_programs().await;
        if !stopped.is_empty() {
            self.say(&format!("in the {old}, {} started again", stopped.join(", "))).await;
            if let Err(trouble) = supervisor::start(self.engine, old.id, &stopped).await {
                // The container may have been stopped meanwhile, and its programs with it.
                if !self.start_old_again().await? {
                    return Err(trouble);
                }
            }
            was_down = true;
        }
        Ok(was_down)
    }

    /// Starts the old container where it was stopped from outside; whether it was.
    pub(in crate::driver) async fn start_old_again(&self) -> Result<bool, Trouble> {
        match self.next_container {
            Some(next) => {
                let next = Which { id: &next.id, role: "new" };
                self.start_what_was_stopped(self.old(), next).await
            }
            None => Ok(false),
        }
    }

    /// Those of the programs that ran which somebody has stopped. What the supervisor does not
    /// say is for the gate to find.
    async fn stopped_programs(&self) -> Vec<String> {
        let Some(ran) = self.programs.filter(|programs| !programs.running.is_empty()) else {
            return Vec::new();
        };
        let now = supervisor::programs(self.engine, self.old_id()).await;
        let now = now.ok().flatten().unwrap_or_default();
        let stopped = now.into_iter().filter(|program| program.state == "STOPPED");
        stopped.map(|program| program.name).filter(|name| ran.running.contains(name)).collect()
    }

    /// What the new container is called until it takes the shop's name.
    pub(in crate::driver) fn temporary_name(&self) -> String {
        names::next(&self.hop.old.name, &self.id_of_hop())
    }
}
