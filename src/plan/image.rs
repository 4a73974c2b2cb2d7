//! What the registry says of the images that a route would bring, and whether the running one may
//! be replaced by them: seen before anything is backed up, pulled or stopped (I15).
//!
//! Called by `make`. Reads only: the registry's manifests and configurations, and what the engine
//! has of images.

use std::time::Duration;

use serde_json::Value;

use super::coming::Coming;
use super::origin::{Compared, Origin};
use super::preflight::Preflight;
use crate::config::Settings;
use crate::engine::{Engine, EngineFacts, RegistryImage, RegistryNo};
use crate::machine::facts::TargetImage;
use crate::machine::failure::{Failure, FailureCode};

/// How long the registry may take to say what it has of one image.
const REGISTRY_WITHIN: Duration = Duration::from_secs(20);

/// Asks the registry.
pub(super) async fn ask(
    engine: &dyn Engine,
    repo: &str,
    tag: &str,
) -> Result<RegistryImage, RegistryNo> {
    match tokio::time::timeout(REGISTRY_WITHIN, engine.registry_image(repo, tag)).await {
        Ok(answer) => answer,
        Err(_) => {
            let limit = REGISTRY_WITHIN.as_secs();
            Err(RegistryNo::Unknown(format!("no answer within {limit} s")))
        }
    }
}

/// Looks at every image of the route, and adds the check `image`.
pub(super) async fn look(
    engine: &dyn Engine,
    facts: &EngineFacts,
    running: Option<&Value>,
    targets: &[TargetImage],
    preflight: &mut Preflight,
) -> Vec<Coming> {
    let runs_as = running.and_then(|image| image["Architecture"].as_str()).unwrap_or_default();
    let (mut coming, mut said) = (Vec::with_capacity(targets.len()), Vec::new());
    let mut failure = None;
    for target in targets {
        let reference = format!("{}:{}", target.repo, target.tag);
        let answer = ask(engine, &target.repo, &target.tag).await;
        let here = match &answer {
            Ok(_) => None,
            // What somebody pulled or loaded by hand is there all the same.
            Err(_) => engine.inspect_image(&reference).await.ok().flatten(),
        };
        match judged(&reference, &answer, here.as_ref(), facts, runs_as) {
            Ok(sentence) => said.push(sentence),
            Err(no) => {
                failure.get_or_insert(no);
            }
        }
        coming.push(match (answer, here) {
            (Ok(image), _) => Coming {
                disk_bytes: image.disk_bytes,
                config: image.config.map(|mut config| config["config"].take()),
            },
            (Err(_), Some(mut here)) => {
                Coming { disk_bytes: Some(0), config: Some(here["Config"].take()) }
            }
            (Err(_), None) => Coming::default(),
        });
    }
    match failure {
        Some(failure) => preflight.refused("image", failure),
        None => preflight.passed("image", said.join("; ")),
    }
    coming
}

/// Whether an image can be had and would run here.
fn judged(
    reference: &str,
    answer: &Result<RegistryImage, RegistryNo>,
    here: Option<&Value>,
    facts: &EngineFacts,
    runs_as: &str,
) -> Result<String, Failure> {
    let no = |code, message: String| Err(Failure::new(code, message));
    if let (Err(trouble), Some(image)) = (answer, here) {
        let made_for = image["Architecture"].as_str().unwrap_or_default();
        if !made_for.is_empty() && !runs(made_for, facts, runs_as) {
            return no(FailureCode::ImageArchitecture, unfit(reference, made_for, facts));
        }
        return Ok(match trouble {
            RegistryNo::Unknown(reason) => format!(
                "what the registry has of {reference} is not known: {reason}; it is on this host already"
            ),
            refused => format!(
                "{reference} is on this host already and is taken as it is: the registry does not give it ({refused})"
            ),
        });
    }
    match answer {
        Ok(image) => {
            let made_for = image.architectures.join(", ");
            let fits = image.architectures.iter().any(|one| runs(one, facts, runs_as));
            if !image.architectures.is_empty() && !fits {
                return no(FailureCode::ImageArchitecture, unfit(reference, &made_for, facts));
            }
            let login = image.login.as_ref().map(|it| format!(", with {it}")).unwrap_or_default();
            Ok(match image.architectures.is_empty() {
                true => format!("the registry has {reference}{login}"),
                false => format!("the registry has {reference} for {made_for}{login}"),
            })
        }
        Err(RegistryNo::Missing(said)) => {
            no(FailureCode::ImageNotFound, format!("the registry has no {reference}: {said}"))
        }
        Err(RegistryNo::Login { login: None, said }) => no(
            FailureCode::RegistryLogin,
            format!(
                "the registry does not give {reference} without a login: {said}. Log in as root (docker login), whose Docker configuration is read; Docker Hub says this of a repository that does not exist, too"
            ),
        ),
        Err(RegistryNo::Login { login: Some(login), said }) => no(
            FailureCode::RegistryLogin,
            format!(
                "the registry does not give {reference} to {login}: {said}. Log in again as root (docker login), as somebody who may have it"
            ),
        ),
        Err(RegistryNo::Limited(said)) => no(
            FailureCode::DockerPullFailed,
            format!(
                "the registry limits how often it may be asked (429), so {reference} can't be pulled now: {said}. Try again later, or log in as root (docker login): logins have a higher limit"
            ),
        ),
        Err(RegistryNo::OtherArchitecture { offered, .. }) => {
            no(FailureCode::ImageArchitecture, unfit(reference, &offered.join(", "), facts))
        }
        Err(RegistryNo::Unknown(reason)) => Ok(format!(
            "what the registry has of {reference} is not known: {reason}; the pull will tell, before anything is stopped"
        )),
    }
}

fn unfit(reference: &str, made_for: &str, facts: &EngineFacts) -> String {
    format!(
        "{reference} is made for {made_for}, and this host is {}: it could not start",
        facts.architecture
    )
}

/// Whether an image of this architecture runs here: the host's own, one that its processors run,
/// too, or that of the image that runs now, by whichever emulation that is.
pub(crate) fn runs(made_for: &str, facts: &EngineFacts, runs_as: &str) -> bool {
    let host = facts.architecture.as_str();
    made_for == host
        || (!runs_as.is_empty() && made_for == runs_as)
        || matches!((made_for, host), ("386", "amd64") | ("arm", "arm64"))
        // Not told by this engine.
        || host.is_empty()
}

/// The running image, and where the next one would come from.
pub(super) struct Replaced<'a> {
    pub settings: &'a Settings,
    pub engine: &'a dyn Engine,
    pub origin: &'a Origin,
    /// The repository that the next image comes from.
    pub repo: &'a str,
    /// The version that serves.
    pub version: Option<&'a str>,
    /// Whether an operator says that it may be replaced (`--force`).
    pub is_forced: bool,
}

/// Whether the running image may be replaced by one of this repository; adds the check `origin`.
/// Answers what goes on by `--force` alone.
pub(super) async fn may_be_replaced(
    replaced: &Replaced<'_>,
    preflight: &mut Preflight,
) -> Option<String> {
    let Replaced { settings, origin, repo, .. } = replaced;
    let runs = origin.repository.as_deref().unwrap_or("an image without a name");
    let is_told = settings.image_repo_override.is_some();
    let found = if !origin.may_be_own_build(repo) {
        Ok(format!("the running image is one of {repo}"))
    } else {
        match (origin.is_of(repo), compared(replaced).await) {
            (_, Compared::Added(added)) => {
                Err(format!("is a build on top of {repo}'s image, with {added}"))
            }
            (_, Compared::Same) => Ok(format!("the running image is one of {repo}")),
            (true, Compared::Unknown) => Ok(format!("the running image is called one of {repo}")),
            (false, Compared::Unknown) if is_told && !origin.is_made_here() => Ok(format!(
                "the running image is of {runs}; the next one comes from {repo}, as IMAGE_REPO_OVERRIDE says"
            )),
            (false, Compared::Unknown) => {
                Err(format!("is of {runs}, and the next one would come from {repo}"))
            }
        }
    };
    let why = match found {
        Ok(sentence) => {
            preflight.passed("origin", sentence);
            return None;
        }
        Err(why) => why,
    };
    let what = format!("the running image {why}: what was added to it would be gone with it");
    if replaced.is_forced {
        let risk = format!("{what}; it is replaced because of --force");
        preflight.passed("origin", risk.clone());
        return Some(risk);
    }
    let own = match origin.is_of(repo) {
        true => "to a repository of your own, in which you build the next version".to_owned(),
        false => format!("to {runs}, if you build the next version there"),
    };
    let to_it = match is_told {
        true => String::new(),
        false => format!(", or to {repo}, if the image is not a build of your own"),
    };
    let message = format!(
        "{what}. Set IMAGE_REPO_OVERRIDE {own}{to_it}; `payram-updater run --force` replaces it anyway"
    );
    preflight.refused("origin", Failure::new(FailureCode::ImageDerived, message));
    None
}

/// The running image beside the repository's of the same version: by its tag, else by the version
/// that serves.
async fn compared(replaced: &Replaced<'_>) -> Compared {
    let tags = [replaced.origin.tag.as_deref(), replaced.version];
    let mut asked: Vec<&str> = Vec::new();
    for tag in tags.into_iter().flatten() {
        if asked.contains(&tag) {
            continue;
        }
        asked.push(tag);
        if let Ok(image) = ask(replaced.engine, replaced.repo, tag).await {
            return replaced.origin.compared_to(&image);
        }
    }
    Compared::Unknown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> EngineFacts {
        EngineFacts {
            version: "20.10".into(),
            api_version: "1.41".into(),
            architecture: "amd64".into(),
            data_root: "/".into(),
        }
    }

    fn made_for(architectures: &[&str]) -> Result<RegistryImage, RegistryNo> {
        let architectures = architectures.iter().map(|it| (*it).to_owned()).collect();
        Ok(RegistryImage { architectures, ..RegistryImage::default() })
    }

    fn code(answer: Result<RegistryImage, RegistryNo>, here: Option<&Value>, runs: &str) -> String {
        match judged("p:1", &answer, here, &facts(), runs) {
            Ok(said) => format!("OK {said}"),
            Err(failure) => format!("{} {failure}", failure.code),
        }
    }

    #[test]
    fn every_answer_of_a_registry_has_its_code_and_says_what_to_do() {
        let login = || Err(RegistryNo::Login { login: None, said: "denied".into() });
        let with =
            || Err(RegistryNo::Login { login: Some("the login of me".into()), said: "x".into() });
        for (answer, begins, part) in [
            (made_for(&["amd64"]), "OK", "for amd64"),
            (made_for(&[]), "OK", "has p:1"),
            (made_for(&["arm64"]), "IMAGE_ARCHITECTURE", "made for arm64"),
            (Err(RegistryNo::Missing("404".into())), "IMAGE_NOT_FOUND", "no p:1"),
            (login(), "REGISTRY_LOGIN", "docker login"),
            (with(), "REGISTRY_LOGIN", "the login of me"),
            (Err(RegistryNo::Limited("busy".into())), "DOCKER_PULL_FAILED", "429"),
            (Err(RegistryNo::Unknown("refused".into())), "OK", "the pull will tell"),
        ] {
            let said = code(answer, None, "amd64");
            assert!(said.starts_with(begins) && said.contains(part), "{said}");
        }
    }

    #[test]
    fn an_image_that_is_here_already_is_good_enough_unless_it_is_for_another_architecture() {
        let missing = || Err(RegistryNo::Missing("404".into()));
        let here = json!({"Architecture": "amd64"});
        assert!(code(missing(), Some(&here), "").starts_with("OK p:1 is on this host"));
        let other = json!({"Architecture": "arm64"});
        assert!(code(missing(), Some(&other), "").starts_with("IMAGE_ARCHITECTURE"));
    }

    #[test]
    fn what_the_running_image_is_made_for_runs_here() {
        assert!(code(made_for(&["arm64"]), None, "arm64").starts_with("OK"));
        assert!(runs("386", &facts(), "") && !runs("s390x", &facts(), "amd64"));
    }
}
