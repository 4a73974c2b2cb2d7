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

use super::answers::{self, Job, LogAnswer, LogLine};
use super::args::Recover;
use super::ask::{self, Consent};
use super::client::{ClientError, Ways};
use super::follow::{self, Snapshot, Until, Watched};
use super::progress::{Display, Lines};
use super::screen::clean;
use super::{Context, Exit, Problem, Reading, document, render};
use crate::config::Settings;
use crate::driver::{self, Driver, JobView, Progress, StateLock};
use crate::engine::Engine;
use crate::engine::docker::Docker;
use crate::journal::Reader;

/// Between two looks at the log of a recovery that this process does itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Lines of the log from before that are shown again, so that what comes has its place.
const LINES_BEFORE: u32 = 3;

/// The answer of `recover` (contract section 8).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Decision {
    pub(super) success: bool,
    pub(super) message: String,
    action: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    seen: Vec<String>,
    #[serde(default)]
    refusals: Vec<String>,
    #[serde(default)]
    found: Vec<String>,
    #[serde(default)]
    shown: String,
}

impl Decision {
    fn read(raw: &Value) -> Result<Self, Problem> {
        Ok(answers::read("/upgrade/recover", raw)?)
    }

    /// Whether something is to be done that goes on after the answer.
    fn is_a_way(&self) -> bool {
        self.success
            && ["wait", "resume", "rollback", "restore_database", "keep_new"]
                .contains(&self.action.as_str())
    }

    /// Whether going back is what was asked for.
    fn goes_back(&self) -> bool {
        ["rollback", "restore_database"].contains(&self.action.as_str())
    }

    pub(super) fn changes_something(&self) -> bool {
        let acts =
            ["start", "tidy", "clear_quarantine", "dismiss_rows"].contains(&self.action.as_str());
        self.is_a_way() || self.success && acts
    }

    /// How a command ends that got no further than this answer.
    fn exit(&self) -> Exit {
        match self.success {
            true => Exit::Done,
            // A person must decide; anything else was tried, or could not even be looked at.
            false if self.action == "refused" => Exit::NeedsOperator,
            false => Exit::Failed,
        }
    }
}

/// Who does it.
enum Hand {
    Daemon,
    Own(Box<Own>),
}

/// A driver of this process.
pub(super) struct Own {
    pub(super) driver: Driver,
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
    let mut plan = Decision::read(&raw)?;
    if asked.dry_run || !plan.changes_something() {
        show(context, &plan, &raw, asked.dry_run, out)?;
        return Ok(plan.exit());
    }
    let (done, raw, (job, job_raw)) = loop {
        if !asked.yes {
            let consent =
                ask::on_terminal(context, out, "\nDo it?", ask::NOTHING_CHANGED, |out| {
                    explain(context, &plan, out)
                })?;
            if consent == Consent::Declined {
                return Ok(Exit::Failed);
            }
        } else if context.reading != Reading::Json {
            explain(context, &plan, out)?;
        }
        // Who was asked has consented to what was shown and to nothing else.
        let shown = (!asked.yes && !plan.shown.is_empty()).then_some(plan.shown.as_str());
        let after = hand.shown_after(context, asked.verbose).await?;
        let raw = hand.decide(context, asked, false, shown).await?;
        // The world may have changed since the question: what is done is what is said now.
        let done = Decision::read(&raw)?;
        let mut ended = None;
        if done.action != "changed" {
            if !done.is_a_way() {
                show(context, &done, &raw, false, out)?;
                return Ok(done.exit());
            }
            let Some(job) = hand.watch(context, after, out).await? else {
                return Ok(Exit::Interrupted);
            };
            if shown.is_none() || job.0.exit() != Exit::NeedsOperator {
                break (done, raw, job);
            }
            ended = Some(job);
        }
        let now_raw = hand.decide(context, asked, true, None).await?;
        let now = Decision::read(&now_raw)?;
        if let Some(job) = ended.filter(|_| !now.changes_something() || now.found == plan.found) {
            break (done, raw, job);
        }
        plan = now;
        if !plan.changes_something() {
            show(context, &plan, &now_raw, false, out)?;
            return Ok(plan.exit());
        }
        note_change(context, out)?;
    };
    // How it is now, whatever the journal says of the way.
    let nothing = Recover {
        dry_run: true,
        restore_database: false,
        carry_rows: false,
        keep_new: false,
        ..asked.clone()
    };
    let mut after = hand.decide(context, &nothing, true, None).await?;
    // It ended without a container of its own to start: the one that was there is started.
    if Decision::read(&after)?.action == "start" {
        after = hand.decide(context, &nothing, false, None).await?;
    }
    conclude(context, out, Ended { done, raw, job, job_raw, after })
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

    /// The row of the log after which lines are shown: what was before this recovery was read, or
    /// can be by `logs`.
    async fn shown_after(&self, context: &Context, is_all: bool) -> Result<i64, Problem> {
        if is_all || !matches!(self, Hand::Daemon) {
            return Ok(0);
        }
        let path = format!("/upgrade/logs?format=json&last={LINES_BEFORE}");
        let raw = context.client.get(&path).await?;
        let log: LogAnswer = answers::read("/upgrade/logs", &raw)?;
        Ok(log.lines.first().map_or(0, |line| line.seq - 1))
    }

    /// Shows the job until it ends; none when the operator stopped watching.
    async fn watch(
        &self,
        context: &Context,
        after: i64,
        out: &mut dyn Write,
    ) -> Result<Option<(Job, Value)>, Problem> {
        match self {
            Hand::Daemon => watch(context, after, out).await,
            Hand::Own(own) => own.run(context, out).await.map(Some),
        }
    }
}

/// A recovery that went its way.
struct Ended {
    done: Decision,
    raw: Value,
    job: Job,
    job_raw: Value,
    after: Value,
}

fn conclude(context: &Context, out: &mut dyn Write, ended: Ended) -> Result<Exit, Problem> {
    let Ended { done, mut raw, job, job_raw, after } = ended;
    let mut now = Decision::read(&after)?;
    let exit = match job.exit() {
        // It came to rest, and not where it should serve.
        Exit::Done | Exit::RolledBack if !now.success => Exit::NeedsOperator,
        // Going back is what was asked for: the old version serves, and it is done.
        Exit::RolledBack if done.goes_back() => Exit::Done,
        other => other,
    };
    if exit == Exit::NeedsOperator && now.refusals.is_empty() {
        now.refusals.push("when the cause is fixed: payram-updater recover".to_owned());
    }
    if context.reading != Reading::Json {
        render::closing(out, context.screen, &job)?;
        if exit == Exit::NeedsOperator || now.action == "start" {
            writeln!(out, "{}", sentence(&now.message))?;
            for refusal in &now.refusals {
                writeln!(out, "  {refusal}")?;
            }
        }
        if exit != Exit::NeedsOperator {
            render::last_word(out, context.screen, &job)?;
        }
        return Ok(exit);
    }
    let is_well = matches!(exit, Exit::Done | Exit::RolledBack);
    raw["success"] = json!(is_well);
    let then = match now.action.as_str() {
        "start" => format!("; {}", now.message),
        _ => String::new(),
    };
    raw["message"] = json!(format!("{}; how it ended: {}{then}", done.message, job.message));
    raw["code"] = json!(job.failure_code);
    if !is_well {
        raw["refusals"] = json!([now.message]);
        let ways = now.refusals.iter().map(|way| json!(way));
        if let Some(refusals) = raw["refusals"].as_array_mut() {
            refusals.extend(ways);
        }
    }
    raw["job"] = job_raw;
    document(out, &raw)?;
    Ok(exit)
}

/// `sync`
pub(super) async fn sync(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let raw = context.client.post("/upgrade/sync", &json!({}), Ways::SocketOnly).await?;
    let decision = Decision::read(&raw)?;
    show(context, &decision, &raw, false, out)?;
    Ok(if decision.success { Exit::Done } else { Exit::Failed })
}

pub(super) fn sentence(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get(..1).map(str::to_uppercase) {
        text.replace_range(..1, &first);
    }
    text + "."
}

/// What is seen, then what will be done and why.
fn explain(context: &Context, decision: &Decision, out: &mut dyn Write) -> std::io::Result<()> {
    // Broken at spaces for a person; a pipe gets each sentence as one line.
    let shown = |indent: usize, text: &str| match context.reading.is_person() {
        true => context.screen.hang(indent, text),
        false => clean(text),
    };
    for seen in &decision.seen {
        writeln!(out, "Seen: {}", shown(6, seen))?;
    }
    writeln!(out, "{}", shown(0, &sentence(&decision.message)))
}

pub(super) fn show(
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
    explain(context, decision, out)?;
    for refusal in &decision.refusals {
        writeln!(out, "  {}", clean(refusal))?;
    }
    if !decision.code.is_empty() {
        writeln!(out, "  Code: {}", decision.code)?;
    }
    if is_dry {
        writeln!(out, "Nothing was changed.")?;
    }
    Ok(())
}

async fn ask_daemon(
    context: &Context,
    asked: &Recover,
    is_dry: bool,
    shown: Option<&str>,
) -> Result<Value, ClientError> {
    let mut body = json!({"restoreDatabase": asked.restore_database, "dryRun": is_dry});
    if asked.carry_rows {
        body["carryRows"] = json!(true);
    }
    if asked.keep_new {
        body["keepNew"] = json!(true);
    }
    if let Some(shown) = shown {
        body["shown"] = json!(shown);
    }
    context.client.post("/upgrade/recover", &body, Ways::SocketOnly).await
}

/// Shows the job until it ends; none when the operator stopped watching.
async fn watch(
    context: &Context,
    after: i64,
    out: &mut dyn Write,
) -> Result<Option<(Job, Value)>, Problem> {
    let mut observer: Box<dyn follow::Observer + '_> = match context.reading {
        Reading::Person => Box::new(Display::new(context.screen)),
        Reading::Json => Box::new(Silent),
        Reading::Text => Box::new(Lines { out }),
    };
    let until = Until::LastEnded;
    match follow::follow_after(&context.client, until, after, observer.as_mut()).await? {
        Watched::Ended(ended) => Ok(Some((ended.job, ended.raw))),
        Watched::Interrupted => Ok(None),
    }
}

/// Shows nothing: a program reads one document at the end.
struct Silent;

impl follow::Observer for Silent {
    fn lines(&mut self, _: &str, _: &[LogLine]) -> std::io::Result<()> {
        Ok(())
    }

    fn state(&mut self, _: &Snapshot) -> std::io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
}

/// A driver of this process' own, under the daemon's lock.
pub(super) async fn own_driver(unreachable: ClientError) -> Result<Own, Problem> {
    let failed = |code: &'static str| {
        move |error: &dyn std::fmt::Display| Problem::stopped(Exit::Failed, code, error.to_string())
    };
    let (settings, _) = Settings::load().map_err(|error| {
        let message = format!("{unreachable}; nor can it be done without the daemon: {error}");
        Problem::stopped(Exit::Unreachable, "DAEMON_UNREACHABLE", message)
    })?;
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
    let consent = driver::Consent {
        restore_database: asked.restore_database,
        carry_rows: asked.carry_rows,
        keep_new: asked.keep_new,
    };
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
    async fn run(&self, context: &Context, out: &mut dyn Write) -> Result<(Job, Value), Problem> {
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
        Ok((answers::read("/upgrade/status", &raw)?, raw))
    }
}
