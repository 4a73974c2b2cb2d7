//! What the effects do about somebody else's hand: a second server on the database's directory,
//! and a parked old container that is gone. As `driver::effects::second_server`, `probation` and
//! `remake`, split where a crash can fall between two changes.

use payram_updater::machine::facts::ProbationEnd;

use super::effects::{Run, Sabotage, Touched, on_next, on_old};
use super::world::{Name, Old, Programs, Served};

/// Looks for a second server beside this version's; whether there is one, or was one and the
/// journal says so. It is journaled first, then it is killed and this version stopped: a program
/// that dies in between finds it in the journal, and nothing in the world.
pub fn look_out(run: &mut Run, beside: Touched, sabotage: Sabotage) -> bool {
    let world = run.last();
    let is_noted = match beside {
        Touched::Old => world.noted_since,
        Touched::Next => world.noted,
    };
    if !world.rival && !is_noted {
        return false;
    }
    if sabotage != Sabotage::DamageIsNotJournaledFirst {
        run.change(|w| (w.noted, w.noted_since) = (true, true));
    }
    run.change(|w| w.rival = false);
    match beside {
        Touched::Old => on_old(run, |old| (old.running, old.programs) = (false, Programs::Stopped)),
        Touched::Next => on_next(run, |next| (next.running, next.silenced) = (false, false)),
    }
    true
}

/// The watch after the verdict, where nothing but the world decides how it ends.
pub fn probation(run: &mut Run, sabotage: Sabotage) -> ProbationEnd {
    if sabotage == Sabotage::ProbationIsSkipped {
        return ProbationEnd::Passed;
    }
    let looks = sabotage != Sabotage::ProbationDoesNotLookOut;
    if looks && look_out(run, Touched::Next, sabotage) {
        on_next(run, |next| next.armed = false);
        return ProbationEnd::Damaged;
    }
    match run.last().next_runs() && run.last().served == Served::Own {
        true => ProbationEnd::Passed,
        false => ProbationEnd::Troubled,
    }
}

/// The old container, made again where it is gone and what it is made of is there.
pub fn ensure_old(run: &mut Run, sabotage: Sabotage) -> Option<Old> {
    let world = run.last();
    if world.old.is_none() && world.remakable && sabotage != Sabotage::OldIsNotMadeAgain {
        let programs = Programs::Stopped;
        let made = Old { running: false, name: Name::Other, armed: false, programs };
        run.change(|w| (w.old, w.remade) = (Some(made), true));
    }
    run.last().old
}
