//! Each version that is broken in its own way, on a real engine with a real database: the old
//! version serves again by itself, with every acknowledged payment. Only where the broken one
//! changed rows a person is asked, and one command brings the old version back.

mod support;

use std::fs;
use std::time::Duration;

use serde_json::Value;
use support::sound::{load_exported, seconds_without_the_old};
use support::{Daemon, Fixture, World, in_long_run, require, wait_until};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(240);

/// A running 1.9.6 with payments, and an updater with little patience.
fn world() -> World {
    World::build("1.9.6")
        .rows(200)
        .setting("HEALTH_TIMEOUT_SECONDS", "5")
        .setting("START_TIMEOUT_SECONDS", "25")
        .start()
}

fn tag_of(behaviour: &str) -> String {
    let tags = Fixture::get().tags();
    let found = tags.iter().find(|tag| tag.behaviour == behaviour);
    found.unwrap_or_else(|| panic!("tags.tsv has no {behaviour}")).tag.clone()
}

/// Begins an upgrade to the version and waits for its end.
fn upgrade(world: &World, version: &str) -> (Daemon, Value) {
    let daemon = world.daemon();
    world.begin_upgrade(version);
    let status = daemon.wait_settled(END_LIMIT);
    (daemon, status)
}

/// The old version serves again by itself: the very container that served before.
fn goes_back_by_itself(behaviour: &str, codes: &[&str]) -> World {
    let world = world();
    let before = world.container().expect("a container")["Id"].clone();
    let tag = tag_of(behaviour);
    let (daemon, status) = upgrade(&world, &tag);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    let code = status["failureCode"].as_str().unwrap_or_default();
    assert!(codes.contains(&code), "{codes:?}: {status:#}");
    world.assert_sound("1.9.6", behaviour);
    assert_eq!(world.container().expect("a container")["Id"], before, "it was never removed");
    let seconds = seconds_without_the_old(&world);
    println!(
        "{tag} ({behaviour}): ROLLED_BACK, {code}, {seconds:.1} s from its start to 1.9.6 serving, 0 lost: {}",
        status["message"].as_str().unwrap_or_default()
    );
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    world
}

/// The same, and the database in use is the one that was there before, not a copy.
fn goes_back_on_its_own_database(behaviour: &str, code: &str) {
    let world = goes_back_by_itself(behaviour, &[code]);
    assert_eq!(world.failed_directories(), Vec::<String>::new());
}

#[test]
fn a_version_whose_health_is_500_gives_way_to_the_old_one() {
    if require("docker") {
        goes_back_on_its_own_database("health-500", "HEALTHCHECK_FAILED");
    }
}

#[test]
fn a_version_that_exits_at_its_start_gives_way_to_the_old_one() {
    if require("docker") && in_long_run() {
        goes_back_on_its_own_database("exits-at-start", "HEALTHCHECK_FAILED");
    }
}

#[test]
fn a_version_that_reports_another_version_gives_way_to_the_old_one() {
    if require("docker") && in_long_run() {
        goes_back_on_its_own_database("wrong-version", "VERSION_MISMATCH");
    }
}

#[test]
fn a_version_that_hangs_gives_way_to_the_old_one() {
    if in_long_run() && require("docker") {
        goes_back_on_its_own_database("hangs", "MIGRATION_TIMEOUT");
    }
}

#[test]
fn a_version_that_dies_after_its_first_good_answers_gives_way_to_the_old_one() {
    if require("docker") {
        goes_back_on_its_own_database("dies", "HEALTHCHECK_FAILED");
    }
}

#[test]
fn a_migration_that_broke_without_touching_a_row_gives_way_to_the_old_version_and_its_schema() {
    if !require("docker") {
        return;
    }
    // On a slow machine its core lives long enough for the supervisor never to give up on it.
    let codes = ["HEALTHCHECK_FAILED", "MIGRATION_TIMEOUT"];
    let world = goes_back_by_itself("migration-schema", &codes);
    let failed = world.failed_directories();
    assert_eq!(failed.len(), 1, "the failed version's database is kept: {failed:?}");
    let columns = world.sql(
        "SELECT column_name FROM information_schema.columns
         WHERE table_name = 'payments' ORDER BY 1",
    );
    assert_eq!(columns, "amount\ncreated_at\nid\nseq\nwritten_by", "the old schema");
}

/// A world whose upgrade changed rows and stopped.
fn stopped_for_a_decision() -> (World, Daemon, Value) {
    let world = world();
    let (daemon, status) = upgrade(&world, &tag_of("migration-rows"));
    (world, daemon, status)
}

fn states(world: &World) -> Vec<String> {
    let all = world.containers();
    all.iter().map(|one| one["State"]["Status"].as_str().unwrap_or_default().to_owned()).collect()
}

fn said(output: &std::process::Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Which tables were changed, and how many rows.
fn says_what_was_changed(status: &Value) {
    let message = status["message"].as_str().unwrap_or_default();
    println!("9.0.5 (migration-rows): NEEDS_OPERATOR, MIGRATION_FAILED: {message}");
    // The supervisor starts it again and again: each time the same ten rows are changed.
    let (_, said) = message.split_once("public.payments: 10 rows updated; ").unwrap_or_else(|| {
        panic!("the table and how many rows: {message}");
    });
    let changes = said.split(' ').next().and_then(|changes| changes.parse::<u32>().ok());
    let changes = changes.unwrap_or_else(|| panic!("how many changes: {message}"));
    assert!(changes >= 10 && changes.is_multiple_of(10), "{message}");
}

#[test]
fn a_migration_that_changed_rows_stops_until_a_person_consents_and_then_the_old_version_serves() {
    if !require("docker") {
        return;
    }
    let (world, daemon, status) = stopped_for_a_decision();
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    assert_eq!(status["failureCode"], "MIGRATION_FAILED", "{status:#}");
    says_what_was_changed(&status);
    assert_eq!(states(&world), ["exited", "exited"], "neither container runs");
    world.assert_journal_is_whole("a stop");
    let run = world.cli(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(run.status.code(), Some(1), "no upgrade begins before it: {}", said(&run));

    let refused = world.cli(&["recover", "--yes"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("recover --restore-database"), "{}", said(&refused));
    assert_eq!(states(&world), ["exited", "exited"], "nothing was done");

    let shown = world.cli(&["recover", "--restore-database", "--dry-run"]);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    assert!(said(&shown).contains("public.payments: 10 rows updated; "), "{}", said(&shown));
    assert!(said(&shown).contains(".rows.sql"), "{}", said(&shown));
    assert_eq!(states(&world), ["exited", "exited"], "nothing was done");
    let payment = the_failed_version_takes_a_payment(&world);

    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    comes_back_by_consent(&world);
    let log = world.upgrade_log();
    assert!(log.contains("is not what was shown before the consent"), "{log}");
    says_what_was_exported(&world, &daemon.status());
    holds_what_the_failed_version_wrote(&world, &payment);
    drop(daemon);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn the_decision_can_be_made_without_a_daemon() {
    if !require("docker") {
        return;
    }
    let (world, daemon, status) = stopped_for_a_decision();
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    assert!(daemon.terminate().success());
    let refused = world.cli(&["recover", "--yes"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    comes_back_by_consent(&world);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// The file beside the failed version's database.
fn exported_file(world: &World) -> std::path::PathBuf {
    let failed = world.failed_directories();
    let file = failed.iter().find(|name| name.ends_with(".rows.sql"));
    let file = file.unwrap_or_else(|| panic!("{failed:?}\n{}", world.upgrade_log()));
    world.path("data/db").join(file)
}

/// The failed version is started by hand, and makes what must not be forgotten.
fn the_failed_version_takes_a_payment(world: &World) -> String {
    world.docker(&["start", &world.name]);
    let payment = wait_until("its database answers", END_LIMIT, || {
        let sql = "INSERT INTO payments (id, amount, written_by, ledger)
                   VALUES (gen_random_uuid(), 77.5, 'it''s\\9.0.5', 'half') RETURNING id";
        world.try_sql(sql).ok()
    });
    world.docker(&["stop", "--time", "60", &world.name]);
    payment
}

/// Where they are, wherever an operator looks.
fn says_what_was_exported(world: &World, status: &Value) {
    let file = exported_file(world).display().to_string();
    println!("9.0.5 (migration-rows): {}", status["message"].as_str().unwrap_or_default());
    assert_eq!(status["exportPath"], file.as_str(), "{status:#}");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("public.payments: 1 row inserted, 10 updated"), "{message}");
    let steps = status["recoveryPlaybook"]["sshSteps"].to_string();
    assert!(steps.contains(&file), "{status:#}");
    let history = world.cli(&["history", "--json", "--type", "upgrade"]);
    let history: Value = serde_json::from_slice(&history.stdout).expect("JSON");
    let data = &history["events"][0]["data"];
    assert_eq!(data["exportPath"], file.as_str(), "{history:#}");
    assert_eq!((&data["rowsInserted"], &data["rowsUpdated"]), (&"1".into(), &"10".into()));
    let recover = said(&world.cli(&["recover", "--dry-run"]));
    assert!(recover.contains(&file), "{recover}");
}

/// The file has the rows that the failed version wrote, and loading it gives the old one those
/// that it lacks.
fn holds_what_the_failed_version_wrote(world: &World, payment: &str) {
    let file = exported_file(world);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&file).expect("the file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("text");
    println!("{text}");
    let updated: Vec<&str> = text.lines().filter(|line| line.starts_with("-- updated: ")).collect();
    assert_eq!(updated.len(), 10, "{text}");
    assert!(updated.iter().all(|line| line.ends_with("; 'half'")), "{text}");
    let changed = world.sql("SELECT id FROM payments ORDER BY seq LIMIT 10");
    for id in changed.lines() {
        assert!(updated.iter().any(|line| line.contains(id)), "{id} is not in {text}");
    }
    let inserts: Vec<&str> = text.lines().filter(|line| line.starts_with("  ('")).collect();
    assert_eq!(inserts.len(), 1, "{text}");
    assert!(inserts[0].contains(payment), "{payment} is not in {text}");

    let ask = format!("SELECT amount, written_by FROM payments WHERE id = '{payment}'");
    assert_eq!(world.sql(&ask), "", "the old version does not have it");
    for _ in 0..2 {
        println!("{}", load_exported(&file));
        assert_eq!(world.sql(&ask), "77.50000000|it's\\9.0.5");
    }
    let ledger =
        world.sql("SELECT count(*) FROM information_schema.columns WHERE column_name = 'ledger'");
    assert_eq!(ledger, "0", "the schema is the old one");
}

/// 1.9.6 serves with every payment it acknowledged; what the failed version wrote is kept.
fn comes_back_by_consent(world: &World) {
    wait_until("1.9.6 is healthy", END_LIMIT, || world.is_healthy().then_some(()));
    world.assert_sound("1.9.6", "recover --restore-database");
    let failed = world.failed_directories();
    let is_directory = |name: &&String| world.path("data/db").join(name).is_dir();
    let failed: Vec<&String> = failed.iter().filter(is_directory).collect();
    assert_eq!(failed.len(), 1, "the failed version's database is kept: {failed:?}");
    let kept = world.path("data/db").join(failed[0]).join("PG_VERSION");
    assert!(fs::exists(&kept).expect("it can be looked at"), "{}", kept.display());
    println!(
        "9.0.5 (migration-rows): 1.9.6 serves by consent, {:.1} s from its start, 0 lost",
        seconds_without_the_old(world)
    );
}

#[test]
fn a_version_that_starts_slowly_is_waited_for() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let (daemon, status) = upgrade(&world, &tag_of("slow"));
    assert_eq!(status["phase"], "VERIFIED", "{status:#}\n{}", daemon.log());
    world.assert_sound(&tag_of("slow"), "a slow start");
    println!("9.0.8 (slow): VERIFIED, downtime {} s, 0 lost", status["downtimeSeconds"]);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_version_that_ignores_sigterm_can_be_upgraded_from() {
    if !require("docker") {
        return;
    }
    let tag = tag_of("ignores-term");
    let world = World::build(&tag).rows(200).start();
    let _daemon = world.daemon();
    // By number it is a downgrade; its schema is the same.
    let run = world.cli(&["run", "--to", "2.0.0", "--force", "--yes"]);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    world.assert_sound("2.0.0", "upgraded from a version that ignores SIGTERM");
    assert!(world.upgrade_log().contains("was killed"), "{}", world.upgrade_log());
    println!("{tag} (ignores-term), upgraded from: VERIFIED, 0 lost");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
