//! `start_again`: a new version that had failed is started again, because a person goes on with it.

use crate::driver::context::{StepContext, Which, done};
use crate::driver::effects::containers::{no_restart, occupies_database};
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Starting the new container again, as you decided";

/// A person goes on with a version that had failed, on the database that it left.
pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    let next = Which::next(next);
    let container = cx.inspect_present(next.id, next.role).await?;
    // What answers is left running. Silenced for the assessment, programs of any other may
    // still be stopped.
    if occupies_database(&container) && !cx.answers(&container).await {
        cx.stop(next).await?;
    }
    cx.remove_lone_server().await?;
    cx.set_policy(next, &no_restart()).await?;
    cx.set_name(next, &cx.hop.old.name).await?;
    cx.start(next, cx.old()).await?;
    done()
}
