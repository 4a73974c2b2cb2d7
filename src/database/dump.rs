//! `pg_dump -Fc` into a file that is complete, synced and checked, or not there.
//!
//! Called by the driver's `back_up` and by `backup create`. The dump streams: one thread hashes
//! and writes what arrives through a short queue, so memory is the same for a database of any
//! size. Until the program has ended with exit code 0 the file has another name; every other
//! end removes it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::runner::{Run, Runner, unique};
use super::sidecar::{hex, sync_directory};
use super::tool::{Running, Tool, ToolError};
use crate::error::Trouble;
use crate::machine::failure::{Failure, FailureCode};

/// Pieces of output that wait for the disk at most.
const QUEUE: usize = 16;

/// How long the disk may take to make durable what it was given, when the deadline is nearer.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

/// How much longer than the deadline `pg_dump` waits for a lock.
const LOCK_GRACE: Duration = Duration::from_secs(5);

/// What every archive of `pg_dump -Fc` begins with.
const MAGIC: &[u8] = b"PGDMP";

/// A dump that is complete on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFile {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Hex sha256, taken while it was written.
    pub sha256: String,
}

/// Dumps the database to `path`, which appears only when it is complete. `progress` is told the
/// bytes written so far.
///
/// # Errors
/// `DISK_SPACE_LOW` with the path and the bytes written, `BACKUP_TIMEOUT` when `limit` is over,
/// `INVALID_DB_CONFIG` when the server refuses the credentials, `BACKUP_FAILED` with what
/// `pg_dump` said. No file is left behind, and `pg_dump` does not go on.
pub async fn dump(
    runner: &Runner<'_>,
    path: &Path,
    limit: Duration,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<DumpFile, Trouble> {
    let doing = format!("dump database {} to {}", runner.database().name, path.display());
    let partial = Partial::of(path);
    let file = partial.create()?;
    let application = unique("payram-updater-dump-");
    let run = Run {
        tool: Tool::PgDump,
        arguments: vec![
            "--format=custom".into(),
            "--no-password".into(),
            // A table that somebody holds locked would be waited for without end. Our own
            // deadline comes first and says that it is the time that was over.
            format!("--lock-wait-timeout={}", (limit + LOCK_GRACE).as_millis()),
        ],
        database: None,
        application: &application,
        stdin: false,
        timeout: limit,
        programs: None,
    };
    let told = |error: ToolError| {
        error.trouble(&doing, FailureCode::BackupFailed, FailureCode::BackupTimeout)
    };
    let running = runner.start(run).await.map_err(told)?;
    let deadline = running.deadline;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let target = partial.path.clone();
    let writer = tokio::task::spawn_blocking(move || write(file, &target, receiver));
    let streamed = stream(running, sender, progress).await;
    // The queue is closed, so the writer ends; what it met comes first, because a full disk is
    // why the stream broke.
    let written = match written(writer, deadline).await {
        Ok(written) => streamed.map(|()| written).map_err(told),
        Err(failure) => Err(Trouble::Failed(failure)),
    };
    match written {
        Ok(file) if file.is_archive => {
            partial.keep(path).await?;
            Ok(file.dump)
        }
        Ok(file) => Err(Trouble::failed(
            FailureCode::BackupFailed,
            format!(
                "{doing}: pg_dump ended well, and its {} bytes are not an archive",
                file.dump.size_bytes
            ),
        )),
        Err(trouble) => {
            runner.end_sessions(&application).await;
            Err(trouble)
        }
    }
}

/// Moves the program's output into the queue. A queue that was closed ends it without an error
/// of its own: the writer has one.
async fn stream(
    mut running: Running<'_>,
    sender: mpsc::Sender<Bytes>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(), ToolError> {
    let mut bytes = 0;
    while let Some(piece) = running.stdout().await? {
        bytes += piece.len() as u64;
        match timeout_at(running.deadline, sender.send(piece)).await {
            Ok(Ok(())) => progress(bytes),
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(running.timed_out()),
        }
    }
    running.finish().await
}

/// What the writer came to.
struct Written {
    dump: DumpFile,
    is_archive: bool,
}

/// The writer's end. It works on a disk that may hang, so it is not waited for without end.
async fn written(
    writer: JoinHandle<Result<Written, Failure>>,
    deadline: Instant,
) -> Result<Written, Failure> {
    let within = deadline.saturating_duration_since(Instant::now()).max(SYNC_WITHIN);
    match timeout(within, writer).await {
        Ok(Ok(written)) => written,
        Ok(Err(panicked)) => {
            Err(Failure::new(FailureCode::BackupFailed, format!("write the dump: {panicked}")))
        }
        Err(_) => Err(Failure::new(
            FailureCode::BackupTimeout,
            format!("the disk did not take the dump within {} s", within.as_secs()),
        )),
    }
}

/// Hashes and writes what arrives until the queue is closed, then makes it durable.
fn write(
    mut file: File,
    path: &Path,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<Written, Failure> {
    let mut sha = Sha256::new();
    let mut size_bytes = 0;
    let mut head: Vec<u8> = Vec::with_capacity(MAGIC.len());
    while let Some(piece) = pieces.blocking_recv() {
        let missing = MAGIC.len().saturating_sub(head.len());
        head.extend(piece.iter().take(missing));
        sha.update(&piece);
        file.write_all(&piece).map_err(|error| disk_failure("write", path, size_bytes, &error))?;
        size_bytes += piece.len() as u64;
    }
    file.sync_all().map_err(|error| disk_failure("sync", path, size_bytes, &error))?;
    let dump = DumpFile { size_bytes, sha256: hex(&sha.finalize()) };
    Ok(Written { dump, is_archive: head == MAGIC })
}

/// A full disk is something an operator can do something about.
fn disk_failure(doing: &str, path: &Path, written: u64, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FailureCode::DiskSpaceLow,
        _ => FailureCode::BackupFailed,
    };
    Failure::new(code, format!("{doing} {} after {written} bytes: {error}", path.display()))
}

/// The file before it is complete; gone when dropped.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        Self { path: PathBuf::from(name) }
    }

    /// An empty file that only its owner may read, in a directory of the same kind. What an
    /// interrupted attempt left is thrown away.
    fn create(&self) -> Result<File, Failure> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|error| disk_failure("create directory", directory, 0, &error))?;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(disk_failure("remove", &self.path, 0, &error)),
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(|error| disk_failure("create", &self.path, 0, &error))
    }

    /// Gives the complete file its name, durably.
    async fn keep(self, path: &Path) -> Result<(), Failure> {
        let (from, to) = (self.path.clone(), path.to_owned());
        let renamed = tokio::task::spawn_blocking(move || {
            std::fs::rename(&from, &to)
                .and_then(|()| sync_directory(&to))
                .map_err(|error| disk_failure("rename to", &to, 0, &error))
        });
        renamed.await.map_err(|panicked| {
            Failure::new(FailureCode::BackupFailed, format!("rename the dump: {panicked}"))
        })?
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "an incomplete dump is left");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_incomplete_dump_is_private_and_goes_when_it_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("backups/payram.dump");
        let partial = Partial::of(&path);
        std::fs::create_dir(directory.path().join("backups")).expect("a directory");
        std::fs::write(&partial.path, "left by an interrupted attempt").expect("a file");
        let file = partial.create().expect("a file");
        let metadata = file.metadata().expect("metadata");
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (0, 0o600));
        let incomplete = partial.path.clone();
        drop(partial);
        assert!(!incomplete.exists() && !path.exists());
    }

    #[tokio::test]
    async fn a_kept_dump_has_its_name_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/backups/payram.dump");
        let partial = Partial::of(&path);
        partial.create().expect("a file");
        partial.keep(&path).await.expect("kept");
        let mode =
            |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&directory.path().join("deep/backups")), 0o700);
        let files = std::fs::read_dir(directory.path().join("deep/backups")).expect("a listing");
        assert_eq!(files.count(), 1);
    }

    #[test]
    fn a_full_disk_says_where_and_after_how_much() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let failure = disk_failure("write", Path::new("/backups/a.dump.partial"), 4096, &full);
        assert_eq!(failure.code, FailureCode::DiskSpaceLow);
        assert!(failure.message.contains("/backups/a.dump.partial after 4096 bytes"));
    }
}
