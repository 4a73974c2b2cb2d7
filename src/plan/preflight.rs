//! Looks whether an upgrade can be done at all, before anything is touched: the engine, the
//! container, the database, the space on disk (contract section 4).
//!
//! Called by `make`. Reads only; the arithmetic of space is in `space`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Check;
use super::space::{Appetite, Filesystem, Need, gb, needs, weigh};
use crate::config::Settings;
use crate::database::{self, Access, Runner};
use crate::engine::{Engine, EngineFacts, mounts};
use crate::machine::facts::TargetImage;
use crate::machine::failure::{Failure, FailureCode};

/// How long the database may take to say its size.
const SIZE_WITHIN: Duration = Duration::from_secs(20);

/// How long a file system may take to say what is free; a dead network mount never does.
const SPACE_WITHIN: Duration = Duration::from_secs(10);

/// How long the registry may take to say an image's size.
const REGISTRY_WITHIN: Duration = Duration::from_secs(20);

/// The checks made so far, and the first failure among them.
#[derive(Debug, Default)]
pub(super) struct Preflight {
    pub checks: Vec<Check>,
    pub failure: Option<Failure>,
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
        let state = &container["State"];
        let is_running = state["Running"].as_bool() == Some(true)
            && state["Paused"].as_bool() != Some(true)
            && state["Restarting"].as_bool() != Some(true);
        let status = state["Status"].as_str().unwrap_or("in an unknown state");
        if is_running {
            self.passed("container", format!("container {name} is {status}"));
        } else {
            let message =
                format!("container {name} is {status}; an upgrade starts from a running one");
            self.refused("container", Failure::new(FailureCode::RuntimeInspectionFailed, message));
        }
    }

    /// The database's size in bytes, as far as it says it.
    pub async fn database(
        &mut self,
        settings: &Settings,
        engine: &dyn Engine,
        id: &str,
        container: &Value,
    ) -> Option<u64> {
        let target = match database::locate(&environment(container), &settings.pg) {
            Ok(target) => target,
            Err(failure) => {
                self.refused("database", failure);
                return None;
            }
        };
        let runner = Runner::new(engine, id, &target);
        let unknown = match tokio::time::timeout(SIZE_WITHIN, database::size(&runner)).await {
            Ok(Ok(size)) => {
                self.passed("database", format!("the database has {} on disk", gb(size)));
                return Some(size);
            }
            Ok(Err(trouble)) => trouble.to_string(),
            Err(_) => format!("no answer within {} s", SIZE_WITHIN.as_secs()),
        };
        // Refuses nothing: the backup itself finds out, before anything is stopped.
        let message = format!("the database's size is not known, the minimum is taken: {unknown}");
        self.passed("database", message);
        None
    }

    /// Whether there is space for everything that the route writes.
    pub async fn space(
        &mut self,
        settings: &Settings,
        engine: &dyn Engine,
        facts: &EngineFacts,
        container: &Value,
        targets: &[TargetImage],
        database_bytes: Option<u64>,
    ) {
        let mut image_bytes = Vec::new();
        for target in targets {
            let asked = engine.registry_size(&target.repo, &target.tag);
            // Silence is the same as "does not say": both take the contract's 4 GB.
            let size = tokio::time::timeout(REGISTRY_WITHIN, asked).await.unwrap_or_default();
            image_bytes.push(size);
        }
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
            restore_point_dir: &restore_point_dir(settings, engine, container).await,
            data_root: is_here.then_some(data_root),
            database_bytes,
            image_bytes: &image_bytes,
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

/// The directory on whose file system the restore point will lie: beside the database's own, as
/// the running server tells it; below the state directory, as a dump, where there is none on
/// this host.
async fn restore_point_dir(settings: &Settings, engine: &dyn Engine, container: &Value) -> PathBuf {
    let id = container["Id"].as_str().unwrap_or_default();
    let guessed = || guessed_restore_point_dir(settings, container);
    let Ok(target) = database::locate(&environment(container), &settings.pg) else {
        return guessed();
    };
    if target.access == Access::OnHost {
        return settings.state_dir.clone();
    }
    let asked = database::server_facts(engine, id, target.port);
    match tokio::time::timeout(SIZE_WITHIN, asked).await {
        Ok(Ok(facts)) => mounts::host_path(container, Path::new(&facts.data_directory))
            .unwrap_or_else(|| settings.state_dir.clone()),
        Ok(Err(_)) | Err(_) => guessed(),
    }
}

/// From `PGDATA` or the mount's name, while the server can't be asked.
fn guessed_restore_point_dir(settings: &Settings, container: &Value) -> PathBuf {
    let data = environment(container).into_iter().find_map(|variable| {
        variable.strip_prefix("PGDATA=").filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let mounts = container["Mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let holds_data = |destination: &str| match &data {
        Some(data) => data.starts_with(destination),
        None => ["postgres", "pgdata"].iter().any(|name| destination.contains(name)),
    };
    mounts
        .iter()
        .filter_map(|mount| Some((mount["Destination"].as_str()?, mount["Source"].as_str()?)))
        .filter(|(destination, source)| holds_data(destination) && source.starts_with('/'))
        .max_by_key(|(destination, _)| destination.len())
        .map_or_else(|| settings.state_dir.clone(), |(_, source)| PathBuf::from(source))
}

/// `KEY=value` each; holds secrets.
fn environment(container: &Value) -> Vec<String> {
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
    use crate::plan::testing::settings_at;

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_file_system_above_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let there = filesystem(directory.path()).expect("it exists");
        let below = filesystem(&directory.path().join("not/yet")).expect("it will be there");
        assert_eq!(there.device, below.device);
        assert!(there.free_bytes > 0);
    }

    #[test]
    fn the_restore_point_lies_beside_the_database_where_a_mount_holds_it() {
        let settings = settings_at("/state");
        let mounts = json!([
            {"Destination": "/var/lib", "Source": "/srv/lib"},
            {"Destination": "/var/lib/payram/db", "Source": "/srv/db"},
            {"Destination": "/root/payram", "Source": "/srv/payram"},
        ]);
        let named = json!({
            "Mounts": mounts, "Config": {"Env": ["PGDATA=/var/lib/payram/db/15/main"]},
        });
        assert_eq!(guessed_restore_point_dir(&settings, &named), Path::new("/srv/db"));
        let guessed = json!({"Mounts": [
            {"Destination": "/var/lib/postgresql", "Source": "/srv/pg"},
        ]});
        assert_eq!(guessed_restore_point_dir(&settings, &guessed), Path::new("/srv/pg"));
        for unknown in [json!({"Mounts": mounts}), json!({})] {
            assert_eq!(guessed_restore_point_dir(&settings, &unknown), Path::new("/state"));
        }
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
        let short = Need { name: "disk:root", path: "/".into(), bytes: 2, why: "w".to_owned() };
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
