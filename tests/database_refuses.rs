//! PostgreSQL refuses connections: it is stopped, it is full, or it does not know the password
//! any more, when the upgrade is planned, backs up, cuts over, or finds out what a failed
//! version did.

mod support;

use std::time::Duration;

use payram_updater::machine::Step;
use serde_json::{Value, json};
use support::world::PASSWORD;
use support::{Account, Daemon, Point, Trap, World, in_long_run, is_full, require, wait_until};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);
/// From the command to PostgreSQL's own end or start.
const SERVER_LIMIT: Duration = Duration::from_secs(60);

/// How it comes to refuse.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// `supervisorctl stop postgres`
    Stopped,
    /// No connection is left for the application's role.
    Full,
    /// Somebody changed the role's password.
    Password,
}

impl Refusal {
    fn begin(self, world: &World) {
        match self {
            Refusal::Stopped => {
                world.docker(&["exec", &world.name, "supervisorctl", "stop", "postgres"]);
            }
            Refusal::Full => {
                world.sql("ALTER ROLE payram CONNECTION LIMIT 0");
            }
            Refusal::Password => {
                world.sql("ALTER ROLE payram PASSWORD 'another'");
            }
        }
    }

    fn end(self, world: &World) {
        match self {
            Refusal::Stopped => {
                world.docker(&["exec", &world.name, "supervisorctl", "start", "postgres"]);
                wait_until("PostgreSQL answers again", SERVER_LIMIT, || {
                    world.try_sql("SELECT 1").ok()
                });
            }
            Refusal::Full => {
                world.sql("ALTER ROLE payram CONNECTION LIMIT -1");
            }
            Refusal::Password => {
                let quoted = PASSWORD.replace('\'', "''");
                world.sql(&format!("ALTER ROLE payram PASSWORD '{quoted}'"));
            }
        }
    }
}

fn ends(daemon: &Daemon, phase: &str) -> Value {
    let status = daemon.wait_settled(END_LIMIT);
    assert_eq!(status["phase"], phase, "{status:#}\n{}", daemon.log());
    status
}

fn identity(world: &World) -> (Value, Value) {
    let container = world.container().expect("a container");
    (container["Id"].clone(), container["State"]["StartedAt"].clone())
}

/// Refuses when it is planned: nothing is begun, whoever insists.
fn refuse_the_plan(world: &World, refusal: Refusal) {
    let before = identity(world);
    let daemon = world.daemon();
    refusal.begin(world);
    let plan = world.cli(&["dry-run", "--to", "1.9.7", "--json"]);
    assert_eq!(plan.status.code(), Some(1), "{plan:?}");
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    // What serves on it is not well either, and is asked first.
    assert_eq!(
        (&plan["state"], &plan["failureCode"]),
        (&json!("FAILED"), &json!("CORE_UNHEALTHY"))
    );
    let checks = plan["checks"].as_array().expect("checks");
    let database = checks.iter().find(|check| check["name"] == "database").expect("its check");
    let said = database["message"].as_str().expect("a sentence");
    assert!(database["passed"] == false && said.contains("could not be backed up"), "{database}");
    let run = world.cli(&["run", "--to", "1.9.7", "--yes", "--force"]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let said = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let said = said.concat();
    assert!(said.contains("could not be backed up"), "{said}");
    assert!(!daemon.log().contains(PASSWORD) && !said.contains(PASSWORD), "no secret is told");
    assert_eq!(identity(world), before, "it was never stopped");
    assert!(world.files_below("backups").is_empty(), "nothing was begun");
    refusal.end(world);
    world.wait_healthy();
    assert!(daemon.terminate().success());
}

#[test]
fn a_database_that_refuses_the_plan_leaves_everything_as_it_was() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    refuse_the_plan(&world, Refusal::Stopped);
    if is_full() {
        refuse_the_plan(&world, Refusal::Full);
        refuse_the_plan(&world, Refusal::Password);
    }
    world.assert_sound("1.9.6", "a plan that was refused");
    let daemon = world.daemon();
    world.begin_upgrade("1.9.7");
    ends(&daemon, "VERIFIED");
    world.assert_sound("1.9.7", "a database that answers again");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// Refuses the backup alone: nothing was touched.
fn refuse_the_backup(refusal: Refusal, code: &str) {
    let (world, daemon, account) = refuse_at(Step::BackUp, refusal, "1.9.7");
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], code, "{status:#}");
    assert!(status["message"].to_string().contains("was never stopped"), "{status:#}");
    assert!(!daemon.log().contains(PASSWORD), "no secret is told");
    assert!(world.files_below("backups").is_empty(), "no half a dump is left");
    refusal.end(&world);
    world.wait_healthy();
    world.assert_sound("1.9.6", &account.name());
    account.close(&world, &status, "never stopped");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_database_that_refuses_the_backup_leaves_everything_as_it_was() {
    if !require("docker") {
        return;
    }
    refuse_the_backup(Refusal::Stopped, "BACKUP_FAILED");
    if is_full() {
        refuse_the_backup(Refusal::Full, "BACKUP_FAILED");
        refuse_the_backup(Refusal::Password, "INVALID_DB_CONFIG");
    }
}

/// Refuses in a step of an upgrade, from its beginning.
fn refuse_at(step: Step, refusal: Refusal, target: &str) -> (World, Daemon, Account) {
    let world = World::build("1.9.6").rows(200).start();
    let trap = Trap::between(&world);
    let daemon = world.daemon();
    let way = format!("{step} to {target}");
    let account = Account::of(format!("database refuses: {refusal:?}"), way);
    trap.arm_patiently(step, Point::Unasked);
    world.begin_upgrade(target);
    trap.meanwhile(&daemon, || refusal.begin(&world));
    (world, daemon, account)
}

#[test]
fn a_database_that_refuses_at_the_cut_over_is_not_what_the_old_version_is_lost_by() {
    if !require("docker") {
        return;
    }
    // It exits before it starts its database: the directory itself is the evidence.
    let (world, daemon, account) = refuse_at(Step::Quiesce, Refusal::Stopped, "9.0.2");
    let status = ends(&daemon, "ROLLED_BACK");
    world.assert_sound("1.9.6", &account.name());
    account.close(&world, &status, "1.9.6 serves again");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    if is_full() {
        let (world, daemon, account) = refuse_at(Step::Quiesce, Refusal::Stopped, "1.9.7");
        let status = ends(&daemon, "VERIFIED");
        world.assert_sound("1.9.7", &account.name());
        account.close(&world, &status, "1.9.7 serves");
        assert_eq!(world.two_at_once(), Vec::<String>::new());
    }
}

#[test]
fn a_failed_versions_database_that_refuses_is_asked_on_its_own() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let (world, daemon, account) = refuse_at(Step::AssessDatabase, Refusal::Stopped, "9.0.1");
    let status = ends(&daemon, "ROLLED_BACK");
    assert_eq!(status["failureCode"], "HEALTHCHECK_FAILED", "{status:#}");
    world.assert_sound("1.9.6", &account.name());
    account.close(&world, &status, "asked on its own; 1.9.6 serves again");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_failed_versions_database_that_refuses_the_application_comes_back_as_it_was() {
    if !require("docker") || !in_long_run() {
        return;
    }
    for refusal in [Refusal::Password, Refusal::Full] {
        let (world, daemon, account) = refuse_at(Step::AssessDatabase, refusal, "9.0.1");
        let status = ends(&daemon, "ROLLED_BACK");
        assert!(!daemon.log().contains(PASSWORD), "no secret is told");
        assert_eq!(world.failed_directories().len(), 1, "{status:#}");
        world.assert_sound("1.9.6", &account.name());
        account.close(&world, &status, "1.9.6 serves again with its restore point");
        assert_eq!(world.two_at_once(), Vec::<String>::new());
    }
}
