//! Which versions the journal says are quarantined: those that were started, failed by
//! themselves and were taken back; and what ends it.

mod support;

use payram_updater::journal::{Ending, Journal, NewEvent, Reader, Release, Settlement};
use payram_updater::machine::failure::{Failure, FailureCode};
use payram_updater::machine::{Fact, Machine, Outcome, Phase, Step};
use support::facts;

/// A journal in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
    journal: Journal,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(&directory.path().join("journal.db")).expect("opens");
        Self { directory, journal }
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.directory.path().join("journal.db")).expect("reader")
    }

    /// Version, digest and code of what is quarantined now.
    fn standing(&self) -> Vec<(String, String, FailureCode)> {
        let all = self.reader().quarantine().expect("reads");
        let standing = all.into_iter().filter(|one| one.stands());
        standing.map(|one| (one.version.clone(), one.digest().into(), one.failure.code)).collect()
    }

    /// How the newest quarantine ended.
    fn release(&self) -> Option<Release> {
        let all = self.reader().quarantine().expect("reads");
        all.first()?.released.as_ref().map(|released| released.by)
    }

    /// Journals an upgrade of one hop whose steps come to what `outcome` says, and to their end
    /// where it says nothing.
    fn upgrade(
        &self,
        version: &str,
        digest: Option<&str>,
        outcome: impl Fn(Step) -> Option<Outcome>,
    ) {
        let job = self.journal.begin(&facts::job_to(version), &[], None).expect("begins");
        let hop = facts::hop_to(version);
        self.journal.hop(&job, 1, &hop, &[]).expect("hop");
        let mut machine = Machine::new(hop);
        while let Some(step) = machine.step() {
            self.journal.intent(&job, 1, step).expect("intent");
            let outcome = outcome(step).unwrap_or_else(|| done(step, version, digest));
            let (after, transitions) = machine.apply(outcome.clone()).expect("applies");
            let ends = transitions.iter().any(|one| one.to.is_at_rest());
            let then = Settlement {
                transitions,
                events: ends.then(|| ended(after.phase())).into_iter().collect(),
                ending: ends.then(|| ending(after.phase())),
                ..Settlement::default()
            };
            self.journal.settle(&job, 1, step, &outcome, &then).expect("settles");
            machine = after;
        }
    }

    /// An upgrade that is rolled back because this step came to this.
    fn failed_at(&self, at: Step, outcome: Outcome) -> Vec<(String, String, FailureCode)> {
        self.upgrade("2.0.0", Some("sha256:a"), |step| (step == at).then(|| outcome.clone()));
        self.standing()
    }

    fn note(&self, kind: &'static str, status: &'static str, key: &str, value: &str) {
        let data = [(key.to_owned(), value.to_owned())].into();
        let event = NewEvent { kind, status, message: "a person's word".into(), data };
        self.journal.note(&[event]).expect("noted");
    }
}

fn ended(phase: Phase) -> NewEvent {
    let status = match phase {
        Phase::Verified => "succeeded",
        Phase::RolledBack => "rolled_back",
        other => {
            assert_eq!(other, Phase::NeedsOperator);
            "failed"
        }
    };
    NewEvent { kind: "upgrade", status, message: "ended".into(), data: [].into() }
}

fn ending(phase: Phase) -> Ending {
    let failure_code = (phase != Phase::Verified).then_some(FailureCode::Unknown);
    Ending { failure_code, message: "ended".into() }
}

/// A step that comes to its end, in an upgrade to an image with this digest.
fn done(step: Step, version: &str, digest: Option<&str>) -> Outcome {
    let mut fact = facts::fact(step, version);
    if let Fact::Image(image) = &mut fact {
        image.digest = digest.map(str::to_owned);
    }
    Outcome::Done { fact }
}

fn failed(code: FailureCode) -> Outcome {
    Outcome::Failed { failure: Failure::new(code, "it failed") }
}

fn one(code: FailureCode) -> Vec<(String, String, FailureCode)> {
    vec![("2.0.0".to_owned(), "sha256:a".to_owned(), code)]
}

#[test]
fn a_version_that_does_not_pass_its_gate_by_a_fault_of_its_own_is_quarantined() {
    for code in [
        FailureCode::HealthcheckFailed,
        FailureCode::VersionMismatch,
        FailureCode::MigrationTimeout,
        FailureCode::MigrationFailed,
    ] {
        let standing = Place::new().failed_at(Step::Verify, failed(code));
        assert_eq!(standing, one(code));
    }
}

#[test]
fn what_failed_before_the_version_was_started_says_nothing_about_it() {
    for (step, code) in [
        (Step::BackUp, FailureCode::BackupFailed),
        (Step::Pull, FailureCode::DockerPullFailed),
        (Step::CreateNext, FailureCode::SpecParityFailed),
        (Step::RestorePoint, FailureCode::RestorePointFailed),
        (Step::StartNext, FailureCode::PortConflict),
        (Step::StartNext, FailureCode::HealthcheckFailed),
    ] {
        assert_eq!(Place::new().failed_at(step, failed(code)), [], "{step} {code}");
    }
}

#[test]
fn neither_the_operator_nor_the_engine_nor_the_updater_puts_a_version_into_quarantine() {
    let called_off = Failure::new(FailureCode::Cancelled, "called off");
    let lost = Failure::new(FailureCode::DockerError, "no answer");
    for outcome in [
        Outcome::Cancelled { failure: called_off },
        Outcome::Unknown { failure: lost },
        Outcome::Interrupted,
        failed(FailureCode::DockerError),
    ] {
        assert_eq!(Place::new().failed_at(Step::Verify, outcome.clone()), [], "{outcome:?}");
    }
}

#[test]
fn a_version_that_stopped_for_an_operator_is_quarantined_too() {
    let place = Place::new();
    place.upgrade("2.0.0", Some("sha256:a"), |step| match step {
        Step::Verify => Some(failed(FailureCode::HealthcheckFailed)),
        Step::StartOld => Some(failed(FailureCode::DockerError)),
        _ => None,
    });
    let job = place.reader().last_job().expect("reads").expect("a job");
    assert_eq!(job.phase(), Phase::NeedsOperator);
    assert_eq!(place.standing(), one(FailureCode::HealthcheckFailed));
}

#[test]
fn an_image_without_a_digest_is_quarantined_by_its_id() {
    let place = Place::new();
    place.upgrade("2.0.0", None, |step| {
        (step == Step::Verify).then(|| failed(FailureCode::HealthcheckFailed))
    });
    assert_eq!(place.standing()[0].1, "sha256:id of 2.0.0");
    place.upgrade("2.0.0", None, |_| None);
    assert_eq!(place.release(), Some(Release::Verified), "the same image, verified later");
}

#[test]
fn an_operators_word_ends_it_for_that_image_alone_and_until_it_fails_again() {
    let place = Place::new();
    let bad = || failed(FailureCode::HealthcheckFailed);
    place.upgrade("2.1.0", Some("sha256:b"), |step| (step == Step::Verify).then(bad));
    place.failed_at(Step::Verify, bad());
    assert_eq!(place.standing().len(), 2);
    place.note("quarantine", "cleared", "digest", "sha256:a");
    assert_eq!(place.standing()[0].0, "2.1.0");
    assert_eq!((place.standing().len(), place.release()), (1, Some(Release::Cleared)));
    place.failed_at(Step::Verify, bad());
    assert_eq!(place.standing().len(), 2, "it failed again");
    place.reader().verify().expect("walks").expect("the chain holds");
}

#[test]
fn the_same_image_verified_later_ends_it_and_another_one_does_not() {
    let place = Place::new();
    place.failed_at(Step::Verify, failed(FailureCode::MigrationTimeout));
    place.upgrade("2.0.0", Some("sha256:other"), |_| None);
    assert_eq!(place.standing(), one(FailureCode::MigrationTimeout));
    place.upgrade("2.0.0", Some("sha256:a"), |_| None);
    assert_eq!((place.standing(), place.release()), (vec![], Some(Release::Verified)));
}

#[test]
fn a_version_that_sync_records_as_good_is_quarantined_no_more() {
    let place = Place::new();
    place.failed_at(Step::Verify, failed(FailureCode::HealthcheckFailed));
    place.note("sync", "succeeded", "version", "1.9.6");
    assert_eq!(place.standing(), one(FailureCode::HealthcheckFailed), "the old one was");
    place.note("sync", "succeeded", "version", "2.0.0");
    assert_eq!((place.standing(), place.release()), (vec![], Some(Release::Recorded)));
}
