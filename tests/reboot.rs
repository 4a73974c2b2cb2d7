//! The host loses power in the middle of an upgrade: engine, shims, containers and the daemon
//! die at once, on an engine of the test's own. Then everything is started again, in either
//! order. Nothing unproven starts by itself, no two containers run, and the upgrade ends.
//!
//! Some steps by default; all with `PAYRAM_TEST_FULL=1`, or those that `PAYRAM_TEST_STEPS` names.

mod support;

use payram_updater::machine::Step;
use serde_json::Value;
use support::outage::{self, engine, here};
use support::{Daemon, Outage, Point, PrivateEngine, World, chosen, named_steps};

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

/// Where the power goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: outage::Place,
    armed: Armed,
}

const fn forward(step: Step, armed: Armed) -> Place {
    Place { at: outage::Place::forward(step), armed }
}

/// Where the watch over the new version goes on.
const fn watched() -> Place {
    Place { at: outage::Place::watched(), armed: Armed::Next }
}

const fn early(step: Step) -> Place {
    Place { at: outage::Place::early(step), armed: Armed::Old }
}

const fn back(step: Step, target: &'static str, armed: Armed) -> Place {
    Place { at: outage::Place::back(step, target), armed }
}

/// Ids of the old container and of the new one as far as there is one.
fn running_ids(world: &World) -> Vec<Value> {
    let containers = world.containers().into_iter();
    containers
        .filter(|container| container["State"]["Running"] == true)
        .map(|container| container["Id"].clone())
        .collect()
}

fn start_all(engine: &mut PrivateEngine, outage: &Outage, first: First, place: Place) -> Daemon {
    let Outage { world, old, .. } = outage;
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
    let (outage, daemon) = Outage::prepare(engine, format!("reboot, {first:?} first"), place.at);
    outage.trap.arm(place.at.step, Point::of(place.at.step)[0]);
    outage.world.begin_upgrade(place.at.target);
    let is_hit = outage.trap.kill(daemon);
    engine.power_cut();
    assert!(is_hit, "{}: the step was missed", outage.account.name());

    let daemon = start_all(engine, &outage, first, place);

    outage.assert_ends(&daemon);
    outage.assert_never_two();
}

fn reboot_at_each(first: First, ordinary: &[Place], further: &[Place]) {
    if !here() {
        return;
    }
    let places = match named_steps() {
        Some(steps) => {
            let mut places = [ordinary, further].concat();
            places.retain(|place| steps.iter().any(|step| step == place.at.step.as_str()));
            places
        }
        None => chosen(ordinary, further),
    };
    if places.is_empty() {
        return;
    }
    let mut engine = engine();
    for place in places {
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
        watched(),
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
