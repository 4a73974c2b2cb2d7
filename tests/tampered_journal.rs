//! A journal that somebody changed behind the product's back is not believed: `journal verify`
//! names the first row that does not hold.

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use support::{World, require};

#[test]
fn a_row_that_was_changed_by_one_byte_is_named_by_journal_verify() {
    if !require("docker") {
        return;
    }
    // A journal of a real job: one that ends soon, because the engine creates no such container.
    let world = World::start("1.9.6");
    let daemon = world.daemon();
    let run = world.cli(&["run", "--to", "9.0.10", "--yes"]);
    assert_eq!(run.status.code(), Some(4), "{run:?}");
    daemon.wait_settled(Duration::from_secs(60));
    assert!(daemon.terminate().success());

    let sound = verify(&world);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let rows: i64 = sqlite(&world, "SELECT count(*) FROM journal").parse().expect("a count");
    assert_eq!(verdict(&sound)["rows"], rows);
    let target =
        sqlite(&world, "SELECT seq FROM journal WHERE kind = 'outcome' AND name = 'back_up'");

    // The triggers stop an honest mistake; whoever means it drops them first.
    let refused = try_sqlite(&world, &flip(&target));
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("append-only"), "{refused:?}");
    assert_eq!(verify(&world).status.code(), Some(0));
    sqlite(&world, "DROP TRIGGER journal_is_append_only_update");
    sqlite(&world, &flip(&target));

    let broken = verify(&world);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    let found = verdict(&broken);
    assert_eq!(found["ok"], false, "{found}");
    assert_eq!(found["seq"].to_string(), target, "{found}");
    assert!(found["reason"].as_str().is_some_and(|reason| reason.contains("hash")), "{found}");
    let told = world.cli(&["journal", "verify"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).contains(&target), "{told:?}");
}

#[test]
fn a_row_that_was_taken_out_is_missed_by_journal_verify() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let daemon = world.daemon();
    let plan = daemon.post("/upgrade/run", &json!({"requestedTarget": "1.9.99"}));
    assert_eq!(plan.json()["failureCode"], "VERSION_NOT_IN_POLICY", "{}", plan.body);
    let run = world.cli(&["run", "--to", "9.0.10", "--yes"]);
    assert_eq!(run.status.code(), Some(4), "{run:?}");
    assert!(daemon.terminate().success());

    let target = sqlite(&world, "SELECT seq FROM journal WHERE kind = 'transition' LIMIT 1");
    sqlite(&world, "DROP TRIGGER journal_is_append_only_delete");
    sqlite(&world, &format!("DELETE FROM journal WHERE seq = {target}"));

    let broken = verify(&world);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    let next = target.parse::<i64>().expect("a row") + 1;
    let named = verdict(&broken)["seq"].as_i64().expect("a row");
    assert!(named.to_string() == target || named == next, "{broken:?}");
}

/// Changes one byte of a row's content, to another letter.
fn flip(seq: &str) -> String {
    format!(
        "UPDATE journal SET body = CASE WHEN substr(body, 12, 1) = 'x'
             THEN substr(body, 1, 11) || 'y' || substr(body, 13)
             ELSE substr(body, 1, 11) || 'x' || substr(body, 13) END WHERE seq = {seq}"
    )
}

fn verify(world: &World) -> Output {
    world.cli(&["journal", "verify", "--json"])
}

fn verdict(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What the sqlite3 command prints, trimmed.
fn sqlite(world: &World, sql: &str) -> String {
    let output = try_sqlite(world, sql);
    assert!(output.status.success(), "{sql}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn try_sqlite(world: &World, sql: &str) -> Output {
    let journal = world.state_dir().join("journal.db");
    Command::new("sqlite3").arg(journal).arg(sql).output().expect("sqlite3 is installed")
}
