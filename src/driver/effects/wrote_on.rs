//! An old version that wrote on after the fingerprint of the cut-over was read, because it has no
//! supervisor whose programs could be stopped before: what it wrote last is its own, and not the
//! failed version's.
//!
//! Called by the assessments. The restore point was taken after its last write: where it makes a
//! difference its server is asked once more, alone and on a copy, now that the answer is needed.

use std::path::{Path, PathBuf};

use crate::driver::context::{StepContext, Which};
use crate::driver::failed_path;
use crate::error::Trouble;
use crate::machine::Assessed;
use crate::machine::facts::{Assessment, Copy, RollbackDatabase};
use crate::restore_point;

impl StepContext<'_> {
    /// What the restore point says of it instead, where either version may have done what was found.
    /// That costs time, which is spent only where a person would be asked otherwise: rows that stay
    /// anyway stay, whoever wrote them.
    pub(in crate::driver) async fn told_by_the_restore_point(
        &self,
        which: Which<'_>,
        found: Assessed,
    ) -> Result<Assessed, Trouble> {
        let is_clear = match &found.assessment {
            Assessment::Unchanged
            | Assessment::SchemaChanged { .. }
            | Assessment::Damaged { .. }
            | Assessment::Serves { .. } => true,
            Assessment::WorkersWrote { .. } => {
                self.hop.rollback_database != RollbackDatabase::Manual
            }
            Assessment::RowsChanged { .. } | Assessment::Unreadable { .. } => false,
        };
        let wrote_on = self.quiesced.is_some_and(|quiesced| {
            quiesced.programs.running.is_empty() && quiesced.fingerprint.is_some()
        });
        let Some(Copy::Directory { source, copy, server, .. }) = self.copy else {
            return Ok(found);
        };
        if is_clear || !wrote_on {
            return Ok(found);
        }
        if self.inspect(which.id).await?.is_some() {
            self.stop(which).await?;
        }
        match self.fingerprint_of_copy(Path::new(source), Path::new(copy), server).await {
            Ok(before) => self.assess_directory(&before).await,
            Err(Trouble::Failed(failure)) => {
                self.say(&format!(
                    "what the old version wrote last can't be told apart, because the restore point can't be asked: {failure}"
                ))
                .await;
                Ok(found)
            }
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// Whether a return of the restore point came as far as that: what is in the database's place is
    /// not the failed version's then, and what the old version wrote after the note, or was carried
    /// over, is nothing that going on would forget.
    pub(in crate::driver) async fn restore_point_is_back(&self) -> bool {
        let Some(Copy::Directory { source, copy, .. }) = self.copy else { return false };
        let failed = PathBuf::from(failed_path(source, &self.at.job.id, self.at.hop));
        let (source, copy) = (PathBuf::from(source), PathBuf::from(copy));
        let is_back = self.blocking(move |_| restore_point::is_back(&source, &copy, &failed)).await;
        // Where that can't be told the database itself is asked.
        matches!(is_back, Ok(true))
    }
}
