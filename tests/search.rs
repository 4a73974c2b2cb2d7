//! Exhaustive search of the product's own machine against a small model of the world (design
//! section 6): every outcome of every step, a death of the program before, in and after every
//! effect and every journal write, again during the resume, a reboot at any point, an operator
//! who cancels or recovers, and a new version that does whatever a new version can do to the
//! database, at any moment that it runs. The watch after `Verified` ends in every way that it can.
//!
//! In searches of their own a stranger starts a second server on the database's directory, or
//! takes a container away; and what the new version serves is another database than the shop's.
//!
//! What a new version does is not chosen beforehand: at each moment it may write, end, pass its
//! gate or not, so that the good one, the unhealthy one, the one that changes the schema, rows,
//! or leaves the database unreadable, and the one that exits are all in it, and their mixtures.
//! The number of faults is not bounded either: every state that any number of them leads to is
//! reached, and only the paths are counted by how many faults they have.
//!
//! Not in the model: a request that the engine carries out long after it was given up on, a
//! second server that comes and goes between two looks, a database outside of the container.

use std::time::Instant;

use payram_updater::machine::facts::RollbackDatabase;
use payram_updater_search::effects::Sabotage;
use payram_updater_search::explore::{Extent, Search};
use payram_updater_search::invariants::Invariant;
use payram_updater_search::world::Stranger;

const SETTINGS: [RollbackDatabase; 3] =
    [RollbackDatabase::Lossless, RollbackDatabase::Manual, RollbackDatabase::Always];

/// `PROBATION_MINUTES` as it is by default; hops of earlier versions have none.
const PROBATION: Option<u64> = Some(900);

#[test]
fn no_fault_at_any_point_breaks_a_promise_whatever_the_setting() {
    let began = Instant::now();
    let mut searches: Vec<(String, Search)> = Vec::new();
    for has_supervisor in [true, false] {
        for setting in SETTINGS {
            let which = format!("{setting:?}, supervisor {has_supervisor}");
            let search = Search::new(setting, has_supervisor, PROBATION);
            // What a person adds to a consent changes no decision: seen once.
            let carries = has_supervisor && setting == RollbackDatabase::Manual;
            searches.push(match carries {
                true => (format!("{which}, with rows carried over"), search.with_carrying()),
                false => (which, search),
            });
        }
    }
    let without = Search::new(RollbackDatabase::Lossless, true, None);
    searches.push(("Lossless, supervisor true, without a probation".into(), without));
    let with = Search::new(RollbackDatabase::Lossless, true, PROBATION).with_files();
    searches.push(("Lossless, supervisor true, with files beside the database".into(), with));
    let (mut states, mut transitions, mut paths) = (0, 0, 0);
    for extent in all(searches) {
        states += extent.states;
        transitions += extent.transitions;
        paths += extent.paths[3];
    }
    println!(
        "in all {states} states, {transitions} transitions, {paths} paths with at most 3 faults, \
         0 violations, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(states > 100_000, "the search reached only {states} states");
}

/// Runs them, two at a time, and prints each.
fn all(searches: Vec<(String, Search)>) -> Vec<Extent> {
    let half = searches.len().div_ceil(2);
    let mut first = searches;
    let second = first.split_off(half);
    let run = |searches: Vec<(String, Search)>| -> Vec<_> {
        searches.into_iter().map(|(which, search)| (which, search.run())).collect()
    };
    let found = std::thread::scope(|scope| {
        [first, second]
            .map(|searches| scope.spawn(move || run(searches)))
            .map(|thread| thread.join().expect("the search itself does not fail"))
    });
    let mut extents = Vec::new();
    for (which, extent) in found.into_iter().flatten() {
        match extent {
            Ok(extent) => {
                print(&which, &extent);
                extents.push(extent);
            }
            Err(found) => panic!("{which}: {:?} is broken\n{}", found.invariant, found.trace),
        }
    }
    extents
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
    use RollbackDatabase::{Always, Lossless};
    let takers = Search::new(Lossless, true, PROBATION).with_strangers(&Stranger::TAKERS);
    // Not even where the restore point comes back by itself may it come back by itself here.
    let server = Search::new(Always, true, PROBATION).with_strangers(&[Stranger::StartsServer]);
    let searches = [
        ("Lossless, with strangers who take something".to_owned(), takers),
        ("Always, with a stranger's server".to_owned(), server),
    ];
    all(searches.into());
}

#[test]
fn a_new_version_that_serves_another_database_is_never_verified() {
    let searches = [true, false].map(|has_supervisor| {
        let lossless = RollbackDatabase::Lossless;
        let search = Search::new(lossless, has_supervisor, PROBATION).with_other_databases();
        (format!("{lossless:?}, supervisor {has_supervisor}, with other databases"), search)
    });
    all(searches.into());
}

#[test]
fn each_sabotaged_effect_is_found_and_told_as_a_list_of_steps() {
    use Invariant::*;
    use RollbackDatabase::{Always, Lossless};
    let sabotages = [
        (Sabotage::StartOldDoesNotLookForStrangers, Lossless, I2),
        (Sabotage::OldIsNotMadeAgain, Lossless, ByItself),
        (Sabotage::AssessmentTakesWorkersForAMigration, Lossless, RowsForgotten),
        (Sabotage::AssessmentTakesAMigrationForWorkers, Lossless, OldOnItsOwnDatabase),
        (Sabotage::RestorePointIsTriedWithoutALook, Lossless, AcknowledgedRows),
        (Sabotage::RemoveNextTakesWhatHoldsTheName, Lossless, I1),
        (Sabotage::StopNextIsSkippedAndStartOldDoesNotLook, Lossless, I2),
        (Sabotage::DisarmOldIsSkipped, Lossless, I2),
        (Sabotage::EffectsPrecedeTheirIntent, Lossless, I3),
        (Sabotage::RenameOldToggles, Lossless, I4),
        (Sabotage::RestorePointIsSkipped, Lossless, I6),
        (Sabotage::RestoreFilesIsSkipped, Lossless, RolledBack),
        (Sabotage::StopNextLeavesTheLoneServer, Always, I6),
        (Sabotage::RestoreDatabaseDeletes, Always, I7),
        (Sabotage::AssessmentIsAlwaysUnchanged, Lossless, OldOnItsOwnDatabase),
        (Sabotage::AssessmentLetsWhatHasNoSupervisorWrite, Lossless, RowsForgotten),
        (Sabotage::ArmNextDoesNotLook, Lossless, Verified),
        (Sabotage::RearmOldIsSkipped, Lossless, RolledBack),
        (Sabotage::ResumeProgramsIsSkipped, Lossless, RolledBack),
        (Sabotage::OldIsNotStarted, Lossless, ByItself),
        (Sabotage::StopNextIsSkipped, Lossless, ByItself),
        (Sabotage::UndoingRefusesWhatIsGone, Lossless, WayOut),
        (Sabotage::ExportMountsTheDatabaseInUse, Always, I2),
        (Sabotage::ExportTakesWhatItReads, Always, I4),
        (Sabotage::RemoveNextLeavesTheExporter, Always, ByItself),
        (Sabotage::TidyPrecedesProbation, Lossless, WayBackKept),
        (Sabotage::TidyFollowsTrouble, Lossless, WayBackKept),
        (Sabotage::GateDoesNotAskWhichDatabase, Lossless, I13),
        (Sabotage::ProbationIsSkipped, Lossless, I13),
        (Sabotage::GateDoesNotLookOut, Lossless, I13),
        (Sabotage::AssessmentDoesNotLookOut, Lossless, I13),
        (Sabotage::ProbationDoesNotLookOut, Lossless, I13),
        (Sabotage::TidyDoesNotLookOut, Lossless, I13),
        (Sabotage::DamageIsNotJournaledFirst, Lossless, I4),
    ];
    for (sabotage, setting, expected) in sabotages {
        let has_supervisor = sabotage != Sabotage::AssessmentLetsWhatHasNoSupervisorWrite;
        let search = Search::new(setting, has_supervisor, PROBATION).sabotaged(sabotage);
        let search = if sabotage == Sabotage::GateDoesNotAskWhichDatabase {
            search.with_other_databases()
        } else if sabotage.needs_a_server() {
            search.with_strangers(&[Stranger::StartsServer])
        } else if sabotage == Sabotage::RestoreFilesIsSkipped {
            search.with_files()
        } else if sabotage == Sabotage::OldIsNotMadeAgain {
            search.with_strangers(&Stranger::TAKERS)
        } else {
            search
        };
        match search.run() {
            Ok(extent) => panic!("{sabotage:?} was not found in {} states", extent.states),
            Err(found) => {
                println!("{sabotage:?} breaks {:?}:\n{}", found.invariant, found.trace);
                assert_eq!(found.invariant, expected, "{sabotage:?}\n{}", found.trace);
            }
        }
    }
    println!("{} sabotages, each found", sabotages.len());
}
