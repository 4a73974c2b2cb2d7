//! One hop's machine: [`Machine::step`] and [`Machine::apply`], the two functions that everything
//! else runs on, and [`Machine::recover`], which takes the way back again.
//!
//! Called by the driver, the journal and the tests. A failure turns it round here; where a step
//! that is done leads is in `done`, and the transitions that there are in `table`.

mod done;
mod table;

use self::table::row;
use super::facts::{Assessment, Export, Probation, ProbationEnd};
use super::failure::{Failure, FailureCode};
use super::outcome::Outcome;
use super::phase::Phase;
use super::rollback::{Begun, Consent, NeedsOperator, RolledBack, RollingBack};
use super::state::{Hop, Kept, Planned, State};
use super::step::Step;

pub use self::table::{Event, TRANSITIONS, Transition};

/// Attempts at a step whose outcome stays unknown before it counts as failed.
pub const MAX_UNKNOWN: u8 = 3;

/// Times that the program may end in the middle of the same step before the step counts as
/// what kills it.
pub const MAX_STRIKES: u8 = 3;

/// An outcome or a transition that the machine does not allow: the journal was not written by
/// this machine, or not for this hop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("in {phase} the machine expects {expected}, found {found}")]
pub struct Forbidden {
    /// The state.
    pub phase: Phase,
    /// What fits there.
    pub expected: String,
    /// What came.
    pub found: String,
}

/// One hop's machine: its state, and how often the pending step was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    state: State,
    unknowns: u8,
    strikes: u8,
}

impl Machine {
    /// A machine that has done nothing yet.
    pub fn new(hop: Hop) -> Self {
        Self::at(State::Planned(Planned { hop, backup: None }))
    }

    fn at(state: State) -> Self {
        Self { state, unknowns: 0, strikes: 0 }
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state's name.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// The step that is due; `None` when there is nothing more to do. What it needs is in
    /// [`Machine::work`].
    pub fn step(&self) -> Option<Step> {
        match &self.state {
            State::RollingBack(back) => back.remaining.first().copied(),
            state => state.work_forward().map(|work| work.step()),
        }
    }

    /// Where an outcome of the pending step leads, and the transitions it made: none, one, or
    /// two when a failure has nothing to take back and the way back ends where it begins.
    ///
    /// # Errors
    /// [`Forbidden`] when no step is pending or the outcome is not one of that step.
    pub fn apply(self, outcome: Outcome) -> Result<(Machine, Vec<Transition>), Forbidden> {
        let Some(pending) = self.step() else {
            return Err(self.forbids("no outcome, it is at rest", &outcome));
        };
        let before = self.phase();
        let (machine, event) = match outcome {
            Outcome::Done { fact } => self.done(pending, fact)?,
            Outcome::Failed { failure } => self.failed(pending, failure, Event::Failed),
            Outcome::Cancelled { failure } => match before {
                Phase::Planned | Phase::BackedUp | Phase::Pulled | Phase::Swapped => {
                    self.failed(pending, failure, Event::Cancelled)
                }
                Phase::Verified | Phase::RollingBack | Phase::RolledBack | Phase::NeedsOperator => {
                    let cancelled = Outcome::Cancelled { failure };
                    return Err(self.forbids("nothing to cancel", &cancelled));
                }
            },
            Outcome::Unknown { .. } if self.unknowns + 1 < MAX_UNKNOWN => {
                (Machine { unknowns: self.unknowns + 1, ..self }, None)
            }
            Outcome::Unknown { failure } => self.failed(pending, failure, Event::TimedOut),
            Outcome::Interrupted if self.strikes + 1 < MAX_STRIKES => {
                (Machine { strikes: self.strikes + 1, ..self }, None)
            }
            Outcome::Interrupted => {
                let failure = Failure::new(
                    FailureCode::StepInterrupted,
                    format!("the updater ended {MAX_STRIKES} times in the middle of {pending}"),
                );
                self.failed(pending, failure, Event::Failed)
            }
            Outcome::Left => (self, None),
        };
        let turned = machine.phase();
        let machine = machine.came_to_the_end_of_the_way_back();
        let mut transitions = Vec::new();
        transitions.extend(event.map(|event| row(before, event, turned)));
        match machine.phase() {
            Phase::RolledBack => {
                transitions.push(row(turned, Event::RolledBack, Phase::RolledBack))
            }
            Phase::NeedsOperator if turned == Phase::RollingBack => {
                transitions.push(row(turned, Event::NeedsDecision, Phase::NeedsOperator));
            }
            Phase::Planned
            | Phase::BackedUp
            | Phase::Pulled
            | Phase::Swapped
            | Phase::Verified
            | Phase::RollingBack
            | Phase::NeedsOperator => {}
        }
        Ok((machine, transitions))
    }

    /// Goes back again from where a person was needed: every step of the way back observes
    /// first, so what was done stays done, and the database is assessed anew until the old
    /// version may have written to it. `event` says whether the restore point may come back
    /// whatever rows it forgets, or forgetting those that were shown; or that the new version is
    /// to be kept after all.
    ///
    /// # Errors
    /// [`Forbidden`] in every other state, for an event that is no person's word, and for a new
    /// version that can't be kept.
    pub fn recover(self, event: Event) -> Result<(Machine, Transition), Forbidden> {
        let consent = match event {
            Event::Recover => Some(Consent::None),
            Event::RecoverRestoring | Event::RecoverCarrying => Some(Consent::Whatever),
            Event::RecoverRestoringShown | Event::RecoverCarryingShown => Some(Consent::AsShown),
            Event::RecoverKeeping => return self.keep(),
            Event::BackedUp
            | Event::Pulled
            | Event::Swapped
            | Event::Verified
            | Event::Failed
            | Event::TimedOut
            | Event::Cancelled
            | Event::RolledBack
            | Event::NeedsDecision => None,
        };
        match (self.state, consent) {
            (State::NeedsOperator(needs), Some(consent)) => {
                let pending = Machine::at(needs.interrupted.clone()).step();
                let mut back = RollingBack::again(*needs, pending, consent);
                back.carries_rows = event.carries_rows();
                let transition = row(Phase::NeedsOperator, event, Phase::RollingBack);
                Ok((Machine::at(State::RollingBack(Box::new(back))), transition))
            }
            (state, _) => Err(Forbidden {
                phase: state.phase(),
                expected: "its own steps".into(),
                found: event.as_str().into(),
            }),
        }
    }

    /// Goes on with the new version where the database is still the one that it left.
    fn keep(self) -> Result<(Machine, Transition), Forbidden> {
        match self.state {
            State::NeedsOperator(needs) if needs.may_keep_new() => {
                let NeedsOperator { interrupted, failure, assessment, .. } = *needs;
                let State::Swapped(mut swapped) = interrupted else {
                    unreachable!("only a version that was started may be kept");
                };
                let (verdict, is_started) = (swapped.verdict.take(), false);
                swapped.kept = Some(Box::new(Kept { failure, assessment, verdict, is_started }));
                let transition = row(Phase::NeedsOperator, Event::RecoverKeeping, Phase::Swapped);
                Ok((Machine::at(State::Swapped(swapped)), transition))
            }
            state => Err(Forbidden {
                phase: state.phase(),
                expected: "a new version that was started, on the database that it left".into(),
                found: Event::RecoverKeeping.as_str().into(),
            }),
        }
    }

    /// Turns round, or, on the way back already, stops for a person. After Verified nothing
    /// can fail the upgrade any more: tidying is tried again later.
    fn failed(self, pending: Step, failure: Failure, event: Event) -> (Machine, Option<Event>) {
        match self.state {
            // A person went on with it, and is asked again: it is left as it is.
            State::Swapped(mut swapped)
                if swapped.kept.is_some() && failure.code != FailureCode::DatabaseDamaged =>
            {
                let mut first = (failure.clone(), None);
                if let Some(kept) = swapped.kept.take() {
                    first = (kept.failure, kept.assessment);
                    // What it had begun to do then is still to be taken back.
                    swapped.verdict = swapped.verdict.take().or(kept.verdict);
                }
                let (first, assessment) = first;
                let version = &swapped.backed_up.hop.version;
                let reason =
                    format!("{version}, kept by you, failed again and is left as it is: {failure}");
                let reason = Failure::new(failure.code, reason);
                let needs = NeedsOperator {
                    interrupted: State::Swapped(swapped),
                    failure: first,
                    reason,
                    begun: Begun::Nothing,
                    assessment,
                    restored: None,
                    files: None,
                    export: None,
                };
                (Machine::at(State::NeedsOperator(Box::new(needs))), Some(Event::NeedsDecision))
            }
            mut state @ (State::Planned(_)
            | State::BackedUp(_)
            | State::Pulled(_)
            | State::Swapped(_)) => {
                let pending = match &mut state {
                    // It was followed up to there before.
                    State::Swapped(swapped) => match swapped.kept.take() {
                        Some(kept) => {
                            swapped.verdict = swapped.verdict.take().or(kept.verdict);
                            swapped.work().step()
                        }
                        None => pending,
                    },
                    _ => pending,
                };
                let back = RollingBack::from(state, Some(pending), failure);
                (Machine::at(State::RollingBack(Box::new(back))), Some(event))
            }
            State::RollingBack(back) => {
                let mut back = *back;
                // The old version serves already and the failed one's database is kept: no file
                // of its rows is no reason to stop.
                if pending == Step::ExportRows {
                    back.remaining.retain(|step| *step != Step::ExportRows);
                    back.export = Some(Export::Missing { reason: failure.message });
                    return (Machine::at(State::RollingBack(Box::new(back))), None);
                }
                // Whether the old version serves with the files as they are is for its gate to say.
                if pending == Step::RestoreFiles {
                    back.remaining.retain(|step| *step != Step::RestoreFiles);
                    let mut files = back.files.take().unwrap_or_default();
                    files.failed = vec![failure.message];
                    back.files = Some(files);
                    return (Machine::at(State::RollingBack(Box::new(back))), None);
                }
                // The database could not even be looked at: the failed version is still to be
                // stopped before a person is asked, so that nothing more is written.
                if pending == Step::AssessDatabase {
                    let unreadable = Assessment::Unreadable { reason: failure.message };
                    let mut assessed = back.assessed(unreadable);
                    assessed.remaining.retain(|step| *step != Step::AssessDatabase);
                    return (Machine::at(State::RollingBack(Box::new(assessed))), None);
                }
                if pending == Step::VerifyOld && back.may_try_files(&failure) {
                    let tried = back.trying(Step::RestoreFiles, failure);
                    return (Machine::at(State::RollingBack(Box::new(tried))), None);
                }
                if pending == Step::VerifyOld && back.may_try_restore_point(&failure) {
                    let tried = back.trying(Step::RestoreDatabase, failure);
                    return (Machine::at(State::RollingBack(Box::new(tried))), None);
                }
                let begun = back.begun_by_now();
                let needs = NeedsOperator {
                    begun,
                    interrupted: back.interrupted,
                    failure: back.failure,
                    reason: match back.hold {
                        Some(hold) => {
                            Failure::new(hold.code, format!("{}; and {failure}", hold.message))
                        }
                        None => failure,
                    },
                    assessment: back.assessment,
                    restored: back.restored,
                    files: back.files,
                    export: back.export,
                };
                (Machine::at(State::NeedsOperator(Box::new(needs))), Some(Event::NeedsDecision))
            }
            // A second server that came after the watch is as bad as one that came in it: nothing
            // is tidied away until a person says so.
            State::Verified(mut verified) if failure.code == FailureCode::DatabaseDamaged => {
                let seconds = verified.probation.as_ref().map_or(0, |probation| probation.seconds);
                let (end, findings) = (ProbationEnd::Damaged, vec![failure.message]);
                verified.probation = Some(Probation { end, findings, seconds });
                (Machine::at(State::Verified(verified)), None)
            }
            state @ (State::Verified(_) | State::RolledBack(_) | State::NeedsOperator(_)) => {
                (Machine::at(state), None)
            }
        }
    }

    fn came_to_the_end_of_the_way_back(self) -> Machine {
        match self.state {
            State::RollingBack(back) if back.remaining.is_empty() => {
                let RollingBack {
                    interrupted,
                    failure,
                    assessment,
                    hold,
                    begun,
                    restored,
                    files,
                    export,
                    verdict,
                    ..
                } = *back;
                Machine::at(match hold {
                    Some(reason) => State::NeedsOperator(Box::new(NeedsOperator {
                        interrupted,
                        failure,
                        reason,
                        begun,
                        assessment,
                        restored,
                        files,
                        export,
                    })),
                    None => State::RolledBack(Box::new(RolledBack {
                        interrupted,
                        failure,
                        assessment,
                        restored,
                        files,
                        export,
                        verdict,
                    })),
                })
            }
            state => Machine { state, ..self },
        }
    }

    fn forbids(&self, expected: &str, found: &Outcome) -> Forbidden {
        Forbidden { phase: self.phase(), expected: expected.into(), found: format!("{found:?}") }
    }
}
