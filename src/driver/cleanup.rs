//! `cleanup`: says which files nobody needs any more, and removes those that a person consented to.
//!
//! Called by `api` and, without a daemon, by the command itself, both under the state lock. The way
//! back of the last upgrade is never among them: its dumps, its specifications, its database.
//! The journal is the history and is kept; only the file beside it, through which it is written, is
//! emptied into it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::prepare::old_specs;
use super::{Driver, durable};
use crate::database;
use crate::journal::{JobRecord, JournalError, NewEvent};
use crate::machine::failure::Failure;

/// What is cleaned up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rubbish {
    /// What earlier upgrades left in `STATE_DIR`.
    State,
    /// Dumps in `BACKUP_DIR`.
    Backups,
}

impl Rubbish {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Rubbish::State => "state",
            Rubbish::Backups => "backups",
        }
    }
}

/// A file that is removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// Where it lies.
    pub path: PathBuf,
    /// What its removal gives, what belongs to it included.
    pub bytes: u64,
    /// What it is.
    pub what: &'static str,
}

/// What was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleaned {
    /// Whether everything of it could be done.
    pub success: bool,
    /// A sentence.
    pub message: String,
    /// `state` or `backups`.
    pub what: Rubbish,
    /// Whether it was only asked.
    pub dry_run: bool,
    /// The files.
    pub files: Vec<Piece>,
    /// All of them together.
    pub bytes: u64,
    /// What stays though it is old, and why: a sentence each.
    pub kept: Vec<String>,
    /// What could not be removed.
    pub refusals: Vec<String>,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// An upgrade is under way.
    #[error(
        "an upgrade is under way ({0}): nothing is removed while it may need it; payram-updater status says where it is"
    )]
    Active(String),
    /// A directory can't be read.
    #[error(transparent)]
    Unseen(#[from] Failure),
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Driver {
    /// Removes what nobody needs, or only says what that is. `keep`: so many of the newest dumps
    /// stay; `only`: of these files alone, which a person was shown.
    ///
    /// # Errors
    /// While a job is under way, and when it can't be told what there is.
    pub async fn cleanup(
        &self,
        what: Rubbish,
        keep: usize,
        only: Option<&[PathBuf]>,
        is_dry: bool,
    ) -> Result<Cleaned, CleanupError> {
        if let Some(job) = self.reader.active_job()? {
            return Err(CleanupError::Active(job.id.to_string()));
        }
        if let Some(job) = self.reader.active_restore()? {
            return Err(CleanupError::Active(job.id.to_string()));
        }
        if self.backup_in_hand().is_some() {
            return Err(CleanupError::Active("a backup that is made by hand".to_owned()));
        }
        let last = self.reader.last_executed_job()?;
        let (mut pieces, kept) = match what {
            Rubbish::State => (self.old_state(last.as_ref())?, Vec::new()),
            Rubbish::Backups => self.old_backups(last.as_ref(), keep)?,
        };
        if let Some(only) = only {
            pieces.retain(|piece| only.contains(&piece.path));
        }
        let mut refusals = Vec::new();
        if !is_dry {
            pieces.retain(|piece| match self.remove(piece) {
                Ok(()) => true,
                Err(reason) => {
                    refusals.push(reason);
                    false
                }
            });
        }
        let bytes = pieces.iter().map(|piece| piece.bytes).sum();
        let message = said(what, pieces.len(), bytes, is_dry);
        if !is_dry && !pieces.is_empty() {
            let (journal, event) =
                (Arc::clone(&self.journal), event(what, &pieces, bytes, &message));
            tracing::info!("cleanup {}: {message}", what.as_str());
            durable(move || journal.note(&[event])).await?;
        }
        let success = refusals.is_empty();
        Ok(Cleaned {
            success,
            message,
            what,
            dry_run: is_dry,
            files: pieces,
            bytes,
            kept,
            refusals,
        })
    }

    /// Specifications of upgrades before the last one, and what the journal's writing left beside it.
    fn old_state(&self, last: Option<&JobRecord>) -> Result<Vec<Piece>, Failure> {
        let mut pieces = Vec::new();
        if let Some(last) = last {
            for path in old_specs(&self.settings.state_dir, &last.id)? {
                let bytes = size(&path);
                pieces.push(Piece { path, bytes, what: "specification of an earlier upgrade" });
            }
        }
        let log = write_ahead(self.journal.path());
        let bytes = size(&log);
        if bytes > 0 {
            let what = "rows on their way into the journal: written into it, not lost";
            pieces.push(Piece { path: log, bytes, what });
        }
        Ok(pieces)
    }

    fn old_backups(
        &self,
        last: Option<&JobRecord>,
        keep: usize,
    ) -> Result<(Vec<Piece>, Vec<String>), Failure> {
        let hops = last.into_iter().flat_map(|job| &job.hops);
        let needed: Vec<PathBuf> = hops
            .filter_map(|hop| hop.machine.state().known().backup)
            .map(|backup| PathBuf::from(&backup.path))
            .collect();
        let (old, kept) = database::expendable(&self.settings.backup_dir, keep, &needed)?;
        let pieces = old.into_iter().map(|path| {
            let bytes = size(&path) + size(&database::Sidecar::path(&path));
            Piece { path, bytes, what: "backup" }
        });
        let kept = kept.into_iter().map(|path| {
            format!("{} stays: it belongs to the way back of the last upgrade", path.display())
        });
        Ok((pieces.collect(), kept.collect()))
    }

    fn remove(&self, piece: &Piece) -> Result<(), String> {
        if piece.path == write_ahead(self.journal.path()) {
            return self.journal.shrink().map_err(|error| error.to_string());
        }
        let removed = match piece.what {
            "backup" => database::remove_dump(&piece.path),
            _ => fs::remove_file(&piece.path),
        };
        removed.map_err(|error| format!("remove {}: {error}", piece.path.display()))
    }
}

/// SQLite's write-ahead log (<https://www.sqlite.org/wal.html>).
fn write_ahead(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// What is not there has none.
fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map(|found| found.len()).unwrap_or_default()
}

fn said(what: Rubbish, count: usize, bytes: u64, is_dry: bool) -> String {
    let megabytes = bytes as f64 / 1e6;
    let noun = if count == 1 { "file" } else { "files" };
    match (count, is_dry) {
        (0, _) => format!("there is nothing of {} to remove", what.as_str()),
        (_, true) => format!("{count} {noun} would go, which gives {megabytes:.1} MB"),
        (_, false) => format!("{count} {noun} removed, which gave {megabytes:.1} MB"),
    }
}

fn event(what: Rubbish, pieces: &[Piece], bytes: u64, message: &str) -> NewEvent {
    let names: Vec<String> = pieces.iter().map(|piece| piece.path.display().to_string()).collect();
    let data = BTreeMap::from([
        ("what".to_owned(), what.as_str().to_owned()),
        ("files".to_owned(), names.join("\n")),
        ("bytes".to_owned(), bytes.to_string()),
    ]);
    NewEvent { kind: "cleanup", status: "succeeded", message: message.to_owned(), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_happened() {
        assert_eq!(said(Rubbish::State, 0, 0, false), "there is nothing of state to remove");
        assert_eq!(
            said(Rubbish::Backups, 1, 2_500_000, true),
            "1 file would go, which gives 2.5 MB"
        );
        assert_eq!(
            said(Rubbish::Backups, 3, 2_500_000, false),
            "3 files removed, which gave 2.5 MB"
        );
    }

    #[test]
    fn the_write_ahead_log_lies_beside_the_journal() {
        assert_eq!(write_ahead(Path::new("/s/journal.db")), Path::new("/s/journal.db-wal"));
    }
}
