//! Tests of the rehearsal's machine: every step with every outcome.

use super::*;

fn tried(stood: Stood) -> RehearsalOutcome {
    let tried = Tried {
        stood,
        version: None,
        answers_after_seconds: None,
        stayed_seconds: 0.0,
        migration: None,
        written: None,
        unreachable: None,
        memory_bytes: None,
        disk_bytes: None,
    };
    RehearsalOutcome::Done { fact: RehearsalFact::Tried(Box::new(tried)) }
}

fn fails() -> Stood {
    Stood::Fails { code: FailureCode::HealthcheckFailed, found: "500".into() }
}

fn unjudged() -> Stood {
    Stood::Unjudged { found: "it was killed for its memory".into() }
}

fn done(fact: RehearsalFact) -> RehearsalOutcome {
    RehearsalOutcome::Done { fact }
}

fn copied() -> RehearsalOutcome {
    done(RehearsalFact::Copied(Copied {
        database_bytes: 1,
        tables: 1,
        rows: Some(1),
        seconds: 1.0,
        memory_limit_bytes: 1,
        mounts: Vec::new(),
    }))
}

fn failed(code: FailureCode) -> RehearsalOutcome {
    RehearsalOutcome::Failed { failure: Failure::new(code, "no") }
}

fn swept() -> RehearsalOutcome {
    done(RehearsalFact::Swept)
}

/// After these outcomes.
fn after(outcomes: impl IntoIterator<Item = RehearsalOutcome>) -> Rehearsal {
    outcomes
        .into_iter()
        .fold(Rehearsal::new(), |rehearsal, outcome| rehearsal.apply(outcome).expect("it fits"))
}

fn pulled() -> RehearsalOutcome {
    done(RehearsalFact::Pulled { image_id: "sha256:new".into() })
}

#[test]
fn a_version_that_serves_passes_whatever_the_old_one_does_on_its_data() {
    for old in [Stood::Serves, fails(), unjudged()] {
        let end = after([pulled(), copied(), tried(Stood::Serves), tried(old), swept()]);
        assert_eq!((end.step(), end.verdict()), (None, Some(Verdict::Passed)));
        assert_eq!(end.failure_code(), None);
    }
}

#[test]
fn a_version_is_refused_only_where_the_old_one_serves_in_the_same_isolation() {
    let end = |control: Stood| after([pulled(), copied(), tried(fails()), tried(control), swept()]);
    assert_eq!(end(Stood::Serves).verdict(), Some(Verdict::Refused));
    assert_eq!(end(Stood::Serves).failure_code(), Some(FailureCode::RehearsalFailed));
    for control in [fails(), unjudged()] {
        assert_eq!(end(control.clone()).verdict(), Some(Verdict::Unsure));
        assert_eq!(end(control).failure_code(), None);
    }
    let broken =
        after([pulled(), copied(), tried(fails()), failed(FailureCode::DockerError), swept()]);
    assert_eq!(broken.verdict(), Some(Verdict::Unsure), "there was no control");
}

#[test]
fn a_version_that_missed_something_outside_is_not_refused_for_it() {
    let mut rehearsal = after([pulled(), copied(), tried(fails()), tried(Stood::Serves)]);
    if let Some(new) = &mut rehearsal.new {
        new.unreachable = Some("dial tcp: lookup api.example.org: no such host".into());
    }
    assert_eq!(rehearsal.verdict(), Some(Verdict::Unsure));
}

#[test]
fn a_limit_of_ours_is_no_fault_of_the_version() {
    let end = after([pulled(), copied(), tried(unjudged()), swept()]);
    assert_eq!((end.verdict(), end.failure_code()), (Some(Verdict::Unsure), None));
}

#[test]
fn what_was_never_tried_is_skipped_with_the_reason() {
    for before in [vec![], vec![pulled()]] {
        let outcomes = before.into_iter().chain([failed(FailureCode::DiskSpaceLow), swept()]);
        let end = after(outcomes);
        assert_eq!(end.verdict(), Some(Verdict::Skipped));
        assert_eq!(end.failure_code(), Some(FailureCode::DiskSpaceLow));
    }
}

#[test]
fn it_is_swept_up_after_every_end_of_every_step_and_never_taken_up_again() {
    let ways: [Vec<RehearsalOutcome>; 5] = [
        vec![],
        vec![pulled()],
        vec![pulled(), copied()],
        vec![pulled(), copied(), tried(Stood::Serves)],
        vec![pulled(), copied(), tried(fails())],
    ];
    for way in ways {
        let called_off = RehearsalOutcome::CalledOff {
            failure: Failure::new(FailureCode::Cancelled, "called off"),
        };
        for outcome in [RehearsalOutcome::Interrupted, called_off, failed(FailureCode::DockerError)]
        {
            let at = after(way.clone());
            let was_broken = matches!(outcome, RehearsalOutcome::Failed { .. });
            let step = at.step().expect("a step");
            let swept_up = at.apply(outcome.clone()).expect("it fits");
            assert_eq!(swept_up.step(), Some(RehearsalStep::Sweep), "{step}: {outcome:?}");
            assert_eq!(swept_up.verdict().is_none(), !was_broken, "{step}: {outcome:?}");
            let again = swept_up.apply(RehearsalOutcome::Interrupted).expect("it fits");
            assert_eq!(again.step(), Some(RehearsalStep::Sweep), "sweeping is done again");
            assert_eq!(again.apply(swept()).expect("it fits").step(), None);
        }
    }
}

#[test]
fn an_outcome_that_fits_nowhere_is_refused() {
    for (before, wrong) in [
        (vec![], swept()),
        (vec![], copied()),
        (vec![pulled(), copied()], swept()),
        (vec![pulled(), copied(), tried(unjudged()), swept()], RehearsalOutcome::Interrupted),
    ] {
        assert!(after(before).apply(wrong).is_err());
    }
    let sweeping = after([failed(FailureCode::DockerError)]);
    let called_off =
        RehearsalOutcome::CalledOff { failure: Failure::new(FailureCode::Cancelled, "no") };
    assert!(sweeping.apply(called_off).is_err(), "sweeping is not called off");
}
