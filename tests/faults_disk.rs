//! A disk that is full: under the copy of the database while the application serves, under its
//! second pass in the downtime, and under the journal. What can't be copied is not upgraded;
//! without a journal nothing is done at all, until there is room again.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use payram_updater::machine::Step;
use serde_json::Value;
use support::{
    Account, Daemon, Point, SmallDisk, Trap, World, chosen, in_long_run, require, wait_until,
};

/// From there being room to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(240);
/// In which the daemon finds its journal unusable: it tries every ten seconds.
const SAID_LIMIT: Duration = Duration::from_secs(60);
/// The database's file system: a database, a copy of it, and some.
const DATABASE_DISK: &str = "400m";
/// What a running PostgreSQL needs to go on for the length of a test.
const ROOM_FOR_THE_SERVER: u64 = 24 << 20;

fn here() -> bool {
    require("docker") && require("root")
}

fn identity(world: &World) -> [Value; 3] {
    let container = world.container().expect("a container");
    [
        container["Id"].clone(),
        container["State"]["StartedAt"].clone(),
        container["HostConfig"]["RestartPolicy"].clone(),
    ]
}

/// Somebody else's file, and what it looked like.
struct Filler {
    path: PathBuf,
    length: u64,
}

impl Filler {
    fn leave(disk: &SmallDisk, bytes: u64) -> Filler {
        let path = disk.fill_but(bytes);
        let length = path.metadata().expect("the filler").len();
        Filler { path, length }
    }

    fn assert_untouched(&self) {
        assert_eq!(self.path.metadata().expect("the filler is there").len(), self.length);
    }

    fn remove(&self) {
        fs::remove_file(&self.path).expect("the filler is there");
    }
}

/// The command that followed the job exits with this code, and the status tells why.
fn ends_rolled_back(world: &World, daemon: &Daemon, code: &str) -> Value {
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert_eq!(status["failureCode"], code, "{status:#}");
    let followed = world.cli(&["logs", "-f", "--until-done"]);
    assert_eq!(followed.status.code(), Some(4), "{followed:?}");
    status
}

/// With room again, the next upgrade works.
fn next_upgrade_works(world: &World, daemon: &Daemon) {
    world.begin_upgrade("1.9.7");
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "VERIFIED", "{status:#}\n{}", daemon.log());
    world.assert_sound("1.9.7", "with room again");
}

/// An upgrade that ended where it began, because the database's disk is full.
struct FullDisk {
    daemon: Daemon,
    /// Between the daemon and the engine until the end.
    _trap: Trap,
    account: Account,
    /// The container before the upgrade.
    before: [Value; 3],
    status: Value,
    filler: Filler,
    world: World,
}

impl FullDisk {
    /// When the daemon is about to take the step, some work is done, and then the disk is filled
    /// but for these bytes. The old version serves afterwards, with every payment.
    fn under(step: Step, at: &str, bytes: u64, work: impl FnOnce(&World)) -> FullDisk {
        let world = World::build("1.9.6").rows(2000).disk(DATABASE_DISK).start();
        let trap = Trap::between(&world);
        let before = identity(&world);
        let daemon = world.daemon();
        let account = Account::of("disk full", at);
        trap.arm_patiently(step, Point::Unasked);
        world.begin_upgrade("1.9.7");
        let mut filler = None;
        trap.meanwhile(&daemon, || {
            work(&world);
            filler = Some(world.with_disk(|disk| Filler::leave(disk, bytes)));
        });
        let status = ends_rolled_back(&world, &daemon, "DISK_SPACE_LOW");
        world.assert_sound("1.9.6", &account.name());
        let filler = filler.expect("it was filled");
        FullDisk { daemon, _trap: trap, account, before, status, filler, world }
    }

    /// What the status says.
    fn message(&self) -> String {
        self.status["message"].to_string()
    }

    /// Nobody's file was touched; with room again, the next upgrade works.
    fn is_overcome(&self, what: &str) {
        self.account.close(&self.world, &self.status, what);
        self.filler.assert_untouched();
        self.filler.remove();
        next_upgrade_works(&self.world, &self.daemon);
        assert_eq!(self.world.two_at_once(), Vec::<String>::new());
    }
}

#[test]
fn a_disk_without_room_for_a_copy_of_the_database_is_left_with_room_for_its_server() {
    if !here() {
        return;
    }
    let full = FullDisk::under(Step::PreCopy, "pre_copy", ROOM_FOR_THE_SERVER, |_| {});
    let message = full.message();
    for part in ["data/db", "need", "have", "1.9.6 was never stopped"] {
        assert!(message.contains(part), "{part:?} is said in {message}");
    }
    assert_eq!(identity(&full.world), full.before, "it was never stopped");
    let free = full.world.with_disk(SmallDisk::free);
    assert!(free > ROOM_FOR_THE_SERVER / 2, "the server has room: {free} bytes are left");
    full.is_overcome("never stopped");
}

#[test]
fn a_disk_that_fills_up_in_the_downtime_brings_the_old_version_back() {
    if !here() {
        return;
    }
    // Still running, but its programs are silent: what is written now only the second pass sees.
    let full = FullDisk::under(Step::StopOld, "restore_point", 0, |world| {
        world.add_payments(30_000);
        world.sql("CHECKPOINT");
    });
    let message = full.message();
    assert!(message.contains("No space left on device"), "{message}");
    assert!(message.contains("1.9.6 serves again"), "{message}");
    let [id, _, policy] = identity(&full.world);
    assert_eq!([&id, &policy], [&full.before[0], &full.before[2]], "the old container");
    full.is_overcome("the old one serves again");
}

/// A world whose journal lies on a small disk.
fn world_of_journal() -> (World, SmallDisk, Trap) {
    let world = World::build("1.9.6").rows(200).start();
    let disk = SmallDisk::mount(world.state_dir(), "16m");
    let trap = Trap::between(&world);
    (world, disk, trap)
}

/// The number of the last row, and all containers as they are: what changes when anything is
/// done.
fn traces(world: &World) -> (usize, Vec<[Value; 4]>) {
    let containers = world.containers().into_iter().map(|container| {
        let state = &container["State"];
        let policy = container["HostConfig"]["RestartPolicy"]["Name"].clone();
        [container["Id"].clone(), container["Name"].clone(), state["Running"].clone(), policy]
    });
    let containers = containers.collect();
    let exported = world.cli(&["journal", "export"]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    (String::from_utf8_lossy(&exported.stdout).lines().count(), containers)
}

fn times_said(daemon: &Daemon) -> usize {
    daemon.log().matches("the journal can't be used; nothing is done until it can").count()
}

/// Waits until the daemon has said so often that it can't use its journal.
fn wait_said(daemon: &Daemon, times: usize) {
    wait_until("the daemon says that its journal can't be used", SAID_LIMIT, || {
        (times_said(daemon) >= times).then_some(())
    });
}

/// What an operator who asks is told, in each place.
fn assert_told(world: &World, daemon: &Daemon) {
    let status = daemon.status();
    assert_eq!(status["active"], true, "{status:#}");
    let blocked = status["blocked"].as_str().unwrap_or_default().to_owned();
    assert!(blocked.contains("disk is full"), "{status:#}");
    assert!(blocked.contains("journal.db"), "{status:#}");
    let health = daemon.get("/health");
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["status"], "ok", "{}", health.body);
    assert_eq!(health.json()["blocked"], blocked.as_str(), "{}", health.body);
    let inspect = daemon.get("/upgrade/inspect").json();
    assert_eq!(inspect["checks"]["journal"]["status"], "FAILED", "{inspect:#}");
    assert_eq!(inspect["overallState"], "BROKEN", "{inspect:#}");
    let shown = world.cli(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("disk is full"), "{shown}");
}

#[derive(Clone, Copy)]
struct Place {
    step: Step,
    target: &'static str,
    ends: &'static str,
    is_killed: bool,
}

/// The disk under the journal is full from this step on, for as long as the daemon needs to try
/// twice; then there is room again.
fn fill_under_the_journal(place: Place) {
    let (world, disk, trap) = world_of_journal();
    let mut daemon = world.daemon();
    let killed = if place.is_killed { ", daemon killed" } else { "" };
    let way = format!("{} to {}", place.step, place.target);
    let account = Account::of(format!("journal's disk full{killed}"), way);
    let name = account.name();
    trap.arm_patiently(place.step, Point::of(place.step)[0]);
    let job = world.begin_upgrade(place.target);
    let mut filler = None;
    trap.meanwhile(&daemon, || filler = Some(Filler::leave(&disk, 0)));
    wait_said(&daemon, 1);
    if place.is_killed {
        daemon.kill();
        disk.fill_but(0);
        daemon = world.daemon();
        wait_said(&daemon, times_said(&daemon) + 1);
    }
    let before = traces(&world);
    assert_told(&world, &daemon);
    wait_said(&daemon, times_said(&daemon) + 1);
    assert_eq!(traces(&world), before, "{name}: nothing is done without a journal");
    filler.expect("it was filled").remove();

    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], place.ends, "{name}: {status:#}\n{}", daemon.log());
    assert_eq!(status["jobId"], job.as_str(), "{name}");
    assert_eq!(status.get("blocked"), None, "{name}: {status:#}");
    let version = if place.ends == "VERIFIED" { place.target } else { "1.9.6" };
    world.assert_sound(version, &name);
    account.close(&world, &status, &format!("waited; {version} serves"));
    assert!(daemon.terminate().success());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

fn forward(step: Step, is_killed: bool) -> Place {
    Place { step, target: "1.9.7", ends: "VERIFIED", is_killed }
}

fn back(step: Step, is_killed: bool) -> Place {
    Place { step, target: "9.0.2", ends: "ROLLED_BACK", is_killed }
}

#[test]
fn a_daemon_without_room_for_its_journal_does_nothing_and_goes_on_when_there_is() {
    if !here() {
        return;
    }
    let places = chosen(
        &[forward(Step::StopOld, false)],
        &[
            forward(Step::Pull, false),
            forward(Step::PreCopy, false),
            forward(Step::StartNext, false),
            forward(Step::Verify, false),
            back(Step::StopNext, false),
            back(Step::StartOld, false),
        ],
    );
    places.into_iter().for_each(fill_under_the_journal);
}

#[test]
fn a_daemon_that_is_killed_and_started_without_room_for_its_journal_waits_for_it() {
    if !in_long_run() || !here() {
        return;
    }
    let places = chosen(
        &[back(Step::RestoreOldName, true)],
        &[
            forward(Step::Quiesce, true),
            forward(Step::RenameNext, true),
            back(Step::VerifyOld, true),
        ],
    );
    places.into_iter().for_each(fill_under_the_journal);
}
