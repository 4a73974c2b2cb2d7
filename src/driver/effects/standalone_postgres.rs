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

use super::containers::occupies_database;
use crate::database::{self, Database, Runner};
use crate::driver::context::{StepContext, Which};
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::Server;
use crate::machine::failure::FailureCode;
use crate::names;
use crate::names::HOP_LABEL;

/// How long it may take until it answers: recovery after a crash included.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks at whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parts of the old container's `HostConfig` beside its mounts that its server needs to read its
/// directory.
const KEPT: [&str; 4] = ["ShmSize", "Ulimits", "SecurityOpt", "UsernsMode"];

/// Whether the server's program reads this directory; otherwise why not.
pub(in crate::driver) async fn must_be_readable_by(
    server: &Server,
    directory: &Path,
) -> Result<(), String> {
    let path = directory.join("PG_VERSION");
    match tokio::fs::read_to_string(&path).await.map(|text| text.trim().parse::<u32>()) {
        Ok(Ok(major)) if major == server.major => Ok(()),
        Ok(found) => {
            Err(format!("the directory was of PostgreSQL {}, it is now of {found:?}", server.major))
        }
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

impl StepContext<'_> {
    /// Starts it and waits until it answers, unless somebody else's server works in `directory`,
    /// which is where it will work. The caller has seen that neither version runs in it.
    ///
    /// Where it does not start as it is configured, or refuses the application's role, whoever
    /// changed that: it is started once more without its libraries, and trusts whoever asks.
    pub(in crate::driver) async fn start_lone_server(
        &self,
        place: (&Server, &Path),
        mounts: Value,
        settings: &[&str],
    ) -> Result<Lone, Trouble> {
        self.start_one_of(&self.lone_server_name(), place, mounts, settings).await
    }

    /// The same, of a second one beside it, on another directory.
    pub(in crate::driver) async fn start_second_lone_server(
        &self,
        place: (&Server, &Path),
        mounts: Value,
        settings: &[&str],
    ) -> Result<Lone, Trouble> {
        let name = self.second_lone_server_name();
        self.start_one_of(&name, place, mounts, settings).await
    }

    async fn start_one_of(
        &self,
        name: &str,
        (server, directory): (&Server, &Path),
        mounts: Value,
        settings: &[&str],
    ) -> Result<Lone, Trouble> {
        const OR_ELSE: &str = "the database's server is not started alone";
        let place = (server, name);
        self.nobody_works_in(directory, OR_ELSE).await?;
        let asked = self.start_lone(place, &mounts, settings, Admits::AsConfigured).await;
        let refused = match asked {
            Err(trouble @ Trouble::Failed(_)) if is_the_directorys_doing(&trouble) => {
                trouble.into_failure()
            }
            asked => return asked,
        };
        self.say(&format!("the database's server alone: {refused}; it is asked without its libraries, and trusts whoever asks")).await;
        self.remove_named(name).await?;
        self.nobody_works_in(directory, OR_ELSE).await?;
        self.start_lone(place, &mounts, settings, Admits::Anyone).await
    }

    async fn start_lone(
        &self,
        (server, name): (&Server, &str),
        mounts: &Value,
        settings: &[&str],
        admits: Admits,
    ) -> Result<Lone, Trouble> {
        let saved = SavedSpec::read(&self.hop.old.spec_file)?;
        let label = json!({HOP_LABEL: self.hop_label()});
        let alone = Alone { image: &self.hop.old.image_id, server, settings, admits };
        let spec = specification(&saved.container, &alone, mounts.clone(), &label);
        let id = self.create(name, &spec).await?;
        self.engine.start(&id).await?;
        let mut database = self.database()?;
        // Who may not log in may still be read for, by the one who may do everything.
        let mut others = match admits {
            Admits::AsConfigured => [].as_slice(),
            Admits::Anyone => &["postgres"],
        }
        .iter();
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            let container = self.inspect_present(&id, "database").await?;
            if !occupies_database(&container) {
                let last = self.engine.logs(&id, 3).await.unwrap_or_default();
                return fail(
                    FailureCode::MigrationFailed,
                    format!("{DOES_NOT_START}: {}", last.trim()),
                );
            }
            match database::server_version(&Runner::new(self.engine, &id, &database)).await {
                Ok(_) => return Ok(Lone { id, database, admits }),
                Err(trouble) if database::is_refusal(&trouble) => match others.next() {
                    Some(user) => (*user).clone_into(&mut database.user),
                    None => return Err(trouble),
                },
                Err(trouble) if Instant::now() >= deadline => return Err(trouble),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    pub(in crate::driver) fn lone_server_name(&self) -> String {
        names::database(&self.hop.old.name, self.at.job.id.short())
    }

    pub(in crate::driver) fn second_lone_server_name(&self) -> String {
        format!("{}-second", self.lone_server_name())
    }

    /// Stops and removes both, of an earlier attempt too.
    pub(in crate::driver) async fn remove_lone_server(&self) -> Result<(), Trouble> {
        self.remove_named(&self.second_lone_server_name()).await?;
        self.remove_named(&self.lone_server_name()).await
    }

    async fn remove_named(&self, name: &str) -> Result<(), Trouble> {
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

/// Whom the server alone lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Admits {
    /// Whom its own files name, by the password that it knows.
    AsConfigured,
    /// Whoever asks from inside of its container, which has no network.
    Anyone,
}

/// A server that runs alone.
pub(in crate::driver) struct Lone {
    /// Its container.
    pub id: String,
    /// How it is asked.
    pub database: Database,
    /// Whom it lets in.
    pub admits: Admits,
}

/// The words of a server that ends instead of starting.
const DOES_NOT_START: &str = "its server does not start";

/// Whether what the directory holds keeps the server from starting or answering.
fn is_the_directorys_doing(trouble: &Trouble) -> bool {
    let Trouble::Failed(failure) = trouble else { return false };
    database::is_refusal(trouble) || failure.message.starts_with(DOES_NOT_START)
}

/// What runs alone, and how.
struct Alone<'a> {
    image: &'a str,
    server: &'a Server,
    settings: &'a [&'a str],
    admits: Admits,
}

/// Starts a server, its program and arguments, that trusts whoever asks.
const TRUSTING: &str = "umask 077 && printf '%s trust\\n' 'local all all' \
    'host all all 127.0.0.1/32' 'host all all ::1/128' >/tmp/payram-updater.hba && exec \"$@\"";

/// A container that runs only the database's server: the old image, no network but its own
/// loopback, nothing of the application's environment.
fn specification(old: &Value, alone: &Alone<'_>, mounts: Value, labels: &Value) -> Value {
    let Alone { image, server, settings, admits } = *alone;
    let mut host = mounts;
    host["NetworkMode"] = json!("none");
    host["RestartPolicy"] = json!({"Name": "no"});
    for key in KEPT {
        if !old["HostConfig"][key].is_null() {
            host[key] = old["HostConfig"][key].clone();
        }
    }
    // Of two settings of one name the later counts.
    let always = [
        "listen_addresses=localhost",
        "unix_socket_directories=/tmp",
        "autovacuum=off",
        // What the failed version wrote is not for the old one's archive.
        "archive_mode=off",
        "default_transaction_read_only=on",
        // Whether it is not ready yet, or refuses, is told by its words.
        "lc_messages=C",
    ];
    let bare = [
        "hba_file=/tmp/payram-updater.hba",
        "shared_preload_libraries=",
        "session_preload_libraries=",
        "local_preload_libraries=",
    ];
    let (entrypoint, first, bare) = match admits {
        Admits::AsConfigured => (json!([server.program]), Vec::new(), [].as_slice()),
        Admits::Anyone => {
            (json!(["sh", "-c", TRUSTING, "sh"]), vec![server.program.clone()], bare.as_slice())
        }
    };
    let more = always.iter().chain(bare).chain(settings);
    let more = more.flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]);
    let arguments: Vec<String> =
        first.into_iter().chain(server.arguments.iter().cloned()).chain(more).collect();
    json!({
        "Image": image,
        "User": server.owner,
        "Labels": labels,
        "Entrypoint": entrypoint,
        "Cmd": arguments,
        // PostgreSQL's fast shutdown (manual, "Shutting Down the Server").
        "StopSignal": "SIGINT",
        "StopTimeout": 60,
        "HostConfig": host,
    })
}
