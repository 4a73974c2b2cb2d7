//! `start_next`: the new container is started, once.

use std::path::Path;

use crate::driver::context::{StepContext, Which, done};
use crate::driver::effects::containers::was_started;
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::{Copy, NextContainer, Quiesced};
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Starting the new container";

/// Once started it is not started again: if it ended since, that is for `verify` to judge.
pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
    copy: &Copy,
    quiesced: &Quiesced,
) -> Result<Fact, Trouble> {
    let next = Which::next(next);
    let container = cx.inspect_present(next.id, next.role).await?;
    if was_started(&container) {
        return done();
    }
    if let Copy::Directory { copy, .. } = copy
        && !Path::new(copy).is_dir()
    {
        return fail(
            FailureCode::RestorePointFailed,
            format!(
                "the {next} is not started: the copy of the database {copy}, by which a failed version is taken back, is gone"
            ),
        );
    }
    cx.nobody_works_there(&format!("the {next} is not started")).await?;
    // Once more on what is mounted now: a directory that was moved, or mounted over, since.
    cx.must_be_as_noted().await?;
    let noted = quiesced.lock_file.as_deref();
    cx.free_of_old_lock(noted.unwrap_or_default()).await?;
    cx.start(next, cx.old()).await?;
    done()
}
