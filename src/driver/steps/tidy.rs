//! `tidy`: the old container goes only now (I1), and only while the new one runs; then copies, old
//! backups and what else was left over. No failure of it changes the verdict.

use std::path::PathBuf;

use crate::database;
use crate::driver::context::{StepContext, Which, done};
use crate::driver::effects::containers::occupies_database;
use crate::driver::effects::own_database::OwnDatabase;
use crate::driver::effects::second_server::Noted;
use crate::driver::narrate::short;
use crate::driver::prepare::prune_specs;
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::{Backup, NextContainer};
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Tidying up";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
    backup: &Backup,
) -> Result<Fact, Trouble> {
    let next = Which::next(next);
    let old = cx.old();
    if cx.inspect(old.id).await?.is_some() {
        cx.must_be_alone(next, Noted::Ever).await?;
        let container = cx.inspect_present(next.id, next.role).await?;
        if !occupies_database(&container) {
            return fail(
                FailureCode::DockerError,
                format!(
                    "the {old} is kept: the {next} does not run, it is {}",
                    container["State"]["Status"]
                ),
            );
        }
        if !cx.answers(&container).await {
            return fail(
                FailureCode::HealthcheckFailed,
                format!("the {old} is kept: the {next} does not answer"),
            );
        }
        if let Err((found, code, _)) = OwnDatabase::new(cx, next)?.look(&container, None).await? {
            return fail(code, format!("the {old} is kept: {found}"));
        }
        // What was written there since `create_next` goes with it, too.
        cx.keep_unmounted_files().await?;
        cx.remove(old).await?;
        cx.say(&format!("removed the {}", old)).await;
    }
    cx.discard(cx.copy).await?;
    cx.discard_kept().await?;
    let protected = vec![PathBuf::from(&backup.path)];
    let keep = cx.settings.backup_retention.get() as usize;
    let pruned = database::retention(&cx.settings.backup_dir, keep, &protected)?;
    for path in pruned {
        cx.say(&format!("pruned backup {}", path.display())).await;
    }
    for path in prune_specs(&cx.settings.state_dir, &cx.at.job.id)? {
        cx.say(&format!("removed the old specification {}", path.display())).await;
    }
    cx.remove_strays().await;
    cx.say(&format!("{} serves as {}", short(next.id), cx.hop.old.name)).await;
    done()
}
