//! The steps: each has an effect, an observation and, where it changes the world, a
//! compensation. What each does is in `driver::steps`; here is only their order.

use serde::{Deserialize, Serialize};

use super::state::Phase;

/// One thing to do. The first group leads forward, the second back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Logical dump while the application serves.
    BackUp,
    /// Prove that the dump can be read back.
    ProveBackup,
    /// Pull the image of the new version.
    Pull,
    /// Create the next container, stopped, under a temporary name; prove parity.
    CreateNext,
    /// First copy of the database, while the application serves.
    PreCopy,
    /// Old container's restart policy to `no`.
    DisarmOld,
    /// Note which of the application's programs run, before any of them is stopped.
    NotePrograms,
    /// Stop the application's programs; the database stays up. Downtime begins.
    Quiesce,
    /// Stop the old container with its own grace period.
    StopOld,
    /// The copy is brought up to the last write of the old version (I6).
    RestorePoint,
    /// The old container gives up its name.
    RenameOld,
    /// The next container takes the name.
    RenameNext,
    /// Start the next container.
    StartNext,
    /// Start a next container that had failed and that a person goes on with.
    StartAgain,
    /// Running, healthy, the expected version. Downtime ends at its first answer.
    Verify,
    /// The old container's restart policy is set on the next one.
    ArmNext,
    /// After Verified: the watch goes on for a while, with everything for the way back still
    /// there. No finding of it changes the verdict.
    Probation,
    /// After it: remove the old container, prune. No failure of it changes the verdict.
    Tidy,

    /// Back: next container's restart policy to `no` again.
    DisarmNext,
    /// Back: silence the failed version and find out what it did to the database.
    AssessDatabase,
    /// Back: stop the next container.
    StopNext,
    /// Back: the restore point takes the place of the database that the failed version changed,
    /// which is moved aside and kept (I7).
    RestoreDatabase,
    /// Back: the files beside the database that the failed version changed come back.
    RestoreFiles,
    /// Back: the next container returns to its temporary name.
    RestoreNextName,
    /// Back: the old container gets its name again.
    RestoreOldName,
    /// Back: start the old container.
    StartOld,
    /// Back: start exactly the programs that were stopped.
    ResumePrograms,
    /// Back: the old container's restart policy as it was.
    RearmOld,
    /// Back: the old version passes the same verification as a new one.
    VerifyOld,
    /// Back: the old version did not pass its gate on the database that was kept: it is silenced,
    /// and whether it or the failed one wrote a row is found out.
    AssessAgain,
    /// Back: the rows that the failed version wrote go into a file beside its database, which is
    /// kept. Only where the restore point came back, and no failure of it holds anything up.
    ExportRows,
    /// Back: remove the next container, last, when nothing depends on it any more.
    RemoveNext,
    /// Back: remove the copy, when nothing depends on it any more.
    DiscardCopy,
}

impl Step {
    /// The way forward up to `Verified`, in order.
    pub const FORWARD: [Step; 15] = [
        Step::BackUp,
        Step::ProveBackup,
        Step::Pull,
        Step::CreateNext,
        Step::PreCopy,
        Step::DisarmOld,
        Step::NotePrograms,
        Step::Quiesce,
        Step::StopOld,
        Step::RestorePoint,
        Step::RenameOld,
        Step::RenameNext,
        Step::StartNext,
        Step::Verify,
        Step::ArmNext,
    ];

    /// What follows `Verified`, in order.
    pub const AFTERWARDS: [Step; 2] = [Step::Probation, Step::Tidy];

    /// The way back, in the order in which the machine goes it.
    pub const BACKWARD: [Step; 15] = [
        Step::DisarmNext,
        Step::AssessDatabase,
        Step::StopNext,
        Step::RestoreDatabase,
        Step::RestoreFiles,
        Step::RestoreNextName,
        Step::RestoreOldName,
        Step::RearmOld,
        Step::StartOld,
        Step::ResumePrograms,
        Step::VerifyOld,
        Step::AssessAgain,
        Step::ExportRows,
        Step::RemoveNext,
        Step::DiscardCopy,
    ];

    /// The step's name as the journal, the API and the statechart write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::BackUp => "back_up",
            Step::ProveBackup => "prove_backup",
            Step::Pull => "pull",
            Step::CreateNext => "create_next",
            Step::PreCopy => "pre_copy",
            Step::DisarmOld => "disarm_old",
            Step::NotePrograms => "note_programs",
            Step::Quiesce => "quiesce",
            Step::StopOld => "stop_old",
            Step::RestorePoint => "restore_point",
            Step::RenameOld => "rename_old",
            Step::RenameNext => "rename_next",
            Step::StartNext => "start_next",
            Step::StartAgain => "start_again",
            Step::Verify => "verify",
            Step::ArmNext => "arm_next",
            Step::Probation => "probation",
            Step::Tidy => "tidy",
            Step::DisarmNext => "disarm_next",
            Step::AssessDatabase => "assess_database",
            Step::StopNext => "stop_next",
            Step::RestoreDatabase => "restore_database",
            Step::RestoreFiles => "restore_files",
            Step::RestoreNextName => "restore_next_name",
            Step::RestoreOldName => "restore_old_name",
            Step::StartOld => "start_old",
            Step::ResumePrograms => "resume_programs",
            Step::RearmOld => "rearm_old",
            Step::VerifyOld => "verify_old",
            Step::AssessAgain => "assess_again",
            Step::ExportRows => "export_rows",
            Step::RemoveNext => "remove_next",
            Step::DiscardCopy => "discard_copy",
        }
    }

    /// The state in which it is done.
    pub fn home(self) -> Phase {
        match self {
            Step::BackUp | Step::ProveBackup => Phase::Planned,
            Step::Pull | Step::CreateNext => Phase::BackedUp,
            Step::PreCopy
            | Step::DisarmOld
            | Step::NotePrograms
            | Step::Quiesce
            | Step::StopOld
            | Step::RestorePoint
            | Step::RenameOld
            | Step::RenameNext
            | Step::StartNext => Phase::Pulled,
            Step::StartAgain | Step::Verify | Step::ArmNext => Phase::Swapped,
            Step::Probation | Step::Tidy => Phase::Verified,
            Step::DisarmNext
            | Step::AssessDatabase
            | Step::StopNext
            | Step::RestoreDatabase
            | Step::RestoreFiles
            | Step::RestoreNextName
            | Step::RestoreOldName
            | Step::StartOld
            | Step::ResumePrograms
            | Step::RearmOld
            | Step::VerifyOld
            | Step::AssessAgain
            | Step::ExportRows
            | Step::RemoveNext
            | Step::DiscardCopy => Phase::RollingBack,
        }
    }

    /// What takes this step back; `None` where it changed nothing or what it made is kept.
    pub fn compensation(self) -> Option<Step> {
        match self {
            Step::CreateNext => Some(Step::RemoveNext),
            Step::PreCopy => Some(Step::DiscardCopy),
            Step::DisarmOld => Some(Step::RearmOld),
            Step::Quiesce => Some(Step::ResumePrograms),
            Step::StopOld => Some(Step::StartOld),
            Step::RenameOld => Some(Step::RestoreOldName),
            Step::RenameNext => Some(Step::RestoreNextName),
            Step::StartNext => Some(Step::StopNext),
            Step::ArmNext => Some(Step::DisarmNext),
            // A backup and an image are kept; a verification changes nothing; the restore point
            // goes with its copy; what follows Verified, and the way back itself, is never taken
            // back.
            Step::BackUp
            | Step::ProveBackup
            | Step::Pull
            | Step::NotePrograms
            | Step::RestorePoint
            | Step::StartAgain
            | Step::Verify
            | Step::Probation
            | Step::Tidy
            | Step::DisarmNext
            | Step::AssessDatabase
            | Step::StopNext
            | Step::RestoreDatabase
            | Step::RestoreFiles
            | Step::RestoreNextName
            | Step::RestoreOldName
            | Step::StartOld
            | Step::ResumePrograms
            | Step::RearmOld
            | Step::VerifyOld
            | Step::AssessAgain
            | Step::ExportRows
            | Step::RemoveNext
            | Step::DiscardCopy => None,
        }
    }

    /// Whether a daemon that is told to end may leave this step in the middle: it can take
    /// minutes, and running it again costs time but nothing else.
    pub fn may_be_left(self) -> bool {
        matches!(
            self,
            Step::BackUp
                | Step::Pull
                | Step::PreCopy
                | Step::Verify
                | Step::Probation
                | Step::VerifyOld
                | Step::ExportRows
        )
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
