//! `recover --keep-new` on a real engine: a person goes on with a version that had failed, on the
//! database that it left, or, when it fails again, goes back after all.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::builder::WorldBuilder;
use support::operator::{assert_parts, said};
use support::{Daemon, Fixture, World, require};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);

/// Stopped for a person, because one always wants to be asked.
fn asked(builder: WorldBuilder, behaviour: &str) -> (World, Daemon) {
    let world = builder.rows(200).setting("ROLLBACK_DATABASE", "manual").start();
    let daemon = world.daemon();
    world.begin_upgrade(Fixture::get().tag_of(behaviour));
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    (world, daemon)
}

/// `recover --yes` with these; its exit code and what it said.
fn recover(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let ran = world.cli(&[&["recover", "--yes"], arguments].concat());
    println!("recover {arguments:?}: {:?}\n{}", ran.status.code(), said(&ran));
    (ran.status.code(), said(&ran))
}

fn state(world: &World) -> Value {
    world.container().expect("the shop's container")["State"].clone()
}

#[test]
fn a_version_that_only_needed_longer_is_kept_and_verified() {
    if !require("docker") {
        return;
    }
    let builder = World::build("1.9.6").nested_mounts().postgres_17();
    let (world, daemon) = asked(builder.setting("START_TIMEOUT_SECONDS", "5"), "slow");
    drop(daemon);
    world.set("START_TIMEOUT_SECONDS", "120");
    let daemon = world.daemon();
    let (exit, text) = recover(&world, &["--keep-new"]);
    assert_eq!(exit, Some(0), "{text}\n{}", daemon.log());
    assert_eq!(daemon.status()["phase"], "VERIFIED");
    world.assert_sound(Fixture::get().tag_of("slow"), "a version that was kept");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_version_that_fails_again_is_left_as_it_is_and_one_can_go_back_after_all() {
    if !require("docker") {
        return;
    }
    let builder = World::build("1.9.6").env("PAYRAM_SUPERVISOR", "off").impatient();
    let (world, daemon) = asked(builder, "health-500-writes");
    let (exit, text) = recover(&world, &["--keep-new"]);
    assert_eq!(exit, Some(5), "{text}\n{}", daemon.log());
    let status = daemon.status();
    let message = status["message"].as_str().unwrap_or_default();
    assert_parts(message, &["kept by you, failed again and is left as it is"]);
    let kept = state(&world);
    assert_eq!(kept["Running"], true);
    let (exit, text) = recover(&world, &["--keep-new"]);
    assert_eq!(exit, Some(5), "{text}");
    assert_eq!(state(&world)["StartedAt"], kept["StartedAt"], "what answers is not stopped");
    let status = daemon.status();
    let message = status["message"].as_str().unwrap_or_default();
    assert!(!message.contains("is not started"), "it passed its gate again or did not: {message}");
    let (exit, text) = recover(&world, &["--restore-database"]);
    assert_eq!(exit, Some(5), "{text}");
    assert_parts(&text, &["it is not stopped"]);
    world.docker(&["stop", &world.name]);
    let (exit, text) = recover(&world, &["--restore-database"]);
    assert_eq!(exit, Some(0), "{text}\n{}", daemon.log());
    assert_eq!(daemon.status()["phase"], "ROLLED_BACK");
    world.wait_healthy();
    assert_eq!(world.version().as_deref(), Some("1.9.6"));
    let (_, twice) = world.addresses();
    assert_eq!(twice, Vec::<String>::new(), "handed out twice");
    // What the failed version took was consented to, and is kept aside.
    let of_the_old = "\"written_by\":\"1.9.6\"";
    let lost: Vec<String> =
        world.payments_lost().into_iter().filter(|one| one.contains(of_the_old)).collect();
    assert_eq!(lost, Vec::<String>::new());
    assert!(!world.failed_directories().is_empty(), "it is nowhere");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
