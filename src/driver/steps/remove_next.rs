//! `remove_next`: the new container goes, last, when nothing depends on it any more. By label, not only
//! by id: the step that created it may have been interrupted before it could tell the id. A server
//! that an export left behind carries the label too.

use crate::driver::context::{StepContext, done};
use crate::driver::effects::containers::was_started;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::NextContainer;
use crate::machine::failure::{Failure, FailureCode};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: removing the new container";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: Option<&NextContainer>,
    failure: &Failure,
) -> Result<Fact, Trouble> {
    cx.remove_lone_server().await?;
    let is_another = failure.code == FailureCode::DatabaseMismatch;
    if let Some(next) = next.filter(|_| is_another)
        && let Some(next) = cx.if_present(next).await?
        && cx.inspect(next.id).await?.is_some_and(|container| was_started(&container))
    {
        // What it took is in a database of its own, which would go with it (I7).
        cx.say(&format!(
            "the {next} is kept, stopped: it served from another database than the shop's, and what it took is in there"
        ))
        .await;
        return done();
    }
    cx.remove_labelled().await?;
    done()
}
