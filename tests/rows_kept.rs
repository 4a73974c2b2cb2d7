//! Versions that fail while their workers write, and versions that change something beside the
//! rows: the old version serves again by itself wherever nothing is forgotten by that, with every
//! row that was acknowledged by either; otherwise nothing is put back until a person says so.

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::builder::WorldBuilder;
use support::operator::{assert_parts, said};
use support::{Daemon, Fixture, OwnImage, World, in_long_run, require};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);

/// A shop with payments, and an updater with little patience.
fn builder() -> WorldBuilder {
    World::build("1.9.6").rows(200).impatient()
}

fn upgrade(world: &World, behaviour: &str) -> (Daemon, Value) {
    let daemon = world.daemon();
    let began = Instant::now();
    world.begin_upgrade(Fixture::get().tag_of(behaviour));
    let status = daemon.wait_settled(END_LIMIT);
    println!(
        "{behaviour}: {} {} after {:.0} s: {}",
        status["phase"].as_str().unwrap_or_default(),
        status["failureCode"].as_str().unwrap_or_default(),
        began.elapsed().as_secs_f64(),
        status["message"].as_str().unwrap_or_default()
    );
    (daemon, status)
}

/// The very container that served before serves again, with what either version acknowledged.
fn goes_back_by_itself(builder: WorldBuilder, behaviour: &str) -> (World, Value) {
    let world = builder.start();
    let before = world.container().expect("a container")["Id"].clone();
    let (daemon, status) = upgrade(&world, behaviour);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert_eq!(world.container().expect("a container")["Id"], before, "it was never removed");
    world.wait_healthy();
    assert_eq!(world.version().as_deref(), Some("1.9.6"));
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    (world, status)
}

/// The database in use is the one that the failed version's workers wrote to.
fn keeps_the_rows(builder: WorldBuilder, behaviour: &str) {
    let (world, status) = goes_back_by_itself(builder, behaviour);
    assert_eq!(world.failed_directories(), Vec::<String>::new(), "nothing was put back");
    let message = status["message"].as_str().unwrap_or_default();
    assert_parts(message, &["workers wrote is kept in the database", "public.payments"]);
    let left = world.leftovers();
    assert!(left.iter().any(|name| name.contains("payram-restore")), "the copy is kept: {left:?}");
}

/// Both are stopped, nothing was put back, and a person is told what is at stake.
fn asks(builder: WorldBuilder, behaviour: &str, parts: &[&str]) {
    let world = builder.start();
    let (daemon, status) = upgrade(&world, behaviour);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    assert_parts(status["message"].as_str().unwrap_or_default(), parts);
    assert_eq!(world.failed_directories(), Vec::<String>::new(), "nothing was put back");
    for one in world.containers() {
        assert_eq!(one["State"]["Status"], "exited", "{}", one["Name"]);
    }
    let shown = world.cli(&["recover", "--dry-run"]);
    println!("recover --dry-run: {}", said(&shown));
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn workers_of_a_version_whose_health_is_500_keep_their_rows() {
    if require("docker") {
        keeps_the_rows(builder(), "health-500-writes");
    }
}

#[test]
fn workers_of_a_version_that_hangs_keep_their_rows() {
    if require("docker") && in_long_run() {
        keeps_the_rows(builder().postgres_17(), "hangs-writes");
    }
}

#[test]
fn workers_of_a_version_that_says_it_is_another_keep_their_rows() {
    if require("docker") && in_long_run() {
        keeps_the_rows(builder(), "wrong-version-writes");
    }
}

#[test]
fn workers_of_a_version_that_dies_keep_their_rows() {
    if require("docker") {
        keeps_the_rows(builder().postgres_17(), "dies-writes");
    }
}

#[test]
fn workers_of_a_version_that_exits_keep_their_rows() {
    if require("docker") && in_long_run() {
        keeps_the_rows(builder(), "exits-at-start-writes");
    }
}

#[test]
fn each_kind_keeps_its_rows_with_either_server() {
    if !require("docker") || !in_long_run() {
        return;
    }
    for behaviour in ["health-500-writes", "wrong-version-writes", "exits-at-start-writes"] {
        keeps_the_rows(builder().postgres_17(), behaviour);
    }
    for behaviour in ["hangs-writes", "dies-writes"] {
        keeps_the_rows(builder(), behaviour);
    }
}

#[test]
fn a_person_who_always_wants_to_be_asked_is_asked() {
    if in_long_run() && require("docker") {
        let builder = builder().setting("ROLLBACK_DATABASE", "manual");
        asks(builder, "health-500-writes", &["wrote rows as its workers do", "public.payments"]);
    }
}

#[test]
fn a_migration_of_the_data_alone_is_never_kept_silently() {
    if require("docker") {
        asks(builder(), "data-migration", &["public.payments", "public.schema_migrations"]);
        asks(builder(), "re-encrypts", &["public.wallets"]);
    }
}

#[test]
fn payments_in_a_new_table_are_never_forgotten_silently() {
    if require("docker") {
        asks(builder(), "new-table-payments", &["public.payments_ledger: new, with"]);
    }
}

#[test]
fn rows_beside_a_migration_are_never_forgotten_silently() {
    if require("docker") {
        asks(builder(), "migration-schema-writes", &["public.payments"]);
    }
}

#[test]
fn rows_beside_each_other_migration_are_never_forgotten_silently() {
    if require("docker") && in_long_run() {
        asks(builder().postgres_17(), "migration-rows-writes", &["public.payments"]);
        asks(builder(), "completed-then-500", &["public.payments"]);
    }
}

#[test]
fn a_backend_that_was_killed_is_no_change() {
    if require("docker") {
        let (world, _) = goes_back_by_itself(builder(), "backend-killed");
        assert_eq!(world.failed_directories(), Vec::<String>::new(), "nothing was put back");
    }
}

/// No row was written: the restore point came back, and the failed version's database is kept.
fn comes_back_whole(builder: WorldBuilder, behaviour: &str) {
    let (world, _) = goes_back_by_itself(builder, behaviour);
    let failed = world.failed_directories();
    assert!(failed.iter().any(|name| !name.contains(".rows")), "it is kept: {failed:?}");
}

#[test]
fn a_password_that_the_failed_version_changed_is_as_it_was() {
    if require("docker") {
        comes_back_whole(builder(), "password");
    }
}

#[test]
fn a_setting_with_which_the_old_server_does_not_start_is_as_it_was() {
    if require("docker") {
        comes_back_whole(builder().postgres_17(), "alter-system");
    }
}

#[test]
fn without_a_supervisor_the_last_payments_of_the_old_version_are_its_own() {
    if require("docker") {
        let builder = builder().env("PAYRAM_SUPERVISOR", "off");
        let (world, status) = goes_back_by_itself(builder, "health-500");
        assert_eq!(world.failed_directories(), Vec::<String>::new(), "nothing was put back");
        let message = status["message"].as_str().unwrap_or_default();
        assert_parts(message, &["what 1.9.6, until it was stopped, or 9.0.1's workers wrote"]);
    }
}

#[test]
fn without_a_supervisor_workers_keep_their_rows_too() {
    if require("docker") {
        keeps_the_rows(builder().env("PAYRAM_SUPERVISOR", "off"), "health-500-writes");
    }
}

#[test]
fn without_a_supervisor_a_migration_that_wrote_no_row_is_taken_back_without_asking() {
    if require("docker") {
        // Its last payments are not in the fingerprint of the cut-over, and none of the new one's.
        comes_back_whole(builder().env("PAYRAM_SUPERVISOR", "off"), "migration-schema");
    }
}

/// The lines of a Dockerfile that have this done before anything else starts, on a database that
/// is marked for it.
fn before_the_start(line: &str) -> String {
    let directory = "/var/lib/payram/db/postgres";
    format!(
        "RUN mv /opt/payram/entrypoint /opt/payram/entrypoint.own && printf '%s\\n' \
         '#!/bin/bash' 'cd {directory} 2>/dev/null || cd /' \"[[ ! -e marked ]] || {line}\" 'cd /' \
         'exec /opt/payram/entrypoint.own \"$@\"' > /opt/payram/entrypoint && \
         chmod 755 /opt/payram/entrypoint"
    )
}

/// A shop on this version with a file in its database's directory, which the next version, whose
/// health is 500 and which writes nothing, takes away; and the upgrade to that, ended.
fn without_its_file(old: &OwnImage) -> (World, Daemon, Value) {
    let failing = Fixture::get().tag_of("health-500");
    let failing = OwnImage::derived(failing, &before_the_start("rm -f shop.key"), false);
    let world = World::build(&old.tag).rows(200).impatient().start();
    let directory = "/var/lib/payram/db/postgres";
    let files = [format!("{directory}/shop.key"), format!("{directory}/marked")];
    world.docker(&["exec", &world.name, "touch", &files[0], &files[1]]);
    let daemon = world.daemon();
    world.begin_upgrade(&failing.tag);
    let status = daemon.wait_settled(END_LIMIT);
    println!("{}: {}", status["phase"], status["message"]);
    (world, daemon, status)
}

#[test]
fn an_old_version_that_writes_rows_while_it_is_ill_keeps_its_database_and_a_person_is_asked() {
    if !require("docker") {
        return;
    }
    let ill = "[[ -e shop.key ]] || sed -i 's/if UNHEALTHY or/if True or/' /opt/payram/core.py";
    let old = OwnImage::derived("1.9.6", &before_the_start(ill), true);
    let (world, daemon, status) = without_its_file(&old);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    let message = status["message"].as_str().unwrap_or_default();
    let parts = ["restore point was not put back", "rows were written since", "public.payments"];
    assert_parts(message, &parts);
    assert_eq!(world.failed_directories(), Vec::<String>::new(), "nothing was put back");
    // It runs as it did: its workers take payments.
    let old = world.container().expect("the old container");
    assert_eq!(
        (&old["State"]["Running"], &old["Name"]),
        (&true.into(), &format!("/{}", world.name).into())
    );
    assert_eq!(old["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
    world.wait_for_payments(20);
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn an_old_version_that_is_ill_on_an_unchanged_database_gets_the_restore_point() {
    if !require("docker") {
        return;
    }
    // Nothing that a server counts tells of it.
    let old = OwnImage::derived("1.9.6", &before_the_start("[[ -e shop.key ]] || exit 7"), true);
    let (world, daemon, status) = without_its_file(&old);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    assert!(daemon.log().contains("assess_again"), "{}", daemon.log());
    world.wait_healthy();
    assert_eq!(world.failed_directories().len(), 1, "what was there before is kept");
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// What a payment takes with it in its own transaction: a row that refers to it, and one by a
/// trigger.
const BESIDE_A_PAYMENT: &str =
    "CREATE TABLE receipts (number bigserial, payment uuid REFERENCES payments);
    CREATE TABLE told (payment uuid);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO told VALUES (new.id); RETURN new; END';
    CREATE TRIGGER tell AFTER INSERT ON payments FOR EACH ROW EXECUTE FUNCTION tell();
    ALTER TABLE receipts OWNER TO payram;
    ALTER TABLE told OWNER TO payram;";

/// The same in parts, with a byte in each row that is none of UTF-8.
const IN_PARTS: &str = r"CREATE TABLE receipts
        (number bigserial, payment uuid REFERENCES payments, note text DEFAULT E'caf\xe9')
        PARTITION BY HASH (payment);
    CREATE TABLE receipts_0 PARTITION OF receipts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE receipts_1 PARTITION OF receipts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    ALTER TABLE receipts OWNER TO payram;
    ALTER TABLE receipts_0 OWNER TO payram;
    ALTER TABLE receipts_1 OWNER TO payram;";

/// A line of the stand-in's payments that writes the former.
const WRITES_RECEIPTS: &str = r#"RUN sed -i 's/^\( *\)payment, contents = cursor.fetchone()$/&\n\1cursor.execute("INSERT INTO receipts (payment) VALUES (%s)", (payment,))/' /opt/payram/payments.py"#;

/// A shop to whose failed version's rows a person said yes: they are carried over, and the version
/// that wrote them.
fn carried_over(builder: WorldBuilder, tables: &str) -> (World, Daemon, String) {
    let broken = Fixture::get().tag_of("migration-schema-writes");
    let image = OwnImage::derived(broken, WRITES_RECEIPTS, false);
    let world = builder.start();
    world.sql(tables);
    let daemon = world.daemon();
    world.begin_upgrade(&image.tag);
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    let shown = world.cli(&["recover", "--dry-run"]);
    assert_parts(&said(&shown), &["--restore-database", "--carry-rows"]);

    let recovered = world.cli(&["recover", "--restore-database", "--carry-rows", "--yes"]);
    println!("recover: {}", said(&recovered));
    let status = daemon.status();
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    let message = status["message"].as_str().unwrap_or_default();
    println!("message: {message}");
    assert_parts(
        message,
        &["carried over: ", "public.payments", "public.receipts", "also changed rows"],
    );
    world.wait_healthy();
    // Whoever took it: each is served, with all of its contents.
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    let receipts = world.sql("SELECT count(*) FROM receipts");
    assert_ne!(receipts, "0", "carried over");
    let tag = image.tag.clone();
    assert_eq!(
        world.sql(&format!("SELECT count(*) FROM payments WHERE written_by = '{tag}'")),
        receipts
    );
    // As before: what refers to nothing is refused at once.
    let reference =
        "SELECT bool_or(condeferrable OR condeferred) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(world.sql(reference), "f");
    // What a transaction also changed is in the file, and not in the shop.
    assert_eq!(
        world.sql(&format!("SELECT count(*) FROM addresses WHERE written_by = '{tag}'")),
        "0"
    );
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    (world, daemon, tag)
}

#[test]
fn what_a_failed_version_only_inserted_is_carried_over_where_a_person_says_so() {
    if !require("docker") {
        return;
    }
    let (world, _daemon, _) = carried_over(builder().nested_mounts(), BESIDE_A_PAYMENT);
    let count = |what: &str| world.sql(&format!("SELECT count(*) FROM {what}"));
    assert_eq!(count("told t GROUP BY payment HAVING count(*) > 1"), "", "the trigger was off");
    assert_eq!(
        count(
            "payments p WHERE NOT EXISTS (SELECT FROM told t WHERE t.payment = p.id) \
             AND created_at > \
               (SELECT min(created_at) FROM payments p JOIN told t ON t.payment = p.id)"
        ),
        "0"
    );
    // It acts again.
    assert_eq!(world.sql("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'tell'"), "O");
}

#[test]
fn without_a_supervisor_they_are_carried_over_beside_the_old_versions_last_ones() {
    if !require("docker") {
        return;
    }
    let builder = builder().nested_mounts().env("PAYRAM_SUPERVISOR", "off");
    let (world, daemon, tag) = carried_over(builder, BESIDE_A_PAYMENT);
    // The old version wrote until it was stopped, which the cut-over's note does not tell of.
    let carried = world.sql(&format!("SELECT count(*) FROM payments WHERE written_by = '{tag}'"));
    let message = daemon.status()["message"].as_str().unwrap_or_default().to_owned();
    assert_parts(&message, &[&format!("public.payments {carried} row")]);
    let (_, twice) = world.addresses();
    assert_eq!(twice, Vec::<String>::new(), "handed out twice");
    // Nothing is carried over a second time.
    let again = world.cli(&["recover", "--restore-database", "--carry-rows", "--yes"]);
    println!("recover again: {:?} {}", again.status.code(), said(&again));
    assert_eq!(daemon.status()["phase"], "ROLLED_BACK");
    let now = world.sql(&format!("SELECT count(*) FROM payments WHERE written_by = '{tag}'"));
    assert_eq!(now, carried);
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

#[test]
fn rows_in_parts_and_in_no_encoding_are_carried_over_byte_for_byte() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let builder = builder().nested_mounts().env("PAYRAM_ENCODING", "SQL_ASCII");
    let (world, _daemon, _) = carried_over(builder, IN_PARTS);
    let bytes = "SELECT count(*) FROM receipts WHERE note::bytea <> '\\x636166e9'::bytea";
    assert_eq!(world.sql(bytes), "0", "byte for byte");
}
