//! The hash chain: each row's hash covers the row and the hash before it, so that a changed,
//! missing or inserted row is found by walking the table once.
//!
//! `hash = sha256(previous hash as hex text ‖ JSON array [seq, at_ms, kind, job, hop, name,
//! status, body])`; the first row follows on 64 zeros. The array is written by serde_json,
//! whose text for integers, strings and null is canonical.

use rusqlite::Connection;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::record::{Row, Seq};

/// What the first row follows on.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of a row.
pub(super) fn hash(previous: &str, row: &Row) -> String {
    let canonical = serde_json::json!([
        row.seq,
        row.at_ms,
        row.kind.as_str(),
        row.job,
        row.hop,
        row.name,
        row.status,
        row.body
    ]);
    let mut sha = Sha256::new();
    sha.update(previous.as_bytes());
    sha.update(canonical.to_string().as_bytes());
    hex(&sha.finalize())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A chain that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many rows it has.
    pub rows: u64,
    /// The last row's hash; to be noted elsewhere, it proves the whole.
    pub head: String,
}

/// The first row at which the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The row's number.
    pub seq: Seq,
    /// What is wrong with it.
    pub reason: String,
}

/// Walks the whole chain, and compares the jobs with their rows in it.
pub(super) fn verify(connection: &Connection) -> rusqlite::Result<Result<Verified, Broken>> {
    let mut statement = connection.prepare(
        "SELECT seq, at_ms, kind, job, hop, name, status, body, hash FROM journal ORDER BY seq",
    )?;
    let mut rows = statement.query([])?;
    let mut previous = GENESIS.to_owned();
    let mut expected: Seq = 1;
    let mut count = 0;
    while let Some(raw) = rows.next()? {
        let seq: Seq = raw.get(0)?;
        let broken = |reason: String| Ok(Err(Broken { seq, reason }));
        if seq != expected {
            return broken(format!("row {expected} is missing before it"));
        }
        let row = match super::query::row(raw) {
            Ok(row) => row,
            Err(reason) => return broken(reason.to_string()),
        };
        if hash(&previous, &row) != row.hash {
            return broken("its content does not match its hash".into());
        }
        previous = row.hash;
        expected += 1;
        count += 1;
    }
    let end: Option<Seq> = connection.query_row(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = 'journal'",
        [],
        |row| row.get(0),
    )?;
    if let Some(end) = end.filter(|end| *end >= expected) {
        let reason = format!("rows up to {end} were written and are missing");
        return Ok(Err(Broken { seq: expected, reason }));
    }
    if let Some(job) = job_that_differs(connection)? {
        return Ok(Err(job));
    }
    if let Some(job) = job_whose_activity_differs(connection)? {
        return Ok(Err(job));
    }
    Ok(Ok(Verified { rows: count, head: previous }))
}

/// A job is active until its end is journaled, and again once it was taken up after that. A
/// wrong mark would hide an unfinished upgrade from the next start.
fn job_whose_activity_differs(connection: &Connection) -> rusqlite::Result<Option<Broken>> {
    let mut statement = connection.prepare(
        "SELECT ended, id, active FROM (
             SELECT id, active,
                 (SELECT max(seq) FROM journal WHERE job = jobs.id AND kind = 'end') AS ended,
                 (SELECT max(seq) FROM journal WHERE job = jobs.id AND kind = 'transition'
                     AND name GLOB 'recover*') AS reopened
             FROM jobs)
         WHERE active <> (ended IS NULL OR coalesce(reopened > ended, 0)) LIMIT 1",
    )?;
    let mut rows = statement.query([])?;
    Ok(match rows.next()? {
        Some(row) => {
            let (ended, job, active): (Option<Seq>, String, bool) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let (marked, found) = match (active, ended) {
                (true, _) => ("active", "its end is journaled"),
                (false, Some(_)) => ("at rest", "it was taken up again after its end"),
                (false, None) => ("at rest", "no end of it is journaled"),
            };
            let reason = format!("job {job} is marked as {marked}, and {found}");
            Some(Broken { seq: ended.unwrap_or_default(), reason })
        }
        None => None,
    })
}

fn job_that_differs(connection: &Connection) -> rusqlite::Result<Option<Broken>> {
    let mut statement = connection.prepare(
        "SELECT coalesce(journal.seq, 0), jobs.id FROM jobs
         LEFT JOIN journal ON journal.job = jobs.id AND journal.kind = 'job'
         WHERE journal.body IS NOT jobs.body LIMIT 1",
    )?;
    let mut rows = statement.query([])?;
    Ok(match rows.next()? {
        Some(row) => {
            let job: String = row.get(1)?;
            let reason = format!("job {job} in the table of jobs differs from its journal row");
            Some(Broken { seq: row.get(0)?, reason })
        }
        None => None,
    })
}
