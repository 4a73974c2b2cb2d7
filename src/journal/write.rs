//! Writing: each verb is one durable transaction. Called by the driver alone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;

use super::chain::{self, GENESIS};
use super::record::{Ending, EventBody, JobBody, JobId, NewEvent, Row, RowKind, Seq};
use super::{JournalError, schema};
use crate::clock::Timestamp;
use crate::machine::{Hop, Outcome, Step, Transition};

/// The one writer.
pub struct Journal {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Everything that follows from one outcome; written together or not at all.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Where it led.
    pub transitions: Vec<Transition>,
    /// Lines for a person.
    pub log: Vec<String>,
    /// Events of the history.
    pub events: Vec<NewEvent>,
    /// How the job came to rest, when it did.
    pub ending: Option<Ending>,
}

impl Journal {
    /// Opens the journal, creating or migrating it.
    ///
    /// # Errors
    /// When the file can't be opened or its schema is newer than this program.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let connection = schema::open_writer(path)?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts a job: from here on it is the active one. A dry run is accepted and at rest at
    /// once.
    ///
    /// # Errors
    /// [`JournalError::AlreadyActive`] when one is active, by the schema's own rule (I8).
    pub fn begin(
        &self,
        body: &JobBody,
        events: &[NewEvent],
        ending: Option<&Ending>,
    ) -> Result<JobId, JournalError> {
        self.begin_with(body, events, ending)
    }

    /// Of an upgrade or of a restore.
    pub(super) fn begin_with(
        &self,
        body: &impl Serialize,
        events: &[NewEvent],
        ending: Option<&Ending>,
    ) -> Result<JobId, JournalError> {
        let text = self.json("begin a job", body)?;
        let now = Timestamp::now();
        let begun = self.write("begin a job", |transaction| {
            let last: Option<String> =
                transaction.query_row("SELECT max(id) FROM jobs", [], |row| row.get(0))?;
            let job = JobId::after(last.map(JobId::from_text).as_ref());
            let inserted = transaction.execute(
                "INSERT INTO jobs (id, body, created_ms, active) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (active) WHERE active = 1 DO NOTHING",
                params![job.as_str(), text, now.millis(), i64::from(ending.is_none())],
            )?;
            if inserted == 0 {
                let active: String =
                    transaction
                        .query_row("SELECT id FROM jobs WHERE active = 1", [], |row| row.get(0))?;
                return Ok(Err(JobId::from_text(active)));
            }
            let mut tail = Tail::of(transaction, now)?;
            tail.append(RowKind::Job, Some(&job), None, None, None, &text)?;
            tail.events(Some(&job), None, events)?;
            if let Some(ending) = ending {
                tail.append(RowKind::End, Some(&job), None, None, None, &json(ending)?)?;
            }
            Ok(Ok(job))
        })?;
        begun.map_err(|job| JournalError::AlreadyActive { job })
    }

    /// A hop begins.
    pub fn hop(
        &self,
        job: &JobId,
        hop: usize,
        body: &Hop,
        events: &[NewEvent],
    ) -> Result<(), JournalError> {
        self.append(|tail| {
            tail.append(RowKind::Hop, Some(job), Some(hop), None, None, &json(body)?)?;
            tail.events(Some(job), Some(hop), events)
        })
    }

    /// A step is about to run.
    pub fn intent(&self, job: &JobId, hop: usize, step: Step) -> Result<Seq, JournalError> {
        self.append(|tail| {
            tail.append(RowKind::Intent, Some(job), Some(hop), Some(step.as_str()), None, "{}")
        })
    }

    /// What came of a step, and everything that follows from it.
    pub fn settle(
        &self,
        job: &JobId,
        hop: usize,
        step: Step,
        outcome: &Outcome,
        then: &Settlement,
    ) -> Result<(), JournalError> {
        self.write("settle a step", |transaction| {
            let mut tail = Tail::of(transaction, Timestamp::now())?;
            let (job_of, hop_of) = (Some(job), Some(hop));
            tail.append(
                RowKind::Outcome,
                job_of,
                hop_of,
                Some(step.as_str()),
                None,
                &json(outcome)?,
            )?;
            for transition in &then.transitions {
                let event = Some(transition.event.as_str());
                tail.append(RowKind::Transition, job_of, hop_of, event, None, &json(transition)?)?;
            }
            for line in &then.log {
                tail.append(RowKind::Log, job_of, hop_of, None, None, line)?;
            }
            tail.events(job_of, hop_of, &then.events)?;
            if let Some(ending) = &then.ending {
                tail.append(RowKind::End, job_of, hop_of, None, None, &json(ending)?)?;
                transaction
                    .execute("UPDATE jobs SET active = 0 WHERE id = ?1", params![job.as_str()])?;
            }
            Ok(())
        })
    }

    /// A job that rests goes on: a person asked for its way back. It is the active one again.
    ///
    /// # Errors
    /// [`JournalError::AlreadyActive`] when another is active (I8).
    pub fn reopen(
        &self,
        job: &JobId,
        hop: usize,
        transition: Transition,
        events: &[NewEvent],
    ) -> Result<(), JournalError> {
        let reopened = self.write("reopen a job", |transaction| {
            let active: Option<String> = transaction
                .query_row("SELECT id FROM jobs WHERE active = 1", [], |row| row.get(0))
                .optional()?;
            if let Some(active) = active {
                return Ok(Err(JobId::from_text(active)));
            }
            transaction
                .execute("UPDATE jobs SET active = 1 WHERE id = ?1", params![job.as_str()])?;
            let mut tail = Tail::of(transaction, Timestamp::now())?;
            let name = Some(transition.event.as_str());
            let body = json(&transition)?;
            tail.append(RowKind::Transition, Some(job), Some(hop), name, None, &body)?;
            let line = format!("{} -> {}", transition.from, transition.to);
            tail.append(RowKind::Log, Some(job), Some(hop), None, None, &line)?;
            tail.events(Some(job), Some(hop), events)?;
            Ok(Ok(()))
        })?;
        reopened.map_err(|job| JournalError::AlreadyActive { job })
    }

    /// The job comes to rest outside of any step: its next hop could not even be planned.
    pub fn end(
        &self,
        job: &JobId,
        ending: &Ending,
        events: &[NewEvent],
    ) -> Result<(), JournalError> {
        self.write("end a job", |transaction| {
            let mut tail = Tail::of(transaction, Timestamp::now())?;
            tail.append(RowKind::End, Some(job), None, None, None, &json(ending)?)?;
            tail.events(Some(job), None, events)?;
            transaction
                .execute("UPDATE jobs SET active = 0 WHERE id = ?1", params![job.as_str()])?;
            Ok(())
        })
    }

    /// Events of the history that belong to a job; all of them or none.
    pub fn note_of(&self, job: &JobId, events: &[NewEvent]) -> Result<(), JournalError> {
        self.append(|tail| tail.events(Some(job), None, events))
    }

    /// Events of the history that belong to no job; all of them or none.
    pub fn note(&self, events: &[NewEvent]) -> Result<(), JournalError> {
        self.append(|tail| tail.events(None, None, events))
    }

    /// A line for a person.
    pub fn log(&self, job: &JobId, hop: Option<usize>, line: &str) -> Result<(), JournalError> {
        self.append(|tail| tail.append(RowKind::Log, Some(job), hop, None, None, line).map(drop))
    }

    /// Writes what is on its way into the journal's file, and gives the room of its log back
    /// (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>). Loses nothing; while somebody
    /// reads an older state it gives less.
    pub fn shrink(&self) -> Result<(), JournalError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let doing = "empty the write-ahead log";
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|source| JournalError::Sqlite { doing, path: self.path.clone(), source })
    }

    fn json(&self, doing: &'static str, value: &impl Serialize) -> Result<String, JournalError> {
        json(value).map_err(|source| JournalError::Sqlite {
            doing,
            path: self.path.clone(),
            source,
        })
    }

    pub(super) fn append<T>(
        &self,
        rows: impl FnOnce(&mut Tail<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        self.write("append", |transaction| rows(&mut Tail::of(transaction, Timestamp::now())?))
    }

    pub(super) fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        // A thread that panicked in here left its transaction rolled back: the connection is good.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let sqlite = |source| JournalError::Sqlite { doing, path: self.path.clone(), source };
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(sqlite)?;
        let result = work(&transaction).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
        Ok(result)
    }
}

/// The end of the chain, inside a transaction.
pub(super) struct Tail<'a> {
    transaction: &'a Transaction<'a>,
    at_ms: i64,
    seq: Seq,
    hash: String,
}

impl<'a> Tail<'a> {
    pub(super) fn of(transaction: &'a Transaction<'a>, now: Timestamp) -> rusqlite::Result<Self> {
        let last: Option<(Seq, String)> = transaction
            .query_row("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let (seq, hash) = last.unwrap_or((0, GENESIS.to_owned()));
        Ok(Self { transaction, at_ms: now.millis(), seq, hash })
    }

    pub(super) fn append(
        &mut self,
        kind: RowKind,
        job: Option<&JobId>,
        hop: Option<usize>,
        name: Option<&str>,
        status: Option<&str>,
        body: &str,
    ) -> rusqlite::Result<Seq> {
        let mut row = Row {
            seq: self.seq + 1,
            at: String::new(),
            at_ms: self.at_ms,
            kind,
            job: job.map(|job| job.as_str().to_owned()),
            hop: hop.map(|hop| hop as i64),
            name: name.map(str::to_owned),
            status: status.map(str::to_owned),
            body: body.to_owned(),
            hash: String::new(),
        };
        row.hash = chain::hash(&self.hash, &row);
        self.transaction
            .prepare_cached(
                "INSERT INTO journal (seq, at_ms, kind, job, hop, name, status, body, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                row.seq,
                row.at_ms,
                row.kind.as_str(),
                row.job,
                row.hop,
                row.name,
                row.status,
                row.body,
                row.hash
            ])?;
        self.seq = row.seq;
        self.hash = row.hash;
        Ok(self.seq)
    }

    /// Each event names its job, if it belongs to one: only here is the id of one that begins
    /// known.
    pub(super) fn events(
        &mut self,
        job: Option<&JobId>,
        hop: Option<usize>,
        events: &[NewEvent],
    ) -> rusqlite::Result<()> {
        for event in events {
            let mut data = event.data.clone();
            data.extend(job.map(|job| ("jobId".to_owned(), job.as_str().to_owned())));
            let body = EventBody { message: event.message.clone(), data };
            let (name, status) = (Some(event.kind), Some(event.status));
            self.append(RowKind::Event, job, hop, name, status, &json(&body)?)?;
        }
        Ok(())
    }
}

/// What can't be serialised is not written: an empty body could never be folded again.
pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_cant_be_serialised_is_an_error_and_no_row() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        let journal = Journal::open(&path).expect("a journal");
        // JSON has text keys only.
        let unwritable = BTreeMap::from([((1, 2), 3)]);
        let written = journal.append(|tail| {
            tail.append(RowKind::Log, None, None, None, None, "before it")?;
            tail.append(RowKind::Event, None, None, None, None, &json(&unwritable)?)
        });
        let error = written.expect_err("it is refused").to_string();
        assert!(error.contains("key must be a string"), "{error}");
        let reader = crate::journal::Reader::open(&path).expect("a reader");
        let rows = reader.verify().expect("read").expect("it holds").rows;
        assert_eq!(rows, 0, "nothing of it was written");
    }
}
