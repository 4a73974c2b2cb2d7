//! The table of transitions, and the two functions that everything else runs on.

use serde::{Deserialize, Serialize};

use super::facts::{Assessment, Export, Quiesced, RestorePoint};
use super::failure::{Failure, FailureCode};
use super::outcome::{Fact, Outcome};
use super::rollback::{Consent, NeedsOperator, RolledBack, RollingBack};
use super::state::{BackedUp, CutOver, Hop, Phase, Planned, Pulled, State, Swapped, Verified};
use super::step::Step;

/// Attempts at a step whose outcome stays unknown before it counts as failed.
pub const MAX_UNKNOWN: u8 = 3;

/// Times that the program may end in the middle of the same step before the step counts as
/// what kills it.
pub const MAX_STRIKES: u8 = 3;

/// What moves a machine from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The backup is made and proved.
    BackedUp,
    /// The image is here and the next container stands ready.
    Pulled,
    /// The next container was started in the old one's place.
    Swapped,
    /// The new version serves.
    Verified,
    /// A step can't be done.
    Failed,
    /// A step's outcome stayed unknown.
    TimedOut,
    /// The operator called it off.
    Cancelled,
    /// The old version serves, as before.
    RolledBack,
    /// No rule covers what was found.
    NeedsDecision,
    /// The operator asks to go on with the way back.
    Recover,
    /// The operator consents to the restore point's return, whatever rows it forgets.
    RecoverRestoring,
    /// The same, of the rows that were shown and no others.
    RecoverRestoringShown,
}

impl Event {
    /// As the statechart and the journal write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::BackedUp => "backed_up",
            Event::Pulled => "pulled",
            Event::Swapped => "swapped",
            Event::Verified => "verified",
            Event::Failed => "failed",
            Event::TimedOut => "timed_out",
            Event::Cancelled => "cancelled",
            Event::RolledBack => "rolled_back",
            Event::NeedsDecision => "needs_decision",
            Event::Recover => "recover",
            Event::RecoverRestoring => "recover_restoring",
            Event::RecoverRestoringShown => "recover_restoring_shown",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Transition {
    /// The state left.
    pub from: Phase,
    /// Why it is left.
    pub event: Event,
    /// The state entered.
    pub to: Phase,
}

const fn row(from: Phase, event: Event, to: Phase) -> Transition {
    Transition { from, event, to }
}

/// Every transition there is. The statechart is compared with it, and the journal is read
/// against it.
pub const TRANSITIONS: &[Transition] = &[
    row(Phase::Planned, Event::BackedUp, Phase::BackedUp),
    row(Phase::Planned, Event::Failed, Phase::RollingBack),
    row(Phase::Planned, Event::TimedOut, Phase::RollingBack),
    row(Phase::Planned, Event::Cancelled, Phase::RollingBack),
    row(Phase::BackedUp, Event::Pulled, Phase::Pulled),
    row(Phase::BackedUp, Event::Failed, Phase::RollingBack),
    row(Phase::BackedUp, Event::TimedOut, Phase::RollingBack),
    row(Phase::BackedUp, Event::Cancelled, Phase::RollingBack),
    row(Phase::Pulled, Event::Swapped, Phase::Swapped),
    row(Phase::Pulled, Event::Failed, Phase::RollingBack),
    row(Phase::Pulled, Event::TimedOut, Phase::RollingBack),
    row(Phase::Pulled, Event::Cancelled, Phase::RollingBack),
    row(Phase::Swapped, Event::Verified, Phase::Verified),
    row(Phase::Swapped, Event::Failed, Phase::RollingBack),
    row(Phase::Swapped, Event::TimedOut, Phase::RollingBack),
    row(Phase::Swapped, Event::Cancelled, Phase::RollingBack),
    row(Phase::RollingBack, Event::RolledBack, Phase::RolledBack),
    row(Phase::RollingBack, Event::NeedsDecision, Phase::NeedsOperator),
    row(Phase::NeedsOperator, Event::Recover, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverRestoring, Phase::RollingBack),
    row(Phase::NeedsOperator, Event::RecoverRestoringShown, Phase::RollingBack),
];

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

    /// What to do next; `None` when there is nothing more to do.
    pub fn step(&self) -> Option<Step> {
        match &self.state {
            State::Planned(Planned { backup: None, .. }) => Some(Step::BackUp),
            State::Planned(Planned { backup: Some(_), .. }) => Some(Step::ProveBackup),
            State::BackedUp(BackedUp { image: None, .. }) => Some(Step::Pull),
            State::BackedUp(BackedUp { image: Some(_), .. }) => Some(Step::CreateNext),
            State::Pulled(pulled) => Some(match &pulled.cut_over {
                CutOver::Ready if pulled.copy.is_none() => Step::PreCopy,
                CutOver::Ready => Step::DisarmOld,
                CutOver::Disarmed => Step::NotePrograms,
                CutOver::Noted(_) => Step::Quiesce,
                CutOver::Quiesced(_) => Step::StopOld,
                CutOver::OldStopped(_) => Step::RestorePoint,
                CutOver::Pointed(..) => Step::RenameOld,
                CutOver::OldRenamed(..) => Step::RenameNext,
                CutOver::NextRenamed(..) => Step::StartNext,
            }),
            State::Swapped(swapped) => {
                Some(if swapped.verdict.is_none() { Step::Verify } else { Step::ArmNext })
            }
            State::Verified(verified) => (!verified.is_tidy).then_some(Step::Tidy),
            State::RollingBack(back) => back.remaining.first().copied(),
            State::RolledBack(_) | State::NeedsOperator(_) => None,
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
                    return Err(self.forbids("nothing to call off", &cancelled));
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
    /// whatever rows it forgets, or forgetting those that were shown.
    ///
    /// # Errors
    /// [`Forbidden`] in every other state, and for an event that is none of the three.
    pub fn recover(self, event: Event) -> Result<(Machine, Transition), Forbidden> {
        let consent = match event {
            Event::Recover => Some(Consent::None),
            Event::RecoverRestoring => Some(Consent::Whatever),
            Event::RecoverRestoringShown => Some(Consent::AsShown),
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
                let back = RollingBack::again(*needs, pending, consent);
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

    fn done(self, pending: Step, fact: Fact) -> Result<(Machine, Option<Event>), Forbidden> {
        let (state, event) = match (self.state, fact) {
            (State::Planned(Planned { hop, backup: None }), Fact::Backup(backup)) => {
                (State::Planned(Planned { hop, backup: Some(backup) }), None)
            }
            (State::Planned(Planned { hop, backup: Some(backup) }), Fact::Proof(proof)) => (
                State::BackedUp(BackedUp { hop, backup, proof, image: None }),
                Some(Event::BackedUp),
            ),
            (State::BackedUp(state @ BackedUp { image: None, .. }), Fact::Image(image)) => {
                (State::BackedUp(BackedUp { image: Some(image), ..state }), None)
            }
            (
                State::BackedUp(BackedUp { image: Some(image), hop, backup, proof }),
                Fact::Next(next),
            ) => {
                let backed_up = BackedUp { hop, backup, proof, image: Some(image.clone()) };
                let pulled =
                    Pulled { backed_up, image, next, copy: None, cut_over: CutOver::Ready };
                (State::Pulled(Box::new(pulled)), Some(Event::Pulled))
            }
            (State::Pulled(mut pulled), Fact::Copy(copy)) if pending == Step::PreCopy => {
                pulled.copy = Some(copy);
                (State::Pulled(pulled), None)
            }
            (State::Pulled(pulled), fact) if pulled.copy.is_none() => {
                return Err(unfit(Phase::Pulled, pending, &fact));
            }
            (State::Pulled(mut pulled), fact) => {
                let phase = Phase::Pulled;
                match pulled.cut_over.advance(fact) {
                    Ok(Advance::Further(cut_over)) => {
                        pulled.cut_over = cut_over;
                        (State::Pulled(pulled), None)
                    }
                    Ok(Advance::Started(quiesced, restore_point)) => {
                        let Pulled { backed_up, image, next, copy, .. } = *pulled;
                        let Some(copy) = copy else {
                            return Err(unfit(phase, pending, &Fact::Done));
                        };
                        let swapped = Swapped {
                            backed_up,
                            image,
                            next,
                            copy,
                            quiesced,
                            restore_point,
                            verdict: None,
                        };
                        (State::Swapped(Box::new(swapped)), Some(Event::Swapped))
                    }
                    Err(fact) => return Err(unfit(phase, pending, &fact)),
                }
            }
            (State::Swapped(mut swapped), Fact::Verdict(verdict)) if swapped.verdict.is_none() => {
                swapped.verdict = Some(verdict);
                (State::Swapped(swapped), None)
            }
            (State::Swapped(swapped), Fact::Done) => match swapped.verdict.clone() {
                Some(verdict) => {
                    let verified = Verified { swapped: *swapped, verdict, is_tidy: false };
                    (State::Verified(Box::new(verified)), Some(Event::Verified))
                }
                None => return Err(unfit(Phase::Swapped, pending, &Fact::Done)),
            },
            (State::Verified(verified), Fact::Done) => {
                (State::Verified(Box::new(Verified { is_tidy: true, ..*verified })), None)
            }
            (State::RollingBack(mut back), fact) => {
                back.remaining.remove(0);
                match (pending, fact) {
                    (Step::AssessDatabase, Fact::Assessment(assessment)) => {
                        (State::RollingBack(Box::new(back.assessed(assessment))), None)
                    }
                    (Step::RestoreDatabase, Fact::Restored(restored)) => {
                        back.restored = Some(restored);
                        back.plan_export();
                        (State::RollingBack(back), None)
                    }
                    (Step::ExportRows, Fact::Export(export)) => {
                        back.export = Some(export);
                        (State::RollingBack(back), None)
                    }
                    (Step::VerifyOld, Fact::Verdict(verdict)) => {
                        back.verdict = Some(verdict);
                        (State::RollingBack(back), None)
                    }
                    (
                        Step::DisarmNext
                        | Step::StopNext
                        | Step::RestoreNextName
                        | Step::RestoreOldName
                        | Step::StartOld
                        | Step::ResumePrograms
                        | Step::RearmOld
                        | Step::RemoveNext
                        | Step::DiscardCopy,
                        Fact::Done,
                    ) => (State::RollingBack(back), None),
                    (pending, fact) => return Err(unfit(Phase::RollingBack, pending, &fact)),
                }
            }
            (state, fact) => return Err(unfit(state.phase(), pending, &fact)),
        };
        Ok((Machine::at(state), event))
    }

    /// Turns round, or, on the way back already, stops for a person. After Verified nothing
    /// can fail the upgrade any more: tidying is tried again later.
    fn failed(self, pending: Step, failure: Failure, event: Event) -> (Machine, Option<Event>) {
        match self.state {
            state @ (State::Planned(_)
            | State::BackedUp(_)
            | State::Pulled(_)
            | State::Swapped(_)) => {
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
                // The database could not even be looked at: the failed version is still to be
                // stopped before a person is asked, so that nothing more is written.
                if pending == Step::AssessDatabase {
                    let unreadable = Assessment::Unreadable { reason: failure.message };
                    let mut assessed = back.assessed(unreadable);
                    assessed.remaining.retain(|step| *step != Step::AssessDatabase);
                    return (Machine::at(State::RollingBack(Box::new(assessed))), None);
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
                    export: back.export,
                };
                (Machine::at(State::NeedsOperator(Box::new(needs))), Some(Event::NeedsDecision))
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
                        export,
                    })),
                    None => State::RolledBack(Box::new(RolledBack {
                        interrupted,
                        failure,
                        assessment,
                        restored,
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

enum Advance {
    Further(CutOver),
    Started(Quiesced, RestorePoint),
}

impl CutOver {
    fn advance(&self, fact: Fact) -> Result<Advance, Box<Fact>> {
        let further = match (self.clone(), fact) {
            (CutOver::Ready, Fact::Done) => CutOver::Disarmed,
            (CutOver::Disarmed, Fact::Programs(programs)) => CutOver::Noted(programs),
            (CutOver::Noted(_), Fact::Quiesced(quiesced)) => CutOver::Quiesced(quiesced),
            (CutOver::Quiesced(quiesced), Fact::Done) => CutOver::OldStopped(quiesced),
            (CutOver::OldStopped(quiesced), Fact::RestorePoint(point)) => {
                CutOver::Pointed(quiesced, point)
            }
            (CutOver::Pointed(quiesced, point), Fact::Done) => CutOver::OldRenamed(quiesced, point),
            (CutOver::OldRenamed(quiesced, point), Fact::Done) => {
                CutOver::NextRenamed(quiesced, point)
            }
            (CutOver::NextRenamed(quiesced, point), Fact::Done) => {
                return Ok(Advance::Started(quiesced, point));
            }
            (_, fact) => return Err(Box::new(fact)),
        };
        Ok(Advance::Further(further))
    }
}

fn unfit(phase: Phase, pending: Step, fact: &Fact) -> Forbidden {
    Forbidden { phase, expected: format!("an outcome of {pending}"), found: format!("{fact:?}") }
}
