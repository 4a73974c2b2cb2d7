//! The containers beside the two of an upgrade: who runs on the shop's database, who has its name,
//! and who ran there after the container that would be started.
//!
//! Called by [`super::look`], and by the effects before anything is started. Reads only.

use std::path::Path;

use serde_json::{Value, json};

use super::look::id_of;
use super::{Later, OF_THIS_HOST, PROCESS, Stranger};
use crate::app::core::label_version;
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::database::{self, Access, Place, is_same_product};
use crate::driver::effects::{name_of, occupies_database};
use crate::engine::{ContainerSummary, Engine, EngineError, Inspection};
use crate::history::LastGood;
use crate::journal::{HopRecord, JobRecord};
use crate::machine::{Begun, State};
use crate::names::HOP_LABEL;
use crate::plan::versions::{Version, tag_of};

/// Where to look for them.
pub(super) struct Neighbours<'a> {
    pub engine: &'a dyn Engine,
    pub settings: &'a Settings,
    /// Ids of the containers that are no neighbours.
    pub ours: Vec<String>,
    /// The database's directory, once it is known.
    pub directory: Option<&'a Path>,
    /// An inspection of the product, or as much of one as is known.
    pub product: Value,
}

/// What would be started, and since when another one may have taken its place.
pub(super) struct Due<'a> {
    container: Option<&'a Value>,
    version: Option<&'a str>,
    since: Timestamp,
    /// Of the upgrade's own containers the one that may have run since then too, by its id.
    other: Option<&'a str>,
    /// Whether an operator may start it by hand.
    is_simple: bool,
}

impl<'a> Due<'a> {
    /// None where nothing would be started that something else could have followed.
    pub fn of(
        job: Option<&'a JobRecord>,
        good: Option<&'a LastGood>,
        old: Option<&'a Value>,
        next: Option<&'a Value>,
    ) -> Option<Self> {
        let started = |container: Option<&Value>, otherwise: Timestamp| {
            let at = container.and_then(|container| Inspection(container).started_at());
            at.and_then(Timestamp::parse).unwrap_or(otherwise)
        };
        if let Some(good) = good {
            return Some(Self {
                container: old,
                version: good.version.as_deref(),
                since: started(old, good.at),
                other: None,
                is_simple: true,
            });
        }
        let hop = job?.hop()?;
        let known = hop.machine.state().known();
        let (from, to) = (known.hop.from.as_deref(), Some(known.hop.version.as_str()));
        let next_id = known.next.map(|next| next.id.as_str());
        Some(match hop.machine.state() {
            // Between two hops nothing was stopped.
            State::Verified(_) if job?.is_active() => return None,
            State::Verified(_) => Self {
                container: next,
                version: to,
                since: started(next, came_here(hop)),
                other: Some(known.hop.old.id.as_str()),
                is_simple: true,
            },
            State::RolledBack(_) => Self {
                container: old,
                version: from,
                since: started(old, came_here(hop)),
                other: next_id,
                is_simple: true,
            },
            // What the new version did is assessed, until the old one may have run again.
            State::NeedsOperator(needs) if needs.begun == Begun::Return => Self {
                container: old,
                version: from,
                since: came_here(hop),
                other: next_id,
                is_simple: false,
            },
            State::NeedsOperator(_)
            | State::Planned(_)
            | State::BackedUp(_)
            | State::Pulled(_)
            | State::Swapped(_)
            | State::RollingBack(_) => Self {
                container: old,
                version: from,
                since: hop.began,
                other: None,
                is_simple: false,
            },
        })
    }
}

/// When a hop came to the state that it is in.
fn came_here(hop: &HopRecord) -> Timestamp {
    hop.transitions.last().map_or(hop.began, |(at, _)| *at)
}

impl Neighbours<'_> {
    /// Who is none of ours and runs on the database, or else has the shop's name.
    pub async fn stranger(
        &self,
        shop: &str,
        container: Option<&Value>,
    ) -> Result<Option<(Stranger, Value)>, EngineError> {
        for other in self.engine.containers(None).await? {
            let reaches =
                self.directory.is_some_and(|directory| database::may_write_to(&other, directory));
            if self.ours.contains(&other.id)
                || is_down(&other.state)
                || (container.is_none() && !reaches)
            {
                continue;
            }
            let Some(other) = self.engine.inspect_container(&other.id).await? else { continue };
            if occupies_database(&other) && self.is_on_database(&other, container) {
                return Ok(Some((Stranger::OnDatabase, other)));
            }
        }
        if let Some(server) = self.server().await? {
            return Ok(Some((Stranger::Server, server)));
        }
        let holder = self.engine.inspect_container(shop).await?;
        Ok(holder
            .filter(|holder| !self.ours.iter().any(|id| id == id_of(holder)))
            .map(|holder| (Stranger::HoldsName, holder)))
    }

    /// Whose server works in the database's directory, if it is none of ours: its container, or as
    /// much of one as names a process.
    async fn server(&self) -> Result<Option<Value>, EngineError> {
        let Some(place) = self.directory.and_then(|directory| Place::of(directory).ok()) else {
            return Ok(None);
        };
        let servers = database::servers_in(place);
        if servers.is_empty() {
            return Ok(None);
        }
        let mut ours = Vec::new();
        for id in &self.ours {
            ours.extend(self.engine.inspect_container(id).await?);
        }
        for server in servers {
            if ours.iter().any(|container| server.is_of(container)) {
                continue;
            }
            let container = match server.container_id() {
                Some(id) => self.engine.inspect_container(id).await?,
                None => None,
            };
            // One of the upgrade's own that looks into the database.
            let is_labelled =
                |container: &Value| !container["Config"]["Labels"][HOP_LABEL].is_null();
            match container {
                Some(container) if is_labelled(&container) => {}
                Some(container) => return Ok(Some(container)),
                None => {
                    let name = format!("{PROCESS}{}{OF_THIS_HOST}", server.pid);
                    return Ok(Some(json!({ "Name": name })));
                }
            }
        }
        Ok(None)
    }

    /// Who ran on the database after what is due, and is newer for all one knows: the last one.
    pub async fn later(&self, due: &Due<'_>, shop: &str) -> Result<Option<Later>, EngineError> {
        let mut last: Option<(Timestamp, Value)> = None;
        let mut holder = String::new();
        for other in self.engine.containers(None).await? {
            if other.name == shop {
                holder.clone_from(&other.id);
            }
            let is_ours = self.ours.contains(&other.id) && due.other != Some(other.id.as_str());
            if is_ours || other.state == "created" {
                continue;
            }
            let Some(other) = self.inspect(&other).await? else { continue };
            let started = Inspection(&other).started_at().and_then(Timestamp::parse);
            if let Some(started) = started
                && started > due.since
                && last.as_ref().is_none_or(|(last, _)| started > *last)
                && self.is_on_database(&other, due.container)
                && self.may_be_newer(&other, due)
            {
                last = Some((started, other));
            }
        }
        Ok(last.map(|(_, container)| Later {
            name: name_of(&container).to_owned(),
            version: version_of(&container).filter(|found| self.is_comparable(found, due)),
            is_running: occupies_database(&container),
            is_shop_taken: !holder.is_empty() && holder != id_of(&container),
            due_version: due.version.unwrap_or("an unknown version").to_owned(),
            due_name: due
                .container
                .filter(|_| due.is_simple)
                .map(|container| name_of(container).to_owned()),
        }))
    }

    /// A container, unless the engine is stuck with it, which is none of our business where the
    /// listing says that it does not reach the database.
    async fn inspect(&self, other: &ContainerSummary) -> Result<Option<Value>, EngineError> {
        let is_apart =
            self.directory.is_some_and(|directory| !database::may_write_to(other, directory));
        match self.engine.inspect_container(&other.id).await {
            Err(error) if is_apart && error.is_unknown() => Ok(None),
            inspected => inspected,
        }
    }

    /// Whether it runs the product and writes to the same database as `container`.
    fn is_on_database(&self, other: &Value, container: Option<&Value>) -> bool {
        is_same_product(&self.product, other)
            && (self.directory.is_some_and(|directory| may_write_to(other, directory))
                || container.is_some_and(|container| {
                    shares_a_mount(container, other) || self.is_one_database(container, other)
                }))
    }

    /// Whether both say that their database is elsewhere, and the same.
    fn is_one_database(&self, a: &Value, b: &Value) -> bool {
        let named = |container: &Value| {
            let environment = crate::driver::prepare::strings(&container["Config"]["Env"]);
            let found = database::locate(&environment, &self.settings.pg).ok()?;
            let is_elsewhere = found.access != Access::InContainer;
            is_elsewhere.then_some((found.host, found.port, found.name))
        };
        named(a).is_some_and(|a| named(b) == Some(a))
    }

    fn may_be_newer(&self, other: &Value, due: &Due<'_>) -> bool {
        if due.container.is_some_and(|container| container["Image"] == other["Image"]) {
            return false;
        }
        match (self.version(version_of(other).as_deref()), self.version(due.version)) {
            (Some(other), Some(due)) => other > due,
            (None, _) | (_, None) => true,
        }
    }

    fn is_comparable(&self, found: &str, due: &Due<'_>) -> bool {
        self.version(Some(found)).is_some() && self.version(due.version).is_some()
    }

    /// In debug mode a tag is no number, and the order is the policy's.
    fn version(&self, text: Option<&str>) -> Option<Version> {
        if self.settings.debug_version_mode {
            return None;
        }
        Version::parse(text?).ok()
    }
}

/// The version that a container's image is of, by its label or its tag.
pub(super) fn version_of(container: &Value) -> Option<String> {
    let tag = || container["Config"]["Image"].as_str().and_then(tag_of).map(str::to_owned);
    label_version(container).or_else(tag)
}

/// A running container other than `ours` that runs PayRam and may write to this database
/// directory: two of them on one destroy it (I2). A container that shares anything else, or one
/// of another image (one that ships logs, say), is none.
///
/// # Errors
/// When the engine can't be asked.
pub(in crate::driver) async fn rival(
    engine: &dyn Engine,
    container: &Value,
    directory: &Path,
    ours: &[&str],
) -> Result<Option<Value>, EngineError> {
    for other in engine.containers(None).await? {
        // The listing says what is mounted: who has nothing to do with it is not asked further, as
        // one that is stuck would be.
        let may_write = database::may_write_to(&other, directory);
        if ours.contains(&other.id.as_str()) || is_down(&other.state) || !may_write {
            continue;
        }
        let Some(other) = engine.inspect_container(&other.id).await? else { continue };
        if occupies_database(&other) && is_same_product(container, &other) {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// Whether a writable mount of this container holds the directory, or lies in it.
fn may_write_to(container: &Value, directory: &Path) -> bool {
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    mounts
        .filter(|mount| mount["RW"] != false)
        .filter_map(|mount| mount["Source"].as_str().filter(|source| !source.is_empty()))
        .any(|source| database::is_reached_by(Path::new(source), directory))
}

/// Whether a listing says that a container neither runs nor may at any moment.
fn is_down(state: &str) -> bool {
    matches!(state, "created" | "exited" | "dead")
}

/// Whether both may write to one place of this host.
fn shares_a_mount(a: &Value, b: &Value) -> bool {
    let mounts = a["Mounts"].as_array().into_iter().flatten();
    mounts
        .filter(|mount| mount["RW"] != false)
        .filter_map(|mount| mount["Source"].as_str().filter(|source| !source.is_empty()))
        .any(|source| may_write_to(b, Path::new(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_may_write_to_the_database_is_a_rival() {
        let directory = Path::new("/srv/payram/db/postgres");
        let may = |source: &str, writes: bool| {
            let mounts = json!({"Mounts": [{"Source": source, "RW": writes}]});
            may_write_to(&mounts, directory)
        };
        for source in
            ["/srv", "/srv/payram/db", "/srv/payram/db/postgres", "/srv/payram/db/postgres/pg_wal"]
        {
            assert!(may(source, true), "{source}");
            assert!(!may(source, false), "{source} is read only");
        }
        for source in
            ["/srv/payram/log", "/srv/payram/db/postgres.failed-1", "/var/run/docker.sock", ""]
        {
            assert!(!may(source, true), "{source}");
        }
        assert!(!may_write_to(&json!({}), directory));
    }
}
