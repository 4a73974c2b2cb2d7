//! Whether the running version can be seen from here, and what is seen of it: its core, its health,
//! its version, its supervisor (I15).
//!
//! Called by `make`. [`look`] asks with the gate's own questions ([`Probe::find`] and
//! [`Probe::judge`]), reading only; [`weigh`] decides, and asks nothing. What a healthy version
//! does not show now, it would not show the gate after the swap either: the new version would be
//! condemned unheard, and then the old one.

use std::time::Duration;

use serde_json::Value;

use super::preflight::Preflight;
use crate::app::core::{self, Place, Probe, Silent, Unfit};
use crate::app::supervisor::{self, Program};
use crate::config::Settings;
use crate::engine::Engine;
use crate::error::Trouble;
use crate::journal::Mode;
use crate::machine::facts::CoreRules;
use crate::machine::failure::{Failure, FailureCode};

/// What was seen of the running version.
#[derive(Debug)]
pub(super) struct Sight {
    /// Where its core answers.
    pub core: Result<Place, Silent>,
    /// The version that it says it is, once it is well; none when there is no core to ask.
    pub judged: Option<Result<String, Unfit>>,
    /// What runs under its supervisor.
    pub supervisor: Result<Supervised, Trouble>,
}

/// What supervises the programs of a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Supervised {
    /// These programs are supervised.
    Programs(Vec<Program>),
    /// Nothing supervises.
    Nothing,
    /// A supervisord listens at this socket, and `supervisorctl` can't be run or does not find it.
    Unreachable(String),
}

/// Who asks for what.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub settings: &'a Settings,
    pub mode: Mode,
    /// Manual mode: go on from a version that is not well.
    pub force: bool,
    /// The version that is taken for the running one.
    pub version: Option<&'a str>,
    pub rules: &'a CoreRules,
}

/// Looks at a running container, whose core was looked for already.
pub(super) async fn look(
    probe: &Probe,
    engine: &dyn Engine,
    id: &str,
    container: &Value,
    rules: &CoreRules,
    core: Result<Place, Silent>,
) -> Sight {
    let judged = match &core {
        Ok(place) => Some(probe.judge(place, rules, container).await),
        Err(_) => None,
    };
    let supervisor = match supervisor::programs(engine, id).await {
        Ok(Some(programs)) => Ok(Supervised::Programs(programs)),
        Ok(None) => supervisor::socket(engine, id)
            .await
            .map(|socket| socket.map_or(Supervised::Nothing, Supervised::Unreachable)),
        Err(trouble) => Err(trouble),
    };
    Sight { core, judged, supervisor }
}

/// Adds a check for each of `core`, `health`, `version`, `supervisor`. Answers what an operator
/// who goes on with `--force` must know; none when all is well, or refused.
pub(super) fn weigh(
    sight: Sight,
    asking: &Asking<'_>,
    preflight: &mut Preflight,
) -> Option<String> {
    let mut unfit = None;
    match sight.core {
        Ok(place) => {
            preflight.passed("core", format!("the core answers at {place}"));
            if let Some(judged) = sight.judged {
                unfit = weigh_version(judged, asking, preflight);
            }
        }
        Err(silent) if silent.is_behind_a_front() => {
            let found = format!("its core does not answer: {silent}");
            unfit = is_not_well("core", &found, asking, preflight);
        }
        Err(silent) => preflight.refused("core", not_visible(&silent.to_string(), asking)),
    }
    weigh_supervisor(sight.supervisor, preflight);
    unfit
}

fn weigh_version(
    judged: Result<String, Unfit>,
    asking: &Asking<'_>,
    preflight: &mut Preflight,
) -> Option<String> {
    let version = match judged {
        Ok(version) => version,
        Err(Unfit::Unhealthy(found)) => {
            return is_not_well("health", &found, asking, preflight);
        }
        Err(Unfit::Silent(found)) => {
            preflight.refused("health", not_visible(&found, asking));
            return None;
        }
        Err(Unfit::Nameless(found)) => {
            preflight.passed("health", "the core is healthy");
            return match asking.rules {
                CoreRules::Api { .. } => {
                    preflight.refused("version", not_visible(&found, asking));
                    None
                }
                // It has no endpoint for it: nothing is hidden, and a newer one is asked otherwise.
                CoreRules::Legacy => is_not_well("version", &found, asking, preflight),
            };
        }
    };
    preflight.passed("health", "the core is healthy");
    match asking.version {
        Some(expected) if !core::is_same_version(expected, &version) => {
            let found = format!("expected version {expected}, it reports {version}");
            is_not_well("version", &found, asking, preflight)
        }
        Some(_) | None => {
            preflight.passed("version", format!("the core says that it is {version}"));
            None
        }
    }
}

/// The running version can be seen and would not pass its own gate. To upgrade may be the very
/// cure, so an operator may insist; the way back can't be verified then.
fn is_not_well(
    check: &str,
    found: &str,
    asking: &Asking<'_>,
    preflight: &mut Preflight,
) -> Option<String> {
    let version = asking.version.unwrap_or("the running version");
    if asking.mode == Mode::Manual && asking.force {
        let risk = format!(
            "{version} does not pass its own checks now, so after a failed upgrade a way back to \
             it can't be verified, and would wait for you: {found}"
        );
        preflight.passed(check, format!("goes ahead because of --force: {risk}"));
        return Some(risk);
    }
    let force = match asking.mode {
        Mode::Manual => "--force",
        Mode::Dashboard => "payram-updater run --mode manual --force",
    };
    let message = format!(
        "{version} does not pass its own checks now, so it could not be gone back to: {found}; put \
         that right first, or, if the upgrade is to do that: {force} goes on without a way back \
         that can be verified"
    );
    preflight.refused(check, Failure::new(FailureCode::CoreUnhealthy, message));
    None
}

/// Neither version could be judged: nobody may insist on that, since a healthy new version would
/// be taken away again.
fn not_visible(found: &str, asking: &Asking<'_>) -> Failure {
    let settings = asking.settings;
    let patience = format!(
        "if it needs longer than {} to answer, set ANSWER_TIMEOUT_SECONDS",
        seconds(settings.answer_timeout)
    );
    let help = match &settings.core_base_url {
        Some(base) => format!(
            "correct CORE_BASE_URL (it is {base}), or take it away, and the container's published \
             ports and own addresses are asked; {patience}"
        ),
        None => format!(
            "set CORE_BASE_URL to where the core answers from this host, such as \
             http://127.0.0.1:8080; {patience}"
        ),
    };
    Failure::new(
        FailureCode::CoreNotVisible,
        format!(
            "the running version can't be seen from here, so neither could a new one be judged: \
             {found}; {help}"
        ),
    )
}

fn weigh_supervisor(supervisor: Result<Supervised, Trouble>, preflight: &mut Preflight) {
    match supervisor {
        Ok(Supervised::Programs(programs)) => {
            let (up, down): (Vec<_>, Vec<_>) =
                programs.iter().partition(|program| program.state == "RUNNING");
            let mut message = match up.len() {
                1 => "1 program runs under the supervisor".to_owned(),
                count => format!("{count} programs run under the supervisor"),
            };
            for program in down {
                message.push_str(&format!(", {} is {}", program.name, program.state));
            }
            preflight.passed("supervisor", message);
        }
        Ok(Supervised::Nothing) => preflight.passed(
            "supervisor",
            "nothing supervises the container's programs: they are stopped with it",
        ),
        Ok(Supervised::Unreachable(socket)) => {
            let message = format!(
                "supervisord listens at {socket} in the container, and supervisorctl there can't \
                 be run or does not find it: its programs can't be stopped in order"
            );
            let failure = Failure::new(FailureCode::SupervisorctlFailed, message);
            preflight.refused("supervisor", failure);
        }
        Err(trouble) => preflight.refused("supervisor", trouble.into_failure()),
    }
}

/// `10 s`, `2.5 s`
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}

#[cfg(test)]
#[path = "visibility_tests.rs"]
mod tests;
