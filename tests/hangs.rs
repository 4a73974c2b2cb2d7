//! What does not stop when it is asked to, and what stands still for a minute: versions that
//! ignore SIGTERM, and a daemon that is frozen.

mod support;

use std::time::Duration;

use payram_updater::machine::Step;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::sound::load_exported;
use support::{Account, Daemon, Point, Trap, World, in_long_run, is_full, require};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);

fn ends(daemon: &Daemon, phase: &str) -> Value {
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], phase, "{status:#}\n{}", daemon.log());
    status
}

/// A downgrade, or something that the policy does not know: in manual mode it needs --force.
fn force(world: &World, version: &str) {
    let begun = world.cli(&["run", "--to", version, "--force", "--yes", "--detach"]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
}

#[test]
fn an_old_version_that_ignores_term_gets_its_own_grace_and_its_killed_database_is_taken_over() {
    if !require("docker") {
        return;
    }
    let world = World::build("9.0.9").run_args(["--stop-timeout", "4"]).rows(500).start();
    let daemon = world.daemon();
    let account = Account::of("old version ignores TERM", "stop_old to 2.0.0");
    force(&world, "2.0.0");
    let status = ends(&daemon, "VERIFIED");
    let log = world.upgrade_log();
    assert!(log.contains("did not stop in its grace period and was killed"), "{log}");
    assert!(log.contains("postmaster.pid was left behind"), "{log}");
    world.assert_sound("2.0.0", &account.name());
    account.close(&world, &status, "killed after its grace; 2.0.0 serves");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn an_old_version_that_ignores_term_serves_again_with_what_its_killed_database_held() {
    if !require("docker") || !in_long_run() {
        return;
    }
    let world = World::build("9.0.9").run_args(["--stop-timeout", "4"]).rows(500).start();
    let old = world.container().expect("a container")["Id"].clone();
    let daemon = world.daemon();
    // It never starts its database: the directory is as the killed server left it.
    let account = Account::of("old version ignores TERM", "stop_old to 9.0.2");
    force(&world, "9.0.2");
    let status = ends(&daemon, "ROLLED_BACK");
    world.assert_sound("9.0.9", &account.name());
    account.close(&world, &status, "9.0.9 serves again");

    // It starts its database, which recovers: the counters are no evidence any more, so the
    // restore point, a killed server's directory, waits for a person's word.
    let account = Account::of("old version ignores TERM", "stop_old to 9.0.4");
    force(&world, "9.0.4");
    let status = ends(&daemon, "NEEDS_OPERATOR");
    assert_eq!(status["failureCode"], "MIGRATION_FAILED", "{status:#}");
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{recovered:?}\n{}", daemon.log());
    let status = ends(&daemon, "ROLLED_BACK");
    world.assert_sound("9.0.9", &account.name());
    assert_eq!(world.container().expect("a container")["Id"], old, "the old container");
    account.close(&world, &status, "operator; 9.0.9 serves again with its restore point");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_new_version_that_ignores_term_is_killed_on_the_way_back_and_the_old_one_serves() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let trap = Trap::between(&world);
    let old = world.container().expect("a container")["Id"].clone();
    let daemon = world.daemon();
    let account = Account::of("new version ignores TERM", "stop_next, called off");
    // Called off before it answers, and before its migration: nothing of it is kept.
    trap.arm_patiently(Step::Verify, Point::Unasked);
    world.begin_upgrade("9.0.9");
    trap.meanwhile(&daemon, || {
        let called = world.cli(&["cancel", "--yes"]);
        assert_eq!(called.status.code(), Some(0), "{called:?}");
    });
    let status = daemon.wait_settled(END_LIMIT);
    // How far its database and its migration came is a matter of milliseconds. A server that is
    // killed forgets its counters, so that there may be no evidence left that nothing was lost.
    let needed_consent = status["phase"] == "NEEDS_OPERATOR";
    if needed_consent {
        let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
        assert_eq!(recovered.status.code(), Some(0), "{recovered:?}\n{}", daemon.log());
    }
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], "CANCELLED", "{status:#}");
    let log = world.upgrade_log();
    assert!(log.contains("did not stop in its grace period and was killed"), "{log}");
    assert_eq!(world.container().expect("a container")["Id"], old, "the old container");
    if needed_consent {
        // It may have taken payments before it was silenced: they are in the file.
        load_exported(status["exportPath"].as_str().expect("a file of its rows"));
    }
    world.assert_sound("1.9.6", &account.name());
    account.close(&world, &status, "killed after its grace; 1.9.6 serves again");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// How long the daemon stands still: a minute in the full run.
fn frozen_for() -> Duration {
    Duration::from_secs(if is_full() { 60 } else { 15 })
}

/// The daemon is frozen when it is at the step, and woken again.
fn freeze_at(step: Step, target: &str, phase: &str) {
    let world = World::build("1.9.6").rows(200).start();
    let trap = Trap::between(&world);
    let daemon = world.daemon();
    let account = Account::of(format!("daemon frozen for {:?}", frozen_for()), step.to_string());
    trap.arm_patiently(step, Point::Unasked);
    world.begin_upgrade(target);
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a process id")).expect("not 0");
    let send = |signal| kill_process(pid, signal).expect("a signal is sent");
    trap.meanwhile(&daemon, || send(Signal::STOP));
    // The fault itself, not a wait for something.
    std::thread::sleep(frozen_for());
    send(Signal::CONT);
    let status = ends(&daemon, phase);
    let version = if phase == "VERIFIED" { target } else { "1.9.6" };
    world.assert_sound(version, &account.name());
    account.close(&world, &status, &format!("{version} serves"));
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_daemon_that_stands_still_while_it_verifies_ends_verified() {
    if require("docker") {
        freeze_at(Step::Verify, "1.9.7", "VERIFIED");
    }
}

#[test]
fn a_daemon_that_stands_still_before_the_swap_ends_verified() {
    if require("docker") && in_long_run() {
        freeze_at(Step::PreCopy, "1.9.7", "VERIFIED");
        freeze_at(Step::StopOld, "1.9.7", "VERIFIED");
    }
}

#[test]
fn a_daemon_that_stands_still_on_the_way_back_ends_where_it_was() {
    if require("docker") && in_long_run() {
        freeze_at(Step::StartOld, "9.0.2", "ROLLED_BACK");
        freeze_at(Step::VerifyOld, "9.0.4", "ROLLED_BACK");
    }
}
