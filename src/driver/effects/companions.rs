//! The files beside the database: what small mounts hold is copied before the new version is
//! started, and put back with the rest where it failed.
//!
//! Called by `pre_copy` and `restore_point`, which copy, by `restore_files`, and by whatever
//! discards the copy of the database. No file fails an upgrade or holds up a way back: what is not
//! copied or not put back is told.

use std::path::{Path, PathBuf};

use super::Effects;
use crate::database;
use crate::driver::prepare::SavedSpec;
use crate::driver::recovery::directory_of;
use crate::error::Trouble;
use crate::machine::facts::{Assessment, KeptMount};
use crate::machine::{Fact, Known};
use crate::plan::mounted::{self, Mounted};
use crate::restore_point::{self, RestorePointError, Way};

impl Effects<'_> {
    /// Copies what the old container's small mounts hold; what is left out, a sentence each.
    pub(super) async fn keep_files(
        &self,
        known: &Known<'_>,
        directory: Option<&Path>,
        is_live: bool,
    ) -> Result<(Vec<KeptMount>, Vec<String>), Trouble> {
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (number, mount) in self.mounts_beside(known, directory)?.into_iter().enumerate() {
            let companion = match mount {
                Mounted::Here(companion) => companion,
                Mounted::Unreachable(destination) => {
                    left_out.push(format!("{destination}: this host does not reach it"));
                    continue;
                }
            };
            let destination = companion.destination.clone();
            if let Some(other) = self.writes_there_too(known, &companion.source).await? {
                left_out.push(format!("{destination}: container {other} writes to it, too"));
                continue;
            }
            let copy = self.files_directory("kept").join(format!("{:03}", number + 1));
            let (source, to) = (companion.source.display().to_string(), copy.clone());
            let copied = self
                .files_work(move |cancel| restore_point::keep(&companion, &to, is_live, cancel))
                .await;
            match copied {
                Ok(Ok(files)) => kept.push(KeptMount {
                    destination,
                    source,
                    copy: copy.display().to_string(),
                    sha256: files.sha256,
                    files: files.files,
                    bytes: files.bytes,
                    left: files.left,
                }),
                Ok(Err(why)) | Err(why) => {
                    // What was copied by then would only take the journal's room.
                    self.remove_all(&copy).await;
                    left_out.push(format!("{destination}: {why}"));
                }
            }
        }
        Ok((kept, left_out))
    }

    /// Puts the files beside the database back where the failed version changed them.
    pub(super) async fn restore_files(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.nothing_runs(known, "no file beside the database is put back").await?;
        let mut told = known.files.cloned().unwrap_or_default();
        // Both are told anew.
        told.failed.clear();
        told.left.clear();
        let kept = known.restore_point.map(|point| point.files.as_slice()).unwrap_or_default();
        // Rows that stay may be about them: the files are left to the old version's gate first.
        let rows_stay = matches!(known.assessment, Some(Assessment::WorkersWrote { .. }));
        let way = match (rows_stay && known.restored.is_none(), known.is_tried) {
            (true, false) => Way::Tell,
            (true, true) => Way::KeepAdditions,
            (false, _) => Way::Exact,
        };
        let mounts = self.mounts_beside(known, directory_of(known))?;
        for (number, mount) in kept.iter().enumerate() {
            let companion = mounts.iter().find_map(|found| match found {
                Mounted::Here(companion) if companion.destination == mount.destination => {
                    Some(companion.clone())
                }
                Mounted::Here(_) | Mounted::Unreachable(_) => None,
            });
            let Some(companion) = companion else {
                told.failed.push(format!("{}: {} is gone", mount.destination, mount.source));
                continue;
            };
            let aside = self.files_directory("failed").join(format!("{:03}", number + 1));
            let (copy, sha256) = (PathBuf::from(&mount.copy), mount.sha256.clone());
            let put_back = self
                .files_work(move |_| {
                    restore_point::put_back(&companion, &copy, &sha256, &aside, way)
                })
                .await;
            match put_back {
                Ok(done) => {
                    told.contents.extend(done.contents);
                    told.moved.extend(done.moved);
                    told.left.extend(done.left);
                    told.dressed += done.dressed;
                    told.failed.extend(done.failed);
                }
                Err(error) => told.failed.push(format!("{}: {error}", mount.destination)),
            }
        }
        for list in [&mut told.contents, &mut told.moved, &mut told.left] {
            list.sort();
            list.dedup();
        }
        let aside = self.files_directory("failed");
        told.kept_in = aside.is_dir().then(|| aside.display().to_string());
        Ok(Fact::Files(told))
    }

    /// Removes the copies of files; what a failed version had in their place stays.
    pub(super) async fn discard_files(&self) -> Result<(), Trouble> {
        self.discard_files_of(&self.files_directory("kept")).await;
        Ok(())
    }

    /// The same of earlier upgrades that kept theirs, where these are older than this moment: a
    /// version was verified since.
    pub(super) async fn discard_files_before(&self, moment: std::time::SystemTime) {
        let all = std::fs::read_dir(self.settings.state_dir.join("files"));
        for hop in all.into_iter().flatten().flatten() {
            let kept = hop.path().join("kept");
            let made = std::fs::metadata(&kept).and_then(|it| it.modified());
            if made.is_ok_and(|at| at < moment) {
                self.discard_files_of(&kept).await;
            }
        }
    }

    async fn discard_files_of(&self, kept: &Path) {
        self.remove_all(kept).await;
        // Goes where it is empty.
        if let Some(hop) = kept.parent() {
            tokio::fs::remove_dir(hop).await.ok();
        }
    }

    async fn remove_all(&self, directory: &Path) {
        match tokio::fs::remove_dir_all(directory).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.say(&format!("{} could not be removed: {error}", directory.display())).await;
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Of this hop: `kept`, or `failed`.
    fn files_directory(&self, what: &str) -> PathBuf {
        let hop = format!("{}-{}", self.at.job.id, self.at.hop);
        self.settings.state_dir.join("files").join(hop).join(what)
    }

    /// As the old container was when the upgrade began.
    fn mounts_beside(
        &self,
        known: &Known<'_>,
        directory: Option<&Path>,
    ) -> Result<Vec<Mounted>, Trouble> {
        let spec = SavedSpec::read(&known.hop.old.spec_file)?;
        let ours = [&self.settings.state_dir, &self.settings.backup_dir];
        let ours: Vec<PathBuf> =
            ours.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
        Ok(mounted::beside(&spec.container, directory, &ours))
    }

    /// Another container that runs and may write to this path.
    async fn writes_there_too(
        &self,
        known: &Known<'_>,
        source: &Path,
    ) -> Result<Option<String>, Trouble> {
        let containers = self.engine.containers(None).await?;
        let other = containers.into_iter().find(|other| {
            !self.is_ours(known, &other.id)
                && other.state == "running"
                && database::may_write_to(other, source)
        });
        Ok(other.map(|other| other.name))
    }

    /// Work on files, where it may block.
    async fn files_work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&restore_point::Cancel) -> Result<T, RestorePointError> + Send + 'static,
    ) -> Result<T, String> {
        let done = self.blocking(work).await;
        done.map_err(|trouble| trouble.into_failure().to_string())
    }
}

/// `3 files (1200 bytes) of /root/payram`, for a log line; empty where there are none.
pub(super) fn said_of(kept: &[KeptMount]) -> String {
    let one = |mount: &KeptMount| {
        let files = if mount.files == 1 { "file" } else { "files" };
        let left = match mount.left {
            0 => String::new(),
            left => format!(", without {left} that are too large"),
        };
        format!("{} {files} ({} bytes{left}) of {}", mount.files, mount.bytes, mount.destination)
    };
    let kept = kept.iter().filter(|mount| mount.files + mount.left > 0);
    kept.map(one).collect::<Vec<_>>().join(", ")
}
