//! The effects of a rehearsal's steps. None of them touches the shop's container but by questions,
//! and nothing that they make is needed by anybody once they have ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::Instant;

use super::set::{Marks, Original, Set, start};
use super::traces::{disk_taken, unreachable_in};
use super::trial::{Expected, Trial};
use super::{mounts, room};
use crate::database::{self, Runner};
use crate::driver::effects::redact::Redactor;
use crate::driver::prepare::strings;
use crate::driver::{Driver, Progress, durable};
use crate::error::Trouble;
use crate::journal::RehearsalRecord;
use crate::machine::facts::{Fingerprint, Habits, Overlay};
use crate::machine::failure::{Failure, FailureCode};
use crate::names::{REHEARSAL, REHEARSAL_LABEL};
use crate::rehearsal::{Copied, RehearsalFact, RehearsalOutcome, RehearsalStep, Stood, Tried};
use crate::spec::{self, Isolation, SpecInputs, isolated};

/// Lines of a version's log that are looked through, and those that are kept of one that failed.
const LOG_LINES: usize = 400;
const LOG_LINES_KEPT: usize = 20;

/// How long a version may take to stop; then it is killed, as nobody needs its end.
const STOPS_WITHIN: Duration = Duration::from_secs(20);

/// What is learnt on the way and kept by this process alone: nobody takes a rehearsal up again.
#[derive(Default)]
pub(super) struct Work {
    new_image: Option<Value>,
    original: Option<Original>,
    set: Option<Set>,
    habits: Habits,
    memory_bytes: u64,
}

/// What the steps of one rehearsal work with.
pub(super) struct Steps<'s> {
    pub driver: &'s Driver,
    pub record: &'s RehearsalRecord,
    /// When it has to be over.
    pub deadline: Instant,
}

pub(super) fn fail<T>(code: FailureCode, message: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::failed(code, message))
}

impl Steps<'_> {
    /// Runs a step to its end.
    pub async fn run(&self, step: RehearsalStep, work: &mut Work) -> RehearsalOutcome {
        let result = match step {
            RehearsalStep::Pull => self.pull(work).await,
            RehearsalStep::Copy => self.copy(work).await,
            RehearsalStep::TryNew => self.try_new(work).await,
            RehearsalStep::TryOld => self.try_old(work, false).await,
            RehearsalStep::Control => self.try_old(work, true).await,
            RehearsalStep::Sweep => {
                let swept = self.driver.sweep(&self.record.id, &self.record.body.directory).await;
                swept.map(|()| RehearsalFact::Swept).map_err(Trouble::Failed)
            }
        };
        match result {
            Ok(fact) => RehearsalOutcome::Done { fact },
            // Nothing is taken up again, so that an unknown end is an end.
            Err(trouble) => RehearsalOutcome::Failed { failure: trouble.into_failure() },
        }
    }

    async fn pull(&self, work: &mut Work) -> Result<RehearsalFact, Trouble> {
        let target = &self.record.body.target;
        let reference = format!("{}:{}", target.repo, target.tag);
        let progress = &self.driver.progress;
        let pulled = self
            .driver
            .engine
            .pull(&target.repo, &target.tag, &mut |pull| {
                progress.send_replace(Progress {
                    done_bytes: pull.received_bytes,
                    total_bytes: pull.total_bytes,
                });
            })
            .await;
        let image = self.driver.engine.inspect_image(&reference).await?;
        match (pulled, image) {
            (Ok(()), Some(image)) => {
                let image_id = image["Id"].as_str().unwrap_or_default().to_owned();
                work.new_image = Some(image);
                Ok(RehearsalFact::Pulled { image_id })
            }
            (Ok(()), None) => fail(
                FailureCode::DockerPullFailed,
                format!("{reference} was pulled and is not on this host"),
            ),
            (Err(error), _) => fail(FailureCode::DockerPullFailed, error.to_string()),
        }
    }

    /// Where everything of this rehearsal lies.
    pub(super) fn root(&self) -> PathBuf {
        place(Path::new(&self.record.body.directory), self.record.id.short())
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn copy(&self, work: &mut Work) -> Result<RehearsalFact, Trouble> {
        let began = Instant::now();
        let original = self.look().await?;
        work.memory_bytes = room::memory(&original.container)?;
        let engine = self.driver.engine.as_ref();
        let shop_id = original.container["Id"].as_str().unwrap_or_default().to_owned();
        let runner = Runner::new(engine, &shop_id, &original.database);
        let database_bytes = database::size(&runner).await?;
        let (container, home) = (original.container.clone(), original.home.clone());
        let counting =
            tokio::task::spawn_blocking(move || mounts::bytes_to_copy(&container, &home));
        let files = counting.await.unwrap_or_default();
        let directory = Path::new(&self.record.body.directory);
        room::must_hold(directory, database_bytes, files).await?;
        // The shop is watched meanwhile: what it does by itself is no fault of a new version.
        let (set, habits) = tokio::try_join!(
            self.dump_and_rebuild(work, &original, &runner),
            self.habits(&shop_id, &runner).map(Ok)
        )?;
        work.habits = habits;
        let copied = Copied {
            database_bytes,
            tables: set.rebuilt.tables,
            rows: set.rebuilt.rows,
            seconds: began.elapsed().as_secs_f64(),
            memory_limit_bytes: work.memory_bytes,
            mounts: set.given.said.clone(),
        };
        (work.set, work.original) = (Some(set), Some(original));
        Ok(RehearsalFact::Copied(copied))
    }

    async fn dump_and_rebuild(
        &self,
        work: &Work,
        original: &Original,
        shop: &Runner<'_>,
    ) -> Result<Set, Trouble> {
        let progress = &self.driver.progress;
        let limit = self.left().min(self.driver.settings.backup_timeout);
        make_root(&self.root()).await?;
        database::dump(shop, &original.dump, limit, &mut |done_bytes| {
            progress.send_replace(Progress { done_bytes, total_bytes: 0 });
        })
        .await?;
        progress.send_replace(Progress::default());
        let image = new_image(work)?;
        let next = self.next_of(original, image, &self.record.body.overlay).await?;
        self.rebuild(work, original, &next, "copy").await
    }

    async fn rebuild(
        &self,
        work: &Work,
        original: &Original,
        next: &Value,
        name: &str,
    ) -> Result<Set, Trouble> {
        let labels = self.labels();
        let marks = Marks {
            name: format!("{}-database", self.name()),
            labels: &labels,
            memory_bytes: work.memory_bytes,
        };
        let copying =
            original.copy(self.driver, next, self.root().join(name), (&marks, self.left()));
        match tokio::time::timeout(self.left(), copying).await {
            Ok(copied) => copied,
            Err(_elapsed) => fail(
                FailureCode::BackupTimeout,
                format!(
                    "the database is too large to be rebuilt within {} (REHEARSAL_MINUTES)",
                    said_minutes(self.driver)
                ),
            ),
        }
    }

    /// The body of the create request of a version, as an upgrade would make it.
    async fn next_of(
        &self,
        original: &Original,
        image: &Value,
        overlay: &Overlay,
    ) -> Result<Value, Trouble> {
        let facts = self.driver.engine.facts().await?;
        let target = &self.record.body.target;
        let inputs = SpecInputs {
            old: &original.container,
            old_image: &original.image,
            new_image: image,
            image_reference: &format!("{}:{}", target.repo, target.tag),
            overlay,
            labels: &[],
            api_version: &facts.api_version,
        };
        match spec::next(&inputs) {
            Ok(next) => Ok(next.create_body),
            Err(error) => fail(FailureCode::DockerRunBuildFailed, error.to_string()),
        }
    }

    async fn try_new(&self, work: &mut Work) -> Result<RehearsalFact, Trouble> {
        let (original, set) = (original(work)?, set(work)?);
        let image = new_image(work)?;
        let body = &self.record.body;
        let next = self.next_of(original, image, &body.overlay).await?;
        let expected = Expected {
            version: Some(&body.version),
            rules: &body.rules,
            image,
            habits: &work.habits,
        };
        let name = format!("{}-new", self.name());
        let (tried, held) = self.attempt(work, (original, set), &next, (expected, &name)).await?;
        // What the present version does to it is told apart from what the new one did.
        if let (Some(held), Some(set)) = (held, &mut work.set) {
            set.before = held;
        }
        Ok(RehearsalFact::Tried(Box::new(tried)))
    }

    /// The version that serves now, on what the new one left, or on a copy that nobody had.
    async fn try_old(&self, work: &mut Work, is_control: bool) -> Result<RehearsalFact, Trouble> {
        if is_control {
            self.discard(work).await?;
            let original = original(work)?;
            let next = self.next_of(original, &original.image, &Overlay::default()).await?;
            let fresh = self.rebuild(work, original, &next, "control").await?;
            work.set = Some(fresh);
        }
        let (original, set) = (original(work)?, set(work)?);
        let next = self.next_of(original, &original.image, &Overlay::default()).await?;
        let body = &self.record.body;
        let expected = Expected {
            version: body.from_version.as_deref(),
            rules: &body.from_rules,
            image: &original.image,
            habits: &work.habits,
        };
        let what = if is_control { "control" } else { "old" };
        let name = format!("{}-{what}", self.name());
        let (tried, _) = self.attempt(work, (original, set), &next, (expected, &name)).await?;
        Ok(RehearsalFact::Tried(Box::new(tried)))
    }

    /// The room that the first copy took is the second one's.
    async fn discard(&self, work: &mut Work) -> Result<(), Trouble> {
        let Some(set) = work.set.take() else { return Ok(()) };
        let removing = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&set.root));
        match removing.await {
            Ok(Err(error)) => {
                let message = format!("remove the first copy: {error}");
                fail(FailureCode::RuntimeInspectionFailed, message)
            }
            Ok(Ok(())) => Ok(()),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    async fn attempt(
        &self,
        work: &Work,
        (original, set): (&Original, &Set),
        next: &Value,
        (expected, name): (Expected<'_>, &str),
    ) -> Result<(Tried, Option<Fingerprint>), Trouble> {
        let labels = self.labels();
        let isolation = Isolation {
            image: expected.image["Id"].as_str().unwrap_or_default(),
            of_image: expected.image,
            labels: &labels,
            mounts: &set.given.mounts,
            memory_bytes: work.memory_bytes,
        };
        let engine = self.driver.engine.as_ref();
        let started = Instant::now();
        let id = start(self.driver, name, &isolated(next, &isolation)).await?;
        let trial = Trial {
            driver: self.driver,
            id: &id,
            shop: &original.container,
            database: &original.database,
            set,
            expected,
            deadline: self.deadline,
        };
        let (mut tried, held) = trial.run(started).await?;
        self.keep_words(&id, original, &mut tried).await;
        tried.disk_bytes = disk_taken(&set.root).await;
        if let Err(error) = engine.stop(&id, Some(STOPS_WITHIN)).await {
            tracing::info!(%error, "a version that was tried is killed");
            engine.kill(&id).await?;
        }
        engine.remove_with_anonymous(&id).await?;
        Ok((tried, held))
    }

    /// What a version that failed said last, without the secrets that it was given.
    async fn keep_words(&self, id: &str, original: &Original, tried: &mut Tried) {
        if tried.stood == Stood::Serves {
            return;
        }
        let redactor = Redactor::of(&strings(&original.container["Config"]["Env"]));
        let log = match self.driver.engine.logs(id, LOG_LINES).await {
            Ok(log) => redactor.clean(&log),
            Err(error) => return self.say(&format!("its log can't be read: {error}")).await,
        };
        let unreachable = unreachable_in(&log).map(|line| line.chars().take(200).collect());
        tried.unreachable = unreachable;
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINES_KEPT);
        for line in lines.get(first..).unwrap_or_default() {
            self.say(&format!("its log | {line}")).await;
        }
    }

    /// What the names of its containers begin with.
    fn name(&self) -> String {
        format!("{REHEARSAL}{}", self.record.id.short())
    }

    fn labels(&self) -> [(String, String); 1] {
        [(REHEARSAL_LABEL.to_owned(), self.record.id.to_string())]
    }

    /// A line for a person.
    async fn say(&self, line: &str) {
        tracing::info!(job = %self.record.id, "{line}");
        let (journal, job) = (self.driver.journal.clone(), self.record.id.clone());
        let line = line.to_owned();
        if let Err(error) = durable(move || journal.log(&job, None, &line)).await {
            tracing::warn!(%error, "a log line could not be journaled");
        }
    }
}

/// The directory of a rehearsal.
pub(super) fn place(directory: &Path, job_short: &str) -> PathBuf {
    directory.join(format!("{REHEARSAL}{job_short}"))
}

fn said_minutes(driver: &Driver) -> String {
    format!("{} minutes", driver.settings.rehearsal_within.as_secs_f64() / 60.0)
}

async fn make_root(root: &Path) -> Result<(), Failure> {
    let made = root.to_owned();
    let making = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(made)
    });
    let made = match making.await {
        Ok(made) => made,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    made.map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull => FailureCode::DiskSpaceLow,
            _ => FailureCode::RuntimeInspectionFailed,
        };
        Failure::new(code, format!("create directory {}: {error}", root.display()))
    })
}

fn missing<T>(what: &str) -> Result<T, Trouble> {
    fail(FailureCode::Unknown, format!("{what} was never made"))
}

fn new_image(work: &Work) -> Result<&Value, Trouble> {
    work.new_image.as_ref().map_or_else(|| missing("the new image"), Ok)
}

fn original(work: &Work) -> Result<&Original, Trouble> {
    work.original.as_ref().map_or_else(|| missing("the look at the shop"), Ok)
}

fn set(work: &Work) -> Result<&Set, Trouble> {
    work.set.as_ref().map_or_else(|| missing("the copy"), Ok)
}
