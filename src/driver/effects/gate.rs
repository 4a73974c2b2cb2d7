//! The gate that a version passes before it is believed: it runs and is not restarted, its
//! programs stay, it is healthy and of the expected version, and it serves the shop's own
//! database, all of it without a break for `VERIFY_SECONDS`.
//!
//! Two more clocks: from the start to the first answer, migrations included
//! (`START_TIMEOUT_SECONDS`), and from there to the beginning of the watch that it passes
//! (`HEALTH_TIMEOUT_SECONDS`). An exit is seen at once, because the container's restart policy is
//! `no` until it has passed. What the old version did too while it was watched is no fault of the
//! new one, and the old version passes the same gate on the way back.

mod presence;

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use self::presence::Present;
use super::outside::Outside;
use super::own_database::{OwnDatabase, now_ms};
use super::redact::Redactor;
use super::second_server::Sentinel;
use crate::app::core::{self, Place, Probe, Search};
use crate::app::watch::{Change, Watch, is_usual};
use crate::clock::{self, Timestamp};
use crate::driver::context::{StepContext, Which};
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::{CoreRules, Habits, Uptime, Verdict};
use crate::machine::failure::{Failure, FailureCode};

/// Between two looks before the first answer: what is added to the measured downtime at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between two answers of the watch.
const ANSWER_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at the supervisor while nothing answers.
const SUPERVISOR_EVERY: Duration = Duration::from_secs(2);

/// So many restarts of programs by themselves are not waited out: it would go on like that.
const RESTARTS_BORNE: u32 = 4;

/// Lines of a failed container's log that go into the journal.
const LOG_LINES: usize = 30;

/// What is expected of a version.
pub(in crate::driver) struct Expected<'a> {
    pub version: Option<&'a str>,
    pub rules: &'a CoreRules,
    /// What the old version did while it was watched.
    pub habits: Option<&'a Habits>,
}

/// A first answer: where, and when by both clocks.
struct FirstAnswer {
    place: Place,
    at_ms: i64,
    up: Option<Uptime>,
}

/// Why the watch begins again, or why it is in vain.
struct Break {
    found: String,
    code: FailureCode,
    is_final: bool,
}

impl Break {
    fn unhealthy(found: impl Into<String>) -> Self {
        Self { found: found.into(), code: FailureCode::HealthcheckFailed, is_final: false }
    }
}

impl StepContext<'_> {
    pub(in crate::driver) fn expected_of_next(&self) -> Expected<'_> {
        let hop = self.hop;
        let habits = self.programs.and_then(|programs| programs.habits.as_deref());
        Expected { version: Some(&hop.version), rules: &hop.rules, habits }
    }

    /// The new version's own word, when it serves although something around it failed: it
    /// answers at once, and passes its gate.
    pub(in crate::driver) async fn version_that_serves(
        &self,
        container: &Value,
    ) -> Result<Option<String>, Trouble> {
        if !self.answers(container).await {
            return Ok(None);
        }
        match self.pass_gate(self.next()?, &self.expected_of_next()).await {
            Ok(verdict) => Ok(Some(verdict.version)),
            Err(Trouble::Failed(failure))
                if failure.code.is_a_verdict()
                    || failure.code == FailureCode::RuntimeInspectionFailed =>
            {
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether the application behind this container answers now.
    pub(in crate::driver) async fn answers(&self, container: &Value) -> bool {
        Probe::of(self.settings).find(self.engine, container).await.is_ok()
    }

    pub(in crate::driver) async fn pass_gate(
        &self,
        which: Which<'_>,
        expected: &Expected<'_>,
    ) -> Result<Verdict, Trouble> {
        let container = self.running(which).await?;
        let mut trial = Trial {
            cx: self,
            which,
            expected,
            outside: Outside::of(&container),
            sentinel: Sentinel::new(self, which),
            database: OwnDatabase::new(self, which)?,
            watch: Watch::default(),
            usual: Vec::new(),
            restarts: 0,
            unseen: None,
            was_frozen: false,
        };
        // What somebody did to the old version is undone after its gate, once (`put_back`).
        if which.id == self.old_id() {
            trial.outside = trial.outside.again(&container);
        }
        if self.was_never_stopped(&container) {
            trial.database.works_where_it_did();
        }
        let first = trial.first_answer().await?;
        self.say(&format!("the {which} answers at {}", first.place)).await;
        trial.stays(first).await
    }

    /// Whether this is the old container, in the very run that was saved before the upgrade.
    fn was_never_stopped(&self, container: &Value) -> bool {
        container["Id"].as_str() == Some(self.hop.old.id.as_str())
            && SavedSpec::read(&self.hop.old.spec_file).is_ok_and(|saved| {
                saved.container["State"]["StartedAt"] == container["State"]["StartedAt"]
            })
    }

    /// The inspection of a container that runs.
    pub(in crate::driver) async fn running(&self, which: Which<'_>) -> Result<Value, Trouble> {
        let container = self.inspect_present(which.id, which.role).await?;
        match is_steady(&container) {
            true => Ok(container),
            false => fail(FailureCode::HealthcheckFailed, not_running(which, &container)),
        }
    }

    /// The failed container's last words, without the secrets it was given, so that they are
    /// there when the container is gone.
    pub(in crate::driver) async fn journal_last_lines(&self, which: Which<'_>) {
        let environment = SavedSpec::read(&self.hop.old.spec_file).map(|spec| spec.environment());
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

/// One version at the gate.
struct Trial<'t> {
    cx: &'t StepContext<'t>,
    which: Which<'t>,
    expected: &'t Expected<'t>,
    outside: Outside,
    sentinel: Sentinel<'t>,
    database: OwnDatabase<'t>,
    watch: Watch,
    /// What the old version did too, told once.
    usual: Vec<String>,
    restarts: u32,
    /// Why its programs could not be seen in the last look, where it is not at fault.
    unseen: Option<String>,
    /// Whether somebody froze it, for which it has been granted its time anew.
    was_frozen: bool,
}

impl Trial<'_> {
    /// Where and when the application first answers.
    async fn first_answer(&mut self) -> Result<FirstAnswer, Trouble> {
        let timeout = self.cx.settings.start_timeout;
        let mut deadline = Instant::now() + timeout;
        let mut look_at_supervisor = Instant::now() + SUPERVISOR_EVERY;
        let mut search = Search::new(Probe::of(self.cx.settings));
        loop {
            let container = match self.present().await? {
                Present::AsBefore(container) => container,
                Present::Anew(container) | Present::Thawed(container, true) => {
                    deadline = Instant::now() + timeout;
                    container
                }
                Present::Thawed(container, false) => container,
            };
            self.sentinel.look(&container).await?;
            let silent = match search.look(self.cx.engine, &container).await {
                Ok(place) => {
                    let at_ms = Timestamp::now().millis();
                    return Ok(FirstAnswer { place, at_ms, up: clock::uptime() });
                }
                Err(silent) => silent,
            };
            if Instant::now() >= look_at_supervisor {
                self.no_program_gave_up().await?;
                look_at_supervisor = Instant::now() + SUPERVISOR_EVERY;
            }
            if Instant::now() >= deadline {
                return fail(
                    FailureCode::MigrationTimeout,
                    format!(
                        "the {} did not answer within {} s of its start: {silent}",
                        self.which,
                        timeout.as_secs()
                    ),
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A program that its supervisor gave up on will not answer any more, however long one
    /// waits; unless it was given up on before the upgrade, too.
    async fn no_program_gave_up(&mut self) -> Result<(), Trouble> {
        let Ok(Some(running)) = self.cx.programs_of(self.which).await else { return Ok(()) };
        // A look of its own: what happens before the first answer breaks no watch.
        let changes = Watch::default().look(&running);
        let mut given_up = Vec::new();
        for change in changes.iter().filter(|change| matches!(change, Change::GivenUp { .. })) {
            if !is_usual(change, self.expected.habits) {
                given_up.push(change.to_string());
            }
        }
        match given_up.is_empty() {
            true => Ok(()),
            false => fail(
                FailureCode::HealthcheckFailed,
                format!("in the {} {}", self.which, given_up.join(", ")),
            ),
        }
    }

    /// Watches a version that answers until it has stayed good for long enough.
    async fn stays(&mut self, mut first: FirstAnswer) -> Result<Verdict, Trouble> {
        let settings = self.cx.settings;
        let mut deadline = Instant::now() + settings.health_timeout;
        let mut began: Option<(Instant, u32)> = None;
        let (mut last, mut looked_ms) = (String::new(), 0);
        loop {
            let container = match self.present().await? {
                Present::AsBefore(container) => container,
                Present::Anew(_) => {
                    first = self.first_answer().await?;
                    deadline = Instant::now() + settings.health_timeout;
                    began = None;
                    self.database.begin_anew();
                    continue;
                }
                Present::Thawed(_, is_first) => {
                    if is_first {
                        deadline = Instant::now() + settings.health_timeout;
                    }
                    began = None;
                    self.database.begin_anew();
                    self.frozen_too_often(deadline)?;
                    tokio::time::sleep(ANSWER_EVERY).await;
                    continue;
                }
            };
            self.sentinel.look(&container).await?;
            let (asked_ms, asked) = (now_ms(), Instant::now());
            match self.look(&first.place, &container).await? {
                Ok(version) => {
                    // A question that takes long is no gap; a host that slept meanwhile is.
                    let between = Duration::from_millis(asked_ms.saturating_sub(looked_ms));
                    let taken = Duration::from_millis(now_ms().saturating_sub(asked_ms));
                    let gap = between + taken.saturating_sub(asked.elapsed());
                    looked_ms = now_ms();
                    if began.is_some() && gap > self.gap_borne() {
                        began = None;
                        self.database.begin_anew();
                        self.not_watched(gap, deadline).await?;
                    }
                    let (since, answers) = began.unwrap_or_else(|| (Instant::now(), 0));
                    began = Some((since, answers + 1));
                    if since.elapsed() >= settings.verify_for
                        && let Some(verdict) = self.verdict(version, answers + 1, &first)?
                    {
                        return Ok(verdict);
                    }
                }
                Err(broken) => {
                    let restarts = self.restarts;
                    let is_over = Instant::now() >= deadline || restarts >= RESTARTS_BORNE;
                    if broken.is_final || is_over {
                        return fail(broken.code, self.in_vain(&first, &broken, restarts));
                    }
                    if broken.found != last {
                        let found = &broken.found;
                        self.cx.say(&format!("the {} is watched anew: {found}", self.which)).await;
                        last = broken.found;
                    }
                    began = None;
                    self.database.begin_anew();
                }
            }
            // A watch that is under way at the deadline is brought to its end, but not for ever.
            if let Some((since, _)) = began
                && since.elapsed() >= settings.verify_for
                && Instant::now() >= deadline
                && (self.database.was_watched_enough() || self.unanswered().is_some())
            {
                return self.never_used(&first);
            }
            tokio::time::sleep(ANSWER_EVERY).await;
        }
    }

    /// Why the last look saw less than all, where this host is at fault and not the version.
    fn unanswered(&self) -> Option<&str> {
        self.unseen.as_deref().or(self.database.unanswered())
    }

    /// The end of a version that is good, as far as it was seen, and not seen in its database.
    fn never_used(&mut self, first: &FirstAnswer) -> Result<Verdict, Trouble> {
        let which = format!("the {} at {}", self.which, first.place);
        if let Some(late) = self.unanswered() {
            // No word about the version: nothing was seen of it.
            let found = format!("{which} could not be watched, this host being too slow: {late}");
            return fail(FailureCode::RuntimeInspectionFailed, found);
        }
        let habits = self.expected.habits;
        let (found, code) = match self.watch.never_up(habits) {
            Some(name) => (never_up(name), FailureCode::HealthcheckFailed),
            None => {
                let found = self.database.is_used_enough(habits).err().unwrap_or_default();
                self.database.unused(&found)
            }
        };
        fail(code, format!("{which}: {found}"))
    }

    fn in_vain(&self, first: &FirstAnswer, broken: &Break, restarts: u32) -> String {
        let Break { found, .. } = broken;
        let seconds = self.cx.settings.health_timeout.as_secs();
        if broken.is_final {
            return format!("the {} at {}: {found}", self.which, first.place);
        }
        let how = match restarts {
            0 => String::new(),
            1 => "; a program of it was restarted once meanwhile".to_owned(),
            many => format!("; programs of it were restarted {many} times meanwhile"),
        };
        format!(
            "the {} answers at {} and did not stay good for {} s within {seconds} s: {found}{how}",
            self.which,
            first.place,
            self.cx.settings.verify_for.as_secs()
        )
    }

    /// One look of the watch at all that counts: the version when it is good, otherwise what
    /// breaks the watch.
    async fn look(
        &mut self,
        place: &Place,
        container: &Value,
    ) -> Result<Result<String, Break>, Trouble> {
        let version = match self.judge(place, container).await {
            Ok(version) => version,
            Err(broken) => return Ok(Err(broken)),
        };
        if let Err(broken) = self.programs_stay().await? {
            return Ok(Err(broken));
        }
        match self.database.look(container, self.expected.habits).await? {
            Ok(()) => Ok(Ok(version)),
            Err((found, code, is_final)) => Ok(Err(Break { found, code, is_final })),
        }
    }

    /// The version when it is healthy and the expected one.
    async fn judge(&self, place: &Place, container: &Value) -> Result<String, Break> {
        let Expected { version: wanted, rules, .. } = self.expected;
        let judged = Probe::of(self.cx.settings).judge(place, rules, container).await;
        let version = judged.map_err(|unfit| Break::unhealthy(unfit.to_string()))?;
        match wanted {
            Some(wanted) if !core::is_same_version(wanted, &version) => Err(Break {
                found: format!("expected version {wanted}, it reports {version}"),
                code: FailureCode::VersionMismatch,
                // A version does not change while it runs.
                is_final: true,
            }),
            Some(_) | None => Ok(version),
        }
    }

    async fn programs_stay(&mut self) -> Result<Result<(), Break>, Trouble> {
        self.unseen = None;
        let running = match self.cx.programs_of(self.which).await {
            Ok(Some(running)) => running,
            Ok(None) => return Ok(Ok(())),
            Err(Trouble::Failed(failure)) => return Ok(Err(Break::unhealthy(failure.message))),
            Err(Trouble::Unknown(failure)) if failure.code != FailureCode::DockerDaemonDown => {
                // No answer in time: it is asked again.
                self.unseen = Some(failure.message);
                return Ok(Ok(()));
            }
            Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
        };
        let mut broken = None;
        for change in self.watch.look(&running) {
            if is_usual(&change, self.expected.habits) {
                let told = change.to_string();
                if !self.usual.contains(&told) {
                    let is_stopped = self
                        .expected
                        .habits
                        .is_some_and(|habits| habits.stopped.iter().any(|n| n == change.name()));
                    let why = match is_stopped {
                        true => "which somebody had stopped in the old version",
                        false => "as in the old version",
                    };
                    let line = format!("in the {} {told}, {why}", self.which);
                    self.cx.say(&line).await;
                    self.usual.push(told);
                }
                continue;
            }
            let is_final = matches!(change, Change::GivenUp { .. });
            self.restarts += u32::from(!is_final);
            broken = Some(Break { is_final, ..Break::unhealthy(change.to_string()) });
        }
        Ok(broken.map_or(Ok(()), Err))
    }

    /// The verdict over a watch that was long enough, or none while something is still to be
    /// seen.
    fn verdict(
        &mut self,
        version: String,
        answers: u32,
        first: &FirstAnswer,
    ) -> Result<Option<Verdict>, Trouble> {
        if let Some(habits) = self.expected.habits {
            let down = self.watch.down(habits);
            if !down.is_empty() {
                return fail(
                    FailureCode::HealthcheckFailed,
                    format!("in the {} {} does not run any more", self.which, down.join(", ")),
                );
            }
        }
        let is_seen =
            self.unanswered().is_none() && self.watch.never_up(self.expected.habits).is_none();
        if !is_seen || self.database.is_used_enough(self.expected.habits).is_err() {
            return Ok(None);
        }
        let mut notes = self.usual.clone();
        if let Some(habits) = self.expected.habits {
            let missing = self.watch.missing(habits);
            if !missing.is_empty() {
                notes.push(format!("it has no {}, which the old version ran", missing.join(", ")));
            }
        }
        notes.extend(self.database.notes().iter().cloned());
        Ok(Some(Verdict {
            version,
            answers,
            first_answer_ms: first.at_ms,
            first_answer_up: first.up.clone(),
            notes,
            to_confirm: self.database.to_confirm().map(str::to_owned),
            waits_for_a_person: self.database.to_confirm().is_some(),
        }))
    }
}

/// Whether a container runs and is not on its way down or up.
fn is_steady(container: &Value) -> bool {
    Inspection(container).runs_steadily()
}

fn never_up(name: &str) -> String {
    format!("{name} was never seen at work; in the old version it was")
}

fn not_running(which: Which<'_>, container: &Value) -> String {
    let state = &container["State"];
    let status = state["Status"].as_str().unwrap_or("in an unknown state");
    let restarts = container["RestartCount"].as_i64().unwrap_or_default();
    if is_steady(container) {
        return format!(
            "the {which} was restarted while it was watched (restarts {restarts}); expected one run"
        );
    }
    format!(
        "the {which} is {status} (exit code {}, restarts {restarts}); expected running",
        state["ExitCode"]
    )
}

impl From<Failure> for Break {
    fn from(failure: Failure) -> Self {
        Break { found: failure.message, code: failure.code, is_final: false }
    }
}
