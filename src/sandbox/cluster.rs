//! A make-believe PostgreSQL data directory: files that change as a server's would.
//!
//! It looks like one from outside (`PG_VERSION`, `postmaster.pid` while a server runs,
//! `global/pg_control`, `base/…`), so that the product copies, compares and puts it back as it
//! would the real thing. Its rows are lines of `payments.jsonl`. Like the real server it keeps
//! its counters of changed rows in memory, writes them at a clean stop and has lost them after
//! a kill. Used by `shop`; knows nothing of containers.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::scenario::Migration;
use crate::clock::Timestamp;

/// The make-believe server's major version.
pub(super) const MAJOR: u32 = 15;

const PAYMENTS: &str = "payments.jsonl";
const CATALOG: &str = "base/16384/1259";
const COUNTERS: &str = "pg_stat/pgstat.json";
const CONTROL: &str = "global/pg_control";
const PID: &str = "postmaster.pid";

/// A data directory whose make-believe server runs.
pub(super) struct Cluster {
    directory: PathBuf,
    counters: Mutex<Counters>,
}

/// What the server counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters {
    /// When they were reset.
    since: String,
    /// Rows inserted, updated and deleted, by table.
    changes: BTreeMap<String, u64>,
}

/// What the catalogue holds: definitions by name, and the migrations that were applied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Catalog {
    objects: BTreeMap<String, String>,
    migrations: Vec<String>,
}

/// A row of `payments`.
#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    id: String,
    amount: String,
    written_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
}

impl Payment {
    /// Another one whenever a value is another.
    fn digest(&self) -> String {
        format!("{}|{}|{}", self.id, self.amount, self.written_by)
    }
}

impl Cluster {
    /// Starts the server on a directory, which is made when it is not there.
    pub fn start(directory: &Path, inside: &str, port: u16) -> io::Result<Self> {
        if !directory.join("PG_VERSION").exists() {
            make(directory)?;
        }
        let counters = match fs::read(directory.join(COUNTERS)) {
            Ok(text) => serde_json::from_slice(&text)?,
            // It was killed: what was counted is gone, and the reset time moves.
            Err(_) => Counters { since: now(), ..Counters::default() },
        };
        match fs::remove_file(directory.join(COUNTERS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let cluster = Self { directory: directory.to_owned(), counters: Mutex::new(counters) };
        cluster.recover()?;
        cluster.control("in production")?;
        let pid = std::process::id();
        let text = format!("{pid}\n{inside}\n0\n{port}\n/tmp\nlocalhost\n\nready\n");
        fs::write(directory.join(PID), text)?;
        Ok(cluster)
    }

    /// Ends the server cleanly: its counters are kept.
    pub fn stop(&self) -> io::Result<()> {
        let counters = serde_json::to_vec(&*self.counted())?;
        fs::write(self.directory.join(COUNTERS), counters)?;
        self.control("shut down")?;
        fs::remove_file(self.directory.join(PID))
    }

    /// Owner of the directory, `UID:GID`.
    pub fn owner(&self) -> io::Result<String> {
        let metadata = fs::metadata(&self.directory)?;
        Ok(format!("{}:{}", metadata.uid(), metadata.gid()))
    }

    /// Takes a payment; answers its id once it is in the file.
    pub fn pay(&self, version: &str) -> io::Result<String> {
        let id = uuid::Uuid::now_v7().to_string();
        let payment = Payment {
            id: id.clone(),
            amount: "12.50".into(),
            written_by: version.into(),
            ledger: None,
        };
        let mut line = serde_json::to_vec(&payment)?;
        line.push(b'\n');
        let path = self.directory.join(PAYMENTS);
        OpenOptions::new().append(true).create(true).open(path)?.write_all(&line)?;
        self.count("payments", 1);
        Ok(id)
    }

    /// Runs a release's migration; whether it succeeded, and what there is to say of it.
    pub fn migrate(&self, version: &str, migration: Migration) -> io::Result<Result<(), String>> {
        let mut catalog = self.catalog()?;
        if catalog.migrations.iter().any(|applied| applied == version) {
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
        }
        let changed = self.rewrite(migration.rows)?;
        if migration.fails {
            let said = format!("migration {version} failed half way, {changed} rows changed");
            return Ok(Err(said));
        }
        if migration.schema || migration.rows > 0 {
            catalog.migrations.push(version.into());
            self.write_catalog(&catalog)?;
            self.count("schema_migrations", 1);
        }
        Ok(Ok(()))
    }

    /// Marks the oldest payments; answers how many.
    fn rewrite(&self, wanted: usize) -> io::Result<u64> {
        if wanted == 0 {
            return Ok(0);
        }
        let mut payments = self.payments()?;
        let mut changed = 0;
        for payment in payments.iter_mut().take(wanted) {
            payment.ledger = Some("half".into());
            changed += 1;
        }
        let mut text = Vec::new();
        for payment in &payments {
            text.extend(serde_json::to_vec(payment)?);
            text.push(b'\n');
        }
        replace(&self.directory.join(PAYMENTS), &text)?;
        self.count("payments", changed);
        Ok(changed)
    }

    /// Bytes in its files.
    pub fn size(&self) -> io::Result<u64> {
        size_below(&self.directory)
    }

    /// What the product's `fingerprint.sql` would answer.
    pub fn fingerprint(&self) -> io::Result<Value> {
        let catalog = self.catalog()?;
        let counters = self.counted().clone();
        let changes = |table: &str| counters.changes.get(table).copied().unwrap_or_default();
        let payments = self.payments()?.len();
        let migrations = catalog.migrations.len();
        let objects: Vec<Value> =
            catalog.objects.iter().map(|(name, text)| json!([name, text])).collect();
        Ok(json!({
            "counting": "on",
            "since": format!("database never, server {}", counters.since),
            "sessions": 0,
            // Each payment is a transaction of its own, in the order of the file.
            "nextTransaction": payments + 1,
            "tables": [
                {"name": "public.payments", "id": 16390, "file": 16390,
                 "changes": changes("payments")},
                {"name": "public.schema_migrations", "id": 16391, "file": 16391,
                 "changes": changes("schema_migrations")},
            ],
            "rows": {"16390": payments, "16391": migrations},
            "objects": objects,
        }))
    }

    /// What the product's `shape.sql` would answer, of the table that holds money.
    pub fn shape(&self) -> Value {
        let column = |number: i16, name: &str, kind: &str| {
            json!({"number": number, "name": name, "type": kind, "bareType": kind,
                   "labels": null, "isRequired": true, "hasDefault": false,
                   "isGenerated": false, "isAlwaysIdentity": false})
        };
        let columns = [
            column(1, "id", "uuid"),
            column(2, "amount", "numeric"),
            column(3, "written_by", "text"),
        ];
        json!({"sequences": {}, "tables": [
            {"id": 16390, "name": "public.payments", "isReadable": true, "columns": columns,
             "key": [1], "checks": [], "references": []},
        ]})
    }

    /// The payments of this transaction and of later ones, as the product's export reads them.
    pub fn rows_since(&self, transaction: usize) -> io::Result<Vec<Value>> {
        let payments = self.payments()?;
        let later = payments.iter().skip(transaction.saturating_sub(1));
        Ok(later
            .map(|row| {
                let id = format!("'{}'", row.id);
                let values = format!("{id}, '{}', '{}'", row.amount, row.written_by);
                json!([null, id, row.digest(), values, null])
            })
            .collect())
    }

    /// Number and digest of each of these payments that is there, `(0, 'ID')` each.
    pub fn rows_of(&self, keys: &[(usize, String)]) -> io::Result<Vec<Value>> {
        let payments = self.payments()?;
        let there: BTreeMap<&str, &Payment> =
            payments.iter().map(|row| (row.id.as_str(), row)).collect();
        let found = keys.iter().filter_map(|(number, id)| Some((number, there.get(id.as_str())?)));
        Ok(found.map(|(number, row)| json!([number, row.digest(), false])).collect())
    }

    /// A dump: the head of an archive, then the rows.
    pub fn dump(&self) -> io::Result<Vec<u8>> {
        let mut dump = b"PGDMP\x01\x0e\x00sandbox\n".to_vec();
        dump.extend(serde_json::to_vec(&self.catalog()?)?);
        dump.push(b'\n');
        dump.extend(fs::read(self.directory.join(PAYMENTS))?);
        Ok(dump)
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

    fn control(&self, state: &str) -> io::Result<()> {
        let text = json!({"state": state, "at": now()}).to_string();
        fs::write(self.directory.join(CONTROL), text)
    }

    fn count(&self, table: &str, rows: u64) {
        *self.counted().changes.entry(table.to_owned()).or_default() += rows;
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counters> {
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
    fs::write(directory.join("pg_wal/000000010000000000000001"), vec![0; 64 * 1024])?;
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

fn now() -> String {
    Timestamp::now().rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore_point;

    #[test]
    fn counters_survive_a_clean_stop_and_not_a_kill() {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().join("postgres");
        let started = || Cluster::start(&at, "/inside", 5432).expect("it starts");
        let cluster = started();
        cluster.pay("1").expect("a payment");
        let before = cluster.fingerprint().expect("a fingerprint");
        cluster.stop().expect("it stops");
        let again = started();
        assert_eq!(again.fingerprint().expect("a fingerprint"), before);
        drop(again);
        let killed = started().fingerprint().expect("a fingerprint");
        assert_eq!(killed["tables"][0]["changes"], 0);
        assert_eq!(killed["rows"]["16390"], 1);
    }

    #[test]
    fn the_restore_point_takes_the_directory_for_a_real_one() {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().join("postgres");
        let cluster = Cluster::start(&at, "/inside", 5432).expect("it starts");
        let survey = restore_point::survey(&at).expect("it can be copied");
        assert_eq!(survey.postgres_major, MAJOR);
        assert!(survey.has_postmaster_pid);
        cluster.stop().expect("it stops");
        assert!(!restore_point::survey(&at).expect("still").has_postmaster_pid);
    }
}
