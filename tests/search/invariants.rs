//! What must hold in every world and for every machine that the search reaches.

use payram_updater::machine::Phase;
use payram_updater::machine::facts::{ProbationEnd, RollbackDatabase};

use super::machines::View;
use super::world::{Intrusion, Lone, Name, Next, Old, Programs, Served, Stage, Touch, World};

/// A promise, by the number of the design where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// The old container is never removed before Verified is in the journal.
    I1,
    /// At most one container that mounts the database's directory runs.
    I2,
    /// No effect without a journaled intent, no change of state without a transition.
    I3,
    /// A step that is run again, after it or from any point inside of it, leads to the same
    /// world.
    I4,
    /// What takes the database's place is exact, and nothing starts on less.
    I6,
    /// A database that a failed version wrote to is in its place or kept aside.
    I7,
    /// What has its verdict serves the shop's own cluster, and no second server worked in its
    /// directory unnoticed.
    I13,
    /// Nothing that the way back needs is gone before a probation that passed.
    WayBackKept,
    /// The old version never runs on a database that the new one migrated.
    OldOnItsOwnDatabase,
    /// A way back forgets no row that the new version wrote without a person's word.
    RowsForgotten,
    /// No row that the old version acknowledged is missing where it runs.
    AcknowledgedRows,
    /// RolledBack after a restore: the failed version's rows are in a file, or the journal says
    /// that they are not; the export's own server is gone.
    Exported,
    /// Verified: the next container runs, has the name, and comes back after a reboot.
    Verified,
    /// RolledBack: the old version is exactly as before.
    RolledBack,
    /// Without further faults the machine comes to rest.
    ComesToRest,
    /// A way back that meets no fault, over a database that nobody changed, needs no person.
    ByItself,
    /// Out of NeedsOperator a person's word and no further fault lead to RolledBack.
    WayOut,
}

/// The first promise that this world breaks, and how.
pub fn broken(view: View, world: &World) -> Option<(Invariant, String)> {
    let told = |invariant, what: &str| Some((invariant, what.to_owned()));
    if world.old.is_none() && view.phase != Phase::Verified && !is_intruded(world) {
        return told(Invariant::I1, "the old container is gone");
    }
    if world.running() > 1 {
        return told(Invariant::I2, "two servers run on one database directory");
    }
    if world.unintended {
        return told(Invariant::I3, "the world was changed and no intent is journaled");
    }
    if view.has_verdict && world.served != Served::Own {
        return told(
            Invariant::I13,
            "what has its verdict serves another database than the shop's",
        );
    }
    if let Some(stage) = world.damage.filter(|stage| is_unnoticed(view, world, *stage)) {
        let what = format!("two servers worked in the directory ({stage:?}), and nobody is told");
        return Some((Invariant::I13, what));
    }
    if view.keeps_the_way_back && !is_intruded_but_by_a_server(world) {
        let has_copy = world.copy.is_some_and(|copy| copy.sealed);
        if world.old.is_none() || !has_copy || world.next.is_none() {
            return told(Invariant::WayBackKept, "part of the way back was removed");
        }
    }
    let in_place = world.database.map_or(Touch::Clean, |database| database.touch);
    if world.wrote > in_place.max(world.aside.unwrap_or(Touch::Clean)) {
        return told(Invariant::I7, "what the new version wrote is nowhere any more");
    }
    let forgets = matches!(world.aside, Some(Touch::Workers | Touch::Rows));
    let asks_nobody = view.setting == RollbackDatabase::Always;
    if forgets && world.restored && !world.consented && !asks_nobody {
        return told(Invariant::RowsForgotten, "rows were moved aside, and nobody was asked");
    }
    match world.database {
        None if world.running() > 0 => {
            return told(Invariant::I6, "a server runs and its directory is not in its place");
        }
        Some(database) if world.restored && database.torn => {
            return told(Invariant::I6, "a torn copy took the database's place");
        }
        Some(_) | None => {}
    }
    if let Some(database) = world.database.filter(|_| world.old_runs()) {
        if !database.touch.is_kept() {
            return told(
                Invariant::OldOnItsOwnDatabase,
                "the old version runs on a database that the new one migrated",
            );
        }
        if database.behind {
            return told(
                Invariant::AcknowledgedRows,
                "rows that the old version acknowledged are missing where it runs",
            );
        }
    }
    if view.claims_export && !world.exported {
        return told(Invariant::Exported, "the journal names a file that was never written");
    }
    match view.phase {
        // It was stopped, because two servers worked in its directory, and a person is told.
        Phase::Verified if world.damage.is_some() && world.noted => None,
        Phase::Verified => not_verified(world).map(|what| (Invariant::Verified, what)),
        Phase::RolledBack if view.owes_export => {
            told(Invariant::Exported, "nothing is journaled about the failed version's rows")
        }
        // Nothing of it was touched, and whoever took it away meanwhile knows.
        Phase::RolledBack if view.is_unseen && is_intruded(world) => None,
        Phase::RolledBack => not_as_before(view, world).map(|what| (Invariant::RolledBack, what)),
        Phase::Planned
        | Phase::BackedUp
        | Phase::Pulled
        | Phase::Swapped
        | Phase::RollingBack
        | Phase::NeedsOperator => None,
    }
}

fn is_intruded(world: &World) -> bool {
    world.intrusion != Intrusion::Nobodys
}

/// A server takes nothing away.
fn is_intruded_but_by_a_server(world: &World) -> bool {
    is_intruded(world) && world.damage.is_none() && !world.rival && !world.noted
}

/// Whether the upgrade went on as if no second server had been there.
fn is_unnoticed(view: View, world: &World, stage: Stage) -> bool {
    let is_passed =
        matches!(view.probation, Some(ProbationEnd::Passed | ProbationEnd::NextUpgrade));
    match stage {
        Stage::Gate if view.phase == Phase::RolledBack => !world.restored,
        Stage::Gate => view.has_verdict,
        Stage::Return => view.phase == Phase::RolledBack,
        Stage::Probation => view.phase == Phase::Verified && is_passed,
        Stage::Tidy => {
            let is_gone = world.old.is_none() || !world.copy.is_some_and(|copy| copy.sealed);
            view.phase == Phase::Verified && is_gone
        }
    }
}

fn not_verified(world: &World) -> Option<String> {
    match world.next {
        Some(Next { running: true, name: Name::Payram, armed: true, .. }) => None,
        found => Some(format!("Verified is journaled, the next container is {found:?}")),
    }
}

fn not_as_before(view: View, world: &World) -> Option<String> {
    let as_before =
        Old { running: true, name: Name::Payram, armed: true, programs: Programs::Running };
    if world.old != Some(as_before) {
        return Some(format!("RolledBack is journaled, the old container is {:?}", world.old));
    }
    if world.exporter != Lone::Absent {
        return Some(format!(
            "RolledBack is journaled, the export's server is {:?}",
            world.exporter
        ));
    }
    // One that served another database is kept, stopped, with what it took.
    let is_kept = |next: &Next| view.known.is_mismatch && next.was_started && !next.running;
    if world.next.as_ref().is_some_and(|next| !is_kept(next)) {
        return Some(format!("RolledBack is journaled, the next container is {:?}", world.next));
    }
    if world.files_changed && !view.is_told_of_files {
        return Some("RolledBack is journaled, the files are as the new version left them".into());
    }
    match world.database {
        Some(database) if database.touch.is_kept() && !database.behind && !database.torn => None,
        found => Some(format!("RolledBack is journaled, the database is {found:?}")),
    }
}
