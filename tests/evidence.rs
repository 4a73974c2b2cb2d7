//! What is believed of a shop's database (I13): it is the directory that the host names and no
//! other one, nobody else works in it, and what is needed for the way back is there, whoever has
//! a hand in it meanwhile. On a real engine, with real servers and real mounts.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::operator::{
    Running, assert_parts, assert_refused, check, identity, inspection, issues, plan, said, upgrade,
};
use support::{Fixture, OwnImage, World, in_long_run, require, wait_until};

/// From something that was done to what follows from it.
const SOON: Duration = Duration::from_secs(60);

fn assert_verified(world: &World, run: &std::process::Output, version: &str) {
    assert_eq!(run.status.code(), Some(0), "{}", said(run));
    world.assert_sound(version, "an upgrade");
}

#[test]
fn a_directory_that_is_not_the_one_the_container_works_in_is_refused_with_both_paths() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let _daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    let named = world.data_dir().join("db/postgres").display().to_string();
    let (passed, why) = check(&ready, "directory");
    assert!(passed && why.contains(&named), "{why}");
    let parts = ["/var/lib/payram/db/postgres", &named, "moved, or something else is mounted over"];

    let moved = Moved::away(&world, None);
    assert_refused(&world, "1.9.7", "DATABASE_MISMATCH", "directory", &[&named]);
    moved.back();
    // An older copy in its place: a good cluster, and not the one that serves.
    let copy = world.path("older");
    copy_tree(&world.data_dir(), &copy);
    let moved = Moved::away(&world, Some(&copy));
    assert_refused(&world, "1.9.7", "DATABASE_MISMATCH", "directory", &parts);
    moved.back();
    let mounted = Mounted::over(&copy, &world.data_dir());
    assert_refused(&world, "1.9.7", "DATABASE_MISMATCH", "directory", &parts);
    drop(mounted);
    let mounted = Mounted::over(&copy.join("db"), &world.data_dir().join("db"));
    assert_refused(&world, "1.9.7", "DATABASE_MISMATCH", "directory", &parts);
    drop(mounted);

    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_directory_that_is_mounted_over_between_the_plan_and_the_stop_stops_nothing() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("VERIFY_SECONDS", "8").start();
    let before = identity(&world);
    let copy = world.path("older");
    copy_tree(&world.data_dir(), &copy);
    let daemon = world.daemon();
    for step in ["prove_backup", "note_programs"] {
        let mut run = Running::begin(&world, "1.9.7");
        run.wait_step(&daemon, step);
        let mounted = Mounted::over(&copy, &world.data_dir());
        let (status, text) = run.end();
        assert_eq!(status.code(), Some(4), "{step}: {text}");
        assert_parts(&text, &["DATABASE_MISMATCH"]);
        println!("{step}: {}", daemon.status()["message"]);
        assert_eq!(identity(&world), before, "{step}: it was stopped");
        drop(mounted);
        world.assert_sound("1.9.6", step);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_symbolic_link_as_the_host_path_is_followed_and_upgraded() {
    if !require("docker") {
        return;
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    let link = elsewhere.path().join("link");
    let real = elsewhere.path().join("real");
    fs::create_dir(&real).expect("a directory");
    symlink(&real, &link).expect("a link");
    // The container's database lies below a link; what the world mounts holds nothing of it.
    let world = World::build("1.9.6")
        .run_args(["--volume", &format!("{}:/var/lib/payram/db", link.display())])
        .rows(200)
        .start();
    let _daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    let (passed, why) = check(&ready, "directory");
    assert!(passed && why.contains(&real.join("postgres").display().to_string()), "{why}");
    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
    assert!(real.join("postgres/PG_VERSION").is_file());
}

#[test]
fn a_volume_that_is_a_name_for_a_directory_is_followed_and_upgraded() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    let real = elsewhere.path().join("real");
    fs::create_dir(&real).expect("a directory");
    let volume = format!("payram-test-{}", uuid::Uuid::now_v7().simple());
    let device = format!("device={}", real.display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    succeed(Command::new("docker").args(["volume", "create"]).args(options).arg(&volume));
    let world = World::build("1.9.6")
        .run_args(["--volume", &format!("{volume}:/var/lib/payram/db")])
        .rows(200)
        .start();
    let daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    // The volume's own place is empty while no container of it runs.
    let (passed, why) = check(&ready, "directory");
    assert!(passed && why.contains(&real.join("postgres").display().to_string()), "{why}");
    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
    assert!(real.join("postgres/PG_VERSION").is_file());
    drop(daemon);
    drop(world);
    succeed(Command::new("docker").args(["volume", "rm", &volume]));
}

#[test]
fn an_image_whose_volume_hides_the_database_is_refused_before_anything_stops() {
    if !require("docker") {
        return;
    }
    let below = OwnImage::derived("1.9.7", "VOLUME /var/lib/payram/db/postgres/pg_wal", false);
    let world = World::build("1.9.6").rows(200).start();
    let before = identity(&world);
    let daemon = world.daemon();
    let tags = [Fixture::get().tag_of("volume-between"), Fixture::get().tag_of("volume-exact")];
    for tag in [tags[0], tags[1], &below.tag] {
        let run = upgrade(&world, tag);
        assert_eq!(run.status.code(), Some(4), "{tag}: {}", said(&run));
        assert_parts(&said(&run), &["DATABASE_MISMATCH", "/var/lib/payram/db"]);
        println!("{tag}: {}", daemon.status()["message"]);
        assert_eq!(identity(&world), before, "{tag}: it was stopped");
        world.assert_sound("1.9.6", tag);
    }
    // Above the mount it hides nothing.
    let above = Fixture::get().tag_of("volume-above");
    let run = upgrade(&world, above);
    assert_verified(&world, &run, above);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_version_that_keeps_its_database_elsewhere_is_never_verified_and_the_old_one_returns() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("HEALTH_TIMEOUT_SECONDS", "15").start();
    let before = world.container().expect("a container")["Id"].clone();
    let daemon = world.daemon();
    for behaviour in ["elsewhere", "second-store"] {
        let tag = Fixture::get().tag_of(behaviour);
        let run = upgrade(&world, tag);
        assert_eq!(run.status.code(), Some(4), "{behaviour}: {}\n{}", said(&run), daemon.log());
        println!("{behaviour}: {}", daemon.status()["message"]);
        assert_eq!(daemon.status()["failureCode"], "DATABASE_MISMATCH", "{behaviour}");
        let serves = world.container().expect("a container");
        assert_eq!(serves["Id"], before, "{behaviour}: it was never removed");
        assert_eq!(world.version().as_deref(), Some("1.9.6"), "{behaviour}");
        // What the other one took lies in its own database, which is kept with its container.
        let kept = world.containers();
        let kept: Vec<&Value> = kept.iter().filter(|one| one["Id"] != before).collect();
        assert!(kept.iter().any(|one| one["State"]["Status"] == "exited"), "{behaviour}: {kept:?}");
        let name = kept[0]["Name"].as_str().expect("a name").trim_start_matches('/').to_owned();
        assert_parts(&world.upgrade_log(), &["is kept, stopped"]);
        world.docker(&["rm", "--volumes", &name]);
        // It acknowledged payments on a database that is not the shop's: those are its own.
        world.wait_for_payments(5);
        let lost = world.payments_lost();
        let others = ["9.2.5", "9.2.6"].map(|tag| format!("\"written_by\":\"{tag}\""));
        let lost = lost.iter().filter(|one| !others.iter().any(|other| one.contains(other)));
        assert_eq!(lost.collect::<Vec<_>>(), Vec::<&String>::new(), "{behaviour}");
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// Begins an upgrade, and waits until the new version answers while it is watched.
fn watched<'w>(world: &'w World, daemon: &support::Daemon, target: &str) -> Running<'w> {
    let mut run = Running::begin(world, target);
    run.wait_step(daemon, "verify");
    run.wait_for("the new version answers", || {
        daemon.log().contains("the new container") && daemon.log().contains("answers at")
    });
    run
}

/// The name of the parked old container.
fn parked(world: &World) -> String {
    let prefix = format!("{}-previous-", world.name);
    let names = world.docker(&["ps", "--all", "--format", "{{.Names}}"]);
    let found = names.lines().find(|name| name.starts_with(&prefix));
    found.unwrap_or_else(|| panic!("nothing is parked: {names}")).to_owned()
}

#[test]
fn the_parked_old_container_started_by_somebody_is_killed_and_a_person_is_called() {
    if !require("docker") {
        return;
    }
    // A published port would keep the two apart.
    let world =
        World::build("1.9.6").unpublished().rows(200).setting("VERIFY_SECONDS", "15").start();
    let before = world.container().expect("a container")["Id"].clone();
    let daemon = world.daemon();
    let run = watched(&world, &daemon, "1.9.7");
    world.docker(&["start", &parked(&world)]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(5), "{text}\n{}", daemon.log());
    println!("{}", daemon.status()["message"]);
    called_for_two_servers(&world, &daemon);
    let shown = world.cli(&["recover", "--dry-run"]);
    println!("recover --dry-run: {}", said(&shown));
    assert_parts(&said(&shown), &["may be damaged", "recover --restore-database"]);
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    let serves = wait_until("the old version serves", SOON, || {
        world
            .container()
            .filter(|_| world.is_healthy() && world.version().as_deref() == Some("1.9.6"))
    });
    assert_eq!(serves["Id"], before);
    let failed = world.failed_directories();
    println!("{failed:?}");
    assert!(
        failed.iter().any(|name| world.data_dir().join("db").join(name).is_dir()),
        "{failed:?}"
    );
}

/// Both are stopped, nothing was verified, and everybody who asks is told.
fn called_for_two_servers(world: &World, daemon: &support::Daemon) {
    let status = daemon.status();
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}");
    assert_eq!(status["failureCode"], "DATABASE_DAMAGED", "{status:#}");
    for one in world.containers() {
        assert_ne!(one["State"]["Running"], true, "{}", one["Name"]);
    }
    let report = inspection(world);
    assert_eq!(report["overallState"], "BROKEN", "{report:#}");
    let found = issues(&report);
    println!("inspect: {found:?}");
    assert!(
        found.iter().any(|one| one.contains("CRITICAL") && one.contains("DATABASE_DAMAGED")),
        "{found:?}"
    );
}

#[test]
fn a_bare_server_on_the_directory_is_killed_and_a_person_is_called() {
    if !require("docker") || !require("postgres") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("VERIFY_SECONDS", "15").start();
    let daemon = world.daemon();
    let elsewhere = HostServer::start(None);
    let run = watched(&world, &daemon, "1.9.7");
    let intruder = HostServer::start(Some(&world.data_dir().join("db/postgres")));
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(5), "{text}\n{}", daemon.log());
    let message = daemon.status()["message"].to_string();
    println!("{message}");
    assert_parts(&message, &["process", "of this host", "is killed"]);
    called_for_two_servers(&world, &daemon);
    assert!(intruder.has_ended(), "it was killed");
    assert!(!elsewhere.has_ended(), "one in a directory of its own was left alone");
}

/// A process called `postgres` of this host that works in a directory, as a server does.
struct HostServer {
    child: std::cell::RefCell<std::process::Child>,
    _home: tempfile::TempDir,
}

impl HostServer {
    /// In this directory; in one of its own when there is none given.
    fn start(directory: Option<&Path>) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        // By its name and where it works: a real one would refuse the lock file, or destroy what
        // the test compares afterwards.
        let program = home.path().join("postgres");
        fs::copy("/bin/sleep", &program).expect("a program");
        let child = Command::new(&program)
            .arg("600")
            .current_dir(directory.unwrap_or(home.path()))
            .spawn()
            .expect("it starts");
        Self { child: child.into(), _home: home }
    }

    fn has_ended(&self) -> bool {
        self.child.borrow_mut().try_wait().expect("a child").is_some()
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // One of them was killed by the product.
        child.kill().ok();
        child.wait().ok();
    }
}

#[test]
fn who_could_start_by_itself_on_the_directory_is_refused_and_who_can_not_is_listed() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let _daemon = world.daemon();
    let by_hand = format!("{}-old", world.name);
    world.create_beside(&by_hand, "1.9.6");
    for policy in ["unless-stopped", "always", "on-failure"] {
        world.docker(&["update", "--restart", policy, &by_hand]);
        let update = format!("update --restart=no {by_hand}");
        let parts = [by_hand.as_str(), policy, &update];
        assert_refused(&world, "1.9.7", "DATABASE_SHARED", "neighbours", &parts);
        let report = inspection(&world);
        assert!(
            issues(&report).iter().any(|one| one.contains(&by_hand)),
            "{policy}: {:?}",
            issues(&report)
        );
    }
    // The advice is good.
    world.docker(&["update", "--restart", "no", &by_hand]);
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    let (passed, why) = check(&ready, "neighbours");
    assert!(passed && why.contains(&by_hand), "{why}");
    println!("{why}");
    let run = upgrade(&world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    world.docker(&["rm", &by_hand]);
    world.assert_sound("1.9.7", "an upgrade beside a container that can't start");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn sidecars_another_shop_and_the_hosts_own_database_are_no_obstacle_and_are_left_alone() {
    if !in_long_run() || !require("docker") || !require("root") {
        return;
    }
    let other_shop = World::build("1.9.6").rows(20).start();
    let untouched = identity(&other_shop);
    let host = HostServer::start(None);
    let world = World::build("1.9.6").rows(200).start();
    let tool = OwnImage::derived("2.0.0", "", true);
    world.docker(&["pull", "--quiet", &tool.image]);
    // Of another product, as far as names tell.
    let image = format!("payram-test-tool:{}", tool.tag);
    world.docker(&["tag", &tool.image, &image]);
    let database = world.data_dir().join("db/postgres").display().to_string();
    let beside = [
        // A dashboard that reads along, and a backup job that sees everything.
        Sidecar::run(&world, &image, &[&format!("{database}:/db:ro")]),
        Sidecar::run(&world, &image, &[&format!("{}:/backup", world.data_dir().display())]),
    ];
    let _daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    println!("{}", check(&ready, "neighbours").1);
    let run = upgrade(&world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    for sidecar in &beside {
        let state = world.inspect(&sidecar.0).expect("it is there");
        assert_eq!(state["State"]["Running"], true, "{state:#}");
        assert_eq!(state["RestartCount"], 0);
    }
    assert_eq!(identity(&other_shop), untouched);
    assert!(!host.has_ended());
    drop(beside);
    world.docker(&["image", "rm", &image]);
    world.assert_sound("1.9.7", "an upgrade beside others");
    assert!(other_shop.is_healthy());
    assert_eq!(other_shop.payments_lost(), Vec::<String>::new());
}

/// A container that runs no server; removed with the test.
struct Sidecar(String);

impl Sidecar {
    fn run(world: &World, image: &str, volumes: &[&str]) -> Self {
        let name = format!("payram-test-beside-{}", uuid::Uuid::now_v7().simple());
        let mut args = vec!["run", "--detach", "--name", &name, "--restart", "always"];
        for volume in volumes {
            args.extend(["--volume", volume]);
        }
        args.extend([image, "sleep", "infinity"]);
        world.docker(&args);
        Self(name)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["rm", "--force", &self.0]).output();
        if !removed.is_ok_and(|output| output.status.success()) {
            eprintln!("{} is not removed", self.0);
        }
    }
}

#[test]
fn what_a_clean_up_job_removes_is_noticed_before_the_stop_and_made_again_afterwards() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .rows(200)
        .setting("VERIFY_SECONDS", "8")
        .setting("HEALTH_TIMEOUT_SECONDS", "12")
        .start();
    let before = identity(&world);
    let daemon = world.daemon();

    let mut run = Running::begin(&world, "1.9.7");
    run.wait_step(&daemon, "note_programs");
    let next = world.docker(&["ps", "--all", "--format", "{{.Names}}"]);
    let prefix = format!("{}-next-", world.name);
    let next = next.lines().find(|name| name.starts_with(&prefix)).expect("it is prepared");
    world.docker(&["rm", next]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(4), "{text}");
    assert_parts(&text, &["CONTAINER_NOT_FOUND"]);
    println!("{}", daemon.status()["message"]);
    assert_eq!(identity(&world), before, "it was stopped");
    world.assert_sound("1.9.6", "the new container was removed");

    let spec = world.container().expect("a container");
    let mut run = Running::begin(&world, Fixture::get().tag_of("health-500"));
    run.wait_step(&daemon, "verify");
    world.docker(&["rm", &parked(&world)]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(4), "{text}\n{}", daemon.log());
    println!("{}", daemon.status()["message"]);
    assert_parts(&world.upgrade_log(), &["was removed by somebody", "it is made again"]);
    let again = world.container().expect("a container");
    assert_ne!(again["Id"], spec["Id"]);
    for field in ["Image", "Mounts"] {
        assert_eq!(sorted(&again[field]), sorted(&spec[field]), "{field}");
    }
    for field in ["Env", "Cmd", "Image"] {
        assert_eq!(again["Config"][field], spec["Config"][field], "{field}");
    }
    for field in ["Binds", "PortBindings", "RestartPolicy"] {
        assert_eq!(again["HostConfig"][field], spec["HostConfig"][field], "{field}");
    }
    world.assert_sound("1.9.6", "the parked container was removed");

    // A good version needs no way back: nothing is made again for it, or it is tidied away.
    let mut run = Running::begin(&world, "1.9.7");
    run.wait_step(&daemon, "verify");
    world.docker(&["rm", &parked(&world)]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(0), "{text}\n{}", daemon.log());
    world.assert_sound("1.9.7", "the parked container of a good version was removed");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

fn sorted(value: &Value) -> Value {
    let mut sorted = value.clone();
    if let Some(list) = sorted.as_array_mut() {
        list.sort_by_key(ToString::to_string);
    }
    sorted
}

#[test]
fn an_old_container_whose_image_was_removed_too_is_a_persons_and_the_database_stays() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let own = OwnImage::derived("1.9.6", "", true);
    let world = World::build(&own.tag).rows(200).setting("HEALTH_TIMEOUT_SECONDS", "12").start();
    let daemon = world.daemon();
    let mut run = Running::begin(&world, Fixture::get().tag_of("health-500"));
    run.wait_step(&daemon, "verify");
    world.docker(&["rm", &parked(&world)]);
    world.docker(&["image", "rm", &own.image]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(5), "{text}\n{}", daemon.log());
    let message = daemon.status()["message"].to_string();
    println!("{message}");
    assert_parts(
        &message,
        &["removed by somebody", "not made again", "is not on this host any more"],
    );
    let shown = said(&world.cli(&["recover", "--dry-run"]));
    println!("recover --dry-run: {shown}");
    assert_parts(
        &shown,
        &["made again from", "must be on this host", "on the database that is there"],
    );
    // The advice of the image is good: with it the way back is taken to its end.
    world.docker(&["pull", "--quiet", &own.image]);
    let recovered = world.cli(&["recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    let shown = said(&world.cli(&["recover", "--dry-run"]));
    assert_parts(&shown, &["the old version serves; nothing to recover"]);
    wait_until("the old version serves", SOON, || {
        (world.is_healthy() && world.version().as_deref() == Some("1.9.6")).then_some(())
    });
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn files_on_no_mount_are_listed_in_the_plan_and_kept_in_an_archive() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    let daemon = world.daemon();
    let (_, before) = plan(&world, "1.9.7");
    println!("{}", check(&before, "unmounted").1);
    let write = "mkdir -p /opt/keys/hot && echo the-hot-key > /opt/keys/hot/wallet && \
        echo certificate > /etc/ssl/shop.pem && echo x > /tmp/scratch && echo y >> /etc/hostname-of-shop";
    world.docker(&["exec", &world.name, "sh", "-c", write]);
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    let (passed, why) = check(&ready, "unmounted");
    println!("{why}");
    assert!(passed, "{why}");
    assert_parts(why, &["/opt/keys", "/etc/ssl/shop.pem", "/etc/hostname-of-shop"]);
    assert!(!why.contains("/tmp/scratch"), "{why}");
    let mut run = Running::begin(&world, "1.9.7");
    run.wait_for("they are kept", || daemon.log().contains("kept in "));
    let late = "echo renewed > /opt/keys/renewed.key && echo held > /opt/wallet.lock";
    world.docker(&["exec", &world.name, "sh", "-c", late]);
    let (status, text) = run.end();
    assert_eq!(status.code(), Some(0), "{text}\n{}", daemon.log());
    world.assert_sound("1.9.7", "an upgrade");
    drop(daemon);

    let kept = world.files_below("state/unmounted");
    for (path, _, mode) in &kept {
        assert_eq!(mode & 0o7777, 0o600, "{}", path.display());
        let home = path.parent().expect("a directory");
        let mode = fs::metadata(home).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", home.display());
    }
    let unpacked = world.path("unpacked");
    fs::create_dir(&unpacked).expect("a directory");
    for (path, _, _) in &kept {
        succeed(
            Command::new("tar").arg("--extract").arg("--file").arg(path).arg("-C").arg(&unpacked),
        );
    }
    let found: Vec<(PathBuf, Vec<u8>, u32)> = world.files_below("unpacked");
    for (end, content) in [
        ("keys/hot/wallet", "the-hot-key\n"),
        ("shop.pem", "certificate\n"),
        ("keys/renewed.key", "renewed\n"),
        ("wallet.lock", "held\n"),
    ] {
        let one = found.iter().find(|(path, _, _)| path.ends_with(end));
        let (_, bytes, _) = one.unwrap_or_else(|| panic!("{end} is kept: {found:?}"));
        assert_eq!(bytes, content.as_bytes());
    }
    let inside = world.docker(&["exec", &world.name, "sh", "-c", "ls /opt/keys 2>&1 || true"]);
    println!("in the new container: {inside}");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_lock_file_that_a_killed_server_left_is_renamed_aside_and_the_new_version_serves() {
    if !require("docker") {
        return;
    }
    let (ignores, busy) =
        (Fixture::get().tag_of("ignores-term"), Fixture::get().tag_of("busy-pids"));
    let world = World::build(ignores).run_args(["--stop-timeout", "3"]).rows(200).start();
    let daemon = world.daemon();
    let run = upgrade(&world, busy);
    assert_verified(&world, &run, busy);
    assert_parts(&world.upgrade_log(), &["was killed", "postmaster.pid.stale-"]);
    let log = world.container_log();
    assert!(!log.contains("lock file \"postmaster.pid\" already exists"), "{log}");
    drop(daemon);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// The database's place on this host under another name, with something else in its stead.
struct Moved {
    here: PathBuf,
    away: PathBuf,
    instead: Option<PathBuf>,
}

impl Moved {
    fn away(world: &World, instead: Option<&Path>) -> Self {
        let (here, away) = (world.data_dir(), world.path("moved"));
        fs::rename(&here, &away).expect("moved");
        if let Some(instead) = instead {
            fs::rename(instead, &here).expect("put in its place");
        }
        Self { here, away, instead: instead.map(Path::to_owned) }
    }

    fn back(self) {
        if let Some(instead) = &self.instead {
            fs::rename(&self.here, instead).expect("taken away");
        }
        fs::rename(&self.away, &self.here).expect("moved back");
    }
}

/// A directory that is mounted over another one, on this host alone.
struct Mounted(PathBuf);

impl Mounted {
    fn over(what: &Path, at: &Path) -> Self {
        succeed(Command::new("mount").arg("--bind").args([what, at]));
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Something may look into it at this moment.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted over", self.0.display());
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    // The server writes meanwhile; what is half copied doesn't matter here.
    let copied = Command::new("cp").arg("--archive").args([from, to]).output().expect("cp");
    assert!(to.join("db/postgres/global/pg_control").is_file(), "{copied:?}");
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
