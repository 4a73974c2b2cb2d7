//! `start_old`: the old container is started.

use crate::driver::context::{StepContext, Which, done};
use crate::driver::effects::containers::occupies_database;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: starting the old container";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    cx.ensure_old().await?;
    if cx.remade.get().is_some() {
        // Made again in this very step, it missed those that give it its name and its policy.
        cx.set_name(cx.old(), &cx.hop.old.name).await?;
        cx.set_policy(cx.old(), &cx.hop.old.restart_policy).await?;
    }
    let old = cx.inspect_present(cx.old_id(), "old").await?;
    if occupies_database(&old) {
        // It was never stopped: its server's lock file is no stale one.
        return done();
    }
    // A server that works there changes what is looked at next.
    cx.nobody_works_there("the old version is not started").await?;
    // In another directory it would serve, and take payments, on another database.
    cx.must_be_as_noted().await?;
    cx.start(cx.old(), Which::next(next)).await?;
    done()
}
