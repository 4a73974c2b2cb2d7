//! The steps: each has an effect, an observation and, where it changes the world, a
//! compensation. What each does is in `driver::steps`; here is only their order.

use serde::{Deserialize, Serialize};

use super::phase::Phase;

/// One row for each step: its name as the journal, the API and the statechart write it, the state
/// in which it is done, and what takes it back.
macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident: $name:literal in $home:ident $(undone by $undo:ident)?;)*) => {
        /// One thing to do. The first group leads forward, the second back.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// The step's name as the journal, the API and the statechart write it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Step::$step => $name,)*
                }
            }

            /// The state in which it is done.
            pub fn home(self) -> Phase {
                match self {
                    $(Step::$step => Phase::$home,)*
                }
            }

            /// What takes this step back; `None` where it changed nothing or what it made is kept.
            pub fn compensation(self) -> Option<Step> {
                match self {
                    $(Step::$step => steps!(@undo $($undo)?),)*
                }
            }
        }
    };
    (@undo) => {
        None
    };
    (@undo $undo:ident) => {
        Some(Step::$undo)
    };
}

// A backup and an image are kept; a verification changes nothing; the restore point goes with its
// copy; what follows Verified, and the way back itself, is never taken back.
steps! {
    /// Logical dump while the application serves.
    BackUp: "back_up" in Planned;
    /// Prove that the dump can be read back.
    ProveBackup: "prove_backup" in Planned;
    /// Pull the image of the new version.
    Pull: "pull" in BackedUp;
    /// Create the next container, stopped, under a temporary name; prove parity.
    CreateNext: "create_next" in BackedUp undone by RemoveNext;
    /// First copy of the database, while the application serves.
    PreCopy: "pre_copy" in Pulled undone by DiscardCopy;
    /// Old container's restart policy to `no`.
    DisarmOld: "disarm_old" in Pulled undone by RearmOld;
    /// Note which of the application's programs run, before any of them is stopped.
    NotePrograms: "note_programs" in Pulled;
    /// Stop the application's programs; the database stays up. Downtime begins.
    Quiesce: "quiesce" in Pulled undone by ResumePrograms;
    /// Stop the old container with its own grace period.
    StopOld: "stop_old" in Pulled undone by StartOld;
    /// The copy is brought up to the last write of the old version (I6).
    RestorePoint: "restore_point" in Pulled;
    /// The old container gives up its name.
    RenameOld: "rename_old" in Pulled undone by RestoreOldName;
    /// The next container takes the name.
    RenameNext: "rename_next" in Pulled undone by RestoreNextName;
    /// Start the next container.
    StartNext: "start_next" in Pulled undone by StopNext;
    /// Start a next container that had failed and that a person goes on with.
    StartAgain: "start_again" in Swapped;
    /// Running, healthy, the expected version. Downtime ends at its first answer.
    Verify: "verify" in Swapped;
    /// The old container's restart policy is set on the next one.
    ArmNext: "arm_next" in Swapped undone by DisarmNext;
    /// After Verified: the watch goes on for a while, with everything for the way back still
    /// there. No finding of it changes the verdict.
    Probation: "probation" in Verified;
    /// After it: remove the old container, prune. No failure of it changes the verdict.
    Tidy: "tidy" in Verified;

    /// Back: next container's restart policy to `no` again.
    DisarmNext: "disarm_next" in RollingBack;
    /// Back: silence the failed version and find out what it did to the database.
    AssessDatabase: "assess_database" in RollingBack;
    /// Back: stop the next container.
    StopNext: "stop_next" in RollingBack;
    /// Back: the restore point takes the place of the database that the failed version changed,
    /// which is moved aside and kept (I7).
    RestoreDatabase: "restore_database" in RollingBack;
    /// Back: the files beside the database that the failed version changed come back.
    RestoreFiles: "restore_files" in RollingBack;
    /// Back: the next container returns to its temporary name.
    RestoreNextName: "restore_next_name" in RollingBack;
    /// Back: the old container gets its name again.
    RestoreOldName: "restore_old_name" in RollingBack;
    /// Back: start the old container.
    StartOld: "start_old" in RollingBack;
    /// Back: start exactly the programs that were stopped.
    ResumePrograms: "resume_programs" in RollingBack;
    /// Back: the old container's restart policy as it was.
    RearmOld: "rearm_old" in RollingBack;
    /// Back: the old version passes the same verification as a new one.
    VerifyOld: "verify_old" in RollingBack;
    /// Back: the old version did not pass its gate on the database that was kept: it is silenced,
    /// and whether it or the failed one wrote a row is found out.
    AssessAgain: "assess_again" in RollingBack;
    /// Back: the rows that the failed version wrote go into a file beside its database, which is
    /// kept. Only where the restore point came back, and no failure of it holds anything up.
    ExportRows: "export_rows" in RollingBack;
    /// Back: remove the next container, last, when nothing depends on it any more.
    RemoveNext: "remove_next" in RollingBack;
    /// Back: remove the copy, when nothing depends on it any more.
    DiscardCopy: "discard_copy" in RollingBack;
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
