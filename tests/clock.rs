//! The host's wall clock is set back, or forward, in the middle of an upgrade. What waits goes
//! by another clock, what is ordered goes by the journal's numbers, and the downtime is what a
//! stopwatch would say.

mod support;

use std::time::{Duration, Instant};

use payram_updater::machine::Step;
use serde_json::Value;
use support::clock::Clock;
use support::{Account, Daemon, Point, Trap, World, in_long_run, is_full, require, wait_until};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(240);

fn here() -> bool {
    require("docker") && require("faketime")
}

/// A daemon that lives by a clock of its own.
fn daemon_with(world: &World, clock: &Clock) -> Daemon {
    let mut command = world.updater(&["serve"]);
    clock.rule(&mut command);
    let mut daemon = Daemon::spawn(command, world.updater_port, &world.path("daemon.log"));
    daemon.wait_ready();
    daemon
}

/// Every row of the journal.
fn rows(world: &World) -> Vec<Value> {
    let exported = world.cli(&["journal", "export"]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let text = String::from_utf8_lossy(&exported.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The clock is set when the upgrade is at each of these steps.
fn upgrade_while_set(steps: &[(Step, &str)], target: &str, phase: &str) {
    let world = World::build("1.9.6").rows(200).start();
    let trap = Trap::between(&world);
    let clock = Clock::of(&world);
    let daemon = daemon_with(&world, &clock);
    let way: Vec<String> = steps.iter().map(|(step, set)| format!("{set} at {step}")).collect();
    let account = Account::of(format!("clock set: {}", way.join(", ")), format!("to {target}"));
    let name = account.name();
    let began = Instant::now();
    trap.arm_patiently(steps[0].0, Point::Unasked);
    let job = world.begin_upgrade(target);
    for (index, (_, offset)) in steps.iter().enumerate() {
        trap.meanwhile_then(&daemon, || clock.set(offset), steps.get(index + 1).map(|next| next.0));
    }
    let status = daemon.wait_settled(END_LIMIT);
    let took = began.elapsed();
    assert_eq!(status["phase"], phase, "{name}: {status:#}\n{}", daemon.log());
    let version = if phase == "VERIFIED" { target } else { "1.9.6" };
    world.assert_sound(version, &name);

    let downtime = status["downtimeSeconds"].as_f64().expect("a downtime");
    assert!(downtime > 0.2 && downtime < took.as_secs_f64(), "{name}: {downtime} s of {took:?}");
    let history = daemon.get("/history?type=upgrade").json();
    let statuses: Vec<&Value> = history["events"].as_array().expect("events").iter().collect();
    let newest_first: Vec<&str> =
        statuses.iter().filter_map(|event| event["status"].as_str()).collect();
    let end = if phase == "VERIFIED" { "succeeded" } else { "rolled_back" };
    assert_eq!(newest_first, [end, "started"], "{name}: {history:#}");
    let numbers: Vec<i64> = rows(&world).iter().filter_map(|row| row["seq"].as_i64()).collect();
    let in_order: Vec<i64> = (1..=numbers.len() as i64).collect();
    assert_eq!(numbers, in_order, "{name}");
    account.close(&world, &status, &format!("{version} serves, downtime {downtime:.1} s"));

    // The next one, with the clock where it is now.
    let next = if phase == "VERIFIED" { "1.9.8" } else { "1.9.7" };
    let second = world.begin_upgrade(next);
    wait_until("the second upgrade is the last job", END_LIMIT, || {
        (daemon.status()["jobId"] == second.as_str()).then_some(())
    });
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!((&status["phase"], &status["jobId"]), (&"VERIFIED".into(), &second.clone().into()));
    assert!(second > job, "{name}: {second} sorts after {job}");
    world.assert_sound(next, &name);
    let kept = world.files_below("backups");
    let named = status["backupPath"].as_str().expect("a backup");
    assert!(kept.iter().any(|(path, ..)| path.display().to_string() == named), "{kept:?}");

    // Killed and started again with the right time: the lock and the jobs are not confused.
    daemon.kill();
    clock.set("+0");
    let daemon = daemon_with(&world, &clock);
    assert_eq!(daemon.status()["jobId"], second.as_str(), "{name}");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_clock_that_is_set_back_in_mid_upgrade_confuses_nothing() {
    if !here() {
        return;
    }
    upgrade_while_set(&[(Step::StopOld, "-2h")], "1.9.7", "VERIFIED");
    if is_full() {
        upgrade_while_set(&[(Step::BackUp, "-400d")], "1.9.7", "VERIFIED");
        upgrade_while_set(&[(Step::Verify, "-2h")], "1.9.7", "VERIFIED");
        upgrade_while_set(&[(Step::StartOld, "-2h")], "9.0.2", "ROLLED_BACK");
    }
}

#[test]
fn a_clock_that_is_set_forward_in_mid_upgrade_confuses_nothing() {
    if !here() || !in_long_run() {
        return;
    }
    upgrade_while_set(&[(Step::Verify, "+3h")], "1.9.7", "VERIFIED");
    upgrade_while_set(&[(Step::StopOld, "+1d"), (Step::Verify, "-1d")], "1.9.7", "VERIFIED");
    upgrade_while_set(&[(Step::VerifyOld, "+3h")], "9.0.2", "ROLLED_BACK");
}
