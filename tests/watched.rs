//! What a version does while it is watched, before `Verified` and for a while afterwards: programs
//! that end and come back, slow answers, a bystander that is down since long, and somebody's hand.
//! What it did itself is held against it; what the old version did too, or somebody else, is not.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::operator::{Running, assert_parts, identity, inspection, issues, said, upgrade};
use support::{Daemon, Fixture, OwnImage, World, in_long_run, require, wait_until};

/// From something that was done to what follows from it.
const SOON: Duration = Duration::from_secs(150);

fn end_of(world: &World, daemon: &Daemon, target: &str, code: i32) -> String {
    let run = upgrade(world, target);
    let message = daemon.status()["message"].as_str().unwrap_or_default().to_owned();
    println!("{target}: exit {:?}: {message}", run.status.code());
    assert_eq!(run.status.code(), Some(code), "{}\n{}", said(&run), daemon.log());
    message
}

/// Not believed, and everything for the way back is there.
fn is_not_believed(world: &World, daemon: &Daemon, target: &str, parts: &[&str]) {
    let old = world.container().expect("a container")["Id"].clone();
    let run = upgrade(world, target);
    let status = daemon.status();
    println!("{target}: exit {:?}: {}", run.status.code(), status["message"]);
    assert!(matches!(run.status.code(), Some(4 | 5)), "{}\n{}", said(&run), daemon.log());
    assert_ne!(status["phase"], "VERIFIED", "{status:#}");
    assert_parts(&format!("{}\n{}", said(&run), daemon.log()), parts);
    let all = world.containers();
    assert!(all.iter().any(|one| one["Id"] == old), "the old container is there");
}

fn core_that_dies(every: &str, with: &str, supervisor: &str, watch_seconds: &str) -> World {
    World::build("1.9.6")
        .env("PAYRAM_DIES_EVERY", every)
        .env("PAYRAM_DIES_WITH", with)
        .env("PAYRAM_SUPERVISOR", supervisor)
        .setting("VERIFY_SECONDS", watch_seconds)
        .rows(100)
        .start()
}

fn never_verified(every: &str, with: &str, supervisor: &str, watch_seconds: &str) {
    if !require("docker") {
        return;
    }
    let world = core_that_dies(every, with, supervisor, watch_seconds);
    let daemon = world.daemon();
    let tag = Fixture::get().tag_of("core-dies");
    is_not_believed(&world, &daemon, tag, &["HEALTHCHECK_FAILED", "restart"]);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_core_that_dies_every_three_seconds_is_never_verified() {
    never_verified("3", "1", "on", "6");
}

#[test]
fn a_core_that_ends_well_every_seven_seconds_is_never_verified() {
    if in_long_run() {
        never_verified("7", "0", "on", "12");
    }
}

#[test]
fn a_core_that_dies_every_fifteen_seconds_is_never_verified() {
    if in_long_run() {
        never_verified("15", "1", "on", "20");
    }
}

#[test]
fn without_a_supervisor_a_core_that_dies_every_three_seconds_is_never_verified() {
    if in_long_run() {
        never_verified("3", "1", "off", "6");
    }
}

#[test]
fn without_a_supervisor_a_core_that_ends_well_every_seven_seconds_is_never_verified() {
    never_verified("7", "0", "off", "12");
}

#[test]
fn without_a_supervisor_a_core_that_dies_every_fifteen_seconds_is_never_verified() {
    if in_long_run() {
        never_verified("15", "1", "off", "20");
    }
}

#[test]
fn a_core_that_dies_at_random_is_found_by_the_probation_at_the_latest() {
    found_at_the_latest("on");
}

#[test]
fn without_a_supervisor_one_that_dies_at_random_is_found_by_the_probation_at_the_latest() {
    if in_long_run() {
        found_at_the_latest("off");
    }
}

fn found_at_the_latest(supervisor: &str) {
    if !require("docker") {
        return;
    }
    let world = core_that_dies("random", "1", supervisor, "3");
    world.set("PROBATION_MINUTES", "1");
    let daemon = world.daemon();
    let run = upgrade(&world, Fixture::get().tag_of("core-dies"));
    if run.status.code() == Some(0) {
        // Without a supervisor a process has no name but its command.
        let program = if supervisor == "on" { "payram-core" } else { "core.py" };
        kept_after(&world, &daemon, &[program]);
    } else {
        // It died in its first seconds already.
        assert_parts(&said(&run), &["HEALTHCHECK_FAILED"]);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// The name of the parked old container.
fn parked(world: &World) -> Option<String> {
    let prefix = format!("{}-previous-", world.name);
    let names = world.docker(&["ps", "--all", "--format", "{{.Names}}"]);
    names.lines().find(|name| name.starts_with(&prefix)).map(str::to_owned)
}

/// The probation found something: it is told wherever one asks, and the old container, its image
/// and the copy of the database are there.
fn kept_after(world: &World, daemon: &Daemon, parts: &[&str]) -> Value {
    // An earlier upgrade's watch has told its end, too.
    let line = wait_until("the probation finds it", SOON, || {
        let log = daemon.log();
        let is_it = |line: &&str| {
            line.contains("after the verdict: ") && parts.iter().all(|part| line.contains(part))
        };
        log.lines().rev().find(is_it).map(str::to_owned)
    });
    println!("log: {line}");
    is_kept(world);
    let report = inspection(world);
    println!("inspect: {} {:?}", report["overallState"], issues(&report));
    let shown = world.cli(&["recover", "--dry-run"]);
    println!("recover --dry-run: {}", said(&shown));
    report
}

/// Its first process ends as if by its own fault: the engine notes no hand.
fn ends_by_itself(world: &World) {
    // Not waited for: the command ends with the container.
    world.docker(&["exec", "--detach", &world.name, "sh", "-c", "kill -TERM 1"]);
}

/// Everything for the way back is there.
fn is_kept(world: &World) {
    let old = parked(world).expect("the old container is kept");
    let old = world.inspect(&old).expect("it is there");
    assert_eq!(old["State"]["Status"], "exited", "{}", old["Name"]);
    assert!(world.inspect(old["Image"].as_str().expect("an id")).is_some(), "its image is kept");
    let left = world.leftovers();
    assert!(left.iter().any(|name| name.contains("payram-restore")), "the copy is kept: {left:?}");
}

#[test]
fn a_version_that_ends_after_it_was_verified_is_told_and_the_way_back_is_kept() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("PROBATION_MINUTES", "5").start();
    let daemon = world.daemon();
    end_of(&world, &daemon, "1.9.7", 0);
    is_kept(&world);
    let shown = said(&world.cli(&["recover", "--dry-run"]));
    assert_parts(&shown, &["watched a while longer"]);
    let report = inspection(&world);
    assert_eq!(report["overallState"], "OK", "{report:#}");
    // It ends by itself, and its restart policy starts it again.
    ends_by_itself(&world);
    // By itself, or, before the watch took its first look, while nobody watched it. A look that
    // falls between its end and its start waits for the start.
    let report = kept_after(&world, &daemon, &["was started again"]);
    assert_eq!(report["overallState"], "DEGRADED", "{report:#}");
    world.wait_healthy();
    let shown = said(&world.cli(&["recover", "--dry-run"]));
    assert_parts(&shown, &["was started again", "are kept"]);
    // A new upgrade goes on from there.
    end_of(&world, &daemon, "1.9.8", 0);
    assert_eq!(world.version().as_deref(), Some("1.9.8"));
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_version_that_stays_down_after_it_was_verified_is_started_by_recover_and_nothing_is_tidied() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .run_args(["--restart", "no"])
        .rows(200)
        .setting("PROBATION_MINUTES", "5")
        .start();
    let daemon = world.daemon();
    end_of(&world, &daemon, "1.9.7", 0);
    ends_by_itself(&world);
    let report = kept_after(&world, &daemon, &["ended by itself (exit code", "it is exited"]);
    assert_ne!(report["overallState"], "OK", "{report:#}");
    let recovered = world.cli(&["recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    world.wait_healthy();
    is_kept(&world);
    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn the_probation_outlives_the_updater_bears_a_restart_by_hand_and_ends_with_the_next_upgrade() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("PROBATION_MINUTES", "5").start();
    let daemon = world.daemon();
    end_of(&world, &daemon, "1.9.7", 0);
    let first = parked(&world).expect("the old container is kept");
    daemon.kill();
    let daemon = world.daemon();
    is_kept(&world);
    let ended = daemon.terminate();
    assert_eq!(ended.code(), Some(0), "it ends in good order");
    let daemon = world.daemon();
    is_kept(&world);
    world.docker(&["restart", "--time", "20", &world.name]);
    wait_until("the restart by hand is told", SOON, || {
        // A look that falls into it sees the stop.
        let log = daemon.log();
        ["restarted", "stopped"]
            .iter()
            .any(|how| log.contains(&format!("was {how} from outside")))
            .then_some(())
    });
    world.wait_healthy();
    is_kept(&world);
    assert!(!daemon.log().contains("after the verdict: "), "{}", daemon.log());
    // An engine remembers its last 256 events: after these, how that run began is not among them.
    for _ in 0..90 {
        world.docker(&["exec", &world.name, "true"]);
    }
    end_of(&world, &daemon, "1.9.8", 0);
    assert_parts(&daemon.log(), &["ended by the next upgrade"]);
    assert!(world.inspect(&first).is_none(), "1.9.6 is not needed any more");
    assert_ne!(parked(&world).expect("1.9.7 is kept"), first);
    // Stopped by somebody, it stays stopped; the way back is there.
    world.docker(&["stop", "--time", "20", &world.name]);
    let report = kept_after(&world, &daemon, &["was stopped by somebody"]);
    assert_ne!(report["overallState"], "OK", "{report:#}");
    let state = world.container().expect("a container")["State"]["Running"].clone();
    assert_eq!(state, false, "what a person stopped stays stopped");
    world.docker(&["start", &world.name]);
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_second_server_in_the_probation_stops_both_and_a_person_is_told() {
    if !require("docker") {
        return;
    }
    let world =
        World::build("1.9.6").unpublished().rows(200).setting("PROBATION_MINUTES", "5").start();
    let daemon = world.daemon();
    end_of(&world, &daemon, "1.9.7", 0);
    world.docker(&["start", &parked(&world).expect("it is kept")]);
    let report = kept_after(&world, &daemon, &["was started on it, too"]);
    assert_eq!(report["overallState"], "BROKEN", "{report:#}");
    let shown = world.cli(&["recover", "--dry-run"]);
    assert_parts(&said(&shown), &["two servers worked on the database's directory"]);
    for one in world.containers() {
        assert_ne!(one["State"]["Running"], true, "{}", one["Name"]);
        assert_eq!(one["HostConfig"]["RestartPolicy"]["Name"], "no", "{}", one["Name"]);
    }
}

#[test]
fn a_version_that_turns_bad_after_it_was_verified_is_told() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).setting("PROBATION_MINUTES", "5").start();
    let daemon = world.daemon();
    end_of(&world, &daemon, Fixture::get().tag_of("turns-500"), 0);
    let report = kept_after(&world, &daemon, &["gave no good answer 3 times in a row"]);
    assert_ne!(report["overallState"], "OK", "{report:#}");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// Begins an upgrade, does something to the new version once it answers, and waits for the end.
fn with_a_hand(world: &World, daemon: &Daemon, target: &str, hand: impl Fn()) -> (i32, String) {
    let known = daemon.log().len();
    let answers = || {
        daemon.log()[known..].matches("the new container").count() > 0
            && daemon.log()[known..]
                .lines()
                .any(|line| line.contains("the new container") && line.contains("answers at"))
    };
    let mut run = Running::begin(world, target);
    run.wait_step(daemon, "verify");
    run.wait_for("the new version answers", answers);
    hand();
    let (status, text) = run.end();
    println!("{target}: exit {:?}: {}", status.code(), daemon.status()["message"]);
    (status.code().unwrap_or_default(), format!("{text}\n{}", &daemon.log()[known..]))
}

#[test]
fn what_somebody_does_to_a_good_version_once_is_not_held_against_it() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).setting("VERIFY_SECONDS", "8").start();
    let daemon = world.daemon();
    let name = world.name.as_str();
    for (target, hand, how) in [
        ("1.9.7", &["restart", "--time", "20"][..], "restarted"),
        ("1.9.8", &["stop", "--time", "20"], "stopped"),
        ("2.0.0", &["kill", "--signal", "KILL"], "killed"),
    ] {
        let (code, text) = with_a_hand(&world, &daemon, target, || {
            world.docker(&[hand, &[name]].concat());
        });
        assert_eq!(code, 0, "{text}");
        // A look that falls into a restart sees the stop.
        let is_told =
            ["stopped", how].iter().any(|how| text.contains(&format!("was {how} from outside")));
        assert!(is_told, "{how}: {text}");
        world.assert_sound(target, how);
    }
    // A second time is no accident.
    let above = Fixture::get().tag_of("volume-above");
    let (code, text) = with_a_hand(&world, &daemon, above, || {
        world.docker(&["restart", "--time", "20", name]);
        let known = daemon.log().matches("watched anew").count();
        wait_until("it is watched anew", SOON, || {
            (daemon.log().matches("watched anew").count() > known || known > 0).then_some(())
        });
        wait_until("it serves again", SOON, || world.is_healthy().then_some(()));
        world.docker(&["restart", "--time", "20", name]);
    });
    assert!(matches!(code, 4 | 5), "{text}");
    assert_parts(&text, &["from outside a second time"]);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_version_that_the_kernel_kills_has_ended_by_itself() {
    if !in_long_run() || !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(100).setting("VERIFY_SECONDS", "8").start();
    let daemon = world.daemon();
    let old = identity(&world);
    let (code, text) = with_a_hand(&world, &daemon, "1.9.7", || {
        let first = world.container().expect("a container")["State"]["Pid"].to_string();
        let killed = std::process::Command::new("kill").args(["-KILL", &first]).status();
        assert!(killed.is_ok_and(|status| status.success()));
    });
    assert!(matches!(code, 4 | 5), "{text}");
    assert_parts(&text, &["HEALTHCHECK_FAILED"]);
    assert!(world.containers().iter().any(|one| one["Id"] == old.0), "the old one is there");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn what_the_old_version_did_too_is_a_note_and_what_only_the_new_one_does_is_judged() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .env("PAYRAM_BYSTANDER", "fatal")
        .env("PAYRAM_RESTLESS", "on")
        .setting("VERIFY_SECONDS", "8")
        .rows(200)
        .start();
    let daemon = world.daemon();
    end_of(&world, &daemon, "1.9.7", 0);
    let log = world.upgrade_log();
    assert_parts(&log, &["payram-redis", "as in the old version", "payram-restless"]);
    world.assert_sound("1.9.7", "an upgrade with a bystander that is down");
    // Every answer slow, in the new version alone.
    let slow = Fixture::get().tag_of("slow-answers");
    end_of(&world, &daemon, slow, 0);
    world.assert_sound(slow, "an upgrade to a version whose answers are slow");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    drop(daemon);
    drop(world);

    let worse = OwnImage::derived("1.9.7", "ENV PAYRAM_BYSTANDER=fatal", false);
    let world = World::build("1.9.6").rows(50).start();
    let daemon = world.daemon();
    is_not_believed(&world, &daemon, &worse.tag, &["gave up on payram-redis"]);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_shop_whose_every_answer_is_slow_and_that_has_no_supervisor_is_upgraded() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .env("PAYRAM_SLOW_ANSWERS", "2.5")
        .env("PAYRAM_SUPERVISOR", "off")
        .env("PAYRAM_RESTLESS", "on")
        .setting("VERIFY_SECONDS", "8")
        .rows(200)
        .start();
    let daemon = world.daemon();
    end_of(&world, &daemon, "1.9.7", 0);
    world.assert_sound("1.9.7", "an upgrade with slow answers");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// The lines of a Dockerfile that add a program which holds a session and hardly uses it.
const METRICS: &str = r#"RUN printf '%s\n' \
 'import os, time, psycopg2' \
 'while True:' \
 '    try:' \
 '        c = psycopg2.connect(host="localhost", port=5432, dbname="payram", user="payram", password=os.environ["POSTGRES_PASSWORD"], application_name="payram-metrics")' \
 '        c.autocommit = True' \
 '        while True:' \
 '            c.cursor().execute("select 1")' \
 '            time.sleep(5)' \
 '    except psycopg2.Error:' \
 '        time.sleep(1)' > /opt/payram/metrics.py \
 && printf '\n%s\n' '[program:payram-metrics]' 'command = /usr/bin/python3 -u /opt/payram/metrics.py' 'autorestart = true' >> /etc/supervisor/supervisord.conf"#;

/// The lines of a Dockerfile that have the programs connect anew for each piece of work.
const CONNECTS_EACH_TIME: &str = r"RUN sed -i 's/^            work(connection)$/            work(connection); connection.close(); connection = None/' /opt/payram/database.py";

#[test]
fn one_session_of_a_bystander_does_not_stand_for_the_application() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let store = Fixture::get().tag_of("second-store");
    let decoy = OwnImage::derived(store, METRICS, false);
    let world = World::build("1.9.6").rows(100).start();
    let daemon = world.daemon();
    let parts = ["DATABASE_MISMATCH", "payram-core"];
    is_not_believed(&world, &daemon, &decoy.tag, &parts);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn an_application_that_connects_each_time_is_watched_by_the_databases_counters() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let good = OwnImage::derived("1.9.7", CONNECTS_EACH_TIME, false);
    let store = Fixture::get().tag_of("second-store");
    let elsewhere = OwnImage::derived(store, CONNECTS_EACH_TIME, false);
    let old = OwnImage::derived("1.9.6", CONNECTS_EACH_TIME, true);
    let world = World::build(&old.tag).rows(100).start();
    let daemon = world.daemon();
    is_not_believed(&world, &daemon, &elsewhere.tag, &["DATABASE_MISMATCH"]);
    end_of(&world, &daemon, &good.tag, 0);
    assert_eq!(world.version().as_deref(), Some(good.tag.as_str()));
    assert!(!daemon.log().contains("after the verdict"), "nobody has to confirm it");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_signal_for_the_logs_does_not_make_a_death_somebody_elses() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).setting("VERIFY_SECONDS", "8").start();
    let daemon = world.daemon();
    let (code, text) = with_a_hand(&world, &daemon, "1.9.7", || {
        world.docker(&["kill", "--signal", "USR2", &world.name]);
        ends_by_itself(&world);
    });
    assert!(matches!(code, 4 | 5), "{text}");
    assert_parts(&text, &["HEALTHCHECK_FAILED"]);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
