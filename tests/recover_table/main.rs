//! `recover` on every cell of journal state × world, with the real program against the
//! make-believe engine: what it said, what it did, how it exited.
//!
//! All cells with `PAYRAM_TEST_FULL=1`, otherwise some, drawn by a seed that is printed and that
//! `PAYRAM_TEST_SEED` sets. `PAYRAM_TEST_JOURNAL` and `PAYRAM_TEST_WORLD` keep those whose name
//! contains the text. The table is printed, and written to `PAYRAM_TEST_TABLE` where that names
//! a file.

#[path = "../support/mod.rs"]
mod support;

mod cell;
mod journals;
mod lock;
mod place;
mod worlds;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cell::{Outcome, Row};
use journals::Journal;
use worlds::World;

/// Journals, and worlds of each, that are tried unless all are.
const JOURNALS: usize = 4;
const WORLDS: usize = 3;

/// Columns of the table.
const COLUMNS: usize = 100;

/// Numbers from a seed (splitmix64), so that a sample can be drawn again.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn sample<T>(&mut self, mut all: Vec<T>, count: usize) -> Vec<T> {
        let count = count.min(all.len());
        (0..count).map(|_| all.swap_remove(self.below(all.len()))).collect()
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The cells to try, by journal.
fn chosen() -> Vec<(Journal, Vec<(usize, World)>)> {
    let holds = |variable: &str, name: &str| {
        std::env::var(variable).is_ok_and(|text| name.contains(&text))
            || std::env::var(variable).is_err()
    };
    let mut journals = journals::all();
    journals.retain(|journal| holds("PAYRAM_TEST_JOURNAL", &journal.name));
    let all: Vec<(usize, World)> = worlds::ALL.into_iter().enumerate().collect();
    let all: Vec<_> =
        all.into_iter().filter(|(_, world)| holds("PAYRAM_TEST_WORLD", world.name())).collect();
    if number("PAYRAM_TEST_FULL") == Some(1) {
        return journals.into_iter().map(|journal| (journal, all.clone())).collect();
    }
    let seed = number("PAYRAM_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("PAYRAM_TEST_SEED={seed}");
    let mut draw = Draw(seed);
    let drawn = draw.sample(journals, JOURNALS);
    drawn.into_iter().map(|journal| (journal, draw.sample(all.clone(), WORLDS))).collect()
}

#[test]
fn recover_does_the_safe_thing_in_every_state_of_journal_and_world() {
    let all = chosen();
    let workers = number("PAYRAM_TEST_WORKERS").unwrap_or(2) as usize;
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(usize, Vec<Row>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..workers.min(all.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some((journal, worlds)) = all.get(at) else { return };
                    let found = cells(journal, worlds);
                    rows.lock().expect("no test panics with it").push((at, found));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no test panics with it");
    rows.sort_by_key(|(at, _)| *at);
    let rows: Vec<Row> = rows.into_iter().flat_map(|(_, rows)| rows).collect();
    let (table, violations) = printed(&rows);
    println!("{table}");
    if let Some(path) = std::env::var_os("PAYRAM_TEST_TABLE") {
        std::fs::write(path, &table).expect("the table's file");
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The cells of one journal, one after the other: they share a path.
fn cells(journal: &Journal, worlds: &[(usize, World)]) -> Vec<Row> {
    let failed = |world: &'static str, what: &str| Row {
        journal: journal.name.clone(),
        world,
        daemon: false,
        outcome: Outcome::Tried {
            action: String::new(),
            exit: -1,
            said: String::new(),
            then: String::new(),
            wrong: vec![what.to_owned()],
        },
    };
    let made = std::panic::catch_unwind(|| journal.make());
    let Ok(mut made) = made else {
        return vec![failed("", "the state could not be made, see the panic above")];
    };
    let mut rows = Vec::new();
    for (number, world) in worlds {
        // Half with a daemon and half without, another half in the next journal.
        let daemon = (number + journal.name.len()).is_multiple_of(2);
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cell::run(&mut made, &journal.name, &journal.make, *world, daemon)
        }));
        let row = tried.unwrap_or_else(|_| failed(world.name(), "see the panic above"));
        // All of it stands in the table at the end; this is for whoever waits.
        println!("{}", printed(std::slice::from_ref(&row)).0.trim());
        rows.push(row);
    }
    rows
}

/// A sentence in lines that fit the table.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > COLUMNS - 4 {
            lines.push(word.to_owned());
        } else {
            let space = if last.is_empty() { "" } else { " " };
            last.push_str(&format!("{space}{word}"));
        }
    }
    lines
}

/// The table, and what is wrong in it.
fn printed(rows: &[Row]) -> (String, Vec<String>) {
    let mut table = String::new();
    let mut violations = Vec::new();
    let (mut tried, mut impossible) = (0, 0);
    let mut line = |text: &str| {
        let cut: String = text.chars().take(COLUMNS).collect();
        writeln!(table, "{}", cut.trim_end()).expect("a line");
    };
    let mut last = "";
    for row in rows {
        if row.journal != last {
            line("");
            line(&format!("== {}", row.journal));
            last = &row.journal;
        }
        match &row.outcome {
            Outcome::Impossible(why) => {
                impossible += 1;
                line(&format!("{:<26} impossible: {why}", row.world));
            }
            Outcome::Tried { action, exit, said, then, wrong } => {
                tried += 1;
                let hand = if row.daemon { "daemon" } else { "alone" };
                line(&format!("{:<26} {hand:<6} {action} | exit {exit} | {then}", row.world));
                for part in wrapped(said) {
                    line(&format!("    {part}"));
                }
                for what in wrong {
                    line(&format!("    VIOLATION: {what}"));
                    violations.push(format!("{}, {}: {what}", row.journal, row.world));
                }
            }
        }
    }
    if rows.len() > 1 {
        line("");
        let count = violations.len();
        line(&format!("{tried} cells, {impossible} impossible, {count} violations"));
    }
    (table, violations)
}
