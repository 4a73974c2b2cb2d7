//! What the policy has for the version that serves: the `updateInfo` of `inspect` (contract
//! section 6). Pure; the answer is that of a dashboard's route to `latest`.

use serde::Serialize;

use super::StoppedAt;
use super::policy::Policy;
use super::quarantine::{self, QuarantinedVersion};
use super::route::{Question, Route, route};
use crate::journal::Mode;
use crate::machine::failure::{Failure, FailureCode};

/// Whether there is something newer, and how far the dashboard may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateInfo {
    /// The version that serves.
    pub current_version: String,
    /// The policy's `latest`; empty when it names none.
    pub latest_version: String,
    /// Whether `latest` is above the version that serves.
    pub update_available: bool,
    /// Whether the dashboard may upgrade at all now.
    pub can_update_via_dashboard: bool,
    /// Where a dashboard's upgrade would end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dashboard_version: Option<String>,
    /// The lowest gate between the version that serves and `latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_breakpoint: Option<StoppedAt>,
    /// A sentence.
    pub message: String,
}

/// What the policy has for `current`; `quarantined` are the versions whose tag still names an
/// image that failed here.
pub fn update_info(
    policy: &Policy,
    current: &str,
    debug_version_mode: bool,
    quarantined: &[QuarantinedVersion],
) -> UpdateInfo {
    let question = Question {
        policy: Some(policy),
        mode: Mode::Dashboard,
        requested: "latest",
        current: Some(current),
        force: false,
        debug_version_mode,
    };
    let scheme = question.scheme();
    let latest = policy.latest.as_deref().unwrap_or_default();
    let update_available = match (scheme.rank(current), scheme.rank(latest)) {
        (Some(current), Some(latest)) => latest > current,
        (None, _) | (_, None) => false,
    };
    let mut info = UpdateInfo {
        current_version: scheme.version_text(current),
        latest_version: scheme.version_text(latest),
        update_available,
        can_update_via_dashboard: false,
        max_dashboard_version: None,
        next_breakpoint: next_gate(&question, policy, current, latest),
        message: String::new(),
    };
    let planned = route(&question).map_err(|refusal| refusal.failure);
    let allowed = planned.and_then(|route| match in_the_way(&route, quarantined) {
        Some(one) => Err(quarantine::refusal_in_brief(one)),
        None => Ok(route),
    });
    match allowed {
        Ok(route) => {
            let end = route.hops.last().map(|hop| hop.version.clone()).unwrap_or_default();
            let hops = match route.hops.len() {
                1 => String::new(),
                several => format!(" in {several} hops"),
            };
            info.can_update_via_dashboard = true;
            info.message = match &route.stopped_at {
                Some(gate) => format!(
                    "The dashboard can upgrade to {end}{hops}; {} must be passed by hand.",
                    gate.version
                ),
                None => format!("The dashboard can upgrade to {end}{hops}."),
            };
            info.max_dashboard_version = Some(end);
        }
        Err(failure) => info.message = why_not(&info, &failure),
    }
    info
}

/// The first version on the route that is quarantined.
fn in_the_way<'q>(
    route: &Route,
    quarantined: &'q [QuarantinedVersion],
) -> Option<&'q QuarantinedVersion> {
    route.hops.iter().find_map(|hop| quarantined.iter().find(|one| one.version == hop.version))
}

fn why_not(info: &UpdateInfo, failure: &Failure) -> String {
    let (current, latest) = (&info.current_version, &info.latest_version);
    let reason = failure.message.trim_end_matches('.');
    if info.update_available {
        format!("{latest} is available, but not through the dashboard: {reason}.")
    } else if failure.code == FailureCode::AlreadyOnTarget {
        format!("{current} is the latest version.")
    } else if failure.code == FailureCode::DowngradeNotAllowed {
        format!("{current} is above the policy's latest, {latest}.")
    } else {
        format!("Whether there is an update can't be told: {reason}.")
    }
}

fn next_gate(
    question: &Question<'_>,
    policy: &Policy,
    current: &str,
    latest: &str,
) -> Option<StoppedAt> {
    let scheme = question.scheme();
    let (current, latest) = (scheme.rank(current)?, scheme.rank(latest)?);
    // `min_by` answers the first of equals: the stop point, which is the stricter.
    policy
        .stop_points
        .iter()
        .chain(&policy.breakpoints)
        .filter_map(|gate| Some((scheme.rank(&gate.version)?, gate)))
        .filter(|(rank, _)| *rank > current && *rank <= latest)
        .min_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, gate)| StoppedAt {
            version: gate.version.trim().to_owned(),
            reason: gate.reason.clone(),
            docs: gate.docs.clone(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing;

    fn policy(releases: &[&str], breakpoints: &[&str], stops: &[&str]) -> Policy {
        let json = testing::policy(releases, breakpoints, stops).to_string();
        Policy::parse(json.as_bytes()).expect("well formed")
    }

    #[test]
    fn a_breakpoint_ahead_is_named_and_passed_in_hops() {
        let policy = Policy::parse(testing::POLICY.as_bytes()).expect("the published policy");
        let info = update_info(&policy, "1.9.6", false, &[]);
        assert!(info.update_available && info.can_update_via_dashboard);
        assert_eq!(info.max_dashboard_version.as_deref(), Some("3.3.0"));
        assert_eq!(info.next_breakpoint.expect("a gate").version, "2.0.0");
        assert_eq!(info.message, "The dashboard can upgrade to 3.3.0 in 3 hops.");
    }

    #[test]
    fn with_a_stop_point_ahead_the_dashboard_goes_up_to_the_release_below_it() {
        let policy = policy(&["3.0.0", "2.5.0", "2.0.0"], &[], &["3.0.0"]);
        let info = update_info(&policy, "2.0.0", false, &[]);
        assert!(info.can_update_via_dashboard);
        assert_eq!(info.max_dashboard_version.as_deref(), Some("2.5.0"));
        let info = update_info(&policy, "2.5.0", false, &[]);
        assert!(info.update_available && !info.can_update_via_dashboard);
        assert_eq!(info.max_dashboard_version, None);
        assert_eq!(
            info.message,
            "3.0.0 is available, but not through the dashboard: reason 3.0.0 (https://d)."
        );
    }

    #[test]
    fn at_and_above_the_latest_version_there_is_no_update() {
        let policy = policy(&["2.0.0", "1.0.0"], &[], &[]);
        let info = update_info(&policy, "v2.0.0-arm64", false, &[]);
        assert!(!info.update_available && !info.can_update_via_dashboard);
        assert_eq!(info.message, "2.0.0 is the latest version.");
        let info = update_info(&policy, "2.0.1", false, &[]);
        assert_eq!(info.message, "2.0.1 is above the policy's latest, 2.0.0.");
    }

    #[test]
    fn a_capped_latest_is_available_and_not_by_the_dashboard() {
        let mut policy = policy(&["2.0.0", "1.0.0"], &[], &[]);
        policy.dashboard_max = Some("1.0.0".to_owned());
        let info = update_info(&policy, "1.0.0", false, &[]);
        assert!(info.update_available && !info.can_update_via_dashboard);
        assert!(info.message.contains("not through the dashboard"), "{}", info.message);
    }

    #[test]
    fn a_quarantined_version_on_the_way_is_available_and_not_by_the_dashboard() {
        let policy = policy(&["3.0.0", "2.0.0", "1.0.0"], &["2.0.0"], &[]);
        for version in ["2.0.0", "3.0.0"] {
            let info = update_info(&policy, "1.0.0", false, &[testing::quarantined(version)]);
            assert!(info.update_available && !info.can_update_via_dashboard, "{version}");
            assert_eq!(info.max_dashboard_version, None);
            let clear = format!("payram-updater recover --clear-quarantine {version}.");
            assert!(
                info.message.starts_with("3.0.0 is available, but not through the dashboard: ")
            );
            assert!(info.message.ends_with(&clear), "{}", info.message);
        }
        let info = update_info(&policy, "1.0.0", false, &[testing::quarantined("2.5.0")]);
        assert!(info.can_update_via_dashboard, "it is on no way");
    }

    #[test]
    fn a_version_that_has_no_order_has_no_update() {
        let info = update_info(&policy(&["2.0.0"], &[], &[]), "nightly", false, &[]);
        assert!(!info.update_available && !info.can_update_via_dashboard);
        assert!(info.message.contains("nightly"), "{}", info.message);
    }

    #[test]
    fn optional_fields_are_left_out() {
        let info = update_info(&policy(&["2.0.0"], &[], &[]), "2.0.0", false, &[]);
        let json = serde_json::to_value(info).expect("plain data");
        assert!(json.get("maxDashboardVersion").is_none() && json.get("nextBreakpoint").is_none());
    }
}
