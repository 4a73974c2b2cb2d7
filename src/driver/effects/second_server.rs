//! A second server on the database's directory, whoever started it: the worst that can happen.
//!
//! It is looked for again and again while a version is watched, from its start until the old
//! container is tidied away. The kernel says which servers work in the directory; where this host
//! can't look, the engine's list of running containers does. The intruder is killed without grace,
//! because an orderly shutdown would write a checkpoint over the control file that both share;
//! then the other is stopped, and the directory counts as damaged.
//!
//! It is journaled before it is killed: a program that dies in between would find a world without
//! a trace of it, start the version again and believe it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::containers::Which;
use super::{Effects, fail};
use crate::database::{self, HostServer, Place};
use crate::driver::durable;
use crate::driver::narrate::short;
use crate::driver::recovery::{directory_of, rival};
use crate::error::Trouble;
use crate::journal::Reader;
use crate::machine::Known;
use crate::machine::failure::{Failure, FailureCode};

/// How the journal's line about a second server begins; it is looked for by this.
const NOTED: &str = "two servers on ";

/// Between two looks at the servers of this host.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between two looks at the engine's containers, where this host's processes tell nothing.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// How long an intruder may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Which of the journal's lines about a second server count.
#[derive(Clone, Copy)]
pub(super) enum Noted {
    /// All of this hop.
    Ever,
    /// Those since a person last said how to go on.
    SinceAsked,
}

impl Effects<'_> {
    /// Sees that no second server works in the database's directory beside this version, and that
    /// none did.
    ///
    /// # Errors
    /// `DATABASE_DAMAGED` when one does, or the journal says that one did: none of the two runs
    /// then.
    pub(super) async fn must_be_alone(
        &self,
        known: &Known<'_>,
        which: Which<'_>,
        noted: Noted,
    ) -> Result<(), Trouble> {
        let container = self.inspect(which.id).await?;
        if let Some(container) = &container {
            Sentinel::new(self, known, which).look(container).await?;
        }
        let Some(found) = self.second_server_noted(noted).await? else { return Ok(()) };
        if container.is_some() {
            self.stop(which).await?;
        }
        fail(FailureCode::DatabaseDamaged, found)
    }

    async fn second_server_noted(&self, noted: Noted) -> Result<Option<String>, Trouble> {
        let path = self.journal.path().to_owned();
        let (job, hop) = (self.at.job.id.clone(), self.at.hop);
        let since_asked = matches!(noted, Noted::SinceAsked);
        let read = move || Reader::open(&path)?.line_of_hop(&job, hop, NOTED, since_asked);
        durable(read).await.map_err(|error| {
            Trouble::Unknown(Failure::new(
                FailureCode::Unknown,
                format!("read the journal: {error}"),
            ))
        })
    }
}

/// Looks out for one version.
pub(super) struct Sentinel<'t, 'k> {
    effects: &'t Effects<'t>,
    which: Which<'t>,
    directory: Option<&'k Path>,
    ours: Vec<String>,
    looked: Option<Instant>,
    listed: Option<Instant>,
}

impl<'t, 'k> Sentinel<'t, 'k> {
    /// For the version in this container.
    pub fn new(effects: &'t Effects<'t>, known: &Known<'k>, which: Which<'t>) -> Self {
        let next = known.next.map(|next| next.id.clone());
        let ours = [Some(which.id.to_owned()), Some(effects.old_id(known).to_owned()), next];
        Self {
            effects,
            which,
            directory: directory_of(known),
            ours: ours.into_iter().flatten().collect(),
            looked: None,
            listed: None,
        }
    }

    /// Looks, unless it did so a moment ago; `container` is this version's, as it is now.
    ///
    /// # Errors
    /// `DATABASE_DAMAGED` when there was a second server: it is killed and this version stopped.
    pub async fn look(&mut self, container: &Value) -> Result<(), Trouble> {
        let Some(directory) = self.directory else { return Ok(()) };
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let Ok(place) = Place::of(directory) else { return Ok(()) };
        let servers = database::servers_in(place);
        if let Some(intruder) = servers.iter().find(|server| is_foreign(server, container)) {
            return self.meets(intruder, place).await;
        }
        if servers.iter().any(|server| server.is_of(container)) {
            return Ok(());
        }
        // Its own server is not seen either: the engine's is another host's, or it only starts.
        if self.listed.is_some_and(|listed| listed.elapsed() < LIST_EVERY) {
            return Ok(());
        }
        self.listed = Some(Instant::now());
        let ours: Vec<&str> = self.ours.iter().map(String::as_str).collect();
        let Some(other) = rival(self.effects.engine, container, directory, &ours).await? else {
            return Ok(());
        };
        let id = other["Id"].as_str().unwrap_or_default().to_owned();
        let name = other["Name"].as_str().unwrap_or_default().trim_start_matches('/');
        let found = self.note(&format!("container {name} ({})", short(&id))).await;
        self.effects.engine.kill(&id).await?;
        self.ends(found).await
    }

    async fn meets(&self, intruder: &HostServer, place: Place) -> Result<(), Trouble> {
        let found;
        match intruder.container_id() {
            Some(id) => {
                let inspected = self.effects.inspect(id).await?;
                let name = inspected.as_ref().map(super::containers::name_of).unwrap_or_default();
                let who = format!("container {name} ({})", short(id));
                found = self.note(&format!("a PostgreSQL server of {who}")).await;
                self.effects.engine.kill(id).await?;
            }
            None => {
                let who = format!("process {} of this host", intruder.pid);
                found = self.note(&format!("a PostgreSQL server, {who},")).await;
                kill(intruder.pid);
            }
        }
        if !self.is_gone(intruder.pid, place).await {
            self.effects
                .say(&format!("process {} was killed and is still there", intruder.pid))
                .await;
        }
        self.ends(found).await
    }

    async fn is_gone(&self, pid: u32, place: Place) -> bool {
        let deadline = Instant::now() + GONE_WITHIN;
        while database::servers_in(place).iter().any(|server| server.pid == pid) {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Journals who the other one is, before anything is done to it.
    async fn note(&self, who: &str) -> String {
        let directory = self.directory.unwrap_or(Path::new("")).display();
        let which = self.which;
        let found = format!(
            "{NOTED}{directory}: {who} worked in it beside the {which}; it is killed, and the {which} stopped"
        );
        self.effects.say(&found).await;
        found
    }

    /// Stops this version: what it wrote on would only be damaged further.
    async fn ends(&self, found: String) -> Result<(), Trouble> {
        self.effects.stop(self.which).await?;
        fail(FailureCode::DatabaseDamaged, found)
    }
}

/// Whether a server is for certain another container's, or none's. One of which the kernel says
/// nothing is not touched.
fn is_foreign(server: &HostServer, container: &Value) -> bool {
    !server.is_of(container) && server.is_told_apart_from(container)
}

/// Ends a process of this host at once.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    {
        tracing::warn!(%error, ?pid, "a second server could not be killed");
    }
}
