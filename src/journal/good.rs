//! The rows from which [`crate::history`] tells which version was good last: the newest verdict
//! of an upgrade, and the newest word of an operator (`sync`).
//!
//! They are read as they are, not folded, as for the quarantine: a machine of a later program may
//! refuse the steps of an old job.

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;

use super::JournalError;
use super::query::Reader;
use super::record::{EventBody, Seq};
use crate::clock::Timestamp;
use crate::machine::facts::{NextContainer, PulledImage};
use crate::machine::{Fact, Hop, Outcome, Phase, Transition};

/// Those rows.
#[derive(Clone, Debug, Default)]
pub struct GoodRows {
    /// The newest verdict.
    pub verdict: Option<VerdictRows>,
    /// The newest word of an operator.
    pub recorded: Option<Recorded>,
}

/// A hop that came to `VERIFIED` or `ROLLED_BACK`.
#[derive(Clone, Debug)]
pub struct VerdictRows {
    /// The transition's row.
    pub seq: Seq,
    /// Its time.
    pub at: Timestamp,
    /// Where it led.
    pub to: Phase,
    /// The hop.
    pub hop: Hop,
    /// What `pull` found.
    pub image: Option<PulledImage>,
    /// What `create_next` made.
    pub next: Option<NextContainer>,
}

/// What `sync` recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The event's row.
    pub seq: Seq,
    /// Its time.
    pub at: Timestamp,
    /// The version.
    pub version: String,
    /// The container's name.
    pub container: String,
    /// Its id; none when an earlier program wrote it.
    pub container_id: Option<String>,
    /// Its image's id; none when an earlier program wrote it.
    pub image_id: Option<String>,
}

/// A verdict's rows, as text.
struct RawVerdict {
    seq: Seq,
    at_ms: i64,
    transition: String,
    hop: Option<String>,
    pull: Option<String>,
    next: Option<String>,
}

impl Reader {
    /// Those rows.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn good_rows(&self) -> Result<GoodRows, JournalError> {
        let (verdict, recorded) = self.read("read what was good last", |connection| {
            let snapshot = connection.unchecked_transaction()?;
            Ok((newest_verdict(&snapshot)?, newest_word(&snapshot)?))
        })?;
        let bad = |(seq, reason)| JournalError::Row { path: self.path.clone(), seq, reason };
        Ok(GoodRows {
            verdict: verdict.map(read_verdict).transpose().map_err(bad)?.flatten(),
            recorded: recorded.map(read_word).transpose().map_err(bad)?.flatten(),
        })
    }
}

fn newest_verdict(connection: &Connection) -> rusqlite::Result<Option<RawVerdict>> {
    // The newest job first, and of each its transitions by their index: as a rule the first
    // job has one.
    let mut jobs = connection.prepare_cached(
        "SELECT id FROM jobs WHERE json_extract(body, '$.dryRun') = 0 ORDER BY rowid DESC",
    )?;
    let mut jobs = jobs.query([])?;
    while let Some(job) = jobs.next()? {
        let job: String = job.get(0)?;
        let found: Option<(Seq, i64, Option<i64>, String)> = connection
            .prepare_cached(
                "SELECT seq, at_ms, hop, body FROM journal WHERE job = ?1 AND kind = 'transition'
                   AND json_extract(body, '$.to') IN ('VERIFIED', 'ROLLED_BACK')
                 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row(params![job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((seq, at_ms, hop, transition)) = found else { continue };
        let body = |kind: &str, name: Option<&str>| {
            connection
                .prepare_cached(
                    "SELECT body FROM journal WHERE job = ?1 AND kind = ?2 AND hop IS ?3
                       AND seq < ?4 AND (?5 IS NULL OR name = ?5) ORDER BY seq DESC LIMIT 1",
                )?
                .query_row(params![job, kind, hop, seq, name], |row| row.get(0))
                .optional()
        };
        return Ok(Some(RawVerdict {
            seq,
            at_ms,
            transition,
            hop: body("hop", None)?,
            pull: body("outcome", Some("pull"))?,
            next: body("outcome", Some("create_next"))?,
        }));
    }
    Ok(None)
}

fn newest_word(connection: &Connection) -> rusqlite::Result<Option<(Seq, i64, String)>> {
    connection
        .prepare_cached(
            "SELECT seq, at_ms, body FROM journal WHERE kind = 'event'
               AND name COLLATE NOCASE = 'sync' AND status COLLATE NOCASE = 'succeeded'
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
}

fn read_verdict(raw: RawVerdict) -> Result<Option<VerdictRows>, (Seq, String)> {
    let RawVerdict { seq, at_ms, transition, hop, pull, next } = raw;
    let Transition { to, .. } = parse(seq, &transition)?;
    let Some(hop) = hop else { return Ok(None) };
    let image =
        fact(seq, pull, |fact| if let Fact::Image(image) = fact { Some(image) } else { None })?;
    let next = fact(seq, next, |fact| if let Fact::Next(next) = fact { Some(next) } else { None })?;
    let at = Timestamp::from_millis(at_ms);
    Ok(Some(VerdictRows { seq, at, to, hop: parse(seq, &hop)?, image, next }))
}

/// Of a step that was done, what is `wanted` of it.
fn fact<T>(
    seq: Seq,
    outcome: Option<String>,
    wanted: impl FnOnce(Fact) -> Option<T>,
) -> Result<Option<T>, (Seq, String)> {
    let Some(outcome) = outcome else { return Ok(None) };
    Ok(match parse(seq, &outcome)? {
        Outcome::Done { fact } => wanted(fact),
        Outcome::Failed { .. }
        | Outcome::Unknown { .. }
        | Outcome::Interrupted
        | Outcome::Left
        | Outcome::Cancelled { .. } => None,
    })
}

fn read_word((seq, at_ms, body): (Seq, i64, String)) -> Result<Option<Recorded>, (Seq, String)> {
    let EventBody { mut data, .. } = parse(seq, &body)?;
    let Some(version) = data.remove("version") else { return Ok(None) };
    Ok(Some(Recorded {
        seq,
        at: Timestamp::from_millis(at_ms),
        version,
        container: data.remove("container").unwrap_or_default(),
        container_id: data.remove("containerId"),
        image_id: data.remove("imageId"),
    }))
}

fn parse<T: DeserializeOwned>(seq: Seq, body: &str) -> Result<T, (Seq, String)> {
    serde_json::from_str(body)
        .map_err(|error| (seq, format!("what was good last is not understood: {error}")))
}
