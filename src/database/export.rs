//! The rows that a failed version wrote, taken out of its database after the restore point has
//! replaced it, into a file that the old version's database can be given.
//!
//! Called by the driver when the old version serves again, with a server of its own on the
//! failed version's directory. Both databases are only read. Rows are told by the transaction
//! that wrote their version: those of the cut-over's next transaction and later ones are the
//! failed version's. Each is then looked for in the old version's database by its key, which
//! tells an insertion from an update, and from a row that was only rewritten.
//!
//! | file | subject |
//! |---|---|
//! | `shape` | which table and column of the failed version is which of the old one; pure |
//! | `statement` | the statements; pure |
//! | `file` | the file |

mod file;
mod shape;
mod statement;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use self::file::Draft;
use self::shape::{Fate, Mapping, Shape};
use super::fingerprint::{PINNED, fingerprint_since};
use super::runner::{READING_TIMEOUT, Runner};
use super::tool::{Running, ToolError};
use crate::error::Trouble;
use crate::machine::facts::{Export, ExportedTable, Fingerprint, RefusedRows, TableCount};
use crate::machine::failure::FailureCode;

const SHAPE: &str = include_str!("sql/shape.sql");

/// How long rows may be counted.
const COUNT_BUDGET: Duration = Duration::from_secs(5);

/// Rows, and bytes of them, that the old version is asked about at once.
const BATCH_ROWS: usize = 2000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Updated rows of a table that are told one by one; the others are only counted.
const UPDATED_TOLD: u64 = 10_000;

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

/// Writes the rows that the failed version wrote to `path`, whole or not at all; no file when
/// there are none. `before` is what was read after the old version's last write.
///
/// # Errors
/// `DISK_SPACE_LOW`, or `RUNTIME_INSPECTION_FAILED` when one of the two can't be read, or the
/// cut-over was not noted well enough.
pub async fn export_rows(
    failed: &Runner<'_>,
    old: &Runner<'_>,
    before: &Fingerprint,
    path: &Path,
    heading: &Heading<'_>,
    within: Duration,
) -> Result<Export, Trouble> {
    let Some(cut_over) = before.next_transaction else {
        return Err(broken("the cut-over's transaction was not noted"));
    };
    let now = fingerprint_since(failed, COUNT_BUDGET, before).await?;
    let at = now.next_transaction.unwrap_or(0);
    if at < cut_over || at - cut_over >= 1 << 31 {
        return Err(broken(format!(
            "the failed version's server is at transaction {at}, the cut-over was at {cut_over}"
        )));
    }
    let (failed_shape, old_shape) = (shape(failed).await?, shape(old).await?);
    let draft = Draft::begin(path).map_err(|error| unwritten(path, &error))?;
    let mut export = Exporting {
        failed,
        old,
        before,
        now: &now,
        cut_over,
        deadline: Instant::now() + within,
        path,
        draft,
        tables: Vec::new(),
    };
    for fate in shape::fates(&failed_shape, &old_shape) {
        export.table(&fate).await?;
    }
    export.note_what_is_gone(&failed_shape);
    let Exporting { draft, mut tables, .. } = export;
    if tables.is_empty() {
        return Ok(Export::Nothing);
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let sequences = moved_on(&failed_shape, &old_shape);
    draft.finish(heading, &tables, &sequences).map_err(|error| unwritten(path, &error))?;
    Ok(Export::Written { path: path.to_string_lossy().into_owned(), tables })
}

/// `public.payments: 12 rows inserted, 3 updated; 60 changes`
pub fn said_of_table(table: &ExportedTable) -> String {
    file::said_of(table)
}

struct Exporting<'e> {
    failed: &'e Runner<'e>,
    old: &'e Runner<'e>,
    before: &'e Fingerprint,
    now: &'e Fingerprint,
    cut_over: u64,
    deadline: Instant,
    path: &'e Path,
    draft: Draft,
    tables: Vec<ExportedTable>,
}

/// A row of the failed version's, as [`statement::reading`] answers it.
type Answered = (Option<usize>, Option<String>, Option<String>, Option<String>, Option<String>);

/// A row that the old table can hold.
struct Row {
    key: String,
    digest: String,
    values: String,
    further: Option<String>,
}

/// What the old version answers to [`statement::question`].
type Answer = (usize, String, bool);

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
        let mut table = ExportedTable { name: name.to_owned(), changes, ..Default::default() };
        let read = match fate {
            Fate::Goes(mapping) => self.rows(mapping, &mut table).await,
            Fate::Stays { failed, reason, .. } => {
                self.counted(&failed.name).await.map(|rows| refuse(&mut table, rows, reason))
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
            table.left_out = further.map(|column| column.name.clone()).collect();
        }
        table.deleted = deleted(&table, was, is, changes);
        let has_rows = table.inserted + table.updated + table.taken > 0;
        if has_rows || !table.refused.is_empty() || table.deleted != Some(0) {
            self.tables.push(table);
        }
        Ok(())
    }

    /// Streams the rows of a table, a batch at a time.
    async fn rows(
        &mut self,
        mapping: &Mapping<'_>,
        table: &mut ExportedTable,
    ) -> Result<(), Problem> {
        let reading = statement::reading(mapping, self.cut_over);
        let mut refused: HashMap<usize, u64> = HashMap::new();
        let mut lines = Lines::of(
            self.failed
                .begin_psql(
                    &[
                        &PINNED[..],
                        &[
                            "set synchronize_seqscans = off",
                            "set statement_timeout = 0",
                            &reading.statement,
                        ],
                    ]
                    .concat(),
                    self.left(),
                )
                .await
                .map_err(Problem::of)?,
        );
        let mut batch: Vec<Row> = Vec::new();
        let mut bytes = 0;
        while let Some(line) = lines.next().await.map_err(Problem::of)? {
            match serde_json::from_str::<Answered>(&line) {
                Ok((None, key, Some(digest), Some(values), further)) => {
                    bytes += values.len();
                    batch.push(Row { key: key.unwrap_or_default(), digest, values, further });
                }
                Ok((Some(why), ..)) => *refused.entry(why).or_default() += 1,
                Ok(_) => return Err(Problem::Table("a row without values".into())),
                Err(error) => return Err(Problem::Table(error.to_string())),
            }
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                self.settle(mapping, table, &std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        lines.finish().await.map_err(Problem::of)?;
        self.settle(mapping, table, &batch).await?;
        self.draft.end_table().map_err(|error| self.unwritten(&error))?;
        for (number, reason) in reading.refusals.iter().enumerate() {
            if let Some(rows) = refused.get(&number) {
                refuse(table, *rows, reason);
            }
        }
        Ok(())
    }

    /// Asks the old version about a batch, and writes each row where it belongs.
    async fn settle(
        &mut self,
        mapping: &Mapping<'_>,
        table: &mut ExportedTable,
        batch: &[Row],
    ) -> Result<(), Problem> {
        if batch.is_empty() {
            return Ok(());
        }
        self.draft.check_space().map_err(|error| self.unwritten(&error))?;
        if mapping.key.is_empty() {
            let why = "the table has no key, so whether a row is new can't be told; \
                       they are in the comments below";
            refuse(table, batch.len() as u64, why);
            for row in batch {
                self.comment(mapping, "written", row)?;
            }
            return Ok(());
        }
        let found = self.ask(mapping, batch).await?;
        for (number, row) in batch.iter().enumerate() {
            match found.get(&number) {
                None => {
                    table.inserted += 1;
                    let written = self.draft.insert(mapping, &row.values, row.further.as_deref());
                    written.map_err(|error| self.unwritten(&error))?;
                }
                Some((same, _)) if *same == row.digest && mapping.further.is_empty() => {}
                Some((same, _)) if *same == row.digest && self.is_rewritten(mapping) => {
                    refuse(table, 1, &rewritten(mapping));
                }
                Some((same, true)) if *same != row.digest => {
                    table.taken += 1;
                    self.comment(mapping, "key taken since", row)?;
                }
                Some(_) => {
                    table.updated += 1;
                    if table.updated <= UPDATED_TOLD {
                        self.comment(mapping, "updated", row)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn comment(&mut self, mapping: &Mapping<'_>, why: &str, row: &Row) -> Result<(), Problem> {
        let written = self.draft.comment(mapping, why, &row.values, row.further.as_deref());
        written.map_err(|error| self.unwritten(&error))
    }

    /// What the old version has under these keys, by place in the batch.
    async fn ask(
        &self,
        mapping: &Mapping<'_>,
        batch: &[Row],
    ) -> Result<HashMap<usize, (String, bool)>, Problem> {
        let keys: Vec<String> = batch
            .iter()
            .enumerate()
            .map(|(number, row)| format!("({number}, {})", row.key))
            .collect();
        let question = statement::question(mapping, &keys.join(", "), self.cut_over);
        let asked =
            Question::write(self.path, &question).map_err(|error| self.unwritten(&error))?;
        let mut answer = Vec::new();
        let settings = [&PINNED[..], &["set statement_timeout = '60s'"]].concat();
        let within = self.left().min(READING_TIMEOUT * 3);
        self.old
            .psql_of_file(&settings, &asked.0, within, &mut |piece| answer.extend_from_slice(piece))
            .await
            .map_err(Problem::of)?;
        let text = String::from_utf8_lossy(&answer);
        let mut found = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (number, digest, since): Answer =
                serde_json::from_str(line).map_err(|error| Problem::Table(error.to_string()))?;
            found.insert(number, (digest, since));
        }
        Ok(found)
    }

    async fn counted(&self, table: &str) -> Result<u64, Problem> {
        let count = statement::counting(table, self.cut_over);
        let statements = [&PINNED[..], &["set statement_timeout = 0", &count]].concat();
        let answer = self.failed.psql(None, &statements, self.left()).await.map_err(Problem::of)?;
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
                    refused: vec![RefusedRows { rows: changes, reason }],
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

    /// Whether the failed version wrote every row of the table anew, as `ALTER TABLE` may.
    fn is_rewritten(&self, mapping: &Mapping<'_>) -> bool {
        let file = |of: &Fingerprint| {
            of.tables.iter().find(|table| table.id == mapping.failed.id).map(|table| table.file)
        };
        file(self.before) != file(self.now)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
    }

    fn unwritten(&self, error: &std::io::Error) -> Problem {
        Problem::Trouble(unwritten(self.path, error))
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
            | ToolError::TimedOut { .. } => {
                let code = FailureCode::RuntimeInspectionFailed;
                Problem::Trouble(error.trouble("read the failed version's rows", code, code))
            }
        }
    }
}

fn rewritten(mapping: &Mapping<'_>) -> String {
    let names: Vec<&str> = mapping.further.iter().map(|column| column.name.as_str()).collect();
    format!(
        "rewritten with the whole table; what was written into {}, which the old version does not \
         have, is not told apart",
        names.join(", ")
    )
}

fn refuse(table: &mut ExportedTable, rows: u64, reason: &str) {
    match table.refused.iter_mut().find(|refused| refused.reason == reason) {
        Some(refused) => refused.rows += rows,
        None if rows > 0 => {
            table.refused.push(RefusedRows { rows, reason: reason.to_owned() });
        }
        None => {}
    }
}

/// A table that could not be read to its end: what was counted of it before is said instead.
fn refuse_all(table: &mut ExportedTable, is: Option<&TableCount>, reason: &str) {
    let rows = is.and_then(|is| is.written).unwrap_or(0);
    let reason = format!("the table could not be read: {reason}");
    table.refused.push(RefusedRows { rows, reason });
}

/// Rows of the cut-over that are not there any more.
fn deleted(
    table: &ExportedTable,
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
    (was.rows? + table.inserted).checked_sub(is.rows?)
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
    let answer = runner
        .psql(None, &[&PINNED[..], &[SHAPE]].concat(), READING_TIMEOUT)
        .await
        .map_err(|error| {
            let code = FailureCode::RuntimeInspectionFailed;
            error.trouble(&doing, code, code)
        })?;
    serde_json::from_str(&answer).map_err(|error| broken(format!("{doing}: {error}")))
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

/// Keys that the old version is asked about, in a file that goes with it.
struct Question(PathBuf);

impl Question {
    fn write(beside: &Path, text: &str) -> std::io::Result<Self> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;

        let path = file::beside(beside, ".question.partial");
        let mut options = std::fs::OpenOptions::new();
        let question = Self(path);
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&question.0)?;
        file.write_all(text.as_bytes())?;
        Ok(question)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // It would only be written anew.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The lines of a program's output.
struct Lines<'r> {
    running: Running<'r>,
    buffer: Vec<u8>,
    is_over: bool,
}

impl<'r> Lines<'r> {
    fn of(running: Running<'r>) -> Self {
        Self { running, buffer: Vec::new(), is_over: false }
    }

    async fn next(&mut self) -> Result<Option<String>, ToolError> {
        let mut searched = 0;
        loop {
            let new = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            searched = self.buffer.len();
            if self.is_over {
                return Ok(None);
            }
            match self.running.stdout().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => self.is_over = true,
            }
        }
    }

    async fn finish(self) -> Result<(), ToolError> {
        self.running.finish().await
    }
}
