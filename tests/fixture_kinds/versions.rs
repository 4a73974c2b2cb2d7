//! Versions whose workers write, in good ones and while they are broken; and those that are odd in
//! how they answer.

use std::time::{Duration, Instant};

use crate::look::{
    SOON, columns, program, quiet_world, replace, wait_for_500, wait_for_log, wait_for_rows,
};
use crate::support::{World, in_long_run, require, wait_until};

#[test]
fn workers_insert_update_delete_draw_and_move_a_balance_in_one_transaction() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let (before, _) = world.addresses();
    wait_until("the oldest jobs are removed", SOON, || {
        (world.sql("SELECT min(id) > 1 FROM jobs") == "t").then_some(())
    });
    let whole = world.sql(
        "SELECT sum(amount), (SELECT count(*) > 1 FROM balances WHERE amount > 0),
                (SELECT count(*) FILTER (WHERE state = 'done') = count(*) - 1 FROM jobs),
                (SELECT count(DISTINCT xmin) FROM
                 (SELECT xmin::text FROM balances UNION ALL
                  (SELECT xmin::text FROM addresses ORDER BY number DESC LIMIT 1) UNION ALL
                  (SELECT xmin::text FROM jobs ORDER BY id DESC LIMIT 1)) AS last)
         FROM balances",
    );
    assert_eq!(whole, "1000000.00000000|t|t|1");
    let (handed_out, twice) = world.addresses();
    assert!(handed_out.len() > before.len());
    assert_eq!(twice, Vec::<String>::new());
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
fn a_version_answers_slowly_or_is_good_for_a_while_only() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    replace(&world, "slow-answers");
    world.wait_healthy();
    let asked = Instant::now();
    world.core("/").expect("an answer");
    // The very thing that it is there for.
    assert!(asked.elapsed() >= Duration::from_millis(2500));

    let tag = replace(&world, "turns-500");
    world.wait_healthy();
    wait_for_500(&world, &tag);
    world.wait_for_payments(3);
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}
