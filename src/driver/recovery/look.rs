//! Looks at the world for `recover`: the containers of the last hop by id, whoever stands in
//! their way, whose application answers, and the copy of the database. Reads only.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::neighbours::{Due, Neighbours, version_of};
use super::{CopySeen, Good, Names, Seen, Serving, Sight, Stranger, World};
use crate::app::container;
use crate::app::core::{Probe, is_same_version};
use crate::config::Settings;
use crate::driver::effects::{name_of, occupies_database, was_started};
use crate::driver::{failed_database, failed_path};
use crate::engine::{Engine, EngineError};
use crate::history::{By, LastGood};
use crate::journal::JobRecord;
use crate::machine::facts::Copy;
use crate::machine::{Hop, Known, State};
use crate::names::REMADE_LABEL;

/// What is done about an unfinished job without being asked.
#[derive(Clone, Copy, Debug)]
pub struct Hand {
    /// The driver is at work on it.
    pub is_driven: bool,
    /// A daemon holds it and waits for a word.
    pub is_held: bool,
}

/// Looks. Without a job that has begun, and where something else was good last since then, at that
/// container and the shop's name alone.
///
/// # Errors
/// When the engine can't be asked.
pub async fn look(
    engine: &dyn Engine,
    settings: &Settings,
    job: Option<&JobRecord>,
    last_good: Option<&LastGood>,
    hand: Hand,
) -> Result<Sight, EngineError> {
    let good = last_good.filter(|good| takes_the_place(good, job));
    let hop = job.and_then(JobRecord::hop);
    let known = hop.map(|hop| hop.machine.state().known());
    let shop = match (job, known, good) {
        (_, Some(known), _) => known.hop.old.name.clone(),
        (Some(job), None, _) => job.body.container_name.clone(),
        (None, None, Some(good)) => good.container_name.clone(),
        (None, None, None) => container::find(engine, settings, None)
            .await
            .map(|found| found.name)
            .unwrap_or_default(),
    };
    let (old, next) = match (good, known) {
        (Some(good), _) => (container_of(engine, good).await?, None),
        (None, Some(known)) => {
            let old = old_container(engine, job, known.hop).await?;
            let next = match known.next {
                Some(next) => engine.inspect_container(&next.id).await?,
                None => None,
            };
            (old, next)
        }
        (None, None) if shop.is_empty() => {
            // Nothing is named: an engine that can't be asked still has to be told.
            engine.facts().await?;
            (None, None)
        }
        (None, None) => (engine.inspect_container(&shop).await?, None),
    };
    let neighbours = Neighbours {
        engine,
        settings,
        ours: ids(good, known.as_ref(), old.as_ref()),
        directory: known.as_ref().and_then(directory_of),
        product: product(old.as_ref().or(next.as_ref()), job, good),
    };
    let stranger = match good.is_some() || known.is_some() {
        true => neighbours.stranger(&shop, old.as_ref().filter(|_| good.is_some())).await?,
        false => None,
    };
    let serving = serving(
        engine,
        settings,
        [
            (Serving::Old, old.as_ref()),
            (Serving::Next, next.as_ref()),
            (Serving::Stranger, stranger.as_ref().map(|(_, container)| container)),
        ],
    )
    .await;
    let due = Due::of(job, last_good.filter(|_| good.is_some()), old.as_ref(), next.as_ref());
    let later = match due {
        Some(due) => neighbours.later(&due, &shop).await?,
        None => None,
    };
    let (copy, copy_path, failed_path) = match (job, hop) {
        (Some(job), Some(hop)) if good.is_none() => copy_seen(job, hop.machine.state()),
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
            is_driven: hand.is_driven,
            resume: settings.resume,
            is_held: hand.is_held,
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
        good: good.map(|good| Good {
            version: good.version.clone().unwrap_or_else(|| "an unknown version".to_owned()),
            how: good.by.sentence(),
            id: old.as_ref().map(id_of).unwrap_or_default().to_owned(),
            image: good.image_id.clone().unwrap_or_default(),
        }),
        later,
    })
}

/// Whether this decides and not the last upgrade: it was recorded after that, or that never began.
fn takes_the_place(good: &LastGood, job: Option<&JobRecord>) -> bool {
    match job {
        None => true,
        Some(job) if job.is_active() => false,
        Some(job) => job.hop().is_none() || (good.by == By::Recorded && good.seq > job.seq),
    }
}

/// The container that was good last. What an earlier program recorded it told by name alone, and
/// another version may have the name by now.
async fn container_of(engine: &dyn Engine, good: &LastGood) -> Result<Option<Value>, EngineError> {
    match &good.container_id {
        Some(id) => engine.inspect_container(id).await,
        None => Ok(engine.inspect_container(&good.container_name).await?.filter(|container| {
            let version = version_of(container);
            version.is_some_and(|found| {
                good.version.as_deref().is_some_and(|good| is_same_version(&found, good))
            })
        })),
    }
}

fn ids(good: Option<&LastGood>, known: Option<&Known<'_>>, old: Option<&Value>) -> Vec<String> {
    match (good, known) {
        (Some(_), _) | (None, None) => old.map(id_of).map(str::to_owned).into_iter().collect(),
        (None, Some(known)) => {
            let old = old.map_or(known.hop.old.id.as_str(), id_of);
            let next = known.next.map(|next| next.id.as_str());
            [Some(old), next].into_iter().flatten().map(str::to_owned).collect()
        }
    }
}

/// What is asked whether another container runs the same product: one that is there, or what is
/// known of it.
fn product(there: Option<&Value>, job: Option<&JobRecord>, good: Option<&LastGood>) -> Value {
    there.cloned().unwrap_or_else(|| {
        let repo = job.and_then(|job| job.body.hops.first()).map(|hop| &hop.target.repo);
        let image = good.and_then(|good| good.image_id.as_ref());
        json!({"Image": image, "Config": {"Image": repo}})
    })
}

async fn serving(
    engine: &dyn Engine,
    settings: &Settings,
    all: [(Serving, Option<&Value>); 3],
) -> Serving {
    for (who, container) in all {
        if let Some(container) = container.filter(|container| occupies_database(container))
            && Probe::of(settings).find(engine, container).await.is_ok()
        {
            return who;
        }
    }
    Serving::Nobody
}

/// The container that served before the hop; the one that was made in its place where somebody
/// removed it.
///
/// # Errors
/// When the engine can't be asked.
pub(in crate::driver) async fn old_container(
    engine: &dyn Engine,
    job: Option<&JobRecord>,
    hop: &Hop,
) -> Result<Option<Value>, EngineError> {
    if let Some(found) = engine.inspect_container(&hop.old.id).await? {
        return Ok(Some(found));
    }
    let Some(job) = job else { return Ok(None) };
    let label = format!("{REMADE_LABEL}={}/{}", job.id, job.hops.len());
    match engine.containers(Some(&label)).await?.first() {
        Some(remade) => engine.inspect_container(&remade.id).await,
        None => Ok(None),
    }
}

fn seen(container: Option<&Value>) -> Seen {
    match container {
        None => Seen::Gone,
        Some(container) if occupies_database(container) => Seen::Running,
        Some(container) if was_started(container) => Seen::Stopped,
        Some(_) => Seen::Created,
    }
}

/// The database's directory on this host, once it is known; none where it is elsewhere.
fn directory_of<'k>(known: &Known<'k>) -> Option<&'k Path> {
    match known.copy {
        Some(Copy::Directory { source, .. }) => Some(Path::new(source)),
        Some(Copy::Dump { .. }) | None => None,
    }
}

pub(super) fn id_of(container: &Value) -> &str {
    container["Id"].as_str().unwrap_or_default()
}

fn copy_seen(job: &JobRecord, state: &State) -> (CopySeen, String, String) {
    let (source, copy) = match state.known().copy {
        Some(Copy::Directory { source, copy, .. }) => (source, copy),
        Some(Copy::Dump { path, is_elsewhere: true, .. }) => {
            let seen = match Path::new(path).exists() {
                true => CopySeen::There,
                false => CopySeen::Missing,
            };
            return (seen, path.clone(), failed_database(&job.id, job.hops.len()));
        }
        Some(Copy::Dump { .. }) | None => {
            return (CopySeen::NotMade, String::new(), String::new());
        }
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
