//! A shop whose database is not in its container: on this host, encrypted, behind a pooler, in another
//! container of the same network. It is upgraded, comes back from a broken version, is backed up and
//! restored; where that could not end well the plan says so.
//!
//! On this host and behind the poolers that stand in the way by default; all with
//! `PAYRAM_TEST_FULL=1`.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use support::external::{External, Neighbour, Pool, Pooler, Reach, Tls};
use support::operator::{assert_parts, check, inspection, plan, said, upgrade};
use support::{Daemon, Fixture, World, in_long_run, require, wait_until};

/// From the request to the end of an upgrade that goes back.
const END_LIMIT: Duration = Duration::from_secs(240);

/// What the server's keeper is answered, by database and statement.
type Ask<'a> = &'a dyn Fn(&str, &str) -> String;

fn here() -> bool {
    require("docker") && require("postgres") && require("root")
}

/// Everything that a shop is promised.
fn all_of_it(world: &World, ask: Ask<'_>) {
    is_upgraded(world);
    comes_back(world, ask);
    a_changed_schema_comes_back_on_a_persons_word(world, ask);
    a_backup_is_put_back_also_when_the_container_is_gone(world, ask);
}

fn is_upgraded(world: &World) {
    let daemon = world.daemon();
    let (code, ready) = plan(world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    println!("{}", check(&ready, "directory").1);
    let run = upgrade(world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}\n{}", said(&run), daemon.log());
    world.assert_sound("1.9.7", "an upgrade");
}

/// From a version that changes nothing in the database.
fn comes_back(world: &World, ask: Ask<'_>) {
    let daemon = world.daemon();
    let tables = tables(ask);
    let status = failed(world, &daemon, Fixture::get().tag_of("health-500"));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    println!("{}", status["message"]);
    world.assert_sound("1.9.7", "a way back");
    assert_eq!(self::tables(ask), tables);
}

fn failed(world: &World, daemon: &Daemon, tag: &str) -> Value {
    world.begin_upgrade(tag);
    daemon.wait_settled(END_LIMIT)
}

/// Names of tables and columns.
fn tables(ask: Ask<'_>) -> String {
    let all = "SELECT table_name, column_name FROM information_schema.columns
               WHERE table_schema = 'public' ORDER BY 1, 2";
    ask("payram", all)
}

/// From a version that changed the schema: others may write to that database, so a person decides.
fn a_changed_schema_comes_back_on_a_persons_word(world: &World, ask: Ask<'_>) {
    let daemon = world.daemon();
    let before = tables(ask);
    let status = failed(world, &daemon, Fixture::get().tag_of("migration-schema"));
    println!("{}", status["message"]);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    assert_ne!(tables(ask), before);
    let asked = world.cli(&["recover", "--dry-run"]);
    println!("{}", said(&asked));
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    println!("{}", said(&recovered));
    assert_eq!(recovered.status.code(), Some(0), "{}\n{}", said(&recovered), daemon.log());
    let status = daemon.status();
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}");
    let kept = ask("postgres", "SELECT datname FROM pg_database WHERE datname ~ '^payram_failed_'");
    assert_parts(&status["message"].to_string(), &[&kept, "1.9.7 serves"]);
    assert_eq!(tables(ask), before);
    assert!(world.is_healthy());
    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

fn a_backup_is_put_back_also_when_the_container_is_gone(world: &World, ask: Ask<'_>) {
    let _daemon = world.daemon();
    let made = world.cli(&["backup", "create"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let file = made["backup"]["path"].as_str().expect("a path");
    let wallets = || ask("payram", "SELECT count(*) FROM wallets");
    let before = wallets();
    for is_there in [true, false] {
        if !is_there {
            world.docker(&["rm", "--force", &world.name]);
        }
        ask("payram", "DROP TABLE wallets");
        let put_back = world.cli(&["backup", "restore", "--file", file, "--yes"]);
        assert_eq!(put_back.status.code(), Some(0), "{}", said(&put_back));
        assert_eq!(wallets(), before, "with a container: {is_there}");
    }
    let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'payram_before_restore_%'";
    assert_eq!(ask("postgres", kept), "2");
    let remembered = std::fs::metadata(world.state_dir().join("database.json"));
    let mode = remembered.expect("it is written down").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn on_this_host() {
    if !here() {
        return;
    }
    let server = External::start(Tls::None);
    let shop = server.shop(World::build("1.9.6"), server.port);
    let world = shop.env("POSTGRES_SSLMODE", "disable").rows(300).start();
    all_of_it(&world, &|database, sql| server.ask(database, sql));
}

#[test]
fn on_a_server_that_refuses_what_is_not_encrypted() {
    if !in_long_run() || !here() {
        return;
    }
    let server = External::start(Tls::Required);
    let shop = server.shop(World::build("1.9.6"), server.port);
    let world = shop.env("POSTGRES_SSLMODE", "require").rows(300).start();
    all_of_it(&world, &|database, sql| server.ask(database, sql));
    let asked = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE client_addr IS NOT NULL";
    assert_ne!(server.ask("payram", asked), "f");
}

#[test]
fn in_another_container_of_the_same_network() {
    if !in_long_run() || !here() {
        return;
    }
    let neighbour = Neighbour::start(&Fixture::get().image("1.9.6"));
    let world = neighbour.shop(World::build("1.9.6")).rows(300).start();
    all_of_it(&world, &|database, sql| neighbour.ask(database, sql));
}

#[test]
fn through_a_pooler_that_keeps_sessions_apart() {
    if !in_long_run() || !here() || !require("pgbouncer") {
        return;
    }
    let server = External::start(Tls::None);
    let pooler = Pooler::start(&server, Pool::Session, Reach::All);
    let world = server.shop(World::build("1.9.6"), pooler.port).rows(300).start();
    all_of_it(&world, &|database, sql| server.ask(database, sql));
}

#[test]
fn through_a_pooler_that_mixes_sessions() {
    if !here() || !require("pgbouncer") {
        return;
    }
    let server = External::start(Tls::None);
    let pooler = Pooler::start(&server, Pool::Transaction, Reach::All);
    let world = server.shop(World::build("1.9.6"), pooler.port).rows(300).start();
    let daemon = world.daemon();
    let (code, refused) = plan(&world, "1.9.7");
    assert_eq!(code, Some(1), "{refused:#}");
    assert_eq!(refused["failureCode"], "INVALID_DB_CONFIG", "{refused:#}");
    assert_parts(&refused["message"].to_string(), &["pool_mode", "POSTGRES_HOST"]);
    println!("{}", refused["message"]);
    for args in [&["backup", "create"][..], &["run", "--to", "1.9.7", "--yes"]] {
        let refused = world.cli(args);
        assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));
        assert_parts(&said(&refused), &["INVALID_DB_CONFIG"]);
    }
    let inspected = inspection(&world);
    assert_parts(&inspected.to_string(), &["pool_mode"]);
    drop(daemon);
    // What was looked at has left nothing in the application's sessions.
    world.wait_for_payments(40);
    let log = world.container_log();
    assert!(!log.contains("nothing written"), "{log}");
    // And this is what it would be: a session that only set something for itself.
    wait_until("the application is hit by it", END_LIMIT, || {
        server.session(pooler.port, "SET default_transaction_read_only = on");
        world.container_log().contains("read-only transaction").then_some(())
    });
}

#[test]
fn through_a_pooler_to_the_applications_database_alone() {
    if !in_long_run() || !here() || !require("pgbouncer") {
        return;
    }
    let server = External::start(Tls::None);
    let pooler = Pooler::start(&server, Pool::Session, Reach::One);
    let world = server.shop(World::build("1.9.6"), pooler.port).rows(300).start();
    let ask: Ask<'_> = &|database, sql| server.ask(database, sql);
    is_upgraded(&world);
    comes_back(&world, ask);
    // Nothing can be loaded beside it: it is said, and changes nothing.
    let daemon = world.daemon();
    assert_parts(&world.upgrade_log(), &["can't be connected to"]);
    let made = world.cli(&["backup", "create"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let file = made["backup"]["path"].as_str().expect("a path");
    let before = tables(ask);
    let put_back = world.cli(&["backup", "restore", "--file", file, "--yes"]);
    assert_eq!(put_back.status.code(), Some(1), "{}", said(&put_back));
    println!("{}", said(&put_back));
    assert_parts(&said(&put_back), &["postgres"]);
    assert_eq!(tables(ask), before);
    let status = failed(&world, &daemon, Fixture::get().tag_of("migration-schema"));
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    println!("{}", said(&recovered));
    assert_ne!(recovered.status.code(), Some(0), "{}", said(&recovered));
    assert_parts(&daemon.status()["message"].to_string(), &[".dump"]);
    let kept = world.cli(&["recover", "--keep-new", "--dry-run"]);
    println!("{}", said(&kept));
}
