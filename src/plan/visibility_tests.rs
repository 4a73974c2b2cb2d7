//! Tests of `visibility`: what of the running version refuses a plan, and what an operator may
//! insist on.

use super::*;
use crate::config::Sources;
use crate::plan::Check;

/// The settings of an operator who set these.
fn settings(base: Option<&str>, seconds: &str) -> Settings {
    let environment = |key: &str| match key {
        "POLICY_URL" | "RUNTIME_MANIFEST_URL" => Some("/published.json".into()),
        "CORE_BASE_URL" => base.map(Into::into),
        "ANSWER_TIMEOUT_SECONDS" => Some(seconds.into()),
        _ => None,
    };
    let sources = Sources { environment: &environment, files: Vec::new() };
    Settings::from_sources(&sources).expect("valid settings").0
}

/// A version that shows everything.
fn well() -> Sight {
    Sight {
        core: Ok(core::anywhere("http://127.0.0.1:8080/")),
        judged: Some(Ok("1.9.6".to_owned())),
        supervisor: Ok(Supervised::Programs(vec![
            Program { name: "payram-core".to_owned(), state: "RUNNING".to_owned(), pid: Some(7) },
            Program { name: "redis".to_owned(), state: "FATAL".to_owned(), pid: None },
        ])),
    }
}

/// Who asks, about 1.9.6.
#[derive(Clone, Copy)]
struct Who {
    mode: Mode,
    force: bool,
    rules_are_legacy: bool,
    base: Option<&'static str>,
}

const OPERATOR: Who = Who { mode: Mode::Manual, force: false, rules_are_legacy: false, base: None };
const FORCING: Who = Who { force: true, ..OPERATOR };
const DASHBOARD: Who = Who { mode: Mode::Dashboard, ..OPERATOR };

struct Weighed {
    checks: Vec<Check>,
    failure: Option<Failure>,
    risk: Option<String>,
}

fn weighed(sight: Sight, who: Who) -> Weighed {
    let settings = settings(who.base, "10");
    let rules = match who.rules_are_legacy {
        true => CoreRules::Legacy,
        false => CoreRules::Api { health_path: "/api/v1/health".to_owned() },
    };
    let asking = Asking {
        settings: &settings,
        mode: who.mode,
        force: who.force,
        version: Some("1.9.6"),
        rules: &rules,
    };
    let mut preflight = Preflight::default();
    let risk = weigh(sight, &asking, &mut preflight);
    Weighed { checks: preflight.checks, failure: preflight.failure, risk }
}

/// The code and the sentence of a plan that is refused by this check.
fn refused_by(check: &str, weighed: &Weighed) -> (FailureCode, String) {
    let refusing: Vec<&str> =
        weighed.checks.iter().filter(|one| !one.passed).map(|one| one.name.as_str()).collect();
    assert_eq!(refusing, [check]);
    assert_eq!(weighed.risk, None);
    let failure = weighed.failure.clone().expect("a refusal");
    (failure.code, failure.message)
}

#[test]
fn a_version_that_shows_everything_has_a_check_for_each() {
    let found = weighed(well(), DASHBOARD);
    assert_eq!(found.failure, None);
    assert_eq!(found.risk, None);
    let checks: Vec<(&str, &str)> =
        found.checks.iter().map(|one| (one.name.as_str(), one.message.as_str())).collect();
    assert_eq!(
        checks,
        [
            ("core", "the core answers at http://127.0.0.1:8080/"),
            ("health", "the core is healthy"),
            ("version", "the core says that it is 1.9.6"),
            ("supervisor", "1 program runs under the supervisor, redis is FATAL"),
        ]
    );
}

#[test]
fn a_core_that_answers_nowhere_refuses_whoever_asks_and_names_the_settings() {
    for who in [DASHBOARD, OPERATOR, FORCING] {
        let core = Err(Silent::heard("no PayRam core answers: http://127.0.0.1:8080/: refused"));
        let sight = Sight { core, judged: None, ..well() };
        let (code, message) = refused_by("core", &weighed(sight, who));
        assert_eq!(code, FailureCode::CoreNotVisible);
        for part in ["http://127.0.0.1:8080/: refused", "CORE_BASE_URL", "ANSWER_TIMEOUT_SECONDS"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(message.contains("longer than 10 s to answer"), "{message}");
    }
    let sight = Sight { core: Err(Silent::heard("nobody")), judged: None, ..well() };
    let astray = Who { base: Some("http://127.0.0.1:1"), ..OPERATOR };
    let (_, message) = refused_by("core", &weighed(sight, astray));
    assert!(message.contains("correct CORE_BASE_URL (it is http://127.0.0.1:1/)"), "{message}");
}

#[test]
fn health_or_a_version_that_is_not_told_refuses_whoever_asks() {
    for (unfit, check) in
        [(Unfit::Silent("hangs".into()), "health"), (Unfit::Nameless("404".into()), "version")]
    {
        for who in [DASHBOARD, FORCING] {
            let sight = Sight { judged: Some(Err(unfit.clone())), ..well() };
            let (code, message) = refused_by(check, &weighed(sight, who));
            assert_eq!(code, FailureCode::CoreNotVisible);
            assert!(message.contains(&unfit.to_string()), "{message}");
        }
    }
}

#[test]
fn from_a_version_that_is_not_well_an_operator_may_go_on_and_is_told_the_risk() {
    let sick = |number: usize| {
        let well = well();
        match number {
            0 => Sight { judged: Some(Err(Unfit::Unhealthy("answered 500".into()))), ..well },
            1 => Sight { judged: Some(Ok("1.0.0".to_owned())), ..well },
            _ => Sight { core: Err(Silent::behind_a_front("answered 502")), judged: None, ..well },
        }
    };
    for (number, check, found) in [
        (0, "health", "answered 500"),
        (1, "version", "expected version 1.9.6, it reports 1.0.0"),
        (2, "core", "answered 502"),
    ] {
        let (code, message) = refused_by(check, &weighed(sick(number), OPERATOR));
        assert_eq!(code, FailureCode::CoreUnhealthy);
        assert!(message.contains(found) && message.contains("--force goes on"), "{message}");
        let dashboard = weighed(sick(number), Who { force: true, ..DASHBOARD });
        let (_, message) = refused_by(check, &dashboard);
        assert!(message.contains("run --mode manual --force"), "{message}");

        let forced = weighed(sick(number), FORCING);
        assert_eq!(forced.failure, None);
        let risk = forced.risk.expect("what is at stake");
        assert!(risk.contains("can't be verified") && risk.contains(found), "{risk}");
    }
}

#[test]
fn a_version_from_before_the_api_without_a_label_may_be_gone_on_from() {
    let nameless = Err(Unfit::Nameless("no label".into()));
    let sight = Sight { judged: Some(nameless.clone()), ..well() };
    let legacy = Who { rules_are_legacy: true, ..OPERATOR };
    let (code, _) = refused_by("version", &weighed(sight, legacy));
    assert_eq!(code, FailureCode::CoreUnhealthy);
    let sight = Sight { judged: Some(nameless), ..well() };
    assert!(weighed(sight, Who { force: true, ..legacy }).failure.is_none());
}

#[test]
fn a_supervisor_that_can_not_be_asked_refuses_and_none_is_said() {
    let unreachable = Ok(Supervised::Unreachable("/run/supervisor.sock".to_owned()));
    let broken = Err(Trouble::failed(FailureCode::SupervisorctlFailed, "it refuses"));
    for (supervisor, part) in [(unreachable, "/run/supervisor.sock"), (broken, "it refuses")] {
        let sight = Sight { supervisor, ..well() };
        let (code, message) = refused_by("supervisor", &weighed(sight, FORCING));
        assert_eq!(code, FailureCode::SupervisorctlFailed);
        assert!(message.contains(part), "{message}");
    }
    let sight = Sight { supervisor: Ok(Supervised::Nothing), ..well() };
    let found = weighed(sight, DASHBOARD);
    assert_eq!(found.failure, None);
    assert!(found.checks[3].message.contains("they are stopped with it"));
}
