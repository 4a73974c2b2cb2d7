//! What can be gone to from here, by which route, and what stands in the way: `GET /versions` and
//! the command of that name.
//!
//! [`look`] asks policy, engine and core as a plan does; [`offers`] decides without I/O, in one go
//! through the policy however large it is.

use serde::Serialize;

use super::architecture::tag_for;
use super::current::{Evidence, current};
use super::manifest::Manifest;
use super::origin::Origin;
use super::policy::Policy;
use super::quarantine::QuarantinedVersion;
use super::route::{Ground, stop};
use super::versions::Scheme;
use super::{StoppedAt, fetch};
use crate::app::container;
use crate::app::core::{self, Probe};
use crate::config::Settings;
use crate::engine::Engine;
use crate::journal::Mode;
use crate::machine::failure::{Failure, FailureCode};
use crate::names::VERSION_LABEL;

/// Versions that one answer names at most, the newest.
const MOST_VERSIONS: usize = 100;

/// Gates that one answer names at most, the lowest.
const MOST_GATES: usize = 100;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// The version that serves; none when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<String>,
    /// The policy's `latest`; empty when it names none.
    pub latest_version: String,
    /// What can be gone to, the newest first.
    pub versions: Vec<Offer>,
    /// So many older ones are left out.
    pub left_out: usize,
    /// Versions above the current one that must be passed through or by hand, the lowest first.
    pub gates: Vec<GateAhead>,
    /// Versions whose tag still names an image that failed here.
    pub quarantined: Vec<QuarantinedVersion>,
    /// Empty when everything could be asked.
    pub failure_code: String,
    /// A sentence.
    pub message: String,
}

/// A version above the one that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The version.
    pub version: String,
    /// `payramapp/payram:1.9.7`
    pub image: String,
    /// Whether the dashboard, and auto-update, may go there.
    pub dashboard: bool,
    /// The versions on the way of the dashboard, as far as it may go.
    pub route: Vec<String>,
    /// Why it may not; empty when it may.
    pub failure_code: String,
    /// A sentence: how, or why not and what to type.
    pub message: String,
}

/// A gate of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateAhead {
    /// Where it stands.
    pub version: String,
    /// `breakpoint`: must be passed through; `stopPoint`: must be passed by hand.
    pub kind: &'static str,
    /// The policy's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy's documentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
}

/// What was found of the shop.
struct Found {
    version: Option<String>,
    running_tag: Option<String>,
}

/// Looks; `quarantined` is what failed here and still stands. What can't be asked is said.
pub async fn look(
    settings: &Settings,
    engine: &dyn Engine,
    quarantined: Vec<QuarantinedVersion>,
) -> Versions {
    let policy = match fetch::policy(settings).await {
        Ok(policy) => policy,
        Err(failure) => return Versions { quarantined, ..Versions::refused(&failure) },
    };
    let manifest = match fetch::manifest(settings).await {
        Ok(manifest) => manifest,
        Err(failure) => return Versions { quarantined, ..Versions::refused(&failure) },
    };
    let found = match find(settings, engine, &policy, &manifest).await {
        Ok(found) => found,
        Err(failure) => {
            let latest_version = policy.latest.clone().unwrap_or_default();
            return Versions { latest_version, quarantined, ..Versions::refused(&failure) };
        }
    };
    let repo = settings.image_repo_override.clone().unwrap_or(manifest.image_repo);
    let debug_version_mode = settings.debug_version_mode;
    // A policy may be as large as a mebibyte.
    let deciding = tokio::task::spawn_blocking(move || {
        let asked = Asked {
            policy: &policy,
            current: found.version.as_deref(),
            running_tag: found.running_tag.as_deref(),
            repo: &repo,
            debug_version_mode,
        };
        offers(&asked, quarantined)
    });
    match deciding.await {
        Ok(versions) => versions,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn find(
    settings: &Settings,
    engine: &dyn Engine,
    policy: &Policy,
    manifest: &Manifest,
) -> Result<Found, Failure> {
    let found = container::find(engine, settings, manifest.container_name(None)).await?;
    let inspected = engine.inspect_container(&found.id).await;
    let inspected = inspected.map_err(|error| Failure::from(&error))?.unwrap_or_default();
    let label = inspected["Config"]["Labels"][VERSION_LABEL].as_str();
    let since = policy.updater_api_init_version.as_deref();
    let rules = core::rules_for(label.unwrap_or_default(), since, Some(&manifest.health_path));
    let probe = Probe::of(settings);
    let reported = match probe.find(engine, &inspected).await {
        Ok(place) => probe.version(&place, &rules, &inspected).await.ok(),
        Err(_silent) => None,
    };
    // As a plan reads it: the listing shows an id as soon as the tag was moved.
    let id = inspected["Image"].as_str().unwrap_or(&found.image);
    let image = engine.inspect_image(id).await.map_err(|error| Failure::from(&error))?;
    let tag = Origin::of(&inspected, image.as_ref()).tag;
    let evidence =
        Evidence { reported: reported.as_deref(), stated: None, label, tag: tag.as_deref() };
    let scheme = Scheme::select(settings.debug_version_mode, &policy.releases);
    let (version, _) = current(&evidence, Mode::Dashboard, scheme);
    Ok(Found { version, running_tag: tag })
}

/// What the offers are made from.
struct Asked<'a> {
    policy: &'a Policy,
    current: Option<&'a str>,
    running_tag: Option<&'a str>,
    repo: &'a str,
    debug_version_mode: bool,
}

fn offers(asked: &Asked<'_>, quarantined: Vec<QuarantinedVersion>) -> Versions {
    let scheme = Scheme::select(asked.debug_version_mode, &asked.policy.releases);
    let latest = asked.policy.latest.as_deref().unwrap_or_default();
    let mut all = Versions {
        current_version: asked.current.map(|current| scheme.version_text(current)),
        latest_version: scheme.version_text(latest),
        ..Versions::default()
    };
    let known = asked.current.and_then(|current| Some((current, scheme.rank(current)?)));
    let (Some((current, rank)), ground) = (known, Ground::of(asked.policy, scheme)) else {
        let failure = Failure::new(
            FailureCode::CurrentVersionUnknown,
            "which version serves is not known, so neither is what is above it",
        );
        return Versions { quarantined, ..all.with(&failure) };
    };
    let ground = match ground {
        Ok(ground) => ground,
        Err(failure) => return Versions { quarantined, ..all.with(&failure) },
    };
    let above = ground.above(&rank);
    all.left_out = above.len().saturating_sub(MOST_VERSIONS);
    for (target, release) in above.into_iter().take(MOST_VERSIONS) {
        let wanted = stop(&ground.scheme, release, String::new());
        let route = ground.through(current, rank.clone(), wanted.clone(), target);
        let (tag, _) =
            tag_for(&wanted, asked.running_tag, Some(asked.policy), ground.scheme, Mode::Manual)
                .unwrap_or((wanted.tag.clone(), None));
        let mut offer = Offer {
            version: wanted.version.clone(),
            image: format!("{}:{tag}", asked.repo),
            dashboard: false,
            route: Vec::new(),
            failure_code: String::new(),
            message: String::new(),
        };
        match route {
            Ok(route) => {
                offer.route = route.hops.into_iter().map(|hop| hop.version).collect();
                judge(&mut offer, route.stopped_at.as_ref(), &quarantined);
            }
            Err(refusal) => {
                offer.failure_code = refusal.failure.code.to_string();
                offer.message = refusal.failure.message;
            }
        }
        all.versions.push(offer);
    }
    let gates = ground.gates_above(&rank).into_iter().take(MOST_GATES);
    all.gates = gates
        .map(|(is_stop, gate)| GateAhead {
            version: gate.version.trim().to_owned(),
            kind: if is_stop { "stopPoint" } else { "breakpoint" },
            reason: gate.reason.clone(),
            docs: gate.docs.clone(),
        })
        .collect();
    all.message = match all.versions.len() {
        0 => format!("{current} is the newest version of the policy"),
        1 => "1 version can be installed".to_owned(),
        several => format!("{} versions can be installed", several + all.left_out),
    };
    all.quarantined = quarantined;
    all
}

/// What stands in the way of a route that there is.
fn judge(offer: &mut Offer, stopped_at: Option<&StoppedAt>, quarantined: &[QuarantinedVersion]) {
    let by_hand = format!("payram-updater run --to {}", offer.version);
    let bad = |version: &String| quarantined.iter().find(|one| one.version == *version);
    if let Some(gate) = stopped_at {
        offer.failure_code = FailureCode::ManualUpgradeRequired.to_string();
        let end = offer.route.last().cloned().unwrap_or_default();
        offer.message = format!(
            "the dashboard gets as far as {end}: {} must be passed by hand ({by_hand})",
            gate.version
        );
    } else if let Some(one) = offer.route.iter().find_map(bad) {
        offer.failure_code = FailureCode::VersionQuarantined.to_string();
        offer.message =
            format!("{} failed here with {}; {}", one.version, one.failure_code, one.clear);
    } else {
        offer.dashboard = true;
        offer.message = match offer.route.split_last() {
            None | Some((_, [])) => "in one hop".to_owned(),
            Some((_, through)) => {
                format!("in {} hops, through {}", through.len() + 1, through.join(", "))
            }
        };
    }
}

impl Versions {
    fn refused(failure: &Failure) -> Self {
        Self::default().with(failure)
    }

    fn with(mut self, failure: &Failure) -> Self {
        self.failure_code = failure.code.to_string();
        self.message = failure.message.clone();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing;

    fn of(policy: &Policy, current: Option<&str>, tag: &str, bad: &[&str]) -> Versions {
        let asked = Asked {
            policy,
            current,
            running_tag: Some(tag),
            repo: "payramapp/payram",
            debug_version_mode: false,
        };
        offers(&asked, bad.iter().map(|version| testing::quarantined(version)).collect())
    }

    fn parsed(releases: &[&str], breakpoints: &[&str], stops: &[&str]) -> Policy {
        let json = testing::policy(releases, breakpoints, stops).to_string();
        Policy::parse(json.as_bytes()).expect("well formed")
    }

    #[test]
    fn each_version_above_is_named_with_its_way() {
        let policy = Policy::parse(testing::POLICY.as_bytes()).expect("the published policy");
        let all = of(&policy, Some("1.9.6"), "1.9.6-arm64", &[]);
        assert_eq!(
            (all.current_version.as_deref(), all.latest_version.as_str()),
            (Some("1.9.6"), "3.3.0")
        );
        let newest = all.versions.first().expect("one");
        assert_eq!((newest.version.as_str(), newest.dashboard), ("3.3.0", true));
        assert_eq!(newest.route, ["1.9.7", "2.0.0", "3.3.0"]);
        assert_eq!(newest.message, "in 3 hops, through 1.9.7, 2.0.0");
        assert_eq!(newest.image, "payramapp/payram:3.3.0-arm64");
        let next = all.versions.last().expect("one");
        assert_eq!((next.version.as_str(), next.message.as_str()), ("1.9.7", "in one hop"));
        assert_eq!((all.gates[0].version.as_str(), all.gates[0].kind), ("2.0.0", "breakpoint"));
    }

    #[test]
    fn what_stands_in_the_way_is_said_with_what_to_type() {
        let policy = parsed(&["4.0.0", "3.0.0", "2.0.0", "1.0.0"], &[], &["4.0.0"]);
        let all = of(&policy, Some("1.0.0"), "1.0.0", &["2.0.0"]);
        let said: Vec<(&str, bool, &str)> = all
            .versions
            .iter()
            .map(|one| (one.version.as_str(), one.dashboard, one.failure_code.as_str()))
            .collect();
        let expected = [
            ("4.0.0", false, "MANUAL_UPGRADE_REQUIRED"),
            ("3.0.0", true, ""),
            ("2.0.0", false, "VERSION_QUARANTINED"),
        ];
        assert_eq!(said, expected);
        assert!(all.versions[0].message.contains("payram-updater run --to 4.0.0"), "{all:#?}");
        assert!(all.versions[2].message.contains("--clear-quarantine 2.0.0"), "{all:#?}");
        let right_above = of(&policy, Some("3.0.0"), "3.0.0", &[]);
        assert_eq!(right_above.versions[0].message, "reason 4.0.0 (https://d)");
    }

    #[test]
    fn of_many_versions_the_newest_are_named_and_a_version_that_is_unknown_has_none() {
        let releases: Vec<String> = (0..150).rev().map(|minor| format!("1.{minor}.0")).collect();
        let releases: Vec<&str> = releases.iter().map(String::as_str).collect();
        let policy = parsed(&releases, &[], &[]);
        let all = of(&policy, Some("1.0.0"), "1.0.0", &[]);
        assert_eq!((all.versions.len(), all.left_out), (100, 49));
        assert_eq!(all.message, "149 versions can be installed");
        let unknown = of(&policy, None, "latest", &[]);
        assert_eq!(
            (unknown.versions.len(), unknown.failure_code.as_str()),
            (0, "CURRENT_VERSION_UNKNOWN")
        );
        let newest = of(&policy, Some("1.149.0"), "1.149.0", &[]);
        assert_eq!(newest.message, "1.149.0 is the newest version of the policy");
    }
}
