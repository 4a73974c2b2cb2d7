//! Room for the copy, and for the server beside it.
//!
//! The copy lies on the file system that the database's server writes to. One that fills it up
//! ends the server: PostgreSQL stops when it can't write its log (manual, section "Disk Full
//! Failure"). So a pass over a live directory begins only where all of it fits, looks again while
//! it writes, and gives up while the server still has room.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{RestorePointError, io_at};
use super::survey::OVERHEAD_BYTES;
use super::tree::{Node, Shape, Tree};

/// What is left to a running server: two files of its log, 16 MiB each, as it recycles them.
const LEFT_TO_THE_SERVER: u64 = 32 << 20;

/// Bytes written between two looks at what is free.
const LOOK_EVERY_BYTES: u64 = 4 << 20;

/// The room on the copy's file system, while one pass writes.
pub(super) struct Room {
    copy: PathBuf,
    is_live: bool,
    unlooked: AtomicU64,
}

impl Room {
    /// Of a pass over a directory whose server runs, or was stopped.
    pub(super) fn of(copy: &Path, is_live: bool) -> Self {
        Self { copy: copy.to_owned(), is_live, unlooked: AtomicU64::new(0) }
    }

    /// That what the copy lacks of these files fits, and the server's room beside it.
    ///
    /// # Errors
    /// [`RestorePointError::NoRoom`] with what is needed and what is there.
    pub(super) fn must_hold(&self, nodes: &[Node], there: &Tree) -> Result<(), RestorePointError> {
        let mut need = LEFT_TO_THE_SERVER;
        for node in nodes.iter().filter(|node| node.shape == Shape::File) {
            need = need.saturating_add(match there.entry(&node.path)? {
                Some((Shape::File, copied)) => node.stamp.size.saturating_sub(copied.size),
                Some(_) | None => node.stamp.size.saturating_add(OVERHEAD_BYTES),
            });
        }
        self.must_have(need)
    }

    /// That there is still room for the server, now that so many further bytes are written.
    /// Where the server was stopped, the system itself says when the disk is full.
    ///
    /// # Errors
    /// [`RestorePointError::NoRoom`].
    pub(super) fn take(&self, bytes: u64) -> Result<(), RestorePointError> {
        if !self.is_live {
            return Ok(());
        }
        let unlooked = self.unlooked.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unlooked < LOOK_EVERY_BYTES {
            return Ok(());
        }
        self.unlooked.store(0, Ordering::Relaxed);
        self.must_have(LEFT_TO_THE_SERVER)
    }

    fn must_have(&self, need: u64) -> Result<(), RestorePointError> {
        let space = rustix::fs::statvfs(&self.copy).map_err(io_at("look at", &self.copy))?;
        let have = space.f_bavail.saturating_mul(space.f_frsize);
        if need <= have {
            return Ok(());
        }
        Err(RestorePointError::NoRoom { path: self.copy.clone(), need, have })
    }
}
