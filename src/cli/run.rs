//! `dry-run` and `run`: plan, summary, question, start, progress until the end.

use std::io::{self, Write};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::answers::{self, Job, Plan, PlaybookAnswer, RunAnswer};
use super::args::{ModeName, Run, Wanted};
use super::ask::{self, Consent};
use super::client::{ClientError, Ways};
use super::follow::{self, Observer, Until, Watched};
use super::progress::{Changes, Display, Lines, farewell, notice_beside};
use super::render::Detail;
use super::screen::clean;
use super::{Context, Exit, Problem, Reading, document, object_line, render};
use crate::journal::Mode;

/// What the journal says of a job that was asked for here.
const SOURCE: &str = "CLI";

/// `dry-run`: the plan, and nothing else.
pub(super) async fn dry_run(
    context: &Context,
    wanted: &Wanted,
    verbose: bool,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    // Over TCP a plan is always the policy's: it would answer another question than this.
    let ways = match wanted.mode {
        ModeName::Dashboard => Ways::Any,
        ModeName::Manual => Ways::SocketOnly,
    };
    let (plan, raw) = make_plan(context, wanted, ways).await?;
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text if plan.is_refused() => {
            render::refusal(out, context.screen, &plan)?;
        }
        Reading::Person | Reading::Text => {
            let detail = if verbose { Detail::All } else { Detail::Each };
            render::plan_details(out, context.screen, &plan, detail)?;
            render::expectation(out, context.screen, &plan)?;
            render::summary_box(out, &plan)?;
            writeln!(out, "\nNothing was changed: this is what `run` would do.")?;
            if let Some(hash) = &plan.plan_hash {
                writeln!(out, "To run this plan and no other, add:")?;
                writeln!(out, "  --plan {}", clean(hash))?;
            }
        }
    }
    Ok(if plan.is_refused() { Exit::Failed } else { Exit::Done })
}

/// `run`: an upgrade, from the plan to its end.
pub(super) async fn run(
    context: &Context,
    asked: &Run,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let (plan, raw) = make_plan(context, &asked.wanted, Ways::SocketOnly).await?;
    if plan.is_refused() || !asked.yes {
        // What serves while an upgrade is under way is nothing to plan from.
        none_is_under_way(context).await?;
    }
    if plan.is_refused() {
        return refused(context, &plan, &raw, out);
    }
    if !asked.yes {
        let consent = ask::on_terminal(context, out, "\nProceed?", ask::NOTHING_CHANGED, |out| {
            render::plan_details(out, context.screen, &plan, Detail::Folded)?;
            render::expectation(out, context.screen, &plan)?;
            render::summary_box(out, &plan)
        })?;
        if consent == Consent::Declined {
            return Ok(Exit::Failed);
        }
    } else if context.reading.is_person() {
        render::plan_details(out, context.screen, &plan, Detail::Folded)?;
        render::summary_box(out, &plan)?;
    }
    // Who was asked has consented to this plan and to no other.
    let shown = plan.plan_hash.as_deref().filter(|_| !asked.yes);
    let raw = match start(context, &asked.wanted, asked.plan.as_deref().or(shown)).await {
        Ok(raw) => raw,
        Err(error) => return not_started(context, error, out),
    };
    let answer: RunAnswer = answers::read("/upgrade/run", &raw)?;
    if answer.job_id.is_empty() {
        // The world changed between the plan and its run.
        let plan =
            Plan { failure_code: answer.failure_code, message: answer.message, ..Plan::default() };
        return refused(context, &plan, &raw, out);
    }
    if asked.detach {
        match context.reading {
            Reading::Json => document(out, &raw)?,
            Reading::Person | Reading::Text => {
                writeln!(out, "{} has begun.", answer.job_id)?;
                writeln!(out, "Watch it:    payram-updater watch")?;
                writeln!(out, "Cancel it:   payram-updater cancel")?;
            }
        }
        return Ok(Exit::Done);
    }
    watch_to_the_end(context, &answer.job_id, out).await
}

/// `watch`: the upgrade that runs, as `run` shows it; how the last one ended where none does.
pub(super) async fn watch(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let now = follow::status(&context.client).await?;
    if now.job.is_none() {
        let message = "no upgrade was run yet";
        return Err(Problem::stopped(Exit::Failed, "NOTHING_TO_WATCH", message));
    }
    watch_to_the_end(context, &now.job.job_id, out).await
}

async fn watch_to_the_end(
    context: &Context,
    job: &str,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    match watch_job(context, job, out).await {
        Err(Problem::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            notice_beside(&farewell(Exit::OutputClosed, job));
            Ok(Exit::OutputClosed)
        }
        ended => ended,
    }
}

async fn none_is_under_way(context: &Context) -> Result<(), Problem> {
    let job = follow::status(&context.client).await?.job;
    if !job.is_active() {
        return Ok(());
    }
    let what = if job.is_restore() { "a job" } else { "an upgrade" };
    let message = format!(
        "{what} is under way: {} ({}): {}. Watch it: payram-updater watch. Cancel it: payram-updater cancel",
        job.way(),
        job.job_id,
        job.message
    );
    Err(Problem::stopped(Exit::Failed, "CONCURRENCY_BLOCKED", message))
}

fn request(wanted: &Wanted) -> Value {
    json!({
        "mode": Mode::from(wanted.mode).as_str(),
        "requestedTarget": wanted.to,
        "source": SOURCE,
        "force": wanted.force,
    })
}

async fn make_plan(
    context: &Context,
    wanted: &Wanted,
    ways: Ways,
) -> Result<(Plan, Value), Problem> {
    let raw = context.client.post("/upgrade/plan", &request(wanted), ways).await?;
    Ok((answers::read("/upgrade/plan", &raw)?, raw))
}

async fn start(
    context: &Context,
    wanted: &Wanted,
    plan: Option<&str>,
) -> Result<Value, ClientError> {
    let mut body = request(wanted);
    if let Some(plan) = plan {
        body["planHash"] = json!(plan);
    }
    context.client.post("/upgrade/run", &body, Ways::SocketOnly).await
}

fn refused(
    context: &Context,
    plan: &Plan,
    raw: &Value,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    match context.reading {
        Reading::Json => object_line(out, raw)?,
        Reading::Person | Reading::Text => render::refusal(out, context.screen, plan)?,
    }
    Ok(Exit::Failed)
}

fn not_started(
    context: &Context,
    error: ClientError,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    match error {
        ClientError::Refused { status: StatusCode::CONFLICT, sentence, body, .. } => {
            if context.reading == Reading::Json {
                object_line(out, &body)?;
                return Ok(Exit::Failed);
            }
            let active: Job = answers::read("/upgrade/run", &body)?;
            let message = format!(
                "{sentence}: {} ({}): {}. Watch it: payram-updater watch. Cancel it: payram-updater cancel",
                active.job_id, active.state, active.message
            );
            Err(Problem::stopped(Exit::Failed, "CONCURRENCY_BLOCKED", message))
        }
        ClientError::Lost { .. } => {
            let message = format!(
                "{error}; the upgrade may have begun: `payram-updater status` says whether it has"
            );
            Err(Problem::stopped(Exit::Unreachable, "ANSWER_LOST", message))
        }
        ClientError::Unreachable { .. }
        | ClientError::NeedsRoot { .. }
        | ClientError::Refused { .. }
        | ClientError::Protocol { .. }
        | ClientError::Setup { .. } => Err(error.into()),
    }
}

async fn watch_job(context: &Context, job: &str, out: &mut dyn Write) -> Result<Exit, Problem> {
    let until = Until::Ended(job.to_owned());
    let watched = {
        let mut observer: Box<dyn Observer + '_> = match context.reading {
            Reading::Person => Box::new(Display::new(context.screen)),
            Reading::Json => Box::new(Changes::new(out)),
            Reading::Text => Box::new(Lines { out }),
        };
        follow::follow(&context.client, until, observer.as_mut()).await?
    };
    let ended = match watched {
        Watched::Ended(ended) => ended,
        Watched::Interrupted => {
            notice_beside(&farewell(Exit::Interrupted, job));
            return Ok(Exit::Interrupted);
        }
    };
    if context.reading != Reading::Json {
        tell_the_end(context, &ended.job, out).await?;
    }
    Ok(ended.job.exit())
}

/// How it ended, and what to do when it ended badly.
pub(super) async fn tell_the_end(
    context: &Context,
    job: &Job,
    out: &mut dyn Write,
) -> Result<(), Problem> {
    render::closing(out, context.screen, job)?;
    if job.exit() == Exit::Done {
        return Ok(());
    }
    let raw = context.client.get("/upgrade/playbook").await;
    let found = raw.and_then(|raw| answers::read::<PlaybookAnswer>("/upgrade/playbook", &raw));
    match found.map(|answer| answer.playbook) {
        Ok(Some(book)) => {
            writeln!(out)?;
            render::playbook(out, context.screen, &book)?;
        }
        Ok(None) => {}
        Err(error) => notice_beside(&format!("what to do could not be fetched: {error}")),
    }
    render::last_word(out, context.screen, job)?;
    Ok(())
}
