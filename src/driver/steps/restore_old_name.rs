//! `restore_old_name`: the old container gets its name again.

use crate::driver::context::{StepContext, done};
use crate::error::Trouble;
use crate::machine::Fact;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: giving the old container its name";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    cx.ensure_old().await?;
    cx.set_name(cx.old(), &cx.hop.old.name).await?;
    done()
}
