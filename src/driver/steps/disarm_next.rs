//! `disarm_next`: the new container's restart policy is `no` again.

use crate::driver::context::{StepContext, done};
use crate::driver::effects::containers::no_restart;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "Going back: holding back the new container's restart policy";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    // Gone is as good: nothing of it starts by itself.
    if let Some(next) = cx.if_present(next).await? {
        cx.set_policy(next, &no_restart()).await?;
    }
    done()
}
