//! `restore_next_name`: the new container returns to its temporary name.

use crate::driver::context::{StepContext, done};
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: taking the name from the new container";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    if let Some(which) = cx.if_present(next).await? {
        cx.give_up_the_name(which, &next.temporary_name).await?;
    }
    done()
}
