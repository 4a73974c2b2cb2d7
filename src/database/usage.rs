//! Whether the application uses a database, over a while, and whether a new version does so as the
//! old one did: pure.
//!
//! Called by the driver, while it watches the old version and at the gate. A session may be caught
//! between two requests, or be a bystander's; so three things are looked at: sessions by the name
//! that their program gives, the transactions of others than the updater, by the server's own
//! counters, and the rows that they wrote.

use std::collections::BTreeMap;

use super::cluster::Identity;
use crate::machine::facts::{Habits, Usage};

/// The transactions of one question for the identity: one to connect, and one a statement.
const OWN_TRANSACTIONS: u64 = 5;

/// So many looks show what is usual.
const LOOKS_ENOUGH: u32 = 3;

/// A new version is compared with the old one's pace by this factor: what falls below is another
/// kind of use, as that of a bystander; traffic alone changes it too.
const SLOWER_BY: u64 = 4;

/// Programs by which a person looks into a database, or that copy it: they come and go.
const TOOLS: [&str; 6] = ["psql", "pg_dump", "pg_dumpall", "pg_restore", "pgAdmin", "DBeaver"];

/// How a new version uses the database, compared with the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// As the old one did.
    Same,
    /// Not as the old one did, so far.
    NotYet(String),
    /// Nothing speaks against it and not enough for it.
    Unsure(String),
}

/// What was seen of a database's use so far.
#[derive(Clone, Debug, Default)]
pub struct UsageWatch {
    last: Option<(u64, Identity)>,
    usage: Usage,
    looks_with: BTreeMap<String, u32>,
}

impl UsageWatch {
    /// Takes in a look at this moment, in milliseconds of any clock that goes on. Answers whether
    /// the application was seen in it, now or since the look before; none where the first look
    /// could not tell.
    pub fn look(&mut self, at_ms: u64, now: Identity) -> Option<bool> {
        let usage = &mut self.usage;
        usage.looks += 1;
        let mut is_used = now.sessions > 0;
        usage.looks_with_sessions += u32::from(is_used);
        let mut is_known = is_used;
        if let Some((then_ms, then)) = &self.last
            && let (Some(before), Some(after)) = (then.counters, now.counters)
            // Counted anew meanwhile: the server was restarted.
            && after.transactions >= before.transactions
        {
            let passed = after.transactions - before.transactions;
            let foreign = passed.saturating_sub(OWN_TRANSACTIONS);
            usage.intervals += 1;
            usage.transactions += foreign;
            usage.milliseconds += at_ms.saturating_sub(*then_ms);
            usage.intervals_with_rows += u32::from(after.written > before.written);
            is_used |= foreign > 0;
            is_known = true;
        }
        usage.looks_used += u32::from(is_used);
        let is_tool = |name: &&String| TOOLS.iter().any(|tool| name.starts_with(tool));
        let names = now.programs.iter().filter(|name| !is_tool(name));
        let mut names: Vec<String> = names.map(|name| plain(name)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            *self.looks_with.entry(name).or_default() += 1;
        }
        self.last = Some((at_ms, now));
        is_known.then_some(is_used)
    }

    /// Begins anew; what the next look is compared with stays.
    pub fn begin_anew(&mut self) {
        *self = Self { last: self.last.take(), ..Self::default() };
    }

    /// What was seen, for the journal.
    pub fn usage(&self) -> Usage {
        let always = self.looks_with.iter().filter(|(_, looks)| **looks == self.usage.looks);
        Usage { programs: always.map(|(name, _)| name.clone()).collect(), ..self.usage.clone() }
    }

    /// How this compares with what the old version did.
    pub fn compare(&self, habits: &Habits) -> Use {
        let (old, new) = (&of_old(habits), &self.usage);
        if !is_like(new, old) {
            return match (is_steady(old), new.looks >= LOOKS_ENOUGH) {
                (true, _) => Use::NotYet("nothing of it is seen there".to_owned()),
                (false, false) => Use::NotYet("whether it uses it is not seen yet".to_owned()),
                (false, true) => Use::Unsure(match old.looks_used {
                    0 => "neither the old version nor this one was seen to use the shop's database while they were watched".to_owned(),
                    _ => "it was not seen to use the shop's database while it was watched, and the old version was now and then".to_owned(),
                }),
            };
        }
        let missing = self.missing(old);
        if !missing.is_empty() {
            let gone = format!("no session of {} in the shop's database", missing.join(", "));
            let is_nobody_left = missing.len() == old.programs.len();
            return match keeps_pace(new, old).unwrap_or(!is_nobody_left) {
                true => Use::Unsure(format!(
                    "there is {gone}, where the old version had one all the time; others are there"
                )),
                false => Use::NotYet(format!("there is {gone}")),
            };
        }
        let always_wrote =
            old.intervals >= LOOKS_ENOUGH && old.intervals_with_rows == old.intervals;
        if always_wrote && new.intervals_with_rows == 0 {
            return match new.looks > LOOKS_ENOUGH {
                true => Use::Unsure(
                    "no row was written to the shop's database while it was watched; the old version wrote all the time".to_owned(),
                ),
                false => Use::NotYet("no row was written yet".to_owned()),
            };
        }
        Use::Same
    }

    fn missing(&self, old: &Usage) -> Vec<String> {
        let is_enough = old.looks >= LOOKS_ENOUGH;
        let names = old.programs.iter().filter(|name| !self.looks_with.contains_key(*name));
        names
            .filter(|_| is_enough)
            .map(|name| match name.is_empty() {
                true => "the program that gives no name".to_owned(),
                false => name.clone(),
            })
            .collect()
    }
}

/// What was noted of the old version; an older journal knows its sessions alone.
fn of_old(habits: &Habits) -> Usage {
    match habits.usage.looks {
        0 => Usage {
            looks: habits.looks,
            looks_used: habits.looks_with_sessions,
            looks_with_sessions: habits.looks_with_sessions,
            ..Usage::default()
        },
        _ => habits.usage.clone(),
    }
}

/// Whether the old version was there so often that a new one has to be: one lucky look is none.
fn is_steady(old: &Usage) -> bool {
    let is_mostly = old.looks_used * 2 > old.looks;
    is_mostly && (old.looks >= LOOKS_ENOUGH || old.looks_used == old.looks)
}

/// Whether the new version is there about as often as the old one.
fn is_like(new: &Usage, old: &Usage) -> bool {
    let (new_used, old_used) = (u64::from(new.looks_used), u64::from(old.looks_used));
    let (new_looks, old_looks) = (u64::from(new.looks), u64::from(old.looks));
    new.looks_used > 0
        && (!is_steady(old) || new_used * old_looks * SLOWER_BY >= old_used * new_looks)
}

/// Whether about as many transactions happen in the same time; none where nobody counted.
fn keeps_pace(new: &Usage, old: &Usage) -> Option<bool> {
    let is_counted = old.milliseconds > 0 && new.milliseconds > 0;
    let of_old = u128::from(old.transactions) * u128::from(new.milliseconds);
    let of_new = u128::from(new.transactions) * u128::from(old.milliseconds);
    is_counted.then_some(of_new * u128::from(SLOWER_BY) >= of_old)
}

/// A program's name without what differs from version to version and from process to process.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        match c {
            '0'..='9' if plain.ends_with('#') => {}
            '0'..='9' => plain.push('#'),
            // Of `1.9.6` and `1.10` one is left.
            '.' if plain.ends_with('#') => {}
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::cluster::Counters;
    use crate::machine::facts::Cluster;

    struct Shop {
        transactions: u64,
        written: u64,
        at_ms: u64,
    }

    impl Shop {
        fn new() -> Self {
            Self { transactions: 1000, written: 100, at_ms: 0 }
        }

        /// A second passes in which others have so many transactions and write so many rows.
        fn second(&mut self, watch: &mut UsageWatch, work: (u64, u64), programs: &[&str]) {
            self.at_ms += 1000;
            self.transactions += OWN_TRANSACTIONS + work.0;
            self.written += work.1;
            let counters = Counters { transactions: self.transactions, written: self.written };
            watch.look(self.at_ms, identity(Some(counters), programs));
        }
    }

    fn identity(counters: Option<Counters>, programs: &[&str]) -> Identity {
        Identity {
            cluster: Cluster {
                system_identifier: "7".into(),
                timeline: 1,
                database_oid: 5,
                wal_position: "0/1".into(),
                wal_file: String::new(),
                major: 15,
            },
            sessions: programs.len() as u32,
            programs: programs.iter().map(|name| (*name).to_owned()).collect(),
            counters,
        }
    }

    fn watched(work: (u64, u64), programs: &[&str], seconds: u32) -> UsageWatch {
        let (mut shop, mut watch) = (Shop::new(), UsageWatch::default());
        for _ in 0..seconds {
            shop.second(&mut watch, work, programs);
        }
        watch
    }

    fn habits(old: &UsageWatch) -> Habits {
        Habits { usage: old.usage(), ..Habits::default() }
    }

    #[test]
    fn an_idle_session_of_a_bystander_is_not_the_application() {
        let old = habits(&watched((20, 20), &["payram-core", "payram-worker"], 6));
        let Use::NotYet(found) = watched((0, 0), &["payram-metrics"], 6).compare(&old) else {
            panic!("a bystander was taken for the application")
        };
        assert!(found.contains("payram-core, payram-worker"), "{found}");
        // Its workers stayed, and the core is elsewhere.
        let half = watched((1, 0), &["payram-worker"], 6).compare(&old);
        assert!(matches!(half, Use::NotYet(_)), "{half:?}");
        // The same work under another name, or without one program: a person has the last word.
        for programs in [&["core"][..], &["payram-core"]] {
            let renamed = watched((18, 18), programs, 6).compare(&old);
            assert!(matches!(renamed, Use::Unsure(_)), "{renamed:?}");
        }
        let looked = habits(&watched((20, 20), &["payram-core", "psql"], 6));
        assert_eq!(watched((20, 20), &["payram-core"], 6).compare(&looked), Use::Same);
        let same = watched((1, 1), &["payram-core", "payram-worker"], 6).compare(&old);
        assert_eq!(same, Use::Same, "less traffic is no other use");
    }

    #[test]
    fn an_application_that_connects_for_each_request_is_seen_by_the_counters() {
        let old = habits(&watched((3, 0), &[], 6));
        assert_eq!(watched((1, 0), &[], 6).compare(&old), Use::Same);
        let elsewhere = watched((0, 0), &[], 6).compare(&old);
        assert!(matches!(elsewhere, Use::NotYet(_)), "{elsewhere:?}");
        let (mut shop, mut once) = (Shop::new(), UsageWatch::default());
        for second in 0..12 {
            shop.second(&mut once, (if second == 3 { 2 } else { 0 }, 0), &[]);
        }
        let once = once.compare(&old);
        assert!(matches!(once, Use::NotYet(_)), "a vacuum is no application: {once:?}");
    }

    #[test]
    fn a_lucky_look_at_the_old_version_condemns_no_new_one_and_silence_is_never_evidence() {
        let (mut shop, mut lucky) = (Shop::new(), UsageWatch::default());
        for second in 0..6 {
            shop.second(&mut lucky, (0, 0), if second == 2 { &["psql"][..] } else { &[] });
        }
        let silent = watched((0, 0), &[], 6);
        for old in [habits(&lucky), habits(&silent), Habits::default()] {
            assert!(matches!(silent.compare(&old), Use::Unsure(_)), "{:?}", silent.compare(&old));
            assert!(matches!(watched((0, 0), &[], 1).compare(&old), Use::NotYet(_)));
            assert_eq!(watched((1, 0), &[], 3).compare(&old), Use::Same);
        }
    }

    #[test]
    fn a_shop_in_which_nothing_is_written_any_more_is_for_a_person() {
        let old = habits(&watched((9, 9), &["core"], 6));
        let found = watched((9, 0), &["core"], 6).compare(&old);
        assert!(matches!(found, Use::Unsure(_)), "{found:?}");
        assert!(matches!(watched((9, 0), &["core"], 2).compare(&old), Use::NotYet(_)));
        assert_eq!(watched((9, 1), &["core"], 2).compare(&old), Use::Same);
    }

    #[test]
    fn without_counters_sessions_decide_as_an_older_journal_has_them() {
        let old = Habits { looks: 4, looks_with_sessions: 4, ..Habits::default() };
        let look = |programs: &[&str]| {
            let mut watch = UsageWatch::default();
            for second in 0..3 {
                watch.look(second * 1000, identity(None, programs));
            }
            watch
        };
        assert_eq!(look(&["core"]).compare(&old), Use::Same);
        assert!(matches!(look(&[]).compare(&old), Use::NotYet(_)));
        let text = r#"{"looks": 4, "looksWithSessions": 4}"#;
        assert_eq!(serde_json::from_str::<Habits>(text).expect("an old journal"), old);
    }

    #[test]
    fn a_name_is_known_again_under_another_version() {
        assert_eq!(plain("payram-core/1.9.6"), plain("payram-core/1.10.0"));
        assert_eq!(plain("worker-4711"), plain("worker-9"));
        assert_ne!(plain("payram-core"), plain("payram-metrics"));
    }
}
