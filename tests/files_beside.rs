//! Files beside the database: what a failed version rewrote, took away, added or gave to another
//! owner is as it was before when the old version comes back, and what the failed one had is kept.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use support::operator::assert_parts;
use support::{Fixture, OwnImage, World, require};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

#[test]
fn a_key_store_that_a_failed_version_rewrote_is_put_back_and_the_old_version_serves() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).impatient().nested_mounts().start();
    let key = world.data_dir().join("keystore.json");
    let before = text(&key);
    assert!(before.contains("\"format\":1"), "{before}");
    let daemon = world.daemon();
    let tag = Fixture::get().tag_of("rewrites-key");
    let plan = world.cli(&["dry-run", "--mode", "manual", "--to", tag, "--json"]);
    println!("plan: {}", String::from_utf8_lossy(&plan.stdout));
    world.begin_upgrade(tag);
    let status = daemon.wait_settled(END_LIMIT);
    let message = status["message"].as_str().unwrap_or_default();
    println!("message: {message}");
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert_parts(message, &["put back, because ", "keystore.json", "own are kept in"]);
    world.wait_healthy();
    assert_eq!(text(&key), before);
    assert_eq!(world.version().as_deref(), Some("1.9.6"));
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    let failed = kept_files(&world, "failed");
    assert!(failed.iter().any(|path| text(Path::new(path)).contains("\"format\":2")), "{failed:?}");
    assert_eq!(kept_files(&world, "kept"), Vec::<String>::new(), "the copy is not needed any more");
}

/// Files below `STATE_DIR/files/HOP/…` whose path has this part.
fn kept_files(world: &World, part: &str) -> Vec<String> {
    let mut ahead = vec![world.path("state/files")];
    let mut found = Vec::new();
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => ahead.push(path),
                path => found.push(path.display().to_string()),
            }
        }
    }
    found.retain(|path| path.contains(&format!("/{part}/")));
    found
}

/// A version that fails in this way, and that does this at its start.
fn failing(behaviour: &str, harm: &str) -> OwnImage {
    let lines = format!(
        "RUN mv /opt/payram/entrypoint /opt/payram/entrypoint.own && printf '%s\\n' '#!/bin/bash' \
         \"{harm}\" 'exec /opt/payram/entrypoint.own \"$@\"' > /opt/payram/entrypoint && \
         chmod 755 /opt/payram/entrypoint"
    );
    OwnImage::derived(Fixture::get().tag_of(behaviour), &lines, false)
}

#[test]
fn files_that_a_failed_version_changed_stay_with_its_rows_and_are_told() {
    if !require("docker") {
        return;
    }
    let failing = failing(
        "health-500-writes",
        "cd /root/payram && printf other > settings && rm -f gone && printf two >> grows && \
         printf new > invoice && cd /",
    );
    let world = World::build("1.9.6").rows(200).impatient().nested_mounts().start();
    let at = |name: &str| world.data_dir().join(name);
    fs::write(at("settings"), "mine").expect("a file");
    fs::write(at("gone"), "still here").expect("a file");
    fs::write(at("grows"), "one").expect("a file");
    let daemon = world.daemon();
    world.begin_upgrade(&failing.tag);
    let status = daemon.wait_settled(END_LIMIT);
    let message = status["message"].as_str().unwrap_or_default();
    println!("message: {message}");
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    let files = ["gone", "grows", "invoice", "settings"].map(|name| format!("/root/payram/{name}"));
    assert_parts(
        message,
        &["workers wrote is kept in the database", &format!("has them: {}", files.join(", "))],
    );
    assert_eq!(text(&at("settings")), "other", "a row that stays may be about it");
    assert_eq!(text(&at("grows")), "onetwo");
    assert!(!kept_files(&world, "kept").is_empty(), "as they were before");
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

#[test]
fn a_rewritten_key_store_with_which_the_old_version_does_not_start_is_put_back_beside_its_rows() {
    if !require("docker") {
        return;
    }
    let failing = failing(
        "health-500-writes",
        "(sleep 4; cd /root/payram; sed -i s/:1,/:2,/ keystore.json; printf two >> grows; \
         chown 4242 kept) &",
    );
    let world = World::build("1.9.6").rows(200).impatient().nested_mounts().start();
    let at = |name: &str| world.data_dir().join(name);
    fs::write(at("grows"), "one").expect("a file");
    fs::write(at("kept"), "mine").expect("a file");
    let owner = fs::metadata(at("kept")).expect("it").uid();
    let before = text(&at("keystore.json"));
    let daemon = world.daemon();
    world.begin_upgrade(&failing.tag);
    let status = daemon.wait_settled(END_LIMIT);
    let message = status["message"].as_str().unwrap_or_default();
    println!("message: {message}");
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert!(daemon.log().contains("assess_again"), "{}", daemon.log());
    assert_parts(message, &["workers wrote is kept in the database", "/root/payram/keystore.json"]);
    let failed = kept_files(&world, "failed");
    assert!(failed.iter().any(|path| text(Path::new(path)).contains("format\":2")), "{failed:?}");
    assert_eq!(text(&at("keystore.json")), before);
    assert_eq!(text(&at("grows")), "onetwo", "a row that stays may be about it");
    assert_eq!(fs::metadata(at("kept")).expect("it").uid(), owner);
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_volume_a_single_file_and_a_linked_directory_come_back_and_a_shared_one_is_nobodys() {
    if !require("docker") {
        return;
    }
    let failing = failing(
        "health-500",
        "printf bad > /extra/key; printf bad > /one.json; printf bad > /linked/key; \
         printf bad > /shared/key; mkdir /linked/new; printf new > /linked/new/file",
    );
    let home = tempfile::tempdir().expect("a directory");
    let at = |name: &str| home.path().join(name);
    for directory in ["real", "shared"] {
        fs::create_dir(at(directory)).expect("a directory");
        fs::write(at(directory).join("key"), "good").expect("a file");
    }
    fs::write(at("one.json"), "good").expect("a file");
    std::os::unix::fs::symlink(at("real"), at("link")).expect("a link");
    let volume = format!("payram-test-{}", uuid::Uuid::now_v7().simple());
    let mounts = [
        format!("{volume}:/extra"),
        format!("{}:/one.json", at("one.json").display()),
        format!("{}:/linked", at("link").display()),
        format!("{}:/shared", at("shared").display()),
    ];
    let mut arguments: Vec<&str> = mounts.iter().flat_map(|it| ["--volume", it]).collect();
    arguments.extend(["--label", "test.with=companions"]);
    let builder = World::build("1.9.6").rows(200).impatient();
    let world = builder.run_args(arguments).start();
    world.docker(&["exec", &world.name, "sh", "-c", "printf good > /extra/key"]);
    let other = format!("{}-other", world.name);
    let shared = format!("{}:/shared", at("shared").display());
    let image = Fixture::get().image("1.9.6");
    let run = ["run", "--detach", "--name", &other, "--volume", &shared, "--entrypoint", "sleep"];
    world.docker(&[&run[..], &[&image, "600"]].concat());
    let daemon = world.daemon();
    world.begin_upgrade(&failing.tag);
    let status = daemon.wait_settled(END_LIMIT);
    world.docker(&["rm", "--force", &other]);
    let message = status["message"].as_str().unwrap_or_default();
    println!("message: {message}");
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert_parts(
        message,
        &["changed them: /extra/key, /linked/key, /one.json", "added them: /linked/new/file"],
    );
    let log = world.upgrade_log();
    assert!(log.contains(&format!("/shared: container {other} writes to it, too")), "{log}");
    for good in ["real/key", "one.json"] {
        assert_eq!(text(&at(good)), "good", "{good}");
    }
    assert_eq!(text(&at("shared/key")), "bad", "it is not this shop's alone");
    assert!(!at("real/new").exists());
    world.wait_healthy();
    let key = ["exec", &world.name, "cat", "/extra/key", "/one.json", "/linked/key"];
    assert_eq!(world.docker(&key), "goodgoodgood", "and so it is inside");
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    drop((daemon, world));
    // Its container is gone.
    std::process::Command::new("docker").args(["volume", "rm", &volume]).output().ok();
}
