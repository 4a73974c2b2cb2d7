//! Which backups there are, and whether one may be restored (contract section 5).
//!
//! Called by the backup commands and `GET /backups`, and by the driver before a restore. Reads
//! only.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::prove;
use super::retention::{STAMP, dumps, stamp};
use super::runner::Runner;
use super::sidecar::{PREFIX, Sidecar, checksum, verify_file};
use super::statements;
use crate::clock::Timestamp;
use crate::error::Trouble;
use crate::machine::facts::Backup;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore::Format;

/// What every archive of `pg_dump -Fc` begins with.
const MAGIC: &[u8] = b"PGDMP";

/// How long reading the file back may take.
const READ_BACK_WITHIN: Duration = Duration::from_secs(600);

/// A backup as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupFile {
    /// Its path.
    pub file: String,
    /// The last part of that.
    pub filename: String,
    /// `dump` or `sql`.
    pub format: &'static str,
    /// The version in its name before `-to-`.
    pub from_version: String,
    /// The version after it.
    pub to_version: String,
    /// RFC 3339.
    pub created_at: String,
    /// Its size.
    pub size_bytes: u64,
    /// The application's version when it was made, where it was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Hex sha256, where it was noted; the file is not read for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Rows in it, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The job that made it, where it was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}

impl BackupFile {
    fn of(made: &str, path: &Path) -> std::io::Result<Self> {
        let filename = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (from_version, to_version) = versions(&filename);
        let sidecar = Sidecar::beside(path);
        let size_bytes = std::fs::symlink_metadata(path)?.len();
        let noted = sidecar.as_ref().map(|noted| noted.created_at.clone());
        Ok(Self {
            file: path.to_string_lossy().into_owned(),
            format: if filename.ends_with(".sql") { "sql" } else { "dump" },
            filename,
            from_version,
            to_version,
            created_at: noted.unwrap_or_else(|| in_words(made)),
            size_bytes,
            version: sidecar.as_ref().and_then(|noted| noted.from_version.clone()),
            checksum: sidecar.as_ref().map(|noted| noted.sha256.clone()),
            rows: sidecar.as_ref().and_then(|noted| noted.rows),
            job_id: sidecar.and_then(|noted| noted.job_id),
        })
    }
}

/// The backups in a directory, newest first; a directory that is not there holds none.
///
/// # Errors
/// `BACKUP_FAILED` when it can't be read.
pub fn list(dir: &Path) -> Result<Vec<BackupFile>, Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("list backups in {}: {error}", dir.display());
        Failure::new(FailureCode::BackupFailed, message)
    };
    let mut found = dumps(dir).map_err(failed)?;
    found.sort();
    let mut files = Vec::with_capacity(found.len());
    for (made, path) in found.iter().rev() {
        match BackupFile::of(made, path) {
            Ok(file) => files.push(file),
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(files)
}

/// The versions in a dump's name, before and after `-to-`.
pub fn versions(filename: &str) -> (String, String) {
    let rest = filename.strip_prefix(PREFIX).unwrap_or(filename);
    let rest = match stamp(rest) {
        Some(_) => rest.get(STAMP + 1..).unwrap_or_default(),
        None => rest,
    };
    let rest = rest.strip_suffix(".dump").or_else(|| rest.strip_suffix(".sql")).unwrap_or(rest);
    let (from, to) = rest.split_once("-to-").unwrap_or((rest, ""));
    (from.to_owned(), to.to_owned())
}

/// `YYYYMMDD-HHMMSS` as RFC 3339.
fn in_words(made: &str) -> String {
    let part = |from: usize, to: usize| made.get(from..to).unwrap_or_default();
    let (date, time) = ((part(0, 4), part(4, 6), part(6, 8)), (part(9, 11), part(11, 13)));
    format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, time.0, time.1, part(13, 15))
}

/// A backup's file that may be restored, as far as can be told from it and its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its format.
    pub format: Format,
    /// Its size.
    pub size_bytes: u64,
    /// Hex sha256 of it.
    pub sha256: String,
    /// Whether a sidecar said the same; without one the file is all there is.
    pub has_sidecar: bool,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// The application's version then, where it was noted.
    pub version: Option<String>,
    /// Rows in it, where they were counted.
    pub rows: Option<u64>,
}

/// Checks the file: there, regular, not empty, as its sidecar says.
///
/// # Errors
/// `BACKUP_INVALID` with what was expected and found.
pub async fn check(path: &Path) -> Result<Checked, Failure> {
    let bad = |reason: String| {
        Failure::new(FailureCode::BackupInvalid, format!("backup {}: {reason}", path.display()))
    };
    let metadata = std::fs::symlink_metadata(path).map_err(|error| bad(error.to_string()))?;
    if !metadata.is_file() {
        return Err(bad("it is not a regular file".into()));
    }
    if metadata.len() == 0 {
        return Err(bad("it is empty".into()));
    }
    let format = format_of(path).map_err(bad)?;
    let noted = Sidecar::path(path);
    let sidecar = Sidecar::beside(path);
    if sidecar.is_none() && noted.exists() {
        return Err(bad(format!(
            "what was noted of it, {}, is not understood, so its checksum can't be compared",
            noted.display()
        )));
    }
    if let Some(sidecar) = &sidecar {
        verify_file(path, &as_noted(path, sidecar)).await?;
    }
    let (size_bytes, sha256) = match &sidecar {
        Some(sidecar) => (sidecar.size_bytes, sidecar.sha256.clone()),
        None => checksum(path).await?,
    };
    let filename = path.file_name().unwrap_or_default().to_string_lossy();
    let named = filename.strip_prefix(PREFIX).and_then(stamp).map(in_words);
    let written = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written = written.unwrap_or_default().as_millis() as i64;
    let noted_at = sidecar.as_ref().map(|sidecar| sidecar.created_at.clone());
    // Of the earlier tool's backups the name alone says it.
    let by_name = Some(versions(&filename).0)
        .filter(|from| named.is_some() && from.starts_with(|c: char| c.is_ascii_digit()));
    Ok(Checked {
        format,
        size_bytes,
        sha256,
        has_sidecar: sidecar.is_some(),
        made_at: noted_at.or(named).unwrap_or_else(|| Timestamp::from_millis(written).rfc3339()),
        version: match &sidecar {
            Some(sidecar) => sidecar.from_version.clone(),
            None => by_name,
        },
        rows: sidecar.and_then(|sidecar| sidecar.rows),
    })
}

/// Reads the file back: an archive's table of contents, or statements from the first to the last.
/// Answers the rows in it, where the file itself says them.
///
/// # Errors
/// `BACKUP_INVALID` when it can't be.
pub async fn read_back(
    runner: &Runner<'_>,
    path: &Path,
    format: Format,
) -> Result<Option<u64>, Trouble> {
    match format {
        Format::Dump => prove::contents(runner, path, READ_BACK_WITHIN).await.map(|_| None),
        Format::Sql => {
            let found = statements::survey(path).await?;
            // Rows that are statements of their own (`--inserts`) are not counted.
            Ok((found.tables > 0).then_some(found.rows))
        }
    }
}

/// By its name, and what it begins with.
fn format_of(path: &Path) -> Result<Format, String> {
    use std::io::Read as _;
    let mut head = [0; MAGIC.len()];
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let is_archive = match file.read_exact(&mut head) {
        Ok(()) => head == MAGIC,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error.to_string()),
    };
    let is_named = |ending: &str| path.extension().is_some_and(|found| found == ending);
    match (is_archive, is_named("sql")) {
        (true, false) => Ok(Format::Dump),
        (true, true) => Err("it is an archive of pg_dump -Fc and named .sql".into()),
        (false, true) => Ok(Format::Sql),
        (false, false) => Err(
            "it is no backup: expected an archive of pg_dump -Fc, or statements in a file named .sql"
                .into(),
        ),
    }
}

fn as_noted(path: &Path, sidecar: &Sidecar) -> Backup {
    Backup {
        path: path.to_string_lossy().into_owned(),
        size_bytes: sidecar.size_bytes,
        sha256: sidecar.sha256.clone(),
        database_host: sidecar.host.clone(),
        database_port: sidecar.port,
        database_name: sidecar.database.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, name: &str, text: &[u8]) -> std::path::PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    #[test]
    fn backups_of_both_formats_are_listed_newest_first_with_what_their_names_say() {
        let directory = tempfile::tempdir().expect("a directory");
        file(directory.path(), "payram-backup-20240102-030405-1.7.0-to-1.8.0.sql", b"--");
        file(directory.path(), "payram-backup-20260131-120000-manual-to-manual.dump", b"PGDMP");
        file(directory.path(), "notes.txt", b"");
        let listed = list(directory.path()).expect("a list");
        let seen: Vec<_> = listed
            .iter()
            .map(|one| (one.format, one.from_version.as_str(), one.to_version.as_str()))
            .collect();
        assert_eq!(seen, [("dump", "manual", "manual"), ("sql", "1.7.0", "1.8.0")]);
        assert_eq!(listed[1].created_at, "2024-01-02T03:04:05Z");
        assert_eq!(list(Path::new("/nonexistent/backups")), Ok(Vec::new()));
    }

    #[tokio::test]
    async fn what_is_no_backup_is_refused_and_says_why() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str, text: &[u8]| file(directory.path(), name, text);
        for (path, why) in [
            (at("empty.dump", b""), "it is empty"),
            (at("foreign.dump", b"GIF89a..."), "it is no backup"),
            (at("short.dump", b"PG"), "it is no backup"),
            (at("archive.sql", b"PGDMP..."), "named .sql"),
            (directory.path().to_owned(), "not a regular file"),
            (directory.path().join("none.dump"), "No such file"),
        ] {
            let failure = check(&path).await.expect_err(why);
            assert_eq!(failure.code, FailureCode::BackupInvalid);
            assert!(failure.message.contains(why), "{failure}");
        }
        let noted = at("noted.dump", b"PGDMP...");
        at("noted.dump.json", b"{\"sha256\":");
        assert!(check(&noted).await.expect_err("refused").message.contains("not understood"));
        let fine = check(&at("fine.dump", b"PGDMP...")).await.expect("a backup");
        assert_eq!((fine.format, fine.size_bytes, fine.has_sidecar), (Format::Dump, 8, false));
        let old = at("payram-backup-20240102-030405-1.7.0-to-1.8.0.sql", b"--");
        let old = check(&old).await.expect("a backup");
        assert_eq!((old.format, old.version.as_deref()), (Format::Sql, Some("1.7.0")));
    }
}
