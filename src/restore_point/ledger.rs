//! What was read into the copy: a line for each file, with the checksums of its pieces, and
//! whether it was at rest, so that it need not be read again.
//!
//! Only hints are kept here, and only true ones: a file without a line is read once more, and
//! compared with the copy's. So the file is appended to without a sync, a torn line is skipped,
//! and the lines from before a reboot are skipped with it: what a page cache held that is gone
//! was not on the source's disk for certain, and may not be on the copy's either. Before a file
//! of the copy is written to, a line says that what was known of it is void.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::{RestorePointError, io_at};
use super::pieces::Pieces;
use super::tree::Stamp;

/// How far back a file's last change must lie when its reading begins, in nanoseconds: the
/// coarsest clock of a file system that PostgreSQL may lie on has a tick of two seconds (FAT).
const AT_REST_FOR_NS: i64 = 2_000_000_000;

/// How far the file system's clock may be from ours before no file counts as at rest.
const CLOCKS_AGREE_WITHIN_NS: i64 = 1_000_000_000;

/// A file as it was when it was read, and what the copy has of it since.
#[derive(Clone, Debug)]
pub(super) struct Record {
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    ino: u64,
    is_at_rest: bool,
    pub pieces: Pieces,
}

impl Record {
    /// Whether the source's file is still what was read.
    pub(super) fn describes(&self, source: &Stamp) -> bool {
        self.is_at_rest
            && (self.size, self.mtime_ns, self.ctime_ns, self.ino)
                == (source.size, source.mtime_ns, source.ctime_ns, source.ino)
    }

    /// Whether the copy's file has what was read.
    pub(super) fn is_held_by(&self, copy: &Stamp) -> bool {
        (self.size, self.mtime_ns) == (copy.size, copy.mtime_ns)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    #[serde(rename_all = "camelCase")]
    File {
        path: String,
        size: u64,
        mtime_ns: i64,
        ctime_ns: i64,
        ino: u64,
        is_at_rest: bool,
        /// Hex.
        pieces: String,
    },
    /// What was known of this file is void.
    Void { void: String },
    /// All that was written to the copy before this line is on disk.
    Synced { synced: bool },
    /// The lines after it are of a pass under this boot of the host. The last: its field may be
    /// missing, so it takes whatever is none of the others.
    Pass { boot: Option<String> },
}

/// What earlier passes of this boot left.
#[derive(Default)]
pub(super) struct Known {
    /// What they read, by path.
    pub records: HashMap<String, Record>,
    /// Whether all that they wrote is on disk.
    pub is_synced: bool,
}

/// The open file, for one pass.
pub(super) struct Ledger {
    file: Mutex<File>,
    path: PathBuf,
    clocks_agree: bool,
}

impl Ledger {
    /// Opens it, creating it when missing, and reads what earlier passes of this boot wrote.
    pub(super) fn open(path: &Path) -> Result<(Self, Known), RestorePointError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .map_err(io_at("open", path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io_at("read", path))?;
        let boot = boot_id();
        let known = boot.as_deref().map(|boot| known(&text, boot)).unwrap_or_default();
        file.seek(SeekFrom::End(0)).map_err(io_at("seek in", path))?;
        let mut head = if text.last().is_some_and(|last| *last != b'\n') {
            // A pass that was killed left half a line.
            "\n".to_owned()
        } else {
            String::new()
        };
        head.push_str(&line(&Line::Pass { boot })?);
        file.write_all(head.as_bytes()).map_err(io_at("write", path))?;
        let (stamp, _) = Stamp::of_open(&file).map_err(io_at("look at", path))?;
        let apart = now_ns().saturating_sub(stamp.mtime_ns).saturating_abs();
        let clocks_agree = apart <= CLOCKS_AGREE_WITHIN_NS;
        Ok((Self { file: Mutex::new(file), path: path.to_owned(), clocks_agree }, known))
    }

    /// Notes a file that was read into the copy: `before` and `after` are what it was when the
    /// reading began, at `began_ns`, and when it ended.
    pub(super) fn note(
        &self,
        path: &str,
        began_ns: i64,
        before: &Stamp,
        after: &Stamp,
        pieces: &Pieces,
    ) -> Result<(), RestorePointError> {
        self.append(&Line::File {
            path: path.to_owned(),
            size: before.size,
            mtime_ns: before.mtime_ns,
            ctime_ns: before.ctime_ns,
            ino: before.ino,
            is_at_rest: self.clocks_agree && was_at_rest(began_ns, before, after),
            pieces: pieces.to_hex(),
        })
    }

    /// Notes that a file of the copy is about to be written to.
    pub(super) fn void(&self, path: &str) -> Result<(), RestorePointError> {
        self.append(&Line::Void { void: path.to_owned() })
    }

    /// Notes that all of the copy is on disk; the pass is over.
    pub(super) fn synced(&self) -> Result<(), RestorePointError> {
        self.append(&Line::Synced { synced: true })
    }

    fn append(&self, text: &Line) -> Result<(), RestorePointError> {
        let text = line(text)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(io_at("write", &self.path))
    }
}

/// Nanoseconds since the epoch, by this host's clock.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn was_at_rest(began_ns: i64, before: &Stamp, after: &Stamp) -> bool {
    let last_change = before.mtime_ns.max(before.ctime_ns);
    before == after && last_change.saturating_add(AT_REST_FOR_NS) <= began_ns
}

fn line(line: &Line) -> Result<String, RestorePointError> {
    let mut text = serde_json::to_string(line)
        .map_err(|error| io_at("write a line for", Path::new("the ledger"))(error))?;
    text.push('\n');
    Ok(text)
}

/// The last line about each file, of those that passes under this boot wrote.
fn known(text: &[u8], boot: &str) -> Known {
    let mut known = Known::default();
    let mut is_ours = false;
    for text in text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
        let line = serde_json::from_slice(text);
        // A pass that was begun may have changed the copy before its first line about a file.
        known.is_synced = is_ours && matches!(line, Ok(Line::Synced { synced: true }));
        match line {
            Ok(Line::File { path, size, mtime_ns, ctime_ns, ino, is_at_rest, pieces })
                if is_ours =>
            {
                if let Some(pieces) = Pieces::from_hex(&pieces) {
                    let record = Record { size, mtime_ns, ctime_ns, ino, is_at_rest, pieces };
                    known.records.insert(path, record);
                }
            }
            Ok(Line::File { .. } | Line::Synced { .. }) => {}
            Ok(Line::Void { void }) => {
                known.records.remove(&void);
            }
            Ok(Line::Pass { boot: Some(of) }) => is_ours = of == boot,
            Ok(Line::Pass { boot: None }) => is_ours = false,
            // Torn: its file is read once more.
            Err(_) => {}
        }
    }
    known
}

/// Which boot of the host this is; none where the system does not say, and then no pass trusts
/// an earlier one.
fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(mtime_ns: i64, ctime_ns: i64) -> Stamp {
        Stamp { size: 1, mode: 0, uid: 0, gid: 0, mtime_ns, ctime_ns, ino: 1, links: 1 }
    }

    #[test]
    fn a_file_is_at_rest_when_its_last_change_lies_two_seconds_before_its_reading() {
        let second = 1_000_000_000;
        let quiet = stamp(5 * second, 5 * second);
        assert!(was_at_rest(7 * second, &quiet, &quiet));
        assert!(!was_at_rest(7 * second - 1, &quiet, &quiet));
        let touched = stamp(0, 6 * second);
        assert!(!was_at_rest(7 * second, &touched, &touched), "its time was set back");
        assert!(!was_at_rest(9 * second, &quiet, &stamp(8 * second, 8 * second)));
        let future = stamp(99 * second, 5 * second);
        assert!(!was_at_rest(9 * second, &future, &future), "the clock was set back");
    }

    #[test]
    fn only_whole_lines_of_this_boot_count() {
        let file = |path: &str, size: u64| {
            let path = path.to_owned();
            let (mtime_ns, ctime_ns, ino, is_at_rest) = (1, 1, 1, true);
            let pieces = String::new();
            line(&Line::File { path, size, mtime_ns, ctime_ns, ino, is_at_rest, pieces }).unwrap()
        };
        let pass = |boot: &str| line(&Line::Pass { boot: Some(boot.into()) }).unwrap();
        let text = [pass("a"), file("old", 1), pass("b"), file("x", 1), file("x", 2)].concat();
        let whole = known(text.as_bytes(), "b").records;
        assert_eq!(whole.len(), 1);
        assert_eq!(whole["x"].size, 2);
        for length in 0..text.len() {
            let torn = known(&text.as_bytes()[..length], "b").records;
            assert!(torn.keys().all(|path| path == "x"), "torn at {length}");
        }
        assert!(known(text.as_bytes(), "c").records.is_empty());
        let void = text + &line(&Line::Void { void: "x".into() }).unwrap();
        assert!(known(void.as_bytes(), "b").records.is_empty());
    }

    #[test]
    fn a_copy_counts_as_synced_until_another_pass_begins_or_the_host_is_booted() {
        let pass = |boot: &str| line(&Line::Pass { boot: Some(boot.into()) }).unwrap();
        let void = line(&Line::Void { void: "x".into() }).unwrap();
        let synced = line(&Line::Synced { synced: true }).unwrap();
        let is_synced =
            |lines: &[&str], boot: &str| known(lines.concat().as_bytes(), boot).is_synced;
        let a = pass("a");
        assert!(is_synced(&[&a, &void, &synced], "a"));
        assert!(!is_synced(&[&a, &void, &synced], "b"), "after a reboot");
        assert!(!is_synced(&[&a, &void, &synced, &a], "a"), "in the next pass");
        assert!(!is_synced(&[&a, &void, &synced, &void], "a"), "written to again");
        assert!(!is_synced(&[&a, &void], "a"), "never");
        assert!(!is_synced(&[&a, &synced[..synced.len() - 3]], "a"), "torn");
        assert!(!is_synced(&[], "a"));
    }
}
