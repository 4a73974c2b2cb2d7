//! The rows that a failed version inserted, carried over into the database that came back, before
//! the old version may start: `recover --restore-database --carry-rows`.
//!
//! Called by `restore_database` once the restore point is in its place and its sequences stand where
//! they must. Two servers run alone meanwhile, one on each of the two directories.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failed_directory as export;
use super::standalone_postgres as lone;
use crate::database::{self, CutOver, Runner, said_of_carried};
use crate::driver::context::StepContext;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::Quiesced;
use crate::machine::facts::{Carried, Server};
use crate::machine::failure::FailureCode;
use crate::spec;

impl StepContext<'_> {
    /// Carries them over, all of them or none, and says which.
    ///
    /// # Errors
    /// `RESTORE_POINT_FAILED` where nothing could be carried over: a person asked for it, and is
    /// asked again.
    pub(in crate::driver) async fn carry_rows(
        &self,
        server: &Server,
        source: &Path,
        failed: &Path,
    ) -> Result<Carried, Trouble> {
        let carried = self.carry_between(server, source, failed).await;
        self.remove_lone_server().await?;
        match carried {
            Ok(carried) => {
                for said in said_of_carried(&carried) {
                    self.say(&said).await;
                }
                Ok(carried)
            }
            Err(Trouble::Failed(failure)) => fail(
                FailureCode::RestorePointFailed,
                format!(
                    "the database is as it was before {}, and no row was carried over into it: {}; payram-updater recover goes on without them: they are kept in {}, and go into a file once the old version serves",
                    self.hop.version,
                    failure.message,
                    failed.display()
                ),
            ),
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    async fn carry_between(
        &self,
        server: &Server,
        source: &Path,
        failed: &Path,
    ) -> Result<Carried, Trouble> {
        if let Err(reason) = lone::must_be_readable_by(server, failed).await {
            return unknown(reason);
        }
        let saved = SavedSpec::read(&self.hop.old.spec_file)?;
        let Some(mounts) = export::mounts_for(&saved.container, source, failed) else {
            let place = source.display();
            return unknown(format!("where {place} lies inside the container is not known"));
        };
        let at = LogPlace::of(&saved.container, server, source);
        let cut_over = at.cut_over(self.quiesced)?;
        let theirs = self.start_lone_server((server, failed), mounts, &export::MODEST).await?;
        let mounts = spec::mounts_of(&saved.container);
        let ours = self.start_second_lone_server((server, source), mounts, &[]).await?;
        let path = PathBuf::from(crate::driver::export_path(&failed.to_string_lossy()));
        database::carry_rows(
            &Runner::new(self.engine, &theirs.id, &theirs.database),
            &Runner::new(self.engine, &ours.id, &ours.database),
            &cut_over,
            &path,
            self.settings.backup_timeout,
        )
        .await
    }
}

fn unknown<T>(what: impl Into<String>) -> Result<T, Trouble> {
    fail(FailureCode::RuntimeInspectionFailed, what)
}

/// Where a server's log and its programs are, inside its container.
pub(in crate::driver) struct LogPlace {
    directory: PathBuf,
    programs: String,
}

impl LogPlace {
    pub(in crate::driver) fn of(old: &Value, server: &Server, source: &Path) -> Self {
        let inside = export::places_inside(old, source);
        // Where the container sees it twice, its server may not reach it at both places.
        let is_named = |place: &&PathBuf| {
            let place = place.to_string_lossy();
            server.arguments.iter().any(|argument| argument.contains(place.as_ref()))
        };
        let directory = inside.iter().find(is_named).or(inside.last()).cloned();
        let programs = Path::new(&server.program).parent().unwrap_or(Path::new(""));
        Self {
            directory: directory.unwrap_or_default(),
            programs: programs.to_string_lossy().into_owned(),
        }
    }

    /// Since when the log tells of the failed version.
    pub(in crate::driver) fn cut_over<'p>(
        &'p self,
        quiesced: Option<&'p Quiesced>,
    ) -> Result<CutOver<'p>, Trouble> {
        let fingerprint = quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref());
        let transaction = fingerprint.and_then(|fingerprint| fingerprint.next_transaction);
        let cluster = quiesced.and_then(|quiesced| quiesced.cluster.as_ref());
        let (Some(transaction), Some(cluster)) = (transaction, cluster) else {
            return unknown("where the cut-over was in the server's log was not noted");
        };
        let (directory, programs) = (&self.directory, &self.programs);
        Ok(CutOver { transaction, cluster, directory, programs })
    }
}
