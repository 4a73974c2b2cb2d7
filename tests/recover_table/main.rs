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

use cell::{Outcome, Row};
use journals::Journal;
use support::{Draw, is_full, setting, side_by_side};
use worlds::World;

/// Journals, and worlds of each, that are tried unless all are.
const JOURNALS: usize = 6;
const WORLDS: usize = 4;

/// Columns of the table.
const COLUMNS: usize = 100;

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
    if is_full() {
        return journals.into_iter().map(|journal| (journal, all.clone())).collect();
    }
    let mut draw = Draw::seeded("PAYRAM_TEST_SEED", "cells");
    let drawn = draw.sample(journals, JOURNALS);
    drawn.into_iter().map(|journal| (journal, draw.sample(all.clone(), WORLDS))).collect()
}

#[test]
fn recover_does_the_safe_thing_in_every_state_of_journal_and_world() {
    let all = chosen();
    let workers = setting("PAYRAM_TEST_WORKERS").unwrap_or(2);
    let rows = side_by_side(workers, &all, |(journal, worlds)| cells(journal, worlds));
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
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
            cell::run(&mut made, &journal.name, *world, daemon)
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
