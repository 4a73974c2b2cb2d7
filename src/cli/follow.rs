//! Watching a job: status and log lines, polled until it ends. Called by `run` and `logs`.
//!
//! The watcher has no part in the upgrade: it may be interrupted at any time, and it bears a
//! daemon that restarts in mid-job.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};

use super::answers::{self, Job, LogAnswer, LogLine};
use super::client::{Client, ClientError};
use super::{Exit, Problem};

/// Between two looks.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// How long a daemon may be silent: systemd starts it again after 10 s, and a step in hand may
/// be finished before it ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A job at one moment, with the answer as it came.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub job: Job,
    pub raw: Value,
}

/// What shows a job to somebody.
pub(super) trait Observer {
    /// Further log lines of a job.
    fn lines(&mut self, job: &str, lines: &[LogLine]) -> io::Result<()>;
    /// The job as it is now; called at each look.
    fn state(&mut self, now: &Snapshot) -> io::Result<()>;
    /// Something about the watching itself.
    fn notice(&mut self, sentence: &str) -> io::Result<()>;
}

/// When the watching ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// This job has ended.
    Ended(String),
    /// This job has ended, which is never the last one: it has pages of its own.
    EndedApart(String),
    /// The job that is the last one at the first look has ended.
    LastEnded,
    /// Never; from one job to the next.
    Never,
}

/// How the watching ended.
#[derive(Debug)]
pub(super) enum Watched {
    /// The job came to rest, and every line of its log was shown.
    Ended(Box<Snapshot>),
    /// The operator pressed Ctrl-C.
    Interrupted,
}

/// Watches until told, showing everything to the observer.
pub(super) async fn follow(
    client: &Client,
    until: Until,
    observer: &mut dyn Observer,
) -> Result<Watched, Problem> {
    follow_after(client, until, 0, observer).await
}

/// The same, but for log lines up to this row.
pub(super) async fn follow_after(
    client: &Client,
    mut until: Until,
    mut after: i64,
    observer: &mut dyn Observer,
) -> Result<Watched, Problem> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ticks = tokio::time::interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_since: Option<Instant> = None;
    loop {
        let looked = tokio::select! {
            // First: before anything is shown Ctrl-C must be ours.
            biased;
            _ = interrupted.as_mut() => return Ok(Watched::Interrupted),
            looked = async { ticks.tick().await; look(client, after, &until).await } => looked,
        };
        let (now, log) = match looked {
            Ok(found) => found,
            Err(error) if error.may_be_a_restart() => {
                match silent_since {
                    None => {
                        silent_since = Some(Instant::now());
                        let seconds = PATIENCE.as_secs();
                        observer.notice(&format!(
                            "the daemon does not answer; an upgrade that runs goes on when it is back. Waiting up to {seconds} s ({error})"
                        ))?;
                    }
                    Some(since) if since.elapsed() >= PATIENCE => return Err(error.into()),
                    Some(_) => {}
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if silent_since.take().is_some() {
            observer.notice("the daemon answers again")?;
        }
        if until == Until::LastEnded {
            until = Until::Ended(now.job.job_id.clone());
        }
        if let Until::Ended(wanted) = &until
            && now.job.job_id != *wanted
        {
            return Err(replaced(wanted, &now.job.job_id));
        }
        let is_wanted = match &until {
            Until::Ended(wanted) | Until::EndedApart(wanted) => log.job_id == *wanted,
            Until::LastEnded | Until::Never => true,
        };
        if is_wanted && !log.lines.is_empty() {
            observer.lines(&log.job_id, &log.lines)?;
            // Rows are numbered through all jobs: what is after this is new in each of them.
            after = log.lines.iter().map(|line| line.seq).fold(after, i64::max);
        }
        observer.state(&now)?;
        if until != Until::Never && !now.job.is_active() {
            return Ok(Watched::Ended(Box::new(now)));
        }
    }
}

/// The status, and then the log: the log of a job that has ended is complete.
async fn look(
    client: &Client,
    after: i64,
    until: &Until,
) -> Result<(Snapshot, LogAnswer), ClientError> {
    if let Until::EndedApart(job) = until {
        let raw = client.get(&format!("/upgrade/jobs/{job}")).await?;
        let now = Snapshot { job: answers::read("/upgrade/jobs/{id}", &raw)?, raw };
        let path = format!("/upgrade/jobs/{job}/logs?format=json&after={after}");
        let raw = client.get(&path).await?;
        return Ok((now, answers::read("/upgrade/jobs/{id}/logs", &raw)?));
    }
    let now = status(client).await?;
    let raw = client.get(&format!("/upgrade/logs?format=json&after={after}")).await?;
    Ok((now, answers::read("/upgrade/logs", &raw)?))
}

/// The last job as it is now.
pub(super) async fn status(client: &Client) -> Result<Snapshot, ClientError> {
    let raw = client.get("/upgrade/status").await?;
    Ok(Snapshot { job: answers::read("/upgrade/status", &raw)?, raw })
}

fn replaced(wanted: &str, found: &str) -> Problem {
    let message = format!(
        "{wanted} is not the last job any more, {found} began after it; how it ended is in `payram-updater history`"
    );
    Problem::stopped(Exit::Failed, "JOB_REPLACED", message)
}
