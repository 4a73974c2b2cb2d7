//! Every version that is broken in its own way, of both kinds, with both of PostgreSQL's majors: a
//! row of a table for each, with what was seen, how it ended and what serves. In the long run
//! (`PAYRAM_TEST_FULL=1`): `cargo test --test broken_table -- --nocapture`, or those of them that
//! `PAYRAM_TEST_BROKEN` names, parted by commas.

mod support;

use std::time::Duration;

use support::operator::said;
use support::sound::seconds_without_the_old;
use support::{Fixture, World, in_long_run, require, side_by_side};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);
/// Worlds at a time: they wait more than they compute.
const LANES: usize = 3;

/// What a version's failing leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The old version on the database as it is.
    Kept,
    /// The old version on the restore point, by itself.
    Restored,
    /// A person is asked, and has the restore point put back.
    Asked,
}

use Expected::{Asked, Kept, Restored};

const BROKEN: [(&str, Expected); 23] = [
    ("health-500", Kept),
    ("exits-at-start", Kept),
    ("wrong-version", Kept),
    ("hangs", Kept),
    ("dies", Kept),
    ("migration-schema", Restored),
    ("migration-rows", Asked),
    ("health-500-writes", Kept),
    ("exits-at-start-writes", Kept),
    ("wrong-version-writes", Kept),
    ("hangs-writes", Kept),
    ("dies-writes", Kept),
    ("migration-schema-writes", Asked),
    ("migration-rows-writes", Asked),
    ("data-migration", Asked),
    ("re-encrypts", Asked),
    ("new-table-payments", Asked),
    ("completed-then-500", Asked),
    ("chown", Restored),
    ("rewrites-key", Kept),
    ("password", Restored),
    ("alter-system", Restored),
    ("backend-killed", Kept),
];

/// A row of the table, and what is wrong with it.
struct Line {
    text: String,
    wrong: Vec<String>,
}

#[test]
fn each_broken_version_ends_as_the_table_of_the_way_back_says() {
    if !require("docker") || !in_long_run() {
        return;
    }
    let only = std::env::var("PAYRAM_TEST_BROKEN").unwrap_or_default();
    let is_wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    let cells: Vec<(&str, Expected, u32)> = BROKEN
        .iter()
        .filter(|(name, _)| is_wanted(name))
        .flat_map(|(name, expected)| [15, 17].map(|pg| (*name, *expected, pg)))
        .collect();
    let lines = side_by_side(LANES, &cells, |(name, expected, pg)| one(name, *expected, *pg));
    assert!(!lines.is_empty(), "PAYRAM_TEST_BROKEN={only} names none");
    println!(
        "| tag | behaviour | PostgreSQL | ended | seen | seconds from its start to 1.9.6 serving | lost |"
    );
    println!("|---|---|---|---|---|---|---|");
    for line in &lines {
        println!("{}", line.text);
    }
    let wrong: Vec<&String> = lines.iter().flat_map(|line| &line.wrong).collect();
    println!("{} cells, {} wrong", lines.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn one(name: &str, expected: Expected, pg: u32) -> Line {
    let builder = World::build("1.9.6").rows(200).impatient().nested_mounts();
    let world = if pg == 17 { builder.postgres_17() } else { builder }.start();
    let tag = Fixture::get().tag_of(name);
    let daemon = world.daemon();
    world.begin_upgrade(tag);
    let status = daemon.wait_settled(END_LIMIT);
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{name}, PostgreSQL {pg}: {what}"));
        }
    };
    let ended = status["phase"].as_str().unwrap_or_default().to_owned();
    let code = status["failureCode"].as_str().unwrap_or_default().to_owned();
    let log = world.upgrade_log();
    let seen = log.lines().find_map(|line| line.split_once("assess_database: "));
    let seen = seen.map_or("nothing", |(_, seen)| seen).to_owned();
    let mut how = ended.clone();
    if ended == "NEEDS_OPERATOR" {
        let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
        let phase = daemon.status()["phase"].as_str().unwrap_or_default().to_owned();
        how = format!("{ended}, then recover --restore-database: {phase}");
        must(phase == "ROLLED_BACK", format!("after recover {phase}: {}", said(&recovered)));
    }
    world.wait_healthy();
    let replaced = !world.failed_directories().is_empty();
    let found = match (ended.as_str(), replaced) {
        ("ROLLED_BACK", false) => Some(Kept),
        ("ROLLED_BACK", true) => Some(Restored),
        ("NEEDS_OPERATOR", true) => Some(Asked),
        _ => None,
    };
    must(found == Some(expected), format!("expected {expected:?}, {how}: {}", status["message"]));
    must(world.version().as_deref() == Some("1.9.6"), format!("{:?} serves", world.version()));
    // What a failed version took itself is set aside with its database.
    let own = format!("\"written_by\":\"{tag}\"");
    let lost: Vec<String> = world.payments_lost().into_iter().collect();
    let lost = lost.iter().filter(|one| !(replaced && one.contains(&own))).count();
    must(lost == 0, format!("{lost} payments lost"));
    must(world.two_at_once().is_empty(), "two servers at once".to_owned());
    let seconds = seconds_without_the_old(&world);
    let seen: String = seen.chars().take(160).collect();
    let text =
        format!("| {tag} | {name} | {pg} | {how} ({code}) | {seen} | {seconds:.1} | {lost} |");
    println!("{text}");
    Line { text, wrong }
}
