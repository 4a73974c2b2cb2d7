//! `verify`: the new version passes the gate.

use crate::driver::context::{StepContext, Which};
use crate::driver::effects::second_server::Noted;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Waiting until the new version is healthy";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    let next = Which::next(next);
    cx.must_be_alone(next, Noted::Ever).await?;
    cx.start_what_was_stopped(next, cx.old()).await?;
    let verdict = cx.pass_gate(next, &cx.expected_of_next()).await;
    if let Err(Trouble::Failed(_)) = &verdict {
        cx.journal_last_lines(next).await;
    }
    verdict.map(Fact::Verdict)
}
