//! `stop_next`: the failed version's container ends.

use crate::driver::context::{StepContext, done};
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: stopping the new container";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    cx.remove_lone_server().await?;
    if let Some(next) = cx.if_present(next).await? {
        cx.stop(next).await?;
    }
    done()
}
