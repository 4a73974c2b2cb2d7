//! What a person sees: the program on a terminal of its own, by `script`(1).

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::*;

/// What the program shows on a terminal of its own, when this is typed. Carriage returns are
/// the terminal's.
fn on_terminal(daemon: &Daemon, arguments: &str, typed: &str) -> Option<Ran> {
    let typescript = daemon.directory.path().join("typescript");
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_payram-updater"));
    let mut command = Command::new("script");
    command
        .args(["-qec", &line])
        .arg(&typescript)
        .current_dir(daemon.directory.path())
        .env("RUN_DIR", daemon.directory.path())
        .env("STATE_DIR", daemon.directory.path())
        .env("UPDATER_PORT", daemon.port.to_string())
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let required = std::env::var("PAYRAM_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.contains("terminal"), "script(1) is missing: {error}");
            eprintln!("SKIPPED: script(1) is missing: {error}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, typed.as_bytes()).expect("typed");
    let output = child.wait_with_output();
    drop(stdin);
    let mut ran = Ran::of(output.expect("an end"));
    ran.out = ran.out.replace('\r', "");
    Some(ran)
}

#[test]
fn on_a_terminal_the_summary_is_shown_and_a_no_changes_nothing() {
    let daemon = Daemon::over_socket(world([]));
    let Some(ran) = on_terminal(&daemon, "run --to 1.9.7", "n\n") else { return };
    assert_eq!(ran.exit, 1, "{ran:?}");
    let summary = "\
╔══════════════════════════════════════════════════════════════╗
║                     UPGRADE SUMMARY                          ║
╠══════════════════════════════════════════════════════════════╣
║  Mode:             MANUAL                                    ║
║  Requested Target: 1.9.7                                     ║
║  Resolved Target:  1.9.7                                     ║
║  Image:            payramapp/payram                          ║
║  Container:        payram                                    ║
╠══════════════════════════════════════════════════════════════╣
║  ⚠️  This will stop and replace the container.               ║
║     Brief downtime expected.                                 ║
╚══════════════════════════════════════════════════════════════╝

Proceed? (y/N): ";
    assert!(ran.out.contains(summary), "{}", ran.out);
    assert!(ran.out.ends_with("Aborted by user. Nothing was changed.\n"), "{}", ran.out);
    assert!(daemon.asked("POST /upgrade/run").is_empty());
}

#[test]
fn on_a_terminal_a_yes_upgrades_and_shows_the_end() {
    let daemon = Daemon::over_socket(world([
        // Before the question.
        status("READY", "VERIFIED", ""),
        status("BACKING_UP", "PLANNED", ""),
        status("READY", "VERIFIED", ""),
    ]));
    let Some(ran) = on_terminal(&daemon, "run --to 1.9.7", "y\n") else { return };
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(daemon.asked("POST /upgrade/run").len(), 1);
    for said in ["12:00:00 pull the image", "✔ Done  1.9.6 → 1.9.7", "Downtime: 3.2 s"] {
        assert!(ran.out.contains(said), "{said}: {}", ran.out);
    }
}

#[test]
fn on_a_terminal_the_status_is_for_a_person() {
    let daemon = Daemon::over_socket(world([status("EXECUTING", "PULLED", "")]));
    let Some(ran) = on_terminal(&daemon, "status", "") else { return };
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.out.starts_with("1.9.6 → 1.9.7  MANUAL\n  State     EXECUTING · PULLED\n"));
    assert!(!ran.out.contains('\x1b'), "NO_COLOR is honoured: {:?}", ran.out);
}

/// What `recover --restore-database` is answered when the failed version wrote so many rows.
fn restores(rows: u32) -> Value {
    json!({"success": true, "action": "restore_database", "code": "MIGRATION_FAILED",
        "message": format!("9.0.5 changed {rows} rows; the database comes back"),
        "found": [format!("public.payments: {rows} rows inserted")],
        "shown": format!("token-of-{rows}")})
}

const AGAIN: &str = "What was found has changed since you were asked. Nothing was put back. Now:";

#[test]
fn on_a_terminal_a_consent_is_asked_for_again_when_more_was_written_than_was_shown() {
    let mut world = world([
        status("FAILED", "NEEDS_OPERATOR", "MIGRATION_FAILED"),
        status("FAILED", "ROLLED_BACK", "MIGRATION_FAILED"),
    ]);
    // Asked, consented to, found to be more, asked again, consented to.
    world.recover = [restores(3), restores(3), restores(5), restores(5)].into();
    let daemon = Daemon::over_socket(world);
    let Some(ran) = on_terminal(&daemon, "recover --restore-database", "y\ny\n") else { return };
    assert_eq!(ran.exit, 0, "{ran:?}");
    let (before, after) = ran.out.split_once(AGAIN).unwrap_or_else(|| panic!("{}", ran.out));
    assert!(before.contains("9.0.5 changed 3 rows"), "{before}");
    assert!(after.contains("9.0.5 changed 5 rows"), "{after}");
    let shown: Vec<Value> =
        daemon.asked("POST /upgrade/recover").iter().map(|body| body["shown"].clone()).collect();
    // The last asks how it is, after it went its way.
    let expected =
        [Value::Null, "token-of-3".into(), Value::Null, "token-of-5".into(), Value::Null];
    assert_eq!(shown, expected);
}

#[test]
fn on_a_terminal_a_no_to_what_has_changed_puts_nothing_back() {
    let mut world = world([status("FAILED", "NEEDS_OPERATOR", "MIGRATION_FAILED")]);
    let changed = json!({"success": false, "action": "changed", "code": "MIGRATION_FAILED",
        "message": "what was found has changed", "refusals": ["nothing was done"]});
    world.recover = [restores(3), changed, restores(5)].into();
    let daemon = Daemon::over_socket(world);
    let Some(ran) = on_terminal(&daemon, "recover --restore-database", "y\nn\n") else { return };
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.out.contains(AGAIN) && ran.out.ends_with("Nothing was changed.\n"), "{}", ran.out);
    assert_eq!(daemon.asked("POST /upgrade/recover").len(), 3);
}

#[test]
fn a_yes_given_beforehand_is_to_whatever_is_found() {
    let mut world = world([status("FAILED", "ROLLED_BACK", "MIGRATION_FAILED")]);
    world.recover = [restores(3)].into();
    let daemon = Daemon::over_socket(world);
    let ran = daemon.run(&["recover", "--restore-database", "--yes"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let asked = daemon.asked("POST /upgrade/recover");
    assert!(asked.iter().all(|body| body["shown"].is_null()), "{asked:?}");
}

#[test]
fn a_recovery_shows_what_comes_and_the_whole_log_only_where_it_is_asked_for() {
    let mut world = world([status("FAILED", "ROLLED_BACK", "MIGRATION_FAILED")]);
    world.recover = [restores(3)].into();
    world.logs = vec![(3, "first"), (5, "second"), (8, "third"), (9, "fourth"), (12, "fifth")];
    let daemon = Daemon::over_socket(world);
    let shown = |arguments: &[&str]| {
        let ran = daemon.run(arguments);
        assert_eq!(ran.exit, 0, "{ran:?}");
        let lines = ran.out.lines().filter_map(|line| line.strip_prefix("2026-01-31T12:00:00Z "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let recover = ["recover", "--restore-database", "--yes", "-v"];
    assert_eq!(shown(&recover[..3]), ["third", "fourth", "fifth"]);
    assert_eq!(shown(&recover), ["first", "second", "third", "fourth", "fifth"]);
}

#[test]
fn cleanup_wants_the_word_yes_and_removes_what_was_shown_and_nothing_else() {
    let mut world = world([]);
    world.cleanup = json!({"success": true, "message": "1 file would go, which gives 2.5 MB",
        "what": "backups", "dryRun": true, "bytes": 2_500_000, "kept": [], "refusals": [],
        "files": [{"path": "/b/payram-backup-1.dump", "bytes": 2_500_000, "what": "backup"}]});
    let daemon = Daemon::over_socket(world);
    let Some(ran) = on_terminal(&daemon, "cleanup backups", "y\n") else { return };
    assert_eq!(ran.exit, 1, "{ran:?}");
    for part in ["/b/payram-backup-1.dump", "2.5 MB", "Type yes to go on", "Nothing was changed"] {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(daemon.asked("POST /upgrade/cleanup").len(), 1, "it only looked");
    let Some(ran) = on_terminal(&daemon, "cleanup backups", "yes\n") else { return };
    assert_eq!(ran.exit, 0, "{ran:?}");
    let asked = daemon.asked("POST /upgrade/cleanup");
    let last = asked.last().expect("a request");
    assert_eq!(
        (&last["dryRun"], &last["only"]),
        (&json!(false), &json!(["/b/payram-backup-1.dump"]))
    );
}

#[test]
fn who_says_yes_to_a_plan_runs_that_plan_and_no_other() {
    let mut world = world([status("READY", "VERIFIED", "")]);
    world.plan["planHash"] = json!("a-b-c-d");
    let daemon = Daemon::over_socket(world);
    let Some(ran) = on_terminal(&daemon, "run --to 1.9.7", "y\n") else { return };
    assert_eq!(ran.exit, 0, "{ran:?}");
    let asked = daemon.asked("POST /upgrade/run");
    assert_eq!(asked.last().expect("a request")["planHash"], "a-b-c-d");
}

#[test]
fn what_other_tools_call_it_is_answered_with_what_to_type() {
    let daemon = Daemon::asleep(world([]));
    let ran = daemon.run(&["upgrade"]);
    assert_eq!((ran.exit, ran.out.as_str()), (2, ""), "{ran:?}");
    assert!(ran.err.contains("to upgrade: payram-updater run --to latest"), "{ran:?}");
    let ran = daemon.run(&["help", "--help"]);
    assert!(ran.exit == 0 && ran.out.contains("Put right"), "{ran:?}");
    let ran = daemon.run(&["run", "--yes", "--to", &"9".repeat(100_000)]);
    assert!(ran.exit == 2 && ran.err.len() < 200, "{} bytes", ran.err.len());
}
