//! Exhaustive search of the product's own machine against a small model of the world (design
//! section 6): every outcome of every step, a death of the program before, in and after every
//! effect and every journal write, again during the resume, a reboot at any point, an operator
//! who calls off or recovers, and a new version that does whatever a new version can do to the
//! database, at any moment that it runs.
//!
//! What a new version does is not chosen beforehand: at each moment it may write, end, pass its
//! gate or not, so that the good one, the unhealthy one, the one that changes the schema, rows,
//! or leaves the database unreadable, and the one that exits are all in it, and their mixtures.
//! The number of faults is not bounded either: every state that any number of them leads to is
//! reached, and only the paths are counted by how many faults they have.
//!
//! Not in the model: a request that the engine carries out long after it was given up on, a
//! container that somebody else starts by hand, a database outside of the container.

#[path = "search/effects.rs"]
mod effects;
#[path = "search/explore.rs"]
mod explore;
#[path = "search/invariants.rs"]
mod invariants;
#[path = "search/machines.rs"]
mod machines;
#[path = "search/trace.rs"]
mod trace;
#[path = "search/world.rs"]
mod world;

use std::time::Instant;

use effects::Sabotage;
use explore::{Extent, Search};
use invariants::Invariant;
use payram_updater::machine::facts::RollbackDatabase;

const SETTINGS: [RollbackDatabase; 3] =
    [RollbackDatabase::Lossless, RollbackDatabase::Manual, RollbackDatabase::Always];

#[test]
fn no_fault_at_any_point_breaks_a_promise_whatever_the_setting() {
    let began = Instant::now();
    let extents = std::thread::scope(|scope| {
        let searches = [true, false].map(|has_supervisor| {
            scope.spawn(move || {
                SETTINGS.map(|setting| {
                    let which = format!("{setting:?}, supervisor {has_supervisor}");
                    let extent = Search::new(setting, has_supervisor).run();
                    (which, extent)
                })
            })
        });
        searches.map(|search| search.join().expect("the search itself does not fail"))
    });
    let (mut states, mut transitions, mut paths) = (0, 0, 0);
    for (which, extent) in extents.into_iter().flatten() {
        match extent {
            Ok(extent) => {
                states += extent.states;
                transitions += extent.transitions;
                paths += extent.paths[3];
                print(&which, &extent);
            }
            Err(found) => panic!("{which}: {:?} is broken\n{}", found.invariant, found.trace),
        }
    }
    println!(
        "in all {states} states, {transitions} transitions, {paths} paths with at most 3 faults, \
         0 violations, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(states > 100_000, "the search reached only {states} states");
}

fn print(which: &str, extent: &Extent) {
    let [none, one, two, three] = extent.paths;
    println!(
        "{which}: {} machines, {} states ({} Verified, {} RolledBack, {} NeedsOperator), {} transitions; \
         paths to rest with at most 0, 1, 2, 3 faults: {none}, {one}, {two}, {three}; \
         at most {} steps from rest",
        extent.machines,
        extent.states,
        extent.verified,
        extent.rolled_back,
        extent.needs_operator,
        extent.transitions,
        extent.longest_way_to_rest,
    );
}

#[test]
fn a_strangers_hand_in_the_containers_never_makes_the_journal_claim_what_is_not_so() {
    for setting in [RollbackDatabase::Lossless, RollbackDatabase::Always] {
        match Search::new(setting, true).with_strangers().run() {
            Ok(extent) => print(&format!("{setting:?}, with strangers"), &extent),
            Err(found) => {
                panic!("{setting:?}: {:?} is broken\n{}", found.invariant, found.trace)
            }
        }
    }
}

#[test]
fn each_sabotaged_effect_is_found_and_told_as_a_list_of_steps() {
    use Invariant::*;
    use RollbackDatabase::{Always, Lossless};
    let sabotages = [
        (Sabotage::RemoveNextTakesWhatHoldsTheName, Lossless, I1),
        (Sabotage::StopNextIsSkippedAndStartOldDoesNotLook, Lossless, I2),
        (Sabotage::DisarmOldIsSkipped, Lossless, I2),
        (Sabotage::EffectsPrecedeTheirIntent, Lossless, I3),
        (Sabotage::RenameOldToggles, Lossless, I4),
        (Sabotage::RestorePointIsSkipped, Lossless, I6),
        (Sabotage::StopNextLeavesTheLoneServer, Always, I6),
        (Sabotage::RestoreDatabaseDeletes, Always, I7),
        (Sabotage::AssessmentIsAlwaysUnchanged, Lossless, OldOnItsOwnDatabase),
        (Sabotage::AssessmentLetsWhatHasNoSupervisorWrite, Lossless, OldOnItsOwnDatabase),
        (Sabotage::ArmNextDoesNotLook, Lossless, Verified),
        (Sabotage::RearmOldIsSkipped, Lossless, RolledBack),
        (Sabotage::ResumeProgramsIsSkipped, Lossless, RolledBack),
        (Sabotage::StartOldIsSkipped, Lossless, ByItself),
        (Sabotage::StopNextIsSkipped, Lossless, ByItself),
        (Sabotage::UndoingRefusesWhatIsGone, Lossless, WayOut),
        (Sabotage::ExportMountsTheDatabaseInUse, Always, I2),
        (Sabotage::ExportTakesWhatItReads, Always, I4),
        (Sabotage::RemoveNextLeavesTheExporter, Always, ByItself),
    ];
    for (sabotage, setting, expected) in sabotages {
        let has_supervisor = sabotage != Sabotage::AssessmentLetsWhatHasNoSupervisorWrite;
        match Search::new(setting, has_supervisor).sabotaged(sabotage).run() {
            Ok(extent) => panic!("{sabotage:?} was not found in {} states", extent.states),
            Err(found) => {
                println!("{sabotage:?} breaks {:?}:\n{}", found.invariant, found.trace);
                assert_eq!(found.invariant, expected, "{sabotage:?}\n{}", found.trace);
            }
        }
    }
}
