//! The database's directory: copied while the application serves, brought up to the last write
//! while it is down, put back by two renames (design section 2).
//!
//! Where this host can't reach the directory, or the database is elsewhere, the restore point
//! is a dump that is taken after the application's last write.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::assess::read_from;
use super::{Effects, companions, done, fail};
use crate::database::{self, Access, Runner, ServerFacts};
use crate::driver::Progress;
use crate::driver::failed_path;
use crate::engine::mounts::{self, Home};
use crate::error::Trouble;
use crate::machine::facts::{Copy, KeptMount, RestorePoint, Restored, Server};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Fact, Known};
use crate::restore_point::{self, Cancel, PassReport, RestorePointError};

/// A first pass that took longer is followed by another while the application still serves.
const LONG_PASS: Duration = Duration::from_secs(3);

impl Effects<'_> {
    pub(super) async fn pre_copy(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let target = self.database(known)?;
        let dump = |reason: String| {
            let name = format!("{}-{}.dump", self.at.job.id, self.at.hop);
            let path = self.settings.state_dir.join("restore").join(name);
            Ok(Fact::Copy(Copy::Dump { path: path.to_string_lossy().into_owned(), reason }))
        };
        if target.access == Access::OnHost {
            return dump(format!("the database is at {}, outside of the container", target.host));
        }
        let old = self.old_id(known);
        let facts = database::server_facts(self.engine, old, target.port).await?;
        let container = self.inspect_present(self.old_id(known), "old").await?;
        let source = match mounts::home(&container, Path::new(&facts.data_directory)) {
            Home::Host(source) => source,
            Home::WhileMounted => {
                return dump(format!(
                    "{} is reached from this host only while a container runs with its volume",
                    facts.data_directory
                ));
            }
            Home::InContainer => {
                return fail(
                    FailureCode::DatabaseNotPersistent,
                    format!(
                        "the database's directory {} lies on no mount of {}, or in memory: it would go with the container",
                        facts.data_directory, known.hop.old.name
                    ),
                );
            }
        };
        // By whatever links the container's mount was named, the directory itself is renamed.
        let source = source.canonicalize().unwrap_or(source);
        if !source.join("PG_VERSION").is_file() {
            return dump(format!("{} can't be reached from this host", source.display()));
        }
        let works = self.works_nowhere_but_in(known, &container, &source).await?;
        works.or_else(|unseen| fail(FailureCode::RuntimeInspectionFailed, unseen))?;
        // What the server would write to its files in the next minutes is in the first pass then,
        // and not in the one that is downtime.
        self.checkpoint(&Runner::new(self.engine, old, &target)).await;
        let copy = self.copy_path(known, &container, &source).await?;
        let progress = self.progress.clone();
        let (from, to) = (source.clone(), copy.clone());
        let copied = self
            .blocking(move |cancel| {
                let total = restore_point::survey(&from)?.bytes;
                let mut told = |done_bytes| {
                    progress.send_replace(Progress { done_bytes, total_bytes: total });
                };
                let first = restore_point::pre_copy(&from, &to, &mut told, cancel)?;
                if first.took < LONG_PASS {
                    return Ok(first);
                }
                // The server wrote on meanwhile: what a second pass takes is not downtime.
                let second = restore_point::pre_copy(&from, &to, &mut told, cancel)?;
                Ok(PassReport { bytes_copied: first.bytes_copied + second.bytes_copied, ..second })
            })
            .await;
        let report = self.making_room(copied, &copy).await?;
        // What it does not copy the pass after the stop tells.
        self.keep_files(known, Some(&source), true).await?;
        Ok(Fact::Copy(Copy::Directory {
            source: source.to_string_lossy().into_owned(),
            copy: copy.to_string_lossy().into_owned(),
            files: report.files,
            bytes: report.bytes_copied,
            server: server(facts),
        }))
    }

    /// A copy that did not fit is removed at once, and not at the end of the way back: the old
    /// version's server needs the room, to go on or to start.
    async fn making_room<T>(&self, copied: Result<T, Trouble>, copy: &Path) -> Result<T, Trouble> {
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

    /// Where it comes back from by a rename, and no container reaches it.
    async fn copy_path(
        &self,
        known: &Known<'_>,
        old: &Value,
        source: &Path,
    ) -> Result<PathBuf, Trouble> {
        let mut reached = mounts::sources(old);
        if let Some(next) = self.inspect(self.next(known)?.id).await? {
            reached.extend(mounts::sources(&next));
        }
        let from = source.to_owned();
        let place = self.blocking(move |_| restore_point::place(&from, &reached)).await?;
        if let Some(mount) = &place.reached_by {
            let (directory, mount) = (place.directory.display(), mount.display());
            self.say(&format!(
                "the copy lies in {directory}, which the container reaches through its mount {mount}"
            ))
            .await;
        }
        Ok(place.directory.join(self.copy_name(source)))
    }

    fn copy_name(&self, source: &Path) -> String {
        restore_point::copy_name(source, &format!("{}-{}", self.at.job.id.short(), self.at.hop))
    }

    pub(super) async fn restore_point(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let began = tokio::time::Instant::now();
        let (bytes, sha256) = match self.copy_of(known)? {
            Copy::Directory { source, copy, .. } => {
                // A copy of what a server writes to is none (I6).
                self.nothing_runs(known, "the database is not copied").await?;
                self.must_be_as_noted(known).await?;
                let progress = self.progress.clone();
                let (source, copy) = (PathBuf::from(source), PathBuf::from(copy));
                let unfit = copy.clone();
                let finished = self
                    .blocking(move |cancel| {
                        restore_point::finish(
                            &source,
                            &copy,
                            &mut |done_bytes| {
                                progress.send_replace(Progress { done_bytes, total_bytes: 0 });
                            },
                            cancel,
                        )
                    })
                    .await;
                let report = self.making_room(finished, &unfit).await?;
                self.nothing_runs(known, "the copy of the database is not exact").await?;
                self.say(&format!(
                    "restore point: wrote {} bytes to {} of {} files, {} bytes compared, {} entries removed",
                    report.bytes_copied,
                    report.files_copied,
                    report.files,
                    report.bytes_compared,
                    report.files_removed
                ))
                .await;
                for note in &report.notes {
                    self.say(&format!("restore point: {note}")).await;
                }
                (report.bytes_copied, report.manifest_sha256)
            }
            Copy::Dump { path, .. } => {
                let target = self.database(known)?;
                let path = PathBuf::from(path);
                match target.access {
                    Access::OnHost => {
                        let file = self.dump_restore_point(known, &path).await?;
                        (file.size_bytes, file.sha256)
                    }
                    // The server ended with its container: it was taken at `quiesce`.
                    Access::InContainer => database::checksum(&path).await?,
                }
            }
        };
        let (files, files_left_out) = self.files_of(known).await?;
        let millis = began.elapsed().as_millis() as u64;
        Ok(Fact::RestorePoint(RestorePoint { sha256, bytes, millis, files, files_left_out }))
    }

    /// The files beside the database, copied once nobody writes to them any more.
    async fn files_of(&self, known: &Known<'_>) -> Result<(Vec<KeptMount>, Vec<String>), Trouble> {
        let directory = match self.copy_of(known)? {
            Copy::Directory { source, .. } => Some(Path::new(source)),
            Copy::Dump { .. } if self.database(known)?.access == Access::OnHost => None,
            // One of the mounts holds the database, and which one can't be told from here.
            Copy::Dump { .. } => return Ok((Vec::new(), Vec::new())),
        };
        let (kept, left_out) = self.keep_files(known, directory, false).await?;
        let said = companions::said_of(&kept);
        if !said.is_empty() {
            self.say(&format!("restore point: {said}, copied beside the journal")).await;
        }
        for left in &left_out {
            self.say(&format!("restore point: in no copy: {left}")).await;
        }
        Ok((kept, left_out))
    }

    /// A dump of the silent database.
    pub(super) async fn dump_restore_point(
        &self,
        known: &Known<'_>,
        path: &Path,
    ) -> Result<database::DumpFile, Trouble> {
        let target = self.database(known)?;
        let runner = Runner::new(self.engine, self.old_id(known), &target);
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

    /// The copy takes the place of the directory that the failed version changed, which is kept.
    ///
    /// Sequences that the failed version drew from are set on in it before the old version starts.
    pub(super) async fn restore_database(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        // An attempt before this one may have ended while it set the sequences.
        self.remove_lone_server(known).await?;
        self.nothing_runs(known, "the database is not put back").await?;
        match self.copy_of(known)? {
            Copy::Directory { source, copy, server, .. } => {
                let failed = failed_path(source, &self.at.job.id, self.at.hop);
                let (from, to, aside) =
                    (PathBuf::from(source), PathBuf::from(copy), PathBuf::from(&failed));
                let expected = known.restore_point.map(|point| point.sha256.clone());
                let progress = self.progress.clone();
                let dressed = self
                    .blocking(move |cancel| {
                        // A restore that was begun has moved the copy away already.
                        if to.is_dir() {
                            let mut told = |done_bytes| {
                                progress.send_replace(Progress { done_bytes, total_bytes: 0 });
                            };
                            restore_point::verify(&to, expected.as_deref(), &mut told, cancel)?;
                        }
                        restore_point::restore(&from, &to, &aside)
                    })
                    .await?;
                if dressed > 0 {
                    self.say(&format!(
                        "{dressed} files and directories of the copy had another owner, mode or time than was noted: put right. Their contents are as noted"
                    ))
                    .await;
                }
                let aside = Path::new(&failed);
                let told = self.bring_sequences_up(known, server, Path::new(source), aside).await?;
                let (sequences, sequences_to_check) = (told.moves, told.unclear);
                let carried = match known.carries_rows {
                    true => Some(self.carry_rows(known, server, Path::new(source), aside).await?),
                    false => None,
                };
                Ok(Fact::Restored(Restored { failed, sequences, sequences_to_check, carried }))
            }
            Copy::Dump { path, reason } => fail(
                FailureCode::RestorePointFailed,
                format!(
                    "{reason}, so its restore point is the dump {path}: put it back with pg_restore, then recover. What the failed version wrote is not exported: it is in the database itself, so rename that one instead of dropping it"
                ),
            ),
        }
    }

    /// Nothing may have the database's directory open, whatever the steps before found, and
    /// whoever started it.
    pub(super) async fn nothing_runs(
        &self,
        known: &Known<'_>,
        or_else: &str,
    ) -> Result<(), Trouble> {
        let (old, next) = (self.old(known), self.next(known)?);
        for which in [old, next] {
            let Some(container) = self.inspect(which.id).await? else { continue };
            if super::containers::occupies_database(&container) {
                let message = format!("{or_else}: the {which} runs");
                return fail(FailureCode::RestorePointFailed, message);
            }
            self.nobody_else_runs(known, &container).await?;
        }
        self.nobody_works_there(known, or_else).await
    }

    pub(super) async fn discard_copy(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.discard(known).await?;
        done()
    }

    /// Removes the copy; fine when there is none.
    pub(super) async fn discard(&self, known: &Known<'_>) -> Result<(), Trouble> {
        self.discard_files().await?;
        let copy = match known.copy {
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
                let Some(source) = self.directory_of_old(known).await? else { return Ok(()) };
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
    pub(super) async fn discard_kept(&self, known: &Known<'_>) -> Result<(), Trouble> {
        let Some(Copy::Directory { source, .. }) = known.copy else { return Ok(()) };
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
    pub(super) async fn directory_of_old(
        &self,
        known: &Known<'_>,
    ) -> Result<Option<PathBuf>, Trouble> {
        let target = self.database(known)?;
        if target.access == Access::OnHost {
            return Ok(None);
        }
        let container = self.inspect_present(self.old_id(known), "old").await?;
        let old = self.old_id(known);
        let Ok(facts) = database::server_facts(self.engine, old, target.port).await else {
            return Ok(None);
        };
        let named = mounts::host_path(&container, Path::new(&facts.data_directory));
        // As `pre_copy` names it.
        Ok(named.map(|source| source.canonicalize().unwrap_or(source)))
    }

    fn copy_of<'k>(&self, known: &Known<'k>) -> Result<&'k Copy, Trouble> {
        known.copy.ok_or_else(|| {
            Trouble::failed(FailureCode::RestorePointFailed, "the database was never copied")
        })
    }

    /// Runs file work where it may block; leaving the step leaves it too.
    pub(super) async fn blocking<T: Send + 'static>(
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
}

fn server(facts: ServerFacts) -> Server {
    Server {
        program: facts.program,
        arguments: facts.arguments,
        owner: facts.owner,
        major: facts.major,
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
