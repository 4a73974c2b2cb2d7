//! The journal keeps what it is given, refuses what it must, and says when it was tampered with.

mod support;

use std::path::{Path, PathBuf};

use payram_updater::journal::{
    Ending, HistoryFilter, JobBody, JobId, Journal, JournalError, NewEvent, Reader, Settlement,
};
use payram_updater::machine::failure::{Failure, FailureCode};
use payram_updater::machine::{Event, Hop, JobState, Machine, Outcome, Phase, Step, Transition};
use support::facts;

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state/journal.db");
    Place { _directory: directory, path }
}

fn body() -> JobBody {
    facts::job_to("1.9.7")
}

fn hop() -> Hop {
    facts::hop_to("1.9.7")
}

fn backup() -> Outcome {
    Outcome::Done { fact: facts::fact(Step::BackUp, "1.9.7") }
}

/// A job whose machine has its backup.
fn job_with_a_backup(journal: &Journal) -> JobId {
    let started = NewEvent {
        kind: "upgrade",
        status: "started",
        message: "upgrade to 1.9.7 started".into(),
        data: [("mode".to_owned(), "MANUAL".to_owned())].into(),
    };
    let job = journal.begin(&body(), &[started], None).expect("begins");
    journal.hop(&job, 1, &hop(), &[]).expect("hop");
    journal.intent(&job, 1, Step::BackUp).expect("intent");
    let (_, transitions) = Machine::new(hop()).apply(backup()).expect("applies");
    let then =
        Settlement { transitions, log: vec!["dump written".into()], ..Settlement::default() };
    journal.settle(&job, 1, Step::BackUp, &backup(), &then).expect("settles");
    job
}

fn sqlite(path: &Path, sql: &str) -> rusqlite::Result<()> {
    rusqlite::Connection::open(path)?.execute_batch(sql)
}

#[test]
fn a_restarted_program_finds_its_machine_where_it_was() {
    let place = place();
    let job = job_with_a_backup(&Journal::open(&place.path).expect("opens"));
    let journal = Journal::open(&place.path).expect("opens again");
    journal.intent(&job, 1, Step::ProveBackup).expect("intent");
    let record = Reader::open(&place.path).expect("reader").active_job().expect("reads");
    let record = record.expect("an active job");
    assert_eq!(record.id, job);
    assert_eq!(record.state(), JobState::BackingUp);
    let hop = record.hop().expect("a hop");
    assert_eq!((hop.pending, hop.machine.phase()), (Some(Step::ProveBackup), Phase::Planned));
    let known = hop.machine.state().known();
    assert_eq!(known.backup.expect("a backup").path, "/b.dump");
}

#[test]
fn the_event_that_opens_a_job_names_the_job_like_all_that_follow() {
    let place = place();
    let job = job_with_a_backup(&Journal::open(&place.path).expect("opens"));
    let everything = HistoryFilter { limit: 10, ..HistoryFilter::default() };
    let history = Reader::open(&place.path).expect("reader").history(&everything).expect("reads");
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].data.get("jobId").map(String::as_str), Some(job.as_str()));
}

#[test]
fn a_second_active_job_is_refused_by_the_schema_and_named() {
    let place = place();
    let journal = Journal::open(&place.path).expect("opens");
    let first = job_with_a_backup(&journal);
    match journal.begin(&body(), &[], None) {
        Err(JournalError::AlreadyActive { job }) => assert_eq!(job, first),
        other => panic!("expected a refusal, found {other:?}"),
    }
    let direct = sqlite(
        &place.path,
        "INSERT INTO jobs (id, body, created_ms, active) VALUES ('job-x', '{}', 0, 1)",
    );
    assert!(direct.expect_err("refused").to_string().contains("UNIQUE constraint failed"));
}

#[test]
fn a_job_that_came_to_rest_makes_room_for_the_next() {
    let place = place();
    let journal = Journal::open(&place.path).expect("opens");
    let job = job_with_a_backup(&journal);
    journal.intent(&job, 1, Step::ProveBackup).expect("intent");
    let failure = Failure::new(FailureCode::BackupInvalid, "pg_restore can't read it");
    let outcome = Outcome::Failed { failure };
    let machine = Machine::new(hop()).apply(backup()).expect("applies").0;
    let (machine, transitions) = machine.apply(outcome.clone()).expect("applies");
    assert_eq!(machine.phase(), Phase::RolledBack);
    let ending = Ending {
        failure_code: Some(FailureCode::BackupInvalid),
        message: "pg_restore can't read it".into(),
    };
    let then = Settlement { transitions, ending: Some(ending), ..Settlement::default() };
    journal.settle(&job, 1, Step::ProveBackup, &outcome, &then).expect("settles");
    let reader = Reader::open(&place.path).expect("reader");
    assert!(reader.active_job().expect("reads").is_none());
    assert_eq!(reader.last_job().expect("reads").expect("a job").state(), JobState::Failed);
    journal.begin(&body(), &[], None).expect("begins");
}

#[test]
fn rows_can_be_neither_changed_nor_deleted() {
    let place = place();
    job_with_a_backup(&Journal::open(&place.path).expect("opens"));
    for sql in [
        "UPDATE journal SET body = 'x' WHERE seq = 1",
        "DELETE FROM journal WHERE seq = 1",
        "DELETE FROM jobs",
        "UPDATE jobs SET body = 'x'",
    ] {
        assert!(sqlite(&place.path, sql).is_err(), "{sql} went through");
    }
}

#[test]
fn a_changed_missing_or_cut_off_row_is_named() {
    let seq_of = |sql: &str| {
        let place = place();
        job_with_a_backup(&Journal::open(&place.path).expect("opens"));
        let triggers = "DROP TRIGGER journal_is_append_only_update;
                        DROP TRIGGER journal_is_append_only_delete;
                        DROP TRIGGER jobs_only_end;";
        sqlite(&place.path, &format!("{triggers}{sql}")).expect("tampers");
        let verdict = Reader::open(&place.path).expect("reader").verify().expect("walks");
        verdict.expect_err("it is broken").seq
    };
    assert_eq!(
        seq_of("UPDATE journal SET body = replace(body, 'b.dump', 'c.dump') WHERE seq = 5"),
        5
    );
    assert_eq!(seq_of("UPDATE journal SET at_ms = at_ms + 1 WHERE seq = 2"), 2);
    assert_eq!(seq_of("UPDATE journal SET kind = 'log' WHERE seq = 2"), 2);
    assert_eq!(seq_of("DELETE FROM journal WHERE seq = 3"), 4);
    assert_eq!(seq_of("DELETE FROM journal WHERE seq = 6"), 6);
    assert_eq!(seq_of("UPDATE jobs SET body = '{}'"), 1);
}

#[test]
fn an_unfinished_job_that_is_marked_as_at_rest_is_named() {
    let place = place();
    let job = job_with_a_backup(&Journal::open(&place.path).expect("opens"));
    let reader = Reader::open(&place.path).expect("reader");
    reader.verify().expect("walks").expect("holds while it is active");
    sqlite(&place.path, "UPDATE jobs SET active = 0").expect("tampers");
    let broken = reader.verify().expect("walks").expect_err("the mark is wrong");
    assert!(broken.reason.contains(job.as_str()), "{broken:?}");
    assert!(broken.reason.contains("no end of it is journaled"), "{broken:?}");
}

#[test]
fn a_job_that_was_taken_up_again_is_rightly_marked_as_active() {
    for event in Event::RECOVERIES {
        let place = place();
        let journal = Journal::open(&place.path).expect("opens");
        let job = job_with_a_backup(&journal);
        let reader = Reader::open(&place.path).expect("reader");
        let ending = Ending { failure_code: None, message: "it rests".into() };
        journal.end(&job, &ending, &[]).expect("ends");
        reader.verify().expect("walks").expect("holds at rest");
        let to = match event {
            Event::RecoverKeeping => Phase::Swapped,
            _ => Phase::RollingBack,
        };
        let again = Transition { from: Phase::NeedsOperator, event, to };
        journal.reopen(&job, 1, again, &[]).expect("reopens");
        reader.verify().expect("walks").expect("holds when it is taken up again");
    }
}

#[test]
fn an_untouched_journal_verifies_and_exports_every_row() {
    let place = place();
    job_with_a_backup(&Journal::open(&place.path).expect("opens"));
    let reader = Reader::open(&place.path).expect("reader");
    let verified = reader.verify().expect("walks").expect("holds");
    let mut out = Vec::new();
    assert_eq!(reader.export(&mut out).expect("exports"), verified.rows);
    let lines: Vec<serde_json::Value> = String::from_utf8(out)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds, ["job", "event", "hop", "intent", "outcome", "log"]);
    assert_eq!(lines[4]["body"]["fact"]["value"]["path"], "/b.dump");
    assert_eq!(lines[5]["hash"], verified.head.as_str());
}

#[test]
fn a_journal_that_is_being_written_verifies_all_the_same() {
    let place = place();
    let journal = Journal::open(&place.path).expect("opens");
    let job = job_with_a_backup(&journal);
    let reader = Reader::open(&place.path).expect("reader");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for line in 0..500 {
                journal.log(&job, None, &format!("line {line}")).expect("logs");
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            reader.verify().expect("walks").expect("nobody has tampered with it");
        }
    });
}

#[test]
fn a_journal_of_a_newer_version_is_refused_and_left_as_it_is() {
    let place = place();
    drop(Journal::open(&place.path).expect("opens"));
    sqlite(&place.path, "PRAGMA user_version = 99").expect("sets");
    let before = std::fs::read(&place.path).expect("reads");
    let refused = Journal::open(&place.path).err().expect("refused").to_string();
    assert!(refused.contains("has schema 99, this payram-updater knows up to 1"), "{refused}");
    assert!(Reader::open(&place.path).is_err());
    assert_eq!(std::fs::read(&place.path).expect("reads"), before);
}

#[test]
fn rows_that_the_machine_forbids_are_not_believed() {
    let place = place();
    let journal = Journal::open(&place.path).expect("opens");
    let job = job_with_a_backup(&journal);
    journal.intent(&job, 1, Step::StartNext).expect("a lie");
    let refused = Reader::open(&place.path).expect("reader").active_job().expect_err("refused");
    assert!(
        refused.to_string().ends_with("row 7: expected prove_backup, found Some(\"start_next\")"),
        "{refused}"
    );
}

#[test]
fn the_history_is_newest_first_and_filtered() {
    let place = place();
    let journal = Journal::open(&place.path).expect("opens");
    job_with_a_backup(&journal);
    let reader = Reader::open(&place.path).expect("reader");
    let count = |kind: Option<&str>, status: Option<&str>| {
        let filter = HistoryFilter {
            kind: kind.map(str::to_owned),
            status: status.map(str::to_owned),
            limit: 10,
            ..HistoryFilter::default()
        };
        reader.history(&filter).expect("reads").len()
    };
    assert_eq!(count(None, None), 1);
    assert_eq!(count(Some("UPGRADE"), Some("Started")), 1);
    assert_eq!(count(Some("backup"), None), 0);
    assert_eq!(count(None, Some("failed")), 0);
}

#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    drop(Journal::open(&place.path).expect("opens"));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&place.path), 0o600);
    assert_eq!(mode(place.path.parent().expect("a directory")), 0o700);
}
