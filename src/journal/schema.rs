//! Opening the file and bringing its schema up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::JournalError;

/// The migrations in order; the schema's number is how many were applied.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/001_journal.sql")];

/// How long a statement waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens for writing, creates what is missing (directory 0700, file 0600) and migrates.
pub(super) fn open_writer(path: &Path) -> Result<Connection, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let sqlite =
        |doing| move |source| JournalError::Sqlite { doing, path: path.to_owned(), source };
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(sqlite("open"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite("configure"))?;
    refuse_newer(&connection, path)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
        )
        .map_err(sqlite("configure"))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens for reading only; fails when there is no file.
pub(super) fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    let sqlite = |source| JournalError::Sqlite { doing: "open", path: path.to_owned(), source };
    std::fs::metadata(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    refuse_newer(&connection, path)?;
    Ok(connection)
}

fn refuse_newer(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let found = version(connection, path)?;
    let known = MIGRATIONS.len() as u32;
    if found > known {
        return Err(JournalError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

fn version(connection: &Connection, path: &Path) -> Result<u32, JournalError> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|source| {
        JournalError::Sqlite { doing: "read the schema version", path: path.to_owned(), source }
    })
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let sqlite = |source| JournalError::Sqlite { doing: "migrate", path: path.to_owned(), source };
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(sqlite)?;
    let applied = version(&transaction, path)? as usize;
    for migration in MIGRATIONS.iter().skip(applied) {
        transaction.execute_batch(migration).map_err(sqlite)?;
    }
    if applied < MIGRATIONS.len() {
        transaction
            .execute_batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))
            .map_err(sqlite)?;
    }
    transaction.commit().map_err(sqlite)
}
