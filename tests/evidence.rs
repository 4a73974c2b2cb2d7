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
use support::{Fixture, World, require, wait_until};

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
