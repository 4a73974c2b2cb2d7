//! What the driver was told, and by whom: go on, go back, stop waiting. One state behind one lock,
//! never held across anything that waits.
//!
//! Set by the API through the driver's methods and by `recover`; read by the driver's loop. Nothing
//! of it outlives the program: what must, is journaled.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::journal::JobId;

/// Where the driver stands.
#[derive(Default)]
struct Orders {
    /// Whether an unfinished upgrade that was found at the start may go on (`RESUME`).
    is_released: bool,
    /// Whether the log says that one waits.
    has_told: bool,
    /// Whether the driver's loop is there to be woken.
    is_running: bool,
    /// Why the journal can't be used, while it can't.
    blocked: Option<String>,
    /// The job that is worked on, and how its step in hand is ended.
    in_hand: Option<(JobId, CancellationToken)>,
    /// The job that an operator has cancelled.
    cancelled: Option<JobId>,
    /// The job that goes back when it goes on (`recover` saw that it can't be finished).
    turned_back: Option<JobId>,
    /// The rehearsal that ends for something else, and for what.
    gives_way: Option<(JobId, &'static str)>,
}

/// The one place where it is kept.
pub(super) struct Control(Mutex<Orders>);

impl Control {
    /// Of a driver that may go on with what it finds, or waits for a word.
    pub fn new(is_released: bool) -> Self {
        Self(Mutex::new(Orders { is_released, ..Orders::default() }))
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found unfinished may go on.
    pub fn release(&self) {
        self.orders().is_released = true;
    }

    /// Whether it may.
    pub fn is_released(&self) -> bool {
        self.orders().is_released
    }

    /// Whether the loop runs and waits for a word.
    pub fn is_held(&self) -> bool {
        let orders = self.orders();
        orders.is_running && !orders.is_released
    }

    /// The loop has begun.
    pub fn begins_to_run(&self) {
        self.orders().is_running = true;
    }

    /// Whether it has.
    pub fn is_running(&self) -> bool {
        self.orders().is_running
    }

    /// Whether it was told already that a job waits; from now on it was.
    pub fn has_told(&self) -> bool {
        std::mem::replace(&mut self.orders().has_told, true)
    }

    /// Why nothing is done; none while something is.
    pub fn blocked(&self) -> Option<String> {
        self.orders().blocked.clone()
    }

    /// Sets that.
    pub fn set_blocked(&self, to: Option<String>) {
        self.orders().blocked = to;
    }

    /// This job is worked on from now on, until [`Control::lay_down`]; a job that was cancelled or
    /// is to go back is told so at once, where `may_go_back` says that it can.
    pub fn take_in_hand(
        &self,
        job: &JobId,
        may_go_back: impl FnOnce(Why) -> bool,
    ) -> CancellationToken {
        let mut orders = self.orders();
        let token = CancellationToken::new();
        orders.in_hand = Some((job.clone(), token.clone()));
        let is = |of: &Option<JobId>| of.as_ref() == Some(job);
        let why = match (is(&orders.cancelled), is(&orders.turned_back)) {
            (true, _) => Why::Cancelled,
            (false, true) => Why::TurnedBack,
            (false, false) => Why::Nobody,
        };
        if may_go_back(why) {
            token.cancel();
        }
        token
    }

    /// No job is worked on.
    pub fn lay_down(&self) {
        self.orders().in_hand = None;
    }

    /// Whether one is.
    pub fn is_at_work(&self) -> bool {
        self.orders().in_hand.is_some()
    }

    /// An operator cancels this job, worked on or not.
    pub fn cancel(&self, job: &JobId) {
        let mut orders = self.orders();
        orders.cancelled = Some(job.clone());
        if let Some((_, token)) = orders.in_hand.as_ref().filter(|(running, _)| running == job) {
            token.cancel();
        }
    }

    /// This rehearsal ends, for what may not wait for it.
    pub fn give_way(&self, job: &JobId, for_what: &'static str) {
        self.orders().gives_way = Some((job.clone(), for_what));
        self.cancel(job);
    }

    /// For what it ends, where it does for something.
    pub fn gives_way_for(&self, job: &JobId) -> Option<&'static str> {
        let orders = self.orders();
        orders.gives_way.as_ref().filter(|(of, _)| of == job).map(|(_, for_what)| *for_what)
    }

    /// This job goes back when it is taken in hand.
    pub fn turn_back(&self, job: &JobId) {
        let mut orders = self.orders();
        orders.turned_back = Some(job.clone());
        orders.is_released = true;
    }

    /// Whether a person has said that this job goes back.
    pub fn is_persons_word(&self, job: &JobId) -> bool {
        let orders = self.orders();
        [&orders.cancelled, &orders.turned_back].into_iter().any(|of| of.as_ref() == Some(job))
    }
}

/// Who wants a job to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody, as far as was said.
    Nobody,
    /// An operator cancelled it.
    Cancelled,
    /// An operator went on with it by `recover`, which saw that it can't be finished.
    TurnedBack,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobId {
        JobId::from_text(name.to_owned())
    }

    #[test]
    fn a_cancel_reaches_the_job_that_is_in_hand_and_no_other() {
        let control = Control::new(true);
        let token = control.take_in_hand(&job("a"), |_| false);
        control.cancel(&job("b"));
        assert!(!token.is_cancelled());
        control.cancel(&job("a"));
        assert!(token.is_cancelled() && control.is_persons_word(&job("a")));
    }

    #[test]
    fn a_cancel_before_the_job_is_taken_in_hand_is_seen_there() {
        let control = Control::new(false);
        control.cancel(&job("a"));
        let token = control.take_in_hand(&job("a"), |why| why == Why::Cancelled);
        assert!(token.is_cancelled());
        control.lay_down();
        assert!(!control.is_at_work());
    }
}
