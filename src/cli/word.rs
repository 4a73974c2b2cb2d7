//! `recover --clear-quarantine VERSION` and `recover --dismiss-rows JOB`: an operator's word that is
//! journaled and changes nothing else. Says what it is about, asks, and has it journaled: by the
//! daemon over its socket, or without one by this process under the same lock. Exit 1 when there is
//! no such version or upgrade.

use std::io::Write;

use serde_json::{Value, json};

use super::answers;
use super::ask::{self, Consent};
use super::client::{ClientError, Ways};
use super::recover::{self, Decision, Own};
use super::{Context, Exit, Problem, Reading};

/// Who journals it.
enum Hand {
    Daemon,
    Own(Box<Own>),
}

/// What an operator says.
#[derive(Clone, Copy)]
pub(super) enum Word<'a> {
    /// This version may be offered again.
    ClearQuarantine(&'a str),
    /// The rows of this upgrade that were set aside are dealt with.
    DismissRows(&'a str),
}

/// Has it journaled.
pub(super) async fn say(
    context: &Context,
    word: Word<'_>,
    is_dry: bool,
    is_agreed: bool,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let (hand, raw) = match ask_daemon(context, word, true).await {
        Ok(raw) => (Hand::Daemon, raw),
        Err(unreachable @ ClientError::Unreachable { .. }) => {
            let own = recover::own_driver(unreachable).await?;
            let raw = decide(&own, word, true).await?;
            (Hand::Own(Box::new(own)), raw)
        }
        Err(error) => return Err(error.into()),
    };
    let decision: Decision = answers::read("/upgrade/recover", &raw)?;
    if is_dry || !decision.changes_something() {
        recover::show(context, &decision, &raw, is_dry, out)?;
        return Ok(if decision.success { Exit::Done } else { Exit::Failed });
    }
    if !is_agreed {
        let consent = ask::on_terminal(context, out, "\nDo it?", ask::NOTHING_CHANGED, |out| {
            writeln!(out, "{}", recover::sentence(&decision.message))
        })?;
        if consent == Consent::Declined {
            return Ok(Exit::Failed);
        }
    }
    let raw = match hand {
        Hand::Daemon => ask_daemon(context, word, false).await?,
        Hand::Own(own) => decide(&own, word, false).await?,
    };
    let done: Decision = answers::read("/upgrade/recover", &raw)?;
    if is_agreed || context.reading == Reading::Json {
        recover::show(context, &done, &raw, false, out)?;
    } else {
        writeln!(out, "Done.")?;
    }
    Ok(if done.success { Exit::Done } else { Exit::Failed })
}

async fn ask_daemon(context: &Context, word: Word<'_>, is_dry: bool) -> Result<Value, ClientError> {
    let body = match word {
        Word::ClearQuarantine(version) => json!({"clearQuarantine": version, "dryRun": is_dry}),
        Word::DismissRows(job) => json!({"dismissRows": job, "dryRun": is_dry}),
    };
    context.client.post("/upgrade/recover", &body, Ways::SocketOnly).await
}

async fn decide(own: &Own, word: Word<'_>, is_dry: bool) -> Result<Value, Problem> {
    let decision = match word {
        Word::ClearQuarantine(version) => own.driver.clear_quarantine(version, is_dry).await,
        Word::DismissRows(job) => own.driver.dismiss_rows(job, is_dry).await,
    };
    let decision = decision
        .map_err(|error| Problem::stopped(Exit::Failed, "RECOVERY_FAILED", error.to_string()))?;
    Ok(serde_json::to_value(&decision).unwrap_or_default())
}
