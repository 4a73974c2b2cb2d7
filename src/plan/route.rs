//! From the versions that serve and are wanted to the hops between them (contract section 3,
//! rules 2, 4 and 6). Pure: decides from the policy alone.
//!
//! Called by `make` and `updates`. In dashboard mode the policy's gates bind, and whatever of
//! the policy or the current version is uncertain refuses; in manual mode the operator decides
//! and the route is one hop.
//!
//! A breakpoint is for the reader a version that *must be passed through*, a stop point one that
//! *must be passed by hand*. A breakpoint that is no release can't be installed and is no hop.
//!
//! Stricter than asked in one point: a stop between two versions is never a pre-release.
//! `2.0.0-rc.1` is below a gate at 2.0.0 by number, and has what the gate warns of.

use super::StoppedAt;
use super::policy::{Gate, Policy};
use super::versions::{Rank, Scheme, is_tag, without_architecture};
use crate::journal::Mode;
use crate::machine::failure::{Failure, FailureCode};

/// What the policy is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The policy; none when it could not be had.
    pub policy: Option<&'a Policy>,
    /// Who decides.
    pub mode: Mode,
    /// `latest`, or a version.
    pub requested: &'a str,
    /// The version that serves; none when it is not known.
    pub current: Option<&'a str>,
    /// Manual mode: a downgrade and the same version are allowed.
    pub force: bool,
    /// `DEBUG_VERSION_MODE`
    pub debug_version_mode: bool,
}

/// A version to be at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// As its core reports it.
    pub version: String,
    /// As its image is tagged, before an architecture is appended.
    pub tag: String,
    /// Why the route stops there.
    pub why: String,
}

/// The hops, and the gate that ends them below the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// In their order; never empty.
    pub hops: Vec<Stop>,
    /// The stop point that ends the route.
    pub stopped_at: Option<StoppedAt>,
    /// Things worth knowing that refuse nothing.
    pub notes: Vec<String>,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code and sentence.
    pub failure: Failure,
    /// The gate that stands right above the version that serves.
    pub stopped_at: Option<StoppedAt>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, stopped_at: None }
    }
}

/// The version that is meant by what was requested, whatever version serves.
///
/// # Errors
/// `POLICY_REQUIRED`, `INVALID_TARGET`; in dashboard mode also `POLICY_INVALID_GATE` and
/// `VERSION_NOT_IN_POLICY`.
pub fn resolve(question: &Question<'_>) -> Result<Stop, Failure> {
    match question.mode {
        Mode::Dashboard => resolve_by_policy(question),
        Mode::Manual => resolve_by_operator(question),
    }
}

/// The hops from the version that serves to the one that was requested.
///
/// # Errors
/// Those of [`resolve`], and `CURRENT_VERSION_UNKNOWN`, `DOWNGRADE_NOT_ALLOWED`,
/// `ALREADY_ON_TARGET`, `MANUAL_UPGRADE_REQUIRED`.
pub fn route(question: &Question<'_>) -> Result<Route, Refusal> {
    let target = resolve(question)?;
    match question.mode {
        Mode::Dashboard => through_gates(question, target),
        Mode::Manual => Ok(straight(question, target)?),
    }
}

/// A gate with its place in the order of versions.
struct Standing<'a> {
    rank: Rank,
    is_stop: bool,
    gate: &'a Gate,
}

fn through_gates(question: &Question<'_>, target: Stop) -> Result<Route, Refusal> {
    let policy = required_policy(question)?;
    let scheme = question.scheme();
    let (current, current_rank) = known_current(question)?;
    let target_rank = rank_of_target(&scheme, &target.tag)?;
    refuse_lower_or_same(&current_rank, &target_rank, current, &target.version, "")?;
    Ground::of(policy, scheme)?.through(current, current_rank, target, target_rank)
}

/// A policy, made ready to be gone through: each version of it is read once.
pub(super) struct Ground<'a> {
    pub scheme: Scheme<'a>,
    ladder: Ladder<'a>,
    gates: Vec<Standing<'a>>,
}

impl<'a> Ground<'a> {
    /// # Errors
    /// `POLICY_INVALID_GATE`.
    pub fn of(policy: &'a Policy, scheme: Scheme<'a>) -> Result<Self, Failure> {
        let gates = standing_gates(policy, &scheme)?;
        Ok(Self { scheme, ladder: Ladder::of(policy, &scheme), gates })
    }

    /// The releases above a version, the highest first, each once, as the policy spells it.
    pub fn above(&self, current: &Rank) -> Vec<(Rank, &'a str)> {
        let mut above: Vec<(Rank, &str)> = Vec::new();
        for (rank, release) in self.ladder.steps.iter().filter(|(rank, _)| rank > current) {
            if above.last().is_none_or(|(last, _)| last != rank) {
                above.push((rank.clone(), release));
            }
        }
        above.reverse();
        above
    }

    /// Each gate above a version, the lowest first, with whether it must be passed by hand.
    pub fn gates_above(&self, current: &Rank) -> Vec<(bool, &'a Gate)> {
        let above = self.gates.iter().filter(|gate| gate.rank > *current);
        above.map(|gate| (gate.is_stop, gate.gate)).collect()
    }

    /// The hops to a target that is above the current version, which serves.
    pub fn through(
        &self,
        current: &str,
        current_rank: Rank,
        target: Stop,
        target_rank: Rank,
    ) -> Result<Route, Refusal> {
        let Self { scheme, ladder, gates } = self;
        let mut route = Route::default();
        let mut at = current_rank;
        let mut missing = Vec::new();
        for Standing { rank, is_stop, gate } in gates {
            if *rank <= at || *rank > target_rank {
                continue;
            }
            if let Some(below) = ladder.highest_between(&at, rank) {
                let why = format!(
                    "the highest release below {}, {}",
                    gate.version.trim(),
                    must(*is_stop)
                );
                route.hops.push(stop(scheme, below, why));
            }
            if *is_stop {
                route.notes.extend(no_releases(&missing));
                return end_below(gate, route);
            }
            match ladder.spelling(rank) {
                None => missing.push(gate),
                Some(tag) => {
                    // The target itself says why it is gone to.
                    if *rank < target_rank {
                        route.hops.push(stop(scheme, tag, PASSED_THROUGH.to_owned()));
                    }
                    route.notes.extend(said_of(gate));
                }
            }
            at = rank.clone();
            if route.hops.len() >= MOST_HOPS {
                return Err(too_many_hops(current, &target.version).into());
            }
        }
        route.notes.extend(no_releases(&missing));
        route.hops.push(target);
        Ok(route)
    }
}

/// Why a route stops at a breakpoint.
const PASSED_THROUGH: &str =
    "must be passed through: it is installed and verified before the route goes on";

/// Hops that a route has at most: each is an upgrade with a downtime of its own.
const MOST_HOPS: usize = 50;

/// Gates that the notes name one by one at most.
const MOST_NAMED: usize = 20;

/// What a gate is for the reader.
fn must(is_stop: bool) -> &'static str {
    match is_stop {
        true => "which must be passed by hand",
        false => "which must be passed through",
    }
}

/// What is said of gates that can't be installed: of some one by one, of the rest how many.
fn no_releases(missing: &[&Gate]) -> Vec<String> {
    let named = missing.iter().take(MOST_NAMED).map(|gate| {
        format!(
            "{} must be passed through by the policy, but is none of its releases: there is nothing to install, and the route goes past it",
            gate.version.trim()
        )
    });
    let mut notes: Vec<String> = named.collect();
    if let Some(more) = missing.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        notes.push(format!("{more} more of the policy's versions to pass through are no releases"));
    }
    notes
}

/// The policy's words are written for somebody who does by hand what a route does by itself.
fn said_of(gate: &Gate) -> Option<String> {
    let reason = gate.reason.as_ref()?;
    let docs = gate.docs.as_ref().map(|docs| format!(" ({docs})")).unwrap_or_default();
    let version = gate.version.trim();
    Some(format!(
        "{version} is passed through by itself, with a backup before it; the policy says of it: {reason:?}{docs}"
    ))
}

fn too_many_hops(current: &str, target: &str) -> Failure {
    let message = format!(
        "the policy wants more than {MOST_HOPS} stops between {current} and {target}; one upgrade makes at most {MOST_HOPS}"
    );
    Failure::new(FailureCode::PolicyInvalidGate, message)
}

/// The releases in their order, each ranked once: a policy of any size is gone through in one go.
struct Ladder<'a> {
    /// From the lowest to the highest; of one rank the first of the policy first.
    steps: Vec<(Rank, &'a str)>,
}

impl<'a> Ladder<'a> {
    fn of(policy: &'a Policy, scheme: &Scheme<'_>) -> Self {
        let mut steps: Vec<(Rank, &str)> = policy
            .releases
            .iter()
            .filter_map(|release| Some((scheme.rank(release)?, release.as_str())))
            .collect();
        // Stable: the policy's own order decides between spellings of one version.
        steps.sort_by(|a, b| a.0.cmp(&b.0));
        Self { steps }
    }

    /// The highest release above the one and below the other, as the policy spells it; never a
    /// pre-release.
    fn highest_between(&self, above: &Rank, below: &Rank) -> Option<&'a str> {
        let end = self.steps.partition_point(|(rank, _)| rank < below);
        let between = self.steps.get(..end)?.iter().rev().take_while(|(rank, _)| rank > above);
        let highest = between.map(|(rank, _)| rank).find(|rank| !rank.is_prerelease())?;
        self.spelling(highest)
    }

    /// How the policy spells the version of this rank.
    fn spelling(&self, rank: &Rank) -> Option<&'a str> {
        let at = self.steps.partition_point(|(step, _)| step < rank);
        self.steps.get(at).filter(|(step, _)| step == rank).map(|(_, release)| *release)
    }
}

fn end_below(gate: &Gate, mut route: Route) -> Result<Route, Refusal> {
    let stopped_at = Some(StoppedAt {
        version: gate.version.trim().to_owned(),
        reason: gate.reason.clone(),
        docs: gate.docs.clone(),
    });
    if route.hops.is_empty() {
        let reason = match &gate.reason {
            Some(reason) => reason.clone(),
            None => format!("version {} must be passed by hand", gate.version.trim()),
        };
        let docs = gate.docs.as_ref().map(|docs| format!(" ({docs})")).unwrap_or_default();
        let message = format!("{reason}{docs}");
        let failure = Failure::new(FailureCode::ManualUpgradeRequired, message);
        return Err(Refusal { failure, stopped_at });
    }
    route.stopped_at = stopped_at;
    Ok(route)
}

fn straight(question: &Question<'_>, target: Stop) -> Result<Route, Failure> {
    let scheme = question.scheme();
    let mut notes = Vec::new();
    match question.current {
        None => notes.push(format!(
            "the version that serves is not known: whether {} is above it was not checked",
            target.version
        )),
        Some(current) => match (scheme.rank(current), scheme.rank(&target.tag)) {
            (Some(from), Some(to)) => {
                if !question.force {
                    let unless = "; --force allows it";
                    refuse_lower_or_same(&from, &to, current, &target.version, unless)?;
                }
                notes.extend(crossed(question, &from, &to));
            }
            // Tags that the policy does not order: only sameness can be told.
            (None, _) | (_, None) => {
                if same_tag(current, &target.tag) && !question.force {
                    return Err(already(current, "; --force allows it"));
                }
                notes.push(format!(
                    "{current} and {} have no order: which is newer was not checked",
                    target.version
                ));
            }
        },
    }
    Ok(Route { hops: vec![target], stopped_at: None, notes })
}

fn resolve_by_policy(question: &Question<'_>) -> Result<Stop, Failure> {
    let policy = required_policy(question)?;
    let scheme = question.scheme();
    standing_gates(policy, &scheme)?;
    let requested = question.requested.trim();
    if requested.eq_ignore_ascii_case("latest") {
        let latest = latest_of(policy)?;
        let rank = rank_of_target(&scheme, latest)?;
        if let Some(maximum) = &policy.dashboard_max {
            let cap = scheme
                .rank(maximum)
                .ok_or_else(|| invalid_gate("dashboard_max", maximum, &scheme))?;
            if rank > cap {
                return capped(policy, &scheme, maximum, &cap);
            }
        }
        let tag = listed(policy, &scheme, latest, &rank)?;
        return Ok(stop(&scheme, tag, format!("{latest} is the policy's latest")));
    }
    let rank = match (scheme.rank(requested), scheme) {
        (Some(rank), _) => rank,
        (None, Scheme::Position(_)) => return Err(not_in_policy(requested)),
        (None, Scheme::Semantic) => return Err(invalid_target(requested, &scheme)),
    };
    let tag = listed(policy, &scheme, requested, &rank)?;
    Ok(stop(&scheme, tag, "the requested version".to_owned()))
}

fn capped(
    policy: &Policy,
    scheme: &Scheme<'_>,
    maximum: &str,
    cap: &Rank,
) -> Result<Stop, Failure> {
    let tag = spelling(policy, scheme, cap)
        .or_else(|| highest_up_to(policy, scheme, cap))
        .ok_or_else(|| {
            Failure::new(
                FailureCode::VersionNotInPolicy,
                format!("the policy has no release at or below its dashboard_max {maximum}"),
            )
        })?;
    Ok(stop(scheme, tag, format!("latest, capped by the policy's dashboard_max {maximum}")))
}

fn resolve_by_operator(question: &Question<'_>) -> Result<Stop, Failure> {
    let scheme = question.scheme();
    let requested = question.requested.trim();
    let (asked, why) = if requested.eq_ignore_ascii_case("latest") {
        let latest = latest_of(required_policy(question)?)?;
        (latest.trim(), format!("{latest} is the policy's latest"))
    } else {
        (requested, "the requested version".to_owned())
    };
    let rank = scheme.rank(asked);
    match scheme {
        Scheme::Semantic if rank.is_none() => return Err(invalid_target(asked, &scheme)),
        Scheme::Position(_) if !is_tag(asked) => return Err(invalid_target(asked, &scheme)),
        Scheme::Semantic | Scheme::Position(_) => {}
    }
    let spelled = match (question.policy, &rank) {
        (Some(policy), Some(rank)) => spelling(policy, &scheme, rank),
        (None, _) | (_, None) => None,
    };
    // Not as the operator spelled it: `v3.1` means 3.1.0, whatever a tag `v3.1` may be.
    let version = scheme.version_text(asked);
    Ok(stop(&scheme, spelled.unwrap_or(&version), why))
}

impl<'a> Question<'a> {
    /// What versions are, and their order.
    pub fn scheme(&self) -> Scheme<'a> {
        let releases: &[String] = match self.policy {
            Some(policy) => &policy.releases,
            None => &[],
        };
        Scheme::select(self.debug_version_mode, releases)
    }
}

/// All gates, the lowest first; of two at one version the stop point first, which is the
/// stricter.
fn standing_gates<'a>(
    policy: &'a Policy,
    scheme: &Scheme<'_>,
) -> Result<Vec<Standing<'a>>, Failure> {
    let stand = |gate: &'a Gate, is_stop: bool, list: &str| match scheme.rank(&gate.version) {
        Some(rank) => Ok(Standing { rank, is_stop, gate }),
        None => Err(invalid_gate(list, &gate.version, scheme)),
    };
    let mut gates = Vec::new();
    for gate in &policy.stop_points {
        gates.push(stand(gate, true, "stop_points")?);
    }
    for gate in &policy.breakpoints {
        gates.push(stand(gate, false, "breakpoints")?);
    }
    // Stable: stop points stay before breakpoints of the same version.
    gates.sort_by(|a, b| a.rank.cmp(&b.rank));
    Ok(gates)
}

/// The highest release at or below a rank, as the policy spells it; never a pre-release.
fn highest_up_to<'a>(policy: &'a Policy, scheme: &Scheme<'_>, cap: &Rank) -> Option<&'a str> {
    policy
        .releases
        .iter()
        .filter_map(|release| Some((scheme.rank(release)?, release.as_str())))
        .filter(|(rank, _)| !rank.is_prerelease() && rank <= cap)
        .max_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, release)| release)
}

/// How the policy's releases spell the version of this rank.
fn spelling<'a>(policy: &'a Policy, scheme: &Scheme<'_>, rank: &Rank) -> Option<&'a str> {
    policy.releases.iter().find(|r| scheme.rank(r).as_ref() == Some(rank)).map(String::as_str)
}

fn listed<'a>(
    policy: &'a Policy,
    scheme: &Scheme<'_>,
    wanted: &str,
    rank: &Rank,
) -> Result<&'a str, Failure> {
    spelling(policy, scheme, rank).ok_or_else(|| not_in_policy(wanted))
}

pub(super) fn stop(scheme: &Scheme<'_>, spelled: &str, why: String) -> Stop {
    let tag = match scheme {
        Scheme::Semantic => without_architecture(spelled.trim()),
        Scheme::Position(_) => spelled.trim(),
    };
    let version = scheme.version_text(spelled);
    // Build metadata (`3.3.0+b`) has no place in a tag.
    let tag = if is_tag(tag) { tag.to_owned() } else { version.clone() };
    Stop { version, tag, why }
}

/// The gates that a manual hop goes over, as notes.
fn crossed(question: &Question<'_>, from: &Rank, to: &Rank) -> Vec<String> {
    let Some(policy) = question.policy else { return Vec::new() };
    let scheme = question.scheme();
    let stops = policy.stop_points.iter().map(|gate| (true, gate));
    let breakpoints = policy.breakpoints.iter().map(|gate| (false, gate));
    let mut crossed = stops.chain(breakpoints).filter(|(is_stop, gate)| {
        // One that is the target is gone to, not over; a stop point binds there too.
        let is_over = |rank: Rank| rank > *from && (rank < *to || *is_stop && rank == *to);
        scheme.rank(&gate.version).is_some_and(is_over)
    });
    let named = crossed.by_ref().take(MOST_NAMED).map(|(is_stop, gate)| {
        let says = gate.reason.as_ref().map(|reason| format!("; the policy says: {reason:?}"));
        let docs = gate.docs.as_ref().map(|d| format!(" ({d})")).unwrap_or_default();
        let over = match is_stop {
            true => "manual mode passes",
            false => "manual mode skips",
        };
        let version = gate.version.trim();
        format!("{over} {version}, {}{}{docs}", must(is_stop), says.unwrap_or_default())
    });
    let mut notes: Vec<String> = named.collect();
    match crossed.count() {
        0 => {}
        more => notes.push(format!("{more} more of the policy's gates are passed")),
    }
    notes
}

fn required_policy<'a>(question: &Question<'a>) -> Result<&'a Policy, Failure> {
    question.policy.ok_or_else(|| {
        let message = format!("{:?} needs the policy, and there is none", question.requested);
        Failure::new(FailureCode::PolicyRequired, message)
    })
}

fn latest_of(policy: &Policy) -> Result<&str, Failure> {
    policy.latest.as_deref().ok_or_else(|| {
        Failure::new(FailureCode::PolicyRequired, "the policy does not say what latest is")
    })
}

fn known_current<'a>(question: &Question<'a>) -> Result<(&'a str, Rank), Failure> {
    let unknown = |found: String| {
        let message = format!("the version that serves must be known in dashboard mode: {found}");
        Failure::new(FailureCode::CurrentVersionUnknown, message)
    };
    let current = question.current.ok_or_else(|| {
        unknown("neither the core nor the container's labels name one".to_owned())
    })?;
    let scheme = question.scheme();
    let rank = scheme.rank(current).ok_or_else(|| unknown(unranked(current, &scheme)))?;
    Ok((current, rank))
}

fn rank_of_target(scheme: &Scheme<'_>, target: &str) -> Result<Rank, Failure> {
    scheme.rank(target).ok_or_else(|| invalid_target(target, scheme))
}

fn refuse_lower_or_same(
    from: &Rank,
    to: &Rank,
    current: &str,
    target: &str,
    unless: &str,
) -> Result<(), Failure> {
    match to.cmp(from) {
        std::cmp::Ordering::Greater => Ok(()),
        std::cmp::Ordering::Equal => Err(already(current, unless)),
        std::cmp::Ordering::Less => Err(Failure::new(
            FailureCode::DowngradeNotAllowed,
            format!("{target} is below {current}, which serves{unless}"),
        )),
    }
}

fn already(current: &str, unless: &str) -> Failure {
    let message = format!("{} serves already{unless}", current.trim());
    Failure::new(FailureCode::AlreadyOnTarget, message)
}

fn same_tag(a: &str, b: &str) -> bool {
    without_architecture(a.trim()) == without_architecture(b.trim())
}

fn not_in_policy(wanted: &str) -> Failure {
    let message = format!("version {wanted} is not among the policy's releases");
    Failure::new(FailureCode::VersionNotInPolicy, message)
}

fn invalid_target(target: &str, scheme: &Scheme<'_>) -> Failure {
    Failure::new(FailureCode::InvalidTarget, format!("target: {}", unranked(target, scheme)))
}

/// Also used by `architecture`, whose bound is one more thing that must be a version.
pub(super) fn invalid_gate(list: &str, version: &str, scheme: &Scheme<'_>) -> Failure {
    let message = format!("the policy's {list}: {}", unranked(version, scheme));
    Failure::new(FailureCode::PolicyInvalidGate, message)
}

/// Why a text has no place in the order of versions.
fn unranked(text: &str, scheme: &Scheme<'_>) -> String {
    match (scheme, super::versions::Version::parse(text)) {
        (Scheme::Semantic, Err(error)) => error.to_string(),
        (Scheme::Semantic, Ok(_)) | (Scheme::Position(_), _) => {
            let text: String = text.chars().take(80).collect();
            format!("{text:?} is not among the policy's releases (DEBUG_VERSION_MODE)")
        }
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
