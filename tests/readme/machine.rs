//! The document followed on a machine that boots systemd, from nothing to the first upgrade, with
//! every setting as it is installed: by somebody new, and by somebody who has the earlier tool.
//! Prints how long it took. Part of the long run.

use std::fs;
use std::time::Instant;

use crate::README;
use crate::blocks::{commands, program_words};
use crate::support::machine::{Machine, release};
use crate::support::{World, in_long_run, require};

/// Sections in the order in which somebody comes to them.
const PATH: [&str; 5] =
    ["Configure", "The service", "Run an upgrade", "Let it update by itself", "Backups"];

/// The installer's line of the document, with this release, policy and manifest.
fn one_line(base: &str, world: &World) -> String {
    let all = commands(README);
    let install = all.iter().find(|typed| typed.section == "Install").expect("a way to install");
    let path = |name: &str| world.path(name).display().to_string();
    install
        .line
        .replace("https://github.com/PayRam/payram-updates/releases/latest/download", base)
        .replace("https://…/upgrade-policy.json", &path("policy.json"))
        .replace("https://…/runtime-manifest.json", &path("manifest.json"))
}

/// What is typed where a command asks, and what a person ends by hand.
fn keys(line: &str) -> &'static str {
    match program_words(line).unwrap_or_default().as_slice() {
        ["run", ..] | ["cancel", ..] => "y\n",
        ["cleanup", ..] | ["backup", "restore", ..] => "yes\n",
        ["init"] => "n\n",
        _ => "q\n",
    }
}

/// Types what the sections of a newcomer's path say; the lines that did not end well.
fn follow(machine: &Machine, world: &World, began: Instant) -> Vec<String> {
    let mut wrong = Vec::new();
    for typed in commands(README) {
        if !PATH.contains(&&*typed.section) {
            continue;
        }
        let newest = "$(ls -t /var/lib/payram-updater/data/backups/*.dump | head -n 1)";
        let line = typed.line.replace("FILE", newest);
        let is_endless = line.ends_with(" -f");
        let run = if is_endless { format!("timeout 3 {line}") } else { line.clone() };
        let (shown, exit) = machine.typed(&run, keys(&line));
        println!("$ {line}\n{shown}");
        if line.contains("payram-updater run --to") {
            println!("upgraded after {}", minutes(began));
            machine.await_verified(world, "1.9.7");
            // A backup that is put back does without what was written since.
            assert_eq!(world.lost(), Vec::<String>::new());
        }
        let expected = match program_words(&line).unwrap_or_default().as_slice() {
            // Nothing is under way any more.
            ["cancel", ..] => 1,
            _ if is_endless => 124,
            _ => 0,
        };
        if exit != Some(expected) {
            wrong.push(format!("{line} ended with {exit:?}:\n{shown}"));
        }
    }
    wrong
}

fn minutes(since: Instant) -> String {
    let seconds = since.elapsed().as_secs();
    format!("{} min {} s", seconds / 60, seconds % 60)
}

fn followed_by_somebody_new(suite: &str) {
    let world = World::build("1.9.6").below("/srv").rows(200).start();
    let machine = Machine::boot(suite, &world);
    let base = release();
    let began = Instant::now();
    let (shown, exit) = machine.typed(&one_line(&base, &world), "");
    println!("{shown}");
    assert_eq!(exit, Some(0), "{shown}");
    println!("{suite}: installed after {}", minutes(began));
    let wrong = follow(&machine, &world, began);
    println!("{suite}: the whole README after {}", minutes(began));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn somebody_new_follows_the_readme_on_debian_12() {
    if in_long_run() && require("docker") {
        followed_by_somebody_new("bookworm");
    }
}

#[test]
fn somebody_new_follows_the_readme_on_debian_13() {
    if in_long_run() && require("docker") {
        followed_by_somebody_new("trixie");
    }
}

#[test]
fn somebody_with_the_earlier_tool_follows_the_readme() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6").below("/srv").rows(200).start();
    let machine = Machine::boot("bookworm", &world);
    // The earlier tool, as its own installer leaves it, after an upgrade and with a backup.
    let path = |name: &str| world.path(name).display().to_string();
    let settings = format!(
        "# settings of the earlier updater\nPOLICY_URL={}\nRUNTIME_MANIFEST_URL={}\nEXECUTION_MODE=execute\nUPDATER_PORT=2567\n",
        path("policy.json"),
        path("manifest.json")
    );
    let sql = "payram-backup-20260102-030405-1.9.5-to-1.9.6.sql";
    let dump =
        "PGPASSWORD=$POSTGRES_PASSWORD pg_dump -h 127.0.0.1 -U payram --clean --if-exists payram";
    let dump = world.docker(&["exec", &world.name, "sh", "-c", dump]);
    fs::write(world.path("earlier.env"), settings).expect("a file");
    fs::write(world.path("earlier.sql"), dump).expect("a file");
    machine.must(&format!(
        "set -e; state=/var/lib/payram-updater; mkdir -p /etc/payram $state/data/backups
        cp {} /etc/payram/updater.env
        cp {} $state/data/backups/{sql}
        echo '{{\"jobId\":\"job-1\",\"state\":\"READY\"}}' >$state/status.json
        echo '{{\"id\":\"1\",\"type\":\"upgrade\"}}' >$state/history.jsonl
        echo '{{\"autoUpdateEnabled\":false,\"autoUpdateIntervalHours\":6,\"initialized\":true}}' >$state/updater-config.json
        printf '#!/bin/sh\\n[ \"$1\" = serve ] && exec sleep infinity\\necho the earlier updater\\n' >/usr/local/bin/payram-updater
        chmod 755 /usr/local/bin/payram-updater
        printf '[Service]\\nExecStart=/usr/local/bin/payram-updater serve\\n[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/payram-updater.service
        systemctl daemon-reload; systemctl enable --now payram-updater 2>/dev/null",
        path("earlier.env"),
        path("earlier.sql"),
    ));
    let base = release();
    let began = Instant::now();
    // As the document says: without the URLs. It asks whether it may replace what is there.
    let line: Vec<String> = one_line(&base, &world)
        .split_whitespace()
        .filter(|word| !word.contains("_URL="))
        .map(str::to_owned)
        .collect();
    let (shown, exit) = machine.typed(&line.join(" "), "y\n");
    println!("{shown}");
    assert_eq!(exit, Some(0), "{shown}");
    for part in ["status.json history.jsonl", "updater-config.json", ".sql backups", "are kept"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    println!("installed in the earlier tool's place after {}", minutes(began));
    let listed = machine.must("payram-updater backup list --text");
    assert!(listed.contains(sql), "{listed}");
    let kept = machine.must("cat /var/lib/payram-updater/updater-config.json");
    assert!(kept.contains("\"autoUpdateIntervalHours\":6"), "{kept}");
    let (shown, exit) = machine.typed("sudo payram-updater run --to 1.9.7", "y\n");
    println!("{shown}");
    assert_eq!(exit, Some(0), "{shown}");
    machine.await_verified(&world, "1.9.7");
    println!("upgraded after {}", minutes(began));
    assert_eq!(world.lost(), Vec::<String>::new());
    // The earlier tool's own backup can still be put back.
    let (shown, exit) =
        machine.typed(&format!("sudo payram-updater backup restore --file {sql}"), "yes\n");
    println!("{shown}");
    assert_eq!(exit, Some(0), "{shown}");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
