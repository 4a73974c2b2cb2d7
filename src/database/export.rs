//! The rows that a failed version wrote, taken out of its database after the restore point has
//! replaced it, into a file that the old version's database can be given.
//!
//! Called by the driver when the old version serves again, with a server of its own on the
//! failed version's directory. Both databases are only read. Rows are told by the transaction
//! that wrote their version: those of the transaction that was next when the old version's server
//! ended, and later ones, are the failed version's. Each is then looked for in the old version's database by its key, which
//! tells an insertion from an update, and from a row that was only rewritten.
//!
//! No value is converted: the file is in the encoding of the two databases, byte for byte.
//!
//! | file | subject |
//! |---|---|
//! | `shape` | which table and column of the failed version is which of the old one; pure |
//! | `rows` | the rows of one table, read and told apart |
//! | `statement` | the statements; pure |
//! | `file` | the file |
//! | `carry` | those that only were inserted, carried over before the old version starts |
//! | `stretch` | the failed server's log since the cut-over, read |
//! | `log` | what each transaction did, by that log; pure |
//! | `tally` | what was exported and what was not, as a person is told it; pure |
//! | `bytes` | text in the database's own encoding |

mod bytes;
mod carry;
mod file;
mod log;
mod rows;
mod shape;
mod statement;
mod stretch;
mod tally;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use self::carry::Carrying;
use self::file::Draft;
use self::shape::{Fate, Shape};
use self::stretch::Stretch;
use self::tally::Tally;
use super::fingerprint::{PINNED, fingerprint_since};
use super::runner::{READING_TIMEOUT, Runner};
use super::tool::ToolError;
use crate::error::Trouble;
use crate::machine::facts::{Export, ExportedTable, Fingerprint, RefusedRows, TableCount};
use crate::machine::failure::FailureCode;

pub use self::carry::{carry_rows, said_of_carried};
pub use self::stretch::CutOver;
pub use self::tally::{said_of_export, said_of_refused, said_of_table};

const SHAPE: &str = include_str!("sql/shape.sql");

/// Bytes that a count is written in, at most.
const LONGEST_COUNT: usize = 64;

/// How long rows may be counted.
const COUNT_BUDGET: Duration = Duration::from_secs(5);

/// What the file says about itself.
#[derive(Clone, Debug)]
pub struct Heading<'h> {
    /// `job-… hop 1`
    pub upgrade: String,
    /// The version that failed.
    pub version: &'h str,
    /// The version that serves again.
    pub old_version: &'h str,
    /// RFC 3339.
    pub written_at: String,
    /// The failed version's directory.
    pub directory: &'h Path,
    /// A shell's command that reads the file from its standard input.
    pub load_command: String,
}

/// What is known of the failed server's log, and whether rows were carried over by it before.
pub enum Log<'c> {
    /// Where it is, or where the cut-over is in it, was not noted.
    Unknown,
    /// It says where the failed version began.
    Since(CutOver<'c>),
    /// The same, and what could be was carried over by it already: the rest is exported.
    CarriedSince(CutOver<'c>),
}

/// Writes the rows that the failed version wrote to `path`, whole or not at all; no file when
/// there are none. `before` is what was read at the cut-over.
///
/// # Errors
/// `DISK_SPACE_LOW`, or `RUNTIME_INSPECTION_FAILED` when one of the two can't be read, or the
/// cut-over was not noted well enough.
pub async fn export_rows(
    failed: &Runner<'_>,
    old: &Runner<'_>,
    before: &Fingerprint,
    log: &Log<'_>,
    (path, heading): (&Path, &Heading<'_>),
    within: Duration,
) -> Result<Export, Trouble> {
    let deadline = Instant::now() + within;
    let Some(noted) = before.next_transaction else {
        return Err(broken("the cut-over's transaction was not noted"));
    };
    let cut_over = match log {
        Log::Unknown => noted,
        Log::Since(at) => match begins_at(failed, at, deadline).await {
            Ok(first) => first,
            Err(trouble) => {
                // What the old version wrote after the note is told, too, then.
                tracing::info!("where the failed version began is not told by its log: {trouble}");
                noted
            }
        },
        Log::CarriedSince(at) => begins_at(failed, at, deadline).await?,
    };
    let now = fingerprint_since(failed, COUNT_BUDGET, before).await?;
    let at = now.next_transaction.unwrap_or(0);
    if at < cut_over || at - cut_over >= 1 << 31 {
        return Err(broken(format!(
            "the failed version's server is at transaction {at}, the cut-over was at {cut_over}"
        )));
    }
    let (failed_shape, old_shape) = (shape(failed).await?, shape(old).await?);
    if failed_shape.encoding != old_shape.encoding {
        return Err(broken(format!(
            "the failed version's database is in encoding {}, the old version's in {}",
            failed_shape.encoding, old_shape.encoding
        )));
    }
    let fates = shape::fates(&failed_shape, &old_shape);
    let left_out = match log {
        Log::CarriedSince(cut_over) => {
            let place = (path, old_shape.encoding.as_str(), deadline);
            let weighed = Carrying::weighed(failed, old, cut_over, &fates, place).await?;
            Some(weighed.stays_behind())
        }
        Log::Unknown | Log::Since(_) => None,
    };
    let draft = Draft::begin(path, &old_shape.encoding).map_err(|error| unwritten(path, &error))?;
    let mut export = Exporting {
        failed,
        old,
        before,
        now: &now,
        cut_over,
        deadline,
        path,
        encoding: &old_shape.encoding,
        draft,
        tables: Vec::new(),
        left_out,
        carried: 0,
    };
    for fate in &fates {
        export.table(fate).await?;
    }
    export.note_what_is_gone(&failed_shape);
    let Exporting { draft, mut tables, .. } = export;
    if tables.is_empty() {
        return Ok(Export::Nothing);
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let sequences = moved_on(&failed_shape, &old_shape);
    draft.finish(heading, &tables, &sequences).map_err(|error| unwritten(path, &error))?;
    let path = path.to_string_lossy().into_owned();
    let load = Some(file::loading(heading, &path));
    Ok(Export::Written { path, tables, load })
}

/// The failed version's first transaction, by its server's log.
async fn begins_at(
    failed: &Runner<'_>,
    at: &CutOver<'_>,
    deadline: Instant,
) -> Result<u64, Trouble> {
    Stretch::of(failed, at).await?.begins_at(failed, at, deadline).await
}

struct Exporting<'e> {
    failed: &'e Runner<'e>,
    old: &'e Runner<'e>,
    before: &'e Fingerprint,
    now: &'e Fingerprint,
    cut_over: u64,
    deadline: Instant,
    path: &'e Path,
    /// Of both databases.
    encoding: &'e str,
    draft: Draft,
    tables: Vec<ExportedTable>,
    /// Transactions that were not carried over; none where nothing was.
    left_out: Option<BTreeSet<u32>>,
    /// Rows of the table at hand that were.
    carried: u64,
}

impl Exporting<'_> {
    async fn table(&mut self, fate: &Fate<'_>) -> Result<(), Trouble> {
        let (failed, name) = match fate {
            Fate::Goes(mapping) => (mapping.failed, mapping.old.name.as_str()),
            Fate::Stays { failed, name, .. } => (*failed, *name),
        };
        let was = self.before.tables.iter().find(|table| table.id == failed.id);
        let is = self.now.tables.iter().find(|table| table.id == failed.id);
        let is_comparable = self.before.counters_since == self.now.counters_since;
        let changes = match (is_comparable, is) {
            (true, Some(is)) => is.changes.checked_sub(was.map_or(0, |was| was.changes)),
            (true | false, _) => None,
        };
        let is_whole = was.zip(is).is_some_and(|(was, is)| {
            was.file == is.file || (was.rows.is_some() && was.rows == is.rows)
        });
        if changes == Some(0) && is_whole {
            return Ok(());
        }
        let (name, is_ledger) = (self.said(name), super::assess::is_ledger(name));
        let mut table = ExportedTable { name, is_ledger, changes, ..Default::default() };
        self.carried = 0;
        let read = match fate {
            Fate::Goes(mapping) => self.rows(mapping, &mut table).await,
            Fate::Stays { failed, reason, .. } => {
                let rows = self.counted(&failed.name).await;
                rows.map(|rows| refuse(&mut table, rows, &self.said(reason)))
            }
        };
        match read {
            Ok(()) => {}
            Err(Problem::Table(reason)) => {
                self.draft.end_table().map_err(|error| unwritten(self.path, &error))?;
                refuse_all(&mut table, is, &reason);
            }
            Err(Problem::Trouble(trouble)) => return Err(trouble),
        }
        if let Fate::Goes(mapping) = fate {
            let has_values = table.inserted + table.updated + table.taken > 0;
            let further = mapping.further.iter().filter(|_| has_values);
            table.left_out = further.map(|column| self.said(&column.name)).collect();
        }
        table.deleted = deleted(&table, self.carried, was, is, changes);
        let has_rows = table.inserted + table.updated + table.taken > 0;
        if has_rows || !table.refused.is_empty() || table.deleted != Some(0) {
            self.tables.push(table);
        }
        Ok(())
    }

    async fn counted(&self, table: &str) -> Result<u64, Problem> {
        let count = bytes::bytes_of(&format!("{};\n", statement::counting(table, self.cut_over)))
            .map_err(|error| Problem::Trouble(unwritten(self.path, &error)))?;
        let statements = [&PINNED[..], &["set statement_timeout = 0"]].concat();
        let counting = self.failed.begin_exact(&statements, &count, self.left());
        let counted = counting.await.map_err(Problem::of)?.collect(LONGEST_COUNT).await;
        let answer = bytes::text_of(&counted.map_err(Problem::of)?);
        answer.trim().parse().map_err(|_| Problem::Table(format!("not a number: {answer}")))
    }

    /// Tables that the failed version dropped, and rows that are none of a table's.
    fn note_what_is_gone(&mut self, failed: &Shape) {
        for was in &self.before.tables {
            let is = self.now.tables.iter().find(|table| table.id == was.id);
            let is_system = was.name.starts_with("pg_catalog.");
            let changes = is.and_then(|is| is.changes.checked_sub(was.changes)).unwrap_or(0);
            if is_system && changes > 0 {
                let reason = "large objects are not exported".to_owned();
                self.tables.push(ExportedTable {
                    name: was.name.clone(),
                    changes: Some(changes),
                    refused: vec![RefusedRows { rows: changes, reason, is_told: false }],
                    ..Default::default()
                });
            }
            let is_there = failed.tables.iter().any(|table| table.id == was.id);
            if !is_system && !is_there && was.rows != Some(0) {
                self.tables.push(ExportedTable {
                    name: was.name.clone(),
                    deleted: was.rows,
                    ..Default::default()
                });
            }
        }
    }

    /// A name of the databases', or words with one in them, for a person.
    fn said(&self, text: &str) -> String {
        bytes::said(text, self.encoding)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
    }
}

/// Why a table could not be read.
enum Problem {
    /// The reason is the table's own; the others can be.
    Table(String),
    /// Nothing can be.
    Trouble(Trouble),
}

impl Problem {
    fn of(error: ToolError) -> Self {
        match error {
            ToolError::Ended { .. } => Problem::Table(error.to_string()),
            ToolError::Engine(_)
            | ToolError::Missing { .. }
            | ToolError::Broken { .. }
            | ToolError::Input(_)
            | ToolError::Pooled(_)
            | ToolError::TimedOut { .. } => {
                let code = FailureCode::RuntimeInspectionFailed;
                Problem::Trouble(error.trouble("read the failed version's rows", code, code))
            }
        }
    }
}

fn refuse(table: &mut ExportedTable, rows: u64, reason: &str) {
    match table.refused.iter_mut().find(|refused| refused.reason == reason) {
        Some(refused) => refused.rows += rows,
        None if rows > 0 => {
            table.refused.push(RefusedRows { rows, reason: reason.to_owned(), is_told: false });
        }
        None => {}
    }
}

/// A table that could not be read to its end: of what was counted of it before, all that was not
/// met until then is not exported.
fn refuse_all(table: &mut ExportedTable, is: Option<&TableCount>, reason: &str) {
    let met = Tally::of(table).sum();
    // 0 says that it is not known.
    let rows = is.and_then(|is| is.written).map_or(0, |written| written.saturating_sub(met));
    let reason = format!("the table could not be read: {reason}");
    table.refused.push(RefusedRows { rows, reason, is_told: false });
}

/// Rows of the cut-over that are not there any more.
fn deleted(
    table: &ExportedTable,
    carried: u64,
    was: Option<&TableCount>,
    is: Option<&TableCount>,
    changes: Option<u64>,
) -> Option<u64> {
    let (Some(was), Some(is)) = (was, is) else { return was.map_or(Some(0), |was| was.rows) };
    let counted = was.kinds.zip(is.kinds).filter(|_| changes.is_some());
    if let Some((then, now)) = counted.filter(|(then, now)| then.deleted == now.deleted) {
        let inserted = now.inserted.saturating_sub(then.inserted);
        let is_full = was.rows.zip(is.rows).is_some_and(|(then, now)| then + inserted == now);
        // Another file may be an emptied one (TRUNCATE), unless all rows are in it.
        if was.file == is.file || is_full {
            return Some(0);
        }
    }
    // Which of the others are new is not known.
    if !table.refused.is_empty() || table.taken > 0 {
        return None;
    }
    (was.rows? + table.inserted + carried).checked_sub(is.rows?)
}

/// Sequences that the failed version moved on, as statements.
fn moved_on(failed: &Shape, old: &Shape) -> Vec<String> {
    let moved = failed.sequences.iter().filter_map(|(name, at)| {
        let old = old.sequences.get(name).copied().unwrap_or(0);
        let name = name.replace('\'', "''");
        (*at > old)
            .then(|| format!("SELECT setval('{name}', {at});  -- the old version's is at {old}"))
    });
    moved.collect()
}

async fn shape(runner: &Runner<'_>) -> Result<Shape, Trouble> {
    let doing = format!("read the shape of database {}", runner.database().name);
    let answer = runner.exact(&[&PINNED[..], &[SHAPE]].concat(), READING_TIMEOUT).await.map_err(
        |error| {
            let code = FailureCode::RuntimeInspectionFailed;
            error.trouble(&doing, code, code)
        },
    )?;
    serde_json::from_str(&bytes::text_of(&answer))
        .map_err(|error| broken(format!("{doing}: {error}")))
}

fn broken(reason: impl Into<String>) -> Trouble {
    Trouble::failed(FailureCode::RuntimeInspectionFailed, reason)
}

fn unwritten(path: &Path, error: &std::io::Error) -> Trouble {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            FailureCode::DiskSpaceLow
        }
        _ => FailureCode::RuntimeInspectionFailed,
    };
    Trouble::failed(code, format!("write {}: {error}", path.display()))
}
