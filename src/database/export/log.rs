//! What each transaction of a failed version did, as its server's write-ahead log tells it: a row
//! does not say whether the transaction that wrote it also changed or removed others.
//!
//! `pg_waldump` prints a line for each record; this reads them, whatever the major version. Its
//! words are those of PostgreSQL 11 to 18 (`src/backend/access/rmgrdesc`). Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Numbers of the tables that the server keeps its own records in.
pub(super) struct Catalogs {
    /// The database's number.
    pub database: u32,
    /// Files of its catalogs.
    pub files: HashSet<u32>,
}

/// Why a transaction is not carried over.
pub(super) const CHANGED: &str = "also changed rows";
pub(super) const REMOVED: &str = "also removed rows";
pub(super) const SCHEMA: &str = "also changed the schema";
pub(super) const UNKNOWN: &str = "are not told by the server's log";

/// What the log tells of the transactions since the cut-over.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Those that inserted something.
    inserted: HashSet<u32>,
    /// A part of a transaction that has a number of its own, and the transaction.
    parts: HashMap<u32, u32>,
    refused: BTreeMap<u32, &'static str>,
}

impl Transactions {
    /// Takes in a line.
    pub fn take(&mut self, line: &str, catalogs: &Catalogs) {
        let Some(record) = Record::of(line) else { return };
        match record.manager {
            "Heap" | "Heap2" => {
                let action = record.action.trim_end_matches("+INIT");
                let is_own = record.file.is_none_or(|(database, file)| {
                    database == 0 || database == catalogs.database && catalogs.files.contains(&file)
                });
                match action {
                    "INSERT" | "MULTI_INSERT" if is_own => self.refuse(record.number, SCHEMA),
                    "INSERT" | "MULTI_INSERT" => {
                        self.inserted.insert(record.number);
                    }
                    "UPDATE" | "HOT_UPDATE" => self.refuse(record.number, CHANGED),
                    "DELETE" | "TRUNCATE" => self.refuse(record.number, REMOVED),
                    _ => {}
                }
            }
            "Storage" => self.refuse(record.number, SCHEMA),
            "Transaction" => {
                let whole = match record.action {
                    "ASSIGNMENT" => number_behind(record.said, "xtop "),
                    _ => Some(record.number),
                };
                let parts = record.said.split_once("subxacts:").map(|(_, parts)| parts);
                let parts = parts.unwrap_or_default().split(';').next().unwrap_or_default();
                for part in parts.split_whitespace().filter_map(|part| part.parse().ok()) {
                    if let Some(whole) = whole {
                        self.parts.insert(part, whole);
                    }
                }
            }
            _ => {}
        }
    }

    /// The transaction that this number is, or is a part of.
    pub fn whole(&self, number: u32) -> u32 {
        let mut whole = number;
        // A part of a part names the transaction or the part that it is in.
        for _ in 0..self.parts.len() {
            match self.parts.get(&whole) {
                Some(above) => whole = *above,
                None => break,
            }
        }
        whole
    }

    /// Leaves a transaction out, for the first reason that is found.
    pub fn refuse(&mut self, number: u32, why: &'static str) {
        if number != 0 {
            self.refused.entry(number).or_insert(why);
        }
    }

    /// By transaction, why it is left out. Whatever the order of the log, a part that is left out
    /// takes its transaction with it.
    pub fn refused(&self) -> BTreeMap<u32, &'static str> {
        let mut refused = BTreeMap::new();
        for (number, why) in &self.refused {
            refused.entry(self.whole(*number)).or_insert(*why);
        }
        refused
    }

    /// Whether the log told of an insertion under this number.
    pub fn told_of(&self, number: u32) -> bool {
        self.inserted.contains(&number)
    }
}

/// The next transaction when the old version's server ended, where this line tells it: that of its
/// last checkpoint, or of the one at which the recovery of a killed server ends. The first of them
/// counts.
pub(super) fn ended_at(line: &str) -> Option<u64> {
    let record = Record::of(line)?;
    if (record.manager, record.action) != ("XLOG", "CHECKPOINT_SHUTDOWN") {
        return None;
    }
    let (_, number) = record.said.split_once("; xid ")?;
    let (epoch, number) = number.split(';').next()?.split_once(':')?;
    Some((epoch.parse::<u64>().ok()? << 32) | u64::from(number.parse::<u32>().ok()?))
}

struct Record<'l> {
    manager: &'l str,
    number: u32,
    action: &'l str,
    said: &'l str,
    /// Of the first block: the database's number and the file's.
    file: Option<(u32, u32)>,
}

impl<'l> Record<'l> {
    fn of(line: &'l str) -> Option<Self> {
        let manager = line.strip_prefix("rmgr: ")?.split_whitespace().next()?;
        let number = number_behind(line, " tx: ")?;
        let (_, said) = line.split_once("desc: ")?;
        let action = said.split([' ', ',', ';']).next()?;
        let file = said.split_once("rel ").and_then(|(_, path)| {
            let path = path.split([' ', ',']).next()?;
            let mut numbers = path.split('/').skip(1);
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        });
        Some(Self { manager, number, action, said, file })
    }
}

fn number_behind(text: &str, words: &str) -> Option<u32> {
    let (_, rest) = text.split_once(words)?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(manager: &str, number: u32, said: &str) -> String {
        format!(
            "rmgr: {manager:<11} len (rec/tot):     54/   150, tx: {number:>10}, lsn: 0/015E4568, prev 0/015E4530, desc: {said}"
        )
    }

    fn told(lines: &[String]) -> Transactions {
        let catalogs = Catalogs { database: 5, files: [1259, 2840].into() };
        let mut all = Transactions::default();
        all.take(
            "first record is after 0/15E4500, at 0/15E4528, skipping over 40 bytes",
            &catalogs,
        );
        for line in lines {
            all.take(line, &catalogs);
        }
        all
    }

    #[test]
    fn a_transaction_that_only_inserted_is_none_that_changed_or_removed() {
        let rel = "blkref #0: rel 1663/5/16400 blk 0";
        let all = told(&[
            line("Heap", 730, &format!("INSERT off 1 flags 0x00, {rel}")),
            line("Heap", 730, &format!("LOCK off 3: xid 730: flags 0x00, {rel}")),
            line("Btree", 730, "INSERT_LEAF off 1, blkref #0: rel 1663/5/2662 blk 1"),
            line("Transaction", 730, "COMMIT 2026-01-31 12:00:00.000000 UTC"),
            line("Heap", 731, &format!("INSERT+INIT off: 1, flags: 0x00, {rel}")),
            line("Heap", 731, &format!("HOT_UPDATE old_xmax: 731, new_off: 2, {rel}")),
            line("Heap2", 732, &format!("MULTI_INSERT+INIT ntuples: 3, flags: 0x02, {rel}")),
            line("Heap", 733, &format!("DELETE off 4 flags 0x00 KEYS_UPDATED, {rel}")),
            line("Heap", 734, "INSERT off 9 flags 0x00, blkref #0: rel 1663/5/1259 blk 0"),
            line("Storage", 735, "CREATE base/5/16500"),
            line("Heap", 736, "INSERT off 9 flags 0x00, blkref #0: rel 1664/0/1262 blk 0"),
            line("Heap2", 0, &format!("PRUNE snapshotConflictHorizon: 731, {rel}")),
        ]);
        let expected =
            [(731, CHANGED), (733, REMOVED), (734, SCHEMA), (735, SCHEMA), (736, SCHEMA)];
        assert_eq!(all.refused(), expected.into());
        assert!(all.told_of(730) && all.told_of(732) && !all.told_of(740));
    }

    #[test]
    fn the_log_tells_which_transaction_was_next_when_a_server_ended() {
        let checkpoint = |kind: &str, wal_level: &str, xid: &str| {
            let said = format!(
                "{kind} redo 0/1949AF0; tli 1; prev tli 1; fpw true;{wal_level} xid {xid}; oid 24576; multi 1; offset 0; oldest xid 717 in DB 1; oldest multi 1 in DB 1; oldest running xid 0; shutdown"
            );
            ended_at(&line("XLOG", 0, &said))
        };
        assert_eq!(checkpoint("CHECKPOINT_SHUTDOWN", "", "0:735"), Some(735));
        let since_17 = " wal_level replica;";
        assert_eq!(checkpoint("CHECKPOINT_SHUTDOWN", since_17, "2:735"), Some((2 << 32) + 735));
        assert_eq!(checkpoint("CHECKPOINT_ONLINE", "", "0:735"), None);
        assert_eq!(ended_at(&line("XLOG", 0, "NEXTOID 32768")), None);
        assert_eq!(ended_at(&line("Transaction", 735, "COMMIT 2026-01-31 12:00:00 UTC")), None);
    }

    #[test]
    fn what_a_part_of_a_transaction_changed_is_the_transactions() {
        let rel = "blkref #0: rel 1663/5/16400 blk 0";
        let all = told(&[
            line("Heap", 750, &format!("INSERT off 1 flags 0x00, {rel}")),
            line("Heap", 751, &format!("UPDATE off 1 xmax 751 flags 0x00, {rel}")),
            line("Transaction", 750, "COMMIT 2026-01-31 12:00:00.0 UTC; subxacts: 751 752"),
            line("Transaction", 761, "ASSIGNMENT xtop 760: subxacts: 761 762"),
            line("Heap", 762, &format!("DELETE off 4 flags 0x00, {rel}")),
            line(
                "Transaction",
                760,
                "COMMIT 2026-01-31 12:00:00.0 UTC; subxacts: 761 762; inval msgs: 3",
            ),
        ]);
        assert_eq!(all.refused(), [(750, CHANGED), (760, REMOVED)].into());
        assert_eq!((all.whole(752), all.whole(762), all.whole(750)), (750, 760, 750));
    }
}
