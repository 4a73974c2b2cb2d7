//! The rows of restores: jobs of their own kind in the same tables, so that the one rule forbids
//! an upgrade and a restore at once (I8). Each step has its intent and its outcome, and the folded
//! record is [`Restore::apply`] over the outcomes.
//!
//! Called by the driver for writing, and by everything that shows a job.

use rusqlite::{OptionalExtension, params};

use super::JournalError;
use super::fold::{self, JobRecord};
use super::query::{Reader, rows_of_job};
use super::record::{Ending, JobId, NewEvent, Row, RowKind, Seq};
use super::rehearsals::RehearsalRecord;
use super::write::{Journal, Tail, json};
use crate::clock::Timestamp;
use crate::restore::{Restore, RestoreBody, RestoreOutcome, RestoreStep};

/// A restore as its rows tell it.
#[derive(Clone, Debug)]
pub struct RestoreRecord {
    /// Its id.
    pub id: JobId,
    /// What was asked.
    pub body: RestoreBody,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its newest row was written.
    pub updated: Timestamp,
    /// Where it is.
    pub restore: Restore,
    /// Whether the step in hand was begun and has no outcome: it runs, or the program ended in it.
    pub is_pending: bool,
    /// How it came to rest, when it has.
    pub ending: Option<Ending>,
}

impl RestoreRecord {
    /// Whether it is under way.
    pub fn is_active(&self) -> bool {
        self.ending.is_none()
    }
}

/// A job, of whichever kind.
#[derive(Clone, Debug)]
pub enum LastJob {
    /// An upgrade.
    Upgrade(Box<JobRecord>),
    /// A restore.
    Restore(Box<RestoreRecord>),
    /// A rehearsal.
    Rehearsal(Box<RehearsalRecord>),
}

impl LastJob {
    /// Its id.
    pub fn id(&self) -> &JobId {
        match self {
            LastJob::Upgrade(job) => &job.id,
            LastJob::Restore(job) => &job.id,
            LastJob::Rehearsal(job) => &job.id,
        }
    }
}

/// Everything that follows from one outcome; written together or not at all.
#[derive(Debug, Default)]
pub struct RestoreSettlement {
    /// Lines for a person.
    pub log: Vec<String>,
    /// Events of the history.
    pub events: Vec<NewEvent>,
    /// How the job came to rest, when it did.
    pub ending: Option<Ending>,
}

impl Journal {
    /// Accepts a restore: from here on it is the active job.
    ///
    /// # Errors
    /// [`JournalError::AlreadyActive`] when one is active, of either kind (I8).
    pub fn begin_restore(
        &self,
        body: &RestoreBody,
        events: &[NewEvent],
    ) -> Result<JobId, JournalError> {
        self.begin_with(body, events, None)
    }

    /// A step of a restore is about to run.
    pub fn restore_intent(&self, job: &JobId, step: RestoreStep) -> Result<Seq, JournalError> {
        self.append(|tail| {
            tail.append(RowKind::Intent, Some(job), None, Some(step.as_str()), None, "{}")
        })
    }

    /// What came of it, and everything that follows.
    pub fn settle_restore(
        &self,
        job: &JobId,
        step: RestoreStep,
        outcome: &RestoreOutcome,
        then: &RestoreSettlement,
    ) -> Result<(), JournalError> {
        self.write("settle a step", |transaction| {
            let mut tail = Tail::of(transaction, Timestamp::now())?;
            let (name, body) = (Some(step.as_str()), json(outcome)?);
            tail.append(RowKind::Outcome, Some(job), None, name, None, &body)?;
            for line in &then.log {
                tail.append(RowKind::Log, Some(job), None, None, None, line)?;
            }
            tail.events(Some(job), None, &then.events)?;
            if let Some(ending) = &then.ending {
                tail.append(RowKind::End, Some(job), None, None, None, &json(ending)?)?;
                transaction
                    .execute("UPDATE jobs SET active = 0 WHERE id = ?1", params![job.as_str()])?;
            }
            Ok(())
        })
    }
}

impl Reader {
    /// The restore that is under way.
    pub fn active_restore(&self) -> Result<Option<RestoreRecord>, JournalError> {
        self.restore_where(
            "SELECT id FROM jobs WHERE active = 1 AND json_extract(body, '$.kind') = 'restore'",
        )
    }

    /// The newest restore.
    pub fn last_restore(&self) -> Result<Option<RestoreRecord>, JournalError> {
        self.restore_where(
            "SELECT id FROM jobs WHERE json_extract(body, '$.kind') = 'restore'
             ORDER BY rowid DESC LIMIT 1",
        )
    }

    /// The newest job that was about the shop itself: an upgrade or a restore.
    pub fn newest_job(&self) -> Result<Option<LastJob>, JournalError> {
        let of_newest = "SELECT id, json_extract(body, '$.kind') FROM jobs
            WHERE ?1 IS NULL AND json_extract(body, '$.kind') IS NOT 'rehearsal'
            ORDER BY rowid DESC LIMIT 1";
        self.job_of(of_newest, None)
    }

    /// One job, of whichever kind.
    pub fn job(&self, id: &JobId) -> Result<Option<LastJob>, JournalError> {
        let of_one = "SELECT id, json_extract(body, '$.kind') FROM jobs WHERE id = ?1";
        self.job_of(of_one, Some(id.as_str()))
    }

    fn job_of(&self, sql: &str, id: Option<&str>) -> Result<Option<LastJob>, JournalError> {
        let found: Option<(String, Option<String>, Vec<Row>)> =
            self.read("read a job", |connection| {
                let transaction = connection.unchecked_transaction()?;
                let found: Option<(String, Option<String>)> = transaction
                    .query_row(sql, params![id], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                let Some((id, kind)) = found else { return Ok(None) };
                let rows = rows_of_job(&transaction, &id)?;
                Ok(Some((id, kind, rows)))
            })?;
        let Some((id, kind, rows)) = found else { return Ok(None) };
        let id = JobId::from_text(id);
        Ok(Some(match kind.as_deref() {
            Some("restore") => LastJob::Restore(Box::new(self.fold_restore(id, &rows)?)),
            Some("rehearsal") => LastJob::Rehearsal(Box::new(self.fold_rehearsal(id, &rows)?)),
            Some(_) | None => LastJob::Upgrade(Box::new(fold::fold(id, &rows, &self.path)?)),
        }))
    }

    /// The ids of all restores that have ended: what is named after them is certainly ours, and of
    /// no use any more.
    pub fn ended_restores(&self) -> Result<Vec<JobId>, JournalError> {
        self.read("read the restores", |connection| {
            connection
                .prepare_cached(
                    "SELECT id FROM jobs
                     WHERE active = 0 AND json_extract(body, '$.kind') = 'restore'",
                )?
                .query_map([], |row| row.get(0).map(JobId::from_text))?
                .collect()
        })
    }

    fn restore_where(&self, sql: &str) -> Result<Option<RestoreRecord>, JournalError> {
        let found = self.read("read a restore", |connection| {
            let transaction = connection.unchecked_transaction()?;
            let id: Option<String> = transaction.query_row(sql, [], |row| row.get(0)).optional()?;
            id.map(|id| rows_of_job(&transaction, &id).map(|rows| (id, rows))).transpose()
        })?;
        found.map(|(id, rows)| self.fold_restore(JobId::from_text(id), &rows)).transpose()
    }

    fn fold_restore(&self, id: JobId, rows: &[Row]) -> Result<RestoreRecord, JournalError> {
        let bad =
            |seq: Seq, reason: String| JournalError::Row { path: self.path.clone(), seq, reason };
        let Some((first, rest)) = rows.split_first().filter(|(row, _)| row.kind == RowKind::Job)
        else {
            let seq = rows.first().map_or(0, |row| row.seq);
            return Err(bad(seq, format!("restore {id} does not begin with its job row")));
        };
        let mut record = RestoreRecord {
            id,
            body: first.read().map_err(|reason| bad(first.seq, reason))?,
            created: first.timestamp(),
            updated: first.timestamp(),
            restore: Restore::new(),
            is_pending: false,
            ending: None,
        };
        for row in rest {
            take(&mut record, row).map_err(|reason| bad(row.seq, reason))?;
        }
        Ok(record)
    }
}

/// Reads one more row.
fn take(record: &mut RestoreRecord, row: &Row) -> Result<(), String> {
    record.updated = row.timestamp();
    match row.kind {
        RowKind::Intent | RowKind::Outcome => {
            let expected = record.restore.step().map(RestoreStep::as_str);
            if expected != row.name.as_deref() {
                return Err(format!("expected {expected:?}, found {:?}", row.name));
            }
            record.is_pending = row.kind == RowKind::Intent;
            if row.kind == RowKind::Outcome {
                let outcome = row.read()?;
                let restore = record.restore.clone();
                record.restore = restore.apply(outcome).map_err(|error| error.to_string())?;
            }
        }
        RowKind::End => record.ending = Some(row.read()?),
        RowKind::Job | RowKind::Hop | RowKind::Transition | RowKind::Log | RowKind::Event => {
            return Err(format!("a restore has no row {:?} there", row.kind));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::failure::{Failure, FailureCode};
    use crate::restore::{Loaded, RestoreFact};

    fn body() -> RestoreBody {
        serde_json::from_value(serde_json::json!({
            "kind": "restore", "file": "/b/a.dump", "format": "dump", "sizeBytes": 4,
            "sha256": "00", "host": "localhost", "port": 5432, "database": "payram", "user": "payram",
            "aside": "payram_before_restore_20260131_120000",
            "failed": "payram_failed_restore_20260131_120000",
        }))
        .expect("a body")
    }

    #[test]
    fn a_restore_is_read_back_as_it_was_written_and_forbids_another_job() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        let journal = Journal::open(&path).expect("a journal");
        let job = journal.begin_restore(&body(), &[]).expect("it begins");
        let reader = Reader::open(&path).expect("a reader");
        let refused = journal.begin_restore(&body(), &[]).expect_err("one at a time");
        assert!(matches!(refused, JournalError::AlreadyActive { .. }), "{refused}");
        assert!(reader.active_job().expect("reads").is_none(), "it is no upgrade");
        assert!(reader.last_job().expect("reads").is_none());
        assert!(reader.last_executed_job().expect("reads").is_none());

        journal.restore_intent(&job, RestoreStep::Load).expect("written");
        let record = reader.active_restore().expect("reads").expect("a restore");
        assert!(record.is_pending);
        let loaded = Loaded { present: 5, made: 6, tables: 2, rows: None };
        let outcome = RestoreOutcome::Done { fact: RestoreFact::Loaded(loaded.clone()) };
        let then = RestoreSettlement { log: vec!["loaded".into()], ..Default::default() };
        journal.settle_restore(&job, RestoreStep::Load, &outcome, &then).expect("written");
        let record = reader.active_restore().expect("reads").expect("a restore");
        assert_eq!(record.restore.step(), Some(RestoreStep::NotePrograms));
        assert_eq!((record.restore.loaded, record.is_pending), (Some(loaded), false));

        let failure = Failure::new(FailureCode::DockerError, "no");
        journal.restore_intent(&job, RestoreStep::NotePrograms).expect("written");
        let outcome = RestoreOutcome::Failed { failure };
        let ending = Ending { failure_code: Some(FailureCode::DockerError), message: "no".into() };
        let then = RestoreSettlement { ending: Some(ending.clone()), ..Default::default() };
        journal.settle_restore(&job, RestoreStep::NotePrograms, &outcome, &then).expect("written");
        assert!(reader.active_restore().expect("reads").is_none());
        assert_eq!(reader.ended_restores().expect("reads"), std::slice::from_ref(&job));
        match reader.newest_job().expect("reads") {
            Some(LastJob::Restore(record)) => {
                assert_eq!((record.id, record.ending), (job, Some(ending)));
            }
            other => panic!("{other:?}"),
        }
        reader.verify().expect("read").expect("the chain holds");
    }
}
