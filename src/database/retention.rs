//! Which dumps go: all but the newest, and never one that somebody still needs.
//!
//! Called by the driver's `tidy` and by `cleanup backups`. Only regular files directly in the
//! directory whose names are those of dumps are looked at; whatever else lies there is not ours.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::sidecar::{PREFIX, Sidecar};
use crate::clock::Timestamp;
use crate::machine::failure::{Failure, FailureCode};

/// Characters of `YYYYMMDD-HHMMSS`.
pub(super) const STAMP: usize = 15;

/// Removes the dumps in `dir`, with their sidecars, that are not among the newest `keep`.
/// `protected` ones are never removed. Answers what was removed, oldest first; a directory that
/// is not there holds nothing.
///
/// # Errors
/// `BACKUP_FAILED` when the directory can't be read or a file can't be removed; the others are
/// removed all the same.
pub fn retention(dir: &Path, keep: usize, protected: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let failed = |message: String| Failure::new(FailureCode::BackupFailed, message);
    let mut dumps = dumps(dir)
        .map_err(|error| failed(format!("list backups in {}: {error}", dir.display())))?;
    dumps.sort();
    // By name: the same file may be written down by another way to it.
    let protected: HashSet<&OsStr> = protected.iter().filter_map(|path| path.file_name()).collect();
    let older = dumps.len().saturating_sub(keep);
    let mut removed = Vec::new();
    let mut refused = Vec::new();
    for (_, path) in dumps.into_iter().take(older) {
        if path.file_name().is_some_and(|name| protected.contains(name)) {
            continue;
        }
        match remove(&path) {
            Ok(()) => removed.push(path),
            Err(error) => refused.push(format!("remove backup {}: {error}", path.display())),
        }
    }
    if refused.is_empty() { Ok(removed) } else { Err(failed(refused.join("; "))) }
}

/// The dumps in `dir` that are not among the newest `keep`, oldest first: those that may go, and
/// those that are old and `protected`.
///
/// # Errors
/// `BACKUP_FAILED` when the directory can't be read.
pub fn expendable(
    dir: &Path,
    keep: usize,
    protected: &[PathBuf],
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Failure> {
    let mut dumps = dumps(dir).map_err(|error| {
        let message = format!("list backups in {}: {error}", dir.display());
        Failure::new(FailureCode::BackupFailed, message)
    })?;
    dumps.sort();
    let older = dumps.len().saturating_sub(keep);
    let protected: HashSet<&OsStr> = protected.iter().filter_map(|path| path.file_name()).collect();
    let is_free = |path: &PathBuf| path.file_name().is_some_and(|name| !protected.contains(name));
    Ok(dumps.into_iter().take(older).map(|(_, path)| path).partition(is_free))
}

/// Each dump with the moment it was made, `YYYYMMDD-HHMMSS`: by its name, or by its file's time
/// when the name has none.
pub(super) fn dumps(dir: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut dumps = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !(rest.ends_with(".dump") || rest.ends_with(".sql")) {
            continue;
        }
        let metadata = match std::fs::symlink_metadata(entry.path()) {
            Ok(metadata) => metadata,
            // Removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !metadata.is_file() {
            continue;
        }
        let made = match stamp(rest) {
            Some(stamp) => stamp.to_owned(),
            None => {
                let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(since.as_millis() as i64).compact()
            }
        };
        dumps.push((made, entry.path()));
    }
    Ok(dumps)
}

/// The moment in a dump's name.
pub(super) fn stamp(rest: &str) -> Option<&str> {
    let stamp = rest.get(..STAMP)?;
    let is_stamp = stamp.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    is_stamp.then_some(stamp)
}

/// Removes a dump and what belongs to it. The sidecar first: a dump without one is found again, a
/// sidecar without its dump is not.
///
/// # Errors
/// When one of them is there and can't be removed.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(Sidecar::path(path)) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(day: u32) -> String {
        format!("payram-backup-202601{day:02}-120000-1.9.6-to-1.9.7.dump")
    }

    fn directory(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for name in names {
            std::fs::write(directory.path().join(name), "dump").expect("a file");
        }
        directory
    }

    fn left(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(directory.path()).expect("a listing");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_stay_and_the_older_go_with_their_sidecars() {
        let names: Vec<String> = (1..=4).map(name).collect();
        let old_json = format!("{}.json", name(1));
        let new_json = format!("{}.json", name(4));
        let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
        all.extend([old_json.as_str(), new_json.as_str()]);
        let directory = directory(&all);
        let removed = retention(directory.path(), 2, &[]).expect("pruned");
        assert_eq!(removed, [directory.path().join(name(1)), directory.path().join(name(2))]);
        assert_eq!(left(&directory), [name(3), name(4), new_json]);
    }

    #[test]
    fn a_protected_dump_stays_however_old_it_is() {
        let (first, second) = (name(1), name(2));
        let directory = directory(&[&first, &second]);
        let removed = retention(directory.path(), 0, &[PathBuf::from("/elsewhere").join(&first)]);
        assert_eq!(removed.expect("pruned"), [directory.path().join(&second)]);
        assert_eq!(left(&directory), [first]);
    }

    #[test]
    fn what_is_no_dump_of_ours_is_left_alone() {
        let foreign = [
            "payram-backup-20260101-120000-1-to-2.dump.partial",
            "other-20260101-120000.dump",
            "payram-backup-notes.txt",
        ];
        let directory = directory(&foreign);
        let target = directory.path().join("other-20260101-120000.dump");
        let link = directory.path().join(name(1));
        std::os::unix::fs::symlink(target, &link).expect("a link");
        std::fs::create_dir(directory.path().join(name(2))).expect("a directory");
        assert_eq!(retention(directory.path(), 0, &[]).expect("pruned"), Vec::<PathBuf>::new());
        assert_eq!(left(&directory).len(), 5);
    }

    #[test]
    fn older_formats_and_names_without_a_time_are_dumps_too() {
        let old = "payram-backup-20200101-000000-1.0.0-to-1.1.0.sql";
        let timeless = "payram-backup-by-hand.dump";
        let directory = directory(&[old, timeless]);
        // The one without a time was written now, after 2020.
        let removed = retention(directory.path(), 1, &[]).expect("pruned");
        assert_eq!(removed, [directory.path().join(old)]);
    }

    #[test]
    fn a_directory_that_is_not_there_holds_nothing() {
        assert_eq!(retention(Path::new("/nonexistent/backups"), 1, &[]), Ok(Vec::new()));
    }
}
