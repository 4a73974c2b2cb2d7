//! The statechart is the specification: the code has exactly its states, events, targets,
//! final states and steps.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use payram_updater::machine::facts::{
    Assessment, Copy, KeptMount, Probation, ProbationEnd, RestorePoint, Server,
};
use payram_updater::machine::failure::{Failure, FailureCode};
use payram_updater::machine::transition::TRANSITIONS;
use payram_updater::machine::{Event, Fact, Hop, Machine, Outcome, Phase, Step};
use support::facts;

const SCXML: &str = include_str!("../statecharts/upgrade.scxml");

type Row = (String, String, String);

struct Chart {
    states: BTreeSet<String>,
    finals: BTreeSet<String>,
    transitions: BTreeSet<Row>,
    steps: BTreeMap<String, Vec<String>>,
    undo: BTreeMap<String, String>,
    initial: String,
}

fn parse(text: &str) -> Chart {
    let document = roxmltree::Document::parse(text).expect("the statechart is XML");
    let root = document.root_element();
    let mut chart = Chart {
        states: BTreeSet::new(),
        finals: BTreeSet::new(),
        transitions: BTreeSet::new(),
        steps: BTreeMap::new(),
        undo: BTreeMap::new(),
        initial: root.attribute("initial").expect("initial").to_owned(),
    };
    for state in root.children().filter(|n| n.is_element()) {
        let id = state.attribute("id").expect("a state has an id").to_owned();
        match state.tag_name().name() {
            "state" => {}
            "final" => assert!(chart.finals.insert(id.clone())),
            other => panic!("unexpected element <{other}>"),
        }
        assert!(chart.states.insert(id.clone()), "{id} is there twice");
        for child in state.children().filter(|n| n.is_element()) {
            match child.tag_name().name() {
                "transition" => {
                    let event = child.attribute("event").expect("event").to_owned();
                    let target = child.attribute("target").expect("target").to_owned();
                    assert!(chart.transitions.insert((id.clone(), event, target)));
                }
                "step" => {
                    let step = child.attribute("id").expect("step id").to_owned();
                    if let Some(undo) = child.attribute("undo") {
                        chart.undo.insert(step.clone(), undo.to_owned());
                    }
                    chart.steps.entry(id.clone()).or_default().push(step);
                }
                other => panic!("unexpected element <{other}> in {id}"),
            }
        }
    }
    chart
}

fn code_rows() -> BTreeSet<Row> {
    TRANSITIONS
        .iter()
        .map(|t| (t.from.chart_id().into(), t.event.as_str().into(), t.to.chart_id().into()))
        .collect()
}

/// What one side has and the other lacks, as sentences.
fn differences(chart: &BTreeSet<Row>, code: &BTreeSet<Row>) -> Vec<String> {
    let only_chart = chart.difference(code).map(|(from, event, to)| {
        format!("the statechart has {from} -{event}-> {to}, the code has not")
    });
    let only_code = code.difference(chart).map(|(from, event, to)| {
        format!("the code has {from} -{event}-> {to}, the statechart has not")
    });
    only_chart.chain(only_code).collect()
}

#[test]
fn the_statechart_and_the_code_have_the_same_transitions() {
    assert_eq!(differences(&parse(SCXML).transitions, &code_rows()), Vec::<String>::new());
}

#[test]
fn a_transition_missing_on_either_side_is_named() {
    let (chart, code) = (parse(SCXML).transitions, code_rows());
    for row in &chart {
        let mut fewer = chart.clone();
        fewer.remove(row);
        assert_eq!(
            differences(&fewer, &code),
            [format!("the code has {} -{}-> {}, the statechart has not", row.0, row.1, row.2)]
        );
        let mut fewer = code.clone();
        fewer.remove(row);
        assert_eq!(
            differences(&chart, &fewer),
            [format!("the statechart has {} -{}-> {}, the code has not", row.0, row.1, row.2)]
        );
    }
    assert_eq!(chart.len(), TRANSITIONS.len());
}

#[test]
fn the_statechart_and_the_code_have_the_same_states_and_finals() {
    let chart = parse(SCXML);
    let states: BTreeSet<String> = Phase::ALL.iter().map(|p| p.chart_id().into()).collect();
    let finals: BTreeSet<String> =
        Phase::ALL.iter().filter(|p| p.is_final()).map(|p| p.chart_id().into()).collect();
    assert_eq!(chart.states, states);
    assert_eq!(chart.finals, finals);
    assert_eq!(chart.initial, Machine::new(hop()).phase().chart_id());
}

#[test]
fn compensations_are_those_of_the_statechart() {
    let chart = parse(SCXML);
    for step in Step::FORWARD {
        assert_eq!(
            chart.undo.get(step.as_str()).map(String::as_str),
            step.compensation().map(Step::as_str),
            "{step}"
        );
    }
}

/// Walks every outcome of every step from every reachable machine, and compares what the
/// machine did with the table and with the statechart's steps.
#[test]
fn every_reachable_transition_is_in_the_table_and_every_row_is_reachable() {
    let chart = parse(SCXML);
    let mut queue = VecDeque::from([Machine::new(hop())]);
    let mut seen = HashSet::from([format!("{:?}", Machine::new(hop()))]);
    let mut taken: BTreeSet<Row> = BTreeSet::new();
    let mut steps: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(machine) = queue.pop_front() {
        let mut following = Vec::new();
        if machine.phase() == Phase::NeedsOperator {
            for event in Event::RECOVERIES {
                match machine.clone().recover(event) {
                    Ok((next, transition)) => following.push((next, vec![transition])),
                    Err(refused) => assert_eq!(event, Event::RecoverKeeping, "{refused}"),
                }
            }
        }
        if let Some(step) = machine.step() {
            if machine.phase() != Phase::Verified {
                steps
                    .entry(machine.phase().chart_id().into())
                    .or_default()
                    .insert(step.as_str().into());
            }
            for outcome in outcomes(step) {
                match machine.clone().apply(outcome.clone()) {
                    Ok(next) => following.push(next),
                    Err(refused) => {
                        assert!(
                            matches!(outcome, Outcome::Cancelled { .. }),
                            "{step} in {}: {refused}",
                            machine.phase()
                        );
                        assert!(matches!(machine.phase(), Phase::RollingBack | Phase::Verified));
                    }
                }
            }
        } else {
            assert!(machine.phase().is_at_rest(), "{} has no step", machine.phase());
        }
        for (next, transitions) in following {
            let mut at = machine.phase();
            for t in &transitions {
                assert_eq!(t.from, at, "transitions follow on each other");
                at = t.to;
                taken.insert((
                    t.from.chart_id().into(),
                    t.event.as_str().into(),
                    t.to.chart_id().into(),
                ));
            }
            assert_eq!(at, next.phase());
            if seen.insert(format!("{next:?}")) {
                queue.push_back(next);
            }
        }
    }
    assert_eq!(differences(&taken, &code_rows()), Vec::<String>::new());
    for (state, steps) in &steps {
        let charted: BTreeSet<String> = chart.steps[state].iter().cloned().collect();
        assert_eq!(steps, &charted, "steps of {state}");
    }
    println!("{} machines, {} transitions", seen.len(), taken.len());
    assert!(seen.len() > 100, "the walk reached only {} machines", seen.len());
}

#[test]
fn a_fact_of_another_step_is_forbidden() {
    let refused = Machine::new(hop()).apply(Outcome::done()).expect_err("forbidden");
    assert_eq!(
        refused.to_string(),
        "in PLANNED the machine expects an outcome of back_up, found Done"
    );
}

#[test]
fn a_step_that_kills_the_updater_three_times_turns_the_upgrade_round() {
    let mut machine = Machine::new(hop());
    for _ in 0..2 {
        machine = machine.apply(Outcome::Interrupted).expect("applies").0;
        assert_eq!(machine.step(), Some(Step::BackUp));
    }
    let (machine, _) = machine.apply(Outcome::Interrupted).expect("applies");
    assert_eq!(machine.phase(), Phase::RolledBack);
}

#[test]
fn nothing_fails_an_upgrade_that_is_verified() {
    let mut machine = Machine::new(hop());
    while machine.phase() != Phase::Verified {
        let step = machine.step().expect("a step");
        let done = outcomes(step).remove(0);
        machine = machine.apply(done).expect("applies").0;
    }
    for _ in 0..5 {
        let failure = Failure::new(FailureCode::Unknown, "it broke");
        machine = machine.apply(Outcome::Failed { failure }).expect("applies").0;
        assert_eq!((machine.phase(), machine.step()), (Phase::Verified, Some(Step::Probation)));
    }
}

#[test]
fn what_a_person_has_to_confirm_is_not_tidied_away_where_no_probation_was_asked_for() {
    for waits_for_a_person in [true, false] {
        let mut machine = Machine::new(Hop { probation_seconds: None, ..hop() });
        while machine.phase() != Phase::Verified {
            let step = machine.step().expect("a step");
            let mut fact = facts::fact(step, "1.9.7");
            if let Fact::Verdict(verdict) = &mut fact {
                verdict.to_confirm = Some("nobody was seen to use it".into());
                verdict.waits_for_a_person = waits_for_a_person;
            }
            machine = machine.apply(Outcome::Done { fact }).expect("applies").0;
        }
        // Without the mark, as in an older journal, it was tidied.
        let next = if waits_for_a_person { Step::Probation } else { Step::Tidy };
        assert_eq!(machine.step(), Some(next));
    }
}

/// Every outcome that a step can have; the good one first.
fn outcomes(step: Step) -> Vec<Outcome> {
    let mut good = vec![facts::fact(step, "1.9.7")];
    if step == Step::PreCopy {
        // One that can be put back by itself.
        good = vec![Fact::Copy(Copy::Directory {
            source: "/db".into(),
            copy: "/.db.payram-restore-1".into(),
            files: 1,
            bytes: 1,
            server: Server {
                program: "/postgres".into(),
                arguments: Vec::new(),
                owner: "70:70".into(),
                major: 15,
            },
        })];
    }
    if step == Step::RestorePoint {
        let files = vec![KeptMount {
            destination: "/root/payram".into(),
            source: "/W".into(),
            copy: "/kept".into(),
            sha256: "00".into(),
            files: 1,
            bytes: 1,
            left: 0,
        }];
        good = vec![Fact::RestorePoint(RestorePoint {
            files,
            ..RestorePoint::of_database("00", 1, 1)
        })];
    }
    if step == Step::AssessAgain {
        good.extend([
            Fact::Assessment(Assessment::RowsChanged { tables: vec!["t".into()] }.into()),
            Fact::Assessment(Assessment::Damaged { by: "another".into() }.into()),
        ]);
    }
    if step == Step::AssessDatabase {
        good.extend([
            Fact::Assessment(Assessment::SchemaChanged { what: "a column".into() }.into()),
            Fact::Assessment(Assessment::WorkersWrote { tables: vec!["t".into()] }.into()),
            Fact::Assessment(Assessment::RowsChanged { tables: vec!["t".into()] }.into()),
            Fact::Assessment(Assessment::Unreadable { reason: "down".into() }.into()),
            Fact::Assessment(Assessment::Damaged { by: "another".into() }.into()),
            Fact::Assessment(Assessment::Serves { version: "1.9.7".into() }.into()),
        ]);
    }
    if step == Step::Probation {
        let ends = [
            ProbationEnd::NextUpgrade,
            ProbationEnd::Troubled,
            ProbationEnd::Damaged,
            ProbationEnd::ToConfirm,
        ];
        good.extend(
            ends.map(|end| Fact::Probation(Probation { end, findings: Vec::new(), seconds: 900 })),
        );
    }
    let failure = Failure::new(FailureCode::Unknown, "it broke");
    let ill = (step == Step::VerifyOld).then(|| Outcome::Failed {
        failure: Failure::new(FailureCode::HealthcheckFailed, "it is ill"),
    });
    good.into_iter()
        .map(|fact| Outcome::Done { fact })
        .chain([
            Outcome::Failed { failure: failure.clone() },
            Outcome::Unknown { failure: failure.clone() },
            Outcome::Interrupted,
            Outcome::Left,
            Outcome::Cancelled { failure },
        ])
        .chain(ill)
        .collect()
}

fn hop() -> Hop {
    facts::hop_to("1.9.7")
}
