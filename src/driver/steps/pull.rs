//! `pull`: the new image, by the engine, with this host's login.

use serde_json::Value;

use crate::driver::Progress;
use crate::driver::context::StepContext;
use crate::driver::prepare::SavedSpec;
use crate::engine::EngineError;
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::PulledImage;
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Pulling the new image; the application serves";

pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    let target = &cx.hop.target;
    let reference = format!("{}:{}", target.repo, target.tag);
    let sender = cx.progress;
    let pulled = cx
        .engine
        .pull(&target.repo, &target.tag, &mut |pull| {
            sender.send_replace(Progress {
                done_bytes: pull.received_bytes,
                total_bytes: pull.total_bytes,
            });
        })
        .await;
    match pulled {
        Ok(()) => {}
        Err(error) if error.is_unknown() => return Err(error.into()),
        Err(error @ EngineError::Unreachable { .. }) => return Err(error.into()),
        Err(error) => {
            let (code, why) = pull_refused(&error);
            let is_here = code.is_some() && cx.engine.inspect_image(&reference).await?.is_some();
            if !is_here {
                return fail(code.unwrap_or(FailureCode::DockerPullFailed), why);
            }
            // Somebody has pulled or loaded it by hand, as one does where a login is wanted.
            cx.say(&format!("{why}; {reference} is on this host already and is taken")).await;
        }
    }
    let Some(image) = cx.engine.inspect_image(&reference).await? else {
        return fail(
            FailureCode::DockerPullFailed,
            format!("{reference} was pulled and is not on this host"),
        );
    };
    let Some(id) = image["Id"].as_str() else {
        return fail(FailureCode::DockerPullFailed, format!("{reference} has no image id"));
    };
    must_run_here(cx, &reference, &image).await?;
    let digests: Vec<&str> = image["RepoDigests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter_map(|digest| digest.split_once('@'))
        .filter(|(repo, _)| *repo == target.repo)
        .map(|(_, digest)| digest)
        .collect();
    let digest = match digests.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        // One image under several manifests: by the digest of the one that the tag names it is
        // known again.
        [first, ..] => {
            let named = cx.engine.registry_digest(&target.repo, &target.tag).await.ok();
            let named = named.filter(|named| digests.contains(&named.as_str()));
            Some(named.unwrap_or_else(|| (*first).to_owned()))
        }
    };
    Ok(Fact::Image(PulledImage { id: id.to_owned(), digest }))
}

/// Refuses an image for another architecture, which the registry may not have told.
async fn must_run_here(
    cx: &StepContext<'_>,
    reference: &str,
    image: &Value,
) -> Result<(), Trouble> {
    let made_for = image["Architecture"].as_str().unwrap_or_default();
    let facts = cx.engine.facts().await?;
    let running = SavedSpec::read(&cx.hop.old.spec_file)?;
    let runs_as = running.image["Architecture"].as_str().unwrap_or_default();
    if made_for.is_empty() || crate::plan::runs(made_for, &facts, runs_as) {
        return Ok(());
    }
    fail(
        FailureCode::ImageArchitecture,
        format!(
            "{reference} is made for {made_for}, and this host is {}: it could not start",
            facts.architecture
        ),
    )
}

/// What an engine's refusal of a pull means, and the sentence for it; no code where it may be
/// anything. The engine passes on what the registry said (distribution's error codes, and Docker
/// Hub's sentences for them).
fn pull_refused(error: &EngineError) -> (Option<FailureCode>, String) {
    let said = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let status = error.status();
    if says(&["toomanyrequests", "TOOMANYREQUESTS", "429 Too Many"]) || status == Some(429) {
        let why = "the registry limits how often it may be asked; try again later, or log in as root (docker login)";
        return (Some(FailureCode::DockerPullFailed), format!("{said}: {why}"));
    }
    if says(&["unauthorized", "denied", "no basic auth credentials", "authentication required"])
        || matches!(status, Some(401 | 403))
    {
        let why = "the registry wants a login, or refuses this host's (docker login, as root)";
        return (Some(FailureCode::RegistryLogin), format!("{said}: {why}"));
    }
    if says(&["no matching manifest", "no match for platform"]) {
        return (Some(FailureCode::ImageArchitecture), said);
    }
    if says(&["manifest unknown", "manifest for", "name unknown", "repository does not exist"]) {
        return (Some(FailureCode::ImageNotFound), said);
    }
    (None, said)
}
