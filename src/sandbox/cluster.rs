//! A make-believe PostgreSQL data directory: files that change as a server's would.
//!
//! It looks like one from outside (`PG_VERSION`, `postmaster.pid` while a server runs,
//! `global/pg_control`, `pg_wal`, `base/…`), so that the product copies, compares and puts it
//! back as it would the real thing. Its rows are lines of `payments.jsonl`, each with the
//! transaction that wrote it. Like the real server it keeps its counters of changed rows in
//! memory, writes them at a clean stop and has lost them after a kill. Used by `shop`; knows
//! nothing of containers. What it is is in `control`, what it answers in `asked`.

mod asked;
mod control;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use self::control::{Log, State};
use super::scenario::Migration;
use crate::clock::Timestamp;
use crate::machine::facts::ChangeKinds;

/// The make-believe server's major version.
pub(super) const MAJOR: u32 = 15;

const PAYMENTS: &str = "payments.jsonl";
const CATALOG: &str = "base/16384/1259";
const COUNTERS: &str = "pg_stat/pgstat.json";
const PID: &str = "postmaster.pid";

/// The database's number, which names its directory.
const DATABASE: u32 = 16384;

/// What one row takes in the log.
const ROW_BYTES: u64 = 0xC8;

/// Records of the log, of the database's tables by their numbers.
const CATALOG_ROW: &str = "INSERT off 1 flags 0x00, blkref #0: rel 1663/16384/1259 blk 0";
const PAYMENT_ROW: &str = "INSERT off 1 flags 0x00, blkref #0: rel 1663/16384/16390 blk 0";
const PAYMENT_CHANGED: &str = "HOT_UPDATE off 1 flags 0x00, blkref #0: rel 1663/16384/16390 blk 0";
const MIGRATION_ROW: &str = "INSERT off 1 flags 0x00, blkref #0: rel 1663/16384/16391 blk 0";

/// A data directory whose make-believe server runs.
pub(super) struct Cluster {
    directory: PathBuf,
    counters: Mutex<Counters>,
    log: Mutex<Log>,
}

/// Who starts a server, and where.
pub(super) struct Place<'a> {
    /// The directory as the container names it.
    pub inside: &'a str,
    pub port: u16,
    /// The server's number in its container.
    pub pid: u32,
    /// The numbers of the container's other processes.
    pub others: &'a [u32],
}

/// Why a server did not start.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// The lock file names a process that is alive, for all that the server can tell.
    Locked {
        pid: u32,
    },
    Disk(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// What the server counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters {
    /// When they were reset.
    since: String,
    /// By table.
    changes: BTreeMap<String, ChangeKinds>,
}

fn inserted(rows: u64) -> ChangeKinds {
    ChangeKinds { inserted: rows, updated: 0, deleted: 0 }
}

/// What the catalogue holds: definitions by name, and the migrations that were applied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Catalog {
    objects: BTreeMap<String, String>,
    /// Version and transaction.
    migrations: Vec<(String, u64)>,
}

/// A row of `payments`.
#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    id: String,
    amount: String,
    written_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
    /// The one that wrote it last.
    transaction: u64,
}

impl Cluster {
    /// Starts the server on a directory, which is made when it is not there.
    pub fn start(directory: &Path, place: &Place<'_>) -> Result<Self, NotStarted> {
        if !directory.join("PG_VERSION").exists() {
            make(directory)?;
        }
        if let Some(pid) = locked_by(directory)?.filter(|pid| place.others.contains(pid)) {
            return Err(NotStarted::Locked { pid });
        }
        let counters = match fs::read(directory.join(COUNTERS)) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from)?,
            // It was killed: what was counted is gone, and the reset time moves.
            Err(_) => Counters { since: now(), ..Counters::default() },
        };
        match fs::remove_file(directory.join(COUNTERS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let mut log = Log::read(directory)?;
        if directory.join(PID).exists() {
            // It was killed, and recovers.
            log.checkpoint(directory)?;
        }
        log.control(directory, State::InProduction, seconds())?;
        let cluster = Self {
            directory: directory.to_owned(),
            counters: Mutex::new(counters),
            log: Mutex::new(log),
        };
        cluster.recover()?;
        let Place { inside, port, pid, .. } = place;
        let began = seconds();
        let text = format!("{pid}\n{inside}\n{began}\n{port}\n/tmp\nlocalhost\n\nready\n");
        fs::write(directory.join(PID), text)?;
        Ok(cluster)
    }

    /// Ends the server cleanly: its counters are kept.
    pub fn stop(&self, leaves_pid: bool) -> io::Result<()> {
        let counters = serde_json::to_vec(&*self.counted())?;
        fs::write(self.directory.join(COUNTERS), counters)?;
        let mut log = self.log();
        log.checkpoint(&self.directory)?;
        log.control(&self.directory, State::ShutDown, seconds())?;
        if leaves_pid { Ok(()) } else { fs::remove_file(self.directory.join(PID)) }
    }

    /// Owner of the directory, `UID:GID`.
    pub fn owner(&self) -> io::Result<String> {
        let metadata = fs::metadata(&self.directory)?;
        Ok(format!("{}:{}", metadata.uid(), metadata.gid()))
    }

    /// Takes a payment; answers its id once it is in the file.
    pub fn pay(&self, version: &str) -> io::Result<String> {
        let id = uuid::Uuid::now_v7().to_string();
        let mut log = self.log();
        let payment = Payment {
            id: id.clone(),
            amount: "12.50".into(),
            written_by: version.into(),
            ledger: None,
            transaction: log.next_transaction,
        };
        let mut line = serde_json::to_vec(&payment)?;
        line.push(b'\n');
        let path = self.directory.join(PAYMENTS);
        OpenOptions::new().append(true).create(true).open(path)?.write_all(&line)?;
        self.commit(&mut log, PAYMENT_ROW, 1)?;
        drop(log);
        self.count("payments", inserted(1));
        Ok(id)
    }

    /// Runs a release's migration; whether it succeeded, and what there is to say of it.
    pub fn migrate(&self, version: &str, migration: Migration) -> io::Result<Result<(), String>> {
        let mut catalog = self.catalog()?;
        if catalog.migrations.iter().any(|(applied, _)| applied == version) {
            return Ok(Ok(()));
        }
        if migration.schema {
            let added = format!("added_by_{}", version.replace('.', "_"));
            let columns = catalog.objects.entry("table public.payments".into()).or_default();
            if !columns.contains(&added) {
                columns.push_str(&format!(", {added} text"));
            }
            catalog.objects.insert(format!("table public.{added}"), "id uuid".into());
            self.write_catalog(&catalog)?;
            self.commit(&mut self.log(), CATALOG_ROW, 2)?;
        }
        let changed = self.rewrite(migration.rows)?;
        if migration.fails {
            let said = format!("migration {version} failed half way, {changed} rows changed");
            return Ok(Err(said));
        }
        if migration.schema || migration.rows > 0 {
            let mut log = self.log();
            catalog.migrations.push((version.into(), log.next_transaction));
            self.write_catalog(&catalog)?;
            self.commit(&mut log, MIGRATION_ROW, 1)?;
            drop(log);
            self.count("schema_migrations", inserted(1));
        }
        Ok(Ok(()))
    }

    /// Marks the oldest payments; answers how many.
    fn rewrite(&self, wanted: usize) -> io::Result<u64> {
        if wanted == 0 {
            return Ok(0);
        }
        let mut log = self.log();
        let mut payments = self.payments()?;
        let mut changed = 0;
        for payment in payments.iter_mut().take(wanted) {
            payment.ledger = Some("half".into());
            payment.amount = "0.00".into();
            payment.transaction = log.next_transaction;
            changed += 1;
        }
        self.write_payments(&payments)?;
        self.commit(&mut log, PAYMENT_CHANGED, changed)?;
        drop(log);
        self.count("payments", ChangeKinds { inserted: 0, updated: changed, deleted: 0 });
        Ok(changed)
    }

    /// Inserts these payments, id, amount and version each, in one transaction; all of them, or says
    /// why none.
    pub fn insert(&self, rows: &[[String; 3]]) -> io::Result<Result<(), String>> {
        let mut log = self.log();
        let mut payments = self.payments()?;
        for [id, amount, written_by] in rows {
            if payments.iter().any(|payment| payment.id == *id) {
                return Ok(Err(format!(
                    "duplicate key value violates unique constraint \"payments_pkey\": Key (id)=({id}) already exists."
                )));
            }
            payments.push(Payment {
                id: id.clone(),
                amount: amount.clone(),
                written_by: written_by.clone(),
                ledger: None,
                transaction: log.next_transaction,
            });
        }
        self.write_payments(&payments)?;
        let count = rows.len() as u64;
        self.commit(&mut log, PAYMENT_ROW, count)?;
        drop(log);
        self.count("payments", inserted(count));
        Ok(Ok(()))
    }

    fn write_payments(&self, payments: &[Payment]) -> io::Result<()> {
        let mut text = Vec::new();
        for payment in payments {
            text.extend(serde_json::to_vec(payment)?);
            text.push(b'\n');
        }
        replace(&self.directory.join(PAYMENTS), &text)
    }

    /// A row that was half written when the server was killed was never acknowledged.
    fn recover(&self) -> io::Result<()> {
        let path = self.directory.join(PAYMENTS);
        let text = fs::read(&path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            OpenOptions::new().write(true).open(&path)?.set_len(whole as u64)?;
        }
        Ok(())
    }

    fn payments(&self) -> io::Result<Vec<Payment>> {
        let text = fs::read_to_string(self.directory.join(PAYMENTS))?;
        text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
    }

    fn catalog(&self) -> io::Result<Catalog> {
        Ok(serde_json::from_slice(&fs::read(self.directory.join(CATALOG))?)?)
    }

    fn write_catalog(&self, catalog: &Catalog) -> io::Result<()> {
        replace(&self.directory.join(CATALOG), &serde_json::to_vec_pretty(catalog)?)
    }

    /// The transaction that wrote so many rows, each with such a record, is over.
    fn commit(&self, log: &mut Log, record: &str, rows: u64) -> io::Result<()> {
        for _ in 0..rows {
            log.record(&self.directory, "Heap", record)?;
        }
        log.record(&self.directory, "Transaction", "COMMIT 2026-01-31 12:00:00.000000 UTC")?;
        log.next_transaction += 1;
        log.write(&self.directory, rows * ROW_BYTES)
    }

    /// Held while something is written: one transaction after the other.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, table: &str, rows: ChangeKinds) {
        let mut counted = self.counted();
        let kinds = counted.changes.entry(table.to_owned()).or_insert(inserted(0));
        kinds.inserted += rows.inserted;
        kinds.updated += rows.updated;
        kinds.deleted += rows.deleted;
    }

    fn counted(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `initdb`, and the first migration.
fn make(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    for below in ["", "global", "base", "base/16384", "pg_wal", "pg_stat"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join(below))?;
    }
    let catalog = Catalog {
        objects: BTreeMap::from([
            ("table public.payments".into(), "id uuid, amount numeric, written_by text".into()),
            ("table public.schema_migrations".into(), "version text".into()),
        ]),
        migrations: Vec::new(),
    };
    fs::write(directory.join(CATALOG), serde_json::to_vec_pretty(&catalog)?)?;
    fs::write(directory.join(PAYMENTS), "")?;
    fs::write(directory.join("postgresql.conf"), "listen_addresses = 'localhost'\n")?;
    Log::make(directory, seconds())?;
    fs::write(directory.join("base/16384/PG_VERSION"), format!("{MAJOR}\n"))?;
    // Last: with it the directory is whole.
    fs::write(directory.join("PG_VERSION"), format!("{MAJOR}\n"))
}

/// Whole or as it was.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, content)?;
    fs::rename(&partial, path)
}

fn size_below(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Whom the lock file names.
fn locked_by(directory: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(directory.join(PID)) {
        Ok(text) => Ok(text.lines().next().and_then(|line| line.trim().parse().ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn seconds() -> i64 {
    Timestamp::now().millis().div_euclid(1000)
}

fn now() -> String {
    Timestamp::now().rfc3339()
}

#[cfg(test)]
mod tests;
