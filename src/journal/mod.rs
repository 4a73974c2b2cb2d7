//! The journal: what was meant, what came of it, and where it led, durable before the next
//! effect begins (I3).
//!
//! [`Journal`] is the one writer, owned by the driver under its lock; [`Reader`] opens the
//! same file read-only and answers everything that is ever asked: status, logs, history,
//! `inspect`, verification. There is no second store. The tables are append-only by trigger
//! and chained by hash (`chain`); a schema newer than this program is refused (I12). A daemon's
//! [`ChainWatch`] walks the chain aside from everything else.
//!
//! Durability: WAL with `synchronous=FULL` syncs the log at each commit, so a commit that
//! returned survives a power cut (<https://www.sqlite.org/pragma.html#pragma_synchronous>).

mod chain;
mod events;
mod exports;
mod fold;
mod good;
mod pool;
mod quarantine;
mod query;
mod record;
mod rehearsals;
mod restores;
mod schema;
mod walk;
mod write;

pub use chain::{Broken, Verified};
pub use events::{EventTally, Tallied};
pub use exports::{DISMISSED, ExportRows, ROWS};
pub use fold::{HopRecord, JobRecord};
pub use good::{GoodRows, Recorded, VerdictRows};
pub(crate) use pool::MOST_CONNECTIONS;
pub use quarantine::{CLEARED, QUARANTINE, Quarantined, Release, Released};
pub use query::{HistoryFilter, Line, Reader};
pub use record::{
    Ending, HistoryEvent, HopTarget, JobBody, JobId, Mode, NewEvent, Row, RowKind, Seq, Task,
};
pub use rehearsals::{RehearsalRecord, RehearsalSettlement};
pub use restores::{LastJob, RestoreRecord, RestoreSettlement};
pub use walk::{ChainState, ChainWatch};
pub use write::{Journal, Settlement};

use std::path::PathBuf;

use crate::machine::{Forbidden, Step};

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite refused or the disk did.
    #[error("{doing} in journal {}: {source}", path.display())]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file can't be created or opened.
    #[error("journal {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Written by a newer program (I12).
    #[error(
        "journal {} has schema {found}, this payram-updater knows up to {known}: a newer version wrote it; install that version again",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// `PRAGMA user_version` found.
        found: u32,
        /// The newest schema this program knows.
        known: u32,
    },
    /// An upgrade is under way already (I8).
    #[error("job {job} is active")]
    AlreadyActive {
        /// Which one.
        job: JobId,
    },
    /// A row does not hold what its kind promises.
    #[error("journal {} row {seq}: {reason}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which row.
        seq: i64,
        /// What was expected and found.
        reason: String,
    },
    /// What came of a step fits nowhere in its machine, so that it can't be journaled.
    #[error(
        "what came of {step} can't be journaled: {source}; nothing is done until the updater is another one"
    )]
    Unsettled {
        /// The step.
        step: Step,
        /// What the machine said.
        source: Forbidden,
    },
    /// The rows claim something that the machine forbids.
    #[error("journal {} row {seq}: {source}", path.display())]
    Forbidden {
        /// Which file.
        path: PathBuf,
        /// Which row.
        seq: i64,
        /// What the machine said.
        source: Forbidden,
    },
}
