//! The table of transitions: the events, and which state each of them leads to.
//!
//! Every transition that the machine makes is a row of it, and the statechart is compared with it,
//! both ways. It says what may follow; what does follow is the machine's decision. Read by the
//! machine, the journal and whoever draws the statechart.

use serde::{Deserialize, Serialize};

use crate::machine::phase::Phase;

/// What moves a machine from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The backup is made and proved.
    BackedUp,
    /// The image is here and the next container stands ready.
    Pulled,
    /// The next container was started in the old one's place.
    Swapped,
    /// The new version serves.
    Verified,
    /// A step can't be done.
    Failed,
    /// A step's outcome stayed unknown.
    TimedOut,
    /// The operator called it off.
    Cancelled,
    /// The old version serves, as before.
    RolledBack,
    /// No rule covers what was found.
    NeedsDecision,
    /// The operator asks to go on with the way back.
    Recover,
    /// The operator consents to the restore point's return, whatever rows it forgets.
    RecoverRestoring,
    /// The same, of the rows that were shown and no others.
    RecoverRestoringShown,
    /// The restore point's return, whatever rows it forgets, and what the failed version inserted
    /// is carried over into it.
    RecoverCarrying,
    /// The same, of the rows that were shown and no others.
    RecoverCarryingShown,
    /// The operator goes on with the new version, on the database as it is.
    RecoverKeeping,
}

impl Event {
    /// What a person may say out of [`Phase::NeedsOperator`].
    pub const RECOVERIES: [Event; 6] = [
        Event::Recover,
        Event::RecoverRestoring,
        Event::RecoverRestoringShown,
        Event::RecoverCarrying,
        Event::RecoverCarryingShown,
        Event::RecoverKeeping,
    ];

    /// As the statechart and the journal write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::BackedUp => "backed_up",
            Event::Pulled => "pulled",
            Event::Swapped => "swapped",
            Event::Verified => "verified",
            Event::Failed => "failed",
            Event::TimedOut => "timed_out",
            Event::Cancelled => "cancelled",
            Event::RolledBack => "rolled_back",
            Event::NeedsDecision => "needs_decision",
            Event::Recover => "recover",
            Event::RecoverRestoring => "recover_restoring",
            Event::RecoverRestoringShown => "recover_restoring_shown",
            Event::RecoverCarrying => "recover_carrying",
            Event::RecoverCarryingShown => "recover_carrying_shown",
            Event::RecoverKeeping => "recover_keeping",
        }
    }

    /// Whether the rows that the failed version inserted are carried over.
    pub fn carries_rows(self) -> bool {
        matches!(self, Event::RecoverCarrying | Event::RecoverCarryingShown)
    }

    /// Whether it is a person's word out of [`Phase::NeedsOperator`].
    pub fn is_recovery(self) -> bool {
        Event::RECOVERIES.contains(&self)
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Transition {
    /// The state left.
    pub from: Phase,
    /// Why it is left.
    pub event: Event,
    /// The state entered.
    pub to: Phase,
}

pub(super) const fn row(from: Phase, event: Event, to: Phase) -> Transition {
    Transition { from, event, to }
}

/// Every transition there is. The statechart is compared with it, and the journal is read
/// against it.
pub const TRANSITIONS: &[Transition] = &[
    row(Phase::Planned, Event::BackedUp, Phase::BackedUp),
    row(Phase::Planned, Event::Failed, Phase::RollingBack),
    row(Phase::Planned, Event::TimedOut, Phase::RollingBack),
    row(Phase::Planned, Event::Cancelled, Phase::RollingBack),
    row(Phase::BackedUp, Event::Pulled, Phase::Pulled),
    row(Phase::BackedUp, Event::Failed, Phase::RollingBack),
    row(Phase::BackedUp, Event::TimedOut, Phase::RollingBack),
    row(Phase::BackedUp, Event::Cancelled, Phase::RollingBack),
    row(Phase::Pulled, Event::Swapped, Phase::Swapped),
    row(Phase::Pulled, Event::Failed, Phase::RollingBack),
    row(Phase::Pulled, Event::TimedOut, Phase::RollingBack),
    row(Phase::Pulled, Event::Cancelled, Phase::RollingBack),
    row(Phase::Swapped, Event::Verified, Phase::Verified),
    row(Phase::Swapped, Event::Failed, Phase::RollingBack),
    row(Phase::Swapped, Event::TimedOut, Phase::RollingBack),
    row(Phase::Swapped, Event::Cancelled, Phase::RollingBack),
    row(Phase::Swapped, Event::NeedsDecision, Phase::NeedsOperator),
    row(Phase::RollingBack, Event::RolledBack, Phase::RolledBack),
    row(Phase::RollingBack, Event::NeedsDecision, Phase::NeedsOperator),
    row(Phase::NeedsOperator, Event::Recover, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverRestoring, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverRestoringShown, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverCarrying, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverCarryingShown, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverKeeping, Phase::Swapped),
];
