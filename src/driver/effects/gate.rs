//! The gate that a version passes before it is believed: running and not restarting, healthy
//! and of the expected version, several answers in a row.
//!
//! Two clocks: from the start to the first answer, migrations included
//! (`START_TIMEOUT_SECONDS`), and from there to healthy (`HEALTH_TIMEOUT_SECONDS`). An exit is
//! seen at once, because the container's restart policy is `no` until it has passed.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::containers::Which;
use super::redact::Redactor;
use super::{Effects, fail};
use crate::app::core::{self, Place, Probe, Search};
use crate::app::supervisor;
use crate::clock::{self, Timestamp};
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::machine::facts::{CoreRules, Uptime, Verdict};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Fact, Known};

/// Good answers in a row that are wanted.
const ANSWERS_WANTED: u32 = 6;

/// Between two looks before the first answer: what is added to the measured downtime at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between two answers that count; with [`ANSWERS_WANTED`] the version is watched for 6 s, so
/// that one which dies after its first good answers is not believed.
const ANSWER_EVERY: Duration = Duration::from_millis(1200);

/// Between two looks at the supervisor while nothing answers.
const SUPERVISOR_EVERY: Duration = Duration::from_secs(2);

/// Lines of a failed container's log that go into the journal.
const LOG_LINES: usize = 30;

/// What is expected of a version.
struct Expected<'a> {
    version: Option<&'a str>,
    rules: &'a CoreRules,
}

impl Effects<'_> {
    pub(super) async fn verify(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let next = self.next(known)?;
        self.start_what_was_stopped(known, next, self.old(known)).await?;
        let expected = Expected { version: Some(&known.hop.version), rules: &known.hop.rules };
        let verdict = self.pass_gate(next, &expected).await;
        if let Err(Trouble::Failed(_)) = &verdict {
            self.journal_last_lines(next, known).await;
        }
        verdict.map(Fact::Verdict)
    }

    /// The new version's own word, when it serves although something around it failed: it
    /// answers at once, and passes its gate.
    pub(super) async fn version_that_serves(
        &self,
        known: &Known<'_>,
        container: &Value,
    ) -> Result<Option<String>, Trouble> {
        if !self.answers(container).await {
            return Ok(None);
        }
        let expected = Expected { version: Some(&known.hop.version), rules: &known.hop.rules };
        match self.pass_gate(self.next(known)?, &expected).await {
            Ok(verdict) => Ok(Some(verdict.version)),
            Err(Trouble::Failed(failure)) if failure.code.is_a_verdict() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The old version passes the same gate, or it is not rolled back to. What was done to it
    /// late, meanwhile, is undone, once: a second stop is a person's.
    pub(super) async fn verify_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.start_old_again(known).await?;
        let expected =
            Expected { version: known.hop.from.as_deref(), rules: &known.hop.from_rules };
        let verdict = self.pass_gate(self.old(known), &expected).await;
        let was_down = match self.put_back(known).await {
            Ok(was_down) => was_down,
            Err(trouble) if verdict.is_ok() => return Err(trouble),
            Err(trouble) => {
                self.say(&format!("{} is not as it was: {trouble}", self.old(known))).await;
                false
            }
        };
        let verdict = match was_down {
            true => self.pass_gate(self.old(known), &expected).await,
            false => verdict,
        };
        verdict.map(Fact::Verdict)
    }

    /// Whether the application behind this container answers now.
    pub(super) async fn answers(&self, container: &Value) -> bool {
        Probe::of(self.settings).find(self.engine, container).await.is_ok()
    }

    async fn pass_gate(
        &self,
        which: Which<'_>,
        expected: &Expected<'_>,
    ) -> Result<Verdict, Trouble> {
        let container = self.running(which, None).await?;
        let restarts = container["RestartCount"].as_i64().unwrap_or_default();
        let (place, first_answer_ms, first_answer_up) = self.first_answer(which, restarts).await?;
        self.say(&format!("the {which} answers at {place}")).await;
        let deadline = Instant::now() + self.settings.health_timeout;
        let mut answers = 0;
        loop {
            let container = self.running(which, Some(restarts)).await?;
            let (found, code) = match self.judge(&place, &container, expected).await {
                Ok(version) => {
                    answers += 1;
                    if answers >= ANSWERS_WANTED {
                        return Ok(Verdict { version, answers, first_answer_ms, first_answer_up });
                    }
                    (String::new(), FailureCode::HealthcheckFailed)
                }
                Err(bad) => {
                    answers = 0;
                    bad
                }
            };
            if answers == 0 && Instant::now() >= deadline {
                return fail(
                    code,
                    format!(
                        "the {which} answers at {place} and was not healthy within {} s: {found}",
                        self.settings.health_timeout.as_secs()
                    ),
                );
            }
            if answers == 0 && code == FailureCode::VersionMismatch {
                // A version does not change while it runs.
                return fail(code, format!("the {which} at {place}: {found}"));
            }
            tokio::time::sleep(ANSWER_EVERY).await;
        }
    }

    /// Where and when the application first answers.
    async fn first_answer(
        &self,
        which: Which<'_>,
        restarts: i64,
    ) -> Result<(Place, i64, Option<Uptime>), Trouble> {
        let deadline = Instant::now() + self.settings.start_timeout;
        let mut look_at_supervisor = Instant::now() + SUPERVISOR_EVERY;
        let mut search = Search::new(Probe::of(self.settings));
        loop {
            let container = self.running(which, Some(restarts)).await?;
            let silent = match search.look(self.engine, &container).await {
                Ok(place) => return Ok((place, Timestamp::now().millis(), clock::uptime())),
                Err(silent) => silent,
            };
            if Instant::now() >= look_at_supervisor {
                self.no_program_gave_up(which).await?;
                look_at_supervisor = Instant::now() + SUPERVISOR_EVERY;
            }
            if Instant::now() >= deadline {
                return fail(
                    FailureCode::MigrationTimeout,
                    format!(
                        "the {which} did not answer within {} s of its start: {silent}",
                        self.settings.start_timeout.as_secs()
                    ),
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A program that its supervisor gave up on will not answer any more, however long one
    /// waits.
    async fn no_program_gave_up(&self, which: Which<'_>) -> Result<(), Trouble> {
        let Ok(Some(programs)) = supervisor::programs(self.engine, which.id).await else {
            return Ok(());
        };
        let fatal: Vec<&str> = programs
            .iter()
            .filter(|program| program.state == "FATAL")
            .map(|program| program.name.as_str())
            .collect();
        if fatal.is_empty() {
            return Ok(());
        }
        fail(
            FailureCode::HealthcheckFailed,
            format!("in the {which} the supervisor gave up on {}", fatal.join(", ")),
        )
    }

    /// The version when it is healthy and the expected one, otherwise what was found.
    async fn judge(
        &self,
        place: &Place,
        container: &Value,
        expected: &Expected<'_>,
    ) -> Result<String, (String, FailureCode)> {
        let judged = Probe::of(self.settings).judge(place, expected.rules, container).await;
        let version =
            judged.map_err(|unfit| (unfit.to_string(), FailureCode::HealthcheckFailed))?;
        match expected.version {
            Some(wanted) if !core::is_same_version(wanted, &version) => Err((
                format!("expected version {wanted}, it reports {version}"),
                FailureCode::VersionMismatch,
            )),
            Some(_) | None => Ok(version),
        }
    }

    /// The inspection of a container that runs and was not restarted.
    async fn running(&self, which: Which<'_>, restarts: Option<i64>) -> Result<Value, Trouble> {
        let container = self.inspect_present(which.id, which.role).await?;
        let state = &container["State"];
        let found = container["RestartCount"].as_i64().unwrap_or_default();
        if state["Running"].as_bool() == Some(true)
            && state["Restarting"].as_bool() != Some(true)
            && restarts.is_none_or(|restarts| restarts == found)
        {
            return Ok(container);
        }
        fail(
            FailureCode::HealthcheckFailed,
            format!(
                "the {which} is {} (exit code {}, restarts {found}); expected running",
                state["Status"].as_str().unwrap_or("in an unknown state"),
                state["ExitCode"]
            ),
        )
    }

    /// The failed container's last words, without the secrets it was given, so that they are
    /// there when the container is gone.
    async fn journal_last_lines(&self, which: Which<'_>, known: &Known<'_>) {
        let environment = SavedSpec::read(&known.hop.old.spec_file).map(|spec| spec.environment());
        let Ok(environment) = environment else { return };
        let redactor = Redactor::of(&environment);
        match self.engine.logs(which.id, LOG_LINES).await {
            Ok(text) => {
                for line in text.lines() {
                    self.say(&format!("{} | {}", short(which.id), redactor.clean(line))).await;
                }
            }
            Err(error) => self.say(&format!("the {which}'s log can't be read: {error}")).await,
        }
    }
}

impl From<Failure> for (String, FailureCode) {
    fn from(failure: Failure) -> Self {
        (failure.message, failure.code)
    }
}
