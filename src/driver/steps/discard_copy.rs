//! `discard_copy`: the copy of the database goes, when nothing depends on it any more.

use crate::driver::context::{StepContext, done};
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::Copy;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: removing the copy of the database";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    copy: Option<&Copy>,
) -> Result<Fact, Trouble> {
    cx.discard(copy).await?;
    done()
}
