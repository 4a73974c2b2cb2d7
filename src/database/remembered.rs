//! Where the application's database was found last, with its password, so that a backup can be
//! restored when the container that names it is gone (contract section 4).
//!
//! One file of mode 0600 in the state directory, written by the driver whenever it has asked the
//! database with success. It counts only where there is no container to ask.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::locate::{Access, Database};
use super::sidecar::sync_directory;
use crate::machine::failure::{Failure, FailureCode};
use crate::secret::Secret;

/// The file's name.
const NAME: &str = "database.json";

/// Bytes of it that are read at most.
const LARGEST: u64 = 64 * 1024;

/// Its contents; nothing else serialises a password.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remembered {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sslmode: Option<String>,
    is_in_container: bool,
}

/// Writes down where the database is, unless that is written already.
///
/// # Errors
/// `BACKUP_FAILED` when it can't be written.
pub fn remember(state_dir: &Path, database: &Database) -> Result<(), Failure> {
    let found = Remembered {
        host: database.host.clone(),
        port: database.port,
        database: database.name.clone(),
        user: database.user.clone(),
        password: database.password.expose().clone(),
        sslmode: database.sslmode.clone(),
        is_in_container: database.access == Access::InContainer,
    };
    let path = state_dir.join(NAME);
    if read(&path).is_ok_and(|known| known.as_ref() == Some(&found)) {
        return Ok(());
    }
    write(&path, &found).map_err(|error| {
        let message = format!("write {}: {error}", path.display());
        Failure::new(FailureCode::BackupFailed, message)
    })
}

/// Where it was last; none when that was never written down.
///
/// # Errors
/// `INVALID_DB_CONFIG` when the file can't be read or understood.
pub fn recall(state_dir: &Path) -> Result<Option<Database>, Failure> {
    let path = state_dir.join(NAME);
    let found = read(&path).map_err(|error| {
        let message = format!("read {}: {error}", path.display());
        Failure::new(FailureCode::InvalidDbConfig, message)
    })?;
    Ok(found.map(|found| Database {
        host: found.host,
        port: found.port,
        name: found.database,
        user: found.user,
        password: Secret::new(found.password),
        sslmode: found.sslmode,
        access: if found.is_in_container { Access::InContainer } else { Access::OnHost },
    }))
}

fn read(path: &Path) -> std::io::Result<Option<Remembered>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text)?;
    // What serde says of a value would quote it.
    let bad = |_| std::io::Error::new(ErrorKind::InvalidData, "it is not what was written there");
    serde_json::from_str(&text).map(Some).map_err(bad)
}

/// Under another name, synced, renamed: the file is whole or not there.
fn write(path: &Path, found: &Remembered) -> std::io::Result<()> {
    let partial: PathBuf = path.with_extension("json.partial");
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(&serde_json::to_vec(found)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    sync_directory(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn database(password: &str) -> Database {
        Database {
            host: "db".into(),
            port: 5433,
            name: "payram".into(),
            user: "payram".into(),
            password: Secret::new(password.into()),
            sslmode: Some("require".into()),
            access: Access::OnHost,
        }
    }

    #[test]
    fn what_was_found_last_is_recalled_and_is_nobody_elses_to_read() {
        let state = tempfile::tempdir().expect("a directory");
        assert!(recall(state.path()).expect("reads").is_none());
        for password in ["first-password", "second-password", "second-password"] {
            remember(state.path(), &database(password)).expect("written");
            let found = recall(state.path()).expect("reads").expect("there");
            assert_eq!(found.password.expose(), password);
            assert_eq!((found.host.as_str(), found.access), ("db", Access::OnHost));
        }
        let path = state.path().join(NAME);
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "{\"password\": 7, \"host\": \"second-password\"}").expect("a file");
        let failure = recall(state.path()).expect_err("not understood");
        assert!(!failure.message.contains("second-password"), "{failure}");
    }
}
