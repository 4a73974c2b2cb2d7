//! The same good upgrade in the shapes in which a shop is found: PostgreSQL 15 and 17, the mounts
//! of PayRam's own start command, named volumes, no supervisor. With the database outside of the
//! container: `tests/elsewhere.rs`.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::builder::WorldBuilder;
use support::external::succeed;
use support::operator::{check, plan, said, upgrade};
use support::{World, in_long_run, require};

/// Plan, upgrade, and what is there afterwards.
fn is_upgraded(builder: WorldBuilder) -> World {
    let world = builder.rows(300).start();
    let daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    println!("{}", check(&ready, "directory").1);
    let run = upgrade(&world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}\n{}", said(&run), daemon.log());
    world.assert_sound("1.9.7", "an upgrade");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    world
}

#[test]
fn with_postgresql_17() {
    if require("docker") && in_long_run() {
        is_upgraded(World::build("1.9.6").postgres_17());
    }
}

#[test]
fn with_the_mounts_of_payrams_own_start_command() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").nested_mounts());
    }
}

#[test]
fn with_postgresql_17_nested_mounts_and_no_supervisor() {
    if require("docker") {
        is_upgraded(
            World::build("1.9.6").postgres_17().nested_mounts().env("PAYRAM_SUPERVISOR", "off"),
        );
    }
}

#[test]
fn without_a_supervisor() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").env("PAYRAM_SUPERVISOR", "off"));
    }
}

#[test]
fn in_locale_c_and_sql_ascii() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").env("PAYRAM_ENCODING", "SQL_ASCII"));
    }
}

#[test]
fn with_the_database_in_a_named_volume() {
    if !require("docker") {
        return;
    }
    let volume = Volume(format!("payram-test-shapes-{}", uuid::Uuid::now_v7().simple()));
    // Over the directory that a world mounts.
    is_upgraded(
        World::build("1.9.6").run_args(["--volume", &format!("{}:/var/lib/payram/db", volume.0)]),
    );
}

/// Removed with the test, after the containers on it.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["volume", "rm", &self.0]).output();
        if !removed.is_ok_and(|output| output.status.success()) {
            eprintln!("volume {} is not removed", self.0);
        }
    }
}

/// The engine unmounts such a volume when its last container stops: the directory that its options
/// name is the one that is copied, put back and watched.
#[test]
fn with_the_database_in_a_volume_that_binds_a_directory() {
    if !require("docker") || !in_long_run() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let volume = Volume(format!("payram-test-shapes-{}", uuid::Uuid::now_v7().simple()));
    let device = format!("device={}", home.path().display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    succeed(Command::new("docker").args(["volume", "create"]).args(options).arg(&volume.0));
    let mounted = format!("{}:/var/lib/payram/db", volume.0);
    let world = is_upgraded(World::build("1.9.6").run_args(["--volume", &mounted]));
    let daemon = world.daemon();
    world.begin_upgrade(support::Fixture::get().tag_of("migration-schema"));
    let status = daemon.wait_settled(Duration::from_secs(240));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    let entries = std::fs::read_dir(home.path()).expect("the volume's directory").flatten();
    let names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.contains(".failed-")), "it was put back: {names:?}");
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

/// What is mounted at a directory of this host, until the test ends.
struct MountPoint(PathBuf);

impl Drop for MountPoint {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("{} is not unmounted", self.0.display());
        }
    }
}

/// No rename moves it: it comes back by its contents.
#[test]
fn with_the_databases_directory_as_a_mount_point() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(300).start();
    let directory = world.data_dir().join("db/postgres");
    succeed(Command::new("mount").arg("--bind").arg(&directory).arg(&directory));
    let _mounted = MountPoint(directory);
    let daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    let (_, works) = check(&ready, "directory");
    assert!(works.contains("put back by its contents"), "{works}");
    world.begin_upgrade(support::Fixture::get().tag_of("migration-schema"));
    let status = daemon.wait_settled(Duration::from_secs(240));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    println!("{}", status["message"]);
    assert!(!world.failed_directories().is_empty(), "what the failed version left is kept");
    world.assert_sound("1.9.6", "a way back by contents");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn with_the_hosts_own_process_numbers() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").run_args(["--pid", "host"]));
    }
}
