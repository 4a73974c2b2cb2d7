//! What a failed version handed out from a sequence, the index of an address above all, is never
//! handed out again: not where a person has the restore point put back, and not where it comes
//! back by itself.

mod support;

use std::fs;
use std::time::Duration;

use support::builder::WorldBuilder;
use support::operator::{assert_parts, said};
use support::{Fixture, OwnImage, World, require};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);

/// A shop with payments, and an updater with little patience.
fn builder() -> WorldBuilder {
    World::build("1.9.6").rows(200).impatient()
}

/// Acknowledged payments that are not served, but for those of this version.
fn lost_beside(world: &World, version: &str) -> Vec<String> {
    let written_by = format!("\"written_by\":\"{version}\"");
    world.payments_lost().into_iter().filter(|one| !one.contains(&written_by)).collect()
}

#[test]
fn an_index_that_a_failed_version_handed_out_is_not_handed_out_again_after_recover() {
    if !require("docker") {
        return;
    }
    let world = builder().nested_mounts().postgres_17().start();
    let daemon = world.daemon();
    world.begin_upgrade(Fixture::get().tag_of("migration-schema-writes"));
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", daemon.log());
    let (before, twice) = world.addresses();
    assert_eq!(twice, Vec::<String>::new());

    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    println!("recover: {}", said(&recovered));
    let status = daemon.status();
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    println!("message: {}", status["message"]);
    assert_parts(
        status["message"].as_str().unwrap_or_default(),
        &["sequence public.addresses_number_seq set from ", "which 9.1.4 had reached"],
    );
    world.wait_healthy();
    world.wait_for_payments(40);
    let (after, twice) = world.addresses();
    assert!(after.len() > before.len(), "none was handed out since: {}", after.len());
    assert_eq!(twice, Vec::<String>::new(), "handed out twice");
    assert_eq!(lost_beside(&world, "9.1.4"), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// What the version below appends to its broken migration: it draws from three sequences and tells
/// what it drew, makes one and drops one.
const DRAWS: [&str; 11] = [
    "_half = migrate_half",
    "def migrate_half(connection):",
    "    _half(connection)",
    "    with connection, connection.cursor() as cursor:",
    "        cursor.execute(\"CREATE SEQUENCE IF NOT EXISTS fresh\")",
    "        cursor.execute(\"DROP SEQUENCE IF EXISTS gone\")",
    "        for name in (\"addresses_number_seq\", \"down\", \"ring\"):",
    "            for _ in range(5):",
    "                cursor.execute(\"SELECT nextval(%s)\", (name,))",
    "                with open(\"/ack/drawn.log\", \"a\") as drawn:",
    "                    drawn.write(f\"{name} {cursor.fetchone()[0]}\\n\")",
];

#[test]
fn every_sequence_stands_at_the_further_value_when_the_restore_point_comes_back_by_itself() {
    if !require("docker") {
        return;
    }
    let lines: Vec<String> = DRAWS.iter().map(|line| format!("'{line}'")).collect();
    let append =
        format!("RUN printf '%s\\n' {} >>$(find /opt/payram -name migrations.py)", lines.join(" "));
    let image = OwnImage::derived(Fixture::get().tag_of("migration-schema"), &append, false);
    let world = builder().start();
    world.sql(
        "CREATE SEQUENCE down INCREMENT -1;
         CREATE SEQUENCE ring MAXVALUE 50 CYCLE;
         CREATE SEQUENCE gone;
         ALTER SEQUENCE down OWNER TO payram;
         ALTER SEQUENCE ring OWNER TO payram;
         ALTER SEQUENCE gone OWNER TO payram;
         SELECT setval('down', -20), setval('ring', 48), setval('gone', 30);",
    );
    let daemon = world.daemon();
    world.begin_upgrade(&image.tag);
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    println!("message: {}", status["message"]);
    assert!(!world.failed_directories().is_empty(), "nothing was put back");
    world.wait_healthy();

    let log = fs::read_to_string(world.ack_dir().join("drawn.log")).expect("what was drawn");
    let drawn = |name: &str| -> Vec<i64> {
        let lines = log.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let numbers: Vec<i64> = lines.collect();
        assert!(!numbers.is_empty(), "{name} was drawn from: {log}");
        numbers
    };
    let next = |name: &str| -> i64 {
        world.sql(&format!("SELECT nextval('{name}')")).parse().expect("a number")
    };
    let highest = drawn("addresses_number_seq").into_iter().max().expect("a number");
    assert!(next("addresses_number_seq") > highest, "above {highest}");
    let lowest = drawn("down").into_iter().min().expect("a number");
    assert_eq!(next("down"), lowest - 1);
    let last = *drawn("ring").last().expect("a number");
    assert_eq!(next("ring"), last % 50 + 1, "it goes on where the failed version left it");
    assert_eq!(next("gone"), 31, "dropped by the failed version, and as it was");
    assert_eq!(world.sql("SELECT to_regclass('fresh') IS NULL"), "t");
    assert_parts(
        status["message"].as_str().unwrap_or_default(),
        &[
            &format!("sequence public.down set from -20 to {lowest}, which {} ", image.tag),
            &format!("sequence public.ring set from 48 to {last}, "),
        ],
    );
    let (_, twice) = world.addresses();
    assert_eq!(twice, Vec::<String>::new(), "handed out twice");
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
