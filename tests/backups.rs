//! Backups by hand: made, listed, put back, on a real engine with a real database that takes
//! payments. A restore that fails, or whose daemon is killed at any step, leaves the old data or
//! the new, whole; what was there before is kept.
//!
//! Two of the points by default; all of them with `PAYRAM_TEST_FULL=1`.

mod support;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::operator::{identity, said};
use support::{Daemon, Draw, Point, Trap, World, is_full, require, wait_until};

/// From the restart to the end of the job.
const END_LIMIT: Duration = Duration::from_secs(120);
/// The steps of a restore that goes well, each with the points at which its daemon is killed.
const FORWARD: [(&str, &[Point]); 6] = [
    ("load", &[Point::Unasked, Point::Unanswered, Point::Unjournaled]),
    ("note_programs", &[Point::Unasked, Point::Unjournaled]),
    ("silence", &[Point::Unasked, Point::Unanswered, Point::Unjournaled]),
    ("swap", &[Point::Unasked, Point::Unanswered, Point::Unjournaled]),
    ("start_programs", &[Point::Unasked, Point::Unanswered, Point::Unjournaled]),
    ("verify", &[Point::Unasked, Point::Unjournaled]),
];
/// And of the way back of one on whose data the application is not well.
const BACK: [(&str, &[Point]); 2] = [
    ("silence_again", &[Point::Unasked, Point::Unjournaled]),
    ("swap_back", &[Point::Unasked, Point::Unanswered, Point::Unjournaled]),
];

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// `backup create`: the file's path.
fn create(world: &World) -> PathBuf {
    let made = world.cli(&["backup", "create"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    json(&made)["backup"]["path"].as_str().expect("a path").into()
}

fn restore(world: &World, file: &Path, more: &[&str]) -> Output {
    let file = file.display().to_string();
    let mut args = vec!["backup", "restore", "--file", &file];
    args.extend(more);
    world.cli(&args)
}

fn databases(world: &World) -> Vec<String> {
    let names = world.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1");
    names.lines().map(str::to_owned).collect()
}

/// Ids of the payments in another database of the server.
fn payments_in(world: &World, database: &str) -> HashSet<String> {
    let answer = world.sql(&format!("\\connect {database}\nSELECT id FROM payments"));
    answer.lines().map(str::to_owned).collect()
}

/// Nothing that was acknowledged is gone: it is in what serves or in what is kept.
fn assert_nothing_lost(world: &World, kept: &[String], after: &str) {
    let acked = world.acked();
    let mut there = world.payments();
    for database in kept {
        there.extend(payments_in(world, database));
    }
    let lost = acked.iter().filter(|id| !there.contains(*id)).count();
    println!("{after}: {} acknowledged, {lost} lost", acked.len());
    assert_eq!(lost, 0, "{after}: lost of {} acknowledged", acked.len());
}

/// What was acknowledged until now goes with a database that is dropped.
fn forget_acked(world: &World) {
    fs::write(world.ack_dir().join("acked.log"), "").expect("emptied");
}

fn kept(world: &World) -> Vec<String> {
    let all = databases(world).into_iter();
    all.filter(|name| name.starts_with("payram_before_") || name.starts_with("payram_failed_"))
        .collect()
}

fn events(world: &World, kind: &str) -> Vec<Value> {
    let history = world.cli(&["history", "--type", kind, "--json"]);
    json(&history)["events"].as_array().expect("events").clone()
}

#[test]
fn a_dropped_table_comes_back_and_a_file_that_is_not_good_changes_nothing() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(300).setting("BACKUP_RETENTION", "2").start();
    let off = world.path("elsewhere");
    fs::create_dir(&off).expect("a directory");
    let script = world.path("copy");
    let text = format!("#!/bin/sh\ncp -- \"$1\" {}/ && echo copied \"$1\"\n", off.display());
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("executable");
    world.set("BACKUP_COPY_COMMAND", &script.display().to_string());
    let daemon = world.daemon();
    let acked_before: HashSet<String> = world.acked().into_iter().collect();

    let created = world.cli(&["backup", "create"]);
    assert_eq!(created.status.code(), Some(0), "{}", said(&created));
    let created = json(&created);
    let made = &created["backup"];
    println!("{made:#}");
    assert_eq!(created["success"], true);
    for key in ["id", "path", "filename", "checksum", "createdAt", "database", "host"] {
        assert!(made[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {made:#}");
    }
    assert!(made["size"].as_u64() > Some(1000) && made["port"] == 5432, "{made:#}");
    assert_eq!(
        (&made["fromVersion"], &made["targetVersion"]),
        (&"manual".into(), &"manual".into())
    );
    assert_eq!((&made["version"], &made["copied"]["success"]), (&"1.9.6".into(), &true.into()));
    let file = PathBuf::from(made["path"].as_str().expect("a path"));
    let name = file.file_name().expect("a name").to_owned();
    assert!(off.join(&name).is_file(), "it was copied off");
    let mode = fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let sidecar: Value =
        serde_json::from_slice(&fs::read(format!("{}.json", file.display())).expect("a sidecar"))
            .expect("JSON");
    assert_eq!((&sidecar["fromVersion"], &sidecar["sha256"]), (&"1.9.6".into(), &made["checksum"]));
    assert!(sidecar["rows"].as_u64() > Some(300), "{sidecar:#}");
    let listed = json(&world.cli(&["backup", "list"]));
    assert_eq!((&listed["count"], &listed["success"]), (&1.into(), &true.into()), "{listed:#}");
    assert_eq!(listed["backups"][0]["file"], made["path"]);
    assert_eq!(daemon.get("/backups").json()["backups"], listed["backups"]);
    let statuses: Vec<Value> =
        events(&world, "backup").iter().map(|event| event["status"].clone()).collect();
    assert_eq!(statuses, ["validated", "succeeded"]);
    assert_eq!(events(&world, "backup_copy")[0]["status"], "succeeded");

    // Files that are not good.
    let before = (databases(&world), identity(&world));
    let good = fs::read(&file).expect("a dump");
    let noted = fs::read(format!("{}.json", file.display())).expect("a sidecar");
    let mut flipped = good.clone();
    let at = flipped.len() - 200;
    flipped[at] ^= 4;
    for (bad, bytes, with_sidecar, why) in [
        ("cut.dump", &good[..good.len() / 2], true, "bytes, found"),
        ("empty.dump", &good[..0], false, "it is empty"),
        ("foreign.dump", &b"\x7fELF and so on"[..], false, "it is no backup"),
        ("flipped.dump", &flipped, true, "expected sha256"),
        ("headless.dump", &b"PGDMP and nothing"[..], false, "read back"),
    ] {
        let path = world.path(bad);
        fs::write(&path, bytes).expect("a file");
        if with_sidecar {
            fs::write(format!("{}.json", path.display()), &noted).expect("a sidecar");
        }
        let refused = restore(&world, &path, &["--yes"]);
        assert_eq!(refused.status.code(), Some(1), "{bad}: {}", said(&refused));
        let text = said(&refused);
        assert!(text.contains("BACKUP_INVALID") && text.contains(why), "{bad}: {text}");
        println!("{bad}: {}", json(&refused)["error"]);
    }
    assert_eq!(daemon.status()["state"], "IDLE", "no job was made");
    // A fault that shows only while it is loaded.
    let path = world.path("unnoted.dump");
    fs::write(&path, &flipped).expect("a file");
    let failed = restore(&world, &path, &["--yes"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    let status = daemon.status();
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains("Nothing was changed"), "{status:#}");
    assert_eq!((&status["kind"], &status["state"]), (&"restore".into(), &"FAILED".into()));
    assert!(status["recoveryPlaybook"].is_object(), "{status:#}");
    assert_eq!((databases(&world), identity(&world)), before, "something was changed");
    world.wait_for_payments(1);

    // Silence is no consent.
    let silent = restore(&world, &file, &[]);
    assert_eq!(silent.status.code(), Some(2), "{}", said(&silent));
    let full = restore(&world, &file, &["--yes", "--full-recovery"]);
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    assert_eq!((databases(&world), identity(&world)), before);

    world.sql("DROP TABLE wallets");
    world.wait_for_payments(1);
    let done = restore(&world, &file, &["--yes", "--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let done = json(&done);
    println!("{}", done["job"]["message"]);
    println!("down for {} s", done["job"]["downtimeSeconds"]);
    assert_eq!(done["success"], true);
    let kept_as = done["job"]["keptDatabase"].as_str().expect("its name").to_owned();
    assert_eq!(databases(&world), ["payram", &kept_as, "postgres"]);
    assert!(world.sql("SELECT count(*) FROM wallets").parse::<u32>().is_ok_and(|n| n > 0));
    let there = world.payments();
    assert!(acked_before.iter().all(|id| there.contains(id)), "what the backup held is there");
    assert_nothing_lost(&world, std::slice::from_ref(&kept_as), "after the restore");
    assert_eq!(identity(&world), before.1, "the container itself was never stopped");
    world.wait_healthy();
    world.wait_for_payments(1);
    let restores = events(&world, "restore");
    let statuses: Vec<&str> =
        restores.iter().filter_map(|event| event["status"].as_str()).collect();
    assert_eq!(statuses, ["succeeded", "started", "failed", "started"]);
    let data = &restores[0]["data"];
    assert_eq!(data["backupFile"], made["path"]);
    assert_eq!((&data["fromVersion"], &data["fullRecovery"]), (&"manual".into(), &"false".into()));
    // The command that gets rid of what is kept works as it is written.
    let message = done["job"]["message"].as_str().expect("a message");
    let (_, command) = message.split_once("When you don't need it: ").expect("a command");
    let dropped = Command::new("sh").args(["-c", command]).output().expect("sh");
    assert!(dropped.status.success(), "{command}: {}", said(&dropped));
    assert_eq!(databases(&world), ["payram", "postgres"]);
    forget_acked(&world);

    // A file of the earlier tool: statements, and nothing beside it.
    let old = world.backup_dir().join("payram-backup-20240102-030405-1.9.5-to-1.9.6.sql");
    let plain = world.docker(&["exec", "-u", "postgres", &world.name, "pg_dump", "payram"]);
    fs::write(&old, format!("{plain}\n")).expect("a file");
    world.sql("DROP TABLE wallets");
    let listed = json(&world.cli(&["backup", "list"]));
    assert_eq!(listed["backups"][1]["format"], "sql", "{listed:#}");
    let by_name = old.file_name().expect("a name").to_owned();
    let done = restore(&world, Path::new(&by_name), &["--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(world.sql("SELECT count(*) FROM wallets").parse::<u32>().is_ok_and(|n| n > 0));
    assert_nothing_lost(&world, &kept(&world), "after the statements");

    // The newest two stay.
    create(&world);
    create(&world);
    let listed = json(&world.cli(&["backup", "list"]));
    assert_eq!(listed["count"], 2, "{listed:#}");
    world.assert_journal_is_whole("at the end");
    let secrets = [support::world::PASSWORD, support::world::AES_KEY];
    let log = daemon.log();
    assert!(secrets.iter().all(|secret| !log.contains(secret)), "a secret is in the log");
}

#[test]
fn an_application_that_is_not_well_on_the_backups_data_gets_its_own_back() {
    if !require("docker") {
        return;
    }
    let (world, trap, file) = world_with_a_bad_backup();
    let mut daemon = world.daemon();
    let kills: Vec<(&'static str, Point)> = match is_full() {
        true => points(&BACK),
        false => Vec::new(),
    };
    for (step, point) in std::iter::once(None).chain(kills.into_iter().map(Some)).flatten() {
        daemon = killed_at(&world, &trap, daemon, &file, step, point, &[7]);
        went_back(&world, &daemon, step);
    }
    let failed = restore(&world, &file, &["--yes"]);
    assert_eq!(failed.status.code(), Some(4), "{}", said(&failed));
    went_back(&world, &daemon, "without a kill");
}

fn went_back(world: &World, daemon: &Daemon, after: &str) {
    let status = settled(daemon);
    assert_eq!(
        (&status["state"], &status["phase"]),
        (&"FAILED".into(), &"ROLLED_BACK".into()),
        "{after}: {status:#}"
    );
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains("The data from before serves again"), "{after}: {message}");
    assert_eq!(world.sql("SELECT count(*) FROM whole"), "7", "{after}");
    world.wait_healthy();
    assert_nothing_lost(world, &kept(world), after);
    let failed: Vec<String> =
        kept(world).into_iter().filter(|name| name.starts_with("payram_failed_")).collect();
    assert!(!failed.is_empty(), "{after}: the backup's data is kept");
    failed.iter().for_each(|name| drop(world.sql(&format!("DROP DATABASE {name}"))));
    forget_acked(world);
}

/// A shop, and a backup on whose data its core is not well.
fn world_with_a_bad_backup() -> (World, Trap, PathBuf) {
    let world = World::build("1.9.6")
        .rows(100)
        .setting("HEALTH_TIMEOUT_SECONDS", "3")
        .setting("VERIFY_SECONDS", "1")
        .start();
    world.sql("SET ROLE payram; CREATE TABLE whole AS SELECT generate_series(1, 100) n");
    world.sql("UPDATE wallets SET secret = 'v2:' || secret");
    let daemon = world.daemon();
    let file = create(&world);
    drop(daemon);
    world.sql("UPDATE wallets SET secret = substr(secret, 4); DELETE FROM whole WHERE n > 7");
    world.wait_healthy();
    let trap = Trap::between(&world);
    (world, trap, file)
}

fn points(steps: &[(&'static str, &[Point])]) -> Vec<(&'static str, Point)> {
    let each = |(step, points): &(&'static str, &[Point])| {
        points.iter().map(|point| (*step, *point)).collect::<Vec<_>>()
    };
    steps.iter().flat_map(each).collect()
}

fn settled(daemon: &Daemon) -> Value {
    wait_until("the restore ends", END_LIMIT, || {
        Some(daemon.status()).filter(|status| status["active"] == false)
    })
}

/// Begins a restore, kills the daemon at the point, sees that the data is whole, and starts the
/// daemon again.
fn killed_at(
    world: &World,
    trap: &Trap,
    daemon: Daemon,
    file: &Path,
    step: &'static str,
    point: Point,
    rows: &[u32],
) -> Daemon {
    trap.arm_named(step, point);
    let mut watching = world
        .updater(&["backup", "restore", "--yes", "--file", &file.display().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the product starts");
    let is_hit = trap.kill(daemon);
    watching.kill().ok();
    watching.wait().ok();
    println!("{step} {point:?}: killed {}", if is_hit { "in the step" } else { "after it" });
    // Between the two instants at which it has either name nobody can look: it is one transaction.
    let whole: u32 = world.sql("SELECT count(*) FROM whole").parse().expect("a number");
    assert!(rows.contains(&whole) || whole == 100, "{step} {point:?}: {whole} rows");
    world.daemon()
}

#[test]
fn a_restore_whose_daemon_is_killed_leaves_old_data_or_new_and_ends_by_itself() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).setting("VERIFY_SECONDS", "1").start();
    world.sql("SET ROLE payram; CREATE TABLE whole AS SELECT generate_series(1, 100) n");
    let mut daemon = world.daemon();
    let file = create(&world);
    drop(daemon);
    let trap = Trap::between(&world);
    daemon = world.daemon();
    let mut kills = points(&FORWARD);
    if !is_full() {
        // One of the swap, which is what it is about, and one of the others.
        let mut draw = Draw::seeded("PAYRAM_TEST_SEED", "2 points");
        let (swap, others): (Vec<_>, Vec<_>) = kills.into_iter().partition(|kill| kill.0 == "swap");
        kills = draw.sample(swap, 1);
        kills.extend(draw.sample(others, 1));
    }
    for (step, point) in kills {
        world.sql("DELETE FROM whole WHERE n > 7");
        world.wait_for_payments(1);
        daemon = killed_at(&world, &trap, daemon, &file, step, point, &[7]);
        let status = settled(&daemon);
        assert_eq!(
            (&status["state"], &status["phase"]),
            (&"READY".into(), &"VERIFIED".into()),
            "{step} {point:?}: {status:#}\n{}",
            daemon.log()
        );
        assert_eq!(world.sql("SELECT count(*) FROM whole"), "100", "{step} {point:?}");
        let all = databases(&world);
        assert!(!all.iter().any(|name| name.starts_with("payram_updater")), "left over: {all:?}");
        assert_nothing_lost(&world, &kept(&world), step);
        let kept = kept(&world);
        assert_eq!(kept.len(), 1, "{step} {point:?}: {kept:?}");
        let before = world.sql(&format!("\\connect {}\nSELECT count(*) FROM whole", kept[0]));
        assert_eq!(before, "7", "what was there before is whole");
        world.wait_healthy();
        world.wait_for_payments(1);
        // So that the next one is looked at alone; what was acknowledged goes with it.
        forget_acked(&world);
        world.sql(&format!("DROP DATABASE {}", kept[0]));
    }
    called_off(&world, &trap, &daemon, &file);
    world.assert_journal_is_whole("after all kills");
}

/// A restore that is called off while it loads changes nothing.
fn called_off(world: &World, trap: &Trap, daemon: &Daemon, file: &Path) {
    world.sql("DELETE FROM whole WHERE n > 7");
    let before = (databases(world), identity(world));
    trap.arm_patiently_named("load", Point::Unasked);
    let mut watching = world
        .updater(&["backup", "restore", "--yes", "--file", &file.display().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the product starts");
    trap.meanwhile(daemon, || {
        let cancelled = world.cli(&["cancel", "--yes"]);
        assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    });
    let status = settled(daemon);
    assert_eq!((&status["state"], &status["failureCode"]), (&"FAILED".into(), &"CANCELLED".into()));
    assert_eq!(watching.wait().expect("it ends").code(), Some(1));
    assert_eq!((databases(world), identity(world)), before);
    assert_eq!(world.sql("SELECT count(*) FROM whole"), "7");
    world.wait_healthy();
}

#[test]
fn tables_in_parts_and_bytes_of_no_encoding_come_back_as_they_were_with_postgresql_17() {
    if !is_full() || !require("docker") {
        return;
    }
    let shop = World::build("1.9.6").rows(100).postgres_17().nested_mounts();
    let world = shop.env("PAYRAM_ENCODING", "SQL_ASCII").start();
    world.sql(
        r"CREATE TABLE notes (id int, text text, big oid) PARTITION BY RANGE (id);
        CREATE TABLE notes_0 PARTITION OF notes FOR VALUES FROM (0) TO (50);
        CREATE TABLE notes_1 PARTITION OF notes FOR VALUES FROM (50) TO (500);
        INSERT INTO notes SELECT n, E'caf\xe9' || n FROM generate_series(0, 99) n;
        CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM notes;
        ALTER TABLE notes OWNER TO payram; ALTER TABLE notes_0 OWNER TO payram;
        ALTER TABLE notes_1 OWNER TO payram; ALTER MATERIALIZED VIEW counted OWNER TO payram;",
    );
    let digest = "SELECT md5(string_agg(id || text, ',' ORDER BY id)) FROM notes";
    let before = world.sql(digest);
    let _daemon = world.daemon();
    let file = create(&world);
    world.sql("DROP MATERIALIZED VIEW counted; DROP TABLE notes");
    let restored = restore(&world, &file, &["--yes"]);
    assert_eq!(restored.status.code(), Some(0), "{}", said(&restored));
    assert_eq!(world.sql(digest), before);
    assert_eq!(world.sql("SELECT n FROM counted"), "100");
    world.wait_healthy();
    assert_eq!(world.version().as_deref(), Some("1.9.6"));
}
