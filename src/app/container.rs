//! Which container is PayRam's (contract section 4).
//!
//! Called by `plan`, `inspect` and the API's access control. Reads only.

use semver::Version;

use super::version;
use crate::config::Settings;
use crate::engine::{ContainerSummary, Engine};
use crate::machine::failure::{Failure, FailureCode};
use crate::names::{self, HOP_LABEL};

/// The image repository that is looked for unless `IMAGE_REPO_OVERRIDE` names another.
const DEFAULT_REPO: &str = "payramapp/payram";

/// Candidates that a sentence names.
const CANDIDATES: usize = 5;

/// The container that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, without a leading slash.
    pub name: String,
    /// Its full id.
    pub id: String,
    /// The image as it was named at creation, `payramapp/payram:1.9.6`.
    pub image: String,
}

/// Finds the container: by `TARGET_CONTAINER_NAME`, else by the manifest's name, else the
/// running one whose image has the highest version.
///
/// A container that an upgrade created and did not start yet is never found, and none of a
/// rehearsal. A container that
/// is named is found whether it runs or not; whoever needs it running says so.
///
/// # Errors
/// `CONTAINER_NOT_FOUND`: one is named, and there is none of that name; it is not looked for
/// by image then, since that might find another. `PAYRAM_CONTAINER_NOT_FOUND`: none is named,
/// and none runs whose image's tag is a version. `CONTAINER_NAME_UNRESOLVED`: none is named,
/// and several run the highest version. And the engine's own errors.
pub async fn find(
    engine: &dyn Engine,
    settings: &Settings,
    manifest_name: Option<&str>,
) -> Result<Found, Failure> {
    let mut containers = engine.containers(None).await.map_err(|error| Failure::from(&error))?;
    containers.retain(|container| !is_unstarted_hop(container) && !is_rehearsal(container));
    for container in containers.iter_mut().filter(|container| is_id(&container.image)) {
        // Its tag was moved or removed since: the inspection has it as it was named.
        let inspected = engine.inspect_container(&container.id).await;
        let inspected = inspected.map_err(|error| Failure::from(&error))?;
        let named = inspected.as_ref().and_then(|one| one["Config"]["Image"].as_str());
        if let Some(named) = named {
            container.image = named.to_owned();
        }
    }
    let manifest_name = manifest_name.map(str::trim).filter(|name| !name.is_empty());
    let named = match (settings.target_container_name.as_deref(), manifest_name) {
        (Some(name), _) => Some((name, "TARGET_CONTAINER_NAME")),
        (None, Some(name)) => Some((name, "the manifest's container_name")),
        (None, None) => None,
    };
    let repo = settings.image_repo_override.as_deref().unwrap_or(DEFAULT_REPO);
    match named {
        Some((name, source)) => by_name(containers, name, source, repo),
        None => by_image(containers, repo),
    }
}

/// Whether a listing has an id in the place of an image's name.
fn is_id(image: &str) -> bool {
    let id = image.strip_prefix("sha256:").unwrap_or(image);
    id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The containers that may be meant where the named one is not there: those of the repository, and
/// those whose image or name is called like the product. Running ones come first.
fn candidates(containers: &[ContainerSummary], repo: &str) -> Vec<String> {
    let is_ours = |container: &&ContainerSummary| {
        let product = "payram";
        tag_of(&container.image, repo).is_some()
            || container.image == repo
            || container.image.rsplit('/').next().is_some_and(|last| last.starts_with(product))
            || container.name.starts_with(product)
    };
    let mut found: Vec<&ContainerSummary> = containers.iter().filter(is_ours).collect();
    // What an upgrade set aside is nobody's shop.
    found.retain(|container| !names::is_of_an_upgrade(&container.name));
    found.sort_by_key(|container| container.state != "running");
    let shown = |it: &&ContainerSummary| format!("{} ({}, {})", it.name, it.image, it.state);
    found.iter().map(shown).take(CANDIDATES).collect()
}

fn is_unstarted_hop(container: &ContainerSummary) -> bool {
    container.state == "created" && container.labels.iter().any(|(key, _)| key == HOP_LABEL)
}

/// Of a version that is tried on a copy of the shop's data.
fn is_rehearsal(container: &ContainerSummary) -> bool {
    container.labels.iter().any(|(key, _)| key == names::REHEARSAL_LABEL)
}

fn by_name(
    containers: Vec<ContainerSummary>,
    name: &str,
    source: &str,
    repo: &str,
) -> Result<Found, Failure> {
    let name = name.trim_start_matches('/');
    if let Some(found) = containers.iter().find(|container| container.name == name) {
        return Ok(Found::from(found.clone()));
    }
    let mut message = format!("there is no container {name}, which {source} names");
    let candidates = candidates(&containers, repo);
    if !candidates.is_empty() {
        message.push_str(&format!(
            "; here are: {}. Set TARGET_CONTAINER_NAME in /etc/payram/updater.env to the one that is meant",
            candidates.join(", ")
        ));
    }
    Err(Failure::new(FailureCode::ContainerNotFound, message))
}

fn by_image(containers: Vec<ContainerSummary>, repo: &str) -> Result<Found, Failure> {
    let mut highest: Vec<(Version, ContainerSummary)> = Vec::new();
    let mut passed_over = Vec::new();
    for container in containers.into_iter().filter(|container| container.state == "running") {
        let Some(tag) = tag_of(&container.image, repo) else { continue };
        let Some(version) = version::parse(tag) else {
            passed_over.push(format!("{} ({})", container.name, container.image));
            continue;
        };
        match highest.first().map(|(top, _)| version.cmp(top)) {
            Some(std::cmp::Ordering::Less) => {}
            Some(std::cmp::Ordering::Equal) => highest.push((version, container)),
            Some(std::cmp::Ordering::Greater) | None => highest = vec![(version, container)],
        }
    }
    if highest.len() > 1 {
        let names: Vec<&str> = highest.iter().map(|(_, each)| each.name.as_str()).collect();
        return Err(Failure::new(
            FailureCode::ContainerNameUnresolved,
            format!(
                "{} containers run the same highest version of {repo}: {}; set \
                 TARGET_CONTAINER_NAME to the one that is meant",
                names.len(),
                names.join(", ")
            ),
        ));
    }
    highest.pop().map(|(_, container)| Found::from(container)).ok_or_else(|| {
        let mut message = format!("no running container has an image {repo}:VERSION");
        if !passed_over.is_empty() {
            message.push_str(&format!(
                "; the tag is no version of {}; set TARGET_CONTAINER_NAME to the one that is meant",
                passed_over.join(", ")
            ));
        }
        Failure::new(FailureCode::PayramContainerNotFound, message)
    })
}

/// The tag when the image is of this repository; `docker.io/` goes without saying.
fn tag_of<'a>(image: &'a str, repo: &str) -> Option<&'a str> {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let repo = repo.strip_prefix("docker.io/").unwrap_or(repo);
    let tag = image.strip_prefix(repo)?.strip_prefix(':')?;
    Some(tag.split_once('@').map_or(tag, |(tag, _digest)| tag))
}

impl From<ContainerSummary> for Found {
    fn from(container: ContainerSummary) -> Self {
        Self { name: container.name, id: container.id, image: container.image }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::fake::FakeEngine;
    use crate::config::Sources;

    fn settings(extra: &[(&str, &str)]) -> Settings {
        let environment = |key: &str| {
            let required = [("POLICY_URL", "p"), ("RUNTIME_MANIFEST_URL", "m")];
            let mut all = required.iter().chain(extra);
            all.find(|(name, _)| *name == key).map(|(_, value)| (*value).into())
        };
        let sources = Sources { environment: &environment, files: Vec::new() };
        Settings::from_sources(&sources).expect("valid settings").0
    }

    /// Name, image, state.
    fn world(containers: &[(&str, &str, &str)]) -> FakeEngine {
        let containers = containers.iter().map(|(name, image, state)| ContainerSummary {
            id: format!("id-of-{name}"),
            name: (*name).into(),
            image: (*image).into(),
            state: (*state).into(),
            labels: Vec::new(),
            mounts: Vec::new(),
        });
        FakeEngine { containers: containers.collect(), ..FakeEngine::default() }
    }

    async fn found(world: &FakeEngine, extra: &[(&str, &str)], manifest: Option<&str>) -> String {
        match find(world, &settings(extra), manifest).await {
            Ok(found) => found.name,
            Err(failure) => failure.code.to_string(),
        }
    }

    #[tokio::test]
    async fn a_configured_name_wins_over_the_manifests_and_that_over_the_image() {
        let world = world(&[
            ("a", "x/a:1.0.0", "exited"),
            ("b", "x/b:1.0.0", "running"),
            ("c", "payramapp/payram:1.9.6", "running"),
        ]);
        assert_eq!(found(&world, &[("TARGET_CONTAINER_NAME", "a")], Some("b")).await, "a");
        assert_eq!(found(&world, &[], Some("b")).await, "b");
        assert_eq!(found(&world, &[], Some(" ")).await, "c");
    }

    #[tokio::test]
    async fn a_named_container_that_is_missing_is_not_replaced_by_another() {
        let world = world(&[("c", "payramapp/payram:1.9.6", "running")]);
        let missing = [("TARGET_CONTAINER_NAME", "shop")];
        let failure = find(&world, &settings(&missing), Some("c")).await.expect_err("missing");
        assert_eq!(failure.code, FailureCode::ContainerNotFound);
        assert_eq!(
            failure.message,
            "there is no container shop, which TARGET_CONTAINER_NAME names; here are: c \
             (payramapp/payram:1.9.6, running). Set TARGET_CONTAINER_NAME in \
             /etc/payram/updater.env to the one that is meant"
        );
        assert_eq!(found(&world, &[], Some("shop")).await, "CONTAINER_NOT_FOUND");
    }

    #[tokio::test]
    async fn the_running_container_with_the_highest_version_is_found() {
        let world = world(&[
            ("new", "docker.io/payramapp/payram:v1.10.0-arm64", "running"),
            ("old", "payramapp/payram:1.9.6@sha256:abc", "running"),
            ("newest", "payramapp/payram:2.0.0", "exited"),
            ("latest", "payramapp/payram:latest", "running"),
            ("other", "payramapp/payram-tools:9.0.0", "running"),
            ("mirror", "127.0.0.1:5000/payramapp/payram:3.0.0", "running"),
        ]);
        assert_eq!(found(&world, &[], None).await, "new");
        let mirror = [("IMAGE_REPO_OVERRIDE", "127.0.0.1:5000/payramapp/payram")];
        assert_eq!(found(&world, &mirror, None).await, "mirror");
    }

    #[tokio::test]
    async fn two_containers_of_one_version_are_not_guessed_between() {
        let world = world(&[
            ("one", "payramapp/payram:1.9.6", "running"),
            ("two", "payramapp/payram:1.9.6-arm64", "running"),
        ]);
        let failure = find(&world, &settings(&[]), None).await.expect_err("two");
        assert_eq!(failure.code, FailureCode::ContainerNameUnresolved);
        assert!(failure.message.contains("one, two; set TARGET_CONTAINER_NAME"), "{failure}");
    }

    #[tokio::test]
    async fn a_tag_that_is_no_version_is_passed_over_and_named() {
        let world = world(&[("p", "payramapp/payram:latest", "running")]);
        let failure = find(&world, &settings(&[]), None).await.expect_err("no version");
        assert_eq!(failure.code, FailureCode::PayramContainerNotFound);
        assert!(failure.message.contains("p (payramapp/payram:latest)"), "{failure}");
    }

    #[tokio::test]
    async fn the_names_of_the_documentation_are_candidates_and_strangers_are_none() {
        let world = world(&[
            ("payram-old", "payramapp/payram:1.9.5", "exited"),
            ("payram-mainnet", "payramapp/payram:latest", "running"),
            ("payram-previous-0123", "payramapp/payram:1.9.4", "exited"),
            ("web", "nginx:1", "running"),
        ]);
        let failure = find(&world, &settings(&[]), Some("payram")).await.expect_err("missing");
        let said = "here are: payram-mainnet (payramapp/payram:latest, running), payram-old (";
        assert!(failure.message.contains(said), "{failure}");
        assert!(!failure.message.contains("previous") && !failure.message.contains("web"));
    }

    #[tokio::test]
    async fn a_container_whose_tag_was_moved_is_found_by_the_name_that_it_was_made_with() {
        let mut world = world(&[("p", "3f2a9c1b7d55", "running")]);
        let inspection = serde_json::json!({"Config": {"Image": "payramapp/payram:1.9.6-arm64"}});
        world.inspections.insert("id-of-p".into(), inspection);
        assert_eq!(found(&world, &[], None).await, "p");
    }

    #[tokio::test]
    async fn what_an_upgrade_created_and_did_not_start_is_never_found() {
        let mut world = world(&[("payram", "payramapp/payram:1.9.7", "created")]);
        world.containers[0].labels = vec![(HOP_LABEL.into(), "job-1/1".into())];
        assert_eq!(found(&world, &[], Some("payram")).await, "CONTAINER_NOT_FOUND");
        // After a good upgrade the label stays on the container that serves.
        world.containers[0].state = "exited".into();
        assert_eq!(found(&world, &[], Some("payram")).await, "payram");
    }
}
