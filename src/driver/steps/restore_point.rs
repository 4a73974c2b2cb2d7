//! `restore_point`: the copy is brought up to the last write of the old version (I6), and the files
//! beside the database are copied once nobody writes to them any more.

use std::path::{Path, PathBuf};

use crate::database::{self, Access};
use crate::driver::Progress;
use crate::driver::context::StepContext;
use crate::driver::effects::companions;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::{Copy, KeptMount, RestorePoint};
use crate::restore_point;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "Bringing the copy of the database up to its last write";

pub(in crate::driver) async fn act(cx: &StepContext<'_>, copy: &Copy) -> Result<Fact, Trouble> {
    let began = tokio::time::Instant::now();
    let (bytes, sha256) = match copy {
        Copy::Directory { source, copy, .. } => {
            // A copy of what a server writes to is none (I6).
            cx.nothing_runs("the database is not copied").await?;
            cx.must_be_as_noted().await?;
            let progress = cx.progress.clone();
            let (source, copy) = (PathBuf::from(source), PathBuf::from(copy));
            let unfit = copy.clone();
            let finished = cx
                .blocking(move |cancel| {
                    restore_point::finish(
                        &source,
                        &copy,
                        &mut |done_bytes| {
                            progress.send_replace(Progress { done_bytes, total_bytes: 0 });
                        },
                        cancel,
                    )
                })
                .await;
            let report = cx.making_room(finished, &unfit).await?;
            cx.nothing_runs("the copy of the database is not exact").await?;
            cx.say(&format!(
                "restore point: wrote {} bytes to {} of {} files, {} bytes compared, {} entries removed",
                report.bytes_copied,
                report.files_copied,
                report.files,
                report.bytes_compared,
                report.files_removed
            ))
            .await;
            for note in &report.notes {
                cx.say(&format!("restore point: {note}")).await;
            }
            (report.bytes_copied, report.manifest_sha256)
        }
        Copy::Dump { path, .. } => {
            let target = cx.database()?;
            let path = PathBuf::from(path);
            match target.access {
                Access::OnHost => {
                    let file = cx.dump_restore_point(&path).await?;
                    (file.size_bytes, file.sha256)
                }
                // The server ended with its container: it was taken at `quiesce`.
                Access::InContainer => database::checksum(&path).await?,
            }
        }
    };
    let (files, files_left_out) = files_of(cx, copy).await?;
    let millis = began.elapsed().as_millis() as u64;
    Ok(Fact::RestorePoint(RestorePoint { sha256, bytes, millis, files, files_left_out }))
}

/// The files beside the database, copied once nobody writes to them any more.
async fn files_of(
    cx: &StepContext<'_>,
    copy: &Copy,
) -> Result<(Vec<KeptMount>, Vec<String>), Trouble> {
    let directory = match copy {
        Copy::Directory { source, .. } => Some(Path::new(source)),
        Copy::Dump { .. } if cx.database()?.access == Access::OnHost => None,
        // One of the mounts holds the database, and which one can't be told from here.
        Copy::Dump { .. } => return Ok((Vec::new(), Vec::new())),
    };
    let (kept, left_out) = cx.keep_files(directory, false).await?;
    let said = companions::said_of(&kept);
    if !said.is_empty() {
        cx.say(&format!("restore point: {said}, copied beside the journal")).await;
    }
    for left in &left_out {
        cx.say(&format!("restore point: in no copy: {left}")).await;
    }
    Ok((kept, left_out))
}
