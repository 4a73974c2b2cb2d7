//! The states, each with the facts known by then. Moving on consumes the state before, so a
//! move that does not exist does not compile.

use serde::{Deserialize, Serialize};

use super::facts::{
    Assessment, Backup, Copy, CoreRules, Export, FilesRestored, NextContainer, OldContainer,
    Probation, Programs, Proof, PulledImage, Quiesced, RestorePoint, Restored, RollbackDatabase,
    TargetImage, Verdict,
};
use super::failure::Failure;
use super::phase::Phase;
use super::rollback::{Begun, NeedsOperator, RolledBack, RollingBack};
use super::sequences::Sequence;

/// What one hop is to do; fixed when it is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// The container that serves now.
    pub old: OldContainer,
    /// The version that serves now; none when it could not be found out (manual mode only).
    pub from: Option<String>,
    /// How that version is asked for health and version, for the way back.
    pub from_rules: CoreRules,
    /// The version to reach, as the core will report it.
    pub version: String,
    /// The image that holds it.
    pub target: TargetImage,
    /// How the new version is asked for health and version.
    pub rules: CoreRules,
    /// What a database that the new version changed leads to by itself.
    #[serde(default)]
    pub rollback_database: RollbackDatabase,
    /// How long the watch goes on after `Verified`, in seconds; none in journals of versions
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation_seconds: Option<u64>,
}

/// Nothing has been changed yet; the backup is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The plan.
    pub hop: Hop,
    /// The dump, once it is on disk and not yet proved.
    pub backup: Option<Backup>,
}

/// A proved backup exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The plan.
    pub hop: Hop,
    /// The dump.
    pub backup: Backup,
    /// Its proof.
    pub proof: Proof,
    /// The new image, once it is here.
    pub image: Option<PulledImage>,
}

/// The next container exists, stopped, proved to match; the cut-over is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// What was known before.
    pub backed_up: BackedUp,
    /// The new image.
    pub image: PulledImage,
    /// The next container.
    pub next: NextContainer,
    /// The first copy of the database, once it is made.
    pub copy: Option<Copy>,
    /// How far the cut-over is.
    pub cut_over: CutOver,
}

/// How far a cut-over is: each variant holds when the step before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutOver {
    /// Nothing yet: the old container serves as before. The copy is made first.
    Ready,
    /// The old container does not start again by itself.
    Disarmed,
    /// It is known which programs to start again.
    Noted(Programs),
    /// The application is silent.
    Quiesced(Quiesced),
    /// The old container is stopped.
    OldStopped(Quiesced),
    /// The restore point stands.
    Pointed(Quiesced, RestorePoint),
    /// Nobody holds the name.
    OldRenamed(Quiesced, RestorePoint),
    /// The next container holds it.
    NextRenamed(Quiesced, RestorePoint),
}

/// The next container was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// What was known before.
    pub backed_up: BackedUp,
    /// The new image.
    pub image: PulledImage,
    /// The next container.
    pub next: NextContainer,
    /// The copy of the database.
    pub copy: Copy,
    /// What quiescing found.
    pub quiesced: Quiesced,
    /// What the copy holds.
    pub restore_point: RestorePoint,
    /// The good verdict, once it is given.
    pub verdict: Option<Verdict>,
    /// Where a person goes on with it after it had failed.
    pub kept: Option<Box<Kept>>,
}

/// A version that had failed, and that a person goes on with: it is started again and passes the
/// gate, or a person decides once more. Nobody else turns it round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Why the upgrade failed.
    pub failure: Failure,
    /// What it had done to the database by then.
    pub assessment: Option<Assessment>,
    /// Its verdict, where it had passed its gate before it failed.
    pub verdict: Option<Verdict>,
    /// Whether it was started again.
    pub is_started: bool,
}

/// The new version serves. Final; only tidying is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What was known before.
    pub swapped: Swapped,
    /// The verdict.
    pub verdict: Verdict,
    /// What the watch after it found, once it has ended.
    pub probation: Option<Probation>,
    /// Whether the old container and what else was left over is gone.
    pub is_tidy: bool,
}

/// Where a hop is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Backing up.
    Planned(Planned),
    /// Pulling and creating.
    BackedUp(BackedUp),
    /// Cutting over.
    Pulled(Box<Pulled>),
    /// Verifying.
    Swapped(Box<Swapped>),
    /// The new version serves.
    Verified(Box<Verified>),
    /// Going back.
    RollingBack(Box<RollingBack>),
    /// The old version serves, as before.
    RolledBack(Box<RolledBack>),
    /// Stopped; a person must decide.
    NeedsOperator(Box<NeedsOperator>),
}

/// Everything known so far, whichever the state: a view for effects and renderings.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The plan.
    pub hop: &'a Hop,
    /// The dump.
    pub backup: Option<&'a Backup>,
    /// The new image.
    pub image: Option<&'a PulledImage>,
    /// The next container.
    pub next: Option<&'a NextContainer>,
    /// The copy of the database.
    pub copy: Option<&'a Copy>,
    /// The programs that ran before the cut-over.
    pub programs: Option<&'a Programs>,
    /// What quiescing found.
    pub quiesced: Option<&'a Quiesced>,
    /// What the copy holds.
    pub restore_point: Option<&'a RestorePoint>,
    /// Why the way forward ended.
    pub failure: Option<&'a Failure>,
    /// What the failed version did to the database.
    pub assessment: Option<&'a Assessment>,
    /// Where the failed version's sequences stand.
    pub sequences: Option<&'a [Sequence]>,
    /// Whether an attempt before this one, which a person has answered, began the return of the
    /// restore point.
    pub is_restore_begun: bool,
    /// Whether the rows that the failed version inserted are carried over into it.
    pub carries_rows: bool,
    /// What a person was shown of it who consented to its loss.
    pub shown: Option<&'a Assessment>,
    /// The database that was put back.
    pub restored: Option<&'a Restored>,
    /// What became of the files beside the database.
    pub files: Option<&'a FilesRestored>,
    /// The old version did not pass its gate on what was kept, and more is put back for it.
    pub is_tried: bool,
    /// What became of the failed version's rows.
    pub export: Option<&'a Export>,
    /// The good verdict.
    pub verdict: Option<&'a Verdict>,
    /// What the watch after it found.
    pub probation: Option<&'a Probation>,
}

impl State {
    /// The state's name.
    pub fn phase(&self) -> Phase {
        match self {
            State::Planned(_) => Phase::Planned,
            State::BackedUp(_) => Phase::BackedUp,
            State::Pulled(_) => Phase::Pulled,
            State::Swapped(_) => Phase::Swapped,
            State::Verified(_) => Phase::Verified,
            State::RollingBack(_) => Phase::RollingBack,
            State::RolledBack(_) => Phase::RolledBack,
            State::NeedsOperator(_) => Phase::NeedsOperator,
        }
    }

    /// Everything known so far.
    pub fn known(&self) -> Known<'_> {
        match self {
            State::Planned(s) => Known { backup: s.backup.as_ref(), ..Known::of(&s.hop) },
            State::BackedUp(s) => s.known(),
            State::Pulled(s) => Known {
                image: Some(&s.image),
                next: Some(&s.next),
                copy: s.copy.as_ref(),
                programs: s.cut_over.programs(),
                quiesced: s.cut_over.quiesced(),
                restore_point: s.cut_over.restore_point(),
                ..s.backed_up.known()
            },
            State::Swapped(s) => s.known(),
            State::Verified(s) => Known {
                verdict: Some(&s.verdict),
                probation: s.probation.as_ref(),
                ..s.swapped.known()
            },
            State::RollingBack(s) => Known {
                failure: Some(&s.failure),
                shown: s.shown.as_ref(),
                sequences: s.sequences.as_deref(),
                is_tried: s.tried.is_some(),
                is_restore_begun: s.begun == Begun::Restore,
                carries_rows: s.carries_rows,
                assessment: s.assessment.as_ref(),
                restored: s.restored.as_ref(),
                files: s.files.as_ref(),
                export: s.export.as_ref(),
                ..s.interrupted.known()
            },
            State::RolledBack(s) => Known {
                failure: Some(&s.failure),
                assessment: s.assessment.as_ref(),
                restored: s.restored.as_ref(),
                files: s.files.as_ref(),
                export: s.export.as_ref(),
                ..s.interrupted.known()
            },
            State::NeedsOperator(s) => Known {
                failure: Some(&s.failure),
                assessment: s.assessment.as_ref(),
                restored: s.restored.as_ref(),
                files: s.files.as_ref(),
                export: s.export.as_ref(),
                ..s.interrupted.known()
            },
        }
    }
}

impl<'a> Known<'a> {
    /// The plan alone.
    fn of(hop: &'a Hop) -> Self {
        Self {
            hop,
            backup: None,
            image: None,
            next: None,
            copy: None,
            programs: None,
            quiesced: None,
            restore_point: None,
            failure: None,
            assessment: None,
            sequences: None,
            is_restore_begun: false,
            carries_rows: false,
            shown: None,
            restored: None,
            files: None,
            is_tried: false,
            export: None,
            verdict: None,
            probation: None,
        }
    }
}

impl Verified {
    /// Whether it is watched after the verdict, or kept for a person who has to confirm it.
    pub fn is_watched_on(&self) -> bool {
        self.swapped.backed_up.hop.probation_seconds.is_some() || self.verdict.waits_for_a_person
    }
}

impl BackedUp {
    fn known(&self) -> Known<'_> {
        Known { backup: Some(&self.backup), image: self.image.as_ref(), ..Known::of(&self.hop) }
    }
}

impl Swapped {
    fn known(&self) -> Known<'_> {
        Known {
            image: Some(&self.image),
            next: Some(&self.next),
            copy: Some(&self.copy),
            programs: Some(&self.quiesced.programs),
            quiesced: Some(&self.quiesced),
            restore_point: Some(&self.restore_point),
            verdict: self.verdict.as_ref(),
            ..self.backed_up.known()
        }
    }
}

impl CutOver {
    /// The programs that ran, once they were noted.
    pub fn programs(&self) -> Option<&Programs> {
        match self {
            CutOver::Noted(programs) => Some(programs),
            CutOver::Ready
            | CutOver::Disarmed
            | CutOver::Quiesced(_)
            | CutOver::OldStopped(_)
            | CutOver::Pointed(..)
            | CutOver::OldRenamed(..)
            | CutOver::NextRenamed(..) => self.quiesced().map(|q| &q.programs),
        }
    }

    /// What quiescing found, from there on.
    pub fn quiesced(&self) -> Option<&Quiesced> {
        match self {
            CutOver::Ready | CutOver::Disarmed | CutOver::Noted(_) => None,
            CutOver::Quiesced(q)
            | CutOver::OldStopped(q)
            | CutOver::Pointed(q, _)
            | CutOver::OldRenamed(q, _)
            | CutOver::NextRenamed(q, _) => Some(q),
        }
    }

    /// What the copy holds, from there on.
    pub fn restore_point(&self) -> Option<&RestorePoint> {
        match self {
            CutOver::Ready
            | CutOver::Disarmed
            | CutOver::Noted(_)
            | CutOver::Quiesced(_)
            | CutOver::OldStopped(_) => None,
            CutOver::Pointed(_, point)
            | CutOver::OldRenamed(_, point)
            | CutOver::NextRenamed(_, point) => Some(point),
        }
    }
}
