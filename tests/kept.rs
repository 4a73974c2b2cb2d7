//! What is kept of a failed version and of the time before it, on a real engine with a real
//! database: the copy of the database, whatever the version does to owners and modes, and the
//! rows that it wrote, whatever bytes are in them.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use support::operator;
use support::sound::load_exported;
use support::{Daemon, Fixture, World, require, wait_until};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(240);

fn tag_of(behaviour: &str) -> String {
    let tags = Fixture::get().tags();
    let found = tags.iter().find(|tag| tag.behaviour == behaviour);
    found.unwrap_or_else(|| panic!("tags.tsv has no {behaviour}")).tag.clone()
}

fn upgrade(world: &World, daemon: &Daemon, version: &str) -> Value {
    world.begin_upgrade(version);
    daemon.wait_settled(END_LIMIT)
}

fn said(output: &std::process::Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Where the log of the last upgrade says that the copy was made.
fn copy_of(world: &World) -> PathBuf {
    let log = world.upgrade_log();
    let (_, rest) = log.split_once(" bytes copied to ").unwrap_or_else(|| panic!("{log}"));
    let (path, _) = rest.split_once(" while the application serves").expect("a sentence");
    PathBuf::from(path)
}

/// The version gave all that it found to another owner and was never healthy: the old one serves
/// again by itself, on the copy, with every payment.
fn the_copy_comes_back(world: &World, daemon: &Daemon) {
    let before = world.container().expect("a container")["Id"].clone();
    let owner = fs::metadata(world.path("data/db/postgres")).expect("the database").uid();
    let key_store = world.path("data/keystore.json");
    let owner_beside = fs::metadata(&key_store).expect("a file").uid();
    let status = upgrade(world, daemon, &tag_of("chown"));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    world.assert_sound("1.9.6", "an entry point that changed owners");
    assert_eq!(world.container().expect("a container")["Id"], before, "it was never removed");
    let failed = world.failed_directories();
    assert_eq!(failed.len(), 1, "the failed version's database is kept: {failed:?}");
    let columns = world.sql(
        "SELECT column_name FROM information_schema.columns
         WHERE table_name = 'payments' ORDER BY 1",
    );
    assert_eq!(columns, "amount\ncreated_at\nid\nseq\nwritten_by", "the old schema");
    let home = world.path("data/db/postgres");
    for path in [home.clone(), home.join("PG_VERSION"), home.join("base")] {
        assert_eq!(fs::metadata(&path).expect("it").uid(), owner, "{}", path.display());
    }
    // Beside the database, too; that the version did what it does is told.
    assert_eq!(fs::metadata(&key_store).expect("it").uid(), owner_beside);
    let message = status["message"].as_str().unwrap_or_default();
    println!("{message}");
    assert!(message.contains("owner or mode of "), "{message}");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// A running 1.9.6 with payments, and an updater with little patience.
fn builder() -> support::builder::WorldBuilder {
    World::build("1.9.6")
        .rows(200)
        .setting("HEALTH_TIMEOUT_SECONDS", "5")
        .setting("START_TIMEOUT_SECONDS", "60")
}

#[test]
fn a_version_that_changes_the_owner_of_all_that_it_mounts_does_not_reach_the_copy() {
    if !require("docker") {
        return;
    }
    // As PayRam's own command mounts it: what holds the database's directory is mounted too.
    let world = builder().nested_mounts().start();
    let daemon = world.daemon();
    the_copy_comes_back(&world, &daemon);
    let copy = copy_of(&world);
    assert_eq!(copy.parent(), Some(world.path("").as_path()), "above the mount");
    let log = world.upgrade_log();
    assert!(!log.contains("than was noted: put right"), "{log}");
}

#[test]
fn a_copy_whose_owner_a_version_changed_is_proved_by_its_contents_and_put_right() {
    if !require("docker") {
        return;
    }
    // No place is outside of this one.
    let world = builder().run_args(["--volume", "/:/host:ro"]).start();
    let daemon = world.daemon();
    let (_, plan) = operator::plan(&world, &tag_of("chown"));
    let notes = plan["notes"].to_string();
    assert!(notes.contains("reaches through its mount of /"), "{plan:#}");
    the_copy_comes_back(&world, &daemon);
    let copy = copy_of(&world);
    assert_eq!(copy.parent(), Some(world.path("data/db").as_path()), "beside the database");
    let log = world.upgrade_log();
    assert!(log.contains("than was noted: put right"), "{log}");
}

const BYTES: &str = "(gen_random_uuid(), 77.5, E'\\xff\\xe4\\xfe a \\x80 b\\xc3')";

/// The contents in their order, byte for byte.
const CHECKSUM: &str = "SELECT count(*), md5(string_agg(concat_ws(' ', id, amount, seq, created_at,
        written_by), E'\\n' ORDER BY id)) FROM payments WHERE amount = 77.5";

#[test]
fn rows_with_bytes_of_no_encoding_are_exported_and_loaded_as_they_are() {
    if !require("docker") {
        return;
    }
    let world = builder().env("PAYRAM_ENCODING", "SQL_ASCII").start();
    world.sql(&format!("INSERT INTO payments (id, amount, written_by) VALUES {BYTES}"));
    world.sql("UPDATE payments SET amount = 78.5 WHERE amount = 77.5");
    let daemon = world.daemon();
    let status = upgrade(&world, &daemon, &tag_of("migration-rows"));
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    let log = world.upgrade_log();
    assert!(log.contains("the backup was restored and compared"), "the backup is proved: {log}");

    world.docker(&["start", &world.name]);
    wait_until("the failed version's database answers", END_LIMIT, || {
        let rows = [BYTES; 3].join(", ");
        world.try_sql(&format!("INSERT INTO payments (id, amount, written_by) VALUES {rows}")).ok()
    });
    let written = world.sql(CHECKSUM);
    world.docker(&["stop", "--time", "60", &world.name]);
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    wait_until("1.9.6 is healthy", END_LIMIT, || world.is_healthy().then_some(()));
    let status = daemon.status();
    let message = status["message"].as_str().unwrap_or_default();
    println!("{message}");
    assert!(message.contains(": 3 can be loaded, 10 are in comments ("), "{message}");
    assert!(message.contains("its rows are exported to "), "{message}");

    assert!(world.sql(CHECKSUM).starts_with("0|"), "the old version does not have them");
    let file = status["exportPath"].as_str().expect("a file");
    assert_eq!(status["rowsSetAside"], 13, "{status:#}");

    // What is set aside stays a finding until somebody has dealt with it.
    let report = operator::inspection(&world);
    assert_eq!(report["overallState"], "DEGRADED", "{report:#}");
    let found = report["checks"]["rows"]["message"].as_str().unwrap_or_default();
    println!("inspect: {found}");
    assert!(
        found.starts_with("13 rows that 9.0.5 wrote are not in the shop's database"),
        "{found}"
    );
    let advice = report["recommendations"].as_array().expect("some").iter();
    let mut advice = advice.filter(|one| one["action"] == "load_rows");
    let advice =
        advice.next().expect("what to do")["description"].as_str().expect("text").to_owned();
    println!("advice: {advice}");
    println!("{}", load_exported(file));
    assert_eq!(world.sql(CHECKSUM), written);
    assert!(written.starts_with("3|"), "{written}");
    let job = status["jobId"].as_str().expect("an id");
    let dismissal = format!("payram-updater recover --dismiss-rows {job}");
    assert!(advice.ends_with(&dismissal), "{advice}");
    let asked = world.cli(&["recover", "--dismiss-rows", job]);
    println!("{}", said(&asked));
    assert_eq!(operator::inspection(&world)["overallState"], "DEGRADED", "not without --yes");
    for _ in 0..2 {
        let dismissed = world.cli(&["recover", "--dismiss-rows", job, "--yes"]);
        assert_eq!(dismissed.status.code(), Some(0), "{}", said(&dismissed));
    }
    let report = operator::inspection(&world);
    assert_ne!(report["checks"]["rows"]["status"], "WARNING", "{report:#}");
    let unknown = world.cli(&["recover", "--dismiss-rows", "job-0", "--yes"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(fs::exists(file).expect("it can be looked for"), "the file stays");
    world.assert_sound("1.9.6", "rows of no encoding came back");
}
