//! Whether a pooler hands a connection to the next client as the last one left it.
//!
//! What a session sets for itself (a search path, read-only, a time limit) stays in the server's
//! connection until it is reset, and a pooler that gives connections out by the transaction resets
//! nothing (pgbouncer's manual, `pool_mode` and `server_reset_query_always`): what backups and
//! readings set would then be in force for the application, which could write no payment any more.
//! So through such a pooler nothing is asked at all.
//!
//! Called by [`super::Runner`] before the first program that it runs against a database outside of
//! the container. What it asks itself sets nothing but a name that no other program knows.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::locate::Database;
use super::runner::{Run, Runner, unique};
use super::tool::{Tool, ToolError};

/// How often two sessions one after the other are compared: the application may have taken the
/// connection in between.
const ROUNDS: u32 = 4;

/// How long one session may take.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of an answer.
const LARGEST_ANSWER: usize = 4096;

/// How long what was found is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(600);

/// By address, port and name: when it was looked at, and whether connections are mixed.
type Verdicts = HashMap<(String, u16, String), (Instant, bool)>;

/// A look costs some sessions, of which the cut-over has no time for.
static VERDICTS: LazyLock<Mutex<Verdicts>> = LazyLock::new(Mutex::default);

/// Refuses where what we would set would be in force for the application.
pub(super) async fn must_keep_sessions_apart(runner: &Runner<'_>) -> Result<(), ToolError> {
    let database = runner.database();
    let key = (database.host.clone(), database.port, database.name.clone());
    let known = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
    let mixes = match known.filter(|(at, _)| at.elapsed() < BELIEVED_FOR) {
        Some((_, mixes)) => mixes,
        None => {
            let mixes = mixes_sessions(runner).await?;
            let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
            verdicts.insert(key, (Instant::now(), mixes));
            mixes
        }
    };
    match mixes {
        true => Err(ToolError::Pooled(sentence(database))),
        false => Ok(()),
    }
}

fn sentence(database: &Database) -> String {
    format!(
        "{}:{} is a pooler that hands a server's connection to the next client as the last one left it (pgbouncer: pool_mode = transaction or statement): what a backup sets for itself, a search path or read-only, would be in force for the application. Nothing was asked through it. Give the application the address of the server itself, or of a pool whose pool_mode is session (POSTGRES_HOST, POSTGRES_PORT)",
        database.host, database.port
    )
}

/// One session marks its connection; the next one looks whether it was given the same, marked.
async fn mixes_sessions(runner: &Runner<'_>) -> Result<bool, ToolError> {
    for _ in 0..ROUNDS {
        let mark = unique("m");
        let set = format!("set payram_updater.mark = '{mark}'");
        let whose = "select pg_catalog.pg_backend_pid(), \
            extract(epoch from pg_catalog.clock_timestamp())";
        let first = session(runner, &[&set, whose]).await?;
        let Some((pid, at)) = first.trim().split_once('|') else { return Ok(false) };
        if pid.parse::<u32>().is_err() || at.parse::<f64>().is_err() {
            return Ok(false);
        }
        let look = format!(
            "select pid = {pid}, backend_start < pg_catalog.to_timestamp({at}), \
               coalesce(pg_catalog.current_setting('payram_updater.mark', true), '') <> '' \
             from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid()"
        );
        let second = session(runner, &[&look]).await?;
        match second.trim() {
            // Whatever connection it is: somebody's mark was left in it.
            found if found.ends_with("|t") => return Ok(true),
            // The same one, cleaned.
            "t|t|f" => return Ok(false),
            // A new one each time, or one that another client had meanwhile.
            _ => {}
        }
    }
    Ok(false)
}

async fn session(runner: &Runner<'_>, statements: &[&str]) -> Result<String, ToolError> {
    let mut arguments: Vec<String> =
        ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"].map(String::from).into();
    for statement in statements {
        arguments.extend(["-c".to_owned(), (*statement).to_owned()]);
    }
    let run = Run {
        tool: Tool::Psql,
        arguments,
        database: None,
        application: "payram-updater",
        stdin: false,
        timeout: LOOK_WITHIN,
        programs: None,
    };
    let answer = runner.start_at_once(run).await?.collect(LARGEST_ANSWER).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
