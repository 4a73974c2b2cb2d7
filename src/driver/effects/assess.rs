//! What a failed version did to the database, found before the way back is chosen.
//!
//! The evidence is the server's: schema, counters and row versions, compared with what they
//! were after the old version's last write. When the failed container still runs, its own
//! server is asked. When it has ended, its directory either is untouched, file by file, or the
//! server is started once more without the application, alone and read-only, from the old
//! image (`lone`). What can't be asked is `Unreadable`, never assumed (I11).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failed_directory as export;
use super::standalone_postgres::{self as lone, Admits};
use crate::app::supervisor;
use crate::database::{self, Access, Runner};
use crate::driver::context::{StepContext, Which};
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::Assessed;
use crate::machine::facts::{Assessment, Copy, Fingerprint, Server};
use crate::machine::failure::FailureCode;
use crate::restore_point::{self, RestorePointError};
use crate::spec;

/// How long rows may be counted before the way back is chosen.
const FINGERPRINT_BUDGET: Duration = Duration::from_secs(5);

impl StepContext<'_> {
    /// Silences this version and compares the database with what it was at the cut-over: through
    /// its own server where that answers, otherwise by the directory.
    pub(in crate::driver) async fn compare_with_cut_over(
        &self,
        which: Which<'_>,
        is_up: bool,
    ) -> Result<Assessed, Trouble> {
        let Some(before) = self.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref()) else {
            return self.assess_without_fingerprint(which, is_up).await;
        };
        let target = self.database()?;
        match target.access {
            Access::InContainer => {
                let silenced = if is_up { self.silence(which).await } else { Ok(false) };
                let is_silent = match silenced {
                    Ok(is_silent) => is_silent,
                    Err(Trouble::Failed(failure)) => {
                        // It may be ending just now, its supervisor with it.
                        self.say(&format!("the {which} can't be silenced: {failure}")).await;
                        false
                    }
                    Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
                };
                if !is_silent {
                    if is_up {
                        self.stop(which).await?;
                    }
                    return self.assess_directory(before).await;
                }
            }
            // The database is elsewhere and answers when the container is stopped.
            Access::OnHost if is_up => self.stop(which).await?,
            Access::OnHost => {}
        }
        let runner = Runner::new(self.engine, which.id, &target);
        match self.compare(&runner, before).await {
            Ok(found) => Ok(found),
            Err(_) if target.access == Access::InContainer => {
                // Its server does not answer: it is stopped and asked on its own.
                self.stop(which).await?;
                self.assess_directory(before).await
            }
            Err(trouble) => unreadable(trouble.into_failure().message),
        }
    }

    /// The database could not be asked at the cut-over. A directory that is untouched, file by
    /// file, is evidence enough; otherwise the restore point is asked what it holds, on a copy of
    /// it, now that the answer is needed.
    async fn assess_without_fingerprint(
        &self,
        which: Which<'_>,
        is_up: bool,
    ) -> Result<Assessed, Trouble> {
        const NOT_READ: &str = "the database was not fingerprinted at the cut-over";
        if is_up {
            self.stop(which).await?;
        }
        let Some(Copy::Directory { source, copy, server, .. }) = self.copy else {
            return unreadable(NOT_READ);
        };
        let (from, to) = (PathBuf::from(source), PathBuf::from(copy));
        let compared = self.blocking(move |_| restore_point::first_difference(&from, &to));
        if let Ok(None) = compared.await {
            self.say("the database's directory is as it was, file by file").await;
            return Ok(Assessment::Unchanged.into());
        }
        match self.fingerprint_of_copy(Path::new(source), Path::new(copy), server).await {
            Ok(before) => self.assess_directory(&before).await,
            Err(Trouble::Failed(failure)) => {
                unreadable(format!("{NOT_READ}, and its copy can't be asked: {failure}"))
            }
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// What the restore point holds: its server runs alone on a copy of it, which it writes to.
    pub(super) async fn fingerprint_of_copy(
        &self,
        source: &Path,
        copy: &Path,
        server: &Server,
    ) -> Result<Fingerprint, Trouble> {
        let saved = SavedSpec::read(&self.hop.old.spec_file)?;
        let read = read_from(copy);
        let Some(mounts) = export::mounts_for(&saved.container, source, &read) else {
            return fail(
                FailureCode::RuntimeInspectionFailed,
                format!("where {} lies inside the container is not known", source.display()),
            );
        };
        let (from, to, at) = (copy.to_owned(), read.clone(), read.clone());
        self.blocking(move |cancel| {
            if restore_point::finished(&from)?.is_none() {
                return Err(RestorePointError::NotFinished { path: from });
            }
            restore_point::discard(&to)?;
            restore_point::pre_copy(&from, &to, &mut |_| {}, cancel)
        })
        .await?;
        let asked = async {
            let lone = self.start_lone_server((server, &at), mounts, &export::MODEST).await?;
            let runner = Runner::new(self.engine, &lone.id, &lone.database);
            database::fingerprint(&runner, FINGERPRINT_BUDGET).await
        };
        let fingerprint = asked.await;
        self.remove_lone_server().await?;
        self.blocking(move |_| restore_point::discard(&read)).await?;
        fingerprint
    }

    async fn compare(
        &self,
        runner: &Runner<'_>,
        before: &Fingerprint,
    ) -> Result<Assessed, Trouble> {
        let after = database::fingerprint_since(runner, FINGERPRINT_BUDGET, before).await?;
        let assessment = database::assess(before, &after);
        Ok(Assessed { assessment, sequences: after.sequences })
    }

    /// Stops the programs of the failed version that write to the database; false when there is
    /// no supervisor to stop them by.
    async fn silence(&self, which: Which<'_>) -> Result<bool, Trouble> {
        let Some(programs) = supervisor::programs(self.engine, which.id).await? else {
            return Ok(false);
        };
        let writing = supervisor::select(
            &programs,
            &self.settings.supervisor_exclude,
            self.settings.supervisor_include.as_deref(),
        );
        if !writing.is_empty() {
            supervisor::stop(self.engine, which.id, &writing).await?;
        }
        Ok(true)
    }

    /// The failed container has ended: its directory tells.
    pub(in crate::driver) async fn assess_directory(
        &self,
        before: &Fingerprint,
    ) -> Result<Assessed, Trouble> {
        let Some(Copy::Directory { source, copy, server, .. }) = self.copy else {
            return unreadable("the new version's container has ended, and its database with it");
        };
        let (from, to) = (PathBuf::from(source), PathBuf::from(copy));
        let difference = self.blocking(move |_| restore_point::first_difference(&from, &to)).await;
        match difference {
            Ok(None) => {
                self.say("the database's directory is as it was, file by file").await;
                return Ok(Assessment::Unchanged.into());
            }
            Ok(Some(path)) => {
                self.say(&format!("the new version's server wrote to the directory ({path})"))
                    .await;
            }
            Err(trouble) => return unreadable(trouble.into_failure().message),
        }
        if let Err(reason) = lone::must_be_readable_by(server, Path::new(source)).await {
            return unreadable(reason);
        }
        let assessed = self.ask_lone_server((server, Path::new(source)), before).await;
        self.remove_lone_server().await?;
        match assessed {
            Ok(found) => Ok(found),
            Err(Trouble::Failed(failure)) => unreadable(failure.message),
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// Starts the database's server alone, read-only, reached by nobody else, and compares.
    async fn ask_lone_server(
        &self,
        (server, source): (&Server, &Path),
        before: &Fingerprint,
    ) -> Result<Assessed, Trouble> {
        let saved = SavedSpec::read(&self.hop.old.spec_file)?;
        let mounts = spec::mounts_of(&saved.container);
        // Two servers on one directory destroy it (I2).
        for which in [self.old(), self.next()?] {
            self.must_not_run(which).await?;
            if let Some(container) = self.inspect(which.id).await? {
                self.nobody_else_runs(&container).await?;
            }
        }
        let lone = self.start_lone_server((server, source), mounts, &[]).await?;
        let found =
            self.compare(&Runner::new(self.engine, &lone.id, &lone.database), before).await?;
        Ok(match (lone.admits, &found.assessment) {
            (Admits::Anyone, Assessment::Unchanged) => Assessed {
                assessment: Assessment::SchemaChanged {
                    what: "no row, but its server does not start with its own settings any more, or refuses the application's role"
                        .into(),
                },
                ..found
            },
            (_, _) => found,
        })
    }
}

/// Where a copy of the restore point lies while its server is asked.
pub(in crate::driver) fn read_from(copy: &Path) -> PathBuf {
    let mut name = copy.as_os_str().to_owned();
    name.push("-read");
    PathBuf::from(name)
}

pub(in crate::driver) fn unreadable(reason: impl Into<String>) -> Result<Assessed, Trouble> {
    Ok(Assessment::Unreadable { reason: reason.into() }.into())
}
