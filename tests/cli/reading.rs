//! Commands that only read, and what is said when a command line or the daemon is not there.

use serde_json::json;

use crate::daemon::*;

#[test]
fn a_daemon_that_is_not_there_is_exit_3_with_the_way_to_start_it() {
    let daemon = Daemon::asleep(world([]));
    for arguments in [
        &["status"][..],
        &["health"],
        &["logs"],
        &["history"],
        &["inspect"],
        &["dry-run", "--to", "1.9.7"],
        &["run", "--to", "1.9.7", "--yes"],
        &["cancel", "--yes"],
    ] {
        // An `inspect` without a daemon may look by itself; it never says that all is well.
        let ran = daemon.run(arguments);
        if arguments == ["inspect"] {
            assert!(ran.exit == 3 || ran.exit == 1, "{ran:?}");
            continue;
        }
        assert_eq!(ran.exit, 3, "{arguments:?} {ran:?}");
        assert!(ran.err.contains("systemctl start payram-updater"), "{ran:?}");
    }
    let ran = daemon.run(&["status"]);
    assert_eq!(ran.json()["code"], "DAEMON_UNREACHABLE");
}

#[test]
fn reading_works_over_tcp_where_the_socket_is_not_there_and_running_does_not() {
    let mut world = world([status("READY", "VERIFIED", "")]);
    world.history = json!({"events": [], "count": 0});
    world.inspect = json!({"overallState": "OK", "issues": [], "recommendations": [],
        "checks": {}});
    let daemon = Daemon::over_tcp(world);
    for arguments in [
        &["status"][..],
        &["health"],
        &["logs"],
        &["history"],
        &["inspect"],
        &["dry-run", "--to", "1.9.7", "--mode", "dashboard"],
    ] {
        let ran = daemon.run(arguments);
        assert_eq!(ran.exit, 0, "{arguments:?} {ran:?}");
    }
    // Over TCP the policy would decide: another question than the one that was asked.
    for arguments in [&["dry-run", "--to", "1.9.7"][..], &["run", "--to", "1.9.7", "--yes"]] {
        let ran = daemon.run(arguments);
        assert_eq!(ran.exit, 3, "{arguments:?} {ran:?}");
        assert!(ran.err.contains("updater.sock"), "{ran:?}");
    }
    assert_eq!(daemon.asked("POST /upgrade/plan").len(), 1);
}

#[test]
fn piped_output_is_what_the_daemon_answered() {
    let mut world = world([status("READY", "VERIFIED", "")]);
    world.history = json!({"events": [{"id": "7", "timestamp": "2026-01-31T12:00:00Z",
        "type": "upgrade", "status": "succeeded", "message": "done", "data": {}}], "count": 1});
    world.inspect = json!({"overallState": "BROKEN", "issues": [], "recommendations": [],
        "checks": {"dockerDaemon": {"status": "FAILED", "message": "no answer"}}});
    let expected = (world.history.clone(), world.inspect.clone());
    let daemon = Daemon::over_socket(world);
    let ran = daemon.run(&["status"]);
    assert_eq!((ran.exit, ran.json()), (0, status("READY", "VERIFIED", "")));
    let ran = daemon.run(&["history", "--type", "upgrade", "--limit", "1"]);
    assert_eq!((ran.exit, ran.json()), (0, expected.0));
    let ran = daemon.run(&["inspect"]);
    assert_eq!((ran.exit, ran.json()), (1, expected.1), "BROKEN is exit 1");
    let ran = daemon.run(&["health"]);
    assert_eq!((ran.exit, ran.json()), (0, json!({"status": "ok"})));
    let ran = daemon.run(&["version"]);
    assert_eq!(ran.json()["version"], env!("CARGO_PKG_VERSION"));
    let ran = daemon.run(&["man"]);
    assert!(ran.exit == 0 && ran.out.contains(".TH"), "{}", ran.out);
}

#[test]
fn a_log_is_lines_in_a_pipe_and_objects_for_a_program() {
    let daemon = Daemon::over_socket(world([]));
    let ran = daemon.run(&["logs"]);
    let expected = "\
2026-01-31T12:00:00Z back up the database
2026-01-31T12:00:00Z pull the image
";
    assert_eq!((ran.exit, ran.out.as_str()), (0, expected));
    let ran = daemon.run(&["logs", "--json"]);
    assert_eq!(ran.json_lines()[1]["text"], "pull the image");
}

#[test]
fn a_journal_that_is_not_there_is_exit_1() {
    let directory = tempfile::tempdir().expect("a directory");
    for verb in ["verify", "export"] {
        let output = program(directory.path(), 1).args(["journal", verb]).output();
        let ran = Ran::of(output.expect("the program runs"));
        assert_eq!(ran.exit, 1, "{ran:?}");
        assert!(ran.err.contains("journal.db"), "{ran:?}");
    }
}

#[test]
fn a_journal_is_verified_and_exported_without_a_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal.db");
    drop(payram_updater::journal::Journal::open(&path).expect("a journal"));
    let output = program(directory.path(), 1).args(["journal", "verify"]).output();
    let ran = Ran::of(output.expect("the program runs"));
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!((ran.json()["ok"].as_bool(), ran.json()["rows"].as_u64()), (Some(true), Some(0)));
    let output = program(directory.path(), 1).args(["journal", "export"]).output();
    let ran = Ran::of(output.expect("the program runs"));
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""));
}

#[test]
fn wrong_usage_is_exit_2_and_help_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| {
        let output = program(directory.path(), 1).args(arguments).output();
        Ran::of(output.expect("the program runs"))
    };
    for arguments in [
        &["run"][..],
        &["dry-run"],
        &["run", "--to", "1.9.7", "--mode", "root"],
        &["history", "--limit", "0"],
        &["history", "--limit", "many"],
        &["upgrade"],
        &["journal"],
        &["completions", "cmd"],
        &["status", "--colour"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.exit, 2, "{arguments:?} {ran:?}");
        assert!(ran.err.contains("--help"), "{ran:?}");
        assert_eq!(ran.out, "", "{arguments:?}");
    }
    let help = run(&["--help"]);
    assert_eq!(help.exit, 0);
    for said in ["dry-run", "journal", "cancel", "5  needs an operator", "without a command"] {
        assert!(help.out.contains(said), "{said}: {}", help.out);
    }
    assert!(!help.out.contains("statechart"), "it is hidden");
    assert!(run(&["run", "--help"]).out.contains("exit 130"));
    assert_eq!(run(&["--version"]).out, format!("payram-updater {}\n", env!("CARGO_PKG_VERSION")));
}
