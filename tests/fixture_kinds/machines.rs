//! Machines that are not like the usual one: other mounts, another PostgreSQL, another supervisor or
//! none, programs that come and go.

use std::time::{Duration, Instant};

use crate::look::{SOON, cluster, program, replace, wait_for_500, wait_for_log};
use crate::support::{World, in_long_run, require, wait_until};

/// The process ids of all in the container whose command line begins like this.
fn pids(world: &World, command: &str) -> Vec<String> {
    let script = "for p in /proc/[0-9]*; do
        echo ${p#/proc/} $(tr '\\0' ' ' <$p/cmdline 2>/dev/null)
    done";
    let all = world.docker(&["exec", &world.name, "sh", "-c", script]);
    let lines = all.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, of)| of.starts_with(command)).map(|(pid, _)| pid.to_owned()).collect()
}

#[test]
fn a_volume_of_the_image_hides_the_database_where_it_lies_below_the_mount() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(25).start();
    let shop = cluster(&world);
    replace(&world, "volume-above");
    world.wait_healthy();
    assert_eq!(cluster(&world), shop, "the mount lies on the volume");
    for behaviour in ["volume-between", "volume-exact"] {
        replace(&world, behaviour);
        world.wait_healthy();
        assert_ne!(cluster(&world), shop, "{behaviour}: the volume lies on the mount");
        assert!(world.lost().len() >= 25, "{behaviour}");
    }
    world.replace_by_hand("2.0.0");
    world.wait_healthy();
    assert_eq!(cluster(&world), shop);
}

#[test]
fn postgresql_17_without_a_locale_on_nested_mounts_is_a_shop_as_any_other() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .postgres_17()
        .nested_mounts()
        .env("PAYRAM_ENCODING", "SQL_ASCII")
        .rows(25)
        .start();
    let shop = cluster(&world);
    assert_eq!(world.sql("SHOW server_version_num").get(..2), Some("17"));
    let database = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database
                    WHERE datname = 'payram'";
    assert_eq!(world.sql(database), "SQL_ASCII|C");
    assert!(world.data_dir().join("db/postgres/PG_VERSION").exists());
    assert!(world.data_dir().join("keystore.json").exists());

    for behaviour in ["volume-above", "volume-between", "volume-exact"] {
        replace(&world, behaviour);
        world.wait_healthy();
        assert_eq!(cluster(&world), shop, "{behaviour}: its own mount is on the very path");
    }
    let tag = replace(&world, "health-500");
    wait_for_500(&world, &tag);
    world.replace_by_hand("2.0.0");
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn programs_come_back_by_design_are_fatal_for_ever_or_die_again_and_again() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .env("PAYRAM_RESTLESS", "on")
        .env("PAYRAM_BYSTANDER", "fatal")
        .env("PAYRAM_DIES_EVERY", "2")
        .env("PAYRAM_DIES_WITH", "0")
        .start();
    let core = wait_until("the core runs", SOON, || {
        let now = program(&world, "payram-core");
        (now.0 == "RUNNING").then_some(now)
    });
    let restless = program(&world, "payram-restless");
    assert_eq!(program(&world, "payram-redis").0, "FATAL");
    wait_until("the restless program comes back", SOON, || {
        let now = program(&world, "payram-restless");
        (now.0 == "RUNNING" && now.1 != restless.1).then_some(())
    });
    assert!(world.container_log().contains("exited: payram-restless (exit status 0; expected)"));
    assert_eq!(program(&world, "payram-core"), core, "the good version's core stays");

    replace(&world, "core-dies");
    world.wait_healthy();
    let first = program(&world, "payram-core").1;
    wait_until("another core runs", SOON, || {
        let now = program(&world, "payram-core");
        (now.0 == "RUNNING" && now.1 != first).then_some(())
    });
    world.wait_healthy();
    let container = world.container().expect("a container");
    assert_eq!(container["RestartCount"], 0, "the container stays");
    assert!(world.container_log().contains("dies with 0 in 2.0 s"));
}

#[test]
fn without_a_supervisor_a_core_is_started_again_and_postgresql_stops_last() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .env("PAYRAM_SUPERVISOR", "off")
        .env("PAYRAM_SLOW_ANSWERS", "0.5")
        .env("PAYRAM_DIES_EVERY", "random")
        .rows(25)
        .start();
    assert_eq!(pids(&world, "/usr/bin/python3 /usr/bin/supervisord"), Vec::<String>::new());
    let asked = Instant::now();
    world.core("/").expect("an answer");
    // The very thing that it is there for.
    assert!(asked.elapsed() >= Duration::from_millis(500));
    world.replace_by_hand("1.9.7");
    world.wait_healthy();
    world.wait_for_payments(3);
    world.docker(&["stop", "--time", "60", &world.name]);
    let stopped = world.container().expect("the container is kept");
    assert_eq!(stopped["State"]["ExitCode"], 0);
    let log = world.container_log();
    assert!(log.contains("database system is shut down"), "{log}");
    assert!(!log.contains("nothing written"), "the application is stopped first: {log}");

    replace(&world, "core-dies");
    world.wait_healthy();
    wait_for_log(&world, "dies with 1 in ");
    let core = pids(&world, "python3 -u /opt/payram/core.py");
    assert_eq!(core.len(), 1);
    // Not waited for: it is up to a minute.
    world.docker(&["exec", &world.name, "sh", "-c", &format!("kill -KILL {}", core[0])]);
    wait_until("another core runs", SOON, || {
        let now = pids(&world, "python3 -u /opt/payram/core.py");
        (now.len() == 1 && now != core).then_some(())
    });
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}
