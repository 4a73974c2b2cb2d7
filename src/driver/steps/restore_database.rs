//! `restore_database`: the copy takes the place of the directory that the failed version changed, which
//! is moved aside and kept (I7). Sequences that the failed version drew from are set on in it, and
//! its rows carried over where a person asked for that, before the old version may start.

use std::path::{Path, PathBuf};

use crate::driver::context::StepContext;
use crate::driver::{Progress, failed_path};
use crate::error::{Trouble, fail};
use crate::machine::facts::{Copy, Restored};
use crate::machine::failure::FailureCode;
use crate::machine::{Fact, Restore};
use crate::restore_point;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: putting the database back as it was";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    work: Restore<'_>,
) -> Result<Fact, Trouble> {
    // An attempt before this one may have ended while it set the sequences.
    cx.remove_lone_server().await?;
    cx.nothing_runs("the database is not put back").await?;
    let Some(copy) = work.copy else {
        return fail(FailureCode::RestorePointFailed, "the database was never copied");
    };
    match copy {
        Copy::Directory { source, copy, server, .. } => {
            let failed = failed_path(source, &cx.at.job.id, cx.at.hop);
            let (from, to, aside) =
                (PathBuf::from(source), PathBuf::from(copy), PathBuf::from(&failed));
            let expected = work.point.map(|point| point.sha256.clone());
            let progress = cx.progress.clone();
            let dressed = cx
                .blocking(move |cancel| {
                    // A restore that was begun has moved the copy away already.
                    if to.is_dir() {
                        let mut told = |done_bytes| {
                            progress.send_replace(Progress { done_bytes, total_bytes: 0 });
                        };
                        restore_point::verify(&to, expected.as_deref(), &mut told, cancel)?;
                    }
                    restore_point::restore(&from, &to, &aside)
                })
                .await?;
            if dressed > 0 {
                cx.say(&format!(
                    "{dressed} files and directories of the copy had another owner, mode or time than was noted: put right. Their contents are as noted"
                ))
                .await;
            }
            let aside = Path::new(&failed);
            let told = cx.bring_sequences_up(work, server, Path::new(source), aside).await?;
            let (sequences, sequences_to_check) = (told.moves, told.unclear);
            let carried = match work.carries_rows {
                true => Some(cx.carry_rows(server, Path::new(source), aside).await?),
                false => None,
            };
            Ok(Fact::Restored(Restored {
                sequences,
                sequences_to_check,
                carried,
                ..Restored::kept_in(failed)
            }))
        }
        Copy::Dump { path, is_elsewhere: true, .. } => {
            cx.restore_elsewhere(work, Path::new(path)).await.map(Fact::Restored)
        }
        Copy::Dump { path, reason, is_elsewhere: false } => fail(
            FailureCode::RestorePointFailed,
            format!(
                "{reason}, so its restore point is the dump {path}: put it back with pg_restore, then recover. What the failed version wrote is not exported: it is in the database itself, so rename that one instead of dropping it"
            ),
        ),
    }
}
