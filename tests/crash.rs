//! The daemon is killed with SIGKILL in every step, forward and back, on a real engine with a
//! real database that takes payments; started again, it goes on by itself to the same end, and
//! no acknowledged payment is lost.
//!
//! Some of the matrix by default; all of it with `PAYRAM_TEST_FULL=1`, or all points of the steps
//! that `PAYRAM_TEST_STEPS` names (`verify,probation,tidy`). `PAYRAM_TEST_SEED` repeats a choice.

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use payram_updater::machine::Step;
use support::{Daemon, Draw, Point, Trap, World, is_full, named_steps, require, side_by_side};

/// From the restart to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(180);
/// The watch after `Verified`: shorter than the product waits for its journal.
const PROBATION_MINUTES: &str = "0.05";
/// The versions that a world is taken through.
const VERSIONS: [&str; 3] = ["1.9.7", "1.9.8", "2.0.0"];
/// Worlds that the full matrix runs side by side: they wait more than they compute.
const LANES: usize = 3;

/// The steps that a version which exits at its start, having touched nothing, is taken back by.
const BACK_UNTOUCHED: [Step; 11] = [
    Step::AssessDatabase,
    Step::StopNext,
    Step::RestoreFiles,
    Step::RestoreNextName,
    Step::RestoreOldName,
    Step::RearmOld,
    Step::StartOld,
    Step::ResumePrograms,
    Step::VerifyOld,
    Step::RemoveNext,
    Step::DiscardCopy,
];

/// And one whose migration changed the schema: the restore point comes back.
const BACK_RESTORING: [Step; 13] = [
    Step::AssessDatabase,
    Step::StopNext,
    Step::RestoreDatabase,
    Step::RestoreFiles,
    Step::RestoreNextName,
    Step::RestoreOldName,
    Step::RearmOld,
    Step::StartOld,
    Step::ResumePrograms,
    Step::VerifyOld,
    Step::ExportRows,
    Step::RemoveNext,
    Step::DiscardCopy,
];

fn forward() -> Vec<Step> {
    Step::FORWARD.into_iter().chain(Step::AFTERWARDS).collect()
}

/// One kill: at which point of which step, on the way to which version.
#[derive(Clone, Copy, Debug)]
struct Kill {
    step: Step,
    point: Point,
}

fn all_kills(steps: &[Step]) -> Vec<Kill> {
    let mut kills = Vec::new();
    for step in steps {
        kills.extend(Point::of(*step).iter().map(|point| Kill { step: *step, point: *point }));
    }
    kills
}

/// All of them, or `some` of them by a seed that is printed.
fn chosen(mut kills: Vec<Kill>, some: usize) -> Vec<Kill> {
    if let Some(steps) = named_steps() {
        kills.retain(|kill| steps.iter().any(|step| step == kill.step.as_str()));
        return kills;
    }
    if is_full() {
        return kills;
    }
    let what = format!("{some} of {} points", kills.len());
    Draw::seeded("PAYRAM_TEST_SEED", &what).sample(kills, some)
}

/// What came of a matrix.
#[derive(Default)]
struct Tally {
    landed: Mutex<Vec<(Step, bool)>>,
}

impl Tally {
    fn note(&self, kill: Kill, is_hit: bool, how: &str, began: Instant) {
        let where_ = if is_hit { "in the step" } else { "after it: it was missed" };
        let took = began.elapsed().as_secs_f32();
        println!(
            "{} {:?}: killed {where_}; {how} after {took:.1} s, 0 lost",
            kill.step, kill.point
        );
        self.landed.lock().expect("not poisoned").push((kill.step, is_hit));
    }

    /// Says what was run, and that every step was hit.
    fn finish(&self, what: &str, wanted: &[Kill]) {
        let landed = self.landed.lock().expect("not poisoned");
        let hit: BTreeSet<&str> =
            landed.iter().filter(|(_, is_hit)| *is_hit).map(|(step, _)| step.as_str()).collect();
        let asked: BTreeSet<&str> = wanted.iter().map(|kill| kill.step.as_str()).collect();
        let hits = landed.iter().filter(|(_, is_hit)| *is_hit).count();
        println!(
            "{what}: {} points, {hits} hit, {} steps, 0 violations, 0 payments lost",
            landed.len(),
            hit.len()
        );
        assert_eq!(hit, asked, "{what}: steps that were hit, against those that were to be");
    }
}

/// Worlds that are run side by side.
fn lanes() -> usize {
    if is_full() { LANES } else { 1 }
}

fn world_of_payments() -> (World, Trap) {
    let world =
        World::build("1.9.6").rows(200).setting("PROBATION_MINUTES", PROBATION_MINUTES).start();
    let trap = Trap::between(&world);
    (world, trap)
}

/// Begins an upgrade, kills the daemon at the point and starts it again.
fn kill_once(world: &World, trap: &Trap, kill: Kill, target: &str) -> (Daemon, bool) {
    let daemon = world.daemon();
    trap.arm(kill.step, kill.point);
    world.begin_upgrade(target);
    let is_hit = trap.kill(daemon);
    (world.daemon(), is_hit)
}

fn ends(daemon: &Daemon, phase: &str, after: &str) {
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], phase, "{after}: {status:#}\n{}", daemon.log());
}

fn kill_on_the_way_forward(kills: &[Kill], tally: &Tally) {
    let (world, trap) = world_of_payments();
    for (kill, target) in kills.iter().zip(VERSIONS) {
        let began = Instant::now();
        let after = format!("SIGKILL in {} ({:?}) towards {target}", kill.step, kill.point);
        let (daemon, is_hit) = kill_once(&world, &trap, *kill, target);
        ends(&daemon, "VERIFIED", &after);
        world.assert_sound(target, &after);
        assert!(daemon.terminate().success(), "{after}");
        tally.note(*kill, is_hit, "VERIFIED", began);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

fn kill_on_the_way_back(kills: &[Kill], broken: &str, tally: &Tally) {
    let (world, trap) = world_of_payments();
    for kill in kills {
        let began = Instant::now();
        let after = format!("SIGKILL in {} ({:?}) back from {broken}", kill.step, kill.point);
        let (daemon, is_hit) = kill_once(&world, &trap, *kill, broken);
        ends(&daemon, "ROLLED_BACK", &after);
        world.assert_sound("1.9.6", &after);
        assert!(daemon.terminate().success(), "{after}");
        tally.note(*kill, is_hit, "ROLLED_BACK", began);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_crash_in_a_step_of_the_way_forward_ends_verified_without_losing_a_payment() {
    if !require("docker") {
        return;
    }
    let kills = chosen(all_kills(&forward()), 2);
    let tally = Tally::default();
    let worlds: Vec<&[Kill]> = kills.chunks(VERSIONS.len()).collect();
    side_by_side(lanes(), &worlds, |kills| kill_on_the_way_forward(kills, &tally));
    tally.finish("forward", &kills);
}

#[test]
fn a_crash_in_a_step_of_the_way_back_ends_rolled_back_without_losing_a_payment() {
    if !require("docker") {
        return;
    }
    let tally = Tally::default();
    let mut all = Vec::new();
    let untouched = all_kills(&BACK_UNTOUCHED);
    let mut restoring = all_kills(&BACK_RESTORING);
    // This one still runs when it is given up.
    restoring.extend(
        [Step::AssessDatabase, Step::StopNext].map(|step| Kill { step, point: Point::Unanswered }),
    );
    for (broken, kills) in [("9.0.2", untouched), ("9.0.4", restoring)] {
        let kills = chosen(kills, 1);
        let worlds: Vec<&[Kill]> = kills.chunks(4).collect();
        side_by_side(lanes(), &worlds, |kills| kill_on_the_way_back(kills, broken, &tally));
        all.extend(kills);
    }
    tally.finish("back", &all);
}

/// Kills the daemon in each of these steps, one after the other, of one upgrade.
fn kill_in_each(world: &World, trap: &Trap, steps: &[Step], target: &str) -> Daemon {
    let arm = |step: &Step| trap.arm(*step, Point::of(*step)[0]);
    let mut daemon = world.daemon();
    arm(&steps[0]);
    world.begin_upgrade(target);
    for (index, step) in steps.iter().enumerate() {
        let is_hit = trap.kill(daemon);
        println!("{step}: killed {}", if is_hit { "in the step" } else { "after it: missed" });
        steps.get(index + 1).iter().for_each(|next| arm(next));
        daemon = world.spawn_daemon();
    }
    daemon.wait_ready();
    daemon
}

#[test]
fn an_upgrade_that_is_killed_in_every_step_ends_verified_without_losing_a_payment() {
    if !require("docker") {
        return;
    }
    let (world, trap) = world_of_payments();
    let daemon = kill_in_each(&world, &trap, &forward(), "1.9.7");
    ends(&daemon, "VERIFIED", "killed in every step");
    world.assert_sound("1.9.7", "killed in every step");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_way_back_that_is_killed_in_every_step_ends_rolled_back_without_losing_a_payment() {
    if !require("docker") {
        return;
    }
    let (world, trap) = world_of_payments();
    let daemon = kill_in_each(&world, &trap, &BACK_RESTORING, "9.0.4");
    ends(&daemon, "ROLLED_BACK", "killed in every step back");
    world.assert_sound("1.9.6", "killed in every step back");
    assert_eq!(world.failed_directories().len(), 1, "the failed version's database is kept");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_step_that_kills_the_daemon_three_times_is_taken_back() {
    if !require("docker") {
        return;
    }
    let (world, trap) = world_of_payments();
    let daemon = kill_in_each(&world, &trap, &[Step::StopOld; 3], "1.9.7");
    ends(&daemon, "ROLLED_BACK", "killed three times in stop_old");
    let status = daemon.status();
    assert_eq!(status["failureCode"], "STEP_INTERRUPTED", "{status:#}");
    world.assert_sound("1.9.6", "killed three times in stop_old");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
