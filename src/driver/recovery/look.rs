//! Looks at the world for `recover`: the containers of the last hop by id, whoever stands in
//! their way, whose application answers, and the copy of the database. Reads only.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CopySeen, Names, Seen, Serving, Sight, Stranger, World};
use crate::app::container;
use crate::app::core::Probe;
use crate::config::Settings;
use crate::database::is_same_product;
use crate::driver::effects::{name_of, occupies_database, was_started};
use crate::driver::failed_path;
use crate::engine::{Engine, EngineError};
use crate::journal::JobRecord;
use crate::machine::facts::Copy;
use crate::machine::{Known, State};

/// Looks. Without a job that has begun, at the shop's container alone.
///
/// # Errors
/// When the engine can't be asked.
pub async fn look(
    engine: &dyn Engine,
    settings: &Settings,
    job: Option<&JobRecord>,
    is_driven: bool,
) -> Result<Sight, EngineError> {
    let hop = job.and_then(JobRecord::hop);
    let known = hop.map(|hop| hop.machine.state().known());
    let shop = match (job, known) {
        (_, Some(known)) => known.hop.old.name.clone(),
        (Some(job), None) => job.body.container_name.clone(),
        (None, None) => container::find(engine, settings, None)
            .await
            .map(|found| found.name)
            .unwrap_or_default(),
    };
    let old = match known {
        Some(known) => engine.inspect_container(&known.hop.old.id).await?,
        None if shop.is_empty() => {
            // Nothing is named: an engine that can't be asked still has to be told.
            engine.facts().await?;
            None
        }
        None => engine.inspect_container(&shop).await?,
    };
    let next = match known.and_then(|known| known.next) {
        Some(next) => engine.inspect_container(&next.id).await?,
        None => None,
    };
    let stranger = match known {
        Some(known) => stranger(engine, &known).await?,
        None => None,
    };
    let mut serving = Serving::Nobody;
    for (who, container) in [
        (Serving::Old, old.as_ref()),
        (Serving::Next, next.as_ref()),
        (Serving::Stranger, stranger.as_ref().map(|(_, container)| container)),
    ] {
        if serving == Serving::Nobody
            && let Some(container) = container.filter(|container| occupies_database(container))
            && Probe::of(settings).find(engine, container).await.is_ok()
        {
            serving = who;
        }
    }
    let (copy, copy_path, failed_path) = match (job, hop) {
        (Some(job), Some(hop)) => copy_seen(job, hop.machine.state()),
        (_, _) => (CopySeen::NotMade, String::new(), String::new()),
    };
    let name = |container: Option<&Value>| container.map(name_of).unwrap_or_default().to_owned();
    Ok(Sight {
        world: World {
            old: seen(old.as_ref()),
            next: seen(next.as_ref()),
            serving,
            stranger: stranger.as_ref().map_or(Stranger::None, |(stranger, _)| *stranger),
            copy,
            is_driven,
            resume: settings.resume,
        },
        names: Names {
            shop,
            old: name(old.as_ref()),
            next: name(next.as_ref()),
            stranger: name(stranger.as_ref().map(|(_, container)| container)),
            copy: copy_path,
            failed: failed_path,
            docker: settings.docker_bin.clone(),
        },
    })
}

fn seen(container: Option<&Value>) -> Seen {
    match container {
        None => Seen::Gone,
        Some(container) if occupies_database(container) => Seen::Running,
        Some(container) if was_started(container) => Seen::Stopped,
        Some(_) => Seen::Created,
    }
}

/// Who is neither of the two and runs on their database, or else has the shop's name.
async fn stranger(
    engine: &dyn Engine,
    known: &Known<'_>,
) -> Result<Option<(Stranger, Value)>, EngineError> {
    let ours: Vec<&str> =
        [Some(known.hop.old.id.as_str()), known.next.map(|next| next.id.as_str())]
            .into_iter()
            .flatten()
            .collect();
    for id in &ours {
        if let Some(directory) = directory_of(known)
            && let Some(container) = engine.inspect_container(id).await?
            && let Some(rival) = rival(engine, &container, directory, &ours).await?
        {
            return Ok(Some((Stranger::OnDatabase, rival)));
        }
    }
    let holder = engine.inspect_container(&known.hop.old.name).await?;
    Ok(holder
        .filter(|holder| !ours.contains(&holder["Id"].as_str().unwrap_or_default()))
        .map(|holder| (Stranger::HoldsName, holder)))
}

/// The database's directory on this host, once it is known; none where it is elsewhere.
pub(in crate::driver) fn directory_of<'k>(known: &Known<'k>) -> Option<&'k Path> {
    match known.copy {
        Some(Copy::Directory { source, .. }) => Some(Path::new(source)),
        Some(Copy::Dump { .. }) | None => None,
    }
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
        if ours.contains(&other.id.as_str()) || other.state != "running" {
            continue;
        }
        let Some(other) = engine.inspect_container(&other.id).await? else { continue };
        let may_write = may_write_to(&other, directory);
        if occupies_database(&other) && may_write && is_same_product(container, &other) {
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
        .any(|source| directory.starts_with(source) || Path::new(source).starts_with(directory))
}

fn copy_seen(job: &JobRecord, state: &State) -> (CopySeen, String, String) {
    let Some(Copy::Directory { source, copy, .. }) = state.known().copy else {
        return (CopySeen::NotMade, String::new(), String::new());
    };
    let failed = failed_path(source, &job.id, job.hops.len());
    let is_there = |path: &str| Path::new(path).exists();
    let seen = match (is_there(copy), PathBuf::from(&failed).exists()) {
        // Both renames of a restore, or its first: it was begun.
        (false, true) => CopySeen::There,
        (true, true) if !is_there(source) => CopySeen::There,
        (true, true) => CopySeen::InTheWay,
        (true, false) => CopySeen::There,
        (false, false) => CopySeen::Missing,
    };
    (seen, copy.clone(), failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
