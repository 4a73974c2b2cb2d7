//! A second server on the database's directory, whoever started it: the worst that can happen.
//!
//! It is looked for again and again while a version is watched, from its start until the old
//! container is tidied away. The kernel says which servers work in the directory, and the engine
//! which further containers run as the shop does on it, or did so since this version was started:
//! so an intruder that was killed just before the updater was is found by the next one. It is
//! killed without grace, because an orderly shutdown would write a checkpoint over the control
//! file that both share; then the other is stopped, and the directory counts as damaged.
//!
//! It is journaled before it is killed: a program that dies in between would find a world without
//! a trace of it, start the version again and believe it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::containers::name_of;
use crate::clock::Timestamp;
use crate::database::{self, HostServer, Place};
use crate::driver::context::{StepContext, Which};
use crate::driver::durable;
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::engine::EngineError;
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::error::fail;
use crate::journal::Reader;
use crate::machine::Step;
use crate::machine::failure::{Failure, FailureCode};

/// How the journal's line about a second server begins; it is looked for by this.
const NOTED: &str = "two servers on ";

/// Between two looks at the servers of this host.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between two looks at the engine's containers.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// How long an intruder may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Which of the journal's lines about a second server count.
#[derive(Clone, Copy)]
pub(in crate::driver) enum Noted {
    /// All of this hop.
    Ever,
    /// Those since a person last said how to go on.
    SinceAsked,
}

impl StepContext<'_> {
    /// Sees that no second server works in the database's directory beside this version, and that
    /// none did.
    ///
    /// # Errors
    /// `DATABASE_DAMAGED` when one does, or the journal says that one did: none of the two runs
    /// then.
    pub(in crate::driver) async fn must_be_alone(
        &self,
        which: Which<'_>,
        noted: Noted,
    ) -> Result<(), Trouble> {
        let container = self.inspect(which.id).await?;
        if let Some(container) = &container {
            Sentinel::new(self, which).look(container).await?;
        }
        self.none_may_be_noted(container.is_some().then_some(which), noted).await
    }

    /// Before each step up to the new version's start: that the old one is alone in the directory,
    /// and that nobody started the prepared new container beside it.
    pub(in crate::driver) async fn old_is_alone(&self, step: Step) -> Result<(), Trouble> {
        let directory = match (step, self.directory()) {
            (Step::PreCopy, None) => self.directory_of_old().await?,
            (_, directory) => directory.map(Path::to_owned),
        };
        let old = self.old();
        let Some(container) = self.inspect(old.id).await?.filter(|_| directory.is_some()) else {
            return Ok(());
        };
        let place = directory.as_deref().and_then(|directory| Place::of(directory).ok());
        let mut sentinel = Sentinel::before_the_start(self, directory);
        sentinel.look(&container).await?;
        // One that was started while the old one was on its way down.
        for server in place.map(database::servers_in).unwrap_or_default() {
            if let (Some(place), Some(id)) = (place, server.container_id())
                && let Some(other) = self.inspect(id).await?
                && id != old.id
                && ended_during(&container, &other)
            {
                sentinel.meets(&server, place).await?;
            }
        }
        if let Some(next) = self.next_container
            && let Some(next) = self.inspect(&next.id).await?
            && ended_during(&container, &next)
        {
            sentinel.meets_container(&next).await?;
        }
        self.none_may_be_noted(Some(old), Noted::Ever).await
    }

    /// Refuses where the journal says that there was one; this version is stopped then.
    async fn none_may_be_noted(
        &self,
        which: Option<Which<'_>>,
        noted: Noted,
    ) -> Result<(), Trouble> {
        let Some(found) = self.second_server_noted(noted).await? else { return Ok(()) };
        if let Some(which) = which {
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
pub(in crate::driver) struct Sentinel<'t> {
    cx: &'t StepContext<'t>,
    which: Which<'t>,
    directory: Option<PathBuf>,
    /// Whether the new container may not have been started yet, by nobody.
    next_waits: bool,
    looked: Option<Instant>,
    listed: Option<Instant>,
}

impl<'t> Sentinel<'t> {
    /// For the version in this container.
    pub fn new(cx: &'t StepContext<'t>, which: Which<'t>) -> Self {
        let directory = cx.directory().map(Path::to_owned);
        let next_waits = false;
        Self { cx, which, directory, next_waits, looked: None, listed: None }
    }

    /// For the old version until the new one is started: whoever started that before was not told
    /// to.
    pub fn before_the_start(cx: &'t StepContext<'t>, directory: Option<PathBuf>) -> Self {
        Self { directory, next_waits: true, ..Self::new(cx, cx.old()) }
    }

    /// Looks, unless it did so a moment ago; `container` is this version's, as it is now.
    ///
    /// # Errors
    /// `DATABASE_DAMAGED` when there was a second server: it is killed and this version stopped.
    pub async fn look(&mut self, container: &Value) -> Result<(), Trouble> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        // Where this version does not run, another that runs is no second one: somebody may have
        // put it in its place, and what serves is not stopped.
        if !Inspection(container).occupies_database() {
            return Ok(());
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        if let Ok(place) = Place::of(&directory) {
            let servers = database::servers_in(place);
            if let Some(intruder) = servers.iter().find(|server| is_foreign(server, container)) {
                return self.meets(intruder, place).await;
            }
        }
        if self.listed.is_some_and(|listed| listed.elapsed() < LIST_EVERY) {
            return Ok(());
        }
        self.listed = Some(Instant::now());
        match self.another_shop(container, &directory).await? {
            Some(other) => self.meets_container(&other).await,
            None => Ok(()),
        }
    }

    async fn meets_container(&self, other: &Value) -> Result<(), Trouble> {
        let id = other["Id"].as_str().unwrap_or_default();
        let who = format!("container {} ({})", name_of(other), short(id));
        if !Inspection(other).occupies_database() {
            let (from, to) = (&other["State"]["StartedAt"], &other["State"]["FinishedAt"]);
            let text = |at: &Value| at.as_str().unwrap_or("an unknown time").to_owned();
            let found = format!(
                "{who} was started on it, too, and ran from {} to {}",
                text(from),
                text(to)
            );
            let found = self.note(&found).await;
            return self.ends(found).await;
        }
        let found = self.note(&format!("{who} was started on it, too, and is killed")).await;
        self.kill_container(id).await?;
        self.ends(found).await
    }

    /// A container that runs on the directory as the shop does, or did while this version ran.
    /// One of the shop's image that is there for something else (a job that packs files, say) is
    /// none, as long as it has no server.
    async fn another_shop(
        &self,
        container: &Value,
        directory: &Path,
    ) -> Result<Option<Value>, Trouble> {
        let cx = self.cx;
        for other in cx.engine.containers(None).await? {
            if other.id == self.which.id || !database::may_write_to(&other, directory) {
                continue;
            }
            let Some(other) = cx.inspect(&other.id).await? else { continue };
            let is_ours = self.is_one_of_the_two(&other);
            let is_our_like =
                database::is_same_product(container, &other) && is_alike(container, &other);
            if !(is_ours || is_our_like) {
                continue;
            }
            let is_meant = is_ours && !self.was_started_by_somebody(&other);
            if Inspection(&other).occupies_database()
                || (!is_meant && ran_beside(&other, container))
            {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    fn is_one_of_the_two(&self, other: &Value) -> bool {
        let id = other["Id"].as_str().unwrap_or_default();
        self.cx.is_ours(id)
    }

    /// Whether the old container has been started since the upgrade began, or was started at all
    /// where it had to be made again. The new one is started by the upgrade itself, when it is due.
    fn was_started_by_somebody(&self, other: &Value) -> bool {
        let id = other["Id"].as_str().unwrap_or_default();
        if id != self.cx.hop.old.id {
            return self.next_waits || id == self.cx.old_id();
        }
        let saved = SavedSpec::read(&self.cx.hop.old.spec_file);
        saved
            .is_ok_and(|saved| saved.container["State"]["StartedAt"] != other["State"]["StartedAt"])
    }

    async fn meets(&self, intruder: &HostServer, place: Place) -> Result<(), Trouble> {
        let container = match intruder.container_id() {
            Some(id) => self.cx.inspect(id).await?,
            None => None,
        };
        let found;
        match &container {
            Some(container) => {
                let id = container["Id"].as_str().unwrap_or_default();
                let who = format!("container {} ({})", name_of(container), short(id));
                found = self.note(&worked(&who)).await;
                self.kill_container(id).await?;
            }
            // No container of this engine.
            None => {
                found = self.note(&worked(&format!("process {} of this host", intruder.pid))).await;
                kill(intruder.pid);
            }
        }
        if !self.is_gone(intruder.pid, place).await {
            self.cx.say(&format!("process {} was killed and is still there", intruder.pid)).await;
        }
        self.ends(found).await
    }

    /// One that has ended by itself meanwhile needs no kill.
    async fn kill_container(&self, id: &str) -> Result<(), Trouble> {
        match self.cx.engine.kill(id).await {
            Ok(()) | Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
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

    /// Journals what was found, before anything is done about it.
    async fn note(&self, found: &str) -> String {
        let directory = self.directory.as_deref().unwrap_or(Path::new("")).display();
        let found = format!("{NOTED}{directory} while the {} ran: {found}", self.which);
        self.cx.say(&found).await;
        found
    }

    /// Stops this version: what it wrote on would only be damaged further. That it can't be
    /// stopped takes nothing from what was found.
    async fn ends(&self, found: String) -> Result<(), Trouble> {
        let end = match self.cx.stop(self.which).await {
            Ok(()) => "it was stopped, too".to_owned(),
            Err(trouble) => format!("it could not be stopped: {trouble}"),
        };
        fail(FailureCode::DatabaseDamaged, format!("{found}; {end}"))
    }
}

/// Whether a server is for certain another container's, or none's. One of which the kernel says
/// nothing is not touched.
fn is_foreign(server: &HostServer, container: &Value) -> bool {
    !server.is_of(container) && server.is_told_apart_from(container)
}

/// Whether two containers, raw inspections, run the same command.
fn is_alike(a: &Value, b: &Value) -> bool {
    a["Path"] == b["Path"] && a["Args"] == b["Args"]
}

/// Whether a container that has ended was started after this run of the other had begun. Both
/// times are the engine's.
fn ran_beside(ended: &Value, container: &Value) -> bool {
    let started = |container: &Value| {
        container["State"]["StartedAt"].as_str().and_then(Timestamp::parse).map(Timestamp::millis)
    };
    match (started(ended), started(container)) {
        (Some(its), Some(ours)) => its > ours,
        (_, _) => false,
    }
}

/// Whether a container ended when the other one had been started already. Both times are the
/// engine's.
fn ended_during(ended: &Value, other: &Value) -> bool {
    let at = |container: &Value, key: &str| {
        container["State"][key].as_str().and_then(Timestamp::parse).map(Timestamp::millis)
    };
    let has_ended = !Inspection(ended).occupies_database();
    match (at(ended, "FinishedAt"), at(other, "StartedAt")) {
        (Some(end), Some(start)) => has_ended && Inspection(other).was_started() && start < end,
        (_, _) => false,
    }
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

fn worked(who: &str) -> String {
    format!("a second PostgreSQL server worked in it, of {who}, and is killed")
}
