//! The copy of the database's directory and its dump, as the steps share them: where it lies, what
//! may not run meanwhile, and its removal (design section 2).
//!
//! Called by the steps that copy, restore and tidy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::assess::read_from;
use crate::database::{self, Access, Runner};
use crate::driver::Progress;
use crate::driver::context::StepContext;
use crate::engine::mounts::{self};
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::Copy;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore_point::{self, Cancel, RestorePointError};

/// How long a checkpoint may take while the application serves.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(60);

impl StepContext<'_> {
    /// A copy that did not fit is removed at once, and not at the end of the way back: the old
    /// version's server needs the room, to go on or to start.
    pub(in crate::driver) async fn making_room<T>(
        &self,
        copied: Result<T, Trouble>,
        copy: &Path,
    ) -> Result<T, Trouble> {
        let is_full = matches!(&copied, Err(Trouble::Failed(failure)) if failure.code == FailureCode::DiskSpaceLow);
        if is_full {
            let path = copy.to_owned();
            if let Err(trouble) = self.blocking(move |_| restore_point::discard(&path)).await {
                self.say(&format!("the copy that did not fit could not be removed: {trouble}"))
                    .await;
            }
        }
        copied
    }

    pub(in crate::driver) fn copy_name(&self, source: &Path) -> String {
        restore_point::copy_name(source, &format!("{}-{}", self.at.job.id.short(), self.at.hop))
    }

    /// A dump of the silent database.
    pub(in crate::driver) async fn dump_restore_point(
        &self,
        path: &Path,
    ) -> Result<database::DumpFile, Trouble> {
        let target = self.database()?;
        let runner = Runner::new(self.engine, self.old_id(), &target);
        let progress = self.progress;
        let mut told = |done_bytes| {
            progress.send_replace(Progress { done_bytes, total_bytes: 0 });
        };
        match database::dump(&runner, path, self.settings.backup_timeout, &mut told).await {
            Err(Trouble::Failed(failure)) => {
                fail(FailureCode::BackupFailedAfterQuiesce, failure.message)
            }
            other => other,
        }
    }

    /// Nothing may have the database's directory open, whatever the steps before found, and
    /// whoever started it.
    pub(in crate::driver) async fn nothing_runs(&self, or_else: &str) -> Result<(), Trouble> {
        let (old, next) = (self.old(), self.next()?);
        for which in [old, next] {
            let Some(container) = self.inspect(which.id).await? else { continue };
            if super::containers::occupies_database(&container) {
                let message = format!("{or_else}: the {which} runs");
                return fail(FailureCode::RestorePointFailed, message);
            }
            self.nobody_else_runs(&container).await?;
        }
        self.nobody_works_there(or_else).await
    }

    /// Removes the copy; fine when there is none.
    pub(in crate::driver) async fn discard(&self, copy: Option<&Copy>) -> Result<(), Trouble> {
        self.discard_files().await?;
        let copy = match copy {
            Some(Copy::Directory { copy, .. }) => PathBuf::from(copy),
            Some(Copy::Dump { path, .. }) => {
                return match tokio::fs::remove_file(path).await {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(error) => {
                        fail(FailureCode::RestorePointFailed, format!("remove {path}: {error}"))
                    }
                };
            }
            // `pre_copy` was begun and did not end: what it left lies where it would have told,
            // which depends on mounts that may be others by now.
            None => {
                let Some(source) = self.directory_of_old().await? else { return Ok(()) };
                let name = self.copy_name(&source);
                let discard = move |_: &Cancel| {
                    let places = restore_point::places(&source, &name)?;
                    places.iter().try_for_each(|copy| restore_point::discard(copy))
                };
                return self.blocking(discard).await;
            }
        };
        self.blocking(move |_| {
            restore_point::discard(&read_from(&copy))?;
            restore_point::discard(&copy)
        })
        .await
    }

    /// Removes what earlier upgrades kept of this database for long enough: a version was verified
    /// since.
    pub(in crate::driver) async fn discard_kept(&self) -> Result<(), Trouble> {
        let Some(Copy::Directory { source, .. }) = self.copy else { return Ok(()) };
        let (source, keep) = (PathBuf::from(source), self.settings.keep_previous);
        let removed = self
            .blocking(move |_| {
                let Some(moment) = std::time::SystemTime::now().checked_sub(keep) else {
                    return Ok(Vec::new());
                };
                let kept = restore_point::kept_before(&source, moment)?;
                kept.iter().try_for_each(|copy| restore_point::discard(copy))?;
                Ok(kept)
            })
            .await?;
        for path in removed {
            self.say(&format!("removed {}, kept long enough", path.display())).await;
        }
        if let Some(moment) = std::time::SystemTime::now().checked_sub(keep) {
            self.discard_files_before(moment).await;
        }
        Ok(())
    }

    /// The database's directory, when the old container still runs and can be asked.
    pub(in crate::driver) async fn directory_of_old(&self) -> Result<Option<PathBuf>, Trouble> {
        let target = self.database()?;
        if target.access == Access::OnHost {
            return Ok(None);
        }
        let container = self.inspect_present(self.old_id(), "old").await?;
        let old = self.old_id();
        let Ok(facts) = database::server_facts(self.engine, old, target.port).await else {
            return Ok(None);
        };
        let named = mounts::host_path(&container, Path::new(&facts.data_directory));
        // As `pre_copy` names it.
        Ok(named.map(|source| source.canonicalize().unwrap_or(source)))
    }

    /// Runs file work where it may block; leaving the step leaves it too.
    pub(in crate::driver) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T, RestorePointError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let cancel = Cancel::default();
        // Dropped with this future: what still runs sees it and ends.
        let guard = cancel.cancel_on_drop();
        let result = tokio::task::spawn_blocking(move || work(&cancel)).await;
        drop(guard);
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Trouble::Failed(failure(&error))),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Has the server write to disk now what it would write when it is stopped, while the
    /// application serves. A courtesy: without it the stop takes longer.
    pub(in crate::driver) async fn checkpoint(&self, runner: &Runner<'_>) {
        if let Err(reason) = database::checkpoint(runner, CHECKPOINT_WITHIN).await {
            tracing::info!(job = %self.at.job.id, hop = self.at.hop, "no checkpoint: {reason}");
        }
    }
}

fn failure(error: &RestorePointError) -> Failure {
    let code = if error.is_disk_full() {
        FailureCode::DiskSpaceLow
    } else {
        FailureCode::RestorePointFailed
    };
    Failure::new(code, error.to_string())
}
