//! The stand-in's further kinds of versions and environments: versions whose workers write while
//! they are broken, versions that do a shop another kind of harm, and machines that are not like
//! the usual one. Each is what the other tests take it for.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use support::{Fixture, World, require, wait_until};

/// What a container does by itself within seconds; more where the machine is busy.
const SOON: Duration = Duration::from_secs(180);

/// The version that has this behaviour, in place of the one that runs.
fn replace(world: &World, behaviour: &str) -> String {
    let tag = Fixture::get().tag_of(behaviour).to_owned();
    world.replace_by_hand(&tag);
    tag
}

fn wait_for_log(world: &World, text: &str) {
    wait_until(&format!("the container says '{text}'"), SOON, || {
        world.container_log().contains(text).then_some(())
    });
}

/// Waits until health is asked for and is 500, by the version that runs.
fn wait_for_500(world: &World, tag: &str) {
    wait_until(&format!("{tag} answers 500"), SOON, || {
        let answer = world.core("/api/v1/health").ok()?;
        (answer.status == 500 && world.version().as_deref() == Some(tag)).then_some(())
    });
}

/// Waits until rows of a table were written by this version.
fn wait_for_rows(world: &World, table: &str, tag: &str) {
    let sql = format!("SELECT count(*) > 2 FROM {table} WHERE written_by = '{tag}'");
    wait_until(&format!("{tag} writes to {table}"), SOON, || {
        (world.try_sql(&sql).ok()? == "t").then_some(())
    });
}

fn columns(world: &World) -> String {
    world.sql(
        "SELECT table_name, column_name FROM information_schema.columns
         WHERE table_schema = 'public' ORDER BY 1, 2",
    )
}

/// All rows, the payments' contents included, and where the sequences stand.
fn rows(world: &World) -> String {
    world.sql(
        "SELECT *, xmin FROM payments ORDER BY seq; SELECT *, xmin FROM schema_migrations;
         SELECT *, xmin FROM jobs ORDER BY id; SELECT *, xmin FROM addresses ORDER BY number;
         SELECT *, xmin FROM balances ORDER BY account; SELECT *, xmin FROM wallets ORDER BY 1;
         SELECT last_value FROM jobs_id_seq; SELECT last_value FROM addresses_number_seq",
    )
}

fn cluster(world: &World) -> String {
    world.sql("SELECT system_identifier FROM pg_control_system()")
}

/// A 1.9.6 with payments whose application is stopped, so that its database stands still.
fn quiet_world() -> World {
    let world = World::build("1.9.6").rows(25).start();
    world.docker(&["exec", &world.name, "supervisorctl", "stop", "payram-core", "payram-worker"]);
    world
}

/// State and process id of a program, as its supervisor has them.
fn program(world: &World, name: &str) -> (String, String) {
    let script = format!("supervisorctl status {name} || true");
    let line = world.docker(&["exec", &world.name, "sh", "-c", &script]);
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = words.get(1).copied().unwrap_or_default();
    let pid = words.iter().skip_while(|word| **word != "pid").nth(1).copied().unwrap_or_default();
    (state.to_owned(), pid.to_owned())
}

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
fn workers_write_while_their_version_is_broken_and_the_schema_stays() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(25).start();
    let schema = columns(&world);
    let broken = [
        "health-500-writes",
        "wrong-version-writes",
        "hangs-writes",
        "dies-writes",
        "exits-at-start-writes",
    ];
    for behaviour in broken {
        let tag = replace(&world, behaviour);
        for table in ["payments", "jobs", "addresses"] {
            wait_for_rows(&world, table, &tag);
        }
        match behaviour {
            "health-500-writes" => wait_for_500(&world, &tag),
            "wrong-version-writes" => assert_eq!(world.version().as_deref(), Some("1.0.0")),
            "hangs-writes" => assert!(!world.is_healthy()),
            "dies-writes" => ends_with(&world, 0),
            "exits-at-start-writes" => ends_with(&world, 1),
            other => panic!("{other} is none of them"),
        }
    }
    wait_for_log(&world, "exits at start");

    for behaviour in ["migration-schema-writes", "migration-rows-writes"] {
        let tag = replace(&world, behaviour);
        wait_for_rows(&world, "payments", &tag);
        wait_until("the core is FATAL", SOON, || {
            (program(&world, "payram-core").0 == "FATAL").then_some(())
        });
        assert_ne!(columns(&world), schema);
    }
    world.replace_by_hand("1.9.6");
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.addresses().1, Vec::<String>::new());
}

/// Its container comes and goes; held down, it is seen to end with this code.
fn ends_with(world: &World, code: i64) {
    world.docker(&["update", "--restart", "no", &world.name]);
    let ended = wait_until("the container ends", SOON, || {
        // Dies because it is asked.
        world.is_healthy();
        let container = world.container()?;
        (container["State"]["Status"] == "exited").then_some(container)
    });
    assert_eq!(ended["State"]["ExitCode"], code);
}

#[test]
fn a_data_only_migration_changes_every_amount_or_secret_and_no_schema() {
    if !require("docker") {
        return;
    }
    let world = quiet_world();
    let schema = columns(&world);
    let tag = replace(&world, "data-migration");
    wait_for_500(&world, &tag);
    assert_eq!(columns(&world), schema);
    assert_eq!(world.sql("SELECT version FROM schema_migrations ORDER BY 1"), "1.9.6\n9.2.1");
    assert_eq!(world.lost(), Vec::<String>::new(), "all are there");
    let different = world.payments_lost();
    assert_eq!(different.len(), world.acked().len(), "and none is what it was");
    world.docker(&["restart", &world.name]);
    wait_for_500(&world, &tag);
    assert_eq!(world.payments_lost(), different, "it is done once");

    let tag = replace(&world, "re-encrypts");
    wait_for_500(&world, &tag);
    assert_eq!(columns(&world), schema);
    assert_eq!(world.sql("SELECT DISTINCT left(secret, 3) FROM wallets"), "v2:");
    world.replace_by_hand("1.9.6");
    wait_for_500(&world, "1.9.6");
    assert!(world.container_log().contains("the secrets of 3 wallets can't be read"));
}

#[test]
fn a_version_that_is_500_after_a_migration_takes_payments_in_the_old_or_in_a_new_table() {
    if !require("docker") {
        return;
    }
    let world = quiet_world();
    let (schema, before) = (columns(&world), world.payments().len());
    let tag = replace(&world, "new-table-payments");
    wait_for_500(&world, &tag);
    world.wait_for_payments(5);
    assert_eq!(world.sql("SELECT count(*) FROM payments"), before.to_string());
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_ne!(columns(&world), schema);

    let tag = replace(&world, "completed-then-500");
    wait_for_500(&world, &tag);
    wait_for_rows(&world, "payments", &tag);
    wait_for_rows(&world, "jobs", &tag);
    assert!(world.sql("SELECT version FROM schema_migrations").contains("2.0.0"));
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

#[test]
fn a_healthy_version_on_another_cluster_than_the_shops_loses_what_was_paid() {
    if !require("docker") {
        return;
    }
    let world = quiet_world();
    let (shop, before) = (cluster(&world), rows(&world));
    let tag = replace(&world, "second-store");
    world.wait_healthy();
    assert_eq!(world.version(), Some(tag));
    world.wait_for_payments(5);
    assert_eq!(cluster(&world), shop, "the shop's server runs beside it");
    assert_eq!(rows(&world), before, "untouched");
    assert!(world.payments_lost().len() >= 5, "none of its payments is in the shop's database");

    let paid = world.lost();
    let tag = replace(&world, "elsewhere");
    world.wait_healthy();
    assert_eq!(world.version(), Some(tag));
    world.wait_for_payments(5);
    assert_ne!(cluster(&world), shop);
    assert!(world.lost().len() >= paid.len() + 25);

    world.replace_by_hand("1.9.6");
    world.wait_healthy();
    assert_eq!(cluster(&world), shop);
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
    if !require("docker") {
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

    replace(&world, "volume-exact");
    world.wait_healthy();
    assert_eq!(cluster(&world), shop, "its own mount is on the very path");
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
    let (core, restless) = (program(&world, "payram-core"), program(&world, "payram-restless"));
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
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6")
        .env("PAYRAM_SUPERVISOR", "off")
        .env("PAYRAM_SLOW_ANSWERS", "0.5")
        .env("PAYRAM_DIES_EVERY", "random")
        .rows(25)
        .start();
    assert_eq!(pids(&world, "/usr/bin/python3 /usr/bin/supervisord"), Vec::<String>::new());
    let asked = std::time::Instant::now();
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

#[test]
fn what_lies_beside_the_database_changes_its_owner_or_its_format() {
    if !require("docker") {
        return;
    }
    let world = quiet_world();
    let (schema, before) = (columns(&world), rows(&world));
    fs::write(world.data_dir().join("db/beside"), "a copy, say").expect("a file");
    let tag = replace(&world, "rewrites-key");
    wait_for_500(&world, &tag);
    assert_eq!(rows(&world), before);
    assert_eq!(columns(&world), schema);
    world.replace_by_hand("1.9.6");
    wait_for_log(&world, "expected format 1, found {\"format\":2,");
    wait_until("the engine starts it again and again", SOON, || {
        let container = world.container()?;
        (container["RestartCount"].as_u64() > Some(0)).then_some(())
    });

    let key = world.data_dir().join("keystore.json");
    let text = fs::read_to_string(&key).expect("the key store");
    fs::write(&key, text.replace("\"format\":2", "\"format\":1")).expect("the key store");
    let tag = replace(&world, "chown");
    wait_for_500(&world, &tag);
    let owner = |name: &str| fs::metadata(world.data_dir().join(name)).expect("a file").uid();
    assert_eq!(owner("db/beside"), 1000);
    assert_ne!(owner("db/postgres"), 1000);
    assert_ne!(columns(&world), schema);
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

#[test]
fn a_server_is_left_that_crashed_or_that_the_old_version_cant_use() {
    if !require("docker") {
        return;
    }
    let world = quiet_world();
    let before = rows(&world);
    let tag = replace(&world, "backend-killed");
    wait_for_500(&world, &tag);
    assert!(world.container_log().contains("automatic recovery"), "{}", world.container_log());
    assert_eq!(rows(&world), before);

    let tag = replace(&world, "alter-system");
    wait_for_500(&world, &tag);
    world.docker(&["restart", &world.name]);
    wait_for_500(&world, &tag);
    assert_eq!(world.sql("SHOW shared_preload_libraries"), "payram_ledger");
    world.replace_by_hand("1.9.6");
    wait_for_log(&world, "could not access file \"payram_ledger\"");

    let settings = world.data_dir().join("db/postgres/postgresql.auto.conf");
    fs::write(settings, "").expect("the server's settings");
    let tag = replace(&world, "password");
    wait_for_500(&world, &tag);
    assert_eq!(rows(&world), before);
    world.replace_by_hand("1.9.6");
    wait_for_log(&world, "password authentication failed");
}

#[test]
fn a_killed_servers_lock_file_stays_and_stops_one_whose_container_has_that_process() {
    if !require("docker") {
        return;
    }
    let world = World::build(Fixture::get().tag_of("ignores-term")).rows(25).start();
    world.docker(&["stop", "--time", "1", &world.name]);
    let lock = world.data_dir().join("db/postgres/postmaster.pid");
    assert!(lock.exists());
    replace(&world, "busy-pids");
    wait_for_log(&world, "lock file \"postmaster.pid\" already exists");
    assert!(!world.is_healthy());

    fs::remove_file(lock).expect("the lock file");
    world.wait_healthy();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

#[test]
fn a_version_answers_slowly_or_is_good_for_a_while_only() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    replace(&world, "slow-answers");
    world.wait_healthy();
    let asked = std::time::Instant::now();
    world.core("/").expect("an answer");
    // The very thing that it is there for.
    assert!(asked.elapsed() >= Duration::from_millis(2500));

    let tag = replace(&world, "turns-500");
    world.wait_healthy();
    wait_for_500(&world, &tag);
    world.wait_for_payments(3);
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}
