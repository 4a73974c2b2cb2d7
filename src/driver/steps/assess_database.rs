//! `assess_database`: the failed version is silenced, and what it did to the database is found before
//! the way back is chosen. Unless the new version serves, and what failed was something around it.

use std::path::Path;

use crate::driver::context::{StepContext, Which};
use crate::driver::effects::containers::{occupies_database, was_started};
use crate::driver::effects::second_server::Noted;
use crate::error::Trouble;
use crate::machine::facts::{Assessment, Copy};
use crate::machine::failure::FailureCode;
use crate::machine::{Assess, Assessed, Fact};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "Going back: finding out what the new version did to the database";

/// The files that say how the server starts and whom it lets in. Who else may write them would
/// have done it while both versions were stopped.
const SETTINGS: [&str; 4] =
    ["postgresql.auto.conf", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    work: Assess<'_>,
) -> Result<Fact, Trouble> {
    let mut found = find_out(cx, work).await?;
    if found.assessment == Assessment::Unchanged {
        let files = changed_settings(cx.copy);
        if !files.is_empty() {
            let what = format!("no row, but the server's settings: {}", files.join(", "));
            found.assessment = Assessment::SchemaChanged { what };
        }
    }
    if let Some(shown) = work.shown
        && !shown.forgets_the_same(&found.assessment)
    {
        cx.say("what the new version did is not what was shown before the consent").await;
    }
    Ok(Fact::Assessment(found))
}

async fn find_out(cx: &StepContext<'_>, work: Assess<'_>) -> Result<Assessed, Trouble> {
    let failure = work.failure;
    if failure.code == FailureCode::DatabaseDamaged {
        return Ok(Assessment::Damaged { by: failure.message.clone() }.into());
    }
    cx.remove_lone_server().await?;
    let next = Which::next(work.next);
    // Two servers that worked in it together leave nothing that a comparison could find.
    // They may have done so beside the old one, too, and whatever became of either.
    match cx.must_be_alone(next, Noted::Ever).await {
        Ok(()) => {}
        Err(Trouble::Failed(failure)) if failure.code == FailureCode::DatabaseDamaged => {
            return Ok(Assessment::Damaged { by: failure.message }.into());
        }
        Err(trouble) => return Err(trouble),
    }
    let container = cx.inspect(next.id).await?;
    let is_up = container.as_ref().is_some_and(occupies_database);
    let was_judged = failure.code.is_a_verdict();
    if let Some(container) = container.as_ref().filter(|_| is_up && !was_judged)
        && let Some(version) = cx.version_that_serves(container).await?
    {
        return Ok(Assessment::Serves { version }.into());
    }
    if container.is_some_and(|container| !was_started(&container)) {
        return Ok(Assessment::Unchanged.into());
    }
    if work.is_restore_begun && !is_up && cx.restore_point_is_back().await {
        cx.say("the restore point is in the database's place already").await;
        return Ok(Assessment::Unchanged.into());
    }
    // Its server is another cluster's: what it says is no evidence. The directory is.
    let is_another = failure.code == FailureCode::DatabaseMismatch;
    let before = cx.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref());
    if let Some(before) = before.filter(|_| is_another) {
        if is_up {
            cx.stop(next).await?;
        }
        return cx.assess_directory(before).await;
    }
    let found = cx.compare_with_cut_over(next, is_up).await?;
    cx.told_by_the_restore_point(next, found).await
}

/// Those of them that are not as they were at the cut-over.
fn changed_settings(copy: Option<&Copy>) -> Vec<String> {
    let Some(Copy::Directory { source, copy, .. }) = copy else { return Vec::new() };
    let read = |directory: &str, file: &str| std::fs::read(Path::new(directory).join(file)).ok();
    // Where one of the two directories can't be read at all, nothing is known.
    if read(source, "PG_VERSION").is_none() || read(copy, "PG_VERSION").is_none() {
        return Vec::new();
    }
    let changed = SETTINGS.into_iter().filter(|file| read(source, file) != read(copy, file));
    changed.map(str::to_owned).collect()
}
