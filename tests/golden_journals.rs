//! Journals of earlier versions are still understood: whoever updates the updater in the middle of
//! an upgrade, or years later, finds in them what was found when they were written.
//!
//! `fixtures/journals` holds the exports (`journal export`) of journals that the first edition
//! wrote on the sandbox engine, to the end of an upgrade or to where it was killed. They are put
//! back into a journal row by row and read at every step that was begun. Nothing in them is ever
//! changed: where this fails, it is the program that forgot how to read.

use std::path::{Path, PathBuf};

use payram_updater::clock::Timestamp;
use payram_updater::journal::{JobRecord, Journal, Reader};
use payram_updater::machine::{Machine, Outcome, Phase, Step};
use rusqlite::{Connection, params};
use serde_json::Value;

/// What the program that wrote it said of its last upgrade.
struct Golden {
    name: &'static str,
    rows: usize,
    hops: usize,
    phase: &'static str,
    step: Option<&'static str>,
    state: &'static str,
    code: Option<&'static str>,
    transitions: usize,
}

const fn at_rest(
    name: &'static str,
    rows: usize,
    phase: &'static str,
    code: Option<&'static str>,
    transitions: usize,
) -> Golden {
    let state = if code.is_none() { "READY" } else { "FAILED" };
    Golden { name, rows, hops: 1, phase, step: None, state, code, transitions }
}

const fn killed(
    name: &'static str,
    rows: usize,
    phase: &'static str,
    step: &'static str,
    transitions: usize,
) -> Golden {
    let (step, state) = (Some(step), "EXECUTING");
    Golden { name, rows, hops: 1, phase, step, state, code: None, transitions }
}

const GOLDEN: [Golden; 8] = [
    at_rest("good", 70, "VERIFIED", None, 4),
    at_rest("rolled-back", 102, "ROLLED_BACK", Some("HEALTHCHECK_FAILED"), 5),
    at_rest("recovered", 116, "ROLLED_BACK", Some("HEALTHCHECK_FAILED"), 7),
    at_rest("cancelled", 25, "ROLLED_BACK", Some("CANCELLED"), 3),
    Golden { hops: 2, ..at_rest("two-hops", 136, "VERIFIED", None, 4) },
    killed("interrupted-at-pull", 17, "BACKED_UP", "pull", 1),
    killed("interrupted-at-rename-old", 44, "PULLED", "rename_old", 2),
    killed("interrupted-at-start-next", 50, "PULLED", "start_next", 2),
];

/// A journal that is filled by the rows of an export.
struct Filled {
    _directory: tempfile::TempDir,
    path: PathBuf,
    writer: Connection,
}

impl Filled {
    fn empty() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/journal.db");
        drop(Journal::open(&path).expect("an empty journal"));
        let writer = Connection::open(&path).expect("the same");
        writer.execute_batch("PRAGMA synchronous = OFF").expect("only this test's");
        Self { _directory: directory, path, writer }
    }

    fn put(&self, row: &Value) {
        let text = |key: &str| row[key].as_str();
        let body = row["body"].as_str().map_or_else(|| row["body"].to_string(), str::to_owned);
        let at = Timestamp::parse(text("at").expect("a time")).expect("a time").millis();
        let is_active = match (text("kind"), text("name")) {
            (Some("job"), _) => {
                let sql = "INSERT INTO jobs (id, body, created_ms, active) VALUES (?, ?, ?, 1)";
                self.writer.execute(sql, params![text("job"), body, at]).expect("a job");
                None
            }
            (Some("end"), _) => Some(0),
            (Some("transition"), Some("recover" | "recover_restoring")) => Some(1),
            (_, _) => None,
        };
        if let Some(is_active) = is_active {
            let sql = "UPDATE jobs SET active = ? WHERE id = ?";
            self.writer.execute(sql, params![is_active, text("job")]).expect("its job");
        }
        let sql = "INSERT INTO journal (seq, at_ms, kind, job, hop, name, status, body, hash)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let values = params![
            row["seq"].as_i64(),
            at,
            text("kind"),
            text("job"),
            row["hop"].as_i64(),
            text("name"),
            text("status"),
            body,
            text("hash"),
        ];
        self.writer.execute(sql, values).expect("a row");
    }

    fn read(&self) -> JobRecord {
        let reader = Reader::open(&self.path).expect("a journal");
        reader.last_job().expect("it is understood").expect("an upgrade")
    }
}

fn export(name: &str) -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journals");
    let text = std::fs::read_to_string(directory.join(format!("{name}.jsonl"))).expect(name);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn machine(job: &JobRecord) -> &Machine {
    &job.hop().expect("a hop").machine
}

#[test]
fn what_an_earlier_version_wrote_is_read_as_it_was_meant() {
    for golden in GOLDEN {
        let filled = Filled::empty();
        export(golden.name).iter().for_each(|row| filled.put(row));
        let job = filled.read();
        let hop = job.hop().expect("a hop");
        let code = job.ending.as_ref().and_then(|ending| ending.failure_code);
        let name = golden.name;
        assert_eq!((job.hops.len(), job.body.hops.len()), (golden.hops, golden.hops), "{name}");
        assert_eq!(job.phase().as_str(), golden.phase, "{name}");
        assert_eq!(hop.machine.step().map(Step::as_str), golden.step, "{name}");
        assert_eq!(hop.pending.map(Step::as_str), golden.step, "{name}");
        assert_eq!(job.state().as_str(), golden.state, "{name}");
        assert_eq!(job.is_active(), golden.step.is_some(), "{name}");
        assert_eq!(code.map(|code| code.as_str()), golden.code, "{name}");
        assert_eq!(hop.transitions.len(), golden.transitions, "{name}");
        assert_eq!(hop.machine.state().known().hop.probation_seconds, None, "{name}");
        let verified = Reader::open(&filled.path).expect("a journal").verify();
        let holds = verified.expect("it is read").expect("every row is as it was written");
        assert_eq!(holds.rows as usize, golden.rows, "{name}");
    }
}

/// Where an upgrade is by the transitions that its rows claim.
fn claimed(rows: &[Value]) -> Phase {
    let hop = &rows.last().expect("a row")["hop"];
    let mut transitions =
        rows.iter().filter(|row| row["kind"] == "transition" && row["hop"] == *hop);
    let entered = transitions.next_back().map(|row| row["body"]["to"].clone());
    entered.map_or(Phase::Planned, |to| serde_json::from_value(to).expect("a phase"))
}

#[test]
fn an_upgrade_that_an_earlier_version_was_killed_in_is_where_it_was_at_every_step() {
    let mut steps = 0;
    for golden in GOLDEN {
        let (filled, rows) = (Filled::empty(), export(golden.name));
        for (number, row) in rows.iter().enumerate() {
            filled.put(row);
            if row["kind"] != "intent" {
                continue;
            }
            let job = filled.read();
            let begun = row["name"].as_str().expect("a step");
            let place = format!("{} at row {}", golden.name, row["seq"]);
            assert_eq!(machine(&job).step().map(Step::as_str), Some(begun), "{place}");
            let pending = job.hop().and_then(|hop| hop.pending);
            assert_eq!(pending.map(Step::as_str), Some(begun), "{place}");
            assert_eq!(job.phase(), claimed(&rows[..=number]), "{place}");
            steps += 1;
        }
    }
    println!("{steps} steps of {} journals", GOLDEN.len());
    assert!(steps > 120, "only {steps} steps were read");
}

#[test]
fn a_person_who_was_asked_by_an_earlier_version_can_still_answer() {
    let filled = Filled::empty();
    let rows = export("recovered");
    let end = rows.iter().position(|row| row["kind"] == "end").expect("it was stopped");
    rows[..=end].iter().for_each(|row| filled.put(row));
    let job = filled.read();
    assert_eq!(job.phase(), Phase::NeedsOperator);
    let code = job.ending.as_ref().and_then(|ending| ending.failure_code);
    assert_eq!(code.map(|code| code.as_str()), Some("MIGRATION_FAILED"));
    let known = machine(&job).state().known();
    assert!(known.assessment.is_some() && known.restore_point.is_some(), "{known:?}");
}

#[test]
fn a_swap_that_an_earlier_version_was_killed_in_goes_on_with_the_same_step() {
    let filled = Filled::empty();
    export("interrupted-at-start-next").iter().for_each(|row| filled.put(row));
    let (machine, _) = machine(&filled.read())
        .clone()
        .apply(Outcome::Interrupted)
        .expect("that is what a new daemon finds");
    assert_eq!((machine.phase(), machine.step()), (Phase::Pulled, Some(Step::StartNext)));
    let (machine, _) = machine.apply(Outcome::done()).expect("it is started");
    assert_eq!((machine.phase(), machine.step()), (Phase::Swapped, Some(Step::Verify)));
}
