//! The host loses power in the middle of an upgrade: engine, shims, containers and the daemon
//! die at once, on an engine of the test's own. Then everything is started again, in either
//! order. Nothing unproven starts by itself, no two containers run, and the upgrade ends.

mod support;

use std::time::Duration;

use payram_updater::machine::Step;
use serde_json::Value;
use support::{Account, Daemon, Point, PrivateEngine, Trap, World, is_full, require};

/// From the restart to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(300);
/// The versions that these worlds go to.
const TAGS: [&str; 4] = ["1.9.6", "1.9.7", "9.0.2", "9.0.4"];

/// What is started first when the power is back.
#[derive(Clone, Copy, Debug)]
enum First {
    Engine,
    Daemon,
}

/// Which container the engine may start by itself when the power is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    Old,
    Next,
    None,
}

/// Where the power goes, and how the upgrade may end then.
#[derive(Clone, Copy, Debug)]
struct Place {
    step: Step,
    target: &'static str,
    armed: Armed,
    ends: &'static [&'static str],
}

/// A step that is tried again while the old version's database only just starts is given up.
const EITHER: &[&str] = &["VERIFIED", "ROLLED_BACK"];

const fn forward(step: Step, armed: Armed) -> Place {
    Place { step, target: "1.9.7", armed, ends: &["VERIFIED"] }
}

/// Before the old container is disarmed it comes back with its engine.
const fn early(step: Step) -> Place {
    Place { step, target: "1.9.7", armed: Armed::Old, ends: EITHER }
}

const fn back(step: Step, target: &'static str, armed: Armed) -> Place {
    Place { step, target, armed, ends: &["ROLLED_BACK"] }
}

/// Ids of the old container and of the new one as far as there is one.
fn running_ids(world: &World) -> Vec<Value> {
    let containers = world.containers().into_iter();
    containers
        .filter(|container| container["State"]["Running"] == true)
        .map(|container| container["Id"].clone())
        .collect()
}

fn start_all(
    engine: &mut PrivateEngine,
    world: &World,
    first: First,
    old: &Value,
    place: Place,
) -> Daemon {
    match first {
        First::Daemon => {
            let mut daemon = world.spawn_daemon();
            engine.start_again();
            daemon.wait_ready();
            daemon
        }
        First::Engine => {
            engine.start_again();
            // What the engine starts by itself it has started when it answers.
            let running = running_ids(world);
            match place.armed {
                Armed::None => assert_eq!(running, Vec::<Value>::new(), "{place:?}"),
                Armed::Old => assert_eq!(running, std::slice::from_ref(old), "{place:?}"),
                Armed::Next => {
                    assert_eq!(running.len(), 1, "{place:?}: {running:?}");
                    assert_ne!(running[0], *old, "{place:?}");
                }
            }
            world.daemon()
        }
    }
}

fn reboot_at(engine: &mut PrivateEngine, first: First, place: Place) {
    let world = World::build("1.9.6").on(engine).rows(200).start();
    let old = world.container().expect("a container")["Id"].clone();
    let trap = Trap::between(&world);
    let daemon = world.daemon();
    let way = format!("{} to {}", place.step, place.target);
    let account = Account::of(format!("reboot, {first:?} first"), way);
    trap.arm(place.step, Point::of(place.step)[0]);
    world.begin_upgrade(place.target);
    let is_hit = trap.kill(daemon);
    engine.power_cut();
    let name = account.name();
    assert!(is_hit, "{name}: the step was missed");

    let daemon = start_all(engine, &world, first, &old, place);

    let status = daemon.wait_settled(END_LIMIT);
    let phase = status["phase"].as_str().unwrap_or_default();
    assert!(place.ends.contains(&phase), "{name}: {status:#}\n{}", daemon.log());
    let version = if phase == "VERIFIED" { place.target } else { "1.9.6" };
    // An upgrade that was given up before it stopped anything has not waited for that either.
    world.wait_healthy();
    world.assert_sound(version, &name);
    if phase == "ROLLED_BACK" {
        assert_eq!(world.container().expect("a container")["Id"], old, "{name}: the old one");
    }
    account.close(&world, &status, &format!("{version} serves"));
    assert_eq!(world.two_at_once(), Vec::<String>::new(), "{name}");
}

fn reboot_at_each(first: First, ordinary: &[Place], further: &[Place]) {
    if !(require("docker") && require("dockerd") && require("root")) {
        return;
    }
    let mut engine = PrivateEngine::start(&TAGS);
    let further = if is_full() { further } else { &[] };
    for place in [ordinary, further].concat() {
        reboot_at(&mut engine, first, place);
    }
}

#[test]
fn a_host_that_loses_power_on_the_way_forward_starts_nothing_unproven_and_ends_the_upgrade() {
    let ordinary = [forward(Step::Verify, Armed::None)];
    let further = [
        early(Step::PreCopy),
        forward(Step::Quiesce, Armed::None),
        forward(Step::StopOld, Armed::None),
        forward(Step::RestorePoint, Armed::None),
        forward(Step::RenameNext, Armed::None),
        forward(Step::StartNext, Armed::None),
        forward(Step::ArmNext, Armed::None),
        forward(Step::Tidy, Armed::Next),
    ];
    reboot_at_each(First::Engine, &ordinary, &further);
}

#[test]
fn a_host_that_loses_power_on_the_way_back_starts_nothing_unproven_and_ends_where_it_was() {
    let ordinary = [back(Step::StartOld, "9.0.2", Armed::None)];
    let further = [
        back(Step::AssessDatabase, "9.0.2", Armed::None),
        back(Step::StopNext, "9.0.2", Armed::None),
        back(Step::RestoreOldName, "9.0.2", Armed::None),
        back(Step::VerifyOld, "9.0.2", Armed::Old),
        back(Step::RemoveNext, "9.0.2", Armed::Old),
        back(Step::RestoreDatabase, "9.0.4", Armed::None),
        back(Step::VerifyOld, "9.0.4", Armed::Old),
    ];
    reboot_at_each(First::Engine, &ordinary, &further);
}

#[test]
fn a_daemon_that_is_back_before_its_engine_waits_for_it_and_ends_the_upgrade() {
    let ordinary = [forward(Step::StartNext, Armed::None)];
    let further = [
        early(Step::BackUp),
        early(Step::CreateNext),
        forward(Step::StopOld, Armed::None),
        forward(Step::Verify, Armed::None),
        forward(Step::ArmNext, Armed::None),
        back(Step::AssessDatabase, "9.0.2", Armed::None),
        back(Step::StartOld, "9.0.4", Armed::None),
        back(Step::VerifyOld, "9.0.4", Armed::Old),
    ];
    reboot_at_each(First::Daemon, &ordinary, &further);
}
