//! `rearm_old`: the old container's restart policy is as it was.

use crate::driver::context::{StepContext, done};
use crate::driver::effects::containers::occupies_database;
use crate::error::Trouble;
use crate::machine::Fact;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "Going back: setting the old container's restart policy";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    cx.ensure_old().await?;
    let old = cx.inspect_present(cx.old_id(), "old").await?;
    if !occupies_database(&old) {
        // Armed, it may be started by the engine.
        cx.nobody_works_there("the old version is not started").await?;
    }
    cx.set_policy(cx.old(), &cx.hop.old.restart_policy).await?;
    done()
}
