//! The files beside the database: what small mounts hold is copied before the new version is
//! started, and put back with the rest where it failed.
//!
//! Called by `pre_copy` and `restore_point`, which copy, by `restore_files`, and by whatever
//! discards the copy of the database. No file fails an upgrade or holds up a way back: what is not
//! copied or not put back is told.

use std::path::{Path, PathBuf};

use crate::database;
use crate::driver::context::StepContext;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::machine::facts::KeptMount;
use crate::plan::mounted::{self, Mounted};
use crate::restore_point::{self, RestorePointError};

impl StepContext<'_> {
    /// Copies what the old container's small mounts hold; what is left out, a sentence each.
    pub(in crate::driver) async fn keep_files(
        &self,
        directory: Option<&Path>,
        is_live: bool,
    ) -> Result<(Vec<KeptMount>, Vec<String>), Trouble> {
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (number, mount) in self.mounts_beside(directory)?.into_iter().enumerate() {
            let companion = match mount {
                Mounted::Here(companion) => companion,
                Mounted::Unreachable(destination) => {
                    left_out.push(format!("{destination}: this host does not reach it"));
                    continue;
                }
            };
            let destination = companion.destination.clone();
            if let Some(other) = self.writes_there_too(&companion.source).await? {
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

    /// Removes the copies of files; what a failed version had in their place stays.
    pub(in crate::driver) async fn discard_files(&self) -> Result<(), Trouble> {
        self.discard_files_of(&self.files_directory("kept")).await;
        Ok(())
    }

    /// The same of earlier upgrades that kept theirs, where these are older than this moment: a
    /// version was verified since.
    pub(in crate::driver) async fn discard_files_before(&self, moment: std::time::SystemTime) {
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

    pub(in crate::driver) async fn remove_all(&self, directory: &Path) {
        match tokio::fs::remove_dir_all(directory).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.say(&format!("{} could not be removed: {error}", directory.display())).await;
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Of this hop: `kept`, or `failed`.
    pub(in crate::driver) fn files_directory(&self, what: &str) -> PathBuf {
        let hop = format!("{}-{}", self.at.job.id, self.at.hop);
        self.settings.state_dir.join("files").join(hop).join(what)
    }

    /// As the old container was when the upgrade began.
    pub(in crate::driver) fn mounts_beside(
        &self,
        directory: Option<&Path>,
    ) -> Result<Vec<Mounted>, Trouble> {
        let spec = SavedSpec::read(&self.hop.old.spec_file)?;
        let ours = [&self.settings.state_dir, &self.settings.backup_dir];
        let ours: Vec<PathBuf> =
            ours.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
        Ok(mounted::beside(&spec.container, directory, &ours))
    }

    /// Another container that runs and may write to this path.
    async fn writes_there_too(&self, source: &Path) -> Result<Option<String>, Trouble> {
        let containers = self.engine.containers(None).await?;
        let other = containers.into_iter().find(|other| {
            !self.is_ours(&other.id)
                && other.state == "running"
                && database::may_write_to(other, source)
        });
        Ok(other.map(|other| other.name))
    }

    /// Work on files, where it may block.
    pub(in crate::driver) async fn files_work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&restore_point::Cancel) -> Result<T, RestorePointError> + Send + 'static,
    ) -> Result<T, String> {
        let done = self.blocking(work).await;
        done.map_err(|trouble| trouble.into_failure().to_string())
    }
}

/// `3 files (1200 bytes) of /root/payram`, for a log line; empty where there are none.
pub(in crate::driver) fn said_of(kept: &[KeptMount]) -> String {
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
