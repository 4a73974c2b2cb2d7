//! What the journal means: what follows from its rows for a decision that is made now.
//!
//! The journal itself knows no verdicts; it gives the rows. Here they are read, by pure
//! functions, and nowhere else: `inspect`, `recover` and `sync` must not come to different
//! answers. Imports `journal` and `machine` alone.

mod last_good;
mod set_aside;

pub use last_good::{By, LastGood, last_good, read_last_good};
pub use set_aside::{SetAside, read_set_aside, set_aside};

/// What the journal's events are called; the API and the commands take no other word.
pub const TYPES: [&str; 15] = [
    "upgrade",
    "backup",
    "backup_copy",
    "restore",
    "rollback",
    "recovery",
    "sync",
    "quarantine",
    "rows",
    "auto_update",
    "cleanup",
    "notification",
    "probation",
    "rehearsal",
    // Not written yet, and known to clients already.
    "undo",
];

/// How they ended.
pub const STATUSES: [&str; 8] = [
    "started",
    "succeeded",
    "failed",
    "validated",
    "rolled_back",
    "cleared",
    "dismissed",
    "waiting",
];
