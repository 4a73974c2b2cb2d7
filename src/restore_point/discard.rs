//! Removing a copy that is not needed any more, or was never finished.

use std::path::{Path, PathBuf};

use super::error::{RestorePointError, io_at};
use super::manifest;
use super::restore::Intent;
use super::tree::{Shape, Tree};
use super::{back_ledger_path, beside, intent_path, ledger_path, must_be_ours};

/// Removes a copy and what lies beside it; fine when there is nothing. Never follows a symbolic
/// link and never leaves the copy's file system.
///
/// # Errors
/// [`RestorePointError::NotOurs`] for a path that no copy has; [`RestorePointError::Unexpected`]
/// in the middle of a restore, when the copy is the only good directory there is.
pub fn discard(copy: &Path) -> Result<(), RestorePointError> {
    must_be_ours(copy)?;
    match std::fs::symlink_metadata(copy) {
        Ok(meta) if meta.is_dir() => {
            if Intent::read(copy)?.map_or(Ok(false), |intent| intent.is_under_way())? {
                return Err(RestorePointError::Unexpected {
                    copy: copy.to_owned(),
                    found: "a restore from it was begun and not ended".into(),
                });
            }
            // First: half a copy must not have one.
            manifest::remove(copy)?;
            remove_tree(copy)?;
        }
        Ok(_) => return Err(RestorePointError::NotOurs { path: copy.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => manifest::remove(copy)?,
        Err(error) => return Err(io_at("look at", copy)(error)),
    }
    let manifest = super::manifest_path(copy);
    let intent = intent_path(copy);
    for path in [
        ledger_path(copy),
        back_ledger_path(copy),
        beside(copy, ".probe"),
        beside(&manifest, ".draft"),
        beside(&intent, ".draft"),
        intent,
    ] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_at("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The finished copies of a directory that were kept, and finished before this moment, wherever
/// they lie; none of which a restore was begun.
///
/// # Errors
/// [`RestorePointError::Io`] when this host's mounts, or a directory, can't be read.
pub fn kept_before(
    source: &Path,
    moment: std::time::SystemTime,
) -> Result<Vec<PathBuf>, RestorePointError> {
    let name = source.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let begins = format!(".{name}{}", super::NAME_MARK);
    let mut kept = Vec::new();
    for place in super::places(source, &begins)? {
        let Some(directory) = place.parent() else { continue };
        // One that may not be read holds none of ours.
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_ours =
                path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&begins));
            if !is_ours || !path.is_dir() || Intent::read(&path)?.is_some() {
                continue;
            }
            // Another shop's directory of the same name may have its copy there, too.
            let manifest = manifest::Manifest::read(&path);
            if !manifest.is_ok_and(|read| read.is_some_and(|(found, _)| found.is_of(source))) {
                continue;
            }
            let finished =
                std::fs::metadata(super::manifest_path(&path)).and_then(|it| it.modified());
            if finished.is_ok_and(|at| at < moment) {
                kept.push(path);
            }
        }
    }
    kept.sort();
    Ok(kept)
}

fn remove_tree(copy: &Path) -> Result<(), RestorePointError> {
    let tree = Tree::open(copy)?;
    // Each directory after what it holds; the root, which is the first, by its own name.
    for node in tree.walk()?.iter().skip(1).rev() {
        tree.remove(&node.path, matches!(node.shape, Shape::Directory | Shape::Mount))?;
    }
    std::fs::remove_dir(copy).map_err(io_at("remove", copy))
}
