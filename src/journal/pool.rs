//! A few read-only connections to one journal, so that no reader waits for another's statement.
//! Used by [`super::Reader`] alone.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::{JournalError, schema};

/// Connections of one reader at most. The API lets no more reads run at once than this, so
/// nobody waits here; each has a cache of pages of its own, which is why they are counted.
pub(crate) const MOST_CONNECTIONS: usize = 6;

/// The connections that are open, and those of them that nobody uses.
pub(super) struct Pool {
    path: PathBuf,
    shelf: Mutex<Shelf>,
    returned: Condvar,
}

struct Shelf {
    idle: Vec<Connection>,
    open: usize,
}

impl Pool {
    /// Opens the first one; the others follow when they are needed.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let shelf = Shelf { idle: vec![schema::open_reader(path)?], open: 1 };
        Ok(Self { path: path.to_owned(), shelf: Mutex::new(shelf), returned: Condvar::new() })
    }

    /// Reads on a connection that nobody else uses meanwhile; blocks while all are in use.
    pub fn with<T>(&self, read: impl FnOnce(&Connection) -> T) -> Result<T, JournalError> {
        let mut lease = self.lease()?;
        let connection = match lease.connection.take() {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        // One whose read panicked is closed, and its place is free: see the drop.
        let answer = read(&connection);
        lease.connection = Some(connection);
        Ok(answer)
    }

    fn lease(&self) -> Result<Lease<'_>, JournalError> {
        let mut shelf = self.lock();
        loop {
            let connection = shelf.idle.pop();
            if connection.is_none() && shelf.open >= MOST_CONNECTIONS {
                shelf = self.returned.wait(shelf).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            shelf.open += usize::from(connection.is_none());
            return Ok(Lease { pool: self, connection });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection in use; given back when it is dropped.
struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut shelf = self.pool.lock();
        match self.connection.take() {
            Some(connection) => shelf.idle.push(connection),
            None => shelf.open -= 1,
        }
        drop(shelf);
        self.pool.returned.notify_one();
    }
}
