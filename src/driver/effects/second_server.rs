//! A second server on the database's directory, whoever started it: the worst that can happen.
//!
//! It is looked for again and again while a version is watched, from its start until the old
//! container is tidied away. The kernel says which servers work in the directory; where this host
//! can't look, the engine's list of running containers does. The intruder is killed without grace,
//! because an orderly shutdown would write a checkpoint over the control file that both share;
//! then the other is stopped, and the directory counts as damaged.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::containers::Which;
use super::{Effects, fail};
use crate::database::{self, HostServer, Place};
use crate::driver::narrate::short;
use crate::driver::recovery::{directory_of, rival};
use crate::error::Trouble;
use crate::machine::Known;
use crate::machine::failure::FailureCode;

/// Between two looks at the servers of this host.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between two looks at the engine's containers, where this host's processes tell nothing.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// How long an intruder may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

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
        self.effects.engine.kill(&id).await?;
        self.ends(&format!("container {name} ({}) ran on it, too, and was killed", short(&id)))
            .await
    }

    async fn meets(&self, intruder: &HostServer, place: Place) -> Result<(), Trouble> {
        let who = match intruder.container_id() {
            Some(id) => {
                let inspected = self.effects.inspect(id).await?;
                let name = inspected.as_ref().map(super::containers::name_of).unwrap_or_default();
                self.effects.engine.kill(id).await?;
                format!("container {name} ({})", short(id))
            }
            None => {
                kill(intruder.pid);
                format!("process {} of this host", intruder.pid)
            }
        };
        let is_gone = self.is_gone(intruder.pid, place).await;
        let how = if is_gone { "was killed" } else { "was killed and is still there" };
        self.ends(&format!("a second PostgreSQL server worked in it, of {who}, which {how}")).await
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

    /// Stops this version: what it wrote on would only be damaged further.
    async fn ends(&self, found: &str) -> Result<(), Trouble> {
        let directory = self.directory.unwrap_or(Path::new("")).display();
        self.effects.say(&format!("two servers on {directory}: {found}")).await;
        self.effects.stop(self.which).await?;
        fail(
            FailureCode::DatabaseDamaged,
            format!("while the {} ran on {directory}, {found}; it was stopped, too", self.which),
        )
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
