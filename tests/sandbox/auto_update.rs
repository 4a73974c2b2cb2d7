//! Auto-update on the make-believe engine: what it takes, what it leaves, for what it waits, and
//! that it says why.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::shop::{END, SOON, Shop};
use crate::support::{Daemon, wait_until};

/// Turns it on, as `init` does.
fn turn_on(shop: &Shop) {
    let ran = shop.cli(&["init", "--autoupdate", "--interval-hours", "1"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
}

/// The newest event of auto-update, once there is one of this status.
fn decided(daemon: &Daemon, status: &str, limit: Duration) -> Value {
    wait_until(&format!("auto-update says {status}"), limit, || {
        let path = format!("/history?type=auto_update&status={status}&limit=1");
        daemon.get(&path).json()["events"].get(0).cloned()
    })
}

fn message(event: &Value) -> &str {
    event["message"].as_str().expect("a sentence")
}

fn jobs(daemon: &Daemon) -> Vec<Value> {
    daemon.get("/upgrade/jobs").json()["jobs"].as_array().expect("a list").clone()
}

#[test]
fn a_new_latest_is_taken_at_the_start_and_the_next_look_survives_a_restart() {
    let shop = Shop::open(json!({"2.0.0": {}}));
    let daemon = shop.daemon();
    assert_eq!(daemon.status()["autoUpdate"], json!({"enabled": false}), "off unless turned on");
    assert!(daemon.terminate().success());
    turn_on(&shop);
    let daemon = shop.daemon();
    let begun = decided(&daemon, "started", SOON);
    assert!(message(&begun).contains("1.9.6 to 2.0.0"), "{begun:#}");
    let status = daemon.wait_settled(END);
    assert_eq!((&status["phase"], &status["mode"]), (&json!("VERIFIED"), &json!("DASHBOARD")));
    assert_eq!(
        (&status["source"], &status["jobId"]),
        (&json!("auto-update"), &begun["data"]["jobId"])
    );
    shop.wait_serves("2.0.0");
    assert!(daemon.terminate().success());

    let daemon = shop.daemon();
    let view = daemon.status()["autoUpdate"].clone();
    assert_eq!((&view["enabled"], &view["intervalHours"]), (&json!(true), &json!(1)), "{view:#}");
    assert_eq!(view["lastLook"], begun["timestamp"], "the restart is no reason to look: {view:#}");
    assert!(view["nextLook"].as_str() > view["lastLook"].as_str(), "{view:#}");
    let shown = shop.cli(&["status", "--text"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("Updates") && text.contains("every 1 h"), "{text}");
    let report = daemon.get("/upgrade/inspect").json();
    let check = &report["checks"]["autoUpdate"];
    assert_eq!(check["status"], "OK", "{report:#}");
    assert!(message(check).contains("begins an upgrade"), "{check}");
    assert_eq!(jobs(&daemon).len(), 1);
    assert_eq!(daemon.get("/history?type=auto_update").json()["count"], 1);
    assert_eq!(shop.cli(&["journal", "verify"]).status.code(), Some(0));
}

#[test]
fn a_quarantined_latest_is_left_alone_and_nothing_new_is_said_to_be_nothing() {
    let shop = Shop::open(json!({"2.0.0": {"health": [500], "takesPayments": false}, "1.9.7": {}}));
    let daemon = shop.daemon();
    assert_eq!(shop.upgrade("2.0.0").0, Some(4));
    assert_eq!(shop.upgrade("1.9.7").0, Some(0));
    turn_on(&shop);
    let left = decided(&daemon, "failed", SOON);
    assert_eq!(left["data"]["failureCode"], "VERSION_QUARANTINED", "{left:#}");
    assert!(message(&left).contains("--clear-quarantine 2.0.0"), "{left:#}");
    assert_eq!(jobs(&daemon).len(), 2, "nothing was begun");
    assert_eq!(shop.serves().as_deref(), Some("1.9.7"));

    let newest = Shop::open(json!({}));
    turn_on(&newest);
    let daemon = newest.daemon();
    let nothing = decided(&daemon, "succeeded", SOON);
    assert!(message(&nothing).starts_with("found nothing to do: 1.9.6"), "{nothing:#}");
    assert_eq!(jobs(&daemon).len(), 0);
}

#[test]
fn it_waits_while_an_upgrade_is_under_way_after_a_failed_one_and_outside_its_window() {
    let shop = Shop::open(json!({"2.0.0": {}, "1.9.7": {"bootMs": 8000, "health": [500]}}));
    let daemon = shop.daemon();
    let begun = shop.cli(&["run", "--to", "1.9.7", "--yes", "--detach"]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    turn_on(&shop);
    let waits = decided(&daemon, "waiting", SOON);
    assert!(message(&waits).contains("the upgrade to 1.9.7 that is under way"), "{waits:#}");
    assert_eq!(daemon.wait_settled(END)["phase"], "ROLLED_BACK");
    let waits = wait_until("the failed one is what it waits for", SOON, || {
        let event = decided(&daemon, "waiting", SOON);
        message(&event).contains("ended with HEALTHCHECK_FAILED").then_some(event)
    });
    assert!(message(&waits).contains("payram-updater sync"), "{waits:#}");
    let synced = shop.cli(&["sync"]);
    assert_eq!(synced.status.code(), Some(0), "{synced:?}");
    decided(&daemon, "started", SOON);
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");
    shop.wait_serves("2.0.0");

    let mut closed = Shop::open(json!({"2.0.0": {}}));
    // Open tomorrow, and again in a week: today, whatever day that is, it is closed.
    let today = Window::of_a_day_that_is_not_today();
    closed.set("AUTO_UPDATE_WINDOW", &today.0);
    turn_on(&closed);
    let daemon = closed.daemon();
    let waits = decided(&daemon, "waiting", SOON);
    assert!(message(&waits).contains("waits for its window"), "{waits:#}");
    assert_eq!(jobs(&daemon).len(), 0);
    assert!(daemon.terminate().success());

    // A window that is none stops the start, and names the key, the value and what is allowed.
    closed.set("AUTO_UPDATE_WINDOW", "weekends");
    let mut daemon = closed.spawn_daemon();
    assert!(!daemon.wait_exit(SOON).success());
    let log = daemon.log();
    assert!(
        log.contains("AUTO_UPDATE_WINDOW is `weekends` (environment); allowed: any, or days"),
        "{log}"
    );
}

#[test]
fn a_configuration_that_can_not_be_read_turns_nothing_on_and_is_said() {
    let shop = Shop::open(json!({"2.0.0": {}}));
    fs::create_dir_all(shop.path("state")).expect("a directory");
    fs::write(shop.path("state/updater-config.json"), r#"{"autoUpdateEnabled": "yes"}"#)
        .expect("written");
    let daemon = shop.daemon();
    let view = daemon.status()["autoUpdate"].clone();
    assert_eq!(view["enabled"], false, "{view:#}");
    assert!(view["error"].as_str().expect("why").contains("expected true or false"), "{view:#}");
    let report = daemon.get("/upgrade/inspect").json();
    assert_eq!(report["checks"]["autoUpdate"]["status"], "WARNING", "{report:#}");
    assert_eq!(shop.serves().as_deref(), Some("1.9.6"));
}

/// A window on one day of the week, two days from now: also when midnight passes it stays closed.
struct Window(String);

impl Window {
    fn of_a_day_that_is_not_today() -> Self {
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_secs();
        // 1970-01-01 was a Thursday; three days on is far from today in every time zone.
        let day = ((seconds / 86_400 + 3 + 3) % 7) as usize;
        Self(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][day].to_owned())
    }
}
