//! Why there is no restore point, or why it is not put back.

use std::io;
use std::path::{Path, PathBuf};

/// What kept a copy from being made, checked, put back or removed.
#[derive(Debug, thiserror::Error)]
pub enum RestorePointError {
    /// The system refused an operation.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// `read`, `create directory`, …
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system can't hold the copy and leave the database's server its room.
    #[error(
        "copy the database to {}: need {need} bytes, what the database's server is left with included, have {have}, short by {}",
        path.display(), need.saturating_sub(*have)
    )]
    NoRoom {
        /// The copy.
        path: PathBuf,
        /// Bytes.
        need: u64,
        /// Bytes that are free.
        have: u64,
    },
    /// It can't be copied faithfully, or not be put back by a rename.
    #[error("{} can't be copied: {refusal}", path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// The caller asked to stop.
    #[error("the copy was stopped on request")]
    Cancelled,
    /// The source changed although its server was said to be stopped (I6).
    #[error("{} changed while it was copied ({what}): something still writes to it", path.display())]
    Moving {
        /// What changed.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// The copy is not what its manifest says.
    #[error("{} is not what the manifest of the restore point says: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// The copy has no manifest.
    #[error("{} is no restore point: it has no manifest, so it was never finished", path.display())]
    NotFinished {
        /// The copy.
        path: PathBuf,
    },
    /// A restore finds the directories in no arrangement that it left behind (I11).
    #[error("put {} back: {found}; nothing was changed", copy.display())]
    Unexpected {
        /// The copy.
        copy: PathBuf,
        /// What is there.
        found: String,
    },
    /// The path is none that a copy can have.
    #[error("{} is left alone: a copy has {:?} in its name", path.display(), super::NAME_MARK)]
    NotOurs {
        /// The path.
        path: PathBuf,
    },
}

/// What can't be copied faithfully.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no `PG_VERSION` in it.
    #[error("it is no PostgreSQL data directory: its PG_VERSION says {found}")]
    NotADataDirectory {
        /// What stands in its place.
        found: String,
    },
    /// It is a mount point, or below one of this program's own, and can't be renamed.
    #[error(
        "it is a mount point, which no rename can put back; mount the directory above it (in the systemd unit: ReadWritePaths= names the directory above it)"
    )]
    MountPoint,
    /// Something else is mounted inside.
    #[error("another file system is mounted there")]
    OtherFileSystem,
    /// The copy would lie on another file system.
    #[error("the copy would lie on another file system ({}), from which no rename can put it back", directory.display())]
    CopyElsewhere {
        /// The directory that the copy would lie in.
        directory: PathBuf,
    },
    /// The copy would lie in what is copied.
    #[error("the copy would lie inside of it")]
    CopyInside,
    /// A tablespace.
    #[error("a tablespace, kept elsewhere in {target}")]
    Tablespace {
        /// Where it points.
        target: String,
    },
    /// `pg_wal` is a symbolic link.
    #[error("the write-ahead log is kept elsewhere in {target}")]
    WalElsewhere {
        /// Where it points.
        target: String,
    },
    /// Another part of the database is a symbolic link out of the directory.
    #[error("a part of the database is kept elsewhere in {target}")]
    PartElsewhere {
        /// Where it points.
        target: String,
    },
    /// A device or a pipe.
    #[error("it is a {kind}")]
    Special {
        /// What it is.
        kind: &'static str,
    },
    /// PostgreSQL makes no such name, and the manifest could not hold it.
    #[error("its name, or where it points, is not UTF-8")]
    NotUtf8,
    /// It would take the room that others need.
    #[error("it has {bytes} bytes, more than there is room for beside the journal")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// A restore was begun from this copy.
    #[error("a restore from it was begun")]
    Restoring,
}

impl RestorePointError {
    /// Whether the disk was full, or the quota used up.
    pub fn is_disk_full(&self) -> bool {
        match self {
            RestorePointError::NoRoom { .. } => true,
            RestorePointError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            RestorePointError::Refused { .. }
            | RestorePointError::Cancelled
            | RestorePointError::Moving { .. }
            | RestorePointError::Damaged { .. }
            | RestorePointError::NotFinished { .. }
            | RestorePointError::Unexpected { .. }
            | RestorePointError::NotOurs { .. } => false,
        }
    }

    pub(super) fn refused(path: impl Into<PathBuf>, refusal: Refusal) -> Self {
        RestorePointError::Refused { path: path.into(), refusal }
    }
}

/// What was done to what, for an error of the system.
pub(super) fn io_at<E: Into<io::Error>>(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> RestorePointError {
    move |source| RestorePointError::Io { doing, path: path.to_owned(), source: source.into() }
}
