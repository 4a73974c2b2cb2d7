//! What the tests of the stand-in look at, and wait for.

use std::time::Duration;

use crate::support::{Fixture, World, wait_until};

/// What a container does by itself within seconds; more where the machine is busy.
pub const SOON: Duration = Duration::from_secs(180);

/// The version that has this behaviour, in place of the one that runs.
pub fn replace(world: &World, behaviour: &str) -> String {
    let tag = Fixture::get().tag_of(behaviour).to_owned();
    world.replace_by_hand(&tag);
    tag
}

pub fn wait_for_log(world: &World, text: &str) {
    wait_until(&format!("the container says '{text}'"), SOON, || {
        world.container_log().contains(text).then_some(())
    });
}

/// Waits until health is asked for and is 500, by the version that runs.
pub fn wait_for_500(world: &World, tag: &str) {
    wait_until(&format!("{tag} answers 500"), SOON, || {
        let answer = world.core("/api/v1/health").ok()?;
        (answer.status == 500 && world.version().as_deref() == Some(tag)).then_some(())
    });
}

/// Waits until rows of a table were written by this version.
pub fn wait_for_rows(world: &World, table: &str, tag: &str) {
    let sql = format!("SELECT count(*) > 2 FROM {table} WHERE written_by = '{tag}'");
    wait_until(&format!("{tag} writes to {table}"), SOON, || {
        (world.try_sql(&sql).ok()? == "t").then_some(())
    });
}

pub fn columns(world: &World) -> String {
    world.sql(
        "SELECT table_name, column_name FROM information_schema.columns
         WHERE table_schema = 'public' ORDER BY 1, 2",
    )
}

/// All rows, the payments' contents included, and where the sequences stand.
pub fn rows(world: &World) -> String {
    world.sql(
        "SELECT *, xmin FROM payments ORDER BY seq; SELECT *, xmin FROM schema_migrations;
         SELECT *, xmin FROM jobs ORDER BY id; SELECT *, xmin FROM addresses ORDER BY number;
         SELECT *, xmin FROM balances ORDER BY account; SELECT *, xmin FROM wallets ORDER BY 1;
         SELECT last_value FROM jobs_id_seq; SELECT last_value FROM addresses_number_seq",
    )
}

pub fn cluster(world: &World) -> String {
    world.sql("SELECT system_identifier FROM pg_control_system()")
}

/// A 1.9.6 with payments whose application is stopped, so that its database stands still.
pub fn quiet_world() -> World {
    let world = World::build("1.9.6").rows(25).start();
    world.docker(&["exec", &world.name, "supervisorctl", "stop", "payram-core", "payram-worker"]);
    world
}

/// State and process id of a program, as its supervisor has them.
pub fn program(world: &World, name: &str) -> (String, String) {
    let script = format!("supervisorctl status {name} || true");
    let line = world.docker(&["exec", &world.name, "sh", "-c", &script]);
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = words.get(1).copied().unwrap_or_default();
    let pid = words.iter().skip_while(|word| **word != "pid").nth(1).copied().unwrap_or_default();
    (state.to_owned(), pid.to_owned())
}
