//! Tests of `route`: the contract's rules one by one, then random policies.

use proptest::prelude::*;

use super::*;
use crate::plan::testing;
use crate::plan::versions::Version;

fn published() -> Policy {
    Policy::parse(testing::POLICY.as_bytes()).expect("the published policy")
}

fn policy(releases: &[&str], breakpoints: &[&str], stops: &[&str]) -> Policy {
    let json = testing::policy(releases, breakpoints, stops).to_string();
    Policy::parse(json.as_bytes()).expect("well formed")
}

fn dashboard<'a>(policy: &'a Policy, current: &'a str, requested: &'a str) -> Question<'a> {
    Question {
        policy: Some(policy),
        mode: Mode::Dashboard,
        requested,
        current: Some(current),
        force: false,
        debug_version_mode: false,
    }
}

fn manual<'a>(policy: &'a Policy, current: &'a str, requested: &'a str) -> Question<'a> {
    Question { mode: Mode::Manual, ..dashboard(policy, current, requested) }
}

fn versions(question: &Question<'_>) -> Vec<String> {
    let route = route(question).expect("a route");
    route.hops.into_iter().map(|hop| hop.version).collect()
}

fn code(question: &Question<'_>) -> &'static str {
    route(question).expect_err("a refusal").failure.code.as_str()
}

#[test]
fn the_contracts_example_stops_below_the_breakpoint_and_at_it() {
    let policy = published();
    assert_eq!(versions(&dashboard(&policy, "1.9.1", "3.3.0")), ["1.9.7", "2.0.0", "3.3.0"]);
    assert_eq!(versions(&dashboard(&policy, "1.9.7", "latest")), ["2.0.0", "3.3.0"]);
    assert_eq!(versions(&dashboard(&policy, "1.9.1", "2.0.0")), ["1.9.7", "2.0.0"]);
    assert_eq!(versions(&dashboard(&policy, "1.9.6", "1.9.7")), ["1.9.7"]);
    assert_eq!(versions(&dashboard(&policy, "v2.0.0-arm64", "3.3.0")), ["3.3.0"]);
}

#[test]
fn every_hop_says_why_the_route_stops_there() {
    let policy = published();
    let route = route(&dashboard(&policy, "1.9.1", "3.3.0")).expect("a route");
    let why: Vec<&str> = route.hops.iter().map(|hop| hop.why.as_str()).collect();
    assert_eq!(why[0], "the highest release below 2.0.0, which must be passed through");
    assert!(why[1].starts_with("must be passed through: it is installed"), "{}", why[1]);
    // The policy's words are for somebody who would do by hand what the route does.
    assert!(!why[1].contains("manual upgrade required"), "{}", why[1]);
    let note = route.notes.first().expect("what the policy says");
    assert!(note.starts_with("2.0.0 is passed through by itself"), "{note}");
    assert!(note.contains("Breaking change"), "{note}");
    assert_eq!(why[2], "the requested version");
    assert_eq!(route.stopped_at, None);
}

#[test]
fn a_stop_point_ends_the_route_at_the_highest_release_below_it() {
    let policy = policy(&["3.0.0", "2.5.0", "2.0.0", "1.9.7", "1.9.1"], &["2.0.0"], &["3.0.0"]);
    let route = route(&dashboard(&policy, "1.9.1", "3.0.0")).expect("a route");
    let hops: Vec<&str> = route.hops.iter().map(|hop| hop.version.as_str()).collect();
    assert_eq!(hops, ["1.9.7", "2.0.0", "2.5.0"]);
    let gate = route.stopped_at.expect("a gate");
    assert_eq!((gate.version.as_str(), gate.docs.as_deref()), ("3.0.0", Some("https://d")));
}

#[test]
fn a_stop_point_right_above_the_current_version_needs_an_operator() {
    let policy = policy(&["3.0.0", "2.0.0"], &[], &["3.0.0"]);
    let refusal = route(&dashboard(&policy, "2.0.0", "3.0.0")).expect_err("a refusal");
    assert_eq!(refusal.failure.code, FailureCode::ManualUpgradeRequired);
    assert_eq!(refusal.failure.message, "reason 3.0.0 (https://d)");
    assert_eq!(refusal.stopped_at.expect("the gate").version, "3.0.0");
}

#[test]
fn of_a_breakpoint_and_a_stop_point_at_one_version_the_stop_point_binds() {
    let policy = policy(&["2.0.0", "1.0.0"], &["2.0.0"], &["2.0.0"]);
    assert_eq!(code(&dashboard(&policy, "1.0.0", "2.0.0")), "MANUAL_UPGRADE_REQUIRED");
}

#[test]
fn a_breakpoint_that_is_no_release_is_never_a_hop_and_that_is_said() {
    let policy = policy(&["3.0.0", "1.9.7", "1.0.0"], &["2.0.0"], &[]);
    let route = route(&dashboard(&policy, "1.0.0", "3.0.0")).expect("a route");
    let hops: Vec<&str> = route.hops.iter().map(|hop| hop.version.as_str()).collect();
    assert_eq!(hops, ["1.9.7", "3.0.0"]);
    let note = route.notes.join("; ");
    assert!(note.starts_with("2.0.0 must be passed through by the policy, but is none"), "{note}");
    assert!(!note.contains("by itself"), "{note}");
    let many: Vec<String> = (0..3000).map(|n| format!("2.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let policy = self::policy(&["3.0.0", "1.0.0"], &many, &[]);
    let notes = super::route(&dashboard(&policy, "1.0.0", "3.0.0")).expect("a route").notes;
    assert_eq!(notes.len(), 21);
    assert_eq!(notes[20], "2980 more of the policy's versions to pass through are no releases");
}

#[test]
fn a_route_of_more_hops_than_anybody_means_is_refused() {
    let releases: Vec<String> = (0..120).rev().map(|minor| format!("1.{minor}.0")).collect();
    let releases: Vec<&str> = releases.iter().map(String::as_str).collect();
    let policy = policy(&releases, &releases, &[]);
    assert_eq!(versions(&dashboard(&policy, "1.0.0", "1.30.0")).len(), 30);
    let refusal = route(&dashboard(&policy, "1.0.0", "latest")).expect_err("too many");
    assert_eq!(refusal.failure.code, FailureCode::PolicyInvalidGate);
    assert!(refusal.failure.message.contains("more than 50 stops"), "{}", refusal.failure);
    let by_hand = route(&manual(&policy, "1.0.0", "1.119.0")).expect("one hop");
    assert_eq!(by_hand.notes.len(), 21);
    assert_eq!(by_hand.notes[20], "98 more of the policy's gates are passed");
}

/// Quadratic work would take minutes here, and the test would be seen to hang.
#[test]
fn a_policy_of_a_mebibyte_is_gone_through_in_one_go() {
    let releases: Vec<String> =
        (0..40_000).rev().map(|n| format!("{}.{}.0", 1 + n / 1000, n % 1000)).collect();
    let releases: Vec<&str> = releases.iter().map(String::as_str).collect();
    let gates: Vec<String> = (0..16_000).map(|n| format!("99.{n}.0")).collect();
    let gates: Vec<&str> = gates.iter().map(String::as_str).collect();
    let policy = policy(&releases, &gates, &["40.999.0"]);
    let route = route(&dashboard(&policy, "1.0.0", "latest")).expect("a route");
    assert_eq!(route.hops.last().map(|hop| hop.version.as_str()), Some("40.998.0"));
}

#[test]
fn a_pre_release_of_the_gate_is_not_taken_for_the_release_below_it() {
    let policy = policy(&["2.0.0", "2.0.0-rc.1", "1.9.0", "1.0.0"], &[], &["2.0.0"]);
    assert_eq!(versions(&dashboard(&policy, "1.0.0", "2.0.0")), ["1.9.0"]);
}

#[test]
fn latest_is_capped_in_dashboard_mode_and_not_in_manual_mode() {
    let mut policy = policy(&["3.0.0", "2.0.0", "1.0.0"], &[], &[]);
    policy.dashboard_max = Some("2.5.0".to_owned());
    assert_eq!(versions(&dashboard(&policy, "1.0.0", "latest")), ["2.0.0"]);
    assert_eq!(versions(&dashboard(&policy, "1.0.0", "3.0.0")), ["3.0.0"]);
    assert_eq!(versions(&manual(&policy, "1.0.0", "latest")), ["3.0.0"]);
    policy.dashboard_max = Some("soon".to_owned());
    assert_eq!(code(&dashboard(&policy, "1.0.0", "latest")), "POLICY_INVALID_GATE");
}

#[test]
fn the_dashboard_refuses_what_the_policy_does_not_list_or_that_is_not_above() {
    let policy = published();
    assert_eq!(code(&dashboard(&policy, "1.9.6", "9.9.9")), "VERSION_NOT_IN_POLICY");
    assert_eq!(code(&dashboard(&policy, "1.9.6", "1.9.5")), "DOWNGRADE_NOT_ALLOWED");
    assert_eq!(code(&dashboard(&policy, "1.9.6", "v1.9.6")), "ALREADY_ON_TARGET");
    assert_eq!(code(&dashboard(&policy, "1.9.6", "../../etc")), "INVALID_TARGET");
    assert_eq!(code(&dashboard(&policy, "nightly", "3.3.0")), "CURRENT_VERSION_UNKNOWN");
    let unknown = Question { current: None, ..dashboard(&policy, "", "3.3.0") };
    assert_eq!(code(&unknown), "CURRENT_VERSION_UNKNOWN");
    let forced = Question { force: true, ..dashboard(&policy, "1.9.6", "1.9.5") };
    assert_eq!(code(&forced), "DOWNGRADE_NOT_ALLOWED");
}

#[test]
fn a_gate_that_is_no_version_refuses_in_dashboard_mode_even_when_it_is_far_away() {
    for (breakpoints, stops) in [(vec!["two"], vec![]), (vec![], vec![""])] {
        let policy = policy(&["2.0.0", "1.0.0"], &breakpoints, &stops);
        assert_eq!(code(&dashboard(&policy, "1.0.0", "2.0.0")), "POLICY_INVALID_GATE");
        assert_eq!(versions(&manual(&policy, "1.0.0", "2.0.0")), ["2.0.0"]);
    }
}

#[test]
fn manual_mode_goes_straight_and_says_which_gates_it_passes() {
    let policy = policy(&["3.0.0", "1.0.0"], &["2.0.0"], &["2.5.0"]);
    let question = manual(&policy, "1.0.0", "v3.1");
    assert_eq!(versions(&question), ["3.1.0"]);
    let notes = route(&question).expect("a route").notes.join("\n");
    assert!(
        notes.contains(
            "skips 2.0.0, which must be passed through; the policy says: \"reason 2.0.0\""
        ) && notes.contains("passes 2.5.0, which must be passed by hand"),
        "{notes}"
    );
}

#[test]
fn manual_mode_needs_force_for_a_downgrade_and_for_the_same_version() {
    let policy = published();
    for (target, refused) in [("1.9.5", "DOWNGRADE_NOT_ALLOWED"), ("1.9.6", "ALREADY_ON_TARGET")] {
        let question = manual(&policy, "1.9.6", target);
        assert_eq!(code(&question), refused);
        let forced = Question { force: true, ..question };
        assert_eq!(versions(&forced), [target]);
    }
}

#[test]
fn manual_mode_works_without_a_policy_except_for_latest() {
    let policy = Policy::default();
    let without = |requested| Question { policy: None, ..manual(&policy, "1.9.6", requested) };
    assert_eq!(versions(&without("1.9.7")), ["1.9.7"]);
    assert_eq!(code(&without("latest")), "POLICY_REQUIRED");
    assert_eq!(code(&without("newest")), "INVALID_TARGET");
    assert_eq!(code(&manual(&policy, "1.9.6", "latest")), "POLICY_REQUIRED");
    let unknown = Question { current: None, ..without("1.0.0") };
    assert!(route(&unknown).expect("a route").notes[0].contains("not known"));
}

#[test]
fn the_tag_is_spelled_as_the_policy_spells_it() {
    let with_build = policy(&["3.3.0+b", "1.0.0"], &[], &[]);
    let target = resolve(&dashboard(&with_build, "1.0.0", "latest")).expect("a target");
    assert_eq!((target.version.as_str(), target.tag.as_str()), ("3.3.0", "3.3.0"));
    let policy = policy(&["v2.0.0", "1.0.0"], &[], &[]);
    for question in [dashboard(&policy, "1.0.0", "2.0.0"), manual(&policy, "1.0.0", "2.0")] {
        let target = resolve(&question).expect("a target");
        assert_eq!((target.version.as_str(), target.tag.as_str()), ("2.0.0", "v2.0.0"));
    }
}

#[test]
fn in_debug_mode_the_order_is_the_position_in_releases() {
    let policy = policy(&["blue", "green", "red", "old"], &["green"], &[]);
    let debug = |current, requested| Question {
        debug_version_mode: true,
        ..dashboard(&policy, current, requested)
    };
    assert_eq!(versions(&debug("old", "blue")), ["red", "green", "blue"]);
    assert_eq!(code(&debug("blue", "red")), "DOWNGRADE_NOT_ALLOWED");
    assert_eq!(code(&debug("red", "violet")), "VERSION_NOT_IN_POLICY");
    assert_eq!(code(&debug("violet", "blue")), "CURRENT_VERSION_UNKNOWN");
    let by_hand = Question { mode: Mode::Manual, ..debug("red", "violet") };
    assert_eq!(versions(&by_hand), ["violet"]);
    let no_tag = Question { mode: Mode::Manual, ..debug("red", "a b") };
    assert_eq!(code(&no_tag), "INVALID_TARGET");
}

fn any_version() -> impl Strategy<Value = String> {
    (0u8..4, 0u8..3, 0u8..3, prop::bool::weighted(0.1)).prop_map(|(major, minor, patch, rc)| {
        format!("{major}.{minor}.{patch}{}", if rc { "-rc.1" } else { "" })
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let list = |most| prop::collection::vec(any_version(), 0..most);
    (list(20), list(4), list(3), prop::option::of(any_version())).prop_map(
        |(releases, breakpoints, stops, dashboard_max)| {
            let gate = |version: String| Gate { version, reason: None, docs: None };
            Policy {
                latest: releases.first().cloned(),
                releases,
                breakpoints: breakpoints.into_iter().map(gate).collect(),
                stop_points: stops.into_iter().map(gate).collect(),
                dashboard_max,
                ..Policy::default()
            }
        },
    )
}

/// The contract's rule 4 once more, as it is written there: the lowest gate first, gate by gate.
fn by_the_rules(policy: &Policy, mut at: Version, target: Version) -> (Vec<Version>, bool) {
    let parsed = |list: Vec<&String>| -> Vec<Version> {
        list.into_iter().map(|text| Version::parse(text).expect("a version")).collect()
    };
    let releases = parsed(policy.releases.iter().collect());
    let breakpoints = parsed(policy.breakpoints.iter().map(|gate| &gate.version).collect());
    let stops = parsed(policy.stop_points.iter().map(|gate| &gate.version).collect());
    let mut hops = Vec::new();
    loop {
        let ahead = breakpoints.iter().chain(&stops).filter(|gate| at < **gate && **gate <= target);
        let Some(gate) = ahead.min().cloned() else {
            if hops.last() != Some(&target) {
                hops.push(target);
            }
            return (hops, false);
        };
        let below = releases.iter().filter(|it| at < **it && **it < gate && !it.is_prerelease());
        hops.extend(below.max().cloned());
        if stops.contains(&gate) {
            return (hops, true);
        }
        if releases.contains(&gate) {
            hops.push(gate.clone());
        }
        at = gate;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_dashboard_route_rises_and_respects_every_gate(
        policy in any_policy(),
        current in any_version(),
        requested in prop_oneof![any_version(), Just("latest".to_owned()), ".{0,6}"],
        position in any::<prop::sample::Index>(),
        debug_version_mode in any::<bool>(),
    ) {
        // Half of the targets are releases, so that not every case is refused.
        let listed = policy.releases.get(position.index(40)).cloned().unwrap_or(requested);
        let question =
            Question { debug_version_mode, ..dashboard(&policy, &current, &listed) };
        let Ok(route) = route(&question) else { return Ok(()) };
        let scheme = question.scheme();
        let rank = |text: &str| scheme.rank(text).expect("everything on a route has a rank");
        prop_assert!(!route.hops.is_empty());
        let mut at = rank(&current);
        for hop in &route.hops {
            let next = rank(&hop.version);
            prop_assert!(next > at, "{hop:?} does not rise");
            for gate in &policy.breakpoints {
                let Some(gate) = scheme.rank(&gate.version) else { continue };
                // One that can't be installed is gone past, which the notes say.
                let is_release = policy.releases.iter().any(|text| rank(text) == gate);
                prop_assert!(
                    !(at < gate && gate < next && is_release), "{hop:?} jumps over a breakpoint"
                );
            }
            for gate in &policy.stop_points {
                let gate = rank(&gate.version);
                prop_assert!(!(at < gate && gate <= next), "{hop:?} reaches a stop point");
            }
            prop_assert!(
                policy.releases.iter().any(|text| rank(text) == next), "{hop:?} from nowhere"
            );
            at = next;
        }
        let target = rank(&resolve(&question).expect("it was resolved").tag);
        prop_assert!(at <= target);
        prop_assert_eq!(at == target, route.stopped_at.is_none());
        if listed == "latest" && let Some(cap) = &policy.dashboard_max {
            prop_assert!(at <= rank(cap));
        }
    }

    #[test]
    fn a_dashboard_route_is_the_one_that_the_rules_spell_out(
        policy in any_policy(), current in any_version(), position in any::<prop::sample::Index>(),
    ) {
        let Some(target) = policy.releases.get(position.index(20)).cloned() else { return Ok(()) };
        let question = dashboard(&policy, &current, &target);
        let found = route(&question);
        let version = |text: &str| Version::parse(text).expect("a version");
        let (at, to) = (version(&current), version(&target));
        if to <= at {
            let code = found.expect_err("not above").failure.code;
            let expected = match to == at {
                true => FailureCode::AlreadyOnTarget,
                false => FailureCode::DowngradeNotAllowed,
            };
            prop_assert_eq!(code, expected);
            return Ok(());
        }
        match (by_the_rules(&policy, at, to), found) {
            (expected, Ok(route)) => {
                let hops: Vec<Version> = route.hops.iter().map(|hop| version(&hop.version)).collect();
                prop_assert_eq!((hops, route.stopped_at.is_some()), expected);
            }
            ((expected, is_stopped), Err(refusal)) => {
                prop_assert!(expected.is_empty() && is_stopped, "{:?}", refusal);
                prop_assert_eq!(refusal.failure.code, FailureCode::ManualUpgradeRequired);
            }
        }
    }

    #[test]
    fn a_manual_route_is_one_hop_to_what_was_asked(
        policy in any_policy(), current in any_version(), requested in any_version(),
    ) {
        let question = Question { force: true, ..manual(&policy, &current, &requested) };
        let hops = versions(&question);
        prop_assert_eq!(hops.len(), 1);
        prop_assert_eq!(Version::parse(&hops[0]), Version::parse(&requested));
    }
}
