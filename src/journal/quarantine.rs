//! Which versions are quarantined: those that were started here, failed by themselves and were
//! taken back. Derived from the rows of the upgrades whenever it is asked; nothing about it is
//! stored but the word of an operator that ends it, an event of type [`QUARANTINE`].
//!
//! **What counts.** The journal must hold that the new container was started (the hop's machine
//! was `SWAPPED`) and that the version did not pass its gate by a fault of its own: it was not
//! healthy, it said another version, it never answered. What failed before the start (pull,
//! backup, parity) says nothing about the version. An operator who calls an upgrade off, an
//! engine that does not answer and an updater that is killed again and again in one step say
//! nothing about it either: to quarantine it for that would keep a good release from the shop,
//! and what is spared is one more rollback. A stop for an operator counts like a rollback,
//! because the version failed all the same, whichever way the shop was put right afterwards.
//!
//! **What ends it.** An operator's word; the same image verified later, which manual mode
//! allows; `sync` that recorded the version as good. That its tag has moved is not in the
//! journal: `plan::quarantine` asks the registry.
//!
//! The rows are read as they are, not folded: a machine of a later program may refuse the steps
//! of an old job, and the plan of a new one must not depend on that.

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;

use super::JournalError;
use super::query::Reader;
use super::record::{EventBody, Seq};
use crate::clock::Timestamp;
use crate::machine::facts::{PulledImage, TargetImage};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Fact, Hop, Outcome};

/// The type of the event that ends a quarantine.
pub const QUARANTINE: &str = "quarantine";

/// Its status.
pub const CLEARED: &str = "cleared";

/// A version that failed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The version, as it was planned.
    pub version: String,
    /// What its image was called.
    pub target: TargetImage,
    /// The image itself, which is what is quarantined.
    pub image: PulledImage,
    /// When it failed.
    pub failed: Timestamp,
    /// Why.
    pub failure: Failure,
    /// What ended it; none while it is quarantined.
    pub released: Option<Released>,
}

/// The end of a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// When.
    pub at: Timestamp,
    /// How.
    pub by: Release,
}

/// How a quarantine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// An operator cleared it.
    Cleared,
    /// The same image was verified later.
    Verified,
    /// An operator recorded the version as good.
    Recorded,
}

impl Quarantined {
    /// What the image is known by: the registry's digest, and without one the image's id.
    pub fn digest(&self) -> &str {
        self.image.digest.as_deref().unwrap_or(&self.image.id)
    }

    /// Whether it is quarantined now.
    pub fn stands(&self) -> bool {
        self.released.is_none()
    }

    fn is_of(&self, image: &PulledImage) -> bool {
        match (&self.image.digest, &image.digest) {
            (Some(a), Some(b)) => a == b,
            (None, _) | (_, None) => self.image.id == image.id,
        }
    }

    fn release(&mut self, at: Timestamp, by: Release) {
        self.released.get_or_insert(Released { at, by });
    }
}

/// One thing that the journal says about it.
enum Mark {
    Failed(Box<Quarantined>),
    Verified(PulledImage),
    Recorded { version: String },
    Cleared { digest: String },
}

impl Reader {
    /// Every version that failed here, the newest failure first, with what ended its quarantine.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn quarantine(&self) -> Result<Vec<Quarantined>, JournalError> {
        // One snapshot, so that a version is not seen to fail and not to be cleared.
        let marks = self.read("read the quarantine", |connection| {
            let transaction = connection.unchecked_transaction()?;
            raw_marks(&transaction)
        })?;
        let mut marks = marks
            .into_iter()
            .filter_map(|raw| {
                let (seq, at) = (raw.seq(), raw.at());
                raw.read().map(|mark| mark.map(|mark| (seq, at, mark))).transpose()
            })
            .collect::<Result<Vec<_>, (Seq, String)>>()
            .map_err(|(seq, reason)| JournalError::Row { path: self.path.clone(), seq, reason })?;
        marks.sort_by_key(|(seq, ..)| *seq);
        Ok(settle(marks.into_iter().map(|(_, at, mark)| (at, mark))))
    }
}

/// What stands after all of it, in its order.
fn settle(marks: impl Iterator<Item = (Timestamp, Mark)>) -> Vec<Quarantined> {
    let mut known: Vec<Quarantined> = Vec::new();
    for (at, mark) in marks {
        match mark {
            Mark::Failed(failed) => {
                known.retain(|one| !one.is_of(&failed.image));
                known.insert(0, *failed);
            }
            Mark::Verified(image) => known
                .iter_mut()
                .filter(|one| one.is_of(&image))
                .for_each(|one| one.release(at, Release::Verified)),
            Mark::Recorded { version } => known
                .iter_mut()
                .filter(|one| bare(&one.version) == bare(&version))
                .for_each(|one| one.release(at, Release::Recorded)),
            Mark::Cleared { digest } => known
                .iter_mut()
                .filter(|one| one.digest() == digest)
                .for_each(|one| one.release(at, Release::Cleared)),
        }
    }
    known
}

/// A version as it is compared: a leading `v` means nothing.
fn bare(version: &str) -> &str {
    version.trim().trim_start_matches('v')
}

/// Whether a version that was started and met this failed by itself.
fn is_its_own(code: FailureCode) -> bool {
    code.is_a_verdict() && code != FailureCode::Cancelled
}

/// The rows behind a mark, as text.
enum Raw {
    Failed { seq: Seq, at: Timestamp, hop: String, pull: Option<String>, outcome: Option<String> },
    Verified { seq: Seq, at: Timestamp, pull: Option<String> },
    Event { seq: Seq, at: Timestamp, name: String, body: String },
}

impl Raw {
    fn seq(&self) -> Seq {
        match self {
            Raw::Failed { seq, .. } | Raw::Verified { seq, .. } | Raw::Event { seq, .. } => *seq,
        }
    }

    fn at(&self) -> Timestamp {
        match self {
            Raw::Failed { at, .. } | Raw::Verified { at, .. } | Raw::Event { at, .. } => *at,
        }
    }

    /// The mark, or none when it is no matter of quarantine.
    fn read(self) -> Result<Option<Mark>, (Seq, String)> {
        let seq = self.seq();
        match self {
            Raw::Failed { at, hop, pull, outcome, .. } => {
                let Some(outcome) = outcome else { return Ok(None) };
                let Outcome::Failed { failure } = parse(seq, &outcome)? else { return Ok(None) };
                let Some(image) = image(seq, pull)?.filter(|_| is_its_own(failure.code)) else {
                    return Ok(None);
                };
                let Hop { version, target, .. } = parse(seq, &hop)?;
                let failed =
                    Quarantined { version, target, image, failed: at, failure, released: None };
                Ok(Some(Mark::Failed(Box::new(failed))))
            }
            Raw::Verified { pull, .. } => Ok(image(seq, pull)?.map(Mark::Verified)),
            Raw::Event { name, body, .. } => {
                let EventBody { mut data, .. } = parse(seq, &body)?;
                Ok(if name == QUARANTINE {
                    data.remove("digest").map(|digest| Mark::Cleared { digest })
                } else {
                    data.remove("version").map(|version| Mark::Recorded { version })
                })
            }
        }
    }
}

/// What the step `pull` found.
fn image(seq: Seq, outcome: Option<String>) -> Result<Option<PulledImage>, (Seq, String)> {
    let Some(outcome) = outcome else { return Ok(None) };
    Ok(match parse(seq, &outcome)? {
        Outcome::Done { fact: Fact::Image(image) } => Some(image),
        Outcome::Done { .. }
        | Outcome::Failed { .. }
        | Outcome::Unknown { .. }
        | Outcome::Interrupted
        | Outcome::Left
        | Outcome::Cancelled { .. } => None,
    })
}

fn parse<T: DeserializeOwned>(seq: Seq, body: &str) -> Result<T, (Seq, String)> {
    serde_json::from_str(body).map_err(|error| {
        (seq, format!("what the quarantine needs of the rows before it is not understood: {error}"))
    })
}

/// Where `upgrade` events of this status are; by the index over events.
const ENDED: &str = "event.kind = 'event' AND event.name COLLATE NOCASE = 'upgrade'
     AND event.status COLLATE NOCASE";

fn raw_marks(connection: &Connection) -> rusqlite::Result<Vec<Raw>> {
    // The upgrades that ended badly, by the index over events; of these the turns out of
    // SWAPPED, by the index over a job's rows.
    let sql = format!(
        "SELECT DISTINCT turn.seq, turn.at_ms, turn.job, turn.hop FROM journal AS event
         JOIN journal AS turn ON turn.job = event.job AND turn.kind = 'transition'
         WHERE {ENDED} IN ('rolled_back', 'failed')
           AND turn.name = 'failed' AND json_extract(turn.body, '$.from') = 'SWAPPED'
         ORDER BY turn.seq"
    );
    let turns: Vec<(Seq, i64, String, i64)> = connection
        .prepare_cached(&sql)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let Some(first) = turns.first().map(|(seq, ..)| *seq) else { return Ok(Vec::new()) };
    let mut marks = Vec::new();
    for (seq, at_ms, job, hop) in turns {
        let body = |sql: &str| {
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_row(params![job, hop, seq], |row| row.get(0)).optional()
        };
        let Some(planned) = body(
            "SELECT body FROM journal WHERE job = ?1 AND kind = 'hop' AND hop = ?2 AND seq < ?3",
        )?
        else {
            continue;
        };
        marks.push(Raw::Failed {
            seq,
            at: Timestamp::from_millis(at_ms),
            hop: planned,
            pull: body(
                "SELECT body FROM journal WHERE job = ?1 AND kind = 'outcome' AND hop = ?2
                 AND seq < ?3 AND name = 'pull' ORDER BY seq DESC LIMIT 1",
            )?,
            outcome: body(
                "SELECT body FROM journal WHERE job = ?1 AND kind = 'outcome' AND hop = ?2
                 AND seq < ?3 ORDER BY seq DESC LIMIT 1",
            )?,
        });
    }
    marks.extend(verified(connection, first)?);
    marks.extend(words(connection, first)?);
    Ok(marks)
}

/// Upgrades that ended well after this row, with the image that they ended on.
fn verified(connection: &Connection, after: Seq) -> rusqlite::Result<Vec<Raw>> {
    let sql = format!(
        "SELECT event.seq, event.at_ms,
             (SELECT body FROM journal AS pull WHERE pull.job = event.job
              AND pull.kind = 'outcome' AND pull.name = 'pull' ORDER BY pull.seq DESC LIMIT 1)
         FROM journal AS event WHERE {ENDED} = 'succeeded' AND event.seq > ?1"
    );
    let verified = |row: &rusqlite::Row<'_>| {
        let at = Timestamp::from_millis(row.get(1)?);
        Ok(Raw::Verified { seq: row.get(0)?, at, pull: row.get(2)? })
    };
    connection.prepare_cached(&sql)?.query_map(params![after], verified)?.collect()
}

/// What operators have said after this row.
fn words(connection: &Connection, after: Seq) -> rusqlite::Result<Vec<Raw>> {
    let word = |row: &rusqlite::Row<'_>| {
        let at = Timestamp::from_millis(row.get(1)?);
        Ok(Raw::Event { seq: row.get(0)?, at, name: row.get(2)?, body: row.get(3)? })
    };
    connection
        .prepare_cached(
            "SELECT seq, at_ms, name, body FROM journal
             WHERE kind = 'event' AND seq > ?1
               AND (name COLLATE NOCASE = 'quarantine' AND status COLLATE NOCASE = 'cleared'
                    OR name COLLATE NOCASE = 'sync' AND status COLLATE NOCASE = 'succeeded')",
        )?
        .query_map(params![after], word)?
        .collect()
}
