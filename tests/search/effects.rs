//! What each step does to the modelled world: the same observations, in the same order, as
//! `driver::effects`, split where a crash can fall between two changes. A [`Sabotage`] breaks
//! one of them, so that the search can show that it would notice.

use payram_updater::machine::Step;

use payram_updater::machine::facts::ProbationEnd;

use super::intruder::{ensure_old, look_out, probation};
use super::world::{
    CopyOfIt, Directory, Intrusion, Lone, Name, Next, Programs, Served, Touch, World,
};

/// One thing done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    Nothing,
    /// Neither by its step nor by its gate, which makes up for what was stopped late.
    OldIsNotStarted,
    StopNextIsSkipped,
    StopNextIsSkippedAndStartOldDoesNotLook,
    StopNextLeavesTheLoneServer,
    RemoveNextTakesWhatHoldsTheName,
    RearmOldIsSkipped,
    ResumeProgramsIsSkipped,
    RestoreDatabaseDeletes,
    RestorePointIsSkipped,
    RestoreFilesIsSkipped,
    AssessmentIsAlwaysUnchanged,
    DisarmOldIsSkipped,
    ArmNextDoesNotLook,
    UndoingRefusesWhatIsGone,
    AssessmentLetsWhatHasNoSupervisorWrite,
    RenameOldToggles,
    EffectsPrecedeTheirIntent,
    ExportMountsTheDatabaseInUse,
    ExportTakesWhatItReads,
    RemoveNextLeavesTheExporter,
    ProbationIsSkipped,
    TidyPrecedesProbation,
    TidyFollowsTrouble,
    GateDoesNotAskWhichDatabase,
    GateDoesNotLookOut,
    AssessmentDoesNotLookOut,
    ProbationDoesNotLookOut,
    TidyDoesNotLookOut,
    DamageIsNotJournaledFirst,
    StartOldDoesNotLookForStrangers,
    OldIsNotMadeAgain,
    AssessmentTakesWorkersForAMigration,
    AssessmentTakesAMigrationForWorkers,
    RestorePointIsTriedWithoutALook,
}

impl Sabotage {
    /// Whether it takes a stranger's server to show.
    pub fn needs_a_server(self) -> bool {
        matches!(
            self,
            Sabotage::ProbationIsSkipped
                | Sabotage::GateDoesNotLookOut
                | Sabotage::AssessmentDoesNotLookOut
                | Sabotage::ProbationDoesNotLookOut
                | Sabotage::TidyDoesNotLookOut
                | Sabotage::DamageIsNotJournaledFirst
                | Sabotage::StartOldDoesNotLookForStrangers
        )
    }
}

/// What an effect needs to know from the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    pub has_fingerprint: bool,
    pub has_programs: bool,
    /// Files beside the database were copied.
    pub has_files: bool,
    /// The old version did not pass its gate on what was kept.
    pub is_tried: bool,
    /// Rows that workers wrote stay.
    pub rows_stay: bool,
    /// The restore point came back.
    pub is_restored: bool,
    /// What failed is that another database was served.
    pub is_mismatch: bool,
    /// What failed is that a second server worked in the directory.
    pub is_damaged: bool,
}

/// What an effect answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Backup,
    Proof,
    Image,
    Next,
    Copy,
    Programs,
    Quiesced {
        has_fingerprint: bool,
    },
    RestorePoint,
    Verdict,
    Probation(ProbationEnd),
    Assessment(Found),
    Restored,
    Files,
    FilesLeft,
    Export,
    /// It can't be done.
    Refused,
    /// It can't be: the old version is not healthy.
    Unhealthy,
    /// It can't be: another database than the shop's is served.
    Mismatch,
    /// It can't be: a second server worked in the database's directory.
    Damaged,
}

impl Answer {
    /// Whether the step is not done.
    pub fn is_refusal(self) -> bool {
        matches!(self, Answer::Refused | Answer::Unhealthy | Answer::Mismatch | Answer::Damaged)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Unchanged,
    Workers,
    Schema,
    Rows,
    Unreadable,
    Damaged,
    Serves,
}

/// One run of an effect: every world it went through, the first as it was found, and its answer.
pub struct Run {
    pub worlds: Vec<World>,
    pub answer: Answer,
    /// What runs of the new version changes files, and they were copied.
    has_files: bool,
}

impl Run {
    pub fn last(&self) -> World {
        self.worlds[self.worlds.len() - 1]
    }

    pub fn change(&mut self, change: impl FnOnce(&mut World)) {
        let mut world = self.last();
        change(&mut world);
        world.files_changed |= self.has_files && world.next_runs();
        if world != self.last() {
            self.worlds.push(world);
        }
    }
}

/// Runs a step to its end.
pub fn run(step: Step, known: Known, world: World, sabotage: Sabotage) -> Run {
    let has_files = known.has_files;
    let mut run = Run { worlds: vec![world], answer: Answer::Refused, has_files };
    if let Some(answer) = attempt(&mut run, step, known, sabotage) {
        run.answer = answer;
    }
    if sabotage == Sabotage::EffectsPrecedeTheirIntent {
        for world in run.worlds.iter_mut().skip(1) {
            world.unintended = true;
        }
    }
    run
}

/// None where it can't be done.
fn attempt(run: &mut Run, step: Step, known: Known, sabotage: Sabotage) -> Option<Answer> {
    let world = run.last();
    // What is gone needs nothing undone.
    if sabotage == Sabotage::UndoingRefusesWhatIsGone
        && matches!(step, Step::DisarmNext | Step::StopNext | Step::RestoreNextName)
    {
        world.next?;
    }
    match step {
        // They ask the database's server in the old container.
        Step::BackUp => world.old_runs().then_some(Answer::Backup),
        Step::ProveBackup => world.old_runs().then_some(Answer::Proof),
        Step::Pull => Some(Answer::Image),
        Step::CreateNext => {
            remove_labelled(run)?;
            run.change(|w| {
                w.next = Some(Next {
                    running: false,
                    was_started: false,
                    name: Name::Other,
                    armed: false,
                    silenced: false,
                });
            });
            Some(Answer::Next)
        }
        Step::PreCopy => {
            let directory = world.database.filter(|_| world.old_runs())?;
            let torn = Directory { torn: true, ..directory };
            run.change(|w| w.copy = Some(CopyOfIt { directory: torn, sealed: false }));
            Some(Answer::Copy)
        }
        Step::DisarmOld => {
            world.old?;
            if sabotage != Sabotage::DisarmOldIsSkipped {
                on_old(run, |old| old.armed = false);
            }
            Some(Answer::Done)
        }
        Step::NotePrograms => world.old_runs().then_some(Answer::Programs),
        Step::Quiesce => {
            world.old?;
            if !known.has_programs {
                return None;
            }
            if !world.old_runs() {
                return Some(Answer::Quiesced { has_fingerprint: false });
            }
            if world.has_supervisor {
                stop_programs(run);
            }
            run.change(|w| {
                if let Some(database) = w.database.as_mut() {
                    database.ahead = false;
                }
            });
            Some(Answer::Quiesced { has_fingerprint: true })
        }
        Step::StopOld => {
            world.old?;
            on_old(run, |old| {
                old.running = false;
                old.programs = Programs::Stopped;
            });
            Some(Answer::Done)
        }
        Step::RestorePoint => restore_point(run, sabotage),
        Step::RenameOld => {
            let old = world.old?;
            let toggles = sabotage == Sabotage::RenameOldToggles && old.name == Name::Other;
            on_old(run, |old| old.name = if toggles { Name::Payram } else { Name::Other });
            Some(Answer::Done)
        }
        Step::RenameNext => {
            let is_taken = world.old.is_some_and(|old| old.name == Name::Payram);
            world.next.filter(|next| next.name == Name::Payram || !is_taken)?;
            on_next(run, |next| next.name = Name::Payram);
            Some(Answer::Done)
        }
        Step::StartNext => {
            let next = world.next?;
            if !next.was_started {
                if world.old_runs() || world.rival {
                    return None;
                }
                on_next(run, |next| (next.running, next.was_started) = (true, true));
            }
            Some(Answer::Done)
        }
        // Whether it is healthy is not the model's to say: the search takes both.
        Step::Verify => {
            if sabotage != Sabotage::GateDoesNotLookOut && look_out(run, Touched::Next, sabotage) {
                return Some(Answer::Damaged);
            }
            if !world.next_runs() {
                return None;
            }
            let asks = sabotage != Sabotage::GateDoesNotAskWhichDatabase;
            let is_own = world.served == Served::Own || !asks;
            Some(if is_own { Answer::Verdict } else { Answer::Mismatch })
        }
        // A person goes on with it, on the database that it left.
        Step::StartAgain => {
            world.next?;
            remove_lone_server(run);
            if world.old_runs() || world.rival || world.database.is_none() {
                return None;
            }
            // What answers is left running.
            if world.next.is_some_and(|next| next.silenced) {
                on_next(run, |next| (next.running, next.silenced) = (false, false));
            }
            on_next(run, |next| next.armed = false);
            on_next(run, |next| next.name = Name::Payram);
            on_next(run, |next| (next.running, next.was_started) = (true, true));
            Some(Answer::Done)
        }
        Step::ArmNext => {
            world.next?;
            on_next(run, |next| next.armed = true);
            // It may have ended since its verdict: what does not run is not Verified.
            let looks = sabotage != Sabotage::ArmNextDoesNotLook;
            (run.last().next_runs() || !looks).then_some(Answer::Done)
        }
        Step::Probation if sabotage == Sabotage::TidyPrecedesProbation => {
            attempt(run, Step::Tidy, known, sabotage)?;
            Some(Answer::Probation(ProbationEnd::Passed))
        }
        Step::Probation => Some(Answer::Probation(probation(run, sabotage))),
        Step::Tidy => {
            if world.old.is_some() {
                let looks = sabotage != Sabotage::TidyDoesNotLookOut;
                if looks && look_out(run, Touched::Next, sabotage) {
                    return Some(Answer::Damaged);
                }
                if !world.next_runs() || world.served != Served::Own {
                    return None;
                }
            }
            run.change(|w| w.old = None);
            discard(run)
        }
        Step::DisarmNext => {
            on_next(run, |next| next.armed = false);
            Some(Answer::Done)
        }
        Step::AssessDatabase => {
            let found = assess(run, known, sabotage)?;
            Some(Answer::Assessment(match (sabotage, found) {
                (Sabotage::AssessmentIsAlwaysUnchanged, _) => Found::Unchanged,
                (Sabotage::AssessmentTakesWorkersForAMigration, Found::Workers) => Found::Schema,
                (Sabotage::AssessmentTakesAMigrationForWorkers, Found::Rows) => Found::Workers,
                (_, found) => found,
            }))
        }
        Step::AssessAgain => {
            let found = assess_again(run, known, sabotage)?;
            if found == Found::Unchanged || known.rows_stay && found == Found::Workers {
                on_old(run, |old| (old.running, old.programs) = (false, Programs::Stopped));
            }
            Some(Answer::Assessment(found))
        }
        Step::StopNext => {
            if sabotage != Sabotage::StopNextLeavesTheLoneServer {
                remove_lone_server(run);
            }
            let is_skipped = matches!(
                sabotage,
                Sabotage::StopNextIsSkipped | Sabotage::StopNextIsSkippedAndStartOldDoesNotLook
            );
            if !is_skipped {
                on_next(run, |next| (next.running, next.silenced) = (false, false));
            }
            Some(Answer::Done)
        }
        Step::RestoreDatabase => restore_database(run, sabotage),
        Step::RestoreFiles => {
            if world.old_runs() || world.next_runs() {
                return None;
            }
            if known.rows_stay && !known.is_tried {
                return Some(match world.files_changed {
                    true => Answer::FilesLeft,
                    false => Answer::Files,
                });
            }
            if sabotage != Sabotage::RestoreFilesIsSkipped {
                run.change(|w| w.files_changed = false);
            }
            Some(Answer::Files)
        }
        Step::RestoreNextName => {
            on_next(run, |next| next.name = Name::Other);
            Some(Answer::Done)
        }
        Step::RestoreOldName => {
            ensure_old(run, sabotage)?;
            if world.next.is_some_and(|next| next.name == Name::Payram) {
                return None;
            }
            on_old(run, |old| old.name = Name::Payram);
            Some(Answer::Done)
        }
        Step::StartOld => {
            let old = ensure_old(run, sabotage)?;
            // One that was made again may have missed the steps that give it these.
            if world.intrusion == Intrusion::TookOld {
                on_old(run, |old| (old.name, old.armed) = (Name::Payram, true));
            }
            let looks = sabotage != Sabotage::StopNextIsSkippedAndStartOldDoesNotLook;
            if looks && world.next_runs() {
                return None;
            }
            let looks = sabotage != Sabotage::StartOldDoesNotLookForStrangers;
            if looks && world.rival && !old.running {
                return None;
            }
            if !old.running && sabotage != Sabotage::OldIsNotStarted {
                on_old(run, |old| (old.running, old.programs) = (true, Programs::Running));
            }
            Some(Answer::Done)
        }
        Step::ResumePrograms => {
            let runs = world.old?.running;
            // One that does not run is for its gate to judge.
            if runs && known.has_programs && world.has_supervisor {
                if sabotage != Sabotage::ResumeProgramsIsSkipped {
                    for programs in [Programs::Partial, Programs::Running] {
                        on_old(run, |old| old.programs = old.programs.max(programs));
                    }
                }
            }
            Some(Answer::Done)
        }
        Step::RearmOld => {
            ensure_old(run, sabotage)?;
            if sabotage != Sabotage::RearmOldIsSkipped {
                on_old(run, |old| old.armed = true);
            }
            Some(Answer::Done)
        }
        Step::VerifyOld => {
            if look_out(run, Touched::Old, sabotage) {
                return Some(Answer::Damaged);
            }
            let old = run.last().old.filter(|old| old.running)?;
            if old.programs == Programs::Stopped {
                return None;
            }
            // One that was made again when these were set already gets them here.
            if world.remade {
                if world.next.is_some_and(|next| next.name == Name::Payram) {
                    return None;
                }
                on_old(run, |old| old.name = Name::Payram);
                on_old(run, |old| old.armed = true);
            }
            Some(Answer::Verdict)
        }
        Step::ExportRows => {
            // What runs on the failed directory mounts nothing else.
            let is_careful = sabotage != Sabotage::ExportMountsTheDatabaseInUse;
            remove_exporter(run);
            if !known.is_restored {
                return None;
            }
            run.last().aside?;
            run.change(|w| w.exporter = Lone::Created);
            run.change(|w| match is_careful {
                true => w.exporter = Lone::Running,
                false => w.lone = Lone::Running,
            });
            if sabotage == Sabotage::ExportTakesWhatItReads {
                run.change(|w| w.aside = None);
            }
            run.change(|w| w.exported = true);
            remove_exporter(run);
            Some(Answer::Export)
        }
        Step::RemoveNext => {
            if sabotage != Sabotage::RemoveNextLeavesTheExporter {
                remove_exporter(run);
            }
            if sabotage == Sabotage::RemoveNextTakesWhatHoldsTheName
                && world.old.is_some_and(|old| old.name == Name::Payram)
            {
                run.change(|w| w.old = None);
            }
            // What it took is in a database of its own, which would go with it.
            if !(known.is_mismatch && world.next.is_some_and(|next| next.was_started)) {
                remove_labelled(run)?;
            }
            Some(Answer::Done)
        }
        Step::DiscardCopy => discard(run),
    }
}

/// Which of the two a server is looked for beside.
#[derive(Clone, Copy)]
pub enum Touched {
    Old,
    Next,
}

pub fn on_old(run: &mut Run, change: impl FnOnce(&mut super::world::Old)) {
    run.change(|w| w.old.iter_mut().for_each(change_once(change)));
}

pub fn on_next(run: &mut Run, change: impl FnOnce(&mut Next)) {
    run.change(|w| w.next.iter_mut().for_each(change_once(change)));
}

/// An option holds at most one.
fn change_once<T>(change: impl FnOnce(&mut T)) -> impl FnMut(&mut T) {
    let mut change = Some(change);
    move |value| {
        if let Some(change) = change.take() {
            change(value);
        }
    }
}

fn stop_programs(run: &mut Run) {
    for programs in [Programs::Partial, Programs::Stopped] {
        on_old(run, |old| old.programs = old.programs.min(programs));
    }
}

/// Whatever carries this hop's label; nothing of it may run.
fn remove_labelled(run: &mut Run) -> Option<()> {
    let world = run.last();
    let runs = [world.lone, world.exporter].contains(&Lone::Running) || world.next_runs();
    if runs {
        return None;
    }
    run.change(|w| w.lone = Lone::Absent);
    run.change(|w| w.exporter = Lone::Absent);
    run.change(|w| w.next = None);
    Some(())
}

fn remove_lone_server(run: &mut Run) {
    if run.last().lone == Lone::Running {
        run.change(|w| w.lone = Lone::Created);
    }
    run.change(|w| w.lone = Lone::Absent);
}

fn remove_exporter(run: &mut Run) {
    if run.last().exporter == Lone::Running {
        run.change(|w| w.exporter = Lone::Created);
    }
    run.change(|w| w.exporter = Lone::Absent);
}

fn restore_point(run: &mut Run, sabotage: Sabotage) -> Option<Answer> {
    let world = run.last();
    let directory = world.database?;
    if world.old_runs() || world.next_runs() || world.rival {
        return None;
    }
    if sabotage == Sabotage::RestorePointIsSkipped {
        run.change(|w| w.copy.iter_mut().for_each(|copy| copy.sealed = true));
        return Some(Answer::RestorePoint);
    }
    let sealed = CopyOfIt { directory, sealed: true };
    if world.copy != Some(sealed) {
        let torn = Directory { torn: true, ..directory };
        run.change(|w| w.copy = Some(CopyOfIt { directory: torn, sealed: false }));
        run.change(|w| w.copy = Some(sealed));
    }
    Some(Answer::RestorePoint)
}

fn restore_database(run: &mut Run, sabotage: Sabotage) -> Option<Answer> {
    let world = run.last();
    if world.old_runs() || world.next_runs() || world.rival {
        return None;
    }
    if !world.restored {
        let copy = world.copy.filter(|copy| copy.sealed)?;
        run.change(|w| {
            if let Some(failed) = w.database.take()
                && sabotage != Sabotage::RestoreDatabaseDeletes
            {
                w.aside = Some(failed.touch);
            }
        });
        run.change(|w| {
            w.database = Some(copy.directory);
            w.copy = None;
            w.restored = true;
        });
    }
    Some(Answer::Restored)
}

/// The copy goes, its manifest first; not in the middle of a restore, when it is all there is.
fn discard(run: &mut Run) -> Option<Answer> {
    run.last().database?;
    run.change(|w| {
        if let Some(copy) = w.copy.as_mut() {
            copy.sealed = false;
            copy.directory.torn = true;
        }
    });
    run.change(|w| w.copy = None);
    Some(Answer::Done)
}

fn assess(run: &mut Run, known: Known, sabotage: Sabotage) -> Option<Found> {
    if known.is_damaged {
        return Some(Found::Damaged);
    }
    remove_lone_server(run);
    let next = run.last().next?;
    let looks = next.was_started && sabotage != Sabotage::AssessmentDoesNotLookOut;
    if looks && look_out(run, Touched::Next, sabotage) {
        return Some(Found::Damaged);
    }
    if !next.was_started {
        return Some(Found::Unchanged);
    }
    if !known.has_fingerprint {
        if next.running {
            on_next(run, |next| (next.running, next.silenced) = (false, false));
        }
        // What the restore point holds tells, once it is needed.
        if run.last().restored || !run.last().copy.is_some_and(|copy| copy.sealed) {
            return Some(Found::Unreadable);
        }
    }
    let next = run.last().next?;
    // The server of another database says nothing of the shop's.
    if next.running && known.is_mismatch {
        on_next(run, |next| (next.running, next.silenced) = (false, false));
    } else if next.running {
        let has_supervisor = run.last().has_supervisor;
        if has_supervisor {
            on_next(run, |next| next.silenced = true);
        }
        if has_supervisor || sabotage == Sabotage::AssessmentLetsWhatHasNoSupervisorWrite {
            if run.last().served != Served::Own {
                return Some(Found::Unreadable);
            }
            match run.last().database.map(compare) {
                Some(Found::Unreadable) | None => {}
                Some(found) => return Some(found),
            }
        }
        // Nothing silences it, or its server does not answer: it is stopped, and its server
        // asked on its own.
        on_next(run, |next| (next.running, next.silenced) = (false, false));
    }
    let world = run.last();
    let Some(database) = world.database else { return Some(Found::Unreadable) };
    if world.copy.is_none() && !world.restored {
        return Some(Found::Unreadable);
    }
    run.change(|w| w.lone = Lone::Created);
    let found = if world.old_runs() || world.rival {
        Found::Unreadable
    } else {
        run.change(|w| w.lone = Lone::Running);
        compare(database)
    };
    remove_lone_server(run);
    Some(found)
}

/// Whether the old version that did not pass its gate, or the failed one, wrote a row: it is
/// silenced for that, or stopped where nothing silences it.
fn assess_again(run: &mut Run, known: Known, sabotage: Sabotage) -> Option<Found> {
    remove_lone_server(run);
    let old = run.last().old?;
    if !run.last().copy.is_some_and(|copy| copy.sealed) {
        return Some(Found::Unreadable);
    }
    if look_out(run, Touched::Old, sabotage) {
        return Some(Found::Damaged);
    }
    on_old(run, |old| old.armed = false);
    if old.running && run.last().has_supervisor && known.has_fingerprint {
        stop_programs(run);
    } else {
        on_old(run, |old| (old.running, old.programs) = (false, Programs::Stopped));
    }
    if sabotage == Sabotage::RestorePointIsTriedWithoutALook {
        return Some(Found::Unchanged);
    }
    let world = run.last();
    let Some(database) = world.database else { return Some(Found::Unreadable) };
    if !world.old_runs() {
        if world.next_runs() || world.rival {
            return Some(Found::Unreadable);
        }
        run.change(|w| w.lone = Lone::Created);
        run.change(|w| w.lone = Lone::Running);
        remove_lone_server(run);
    }
    Some(compare(database))
}

/// The server's counters don't say who wrote.
fn compare(database: Directory) -> Found {
    match database.touch {
        Touch::Unreadable => Found::Unreadable,
        Touch::Rows => Found::Rows,
        Touch::Schema if database.ahead => Found::Rows,
        Touch::Schema => Found::Schema,
        Touch::Workers => Found::Workers,
        Touch::Clean if database.ahead => Found::Workers,
        Touch::Clean => Found::Unchanged,
    }
}
