//! The work that is due: a step with the facts that it needs, none of which can be missing. The
//! driver's steps take their part of it; [`Step`] is only the name that is journaled.
//!
//! Made by [`Machine::work`] of the state alone. A state that lacks a fact of its own next step was
//! not made by this machine, and is refused here, once, instead of in each step.

use super::facts::{
    Assessment, Backup, Copy, FilesRestored, NextContainer, Programs, PulledImage, Quiesced,
    RestorePoint, Restored, Verdict,
};
use super::failure::Failure;
use super::phase::Phase;
use super::rollback::{Begun, RollingBack};
use super::sequences::Sequence;
use super::state::{BackedUp, CutOver, Known, Planned, Pulled, State, Swapped, Verified};
use super::step::Step;
use super::transition::{Forbidden, Machine};

/// One piece of work.
#[derive(Clone, Copy, Debug)]
pub enum Work<'s> {
    /// See [`Step::BackUp`].
    BackUp,
    /// See [`Step::ProveBackup`].
    ProveBackup(&'s Backup),
    /// See [`Step::Pull`].
    Pull,
    /// See [`Step::CreateNext`].
    CreateNext(&'s PulledImage),
    /// See [`Step::PreCopy`].
    PreCopy(&'s NextContainer),
    /// See [`Step::DisarmOld`].
    DisarmOld(&'s NextContainer, &'s Copy),
    /// See [`Step::NotePrograms`].
    NotePrograms(&'s NextContainer),
    /// See [`Step::Quiesce`].
    Quiesce(&'s Programs, &'s Copy),
    /// See [`Step::StopOld`].
    StopOld,
    /// See [`Step::RestorePoint`].
    RestorePoint(&'s NextContainer, &'s Copy),
    /// See [`Step::RenameOld`].
    RenameOld,
    /// See [`Step::RenameNext`].
    RenameNext(&'s NextContainer),
    /// See [`Step::StartNext`].
    StartNext(&'s NextContainer, &'s Copy, &'s Quiesced),
    /// See [`Step::StartAgain`].
    StartAgain(&'s NextContainer),
    /// See [`Step::Verify`].
    Verify(&'s NextContainer),
    /// See [`Step::ArmNext`].
    ArmNext(&'s NextContainer),
    /// See [`Step::Probation`].
    Probation(&'s NextContainer, &'s Verdict),
    /// See [`Step::Tidy`].
    Tidy(&'s NextContainer, &'s Backup),

    /// See [`Step::DisarmNext`].
    DisarmNext(&'s NextContainer),
    /// See [`Step::AssessDatabase`].
    AssessDatabase(Assess<'s>),
    /// See [`Step::StopNext`].
    StopNext(&'s NextContainer),
    /// See [`Step::RestoreDatabase`].
    RestoreDatabase(Restore<'s>),
    /// See [`Step::RestoreFiles`].
    RestoreFiles(RestoreFiles<'s>),
    /// See [`Step::RestoreNextName`].
    RestoreNextName(&'s NextContainer),
    /// See [`Step::RestoreOldName`].
    RestoreOldName,
    /// See [`Step::StartOld`].
    StartOld(&'s NextContainer),
    /// See [`Step::ResumePrograms`].
    ResumePrograms(&'s Programs),
    /// See [`Step::RearmOld`].
    RearmOld,
    /// See [`Step::VerifyOld`].
    VerifyOld,
    /// See [`Step::AssessAgain`].
    AssessAgain(AssessAgain<'s>),
    /// See [`Step::ExportRows`].
    ExportRows(&'s Restored, &'s Copy),
    /// See [`Step::RemoveNext`]. None where `create_next` did not come to its end.
    RemoveNext(Option<&'s NextContainer>, &'s Failure),
    /// See [`Step::DiscardCopy`]. None where `pre_copy` did not come to its end.
    DiscardCopy(Option<&'s Copy>),
}

/// What the assessment of a failed version goes by.
#[derive(Clone, Copy, Debug)]
pub struct Assess<'s> {
    /// The failed version's container.
    pub next: &'s NextContainer,
    /// Why the upgrade failed.
    pub failure: &'s Failure,
    /// What a person was shown who consented to its loss.
    pub shown: Option<&'s Assessment>,
    /// Whether an attempt before this one, which that person has answered, began the return of the
    /// restore point.
    pub is_restore_begun: bool,
}

/// What the second look goes by, at an old version that did not pass its gate.
#[derive(Clone, Copy, Debug)]
pub struct AssessAgain<'s> {
    /// The copy that would be put back.
    pub copy: &'s Copy,
    /// What the failed version did to the database.
    pub assessment: Option<&'s Assessment>,
}

/// What is put back, and how.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'s> {
    /// The copy; none where two servers damaged the database before one was made.
    pub copy: Option<&'s Copy>,
    /// What it holds; none where it did not come to that.
    pub point: Option<&'s RestorePoint>,
    /// Where the failed version's sequences stand.
    pub sequences: Option<&'s [Sequence]>,
    /// Whether an attempt before this one, which a person has answered, began it.
    pub is_begun: bool,
    /// Whether the rows that the failed version inserted are carried over into it.
    pub carries_rows: bool,
}

/// Which files beside the database are put back, and how.
#[derive(Clone, Copy, Debug)]
pub struct RestoreFiles<'s> {
    /// What was copied of them.
    pub point: &'s RestorePoint,
    /// What the failed version did to the database.
    pub assessment: Option<&'s Assessment>,
    /// Whether the restore point came back.
    pub is_restored: bool,
    /// Whether the old version did not pass its gate with the files as they are.
    pub is_tried: bool,
    /// What an attempt before this one told.
    pub told: Option<&'s FilesRestored>,
}

impl Work<'_> {
    /// The step that it is.
    pub fn step(&self) -> Step {
        match self {
            Work::BackUp => Step::BackUp,
            Work::ProveBackup(..) => Step::ProveBackup,
            Work::Pull => Step::Pull,
            Work::CreateNext(..) => Step::CreateNext,
            Work::PreCopy(..) => Step::PreCopy,
            Work::DisarmOld(..) => Step::DisarmOld,
            Work::NotePrograms(..) => Step::NotePrograms,
            Work::Quiesce(..) => Step::Quiesce,
            Work::StopOld => Step::StopOld,
            Work::RestorePoint(..) => Step::RestorePoint,
            Work::RenameOld => Step::RenameOld,
            Work::RenameNext(..) => Step::RenameNext,
            Work::StartNext(..) => Step::StartNext,
            Work::StartAgain(..) => Step::StartAgain,
            Work::Verify(..) => Step::Verify,
            Work::ArmNext(..) => Step::ArmNext,
            Work::Probation(..) => Step::Probation,
            Work::Tidy(..) => Step::Tidy,
            Work::DisarmNext(..) => Step::DisarmNext,
            Work::AssessDatabase(..) => Step::AssessDatabase,
            Work::StopNext(..) => Step::StopNext,
            Work::RestoreDatabase(..) => Step::RestoreDatabase,
            Work::RestoreFiles(..) => Step::RestoreFiles,
            Work::RestoreNextName(..) => Step::RestoreNextName,
            Work::RestoreOldName => Step::RestoreOldName,
            Work::StartOld(..) => Step::StartOld,
            Work::ResumePrograms(..) => Step::ResumePrograms,
            Work::RearmOld => Step::RearmOld,
            Work::VerifyOld => Step::VerifyOld,
            Work::AssessAgain(..) => Step::AssessAgain,
            Work::ExportRows(..) => Step::ExportRows,
            Work::RemoveNext(..) => Step::RemoveNext,
            Work::DiscardCopy(..) => Step::DiscardCopy,
        }
    }
}

impl Machine {
    /// What is due; `None` when there is nothing more to do.
    ///
    /// # Errors
    /// [`Forbidden`] where the way back lacks what its own next step needs.
    pub fn work(&self) -> Result<Option<Work<'_>>, Forbidden> {
        match self.state() {
            State::RollingBack(back) => {
                back.remaining.first().map(|step| back.work(*step)).transpose()
            }
            state => Ok(state.work_forward()),
        }
    }
}

impl State {
    /// What is due on the way forward and after it; none on the way back.
    pub(super) fn work_forward(&self) -> Option<Work<'_>> {
        match self {
            State::Planned(Planned { backup: None, .. }) => Some(Work::BackUp),
            State::Planned(Planned { backup: Some(backup), .. }) => Some(Work::ProveBackup(backup)),
            State::BackedUp(BackedUp { image: None, .. }) => Some(Work::Pull),
            State::BackedUp(BackedUp { image: Some(image), .. }) => Some(Work::CreateNext(image)),
            State::Pulled(pulled) => Some(pulled.work()),
            State::Swapped(swapped) => Some(swapped.work()),
            State::Verified(verified) => verified.work(),
            State::RollingBack(_) | State::RolledBack(_) | State::NeedsOperator(_) => None,
        }
    }
}

impl Pulled {
    fn work(&self) -> Work<'_> {
        let Pulled { next, copy: Some(copy), .. } = self else {
            return Work::PreCopy(&self.next);
        };
        match &self.cut_over {
            CutOver::Ready => Work::DisarmOld(next, copy),
            CutOver::Disarmed => Work::NotePrograms(next),
            CutOver::Noted(programs) => Work::Quiesce(programs, copy),
            CutOver::Quiesced(_) => Work::StopOld,
            CutOver::OldStopped(_) => Work::RestorePoint(next, copy),
            CutOver::Pointed(..) => Work::RenameOld,
            CutOver::OldRenamed(..) => Work::RenameNext(next),
            CutOver::NextRenamed(quiesced, _) => Work::StartNext(next, copy, quiesced),
        }
    }
}

impl Swapped {
    pub(super) fn work(&self) -> Work<'_> {
        match &self.kept {
            Some(kept) if !kept.is_started => Work::StartAgain(&self.next),
            Some(_) | None if self.verdict.is_none() => Work::Verify(&self.next),
            Some(_) | None => Work::ArmNext(&self.next),
        }
    }
}

impl Verified {
    /// The watch goes on first, and nothing is tidied away while a person has to say that it may
    /// be.
    fn work(&self) -> Option<Work<'_>> {
        let Swapped { next, backed_up, .. } = &self.swapped;
        match &self.probation {
            None if self.is_watched_on() => Some(Work::Probation(next, &self.verdict)),
            Some(probation) if probation.keeps_the_way_back() => None,
            None | Some(_) => (!self.is_tidy).then_some(Work::Tidy(next, &backed_up.backup)),
        }
    }
}

impl RollingBack {
    fn work(&self, step: Step) -> Result<Work<'_>, Forbidden> {
        let known = self.interrupted.known();
        let Known { next, copy, restore_point: point, programs, .. } = known;
        let assessment = self.assessment.as_ref();
        let lacks = |what: &str| Forbidden {
            phase: Phase::RollingBack,
            expected: what.to_owned(),
            found: format!("{step} without it"),
        };
        let next_that_was_made = || next.ok_or_else(|| lacks("the new container"));
        let copy_that_was_made = || copy.ok_or_else(|| lacks("the copy of the database"));
        Ok(match step {
            Step::DisarmNext => Work::DisarmNext(next_that_was_made()?),
            Step::AssessDatabase => Work::AssessDatabase(Assess {
                next: next_that_was_made()?,
                failure: &self.failure,
                shown: self.shown.as_ref(),
                is_restore_begun: self.begun == Begun::Restore,
            }),
            Step::StopNext => Work::StopNext(next_that_was_made()?),
            Step::RestoreDatabase => Work::RestoreDatabase(Restore {
                copy,
                point,
                sequences: self.sequences.as_deref(),
                is_begun: self.begun == Begun::Restore,
                carries_rows: self.carries_rows,
            }),
            Step::RestoreFiles => Work::RestoreFiles(RestoreFiles {
                point: point.ok_or_else(|| lacks("the restore point"))?,
                assessment,
                is_restored: self.restored.is_some(),
                is_tried: self.tried.is_some(),
                told: self.files.as_ref(),
            }),
            Step::RestoreNextName => Work::RestoreNextName(next_that_was_made()?),
            Step::RestoreOldName => Work::RestoreOldName,
            Step::StartOld => Work::StartOld(next_that_was_made()?),
            Step::ResumePrograms => {
                Work::ResumePrograms(programs.ok_or_else(|| lacks("the programs that ran"))?)
            }
            Step::RearmOld => Work::RearmOld,
            Step::VerifyOld => Work::VerifyOld,
            Step::AssessAgain => {
                Work::AssessAgain(AssessAgain { copy: copy_that_was_made()?, assessment })
            }
            Step::ExportRows => Work::ExportRows(
                self.restored.as_ref().ok_or_else(|| lacks("the database that was put back"))?,
                copy_that_was_made()?,
            ),
            Step::RemoveNext => Work::RemoveNext(next, &self.failure),
            Step::DiscardCopy => Work::DiscardCopy(copy),
            Step::BackUp
            | Step::ProveBackup
            | Step::Pull
            | Step::CreateNext
            | Step::PreCopy
            | Step::DisarmOld
            | Step::NotePrograms
            | Step::Quiesce
            | Step::StopOld
            | Step::RestorePoint
            | Step::RenameOld
            | Step::RenameNext
            | Step::StartNext
            | Step::StartAgain
            | Step::Verify
            | Step::ArmNext
            | Step::Probation
            | Step::Tidy => return Err(lacks("a step of the way back")),
        })
    }
}
