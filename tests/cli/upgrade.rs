//! `dry-run`, `run`, `cancel`: what starts, what does not, and the exit code at the end.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::json;

use crate::daemon::*;

#[test]
fn an_upgrade_that_ends_verified_shows_its_log_and_exits_0() {
    let daemon = Daemon::over_socket(world([
        status("BACKING_UP", "PLANNED", ""),
        status("EXECUTING", "BACKED_UP", ""),
        status("READY", "VERIFIED", ""),
    ]));
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let expected = "\
2026-01-31T12:00:00Z back up the database
2026-01-31T12:00:00Z pull the image
✔ Done  1.9.6 → 1.9.7
  it is VERIFIED
  Downtime: 3.2 s
";
    assert_eq!(ran.out, expected);
    let wanted = json!({"mode": "MANUAL", "requestedTarget": "1.9.7", "source": "CLI",
        "force": false});
    for path in ["POST /upgrade/plan", "POST /upgrade/run"] {
        assert_eq!(daemon.asked(path), std::slice::from_ref(&wanted), "{path}");
    }
}

#[test]
fn a_program_reads_each_change_and_the_job_at_its_end() {
    let daemon = Daemon::over_socket(world([
        status("BACKING_UP", "PLANNED", ""),
        status("BACKING_UP", "PLANNED", ""),
        status("READY", "VERIFIED", ""),
    ]));
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes", "--json"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert_eq!(lines[0]["state"], "BACKING_UP");
    assert_eq!(lines[1]["phase"], "VERIFIED");
    assert_eq!(lines[1]["downtimeSeconds"], 3.2);
}

#[test]
fn the_exit_code_says_where_a_failed_upgrade_left_the_merchant() {
    for (phase, code, exit, head) in [
        ("ROLLED_BACK", "HEALTHCHECK_FAILED", 4, "↺ Rolled back: 1.9.6 serves, 1.9.7 failed"),
        ("NEEDS_OPERATOR", "MIGRATION_FAILED", 5, "✘ Needs an operator"),
        ("PLANNED", "DOCKER_ERROR", 1, "✘ Failed"),
    ] {
        let mut world = world([status("FAILED", phase, code)]);
        world.playbook = json!({"failureCode": code, "backupPath": "", "playbook": {
            "code": code, "severity": "RETRYABLE", "title": "Look at the container",
            "userMessage": "It did not work.", "dataRisk": "NONE",
            "sshSteps": ["1. docker logs payram", "2. payram-updater recover"]}});
        let daemon = Daemon::over_socket(world);
        let ran = daemon.run(&["run", "--to", "1.9.7", "--yes"]);
        assert_eq!(ran.exit, exit, "{ran:?}");
        assert!(ran.out.contains(head), "{ran:?}");
        assert!(ran.out.contains(&format!("Code:     {code}")), "{ran:?}");
        assert!(ran.out.contains("  1. docker logs payram\n  2. payram-updater recover\n"));
        let last = ran.out.lines().last().unwrap_or_default();
        assert_eq!(exit == 5, last.contains("what it costs: payram-updater recover"), "{ran:?}");
        let followed = daemon.run(&["logs", "--until-done"]);
        assert_eq!(followed.exit, exit, "{followed:?}");
        let watched = daemon.run(&["watch"]);
        assert_eq!(watched.exit, exit, "{watched:?}");
        assert!(watched.out.contains(head), "as `run` tells it: {watched:?}");
    }
}

#[test]
fn a_second_run_says_what_is_under_way_and_neither_plans_from_it_nor_asks() {
    let active = status("VERIFYING", "SWAPPED", "");
    let daemon = Daemon::over_socket(World { plan: refused_plan(), ..world([active]) });
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("an upgrade is under way: 1.9.6 → 1.9.7"), "{ran:?}");
    assert!(said.contains("payram-updater watch"), "{ran:?}");
    assert!(daemon.asked("POST /upgrade/run").is_empty());
}

#[test]
fn a_refused_plan_starts_nothing_and_exits_1() {
    let daemon = Daemon::over_socket(World { plan: refused_plan(), ..world([]) });
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.out.contains("Refused: /var/lib has 1.0 GB free"), "{ran:?}");
    assert!(ran.out.contains("DISK_SPACE_LOW"), "{ran:?}");
    let dry = daemon.run(&["dry-run", "--to", "1.9.7"]);
    assert_eq!((dry.exit, dry.json()), (1, refused_plan()));
    assert!(daemon.asked("POST /upgrade/run").is_empty());
}

#[test]
fn a_plan_that_is_refused_at_the_last_moment_exits_1() {
    let mut world = world([]);
    world.run = (
        200,
        json!({"jobId": "", "state": "FAILED", "failureCode": "PLAN_CHANGED",
        "message": "the container changed"}),
    );
    let daemon = Daemon::over_socket(world);
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.out.contains("Refused: the container changed"), "{ran:?}");
    assert!(ran.out.contains("PLAN_CHANGED"), "{ran:?}");
}

#[test]
fn a_second_upgrade_is_refused_with_the_one_that_runs() {
    let mut world = world([]);
    world.run = (
        409,
        json!({"error": "An active job already exists", "jobId": "job-0",
        "state": "EXECUTING", "message": "pulling"}),
    );
    let daemon = Daemon::over_socket(world);
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.err.contains("An active job already exists: job-0 (EXECUTING): pulling"));
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes", "--json"]);
    assert_eq!((ran.exit, ran.json()["jobId"].as_str()), (1, Some("job-0")));
}

#[test]
fn without_a_terminal_and_without_yes_nothing_starts_and_the_exit_is_2() {
    let statuses = [status("READY", "VERIFIED", ""), status("EXECUTING", "PULLED", "")];
    let daemon = Daemon::over_socket(world(statuses));
    for arguments in [&["run", "--to", "1.9.7"][..], &["cancel"]] {
        let ran = daemon.run(arguments);
        assert_eq!(ran.exit, 2, "{ran:?}");
        assert!(ran.err.contains("add --yes"), "{ran:?}");
    }
    assert!(daemon.asked("POST /upgrade/run").is_empty());
    assert!(daemon.asked("POST /upgrade/cancel").is_empty());
}

#[test]
fn detached_a_run_ends_as_soon_as_it_began() {
    let daemon = Daemon::over_socket(world([status("EXECUTING", "PULLED", "")]));
    let ran = daemon.run(&["run", "--to", "1.9.7", "--yes", "--detach"]);
    assert_eq!((ran.exit, ran.json()["jobId"].as_str()), (0, Some("job-1")));
    assert!(daemon.asked("GET /upgrade/status").is_empty());
}

#[test]
fn mode_and_force_reach_the_daemon() {
    let daemon = Daemon::over_socket(world([]));
    let ran = daemon.run(&["dry-run", "--to", "latest", "--mode", "DASHBOARD", "--force"]);
    assert_eq!((ran.exit, ran.json()), (0, ready_plan()));
    let expected = json!({"mode": "DASHBOARD", "requestedTarget": "latest", "source": "CLI",
        "force": true});
    assert_eq!(daemon.asked("POST /upgrade/plan"), [expected]);
}

#[test]
fn a_daemon_that_restarts_in_mid_job_is_waited_for() {
    let mut daemon = Daemon::over_socket(world([status("EXECUTING", "PULLED", "")]));
    let mut child = daemon
        .command(&["run", "--to", "1.9.7", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("the first log line");
    daemon.fall_asleep();
    line.clear();
    err.read_line(&mut line).expect("it says that it waits");
    assert!(line.contains("the daemon does not answer"), "{line}");
    daemon.change(|world| {
        world.statuses = [status("READY", "VERIFIED", "")].into();
        world.logs.push((12, "the daemon was started again"));
    });
    daemon.wake();
    line.clear();
    err.read_line(&mut line).expect("it says that it goes on");
    assert!(line.contains("the daemon answers again"), "{line}");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the rest");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    assert_eq!(rest.matches("pull the image").count(), 1, "no line is shown twice: {rest}");
    assert!(rest.contains("the daemon was started again"), "{rest}");
}

#[test]
fn ctrl_c_ends_the_watching_and_not_the_upgrade() {
    let daemon = Daemon::over_socket(world([status("EXECUTING", "PULLED", "")]));
    let mut child = daemon
        .command(&["run", "--to", "1.9.7", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut String::new()).expect("the first log line");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let ran = child.wait_with_output().expect("an end");
    let err = String::from_utf8(ran.stderr).expect("text");
    assert_eq!(ran.status.code(), Some(130), "{err}");
    assert!(err.contains("the upgrade goes on as job-1"), "{err}");
    assert!(err.contains("payram-updater cancel"), "{err}");
    assert!(daemon.asked("POST /upgrade/cancel").is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut world = world([status("EXECUTING", "PULLED", "")]);
    world.logs = (1..5000).map(|seq| (seq, "a line that somebody might read")).collect();
    let daemon = Daemon::over_socket(world);
    for (arguments, exit) in
        [(&["logs"][..], 0), (&["run", "--to", "1.9.7", "--yes"], 141), (&["logs", "-f"], 0)]
    {
        let mut child = daemon
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut String::new()).expect("a line");
        drop(out);
        let ran = child.wait_with_output().expect("an end");
        let err = String::from_utf8(ran.stderr).expect("text");
        assert_eq!(ran.status.code(), Some(exit), "{arguments:?} {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
}

#[test]
fn a_running_upgrade_is_called_off_and_a_finished_one_is_not() {
    let daemon = Daemon::over_socket(world([status("EXECUTING", "PULLED", "")]));
    let ran = daemon.run(&["cancel", "--yes"]);
    assert_eq!((ran.exit, ran.json()["message"].as_str()), (0, Some("called off")));
    daemon.change(|world| {
        let message = "the upgrade can't be called off any more";
        world.cancel = (409, json!({"error": message, "code": "NOTHING_TO_CANCEL"}));
    });
    let ran = daemon.run(&["cancel", "--yes"]);
    assert_eq!((ran.exit, ran.json()["code"].as_str()), (1, Some("NOTHING_TO_CANCEL")));
    assert!(ran.err.contains("can't be called off any more"), "{ran:?}");
    daemon.change(|world| world.statuses = [status("READY", "VERIFIED", "")].into());
    let ran = daemon.run(&["cancel", "--yes"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.err.contains("no upgrade is under way"), "{ran:?}");
}
