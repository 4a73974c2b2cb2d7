//! A database outside of the container is put back: the dump of the cut-over is loaded beside the
//! failed version's, and both are renamed in one transaction, so that at every instant one of them
//! has the application's name, whole.
//!
//! Called by `restore_database`, on a person's word; both containers have stopped by then. It may be
//! run again after a crash at any instant (I4): the failed version's database has its other name
//! when and only when the rename is done.

use std::path::Path;

use crate::database::{self, Database, Renaming, Runner, SequencesBehind};
use crate::driver::context::StepContext;
use crate::driver::failed_database;
use crate::error::{Trouble, fail};
use crate::machine::Restore;
use crate::machine::facts::Restored;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore::Format;

/// How much longer than a dump its loading may take: indexes are built anew.
const LOADS_IN_TIMES: u32 = 6;

impl StepContext<'_> {
    /// Puts the database as it was at the cut-over in the place of the failed version's, which keeps
    /// everything under a name of its own.
    ///
    /// # Errors
    /// `RESTORE_POINT_FAILED` when the dump is not the one that was taken, and what `load` and
    /// `rename_both` answer; the failed version's database is untouched then.
    pub async fn restore_elsewhere(
        &self,
        work: Restore<'_>,
        dump: &Path,
    ) -> Result<Restored, Trouble> {
        let target = self.database()?;
        let runner = Runner::new(self.engine, self.old_id(), &target);
        let failed = failed_database(&self.at.job.id, self.at.hop);
        let free = database::free_names(&runner, &[&failed]).await.map_err(certain);
        if free.map_err(|trouble| with_dump(trouble, dump))?.is_none() {
            let swapped = self.swap_elsewhere(work, &runner, dump, &failed).await;
            swapped.map_err(|trouble| with_dump(trouble, dump))?;
        }
        let kept = Database { name: failed.clone(), ..target.clone() };
        let kept = Runner::new(self.engine, self.old_id(), &kept);
        let told = bring_up(&runner, &kept).await?;
        let identity = database::identity(&runner, self.ask_within()).await?;
        Ok(Restored {
            database_oid: Some(identity.cluster.database_oid),
            sequences: told.moves,
            sequences_to_check: told.unclear,
            ..Restored::kept_in(failed)
        })
    }

    async fn swap_elsewhere(
        &self,
        work: Restore<'_>,
        runner: &Runner<'_>,
        dump: &Path,
        failed: &str,
    ) -> Result<(), Trouble> {
        let (_, found) = database::checksum(dump).await?;
        if let Some(point) = work.point.filter(|point| point.sha256 != found) {
            let expected = &point.sha256;
            return fail(
                FailureCode::RestorePointFailed,
                format!("{}: expected sha256 {expected}, found {found}", dump.display()),
            );
        }
        // Dropped by the next attempt at it where this one ends half way.
        let made = format!("payram_updater_back_{}_{}", self.at.job.id.short(), self.at.hop);
        let within = self.settings.backup_timeout * LOADS_IN_TIMES;
        let loaded = database::load(runner, &made, dump, Format::Dump, None, within).await;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(trouble) => {
                if let Err(left) = database::drop_made(runner, &made).await {
                    self.say(&format!("database {made} is left: {left}")).await;
                }
                return Err(trouble);
            }
        };
        let live = self.database()?.name;
        let renaming = Renaming {
            live: &live,
            aside: failed,
            coming: &made,
            leaves: loaded.present,
            comes: loaded.made,
        };
        database::rename_both(runner, &renaming).await
    }
}

/// Sets every sequence to the further one of both databases, so that nothing that the failed version
/// handed out is handed out again.
async fn bring_up(back: &Runner<'_>, kept: &Runner<'_>) -> Result<SequencesBehind, Trouble> {
    let (now, reached) = (database::sequences(back).await?, database::sequences(kept).await?);
    let mut behind = database::compare(&now, &reached);
    if behind.moves.is_empty() {
        return Ok(behind);
    }
    let refused = database::move_sequences(back, &behind.moves).await?;
    for (id, why) in refused {
        behind.moves.retain(|one| one.id != id);
        behind.unclear.push(why);
    }
    Ok(behind)
}

/// A server that refuses whoever asks will do so the next time, too: a person is called, and whatever
/// was renamed is looked for when it is tried again.
fn certain(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Unknown(failure) if database::is_refusal(&Trouble::Failed(failure.clone())) => {
            Trouble::Failed(failure)
        }
        other => other,
    }
}

/// With where the database as it was can be found.
fn with_dump(trouble: Trouble, dump: &Path) -> Trouble {
    let told = |failure: Failure| {
        let message = format!(
            "{}; the database is as the failed version left it, and as it was before it is in the dump {}",
            failure.message,
            dump.display()
        );
        Failure::new(failure.code, message)
    };
    match trouble {
        Trouble::Failed(failure) => Trouble::Failed(told(failure)),
        // A rename whose end is not known is looked at again.
        unknown @ Trouble::Unknown(_) => unknown,
    }
}
