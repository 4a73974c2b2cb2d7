//! `rename_next`: the new container takes the name.

use crate::driver::context::{StepContext, Which, done};
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Giving the new container its name";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    cx.set_name(Which::next(next), &cx.hop.old.name).await?;
    done()
}
