//! The rows from which [`crate::history`] tells which rows of failed versions are set aside: what
//! became of them after each return of a restore point, and the words of operators about it.
//!
//! They are read as they are, not folded, as for the quarantine.

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;

use super::JournalError;
use super::query::Reader;
use super::record::{EventBody, Seq};
use crate::clock::Timestamp;
use crate::machine::facts::{Assessment, Export, Restored};
use crate::machine::{Fact, Hop, Outcome};

/// The type of the event by which an operator says that rows set aside are dealt with.
pub const ROWS: &str = "rows";

/// Its status.
pub const DISMISSED: &str = "dismissed";

/// A database that was put back, and what became of the rows of the one that was moved aside.
#[derive(Clone, Debug)]
pub struct ExportRows {
    /// The upgrade.
    pub job: String,
    /// When.
    pub at: Timestamp,
    /// The hop.
    pub hop: Hop,
    /// What the failed version had done.
    pub assessment: Option<Assessment>,
    /// Where its database is kept.
    pub restored: Restored,
    /// Its rows; none where the export has not come to its end.
    pub export: Option<Export>,
    /// When an operator dismissed them.
    pub dismissed: Option<Timestamp>,
}

/// The same as text.
struct Raw {
    seq: Seq,
    at_ms: i64,
    job: String,
    restored: String,
    hop: Option<String>,
    assessment: Option<String>,
    export: Option<String>,
}

impl Reader {
    /// Every one of them, the oldest first.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn exports(&self) -> Result<Vec<ExportRows>, JournalError> {
        let (raw, words) = self.read("read what was exported", |connection| {
            let snapshot = connection.unchecked_transaction()?;
            Ok((raw(&snapshot)?, words(&snapshot)?))
        })?;
        let bad = |(seq, reason)| JournalError::Row { path: self.path.clone(), seq, reason };
        let mut dismissals = Vec::new();
        for (seq, at_ms, body) in words {
            let EventBody { mut data, .. } = parse(seq, &body).map_err(bad)?;
            dismissals.extend(data.remove("jobId").map(|job| (job, at_ms)));
        }
        let read = |raw: Raw| read(raw, &dismissals).map_err(bad).transpose();
        raw.into_iter().filter_map(read).collect()
    }
}

/// Of the upgrades that ended badly, by the index over events, the outcomes by that over a job's
/// rows.
fn raw(connection: &Connection) -> rusqlite::Result<Vec<Raw>> {
    let restored: Vec<(Seq, i64, String, i64, String)> = connection
        .prepare_cached(
            "SELECT DISTINCT done.seq, done.at_ms, done.job, done.hop, done.body
             FROM journal AS event
             JOIN journal AS done ON done.job = event.job AND done.kind = 'outcome'
             WHERE event.kind = 'event' AND event.name COLLATE NOCASE = 'upgrade'
               AND event.status COLLATE NOCASE IN ('rolled_back', 'failed')
               AND done.name = 'restore_database'
               AND json_extract(done.body, '$.outcome') = 'done'
             ORDER BY done.seq",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut found: Vec<Raw> = Vec::new();
    for (seq, at_ms, job, hop, restored) in restored {
        let body = |kind: &str, name: Option<&str>| {
            connection
                .prepare_cached(
                    "SELECT body FROM journal WHERE job = ?1 AND kind = ?2 AND hop IS ?3
                       AND (?4 IS NULL OR name = ?4) ORDER BY seq DESC LIMIT 1",
                )?
                .query_row(params![job, kind, hop, name], |row| row.get(0))
                .optional()
        };
        let (hop, assessment) = (body("hop", None)?, body("outcome", Some("assess_database"))?);
        let export = body("outcome", Some("export_rows"))?;
        // Of a step that ran twice the later outcome stands.
        found.retain(|one| one.job != job || one.hop != hop);
        found.push(Raw { seq, at_ms, job, restored, hop, assessment, export });
    }
    Ok(found)
}

fn words(connection: &Connection) -> rusqlite::Result<Vec<(Seq, i64, String)>> {
    connection
        .prepare_cached(
            "SELECT seq, at_ms, body FROM journal WHERE kind = 'event'
               AND name COLLATE NOCASE = 'rows' AND status COLLATE NOCASE = 'dismissed'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

fn read(raw: Raw, dismissals: &[(String, i64)]) -> Result<Option<ExportRows>, (Seq, String)> {
    let Raw { seq, at_ms, job, restored, hop, assessment, export } = raw;
    let Outcome::Done { fact: Fact::Restored(restored) } = parse(seq, &restored)? else {
        return Ok(None);
    };
    let Some(hop) = hop else { return Ok(None) };
    let outcome = |body: Option<String>| body.map(|body| parse::<Outcome>(seq, &body)).transpose();
    let assessment = match outcome(assessment)? {
        Some(Outcome::Done { fact: Fact::Assessment(found) }) => Some(found.assessment),
        _ => None,
    };
    let export = match outcome(export)? {
        Some(Outcome::Done { fact: Fact::Export(export) }) => Some(export),
        Some(Outcome::Failed { failure }) => Some(Export::Missing { reason: failure.message }),
        _ => None,
    };
    let dismissed = dismissals.iter().filter(|(of, at)| *of == job && *at >= at_ms);
    let dismissed = dismissed.map(|(_, at)| Timestamp::from_millis(*at)).next_back();
    let at = Timestamp::from_millis(at_ms);
    Ok(Some(ExportRows {
        job,
        at,
        hop: parse(seq, &hop)?,
        assessment,
        restored,
        export,
        dismissed,
    }))
}

fn parse<T: DeserializeOwned>(seq: Seq, body: &str) -> Result<T, (Seq, String)> {
    serde_json::from_str(body).map_err(|error| {
        (seq, format!("what became of a failed version's rows is not understood: {error}"))
    })
}
