//! From a hop of the route to a [`Hop`]: looks at the container as it is now, and puts its
//! whole inspection on disk before anything is changed (I5).

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Settings;
use crate::engine::{Engine, Inspection};
use crate::journal::{HopTarget, JobId, JobRecord};
use crate::machine::Hop;
use crate::machine::facts::{CoreRules, OldContainer};
use crate::machine::failure::{Failure, FailureCode};

/// What is kept of the old container: enough to make it again by hand. Holds secrets; lies in
/// a file of mode 0600.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedSpec {
    /// The raw inspection of the container.
    pub container: Value,
    /// The raw inspection of its image.
    pub image: Value,
}

impl SavedSpec {
    /// Reads what was saved for this hop.
    pub fn read(path: &str) -> Result<Self, Failure> {
        let text = std::fs::read(path).map_err(|error| io_failure("read", path, &error))?;
        serde_json::from_slice(&text).map_err(|error| {
            Failure::new(
                FailureCode::RuntimeInspectionFailed,
                format!(
                    "the old container's saved specification {path} is not understood: {error}"
                ),
            )
        })
    }

    /// The container's environment, `KEY=value` each; holds secrets.
    pub fn environment(&self) -> Vec<String> {
        strings(&self.container["Config"]["Env"])
    }
}

/// The texts of a JSON array.
pub(super) fn strings(array: &Value) -> Vec<String> {
    array
        .as_array()
        .map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Makes the hop.
///
/// # Errors
/// When the container is missing or not running, or its specification can't be saved.
pub(super) async fn hop(
    settings: &Settings,
    engine: &dyn Engine,
    job: &JobRecord,
    number: usize,
    target: &HopTarget,
    from_rules: Option<CoreRules>,
) -> Result<Hop, Failure> {
    let name = &job.body.container_name;
    let container = engine
        .inspect_container(name)
        .await
        .map_err(|error| Failure::from(&error))?
        .ok_or_else(|| {
            Failure::new(FailureCode::ContainerNotFound, format!("there is no container {name}"))
        })?;
    may_start_from(name, Inspection(&container))?;
    let text = |value: &Value, what: &str| {
        value.as_str().map(str::to_owned).ok_or_else(|| {
            Failure::new(
                FailureCode::RuntimeInspectionFailed,
                format!("the inspection of container {name} has no {what}"),
            )
        })
    };
    let image_id = text(&container["Image"], "Image")?;
    let image = engine
        .inspect_image(&image_id)
        .await
        .map_err(|error| Failure::from(&error))?
        .ok_or_else(|| {
            Failure::new(
                FailureCode::RuntimeInspectionFailed,
                format!("the image {image_id} of container {name} is not on this host any more"),
            )
        })?;
    let id = text(&container["Id"], "Id")?;
    let restart_policy = container["HostConfig"]["RestartPolicy"].clone();
    let spec_file = settings.state_dir.join("specs").join(format!("{}-{number}.json", job.id));
    save(&spec_file, &SavedSpec { container, image })?;
    let previous = number.checked_sub(2).and_then(|index| job.body.hops.get(index));
    Ok(Hop {
        old: OldContainer {
            id,
            name: name.clone(),
            image_id,
            restart_policy,
            spec_file: spec_file.to_string_lossy().into_owned(),
        },
        from: match previous {
            Some(hop) => Some(hop.version.clone()),
            None => job.body.from_version.clone(),
        },
        from_rules: from_rules.unwrap_or_else(|| job.body.from_rules.clone()),
        version: target.version.clone(),
        target: target.target.clone(),
        rules: target.rules.clone(),
        rollback_database: settings.rollback_database,
        probation_seconds: (!settings.probation.is_zero()).then_some(settings.probation.as_secs()),
    })
}

/// As the plan saw it; it may have been paused, or have begun to crash, since.
fn may_start_from(name: &str, container: Inspection<'_>) -> Result<(), Failure> {
    if container.may_start_upgrade() {
        return Ok(());
    }
    let status = container.status();
    let message = format!("container {name} is {status}, an upgrade starts from a running one");
    Err(Failure::new(FailureCode::RuntimeInspectionFailed, message))
}

/// Removes the specifications that no way back needs any more: those of the jobs before this
/// one, which are all finished, because only one is active and none begins while another waits
/// for a decision. Returns what was removed.
///
/// # Errors
/// When the directory can't be read, or a file in it not be removed.
pub(super) fn prune_specs(state_dir: &Path, keep: &JobId) -> Result<Vec<PathBuf>, Failure> {
    let old = old_specs(state_dir, keep)?;
    for path in &old {
        std::fs::remove_file(path)
            .map_err(|error| io_failure("remove", &path.to_string_lossy(), &error))?;
    }
    Ok(old)
}

/// Those specifications, sorted.
///
/// # Errors
/// When the directory can't be read.
pub(super) fn old_specs(state_dir: &Path, keep: &JobId) -> Result<Vec<PathBuf>, Failure> {
    let directory = state_dir.join("specs");
    let failed = |error: &std::io::Error| io_failure("list", &directory.to_string_lossy(), error);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(&error)),
    };
    let mut old = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if job_of_spec(&name).is_some_and(|job| job != keep.as_str()) {
            old.push(path);
        }
    }
    old.sort();
    Ok(old)
}

/// The job that a file of `specs` is about: `JOB-HOP.json`, or `.partial` while it is written.
fn job_of_spec(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".partial"))?;
    let (job, hop) = stem.rsplit_once('-')?;
    (job.starts_with("job-") && hop.parse::<u32>().is_ok()).then_some(job)
}

/// Written under another name, synced, renamed: the file is whole or not there.
fn save(path: &Path, spec: &SavedSpec) -> Result<(), Failure> {
    let text = path.to_string_lossy();
    let failed = |error: &std::io::Error| io_failure("write", &text, error);
    let json = serde_json::to_vec_pretty(spec).map_err(|error| {
        Failure::new(FailureCode::RuntimeInspectionFailed, format!("write {text}: {error}"))
    })?;
    let directory = path.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("."));
    let partial = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&json)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        std::fs::File::open(&directory)?.sync_all()
    };
    write().map_err(|error| failed(&error))
}

fn io_failure(doing: &str, path: &str, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => FailureCode::DiskSpaceLow,
        _ => FailureCode::RuntimeInspectionFailed,
    };
    Failure::new(code, format!("{doing} {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hop_begins_with_a_shop_that_was_paused_or_began_to_crash_since_the_plan() {
        let state = |flag: &str, status: &str| serde_json::json!({"State": {"Running": true, flag: true, "Status": status}});
        for container in [state("Paused", "paused"), state("Restarting", "restarting")] {
            let refused = may_start_from("payram", Inspection(&container));
            let failure = refused.expect_err("refused");
            assert_eq!(failure.code, FailureCode::RuntimeInspectionFailed);
            assert!(failure.message.contains("an upgrade starts from a running one"), "{failure}");
        }
        let runs = serde_json::json!({"State": {"Running": true, "Status": "running"}});
        assert_eq!(may_start_from("payram", Inspection(&runs)), Ok(()));
    }

    #[test]
    fn the_last_upgrades_specifications_stay_and_those_before_it_go() {
        let state = tempfile::tempdir().expect("a directory");
        let specs = state.path().join("specs");
        std::fs::create_dir(&specs).expect("a directory");
        let (before, last) = (JobId::fresh(), JobId::fresh());
        let file = |name: String| {
            let path = specs.join(name);
            std::fs::write(&path, "{}").expect("a file");
            path
        };
        let gone = [
            file(format!("{before}-1.json")),
            file(format!("{before}-2.json")),
            file(format!("{before}-3.partial")),
        ];
        let kept = [
            file(format!("{last}-1.json")),
            file(format!("{last}-2.json")),
            file("notes.json".to_owned()),
            file(format!("{before}-1.json.bak")),
        ];
        let mut removed = prune_specs(state.path(), &last).expect("pruned");
        removed.sort();
        assert_eq!(removed, gone);
        assert!(kept.iter().all(|path| path.is_file()));
        assert_eq!(prune_specs(state.path(), &last), Ok(Vec::new()), "again");
        assert_eq!(prune_specs(&state.path().join("none"), &last), Ok(Vec::new()));
    }
}
