//! `inspect` on a real shop in every state that an operator meets: its verdict, what a person reads
//! first on 80 columns and 24 lines, what is recommended, and the exit code. Every command that it
//! names is read by the product's own command line. Prints a table.

mod support;

use std::time::Duration;

use payram_updater::machine::Step;
use rusqlite::Connection;
use serde_json::Value;
use support::operator::{said, upgrade};
use support::{Daemon, Fixture, Point, Trap, World, require, wait_until};

/// From the request to the end of a job.
const END_LIMIT: Duration = Duration::from_secs(240);
/// A terminal's.
const COLUMNS: usize = 80;
const LINES: usize = 24;

/// What is seen of one state, and what is wrong with it.
struct Seen {
    state: &'static str,
    verdict: String,
    exit: i32,
    lines: usize,
    recommended: String,
    wrong: Vec<String>,
}

/// What is to be seen in a state.
struct Expected {
    verdict: &'static str,
    /// In the first recommendation; empty for nothing to do.
    recommends: &'static str,
    /// Said within the first screen.
    says: &'static [&'static str],
}

/// A recorder of one world's states.
struct Record<'w> {
    world: &'w World,
    rows: Vec<Seen>,
}

impl Record<'_> {
    /// Inspects, for a program and for a person.
    fn state(&mut self, state: &'static str, expected: &Expected) {
        let asked = self.world.cli(&["inspect", "--json"]);
        let exit = asked.status.code().unwrap_or(-1);
        let mut wrong = Vec::new();
        let report: Value = serde_json::from_slice(&asked.stdout).unwrap_or_else(|error| {
            wrong.push(format!("{error}: {}", said(&asked)));
            Value::Null
        });
        let verdict = report["overallState"].as_str().unwrap_or_default().to_owned();
        if verdict != expected.verdict {
            wrong.push(format!("expected {}, found {verdict}: {report:#}", expected.verdict));
        }
        if exit != i32::from(expected.verdict == "BROKEN") {
            wrong.push(format!("exit {exit}"));
        }
        let recommended = first_recommendation(&report);
        let is_recommended = match expected.recommends {
            "" => report["recommendations"][0]["action"] == "none",
            part => recommended.contains(part),
        };
        if !is_recommended {
            wrong.push(format!("expected {:?} first: {report:#}", expected.recommends));
        }
        let advice = [&report["recommendations"], &report["recoveryPlaybook"]];
        for command in advice.iter().flat_map(|text| commands(&text.to_string())) {
            let mut words = command.clone();
            words.push("--help".to_owned());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let parsed = self.world.updater(&words).output().expect("the product starts");
            if !parsed.status.success() {
                wrong.push(format!("not read: {command:?}: {}", said(&parsed)));
            }
        }
        let shown = self.world.cli(&["inspect", "--text"]);
        let lines = screen(&said(&shown), expected, &recommended, &mut wrong);
        println!("--- {state} ---\n{}", said(&shown));
        self.rows.push(Seen { state, verdict, exit, lines, recommended, wrong });
    }
}

fn first_recommendation(report: &Value) -> String {
    report["recommendations"][0]["description"].as_str().unwrap_or_default().to_owned()
}

/// Looks at what a person sees first; answers how many lines there are.
fn screen(text: &str, expected: &Expected, first: &str, wrong: &mut Vec<String>) -> usize {
    for line in text.lines().filter(|line| line.chars().count() > COLUMNS) {
        // A path or a command is not broken, so that it can be copied.
        if line.split_whitespace().all(|word| word.chars().count() < COLUMNS / 2) {
            wrong.push(format!("a line of {} columns: {line}", line.chars().count()));
        }
    }
    let top: Vec<&str> = text.lines().take(LINES).collect();
    let top = words(&top.join("\n"));
    let verdict = format!("PayRam on this host: {}", expected.verdict);
    if !text.starts_with(&verdict) {
        wrong.push(format!("the first line does not say {}", expected.verdict));
    }
    let first = if expected.recommends.is_empty() { String::new() } else { words(first) };
    for part in expected.says.iter().map(|part| words(part)).chain([first]) {
        if !top.contains(&part) {
            wrong.push(format!("{part:?} is not on the first screen"));
        }
    }
    text.lines().count()
}

/// Wherever the lines break.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The commands of the product in a text, by their words: the command, its flags and their values.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for rest in text.split("payram-updater ").skip(1) {
        let mut command: Vec<String> = Vec::new();
        for raw in rest.split([' ', '"', '\\', '`']) {
            let word = raw.trim_end_matches([',', ';', ':', '.', ')', '(']);
            let is_flag = word.starts_with('-');
            let is_value = command.last().is_some_and(|last| last.starts_with("--"))
                && word.chars().any(|c| c.is_ascii_digit() || c == '/');
            let is_name = command.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
            if word.is_empty() || !(is_name || is_flag || is_value) {
                break;
            }
            command.push(word.to_owned());
            if word != raw {
                break;
            }
        }
        if !command.is_empty() {
            found.push(command);
        }
    }
    found
}

fn settled(daemon: &Daemon, world: &World, target: &str) -> Value {
    world.begin_upgrade(target);
    daemon.wait_settled(END_LIMIT)
}

#[test]
fn whatever_happens_outside_of_an_upgrade_inspect_says_what_is_so_and_what_to_type() {
    if require("docker") {
        print(&what_happens_outside_of_an_upgrade());
    }
}

#[test]
fn whatever_an_upgrade_leaves_inspect_says_what_is_so_and_what_to_type() {
    if require("docker") {
        print(&what_an_upgrade_leaves());
    }
}

/// The table, and what is wrong in it.
fn print(rows: &[Seen]) {
    println!("| state | verdict | exit | lines | recommended first |\n|---|---|---|---|---|");
    for row in rows {
        let Seen { state, verdict, exit, lines, recommended, .. } = row;
        println!("| {state} | {verdict} | {exit} | {lines} | {recommended} |");
    }
    let wrong: Vec<String> = rows
        .iter()
        .flat_map(|row| row.wrong.iter().map(move |what| format!("{}: {what}", row.state)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn what_happens_outside_of_an_upgrade() -> Vec<Seen> {
    let world = World::build("1.9.6").rows(50).start();
    let mut record = Record { world: &world, rows: Vec::new() };
    let daemon = world.daemon();
    let run = upgrade(&world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    world.assert_sound("1.9.7", "an upgrade");
    record.state("healthy", &Expected { verdict: "OK", recommends: "", says: &[] });
    drop(daemon);

    let policy = world.path("policy.json").display().to_string();
    world.set("POLICY_URL", "http://127.0.0.1:9/policy.json");
    let daemon = world.daemon();
    let expected = Expected {
        verdict: "DEGRADED",
        recommends: "POLICY_URL",
        says: &["http://127.0.0.1:9/policy.json"],
    };
    record.state("policy unreachable", &expected);
    drop(daemon);
    world.set("POLICY_URL", &policy);

    let engine = format!("unix://{}", world.engine().display());
    world.set("DOCKER_HOST", "unix:///nowhere.sock");
    let expected = Expected {
        verdict: "BROKEN",
        recommends: "systemctl start docker",
        says: &["/nowhere.sock"],
    };
    record.state("engine down, no daemon", &expected);
    let daemon = world.daemon();
    record.state("engine down", &expected);
    drop(daemon);
    world.set("DOCKER_HOST", &engine);

    let daemon = world.daemon();
    world.replace_by_hand("1.9.6");
    world.wait_healthy();
    let expected =
        Expected { verdict: "BROKEN", recommends: "1.9.7", says: &["1.9.6 runs", "downgraded"] };
    record.state("downgrade", &expected);
    world.replace_by_hand("1.9.8");
    world.wait_healthy();
    let expected =
        Expected { verdict: "OK", recommends: "payram-updater sync", says: &["1.9.8 runs"] };
    record.state("newer version from outside", &expected);
    let synced = world.cli(&["sync"]);
    assert_eq!(synced.status.code(), Some(0), "{}", said(&synced));
    world.docker(&["stop", &world.name]);
    let expected = Expected {
        verdict: "DEGRADED",
        recommends: "payram-updater recover",
        says: &["has exited"],
    };
    record.state("stopped", &expected);
    world.docker(&["rm", &world.name]);
    let expected = Expected {
        verdict: "DEGRADED",
        recommends: "payram-updater recover",
        says: &["there is no container"],
    };
    record.state("container gone", &expected);
    drop(daemon);

    let journal = Connection::open(world.path("state/journal.db")).expect("the journal");
    journal
        .execute_batch(
            "DROP TRIGGER journal_is_append_only_update;
             UPDATE journal SET body = replace(body, '/backups/', '/bockups/')
             WHERE kind = 'outcome' AND name = 'back_up';",
        )
        .expect("changed behind its back");
    drop(journal);
    let expected = Expected {
        verdict: "DEGRADED",
        recommends: "payram-updater",
        says: &["does not match its hash"],
    };
    record.state("corrupted journal", &expected);
    record.rows
}

fn what_an_upgrade_leaves() -> Vec<Seen> {
    let world = World::build("1.9.6").rows(50).impatient().start();
    let mut record = Record { world: &world, rows: Vec::new() };
    let daemon = world.daemon();
    let status = settled(&daemon, &world, Fixture::get().tag_of("health-500"));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}");
    let expected = Expected {
        verdict: "OK",
        recommends: "payram-updater logs",
        says: &["HEALTHCHECK_FAILED"],
    };
    record.state("failed upgrade", &expected);

    let status = settled(&daemon, &world, Fixture::get().tag_of("migration-rows"));
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}");
    let expected = Expected {
        verdict: "BROKEN",
        recommends: "payram-updater recover",
        says: &["MIGRATION_FAILED"],
    };
    record.state("a person must decide", &expected);
    let recovered = world.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    let expected =
        Expected { verdict: "DEGRADED", recommends: ".rows.sql", says: &["are not in the shop"] };
    record.state("rows set aside", &expected);
    let job = daemon.status()["jobId"].as_str().expect("a job").to_owned();
    let dismissed = world.cli(&["recover", "--dismiss-rows", &job, "--yes"]);
    assert_eq!(dismissed.status.code(), Some(0), "{}", said(&dismissed));
    drop(daemon);

    let trap = Trap::between(&world);
    let daemon = world.daemon();
    world.begin_upgrade("1.9.7");
    trap.arm(Step::RenameNext, Point::Unanswered);
    trap.kill(daemon);
    let expected =
        Expected { verdict: "BROKEN", recommends: "payram-updater", says: &["nothing serves"] };
    record.state("daemon dead in mid-swap", &expected);
    world.set("RESUME", "manual");
    let daemon = world.daemon();
    record.state("RESUME=manual waits", &expected);
    let recovered = world.cli(&["recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    wait_until("it is verified", END_LIMIT, || {
        (daemon.status()["phase"] == "VERIFIED").then_some(())
    });
    world.assert_sound("1.9.7", "all of it");
    record.rows
}
