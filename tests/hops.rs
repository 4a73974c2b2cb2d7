//! An upgrade over a breakpoint: two hops on a real engine, each with its own backup, downtime and
//! verdict. Killed in the second one it goes on there; where the second one's version is broken, the
//! shop serves the first one's.
//!
//! Some points of the second hop by default; all of its way forward with `PAYRAM_TEST_FULL=1`.

mod support;

use std::path::Path;
use std::time::Duration;

use payram_updater::machine::Step;
use serde_json::{Value, json};
use support::operator::said;
use support::trap::reader;
use support::{Account, Fixture, Point, Trap, World, chosen, in_long_run, require, wait_until};

/// From the request, or from a restart, to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(300);

/// A shop on 1.9.6 whose policy has a breakpoint at 1.9.8 on the way to this version.
fn shop(target: &str) -> World {
    let world = World::build("1.9.6").rows(300).setting("BACKUP_RETENTION", "9").start();
    world.write_policy(&json!({
        "schema_version": 1, "latest": target, "updater_api_init_version": "1.9.6",
        "releases": [target, "1.9.8", "1.9.6"],
        "breakpoints": [{"version": "1.9.8", "reason": "The index is built here."}],
    }));
    world
}

fn begin(world: &World, target: &str) {
    let args = ["run", "--to", target, "--mode", "dashboard", "--yes", "--detach"];
    let begun = world.cli(&args);
    assert_eq!(begun.status.code(), Some(0), "{}", said(&begun));
}

/// Data of the events of a kind and a status, the oldest first.
fn events(world: &World, kind: &str, status: &str) -> Vec<Value> {
    let history = world.cli(&["history", "--type", kind, "--status", status, "--json"]);
    let history: Value = serde_json::from_slice(&history.stdout).expect("JSON");
    let all = history["events"].as_array().expect("events").iter().rev();
    all.map(|event| event["data"].clone()).collect()
}

/// A row of the journal of the second hop.
fn second_hop_has(world: &World, kind: &str) -> bool {
    let Some(journal) = reader(&world.state_dir().join("journal.db")) else { return false };
    let sql = "SELECT count(*) FROM journal WHERE kind = ? AND hop = 2";
    journal.query_row(sql, [kind], |row| row.get::<_, i64>(0)).is_ok_and(|rows| rows > 0)
}

#[test]
fn over_a_breakpoint_each_hop_has_its_backup_its_downtime_and_its_verdict() {
    if !require("docker") {
        return;
    }
    let world = shop("2.0.0");
    let daemon = world.daemon();
    let plan = world.cli(&["dry-run", "--to", "2.0.0", "--mode", "dashboard", "--json"]);
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("JSON");
    let route = plan["route"].as_array().expect("a route");
    let versions: Vec<&Value> = route.iter().map(|hop| &hop["version"]).collect();
    assert_eq!(versions, ["1.9.8", "2.0.0"], "{plan:#}");

    let run = world.cli(&["run", "--to", "2.0.0", "--mode", "dashboard", "--yes"]);
    assert_eq!(run.status.code(), Some(0), "{}\n{}", said(&run), daemon.log());
    let text = said(&run);
    println!("{text}");
    let status = daemon.status();
    assert_eq!(status["hops"], json!(["1.9.8", "2.0.0"]), "{status:#}");
    assert_eq!(status["phase"], "VERIFIED", "{status:#}");

    let backups = events(&world, "backup", "succeeded");
    let ways: Vec<(&Value, &Value)> =
        backups.iter().map(|one| (&one["fromVersion"], &one["targetVersion"])).collect();
    assert_eq!(
        ways,
        [(&json!("1.9.6"), &json!("1.9.8")), (&json!("1.9.8"), &json!("2.0.0"))],
        "{backups:#?}"
    );
    for backup in &backups {
        let path = backup["backupPath"].as_str().expect("a path");
        assert!(Path::new(path).is_file(), "{path}");
    }

    // The downtime of each, and their sum.
    let each = status["hopDowntimes"].as_array().expect("a downtime for each hop");
    let seconds: Vec<f64> = each.iter().filter_map(Value::as_f64).collect();
    assert!(seconds.len() == 2 && seconds.iter().all(|one| *one > 0.0), "{status:#}");
    let sum = status["downtimeSeconds"].as_f64().expect("a sum");
    assert!((seconds.iter().sum::<f64>() - sum).abs() < 0.01, "{status:#}");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("Downtime")).collect();
    println!("downtime of each hop: {seconds:?}; {lines:?}");
    assert!(lines.iter().any(|line| line.contains("1.9.8") && line.contains("2.0.0")), "{text}");

    world.assert_sound("2.0.0", "two hops");
    let (_, twice) = world.addresses();
    assert_eq!(twice, Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn killed_in_the_second_hop_it_goes_on_there() {
    if !require("docker") {
        return;
    }
    let points = chosen(
        &[(Step::RestorePoint, Point::Unjournaled), (Step::StartNext, Point::Unanswered)],
        &[
            (Step::Pull, Point::Unanswered),
            (Step::CreateNext, Point::Unanswered),
            (Step::PreCopy, Point::Unjournaled),
            (Step::DisarmOld, Point::Unjournaled),
            (Step::Quiesce, Point::Unanswered),
            (Step::StopOld, Point::Unanswered),
            (Step::RenameOld, Point::Unanswered),
            (Step::RenameNext, Point::Unjournaled),
            (Step::Verify, Point::Unasked),
            (Step::ArmNext, Point::Unanswered),
        ],
    );
    for (step, point) in points {
        let world = shop("2.0.0");
        let trap = Trap::between(&world);
        let daemon = world.daemon();
        let account = Account::of(format!("kill -9, {point:?}"), format!("second hop, {step}"));
        begin(&world, "2.0.0");
        wait_until("the second hop begins", END_LIMIT, || {
            second_hop_has(&world, "hop").then_some(())
        });
        trap.arm(step, point);
        trap.kill(daemon);
        let daemon = world.daemon();
        let status = daemon.wait_settled(END_LIMIT);
        assert_eq!(status["phase"], "VERIFIED", "{step} {point:?}: {status:#}\n{}", daemon.log());
        assert_eq!(events(&world, "backup", "succeeded").len(), 2, "{step} {point:?}");
        world.assert_sound("2.0.0", &account.name());
        assert_eq!(world.two_at_once(), Vec::<String>::new());
        account.close(&world, &status, "goes on in the second hop");
    }
}

#[test]
fn a_broken_second_hop_leaves_the_first_ones_version_serving() {
    if !in_long_run() || !require("docker") {
        return;
    }
    for behaviour in chosen(&["migration-schema"], &["health-500", "exits-at-start"]) {
        let target = Fixture::get().tag_of(behaviour);
        let world = shop(target);
        let daemon = world.daemon();
        let account = Account::of(behaviour, "the second hop");
        let run = world.cli(&["run", "--to", target, "--mode", "dashboard", "--yes"]);
        assert_eq!(run.status.code(), Some(4), "{}\n{}", said(&run), daemon.log());
        println!("{}", said(&run));
        let status = daemon.status();
        assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}");
        let message = status["message"].as_str().expect("a message");
        assert!(message.contains("1.9.8"), "it says which version serves: {message}");
        assert_eq!(status["servingVersion"], "1.9.8", "{status:#}");
        world.assert_sound("1.9.8", behaviour);
        assert_eq!(world.two_at_once(), Vec::<String>::new());
        account.close(&world, &status, "1.9.8 serves");
    }
}
