//! The container engine is restarted, or dies, in the middle of an upgrade, on an engine of the
//! test's own. The daemon waits for it, looks again and ends as it would have, or where it was.

mod support;

use payram_updater::machine::Step;
use support::outage::{END_LIMIT, Place, engine, here, live_restoring_engine};
use support::{Daemon, Outage, Point, PrivateEngine, World, chosen, in_long_run, is_full};

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

/// The engine is lost at the place.
fn lose_at(engine: &mut PrivateEngine, loss: Loss, live: bool, place: Place) {
    let live = if live { ", live-restore" } else { "" };
    let (outage, daemon) = Outage::prepare(engine, format!("engine {loss:?}{live}"), place);
    outage.trap.arm_patiently(place.step, Point::of(place.step)[0]);
    outage.world.begin_upgrade(place.target);
    outage.trap.meanwhile(&daemon, || lose(engine, loss));
    let version = outage.assert_ends(&daemon);
    goes_on(&outage.world, &daemon, version, &outage.account.name());
    outage.assert_never_two();
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
        true => live_restoring_engine(),
        false => engine(),
    };
    for place in places {
        lose_at(&mut engine, loss, live, *place);
    }
}

#[test]
fn an_engine_that_is_restarted_in_mid_swap_is_waited_for_and_the_upgrade_ends() {
    if !here() {
        return;
    }
    let places = chosen(
        &[Place::forward(Step::RenameNext)],
        &[
            Place::early(Step::PreCopy),
            Place::forward(Step::StopOld),
            Place::forward(Step::RenameOld),
            Place::forward(Step::StartNext),
            Place::forward(Step::Verify),
            Place::forward(Step::ArmNext),
            Place::back(Step::AssessDatabase, "9.0.2"),
            Place::back(Step::StartOld, "9.0.2"),
            Place::back(Step::VerifyOld, "9.0.4"),
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
        &[Place::forward(Step::Verify)],
        &[
            Place::forward(Step::Quiesce),
            Place::forward(Step::StopOld),
            Place::forward(Step::StartNext),
            Place::forward(Step::ArmNext),
            Place::back(Step::RestoreOldName, "9.0.2"),
            Place::back(Step::StartOld, "9.0.4"),
            Place::back(Step::VerifyOld, "9.0.2"),
        ],
    );
    lose_at_each(Loss::Killed, false, &places);
}

#[test]
fn an_engine_whose_containers_go_on_without_it_may_be_lost_anywhere() {
    if !here() || !in_long_run() {
        return;
    }
    let places = [
        Place::forward(Step::PreCopy),
        Place::forward(Step::StopOld),
        Place::forward(Step::StartNext),
        Place::forward(Step::Verify),
        Place::back(Step::StartOld, "9.0.4"),
        Place::back(Step::VerifyOld, "9.0.2"),
    ];
    lose_at_each(Loss::Restarted, true, &places);
    lose_at_each(Loss::Killed, true, &places);
}
