//! `probation`: after `Verified` the watch goes on for `PROBATION_MINUTES`, with everything for the
//! way back still there. What it finds changes no verdict: it is told, and nothing is tidied away
//! until a person says so. A new upgrade ends it; a restarted daemon takes it up where it was.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::app::core::{self, Probe};
use crate::app::watch::{Watch, is_usual};
use crate::clock::{self, Timestamp};
use crate::driver::context::{StepContext, Which};
use crate::driver::effects::containers::no_restart;
use crate::driver::effects::outside::{Cause, Outside, by_hand_since};
use crate::driver::effects::own_database::OwnDatabase;
use crate::driver::effects::second_server::{Noted, Sentinel};
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::{NextContainer, Probation, ProbationEnd, Verdict};
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Watching the new version a while longer; it serves";

/// Between two looks at processes and containers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two questions to the application and its supervisor.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// So many bad answers in a row are a lost one: a busy host may miss one.
const ANSWERS_MISSED: u32 = 3;

/// What the watch found, and how bad it is.
type Found = (ProbationEnd, String);

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
    verdict: &Verdict,
) -> Result<Fact, Trouble> {
    let next = Which::next(next);
    let whole = Duration::from_secs(cx.hop.probation_seconds.unwrap_or_default());
    let found = watch_on(cx, next, verdict, whole).await?;
    if let Some((_, sentence)) = &found {
        cx.say(&format!("after the verdict: {sentence}")).await;
    }
    let to_confirm = verdict.to_confirm.clone();
    let (end, findings) = match (found, to_confirm) {
        (Some((end, sentence)), _) => (end, vec![sentence]),
        (None, Some(why)) => (ProbationEnd::ToConfirm, vec![why]),
        (None, None) if cx.at.is_followed => (ProbationEnd::NextUpgrade, Vec::new()),
        (None, None) => (ProbationEnd::Passed, Vec::new()),
    };
    let seconds = since_verified(cx).as_secs().min(whole.as_secs());
    Ok(Fact::Probation(Probation { end, findings, seconds }))
}

/// How long ago the version was verified, by the host's clock; nothing where that was set back.
fn since_verified(cx: &StepContext<'_>) -> Duration {
    let passed = Timestamp::now().millis() - cx.at.verified_ms.unwrap_or_default();
    match cx.at.verified_ms {
        Some(_) => Duration::from_millis(u64::try_from(passed).unwrap_or_default()),
        None => Duration::ZERO,
    }
}

/// Watches until the time is over or something is found.
async fn watch_on(
    cx: &StepContext<'_>,
    next: Which<'_>,
    verdict: &Verdict,
    whole: Duration,
) -> Result<Option<Found>, Trouble> {
    let Some(container) = cx.inspect(next.id).await? else {
        return Ok(troubled(format!("the {next} was removed")));
    };
    if let Some(found) = damage(cx, next, cx.must_be_alone(next, Noted::Ever).await).await? {
        return Ok(Some(found));
    }
    if let Some(found) = restarted_unseen(cx, next, verdict, &container).await {
        return Ok(Some(found));
    }
    let mut outside = match is_up(&container) {
        true => Outside::of(&container),
        false => Outside::over(&container),
    };
    let mut sentinel = Sentinel::new(cx, next);
    let mut database = OwnDatabase::new(cx, next)?;
    let habits = cx.programs.and_then(|programs| programs.habits.as_deref());
    let (mut watch, mut missed, mut asked) = (Watch::default(), 0, None::<Instant>);
    let mut frozen = false;
    let until = Instant::now() + whole.saturating_sub(since_verified(cx));
    loop {
        let Some(container) = cx.inspect(next.id).await? else {
            return Ok(troubled(format!("the {next} was removed")));
        };
        outside.listen(cx.engine, next.id).await;
        if !is_up(&container) || !outside.is_same_run(&container) {
            match outside.cause(cx.engine, next.id).await {
                Cause::Itself if !is_up(&container) && !outside.has_noted_the_end() => {
                    return Ok(troubled(ended_unseen(next, &container)));
                }
                Cause::Itself if Inspection(&container).is_restarting() => {
                    return Ok(troubled(ended(next, &cx.settled(next).await?)));
                }
                Cause::Itself => return Ok(troubled(ended(next, &container))),
                Cause::Somebody { how } | Cause::SomebodyAgain { how } => {
                    cx.say(&format!("the {next} was {how} from outside")).await;
                    let container = cx.settled(next).await?;
                    if !is_up(&container) {
                        // It is a person's; the daemon starts nothing that a person stopped.
                        return Ok(troubled(format!("the {next} was {how} by somebody")));
                    }
                    outside = Outside::of(&container);
                    (watch, missed) = (Watch::default(), 0);
                    continue;
                }
            }
        }
        *watched(cx) = run_of(&container);
        let is_frozen = Inspection(&container).is_frozen();
        if outside.was_frozen() || is_frozen != frozen {
            let how = if is_frozen { "is" } else { "was" };
            cx.say(&format!("the {next} {how} paused from outside")).await;
            frozen = is_frozen;
            missed = 0;
        }
        if let Some(found) = damage(cx, next, sentinel.look(&container).await).await? {
            return Ok(Some(found));
        }
        if !frozen && asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            if let Ok(Some(running)) = cx.programs_of(next).await {
                let changes = watch.look(&running);
                if let Some(change) = changes.iter().find(|each| !is_usual(each, habits)) {
                    return Ok(troubled(format!("in the {next} {change}")));
                }
            }
            match answers_well(cx, &container).await {
                Ok(()) => missed = 0,
                Err(found) => {
                    missed += 1;
                    if missed >= ANSWERS_MISSED {
                        return Ok(troubled(format!(
                            "the {next} gave no good answer {missed} times in a row: {found}"
                        )));
                    }
                }
            }
            if let Ok(Err((found, FailureCode::DatabaseMismatch, true))) =
                database.look(&container, None).await
            {
                return Ok(troubled(found));
            }
        }
        if frozen && Instant::now() >= until && !cx.at.is_followed {
            return Ok(troubled(format!("the {next} is paused by somebody")));
        }
        if Instant::now() >= until || cx.at.is_followed {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a look for a second server found. The version stays down then: what it wrote on would
/// only be damaged further.
async fn damage(
    cx: &StepContext<'_>,
    next: Which<'_>,
    looked: Result<(), Trouble>,
) -> Result<Option<Found>, Trouble> {
    match looked {
        Ok(()) => Ok(None),
        Err(Trouble::Failed(failure)) if failure.code == FailureCode::DatabaseDamaged => {
            cx.set_policy(next, &no_restart()).await?;
            Ok(Some((ProbationEnd::Damaged, failure.message)))
        }
        Err(trouble) => Err(trouble),
    }
}

/// Whether the container's run began after the verdict, while nobody watched; unless the host
/// was started anew since, or the engine remembers that it was somebody's doing.
async fn restarted_unseen(
    cx: &StepContext<'_>,
    next: Which<'_>,
    verdict: &Verdict,
    container: &Value,
) -> Option<Found> {
    let started = container["State"]["StartedAt"].as_str().and_then(Timestamp::parse)?;
    let verified = cx.at.verified_ms?;
    if *watched(cx) == run_of(container) {
        // How it began was seen, and told.
        return None;
    }
    let is_later = started.millis() > verified;
    let then = verdict.first_answer_up.clone().map(|up| up.boot);
    let is_another_boot = then.is_some() && then != clock::uptime().map(|up| up.boot);
    if !is_later || is_another_boot {
        return None;
    }
    if let Some(how) = by_hand_since(cx.engine, container, verified).await {
        cx.say(&format!("the {next} was {how} from outside")).await;
        return None;
    }
    let at = started.rfc3339();
    Some((
        ProbationEnd::Troubled,
        format!("the {next} was started again at {at}, while nobody watched it"),
    ))
}

fn watched<'c>(cx: &'c StepContext<'_>) -> MutexGuard<'c, String> {
    cx.watched_run.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it is healthy and of its version now.
async fn answers_well(cx: &StepContext<'_>, container: &Value) -> Result<(), String> {
    let probe = Probe::of(cx.settings);
    let place = probe.find(cx.engine, container).await;
    let place = place.map_err(|silent| silent.to_string())?;
    let judged = probe.judge(&place, &cx.hop.rules, container).await;
    let version = judged.map_err(|unfit| unfit.to_string())?;
    match core::is_same_version(&cx.hop.version, &version) {
        true => Ok(()),
        false => Err(format!("expected version {}, it reports {version}", cx.hop.version)),
    }
}

/// A container's run: which container, and since when.
fn run_of(container: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&container["Id"]), text(&container["State"]["StartedAt"]))
}

fn troubled(found: String) -> Option<Found> {
    Some((ProbationEnd::Troubled, found))
}

fn is_up(container: &Value) -> bool {
    Inspection(container).is_up()
}

fn ended(next: Which<'_>, container: &Value) -> String {
    let state = &container["State"];
    let restarts = container["RestartCount"].as_i64().unwrap_or_default();
    match is_up(container) {
        true => format!(
            "the {next} ended by itself and was started again by its restart policy (restarts {restarts})"
        ),
        false => format!(
            "the {next} ended by itself (exit code {}, restarts {restarts}); it is {}",
            state["ExitCode"],
            state["Status"].as_str().unwrap_or("in an unknown state")
        ),
    }
}

/// The engine no longer knows how it came to that.
fn ended_unseen(next: Which<'_>, container: &Value) -> String {
    format!(
        "the {next} ended while nobody watched it (exit code {}); it is {}",
        container["State"]["ExitCode"],
        container["State"]["Status"].as_str().unwrap_or("in an unknown state")
    )
}
