//! Which rows of failed versions are set aside: in a file or in a database that is kept, and not in
//! the shop's. They stay a finding until an operator has dealt with them and says so.

use crate::clock::Timestamp;
use crate::journal::{ExportRows, JournalError, Reader};
use crate::machine::facts::{Assessment, Export};

/// Rows of one upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The upgrade.
    pub job: String,
    /// The version that wrote them.
    pub version: String,
    /// When it was taken back.
    pub at: Timestamp,
    /// How many; none where that is not known.
    pub rows: Option<u64>,
    /// The file they are in; none where they could not be exported.
    pub file: Option<String>,
    /// The shell's command that loads it.
    pub load: Option<String>,
    /// Why there is no file.
    pub reason: Option<String>,
    /// Where that version's database is kept.
    pub database: String,
    /// When an operator said that they are dealt with.
    pub dismissed: Option<Timestamp>,
}

impl SetAside {
    /// `60 rows that 2.0.0 wrote are not in the shop's database: they are in /srv/….rows.sql`
    pub fn sentence(&self) -> String {
        let Self { version, database, .. } = self;
        let rows = match self.rows {
            Some(1) => format!("1 row that {version} wrote is not in the shop's database"),
            Some(rows) => {
                format!("{rows} rows that {version} wrote are not in the shop's database")
            }
            None => format!("rows that {version} wrote may be missing in the shop's database"),
        };
        match (&self.file, &self.reason) {
            (Some(file), _) => format!("{rows}: they are set aside in {file}"),
            (None, Some(reason)) => format!(
                "{rows}: they could not be exported ({reason}), and are in its database, which is kept in {database}"
            ),
            (None, None) => {
                format!("{rows}: they are in its database, which is kept in {database}")
            }
        }
    }

    /// What an operator can do.
    pub fn advice(&self) -> String {
        let dismiss = format!("payram-updater recover --dismiss-rows {}", self.job);
        match &self.load {
            Some(load) => {
                format!("read it, load it: {load}; then, or if you don't need them: {dismiss}")
            }
            None => format!("look after them; then, or if you don't need them: {dismiss}"),
        }
    }
}

/// All of them, the oldest first, those that were dismissed too. Pure.
pub fn set_aside(exports: &[ExportRows]) -> Vec<SetAside> {
    exports.iter().filter_map(one).collect()
}

/// The same, by this journal.
///
/// # Errors
/// When it can't be read.
pub fn read_set_aside(reader: &Reader) -> Result<Vec<SetAside>, JournalError> {
    reader.exports().map(|exports| set_aside(&exports))
}

fn one(row: &ExportRows) -> Option<SetAside> {
    let told = SetAside {
        job: row.job.clone(),
        version: row.hop.version.clone(),
        at: row.at,
        rows: None,
        file: None,
        load: None,
        reason: None,
        database: row.restored.failed.clone(),
        dismissed: row.dismissed,
    };
    match &row.export {
        Some(Export::Nothing) => None,
        Some(Export::Written { path, tables, load }) => {
            let rows: u64 = tables.iter().map(|table| table.set_aside()).sum();
            // A table of which it is not known how many could not be read is one all the same.
            let is_uncounted = tables.iter().any(|table| {
                !table.is_ledger && table.refused.iter().any(|refused| refused.rows == 0)
            });
            (rows > 0 || is_uncounted).then(|| SetAside {
                rows: (!is_uncounted).then_some(rows),
                file: Some(path.clone()),
                load: load.clone(),
                ..told
            })
        }
        Some(Export::Missing { .. }) | None => {
            // Where it wrote none there is none to look for.
            let wrote = !matches!(
                row.assessment,
                Some(Assessment::Unchanged | Assessment::SchemaChanged { .. })
            );
            let reason = match &row.export {
                Some(Export::Missing { reason }) => Some(reason.clone()),
                _ => None,
            };
            wrote.then_some(SetAside { reason, ..told })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::facts::{ExportedTable, RefusedRows, Restored};

    fn row(assessment: Assessment, export: Option<Export>) -> ExportRows {
        let hop = serde_json::json!({
            "old": {"id": "old", "name": "payram", "imageId": "sha256:1", "specFile": "/spec",
                "restartPolicy": {"Name": "always"}},
            "from": "1.9.6", "fromRules": {"kind": "legacy"}, "version": "2.0.0",
            "target": {"repo": "payramapp/payram", "tag": "2.0.0"}, "rules": {"kind": "legacy"},
        });
        ExportRows {
            job: "job-1".into(),
            at: Timestamp::from_millis(0),
            hop: serde_json::from_value(hop).expect("a hop"),
            assessment: Some(assessment),
            restored: Restored::kept_in("/db.failed-1"),
            export,
            dismissed: None,
        }
    }

    fn written(tables: Vec<ExportedTable>) -> Option<Export> {
        Some(Export::Written { path: "/f.sql".into(), tables, load: Some("load < /f.sql".into()) })
    }

    #[test]
    fn a_ledgers_own_row_is_none_that_the_shop_misses() {
        let ledger = ExportedTable {
            name: "public.schema_migrations".into(),
            is_ledger: true,
            inserted: 1,
            ..Default::default()
        };
        let schema = || Assessment::SchemaChanged { what: "a column".into() };
        assert_eq!(set_aside(&[row(schema(), written(vec![ledger.clone()]))]), []);
        let payments =
            ExportedTable { name: "public.payments".into(), inserted: 60, ..Default::default() };
        let rows = Assessment::RowsChanged { tables: vec!["60".into()] };
        let found = set_aside(&[row(rows, written(vec![ledger, payments]))]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].sentence(),
            "60 rows that 2.0.0 wrote are not in the shop's database: they are set aside in /f.sql"
        );
        assert!(found[0].advice().contains("load < /f.sql"), "{}", found[0].advice());
        assert!(found[0].advice().ends_with("recover --dismiss-rows job-1"));
    }

    #[test]
    fn what_could_not_be_exported_counts_where_rows_were_written() {
        let missing = || Some(Export::Missing { reason: "no room".into() });
        let schema = Assessment::SchemaChanged { what: "a column".into() };
        assert_eq!(set_aside(&[row(schema, missing())]), []);
        let rows = Assessment::RowsChanged { tables: vec!["60".into()] };
        let found = set_aside(&[row(rows.clone(), missing()), row(rows, None)]);
        assert!(found[0].sentence().contains("no room"), "{}", found[0].sentence());
        assert!(found[1].sentence().contains("kept in /db.failed-1"), "{}", found[1].sentence());
        let unreadable = ExportedTable {
            name: "public.big".into(),
            refused: vec![RefusedRows {
                rows: 0,
                reason: "it can't be read".into(),
                is_told: false,
            }],
            ..Default::default()
        };
        let rows = Assessment::Unreadable { reason: "no answer".into() };
        let found = set_aside(&[row(rows, written(vec![unreadable]))]);
        assert_eq!((found.len(), found[0].rows), (1, None));
    }
}
