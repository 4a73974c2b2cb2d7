//! Whether the run that the gate judges goes on: somebody else may stop, restart or freeze the
//! container, and this host may sleep or be too busy to watch. None of it is the version's fault;
//! it is told, and watched anew.
//!
//! Called by the gate before each look.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::outside::Cause;
use super::{Trial, is_steady, not_running};
use crate::app::watch::Watch;
use crate::engine::Inspection;
use crate::error::{Trouble, fail};
use crate::machine::failure::FailureCode;

/// Between two looks at a container that somebody froze.
const FROZEN_EVERY: Duration = Duration::from_millis(500);

/// What may lie between two looks of one watch, at least, and in deadlines of an answer. Beyond it
/// nobody watched.
const GAP_BORNE: (Duration, u32) = (Duration::from_secs(10), 2);

/// What the look at a container found.
pub(in crate::driver) enum Present {
    AsBefore(Value),
    Anew(Value),
    /// Somebody froze it meanwhile; whether for the first time.
    Thawed(Value, bool),
}

impl Trial<'_> {
    pub(in crate::driver) fn gap_borne(&self) -> Duration {
        let (least, times) = GAP_BORNE;
        least.max(self.cx.settings.answer_timeout.saturating_mul(times))
    }

    /// Tells of a gap in the watch: the host slept, or this program did. Waiting for a watch
    /// without one has its end.
    pub(in crate::driver) async fn not_watched(
        &self,
        gap: Duration,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let found = format!(
            "the {} was not watched for {} s (a host that slept, or is too busy)",
            self.which,
            gap.as_secs()
        );
        if Instant::now() >= deadline {
            return fail(FailureCode::RuntimeInspectionFailed, found);
        }
        self.cx.say(&format!("{found}; it is watched anew")).await;
        Ok(())
    }

    /// That somebody freezes it again and again is no fault of it, and has its end, too.
    pub(in crate::driver) fn frozen_too_often(&self, deadline: Instant) -> Result<(), Trouble> {
        match Instant::now() >= deadline {
            false => Ok(()),
            true => fail(
                FailureCode::RuntimeInspectionFailed,
                format!("the {} was paused from outside again and again", self.which),
            ),
        }
    }

    /// Waits until somebody who froze it has it go on; whatever it is then is looked at anew.
    async fn thawed(&mut self) -> Result<Present, Trouble> {
        let (cx, which) = (self.cx, self.which);
        cx.say(&format!("the {which} was paused from outside; it is waited for")).await;
        let patience = cx.settings.health_timeout;
        let deadline = Instant::now() + patience;
        loop {
            let container = cx.inspect_present(which.id, which.role).await?;
            self.sentinel.look(&container).await?;
            if !Inspection(&container).is_frozen() {
                // Its events are about what is told here.
                self.outside.listen_now(cx.engine, which.id).await;
                self.outside.was_frozen();
                return Ok(self.thawed_again(container).await);
            }
            if Instant::now() >= deadline {
                let seconds = patience.as_secs();
                return fail(
                    FailureCode::RuntimeInspectionFailed,
                    format!(
                        "somebody paused the {which}, and it was not unpaused within {seconds} s"
                    ),
                );
            }
            tokio::time::sleep(FROZEN_EVERY).await;
        }
    }

    async fn thawed_again(&mut self, container: Value) -> Present {
        let is_first = !std::mem::replace(&mut self.was_frozen, true);
        let which = self.which;
        let told = format!("the {which} was paused and unpaused from outside; it is watched anew");
        self.cx.say(&told).await;
        Present::Thawed(container, is_first)
    }

    /// The container's inspection, while it is the run that is judged. One that somebody else
    /// stopped or restarted is started again where it is down and judged anew, once: anything
    /// else is its own end.
    pub(in crate::driver) async fn present(&mut self) -> Result<Present, Trouble> {
        let cx = self.cx;
        let container = cx.inspect_present(self.which.id, self.which.role).await?;
        self.outside.listen(cx.engine, self.which.id).await;
        if self.outside.is_same_run(&container) && Inspection(&container).is_frozen() {
            return self.thawed().await;
        }
        if is_steady(&container) && self.outside.is_same_run(&container) {
            return match self.outside.was_frozen() {
                false => Ok(Present::AsBefore(container)),
                true => Ok(self.thawed_again(container).await),
            };
        }
        match self.outside.cause(cx.engine, self.which.id).await {
            Cause::Itself => {
                fail(FailureCode::HealthcheckFailed, not_running(self.which, &container))
            }
            // Of the old version it is no word on its database, which is not replaced for it.
            Cause::SomebodyAgain { how } => fail(
                match self.which.id == cx.old_id() {
                    true => FailureCode::RuntimeInspectionFailed,
                    false => FailureCode::HealthcheckFailed,
                },
                format!(
                    "the {} was {how} from outside a second time while it was watched",
                    self.which
                ),
            ),
            Cause::Somebody { how } => {
                let again =
                    format!("the {} was {how} from outside; it is watched anew", self.which);
                cx.say(&again).await;
                let container = cx.settled(self.which).await?;
                if !is_steady(&container) {
                    let other = cx.other_than(self.which)?;
                    cx.start(self.which, other).await?;
                }
                let container = cx.running(self.which).await?;
                self.outside = self.outside.again(&container);
                self.watch = Watch::default();
                Ok(Present::Anew(container))
            }
        }
    }
}
