//! Runs a restore: *intent → effect → outcome*, until [`crate::restore`] says that it has ended.
//!
//! The API plans one, which reads only, and begins it, which makes it the active job; the driver's
//! loop calls [`Driver::drive_restore`]. What comes next is not decided here; what each step does
//! is in `restore_effects`, what a person is told of it in `restore_narrate`.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::backup::{NotBegun, too_little_room};
use super::restore_effects::RestoreEffects;
use super::shop::Shop;
use super::{Driver, Progress, durable, refusal_after, restore_narrate as narrate};
use crate::clock::Timestamp;
use crate::config::Resume;
use crate::database::{self, Access, Checked};
use crate::engine::mounts;
use crate::error::Trouble;
use crate::journal::{JobId, JournalError, RestoreRecord, RestoreSettlement};
use crate::machine::failure::{Failure, FailureCode};
use crate::plan::free_bytes;
use crate::restore::{
    ContainerName, Format, Kind, Restore, RestoreBody, RestoreOutcome, RestoreStep,
};

/// Between attempts at a step whose outcome is unknown, at first and at most.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
const RETRY_PAUSE_AT_MOST: Duration = Duration::from_secs(30);

/// How long a step that may be left is given when the daemon is told to end.
const GRACE: Duration = Duration::from_secs(5);

/// What a restore would do, or why it may not be begun: what a person is asked about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePlan {
    /// The backup.
    pub backup: PlannedBackup,
    /// What is to be replaced.
    pub replaces: Replaced,
    /// What the present database will be called.
    pub kept_as: String,
    /// What else a person should know, a sentence each.
    pub notes: Vec<String>,
    #[serde(skip)]
    body: RestoreBody,
}

/// The backup of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedBackup {
    /// Its path.
    pub file: String,
    /// `dump` or `sql`.
    pub format: &'static str,
    /// Its size.
    pub size_bytes: u64,
    /// Hex sha256.
    pub checksum: String,
    /// Whether what was noted beside it says the same.
    pub is_as_noted: bool,
    /// RFC 3339.
    pub created_at: String,
    /// The application's version then, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Rows in it, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// The database that is to be replaced.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// Its name.
    pub database: String,
    /// Its host, as the application calls it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Bytes that it takes on its server's disk.
    pub size_bytes: u64,
    /// Its tables.
    pub tables: u64,
    /// Its rows; none when they could not all be counted in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The container, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The version that serves, where it says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Driver {
    /// What a restore of this file would do. Reads only.
    ///
    /// # Errors
    /// `BACKUP_INVALID` with what is wrong with the file, `RECOVERY_REQUIRED`, `DISK_SPACE_LOW`, or
    /// why the database can't be asked.
    pub async fn plan_restore(&self, file: &Path) -> Result<RestorePlan, NotBegun> {
        let path = self.backup_path(file);
        let checked = database::check(&path).await?;
        if let Some(refused) = self.reader.last_executed_job()?.as_ref().and_then(refusal_after) {
            return Err(NotBegun::Failed(refused));
        }
        let shop = self.shop().await?;
        let runner = shop.runner(self);
        let certain = Trouble::into_failure;
        let counted = database::read_back(&runner, &path, checked.format).await.map_err(certain)?;
        let size = database::size(&runner).await.map_err(certain)?;
        self.remember(&shop.database).await;
        let (tables, rows) = database::count_now(&runner).await.map_err(certain)?;
        self.must_hold_both(&shop, size, checked.size_bytes).await?;
        let version = self.serving_version(&shop).await;
        let at = Timestamp::now().compact().replace('-', "_");
        let aside = format!("payram_before_restore_{at}");
        let failed = format!("payram_failed_restore_{at}");
        let taken = database::free_names(&runner, &[&aside, &failed]).await.map_err(certain)?;
        if let Some(taken) = taken {
            let message = format!("there is a database {taken} already; try again in a second");
            return Err(Failure::new(FailureCode::RestoreFailed, message).into());
        }
        let rows_held = checked.rows.or(counted);
        let container = shop.container.as_ref();
        let body = RestoreBody {
            kind: Kind::Restore,
            file: path.to_string_lossy().into_owned(),
            format: checked.format,
            size_bytes: checked.size_bytes,
            sha256: checked.sha256.clone(),
            rows: rows_held,
            made_at: Some(checked.made_at.clone()),
            backup_version: checked.version.clone(),
            serving_version: version.clone(),
            container: container
                .map(|it| ContainerName { id: it.id.clone(), name: it.name.clone() }),
            host: shop.database.host.clone(),
            port: shop.database.port,
            database: shop.database.name.clone(),
            user: shop.database.user.clone(),
            aside: aside.clone(),
            failed,
        };
        let notes = notes(&checked, version.as_deref(), &shop);
        Ok(RestorePlan {
            backup: PlannedBackup {
                file: body.file.clone(),
                format: checked.format.as_str(),
                size_bytes: checked.size_bytes,
                checksum: checked.sha256,
                is_as_noted: checked.has_sidecar,
                created_at: checked.made_at,
                version: checked.version,
                rows: rows_held,
            },
            replaces: Replaced {
                database: body.database.clone(),
                host: body.host.clone(),
                port: body.port,
                size_bytes: size,
                tables,
                rows,
                container: container.map(|it| it.name.clone()),
                version,
            },
            kept_as: aside,
            notes,
            body,
        })
    }

    /// Begins what was planned: from here on it is the active job.
    ///
    /// # Errors
    /// When another job is under way, or a backup is made by hand.
    pub fn begin_restore(&self, plan: &RestorePlan) -> Result<JobId, NotBegun> {
        let events = [narrate::started(&plan.body)];
        let job = self.begin(|| self.journal.begin_restore(&plan.body, &events))?;
        tracing::info!(job = %job, file = plan.body.file, "restore accepted");
        self.wake.notify_one();
        Ok(job)
    }

    /// As it was written, or by its name alone in the backup directory.
    fn backup_path(&self, file: &Path) -> PathBuf {
        match file.is_absolute() {
            true => file.to_owned(),
            false => self.settings.backup_dir.join(file),
        }
    }

    /// A second database has to fit beside the present one, with the log of its making; where its
    /// server's disk is in reach. A full disk would take the server down.
    async fn must_hold_both(&self, shop: &Shop, size: u64, file: u64) -> Result<(), Failure> {
        let Some(container) = &shop.container else { return Ok(()) };
        if shop.database.access == Access::OnHost {
            return Ok(());
        }
        let port = shop.database.port;
        let facts = database::server_facts(self.engine.as_ref(), &container.id, port).await;
        let Ok(facts) = facts else { return Ok(()) };
        let data = Path::new(&facts.data_directory);
        let Some(place) = mounts::host_path(&container.inspection, data) else { return Ok(()) };
        let need = size.max(file.saturating_mul(2)).saturating_mul(2);
        match free_bytes(&place).await {
            Some(have) if have < need => {
                Err(too_little_room(&place, need, have, "a second database and its log"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Runs the steps that are due; answers whether to go on with other work.
    pub(super) async fn drive_restore(
        &self,
        record: &RestoreRecord,
        off: &CancellationToken,
    ) -> Result<bool, JournalError> {
        let mut restore = record.restore.clone();
        if record.is_pending
            && let Some(step) = restore.step()
        {
            self.say_of(record, &format!("found unfinished after a restart: {step}")).await?;
            let is_found = self.found_restore.as_ref() == Some(&record.id);
            let outcome = after_restart(self.settings.resume, is_found, step);
            restore = self.settle_restore(record, restore, step, outcome).await?;
        } else if restore.step() == Some(RestoreStep::Load)
            && let Some(before) = self.reader.last_executed_job()?
        {
            // As before the next upgrade: its watch ends with one more look, and what it kept of
            // the database as it was is tidied. After the restore it is another database.
            self.wind_up(&before, true).await?;
        }
        let mut pause = RETRY_PAUSE;
        while let Some(step) = restore.step() {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            let (journal, job) = (Arc::clone(&self.journal), record.id.clone());
            durable(move || journal.restore_intent(&job, step)).await?;
            self.control.set_blocked(None);
            let Some(outcome) = self.attempt_restore(record, &restore, step, off).await else {
                // Told to end: the next start finds the step unfinished.
                return Ok(false);
            };
            let is_unknown = matches!(outcome, RestoreOutcome::Unknown { .. });
            restore = self.settle_restore(record, restore, step, outcome).await?;
            if is_unknown && restore.step() == Some(step) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = RETRY_PAUSE_AT_MOST.min(pause * 2),
                    () = self.stop.cancelled() => {}
                }
            } else {
                pause = RETRY_PAUSE;
            }
        }
        Ok(true)
    }

    /// One attempt; none when the daemon was told to end in a step that may be left.
    async fn attempt_restore(
        &self,
        record: &RestoreRecord,
        restore: &Restore,
        step: RestoreStep,
        off: &CancellationToken,
    ) -> Option<RestoreOutcome> {
        self.progress.send_replace(Progress::default());
        let called_off = || {
            let message = format!("cancelled by the operator at {step}");
            let failure = Failure::new(FailureCode::Cancelled, message);
            Some(RestoreOutcome::CalledOff { failure })
        };
        if off.is_cancelled() && step.may_be_called_off() {
            return called_off();
        }
        tracing::info!(job = %record.id, %step, "step begins");
        let effects = RestoreEffects { driver: self, record, restore };
        let effect = AssertUnwindSafe(effects.run(step)).catch_unwind();
        let leave = async {
            self.stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let outcome = tokio::select! {
            outcome = effect => Some(outcome.unwrap_or_else(|_| RestoreOutcome::Unknown {
                failure: Failure::new(
                    FailureCode::Unknown,
                    format!("{step}: the updater met a fault of its own; see its log"),
                ),
            })),
            () = leave, if matches!(step, RestoreStep::Load | RestoreStep::Verify) => None,
            () = off.cancelled(), if step.may_be_called_off() => called_off(),
        };
        self.progress.send_replace(Progress::default());
        outcome
    }

    /// Journals an outcome with everything that follows from it, in one transaction.
    async fn settle_restore(
        &self,
        record: &RestoreRecord,
        restore: Restore,
        step: RestoreStep,
        outcome: RestoreOutcome,
    ) -> Result<Restore, JournalError> {
        let (outcome, restore) = match restore.clone().apply(outcome.clone()) {
            Ok(after) => (outcome, after),
            // A fault of ours counts as a failed step.
            Err(misplaced) => {
                let failure = Failure::new(FailureCode::Unknown, misplaced.to_string());
                let outcome = RestoreOutcome::Failed { failure };
                let after = restore.clone().apply(outcome.clone());
                (outcome, after.unwrap_or(restore))
            }
        };
        let ending = restore
            .step()
            .is_none()
            .then(|| narrate::ending(record, &restore, &self.settings.docker_bin));
        let then = RestoreSettlement {
            log: narrate::log_lines(step, &outcome, &restore),
            events: ending
                .iter()
                .map(|ending| narrate::ended(&record.body, &restore, ending))
                .collect(),
            ending,
        };
        for line in &then.log {
            tracing::info!(job = %record.id, %step, "{line}");
        }
        let (journal, job) = (Arc::clone(&self.journal), record.id.clone());
        durable(move || journal.settle_restore(&job, step, &outcome, &then)).await?;
        Ok(restore)
    }

    async fn say_of(&self, record: &RestoreRecord, line: &str) -> Result<(), JournalError> {
        tracing::info!(job = %record.id, "{line}");
        let (journal, job, line) = (Arc::clone(&self.journal), record.id.clone(), line.to_owned());
        durable(move || journal.log(&job, None, &line)).await
    }
}

/// What becomes of a step that was found unfinished. As long as the application serves on its own
/// data, `RESUME` may say that a job which was found at the start does not go on; later the end of
/// it is the nearest way to a shop that serves.
fn after_restart(resume: Resume, is_found: bool, step: RestoreStep) -> RestoreOutcome {
    match resume {
        Resume::Rollback | Resume::Manual if is_found && step.may_be_called_off() => {
            let message = "given up after a restart, as RESUME says";
            let failure = Failure::new(FailureCode::StepInterrupted, message);
            RestoreOutcome::CalledOff { failure }
        }
        Resume::Rollback | Resume::Manual | Resume::Resume => RestoreOutcome::Interrupted,
    }
}

/// What a person should know before consenting.
fn notes(checked: &Checked, serving: Option<&str>, shop: &Shop) -> Vec<String> {
    let mut notes = Vec::new();
    if !checked.has_sidecar {
        notes.push(match checked.format {
            Format::Dump => "no checksum was noted beside this file, so it could not be compared; damage shows while it is loaded, before anything is changed".to_owned(),
            Format::Sql => "this file has no checksum of its own: it begins and ends as it should, and a changed value inside it would not be noticed".to_owned(),
        });
    }
    if let (Some(backup), Some(serving)) = (checked.version.as_deref(), serving)
        && !crate::app::core::is_same_version(backup, serving)
    {
        notes.push(format!(
            "the backup is of {backup}, and {serving} serves: only the database is put back, and {serving} migrates it when it starts. To have {backup} too, go back first: payram-updater run --to {backup} --force"
        ));
    }
    let is_down = shop.container.as_ref().is_none_or(|container| !container.runs());
    if is_down {
        notes.push("no container of the application runs: nothing is stopped for it, and it can't be seen whether the application is well on this data".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_restart_a_restore_is_given_up_where_resume_says_so_and_nothing_was_stopped() {
        for step in RestoreStep::ALL {
            for resume in [Resume::Resume, Resume::Rollback, Resume::Manual] {
                for is_found in [false, true] {
                    let outcome = after_restart(resume, is_found, step);
                    let is_given_up = matches!(outcome, RestoreOutcome::CalledOff { .. });
                    let may_be = is_found && resume != Resume::Resume && step.may_be_called_off();
                    assert_eq!(is_given_up, may_be, "{resume:?} {is_found} {step}");
                }
            }
        }
    }
}
