//! The crash matrix: the daemon is killed with SIGKILL before and after each request to the
//! engine, each commit of its journal and each change of a name in the file system, in upgrades of
//! every kind, and started again. Wherever that is, the upgrade ends, the invariants hold, and no
//! acknowledged payment is missing. Some crashes are followed by a second one, or take the
//! engine with them; and an engine that drops each connection in turn is no crash at all.
//!
//! All points are tried with `PAYRAM_CRASH_MATRIX=full`, with a number so many of each column
//! of the table and otherwise one; they are drawn by a seed that is printed and that `PAYRAM_CRASH_SEED` sets. `PAYRAM_CRASH_SCENARIO` names one of them,
//! `PAYRAM_CRASH_COLUMNS` some columns of the table, `PAYRAM_CRASH_WORKERS` says how many crashes
//! are tried at the same time. The full one is
//! meant for the release build: `PAYRAM_CRASH_MATRIX=full cargo test --release --test sandbox
//! matrix -- --nocapture`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::crash::{Tried, try_point};
use crate::points::{At, COLUMNS, Point, Then, Trail};
use crate::scenarios::{self, Scenario};
use crate::support::{Draw, require, setting, side_by_side};

/// Second crashes and reboots in each scenario when all points are tried: each is one of
/// hundreds squared, so they are drawn.
const DRAWN: usize = 24;

/// Crashes that are tried at the same time: one is mostly waited for.
const WORKERS: usize = 14;

/// How far into its life a new daemon is killed again.
const AGAIN_WITHIN: usize = 16;

/// How many points of each column of a scenario are tried.
#[derive(Clone, Copy)]
enum Extent {
    All,
    Some(usize),
}

impl Extent {
    fn wanted() -> Self {
        match setting::<String>("PAYRAM_CRASH_MATRIX").as_deref() {
            None => Extent::Some(1),
            Some("full") => Extent::All,
            Some(number) => Extent::Some(number.parse().expect("`full` or a number")),
        }
    }
}

/// The points that are tried, of those that there are.
fn drawn<'s>(all: &[Point<'s>], extent: Extent, draw: &mut Draw) -> Vec<Point<'s>> {
    let only: Option<String> = setting("PAYRAM_CRASH_COLUMNS");
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only.contains(name));
    let mut tried = Vec::new();
    for (column, _) in COLUMNS.iter().enumerate().filter(|(_, name)| is_wanted(name)) {
        let left: Vec<Point<'s>> =
            all.iter().filter(|point| point.column() == column).copied().collect();
        match extent {
            Extent::All => tried.extend(left),
            Extent::Some(number) => tried.extend(draw.sample(left, number)),
        }
    }
    let kills: Vec<Point<'s>> = all.iter().filter(|point| point.at.kills()).copied().collect();
    let number = match extent {
        Extent::All => DRAWN,
        Extent::Some(number) => number,
    };
    for _ in 0..number {
        if let Some(point) = draw.of(&kills).filter(|_| is_wanted("twice")) {
            tried.push(Point { then: Then::Again(again(draw)), ..point });
        }
        if let Some(point) = draw.of(&kills).filter(|_| is_wanted("reboots")) {
            tried.push(Point { then: Then::Reboot, ..point });
        }
    }
    tried
}

/// Where a new daemon is killed, too: at a request or at a question, early in its life.
fn again(draw: &mut Draw) -> At {
    let nth = 1 + draw.below(AGAIN_WITHIN);
    match draw.below(3) {
        0 => At::Request(nth, "kill-before"),
        1 => At::Request(nth, "kill-after"),
        _ => At::Observation(nth, "kill-before"),
    }
}

/// One line of the table: a scenario's points by column, all of them, unreached, violations.
fn line(name: &str, results: &[(&Point<'_>, &Tried)]) -> String {
    let count = |column| results.iter().filter(|(point, _)| point.column() == column).count();
    let columns: String =
        (0..COLUMNS.len()).map(|column| format!("{:>10}", count(column))).collect();
    let unreached = results.iter().filter(|(_, tried)| !tried.is_reached).count();
    let violations = results.iter().filter(|(_, tried)| !tried.wrong.is_empty()).count();
    format!("{name:<26}{columns}{:>8}{unreached:>11}{violations:>12}", results.len())
}

/// Seconds of processor time that this process' children have used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // proc(5): cutime and cstime are fields 16 and 17, in hundredths; the second ended above.
    let ticks: f64 = fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

#[test]
fn a_daemon_killed_anywhere_ends_the_upgrade_after_its_restart() {
    let extent = Extent::wanted();
    let workers = setting("PAYRAM_CRASH_WORKERS").unwrap_or(WORKERS);
    let began = Instant::now();
    let mut draw = Draw::seeded("PAYRAM_CRASH_SEED", "points");
    let only: Option<String> = setting("PAYRAM_CRASH_SCENARIO");
    let mut scenarios = scenarios::all();
    scenarios.retain(|scenario| only.as_deref().is_none_or(|only| only == scenario.name));
    // Without it, commits and names are not counted, and the test is one that was skipped.
    let is_traced = require("ptrace");
    let trails = side_by_side(workers, &scenarios, |scenario| Trail::of(scenario, is_traced));
    let points: Vec<Point<'_>> = scenarios
        .iter()
        .zip(&trails)
        .flat_map(|(scenario, trail)| drawn(&trail.points(scenario), extent, &mut draw))
        .collect();
    let done = AtomicUsize::new(0);
    let results = side_by_side(workers, &points, |point| {
        // What was waited for in vain is a violation like any other.
        let tried = std::panic::catch_unwind(|| try_point(point)).unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Tried { wrong: vec![format!("panicked: {why}")], is_reached: true, ..Tried::default() }
        });
        for what in &tried.wrong {
            println!("VIOLATION at {point} (killed in {}): {what}", tried.was_at);
        }
        let done = done.fetch_add(1, Ordering::SeqCst) + 1;
        if done.is_multiple_of(100) {
            println!("{done} of {} points, {:.0?}", points.len(), began.elapsed());
        }
        tried
    });
    report(&scenarios, &points, &results);
    let possible: usize =
        scenarios.iter().zip(&trails).map(|(one, trail)| trail.points(one).len()).sum();
    println!(
        "of {possible} points, second crashes and reboots apart; seed {}, {:.0} s, {:.0} s of processor time",
        draw.seed(),
        began.elapsed().as_secs_f64(),
        processor_seconds()
    );
    let violations = results.iter().filter(|tried| !tried.wrong.is_empty()).count();
    assert_eq!(violations, 0, "see the lines that begin with VIOLATION");
    let unreached = results.iter().filter(|tried| !tried.is_reached).count();
    assert!(unreached * 10 <= points.len(), "{unreached} points were never come to");
}

fn report(scenarios: &[Scenario], points: &[Point<'_>], results: &[Tried]) {
    let header: String = COLUMNS.iter().map(|column| format!("{column:>10}")).collect();
    println!("{:<26}{header}{:>8}{:>11}{:>12}", "scenario", "points", "unreached", "violations");
    let all: Vec<(&Point<'_>, &Tried)> = points.iter().zip(results).collect();
    for scenario in scenarios {
        let own: Vec<_> =
            all.iter().filter(|(point, _)| point.scenario.name == scenario.name).copied().collect();
        println!("{}", line(scenario.name, &own));
    }
    println!("{}", line("all", &all));
    let mut unreached = BTreeMap::new();
    for (point, _) in all.iter().filter(|(_, tried)| !tried.is_reached) {
        *unreached.entry(COLUMNS[point.column()]).or_insert(0) += 1;
    }
    if !unreached.is_empty() {
        println!("never come to, killed at rest instead: {unreached:?}");
    }
}
