//! What goes wrong around an upgrade, on a real engine with a real database: the registry
//! vanishes, the daemon is frozen, told to end, started twice, the operator calls it off, the
//! journal's last pages are torn. Each ends as the design says, with every acknowledged payment.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use payram_updater::journal::{JournalError, Reader};
use payram_updater::machine::Step;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{
    Daemon, Point, SlowRegistry, Trap, World, free_port, in_long_run, require, wait_until,
};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(240);
/// A second daemon gives up at once.
const REFUSAL_LIMIT: Duration = Duration::from_secs(30);

fn ends(daemon: &Daemon, phase: &str) -> Value {
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], phase, "{status:#}\n{}", daemon.log());
    status
}

/// Which container has the name, and since when it runs.
fn identity(world: &World) -> (String, String) {
    let container = world.container().expect("a container");
    (container["Id"].to_string(), container["State"]["StartedAt"].to_string())
}

/// A world whose 1.9.7 comes slowly from a registry of its own.
fn slow_world() -> (SlowRegistry, World) {
    let registry = SlowRegistry::with("1.9.7");
    let world =
        World::build("1.9.6").rows(200).setting("IMAGE_REPO_OVERRIDE", registry.repo()).start();
    (registry, world)
}

/// Waits until the image is on its way: some of its bytes are here, and not all.
fn wait_until_pulling(daemon: &Daemon) {
    daemon.wait_status("the image is being pulled", END_LIMIT, |status| {
        let progress = status["progress"].as_u64().unwrap_or_default();
        status["step"] == "pull" && (1..100).contains(&progress)
    });
}

#[test]
fn a_registry_that_vanishes_in_the_middle_of_a_pull_changes_nothing() {
    if !require("docker") {
        return;
    }
    let (mut registry, world) = slow_world();
    let before = identity(&world);
    let daemon = world.daemon();
    world.begin_upgrade("1.9.7");
    wait_until_pulling(&daemon);
    registry.vanish();
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], "DOCKER_PULL_FAILED", "{status:#}");
    assert_eq!(identity(&world), before, "it was never stopped");
    println!("registry gone in mid-pull: {}", status["message"]);
    let recovered = world.cli(&["recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{recovered:?}");
    assert_eq!(identity(&world), before, "nor by a recovery");
    world.assert_sound("1.9.6", "a registry that vanished");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn an_upgrade_that_is_called_off_in_the_middle_of_a_pull_changes_nothing() {
    if !require("docker") {
        return;
    }
    let (_registry, world) = slow_world();
    let before = identity(&world);
    let daemon = world.daemon();
    world.begin_upgrade("1.9.7");
    wait_until_pulling(&daemon);
    let called = world.cli(&["cancel", "--yes"]);
    assert_eq!(called.status.code(), Some(0), "{called:?}");
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], "CANCELLED", "{status:#}");
    assert_eq!(identity(&world), before, "it was never stopped");
    world.assert_sound("1.9.6", "called off in the middle of a pull");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_daemon_that_is_told_to_end_in_the_middle_of_a_pull_goes_on_at_its_next_start() {
    if !require("docker") {
        return;
    }
    let (_registry, world) = slow_world();
    let daemon = world.daemon();
    let job = world.begin_upgrade("1.9.7");
    wait_until_pulling(&daemon);
    ends_on_request_and_goes_on(&world, daemon, &job, "pull");
}

#[test]
fn a_daemon_that_is_told_to_end_while_it_verifies_goes_on_at_its_next_start() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let daemon = world.daemon();
    let job = world.begin_upgrade("1.9.7");
    daemon.wait_status("it verifies", END_LIMIT, |status| status["step"] == "verify");
    ends_on_request_and_goes_on(&world, daemon, &job, "verify");
}

fn ends_on_request_and_goes_on(world: &World, daemon: Daemon, job: &str, step: &str) {
    let asked = Instant::now();
    assert!(daemon.terminate().success(), "it ends well");
    println!("SIGTERM in {step}: ended after {:.1} s", asked.elapsed().as_secs_f32());
    let daemon = world.daemon();
    let status = ends(&daemon, "VERIFIED");
    assert_eq!(status["jobId"], job, "the same job");
    world.assert_sound("1.9.7", "a daemon that was told to end");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn an_upgrade_that_is_called_off_while_the_database_is_copied_changes_nothing() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let trap = Trap::between(&world);
    let before = identity(&world);
    let daemon = world.daemon();
    trap.arm(Step::PreCopy, Point::Unasked);
    world.begin_upgrade("1.9.7");
    trap.meanwhile(&daemon, || {
        let called = world.cli(&["cancel", "--yes"]);
        assert_eq!(called.status.code(), Some(0), "{called:?}");
    });
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], "CANCELLED", "{status:#}");
    assert_eq!(identity(&world), before, "it was never stopped");
    world.assert_sound("1.9.6", "called off in pre_copy");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn an_upgrade_that_is_called_off_while_it_verifies_brings_the_old_version_back() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").setting("HEALTH_TIMEOUT_SECONDS", "90").rows(200).start();
    let daemon = world.daemon();
    // It never answers, so there is time to call it off; it changes nothing.
    world.begin_upgrade("9.0.6");
    daemon.wait_status("it verifies", END_LIMIT, |status| status["step"] == "verify");
    let called = world.cli(&["cancel", "--yes"]);
    assert_eq!(called.status.code(), Some(0), "{called:?}");
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], "CANCELLED", "{status:#}");
    world.assert_sound("1.9.6", "called off in verify");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_new_version_that_answers_already_is_not_called_off() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let daemon = world.daemon();
    world.begin_upgrade("1.9.7");
    daemon.wait_status("it answers", END_LIMIT, |status| {
        status["step"] == "verify" && status["serving"] == true
    });
    let called = world.cli(&["cancel", "--yes"]);
    assert_eq!(called.status.code(), Some(1), "{called:?}");
    ends(&daemon, "VERIFIED");
    world.assert_sound("1.9.7", "not called off in verify");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_daemon_that_is_frozen_again_and_again_ends_verified() {
    if !require("docker") {
        return;
    }
    const FROZEN: Duration = Duration::from_secs(4);
    const AWAKE: Duration = Duration::from_secs(1);
    let world = World::build("1.9.6").rows(200).start();
    let daemon = world.daemon();
    world.begin_upgrade("1.9.7");
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a process id")).expect("not 0");
    let mut frozen_in = Vec::new();
    let deadline = Instant::now() + END_LIMIT;
    let settled = loop {
        let status = daemon.status();
        if ["VERIFIED", "ROLLED_BACK", "NEEDS_OPERATOR"].iter().any(|it| status["phase"] == *it) {
            break status;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        frozen_in.push(status["step"].to_string());
        // The fault itself, not a wait for something.
        kill_process(pid, Signal::STOP).expect("SIGSTOP is sent");
        std::thread::sleep(FROZEN);
        kill_process(pid, Signal::CONT).expect("SIGCONT is sent");
        std::thread::sleep(AWAKE);
    };
    println!("frozen for {FROZEN:?} in {}", frozen_in.join(", "));
    assert_eq!(settled["phase"], "VERIFIED", "{settled:#}\n{}", daemon.log());
    world.assert_sound("1.9.7", "a daemon that was frozen");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_told_who_the_first_is() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let first = world.daemon();
    let mut second = world.updater(&["serve"]);
    second.env("UPDATER_PORT", free_port().to_string());
    second.env("RUN_DIR", world.path("second-run"));
    let mut second = Daemon::spawn(second, 0, &world.path("second.log"));
    let status = second.wait_exit(REFUSAL_LIMIT);
    let said = second.log();
    assert!(!status.success(), "{said}");
    assert!(said.contains(&format!("pid {}", first.pid())), "{said}");
    assert_eq!(first.get("/health").status, 200, "the first goes on");
}

/// A page in the WAL: its header, and the page.
const FRAME_BYTES: usize = 24 + 4096;
/// What the WAL begins with (https://sqlite.org/fileformat2.html, "The Write-Ahead Log").
const WAL_HEADER_BYTES: usize = 32;

/// The rows of a copy of the journal whose WAL is these bytes; or why it is refused.
fn rows_of_copy(journal: &Path, wal: &[u8]) -> Result<Vec<String>, String> {
    let place = tempfile::tempdir().expect("a directory");
    let copy = place.path().join("journal.db");
    fs::copy(journal, &copy).expect("a copy");
    fs::write(place.path().join("journal.db-wal"), wal).expect("a copy of the WAL");
    let text = |error: JournalError| {
        error.to_string().replace(&place.path().display().to_string(), "PLACE")
    };
    let reader = Reader::open(&copy).map_err(text)?;
    reader.verify().map_err(text)?.map_err(|broken| format!("{broken:?}"))?;
    // What the daemon does first: fold the rows back into a machine.
    reader.active_job().map_err(text)?;
    reader.last_executed_job().map_err(text)?;
    let mut rows = Vec::new();
    reader.export(&mut rows).map_err(text)?;
    Ok(String::from_utf8(rows).expect("text").lines().map(str::to_owned).collect())
}

/// The journal of an upgrade whose daemon was killed in mid-verification, WAL and all.
fn journal_of_a_crash(world: &World) -> (PathBuf, Vec<u8>) {
    let trap = Trap::between(world);
    let daemon = world.daemon();
    trap.arm(Step::Verify, Point::Unasked);
    world.begin_upgrade("1.9.7");
    assert!(trap.kill(daemon), "it died in verify");
    let journal = world.state_dir().join("journal.db");
    let wal = fs::read(world.state_dir().join("journal.db-wal")).expect("the WAL is still there");
    (journal, wal)
}

#[test]
fn a_journal_that_is_torn_at_any_page_holds_the_rows_before_it_or_is_refused() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let (journal, wal) = journal_of_a_crash(&world);
    let whole = rows_of_copy(&journal, &wal).expect("the whole journal is good");
    assert!(whole.len() > 30, "{} rows", whole.len());
    let frames = (wal.len() - WAL_HEADER_BYTES) / FRAME_BYTES;
    assert!(frames > 30, "{frames} frames");

    let mut read = 0;
    let mut refusals = BTreeMap::<String, usize>::new();
    let mut fewest = whole.len();
    for frame in 0..frames {
        let begin = WAL_HEADER_BYTES + frame * FRAME_BYTES;
        let mut flipped = wal.clone();
        flipped[begin + FRAME_BYTES / 2] ^= 0x10;
        let mut zeroed = wal.clone();
        zeroed[begin..].fill(0);
        let torn = [
            ("cut at its begin", wal[..begin].to_vec()),
            ("cut in its header", wal[..begin + 10].to_vec()),
            ("cut in its middle", wal[..begin + FRAME_BYTES / 2].to_vec()),
            ("zero from there on", zeroed),
            ("one bit flipped", flipped),
        ];
        for (how, torn) in torn {
            match rows_of_copy(&journal, &torn) {
                Ok(rows) => {
                    assert!(whole.starts_with(&rows), "frame {frame} {how}: not a beginning");
                    fewest = fewest.min(rows.len());
                    read += 1;
                }
                Err(why) => *refusals.entry(why).or_default() += 1,
            }
        }
    }
    println!(
        "{frames} frames, {} journals: {read} hold a beginning of the {} rows (at least {fewest}); refused: {refusals:#?}",
        read + refusals.values().sum::<usize>(),
        whole.len()
    );

    // The world's own journal was not touched: it goes on.
    let daemon = world.daemon();
    ends(&daemon, "VERIFIED");
    wait_until("one container is left", END_LIMIT, || {
        (world.containers().len() == 1).then_some(())
    });
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
