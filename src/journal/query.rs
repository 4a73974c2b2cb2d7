//! Reading: everything that is asked, answered from the tables, on a read-only connection.

use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::JournalError;
use super::chain::{self, Broken, Verified};
use super::fold::{self, JobRecord};
use super::pool::Pool;
use super::record::{EventBody, HistoryEvent, JobId, Row, RowKind, Seq, row};
use crate::clock::Timestamp;

/// Reads on a few connections of its own: several may read at once, and none waits for another.
pub struct Reader {
    pub(super) path: PathBuf,
    pool: Pool,
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
    /// None from before this moment.
    pub since: Option<Timestamp>,
    /// None from this moment on.
    pub before: Option<Timestamp>,
    /// Only rows below this one.
    pub below: Option<Seq>,
    /// Only those of this job.
    pub job: Option<JobId>,
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
        Ok(Self { path: path.to_owned(), pool: Pool::open(path)? })
    }

    /// The upgrade that is under way.
    pub fn active_job(&self) -> Result<Option<JobRecord>, JournalError> {
        self.job_where(
            "SELECT id FROM jobs WHERE active = 1 AND json_extract(body, '$.kind') IS NULL",
        )
    }

    /// The newest upgrade.
    pub fn last_job(&self) -> Result<Option<JobRecord>, JournalError> {
        self.job_where(
            "SELECT id FROM jobs WHERE json_extract(body, '$.kind') IS NULL
             ORDER BY rowid DESC LIMIT 1",
        )
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

    /// The ids of the newest jobs, the newest first; with `before` of those that are older.
    pub fn job_ids(&self, limit: u32, before: Option<&JobId>) -> Result<Vec<JobId>, JournalError> {
        let before = before.map(JobId::as_str);
        self.read("list the jobs", |connection| {
            connection
                .prepare_cached(
                    "SELECT id FROM jobs
                     WHERE ?1 IS NULL OR rowid < (SELECT rowid FROM jobs WHERE id = ?1)
                     ORDER BY rowid DESC LIMIT ?2",
                )?
                .query_map(params![before, limit], |row| Ok(JobId::from_text(row.get(0)?)))?
                .collect()
        })
    }

    /// The row after which the last `count` log lines of a job are those that are left; 0 when all
    /// are.
    pub fn row_before_last(&self, job: &JobId, count: u32) -> Result<Seq, JournalError> {
        self.read("read log lines", |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT seq FROM journal WHERE job = ?1 AND kind = 'log'
                     ORDER BY seq DESC LIMIT 1 OFFSET ?2",
                )?
                .query_row(params![job.as_str(), count], |row| row.get(0))
                .optional()?;
            Ok(found.unwrap_or_default())
        })
    }

    /// The last log line of a job from before this moment: its row, or 0.
    pub fn row_before(&self, job: &JobId, moment: Timestamp) -> Result<Seq, JournalError> {
        self.read("read log lines", |connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce(max(seq), 0) FROM journal
                     WHERE job = ?1 AND kind = 'log' AND at_ms < ?2",
                )?
                .query_row(params![job.as_str(), moment.millis()], |row| row.get(0))
        })
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

    /// The number of the newest row; 0 when there is none.
    pub fn newest_row(&self) -> Result<Seq, JournalError> {
        self.read("read the newest row", |connection| {
            connection.query_row("SELECT coalesce(max(seq), 0) FROM journal", [], |row| row.get(0))
        })
    }

    /// The log lines of a job after row `after` (0: all), oldest first.
    pub fn log_lines(&self, job: &JobId, after: Seq) -> Result<Vec<Line>, JournalError> {
        self.log_page(job, after, Seq::MAX, usize::MAX).map(|(lines, _)| lines)
    }

    /// The last log line of a hop that begins like this; with `since_asked` only when it is newer
    /// than the last word of a person on how to go back.
    pub fn line_of_hop(
        &self,
        job: &JobId,
        hop: usize,
        beginning: &str,
        since_asked: bool,
    ) -> Result<Option<String>, JournalError> {
        let hop = i64::try_from(hop).unwrap_or(i64::MAX);
        self.read("read a log line", |connection| {
            connection
                .prepare_cached(
                    "SELECT body FROM journal
                     WHERE job = ?1 AND kind = 'log' AND hop = ?2 AND instr(body, ?3) = 1
                     AND (NOT ?4 OR seq > (SELECT coalesce(max(seq), 0) FROM journal
                         WHERE job = ?1 AND kind = 'transition' AND hop = ?2
                         AND name IN ('recover', 'recover_restoring', 'recover_restoring_shown',
                                      'recover_carrying', 'recover_carrying_shown')))
                     ORDER BY seq DESC LIMIT 1",
                )?
                .query_row(params![job.as_str(), hop, beginning, since_asked], |row| row.get(0))
                .optional()
        })
    }

    /// The first of these lines, up to row `upto`, and no further when their texts have
    /// `bytes` bytes; oldest first. Also whether these are all.
    pub fn log_page(
        &self,
        job: &JobId,
        after: Seq,
        upto: Seq,
        bytes: usize,
    ) -> Result<(Vec<Line>, bool), JournalError> {
        self.read("read log lines", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT seq, at_ms, body FROM journal
                 WHERE job = ?1 AND kind = 'log' AND seq > ?2 AND seq <= ?3 ORDER BY seq",
            )?;
            let mut rows = statement.query(params![job.as_str(), after, upto])?;
            let (mut lines, mut size) = (Vec::new(), 0);
            while size < bytes {
                let Some(row) = rows.next()? else { return Ok((lines, true)) };
                let line = Line {
                    seq: row.get(0)?,
                    at: Timestamp::from_millis(row.get(1)?),
                    text: row.get(2)?,
                };
                size += std::mem::size_of::<Line>() + line.text.len();
                lines.push(line);
            }
            Ok((lines, false))
        })
    }

    /// Events of the history, newest first.
    pub fn history(&self, filter: &HistoryFilter) -> Result<Vec<HistoryEvent>, JournalError> {
        self.events(&self.history_rows(filter)?, usize::MAX)
    }

    /// The rows of these events, newest first: what [`Reader::events`] is asked for, page by
    /// page. Their numbers stay true, because rows are only ever added.
    pub fn history_rows(&self, filter: &HistoryFilter) -> Result<Vec<Seq>, JournalError> {
        let mut sql = "SELECT seq FROM journal WHERE kind = 'event'".to_owned();
        let mut values: Vec<&dyn rusqlite::ToSql> = Vec::new();
        if let Some(kind) = &filter.kind {
            values.push(kind);
            sql.push_str(&format!(" AND name = ?{} COLLATE NOCASE", values.len()));
        }
        if let Some(status) = &filter.status {
            values.push(status);
            sql.push_str(&format!(" AND status = ?{} COLLATE NOCASE", values.len()));
        }
        let (since, before) =
            (filter.since.map(Timestamp::millis), filter.before.map(Timestamp::millis));
        if let Some(since) = &since {
            values.push(since);
            sql.push_str(&format!(" AND at_ms >= ?{}", values.len()));
        }
        if let Some(before) = &before {
            values.push(before);
            sql.push_str(&format!(" AND at_ms < ?{}", values.len()));
        }
        if let Some(below) = &filter.below {
            values.push(below);
            sql.push_str(&format!(" AND seq < ?{}", values.len()));
        }
        let job = filter.job.as_ref().map(JobId::as_str);
        if let Some(job) = &job {
            values.push(job);
            sql.push_str(&format!(" AND job = ?{}", values.len()));
        }
        values.push(&filter.limit);
        sql.push_str(&format!(" ORDER BY seq DESC LIMIT ?{}", values.len()));
        self.read("read the history", |connection| {
            connection.prepare_cached(&sql)?.query_map(&values[..], |row| row.get(0))?.collect()
        })
    }

    /// The events of these rows, in this order, and no further when their bodies have `bytes`
    /// bytes; at least one when there is one.
    pub fn events(&self, rows: &[Seq], bytes: usize) -> Result<Vec<HistoryEvent>, JournalError> {
        let rows: Vec<Row> = self.read("read the history", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT seq, at_ms, kind, job, hop, name, status, body, hash FROM journal
                 WHERE seq = ?1",
            )?;
            let (mut found, mut size) = (Vec::new(), 0);
            for seq in rows {
                if size >= bytes {
                    break;
                }
                let row = statement.query_row(params![seq], row)?;
                size += row.body.len();
                found.push(row);
            }
            Ok(found)
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
        // One snapshot: a row that is written meanwhile is not one that is missing.
        self.read("verify", |connection| {
            let snapshot = connection.unchecked_transaction()?;
            chain::verify(&snapshot)
        })
    }

    /// Writes every row as a line of JSON; answers how many.
    ///
    /// # Errors
    /// When the journal can't be read or `out` not written.
    pub fn export(&self, out: &mut dyn Write) -> Result<u64, JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let sqlite =
            |source| JournalError::Sqlite { doing: "export", path: self.path.clone(), source };
        self.pool.with(|connection| {
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
        })?
    }

    pub(super) fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        self.pool.with(work)?.map_err(|source| JournalError::Sqlite {
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

pub(super) fn rows_of_job(connection: &Connection, job: &str) -> rusqlite::Result<Vec<Row>> {
    connection
        .prepare_cached(
            "SELECT seq, at_ms, kind, job, hop, name, status, body, hash FROM journal
             WHERE job = ?1 AND kind IN ('job', 'hop', 'intent', 'outcome', 'transition', 'end')
             ORDER BY seq",
        )?
        .query_map(params![job], row)?
        .collect()
}
