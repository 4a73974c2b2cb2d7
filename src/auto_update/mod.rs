//! Auto-update: an upgrade to `latest` that the operator asked for once and for all.
//!
//! Off unless `payram-updater init` turned it on ([`stored`]). [`task`] wakes every few seconds and
//! has [`decide`] say, without I/O, whether a look is due; [`window`] says at which hours it may
//! be. A look is a plan in dashboard mode, as the policy allows it and no further. When the last
//! look was, what was decided and why is in the journal, so that neither a restart nor a reboot
//! brings the next one forward; [`view`] shows it.

pub mod decide;
pub mod stored;
mod task;
pub mod view;

pub use task::AutoUpdate;

/// The type of its events in the history.
pub const AUTO_UPDATE: &str = "auto_update";

/// A look is due and waits for something.
pub const WAITING: &str = "waiting";

/// A look began an upgrade.
pub const STARTED: &str = "started";

/// A look found nothing to do.
pub const SUCCEEDED: &str = "succeeded";

/// A look found something newer that may or can not be gone to by itself, or could not be made.
pub const FAILED: &str = "failed";
