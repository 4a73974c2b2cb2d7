//! `quiesce`: the application falls silent and the database is read after its last write. It is the
//! first part of the downtime, so whatever can be done before it or beside it is.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::app::supervisor;
use crate::clock::{self, Timestamp};
use crate::database::{self, Access, Runner};
use crate::driver::context::StepContext;
use crate::driver::effects::containers::occupies_database;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::{Copy, Fingerprint, Programs, Quiesced, Uptime};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Stopping the application's programs";

/// How long rows may be counted at the cut-over: it is downtime, so the large tables are left
/// to the server's own counters.
const CUT_OVER_BUDGET: Duration = Duration::from_millis(500);

/// Between two looks for the last answer while the programs are stopped.
const LAST_ANSWER_EVERY: Duration = Duration::from_millis(25);

/// When the application last answered, by both clocks.
struct LastAnswer {
    at_ms: Option<i64>,
    up: Option<Uptime>,
}

impl LastAnswer {
    fn now() -> Self {
        Self { at_ms: Some(Timestamp::now().millis()), up: clock::uptime() }
    }
}

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    programs: &Programs,
    copy: &Copy,
) -> Result<Fact, Trouble> {
    let container = cx.inspect_present(cx.old_id(), "old").await?;
    if !occupies_database(&container) {
        // It ended by itself between two steps; what it held can't be asked any more.
        let last_answer_ms = programs.last_answer_ms;
        return Ok(Fact::Quiesced(Box::new(Quiesced {
            programs: programs.clone(),
            fingerprint: None,
            last_answer_ms,
            last_answer_up: None,
            cluster: None,
            lock_file: cx.lock_file(),
        })));
    }
    if let Copy::Directory { source, .. } = copy {
        // A moment ago it was so, too; from here on a mistake costs downtime.
        let works = cx.works_nowhere_but_in(&container, Path::new(source)).await?;
        if let Err(unseen) = works {
            // Somebody stopped it, or it ended: its directory is there all the same, and what
            // serves on it in the end is compared with the copy.
            cx.say(&format!("the database's server is gone: {unseen}")).await;
        }
    }
    let target = cx.database()?;
    let runner = Runner::new(cx.engine, cx.old_id(), &target);
    cx.checkpoint(&runner).await;
    let (is_said_stopped, last) = ask_for_silence(cx, &container, programs).await?;
    let (fingerprint, identity) = tokio::join!(
        fingerprint_in_silence(cx, &runner, programs, is_said_stopped),
        database::identity(&runner, cx.ask_within()),
    );
    let fingerprint = fingerprint?;
    let cluster = match identity {
        Ok(identity) => Some(identity.cluster),
        Err(trouble) => {
            cx.say(&format!("which cluster is served was not noted: {trouble}")).await;
            None
        }
    };
    if let Copy::Dump { path, .. } = copy
        && target.access == Access::InContainer
    {
        // Its server ends with the container: now is the last moment (I6).
        cx.dump_restore_point(Path::new(path)).await?;
    }
    Ok(Fact::Quiesced(Box::new(Quiesced {
        programs: programs.clone(),
        fingerprint,
        last_answer_ms: last.at_ms,
        last_answer_up: last.up,
        cluster,
        lock_file: cx.lock_file(),
    })))
}

/// Asks that the programs stop, and watches for the application's last answer meanwhile.
/// Answers whether the supervisor named all as stopped.
async fn ask_for_silence(
    cx: &StepContext<'_>,
    container: &Value,
    programs: &Programs,
) -> Result<(bool, LastAnswer), Trouble> {
    let mut last = LastAnswer { at_ms: programs.last_answer_ms, up: None };
    if cx.answers(container).await {
        last = LastAnswer::now();
    }
    if programs.running.is_empty() {
        return Ok((false, last));
    }
    let watch = async {
        loop {
            if cx.answers(container).await {
                last = LastAnswer::now();
            }
            tokio::time::sleep(LAST_ANSWER_EVERY).await;
        }
    };
    let ask = async {
        let (engine, old) = (cx.engine, cx.old_id());
        supervisor::ask_to_stop(engine, old, &programs.running).await
    };
    let asked = tokio::select! {
        asked = ask => asked,
        () = watch => Ok(false),
    };
    Ok((asked?, last))
}

/// The database after the last write (I6), once it is certain that the programs are silent.
///
/// What the supervisor said of them is looked at while the database is read, not before, to
/// be down for less; where it does not hold, what was read counts for nothing.
async fn fingerprint_in_silence(
    cx: &StepContext<'_>,
    runner: &Runner<'_>,
    programs: &Programs,
    is_said_stopped: bool,
) -> Result<Option<Fingerprint>, Trouble> {
    let (engine, old) = (cx.engine, cx.old_id());
    let names = programs.running.as_slice();
    let mut read = None;
    if is_said_stopped {
        let (stopped, found) = tokio::join!(
            supervisor::are_stopped(engine, old, names),
            database::fingerprint(runner, CUT_OVER_BUDGET),
        );
        read = stopped?.then_some(found);
    }
    let read = match read {
        Some(read) => read,
        None => {
            if !names.is_empty() {
                supervisor::stop(engine, old, names).await?;
            }
            database::fingerprint(runner, CUT_OVER_BUDGET).await
        }
    };
    match read {
        Ok(fingerprint) => Ok(Some(fingerprint)),
        Err(failure) => {
            cx.say(&format!("the database was not fingerprinted: {failure}")).await;
            Ok(None)
        }
    }
}
