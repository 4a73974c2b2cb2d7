//! A PostgreSQL server that somebody else starts on the shop's database directory (I2, I6, I7): by
//! another image, on a directory above it, under another name of it, or as the new container before
//! it is due. On a real engine, with real servers.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use payram_updater::database::{Place, servers_in};
use payram_updater::machine::Step;
use support::operator::{
    Running, assert_parts, assert_refused, check, identity, inspection, issues, plan, said, upgrade,
};
use support::trap::{Point, Trap};
use support::{Fixture, World, in_long_run, require, wait_until};

/// From something that was done to what follows from it.
const SOON: Duration = Duration::from_secs(60);

/// Where the stand-in has its server.
const SERVER: &str = "/usr/lib/postgresql/15/bin/postgres";

/// A server of an image with another name, on the directory above the database's: as somebody
/// looks into it by hand. Removed with the test.
struct Tool {
    name: String,
    image: String,
}

impl Tool {
    /// Made, and not started; `mounts` is what lies at `/db`.
    fn create(world: &World, policy: &str, mounts: &str) -> Self {
        // Neither the shop's image nor that of a version that any test goes to.
        let base = world.image("2.0.0");
        world.docker(&["pull", "--quiet", &base]);
        let name = format!("payram-test-tool-{}", uuid::Uuid::now_v7().simple());
        let image = format!("payram-test-tool:{}", &name[name.len() - 12..]);
        world.docker(&["tag", &base, &image]);
        let volume = format!("{mounts}:/db");
        world.docker(&[
            "create",
            "--name",
            &name,
            "--restart",
            policy,
            "--user",
            "postgres",
            "--volume",
            &volume,
            "--entrypoint",
            SERVER,
            &image,
            "-D",
            "/db/postgres",
        ]);
        Self { name, image }
    }

    fn above(world: &World, policy: &str) -> Self {
        Self::create(world, policy, &world.data_dir().join("db").display().to_string())
    }

    fn start(&self, world: &World) {
        world.docker(&["start", &self.name]);
        wait_until("the tool's server works in the directory", SOON, || {
            let log = Command::new("docker").args(["logs", &self.name]).output().ok()?;
            said(&log).contains("ready to accept connections").then_some(())
        });
    }

    fn runs(&self, world: &World) -> bool {
        world.inspect(&self.name).is_some_and(|tool| tool["State"]["Running"] == true)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        for args in [["rm", "--force", &self.name], ["image", "rm", &self.image]] {
            // Some tests have removed it.
            Command::new("docker").args(args).output().ok();
        }
    }
}

/// The most servers that ever worked in the shop's directory at once, seen by the kernel.
struct Most {
    ends: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Most {
    fn watch(world: &World) -> Self {
        let place = Place::of(&database(world)).expect("it is there");
        let (ends, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, most) = (Arc::clone(&ends), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // Of each container one counts, however many processes it has; one that ends just
                // now has none any more.
                let servers = servers_in(place);
                let mut owners: Vec<&str> =
                    servers.iter().filter_map(|one| one.container_id()).collect();
                owners.sort();
                owners.dedup();
                most.fetch_max(owners.len(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { ends, seen, thread: Some(thread) }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Most {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn database(world: &World) -> std::path::PathBuf {
    world.data_dir().join("db/postgres")
}

fn old_serves(world: &World) {
    wait_until("the old version serves", SOON, || {
        (world.is_healthy() && world.version().as_deref() == Some("1.9.6")).then_some(())
    });
}

/// Refused, and says so with these parts.
fn refuses(output: &Output, parts: &[&str]) {
    println!("{}", said(output));
    assert_ne!(output.status.code(), Some(0), "{}", said(output));
    assert_parts(&said(output), parts);
}

#[test]
fn a_server_of_another_image_on_a_directory_above_is_refused_while_it_may_start_by_itself() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    let _daemon = world.daemon();
    let tool = Tool::above(&world, "always");
    for policy in ["always", "unless-stopped", "on-failure"] {
        world.docker(&["update", "--restart", policy, &tool.name]);
        let update = format!("update --restart=no {}", tool.name);
        assert_refused(&world, "1.9.7", "DATABASE_SHARED", "neighbours", &[policy, &update]);
    }
    world.docker(&["update", "--restart", "no", &tool.name]);
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    assert!(check(&ready, "neighbours").1.contains(&tool.name), "{ready:#}");
}

#[test]
fn a_directory_under_another_name_hides_nobody_who_mounts_it() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    let _daemon = world.daemon();
    let alias = world.path("alias");
    std::fs::create_dir(&alias).expect("a directory");
    let mounted = Mounted::over(&world.data_dir().join("db"), &alias);
    let tool = Tool::create(&world, "always", &alias.display().to_string());
    let parts = [tool.name.as_str(), "always"];
    assert_refused(&world, "1.9.7", "DATABASE_SHARED", "neighbours", &parts);
    drop(tool);
    drop(mounted);

    let volume = format!("payram-test-{}", uuid::Uuid::now_v7().simple());
    let device = format!("device={}", world.data_dir().join("db").display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    let create = [&["volume", "create"][..], &options, &[volume.as_str()]].concat();
    world.docker(&create);
    let tool = Tool::create(&world, "always", &volume);
    let parts = [tool.name.as_str(), "always"];
    assert_refused(&world, "1.9.7", "DATABASE_SHARED", "neighbours", &parts);
    drop(tool);
    world.docker(&["volume", "rm", &volume]);
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
}

/// A directory that has a second name on this host.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn over(what: &Path, at: &Path) -> Self {
        let mounted = Command::new("mount").arg("--bind").args([what, at]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "{}", at.display());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[test]
fn a_server_that_is_started_after_the_stop_stays_alone_until_somebody_ends_it() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let trap = Trap::between(&world);
    let daemon = world.daemon();
    let tool = Tool::above(&world, "no");
    let most = Most::watch(&world);
    trap.arm_patiently(Step::RenameOld, Point::Unasked);
    let run = Running::begin(&world, "1.9.7");
    trap.meanwhile(&daemon, || tool.start(&world));
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(5), "{text}\n{}", daemon.log());
    println!("{}", daemon.status()["message"]);
    assert_eq!(daemon.status()["failureCode"], "DATABASE_SHARED");
    let end = format!("docker stop {}", tool.name);
    assert_parts(&text, &[&tool.name, "docker stop"]);
    assert!(tool.runs(&world), "alone it damages nothing");
    assert_eq!(inspection(&world)["overallState"], "BROKEN");
    for consent in [&["recover", "--yes"][..], &["recover", "--restore-database", "--yes"]] {
        refuses(&world.cli(consent), &["CRITICAL", &tool.name, "docker stop"]);
    }
    assert_eq!(most.seen(), 1, "never two at once");

    println!("{end}");
    world.docker(&["stop", &tool.name]);
    let recovered = world.cli(&["recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    old_serves(&world);
    assert_eq!(most.seen(), 1, "never two at once");
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_restore_waits_until_who_looks_into_the_failed_database_has_ended() {
    if !in_long_run() || !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("HEALTH_TIMEOUT_SECONDS", "12").start();
    let daemon = world.daemon();
    let run = upgrade(&world, Fixture::get().tag_of("migration-rows"));
    assert_eq!(run.status.code(), Some(5), "{}\n{}", said(&run), daemon.log());
    let tool = Tool::above(&world, "no");
    tool.start(&world);
    let (most, before) = (Most::watch(&world), Place::of(&database(&world)).expect("it is there"));
    let restore = ["recover", "--restore-database", "--yes"];
    refuses(&world.cli(&restore), &["CRITICAL", &tool.name, "docker stop"]);
    assert!(tool.runs(&world));
    assert_eq!(Place::of(&database(&world)).expect("it is there"), before, "nothing is renamed");
    assert_eq!(most.seen(), 1, "never two at once");

    world.docker(&["stop", &tool.name]);
    let recovered = world.cli(&restore);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    old_serves(&world);
    assert_eq!(kept(&world), 1, "{:?}", world.failed_directories());
    assert_parts(&world.upgrade_log(), &["its rows are exported to"]);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn the_prepared_container_that_somebody_starts_beside_the_old_one_is_killed() {
    if !require("docker") || !require("root") {
        return;
    }
    // A published port would keep the two apart.
    for step in [Step::DisarmOld, Step::NotePrograms, Step::StopOld] {
        let world = World::build("1.9.6").unpublished().rows(100).start();
        let before = identity(&world);
        let trap = Trap::between(&world);
        let daemon = world.daemon();
        trap.arm_patiently(step, Point::Unasked);
        let run = Running::begin(&world, "1.9.7");
        trap.meanwhile(&daemon, || {
            world.docker(&["start", &prepared(&world)]);
        });
        let (status, text) = run.end();
        assert_eq!(status.code(), Some(5), "{step}: {text}\n{}", daemon.log());
        println!("{step}: {}", daemon.status()["message"]);
        assert_eq!(daemon.status()["failureCode"], "DATABASE_DAMAGED", "{step}");
        assert_parts(&text, &["two servers on", "is killed", "Risk for data: LIKELY"]);
        nothing_runs(&world);
        // Neither word starts anything: there is no copy of the cut-over.
        for consent in [&["recover", "--yes"][..], &["recover", "--restore-database", "--yes"]] {
            refuses(&world.cli(consent), &["CRITICAL", "may be damaged", "dump it and check"]);
        }
        nothing_runs(&world);
        let found = issues(&inspection(&world));
        assert!(
            found.iter().any(|one| one.contains("CRITICAL") && one.contains("DATABASE_DAMAGED")),
            "{found:?}"
        );
        // The old container was not removed.
        let all = world.containers();
        assert!(all.iter().any(|one| one["Id"] == before.0), "{step}");
    }
}

/// How many databases were moved aside; their exported rows lie beside them.
fn kept(world: &World) -> usize {
    let home = world.data_dir().join("db");
    world.failed_directories().iter().filter(|name| home.join(name).is_dir()).count()
}

fn prepared(world: &World) -> String {
    let prefix = format!("{}-next-", world.name);
    let names = world.docker(&["ps", "--all", "--format", "{{.Names}}"]);
    let found = names.lines().find(|name| name.starts_with(&prefix));
    found.unwrap_or_else(|| panic!("nothing is prepared: {names}")).to_owned()
}

fn nothing_runs(world: &World) {
    for one in world.containers() {
        assert_ne!(one["State"]["Running"], true, "{}", one["Name"]);
    }
}

#[test]
fn after_two_servers_on_the_way_back_a_plain_recover_starts_nothing() {
    if !in_long_run() || !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6")
        .rows(200)
        .setting("HEALTH_TIMEOUT_SECONDS", "8")
        .setting("VERIFY_SECONDS", "8")
        .start();
    let daemon = world.daemon();
    let tool = Tool::above(&world, "no");
    let mut run = Running::begin(&world, Fixture::get().tag_of("health-500"));
    run.wait_step(&daemon, "verify_old");
    world.docker(&["start", &tool.name]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(5), "{text}\n{}", daemon.log());
    println!("{}", daemon.status()["message"]);
    assert_eq!(daemon.status()["failureCode"], "DATABASE_DAMAGED");
    assert_parts(&text, &["Risk for data: LIKELY"]);
    let parts = ["CRITICAL", "two servers", "recover --restore-database", "dump it and check"];
    for _ in 0..2 {
        refuses(&world.cli(&["recover", "--yes"]), &parts);
        nothing_runs(&world);
    }
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}\n{}", said(&recovered), daemon.log());
    old_serves(&world);
    assert_eq!(kept(&world), 1, "what two worked on: {:?}", world.failed_directories());
}
