//! `prove_backup`: the dump is read back, or restored and compared; then the operator's own command
//! copies it elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::back_up::write_sidecar;
use crate::config::BackupProof;
use crate::database::{self, Database, FullProof, Runner};
use crate::driver::backup::copied_event;
use crate::driver::context::StepContext;
use crate::driver::copy_out;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::{Backup, Proof};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Proving that the backup can be read back";

/// How long `pg_restore --list` may take.
const PROOF_TIMEOUT: Duration = Duration::from_secs(300);

pub(in crate::driver) async fn act(cx: &StepContext<'_>, backup: &Backup) -> Result<Fact, Trouble> {
    let path = PathBuf::from(&backup.path);
    database::verify_file(&path, backup).await?;
    let target = cx.database()?;
    let runner = Runner::new(cx.engine, cx.old_id(), &target);
    let mut counted = None;
    let proof = match cx.settings.backup_proof {
        BackupProof::Full => {
            match database::prove_full(&runner, &path, cx.settings.backup_timeout).await? {
                FullProof::Proved { proof, rows } => {
                    counted = rows;
                    let rows = rows.map_or("not counted".to_owned(), |rows| rows.to_string());
                    cx.say(&format!("the backup was restored and compared; rows: {rows}")).await;
                    proof
                }
                FullProof::NotAllowed { reason } => {
                    cx.say(&format!("the backup is only read back: {reason}")).await;
                    database::prove(&runner, &path, PROOF_TIMEOUT).await?
                }
            }
        }
        BackupProof::Toc => database::prove(&runner, &path, PROOF_TIMEOUT).await?,
        BackupProof::Off => Proof { toc_entries: 0, tables: 0 },
    };
    write_sidecar(cx, &runner, &path, backup, Some(proof.clone()), counted).await?;
    if cx.settings.backup_proof != BackupProof::Off {
        copy_out(cx, &path, &target).await;
    }
    Ok(Fact::Proof(proof))
}

/// Runs `BACKUP_COPY_COMMAND`, where there is one. Its end is told and changes nothing.
async fn copy_out(cx: &StepContext<'_>, path: &Path, target: &Database) {
    let Some(command) = cx.settings.backup_copy_command.as_deref() else { return };
    cx.say("copying the backup (BACKUP_COPY_COMMAND)").await;
    let within = cx.settings.backup_timeout;
    let copied = copy_out::run(command, path, within, &target.password).await;
    let (event, lines) = copied_event(&copied, path);
    for line in lines.iter().chain([&event.message]) {
        cx.say(line).await;
    }
    let (journal, job) = (std::sync::Arc::clone(cx.journal), cx.at.job.id.clone());
    let noted = crate::driver::durable(move || journal.note_of(&job, &[event])).await;
    if let Err(error) = noted {
        tracing::warn!(%error, "the end of BACKUP_COPY_COMMAND could not be journaled");
    }
}
