//! Reading: everything that is asked, answered from the tables, on a read-only connection.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::chain::{self, Broken, Verified};
use super::fold::{self, JobRecord};
use super::record::{EventBody, HistoryEvent, JobId, Row, RowKind, Seq};
use super::{JournalError, schema};
use crate::clock::Timestamp;

/// A read-only connection.
pub struct Reader {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Which events of the history are wanted.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    /// Exact, case-insensitive.
    pub kind: Option<String>,
    /// Exact, case-insensitive.
    pub status: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The row's number; to ask for what follows.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// What.
    pub text: String,
}

impl Reader {
    /// Opens the journal for reading; it must exist.
    ///
    /// # Errors
    /// When there is none, or its schema is newer than this program.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let connection = schema::open_reader(path)?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// The job that is under way.
    pub fn active_job(&self) -> Result<Option<JobRecord>, JournalError> {
        self.job_where("SELECT id FROM jobs WHERE active = 1")
    }

    /// The newest job.
    pub fn last_job(&self) -> Result<Option<JobRecord>, JournalError> {
        self.job_where("SELECT id FROM jobs ORDER BY rowid DESC LIMIT 1")
    }

    /// The newest job that did not only ask for a plan.
    pub fn last_executed_job(&self) -> Result<Option<JobRecord>, JournalError> {
        self.job_where(
            "SELECT id FROM jobs WHERE json_extract(body, '$.dryRun') = 0
             ORDER BY rowid DESC LIMIT 1",
        )
    }

    /// The newest job before this one that did not only ask for a plan.
    pub fn executed_job_before(&self, job: &JobId) -> Result<Option<JobRecord>, JournalError> {
        let rows = self.read("read a job", |connection| {
            let transaction = connection.unchecked_transaction()?;
            let id: Option<String> = transaction
                .query_row(
                    "SELECT id FROM jobs WHERE json_extract(body, '$.dryRun') = 0
                     AND rowid < (SELECT rowid FROM jobs WHERE id = ?1)
                     ORDER BY rowid DESC LIMIT 1",
                    params![job.as_str()],
                    |row| row.get(0),
                )
                .optional()?;
            id.map(|id| rows_of_job(&transaction, &id).map(|rows| (id, rows))).transpose()
        })?;
        rows.map(|(id, rows)| fold::fold(JobId::from_text(id), &rows, &self.path)).transpose()
    }

    fn job_where(&self, sql: &str) -> Result<Option<JobRecord>, JournalError> {
        let rows = self.read("read a job", |connection| {
            // One snapshot, so that the job and its rows belong together.
            let transaction = connection.unchecked_transaction()?;
            let id: Option<String> = transaction.query_row(sql, [], |row| row.get(0)).optional()?;
            match id {
                Some(id) => rows_of_job(&transaction, &id).map(|rows| Some((id, rows))),
                None => Ok(None),
            }
        })?;
        match rows {
            Some((id, rows)) => fold::fold(JobId::from_text(id), &rows, &self.path).map(Some),
            None => Ok(None),
        }
    }

    /// The log lines of a job after row `after` (0: all), oldest first.
    pub fn log_lines(&self, job: &JobId, after: Seq) -> Result<Vec<Line>, JournalError> {
        self.read("read log lines", |connection| {
            connection
                .prepare_cached(
                    "SELECT seq, at_ms, body FROM journal
                     WHERE job = ?1 AND kind = 'log' AND seq > ?2 ORDER BY seq",
                )?
                .query_map(params![job.as_str(), after], |row| {
                    Ok(Line {
                        seq: row.get(0)?,
                        at: Timestamp::from_millis(row.get(1)?),
                        text: row.get(2)?,
                    })
                })?
                .collect()
        })
    }

    /// Events of the history, newest first.
    pub fn history(&self, filter: &HistoryFilter) -> Result<Vec<HistoryEvent>, JournalError> {
        let mut sql = "SELECT seq, at_ms, kind, job, hop, name, status, body, hash
                       FROM journal WHERE kind = 'event'"
            .to_owned();
        let mut values: Vec<&dyn rusqlite::ToSql> = Vec::new();
        if let Some(kind) = &filter.kind {
            values.push(kind);
            sql.push_str(&format!(" AND name = ?{} COLLATE NOCASE", values.len()));
        }
        if let Some(status) = &filter.status {
            values.push(status);
            sql.push_str(&format!(" AND status = ?{} COLLATE NOCASE", values.len()));
        }
        values.push(&filter.limit);
        sql.push_str(&format!(" ORDER BY seq DESC LIMIT ?{}", values.len()));
        let rows: Vec<Row> = self.read("read the history", |connection| {
            connection.prepare_cached(&sql)?.query_map(&values[..], row)?.collect()
        })?;
        rows.into_iter().map(|row| self.event(row)).collect()
    }

    fn event(&self, row: Row) -> Result<HistoryEvent, JournalError> {
        let body: EventBody = serde_json::from_str(&row.body).map_err(|error| {
            let reason = format!("an event's body is not understood: {error}");
            JournalError::Row { path: self.path.clone(), seq: row.seq, reason }
        })?;
        Ok(HistoryEvent {
            id: row.seq.to_string(),
            timestamp: row.at,
            kind: row.name.unwrap_or_default(),
            status: row.status.unwrap_or_default(),
            message: body.message,
            data: body.data,
        })
    }

    /// Walks the hash chain.
    pub fn verify(&self) -> Result<Result<Verified, Broken>, JournalError> {
        self.read("verify", |connection| {
            // One snapshot: a row that is written meanwhile would look like a missing one.
            let transaction = connection.unchecked_transaction()?;
            chain::verify(&transaction)
        })
    }

    /// Writes every row as a line of JSON; answers how many.
    ///
    /// # Errors
    /// When the journal can't be read or `out` not written.
    pub fn export(&self, out: &mut dyn Write) -> Result<u64, JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let sqlite =
            |source| JournalError::Sqlite { doing: "export", path: self.path.clone(), source };
        let mut statement = connection
            .prepare(
                "SELECT seq, at_ms, kind, job, hop, name, status, body, hash
                 FROM journal ORDER BY seq",
            )
            .map_err(sqlite)?;
        let mut rows = statement.query([]).map_err(sqlite)?;
        let mut count = 0;
        while let Some(raw) = rows.next().map_err(sqlite)? {
            let line = exported(&row(raw).map_err(sqlite)?);
            writeln!(out, "{line}").map_err(io)?;
            count += 1;
        }
        Ok(count)
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection).map_err(|source| JournalError::Sqlite {
            doing,
            path: self.path.clone(),
            source,
        })
    }
}

/// A row as a line of JSON: a body that is JSON is written as such.
fn exported(row: &Row) -> serde_json::Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    if row.kind != RowKind::Log
        && let Ok(body) = serde_json::from_str::<serde_json::Value>(&row.body)
    {
        value["body"] = body;
    }
    value
}

fn rows_of_job(connection: &Connection, job: &str) -> rusqlite::Result<Vec<Row>> {
    connection
        .prepare_cached(
            "SELECT seq, at_ms, kind, job, hop, name, status, body, hash FROM journal
             WHERE job = ?1 AND kind IN ('job', 'hop', 'intent', 'outcome', 'transition', 'end')
             ORDER BY seq",
        )?
        .query_map(params![job], row)?
        .collect()
}

/// Reads the nine columns in the table's order.
pub(super) fn row(raw: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let at_ms: i64 = raw.get(1)?;
    let kind: String = raw.get(2)?;
    Ok(Row {
        seq: raw.get(0)?,
        at: Timestamp::from_millis(at_ms).rfc3339(),
        at_ms,
        kind: RowKind::from_text(&kind).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(
                2,
                rusqlite::types::Type::Text,
                format!("unknown kind of row '{kind}'").into(),
            )
        })?,
        job: raw.get(3)?,
        hop: raw.get(4)?,
        name: raw.get(5)?,
        status: raw.get(6)?,
        body: raw.get(7)?,
        hash: raw.get(8)?,
    })
}
