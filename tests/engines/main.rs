//! The main flows on the engines of other Debians: Debian 13's Docker 26 and Debian unstable's
//! Docker 28, with their own image store and with containerd's. Each is unpacked by
//! `tests/engines/make` and runs in namespaces of its own (`tests/engines/start`).
//!
//! Debian 13's with its own store by default; all with `PAYRAM_TEST_FULL=1`.

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use support::builder::WorldBuilder;
use support::operator::{said, upgrade};
use support::other_engine::{Store, Suite, here, run};
use support::{Fixture, PrivateEngine, World, in_long_run, unusual};

/// From the request to the end of an upgrade that goes back.
const END_LIMIT: Duration = Duration::from_secs(300);

/// All flows, on an engine that has just started.
fn all_flows(engine: &PrivateEngine) {
    println!("{}", engine.docker(&["version", "--format", "engine {{.Server.Version}}"]));
    println!("{}", engine.docker(&["info", "--format", "{{.Driver}} {{.DriverStatus}}"]));
    is_upgraded(engine, World::build("1.9.6"));
    comes_back(engine);
    unusual::is_afterwards_what_it_was(Some(engine));
}

fn is_upgraded(engine: &PrivateEngine, shop: WorldBuilder) {
    let world = shop.on(engine).rows(300).start();
    let daemon = world.daemon();
    let run = upgrade(&world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}\n{}", said(&run), daemon.log());
    println!("{}", daemon.status()["message"]);
    world.assert_sound("1.9.7", "an upgrade");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// From a version that changed the schema: the database is put back, too.
fn comes_back(engine: &PrivateEngine) {
    let world = World::build("1.9.6").on(engine).rows(300).start();
    let daemon = world.daemon();
    world.begin_upgrade(Fixture::get().tag_of("migration-schema"));
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    println!("{}", status["message"]);
    assert!(!world.failed_directories().is_empty(), "what the failed version left is kept");
    world.assert_sound("1.9.6", "a way back");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn the_main_flows_on_debian_13s_docker_26() {
    if here(Suite::Trixie) {
        run(Suite::Trixie, Store::Classic, all_flows);
    }
}

#[test]
fn the_main_flows_on_debian_13s_docker_26_with_containerds_image_store() {
    if in_long_run() && here(Suite::Trixie) {
        run(Suite::Trixie, Store::Containerd, all_flows);
    }
}

#[test]
fn the_main_flows_on_debian_unstables_docker_28() {
    if in_long_run() && here(Suite::Sid) {
        run(Suite::Sid, Store::Classic, all_flows);
    }
}

#[test]
fn the_main_flows_on_debian_unstables_docker_28_with_containerds_image_store() {
    if in_long_run() && here(Suite::Sid) {
        run(Suite::Sid, Store::Containerd, all_flows);
    }
}

#[test]
fn postgresql_17_on_debian_unstables_docker_28() {
    if in_long_run() && here(Suite::Sid) {
        run(Suite::Sid, Store::Classic, |engine| {
            is_upgraded(engine, World::build("1.9.6").postgres_17().nested_mounts());
        });
    }
}
