//! `stop_old`: the old container ends, with its own grace period.

use crate::driver::context::{StepContext, done};
use crate::error::Trouble;
use crate::machine::Fact;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Stopping the old container";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    cx.stop(cx.old()).await?;
    done()
}
