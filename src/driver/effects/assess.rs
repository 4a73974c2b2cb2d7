//! What a failed version did to the database, found before the way back is chosen.
//!
//! The evidence is the server's: schema, counters and row versions, compared with what they
//! were after the old version's last write. When the failed container still runs, its own
//! server is asked. When it has ended, its directory either is untouched, file by file, or the
//! server is started once more without the application, alone and read-only, from the old
//! image. What can't be asked is `Unreadable`, never assumed (I11).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::containers::{Which, is_running, was_started};
use super::forward::FINGERPRINT_BUDGET;
use super::{Effects, HOP_LABEL};
use crate::app::supervisor;
use crate::database::{self, Access, Runner};
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::machine::facts::{Assessment, Copy, Fingerprint, Server};
use crate::machine::{Fact, Known};
use crate::restore_point;

/// How long the lone server may take until it answers: recovery after a crash included.
const SERVER_STARTS_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks at whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parts of the old container's `HostConfig` that its server needs to read its directory.
const KEPT_FOR_THE_SERVER: [&str; 8] =
    ["Binds", "Mounts", "VolumesFrom", "ShmSize", "Ulimits", "Tmpfs", "SecurityOpt", "UsernsMode"];

impl Effects<'_> {
    /// Silences the failed version, then compares the database with what it was; unless it
    /// serves, and what failed was something around it.
    pub(super) async fn assess_database(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.remove_lone_server(known).await?;
        let next = self.next(known)?;
        let container = self.inspect(next.id).await?;
        let is_up = container.as_ref().is_some_and(is_running);
        let was_judged = known.failure.is_some_and(|failure| failure.code.is_a_verdict());
        if let Some(container) = container.as_ref().filter(|_| is_up && !was_judged)
            && let Some(version) = self.version_that_serves(known, container).await?
        {
            return Ok(Fact::Assessment(Assessment::Serves { version }));
        }
        if container.is_some_and(|container| !was_started(&container)) {
            return Ok(Fact::Assessment(Assessment::Unchanged));
        }
        let Some(before) = known.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref()) else {
            return self.assess_without_fingerprint(known, next, is_up).await;
        };
        let target = self.database(known)?;
        match target.access {
            Access::InContainer => {
                let silenced = if is_up { self.silence(next).await } else { Ok(false) };
                let is_silent = match silenced {
                    Ok(is_silent) => is_silent,
                    Err(Trouble::Failed(failure)) => {
                        // It may be ending just now, its supervisor with it.
                        self.say(&format!("the {next} can't be silenced: {failure}")).await;
                        false
                    }
                    Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
                };
                if !is_silent {
                    if is_up {
                        self.stop(next).await?;
                    }
                    return self.assess_directory(known, before).await;
                }
            }
            // The database is elsewhere and answers when the container is stopped.
            Access::OnHost if is_up => self.stop(next).await?,
            Access::OnHost => {}
        }
        let runner = Runner::new(self.engine, next.id, &target);
        match self.compare(&runner, before).await {
            Ok(assessment) => Ok(Fact::Assessment(assessment)),
            Err(_) if target.access == Access::InContainer => {
                // Its server does not answer: it is stopped and asked on its own.
                self.stop(next).await?;
                self.assess_directory(known, before).await
            }
            Err(trouble) => unreadable(trouble.into_failure().message),
        }
    }

    /// The database could not be asked at the cut-over. A directory that is untouched, file by
    /// file, is evidence enough; anything else is none.
    async fn assess_without_fingerprint(
        &self,
        known: &Known<'_>,
        next: Which<'_>,
        is_up: bool,
    ) -> Result<Fact, Trouble> {
        if is_up {
            self.stop(next).await?;
        }
        if let Some(Copy::Directory { source, copy, .. }) = known.copy {
            let (from, to) = (PathBuf::from(source), PathBuf::from(copy));
            let compared = self.blocking(move |_| restore_point::first_difference(&from, &to));
            if let Ok(None) = compared.await {
                self.say("the database's directory is as it was, file by file").await;
                return Ok(Fact::Assessment(Assessment::Unchanged));
            }
        }
        unreadable("the database was not fingerprinted at the cut-over")
    }

    async fn compare(
        &self,
        runner: &Runner<'_>,
        before: &Fingerprint,
    ) -> Result<Assessment, Trouble> {
        let after = database::fingerprint(runner, FINGERPRINT_BUDGET).await?;
        Ok(database::assess(before, &after))
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
    ) -> Result<Fact, Trouble> {
        let Some(Copy::Directory { source, copy, server, .. }) = known.copy else {
            return unreadable("the new version's container has ended, and its database with it");
        };
        let (from, to) = (PathBuf::from(source), PathBuf::from(copy));
        let difference = self.blocking(move |_| restore_point::first_difference(&from, &to)).await;
        match difference {
            Ok(None) => {
                self.say("the database's directory is as it was, file by file").await;
                return Ok(Fact::Assessment(Assessment::Unchanged));
            }
            Ok(Some(path)) => {
                self.say(&format!("the new version's server wrote to the directory ({path})"))
                    .await;
            }
            Err(trouble) => return unreadable(trouble.into_failure().message),
        }
        let found = tokio::fs::read_to_string(Path::new(source).join("PG_VERSION")).await;
        match found.map(|text| text.trim().parse::<u32>()) {
            Ok(Ok(major)) if major == server.major => {}
            Ok(found) => {
                return unreadable(format!(
                    "the directory was of PostgreSQL {}, it is now of {found:?}",
                    server.major
                ));
            }
            Err(error) => return unreadable(format!("read {source}/PG_VERSION: {error}")),
        }
        let assessed = self.ask_lone_server(known, server, before).await;
        self.remove_lone_server(known).await?;
        match assessed {
            Ok(assessment) => Ok(Fact::Assessment(assessment)),
            Err(Trouble::Failed(failure)) => unreadable(failure.message),
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// Starts the database's server alone, read-only, reached by nobody else, and compares.
    async fn ask_lone_server(
        &self,
        known: &Known<'_>,
        server: &Server,
        before: &Fingerprint,
    ) -> Result<Assessment, Trouble> {
        let saved = SavedSpec::read(&known.hop.old.spec_file)?;
        let label = json!({HOP_LABEL: self.hop_label()});
        let spec = lone_server_spec(&saved.container, &known.hop.old.image_id, server, &label);
        let id = self.engine.create_container(&self.lone_server_name(known), &spec).await?;
        let lone = Which { id: &id, role: "database" };
        // Two servers on one directory destroy it (I2).
        self.start(lone, self.old(known)).await?;
        let target = self.database(known)?;
        let runner = Runner::new(self.engine, &id, &target);
        let deadline = Instant::now() + SERVER_STARTS_WITHIN;
        loop {
            let container = self.inspect_present(lone.id, lone.role).await?;
            if !is_running(&container) {
                let last = self.engine.logs(lone.id, 3).await.unwrap_or_default();
                return super::fail(
                    crate::machine::failure::FailureCode::MigrationFailed,
                    format!("its server does not start: {}", last.trim()),
                );
            }
            match database::server_version(&runner).await {
                Ok(_) => return self.compare(&runner, before).await,
                Err(trouble) if Instant::now() >= deadline => return Err(trouble),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn lone_server_name(&self, known: &Known<'_>) -> String {
        format!("{}-database-{}", known.hop.old.name, self.at.job.id.short())
    }

    /// Stops and removes the lone server, of an earlier attempt too.
    pub(super) async fn remove_lone_server(&self, known: &Known<'_>) -> Result<(), Trouble> {
        let name = self.lone_server_name(known);
        let label = format!("{HOP_LABEL}={}", self.hop_label());
        for container in self.engine.containers(Some(&label)).await? {
            if container.name == name {
                let lone = Which { id: &container.id, role: "database" };
                self.stop(lone).await?;
                self.remove(lone).await?;
                tracing::debug!(container = short(&container.id), "lone server removed");
            }
        }
        Ok(())
    }
}

fn unreadable(reason: impl Into<String>) -> Result<Fact, Trouble> {
    Ok(Fact::Assessment(Assessment::Unreadable { reason: reason.into() }))
}

/// The specification of a container that runs only the database's server: the old image, the
/// old mounts, no network but its own loopback, nothing of the application's environment.
fn lone_server_spec(old: &Value, image: &str, server: &Server, labels: &Value) -> Value {
    let mut host = json!({"NetworkMode": "none", "RestartPolicy": {"Name": "no"}});
    for key in KEPT_FOR_THE_SERVER {
        if !old["HostConfig"][key].is_null() {
            host[key] = old["HostConfig"][key].clone();
        }
    }
    // Of two settings of one name the later counts.
    let alone = [
        "listen_addresses=localhost",
        "unix_socket_directories=/tmp",
        "autovacuum=off",
        "default_transaction_read_only=on",
    ];
    let alone = alone.into_iter().flat_map(|setting| ["-c".to_owned(), setting.to_owned()]);
    let arguments: Vec<String> = server.arguments.iter().cloned().chain(alone).collect();
    json!({
        "Image": image,
        "User": server.owner,
        "Labels": labels,
        "Entrypoint": [server.program],
        "Cmd": arguments,
        // PostgreSQL's fast shutdown (manual, "Shutting Down the Server").
        "StopSignal": "SIGINT",
        "StopTimeout": 60,
        "HostConfig": host,
    })
}
