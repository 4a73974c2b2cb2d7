//! `back_up`: a logical dump while the application serves.

use std::path::Path;

use crate::database::{self, Database, Runner};
use crate::driver::Progress;
use crate::driver::context::StepContext;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::{Backup, Proof};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Backing up the database; the application serves";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    let hop = cx.hop;
    let from = hop.from.as_deref().unwrap_or("unknown");
    let name = database::file_name(cx.at.began, from, &hop.version);
    let path = cx.settings.backup_dir.join(name);
    let target = cx.database()?;
    let backup = |size_bytes, sha256| Backup {
        path: path.to_string_lossy().into_owned(),
        size_bytes,
        sha256,
        database_host: target.host.clone(),
        database_port: target.port,
        database_name: target.name.clone(),
    };
    // Of this job: a clock that was set back gives one name to two dumps.
    let job = cx.at.job.id.as_str();
    let beside = database::Sidecar::beside(&path);
    if let Some(found) = beside.filter(|found| found.job_id.as_deref() == Some(job)) {
        let there = backup(found.size_bytes, found.sha256);
        if database::verify_file(&path, &there).await.is_ok() {
            cx.say(&format!("the backup is there already: {}", there.path)).await;
            return Ok(Fact::Backup(there));
        }
    }
    let runner = Runner::new(cx.engine, &hop.old.id, &target);
    let size = database::size(&runner).await?;
    cx.say(&format!("dumping database {} ({size} bytes on disk)", target.name)).await;
    let progress = cx.progress;
    let file = database::dump(&runner, &path, cx.settings.backup_timeout, &mut |done_bytes| {
        progress.send_replace(Progress { done_bytes, total_bytes: 0 });
    })
    .await?;
    let made = backup(file.size_bytes, file.sha256);
    write_sidecar(cx, &runner, &path, &made, None, None).await?;
    remember(cx, &target).await;
    Ok(Fact::Backup(made))
}

pub(super) async fn write_sidecar(
    cx: &StepContext<'_>,
    runner: &Runner<'_>,
    path: &Path,
    backup: &Backup,
    proof: Option<Proof>,
    rows: Option<u64>,
) -> Result<(), Trouble> {
    let mut sidecar = database::Sidecar::of(
        backup,
        cx.hop.from.clone(),
        Some(cx.hop.version.clone()),
        Some(cx.at.job.id.to_string()),
        database::server_version(runner).await.ok(),
        proof,
    );
    sidecar.rows = rows;
    sidecar.write_beside(path)?;
    Ok(())
}

/// Writes down where the database is, for a restore without the container.
async fn remember(cx: &StepContext<'_>, target: &Database) {
    let (state, target) = (cx.settings.state_dir.clone(), target.clone());
    let written = tokio::task::spawn_blocking(move || database::remember(&state, &target));
    if let Ok(Err(failure)) = written.await {
        cx.say(&format!("where the database is could not be written down: {failure}")).await;
    }
}
