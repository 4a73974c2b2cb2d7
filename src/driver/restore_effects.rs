//! The effects of a restore's steps: each looks first and does what is missing, so that it may run
//! again after a crash at any instant (I4). It decides nothing about what comes next.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::shop::{Shop, Standing};
use super::{Driver, durable, narrate::short};
use crate::app::core::{Health, Place, Probe, Search};
use crate::app::supervisor;
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::database::{self, Renaming};
use crate::error::{Trouble, fail};
use crate::journal::RestoreRecord;
use crate::machine::facts::{Backup, CoreRules};
use crate::machine::failure::{Failure, FailureCode};
use crate::plan::fetch;
use crate::restore::{
    Loaded, Noted, Place as Serves, Restore, RestoreFact, RestoreOutcome, RestoreStep, Served,
    temporary_name,
};

/// How long a backup may take to load: the application serves meanwhile, and it can be called off.
/// At least, and by how many times `BACKUP_TIMEOUT_SECONDS`: indexes are built anew.
const LOAD_WITHIN: (Duration, u32) = (Duration::from_secs(60 * 60), 6);

/// Between two looks at an application that starts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Between two answers of one that is watched.
const ANSWER_EVERY: Duration = Duration::from_secs(1);

/// What the effects of one restore work with.
pub(super) struct RestoreEffects<'a> {
    pub driver: &'a Driver,
    pub record: &'a RestoreRecord,
    pub restore: &'a Restore,
}

impl RestoreEffects<'_> {
    /// Runs a step's effect to its end.
    pub async fn run(&self, step: RestoreStep) -> RestoreOutcome {
        let result = match step {
            RestoreStep::Load => self.load().await.map(RestoreFact::Loaded),
            RestoreStep::NotePrograms => self.note_programs().await.map(RestoreFact::Noted),
            RestoreStep::Silence => self.silence().await,
            RestoreStep::Swap => self.swap().await,
            RestoreStep::StartPrograms => self.start_programs().await,
            RestoreStep::Verify => self.verify().await,
            RestoreStep::SilenceAgain => self.silence().await.map(|_| RestoreFact::Done),
            RestoreStep::SwapBack => self.swap_back().await,
            RestoreStep::Discard => self.discard().await,
        };
        match result {
            Ok(fact) => RestoreOutcome::Done { fact },
            Err(Trouble::Failed(failure)) => RestoreOutcome::Failed { failure },
            Err(Trouble::Unknown(failure)) => RestoreOutcome::Unknown { failure },
        }
    }

    fn settings(&self) -> &Settings {
        &self.driver.settings
    }

    /// The container that was there when it was asked.
    async fn container(&self) -> Result<Option<Standing>, Trouble> {
        let Some(named) = &self.record.body.container else { return Ok(None) };
        match self.driver.engine.inspect_container(&named.id).await? {
            Some(inspection) => {
                Ok(Some(Standing { id: named.id.clone(), name: named.name.clone(), inspection }))
            }
            None => fail(
                FailureCode::ContainerNotFound,
                format!("container {} ({}) is gone", named.name, short(&named.id)),
            ),
        }
    }

    /// The database that was meant, asked in the same way.
    async fn shop(&self) -> Result<Shop, Trouble> {
        let body = &self.record.body;
        let shop = match self.container().await? {
            Some(container) => self.driver.shop_of(container)?,
            None => match database::recall(&self.settings().state_dir)? {
                Some(database) => Shop { container: None, database },
                None => {
                    let message = "where the database is, is not written down any more";
                    return fail(FailureCode::InvalidDbConfig, message);
                }
            },
        };
        let found = (&shop.database.host, shop.database.port, &shop.database.name);
        if found != (&body.host, body.port, &body.database) {
            return fail(
                FailureCode::DatabaseMismatch,
                format!(
                    "another database is named now: expected {} at {}:{}, found {} at {}:{}",
                    body.database, body.host, body.port, found.2, found.0, found.1
                ),
            );
        }
        Ok(shop)
    }

    /// What the database is called until it takes the application's name.
    fn made(&self) -> String {
        temporary_name(self.record.id.short())
    }

    fn loaded(&self) -> Result<&Loaded, Trouble> {
        match &self.restore.loaded {
            Some(loaded) => Ok(loaded),
            None => fail(FailureCode::RestoreFailed, "the backup was never loaded"),
        }
    }

    async fn load(&self) -> Result<Loaded, Trouble> {
        let body = &self.record.body;
        let path = Path::new(&body.file);
        let asked = Backup {
            path: body.file.clone(),
            size_bytes: body.size_bytes,
            sha256: body.sha256.clone(),
            database_host: body.host.clone(),
            database_port: body.port,
            database_name: body.database.clone(),
        };
        database::verify_file(path, &asked).await?;
        let shop = self.shop().await?;
        let runner = shop.runner(self.driver);
        self.drop_leftovers(&runner).await?;
        let within = LOAD_WITHIN.0.max(self.settings().backup_timeout * LOAD_WITHIN.1);
        database::load(&runner, &self.made(), path, body.format, body.rows, within).await
    }

    /// What earlier restores made and could not drop. One that stays does not keep this one back.
    async fn drop_leftovers(&self, runner: &database::Runner<'_>) -> Result<(), Trouble> {
        let ended = self.driver.reader.ended_restores().map_err(|error| {
            Trouble::failed(FailureCode::RestoreFailed, format!("read the restores: {error}"))
        })?;
        let names: Vec<String> = ended.iter().map(|job| temporary_name(job.short())).collect();
        for name in database::made_leftovers(runner, &names).await? {
            match database::drop_made(runner, &name).await {
                Ok(()) => self.say(&format!("dropped {name}, which an earlier restore left")).await,
                Err(trouble) => self.say(&format!("{name} is left: {trouble}")).await,
            }
        }
        Ok(())
    }

    async fn note_programs(&self) -> Result<Noted, Trouble> {
        let nothing = Noted { running: Vec::new(), served: Served::No };
        let Some(container) = self.container().await? else { return Ok(nothing) };
        if !container.runs() {
            return Ok(nothing);
        }
        let engine = self.driver.engine.as_ref();
        let running = match supervisor::programs(engine, &container.id).await? {
            Some(programs) => supervisor::select(
                &programs,
                &self.settings().supervisor_exclude,
                self.settings().supervisor_include.as_deref(),
            ),
            None => Vec::new(),
        };
        let probe = Probe::of(self.settings());
        let served = match probe.find(engine, &container.inspection).await {
            Ok(place) => self.served(&probe, &place).await,
            Err(_silent) => Served::No,
        };
        Ok(Noted { running, served })
    }

    async fn served(&self, probe: &Probe, place: &Place) -> Served {
        match probe.health(place, &self.rules().await).await {
            Health::Healthy => Served::Healthy,
            Health::Unhealthy { .. } | Health::Silent { .. } => Served::Answers,
        }
    }

    /// Where the manifest says that health is asked; a version that has no such place greets, and
    /// has to greet again.
    async fn rules(&self) -> CoreRules {
        let manifest = fetch::manifest(self.settings()).await.ok();
        let path = manifest.map(|manifest| manifest.health_path);
        crate::app::core::rules_for("", None, path.as_deref())
    }

    async fn silence(&self) -> Result<RestoreFact, Trouble> {
        let Some(container) = self.container().await? else {
            return Ok(RestoreFact::Answer { at_ms: None });
        };
        let engine = self.driver.engine.as_ref();
        let probe = Probe::of(self.settings());
        let answers = container.runs()
            && self.restore.served() != Served::No
            && probe.find(engine, &container.inspection).await.is_ok();
        let at_ms = answers.then(|| Timestamp::now().millis());
        let programs = self.restore.noted.as_ref().map(|noted| noted.running.as_slice());
        if let Some(names) = programs.filter(|names| !names.is_empty() && container.runs()) {
            supervisor::stop(engine, &container.id, names).await?;
        }
        Ok(RestoreFact::Answer { at_ms: at_ms.or(self.restore.last_answer_ms) })
    }

    async fn swap(&self) -> Result<RestoreFact, Trouble> {
        let (shop, loaded, body) = (self.shop().await?, self.loaded()?, &self.record.body);
        let renaming = Renaming {
            live: &body.database,
            aside: &body.aside,
            coming: &self.made(),
            leaves: loaded.present,
            comes: loaded.made,
        };
        database::rename_both(&shop.runner(self.driver), &renaming).await?;
        Ok(RestoreFact::Done)
    }

    async fn swap_back(&self) -> Result<RestoreFact, Trouble> {
        let (shop, loaded, body) = (self.shop().await?, self.loaded()?, &self.record.body);
        let renaming = Renaming {
            live: &body.database,
            aside: &body.failed,
            coming: &body.aside,
            leaves: loaded.made,
            comes: loaded.present,
        };
        database::rename_both(&shop.runner(self.driver), &renaming).await?;
        Ok(RestoreFact::Done)
    }

    async fn start_programs(&self) -> Result<RestoreFact, Trouble> {
        let Some(container) = self.container().await? else { return Ok(RestoreFact::Done) };
        let Some(noted) = self.restore.noted.as_ref().filter(|noted| !noted.running.is_empty())
        else {
            return Ok(RestoreFact::Done);
        };
        if !container.runs() {
            let message = format!("somebody stopped container {}", container.name);
            return fail(FailureCode::RuntimeInspectionFailed, message);
        }
        // The core may answer while a slow worker is still starting: downtime ends there.
        let engine = self.driver.engine.as_ref();
        let mut starting = pin!(supervisor::start(engine, &container.id, &noted.running));
        let mut looking = pin!(self.first_answer(&container));
        let (mut at_ms, mut is_looking) = (None, noted.served != Served::No);
        loop {
            tokio::select! {
                started = starting.as_mut() => {
                    started?;
                    return Ok(RestoreFact::Answer { at_ms });
                }
                // One that does not answer in time is `verify`'s to judge.
                first = looking.as_mut(), if is_looking => {
                    is_looking = false;
                    at_ms = first.ok().map(|(_, at_ms)| at_ms);
                }
            }
        }
    }

    /// It is as well as it was before, without a break for `VERIFY_SECONDS`.
    async fn verify(&self) -> Result<RestoreFact, Trouble> {
        let goes_back = self.restore.failure.is_some();
        let served = self.restore.served();
        let Some(container) = self.container().await? else {
            return Ok(RestoreFact::Answer { at_ms: None });
        };
        let is_hopeless = goes_back || !container.runs();
        if served == Served::No && is_hopeless {
            return Ok(RestoreFact::Answer { at_ms: None });
        }
        let first = self.first_answer(&container).await?;
        self.say(&format!("the application answers at {}", first.0)).await;
        self.stays(first.0, served.max(Served::Answers)).await?;
        Ok(RestoreFact::Answer { at_ms: Some(first.1) })
    }

    async fn first_answer(&self, container: &Standing) -> Result<(Place, i64), Trouble> {
        let limit = self.settings().start_timeout;
        let deadline = Instant::now() + limit;
        let mut search = Search::new(Probe::of(self.settings()));
        loop {
            let looked = search.look(self.driver.engine.as_ref(), &container.inspection).await;
            let silent = match looked {
                Ok(place) => return Ok((place, Timestamp::now().millis())),
                Err(silent) => silent,
            };
            if Instant::now() >= deadline {
                let message = format!("no answer within {} s: {silent}", limit.as_secs());
                return fail(FailureCode::HealthcheckFailed, message);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn stays(&self, place: Place, wanted: Served) -> Result<(), Trouble> {
        let settings = self.settings();
        let probe = Probe::of(settings);
        let rules = self.rules().await;
        let begins_by = Instant::now() + settings.health_timeout;
        let mut since: Option<Instant> = None;
        loop {
            let health = match wanted {
                Served::Healthy => probe.health(&place, &rules).await,
                Served::No | Served::Answers => probe.health(&place, &CoreRules::Legacy).await,
            };
            match health {
                Health::Healthy => {
                    let since = *since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= settings.verify_for {
                        return Ok(());
                    }
                }
                Health::Unhealthy { found } | Health::Silent { reason: found } => {
                    if Instant::now() >= begins_by {
                        return Err(Failure::new(FailureCode::HealthcheckFailed, found).into());
                    }
                    since = None;
                }
            }
            tokio::time::sleep(ANSWER_EVERY).await;
        }
    }

    async fn discard(&self) -> Result<RestoreFact, Trouble> {
        if self.restore.place != Serves::Present {
            return Ok(RestoreFact::Done);
        }
        let shop = self.shop().await?;
        database::drop_made(&shop.runner(self.driver), &self.made()).await?;
        Ok(RestoreFact::Done)
    }

    /// A line for a person.
    async fn say(&self, line: &str) {
        tracing::info!(job = %self.record.id, "{line}");
        let (journal, job) = (Arc::clone(&self.driver.journal), self.record.id.clone());
        let line = line.to_owned();
        if let Err(error) = durable(move || journal.log(&job, None, &line)).await {
            tracing::warn!(%error, "a log line could not be journaled");
        }
    }
}
