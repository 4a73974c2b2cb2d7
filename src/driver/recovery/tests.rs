//! The table of `decide`, all of it: every state that a machine reaches × every world × both
//! consents. What holds of each is what an operator relies on.

use std::collections::{BTreeMap, HashSet, VecDeque};

use serde_json::{Value, json};

use super::*;
use crate::clock::Timestamp;
use crate::journal::{Ending, HopRecord, JobId};
use crate::machine::facts::Assessment;
use crate::machine::failure::Failure;
use crate::machine::{Begun, Fact, Hop, Machine, Outcome, Step};

const SEEN: [Seen; 4] = [Seen::Gone, Seen::Created, Seen::Stopped, Seen::Running];
const SERVING: [Serving; 4] = [Serving::Nobody, Serving::Old, Serving::Next, Serving::Stranger];
const STRANGERS: [Stranger; 4] =
    [Stranger::None, Stranger::HoldsName, Stranger::OnDatabase, Stranger::Server];
const COPIES: [CopySeen; 4] =
    [CopySeen::NotMade, CopySeen::There, CopySeen::Missing, CopySeen::InTheWay];

/// Every world that can be: who answers runs, and a stranger that answers is there.
fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for old in SEEN {
        for next in SEEN {
            for serving in SERVING {
                for stranger in STRANGERS {
                    for copy in COPIES {
                        let is_possible = match serving {
                            Serving::Nobody => true,
                            Serving::Old => old == Seen::Running,
                            Serving::Next => next == Seen::Running,
                            Serving::Stranger => stranger == Stranger::OnDatabase,
                        };
                        if is_possible {
                            let (is_driven, resume) = (false, Resume::Resume);
                            worlds.push(World {
                                old,
                                next,
                                serving,
                                stranger,
                                copy,
                                is_driven,
                                resume,
                                is_held: false,
                            });
                        }
                    }
                }
            }
        }
    }
    worlds
}

fn names(world: &World) -> Names {
    let called = |seen: Seen, name: &str| match seen {
        Seen::Gone => String::new(),
        Seen::Created | Seen::Stopped | Seen::Running => name.to_owned(),
    };
    Names {
        shop: "payram".into(),
        old: called(world.old, "payram-previous-1"),
        next: called(world.next, "payram"),
        stranger: match world.stranger {
            Stranger::None => String::new(),
            Stranger::HoldsName | Stranger::OnDatabase | Stranger::Server => "theirs".into(),
        },
        copy: "/db/.postgres.payram-restore-1-1".into(),
        failed: "/db/postgres.failed-1-1".into(),
        docker: "docker".into(),
    }
}

fn hop() -> Value {
    json!({
        "old": {"id": "o", "name": "payram", "imageId": "sha256:1", "specFile": "/state/spec",
            "restartPolicy": {"Name": "always"}},
        "from": "1.9.6", "fromRules": {"kind": "legacy"}, "version": "2.0.0",
        "target": {"repo": "payramapp/payram", "tag": "2.0.0"}, "rules": {"kind": "legacy"},
    })
}

/// What steps find, in every variety that a decision looks at.
fn facts() -> Vec<Fact> {
    let programs = json!({"running": ["core"], "lastAnswerMs": 1});
    let texts = [
        json!({"fact": "backup", "value": {"path": "/b.dump", "sizeBytes": 1, "sha256": "0",
            "databaseHost": "localhost", "databasePort": 5432, "databaseName": "payram"}}),
        json!({"fact": "proof", "value": {"tocEntries": 1, "tables": 1}}),
        json!({"fact": "image", "value": {"id": "sha256:2", "digest": null}}),
        json!({"fact": "next", "value": {"id": "n", "temporaryName": "payram-next-1"}}),
        json!({"fact": "copy", "value": {"kind": "directory", "source": "/db/postgres",
            "copy": "/db/.postgres.payram-restore-1-1", "files": 1, "bytes": 1,
            "server": {"program": "postgres", "arguments": [], "owner": "1:1", "major": 15}}}),
        json!({"fact": "programs", "value": programs}),
        json!({"fact": "quiesced", "value": {"programs": programs, "fingerprint": null,
            "lastAnswerMs": 1}}),
        json!({"fact": "restorePoint", "value": {"sha256": "0", "bytes": 1, "millis": 1}}),
        json!({"fact": "verdict", "value": {"version": "2.0.0", "answers": 6,
            "firstAnswerMs": 1}}),
        json!({"fact": "restored", "value": {"failed": "/db/postgres.failed-1-1"}}),
        json!({"fact": "assessment", "value": {"kind": "unchanged"}}),
        json!({"fact": "assessment", "value": {"kind": "schemaChanged", "what": "a table"}}),
        json!({"fact": "assessment", "value": {"kind": "rowsChanged", "tables": ["p: 3 rows"]}}),
        json!({"fact": "assessment", "value": {"kind": "unreadable", "reason": "it is dead"}}),
        json!({"fact": "done"}),
    ];
    texts.into_iter().map(|text| serde_json::from_value(text).expect("a fact")).collect()
}

/// Every state that a machine reaches: each step done with whatever it may find, failed, or
/// called off, and every recovery from there.
fn machines() -> Vec<Machine> {
    let failure = || Failure::new(FailureCode::HealthcheckFailed, "it did not answer");
    let mut outcomes: Vec<Outcome> =
        facts().into_iter().map(|fact| Outcome::Done { fact }).collect();
    outcomes.push(Outcome::Failed { failure: failure() });
    outcomes.push(Outcome::Cancelled { failure: failure() });
    let hop: Hop = serde_json::from_value(hop()).expect("a hop");
    let first = Machine::new(hop);
    let mut known = HashSet::from([format!("{:?}", first.state())]);
    let mut queue = VecDeque::from([first]);
    let mut all = Vec::new();
    while let Some(machine) = queue.pop_front() {
        let applied = outcomes.iter().filter_map(|outcome| {
            machine.clone().apply(outcome.clone()).ok().map(|(machine, _)| machine)
        });
        let recovered = [Event::Recover, Event::RecoverRestoring, Event::RecoverCarrying]
            .into_iter()
            .filter_map(|event| machine.clone().recover(event).ok().map(|(machine, _)| machine));
        for next in applied.chain(recovered).collect::<Vec<_>>() {
            if known.insert(format!("{:?}", next.state())) {
                queue.push_back(next);
            }
        }
        all.push(machine);
    }
    all
}

fn record(machine: Option<Machine>, ending: Option<Option<FailureCode>>) -> JobRecord {
    let body = json!({
        "mode": "MANUAL", "requestedTarget": "2.0.0", "resolvedTarget": "2.0.0",
        "fromVersion": "1.9.6", "containerName": "payram", "fromRules": {"kind": "legacy"},
        "overlay": {}, "dryRun": false, "hops": [],
    });
    JobRecord {
        id: JobId::fresh(),
        body: serde_json::from_value(body).expect("a body"),
        seq: 1,
        created: Timestamp::from_millis(0),
        updated: Timestamp::from_millis(0),
        hops: machine.map(HopRecord::at).into_iter().collect(),
        ending: ending.map(|failure_code| Ending { failure_code, message: "it ended".into() }),
    }
}

/// The jobs that such a machine can belong to.
fn jobs(machine: Machine) -> Vec<JobRecord> {
    let failed = Some(Some(FailureCode::HealthcheckFailed));
    match machine.phase() {
        // Ended; or between two hops.
        Phase::Verified => {
            vec![record(Some(machine.clone()), Some(None)), record(Some(machine), None)]
        }
        Phase::RolledBack => vec![record(Some(machine), failed)],
        // Waiting; or closed by `sync`.
        Phase::NeedsOperator => {
            vec![record(Some(machine.clone()), failed), record(Some(machine), Some(None))]
        }
        Phase::Planned | Phase::BackedUp | Phase::Pulled | Phase::Swapped | Phase::RollingBack => {
            vec![record(Some(machine), None)]
        }
    }
}

/// What is wrong with a decision.
fn faults(
    job: Option<&JobRecord>,
    world: &World,
    consent: Consent,
    made: &Decision,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    let is_active = job.is_some_and(JobRecord::is_active);
    let phase = job.and_then(JobRecord::hop).map(|hop| hop.machine.phase());
    let state = job.and_then(JobRecord::hop).map(|hop| hop.machine.state());
    let is_down = |seen: Seen| matches!(seen, Seen::Created | Seen::Stopped);
    let commands = ["payram-updater ", "docker ", "mv "];
    let has_command = made.refusals.iter().any(|way| commands.iter().any(|c| way.contains(c)));

    must(!made.message.is_empty() && !made.seen.is_empty(), "it says what it sees and does");
    must(made.success || made.remedy == Remedy::Nothing, "what is refused is not done");
    must(made.success || has_command, "what is refused names the command that goes on");
    must(made.success == made.refusals.is_empty(), "refusals are of what is refused");
    let is_idle = ["none", "retry", "refused"].contains(&made.action);
    must(is_idle == (made.remedy == Remedy::Nothing), "the action says whether anything is done");
    match made.remedy {
        Remedy::Nothing => {}
        Remedy::GoOn => {
            must(is_active, "only what is unfinished goes on");
            let stops_next = |step: &Step| matches!(step, Step::AssessDatabase | Step::StopNext);
            if let Some(State::RollingBack(back)) = state
                && back.remaining.iter().any(stops_next)
            {
                must(
                    world.serving != Serving::Next || world.is_driven,
                    "a way back does not stop the new version that serves",
                );
            }
            must(
                world.stranger != Stranger::HoldsName || world.is_driven || phase.is_none(),
                "it does not begin a renaming that is certain to fail",
            );
        }
        Remedy::TurnBack => {
            let is_before_swap =
                matches!(phase, Some(Phase::Planned | Phase::BackedUp | Phase::Pulled));
            must(is_active && is_before_swap && !world.is_driven, "only before the swap");
            must(made.action == "rollback", "it says that it goes back");
            must(world.serving != Serving::Next, "the new version that serves is not stopped");
        }
        Remedy::TakeWayBack(event) => {
            must(!is_active && phase == Some(Phase::NeedsOperator), "only after a stop");
            must(world.serving != Serving::Next, "the new version that serves is not stopped");
            must(world.stranger == Stranger::None, "nobody else is in the way");
            let is_restoring = matches!(event, Event::RecoverRestoring | Event::RecoverCarrying);
            must(event.carries_rows() <= consent.carry_rows, "rows are carried where it is asked");
            must(!is_restoring || consent.restore_database, "a restore has consent");
            if let Some(State::NeedsOperator(needs)) = state {
                let is_own = needs.begun == Begun::Return;
                must(world.old != Seen::Running || is_own, "the old one is not worked on running");
                let is_at_stake = !is_own
                    && needs.restored.is_none()
                    && needs.reason.code == FailureCode::MigrationFailed
                    && !matches!(needs.assessment, None | Some(Assessment::Unchanged));
                must(!is_at_stake || is_restoring, "rows at stake wait for consent");
                must(
                    !is_restoring || !matches!(world.copy, CopySeen::Missing | CopySeen::InTheWay),
                    "a restore that can't be done is not begun",
                );
            }
            let after = job
                .and_then(JobRecord::hop)
                .and_then(|hop| hop.machine.clone().recover(event).ok());
            must(after.is_some(), "the machine allows it");
        }
        Remedy::StartOld => {
            must(phase == Some(Phase::RolledBack), "the old one is started after a way back");
            must(is_down(world.old) && world.next != Seen::Running, "one of the two at most runs");
            must(world.stranger == Stranger::None, "nobody else runs there");
        }
        Remedy::StartGood => must(false, "without what was good last it is not started"),
        Remedy::StartNext => {
            must(phase == Some(Phase::Verified) && !is_active, "the new one, after Verified");
            must(is_down(world.next) && world.old != Seen::Running, "one of the two at most runs");
            must(world.stranger == Stranger::None, "nobody else runs there");
        }
        Remedy::Tidy => {
            must(phase == Some(Phase::Verified) && !is_active, "only after Verified");
            must(
                world.serving == Serving::Next,
                "the old container goes only while the new serves",
            );
        }
    }
    wrong
}

#[test]
fn every_decision_in_every_world_is_safe() {
    let mut all: Vec<Option<JobRecord>> = vec![
        None,
        Some(record(None, None)),
        Some(record(None, Some(Some(FailureCode::ContainerNotFound)))),
    ];
    let machines = machines();
    let states = machines.len();
    all.extend(machines.into_iter().flat_map(jobs).map(Some));
    let hands = [
        (false, Resume::Resume),
        (false, Resume::Rollback),
        (false, Resume::Manual),
        (true, Resume::Resume),
    ];
    let mut decisions = 0;
    let mut actions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut violations = Vec::new();
    for job in &all {
        let job = job.as_ref();
        // Only what is unfinished depends on who is at it.
        let hands = if job.is_some_and(JobRecord::is_active) { &hands[..] } else { &hands[..1] };
        for world in worlds() {
            for (is_driven, resume) in hands {
                let world = World { is_driven: *is_driven, resume: *resume, ..world };
                let sight = Sight { world, names: names(&world), good: None, later: None };
                for (restore_database, carry_rows) in [(false, false), (true, false), (true, true)]
                {
                    let consent = Consent { restore_database, carry_rows, keep_new: false };
                    let made = decide(job, &sight, consent);
                    decisions += 1;
                    *actions.entry(made.action).or_default() += 1;
                    for fault in faults(job, &world, consent, &made) {
                        let phase = job.map(JobRecord::phase);
                        violations.push(format!("{phase:?} {world:?} {consent:?}: {fault}"));
                    }
                }
            }
        }
    }
    println!(
        "{states} states, {} jobs, {decisions} decisions, {} violations: {actions:?}",
        all.len(),
        violations.len()
    );
    assert!(violations.is_empty(), "{}", violations[..violations.len().min(20)].join("\n"));
    assert!(states > 100, "the walk reached only {states} states");
    let expected = [
        "none",
        "refused",
        "restore_database",
        "resume",
        "retry",
        "rollback",
        "start",
        "tidy",
        "wait",
    ];
    assert_eq!(actions.keys().copied().collect::<Vec<_>>(), expected, "each action is met");
}

fn good() -> Good {
    Good {
        version: "2.0.0".into(),
        how: "was recorded as good last (sync)",
        id: "g".into(),
        image: "sha256:3".into(),
    }
}

fn later(version: Option<&str>) -> Later {
    Later {
        name: "theirs".into(),
        version: version.map(str::to_owned),
        is_running: false,
        is_shop_taken: true,
        due_version: "1.9.8".into(),
        due_name: None,
    }
}

#[test]
fn what_was_recorded_is_started_alone_or_nothing_is() {
    let (mut started, mut refused) = (0, 0);
    for world in worlds() {
        // There is no second container then.
        if world.next != Seen::Gone || world.copy != CopySeen::NotMade {
            continue;
        }
        for after in [None, Some(later(Some("2.1.0"))), Some(later(None))] {
            let names = Names { old: names(&world).old, ..names(&world) };
            let sight = Sight { world, names, good: Some(good()), later: after };
            for job in [None, Some(record(None, Some(Some(FailureCode::ContainerNotFound))))] {
                let made = decide(job.as_ref(), &sight, Consent::default());
                let what = format!("{world:?} {:?}: {made:?}", sight.later);
                let is_down = matches!(world.old, Seen::Created | Seen::Stopped);
                match made.remedy {
                    Remedy::StartGood => {
                        started += 1;
                        let runs =
                            matches!(world.stranger, Stranger::OnDatabase | Stranger::Server);
                        assert!(is_down && !runs, "{what}");
                        assert_eq!(sight.later, None, "{what}");
                    }
                    Remedy::Nothing if made.success => {
                        assert_ne!(world.serving, Serving::Nobody, "{what}");
                    }
                    Remedy::Nothing => refused += 1,
                    other => panic!("{other:?}: {what}"),
                }
                let starts = made.refusals.iter().any(|way| way.contains("docker start"));
                assert!(!starts || sight.later.is_some(), "only what is newer: {what}");
            }
        }
    }
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused");
}

#[test]
fn no_version_is_started_where_a_newer_one_ran_since() {
    let all: Vec<JobRecord> = machines().into_iter().flat_map(jobs).collect();
    let mut refused = 0;
    for job in &all {
        for world in worlds() {
            let after = Some(later(Some("2.1.0")));
            let sight = Sight { world, names: names(&world), good: None, later: after };
            for restore_database in [false, true] {
                let made =
                    decide(Some(job), &sight, Consent { restore_database, ..Consent::default() });
                let what = format!("{:?} {world:?}: {made:?}", job.phase());
                match made.remedy {
                    Remedy::Nothing | Remedy::Tidy => {}
                    // Its database is the copy's again.
                    Remedy::TakeWayBack(Event::RecoverRestoring) => {
                        assert!(restore_database && world.copy == CopySeen::There, "{what}");
                    }
                    other => panic!("{other:?}: {what}"),
                }
                refused += usize::from(!made.success);
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_decision_that_would_stop_what_serves_is_found_by_the_table() {
    let (world, consent) = (
        World {
            old: Seen::Stopped,
            next: Seen::Running,
            serving: Serving::Next,
            stranger: Stranger::None,
            copy: CopySeen::There,
            is_driven: false,
            resume: Resume::Resume,
            is_held: false,
        },
        Consent::default(),
    );
    let job = machines()
        .into_iter()
        .find(|machine| machine.phase() == Phase::NeedsOperator)
        .map(|machine| record(Some(machine), Some(Some(FailureCode::HealthcheckFailed))));
    let job = job.expect("a job that waits");
    let sight = Sight { world, names: names(&world), good: None, later: None };
    let mut made = decide(Some(&job), &sight, consent);
    assert_eq!((made.action, made.remedy), ("refused", Remedy::Nothing));
    made = Decision {
        seen: made.seen,
        ..Decision::will("rollback", Remedy::TakeWayBack(Event::RecoverRestoring), "it is stopped")
    };
    let found = faults(Some(&job), &world, consent, &made);
    assert!(found.contains(&"the new version that serves is not stopped".to_owned()), "{found:?}");
    assert!(found.contains(&"a restore has consent".to_owned()), "{found:?}");
}
