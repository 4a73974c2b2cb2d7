//! The container engine is restarted, or dies, in the middle of an upgrade, on an engine of the
//! test's own. The daemon waits for it, looks again and ends as it would have, or where it was.

mod support;

use std::time::Duration;

use payram_updater::machine::Step;
use serde_json::Value;
use support::{Account, Daemon, Point, PrivateEngine, Trap, World, is_full, require};

/// From the engine's return to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(300);
/// The versions that these worlds go to.
const TAGS: [&str; 4] = ["1.9.6", "1.9.7", "9.0.2", "9.0.4"];

/// What befalls the engine.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// `systemctl restart docker`
    Restarted,
    /// SIGKILL of dockerd, and started again.
    Killed,
}

fn lose(engine: &mut PrivateEngine, loss: Loss) {
    match loss {
        Loss::Restarted => engine.stop(),
        Loss::Killed => engine.kill(),
    }
    engine.start_again();
}

/// A place where the engine is lost, and how the upgrade may end then.
#[derive(Clone, Copy, Debug)]
struct Place {
    step: Step,
    target: &'static str,
    ends: &'static [&'static str],
}

/// A step that is tried again while the old version's database only just starts is given up.
const EITHER: &[&str] = &["VERIFIED", "ROLLED_BACK"];

const fn forward(step: Step) -> Place {
    Place { step, target: "1.9.7", ends: &["VERIFIED"] }
}

/// Before the old container is disarmed it comes back with its engine.
const fn early(step: Step) -> Place {
    Place { step, target: "1.9.7", ends: EITHER }
}

const fn back(step: Step, target: &'static str) -> Place {
    Place { step, target, ends: &["ROLLED_BACK"] }
}

fn point_of(step: Step) -> Point {
    Point::of(step)[0]
}

fn here() -> bool {
    require("docker") && require("dockerd") && require("root")
}

/// The engine is lost at the place; answers how the job ended.
fn lose_at(engine: &mut PrivateEngine, loss: Loss, live: bool, place: Place) -> Value {
    let world = World::build("1.9.6").on(engine).rows(200).start();
    let old = world.container().expect("a container")["Id"].clone();
    let trap = Trap::between(&world);
    let daemon = world.daemon();
    let live = if live { ", live-restore" } else { "" };
    let way = format!("{} to {}", place.step, place.target);
    let account = Account::of(format!("engine {loss:?}{live}"), way);
    trap.arm_patiently(place.step, point_of(place.step));
    world.begin_upgrade(place.target);
    trap.meanwhile(&daemon, || lose(engine, loss));
    let status = daemon.wait_settled(END_LIMIT);
    let name = account.name();
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
    goes_on(&world, &daemon, version, &name);
    assert_eq!(world.two_at_once(), Vec::<String>::new(), "{name}");
    status
}

/// Whatever happened: the next upgrade works.
fn goes_on(world: &World, daemon: &Daemon, version: &str, after: &str) {
    if version != "1.9.6" || !is_full() {
        return;
    }
    world.begin_upgrade("1.9.7");
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "VERIFIED", "after {after}: {status:#}");
    world.assert_sound("1.9.7", after);
}

fn lose_at_each(loss: Loss, live: bool, places: &[Place]) {
    let mut engine = match live {
        true => PrivateEngine::start_live_restoring(&TAGS),
        false => PrivateEngine::start(&TAGS),
    };
    for place in places {
        lose_at(&mut engine, loss, live, *place);
    }
}

/// Those of the ordinary run, or all.
fn chosen(ordinary: &[Place], further: &[Place]) -> Vec<Place> {
    let further = if is_full() { further } else { &[] };
    [ordinary, further].concat()
}

#[test]
fn an_engine_that_is_restarted_in_mid_swap_is_waited_for_and_the_upgrade_ends() {
    if !here() {
        return;
    }
    let places = chosen(
        &[forward(Step::RenameNext)],
        &[
            early(Step::PreCopy),
            forward(Step::StopOld),
            forward(Step::RenameOld),
            forward(Step::StartNext),
            forward(Step::Verify),
            forward(Step::ArmNext),
            back(Step::AssessDatabase, "9.0.2"),
            back(Step::StartOld, "9.0.2"),
            back(Step::VerifyOld, "9.0.4"),
        ],
    );
    lose_at_each(Loss::Restarted, false, &places);
}

#[test]
fn an_engine_that_is_killed_in_mid_swap_is_waited_for_and_the_upgrade_ends() {
    if !here() {
        return;
    }
    let places = chosen(
        &[forward(Step::Verify)],
        &[
            forward(Step::Quiesce),
            forward(Step::StopOld),
            forward(Step::StartNext),
            forward(Step::ArmNext),
            back(Step::RestoreOldName, "9.0.2"),
            back(Step::StartOld, "9.0.4"),
            back(Step::VerifyOld, "9.0.2"),
        ],
    );
    lose_at_each(Loss::Killed, false, &places);
}

#[test]
fn an_engine_whose_containers_go_on_without_it_may_be_lost_anywhere() {
    if !here() || !is_full() {
        return;
    }
    let places = [
        forward(Step::PreCopy),
        forward(Step::StopOld),
        forward(Step::StartNext),
        forward(Step::Verify),
        back(Step::StartOld, "9.0.4"),
        back(Step::VerifyOld, "9.0.2"),
    ];
    lose_at_each(Loss::Restarted, true, &places);
    lose_at_each(Loss::Killed, true, &places);
}
