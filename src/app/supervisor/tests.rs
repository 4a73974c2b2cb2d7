//! What is seen of a supervisord, and what is done to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::app::fake::{Answer, FakeEngine};

/// For what never happens.
const IMPATIENT: Patience =
    Patience { command: Duration::from_millis(50), settle: Duration::from_millis(50) };

type States = Arc<Mutex<BTreeMap<String, String>>>;

/// A supervisord with these programs, whose `stop` and `start` lead to the given states.
fn supervisord(
    programs: &[(&str, &str)],
    after_stop: &str,
    after_start: &str,
) -> (FakeEngine, States) {
    let states: BTreeMap<_, _> =
        programs.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect();
    let states = Arc::new(Mutex::new(states));
    let (shared, stopped, started) =
        (Arc::clone(&states), after_stop.to_owned(), after_start.to_owned());
    let engine = FakeEngine::supervised(move |arguments| {
        let mut states = shared.lock().expect("not poisoned");
        let (verb, names) = arguments.split_first().expect("a verb");
        let next = match verb.as_str() {
            "status" => {
                let lines: Vec<String> = states
                    .iter()
                    .map(|(name, state)| format!("{name:<33}{state:<10}pid 7, uptime 0:01:00\n"))
                    .collect();
                let all_run = states.values().all(|state| state == "RUNNING");
                return Answer::Ended(if all_run { 0 } else { 3 }, lines.concat());
            }
            "stop" => &stopped,
            "start" => &started,
            other => panic!("no verb {other}"),
        };
        for name in names {
            states.insert(name.clone(), next.clone());
        }
        Answer::Ended(0, String::new())
    });
    (engine, states)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn state_of(states: &States, name: &str) -> String {
    states.lock().expect("not poisoned")[name].clone()
}

fn failure(result: Result<(), Trouble>) -> String {
    match result.expect_err("a failure") {
        Trouble::Failed(failure) => {
            assert_eq!(failure.code, FailureCode::SupervisorctlFailed);
            failure.message
        }
        Trouble::Unknown(failure) => panic!("certain, not unknown: {failure}"),
    }
}

#[tokio::test]
async fn programs_are_listed_though_some_do_not_run() {
    let (engine, _) = supervisord(&[("core", "RUNNING"), ("jobs:one", "FATAL")], "", "");
    let found = programs(&engine, "c").await.expect("an answer").expect("a supervisor");
    let found: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.state.as_str())).collect();
    assert_eq!(found, [("core", "RUNNING"), ("jobs:one", "FATAL")]);
}

#[tokio::test]
async fn a_container_where_nothing_supervises_has_no_programs() {
    for (code, text) in [
        (
            127,
            "OCI runtime exec failed: exec: \"supervisorctl\": executable file not found in $PATH",
        ),
        (126, "OCI runtime exec failed"),
        (4, "unix:///var/run/supervisor.sock no such file\n"),
        (0, "unix:///var/run/supervisor.sock no such file\n"),
        (4, "http://localhost:9001 refused connection\n"),
        (2, "Error: No config file found at default paths (/etc/supervisord.conf); use -c\n"),
    ] {
        let engine = FakeEngine::supervised(move |_| Answer::Ended(code, text.into()));
        assert_eq!(programs(&engine, "c").await, Ok(None), "{code} {text}");
    }
    let message = "exec: \"supervisorctl\": executable file not found in $PATH: unknown";
    let engine = FakeEngine::supervised(move |_| Answer::Refused(message.into()));
    assert_eq!(programs(&engine, "c").await, Ok(None));
}

#[tokio::test]
async fn a_supervisor_that_cannot_be_asked_is_a_failure_and_not_none() {
    for (code, text) in [
        (4, "unix:///var/run/supervisor.sock refused connection\n"),
        (0, "unix:///var/run/supervisor.sock refused connection\n"),
        (1, "error: <class 'xmlrpc.client.ProtocolError'>, 401 Unauthorized\u{1b}[2J"),
        (2, "Error: .ini file does not include supervisorctl section"),
    ] {
        let engine = FakeEngine::supervised(move |_| Answer::Ended(code, text.into()));
        let message = failure(programs(&engine, "c").await.map(|_| ()));
        assert!(message.contains(&format!("supervisorctl ended with {code}: ")), "{message}");
        assert!(!message.contains(char::is_control), "{message}");
    }
}

#[tokio::test]
async fn an_engine_that_refuses_is_told_apart_from_a_missing_supervisor() {
    let engine = FakeEngine::supervised(|_| Answer::Refused("container is not running".into()));
    let Err(Trouble::Failed(failure)) = programs(&engine, "c").await else { panic!("a failure") };
    assert_eq!(failure.code, FailureCode::DockerError);
}

#[tokio::test]
async fn a_question_that_is_never_answered_is_unknown() {
    let engine = FakeEngine::supervised(|_| Answer::Hangs);
    let Err(Trouble::Unknown(failure)) = status(&engine, "c", IMPATIENT).await else {
        panic!("unknown")
    };
    assert_eq!(failure.code, FailureCode::SupervisorctlFailed);
    assert!(failure.message.contains("`supervisorctl status`"), "{failure}");
}

#[test]
fn running_programs_are_selected_by_name_group_or_whole_name() {
    let all = [
        ("core", "RUNNING"),
        ("postgres", "RUNNING"),
        ("db:PostgreSQL", "RUNNING"),
        ("jobs:mail", "STARTING"),
        ("jobs:pay", "RUNNING"),
        ("once", "EXITED"),
        ("gone", "FATAL"),
    ]
    .map(|(name, state)| Program { name: name.into(), state: state.into(), pid: None });
    let none: [String; 0] = [];
    let exclude = names(&["postgres", "postgresql"]);
    assert_eq!(select(&all, &exclude, None), ["core", "jobs:mail", "jobs:pay"]);
    assert_eq!(select(&all, &names(&["DB", "postgres", "jobs:*"]), None), ["core"]);
    assert_eq!(select(&all, &names(&["jobs:PAY"]), None).len(), 4);
    assert_eq!(select(&all, &exclude, Some(&names(&["Jobs", "once"]))), ["jobs:mail", "jobs:pay"]);
    assert_eq!(select(&all, &exclude, Some(&none)), none);
}

#[tokio::test]
async fn stopping_stops_what_runs_and_leaves_the_rest() {
    let (engine, states) = supervisord(
        &[("core", "RUNNING"), ("jobs:pay", "EXITED"), ("postgres", "RUNNING")],
        "STOPPED",
        "",
    );
    stop(&engine, "c", &names(&["core", "jobs:pay"])).await.expect("stopped");
    assert_eq!(state_of(&states, "core"), "STOPPED");
    assert_eq!(state_of(&states, "jobs:pay"), "EXITED");
    assert_eq!(state_of(&states, "postgres"), "RUNNING");
    stop(&engine, "c", &names(&["core", "jobs:pay"])).await.expect("stopped already");
}

#[tokio::test]
async fn starting_starts_what_rests_and_leaves_the_rest() {
    let (engine, states) =
        supervisord(&[("core", "STOPPED"), ("web", "STOPPED"), ("x", "RUNNING")], "", "RUNNING");
    start(&engine, "c", &names(&["core", "x"])).await.expect("started");
    assert_eq!(state_of(&states, "core"), "RUNNING");
    assert_eq!(state_of(&states, "web"), "STOPPED");
    start(&engine, "c", &names(&["core", "x"])).await.expect("running already");
}

#[tokio::test]
async fn a_program_that_does_not_stop_is_named_with_its_state() {
    let (engine, _) = supervisord(&[("core", "RUNNING"), ("web", "STOPPED")], "STOPPING", "");
    let message =
        failure(settle(&engine, "c", &names(&["core", "web"]), Aim::Stop, IMPATIENT).await);
    assert!(
        message.contains("expected core, web to be stopped, found that core is STOPPING"),
        "{message}"
    );
}

#[tokio::test]
async fn a_program_that_its_supervisor_gives_up_on_is_not_waited_for() {
    let (engine, _) = supervisord(&[("core", "STOPPED")], "", "FATAL");
    let message = failure(start(&engine, "c", &names(&["core"])).await);
    assert!(message.contains("expected core to be RUNNING, found that core is FATAL"), "{message}");
}

#[tokio::test]
async fn a_refused_command_is_shown_with_what_it_said() {
    let engine = FakeEngine::supervised(|arguments| match arguments[0].as_str() {
        "status" => Answer::Ended(3, "core  STOPPED  Not started\n".into()),
        _ => Answer::Ended(1, "core: ERROR (not permitted)\n".into()),
    });
    let message = failure(start(&engine, "c", &names(&["core"])).await);
    assert!(
        message
            .contains("core is STOPPED; supervisorctl ended with 1: core: ERROR (not permitted)"),
        "{message}"
    );
}

#[tokio::test]
async fn a_program_that_the_supervisor_does_not_have_is_an_error() {
    let (engine, _) = supervisord(&[("core", "RUNNING")], "STOPPED", "");
    let wanted = names(&["core", "ghost"]);
    let message = failure(settle(&engine, "c", &wanted, Aim::Stop, IMPATIENT).await);
    assert!(message.contains("the supervisor has no program ghost"), "{message}");
    let engine = FakeEngine::supervised(|_| Answer::Ended(127, String::new()));
    let message = failure(settle(&engine, "c", &wanted, Aim::Stop, IMPATIENT).await);
    assert!(message.contains("no supervisor answers in the container"), "{message}");
}

#[tokio::test]
async fn a_supervisor_that_has_only_just_started_is_waited_for() {
    let mut looks = 0;
    let engine = FakeEngine::supervised(move |arguments| {
        assert_eq!(arguments, ["status"], "it starts its programs itself");
        looks += 1;
        let socket = "unix:///run/supervisor.sock";
        match looks {
            1 => Answer::Ended(4, format!("{socket} no such file\n")),
            2 => Answer::Ended(4, format!("{socket} refused connection\n")),
            3 => Answer::Ended(3, "other  RUNNING  pid 1\n".into()),
            4 => Answer::Ended(3, "core  STARTING\n".into()),
            _ => Answer::Ended(0, "core  RUNNING  pid 1\n".into()),
        }
    });
    start(&engine, "c", &names(&["core"])).await.expect("running");
}

#[tokio::test]
async fn a_command_that_does_not_end_is_judged_by_what_is_seen_after_it() {
    let mut is_asked = false;
    let engine = FakeEngine::supervised(move |arguments| match arguments[0].as_str() {
        "status" if is_asked => Answer::Ended(3, "core  STOPPED  Jan 01\n".into()),
        "status" => Answer::Ended(0, "core  RUNNING  pid 1\n".into()),
        _ => {
            is_asked = true;
            Answer::Hangs
        }
    });
    settle(&engine, "c", &names(&["core"]), Aim::Stop, IMPATIENT).await.expect("seen stopped");
}

#[tokio::test]
async fn programs_that_are_said_to_be_stopped_are_looked_at_and_others_are_not_believed() {
    let said = |text: &'static str| FakeEngine::supervised(move |_| Answer::Ended(0, text.into()));
    let asked = names(&["core", "jobs:one"]);
    let engine = said("core: stopped\njobs:one: stopped\n");
    assert_eq!(ask_to_stop(&engine, "c", &asked).await, Ok(true));
    for text in [
        "core: stopped\n",
        "core: stopped\njobs:one: ERROR (not running)\n",
        "core: stopped\njobs:two: stopped\n",
        "unix:///var/run/supervisor.sock refused connection\n",
        "",
    ] {
        let engine = said(text);
        assert_eq!(ask_to_stop(&engine, "c", &asked).await, Ok(false), "{text}");
    }

    let (engine, states) = supervisord(&[("core", "STOPPED"), ("jobs:one", "STOPPING")], "", "");
    assert_eq!(are_stopped(&engine, "c", &asked).await, Ok(false), "one still ends");
    states.lock().expect("not poisoned").insert("jobs:one".into(), "STOPPED".into());
    assert_eq!(are_stopped(&engine, "c", &asked).await, Ok(true));
    assert_eq!(are_stopped(&engine, "c", &names(&["other"])).await, Ok(false), "it is unknown");
}

#[tokio::test]
async fn a_supervisor_is_kept_awake_by_one_question_after_another_which_change_nothing() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let engine = FakeEngine::supervised(move |arguments| {
        heard.lock().expect("not poisoned").push(arguments.to_vec());
        // What it says on its way down, and what an engine says of a container that is gone.
        match heard.lock().expect("not poisoned").len() {
            1 => Answer::Ended(
                1,
                "error: <class 'xmlrpc.client.Fault'>, <Fault 6: 'SHUTDOWN_STATE'>\n".into(),
            ),
            2 => Answer::Refused("container c is not running".into()),
            _ => Answer::Ended(3, "core STOPPED Not started\n".into()),
        }
    });
    let stopped = async {
        while asked.lock().expect("not poisoned").len() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = stopped => {}
        never = keep_awake(&engine, "c") => match never {},
    }
    let asked = asked.lock().expect("not poisoned");
    assert!(asked.iter().all(|arguments| *arguments == ["status"]), "{asked:?}");
}

#[tokio::test]
async fn where_no_supervisor_is_installed_nothing_is_kept_awake_and_the_stop_is_waited_for() {
    let asked = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&asked);
    let engine = FakeEngine::supervised(move |_| {
        *heard.lock().expect("not poisoned") += 1;
        Answer::Refused("exec: \"supervisorctl\": executable file not found in $PATH".into())
    });
    tokio::select! {
        () = tokio::time::sleep(WAKE_EVERY * 5) => {}
        never = keep_awake(&engine, "c") => match never {},
    }
    assert_eq!(*asked.lock().expect("not poisoned"), 1);
}

#[tokio::test]
async fn a_supervisor_that_hangs_is_not_given_one_question_after_another_to_hang_at() {
    let asked = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&asked);
    let engine = FakeEngine::supervised(move |_| {
        *heard.lock().expect("not poisoned") += 1;
        Answer::Hangs
    });
    tokio::select! {
        () = tokio::time::sleep(WAKE_WITHIN + WAKE_EVERY * 5) => {}
        never = keep_awake(&engine, "c") => match never {},
    }
    assert_eq!(*asked.lock().expect("not poisoned"), 1);
}
