//! Looks whether an upgrade can be done at all, before anything is touched: the engine, the
//! container, the database, the space on disk (contract section 4).
//!
//! Called by `make`. Reads only; the arithmetic of space is in `space`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Check;
use super::coming::{Coming, postgres_major};
use super::owners::Owner;
use super::space::{Appetite, Filesystem, Need, gb, needs, weigh};
use crate::config::{BackupProof, Settings};
use crate::database::{self, Access, Runner};
use crate::engine::{Engine, EngineFacts, Inspection, mounts};
use crate::journal::HopTarget;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore_point;

/// How long the database may take to say its size, and its server where it works.
const DATABASE_WITHIN: Duration = Duration::from_secs(20);

/// What a plan is refused for when the database does not answer.
const UNASKED: &str = "the database can't be asked from here, so it could not be backed up";

/// How long a file system may take to say what is free; a dead network mount never does.
const SPACE_WITHIN: Duration = Duration::from_secs(10);

/// The checks made so far, and the first failure among them.
#[derive(Debug, Default)]
pub(super) struct Preflight {
    pub checks: Vec<Check>,
    pub failure: Option<Failure>,
}

/// What is known of the database, as far as space goes.
#[derive(Debug, Default)]
pub(super) struct DatabaseFound {
    /// Its size.
    bytes: Option<u64>,
    /// What a restore point of it takes.
    copy_bytes: Option<u64>,
    /// The directory in which the restore point will lie.
    place: Option<PathBuf>,
    /// Whether its server runs in the container.
    is_inside: bool,
    /// Its server's major version, where the server is in the container.
    pub major: Option<u32>,
}

impl Preflight {
    /// A check that passed.
    pub fn passed(&mut self, name: &str, message: impl Into<String>) {
        self.checks.push(check(name, true, message.into()));
    }

    /// A check that refuses the plan.
    pub fn refused(&mut self, name: &str, failure: Failure) {
        self.checks.push(check(name, false, failure.message.clone()));
        self.failure.get_or_insert(failure);
    }

    /// Whether the engine answers, and as what.
    pub async fn engine(&mut self, engine: &dyn Engine) -> Option<EngineFacts> {
        match engine.facts().await {
            Ok(facts) => {
                let message = format!("version {} at {}", facts.version, engine.endpoint());
                self.passed("engine", message);
                Some(facts)
            }
            Err(error) => {
                self.refused("engine", Failure::from(&error));
                None
            }
        }
    }

    /// Whether the container runs, from its inspection.
    pub fn container(&mut self, name: &str, container: &Value) {
        let container = Inspection(container);
        let status = container.status();
        if container.may_start_upgrade() {
            self.passed("container", format!("container {name} is {status}"));
        } else {
            let message =
                format!("container {name} is {status}; an upgrade starts from a running one");
            self.refused("container", Failure::new(FailureCode::RuntimeInspectionFailed, message));
        }
    }

    /// Who else manages the container; one that would undo an upgrade refuses it.
    pub fn owners(&mut self, name: &str, owners: &[Owner]) {
        let said = |owner: &Owner| owner.message.clone();
        match owners.iter().find(|owner| owner.refuses) {
            Some(worst) => {
                let failure = Failure::new(FailureCode::ContainerOwned, worst.message.clone());
                self.refused("owners", failure);
            }
            None if owners.is_empty() => {
                self.passed("owners", format!("nothing else starts or replaces {name}"));
            }
            None => {
                self.passed("owners", owners.iter().map(said).collect::<Vec<_>>().join("; "));
            }
        }
    }

    /// The database's size, and where a restore point of it will lie, as far as its server
    /// says it.
    pub async fn database(
        &mut self,
        settings: &Settings,
        engine: &dyn Engine,
        id: &str,
        container: &Value,
    ) -> DatabaseFound {
        let mut found = DatabaseFound::default();
        let target = match database::locate(&environment(container), &settings.pg) {
            Ok(target) => target,
            Err(failure) => {
                self.refused("database", failure);
                return found;
            }
        };
        let runner = Runner::new(engine, id, &target);
        match tokio::time::timeout(DATABASE_WITHIN, database::size(&runner)).await {
            Ok(Ok(size)) => {
                self.passed("database", format!("the database has {} on disk", gb(size)));
                found.bytes = Some(size);
            }
            // A backup would ask it in the same way (I15).
            Ok(Err(trouble)) => {
                let Failure { code, message } = trouble.into_failure();
                let message = format!("{UNASKED}: {message}");
                self.refused("database", Failure::new(code, message));
            }
            Err(_) => {
                let limit = DATABASE_WITHIN.as_secs();
                let message = format!("{UNASKED}: no answer within {limit} s");
                self.refused("database", Failure::new(FailureCode::BackupFailed, message));
            }
        }
        found.is_inside = target.access == Access::InContainer;
        // A dump, unless there is a directory to copy.
        found.place = Some(settings.state_dir.clone());
        found.copy_bytes = found.bytes;
        if found.is_inside {
            let looked = database::server_facts(engine, id, target.port);
            if let Ok(Ok(facts)) = tokio::time::timeout(DATABASE_WITHIN, looked).await {
                found.major = Some(facts.major);
                if let Some(source) = directory_to_copy(container, &facts.data_directory) {
                    // Beside it, since it comes back by a rename; with the log and what else the
                    // server has there.
                    found.copy_bytes = bytes_of_copy(&source).await.or(found.bytes);
                    found.place = source.parent().map(Path::to_owned);
                }
            }
        }
        found
    }

    /// Whether the images to come have another PostgreSQL than the one that made the database. Said
    /// by their configuration, as far as the running image's says rightly what it has; otherwise
    /// the pulled image tells, before anything is stopped.
    pub fn postgres(
        &mut self,
        server: Option<u32>,
        running: Option<&Value>,
        hops: &[HopTarget],
        coming: &[Coming],
    ) {
        let Some(server) = server else { return };
        let tells = running.and_then(|image| postgres_major(&image["Config"])) == Some(server);
        let other = hops.iter().zip(coming).find_map(|(hop, coming)| {
            let major = postgres_major(coming.config.as_ref()?).filter(|_| tells)?;
            (major != server).then_some((hop, major))
        });
        match other {
            Some((hop, major)) => {
                let message = format!(
                    "the database was made by PostgreSQL {server}, and {} brings PostgreSQL {major}, which does not start on it",
                    hop.version
                );
                let failure = Failure::new(FailureCode::PostgresMajorChange, message);
                self.refused("postgres", failure);
            }
            None => self.passed("postgres", format!("the database is PostgreSQL {server}'s")),
        }
    }

    /// Whether there is space for everything that the route writes.
    pub async fn space(
        &mut self,
        settings: &Settings,
        facts: &EngineFacts,
        image_bytes: &[Option<u64>],
        database: &DatabaseFound,
    ) {
        let data_root = Path::new(&facts.data_root);
        let is_here = data_root.is_absolute() && tokio::fs::metadata(data_root).await.is_ok();
        if !is_here {
            let root = &facts.data_root;
            let message =
                format!("the engine's data root {root:?} is not on this host; not checked");
            self.passed("disk:image", message);
        }
        let wanted = needs(&Appetite {
            backup_dir: &settings.backup_dir,
            restore_point: database.place.as_deref().zip(database.copy_bytes),
            proof_dir: match settings.backup_proof {
                BackupProof::Full if database.is_inside => database.place.as_deref(),
                BackupProof::Full | BackupProof::Toc | BackupProof::Off => None,
            },
            data_root: is_here.then_some(data_root),
            database_bytes: database.bytes,
            image_bytes,
        });
        self.add_space(weigh(&look_at_all(wanted).await));
    }

    fn add_space(&mut self, checks: Vec<Check>) {
        let short: Vec<&str> =
            checks.iter().filter(|c| !c.passed).map(|c| c.message.as_str()).collect();
        if !short.is_empty() {
            let message = format!("not enough space on disk: {}", short.join("; "));
            self.failure.get_or_insert(Failure::new(FailureCode::DiskSpaceLow, message));
        }
        self.checks.extend(checks);
    }
}

/// The database's directory as this host sees it. `None` when it lies on no mount, or where
/// this host does not reach it: no directory is copied then.
fn directory_to_copy(container: &Value, data_directory: &str) -> Option<PathBuf> {
    let source = mounts::host_path(container, Path::new(data_directory))?;
    source.join("PG_VERSION").is_file().then_some(source)
}

/// What a copy of a directory takes; none when it can't be told.
async fn bytes_of_copy(source: &Path) -> Option<u64> {
    let source = source.to_owned();
    let surveying = tokio::task::spawn_blocking(move || restore_point::survey(&source));
    let surveyed = tokio::time::timeout(SPACE_WITHIN, surveying).await.ok()?.ok()?;
    surveyed.ok().map(|survey| survey.space_needed())
}

/// `KEY=value` each; holds secrets.
pub(super) fn environment(container: &Value) -> Vec<String> {
    container["Config"]["Env"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

async fn look_at_all(wanted: Vec<Need>) -> Vec<(Need, Result<Filesystem, String>)> {
    let mut looked = Vec::with_capacity(wanted.len());
    for need in wanted {
        let path = need.path.clone();
        let looking = tokio::task::spawn_blocking(move || filesystem(&path));
        let found = match tokio::time::timeout(SPACE_WITHIN, looking).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", SPACE_WITHIN.as_secs())),
        };
        looked.push((need, found));
    }
    looked
}

/// The file system that a path is on, or will be on when it is made.
fn filesystem(path: &Path) -> Result<Filesystem, String> {
    use std::os::unix::fs::MetadataExt;

    let (there, metadata) = nearest(path)?;
    let space = rustix::fs::statvfs(&there)
        .map_err(|error| format!("statvfs {}: {error}", there.display()))?;
    Ok(Filesystem {
        device: metadata.dev(),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
    })
}

/// Bytes that are free where this path is, or will be when it is made; none when that can't be
/// told in time.
pub(crate) async fn free_bytes(path: &Path) -> Option<u64> {
    let path = path.to_owned();
    let looking = tokio::task::spawn_blocking(move || filesystem(&path));
    let found = tokio::time::timeout(SPACE_WITHIN, looking).await.ok()?.ok()?;
    found.ok().map(|found| found.free_bytes)
}

/// The path itself, or the nearest directory above it that exists.
fn nearest(path: &Path) -> Result<(PathBuf, std::fs::Metadata), String> {
    let mut last = format!("{} does not exist", path.display());
    for candidate in path.ancestors().filter(|candidate| !candidate.as_os_str().is_empty()) {
        match std::fs::metadata(candidate) {
            Ok(metadata) => return Ok((candidate.to_owned(), metadata)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                last = format!("{}: {error}", candidate.display());
            }
            Err(error) => return Err(format!("{}: {error}", candidate.display())),
        }
    }
    Err(last)
}

fn check(name: &str, passed: bool, message: String) -> Check {
    Check { name: name.to_owned(), passed, message, need_bytes: None, have_bytes: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_file_system_above_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let there = filesystem(directory.path()).expect("it exists");
        let below = filesystem(&directory.path().join("not/yet")).expect("it will be there");
        assert_eq!(there.device, below.device);
        assert!(there.free_bytes > 0);
    }

    #[tokio::test]
    async fn the_restore_point_is_a_copy_of_the_directory_that_the_server_works_in() {
        let host = tempfile::tempdir().expect("a directory");
        let data = host.path().join("db/15/main");
        std::fs::create_dir_all(&data).expect("the database's directory");
        std::fs::write(data.join("PG_VERSION"), "15\n").expect("a database");
        let container = json!({
            "Mounts": [{"Destination": "/var/lib/payram", "Source": host.path()}],
            // What only looks like the place.
            "Config": {"Env": ["PGDATA=/var/lib/payram/elsewhere"]},
        });
        let source = |inside: &str| directory_to_copy(&container, inside);
        assert_eq!(source("/var/lib/payram/db/15/main"), Some(data.clone()));
        assert_eq!(source("/var/lib/postgresql/15/main"), None, "on no mount");
        assert_eq!(source("/var/lib/payram/db"), None, "no database is there");
        std::fs::write(data.join("1"), vec![0; 100_000]).expect("rows");
        assert!(bytes_of_copy(&data).await.is_some_and(|bytes| bytes > 100_000));
        assert_eq!(bytes_of_copy(host.path()).await, None);
    }

    #[test]
    fn a_container_that_does_not_run_refuses_the_plan() {
        for state in [
            json!({"State": {"Running": false, "Status": "exited"}}),
            json!({"State": {"Running": true, "Paused": true, "Status": "paused"}}),
            json!({"State": {"Running": true, "Restarting": true, "Status": "restarting"}}),
            json!({}),
        ] {
            let mut preflight = Preflight::default();
            preflight.container("payram", &state);
            let failure = preflight.failure.expect("it does not run");
            assert_eq!(failure.code, FailureCode::RuntimeInspectionFailed);
            assert!(!preflight.checks[0].passed);
        }
    }

    #[test]
    fn the_first_failure_is_the_plans_and_every_check_is_listed() {
        let mut preflight = Preflight::default();
        preflight.refused("database", Failure::new(FailureCode::InvalidDbConfig, "no host"));
        let why = "w".to_owned();
        let short = Need { name: "disk:root", path: "/".into(), bytes: 2, why, is_in_turn: false };
        let checks = weigh(&[(short, Ok(Filesystem { device: 1, free_bytes: 1 }))]);
        preflight.add_space(checks.clone());
        assert_eq!(preflight.failure.expect("two failures").code, FailureCode::InvalidDbConfig);
        assert_eq!(preflight.checks.len(), 2);

        let mut preflight = Preflight::default();
        preflight.add_space(checks);
        let failure = preflight.failure.expect("space is short");
        assert_eq!(failure.code, FailureCode::DiskSpaceLow);
        for part in ["/: need", "have", "short by"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}
