//! The names of the machine's states, as the journal, the API and the statechart write them.

use serde::{Deserialize, Serialize};

/// The name of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// See [`State::Planned`].
    Planned,
    /// See [`State::BackedUp`].
    BackedUp,
    /// See [`State::Pulled`].
    Pulled,
    /// See [`State::Swapped`].
    Swapped,
    /// See [`State::Verified`].
    Verified,
    /// See [`State::RollingBack`].
    RollingBack,
    /// See [`State::RolledBack`].
    RolledBack,
    /// See [`State::NeedsOperator`].
    NeedsOperator,
}

impl Phase {
    /// Every phase, in the order of the picture.
    pub const ALL: [Phase; 8] = [
        Phase::Planned,
        Phase::BackedUp,
        Phase::Pulled,
        Phase::Swapped,
        Phase::Verified,
        Phase::RollingBack,
        Phase::RolledBack,
        Phase::NeedsOperator,
    ];

    /// As the journal and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Planned => "PLANNED",
            Phase::BackedUp => "BACKED_UP",
            Phase::Pulled => "PULLED",
            Phase::Swapped => "SWAPPED",
            Phase::Verified => "VERIFIED",
            Phase::RollingBack => "ROLLING_BACK",
            Phase::RolledBack => "ROLLED_BACK",
            Phase::NeedsOperator => "NEEDS_OPERATOR",
        }
    }

    /// The state's id in the statechart.
    pub fn chart_id(self) -> &'static str {
        match self {
            Phase::Planned => "Planned",
            Phase::BackedUp => "BackedUp",
            Phase::Pulled => "Pulled",
            Phase::Swapped => "Swapped",
            Phase::Verified => "Verified",
            Phase::RollingBack => "RollingBack",
            Phase::RolledBack => "RolledBack",
            Phase::NeedsOperator => "NeedsOperator",
        }
    }

    /// Whether no event leads out of it.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Verified | Phase::RolledBack)
    }

    /// Whether the machine has come to rest: final, or waiting for a person.
    pub fn is_at_rest(self) -> bool {
        self.is_final() || self == Phase::NeedsOperator
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
