//! What a step came to, as the journal keeps it and the machine reads it.

use serde::{Deserialize, Serialize};

use super::assessed::Assessed;
use super::facts::{
    Backup, Copy, Export, FilesRestored, NextContainer, Probation, Programs, Proof, PulledImage,
    Quiesced, RestorePoint, Restored, Verdict,
};
use super::failure::Failure;

/// What a finished step found or made. It is stored, so that the step is never run again to
/// learn it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", content = "value", rename_all = "camelCase")]
pub enum Fact {
    /// Of `back_up`.
    Backup(Backup),
    /// Of `prove_backup`.
    Proof(Proof),
    /// Of `pull`.
    Image(PulledImage),
    /// Of `create_next`.
    Next(NextContainer),
    /// Of `pre_copy`.
    Copy(Copy),
    /// Of `note_programs`.
    Programs(Programs),
    /// Of `quiesce`.
    Quiesced(Box<Quiesced>),
    /// Of `restore_point`.
    RestorePoint(RestorePoint),
    /// Of `verify` and `verify_old`.
    Verdict(Verdict),
    /// Of `probation`.
    Probation(Probation),
    /// Of `assess_database`.
    Assessment(Assessed),
    /// Of `restore_database`.
    Restored(Restored),
    /// Of `restore_files`.
    Files(FilesRestored),
    /// Of `export_rows`.
    Export(Export),
    /// Of every step that leaves nothing to know but that it is done.
    Done,
}

/// The end of one attempt at a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// The effect is there, seen.
    Done {
        /// What it found or made.
        fact: Fact,
    },
    /// It can't be done; trying again would meet the same.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// No answer: it may have been done. The step runs again and observes first (I4).
    Unknown {
        /// What was met.
        failure: Failure,
    },
    /// The program ended in the middle of it; found at the next start.
    Interrupted,
    /// The program was asked to end and left a long step; no strike against the step.
    Left,
    /// The operator called it off.
    Cancelled {
        /// Who and how.
        failure: Failure,
    },
}

impl Outcome {
    /// Done, with nothing to know about it.
    pub fn done() -> Self {
        Outcome::Done { fact: Fact::Done }
    }
}
