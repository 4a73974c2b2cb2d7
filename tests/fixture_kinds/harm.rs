//! Versions that do a shop another kind of harm than a broken migration: to its rows, to the files
//! beside them, to its server; or that serve from another one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::look::{SOON, cluster, columns, quiet_world, replace, rows, wait_for_500, wait_for_log};
use crate::support::{Fixture, World, in_long_run, require, wait_until};

#[test]
fn a_data_only_migration_changes_every_amount_or_secret_and_no_schema() {
    if !in_long_run() || !require("docker") {
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
fn what_lies_beside_the_database_changes_its_owner_or_its_format() {
    if !in_long_run() || !require("docker") {
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
    if !in_long_run() || !require("docker") {
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
