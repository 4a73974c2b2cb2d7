//! The hash chain: each row's hash covers the row and the hash before it, so that a changed,
//! missing or inserted row is found by walking the table once. A walk that goes on from a row
//! found good before sees the rows after it only: what was changed before it since then shows at
//! the next walk of the whole (`super::walk`, `journal verify`).
//!
//! `hash = sha256(previous hash as hex text ‖ JSON array [seq, at_ms, kind, job, hop, name,
//! status, body])`; the first row follows on 64 zeros. The array is written by serde_json,
//! whose text for integers, strings and null is canonical.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, ToSql, params};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::record::{self, Row, Seq};

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

/// A row up to which the chain was walked and holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The row; 0 before the first.
    pub seq: Seq,
    /// Its hash.
    pub hash: String,
}

impl Link {
    /// Before the first row.
    pub fn start() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// What a piece of the walk led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How far the chain holds now.
    pub upto: Link,
    /// Whether that is the newest row.
    pub is_end: bool,
    /// The jobs that the rows of this piece belong to.
    pub jobs: BTreeSet<String>,
}

/// Walks the whole chain, and compares the jobs with their rows in it. `connection` is in a
/// transaction, so that it sees one state throughout.
pub(super) fn verify(connection: &Connection) -> rusqlite::Result<Result<Verified, Broken>> {
    let end = match follow(connection, &Link::start(), u32::MAX)? {
        Ok(piece) => piece.upto,
        Err(broken) => return Ok(Err(broken)),
    };
    if let Some(broken) = jobs_differ(connection, Jobs::All)? {
        return Ok(Err(broken));
    }
    let rows = u64::try_from(end.seq).unwrap_or_default();
    Ok(Ok(Verified { rows, head: end.hash }))
}

/// Walks up to `most` rows from a link on, which must still be there. `connection` is in a
/// transaction.
pub(super) fn follow(
    connection: &Connection,
    from: &Link,
    most: u32,
) -> rusqlite::Result<Result<Piece, Broken>> {
    if let Some(reason) = link_differs(connection, from)? {
        return Ok(Err(Broken { seq: from.seq, reason }));
    }
    let mut statement = connection.prepare(
        "SELECT seq, at_ms, kind, job, hop, name, status, body, hash FROM journal
         WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![from.seq, most])?;
    let mut upto = from.clone();
    let (mut jobs, mut count) = (BTreeSet::new(), 0);
    while let Some(raw) = rows.next()? {
        let seq: Seq = raw.get(0)?;
        let broken = |reason: String| Ok(Err(Broken { seq, reason }));
        let expected = upto.seq + 1;
        if seq != expected {
            return broken(format!("row {expected} is missing before it"));
        }
        let row = match record::row(raw) {
            Ok(row) => row,
            Err(reason) => return broken(reason.to_string()),
        };
        if hash(&upto.hash, &row) != row.hash {
            return broken("its content does not match its hash".into());
        }
        upto = Link { seq, hash: row.hash };
        if let Some(job) = row.job
            && !jobs.contains(&job)
        {
            jobs.insert(job);
        }
        count += 1;
    }
    let is_end = count < most;
    if is_end {
        let end: Option<Seq> = connection.query_row(
            "SELECT max(seq) FROM sqlite_sequence WHERE name = 'journal'",
            [],
            |row| row.get(0),
        )?;
        if let Some(end) = end.filter(|end| *end > upto.seq) {
            let reason = format!("rows up to {end} were written and are missing");
            return Ok(Err(Broken { seq: upto.seq + 1, reason }));
        }
    }
    Ok(Ok(Piece { upto, is_end, jobs }))
}

/// What is wrong with a row that was found good before; it is not rehashed, which the next walk
/// of the whole does.
fn link_differs(connection: &Connection, link: &Link) -> rusqlite::Result<Option<String>> {
    if link.seq == 0 {
        return Ok(None);
    }
    let found: Option<String> = connection
        .query_row("SELECT hash FROM journal WHERE seq = ?1", [link.seq], |row| row.get(0))
        .optional()?;
    Ok(match found {
        Some(hash) if hash == link.hash => None,
        Some(_) => Some("its hash is another one than when it was walked before".into()),
        None => Some("it was there when it was walked before, and is missing now".into()),
    })
}

/// Which jobs are compared with their rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Jobs<'a> {
    All,
    /// So many, after this one in the order of their acceptance (0: from the first).
    After(i64, u32),
    One(&'a str),
    Active,
    /// The newest: the one whose wrong mark would do harm.
    Last,
}

/// A job that differs from what its rows say.
pub(super) fn jobs_differ(
    connection: &Connection,
    which: Jobs<'_>,
) -> rusqlite::Result<Option<Broken>> {
    // Of the same shape for both statements: a condition and its two values.
    let (condition, first, second): (&str, &dyn ToSql, &dyn ToSql) = match &which {
        Jobs::All => ("?1 IS ?2", &0, &0),
        Jobs::After(after, most) => (
            "jobs.rowid > ?1 AND jobs.rowid <= (SELECT max(rowid) FROM (SELECT rowid FROM jobs WHERE rowid > ?1 ORDER BY rowid LIMIT ?2))",
            after,
            most,
        ),
        Jobs::One(id) => ("jobs.id = ?1 AND ?2 = 0", id, &0),
        Jobs::Active => ("jobs.active = ?1 AND ?2 = 0", &1, &0),
        Jobs::Last => ("jobs.rowid = (SELECT max(rowid) FROM jobs) AND ?1 = ?2", &0, &0),
    };
    if let Some(broken) = body_differs(connection, condition, [first, second])? {
        return Ok(Some(broken));
    }
    activity_differs(connection, condition, [first, second])
}

/// The last of so many jobs after this one; none when there are no more.
pub(super) fn job_after(
    connection: &Connection,
    after: i64,
    most: u32,
) -> rusqlite::Result<Option<i64>> {
    connection.query_row(
        "SELECT max(rowid) FROM (SELECT rowid FROM jobs WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)",
        params![after, most],
        |row| row.get(0),
    )
}

/// A job is active until its end is journaled, and again once it was taken up after that. A
/// wrong mark would hide an unfinished upgrade from the next start.
fn activity_differs(
    connection: &Connection,
    condition: &str,
    values: [&dyn ToSql; 2],
) -> rusqlite::Result<Option<Broken>> {
    let mut statement = connection.prepare(&format!(
        "SELECT ended, id, active FROM (
             SELECT id, active,
                 (SELECT max(seq) FROM journal WHERE job = jobs.id AND kind = 'end') AS ended,
                 (SELECT max(seq) FROM journal WHERE job = jobs.id AND kind = 'transition'
                     AND name GLOB 'recover*') AS reopened
             FROM jobs WHERE {condition})
         WHERE active <> (ended IS NULL OR coalesce(reopened > ended, 0)) LIMIT 1",
    ))?;
    let mut rows = statement.query(&values[..])?;
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

fn body_differs(
    connection: &Connection,
    condition: &str,
    values: [&dyn ToSql; 2],
) -> rusqlite::Result<Option<Broken>> {
    let mut statement = connection.prepare(&format!(
        "SELECT coalesce(journal.seq, 0), jobs.id FROM jobs
         LEFT JOIN journal ON journal.job = jobs.id AND journal.kind = 'job'
         WHERE journal.body IS NOT jobs.body AND ({condition}) LIMIT 1",
    ))?;
    let mut rows = statement.query(&values[..])?;
    Ok(match rows.next()? {
        Some(row) => {
            let job: String = row.get(1)?;
            let reason = format!("job {job} in the table of jobs differs from its journal row");
            Some(Broken { seq: row.get(0)?, reason })
        }
        None => None,
    })
}
