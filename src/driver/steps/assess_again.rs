//! `assess_again`: an old version that did not pass its gate is silenced, and whether it or the failed
//! one wrote a row is found out: where neither did, it is stopped, for the restore point to be tried.
//! From here on nothing but the way back starts it.

use std::path::Path;

use crate::driver::context::StepContext;
use crate::driver::effects::assess::unreadable;
use crate::driver::effects::containers::{no_restart, occupies_database};
use crate::driver::effects::second_server::Noted;
use crate::error::Trouble;
use crate::machine::facts::{Assessment, Copy};
use crate::machine::failure::FailureCode;
use crate::machine::{AssessAgain, Assessed, Fact};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "Going back: finding out whether a row was written since the cut-over";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    work: AssessAgain<'_>,
) -> Result<Fact, Trouble> {
    find_out_again(cx, work).await.map(Fact::Assessment)
}

async fn find_out_again(cx: &StepContext<'_>, work: AssessAgain<'_>) -> Result<Assessed, Trouble> {
    cx.remove_lone_server().await?;
    let Copy::Directory { copy, .. } = work.copy else {
        return unreadable("there is no copy of the database's directory");
    };
    if !Path::new(copy).is_dir() {
        return unreadable(format!("the copy of the database {copy} is gone"));
    }
    let old = cx.old();
    match cx.must_be_alone(old, Noted::SinceAsked).await {
        Ok(()) => {}
        Err(Trouble::Failed(failure)) if failure.code == FailureCode::DatabaseDamaged => {
            return Ok(Assessment::Damaged { by: failure.message }.into());
        }
        Err(trouble) => return Err(trouble),
    }
    cx.set_policy(old, &no_restart()).await?;
    let is_up = occupies_database(&cx.inspect_present(old.id, old.role).await?);
    let found = cx.compare_with_cut_over(old, is_up).await?;
    let found = cx.told_by_the_restore_point(old, found).await?;
    // The old version has written nothing: something is put back for it.
    let is_as_before = Some(&found.assessment) == work.assessment;
    if is_as_before || found.assessment == Assessment::Unchanged {
        cx.stop(old).await?;
    }
    Ok(found)
}
