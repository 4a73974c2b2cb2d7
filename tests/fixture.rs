//! The stand-in for the PayRam image is what the other tests take it for: its good versions lose
//! nothing, and each broken one is broken in its own way and in no other.

mod support;

use std::time::Duration;

use support::http::Request;
use support::{Fixture, World, require, wait_until};

/// What a container does by itself within seconds; more where the machine is busy.
const SOON: Duration = Duration::from_secs(180);

/// What a version may leave in the database: every column, and every row but for its payments.
#[derive(Debug, PartialEq)]
struct Database {
    columns: String,
    payments: String,
    migrations: String,
    others: String,
}

fn database(world: &World) -> Database {
    Database {
        columns: world.sql(
            "SELECT table_name, column_name FROM information_schema.columns
             WHERE table_schema = 'public' ORDER BY 1, 2",
        ),
        payments: world.sql("SELECT id, amount, created_at, xmin FROM payments ORDER BY seq"),
        migrations: world.sql("SELECT version, xmin FROM schema_migrations ORDER BY 1"),
        others: world.sql(
            "SELECT *, xmin FROM jobs ORDER BY id; SELECT *, xmin FROM addresses ORDER BY number;
             SELECT *, xmin FROM balances ORDER BY account; SELECT *, xmin FROM wallets ORDER BY 1;
             SELECT last_value FROM jobs_id_seq; SELECT last_value FROM addresses_number_seq",
        ),
    }
}

/// A healthy 1.9.6 with payments, whose core and worker are stopped, so that its database stands
/// still; and that database.
fn quiet_world() -> (World, Database) {
    let world = World::build("1.9.6").rows(25).start();
    let stop = ["exec", &world.name, "supervisorctl", "stop", "payram-core", "payram-worker"];
    world.docker(&stop);
    let before = database(&world);
    (world, before)
}

/// The tag in place of 1.9.6, on its database.
fn broken(behaviour: &str) -> (World, Database) {
    let (world, before) = quiet_world();
    world.replace_by_hand(&tag_of(behaviour));
    (world, before)
}

fn tag_of(behaviour: &str) -> String {
    Fixture::get().tag_of(behaviour).to_owned()
}

fn wait_for_log(world: &World, text: &str) {
    wait_until(&format!("the container says '{text}'"), SOON, || {
        world.container_log().contains(text).then_some(())
    });
}

fn wait_until_database_answers(world: &World) {
    wait_until("the database answers", SOON, || world.try_sql("SELECT 1").ok());
}

fn program_state(world: &World, program: &str) -> String {
    let script = format!("supervisorctl status {program} || true");
    let line = world.docker(&["exec", &world.name, "sh", "-c", &script]);
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_good_version_keeps_every_acknowledged_payment_through_stop_and_start() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    assert_eq!(world.version().as_deref(), Some("1.9.6"));
    assert!(world.core("/").expect("an answer").body.contains("Welcome to Payram Core"));

    world.wait_for_payments(20);
    assert_eq!(world.lost(), Vec::<String>::new());

    world.docker(&["stop", "--time", "60", &world.name]);
    let stopped = world.container().expect("the container is kept");
    assert_eq!(stopped["State"]["ExitCode"], 0, "it stops without being killed");
    assert!(world.container_log().contains("database system is shut down"));

    world.docker(&["start", &world.name]);
    world.wait_healthy();
    world.wait_for_payments(5);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert!(world.acked().len() >= 125);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn payments_go_on_after_the_database_was_killed() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    world.wait_for_payments(5);
    world.docker(&["exec", &world.name, "sh", "-c", "kill -KILL $(supervisorctl pid postgres)"]);
    world.wait_for_payments(20);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_payment_that_is_gone_or_is_another_one_is_noticed() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(3).start();
    assert_eq!(world.payments_lost(), Vec::<String>::new());
    let (gone, other) = (world.acked()[0].clone(), world.acked()[1].clone());
    world.sql(&format!("DELETE FROM payments WHERE id = '{gone}'"));
    world.sql(&format!("UPDATE payments SET amount = amount + 1 WHERE id = '{other}'"));
    assert_eq!(world.lost(), std::slice::from_ref(&gone));
    let lost = world.payments_lost();
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost[0].contains(&gone) && lost[0].ends_with("served nothing"), "{lost:?}");
    assert!(lost[1].contains(&other) && lost[1].contains(r#"served {"amount":"#), "{lost:?}");
}

#[test]
fn good_versions_migrate_upwards_and_the_oldest_runs_on_the_newest_schema() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(10).start();
    for tag in ["1.9.7", "1.9.8", "2.0.0"] {
        world.replace_by_hand(tag);
        world.wait_healthy();
        assert_eq!(world.version().as_deref(), Some(tag));
        world.wait_for_payments(3);
    }
    assert_eq!(
        world.sql("SELECT version FROM schema_migrations ORDER BY 1"),
        "1.9.6\n1.9.7\n1.9.8\n2.0.0"
    );
    world.replace_by_hand("1.9.6");
    world.wait_healthy();
    world.wait_for_payments(3);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(
        world.sql("SELECT DISTINCT written_by FROM payments ORDER BY 1"),
        "1.9.6\n1.9.7\n1.9.8\n2.0.0\ntest"
    );
}

#[test]
fn two_containers_on_one_database_directory_are_noticed_twice() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let second = format!("{}-second", world.name);
    let data = format!("{}:/var/lib/payram", world.data_dir().display());
    let ack = format!("{}:/ack", world.ack_dir().display());
    let image = Fixture::get().image("1.9.6");
    world.docker(&[
        "run",
        "--detach",
        "--name",
        &second,
        "--volume",
        &data,
        "--volume",
        &ack,
        "--env",
        "POSTGRES_PASSWORD=x",
        &image,
    ]);
    let note = world.ack_dir().join("two-servers.log");
    wait_until("the stand-in's note", SOON, || note.exists().then_some(()));
    let seen = world.two_at_once();
    assert!(seen.iter().any(|line| line.starts_with("running at once")), "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("postgres-alone")), "{seen:?}");
    assert!(world.is_healthy(), "the first is not disturbed");
}

#[test]
fn neither_password_nor_key_is_logged_by_a_container() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let log = world.container_log();
    assert!(log.contains("AES_KEY is set"), "{log}");
    assert!(!log.contains(support::world::AES_KEY) && !log.contains(support::world::PASSWORD));
}

#[test]
fn a_forgotten_image_is_pulled_again_and_is_the_same() {
    if !require("docker") {
        return;
    }
    let fixture = Fixture::get();
    let world = World::start("1.9.6");
    let image = fixture.image("1.9.6");
    world.docker(&["rm", "--force", &world.name]);
    // Another test may hold it; then there is nothing to forget, and the pull finds it there.
    std::process::Command::new("docker").args(["image", "rm", &image]).output().expect("docker");
    world.docker(&["pull", &image]);
    let pulled = world.inspect(&image).expect("the image is there");
    assert_eq!(pulled["Id"], fixture.image_id("1.9.6"));
    assert_eq!(pulled["Config"]["Labels"]["org.opencontainers.image.version"], "1.9.6");
}

#[test]
fn every_behaviour_in_the_list_of_tags_has_its_test() {
    if !require("docker") {
        return;
    }
    let tests = [
        include_str!("fixture.rs"),
        include_str!("fixture_kinds/versions.rs"),
        include_str!("fixture_kinds/harm.rs"),
        include_str!("fixture_kinds/machines.rs"),
    ]
    .concat();
    for tag in Fixture::get().tags() {
        let quoted = format!("\"{}\"", tag.behaviour);
        let is_good = tag.behaviour == "good" && tests.contains(&format!("\"{}\"", tag.tag));
        assert!(is_good || tests.contains(&quoted), "{} has no test", tag.behaviour);
    }
}

#[test]
fn health_500_answers_everything_but_health_and_leaves_the_database_as_it_was() {
    if !require("docker") {
        return;
    }
    let (world, before) = broken("health-500");
    let answer = wait_until("an answer", SOON, || world.core("/api/v1/health").ok());
    assert_eq!(answer.status, 500);
    assert_eq!(world.version(), Some(tag_of("health-500")));
    assert_eq!(database(&world), before);
}

#[test]
fn exits_at_start_exits_with_1_and_never_serves() {
    if !require("docker") {
        return;
    }
    let (world, _) = quiet_world();
    world.docker(&["stop", &world.name]);
    let image = Fixture::get().image(&tag_of("exits-at-start"));
    let run = std::process::Command::new("docker").args(["run", "--rm", &image]).output();
    let run = run.expect("docker starts");
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stderr).contains("exits at start"));
}

#[test]
fn wrong_version_is_healthy_says_1_0_0_and_leaves_the_database_as_it_was() {
    if !require("docker") {
        return;
    }
    let (world, before) = broken("wrong-version");
    world.wait_healthy();
    assert_eq!(world.version().as_deref(), Some("1.0.0"));
    assert_eq!(database(&world), before);
}

#[test]
fn migration_schema_changes_the_schema_and_no_row() {
    if !require("docker") {
        return;
    }
    let (world, before) = broken("migration-schema");
    wait_until("the core is FATAL", SOON, || {
        (program_state(&world, "payram-core") == "FATAL").then_some(())
    });
    assert_eq!(program_state(&world, "postgres"), "RUNNING");
    assert!(!world.is_healthy());
    let after = database(&world);
    assert_ne!(after.columns, before.columns);
    assert_eq!(after.payments, before.payments);
    assert_eq!(after.migrations, before.migrations);
}

#[test]
fn migration_rows_changes_ten_payments_too() {
    if !require("docker") {
        return;
    }
    let (world, before) = broken("migration-rows");
    wait_until("the core is FATAL", SOON, || {
        (program_state(&world, "payram-core") == "FATAL").then_some(())
    });
    let after = database(&world);
    assert_ne!(after.columns, before.columns);
    let changed = before.payments.lines().zip(after.payments.lines()).filter(|(a, b)| a != b);
    assert_eq!(changed.count(), 10);
    assert_eq!(after.payments.lines().count(), before.payments.lines().count());
}

#[test]
fn hangs_accepts_and_does_not_answer() {
    if !require("docker") {
        return;
    }
    let (world, before) = broken("hangs");
    wait_for_log(&world, "listens on port 80");
    let asked = Request::get("/api/v1/health").patience(Duration::from_secs(3)).to_port(world.port);
    let error = asked.expect_err("no answer").kind();
    assert!(
        matches!(error, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        "connected, then silence; found {error}"
    );
    assert_eq!(database(&world), before);
}

#[test]
fn dies_is_healthy_first_and_its_container_ends() {
    if !require("docker") {
        return;
    }
    let (world, before) = broken("dies");
    // Held down, so that the end of the first run is seen.
    world.docker(&["update", "--restart", "no", &world.name]);
    world.wait_healthy();
    wait_until("the container ends", SOON, || {
        let container = world.container()?;
        (container["State"]["Running"] == false).then_some(())
    });
    world.replace_by_hand(&tag_of("health-500"));
    wait_until_database_answers(&world);
    assert_eq!(database(&world), before);
}

#[test]
fn slow_migrates_first_listens_late_and_is_good() {
    if !require("docker") {
        return;
    }
    let (world, _) = broken("slow");
    wait_for_log(&world, "listens in 20 s");
    assert!(!world.container_log().contains("listens on port"));
    assert!(!world.is_healthy());
    world.wait_healthy();
    world.wait_for_payments(3);
    assert_eq!(world.lost(), Vec::<String>::new());
}

#[test]
fn ignores_term_has_to_be_killed_and_loses_nothing() {
    if !require("docker") {
        return;
    }
    let (world, _) = broken("ignores-term");
    world.wait_healthy();
    world.wait_for_payments(5);
    world.docker(&["stop", "--time", "2", &world.name]);
    let stopped = world.container().expect("the container is kept");
    assert_eq!(stopped["State"]["ExitCode"], 137, "ended by SIGKILL");
    world.docker(&["start", &world.name]);
    world.wait_healthy();
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn create_refused_can_be_pulled_and_not_be_created() {
    if !require("docker") {
        return;
    }
    let image = Fixture::get().image(&tag_of("create-refused"));
    let docker = |args: &[&str]| {
        std::process::Command::new("docker").args(args).output().expect("docker starts")
    };
    assert!(docker(&["pull", &image]).status.success());
    let created = docker(&["create", &image]);
    assert!(!created.status.success());
    let error = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(error.contains("cannot mount volume over existing file"), "{error}");
}
