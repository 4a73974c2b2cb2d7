//! What a failed version did to the database, found before the way back is chosen.
//!
//! The evidence is the server's: schema, counters and row versions, compared with what they
//! were after the old version's last write. When the failed container still runs, its own
//! server is asked. When it has ended, its directory either is untouched, file by file, or the
//! server is started once more without the application, alone and read-only, from the old
//! image (`lone`). What can't be asked is `Unreadable`, never assumed (I11).

use std::path::{Path, PathBuf};

use super::containers::{Which, no_restart, occupies_database, was_started};
use super::forward::FINGERPRINT_BUDGET;
use super::lone::{self, Admits};
use super::second_server::Noted;
use super::{Effects, export, fail};
use crate::app::supervisor;
use crate::database::{self, Access, Runner};
use crate::driver::prepare::SavedSpec;
use crate::engine::spec;
use crate::error::Trouble;
use crate::machine::facts::{Assessment, Copy, Fingerprint, Server};
use crate::machine::failure::FailureCode;
use crate::machine::{Assessed, Fact, Known};
use crate::restore_point::{self, RestorePointError};

impl Effects<'_> {
    /// Silences the failed version, then compares the database with what it was, and says so
    /// where that is not what a person was shown; unless the new version serves, and what failed
    /// was something around it.
    pub(super) async fn assess_database(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let mut found = self.find_out(known).await?;
        if found.assessment == Assessment::Unchanged {
            let files = changed_settings(known.copy);
            if !files.is_empty() {
                let what = format!("no row, but the server's settings: {}", files.join(", "));
                found.assessment = Assessment::SchemaChanged { what };
            }
        }
        if let Some(shown) = known.shown
            && !shown.forgets_the_same(&found.assessment)
        {
            self.say("what the new version did is not what was shown before the consent").await;
        }
        Ok(Fact::Assessment(found))
    }

    async fn find_out(&self, known: &Known<'_>) -> Result<Assessed, Trouble> {
        if let Some(failure) = known.failure.filter(|f| f.code == FailureCode::DatabaseDamaged) {
            return Ok(Assessment::Damaged { by: failure.message.clone() }.into());
        }
        self.remove_lone_server(known).await?;
        let next = self.next(known)?;
        // Two servers that worked in it together leave nothing that a comparison could find.
        // They may have done so beside the old one, too, and whatever became of either.
        match self.must_be_alone(known, next, Noted::Ever).await {
            Ok(()) => {}
            Err(Trouble::Failed(failure)) if failure.code == FailureCode::DatabaseDamaged => {
                return Ok(Assessment::Damaged { by: failure.message }.into());
            }
            Err(trouble) => return Err(trouble),
        }
        let container = self.inspect(next.id).await?;
        let is_up = container.as_ref().is_some_and(occupies_database);
        let was_judged = known.failure.is_some_and(|failure| failure.code.is_a_verdict());
        if let Some(container) = container.as_ref().filter(|_| is_up && !was_judged)
            && let Some(version) = self.version_that_serves(known, container).await?
        {
            return Ok(Assessment::Serves { version }.into());
        }
        if container.is_some_and(|container| !was_started(&container)) {
            return Ok(Assessment::Unchanged.into());
        }
        // Its server is another cluster's: what it says is no evidence. The directory is.
        let is_another = known.failure.is_some_and(|f| f.code == FailureCode::DatabaseMismatch);
        let before = known.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref());
        if let Some(before) = before.filter(|_| is_another) {
            if is_up {
                self.stop(next).await?;
            }
            return self.assess_directory(known, before).await;
        }
        self.compare_with_cut_over(known, next, is_up).await
    }

    /// Silences the old version, which did not pass its gate, and finds out whether it or the
    /// failed one wrote a row: where neither did, it is stopped, for the restore point to be tried.
    /// From here on nothing but the way back starts it.
    pub(super) async fn assess_again(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.find_out_again(known).await.map(Fact::Assessment)
    }

    async fn find_out_again(&self, known: &Known<'_>) -> Result<Assessed, Trouble> {
        self.remove_lone_server(known).await?;
        let Some(Copy::Directory { copy, .. }) = known.copy else {
            return unreadable("there is no copy of the database's directory");
        };
        if !Path::new(copy).is_dir() {
            return unreadable(format!("the copy of the database {copy} is gone"));
        }
        let old = self.old(known);
        match self.must_be_alone(known, old, Noted::SinceAsked).await {
            Ok(()) => {}
            Err(Trouble::Failed(failure)) if failure.code == FailureCode::DatabaseDamaged => {
                return Ok(Assessment::Damaged { by: failure.message }.into());
            }
            Err(trouble) => return Err(trouble),
        }
        self.set_policy(old, &no_restart()).await?;
        let is_up = occupies_database(&self.inspect_present(old.id, old.role).await?);
        let found = self.compare_with_cut_over(known, old, is_up).await?;
        // The old version has written nothing: something is put back for it.
        let is_as_before = Some(&found.assessment) == known.assessment;
        if is_as_before || found.assessment == Assessment::Unchanged {
            self.stop(old).await?;
        }
        Ok(found)
    }

    /// Silences this version and compares the database with what it was at the cut-over: through
    /// its own server where that answers, otherwise by the directory.
    async fn compare_with_cut_over(
        &self,
        known: &Known<'_>,
        which: Which<'_>,
        is_up: bool,
    ) -> Result<Assessed, Trouble> {
        let Some(before) = known.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref()) else {
            return self.assess_without_fingerprint(known, which, is_up).await;
        };
        let target = self.database(known)?;
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
                    return self.assess_directory(known, before).await;
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
                self.assess_directory(known, before).await
            }
            Err(trouble) => unreadable(trouble.into_failure().message),
        }
    }

    /// The database could not be asked at the cut-over. A directory that is untouched, file by
    /// file, is evidence enough; otherwise the restore point is asked what it holds, on a copy of
    /// it, now that the answer is needed.
    async fn assess_without_fingerprint(
        &self,
        known: &Known<'_>,
        which: Which<'_>,
        is_up: bool,
    ) -> Result<Assessed, Trouble> {
        const NOT_READ: &str = "the database was not fingerprinted at the cut-over";
        if is_up {
            self.stop(which).await?;
        }
        let Some(Copy::Directory { source, copy, server, .. }) = known.copy else {
            return unreadable(NOT_READ);
        };
        let (from, to) = (PathBuf::from(source), PathBuf::from(copy));
        let compared = self.blocking(move |_| restore_point::first_difference(&from, &to));
        if let Ok(None) = compared.await {
            self.say("the database's directory is as it was, file by file").await;
            return Ok(Assessment::Unchanged.into());
        }
        match self.fingerprint_of_copy(known, Path::new(source), Path::new(copy), server).await {
            Ok(before) => self.assess_directory(known, &before).await,
            Err(Trouble::Failed(failure)) => {
                unreadable(format!("{NOT_READ}, and its copy can't be asked: {failure}"))
            }
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// What the restore point holds: its server runs alone on a copy of it, which it writes to.
    async fn fingerprint_of_copy(
        &self,
        known: &Known<'_>,
        source: &Path,
        copy: &Path,
        server: &Server,
    ) -> Result<Fingerprint, Trouble> {
        let saved = SavedSpec::read(&known.hop.old.spec_file)?;
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
            let lone =
                self.start_lone_server(known, (server, &at), mounts, &export::MODEST).await?;
            let runner = Runner::new(self.engine, &lone.id, &lone.database);
            database::fingerprint(&runner, FINGERPRINT_BUDGET).await
        };
        let fingerprint = asked.await;
        self.remove_lone_server(known).await?;
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
    async fn assess_directory(
        &self,
        known: &Known<'_>,
        before: &Fingerprint,
    ) -> Result<Assessed, Trouble> {
        let Some(Copy::Directory { source, copy, server, .. }) = known.copy else {
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
        let assessed = self.ask_lone_server(known, (server, Path::new(source)), before).await;
        self.remove_lone_server(known).await?;
        match assessed {
            Ok(found) => Ok(found),
            Err(Trouble::Failed(failure)) => unreadable(failure.message),
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// Starts the database's server alone, read-only, reached by nobody else, and compares.
    async fn ask_lone_server(
        &self,
        known: &Known<'_>,
        (server, source): (&Server, &Path),
        before: &Fingerprint,
    ) -> Result<Assessed, Trouble> {
        let saved = SavedSpec::read(&known.hop.old.spec_file)?;
        let mounts = spec::mounts_of(&saved.container);
        // Two servers on one directory destroy it (I2).
        for which in [self.old(known), self.next(known)?] {
            self.must_not_run(which).await?;
            if let Some(container) = self.inspect(which.id).await? {
                self.nobody_else_runs(known, &container).await?;
            }
        }
        let lone = self.start_lone_server(known, (server, source), mounts, &[]).await?;
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
pub(super) fn read_from(copy: &Path) -> PathBuf {
    let mut name = copy.as_os_str().to_owned();
    name.push("-read");
    PathBuf::from(name)
}

/// The files that say how the server starts and whom it lets in. Who else may write them would
/// have done it while both versions were stopped.
const SETTINGS: [&str; 4] =
    ["postgresql.auto.conf", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// Those of them that are not as they were at the cut-over.
fn changed_settings(copy: Option<&Copy>) -> Vec<String> {
    let Some(Copy::Directory { source, copy, .. }) = copy else { return Vec::new() };
    let read = |directory: &str, file: &str| std::fs::read(Path::new(directory).join(file)).ok();
    // Where one of the two directories can't be read at all, nothing is known.
    if read(source, "PG_VERSION").is_none() || read(copy, "PG_VERSION").is_none() {
        return Vec::new();
    }
    let changed = SETTINGS.into_iter().filter(|file| read(source, file) != read(copy, file));
    changed.map(str::to_owned).collect()
}

fn unreadable(reason: impl Into<String>) -> Result<Assessed, Trouble> {
    Ok(Assessment::Unreadable { reason: reason.into() }.into())
}
