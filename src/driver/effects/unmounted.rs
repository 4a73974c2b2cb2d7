//! Files that the old container changed outside of its mounts: they would go with it. They are
//! written into an archive beside the journal before anything is stopped (0600, the shop's keys
//! may be among them), unless they are known scratch.
//!
//! Called by `create_next`, and by `tidy` before the old container is removed; the plan lists the
//! same files.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use crate::app::unmounted;
use crate::driver::context::StepContext;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::failure::{Failure, FailureCode};

/// Bytes that are kept at most: more than that is no file that somebody put there by mistake.
const LARGEST_BYTES: u64 = 2 << 30;

/// How long the engine may take for the next piece.
const PIECE_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

impl StepContext<'_> {
    /// Keeps what the old container changed outside of its mounts.
    pub(in crate::driver) async fn keep_unmounted_files(&self) -> Result<(), Trouble> {
        let old = self.inspect_present(self.old_id(), "old").await?;
        let changes = self.engine.changes(self.old_id()).await?;
        let files = unmounted::files(&old, &changes);
        if files.is_empty() {
            return Ok(());
        }
        let directory = self.unmounted_directory();
        let mut bytes = 0;
        for (number, file) in files.iter().enumerate() {
            let name = format!("{:03}-{}.tar", number + 1, unmounted::file_name(file));
            bytes += self.keep_one(file, directory.join(name), LARGEST_BYTES - bytes).await?;
        }
        self.say(&format!(
            "{} outside of every mount of the old container, which the new one does not have: {}; kept in {} ({bytes} bytes)",
            match files.len() { 1 => "1 path was changed".to_owned(), many => format!("{many} paths were changed") },
            files.join(", "),
            directory.display()
        ))
        .await;
        Ok(())
    }

    /// Where they are kept.
    fn unmounted_directory(&self) -> PathBuf {
        let name = format!("{}-{}", self.at.job.id, self.at.hop);
        self.settings.state_dir.join("unmounted").join(name)
    }

    async fn keep_one(&self, inside: &str, path: PathBuf, most: u64) -> Result<u64, Trouble> {
        let failed = |error: std::io::Error| {
            let code = match error.kind() {
                std::io::ErrorKind::StorageFull => FailureCode::DiskSpaceLow,
                _ => FailureCode::RuntimeInspectionFailed,
            };
            Trouble::failed(code, format!("write {}: {error}", path.display()))
        };
        if let Some(directory) = path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(directory).map_err(failed)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = tokio::fs::File::from_std(options.open(&path).map_err(failed)?);
        let mut pieces = self.engine.archive(self.old_id(), inside).await?;
        let mut written = 0;
        loop {
            let Ok(piece) = tokio::time::timeout(PIECE_WITHIN, pieces.next()).await else {
                let message = format!("read {inside} out of the old container: no answer");
                return Err(Trouble::Unknown(Failure::new(FailureCode::DockerError, message)));
            };
            let Some(piece) = piece else { break };
            let piece = piece?;
            written += piece.len() as u64;
            if written > most {
                return fail(
                    FailureCode::DiskSpaceLow,
                    format!(
                        "{inside} and what else the old container changed outside of its mounts have more than {LARGEST_BYTES} bytes; put them on a mount, or remove them"
                    ),
                );
            }
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)?;
        Ok(written)
    }
}
