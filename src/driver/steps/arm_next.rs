//! `arm_next`: the old container's restart policy is set on the new one.

use super::verify;
use crate::driver::context::{StepContext, Which, done};
use crate::driver::effects::containers::occupies_database;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Setting the new container's restart policy";

/// A host that was rebooted since the verdict has left the new version down, because nothing
/// unproven starts by itself: it is started and passes the gate again.
pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    created: &NextContainer,
) -> Result<Fact, Trouble> {
    let next = Which::next(created);
    let container = cx.inspect_present(next.id, next.role).await?;
    if !occupies_database(&container) {
        cx.say(&format!("the {next} does not run any more; it is started and verified again"))
            .await;
        cx.start(next, cx.old()).await?;
        verify::act(cx, created).await?;
    }
    cx.set_policy(next, &cx.hop.old.restart_policy).await?;
    done()
}
