//! Runs the hops of one job: begins the next one of the route, and takes it step by step, *intent
//! → effect → outcome → transition*, until its machine rests.
//!
//! Called by the driver's loop, which says which job is due. What comes next is not decided here:
//! every outcome goes to the machine, and no effect begins before its intent is journaled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::context::{At, StepContext};
use super::{Driver, Progress, durable, may_be_called_off, narrate, prepare, steps};
use crate::journal::{Ending, JobRecord, JournalError, Settlement};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Forbidden, Machine, Outcome, Phase, Step, Transition};

/// How long a step that may be left is given to end by itself when the daemon is told to end.
const GRACE_OF_LONG_STEPS: Duration = Duration::from_secs(5);

/// Between attempts at a step whose outcome is unknown; grows with each.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

impl Driver {
    /// Runs the hop that is due; answers whether to go on.
    pub(super) async fn drive(
        &self,
        job: &JobRecord,
        off: &CancellationToken,
    ) -> Result<bool, JournalError> {
        let is_next_due = job.hop().is_none_or(|hop| hop.machine.phase() == Phase::Verified);
        if is_next_due {
            // What the hop before left to tidy is tried once more, as long as it is the newest:
            // only then it is known that nothing of it is needed.
            match job.hop() {
                Some(_) => self.wind_up(job, true).await?,
                None => {
                    if let Some(before) = self.reader.executed_job_before(&job.id)? {
                        self.wind_up(&before, true).await?;
                    }
                }
            }
            return self.begin_hop(job).await;
        }
        let Some(hop) = job.hop() else { return Ok(true) };
        let at = At::of(job, hop, false);
        let mut machine = hop.machine.clone();
        if let Some(step) = hop.pending {
            self.say(&at, &format!("found unfinished after a restart: {step}")).await?;
            machine = self.settle(&at, machine, step, Outcome::Interrupted).await?;
        }
        self.run_machine(&at, machine, off).await
    }

    /// The loop. Answers whether to go on: not when told to stop.
    async fn run_machine(
        &self,
        at: &At<'_>,
        mut machine: Machine,
        off: &CancellationToken,
    ) -> Result<bool, JournalError> {
        let mut pause = RETRY_PAUSE;
        while let Some(step) = machine.step() {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            // What comes after it is no part of the job any more: `wind_up` takes it up.
            if machine.phase() == Phase::Verified && at.verified_ms.is_none() {
                break;
            }
            let journal = Arc::clone(&self.journal);
            let (job, hop) = (at.job.id.clone(), at.hop);
            durable(move || journal.intent(&job, hop, step)).await?;
            self.control.set_blocked(None);
            let outcome = self.attempt(at, &machine, step, off).await;
            let is_done = matches!(outcome, Outcome::Done { .. });
            let is_unknown = matches!(outcome, Outcome::Unknown { .. });
            machine = self.settle(at, machine, step, outcome).await?;
            if Step::AFTERWARDS.contains(&step) && !is_done {
                break;
            }
            if is_unknown && machine.step() == Some(step) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause *= 2,
                    () = self.stop.cancelled() => {}
                }
            } else {
                pause = RETRY_PAUSE;
            }
        }
        Ok(true)
    }

    /// Does what is left to do after this job's last hop was verified, if anything is: the watch
    /// goes on, then what is not needed any more is tidied away. `is_followed`: the next upgrade
    /// waits, and the watch ends with one more look.
    pub(super) async fn wind_up(
        &self,
        job: &JobRecord,
        is_followed: bool,
    ) -> Result<(), JournalError> {
        let Some(hop) = job.hop().filter(|hop| hop.machine.phase() == Phase::Verified) else {
            return Ok(());
        };
        let at = At::of(job, hop, is_followed);
        let mut machine = hop.machine.clone();
        if let Some(step) = hop.pending {
            machine = self.settle(&at, machine, step, Outcome::Interrupted).await?;
        }
        self.run_machine(&at, machine, &CancellationToken::new()).await.map(drop)
    }

    /// One attempt at a step's effect. A panic in it is an unknown outcome, not a dead daemon.
    async fn attempt(
        &self,
        at: &At<'_>,
        machine: &Machine,
        step: Step,
        off: &CancellationToken,
    ) -> Outcome {
        self.progress.send_replace(Progress::default());
        if off.is_cancelled() && may_be_called_off(machine.phase()) {
            return called_off(step, self.who_calls_off(&at.job.id));
        }
        tracing::info!(job = %at.job.id, hop = at.hop, %step, "step begins");
        let work = match machine.work() {
            Ok(Some(work)) => work,
            // What the state lacks can't be made up for.
            Ok(None) => return Outcome::Left,
            Err(forbidden) => {
                let failure = Failure::new(FailureCode::Unknown, forbidden.to_string());
                return Outcome::Failed { failure };
            }
        };
        let cx = StepContext::new(
            (&self.settings, self.engine.as_ref()),
            &self.journal,
            &self.progress,
            &self.watched_run,
            at,
            machine.state(),
        );
        let effect = AssertUnwindSafe(steps::run(&cx, machine.phase(), work)).catch_unwind();
        let leave = async {
            self.stop.cancelled().await;
            // A watch ends as well now as later.
            if step != Step::Probation {
                tokio::time::sleep(GRACE_OF_LONG_STEPS).await;
            }
        };
        let outcome = tokio::select! {
            outcome = effect => outcome.unwrap_or_else(|_| Outcome::Unknown {
                failure: Failure::new(
                    FailureCode::Unknown,
                    format!("{step}: the updater met a fault of its own; see its log"),
                ),
            }),
            () = leave, if step.may_be_left() => Outcome::Left,
            // A job that was accepted meanwhile comes first; it ends the watch.
            () = self.wake.notified(), if step == Step::Probation && !at.is_followed => {
                self.wake.notify_one();
                Outcome::Left
            }
            () = off.cancelled(), if step.may_be_left() && may_be_called_off(machine.phase()) => {
                called_off(step, self.who_calls_off(&at.job.id))
            }
        };
        self.progress.send_replace(Progress::default());
        outcome
    }

    /// Journals an outcome with everything that follows from it, in one transaction.
    async fn settle(
        &self,
        at: &At<'_>,
        machine: Machine,
        step: Step,
        outcome: Outcome,
    ) -> Result<Machine, JournalError> {
        let (outcome, machine, transitions) = applied(machine, step, outcome)
            .map_err(|source| JournalError::Unsettled { step, source })?;
        let rests_now = transitions.iter().any(|t| t.to.is_at_rest());
        let has_more = at.hop < at.job.body.hops.len();
        let ends = rests_now && !(machine.phase() == Phase::Verified && has_more);
        let then = Settlement {
            log: narrate::log_lines(step, &outcome, &transitions),
            events: narrate::events(at.job, step, &outcome, &machine, ends),
            ending: ends.then(|| narrate::ending(&machine)),
            transitions,
        };
        for line in &then.log {
            tracing::info!(job = %at.job.id, hop = at.hop, %step, "{line}");
        }
        let (journal, job, hop) = (Arc::clone(&self.journal), at.job.id.clone(), at.hop);
        durable(move || journal.settle(&job, hop, step, &outcome, &then)).await?;
        Ok(machine)
    }

    /// The next hop of the route: looks at the world as it is now and journals the hop. When
    /// that can't be done nothing was changed, and the job ends here.
    async fn begin_hop(&self, job: &JobRecord) -> Result<bool, JournalError> {
        let number = job.hops.len() + 1;
        let Some(target) = job.body.hops.get(number - 1) else {
            let failure = Failure::new(FailureCode::Unknown, "the job's route has no further hop");
            self.end_unbegun(job, &failure).await?;
            return Ok(true);
        };
        let from_rules = match number {
            1 => None,
            _ => job.body.hops.get(number - 2).map(|hop| hop.rules.clone()),
        };
        let prepared =
            prepare::hop(&self.settings, self.engine.as_ref(), job, number, target, from_rules)
                .await;
        match prepared {
            Ok(hop) => {
                let (journal, id) = (Arc::clone(&self.journal), job.id.clone());
                let line = format!(
                    "hop {number} of {}: {} to {} ({})",
                    job.body.hops.len(),
                    hop.from.as_deref().unwrap_or("an unknown version"),
                    hop.version,
                    target.why
                );
                durable(move || {
                    journal.hop(&id, number, &hop, &[])?;
                    journal.log(&id, Some(number), &line)
                })
                .await?;
                Ok(true)
            }
            Err(failure) => {
                self.end_unbegun(job, &failure).await?;
                Ok(true)
            }
        }
    }

    async fn end_unbegun(&self, job: &JobRecord, failure: &Failure) -> Result<(), JournalError> {
        let ending = Ending { failure_code: Some(failure.code), message: failure.message.clone() };
        let events = [narrate::upgrade_ended(job, &ending, None)];
        tracing::warn!(job = %job.id, code = %failure.code, "{failure}");
        let (journal, id) = (Arc::clone(&self.journal), job.id.clone());
        durable(move || journal.end(&id, &ending, &events)).await
    }

    async fn say(&self, at: &At<'_>, line: &str) -> Result<(), JournalError> {
        tracing::info!(job = %at.job.id, hop = at.hop, "{line}");
        let (journal, job, hop) = (Arc::clone(&self.journal), at.job.id.clone(), at.hop);
        let line = line.to_owned();
        durable(move || journal.log(&job, Some(hop), &line)).await
    }
}

/// What an outcome comes to. An effect that answers with another step's fact is a fault of ours,
/// and counts as a failed step.
///
/// # Errors
/// When the machine does not even take that: nothing can be journaled then, and to go on would be
/// to begin the same step again and again.
fn applied(
    machine: Machine,
    step: Step,
    outcome: Outcome,
) -> Result<(Outcome, Machine, Vec<Transition>), Forbidden> {
    match machine.clone().apply(outcome.clone()) {
        Ok((after, transitions)) => Ok((outcome, after, transitions)),
        Err(forbidden) => {
            let failure = Failure::new(FailureCode::Unknown, format!("{step}: {forbidden}"));
            let outcome = Outcome::Failed { failure };
            let (after, transitions) = machine.apply(outcome.clone())?;
            Ok((outcome, after, transitions))
        }
    }
}

fn called_off(step: Step, by: &str) -> Outcome {
    let failure = Failure::new(FailureCode::Cancelled, format!("cancelled by {by} at {step}"));
    Outcome::Cancelled { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Fact, Hop};

    fn machine() -> Machine {
        let hop: Hop = serde_json::from_value(serde_json::json!({
            "old": {"id": "o", "name": "payram", "imageId": "sha256:1", "specFile": "/spec",
                "restartPolicy": {"Name": "always"}},
            "from": "1.9.6", "fromRules": {"kind": "legacy"}, "version": "2.0.0",
            "target": {"repo": "payramapp/payram", "tag": "2.0.0"}, "rules": {"kind": "legacy"},
        }))
        .expect("a hop");
        Machine::new(hop)
    }

    #[test]
    fn another_steps_fact_fails_the_step() {
        let outcome = Outcome::Done { fact: Fact::Done };
        let (outcome, _, transitions) =
            applied(machine(), Step::BackUp, outcome).expect("it is taken");
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
        assert!(!transitions.is_empty());
    }

    #[test]
    fn what_the_machine_takes_in_no_way_is_an_error_and_no_second_attempt() {
        let mut machine = machine();
        while let Some(step) = machine.step() {
            let failure = Failure::new(FailureCode::Unknown, "for this test");
            let (_, after, _) =
                applied(machine, step, Outcome::Failed { failure }).expect("it is taken");
            machine = after;
        }
        let again = applied(machine, Step::BackUp, Outcome::Interrupted);
        assert!(again.is_err(), "at rest there is nothing to settle: {again:?}");
    }
}
