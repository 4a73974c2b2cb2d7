//! What a rehearsal does, step by step, and what follows from what each finds. Pure: no I/O, no
//! clock; the driver runs it and `journal` folds it from the rows, by the same [`Rehearsal::apply`].
//!
//! The new version is started on a copy of the shop's own data, cut off from the world, while the
//! shop serves (I14). It is never taken up again: one that was interrupted is swept up, and ends.
//!
//! ```text
//! pull → copy → try_new ─┬ it serves ─→ try_old ─┬→ sweep → end
//!                        └ it does not → control ┘
//!           failed, called off, interrupted ──────→ sweep
//! ```

mod facts;
#[cfg(test)]
mod tests;

pub use facts::{Changes, Copied, Stood, Tried};

use serde::{Deserialize, Serialize};

use crate::machine::facts::{CoreRules, Overlay, TargetImage};
use crate::machine::failure::{Failure, FailureCode};

/// What was asked. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalBody {
    /// Tells it from an upgrade in the table of jobs.
    pub kind: Kind,
    /// `MANUAL` or `DASHBOARD`.
    pub mode: String,
    /// `latest`, `2.0.0`.
    pub requested_target: String,
    /// The version at which the whole route ends.
    pub resolved_target: String,
    /// The version that is rehearsed: the first stop of the route.
    pub version: String,
    /// The version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
    /// What the caller said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The shop's container.
    pub container: String,
    /// The image to try.
    pub target: TargetImage,
    /// How the new version is asked for health and version.
    pub rules: CoreRules,
    /// How the one that serves is.
    pub from_rules: CoreRules,
    /// What the manifest adds to the new container.
    pub overlay: Overlay,
    /// What the registry had for it when it was asked for, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The directory (`REHEARSAL_DIR`) in which the copy is made.
    pub directory: String,
}

/// The kind of this job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `rehearsal`
    Rehearsal,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RehearsalStep {
    /// The new image onto this host.
    Pull,
    /// The database rebuilt from a dump of it, apart from the shop.
    Copy,
    /// The new version on the copy.
    TryNew,
    /// The version that serves now, on what the new one made of the copy.
    TryOld,
    /// The version that serves now, on another copy, where the new one was not well.
    Control,
    /// All of it removed.
    Sweep,
}

impl RehearsalStep {
    /// All of them.
    pub const ALL: [RehearsalStep; 6] = [
        RehearsalStep::Pull,
        RehearsalStep::Copy,
        RehearsalStep::TryNew,
        RehearsalStep::TryOld,
        RehearsalStep::Control,
        RehearsalStep::Sweep,
    ];

    /// As the journal names it.
    pub fn as_str(self) -> &'static str {
        match self {
            RehearsalStep::Pull => "pull",
            RehearsalStep::Copy => "copy",
            RehearsalStep::TryNew => "try_new",
            RehearsalStep::TryOld => "try_old",
            RehearsalStep::Control => "control",
            RehearsalStep::Sweep => "sweep",
        }
    }

    /// What it does, as a sentence.
    pub fn activity(self) -> &'static str {
        match self {
            RehearsalStep::Pull => "Pulling the new image",
            RehearsalStep::Copy => "Rebuilding the database apart from the shop",
            RehearsalStep::TryNew => "Trying the new version on the copy",
            RehearsalStep::TryOld => "Trying the present version on the migrated copy",
            RehearsalStep::Control => "Trying the present version on a copy of its own",
            RehearsalStep::Sweep => "Removing the copy",
        }
    }
}

impl std::fmt::Display for RehearsalStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a finished step found or made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", content = "value", rename_all = "camelCase")]
pub enum RehearsalFact {
    /// Of `pull`.
    Pulled {
        /// The image's id.
        image_id: String,
    },
    /// Of `copy`.
    Copied(Copied),
    /// Of `try_new`, `try_old` and `control`.
    Tried(Box<Tried>),
    /// Of `sweep`.
    Swept,
}

/// The end of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum RehearsalOutcome {
    /// It came to its end.
    Done {
        /// What it found or made.
        fact: RehearsalFact,
    },
    /// It could not.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// The program ended in the middle of it; found at the next start.
    Interrupted,
    /// Called off.
    CalledOff {
        /// By whom.
        failure: Failure,
    },
}

/// What a rehearsal says of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It serves on the shop's data.
    Passed,
    /// It does not, and the version that serves now does in the same isolation.
    Refused,
    /// Neither can be said.
    Unsure,
    /// It was not tried.
    Skipped,
}

impl Verdict {
    /// As the journal and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Refused => "refused",
            Verdict::Unsure => "unsure",
            Verdict::Skipped => "skipped",
        }
    }
}

/// A rehearsal that is under way, or has come to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearsal {
    step: Option<RehearsalStep>,
    /// What `copy` made.
    pub copied: Option<Copied>,
    /// The new version.
    pub new: Option<Tried>,
    /// The one that serves now, on the migrated copy.
    pub old: Option<Tried>,
    /// The one that serves now, on a copy of its own.
    pub control: Option<Tried>,
    /// Which step did not come to its end, and why.
    pub broke: Option<(RehearsalStep, Failure)>,
    /// Whether somebody, or the end of this program, called it off.
    pub was_called_off: bool,
    /// What could not be removed.
    pub left: Option<Failure>,
}

/// An outcome that fits nowhere.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("a rehearsal can't take {outcome:?} at {step:?}")]
pub struct Misplaced {
    step: Option<RehearsalStep>,
    outcome: Box<RehearsalOutcome>,
}

impl Rehearsal {
    /// At its beginning.
    pub fn new() -> Self {
        Self {
            step: Some(RehearsalStep::Pull),
            copied: None,
            new: None,
            old: None,
            control: None,
            broke: None,
            was_called_off: false,
            left: None,
        }
    }

    /// The step in hand or due; none at the end.
    pub fn step(&self) -> Option<RehearsalStep> {
        self.step
    }

    /// Takes the outcome of the step in hand.
    ///
    /// # Errors
    /// When it fits nowhere; nothing is changed then.
    pub fn apply(mut self, outcome: RehearsalOutcome) -> Result<Self, Misplaced> {
        let misplaced = |step, outcome| Misplaced { step, outcome: Box::new(outcome) };
        let Some(step) = self.step else { return Err(misplaced(None, outcome)) };
        match outcome {
            RehearsalOutcome::Done { fact } => self.done(step, fact)?,
            RehearsalOutcome::Failed { failure } if step == RehearsalStep::Sweep => {
                self.left = Some(failure);
                self.step = None;
            }
            RehearsalOutcome::Failed { failure } => {
                self.broke = Some((step, failure));
                self.step = Some(RehearsalStep::Sweep);
            }
            // Sweeping is done again.
            RehearsalOutcome::Interrupted if step == RehearsalStep::Sweep => {}
            RehearsalOutcome::Interrupted => {
                let message = format!("the updater ended in the middle of {step}");
                let failure = Failure::new(FailureCode::StepInterrupted, message);
                self.call_off(step, failure);
            }
            RehearsalOutcome::CalledOff { failure } if step != RehearsalStep::Sweep => {
                self.call_off(step, failure);
            }
            outcome @ RehearsalOutcome::CalledOff { .. } => {
                return Err(misplaced(Some(step), outcome));
            }
        }
        Ok(self)
    }

    fn call_off(&mut self, step: RehearsalStep, failure: Failure) {
        self.was_called_off = true;
        self.broke = Some((step, failure));
        self.step = Some(RehearsalStep::Sweep);
    }

    fn done(&mut self, step: RehearsalStep, fact: RehearsalFact) -> Result<(), Misplaced> {
        let next = match (step, fact) {
            (RehearsalStep::Pull, RehearsalFact::Pulled { .. }) => Some(RehearsalStep::Copy),
            (RehearsalStep::Copy, RehearsalFact::Copied(copied)) => {
                self.copied = Some(copied);
                Some(RehearsalStep::TryNew)
            }
            (RehearsalStep::TryNew, RehearsalFact::Tried(tried)) => {
                let next = match tried.stood {
                    Stood::Serves => RehearsalStep::TryOld,
                    Stood::Fails { .. } => RehearsalStep::Control,
                    Stood::Unjudged { .. } => RehearsalStep::Sweep,
                };
                self.new = Some(*tried);
                Some(next)
            }
            (RehearsalStep::TryOld, RehearsalFact::Tried(tried)) => {
                self.old = Some(*tried);
                Some(RehearsalStep::Sweep)
            }
            (RehearsalStep::Control, RehearsalFact::Tried(tried)) => {
                self.control = Some(*tried);
                Some(RehearsalStep::Sweep)
            }
            (RehearsalStep::Sweep, RehearsalFact::Swept) => None,
            (step, fact) => {
                let outcome = Box::new(RehearsalOutcome::Done { fact });
                return Err(Misplaced { step: Some(step), outcome });
            }
        };
        self.step = next;
        Ok(())
    }

    /// What it says of the version, as far as it has come; none where it was called off or has
    /// said nothing yet.
    pub fn verdict(&self) -> Option<Verdict> {
        if self.was_called_off {
            return None;
        }
        let Some(new) = &self.new else {
            return match &self.broke {
                Some((RehearsalStep::TryNew, _)) => Some(Verdict::Unsure),
                Some(_) => Some(Verdict::Skipped),
                None => None,
            };
        };
        match (&new.stood, &self.control) {
            (Stood::Serves, _) => Some(Verdict::Passed),
            (Stood::Unjudged { .. }, _) => Some(Verdict::Unsure),
            // What it could not reach may be why.
            (Stood::Fails { .. }, _) if new.unreachable.is_some() => Some(Verdict::Unsure),
            (Stood::Fails { .. }, Some(control)) if control.stood == Stood::Serves => {
                Some(Verdict::Refused)
            }
            (Stood::Fails { .. }, Some(_)) => Some(Verdict::Unsure),
            (Stood::Fails { .. }, None) => self.broke.as_ref().map(|_| Verdict::Unsure),
        }
    }

    /// The code of an end after which the version should not be gone to, or nothing is known.
    pub fn failure_code(&self) -> Option<FailureCode> {
        match self.verdict() {
            Some(Verdict::Passed | Verdict::Unsure) => None,
            Some(Verdict::Refused) => Some(FailureCode::RehearsalFailed),
            Some(Verdict::Skipped) | None => {
                let code = self.broke.as_ref().map(|(_, failure)| failure.code);
                Some(code.unwrap_or(FailureCode::Unknown))
            }
        }
    }
}

impl Default for Rehearsal {
    fn default() -> Self {
        Self::new()
    }
}
