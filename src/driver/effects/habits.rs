//! What the old version does by itself, learnt while it still serves and as long as a new one is
//! watched: which programs stay, which come and go, which its supervisor has given up on, whether
//! its application has sessions in the database, and how long its answers take.
//!
//! Called by `note_programs`, before anything is stopped; and for the programs of any version.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::containers::occupies_database;
use super::own_database::now_ms;
use super::second_server::Sentinel;
use crate::app::core::Probe;
use crate::app::supervisor;
use crate::app::watch::{Running, Watch};
use crate::database::{self, Runner, UsageWatch};
use crate::driver::context::{StepContext, Which};
use crate::engine::EngineError;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::Habits;
use crate::machine::failure::FailureCode;

/// Between two looks, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(200));

/// Looks that are taken however slow they are: of fewer nothing is learnt.
const LOOKS_AT_LEAST: u32 = 3;

/// How much longer than three watches a supervisor may need to answer often enough.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

impl StepContext<'_> {
    /// What runs in a container now; none where nobody says it.
    pub(in crate::driver) async fn programs_of(
        &self,
        which: Which<'_>,
    ) -> Result<Option<Running>, Trouble> {
        if let Some(programs) = supervisor::programs(self.engine, which.id).await? {
            return Ok(Some(Running::Supervised(programs)));
        }
        let processes = match self.engine.processes(which.id).await {
            Ok(processes) => processes,
            // The engine has no means to list them, or the container ends just now.
            Err(EngineError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let container = self.inspect_present(which.id, which.role).await?;
        let first = container["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Ok(first.map(|first| Running::Bare { processes, first }))
    }

    /// Watches the old version for as long as a new one will be. What can't be seen of it is not
    /// held against a new one.
    pub(in crate::driver) async fn habits(&self) -> Result<Habits, Trouble> {
        let old = self.old();
        let target = self.database()?;
        let runner = Runner::new(self.engine, old.id, &target);
        let directory = self.directory().map(Path::to_owned);
        let mut sentinel = Sentinel::before_the_start(self, directory);
        let (mut watch, mut usage) = (Watch::default(), UsageWatch::default());
        let (mut slowest_answer_ms, mut looks) = (0, 0);
        let (mut heard, mut unheard) = (0, None);
        let began = Instant::now();
        let whole = self.settings.verify_for;
        let longest = whole.saturating_mul(3).saturating_add(HEARD_WITHIN);
        loop {
            let container = self.inspect_present(old.id, old.role).await?;
            if !occupies_database(&container) {
                break;
            }
            sentinel.look(&container).await?;
            match self.programs_of(old).await {
                Ok(Some(running)) => {
                    watch.look(&running);
                    heard += 1;
                }
                Ok(None) => {}
                Err(trouble) => unheard = Some(trouble.to_string()),
            }
            slowest_answer_ms = self.answer_ms(&container).await.max(slowest_answer_ms);
            if let Ok(found) = database::identity(&runner, self.ask_within()).await {
                usage.look(now_ms(), found);
            }
            looks += 1;
            let passed = began.elapsed();
            // A program whose habit was not seen would be held against the new version.
            let is_heard = unheard.is_none() || heard >= LOOKS_AT_LEAST;
            if passed >= whole && looks >= LOOKS_AT_LEAST && (is_heard || passed >= longest) {
                if let Some(reason) = unheard.filter(|_| !is_heard) {
                    return fail(
                        FailureCode::RuntimeInspectionFailed,
                        format!(
                            "the old version's programs could be asked for in {heard} of {looks} looks, too few to know how they behave: {reason}"
                        ),
                    );
                }
                break;
            }
            let (most, least) = LOOK_EVERY;
            tokio::time::sleep(most.min(whole.saturating_sub(passed)).max(least)).await;
        }
        let usage = usage.usage();
        Ok(Habits {
            looks: usage.looks,
            looks_with_sessions: usage.looks_with_sessions,
            slowest_answer_ms,
            seconds: began.elapsed().as_secs(),
            usage,
            ..watch.habits()
        })
    }

    /// Milliseconds until the application answers.
    async fn answer_ms(&self, container: &Value) -> u64 {
        let began = Instant::now();
        let answer = Probe::of(self.settings).find(self.engine, container).await;
        answer.map_or(0, |_| began.elapsed().as_millis() as u64)
    }
}

/// What was learnt, for the log.
pub(in crate::driver) fn sentence(habits: &Habits) -> String {
    let mut parts = vec![format!("the old version was watched for {} s", habits.seconds)];
    if !habits.given_up.is_empty() {
        parts.push(format!("its supervisor had given up on {}", habits.given_up.join(", ")));
    }
    if !habits.restless.is_empty() {
        parts.push(format!("{} ended or came back by themselves", habits.restless.join(", ")));
    }
    parts.push(match (habits.looks_with_sessions, habits.looks) {
        (_, 0) => "the database did not say who uses it".to_owned(),
        (with, looks) => format!("it had sessions in the database in {with} of {looks} looks"),
    });
    if habits.usage.intervals > 0 {
        parts
            .push(format!("{} transactions of others than the updater", habits.usage.transactions));
    }
    if !habits.stopped.is_empty() {
        parts.push(format!("somebody had stopped {}", habits.stopped.join(", ")));
    }
    parts.push(format!("slowest answer {} ms", habits.slowest_answer_ms));
    parts.join("; ")
}
