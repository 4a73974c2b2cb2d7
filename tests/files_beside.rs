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

#[test]
fn whatever_a_failed_version_did_to_files_is_undone_where_its_rows_stay_too() {
    if !require("docker") {
        return;
    }
    // Its workers write rows meanwhile, which stay.
    let home = "/root/payram";
    let harm = format!(
        "cd {home} && printf other > settings && rm -f gone && chown -R 4242 kept && \
         chmod 600 kept/inner && printf two >> grows && printf new > invoice && cd /"
    );
    let lines = format!(
        "RUN mv /opt/payram/entrypoint /opt/payram/entrypoint.own && printf '%s\\n' '#!/bin/bash' \
         \"{harm}\" 'exec /opt/payram/entrypoint.own \"$@\"' > /opt/payram/entrypoint && \
         chmod 755 /opt/payram/entrypoint"
    );
    let failing = OwnImage::derived(Fixture::get().tag_of("health-500-writes"), &lines, false);
    let world = World::build("1.9.6").rows(200).impatient().nested_mounts().start();
    let at = |name: &str| world.data_dir().join(name);
    fs::write(at("settings"), "mine").expect("a file");
    fs::write(at("gone"), "still here").expect("a file");
    fs::write(at("grows"), "one").expect("a file");
    fs::create_dir(at("kept")).expect("a directory");
    fs::write(at("kept/inner"), "inner").expect("a file");
    let owner = fs::metadata(at("kept/inner")).expect("it").uid();
    let daemon = world.daemon();
    world.begin_upgrade(&failing.tag);
    let status = daemon.wait_settled(END_LIMIT);
    let message = status["message"].as_str().unwrap_or_default();
    println!("message: {message}");
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert_parts(
        message,
        &[
            "workers wrote is kept in the database",
            "/root/payram/gone, /root/payram/settings",
            "only added to them: /root/payram/grows, /root/payram/invoice",
            "owner or mode of 2 files and directories put right",
        ],
    );
    assert_eq!(text(&at("settings")), "mine");
    assert_eq!(text(&at("gone")), "still here");
    assert_eq!(text(&at("grows")), "onetwo", "a row that stays may be about it");
    assert_eq!(text(&at("invoice")), "new");
    let inner = fs::metadata(at("kept/inner")).expect("it");
    assert_eq!((inner.uid(), inner.mode() & 0o777), (owner, 0o644));
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}
