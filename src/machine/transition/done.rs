//! Where a step that is done leads: each state takes its fact in, and the last step of a state
//! leads into the next one.
//!
//! Called by [`Machine::apply`] alone. A fact that is not one of the pending step is refused, and
//! nothing here makes up for it.

use super::{Event, Forbidden, Machine};
use crate::machine::facts::{Quiesced, RestorePoint};
use crate::machine::outcome::Fact;
use crate::machine::phase::Phase;
use crate::machine::rollback::RollingBack;
use crate::machine::state::{BackedUp, CutOver, Planned, Pulled, State, Swapped, Verified};
use crate::machine::step::Step;

/// Where a fact leads, or the fact again where it does not fit.
type Advanced = Result<(State, Option<Event>), Box<Fact>>;

impl Machine {
    pub(super) fn done(
        self,
        pending: Step,
        fact: Fact,
    ) -> Result<(Machine, Option<Event>), Forbidden> {
        let phase = self.phase();
        let advanced = match self.state {
            State::Planned(state) => state.advance(fact),
            State::BackedUp(state) => state.advance(fact),
            State::Pulled(state) => state.advance(fact),
            State::Swapped(state) => state.advance(pending, fact),
            State::Verified(state) => state.advance(pending, fact),
            State::RollingBack(state) => state.advance(pending, fact),
            State::RolledBack(_) | State::NeedsOperator(_) => Err(Box::new(fact)),
        };
        match advanced {
            Ok((state, event)) => Ok((Machine::at(state), event)),
            Err(fact) => Err(unfit(phase, pending, &fact)),
        }
    }
}

impl Planned {
    fn advance(self, fact: Fact) -> Advanced {
        let Planned { hop, backup } = self;
        match (backup, fact) {
            (None, Fact::Backup(backup)) => {
                Ok((State::Planned(Planned { hop, backup: Some(backup) }), None))
            }
            (Some(backup), Fact::Proof(proof)) => {
                let backed_up = BackedUp { hop, backup, proof, image: None };
                Ok((State::BackedUp(backed_up), Some(Event::BackedUp)))
            }
            (_, fact) => Err(Box::new(fact)),
        }
    }
}

impl BackedUp {
    fn advance(self, fact: Fact) -> Advanced {
        match (&self.image, fact) {
            (None, Fact::Image(image)) => {
                Ok((State::BackedUp(BackedUp { image: Some(image), ..self }), None))
            }
            (Some(image), Fact::Next(next)) => {
                let (image, copy, cut_over) = (image.clone(), None, CutOver::Ready);
                let pulled = Pulled { backed_up: self, image, next, copy, cut_over };
                Ok((State::Pulled(Box::new(pulled)), Some(Event::Pulled)))
            }
            (_, fact) => Err(Box::new(fact)),
        }
    }
}

impl Pulled {
    fn advance(mut self: Box<Self>, fact: Fact) -> Advanced {
        let Some(copy) = self.copy.clone() else {
            let Fact::Copy(copy) = fact else { return Err(Box::new(fact)) };
            self.copy = Some(copy);
            return Ok((State::Pulled(self), None));
        };
        match self.cut_over.advance(fact)? {
            Advance::Further(cut_over) => {
                self.cut_over = cut_over;
                Ok((State::Pulled(self), None))
            }
            Advance::Started(quiesced, restore_point) => {
                let Pulled { backed_up, image, next, .. } = *self;
                let (verdict, kept) = (None, None);
                let swapped = Swapped {
                    backed_up,
                    image,
                    next,
                    copy,
                    quiesced,
                    restore_point,
                    verdict,
                    kept,
                };
                Ok((State::Swapped(Box::new(swapped)), Some(Event::Swapped)))
            }
        }
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
            (CutOver::Noted(_), Fact::Quiesced(quiesced)) => CutOver::Quiesced(*quiesced),
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

impl Swapped {
    fn advance(mut self: Box<Self>, pending: Step, fact: Fact) -> Advanced {
        match (pending, fact, self.verdict.clone()) {
            (Step::StartAgain, Fact::Done, _) => {
                if let Some(kept) = self.kept.as_mut() {
                    kept.is_started = true;
                }
                Ok((State::Swapped(self), None))
            }
            (Step::Verify, Fact::Verdict(verdict), None) => {
                self.verdict = Some(verdict);
                Ok((State::Swapped(self), None))
            }
            (Step::ArmNext, Fact::Done, Some(verdict)) => {
                let (swapped, probation, is_tidy) = (*self, None, false);
                let verified = Verified { swapped, verdict, probation, is_tidy };
                Ok((State::Verified(Box::new(verified)), Some(Event::Verified)))
            }
            (_, fact, _) => Err(Box::new(fact)),
        }
    }
}

impl Verified {
    fn advance(mut self: Box<Self>, pending: Step, fact: Fact) -> Advanced {
        match (pending, fact) {
            (Step::Probation, Fact::Probation(probation)) => self.probation = Some(probation),
            (Step::Tidy, Fact::Done) => self.is_tidy = true,
            (_, fact) => return Err(Box::new(fact)),
        }
        Ok((State::Verified(self), None))
    }
}

impl RollingBack {
    fn advance(mut self: Box<Self>, pending: Step, fact: Fact) -> Advanced {
        self.remaining.remove(0);
        let back = match (pending, fact) {
            (Step::AssessDatabase, Fact::Assessment(found)) => Box::new(self.assessed(found)),
            (Step::AssessAgain, Fact::Assessment(found)) => Box::new(self.assessed_again(found)),
            (Step::RestoreFiles, Fact::Files(found)) => Box::new(self.with_files(found)),
            (Step::RestoreDatabase, Fact::Restored(restored)) => {
                self.restored = Some(restored);
                self.plan_export();
                self
            }
            (Step::ExportRows, Fact::Export(export)) => {
                self.export = Some(export);
                self
            }
            (Step::VerifyOld, Fact::Verdict(verdict)) => {
                self.verdict = Some(verdict);
                self
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
            ) => self,
            (_, fact) => return Err(Box::new(fact)),
        };
        Ok((State::RollingBack(back), None))
    }
}

fn unfit(phase: Phase, pending: Step, fact: &Fact) -> Forbidden {
    Forbidden { phase, expected: format!("an outcome of {pending}"), found: format!("{fact:?}") }
}
