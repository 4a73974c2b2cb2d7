//! Gathers what is to be seen. Every look is bounded in time and none fails the report: what
//! can't be seen is said to be unseen.

use std::sync::Arc;

use serde_json::Value;

use super::chain::{self, Chain, ChainSeen, read};
use super::database::{self as directory, DirectorySeen};
use crate::app::container;
use crate::app::core::{self, Health, Probe};
use crate::auto_update::view::AutoUpdateView;
use crate::config::Settings;
use crate::database::{self, OtherCollation};
use crate::engine::{Engine, Inspection};
use crate::history::{LastGood, SetAside, read_last_good, read_set_aside};
use crate::journal::{HistoryEvent, JobRecord, Quarantined, Reader, RestoreRecord};
use crate::machine::facts::CoreRules;
use crate::machine::failure::{Failure, FailureCode};
use crate::names::VERSION_LABEL;
use crate::notify;
use crate::plan::owners::{self, Owner};
use crate::plan::quarantine::{self, QuarantinedVersion};
use crate::plan::{fetch, manifest::Manifest, policy::Policy};

/// What was seen.
pub struct Seen {
    /// The newest job that changed something, or why the journal can't be read.
    pub(super) job: Result<Option<JobRecord>, String>,
    /// What was good last, or why the journal can't say.
    pub(super) good: Result<Option<LastGood>, String>,
    /// Whether the hash chain holds; none when there is no journal.
    pub(super) chain: Option<ChainSeen>,
    /// The engine's version, or why it can't be reached.
    pub(super) engine: Result<String, String>,
    /// The container.
    pub(super) container: Result<Container, Failure>,
    /// The policy.
    pub(super) policy: Result<Policy, Failure>,
    /// The manifest.
    pub(super) manifest: Result<Manifest, Failure>,
    /// What the core said of its health; none when there was no container to ask.
    pub(super) health: Option<Health>,
    /// The version that runs, or why it is not known; none when there was no container.
    pub(super) version: Option<Result<String, String>>,
    /// Versions whose tag still names an image that failed here, or why the journal can't say.
    pub(super) quarantined: Result<Vec<QuarantinedVersion>, String>,
    /// What auto-update does and why, or why the journal can't say.
    pub(super) auto_update: Result<AutoUpdateView, String>,
    /// What came of the last notification; none where nobody is to be told or nothing was.
    pub(super) notified: Option<Result<HistoryEvent, String>>,
    /// Rows of failed versions that nobody has dealt with, or why the journal can't say.
    pub(super) set_aside: Result<Vec<SetAside>, String>,
    /// The database's directory; none where the database is elsewhere or nothing runs.
    pub(super) directory: Option<Result<DirectorySeen, String>>,
    /// Whether a database outside of the container can be asked; none where it is in it.
    pub(super) elsewhere: Option<Result<String, String>>,
    /// The database's collation, where its version is another one than its server's.
    pub(super) collation: Option<OtherCollation>,
    /// Who else manages the container, or why that is not known; none where there is no container.
    pub(super) owners: Option<Result<Vec<Owner>, String>>,
    /// Containers that earlier upgrades left.
    pub(super) leftovers: Vec<String>,
    /// The newest restore, or why the journal can't say.
    pub(super) restore: Result<Option<RestoreRecord>, String>,
    /// The newest backup's path, and whether it still matches its sidecar.
    pub(super) backup: Option<(String, Result<(), String>)>,
}

/// The container that PayRam runs in.
pub(super) struct Container {
    pub name: String,
    pub status: String,
    /// Whether its programs work: a paused or crash-looping one serves nobody.
    pub is_running: bool,
}

impl Container {
    fn of(name: String, inspected: Inspection<'_>) -> Self {
        let status = inspected.status().to_owned();
        Self { name, status, is_running: inspected.runs_steadily() }
    }
}

/// Looks.
pub(super) async fn look(
    settings: &Settings,
    engine: &dyn Engine,
    journal: Option<(&Arc<Reader>, Chain<'_>)>,
) -> Seen {
    let reader = journal.map(|(reader, _)| reader);
    let (policy, manifest) = tokio::join!(fetch::policy(settings), fetch::manifest(settings));
    let job = match reader {
        Some(reader) => read(reader, Reader::last_executed_job).await,
        None => Ok(None),
    };
    let good = match reader {
        Some(reader) => read(reader, read_last_good).await,
        None => Ok(None),
    };
    let chain = match journal {
        Some((reader, chain)) => Some(chain::look(reader, chain).await),
        None => None,
    };
    let facts = engine.facts().await;
    let manifest_name =
        manifest.as_ref().ok().and_then(|m| m.container_name(None)).map(str::to_owned);
    let restore = match reader {
        Some(reader) => read(reader, Reader::last_restore).await,
        None => Ok(None),
    };
    let mut seen = Seen {
        restore,
        backup: backup_of(&job).await,
        job,
        good,
        chain,
        engine: facts.map(|facts| facts.version).map_err(|error| error.to_string()),
        container: Err(Failure::new(
            FailureCode::DockerDaemonDown,
            "the container engine can't be asked",
        )),
        policy,
        manifest,
        health: None,
        version: None,
        quarantined: quarantined(engine, reader).await,
        auto_update: auto_update(settings, reader).await,
        notified: notified(settings, reader).await,
        set_aside: set_aside(reader).await,
        directory: None,
        elsewhere: None,
        collation: None,
        owners: None,
        leftovers: Vec::new(),
    };
    if seen.engine.is_err() {
        return seen;
    }
    seen.leftovers = leftovers(engine, &seen.job).await;
    match container::find(engine, settings, manifest_name.as_deref()).await {
        Ok(found) => look_at_container(settings, engine, &mut seen, &found.id, found.name).await,
        Err(failure) => seen.container = Err(failure),
    }
    seen
}

async fn look_at_container(
    settings: &Settings,
    engine: &dyn Engine,
    seen: &mut Seen,
    id: &str,
    name: String,
) {
    let inspected = match engine.inspect_container(id).await {
        Ok(Some(inspected)) => inspected,
        Ok(None) => {
            let gone = format!("container {name} is gone");
            seen.container = Err(Failure::new(FailureCode::ContainerNotFound, gone));
            return;
        }
        Err(error) => {
            seen.container = Err(Failure::from(&error));
            return;
        }
    };
    let container = Container::of(name, Inspection(&inspected));
    let is_running = container.is_running;
    let shop = owners::Shop {
        settings,
        engine,
        name: &container.name,
        inspection: &inspected,
        next_image: None,
    };
    let owned = owners::look(&shop);
    if !is_running {
        seen.owners = Some(owned.await);
        seen.container = Ok(container);
        return;
    }
    let (owners, directory, elsewhere, collation) = tokio::join!(
        owned,
        directory::look(settings, engine, &inspected),
        directory::elsewhere(settings, engine, &inspected),
        directory::collation(settings, engine, &inspected)
    );
    (seen.owners, seen.directory) = (Some(owners), directory);
    (seen.elsewhere, seen.collation) = (elsewhere, collation);
    seen.container = Ok(container);
    let rules = rules(seen, &inspected);
    let probe = Probe::of(settings);
    match probe.find(engine, &inspected).await {
        Ok(place) => {
            seen.health = Some(probe.health(&place, &rules).await);
            let version = probe.version(&place, &rules, &inspected).await;
            seen.version = Some(version.map_err(|error| error.to_string()));
        }
        Err(silent) => {
            seen.health = Some(Health::Silent { reason: silent.to_string() });
            seen.version = Some(Err(silent.to_string()));
        }
    }
}

/// How the running version is asked: by the label's version and the policy's first API version.
fn rules(seen: &Seen, inspected: &Value) -> CoreRules {
    let label = inspected["Config"]["Labels"][VERSION_LABEL].as_str().unwrap_or_default();
    let since = seen.policy.as_ref().ok().and_then(|p| p.updater_api_init_version.clone());
    let path = seen.manifest.as_ref().ok().map(|m| m.health_path.clone());
    core::rules_for(label, since.as_deref(), path.as_deref())
}

/// What auto-update does and why.
async fn auto_update(
    settings: &Settings,
    reader: Option<&Arc<Reader>>,
) -> Result<AutoUpdateView, String> {
    let settings = settings.clone();
    match reader {
        Some(reader) => read(reader, move |it| AutoUpdateView::read(&settings, Some(it))).await,
        None => AutoUpdateView::read(&settings, None).map_err(|error| error.to_string()),
    }
}

/// What came of the last notification.
async fn notified(
    settings: &Settings,
    reader: Option<&Arc<Reader>>,
) -> Option<Result<HistoryEvent, String>> {
    settings.notify_url.as_ref()?;
    read(reader?, notify::last_of_all).await.transpose()
}

/// What was set aside and not dismissed.
async fn set_aside(reader: Option<&Arc<Reader>>) -> Result<Vec<SetAside>, String> {
    let Some(reader) = reader else { return Ok(Vec::new()) };
    let all = read(reader, read_set_aside).await?;
    Ok(all.into_iter().filter(|one| one.dismissed.is_none()).collect())
}

/// What failed here, but for the tags that have moved since.
pub(super) async fn quarantined(
    engine: &dyn Engine,
    reader: Option<&Arc<Reader>>,
) -> Result<Vec<QuarantinedVersion>, String> {
    let Some(reader) = reader else { return Ok(Vec::new()) };
    let entries = read(reader, Reader::quarantine).await?;
    let standing: Vec<Quarantined> = entries.into_iter().filter(Quarantined::stands).collect();
    let mut images: Vec<String> = standing.iter().map(quarantine::image_of).collect();
    images.sort();
    images.dedup();
    let asked = images.iter().map(|image| quarantine::look(engine, image, &standing));
    Ok(futures_util::future::join_all(asked).await.into_iter().flatten().collect())
}

/// Containers that upgrades of this shop made and that are not the one that serves. While a job is
/// under way, or waits for a person, they belong to it. Those of another shop on the same engine
/// may be of an upgrade that is under way there.
async fn leftovers(engine: &dyn Engine, job: &Result<Option<JobRecord>, String>) -> Vec<String> {
    let Ok(Some(job)) = job else { return Vec::new() };
    // One that a person closed by `sync` needs nothing of what it left any more.
    let is_closed = job.ending.as_ref().is_some_and(|end| end.failure_code.is_none());
    if !job.phase().is_final() && !is_closed {
        return Vec::new();
    }
    let shop = &job.body.container_name;
    let Ok(labelled) = engine.containers(Some(crate::names::HOP_LABEL)).await else {
        return Vec::new();
    };
    labelled
        .into_iter()
        .filter(|container| container.state != "running")
        .filter(|container| {
            let rest = container.name.strip_prefix(shop.as_str()).unwrap_or_default();
            crate::names::continues_as_of_an_upgrade(rest)
        })
        .map(|container| container.name)
        .collect()
}

async fn backup_of(
    job: &Result<Option<JobRecord>, String>,
) -> Option<(String, Result<(), String>)> {
    let job = job.as_ref().ok()?.as_ref()?;
    let backup = job.hop()?.machine.state().known().backup.cloned()?;
    // The whole file is not read again here; `backup list` and `restore` do that.
    let size = tokio::fs::metadata(&backup.path).await.map(|found| found.len());
    let verdict = match size {
        Ok(size) if size == backup.size_bytes => Ok(()),
        Ok(size) => Err(format!("expected {} bytes, found {size}", backup.size_bytes)),
        Err(error) => Err(error.to_string()),
    };
    let sidecar = database::Sidecar::beside(std::path::Path::new(&backup.path));
    let verdict = match (verdict, sidecar) {
        (Ok(()), None) => Err("its description beside it is missing".to_owned()),
        (verdict, _) => verdict,
    };
    Some((backup.path, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_paused_or_crash_looping_shop_is_not_called_running() {
        for (flag, status) in [("Paused", "paused"), ("Restarting", "restarting")] {
            let state = json!({"State": {"Running": true, flag: true, "Status": status}});
            let seen = Container::of("payram".to_owned(), Inspection(&state));
            assert_eq!((seen.is_running, seen.status.as_str()), (false, status));
        }
        let state = json!({"State": {"Running": true, "Status": "running"}});
        assert!(Container::of("payram".to_owned(), Inspection(&state)).is_running);
    }
}
