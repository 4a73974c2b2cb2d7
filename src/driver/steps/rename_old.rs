//! `rename_old`: the old container gives up its name.

use crate::driver::context::{StepContext, done};
use crate::error::Trouble;
use crate::machine::Fact;
use crate::names;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Renaming the old container";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    let name = names::previous(&cx.hop.old.name, &cx.id_of_hop());
    cx.set_name(cx.old(), &name).await?;
    done()
}
