//! `recover`: says what it sees and what it would do, asks, does it, and shows how it ended.
//!
//! The daemon does it when one runs. When none does, this process does it itself under the same
//! lock, with the same driver: a daemon that can't start must not be the reason that a shop
//! stays down.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answers::{self, Job};
use super::args::Recover;
use super::ask::{self, Consent};
use super::client::{ClientError, Ways};
use super::follow::{self, Until, Watched};
use super::progress::{Changes, Display, Lines};
use super::{Context, Exit, Problem, Reading, document, render};
use crate::config::Settings;
use crate::driver::{self, Driver, JobView, Progress, StateLock};
use crate::engine::Engine;
use crate::engine::docker::Docker;
use crate::journal::Reader;

/// Between two looks at the log of a recovery that this process does itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The answer of `recover` (contract section 8).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    success: bool,
    message: String,
    action: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    refusals: Vec<String>,
    #[serde(default)]
    found: Vec<String>,
    #[serde(default)]
    shown: String,
}

impl Decision {
    /// Whether something is to be done that goes on after the answer.
    fn is_a_way(&self) -> bool {
        ["wait", "rollback", "restore_database", "tidy"].contains(&self.action.as_str())
    }

    fn changes_something(&self) -> bool {
        self.success && (self.is_a_way() || self.action == "start")
    }
}

/// Who does it.
enum Hand {
    Daemon,
    Own(Box<Own>),
}

/// A driver of this process.
struct Own {
    driver: Driver,
    reader: Reader,
}

/// `recover`
pub(super) async fn recover(
    context: &Context,
    asked: &Recover,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let (hand, raw) = match ask_daemon(context, asked, true, None).await {
        Ok(raw) => (Hand::Daemon, raw),
        Err(unreachable @ ClientError::Unreachable { .. }) => {
            let own = own_driver(unreachable).await?;
            let raw = decide(&own, asked, true, None).await?;
            (Hand::Own(Box::new(own)), raw)
        }
        Err(error) => return Err(error.into()),
    };
    let mut decision: Decision = answers::read("/upgrade/recover", &raw)?;
    if asked.dry_run || !decision.changes_something() {
        return shown_only(context, &decision, &raw, asked.dry_run, out);
    }
    loop {
        if !asked.yes {
            let consent = ask::on_terminal(context, out, "\nDo it?", |out| {
                writeln!(out, "{}", sentence(&decision))
            })?;
            if consent == Consent::Declined {
                return Ok(Exit::Done);
            }
        } else if context.reading != Reading::Json {
            writeln!(out, "{}", sentence(&decision))?;
        }
        // Who was asked has consented to what was shown and to nothing else.
        let shown = (!asked.yes && !decision.shown.is_empty()).then_some(decision.shown.as_str());
        let raw = hand.decide(context, asked, false, shown).await?;
        let done: Decision = answers::read("/upgrade/recover", &raw)?;
        if !done.success && done.action != "changed" {
            return shown_only(context, &done, &raw, false, out);
        }
        if done.success && !decision.is_a_way() {
            return finished(context, &raw, out);
        }
        let mut ended = None;
        if done.success {
            let Some(job) = hand.watch(context, out).await? else { return Ok(Exit::Interrupted) };
            ended = Some(job);
        }
        let stopped = ended.as_ref().is_none_or(|job| job.exit() == Exit::NeedsOperator);
        if shown.is_some() && stopped {
            let raw = hand.decide(context, asked, true, None).await?;
            let now: Decision = answers::read("/upgrade/recover", &raw)?;
            if !now.changes_something() {
                return shown_only(context, &now, &raw, false, out);
            }
            if ended.is_none() || now.found != decision.found {
                note_change(context, out)?;
                decision = now;
                continue;
            }
        }
        let Some(job) = ended else { return shown_only(context, &done, &raw, false, out) };
        if context.reading != Reading::Json {
            render::closing(out, context.screen, &job)?;
        }
        // Going back is what was asked for: the old version serves, and it is done.
        return Ok(match job.exit() {
            Exit::RolledBack => Exit::Done,
            other => other,
        });
    }
}

/// A decision that nothing follows from.
fn shown_only(
    context: &Context,
    decision: &Decision,
    raw: &Value,
    is_dry: bool,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    show(context, decision, raw, is_dry, out)?;
    Ok(if decision.success { Exit::Done } else { Exit::NeedsOperator })
}

/// Before the question is put again.
fn note_change(context: &Context, out: &mut dyn Write) -> Result<(), Problem> {
    let line = "\nWhat was found has changed since you were asked. Nothing was put back. Now:";
    match context.reading {
        Reading::Person | Reading::Text => writeln!(out, "{line}")?,
        // JSON stays JSON.
        Reading::Json => writeln!(std::io::stderr(), "{line}")?,
    }
    Ok(())
}

impl Hand {
    async fn decide(
        &self,
        context: &Context,
        asked: &Recover,
        is_dry: bool,
        shown: Option<&str>,
    ) -> Result<Value, Problem> {
        match self {
            Hand::Daemon => Ok(ask_daemon(context, asked, is_dry, shown).await?),
            Hand::Own(own) => decide(own, asked, is_dry, shown).await,
        }
    }

    /// Shows the job until it ends; none when the operator stopped watching.
    async fn watch(&self, context: &Context, out: &mut dyn Write) -> Result<Option<Job>, Problem> {
        match self {
            Hand::Daemon => watch(context, out).await,
            Hand::Own(own) => own.run(context, out).await.map(Some),
        }
    }
}

/// `sync`
pub(super) async fn sync(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let raw = context.client.post("/upgrade/sync", &json!({}), Ways::SocketOnly).await?;
    let decision: Decision = answers::read("/upgrade/sync", &raw)?;
    show(context, &decision, &raw, false, out)?;
    Ok(if decision.success { Exit::Done } else { Exit::Failed })
}

fn sentence(decision: &Decision) -> String {
    let mut text = decision.message.clone();
    if let Some(first) = text.get(..1).map(str::to_uppercase) {
        text.replace_range(..1, &first);
    }
    text + "."
}

fn show(
    context: &Context,
    decision: &Decision,
    raw: &Value,
    is_dry: bool,
    out: &mut dyn Write,
) -> Result<(), Problem> {
    if context.reading == Reading::Json {
        document(out, raw)?;
        return Ok(());
    }
    writeln!(out, "{}", sentence(decision))?;
    for refusal in &decision.refusals {
        writeln!(out, "  {refusal}")?;
    }
    if !decision.code.is_empty() {
        writeln!(out, "  Code: {}", decision.code)?;
    }
    if is_dry {
        writeln!(out, "Nothing was changed.")?;
    }
    Ok(())
}

fn finished(context: &Context, raw: &Value, out: &mut dyn Write) -> Result<Exit, Problem> {
    if context.reading == Reading::Json {
        document(out, raw)?;
    }
    Ok(Exit::Done)
}

async fn ask_daemon(
    context: &Context,
    asked: &Recover,
    is_dry: bool,
    shown: Option<&str>,
) -> Result<Value, ClientError> {
    let mut body = json!({"restoreDatabase": asked.restore_database, "dryRun": is_dry});
    if let Some(shown) = shown {
        body["shown"] = json!(shown);
    }
    context.client.post("/upgrade/recover", &body, Ways::SocketOnly).await
}

/// Shows the job until it ends; none when the operator stopped watching.
async fn watch(context: &Context, out: &mut dyn Write) -> Result<Option<Job>, Problem> {
    let mut observer: Box<dyn follow::Observer + '_> = match context.reading {
        Reading::Person => Box::new(Display::new(context.screen)),
        Reading::Json => Box::new(Changes::new(out)),
        Reading::Text => Box::new(Lines { out }),
    };
    match follow::follow(&context.client, Until::LastEnded, observer.as_mut()).await? {
        Watched::Ended(ended) => Ok(Some(ended.job)),
        Watched::Interrupted => Ok(None),
    }
}

/// A driver of this process' own, under the daemon's lock.
async fn own_driver(unreachable: ClientError) -> Result<Own, Problem> {
    let failed = |code: &'static str| {
        move |error: &dyn std::fmt::Display| Problem::stopped(Exit::Failed, code, error.to_string())
    };
    let Ok((settings, _)) = Settings::load() else { return Err(unreachable.into()) };
    let settings = Arc::new(settings);
    let lock = StateLock::take(&settings.state_dir).map_err(|e| failed("STATE_LOCKED")(&e))?;
    let engine = Docker::connect(&settings.docker_bin, settings.docker_host.as_deref()).await;
    let engine: Arc<dyn Engine> = Arc::new(engine.map_err(|e| failed("DOCKER_DAEMON_DOWN")(&e))?);
    let path = settings.journal_path();
    let driver = Driver::new(settings, engine, lock, CancellationToken::new())
        .map_err(|e| failed("JOURNAL_ERROR")(&e))?;
    let reader = Reader::open(&path).map_err(|e| failed("JOURNAL_ERROR")(&e))?;
    Ok(Own { driver, reader })
}

async fn decide(
    own: &Own,
    asked: &Recover,
    is_dry: bool,
    shown: Option<&str>,
) -> Result<Value, Problem> {
    let consent = driver::Consent { restore_database: asked.restore_database };
    let decided = match shown {
        Some(shown) => own.driver.recover_as_shown(consent, shown).await,
        None => own.driver.recover(consent, is_dry).await,
    };
    let decision = decided
        .map_err(|error| Problem::stopped(Exit::Failed, "RECOVERY_FAILED", error.to_string()))?;
    Ok(serde_json::to_value(&decision).unwrap_or_default())
}

impl Own {
    /// Runs the way to its end, line by line, and answers how the job ended.
    async fn run(&self, context: &Context, out: &mut dyn Write) -> Result<Job, Problem> {
        let failed = |error: crate::journal::JournalError| {
            Problem::stopped(Exit::Failed, "JOURNAL_ERROR", error.to_string())
        };
        let mut after = match self.reader.last_executed_job().map_err(failed)? {
            Some(job) => {
                let lines = self.reader.log_lines(&job.id, 0).map_err(failed)?;
                lines.last().map_or(0, |line| line.seq)
            }
            None => 0,
        };
        let mut running = std::pin::pin!(self.driver.run_to_rest());
        let mut ended = None;
        while ended.is_none() {
            tokio::select! {
                result = running.as_mut() => ended = Some(result.map_err(failed)?),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Some(job) = self.reader.last_executed_job().map_err(failed)? else { continue };
            for line in self.reader.log_lines(&job.id, after).map_err(failed)? {
                after = line.seq;
                if context.reading != Reading::Json {
                    writeln!(out, "{} {}", line.at.rfc3339(), line.text)?;
                }
            }
        }
        let job = self.reader.last_executed_job().map_err(failed)?;
        let view = job.map(|job| JobView::of(&job, Progress::default())).unwrap_or_default();
        let raw = serde_json::to_value(&view).unwrap_or_default();
        if context.reading == Reading::Json {
            document(out, &raw)?;
        }
        Ok(answers::read("/upgrade/status", &raw)?)
    }
}
