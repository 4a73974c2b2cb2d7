//! One version on a copy: started apart from everything, watched as the gate watches, judged.
//!
//! Called by the rehearsal's steps. Nothing here decides what follows from how it stood.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::room;
use super::set::Set;
use crate::app::core::{Door, Place, Probe, Shut, is_same_version};
use crate::app::supervisor;
use crate::app::watch::{Change, Running, Watch, is_usual};
use crate::clock;
use crate::database::{self, Database, Runner, UsageWatch, Use};
use crate::driver::Driver;
use crate::engine::{EngineError, Inspection};
use crate::error::Trouble;
use crate::machine::facts::{CoreRules, Fingerprint, Habits};
use crate::machine::failure::FailureCode;
use crate::rehearsal::{Changes, Stood, Tried};

/// Between two looks before the first answer, and afterwards.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ANSWER_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at the programs before the first answer.
const PROGRAMS_EVERY: Duration = Duration::from_secs(2);

/// Restarts of programs by themselves that are waited out, as the gate waits for them.
const RESTARTS_BORNE: u32 = 4;

/// How long rows may be counted for what a version changed.
const COUNT_WITHIN: Duration = Duration::from_secs(5);

/// How long the copy's server may take to say which one it is.
const ASK_WITHIN: Duration = Duration::from_secs(30);

/// What is expected of a version.
pub(super) struct Expected<'a> {
    /// What it should report; none where that is not known.
    pub version: Option<&'a str>,
    pub rules: &'a CoreRules,
    /// Its image, on whose labels an early version is named.
    pub image: &'a Value,
    /// What the version that serves does by itself.
    pub habits: &'a Habits,
}

/// A version that runs on a copy.
pub(super) struct Trial<'t> {
    pub driver: &'t Driver,
    /// Its container.
    pub id: &'t str,
    /// The raw inspection of the shop's container.
    pub shop: &'t Value,
    pub database: &'t Database,
    pub set: &'t Set,
    pub expected: Expected<'t>,
    /// When the whole rehearsal has to be over.
    pub deadline: Instant,
}

/// Why a trial ends.
enum End {
    Stood(Stood),
    /// The engine does not answer.
    Trouble(Trouble),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        End::Trouble(trouble)
    }
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        End::Trouble(error.into())
    }
}

fn fails(code: FailureCode, found: impl Into<String>) -> End {
    End::Stood(Stood::Fails { code, found: found.into() })
}

fn unjudged(found: impl Into<String>) -> End {
    End::Stood(Stood::Unjudged { found: found.into() })
}

/// What was seen on the way.
struct Seen {
    tried: Tried,
    watch: Watch,
    usage: UsageWatch,
    restarts: u32,
    /// The fingerprint at the first answer.
    answered: Option<Fingerprint>,
}

impl Trial<'_> {
    /// Watches it from its start, which was just now, to the end of its trial.
    ///
    /// Answers what the copy held then, too, where it could be read.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn run(&self, started: Instant) -> Result<(Tried, Option<Fingerprint>), Trouble> {
        let mut seen = Seen {
            tried: Tried {
                stood: Stood::Serves,
                version: None,
                answers_after_seconds: None,
                stayed_seconds: 0.0,
                migration: None,
                written: None,
                unreachable: None,
                memory_bytes: None,
                disk_bytes: None,
            },
            watch: Watch::default(),
            usage: UsageWatch::default(),
            restarts: 0,
            answered: None,
        };
        let ended = self.watch(started, &mut seen).await;
        let stood = match ended {
            Ok(()) => Stood::Serves,
            Err(End::Stood(stood)) => stood,
            Err(End::Trouble(trouble)) => return Err(trouble),
        };
        let now = self.fingerprint(seen.answered.as_ref().unwrap_or(&self.set.before)).await;
        let mut tried = Tried { stood, ..seen.tried };
        match (&seen.answered, &now) {
            (Some(answered), Some(now)) => tried.written = changes(answered, now),
            // It never answered: all that it did was on the way there.
            (None, Some(now)) => tried.migration = changes(&self.set.before, now),
            (_, None) => {}
        }
        Ok((tried, now))
    }

    async fn watch(&self, started: Instant, seen: &mut Seen) -> Result<(), End> {
        let place = self.first_answer(started, seen).await?;
        seen.tried.answers_after_seconds = Some(started.elapsed().as_secs_f64());
        seen.answered = self.fingerprint(&self.set.before).await;
        if let Some(answered) = &seen.answered {
            seen.tried.migration = changes(&self.set.before, answered);
        }
        self.stays(&place, seen).await
    }

    /// The container, as long as it runs in its one run and nothing of ours ends it.
    async fn present(&self, seen: &mut Seen) -> Result<Value, End> {
        let Some(container) = self.driver.engine.inspect_container(self.id).await? else {
            return Err(unjudged("somebody removed its container"));
        };
        let state = &container["State"];
        if state["OOMKilled"].as_bool() == Some(true) {
            let mb = container["HostConfig"]["Memory"].as_u64().unwrap_or_default() / 1_000_000;
            return Err(unjudged(format!(
                "it was killed by the limit of {mb} MB of memory that a rehearsal gives it"
            )));
        }
        if !Inspection(&container).runs_steadily() {
            let found = format!(
                "its container is {} (exit code {}); expected running",
                Inspection(&container).status(),
                state["ExitCode"]
            );
            return Err(fails(FailureCode::HealthcheckFailed, found));
        }
        if Instant::now() >= self.deadline {
            let minutes = self.driver.settings.rehearsal_within.as_secs_f64() / 60.0;
            return Err(unjudged(format!(
                "the {minutes} minutes that a rehearsal may take (REHEARSAL_MINUTES) were over"
            )));
        }
        if let Some(full) = room::nearly_full(&[&self.set.root]).await {
            return Err(unjudged(format!("it was ended for its space on disk: {full}")));
        }
        seen.tried.memory_bytes = room::memory_taken(&container).max(seen.tried.memory_bytes);
        Ok(container)
    }

    async fn first_answer(&self, started: Instant, seen: &mut Seen) -> Result<Place, End> {
        let settings = &self.driver.settings;
        let limit = settings.start_timeout;
        let probe = Probe::of(settings);
        let mut look_at_programs = Instant::now() + PROGRAMS_EVERY;
        loop {
            let container = self.present(seen).await?;
            let silent = match self.find(&probe, &container).await? {
                Some(Ok(place)) => return Ok(place),
                Some(Err(silent)) => silent,
                None => continue,
            };
            if Instant::now() >= look_at_programs {
                self.no_program_gave_up().await?;
                look_at_programs = Instant::now() + PROGRAMS_EVERY;
            }
            if started.elapsed() >= limit {
                let found = format!(
                    "it did not answer within {} s of its start: {silent}",
                    limit.as_secs()
                );
                return Err(fails(FailureCode::MigrationTimeout, found));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where it answers, asked from inside of its network; none where it ended meanwhile.
    async fn find(
        &self,
        probe: &Probe,
        container: &Value,
    ) -> Result<Option<Result<Place, String>>, End> {
        let engine = self.driver.engine.as_ref();
        let Ok(door) = Door::of(container, self.shop) else { return Ok(None) };
        match probe.find_inside(engine, &door, container).await {
            Ok(found) => Ok(Some(found.map_err(|silent| silent.to_string()))),
            Err(Shut::Gone(_)) => Ok(None),
            Err(Shut::Barred(why)) => Err(unjudged(format!("it can't be asked from here: {why}"))),
        }
    }

    async fn no_program_gave_up(&self) -> Result<(), End> {
        let Ok(Some(running)) = self.programs().await else { return Ok(()) };
        // A look of its own: what happens before the first answer breaks no watch.
        let changes = Watch::default().look(&running);
        let given_up = changes.iter().filter(|change| matches!(change, Change::GivenUp { .. }));
        let given_up: Vec<String> = given_up
            .filter(|change| !is_usual(change, Some(self.expected.habits)))
            .map(ToString::to_string)
            .collect();
        match given_up.is_empty() {
            true => Ok(()),
            false => Err(fails(FailureCode::HealthcheckFailed, given_up.join(", "))),
        }
    }

    async fn programs(&self) -> Result<Option<Running>, Trouble> {
        programs_of(self.driver, self.id).await
    }

    async fn stays(&self, place: &Place, seen: &mut Seen) -> Result<(), End> {
        let settings = &self.driver.settings;
        let deadline = Instant::now() + settings.health_timeout;
        let mut began: Option<Instant> = None;
        loop {
            let container = self.present(seen).await?;
            match self.look(place, &container, seen).await? {
                Ok(version) => {
                    seen.tried.version = Some(version);
                    let since = *began.get_or_insert_with(Instant::now);
                    seen.tried.stayed_seconds = since.elapsed().as_secs_f64();
                    if since.elapsed() >= settings.verify_for {
                        match self.is_whole(seen) {
                            Ok(()) => return Ok(()),
                            Err((code, found)) if Instant::now() >= deadline => {
                                return Err(fails(code, found));
                            }
                            Err(_) => {}
                        }
                    }
                }
                Err((code, found)) => {
                    let is_over = Instant::now() >= deadline || seen.restarts >= RESTARTS_BORNE;
                    if is_over {
                        let found = format!(
                            "it answers and did not stay good for {} s: {found}",
                            settings.verify_for.as_secs()
                        );
                        return Err(fails(code, found));
                    }
                    began = None;
                    seen.tried.stayed_seconds = 0.0;
                    seen.usage.begin_anew();
                }
            }
            tokio::time::sleep(ANSWER_EVERY).await;
        }
    }

    /// Whether all of it was there that the version which serves has.
    fn is_whole(&self, seen: &Seen) -> Result<(), (FailureCode, String)> {
        let habits = self.expected.habits;
        let down = seen.watch.down(habits);
        if !down.is_empty() {
            let found = format!("{} does not run any more", down.join(", "));
            return Err((FailureCode::HealthcheckFailed, found));
        }
        if let Some(name) = seen.watch.never_up(Some(habits)) {
            let found = format!("{name} was never seen at work; in the present version it was");
            return Err((FailureCode::HealthcheckFailed, found));
        }
        if seen.usage.usage().looks == 0 {
            return Ok(());
        }
        match seen.usage.compare(habits) {
            Use::Same | Use::Unsure(_) => Ok(()),
            Use::NotYet(found) => {
                let found = format!("it does not use the copy of the shop's database: {found}");
                Err((FailureCode::DatabaseMismatch, found))
            }
        }
    }

    /// One look at all that counts: the version when it is good, otherwise what breaks the watch.
    async fn look(
        &self,
        place: &Place,
        container: &Value,
        seen: &mut Seen,
    ) -> Result<Result<String, (FailureCode, String)>, End> {
        let unhealthy = |found: String| Ok(Err((FailureCode::HealthcheckFailed, found)));
        let engine = self.driver.engine.as_ref();
        let Ok(door) = Door::of(container, self.shop) else {
            return unhealthy("it ended".into());
        };
        let labels = json!({"Config": {"Labels": self.expected.image["Config"]["Labels"]}});
        let probe = Probe::of(&self.driver.settings);
        let of = (self.expected.rules, &labels);
        let version = match probe.judge_inside(engine, &door, place, of).await {
            Ok(Ok(version)) => version,
            Ok(Err(unfit)) => return unhealthy(unfit.to_string()),
            Err(Shut::Gone(why)) => return unhealthy(why),
            Err(Shut::Barred(why)) => {
                return Err(unjudged(format!("it can't be asked from here: {why}")));
            }
        };
        if let Some(wanted) = self.expected.version
            && !is_same_version(wanted, &version)
        {
            let found = format!("expected version {wanted}, it reports {version}");
            // A version does not change while it runs.
            return Err(fails(FailureCode::VersionMismatch, found));
        }
        match self.programs().await {
            Ok(Some(running)) => {
                for change in seen.watch.look(&running) {
                    if is_usual(&change, Some(self.expected.habits)) {
                        continue;
                    }
                    if matches!(change, Change::GivenUp { .. }) {
                        return Err(fails(FailureCode::HealthcheckFailed, change.to_string()));
                    }
                    seen.restarts += 1;
                    return unhealthy(change.to_string());
                }
            }
            Ok(None) | Err(Trouble::Unknown(_)) => {}
            Err(Trouble::Failed(failure)) => return unhealthy(failure.message),
        }
        self.is_in_the_copy(seen).await.map(|broken| broken.map(|()| version))
    }

    /// Whether the server that is asked is the copy's, and the application in it.
    async fn is_in_the_copy(
        &self,
        seen: &mut Seen,
    ) -> Result<Result<(), (FailureCode, String)>, End> {
        let runner = Runner::new(self.driver.engine.as_ref(), self.id, self.database);
        match database::identity(&runner, ASK_WITHIN).await {
            Ok(now) if now.cluster.system_identifier != self.set.identifier => {
                let found = format!(
                    "it serves another database than the copy of the shop's: system identifier {}, expected {}",
                    now.cluster.system_identifier, self.set.identifier
                );
                Err(fails(FailureCode::DatabaseMismatch, found))
            }
            Ok(now) => {
                let at = clock::uptime().map_or(0, |up| up.millis);
                seen.usage.look(u64::try_from(at).unwrap_or_default(), now);
                Ok(Ok(()))
            }
            Err(Trouble::Failed(failure)) => {
                Ok(Err((FailureCode::HealthcheckFailed, failure.message)))
            }
            // No answer in time: it is asked again.
            Err(Trouble::Unknown(_)) => Ok(Ok(())),
        }
    }

    /// What the copy holds now; none where it can't be read.
    async fn fingerprint(&self, before: &Fingerprint) -> Option<Fingerprint> {
        let runner = Runner::new(self.driver.engine.as_ref(), self.id, self.database);
        match database::fingerprint_since(&runner, COUNT_WITHIN, before).await {
            Ok(found) => Some(found),
            Err(trouble) => {
                tracing::info!(%trouble, "what a version changed in the copy can't be read");
                None
            }
        }
    }
}

/// What runs in a container now; none where nobody says it.
pub(super) async fn programs_of(driver: &Driver, id: &str) -> Result<Option<Running>, Trouble> {
    let engine = driver.engine.as_ref();
    if let Some(programs) = supervisor::programs(engine, id).await? {
        return Ok(Some(Running::Supervised(programs)));
    }
    let processes = match engine.processes(id).await {
        Ok(processes) => processes,
        Err(EngineError::Refused { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let container = engine.inspect_container(id).await?.unwrap_or_default();
    let first = container["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    Ok(first.map(|first| Running::Bare { processes, first }))
}

/// What differs between two moments; none where the server's counters don't tell.
fn changes(before: &Fingerprint, after: &Fingerprint) -> Option<Changes> {
    let rows = database::changed_rows(before, after).ok()?;
    Some(Changes { schema: database::changed_schema(before, after), rows })
}
