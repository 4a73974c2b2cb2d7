//! `note_programs`: which programs run, and what the old version does by itself, before any is stopped.

use crate::app::supervisor;
use crate::clock::Timestamp;
use crate::driver::context::StepContext;
use crate::driver::effects::habits;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::Programs;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Noting which programs run";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    let container = cx.inspect_present(cx.old_id(), "old").await?;
    let running = match supervisor::programs(cx.engine, cx.old_id()).await? {
        Some(programs) => supervisor::select(
            &programs,
            &cx.settings.supervisor_exclude,
            cx.settings.supervisor_include.as_deref(),
        ),
        None => Vec::new(),
    };
    let habits = cx.habits().await?;
    cx.say(&habits::sentence(&habits)).await;
    // A clean-up job may have taken what does not run; nothing is stopped for it yet.
    cx.next_is_there().await?;
    let answers = cx.answers(&container).await;
    let last_answer_ms = answers.then(|| Timestamp::now().millis());
    Ok(Fact::Programs(Programs { running, last_answer_ms, habits: Some(Box::new(habits)) }))
}
