//! What the API calls a job's state: computed from the machine when asked, stored nowhere.

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::transition::Machine;

/// The job states of contract section 1 that a job can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// No job was ever run.
    Idle,
    /// Created and waiting, or finished well.
    Ready,
    /// Backup and its proof.
    BackingUp,
    /// Pull, create, cut over, going back.
    Executing,
    /// Running, health, version.
    Verifying,
    /// Ended badly.
    Failed,
}

impl JobState {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Idle => "IDLE",
            JobState::Ready => "READY",
            JobState::BackingUp => "BACKING_UP",
            JobState::Executing => "EXECUTING",
            JobState::Verifying => "VERIFYING",
            JobState::Failed => "FAILED",
        }
    }
}

impl Machine {
    /// The state of a job whose last hop this is. `has_begun`: an intent is journaled;
    /// `more_hops`: the route goes on after this one.
    pub fn job_state(&self, has_begun: bool, more_hops: bool) -> JobState {
        match self.phase() {
            Phase::Planned if !has_begun => JobState::Ready,
            Phase::Planned => JobState::BackingUp,
            Phase::BackedUp | Phase::Pulled | Phase::RollingBack => JobState::Executing,
            Phase::Swapped => JobState::Verifying,
            Phase::Verified if more_hops => JobState::Executing,
            Phase::Verified => JobState::Ready,
            Phase::RolledBack | Phase::NeedsOperator => JobState::Failed,
        }
    }
}
