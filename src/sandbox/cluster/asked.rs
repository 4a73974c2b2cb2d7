//! What the make-believe server answers when it is asked: the answers of the product's own
//! statements, made from the directory's files. Called by `exec`.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde_json::{Value, json};

use super::control::{Log, position};
use super::{Cluster, DATABASE, MAJOR, PAYMENTS, Payment, inserted, size_below};

/// A row as an export asks for it: its key, the digest of its values, and these as literals.
struct Row {
    key: String,
    digest: String,
    values: String,
    transaction: u64,
}

impl Row {
    fn of_payment(payment: &Payment) -> Self {
        let Payment { id, amount, written_by, transaction, .. } = payment;
        Self {
            key: format!("'{id}'"),
            digest: format!("{id}|{amount}|{written_by}"),
            values: format!("'{id}', '{amount}', '{written_by}'"),
            transaction: *transaction,
        }
    }

    fn of_migration(version: &str, transaction: u64) -> Self {
        let key = format!("'{version}'");
        Self { digest: version.to_owned(), values: key.clone(), key, transaction }
    }
}

impl Cluster {
    /// Which cluster it is, how far its log is, and who is connected.
    pub fn identity(&self, sessions: usize) -> Value {
        let log = self.log();
        json!({
            "systemIdentifier": log.system.to_string(),
            "timeline": log.timeline(),
            "databaseOid": DATABASE,
            "walPosition": log.shown(),
            "walFile": log.file(),
            "sessions": sessions,
        })
    }

    /// Bytes in its files.
    pub fn size(&self) -> io::Result<u64> {
        size_below(&self.directory)
    }

    /// What the product's `fingerprint.sql` would answer.
    pub fn fingerprint(&self) -> io::Result<Value> {
        let catalog = self.catalog()?;
        let counters = self.counted().clone();
        let table = |name: &str, id: u32| {
            let kinds = counters.changes.get(name).copied().unwrap_or(inserted(0));
            let changes = kinds.inserted + kinds.updated + kinds.deleted;
            json!({"name": format!("public.{name}"), "id": id, "file": id, "changes": changes,
                   "kinds": kinds})
        };
        let payments = self.payments()?.len();
        let migrations = catalog.migrations.len();
        let objects: Vec<Value> =
            catalog.objects.iter().map(|(name, text)| json!([name, text])).collect();
        Ok(json!({
            "counting": "on",
            "since": format!("database never, server {}", counters.since),
            "sessions": 0,
            "nextTransaction": self.log().next_transaction,
            "tables": [table("payments", 16390), table("schema_migrations", 16391)],
            "rows": {"16390": payments, "16391": migrations},
            "objects": objects,
            "sequences": [],
        }))
    }

    /// What the product's `shape.sql` would answer.
    pub fn shape(&self) -> Value {
        let column = |number: i16, name: &str, kind: &str| {
            json!({"number": number, "name": name, "type": kind, "bareType": kind,
                   "labels": null, "isRequired": true, "hasDefault": false,
                   "isGenerated": false, "isAlwaysIdentity": false})
        };
        let table = |id: u32, name: &str, columns: &[Value]| {
            json!({"id": id, "name": name, "isReadable": true, "columns": columns,
                   "key": [1], "checks": [], "references": []})
        };
        let payments = [
            column(1, "id", "uuid"),
            column(2, "amount", "numeric"),
            column(3, "written_by", "text"),
        ];
        json!({"encoding": "UTF8", "sequences": {}, "tables": [
            table(16390, "public.payments", &payments),
            table(16391, "public.schema_migrations", &[column(1, "version", "text")]),
        ]})
    }

    /// The rows of a table, `public.payments`; none when there is no such table.
    fn rows(&self, table: &str) -> io::Result<Option<Vec<Row>>> {
        Ok(match table {
            "public.payments" => Some(self.payments()?.iter().map(Row::of_payment).collect()),
            "public.schema_migrations" => {
                let applied = self.catalog()?.migrations;
                let rows = applied
                    .iter()
                    .map(|(version, transaction)| Row::of_migration(version, *transaction));
                Some(rows.collect())
            }
            _ => None,
        })
    }

    /// The rows that were written in this transaction and in later ones.
    fn later(&self, table: &str, transaction: u64) -> io::Result<Option<Vec<Row>>> {
        let Some(mut rows) = self.rows(table)? else { return Ok(None) };
        rows.retain(|row| row.transaction >= transaction);
        Ok(Some(rows))
    }

    /// These as the product's export reads them.
    pub fn rows_since(&self, table: &str, transaction: u64) -> io::Result<Option<Vec<Value>>> {
        let Some(rows) = self.later(table, transaction)? else { return Ok(None) };
        let read =
            |row: &Row| json!([row.transaction, null, row.key, row.digest, row.values, null]);
        Ok(Some(rows.iter().map(read).collect()))
    }

    /// These as they are carried over: transaction and values.
    pub fn values_since(&self, table: &str, transaction: u64) -> io::Result<Option<Vec<Value>>> {
        let Some(rows) = self.later(table, transaction)? else { return Ok(None) };
        Ok(Some(rows.iter().map(|row| json!([row.transaction, row.values])).collect()))
    }

    /// How many of these each transaction wrote: its number, no refusal, how many.
    pub fn weighed_since(&self, table: &str, transaction: u64) -> io::Result<Option<Vec<Value>>> {
        let Some(rows) = self.later(table, transaction)? else { return Ok(None) };
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for row in rows {
            *counts.entry(row.transaction).or_default() += 1;
        }
        Ok(Some(counts.iter().map(|(number, count)| json!([number, null, count])).collect()))
    }

    /// What of the log there is since this place.
    pub fn stretch(&self, from: &str) -> Value {
        let (log, from) = (self.log(), position(from).unwrap_or_default());
        json!({"end": log.shown(), "is_empty": log.position <= from, "database": DATABASE,
               "major": MAJOR, "files": [1259]})
    }

    /// The lines of `pg_waldump` for the records between two places, of these managers.
    pub fn records(&self, from: &str, to: &str, managers: &[&str]) -> io::Result<Vec<String>> {
        let place = |shown| {
            position(shown).ok_or_else(|| io::Error::other(format!("{shown} is no WAL location")))
        };
        let mut lines = Log::records(&self.directory, place(from)?, place(to)?)?;
        let manager = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        lines.retain(|line| managers.is_empty() || managers.contains(&manager(line).as_str()));
        Ok(lines)
    }

    /// Number, digest and whether it is as new, of each of these rows that is there; `(0, 'KEY')`
    /// each.
    pub fn rows_of(
        &self,
        table: &str,
        keys: &[(usize, String)],
        transaction: u64,
    ) -> io::Result<Option<Vec<Value>>> {
        let Some(rows) = self.rows(table)? else { return Ok(None) };
        let there: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.key.as_str(), row)).collect();
        let found =
            keys.iter().filter_map(|(number, key)| Some((number, there.get(key.as_str())?)));
        Ok(Some(
            found
                .map(|(number, row)| json!([number, row.digest, row.transaction >= transaction]))
                .collect(),
        ))
    }

    /// A dump: the head of an archive, then the rows.
    pub fn dump(&self) -> io::Result<Vec<u8>> {
        let mut dump = b"PGDMP\x01\x0e\x00sandbox\n".to_vec();
        dump.extend(serde_json::to_vec(&self.catalog()?)?);
        dump.push(b'\n');
        dump.extend(fs::read(self.directory.join(PAYMENTS))?);
        Ok(dump)
    }
}
