//! The upgrade as a state machine, and nothing else: no clock, no I/O, no randomness.
//!
//! One machine runs one *hop*, from the version that serves to the next on the route.
//! [`Machine::work`] says what to do next; [`Machine::apply`] says where its outcome leads.
//! The driver runs the two against the world, the journal folds them over what it recorded,
//! and tests search them exhaustively: the same functions, so that what was proved is what
//! runs. `statecharts/upgrade.scxml` is the specification; [`transition::TRANSITIONS`] is
//! compared with it, both ways.

mod assessed;
pub mod facts;
pub mod failure;
mod outcome;
mod phase;
mod projection;
mod rollback;
mod sequences;
mod state;
mod step;
pub mod transition;
mod work;

pub use assessed::Assessed;
pub use outcome::{Fact, Outcome};
pub use phase::Phase;
pub use projection::JobState;
pub use rollback::{Begun, Consent, NeedsOperator, RolledBack, RollingBack};
pub use sequences::{Sequence, SequenceMove};
pub use state::{BackedUp, CutOver, Hop, Kept, Known, Planned, Pulled, State, Swapped, Verified};
pub use step::Step;
pub use transition::{Event, Forbidden, Machine, Transition};
pub use work::{Assess, AssessAgain, Restore, RestoreFiles, Work};
