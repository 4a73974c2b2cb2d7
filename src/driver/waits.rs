//! When nothing goes on by itself: who must act, and how (contract section 1). Pure; what `status`,
//! `inspect` and every watcher say of a job that waits for a person comes from here.

use serde::Serialize;

use crate::journal::{JobRecord, RestoreRecord};
use crate::machine::Phase;

/// Who must act, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitsFor {
    /// `operator`: whoever may run the commands on the host.
    pub who: &'static str,
    /// Why nothing goes on.
    pub why: String,
    /// Commands, the first of them the one that goes on.
    pub how: Vec<String>,
}

/// What the one that should work on a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker<'a> {
    /// It works, or would.
    AtWork,
    /// It found the job unfinished at its start and waits for a word (`RESUME=manual`).
    Holds,
    /// It can't use its journal, for this reason.
    Blocked(&'a str),
    /// There is none: no daemon answers.
    Away,
}

const GO_ON: &str = "payram-updater recover";
const GO_BACK: &str = "payram-updater cancel";

/// What this job waits for; none when it goes on by itself or has come to its end.
pub fn waits_for(job: &JobRecord, worker: Worker<'_>) -> Option<WaitsFor> {
    let wait = |why: String, how: &[&str]| {
        let how = how.iter().map(|command| (*command).to_owned()).collect();
        Some(WaitsFor { who: "operator", why, how })
    };
    if !job.is_active() {
        let is_open = job.ending.as_ref().is_some_and(|ending| ending.failure_code.is_some());
        return match job.phase() {
            Phase::NeedsOperator if is_open => {
                wait("Stopped: it needs your decision".to_owned(), &[GO_ON])
            }
            Phase::NeedsOperator
            | Phase::Planned
            | Phase::BackedUp
            | Phase::Pulled
            | Phase::Swapped
            | Phase::Verified
            | Phase::RollingBack
            | Phase::RolledBack => None,
        };
    }
    match worker {
        Worker::AtWork => None,
        Worker::Holds => {
            let why = "Stopped after a restart, waiting for you (RESUME=manual)".to_owned();
            match may_turn(job.phase()) {
                true => wait(why, &[GO_ON, GO_BACK]),
                false => wait(why, &[GO_ON]),
            }
        }
        Worker::Blocked(reason) => {
            wait(format!("The journal can't be used: {reason}"), &["payram-updater inspect"])
        }
        Worker::Away => wait(
            "The daemon does not answer, and nothing goes on without it".to_owned(),
            &["systemctl start payram-updater", GO_ON],
        ),
    }
}

/// What a restore waits for: once the application is stopped its step is tried until it is known
/// what came of it, and whoever could mend that has to hear of it.
pub fn waits_of_restore(job: &RestoreRecord) -> Option<WaitsFor> {
    let failure = job.restore.hindered_by().filter(|_| job.is_active())?;
    let why = format!("The restore can't go on, and PayRam is stopped until it does: {failure}");
    Some(WaitsFor { who: "operator", why, how: vec!["payram-updater inspect".to_owned()] })
}

/// Whether an active job in this state can be made to go back; of a new version that was started
/// only as long as it does not answer.
pub fn may_turn(phase: Phase) -> bool {
    match phase {
        // Verified and active: between two hops.
        Phase::Planned | Phase::BackedUp | Phase::Pulled | Phase::Swapped | Phase::Verified => true,
        Phase::RollingBack | Phase::RolledBack | Phase::NeedsOperator => false,
    }
}

impl WaitsFor {
    /// `Stopped after a restart, waiting for you (RESUME=manual). Go on: sudo payram-updater
    /// recover. Go back: sudo payram-updater cancel`
    pub fn sentence(&self) -> String {
        let mut text = self.why.clone();
        for command in &self.how {
            match command.as_str() {
                GO_ON => text.push_str(&format!(". Go on: sudo {GO_ON}")),
                GO_BACK => text.push_str(&format!(". Go back: sudo {GO_BACK}")),
                other => text.push_str(&format!(". Then: sudo {other}")),
            }
        }
        text
    }
}
