//! Where a step that is done leads: its fact is taken into the state, and the last step of a state
//! leads into the next one.
//!
//! Called by [`Machine::apply`] alone. A fact that is not one of the pending step is refused, and
//! nothing here makes up for it.

use super::{Event, Forbidden, Machine};
use crate::machine::facts::{Quiesced, RestorePoint};
use crate::machine::outcome::Fact;
use crate::machine::state::{BackedUp, CutOver, Phase, Planned, Pulled, State, Swapped, Verified};
use crate::machine::step::Step;

impl Machine {
    pub(super) fn done(
        self,
        pending: Step,
        fact: Fact,
    ) -> Result<(Machine, Option<Event>), Forbidden> {
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
                            kept: None,
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
            (State::Swapped(mut swapped), Fact::Done) if pending == Step::StartAgain => {
                if let Some(kept) = swapped.kept.as_mut() {
                    kept.is_started = true;
                }
                (State::Swapped(swapped), None)
            }
            (State::Swapped(swapped), Fact::Done) => match swapped.verdict.clone() {
                Some(verdict) => {
                    let verified =
                        Verified { swapped: *swapped, verdict, probation: None, is_tidy: false };
                    (State::Verified(Box::new(verified)), Some(Event::Verified))
                }
                None => return Err(unfit(Phase::Swapped, pending, &Fact::Done)),
            },
            (State::Verified(verified), Fact::Probation(probation))
                if pending == Step::Probation =>
            {
                let probation = Some(probation);
                (State::Verified(Box::new(Verified { probation, ..*verified })), None)
            }
            (State::Verified(verified), Fact::Done) if pending == Step::Tidy => {
                (State::Verified(Box::new(Verified { is_tidy: true, ..*verified })), None)
            }
            (State::RollingBack(mut back), fact) => {
                back.remaining.remove(0);
                match (pending, fact) {
                    (Step::AssessDatabase, Fact::Assessment(assessment)) => {
                        (State::RollingBack(Box::new(back.assessed(assessment))), None)
                    }
                    (Step::AssessAgain, Fact::Assessment(assessment)) => {
                        (State::RollingBack(Box::new(back.assessed_again(assessment))), None)
                    }
                    (Step::RestoreDatabase, Fact::Restored(restored)) => {
                        back.restored = Some(restored);
                        back.plan_export();
                        (State::RollingBack(back), None)
                    }
                    (Step::RestoreFiles, Fact::Files(found)) => {
                        (State::RollingBack(Box::new(back.with_files(found))), None)
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

fn unfit(phase: Phase, pending: Step, fact: &Fact) -> Forbidden {
    Forbidden { phase, expected: format!("an outcome of {pending}"), found: format!("{fact:?}") }
}
