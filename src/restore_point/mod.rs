//! The restore point: an exact copy of a stopped server's data directory, made mostly while the
//! server still runs, and put back by two renames (design section 2, I6, I7).
//!
//! The driver calls it, from threads that may block; it knows files and directories and nothing
//! else: no container, no database connection, no journal. In the order of an upgrade:
//!
//! 1. [`survey`]: what is there, and whether it can be copied faithfully at all.
//! 2. [`pre_copy`]: a first pass while the server writes. It may be run again, each time
//!    copying less; a copy that was interrupted anywhere is mended by the next pass.
//! 3. [`finish`]: the second pass, after the server was stopped: what differs, and no more.
//!    It ends with a manifest, without which a copy is not a restore point.
//! 4. [`verify`], [`restore`]: the way back. A copy is proved by its contents; owners, modes and
//!    times are put right. The failed directory is moved aside, never deleted. Or [`discard`],
//!    when the upgrade ended well.
//!
//! Files beside the database that a container can write to are no part of a restore point and of
//! its directory: [`keep`] and [`put_back`] copy them and bring them back one by one.
//!
//! Beside the copy `C` lie `C.state.jsonl` (what need not be read again), `C.manifest.json` and,
//! once a restore has begun, `C.restore.json`. The copy lies on the directory's own file system,
//! since nothing else can be put back by a rename, and where no container reaches it: [`place`].
//!
//! # When a file is not read again
//!
//! [`finish`] takes a file for unchanged, and its checksum from the first pass, only if its
//! size, inode, modification time *and* change time are those that were seen before it was
//! read, and the copy has the size and time that it was given. The change time can't be set by
//! a program, so it gives away whoever sets the modification time back. Two changes within one
//! tick of the clock have equal times, so a file counts as read only if it was at rest: its
//! times lay two seconds back when its reading began, and were the same when it ended.
//! `global/pg_control` is always read. What the host knew before it was rebooted counts for
//! nothing, since the page cache that was read is gone. Whatever does not count as read is read
//! whole and written where it differs: in pieces of 64 KiB, whose checksums the first pass
//! noted, so that the copy need not be read for it. So the second pass writes what changed, and
//! reads the files in which something changed; a file of PostgreSQL has 1 GiB at most. It syncs
//! what it wrote, file by file, where the pass before it ended with all of the copy on disk:
//! what the rest of the host writes is not waited for.
//!
//! Kept: contents, names, owners, modes, modification times, symbolic links, empty directories.
//! Not kept: hard links (each name becomes a file), extended attributes, holes.

mod bring;
mod cancel;
mod companions;
mod copy;
mod discard;
mod error;
mod ledger;
mod manifest;
mod pieces;
mod place;
mod restore;
mod room;
mod survey;
mod threads;
mod tree;

use std::path::{Path, PathBuf};

pub use cancel::{Cancel, CancelOnDrop};
pub use companions::{Companion, KeptFiles, PutBack, Size, Way, keep, put_back, size_of};
pub use copy::{FinishReport, PassReport, Strategy, finish, pre_copy};
pub use discard::{discard, kept_before};
pub use error::{Refusal, RestorePointError};
pub use manifest::{Finished, finished, first_difference, verify};
pub use place::{Place, copy_name, place, places};
pub use restore::{is_back, restore};
pub use survey::{Survey, survey};

/// What the name of every copy contains; nothing else is ever written to or removed as one.
const NAME_MARK: &str = ".payram-restore-";

/// Told how many bytes were read so far, before each operation on a file.
pub type OnProgress<'a> = dyn FnMut(u64) + Send + 'a;

/// What need not be read again.
fn ledger_path(copy: &Path) -> PathBuf {
    beside(copy, ".state.jsonl")
}

/// The same of the way back, where that is one by contents.
fn back_ledger_path(copy: &Path) -> PathBuf {
    beside(copy, ".back.jsonl")
}

/// What a finished copy holds.
fn manifest_path(copy: &Path) -> PathBuf {
    beside(copy, ".manifest.json")
}

/// That a restore was begun, and of what.
fn intent_path(copy: &Path) -> PathBuf {
    beside(copy, ".restore.json")
}

fn beside(copy: &Path, suffix: &str) -> PathBuf {
    let mut name = copy.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Refuses a path that no copy of ours can have.
fn must_be_ours(copy: &Path) -> Result<(), RestorePointError> {
    let ours = copy
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.split_once(NAME_MARK).is_some_and(|(_, id)| !id.is_empty()));
    if ours { Ok(()) } else { Err(RestorePointError::NotOurs { path: copy.to_owned() }) }
}
