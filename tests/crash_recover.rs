//! The daemon is killed with SIGKILL on the ways out of a failure that the plain matrix
//! (`tests/crash.rs`) does not take: files beside the database that a failed version changed, the
//! restore point that is tried for an old version which is ill, and what a person asked `recover`
//! for. Started again, it goes on by itself to the same end, and no acknowledged payment is lost.
//!
//! Some of the points by default; all of them with `PAYRAM_TEST_FULL=1`, or those of the steps that
//! `PAYRAM_TEST_STEPS` names. `PAYRAM_TEST_SEED` repeats a choice.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use payram_updater::machine::Step;
use support::builder::WorldBuilder;
use support::{
    Daemon, Draw, Fixture, OwnImage, Point, Trap, World, in_long_run, is_full, named_steps, require,
};

/// From the start of an upgrade, or from a restart, to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(300);

/// One kill: at which point of which step.
type Kill = (Step, Point);

/// All of them, or one by a seed that is printed.
fn chosen(mut kills: Vec<Kill>) -> Vec<Kill> {
    if let Some(steps) = named_steps() {
        kills.retain(|(step, _)| steps.iter().any(|named| named == step.as_str()));
        return kills;
    }
    if is_full() {
        return kills;
    }
    let what = format!("1 of {} points", kills.len());
    Draw::seeded("PAYRAM_TEST_SEED", &what).sample(kills, 1)
}

fn points_of(steps: &[Step]) -> Vec<Kill> {
    steps.iter().flat_map(|step| Point::of(*step).iter().map(|point| (*step, *point))).collect()
}

fn builder() -> WorldBuilder {
    World::build("1.9.6").rows(200).impatient().nested_mounts()
}

/// What came of the kills of one way.
struct Tally {
    way: &'static str,
    points: usize,
    hits: usize,
}

impl Tally {
    fn of(way: &'static str) -> Self {
        Self { way, points: 0, hits: 0 }
    }

    fn note(&mut self, (step, point): Kill, is_hit: bool, end: &str, began: Instant) {
        self.points += 1;
        self.hits += usize::from(is_hit);
        let at = if is_hit { "in the step" } else { "after it: it was missed" };
        let took = began.elapsed().as_secs_f32();
        println!("{}: {step} {point:?}: killed {at}; {end} after {took:.1} s, 0 lost", self.way);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let Self { way, points, hits } = self;
        if !std::thread::panicking() {
            println!("{way}: {points} points, {hits} hit, 0 violations, 0 payments lost");
        }
    }
}

/// Begins an upgrade, kills the daemon at the point and starts it again.
fn kill_in_upgrade(
    world: &World,
    trap: &Trap,
    (step, point): Kill,
    target: &str,
) -> (Daemon, bool) {
    let daemon = world.daemon();
    trap.arm(step, point);
    world.begin_upgrade(target);
    let is_hit = trap.kill(daemon);
    (world.daemon(), is_hit)
}

/// The same while it does what a person asks for.
fn kill_in_recover(
    world: &World,
    trap: &Trap,
    daemon: Daemon,
    (step, point): Kill,
    ways: &[&str],
) -> (Daemon, bool) {
    trap.arm(step, point);
    let log = fs::File::create(world.path("recover.log")).expect("a file");
    let mut asked = world
        .updater(&[&["recover", "--yes"], ways].concat())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the product starts");
    let is_hit = trap.kill(daemon);
    // Its daemon is gone: it ends, or is of no more use.
    asked.kill().ok();
    asked.wait().expect("it is gone");
    (world.daemon(), is_hit)
}

fn ends(daemon: &Daemon, phase: &str, after: &str) {
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], phase, "{after}: {status:#}\n{}", daemon.log());
}

/// An upgrade that stops for a person.
fn stops(world: &World, target: &str) -> Daemon {
    let daemon = world.daemon();
    world.begin_upgrade(target);
    ends(&daemon, "NEEDS_OPERATOR", target);
    daemon
}

#[test]
fn a_crash_while_changed_files_are_put_back_loses_neither_them_nor_a_payment() {
    if !require("docker") {
        return;
    }
    let mut tally = Tally::of("files changed");
    let kills = chosen(points_of(&[Step::RestoreFiles]));
    let world = builder().start();
    let trap = Trap::between(&world);
    let key = world.data_dir().join("keystore.json");
    let before = fs::read_to_string(&key).expect("a key store");
    for kill in kills {
        let began = Instant::now();
        let tag = Fixture::get().tag_of("rewrites-key");
        let (daemon, is_hit) = kill_in_upgrade(&world, &trap, kill, tag);
        let after = format!("SIGKILL in {kill:?} back from {tag}");
        ends(&daemon, "ROLLED_BACK", &after);
        assert_eq!(fs::read_to_string(&key).expect("a key store"), before, "{after}");
        let theirs = kept_of_the_failed(&world);
        assert!(theirs.iter().any(|text| text.contains("\"format\":2")), "{after}: {theirs:?}");
        world.assert_sound("1.9.6", &after);
        assert!(daemon.terminate().success(), "{after}");
        tally.note(kill, is_hit, "ROLLED_BACK", began);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// The key stores that failed versions had.
fn kept_of_the_failed(world: &World) -> Vec<String> {
    let mut ahead: Vec<PathBuf> = vec![world.path("state/files")];
    let mut found = Vec::new();
    while let Some(directory) = ahead.pop() {
        for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|it| it.path()) {
            match path.is_dir() {
                true => ahead.push(path),
                false => found.push(path),
            }
        }
    }
    found.retain(|path| {
        path.to_string_lossy().contains("/failed/") && path.ends_with("keystore.json")
    });
    found.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// The lines of a Dockerfile that have this done before anything else starts, on a database that
/// is marked for it.
fn before_the_start(line: &str) -> String {
    let directory = "/var/lib/payram/db/postgres";
    format!(
        "RUN mv /opt/payram/entrypoint /opt/payram/entrypoint.own && printf '%s\\n' \
         '#!/bin/bash' 'cd {directory} 2>/dev/null || cd /' \"[[ ! -e marked ]] || {line}\" 'cd /' \
         'exec /opt/payram/entrypoint.own \"$@\"' > /opt/payram/entrypoint && \
         chmod 755 /opt/payram/entrypoint"
    )
}

#[test]
fn a_crash_while_the_restore_point_is_tried_for_an_old_version_that_is_ill_loses_no_payment() {
    if !require("docker") {
        return;
    }
    let mut tally = Tally::of("old one is ill, too");
    let steps = [Step::AssessAgain, Step::RestoreDatabase];
    let kills = chosen(points_of(&steps));
    let old = OwnImage::derived("1.9.6", &before_the_start("[[ -e shop.key ]] || exit 7"), true);
    let failing = Fixture::get().tag_of("health-500");
    let failing = OwnImage::derived(failing, &before_the_start("rm -f shop.key"), false);
    let world = World::build(&old.tag).rows(200).impatient().start();
    let trap = Trap::between(&world);
    let directory = "/var/lib/payram/db/postgres";
    let files = [format!("{directory}/shop.key"), format!("{directory}/marked")];
    world.docker(&["exec", &world.name, "touch", &files[0], &files[1]]);
    for kill in kills {
        let began = Instant::now();
        let kept = world.failed_directories().len();
        let (daemon, is_hit) = kill_in_upgrade(&world, &trap, kill, &failing.tag);
        let after = format!("SIGKILL in {kill:?} for an old version that is ill");
        ends(&daemon, "ROLLED_BACK", &after);
        assert!(world.upgrade_log().contains("assess"), "{after}");
        world.assert_sound("1.9.6", &after);
        assert_eq!(world.failed_directories().len(), kept + 1, "{after}: what it ran on is kept");
        assert!(daemon.terminate().success(), "{after}");
        tally.note(kill, is_hit, "ROLLED_BACK", began);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// The points of the step that carries rows over: many requests, of servers that are started,
/// asked and removed.
fn points_of_carrying() -> Vec<Kill> {
    let nth = [1, 2, 4, 7, 11, 16, 22, 29, 37].map(Point::After);
    let all = nth.into_iter().chain([Point::Unasked, Point::Unjournaled]);
    let mut kills: Vec<Kill> = all.map(|point| (Step::RestoreDatabase, point)).collect();
    kills.extend(points_of(&[Step::AssessDatabase, Step::RestoreFiles, Step::ExportRows]));
    kills
}

#[test]
fn a_crash_while_rows_are_carried_over_carries_them_over_once_and_loses_none() {
    if !require("docker") {
        return;
    }
    let kills = chosen(points_of_carrying());
    carries(builder, "carrying", &kills);
}

#[test]
fn without_a_supervisor_a_crash_while_rows_are_carried_over_loses_none_either() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let kills = chosen(points_of_carrying());
    let builder = || builder().env("PAYRAM_SUPERVISOR", "off");
    carries(builder, "carrying, no supervisor", &kills);
}

/// Two kills in each shop, in an upgrade of its own: what the first one carried over stays. No more,
/// because with the log's next file its server removes the one that tells of the cut-over.
fn carries(builder: impl Fn() -> WorldBuilder, way: &'static str, kills: &[Kill]) {
    let mut tally = Tally::of(way);
    for kills in kills.chunks(2) {
        carries_in(&builder().start(), &mut tally, kills);
    }
}

fn carries_in(world: &World, tally: &mut Tally, kills: &[Kill]) {
    let (tag, way) = (Fixture::get().tag_of("migration-schema-writes"), tally.way);
    let trap = Trap::between(world);
    for kill in kills {
        let began = Instant::now();
        let after = format!("{way}: SIGKILL in {kill:?}");
        let daemon = stops(world, tag);
        let ways = ["--restore-database", "--carry-rows"];
        let (daemon, is_hit) = kill_in_recover(world, &trap, daemon, *kill, &ways);
        ends(&daemon, "ROLLED_BACK", &after);
        let status = daemon.status();
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains("carried over: "), "{after}: {message}");
        // Every payment, whoever took it, with all of its contents: once.
        world.assert_sound("1.9.6", &after);
        let (_, twice) = world.addresses();
        assert_eq!(twice, Vec::<String>::new(), "{after}: addresses that were handed out twice");
        assert!(daemon.terminate().success(), "{after}");
        tally.note(*kill, is_hit, "ROLLED_BACK", began);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_crash_while_a_version_is_kept_after_all_ends_verified_without_losing_a_payment() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let mut tally = Tally::of("keeping");
    let steps = [Step::StartAgain, Step::Verify, Step::ArmNext, Step::Tidy];
    for kill in chosen(points_of(&steps)) {
        let began = Instant::now();
        let after = format!("SIGKILL in {kill:?} of a version that is kept");
        let world = builder()
            .setting("ROLLBACK_DATABASE", "manual")
            .setting("START_TIMEOUT_SECONDS", "5")
            .start();
        let trap = Trap::between(&world);
        let tag = Fixture::get().tag_of("slow");
        drop(stops(&world, tag));
        world.set("START_TIMEOUT_SECONDS", "120");
        let daemon = world.daemon();
        let (daemon, is_hit) = kill_in_recover(&world, &trap, daemon, kill, &["--keep-new"]);
        ends(&daemon, "VERIFIED", &after);
        world.assert_sound(tag, &after);
        assert!(daemon.terminate().success(), "{after}");
        tally.note(kill, is_hit, "VERIFIED", began);
        assert_eq!(world.two_at_once(), Vec::<String>::new());
    }
}
