//! A dump's name, the JSON beside it, and its checksum (contract section 5).
//!
//! Called by the driver's `back_up` and `prove_backup` and by the backup commands. The sidecar
//! says what the dump is without opening it; nothing depends on it alone: whoever uses a dump
//! checks it against the file with [`verify_file`].

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::machine::facts::{Backup, Proof};
use crate::machine::failure::{Failure, FailureCode};

/// What every dump's name begins with.
pub(super) const PREFIX: &str = "payram-backup-";

/// Characters of a version that go into a name at most.
const VERSION_LENGTH: usize = 64;

/// Bytes of a sidecar that are read at most.
const LARGEST_SIDECAR: u64 = 1024 * 1024;

/// Bytes that are hashed at once.
const PIECE: usize = 256 * 1024;

/// What is known of a dump, written beside it as `FILE.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Hex sha256 of the dump.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The database's name.
    pub database: String,
    /// Its host, as the application calls it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The application's version when the dump was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
    /// The version that it was to be upgraded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_version: Option<String>,
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// What proved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Rows in it, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

impl Sidecar {
    /// What is known of a dump that was made now.
    pub fn of(
        backup: &Backup,
        from_version: Option<String>,
        to_version: Option<String>,
        job_id: Option<String>,
        server_version: Option<String>,
        proof: Option<Proof>,
    ) -> Self {
        Self {
            sha256: backup.sha256.clone(),
            size_bytes: backup.size_bytes,
            database: backup.database_name.clone(),
            host: backup.database_host.clone(),
            port: backup.database_port,
            server_version,
            from_version,
            to_version,
            job_id,
            created_at: Timestamp::now().rfc3339(),
            proof,
            rows: None,
        }
    }

    /// The sidecar of the dump at `path`; none when there is none that can be understood.
    pub fn beside(path: &Path) -> Option<Self> {
        let file = File::open(Self::path(path)).ok()?;
        let mut text = String::new();
        file.take(LARGEST_SIDECAR).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes it beside the dump at `path`, whole or not at all. What an earlier sidecar of the
    /// same dump knew and this one does not is kept: the dump was made then.
    ///
    /// # Errors
    /// `DISK_SPACE_LOW` or `BACKUP_FAILED` with the path.
    pub fn write_beside(&self, path: &Path) -> Result<(), Failure> {
        let mut sidecar = self.clone();
        if let Some(earlier) = Self::beside(path).filter(|found| found.sha256 == self.sha256) {
            sidecar.created_at = earlier.created_at;
            sidecar.server_version = sidecar.server_version.or(earlier.server_version);
            sidecar.proof = sidecar.proof.or(earlier.proof);
            sidecar.rows = sidecar.rows.or(earlier.rows);
        }
        let target = Self::path(path);
        sidecar.write(&target).map_err(|error| {
            let code = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FailureCode::DiskSpaceLow,
                _ => FailureCode::BackupFailed,
            };
            Failure::new(code, format!("write {}: {error}", target.display()))
        })
    }

    fn write(&self, target: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let partial = with_suffix(target, ".partial");
        match std::fs::remove_file(&partial) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&partial, target)?;
        sync_directory(target)
    }

    /// Where the sidecar of the dump at `path` is.
    pub(crate) fn path(path: &Path) -> PathBuf {
        with_suffix(path, ".json")
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `payram-backup-YYYYMMDD-HHMMSS-FROM-to-TO.dump`; a character that file names dislike becomes
/// `_`. A function of its arguments alone, so that a step that is run again finds its dump.
pub fn file_name(at: Timestamp, from: &str, to: &str) -> String {
    format!("{PREFIX}{}-{}-to-{}.dump", at.compact(), part(from), part(to))
}

fn part(version: &str) -> String {
    if version.is_empty() {
        return "unknown".into();
    }
    version
        .chars()
        .take(VERSION_LENGTH)
        .map(|c| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' })
        .collect()
}

/// Size and hex sha256 of a file.
///
/// # Errors
/// `BACKUP_INVALID` when it can't be read.
pub async fn checksum(path: &Path) -> Result<(u64, String), Failure> {
    let read = path.to_owned();
    let summed = tokio::task::spawn_blocking(move || -> std::io::Result<(u64, String)> {
        let mut file = File::open(&read)?;
        let (mut sha, mut size) = (Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            match piece.get(..read) {
                Some(bytes) if read > 0 => sha.update(bytes),
                Some(_) | None => return Ok((size, hex(&sha.finalize()))),
            }
            size += read as u64;
        }
    });
    let failed = |reason: String| {
        Failure::new(FailureCode::BackupInvalid, format!("read {}: {reason}", path.display()))
    };
    match summed.await {
        Ok(Ok(summed)) => Ok(summed),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(panicked) => Err(failed(panicked.to_string())),
    }
}

/// Checks that the file is the dump that `backup` says: there, a regular file, of its size and
/// its checksum.
///
/// # Errors
/// `BACKUP_INVALID` with what was expected and found.
pub async fn verify_file(path: &Path, backup: &Backup) -> Result<(), Failure> {
    let (path, size, sha256) = (path.to_owned(), backup.size_bytes, backup.sha256.clone());
    let checked = tokio::task::spawn_blocking(move || {
        verify(&path, size, &sha256)
            .map_err(|reason| format!("backup {}: {reason}", path.display()))
    });
    let checked = checked.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
    checked.map_err(|message| Failure::new(FailureCode::BackupInvalid, message))
}

fn verify(path: &Path, size: u64, sha256: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let metadata = std::fs::symlink_metadata(path).map_err(text)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    if metadata.len() != size {
        return Err(format!("expected {size} bytes, found {}", metadata.len()));
    }
    let mut file = File::open(path).map_err(text)?;
    let mut sha = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        let read = file.read(&mut piece).map_err(text)?;
        match piece.get(..read) {
            Some(part) if !part.is_empty() => sha.update(part),
            Some(_) | None => break,
        }
    }
    match hex(&sha.finalize()) {
        found if found == sha256 => Ok(()),
        found => Err(format!("expected sha256 {sha256}, found {found}")),
    }
}

/// Makes the name of a file durable.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn backup(text: &[u8]) -> Backup {
        Backup {
            path: "/backups/a.dump".into(),
            size_bytes: text.len() as u64,
            sha256: hex(&Sha256::digest(text)),
            database_host: "localhost".into(),
            database_port: 5432,
            database_name: "payram".into(),
        }
    }

    fn sidecar(proof: Option<Proof>) -> Sidecar {
        Sidecar::of(
            &backup(b"dump"),
            Some("1.9.6".into()),
            Some("1.9.7".into()),
            Some("job-1".into()),
            proof.is_none().then(|| "15.18".into()),
            proof,
        )
    }

    #[test]
    fn a_dump_is_named_by_its_time_and_its_versions() {
        let at = Timestamp::from_millis(1_769_860_800_250);
        assert_eq!(
            file_name(at, "1.9.6", "1.9.7-arm64"),
            "payram-backup-20260131-120000-1.9.6-to-1.9.7-arm64.dump"
        );
        assert_eq!(
            file_name(at, "../../etc passwd", ""),
            "payram-backup-20260131-120000-.._.._etc_passwd-to-unknown.dump"
        );
    }

    #[test]
    fn a_sidecar_reads_as_the_contract_says_and_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.dump");
        sidecar(None).write_beside(&path).expect("written");
        let json = directory.path().join("a.dump.json");
        let text = std::fs::read_to_string(&json).expect("a sidecar");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["sizeBytes"], 4);
        assert_eq!(value["serverVersion"], "15.18");
        assert_eq!(value["fromVersion"], "1.9.6");
        assert_eq!(value["toVersion"], "1.9.7");
        assert_eq!(value["jobId"], "job-1");
        assert!(value.get("proof").is_none());
        let mode = std::fs::metadata(&json).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_sidecar_written_again_keeps_when_the_dump_was_made_and_by_which_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.dump");
        let mut first = sidecar(None);
        first.created_at = "2026-01-31T12:00:00Z".into();
        first.write_beside(&path).expect("written");
        let proof = Proof { toc_entries: 9, tables: 2 };
        sidecar(Some(proof.clone())).write_beside(&path).expect("written");
        let found = Sidecar::beside(&path).expect("a sidecar");
        assert_eq!(found, Sidecar { proof: Some(proof), ..first });
    }

    #[test]
    fn a_sidecar_that_is_no_json_is_as_good_as_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.dump");
        assert_eq!(Sidecar::beside(&path), None);
        std::fs::write(directory.path().join("a.dump.json"), "{\"sha256\": ").expect("a file");
        assert_eq!(Sidecar::beside(&path), None);
    }

    #[tokio::test]
    async fn a_dump_that_was_changed_cut_or_replaced_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.dump");
        let refusal = async |text: &str| {
            let failure = verify_file(&path, &backup(b"dump")).await.expect_err("a refusal");
            assert_eq!(failure.code, FailureCode::BackupInvalid);
            assert!(failure.message.contains(text), "{}", failure.message);
        };
        refusal("No such file").await;
        std::fs::write(&path, b"dump").expect("a file");
        verify_file(&path, &backup(b"dump")).await.expect("the dump");
        std::fs::write(&path, b"bump").expect("a file");
        refusal("expected sha256").await;
        std::fs::write(&path, b"dum").expect("a file");
        refusal("expected 4 bytes, found 3").await;
        std::fs::rename(&path, directory.path().join("b.dump")).expect("renamed");
        std::os::unix::fs::symlink(directory.path().join("b.dump"), &path).expect("a link");
        refusal("not a regular file").await;
    }

    proptest! {
        #[test]
        fn a_name_is_one_path_component_whatever_the_versions_are(from in ".{0,90}", to in ".{0,90}") {
            let name = file_name(Timestamp::from_millis(0), &from, &to);
            prop_assert!(name.starts_with(PREFIX) && name.ends_with(".dump"));
            prop_assert!(name.len() < 200 && !name.contains('/') && name.is_ascii());
            prop_assert_eq!(Path::new(&name).components().count(), 1);
        }
    }
}
