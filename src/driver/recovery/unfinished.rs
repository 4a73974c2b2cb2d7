//! Of an upgrade that has not come to its end: it goes on, forward or back, unless that would
//! stop what serves, or is certain to fail while a command of the operator would clear the way.

use super::{
    CopySeen, Decision, Names, Remedy, Seen, Serving, Sight, Stranger, later, stranger_in_the_way,
};
use crate::config::Resume;
use crate::journal::JobRecord;
use crate::machine::{RollingBack, State, Step};

pub(super) fn decide(job: &JobRecord, sight: &Sight) -> Decision {
    let target = &job.body.resolved_target;
    if sight.world.is_driven {
        let message = format!("the upgrade to {target} is running; nothing to recover");
        return Decision::will("wait", Remedy::GoOn, message);
    }
    let Some(hop) = job.hop() else {
        return Decision::will(
            "resume",
            Remedy::GoOn,
            format!("the upgrade to {target} begins now; {}", replaced(sight)),
        );
    };
    let unfinished = format!("the upgrade to {target} is unfinished");
    if let Some(refused) = later::in_the_way_of_unfinished(&unfinished, sight) {
        return refused;
    }
    // A stranger that has only the name fails the renames, and with them the shop's return.
    if sight.world.stranger == Stranger::HoldsName
        && let Some(refused) = stranger_in_the_way(sight)
    {
        return refused;
    }
    match hop.machine.state() {
        State::RollingBack(back) => going_back(target, sight, back),
        State::Swapped(_) => verifying(target, sight, hop.machine.step()),
        State::Planned(_) | State::BackedUp(_) | State::Pulled(_) => {
            let has_next = hop.machine.state().known().next.is_some();
            going_forward(target, sight, hop.machine.step(), has_next)
        }
        // Between two hops.
        State::Verified(_) => Decision::will(
            "resume",
            Remedy::GoOn,
            format!("the next hop to {target} begins now; {}", replaced(sight)),
        ),
        State::RolledBack(_) | State::NeedsOperator(_) => Decision::will(
            "resume",
            Remedy::GoOn,
            format!("the upgrade to {target} has come to rest in {}", hop.machine.phase()),
        ),
    }
}

/// What becomes of whatever serves.
fn replaced(sight: &Sight) -> String {
    if sight.world.serving != Serving::Nobody {
        "what serves is stopped and replaced when the new version is ready to start".to_owned()
    } else {
        "nothing answers now, and if it can't be done, what was begun is undone".to_owned()
    }
}

fn going_forward(target: &str, sight: &Sight, step: Option<Step>, has_next: bool) -> Decision {
    let world = &sight.world;
    let has_stopped_old = matches!(
        step,
        Some(Step::RestorePoint | Step::RenameOld | Step::RenameNext | Step::StartNext)
    );
    if world.resume == Resume::Rollback && world.stranger == Stranger::None {
        return Decision::will(
            "rollback",
            Remedy::GoOn,
            format!(
                "the upgrade to {target} is cancelled (RESUME=rollback): what it began is undone and the old version is verified"
            ),
        );
    }
    // What is certain to fail later is not gone on with: nothing that serves is stopped for it.
    let was_started = matches!(world.next, Seen::Running | Seen::Stopped);
    let lacks = match (has_next && world.next == Seen::Gone, world.copy) {
        (true, _) => Some("the new container is gone".to_owned()),
        // A version that was started already is judged: it may serve.
        (false, CopySeen::Missing) if was_started => None,
        (false, CopySeen::Missing) => {
            Some(format!("the copy of the database {} is gone", sight.names.copy))
        }
        (false, CopySeen::NotMade | CopySeen::There | CopySeen::InTheWay) => None,
    };
    if let Some(lacks) = lacks.filter(|_| world.old != Seen::Gone) {
        let old = match world.serving {
            Serving::Old => "the old version goes on serving",
            Serving::Nobody | Serving::Next | Serving::Stranger => {
                "the old version is started where it does not run"
            }
        };
        return Decision::will(
            "rollback",
            Remedy::TurnBack,
            format!(
                "the upgrade to {target} can't be finished, because {lacks}: what it began is undone, and {old}"
            ),
        );
    }
    let how = match (world.stranger, world.serving, world.old) {
        (Stranger::OnDatabase | Stranger::Server, _, _) => format!(
            "it is brought to an end without touching {}, which is no part of it and runs on the shop's database; if a decision is needed then, recover says which",
            sight.stranger_called()
        ),
        (_, Serving::Next, _) => {
            "the new version was started by somebody and answers: it is not stopped, it goes on being verified; if a decision is needed then, recover says which".to_owned()
        }
        (_, Serving::Old, _) if has_stopped_old => {
            "the old version was started again by somebody and answers: it is not stopped; the upgrade is given up and what it began is undone".to_owned()
        }
        (_, Serving::Old, _) => replaced(sight),
        (_, _, Seen::Gone) => {
            "the old container is gone: it can't be finished and is brought to an end; if a decision is needed then, recover says which".to_owned()
        }
        (_, _, _) if has_stopped_old => {
            "the old version is down for it: the new one is started and verified, and when that fails the old one comes back".to_owned()
        }
        (_, _, _) => replaced(sight),
    };
    Decision::will(
        "resume",
        Remedy::GoOn,
        format!("the upgrade to {target} goes on where it was interrupted; {how}"),
    )
}

fn verifying(target: &str, sight: &Sight, step: Option<Step>) -> Decision {
    let how = match (sight.world.stranger, sight.world.next, sight.world.serving, step) {
        (Stranger::OnDatabase | Stranger::Server, _, _, _) => format!(
            "container {}, which is no part of it, runs on the shop's database and is not touched; if a decision is needed then, recover says which",
            sight.stranger_called()
        ),
        (_, Seen::Running, Serving::Next, _) => {
            "it serves and goes on being verified; if it fails, the old version comes back".into()
        }
        (_, Seen::Running, _, _) => {
            "it runs and goes on being verified; if it does not answer in time, the old version comes back".into()
        }
        (_, _, Serving::Old, _) => {
            "its container does not run, and the old version answers and is not stopped: the upgrade is given up".into()
        }
        (_, Seen::Created | Seen::Stopped, _, Some(Step::ArmNext)) => {
            "it had passed and does not run any more: it is started and verified again".into()
        }
        (_, _, _, _) => {
            "its container does not run: where the engine had stopped it, it is started again and verified; otherwise the old version comes back".to_owned()
        }
    };
    Decision::will("resume", Remedy::GoOn, format!("{target} was started; {how}"))
}

fn going_back(target: &str, sight: &Sight, back: &RollingBack) -> Decision {
    let Names { next, docker, .. } = &sight.names;
    let why = &back.failure;
    let stops_next = back
        .remaining
        .iter()
        .any(|step| matches!(step, Step::AssessDatabase | Step::StopNext | Step::RestoreDatabase));
    if sight.world.serving == Serving::Next && stops_next {
        return Decision::refused(
            format!(
                "the way back from {target} was begun ({why}), and its container {next} answers now: going on would stop what serves"
            ),
            format!("to go on with the way back: {docker} stop {next} && payram-updater recover"),
        );
    }
    let how = match (sight.world.stranger, sight.world.serving, sight.world.old) {
        (Stranger::OnDatabase | Stranger::Server, _, _) => format!(
            "as far as it can without touching {}, which is no part of it and runs on the shop's database; if a decision is needed then, recover says which",
            sight.stranger_called()
        ),
        (_, Serving::Old, _) => "the old version answers already and is not stopped".to_owned(),
        (_, Serving::Next, _) => {
            "the new version was started by somebody and answers: it is not stopped; if a decision is needed then, recover says which".to_owned()
        }
        (_, _, Seen::Gone) => {
            "the old container is gone: what is left to do is tried, then a decision is needed"
                .to_owned()
        }
        (_, _, _) => "then the old version is started and verified".to_owned(),
    };
    Decision::will(
        "rollback",
        Remedy::GoOn,
        format!("the way back from {target} goes on, because the upgrade failed: {why}; {how}"),
    )
}
