use super::*;

fn failed(text: &str) -> RestoreOutcome {
    RestoreOutcome::Failed { failure: Failure::new(FailureCode::BackupInvalid, text) }
}

/// The good outcome of a step.
fn good(step: RestoreStep, served: Served) -> RestoreOutcome {
    let fact = match step {
        RestoreStep::Load => {
            RestoreFact::Loaded(Loaded { present: 5, made: 6, tables: 3, rows: Some(9) })
        }
        RestoreStep::NotePrograms => {
            RestoreFact::Noted(Noted { running: vec!["core".into()], served })
        }
        RestoreStep::Silence => RestoreFact::Answer { at_ms: Some(1_000) },
        RestoreStep::Verify => RestoreFact::Answer { at_ms: Some(3_500) },
        RestoreStep::Swap
        | RestoreStep::StartPrograms
        | RestoreStep::SilenceAgain
        | RestoreStep::SwapBack
        | RestoreStep::Discard => RestoreFact::Done,
    };
    RestoreOutcome::Done { fact }
}

/// Runs to the end; the steps in `fail` fail at each of their attempts. Answers the steps too.
fn run(fail: &[RestoreStep], served: Served) -> (Restore, Vec<&'static str>) {
    let (mut restore, mut steps) = (Restore::new(), Vec::new());
    while let Some(step) = restore.step() {
        steps.push(step.as_str());
        assert!(steps.len() < 30, "it ends: {steps:?}");
        let outcome = match fail.contains(&step) {
            true => failed(step.as_str()),
            false => good(step, served),
        };
        restore = restore.apply(outcome).expect("it fits");
    }
    (restore, steps)
}

#[test]
fn a_good_restore_ends_with_the_backups_data_and_says_how_long_it_was_down() {
    let (end, steps) = run(&[], Served::Healthy);
    let way = ["load", "note_programs", "silence", "swap", "start_programs", "verify"];
    assert_eq!(steps, way);
    assert!(end.is_done());
    assert_eq!((end.place, end.downtime_seconds()), (Place::Backup, Some(2.5)));
}

#[test]
fn downtime_ends_with_the_first_answer_also_where_a_program_needs_longer() {
    let at = |at_ms| RestoreOutcome::Done { fact: RestoreFact::Answer { at_ms: Some(at_ms) } };
    let until = |wanted: RestoreStep, mut restore: Restore| {
        while let Some(step) = restore.step().filter(|step| *step != wanted) {
            restore = restore.apply(good(step, Served::Healthy)).expect("it fits");
        }
        restore
    };
    let restore = until(RestoreStep::StartPrograms, Restore::new());
    let restore = restore.apply(at(1_400)).expect("it fits");
    let end = restore.clone().apply(at(9_000)).expect("it fits");
    assert_eq!(end.downtime_seconds(), Some(0.4));
    // It answered on the backup's data and was not well: the answer that counts is the one after.
    let back = restore.apply(failed("not well")).expect("it fits");
    let back = until(RestoreStep::Verify, back).apply(at(9_000)).expect("it fits");
    assert_eq!(back.downtime_seconds(), Some(8.0));
}

#[test]
fn what_fails_while_the_application_serves_stops_nothing() {
    for step in [RestoreStep::Load, RestoreStep::NotePrograms] {
        let (end, steps) = run(&[step], Served::Healthy);
        assert_eq!(end.place, Place::Present);
        assert!(!steps.contains(&"silence") && steps.ends_with(&["discard"]), "{steps:?}");
    }
}

#[test]
fn programs_that_were_stopped_are_started_again_whatever_fails() {
    for first in RestoreStep::ALL {
        for second in RestoreStep::ALL {
            let (end, steps) = run(&[first, second], Served::Healthy);
            let stopped = steps.iter().rposition(|step| step.starts_with("silence"));
            let started = steps.iter().rposition(|step| *step == "start_programs");
            assert!(stopped <= started, "{first} and {second}: {steps:?}");
            let is_whole = end.place != Place::Backup || end.failure.is_none();
            assert!(is_whole || end.stuck.is_some(), "{first} and {second}: {end:?}");
        }
    }
}

#[test]
fn an_application_that_is_not_well_on_the_backup_gets_its_data_back() {
    let (end, steps) = run(&[RestoreStep::Verify], Served::Healthy);
    assert_eq!(end.place, Place::PresentAgain);
    let back = ["verify", "silence_again", "swap_back", "start_programs", "verify"];
    assert!(steps.ends_with(&back), "{steps:?}");
    assert!(end.stuck.is_some(), "it is not well on its own data either: a person's");
}

#[test]
fn an_application_that_did_not_serve_before_keeps_the_backups_data() {
    let (end, steps) = run(&[RestoreStep::Verify], Served::No);
    assert_eq!((end.place, end.stuck.is_some()), (Place::Backup, false));
    assert!(end.failure.is_some() && steps.ends_with(&["verify"]), "{steps:?}");
}

#[test]
fn an_interruption_runs_the_same_step_again() {
    let mut restore = Restore::new();
    while let Some(step) = restore.step() {
        restore = restore.apply(RestoreOutcome::Interrupted).expect("it fits");
        assert_eq!(restore.step(), Some(step));
        restore = restore.apply(good(step, Served::Healthy)).expect("it fits");
    }
    assert!(restore.is_done());
}

#[test]
fn it_is_given_up_for_silence_only_while_the_application_serves() {
    let unknown =
        || RestoreOutcome::Unknown { failure: Failure::new(FailureCode::DockerError, "no answer") };
    let mut restore = Restore::new();
    for _ in 0..ATTEMPTS {
        assert_eq!(restore.step(), Some(RestoreStep::Load));
        restore = restore.apply(unknown()).expect("it fits");
    }
    assert_eq!(restore.step(), Some(RestoreStep::Discard));
    let mut restore = Restore::new();
    while restore.step() != Some(RestoreStep::Swap) {
        let step = restore.step().expect("a step");
        restore = restore.apply(good(step, Served::Healthy)).expect("it fits");
    }
    for tried in 1..100 {
        restore = restore.apply(unknown()).expect("it fits");
        assert_eq!(restore.step(), Some(RestoreStep::Swap));
        assert_eq!(restore.hindered_by().is_some(), tried >= ATTEMPTS, "a person is told in time");
    }
    let on = restore.apply(good(RestoreStep::Swap, Served::Healthy)).expect("it fits");
    assert_eq!(on.hindered_by(), None);
}

#[test]
fn it_is_called_off_before_anything_is_stopped_and_never_after() {
    let off = || RestoreOutcome::CalledOff {
        failure: Failure::new(FailureCode::Cancelled, "called off"),
    };
    let mut restore = Restore::new();
    while let Some(step) = restore.step() {
        let after = restore.clone().apply(off());
        assert_eq!(after.is_ok(), step.may_be_called_off(), "{step}");
        restore = restore.apply(good(step, Served::Healthy)).expect("it fits");
    }
    assert!(restore.clone().apply(off()).is_err(), "at the end there is nothing to call off");
}

#[test]
fn another_steps_fact_fits_nowhere() {
    let wrong = good(RestoreStep::Swap, Served::Healthy);
    assert!(Restore::new().apply(wrong).is_err());
}
