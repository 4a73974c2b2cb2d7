//! The database's server alone: from the old image, read-only, without the application, reached
//! by nobody but the programs that are run beside it.
//!
//! Used to look into a database whose application has ended (`assess`), or was moved aside
//! (`export`). It mounts what its caller says, and is removed by the same caller, or by the next
//! attempt.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::containers::{Which, occupies_database};
use super::{Effects, HOP_LABEL, fail};
use crate::database::{self, Runner};
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::machine::Known;
use crate::machine::facts::Server;
use crate::machine::failure::FailureCode;

/// How long it may take until it answers: recovery after a crash included.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks at whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parts of the old container's `HostConfig` that say what it mounts.
const MOUNTS: [&str; 4] = ["Binds", "Mounts", "VolumesFrom", "Tmpfs"];

/// The others that its server needs to read its directory.
const KEPT: [&str; 4] = ["ShmSize", "Ulimits", "SecurityOpt", "UsernsMode"];

/// Everything that the old container mounts, as parts of a `HostConfig`.
pub(super) fn all_mounts(old: &Value) -> Value {
    let mut mounts = json!({});
    for key in MOUNTS {
        if !old["HostConfig"][key].is_null() {
            mounts[key] = old["HostConfig"][key].clone();
        }
    }
    mounts
}

/// Whether the server's program reads this directory; otherwise why not.
pub(super) async fn must_be_readable_by(server: &Server, directory: &Path) -> Result<(), String> {
    let path = directory.join("PG_VERSION");
    match tokio::fs::read_to_string(&path).await.map(|text| text.trim().parse::<u32>()) {
        Ok(Ok(major)) if major == server.major => Ok(()),
        Ok(found) => {
            Err(format!("the directory was of PostgreSQL {}, it is now of {found:?}", server.major))
        }
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

impl Effects<'_> {
    /// Starts it and waits until it answers; its container's id. The caller has seen that
    /// nothing else runs on the directory.
    pub(super) async fn start_lone_server(
        &self,
        known: &Known<'_>,
        server: &Server,
        mounts: Value,
        settings: &[&str],
    ) -> Result<String, Trouble> {
        let saved = SavedSpec::read(&known.hop.old.spec_file)?;
        let label = json!({HOP_LABEL: self.hop_label()});
        let image = &known.hop.old.image_id;
        let spec = specification(&saved.container, image, server, mounts, settings, &label);
        let id = self.create(known, &self.lone_server_name(known), &spec).await?;
        self.engine.start(&id).await?;
        let target = self.database(known)?;
        let runner = Runner::new(self.engine, &id, &target);
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            let container = self.inspect_present(&id, "database").await?;
            if !occupies_database(&container) {
                let last = self.engine.logs(&id, 3).await.unwrap_or_default();
                return fail(
                    FailureCode::MigrationFailed,
                    format!("its server does not start: {}", last.trim()),
                );
            }
            match database::server_version(&runner).await {
                Ok(_) => return Ok(id),
                Err(trouble) if Instant::now() >= deadline || database::is_refusal(&trouble) => {
                    return Err(trouble);
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    pub(super) fn lone_server_name(&self, known: &Known<'_>) -> String {
        format!("{}-database-{}", known.hop.old.name, self.at.job.id.short())
    }

    /// Stops and removes it, of an earlier attempt too.
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

/// A container that runs only the database's server: the old image, no network but its own
/// loopback, nothing of the application's environment.
fn specification(
    old: &Value,
    image: &str,
    server: &Server,
    mounts: Value,
    settings: &[&str],
    labels: &Value,
) -> Value {
    let mut host = mounts;
    host["NetworkMode"] = json!("none");
    host["RestartPolicy"] = json!({"Name": "no"});
    for key in KEPT {
        if !old["HostConfig"][key].is_null() {
            host[key] = old["HostConfig"][key].clone();
        }
    }
    // Of two settings of one name the later counts.
    let alone = [
        "listen_addresses=localhost",
        "unix_socket_directories=/tmp",
        "autovacuum=off",
        // What the failed version wrote is not for the old one's archive.
        "archive_mode=off",
        "default_transaction_read_only=on",
        // Whether it is not ready yet, or refuses, is told by its words.
        "lc_messages=C",
    ];
    let alone = alone.into_iter().chain(settings.iter().copied());
    let alone = alone.flat_map(|setting| ["-c".to_owned(), setting.to_owned()]);
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
