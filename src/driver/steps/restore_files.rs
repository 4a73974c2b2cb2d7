//! `restore_files`: the files beside the database come back where the failed version changed them. No
//! file holds up a way back: what is not put back is told.

use std::path::PathBuf;

use crate::driver::context::StepContext;
use crate::error::Trouble;
use crate::machine::facts::Assessment;
use crate::machine::{Fact, RestoreFiles};
use crate::plan::mounted::Mounted;
use crate::restore_point::{self, Way};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: putting files beside the database back";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    work: RestoreFiles<'_>,
) -> Result<Fact, Trouble> {
    cx.nothing_runs("no file beside the database is put back").await?;
    let mut told = work.told.cloned().unwrap_or_default();
    // Both are told anew.
    told.failed.clear();
    told.left.clear();
    let kept = work.point.files.as_slice();
    // Rows that stay may be about them: the files are left to the old version's gate first.
    let rows_stay = matches!(work.assessment, Some(Assessment::WorkersWrote { .. }));
    let way = match (rows_stay && !work.is_restored, work.is_tried) {
        (true, false) => Way::Tell,
        (true, true) => Way::KeepAdditions,
        (false, _) => Way::Exact,
    };
    let mounts = cx.mounts_beside(cx.directory())?;
    for (number, mount) in kept.iter().enumerate() {
        let companion = mounts.iter().find_map(|found| match found {
            Mounted::Here(companion) if companion.destination == mount.destination => {
                Some(companion.clone())
            }
            Mounted::Here(_) | Mounted::Unreachable(_) => None,
        });
        let Some(companion) = companion else {
            told.failed.push(format!("{}: {} is gone", mount.destination, mount.source));
            continue;
        };
        let aside = cx.files_directory("failed").join(format!("{:03}", number + 1));
        let (copy, sha256) = (PathBuf::from(&mount.copy), mount.sha256.clone());
        let put_back = cx
            .files_work(move |_| restore_point::put_back(&companion, &copy, &sha256, &aside, way))
            .await;
        match put_back {
            Ok(done) => {
                told.contents.extend(done.contents);
                told.moved.extend(done.moved);
                told.left.extend(done.left);
                told.dressed += done.dressed;
                told.failed.extend(done.failed);
            }
            Err(error) => told.failed.push(format!("{}: {error}", mount.destination)),
        }
    }
    for list in [&mut told.contents, &mut told.moved, &mut told.left] {
        list.sort();
        list.dedup();
    }
    let aside = cx.files_directory("failed");
    told.kept_in = aside.is_dir().then(|| aside.display().to_string());
    Ok(Fact::Files(told))
}
