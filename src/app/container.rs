//! Which container PayRam runs in (contract section 4).
//!
//! A name that was configured, by the setting or by the manifest, must exist:
//! `CONTAINER_NOT_FOUND`. With none, the running container whose image is PayRam's and whose
//! tag is the highest version; none is `PAYRAM_CONTAINER_NOT_FOUND`, two of the same version
//! can't be told apart: `CONTAINER_NAME_UNRESOLVED`.

use std::cmp::Ordering;

use semver::Version;

use super::core;
use crate::config::Settings;
use crate::engine::{ContainerSummary, Engine};
use crate::machine::failure::{Failure, FailureCode};

/// The image when `IMAGE_REPO_OVERRIDE` names no other.
const DEFAULT_REPO: &str = "payramapp/payram";

/// A container that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, without the slash.
    pub name: String,
    /// Its full id.
    pub id: String,
    /// Its image as it was named at creation.
    pub image: String,
}

/// Finds it. `manifest_name`: the manifest's `container_name`.
///
/// # Errors
/// The codes above, and `DOCKER_DAEMON_DOWN` or `DOCKER_ERROR` when the engine can't be asked.
pub async fn find(
    engine: &dyn Engine,
    settings: &Settings,
    manifest_name: Option<&str>,
) -> Result<Found, Failure> {
    let setting =
        settings.target_container_name.as_deref().map(|name| (name, "TARGET_CONTAINER_NAME"));
    let manifest = manifest_name.map(|name| (name, "the manifest's container_name"));
    let containers = engine.containers(None).await.map_err(|error| Failure::from(&error))?;
    if let Some((name, whence)) = setting.or(manifest) {
        return named(&containers, name, whence);
    }
    let repo = settings.image_repo_override.as_deref().unwrap_or(DEFAULT_REPO);
    by_image(&containers, repo)
}

fn named(containers: &[ContainerSummary], name: &str, whence: &str) -> Result<Found, Failure> {
    match containers.iter().find(|container| container.name == name || container.id == name) {
        Some(container) => Ok(found(container)),
        None => Err(Failure::new(
            FailureCode::ContainerNotFound,
            format!("there is no container {name}, which {whence} names"),
        )),
    }
}

fn by_image(containers: &[ContainerSummary], repo: &str) -> Result<Found, Failure> {
    let mut candidates: Vec<(Version, &ContainerSummary)> = containers
        .iter()
        .filter(|container| container.state == "running")
        .filter_map(|container| {
            let (image_repo, tag) = container.image.rsplit_once(':')?;
            let version = core::lenient_version(tag)?;
            (image_repo == repo).then_some((version, container))
        })
        .collect();
    candidates.sort_by(|(a, _), (b, _)| b.cmp(a));
    match candidates.as_slice() {
        [] => Err(Failure::new(
            FailureCode::PayramContainerNotFound,
            format!(
                "no running container has an image {repo}:VERSION; TARGET_CONTAINER_NAME names one"
            ),
        )),
        [(first, a), (second, b), ..] if first.cmp(second) == Ordering::Equal => Err(Failure::new(
            FailureCode::ContainerNameUnresolved,
            format!(
                "{} and {} both run {repo}:{first}; TARGET_CONTAINER_NAME names the one",
                a.name, b.name
            ),
        )),
        [(_, container), ..] => Ok(found(container)),
    }
}

fn found(container: &ContainerSummary) -> Found {
    Found { name: container.name.clone(), id: container.id.clone(), image: container.image.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, image: &str, state: &str) -> ContainerSummary {
        ContainerSummary {
            id: format!("id-{name}"),
            name: name.into(),
            image: image.into(),
            state: state.into(),
            labels: Vec::new(),
        }
    }

    #[test]
    fn the_highest_running_version_is_it_and_latest_is_skipped() {
        let all = [
            container("a", "payramapp/payram:1.9.6", "running"),
            container("b", "payramapp/payram:1.10.0", "running"),
            container("c", "payramapp/payram:2.0.0", "exited"),
            container("d", "payramapp/payram:latest", "running"),
            container("e", "other/payram:9.0.0", "running"),
        ];
        assert_eq!(by_image(&all, DEFAULT_REPO).expect("found").name, "b");
    }

    #[test]
    fn none_and_two_alike_are_refused_by_name() {
        let code =
            |all: &[ContainerSummary]| by_image(all, DEFAULT_REPO).expect_err("refused").code;
        assert_eq!(code(&[]), FailureCode::PayramContainerNotFound);
        let two = [
            container("a", "payramapp/payram:1.9.6", "running"),
            container("b", "payramapp/payram:v1.9.6", "running"),
        ];
        assert_eq!(code(&two), FailureCode::ContainerNameUnresolved);
        let missing = named(&two, "payram", "TARGET_CONTAINER_NAME").expect_err("refused");
        assert_eq!(missing.code, FailureCode::ContainerNotFound);
        assert!(missing.message.contains("TARGET_CONTAINER_NAME"), "{missing}");
    }
}
