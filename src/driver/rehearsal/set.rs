//! A copy of the shop that a version is tried on: its database rebuilt from a dump, and what else
//! the container has mounted (I14).
//!
//! Called by the rehearsal's steps. The server that is filled is the shop's image's, alone in a
//! container without a network; it has ended, in good order, before a version is started on its
//! directory.

use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::mounts::{self, Given, Home};
use crate::database::{self, Control, Database, Rebuilt, Recipe, Runner, ServerFacts, WORKPLACE};
use crate::driver::Driver;
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::machine::facts::Fingerprint;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore_point;
use crate::spec::{Isolation, isolated};

/// How long the new cluster's server may take to answer.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long rows may be counted for what a version changes.
const COUNT_WITHIN: Duration = Duration::from_secs(5);

/// What the copy's server must not do, whatever the shop's settings say: wait for a standby that is
/// not there, fill a disk with what nobody archives.
const OVER_ITS_SETTINGS: &str = "\n# Of a rehearsal.\narchive_mode = 'off'\narchive_command = ''\n\
    synchronous_standby_names = ''\n";

/// A copy that is ready.
pub(super) struct Set {
    /// All of it lies below.
    pub root: PathBuf,
    /// What a version has mounted.
    pub given: Given,
    /// What the database held before any version was started on it.
    pub before: Fingerprint,
    /// The cluster's `system_identifier`.
    pub identifier: String,
    /// What was rebuilt.
    pub rebuilt: Rebuilt,
}

/// What the shop is, as far as a copy of it is made.
pub(super) struct Original {
    pub container: Value,
    pub image: Value,
    pub database: Database,
    pub server: ServerFacts,
    pub home: Home,
    pub recipe: Recipe,
    /// The dump.
    pub dump: PathBuf,
}

/// How a container of a rehearsal is called and marked, and what it may take.
pub(super) struct Marks<'m> {
    pub name: String,
    pub labels: &'m [(String, String)],
    pub memory_bytes: u64,
}

impl Original {
    /// Makes a copy in the directory `root`, which is made. `next` is the body of the create
    /// request of the version that is to be tried on it.
    ///
    /// # Errors
    /// When it can't be made; what is there of it is swept up with the rehearsal.
    pub async fn copy(
        &self,
        driver: &Driver,
        next: &Value,
        root: PathBuf,
        (marks, within): (&Marks<'_>, Duration),
    ) -> Result<Set, Trouble> {
        let deadline = Instant::now() + within;
        let cluster = root.join("cluster");
        make_directories(&root, &cluster, &self.server.owner)?;
        let id = self.start_empty(driver, &cluster, marks).await?;
        let engine = driver.engine.as_ref();
        let superuser = self.recipe.as_superuser();
        let runner = Runner::new(engine, &id, &superuser);
        answers(driver, &id, &runner).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let rebuilt = self.recipe.fill(&runner, &self.database, &self.dump, left).await?;
        let application = self.recipe.as_application(&self.database);
        let before =
            database::fingerprint(&Runner::new(engine, &id, &application), COUNT_WITHIN).await?;
        engine.stop(&id, None).await?;
        engine.remove_with_anonymous(&id).await?;
        let identifier = self.take_over_settings(&cluster).await?;
        let (container, home, next) = (self.container.clone(), self.home.clone(), next.clone());
        let set = root.clone();
        let giving = tokio::task::spawn_blocking(move || {
            mounts::give(&container, &next, &home, (&set, &cluster))
        });
        let given = match giving.await {
            Ok(given) => given?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        Ok(Set { root, given, before, identifier, rebuilt })
    }

    /// The container of a server on a new cluster in this directory.
    async fn start_empty(
        &self,
        driver: &Driver,
        cluster: &Path,
        marks: &Marks<'_>,
    ) -> Result<String, Trouble> {
        let (entry, command) = self.recipe.command(&self.server.program);
        let old = &self.container["HostConfig"];
        let alone = json!({
            "User": self.server.owner,
            "Entrypoint": entry,
            "Cmd": command,
            // PostgreSQL's fast shutdown (manual, "Shutting Down the Server").
            "StopSignal": "SIGINT",
            "StopTimeout": 120,
            "HostConfig": {
                "ShmSize": old["ShmSize"],
                "Ulimits": old["Ulimits"],
                "SecurityOpt": old["SecurityOpt"],
            },
        });
        let mount = json!({
            "Type": "bind", "Source": cluster.to_string_lossy(), "Target": WORKPLACE,
            "BindOptions": {"NonRecursive": true, "Propagation": "rprivate"},
        });
        let id = self.image["Id"].as_str().unwrap_or_default();
        let isolation = Isolation {
            image: id,
            of_image: &self.image,
            labels: marks.labels,
            mounts: &[mount],
            memory_bytes: marks.memory_bytes,
        };
        start(driver, &marks.name, &isolated(&alone, &isolation)).await
    }

    /// The new cluster's server is set as the shop's is, as far as that is said in its directory.
    async fn take_over_settings(&self, cluster: &Path) -> Result<String, Trouble> {
        let (source, cluster) = (self.home.source.clone(), cluster.to_owned());
        let taking = tokio::task::spawn_blocking(move || -> Result<String, String> {
            restore_point::copy_settings(&source, &cluster).map_err(|error| error.to_string())?;
            let path = cluster.join("postgresql.auto.conf");
            let auto = std::fs::OpenOptions::new().append(true).open(&path);
            auto.and_then(|mut file| {
                std::io::Write::write_all(&mut file, OVER_ITS_SETTINGS.as_bytes())
            })
            .map_err(|error| format!("write {}: {error}", path.display()))?;
            match Control::read(&cluster)? {
                Some(control) => Ok(control.system_identifier.to_string()),
                None => Err("its control file is of a version that is not known".into()),
            }
        });
        let taken = match taking.await {
            Ok(taken) => taken,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        taken.map_err(|reason| {
            let message = format!("set the copy's server as the shop's is: {reason}");
            Trouble::failed(FailureCode::RuntimeInspectionFailed, message)
        })
    }
}

/// Creates a container and starts it.
pub(super) async fn start(driver: &Driver, name: &str, spec: &Value) -> Result<String, Trouble> {
    let engine = driver.engine.as_ref();
    let created = engine.create_container(name, spec).await;
    let id = created.map_err(|error| match Trouble::from(error) {
        Trouble::Failed(failure) => {
            Trouble::failed(FailureCode::DockerRunBuildFailed, failure.message)
        }
        unknown @ Trouble::Unknown(_) => unknown,
    })?;
    engine.start(&id).await?;
    Ok(id)
}

/// Until the new cluster's server answers.
async fn answers(driver: &Driver, id: &str, runner: &Runner<'_>) -> Result<(), Trouble> {
    let deadline = Instant::now() + STARTS_WITHIN;
    loop {
        let container = driver.engine.inspect_container(id).await?.unwrap_or_default();
        if !Inspection(&container).occupies_database() {
            let last = driver.engine.logs(id, 5).await.unwrap_or_default();
            let message = format!("the copy's server does not start: {}", last.trim());
            return Err(Trouble::failed(FailureCode::RuntimeInspectionFailed, message));
        }
        match database::server_version(runner).await {
            Ok(_) => return Ok(()),
            Err(trouble) if Instant::now() >= deadline => return Err(trouble),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The whole is root's alone; the cluster belongs to the server's user, `UID:GID`.
fn make_directories(root: &Path, cluster: &Path, owner: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull => FailureCode::DiskSpaceLow,
            _ => FailureCode::RuntimeInspectionFailed,
        };
        Failure::new(code, format!("create directory {}: {error}", cluster.display()))
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700).recursive(true).create(root).map_err(failed)?;
    std::fs::DirBuilder::new().mode(0o700).create(cluster).map_err(failed)?;
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    let mut parts = owner.split(':');
    let (uid, gid) = (number(parts.next()), number(parts.next()));
    chown(cluster, uid, gid).map_err(failed)
}
