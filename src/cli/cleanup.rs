//! `cleanup state` and `cleanup backups`: says what nobody needs any more and how much room that
//! gives, asks, and has it removed: by the daemon, or without one by this process under the same
//! lock.

use std::io::Write;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answers;
use super::args::CleanupAsked;
use super::ask::{self, Consent};
use super::client::{ClientError, Ways};
use super::recover::{self, Own, sentence};
use super::screen::{bytes, clean};
use super::{Context, Exit, Problem, Reading, document};
use crate::driver::{CleanupError, Rubbish};

/// Who removes it.
enum Hand {
    Daemon,
    Own(Box<Own>),
}

/// `POST /upgrade/cleanup`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cleaned {
    success: bool,
    message: String,
    files: Vec<Piece>,
    kept: Vec<String>,
    refusals: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Piece {
    path: PathBuf,
    bytes: u64,
    what: String,
}

/// `cleanup`
pub(super) async fn cleanup(
    context: &Context,
    what: Rubbish,
    keep: u32,
    asked: &CleanupAsked,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let (hand, raw) = match ask_daemon(context, what, keep, None, true).await {
        Ok(raw) => (Hand::Daemon, raw),
        Err(unreachable @ ClientError::Unreachable { .. }) => {
            let own = recover::own_driver(unreachable).await?;
            let raw = by_itself(&own, what, keep, None, true).await?;
            (Hand::Own(Box::new(own)), raw)
        }
        Err(error) => return Err(error.into()),
    };
    let plan: Cleaned = answers::read("/upgrade/cleanup", &raw)?;
    if asked.dry_run || plan.files.is_empty() {
        return show(context, &raw, &plan, true, out);
    }
    if !asked.yes {
        let consent = ask::for_yes(
            context,
            out,
            "\nThey are removed for good. Type yes to go on",
            ask::NOTHING_CHANGED,
            |out| explain(context, &plan, out),
        )?;
        if consent == Consent::Declined {
            return Ok(Exit::Failed);
        }
    }
    // Who consented has consented to these files and to no others.
    let shown: Vec<&PathBuf> = plan.files.iter().map(|piece| &piece.path).collect();
    let raw = match hand {
        Hand::Daemon => ask_daemon(context, what, keep, Some(&shown), false).await?,
        Hand::Own(own) => by_itself(&own, what, keep, Some(&shown), false).await?,
    };
    let done: Cleaned = answers::read("/upgrade/cleanup", &raw)?;
    show(context, &raw, &done, asked.yes, out)
}

fn show(
    context: &Context,
    raw: &Value,
    done: &Cleaned,
    is_news: bool,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    match context.reading {
        Reading::Json => document(out, raw)?,
        Reading::Person | Reading::Text if is_news => explain(context, done, out)?,
        Reading::Person | Reading::Text => writeln!(out, "{}", sentence(&done.message))?,
    }
    Ok(if done.success { Exit::Done } else { Exit::Failed })
}

fn explain(context: &Context, done: &Cleaned, out: &mut dyn Write) -> std::io::Result<()> {
    for piece in &done.files {
        let path = piece.path.display().to_string();
        writeln!(out, "{:>9}  {}", bytes(piece.bytes), clean(&path))?;
        writeln!(out, "{:>9}  {}", "", context.screen.hang(11, &piece.what))?;
    }
    for kept in done.kept.iter().chain(&done.refusals) {
        writeln!(out, "{}", context.screen.hang(0, &sentence(kept)))?;
    }
    writeln!(out, "{}", sentence(&done.message))
}

async fn ask_daemon(
    context: &Context,
    what: Rubbish,
    keep: u32,
    only: Option<&[&PathBuf]>,
    is_dry: bool,
) -> Result<Value, ClientError> {
    let mut body = json!({"what": what, "keep": keep, "dryRun": is_dry});
    if let Some(only) = only {
        body["only"] = json!(only);
    }
    context.client.post("/upgrade/cleanup", &body, Ways::SocketOnly).await
}

async fn by_itself(
    own: &Own,
    what: Rubbish,
    keep: u32,
    only: Option<&[&PathBuf]>,
    is_dry: bool,
) -> Result<Value, Problem> {
    let only: Option<Vec<PathBuf>> =
        only.map(|only| only.iter().map(|path| (*path).clone()).collect());
    let cleaned = own.driver.cleanup(what, keep as usize, only.as_deref(), is_dry).await;
    let cleaned = cleaned.map_err(|error| {
        let code = match &error {
            CleanupError::Active(_) => "CONCURRENCY_BLOCKED",
            CleanupError::Unseen(failure) => failure.code.as_str(),
            CleanupError::Journal(_) => "JOURNAL_ERROR",
        };
        Problem::stopped(Exit::Failed, code, error.to_string())
    })?;
    Ok(serde_json::to_value(&cleaned).unwrap_or_default())
}
