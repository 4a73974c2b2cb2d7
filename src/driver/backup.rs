//! A backup by hand: the dump, its proof, what is noted beside it, retention, and the copy that
//! leaves the host. Not a job: it changes nothing but the backup directory, and one that is
//! interrupted leaves a file with another name, which the next removes.
//!
//! Called by the API for `backup create`. While one is made no job begins, and none is made while
//! a job is under way: an upgrade stops the database under it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::shop::Shop;
use super::{Driver, Progress, copy_out, durable};
use crate::clock::Timestamp;
use crate::config::BackupProof;
use crate::database::{self, BackupFile, FullProof, Runner, Sidecar};
use crate::error::Trouble;
use crate::journal::{JobId, JournalError, NewEvent};
use crate::machine::facts::{Backup, Proof};
use crate::machine::failure::{Failure, FailureCode};
use crate::plan::free_bytes;

/// What stands for both versions in the name of a backup by hand.
const BY_HAND: &str = "manual";

/// How long `pg_restore --list` may take.
const PROOF_TIMEOUT: Duration = Duration::from_secs(300);

/// The least that must be free for a backup.
const LEAST_FREE: u64 = 1_000_000_000;

/// A backup that was made, as `backup create` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeBackup {
    /// Its name without the ending.
    pub id: String,
    /// Where it is.
    pub path: String,
    /// The last part of that.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
    /// Hex sha256.
    pub checksum: String,
    /// RFC 3339.
    pub created_at: String,
    /// `manual`
    pub from_version: String,
    /// `manual`
    pub target_version: String,
    /// The version that served, where it said one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The database's name.
    pub database: String,
    /// Its host, as the application calls it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it was proved, as a sentence.
    pub proof: String,
    /// Rows in it, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Older backups that were removed for it (`BACKUP_RETENTION`).
    pub pruned: Vec<String>,
    /// How `BACKUP_COPY_COMMAND` ended, as a sentence; none where there is no command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied: Option<CopyEnd>,
}

/// How `BACKUP_COPY_COMMAND` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyEnd {
    /// Whether it ended well.
    pub success: bool,
    /// A sentence.
    pub message: String,
}

/// Why no backup was made, or no job begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// A job is under way.
    #[error("job {0} is under way")]
    Job(JobId),
    /// A backup is being made by hand.
    #[error("a backup is being made by hand")]
    Backup,
    /// The journal.
    #[error(transparent)]
    Journal(JournalError),
    /// Anything else.
    #[error(transparent)]
    Failed(Failure),
}

impl From<JournalError> for NotBegun {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::AlreadyActive { job } => NotBegun::Job(job),
            error => NotBegun::Journal(error),
        }
    }
}

impl From<Failure> for NotBegun {
    fn from(failure: Failure) -> Self {
        NotBegun::Failed(failure)
    }
}

/// A proof: what it found, said as a sentence, and the rows where they were counted.
pub(super) struct Proved {
    pub proof: Option<Proof>,
    pub rows: Option<u64>,
    pub said: String,
}

/// The place of the one backup by hand; free again when dropped.
struct InHand<'d>(&'d Driver);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        *self.0.by_hand.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.backup_progress.send_replace(None);
    }
}

impl Driver {
    /// How far the backup by hand is; none when none is made.
    pub fn backup_in_hand(&self) -> Option<Progress> {
        *self.backup_progress.borrow()
    }

    /// The backups there are, newest first.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub async fn backups(&self) -> Result<Vec<BackupFile>, Failure> {
        let dir = self.settings.backup_dir.clone();
        let listed = tokio::task::spawn_blocking(move || database::list(&dir)).await;
        listed.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Does something that begins a job, as long as no backup is made by hand.
    pub(super) fn begin<T>(
        &self,
        begin: impl FnOnce() -> Result<T, JournalError>,
    ) -> Result<T, NotBegun> {
        let by_hand = self.by_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if *by_hand {
            return Err(NotBegun::Backup);
        }
        Ok(begin()?)
    }

    fn take_in_hand(&self) -> Result<InHand<'_>, NotBegun> {
        let mut by_hand = self.by_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if *by_hand {
            return Err(NotBegun::Backup);
        }
        if let Some(job) = self.reader.active_job()? {
            return Err(NotBegun::Job(job.id));
        }
        if let Some(job) = self.reader.active_restore()? {
            return Err(NotBegun::Job(job.id));
        }
        if let Some(job) = self.reader.active_rehearsal()? {
            return Err(NotBegun::Job(job.id));
        }
        *by_hand = true;
        self.backup_progress.send_replace(Some(Progress::default()));
        Ok(InHand(self))
    }

    /// Makes a backup by hand.
    ///
    /// # Errors
    /// When a job is under way, or it can't be made; what was begun is removed then.
    pub async fn back_up_by_hand(&self) -> Result<MadeBackup, NotBegun> {
        self.make_way("a backup by hand").await?;
        let _in_hand = self.take_in_hand()?;
        let shop = self.shop().await?;
        let made = self.make(&shop).await;
        if let Err(failure) = &made {
            let event = self.event(&shop, "failed", failure.message.clone(), None, Some(failure));
            self.note_of(None, vec![event]).await?;
        }
        Ok(made?)
    }

    async fn make(&self, shop: &Shop) -> Result<MadeBackup, Failure> {
        let began = Timestamp::now();
        self.remove_interrupted().await;
        let runner = shop.runner(self);
        let size = database::size(&runner).await.map_err(Trouble::into_failure)?;
        self.must_have_room(size).await?;
        self.remember(&shop.database).await;
        let path = self.free_path(began);
        let mut told = |done_bytes| {
            self.backup_progress.send_replace(Some(Progress { done_bytes, total_bytes: 0 }));
        };
        let file = database::dump(&runner, &path, self.settings.backup_timeout, &mut told).await;
        let file = file.map_err(Trouble::into_failure)?;
        let backup = Backup {
            path: path.to_string_lossy().into_owned(),
            size_bytes: file.size_bytes,
            sha256: file.sha256,
            database_host: shop.database.host.clone(),
            database_port: shop.database.port,
            database_name: shop.database.name.clone(),
        };
        let version = self.serving_version(shop).await;
        let server = database::server_version(&runner).await.ok();
        let mut sidecar = Sidecar::of(&backup, version.clone(), None, None, server, None);
        sidecar.write_beside(&path)?;
        let written = format!("backup written to {}", backup.path);
        let mut events = vec![self.event(shop, "succeeded", written, Some(&backup), None)];
        let proved =
            self.prove_file(&runner, &path, &backup).await.map_err(Trouble::into_failure)?;
        sidecar.proof.clone_from(&proved.proof);
        sidecar.rows = proved.rows;
        sidecar.write_beside(&path)?;
        if proved.proof.is_some() {
            let said = proved.said.clone();
            events.push(self.event(shop, "validated", said, Some(&backup), None));
        }
        self.note_of(None, events).await.map_err(|error| {
            Failure::new(FailureCode::BackupFailed, format!("journal the backup: {error}"))
        })?;
        let pruned = self.prune(&path).await?;
        let copied = match proved.proof.is_some() {
            true => self.copy_out(None, &path, shop).await,
            false => None,
        };
        let filename = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(MadeBackup {
            id: filename.trim_end_matches(".dump").to_owned(),
            path: backup.path,
            filename,
            size: backup.size_bytes,
            checksum: backup.sha256,
            created_at: began.rfc3339(),
            from_version: BY_HAND.to_owned(),
            target_version: BY_HAND.to_owned(),
            version,
            database: backup.database_name,
            host: backup.database_host,
            port: backup.database_port,
            proof: proved.said,
            rows: proved.rows,
            pruned: pruned.iter().map(|path| path.display().to_string()).collect(),
            copied,
        })
    }

    /// As the contract counts it: one and a half times the database, at least 1 GB.
    async fn must_have_room(&self, size: u64) -> Result<(), Failure> {
        let need = (size.saturating_mul(3) / 2).max(LEAST_FREE);
        let dir = &self.settings.backup_dir;
        match free_bytes(dir).await {
            Some(have) if have < need => Err(too_little_room(dir, need, have, "a backup")),
            Some(_) | None => Ok(()),
        }
    }

    /// A name of this second; of the next ones where a backup of this one is there.
    fn free_path(&self, at: Timestamp) -> PathBuf {
        let path = |second: i64| {
            let at = Timestamp::from_millis(at.millis() + second * 1000);
            self.settings.backup_dir.join(database::file_name(at, BY_HAND, BY_HAND))
        };
        (0..60).map(path).find(|path| !path.exists()).unwrap_or_else(|| path(60))
    }

    /// What interrupted attempts left: no job and no other backup is under way.
    async fn remove_interrupted(&self) {
        let dir = self.settings.backup_dir.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let is_ours = name.starts_with("payram-backup-") && name.ends_with(".partial");
                if is_ours && let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "an incomplete dump is left");
                }
            }
        });
        // What it met is in the log.
        let _ = removed.await;
    }

    /// The proof that `BACKUP_PROOF` asks for.
    pub(super) async fn prove_file(
        &self,
        runner: &Runner<'_>,
        path: &Path,
        backup: &Backup,
    ) -> Result<Proved, Trouble> {
        database::verify_file(path, backup).await?;
        let limit = self.settings.backup_timeout;
        let read_back = async |why: &str| {
            let proof = database::prove(runner, path, PROOF_TIMEOUT).await?;
            let said = format!(
                "the backup was read back{why}: {} entries, data of {} tables",
                proof.toc_entries, proof.tables
            );
            Ok(Proved { proof: Some(proof), rows: None, said })
        };
        match self.settings.backup_proof {
            BackupProof::Full => match database::prove_full(runner, path, limit).await? {
                FullProof::Proved { proof, rows } => {
                    let counted = rows.map_or("not counted".to_owned(), |rows| rows.to_string());
                    let said = format!(
                        "the backup was restored into a database of its own and compared: data of {} tables, rows: {counted}",
                        proof.tables
                    );
                    Ok(Proved { proof: Some(proof), rows, said })
                }
                FullProof::NotAllowed { reason } => {
                    read_back(&format!(" and not restored ({reason})")).await
                }
            },
            BackupProof::Toc => read_back("").await,
            BackupProof::Off => {
                let said = "the backup was not proved (BACKUP_PROOF=off)".to_owned();
                Ok(Proved { proof: None, rows: None, said })
            }
        }
    }

    /// Removes the oldest backups, but none that the last upgrade's way back needs.
    async fn prune(&self, made: &Path) -> Result<Vec<PathBuf>, Failure> {
        let last = self.reader.last_executed_job().map_err(|error| {
            Failure::new(
                FailureCode::BackupFailed,
                format!("ask which backups are needed: {error}"),
            )
        })?;
        let mut protected = vec![made.to_owned()];
        for hop in last.iter().flat_map(|job| &job.hops) {
            let known = hop.machine.state().known();
            protected.extend(known.backup.map(|backup| PathBuf::from(&backup.path)));
        }
        let (dir, keep) =
            (self.settings.backup_dir.clone(), self.settings.backup_retention.get() as usize);
        let pruned =
            tokio::task::spawn_blocking(move || database::retention(&dir, keep, &protected)).await;
        pruned.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Runs `BACKUP_COPY_COMMAND`, where there is one, and journals its end.
    async fn copy_out(&self, job: Option<&JobId>, path: &Path, shop: &Shop) -> Option<CopyEnd> {
        let command = self.settings.backup_copy_command.as_deref()?;
        let within = self.settings.backup_timeout;
        let copied = copy_out::run(command, path, within, &shop.database.password).await;
        let (event, lines) = copied_event(&copied, path);
        for line in &lines {
            tracing::info!("{line}");
        }
        let message = event.message.clone();
        if let Err(error) = self.note_of(job, vec![event]).await {
            tracing::warn!(%error, "the end of BACKUP_COPY_COMMAND could not be journaled");
        }
        Some(CopyEnd { success: copied.end.is_ok(), message })
    }

    async fn note_of(
        &self,
        job: Option<&JobId>,
        events: Vec<NewEvent>,
    ) -> Result<(), JournalError> {
        let (journal, job) = (Arc::clone(&self.journal), job.cloned());
        durable(move || match job {
            Some(job) => journal.note_of(&job, &events),
            None => journal.note(&events),
        })
        .await
    }

    fn event(
        &self,
        shop: &Shop,
        status: &'static str,
        message: String,
        backup: Option<&Backup>,
        failure: Option<&Failure>,
    ) -> NewEvent {
        let mut data = BTreeMap::from([
            ("fromVersion".to_owned(), BY_HAND.to_owned()),
            ("targetVersion".to_owned(), BY_HAND.to_owned()),
            ("dbHost".to_owned(), shop.database.host.clone()),
            ("dbPort".to_owned(), shop.database.port.to_string()),
            ("dbName".to_owned(), shop.database.name.clone()),
        ]);
        if let Some(container) = &shop.container {
            data.insert("container".into(), container.name.clone());
        }
        if let Some(backup) = backup {
            data.insert("backupPath".into(), backup.path.clone());
            data.insert("sizeBytes".into(), backup.size_bytes.to_string());
        }
        if let Some(failure) = failure {
            data.insert("failureCode".into(), failure.code.to_string());
        }
        NewEvent { kind: "backup", status, message, data }
    }
}

/// The end of a copy as an event, and its output as lines.
pub(super) fn copied_event(copied: &copy_out::Copied, path: &Path) -> (NewEvent, Vec<String>) {
    let lines = copied.said.iter().map(|line| format!("BACKUP_COPY_COMMAND: {line}")).collect();
    let (status, how) = match &copied.end {
        Ok(how) => ("succeeded", how),
        Err(how) => ("failed", how),
    };
    let message = match &copied.end {
        Ok(_) => format!("BACKUP_COPY_COMMAND copied {}: {how}", path.display()),
        Err(_) => format!(
            "BACKUP_COPY_COMMAND did not copy {}: {how}; the backup itself is good",
            path.display()
        ),
    };
    let data = BTreeMap::from([("backupPath".to_owned(), path.to_string_lossy().into_owned())]);
    (NewEvent { kind: "backup_copy", status, message, data }, lines)
}

/// `DISK_SPACE_LOW` with the path, need, have and short by.
pub(super) fn too_little_room(path: &Path, need: u64, have: u64, what: &str) -> Failure {
    let gb = crate::plan::space::gb;
    let message = format!(
        "not enough space on disk for {what}: {}: need {}, have {}, short by {}",
        path.display(),
        gb(need),
        gb(have),
        gb(need.saturating_sub(have))
    );
    Failure::new(FailureCode::DiskSpaceLow, message)
}
