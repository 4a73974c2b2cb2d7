//! The rows of rehearsals: jobs of their own kind in the same tables, so that the one rule forbids
//! an upgrade, a restore and a rehearsal at once (I8).
//!
//! Called by the driver for writing, and by everything that shows a job. What is asked of *the last
//! job* never means one of these: status, last and inspect regard what was done to the shop.

use rusqlite::{OptionalExtension, params};

use super::JournalError;
use super::query::{Reader, rows_of_job};
use super::record::{Ending, JobId, NewEvent, Row, RowKind, Seq};
use super::write::{Journal, Tail, json};
use crate::clock::Timestamp;
use crate::rehearsal::{Rehearsal, RehearsalBody, RehearsalOutcome, RehearsalStep};

/// A rehearsal as its rows tell it.
#[derive(Clone, Debug)]
pub struct RehearsalRecord {
    /// Its id.
    pub id: JobId,
    /// What was asked.
    pub body: RehearsalBody,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its newest row was written.
    pub updated: Timestamp,
    /// Where it is.
    pub rehearsal: Rehearsal,
    /// Whether the step in hand was begun and has no outcome: it runs, or the program ended in it.
    pub is_pending: bool,
    /// How it came to rest, when it has.
    pub ending: Option<Ending>,
}

impl RehearsalRecord {
    /// Whether it is under way.
    pub fn is_active(&self) -> bool {
        self.ending.is_none()
    }
}

/// Everything that follows from one outcome; written together or not at all.
#[derive(Debug, Default)]
pub struct RehearsalSettlement {
    /// Lines for a person.
    pub log: Vec<String>,
    /// Events of the history.
    pub events: Vec<NewEvent>,
    /// How the job came to rest, when it did.
    pub ending: Option<Ending>,
}

impl Journal {
    /// Accepts a rehearsal: from here on it is the active job.
    ///
    /// # Errors
    /// [`JournalError::AlreadyActive`] when one is active, of whichever kind (I8).
    pub fn begin_rehearsal(
        &self,
        body: &RehearsalBody,
        events: &[NewEvent],
    ) -> Result<JobId, JournalError> {
        self.begin_with(body, events, None)
    }

    /// A step of a rehearsal is about to run.
    pub fn rehearsal_intent(&self, job: &JobId, step: RehearsalStep) -> Result<Seq, JournalError> {
        self.append(|tail| {
            tail.append(RowKind::Intent, Some(job), None, Some(step.as_str()), None, "{}")
        })
    }

    /// What came of it, and everything that follows.
    pub fn settle_rehearsal(
        &self,
        job: &JobId,
        step: RehearsalStep,
        outcome: &RehearsalOutcome,
        then: &RehearsalSettlement,
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
    /// The rehearsal that is under way.
    pub fn active_rehearsal(&self) -> Result<Option<RehearsalRecord>, JournalError> {
        let found = self.read("read a rehearsal", |connection| {
            let transaction = connection.unchecked_transaction()?;
            let sql = "SELECT id FROM jobs
                 WHERE active = 1 AND json_extract(body, '$.kind') = 'rehearsal'";
            let id: Option<String> = transaction.query_row(sql, [], |row| row.get(0)).optional()?;
            id.map(|id| rows_of_job(&transaction, &id).map(|rows| (id, rows))).transpose()
        })?;
        found.map(|(id, rows)| self.fold_rehearsal(JobId::from_text(id), &rows)).transpose()
    }

    /// Of all rehearsals that have ended, the id and the directory in which the copy was made: what
    /// is left there is certainly ours, and of no use any more.
    pub fn ended_rehearsals(&self) -> Result<Vec<(JobId, String)>, JournalError> {
        self.read("read the rehearsals", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, json_extract(body, '$.directory') FROM jobs
                     WHERE active = 0 AND json_extract(body, '$.kind') = 'rehearsal'",
                )?
                .query_map([], |row| Ok((JobId::from_text(row.get(0)?), row.get(1)?)))?
                .collect()
        })
    }

    /// When this image was rehearsed last, from a moment on; none when it was not.
    pub fn rehearsed_since(
        &self,
        version: &str,
        digest: Option<&str>,
        since: Timestamp,
    ) -> Result<Option<Timestamp>, JournalError> {
        self.read("read the rehearsals", |connection| {
            connection
                .prepare_cached(
                    "SELECT max(created_ms) FROM jobs
                     WHERE json_extract(body, '$.kind') = 'rehearsal'
                       AND json_extract(body, '$.version') = ?1
                       AND json_extract(body, '$.digest') IS ?2 AND created_ms >= ?3",
                )?
                .query_row(params![version, digest, since.millis()], |row| {
                    row.get::<_, Option<i64>>(0)
                })
                .map(|at| at.map(Timestamp::from_millis))
        })
    }

    pub(super) fn fold_rehearsal(
        &self,
        id: JobId,
        rows: &[Row],
    ) -> Result<RehearsalRecord, JournalError> {
        let bad =
            |seq: Seq, reason: String| JournalError::Row { path: self.path.clone(), seq, reason };
        let Some((first, rest)) = rows.split_first().filter(|(row, _)| row.kind == RowKind::Job)
        else {
            let seq = rows.first().map_or(0, |row| row.seq);
            return Err(bad(seq, format!("rehearsal {id} does not begin with its job row")));
        };
        let mut record = RehearsalRecord {
            id,
            body: first.read().map_err(|reason| bad(first.seq, reason))?,
            created: first.timestamp(),
            updated: first.timestamp(),
            rehearsal: Rehearsal::new(),
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
fn take(record: &mut RehearsalRecord, row: &Row) -> Result<(), String> {
    record.updated = row.timestamp();
    match row.kind {
        RowKind::Intent | RowKind::Outcome => {
            let expected = record.rehearsal.step().map(RehearsalStep::as_str);
            if expected != row.name.as_deref() {
                return Err(format!("expected {expected:?}, found {:?}", row.name));
            }
            record.is_pending = row.kind == RowKind::Intent;
            if row.kind == RowKind::Outcome {
                let outcome = row.read()?;
                let rehearsal = record.rehearsal.clone();
                record.rehearsal = rehearsal.apply(outcome).map_err(|error| error.to_string())?;
            }
        }
        RowKind::End => record.ending = Some(row.read()?),
        RowKind::Job | RowKind::Hop | RowKind::Transition | RowKind::Log | RowKind::Event => {
            return Err(format!("a rehearsal has no row {:?} there", row.kind));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::LastJob;
    use crate::machine::failure::{Failure, FailureCode};
    use crate::rehearsal::{RehearsalFact, Verdict};

    fn body() -> RehearsalBody {
        serde_json::from_value(serde_json::json!({
            "kind": "rehearsal", "mode": "MANUAL", "requestedTarget": "latest",
            "resolvedTarget": "2.0.0", "version": "2.0.0", "container": "payram",
            "target": {"repo": "payramapp/payram", "tag": "2.0.0"},
            "rules": {"kind": "legacy"}, "fromRules": {"kind": "legacy"},
            "overlay": {"ports": [], "volumes": [], "environment": []},
            "digest": "sha256:1", "directory": "/var/lib/payram-updater/rehearsal",
        }))
        .expect("a body")
    }

    #[test]
    fn a_rehearsal_is_read_back_forbids_another_job_and_is_never_the_last_job() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        let journal = Journal::open(&path).expect("a journal");
        let job = journal.begin_rehearsal(&body(), &[]).expect("it begins");
        let reader = Reader::open(&path).expect("a reader");
        let refused = journal.begin_rehearsal(&body(), &[]).expect_err("one at a time");
        assert!(matches!(refused, JournalError::AlreadyActive { .. }), "{refused}");
        assert!(reader.active_job().expect("reads").is_none(), "it is no upgrade");
        assert!(reader.active_restore().expect("reads").is_none(), "nor a restore");
        assert!(reader.last_job().expect("reads").is_none());
        assert!(reader.last_executed_job().expect("reads").is_none());
        assert!(reader.newest_job().expect("reads").is_none());

        journal.rehearsal_intent(&job, RehearsalStep::Pull).expect("written");
        let record = reader.active_rehearsal().expect("reads").expect("a rehearsal");
        assert!(record.is_pending && record.is_active());
        let outcome = RehearsalOutcome::Failed {
            failure: Failure::new(FailureCode::DiskSpaceLow, "no room"),
        };
        let then = RehearsalSettlement { log: vec!["no room".into()], ..Default::default() };
        journal.settle_rehearsal(&job, RehearsalStep::Pull, &outcome, &then).expect("written");
        journal.rehearsal_intent(&job, RehearsalStep::Sweep).expect("written");
        let outcome = RehearsalOutcome::Done { fact: RehearsalFact::Swept };
        let ending =
            Ending { failure_code: Some(FailureCode::DiskSpaceLow), message: "no room".into() };
        let then = RehearsalSettlement { ending: Some(ending.clone()), ..Default::default() };
        journal.settle_rehearsal(&job, RehearsalStep::Sweep, &outcome, &then).expect("written");
        assert!(reader.active_rehearsal().expect("reads").is_none());
        let Some(LastJob::Rehearsal(record)) = reader.job(&job).expect("reads") else {
            panic!("it has a page of its own")
        };
        assert_eq!(record.rehearsal.verdict(), Some(Verdict::Skipped));
        assert_eq!(record.ending, Some(ending));
        let ended = reader.ended_rehearsals().expect("reads");
        assert_eq!(ended, [(job, body().directory)]);
        let since = |digest: &str| {
            let long_ago = Timestamp::from_millis(0);
            reader.rehearsed_since("2.0.0", Some(digest), long_ago).expect("reads")
        };
        assert_eq!((since("sha256:1"), since("sha256:2")), (Some(record.created), None));
        reader.verify().expect("read").expect("the chain holds");
    }
}
