//! The events of the history as they come: how often each kind was written, and those after a row.
//! What was read once is not read again, so that it costs nothing to ask often. Called by the
//! metrics of the API and by the one that notifies.

use std::collections::BTreeMap;

use rusqlite::params;

use super::JournalError;
use super::query::Reader;
use super::record::{HistoryEvent, Seq};
use crate::clock::Timestamp;

/// The events up to one row.
#[derive(Clone, Debug, Default)]
pub struct EventTally {
    upto: Seq,
    kinds: BTreeMap<(String, String), Tallied>,
}

/// Of one type and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// How many.
    pub count: u64,
    /// When the newest was written.
    pub newest: Timestamp,
}

impl EventTally {
    /// The row up to which everything is counted.
    pub fn upto(&self) -> Seq {
        self.upto
    }

    /// By type and status, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, Tallied)> {
        self.kinds.iter().map(|((kind, status), one)| (kind.as_str(), status.as_str(), *one))
    }
}

impl Reader {
    /// The first events after this row, oldest first, without those of one type.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn events_after(
        &self,
        after: Seq,
        without: &str,
        limit: u32,
    ) -> Result<Vec<HistoryEvent>, JournalError> {
        let rows: Vec<Seq> = self.read("read the history", |connection| {
            connection
                .prepare_cached(
                    "SELECT seq FROM journal INDEXED BY journal_all_events
                     WHERE kind = 'event' AND seq > ?1 AND name <> ?2 ORDER BY seq LIMIT ?3",
                )?
                .query_map(params![after, without, limit], |row| row.get(0))?
                .collect()
        })?;
        self.events(&rows, usize::MAX)
    }

    /// Counts what was written since.
    ///
    /// # Errors
    /// When the journal can't be read; the tally is as it was then.
    pub fn tally(&self, tally: &mut EventTally) -> Result<(), JournalError> {
        let after = tally.upto;
        let (upto, counted) = self.read("count the events", |connection| {
            // One snapshot, so that what is counted ends where it is said to.
            let transaction = connection.unchecked_transaction()?;
            let upto: Seq =
                transaction
                    .query_row("SELECT coalesce(max(seq), 0) FROM journal", [], |row| row.get(0))?;
            let counted = transaction
                .prepare_cached(
                    "SELECT name, status, count(*), max(at_ms)
                     FROM journal INDEXED BY journal_all_events
                     WHERE kind = 'event' AND seq > ?1 GROUP BY name, status",
                )?
                .query_map(params![after], |row| {
                    let kind: Option<String> = row.get(0)?;
                    let status: Option<String> = row.get(1)?;
                    let newest = Timestamp::from_millis(row.get(3)?);
                    let count: i64 = row.get(2)?;
                    let key = (kind.unwrap_or_default(), status.unwrap_or_default());
                    Ok((key, Tallied { count: count.unsigned_abs(), newest }))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((upto, counted))
        })?;
        for (key, more) in counted {
            let known = tally.kinds.entry(key).or_insert(Tallied { count: 0, ..more });
            known.count += more.count;
            known.newest = known.newest.max(more.newest);
        }
        tally.upto = upto;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Journal, NewEvent};
    use super::*;

    fn event(kind: &'static str, status: &'static str) -> NewEvent {
        NewEvent { kind, status, message: "it happened".into(), data: BTreeMap::new() }
    }

    #[test]
    fn what_has_come_since_is_added_and_nothing_is_counted_twice() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        let journal = Journal::open(&path).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let mut tally = EventTally::default();
        reader.tally(&mut tally).expect("reads");
        assert_eq!((tally.upto(), tally.kinds().count()), (0, 0));
        let failed = event("upgrade", "failed");
        journal
            .note(&[failed.clone(), event("sync", "succeeded"), failed.clone()])
            .expect("writes");
        reader.tally(&mut tally).expect("reads");
        reader.tally(&mut tally).expect("reads");
        journal.note(&[failed]).expect("writes");
        reader.tally(&mut tally).expect("reads");
        let counts: Vec<_> =
            tally.kinds().map(|(kind, status, one)| (kind, status, one.count)).collect();
        assert_eq!(counts, [("sync", "succeeded", 1), ("upgrade", "failed", 3)]);
        assert_eq!(tally.upto(), reader.newest_row().expect("reads"));

        let after = |row| reader.events_after(row, "sync", 2).expect("reads");
        let ids = |row| after(row).into_iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!((ids(0), ids(1)), (vec!["1".into(), "3".into()], vec!["3".into(), "4".into()]));
        assert_eq!(ids(tally.upto()), Vec::<String>::new());
    }
}
