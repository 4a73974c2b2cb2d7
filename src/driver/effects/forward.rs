//! The effects of the way forward.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::containers::{Which, no_restart, occupies_database, was_started};
use super::habits;
use super::own_database::OwnDatabase;
use super::second_server::Noted;
use super::{Effects, HOP_LABEL, done, fail};
use crate::app::supervisor;
use crate::clock::Timestamp;
use crate::config::BackupProof;
use crate::database::{self, Access, Database, FullProof, Runner};
use crate::driver::backup::copied_event;
use crate::driver::narrate::short;
use crate::driver::prepare::{SavedSpec, prune_specs};
use crate::driver::{Progress, copy_out};
use crate::engine::spec::SpecInputs;
use crate::engine::{EngineError, mounts, parity, spec};
use crate::error::Trouble;
use crate::machine::facts::{Backup, Copy, NextContainer, Programs, Proof, PulledImage};
use crate::machine::failure::{Failure, FailureCode};
use crate::machine::{Fact, Known};

/// How long rows may be counted before the way back is chosen.
pub(super) const FINGERPRINT_BUDGET: Duration = Duration::from_secs(5);

/// How long `pg_restore --list` may take.
const PROOF_TIMEOUT: Duration = Duration::from_secs(300);

/// The majors of PostgreSQL that are looked for in a new image.
const OLDEST_MAJOR: u32 = 9;
const NEWEST_MAJOR: u32 = 30;

/// What an engine's refusal of a pull means, and the sentence for it; no code where it may be
/// anything. The engine passes on what the registry said (distribution's error codes, and Docker
/// Hub's sentences for them).
fn pull_refused(error: &EngineError) -> (Option<FailureCode>, String) {
    let said = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let status = error.status();
    if says(&["toomanyrequests", "TOOMANYREQUESTS", "429 Too Many"]) || status == Some(429) {
        let why = "the registry limits how often it may be asked; try again later, or log in as root (docker login)";
        return (Some(FailureCode::DockerPullFailed), format!("{said}: {why}"));
    }
    if says(&["unauthorized", "denied", "no basic auth credentials", "authentication required"])
        || matches!(status, Some(401 | 403))
    {
        let why = "the registry wants a login, or refuses this host's (docker login, as root)";
        return (Some(FailureCode::RegistryLogin), format!("{said}: {why}"));
    }
    if says(&["no matching manifest", "no match for platform"]) {
        return (Some(FailureCode::ImageArchitecture), said);
    }
    if says(&["manifest unknown", "manifest for", "name unknown", "repository does not exist"]) {
        return (Some(FailureCode::ImageNotFound), said);
    }
    (None, said)
}

impl Effects<'_> {
    /// The old container, for verbs and messages.
    pub(super) fn old<'w>(&'w self, known: &Known<'w>) -> Which<'w> {
        Which { id: self.old_id(known), role: "old" }
    }

    /// Its id: another one where it was removed by somebody and made again.
    pub(super) fn old_id<'w>(&'w self, known: &Known<'w>) -> &'w str {
        self.remade.get().map_or(known.hop.old.id.as_str(), String::as_str)
    }

    /// The other one of the two containers.
    pub(super) fn other_than<'w>(
        &'w self,
        known: &Known<'w>,
        which: Which<'_>,
    ) -> Result<Which<'w>, Trouble> {
        match which.id == self.old_id(known) {
            true => self.next(known),
            false => Ok(self.old(known)),
        }
    }

    /// The next container, which must have been created.
    pub(super) fn next<'k>(&self, known: &Known<'k>) -> Result<Which<'k>, Trouble> {
        match known.next {
            Some(next) => Ok(Which { id: &next.id, role: "new" }),
            None => fail(FailureCode::Unknown, "the new container was never created"),
        }
    }

    pub(super) async fn back_up(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let hop = known.hop;
        let from = hop.from.as_deref().unwrap_or("unknown");
        let name = database::file_name(self.at.began, from, &hop.version);
        let path = self.settings.backup_dir.join(name);
        let target = self.database(known)?;
        let backup = |size_bytes, sha256| Backup {
            path: path.to_string_lossy().into_owned(),
            size_bytes,
            sha256,
            database_host: target.host.clone(),
            database_port: target.port,
            database_name: target.name.clone(),
        };
        // Of this job: a clock that was set back gives one name to two dumps.
        let job = self.at.job.id.as_str();
        let beside = database::Sidecar::beside(&path);
        if let Some(found) = beside.filter(|found| found.job_id.as_deref() == Some(job)) {
            let there = backup(found.size_bytes, found.sha256);
            if database::verify_file(&path, &there).await.is_ok() {
                self.say(&format!("the backup is there already: {}", there.path)).await;
                return Ok(Fact::Backup(there));
            }
        }
        let runner = Runner::new(self.engine, &hop.old.id, &target);
        let size = database::size(&runner).await?;
        self.say(&format!("dumping database {} ({size} bytes on disk)", target.name)).await;
        let progress = self.progress;
        let file =
            database::dump(&runner, &path, self.settings.backup_timeout, &mut |done_bytes| {
                progress.send_replace(Progress { done_bytes, total_bytes: 0 });
            })
            .await?;
        let made = backup(file.size_bytes, file.sha256);
        self.write_sidecar(known, &runner, &path, &made, None, None).await?;
        self.remember(&target).await;
        Ok(Fact::Backup(made))
    }

    async fn write_sidecar(
        &self,
        known: &Known<'_>,
        runner: &Runner<'_>,
        path: &Path,
        backup: &Backup,
        proof: Option<Proof>,
        rows: Option<u64>,
    ) -> Result<(), Trouble> {
        let mut sidecar = database::Sidecar::of(
            backup,
            known.hop.from.clone(),
            Some(known.hop.version.clone()),
            Some(self.at.job.id.to_string()),
            database::server_version(runner).await.ok(),
            proof,
        );
        sidecar.rows = rows;
        sidecar.write_beside(path)?;
        Ok(())
    }

    /// Writes down where the database is, for a restore without the container.
    async fn remember(&self, target: &Database) {
        let (state, target) = (self.settings.state_dir.clone(), target.clone());
        let written = tokio::task::spawn_blocking(move || database::remember(&state, &target));
        if let Ok(Err(failure)) = written.await {
            self.say(&format!("where the database is could not be written down: {failure}")).await;
        }
    }

    /// Runs `BACKUP_COPY_COMMAND`, where there is one. Its end is told and changes nothing.
    async fn copy_out(&self, path: &Path, target: &Database) {
        let Some(command) = self.settings.backup_copy_command.as_deref() else { return };
        self.say("copying the backup (BACKUP_COPY_COMMAND)").await;
        let within = self.settings.backup_timeout;
        let copied = copy_out::run(command, path, within, &target.password).await;
        let (event, lines) = copied_event(&copied, path);
        for line in lines.iter().chain([&event.message]) {
            self.say(line).await;
        }
        let (journal, job) = (std::sync::Arc::clone(self.journal), self.at.job.id.clone());
        let noted = crate::driver::durable(move || journal.note_of(&job, &[event])).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "the end of BACKUP_COPY_COMMAND could not be journaled");
        }
    }

    pub(super) async fn prove_backup(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let Some(backup) = known.backup else {
            return fail(FailureCode::BackupInvalid, "there is no backup to prove");
        };
        let path = PathBuf::from(&backup.path);
        database::verify_file(&path, backup).await?;
        let target = self.database(known)?;
        let runner = Runner::new(self.engine, self.old_id(known), &target);
        let mut counted = None;
        let proof = match self.settings.backup_proof {
            BackupProof::Full => {
                match database::prove_full(&runner, &path, self.settings.backup_timeout).await? {
                    FullProof::Proved { proof, rows } => {
                        counted = rows;
                        let rows = rows.map_or("not counted".to_owned(), |rows| rows.to_string());
                        self.say(&format!("the backup was restored and compared; rows: {rows}"))
                            .await;
                        proof
                    }
                    FullProof::NotAllowed { reason } => {
                        self.say(&format!("the backup is only read back: {reason}")).await;
                        database::prove(&runner, &path, PROOF_TIMEOUT).await?
                    }
                }
            }
            BackupProof::Toc => database::prove(&runner, &path, PROOF_TIMEOUT).await?,
            BackupProof::Off => Proof { toc_entries: 0, tables: 0 },
        };
        self.write_sidecar(known, &runner, &path, backup, Some(proof.clone()), counted).await?;
        if self.settings.backup_proof != BackupProof::Off {
            self.copy_out(&path, &target).await;
        }
        Ok(Fact::Proof(proof))
    }

    pub(super) async fn pull(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let target = &known.hop.target;
        let reference = format!("{}:{}", target.repo, target.tag);
        let sender = self.progress;
        let pulled = self
            .engine
            .pull(&target.repo, &target.tag, &mut |pull| {
                sender.send_replace(Progress {
                    done_bytes: pull.received_bytes,
                    total_bytes: pull.total_bytes,
                });
            })
            .await;
        match pulled {
            Ok(()) => {}
            Err(error) if error.is_unknown() => return Err(error.into()),
            Err(error @ EngineError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                let (code, why) = pull_refused(&error);
                let is_here =
                    code.is_some() && self.engine.inspect_image(&reference).await?.is_some();
                if !is_here {
                    return fail(code.unwrap_or(FailureCode::DockerPullFailed), why);
                }
                // Somebody has pulled or loaded it by hand, as one does where a login is wanted.
                self.say(&format!("{why}; {reference} is on this host already and is taken")).await;
            }
        }
        let Some(image) = self.engine.inspect_image(&reference).await? else {
            return fail(
                FailureCode::DockerPullFailed,
                format!("{reference} was pulled and is not on this host"),
            );
        };
        let Some(id) = image["Id"].as_str() else {
            return fail(FailureCode::DockerPullFailed, format!("{reference} has no image id"));
        };
        self.must_run_here(known, &reference, &image).await?;
        let digest = image["RepoDigests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter_map(|digest| digest.split_once('@'))
            .find(|(repo, _)| *repo == target.repo)
            .map(|(_, digest)| digest.to_owned());
        Ok(Fact::Image(PulledImage { id: id.to_owned(), digest }))
    }

    /// Refuses an image for another architecture, which the registry may not have told.
    async fn must_run_here(
        &self,
        known: &Known<'_>,
        reference: &str,
        image: &Value,
    ) -> Result<(), Trouble> {
        let made_for = image["Architecture"].as_str().unwrap_or_default();
        let facts = self.engine.facts().await?;
        let running = SavedSpec::read(&known.hop.old.spec_file)?;
        let runs_as = running.image["Architecture"].as_str().unwrap_or_default();
        if made_for.is_empty() || crate::plan::runs(made_for, &facts, runs_as) {
            return Ok(());
        }
        fail(
            FailureCode::ImageArchitecture,
            format!(
                "{reference} is made for {made_for}, and this host is {}: it could not start",
                facts.architecture
            ),
        )
    }

    pub(super) async fn create_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let hop = known.hop;
        let Some(image) = known.image else {
            return fail(FailureCode::DockerRunBuildFailed, "the new image was never pulled");
        };
        self.remove_labelled().await?;
        self.keep_unmounted_files(known).await?;
        let saved = SavedSpec::read(&hop.old.spec_file)?;
        let Some(new_image) = self.engine.inspect_image(&image.id).await? else {
            return fail(
                FailureCode::DockerRunBuildFailed,
                format!("the pulled image {} is not on this host any more", image.id),
            );
        };
        let reference = format!("{}:{}", hop.target.repo, hop.target.tag);
        let labels = [(HOP_LABEL.to_owned(), self.hop_label())];
        let facts = self.engine.facts().await?;
        let inputs = SpecInputs {
            old: &saved.container,
            old_image: &saved.image,
            new_image: &new_image,
            image_reference: &reference,
            overlay: self.at.job.body.overlay_of(self.at.hop),
            labels: &labels,
            api_version: &facts.api_version,
        };
        let next = spec::next(&inputs)
            .map_err(|error| Failure::new(FailureCode::DockerRunBuildFailed, error.to_string()))?;
        for note in &next.notes {
            self.say(&format!("specification: {note}")).await;
        }
        let temporary_name = self.temporary_name(known);
        let created = self.create(known, &temporary_name, &next.create_body).await;
        let id = created.map_err(|trouble| match trouble {
            Trouble::Failed(failure) => {
                Trouble::Failed(Failure::new(FailureCode::DockerRunBuildFailed, failure.message))
            }
            unknown @ Trouble::Unknown(_) => unknown,
        })?;
        for (network, endpoint) in &next.further_networks {
            self.engine.connect_network(network, &id, endpoint).await?;
        }
        let container = self.inspect_present(&id, "new").await?;
        if container["Image"].as_str() != Some(image.id.as_str()) {
            return fail(
                FailureCode::SpecParityFailed,
                format!(
                    "the new container runs image {}, pulled was {}",
                    container["Image"], image.id
                ),
            );
        }
        let differences = parity::differences(&container, &inputs);
        if !differences.is_empty() {
            let fields: Vec<String> = differences.iter().map(ToString::to_string).collect();
            return fail(
                FailureCode::SpecParityFailed,
                format!(
                    "the new container would differ from {} in {}",
                    hop.old.name,
                    fields.join("; ")
                ),
            );
        }
        self.must_not_cover_the_database(known, &container).await?;
        Ok(Fact::Next(NextContainer { id, temporary_name }))
    }

    /// Refuses a new container that would have something else mounted where the old one has its
    /// database: an image's `VOLUME` between the mount and the directory, or below it, hides it,
    /// and a fresh cluster would be served (I13).
    async fn must_not_cover_the_database(
        &self,
        known: &Known<'_>,
        next: &Value,
    ) -> Result<(), Trouble> {
        let target = self.database(known)?;
        if target.access == Access::OnHost {
            return Ok(());
        }
        let old = self.inspect_present(self.old_id(known), "old").await?;
        let facts = database::server_facts(self.engine, self.old_id(known), target.port).await?;
        self.must_have_the_servers_major(next, &facts).await?;
        match mounts::covering(&old, next, Path::new(&facts.data_directory)) {
            None => Ok(()),
            Some(found) => fail(
                FailureCode::DatabaseMismatch,
                format!(
                    "the new container would not have the shop's database in {}: {found}",
                    facts.data_directory
                ),
            ),
        }
    }

    /// Refuses a new container with the programs of another major version of PostgreSQL alone, which
    /// would not start on the database. Of Debian's packages, whose directories tell; where the
    /// server's program is not one of those, nothing is known.
    async fn must_have_the_servers_major(
        &self,
        next: &Value,
        server: &database::ServerFacts,
    ) -> Result<(), Trouble> {
        let place = format!("/usr/lib/postgresql/{}/bin/postgres", server.major);
        let id = next["Id"].as_str().unwrap_or_default();
        if server.program != place || self.has_file(id, &place).await? {
            return Ok(());
        }
        for major in OLDEST_MAJOR..=NEWEST_MAJOR {
            let other = format!("/usr/lib/postgresql/{major}/bin/postgres");
            if self.has_file(id, &other).await? {
                return fail(
                    FailureCode::PostgresMajorChange,
                    format!(
                        "the database was made by PostgreSQL {}, and the new image has PostgreSQL {major}, which does not start on it",
                        server.major
                    ),
                );
            }
        }
        Ok(())
    }

    async fn has_file(&self, id: &str, path: &str) -> Result<bool, Trouble> {
        match self.engine.archive(id, path).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the new container is called until it takes the shop's name.
    pub(super) fn temporary_name(&self, known: &Known<'_>) -> String {
        format!("{}-next-{}", known.hop.old.name, self.id_of_hop())
    }

    /// Removes every container of this hop; none of them may run.
    pub(super) async fn remove_labelled(&self) -> Result<(), Trouble> {
        let label = format!("{HOP_LABEL}={}", self.hop_label());
        for container in self.engine.containers(Some(&label)).await? {
            self.remove(Which { id: &container.id, role: "new" }).await?;
        }
        Ok(())
    }

    pub(super) async fn disarm_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        // The last moment at which a stranger on the database costs no downtime.
        let old = self.inspect_present(self.old_id(known), "old").await?;
        self.nobody_else_runs(known, &old).await?;
        self.next_is_there(known).await?;
        if let Some(Copy::Directory { source, .. }) = known.copy {
            let works = self.works_nowhere_but_in(known, &old, Path::new(source)).await?;
            works.or_else(|unseen| fail(FailureCode::RuntimeInspectionFailed, unseen))?;
        }
        self.set_policy(self.old(known), &no_restart()).await?;
        done()
    }

    pub(super) async fn note_programs(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let container = self.inspect_present(self.old_id(known), "old").await?;
        let running = match supervisor::programs(self.engine, self.old_id(known)).await? {
            Some(programs) => supervisor::select(
                &programs,
                &self.settings.supervisor_exclude,
                self.settings.supervisor_include.as_deref(),
            ),
            None => Vec::new(),
        };
        let habits = self.habits(known).await?;
        self.say(&habits::sentence(&habits)).await;
        // A clean-up job may have taken what does not run; nothing is stopped for it yet.
        self.next_is_there(known).await?;
        let answers = self.answers(&container).await;
        let last_answer_ms = answers.then(|| Timestamp::now().millis());
        Ok(Fact::Programs(Programs { running, last_answer_ms, habits: Some(Box::new(habits)) }))
    }

    /// Refuses, before anything is stopped for it, where the new container was removed.
    async fn next_is_there(&self, known: &Known<'_>) -> Result<(), Trouble> {
        let next = self.next(known)?;
        match self.inspect(next.id).await? {
            // Where the database is a directory this was looked for already.
            Some(container) if occupies_database(&container) => fail(
                FailureCode::DatabaseShared,
                format!("somebody started the {next}, which was prepared and is not due yet"),
            ),
            Some(_) => Ok(()),
            None => fail(
                FailureCode::ContainerNotFound,
                format!(
                    "somebody removed the {next}, which was prepared and not started yet (a clean-up job?)"
                ),
            ),
        }
    }

    pub(super) async fn stop_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.stop(self.old(known)).await?;
        done()
    }

    pub(super) async fn rename_old(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let name = format!("{}-previous-{}", known.hop.old.name, self.id_of_hop());
        self.set_name(self.old(known), &name).await?;
        done()
    }

    pub(super) async fn rename_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.set_name(self.next(known)?, &known.hop.old.name).await?;
        done()
    }

    /// Once started it is not started again: if it ended since, that is for `verify` to judge.
    pub(super) async fn start_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let next = self.next(known)?;
        let container = self.inspect_present(next.id, next.role).await?;
        if was_started(&container) {
            return done();
        }
        if let Some(Copy::Directory { copy, .. }) = known.copy
            && !Path::new(copy).is_dir()
        {
            return fail(
                FailureCode::RestorePointFailed,
                format!(
                    "the {next} is not started: the copy of the database {copy}, by which a failed version is taken back, is gone"
                ),
            );
        }
        self.nobody_works_there(known, &format!("the {next} is not started")).await?;
        // Once more on what is mounted now: a directory that was moved, or mounted over, since.
        self.must_be_as_noted(known).await?;
        let noted = known.quiesced.and_then(|quiesced| quiesced.lock_file.as_deref());
        self.free_of_old_lock(known, noted.unwrap_or_default()).await?;
        self.start(known, next, self.old(known)).await?;
        done()
    }

    /// A person goes on with a version that had failed, on the database that it left.
    pub(super) async fn start_again(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let next = self.next(known)?;
        let container = self.inspect_present(next.id, next.role).await?;
        // What answers is left running. Silenced for the assessment, programs of any other may
        // still be stopped.
        if occupies_database(&container) && !self.answers(&container).await {
            self.stop(next).await?;
        }
        self.remove_lone_server(known).await?;
        self.set_policy(next, &no_restart()).await?;
        self.set_name(next, &known.hop.old.name).await?;
        self.start(known, next, self.old(known)).await?;
        done()
    }

    /// Sees that the database's directory holds the cluster that was noted at the cut-over, as
    /// far on as it was.
    pub(super) async fn must_be_as_noted(&self, known: &Known<'_>) -> Result<(), Trouble> {
        let cluster = known.quiesced.and_then(|quiesced| quiesced.cluster.as_ref());
        let (Some(cluster), Some(Copy::Directory { source, .. })) = (cluster, known.copy) else {
            return Ok(());
        };
        match database::directory_difference(cluster, Path::new(source)) {
            None => Ok(()),
            Some(found) => fail(FailureCode::DatabaseMismatch, found),
        }
    }

    /// A host that was rebooted since the verdict has left the new version down, because nothing
    /// unproven starts by itself: it is started and passes the gate again.
    pub(super) async fn arm_next(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let next = self.next(known)?;
        let container = self.inspect_present(next.id, next.role).await?;
        if !occupies_database(&container) {
            self.say(&format!(
                "the {next} does not run any more; it is started and verified again"
            ))
            .await;
            self.start(known, next, self.old(known)).await?;
            self.verify(known).await?;
        }
        self.set_policy(self.next(known)?, &known.hop.old.restart_policy).await?;
        done()
    }

    /// The old container goes only now (I1), and only while the new one runs.
    pub(super) async fn tidy(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        let next = self.next(known)?;
        let old = self.old(known);
        if self.inspect(old.id).await?.is_some() {
            self.must_be_alone(known, next, Noted::Ever).await?;
            let container = self.inspect_present(next.id, next.role).await?;
            if !occupies_database(&container) {
                return fail(
                    FailureCode::DockerError,
                    format!(
                        "the {old} is kept: the {next} does not run, it is {}",
                        container["State"]["Status"]
                    ),
                );
            }
            if !self.answers(&container).await {
                return fail(
                    FailureCode::HealthcheckFailed,
                    format!("the {old} is kept: the {next} does not answer"),
                );
            }
            if let Err((found, code, _)) =
                OwnDatabase::new(self, known, next)?.look(&container, None).await?
            {
                return fail(code, format!("the {old} is kept: {found}"));
            }
            // What was written there since `create_next` goes with it, too.
            self.keep_unmounted_files(known).await?;
            self.remove(old).await?;
            self.say(&format!("removed the {}", old)).await;
        }
        self.discard(known).await?;
        self.discard_kept(known).await?;
        let protected: Vec<PathBuf> =
            known.backup.iter().map(|backup| PathBuf::from(&backup.path)).collect();
        let keep = self.settings.backup_retention.get() as usize;
        let pruned = database::retention(&self.settings.backup_dir, keep, &protected)?;
        for path in pruned {
            self.say(&format!("pruned backup {}", path.display())).await;
        }
        for path in prune_specs(&self.settings.state_dir, &self.at.job.id)? {
            self.say(&format!("removed the old specification {}", path.display())).await;
        }
        self.remove_strays(known).await;
        self.say(&format!("{} serves as {}", short(next.id), known.hop.old.name)).await;
        done()
    }
}
