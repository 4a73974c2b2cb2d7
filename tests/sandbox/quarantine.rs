//! A version that failed here is not offered again, until its tag moves or an operator says so.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::shop::Shop;
use crate::support::Daemon;

/// How a release that never gets healthy is described.
fn unhealthy() -> Value {
    json!({"health": [500], "takesPayments": false})
}

/// A shop on 1.9.6 on which 2.0.0 was rolled back.
fn rolled_back(release: Value) -> (Shop, Daemon) {
    let shop = Shop::open(json!({"2.0.0": release}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(4), "{said}");
    (shop, daemon)
}

/// What the dashboard is told about a target.
fn plan(daemon: &Daemon, target: &str) -> Value {
    daemon.post("/upgrade/plan", &json!({"requestedTarget": target})).json()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn assert_offered(daemon: &Daemon, target: &str) {
    let plan = plan(daemon, target);
    assert_eq!((&plan["state"], &plan["failureCode"]), (&json!("READY"), &json!("")), "{plan:#}");
    assert!(plan.get("quarantined").is_none(), "{plan:#}");
}

fn assert_quarantined(daemon: &Daemon, target: &str) -> Value {
    let plan = plan(daemon, target);
    assert_eq!(plan["state"], "FAILED", "{plan:#}");
    assert_eq!(plan["failureCode"], "VERSION_QUARANTINED", "{plan:#}");
    plan
}

/// The scenario's entry of a tag, replaced or taken away; the engine is started again with it.
fn move_tag(shop: &mut Shop, tag: &str, release: Option<Value>) {
    let path = shop.path("scenario.json");
    let text = fs::read_to_string(&path).expect("a scenario");
    let mut scenario: Value = serde_json::from_str(&text).expect("JSON");
    let tags = scenario["tags"].as_object_mut().expect("an object");
    match release {
        Some(release) => tags.insert(tag.to_owned(), release),
        None => tags.remove(tag),
    };
    fs::write(&path, scenario.to_string()).expect("a scenario");
    shop.restart_engine();
    shop.wait_serves("1.9.6");
}

#[test]
fn a_version_that_failed_here_is_not_offered_by_the_dashboard_and_says_when_why_and_how_to_clear() {
    let (shop, daemon) = rolled_back(unhealthy());
    for target in ["2.0.0", "latest"] {
        let plan = assert_quarantined(&daemon, target);
        let message = plan["message"].as_str().expect("a sentence");
        let failed = &plan["quarantined"][0];
        for part in [
            failed["failedAt"].as_str().expect("a time"),
            &failed["digest"].as_str().expect("a digest")[..19],
            "HEALTHCHECK_FAILED",
            "did not stay good for 1 s within 2 s",
            "payram-updater recover --clear-quarantine 2.0.0",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(failed["version"], "2.0.0", "{plan:#}");
        assert_eq!(failed["clear"], "payram-updater recover --clear-quarantine 2.0.0");
        assert!(failed.get("unsure").is_none(), "the registry was asked: {plan:#}");
        let run = daemon.post("/upgrade/run", &json!({"requestedTarget": target})).json();
        assert_eq!((&run["state"], &run["jobId"]), (&json!("FAILED"), &json!("")), "{run:#}");
        assert_eq!(run["failureCode"], "VERSION_QUARANTINED", "{run:#}");
    }
    let shown = shop.cli(&["dry-run", "--to", "2.0.0", "--mode", "dashboard", "--text"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(said(&shown).contains("Code: VERSION_QUARANTINED"), "{}", said(&shown));
    assert_eq!(shop.serves().as_deref(), Some("1.9.6"));
    assert_eq!(daemon.status()["failureCode"], "HEALTHCHECK_FAILED", "a refusal makes no job");
}

#[test]
fn inspect_says_what_is_quarantined_and_gives_the_command_that_clears_it() {
    let (shop, daemon) = rolled_back(unhealthy());
    let report = daemon.get("/upgrade/inspect").json();
    assert_eq!(report["overallState"], "OK", "{report:#}");
    let all = report["issues"].as_array().expect("a list");
    let issue = all.iter().find(|one| one["component"] == "quarantine").expect("an issue");
    assert_eq!(issue["severity"], "INFO", "{issue}");
    let description = issue["description"].as_str().expect("a sentence");
    assert!(description.contains("2.0.0 is quarantined"), "{description}");
    let all = report["recommendations"].as_array().expect("a list");
    let clear = "payram-updater recover --clear-quarantine 2.0.0";
    let is_it = |one: &&Value| one["description"].as_str().is_some_and(|how| how.contains(clear));
    assert_eq!(all.iter().find(is_it).expect("the command")["action"], "recover", "{report:#}");
    let update = &report["updateInfo"];
    assert_eq!(update["updateAvailable"], true, "{update}");
    assert_eq!(update["canUpdateViaDashboard"], false, "{update}");
    assert!(update["message"].as_str().expect("a sentence").contains(clear), "{update}");
    let shown = said(&shop.cli(&["inspect", "--text"]));
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(clear), "{shown}");
}

#[test]
fn manual_mode_goes_to_a_quarantined_version_and_warns_before_the_question() {
    let (shop, _daemon) = rolled_back(unhealthy());
    let shown = shop.cli(&["dry-run", "--to", "2.0.0", "--text"]);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    let text = said(&shown);
    assert!(text.contains("2.0.0 failed here before: HEALTHCHECK_FAILED"), "the box: {text}");
    assert!(text.contains("2.0.0 is quarantined"), "the notes: {text}");
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(4), "it was tried again: {said}");
    assert_eq!(shop.serves().as_deref(), Some("1.9.6"));
}

#[test]
fn a_quarantine_is_cleared_by_the_operator_and_by_nobody_else() {
    let (shop, daemon) = rolled_back(unhealthy());
    let over_tcp = daemon.post("/upgrade/recover", &json!({"clearQuarantine": "2.0.0"}));
    assert_eq!(over_tcp.status, 403, "{}", over_tcp.body);

    let unknown = shop.cli(&["recover", "--clear-quarantine", "1.9.7", "--yes", "--text"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(said(&unknown).contains("1.9.7 is not quarantined"), "{}", said(&unknown));
    assert!(said(&unknown).contains("quarantined are: 2.0.0"), "{}", said(&unknown));

    let unasked = shop.cli(&["recover", "--clear-quarantine", "2.0.0"]);
    assert_eq!(unasked.status.code(), Some(2), "no terminal to ask on: {}", said(&unasked));

    let dry = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--dry-run", "--json"]);
    assert_eq!(dry.status.code(), Some(0), "{}", said(&dry));
    let decision: Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    assert_eq!(decision["action"], "clear_quarantine", "{decision}");
    assert_quarantined(&daemon, "2.0.0");

    let cleared = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--yes", "--json"]);
    assert_eq!(cleared.status.code(), Some(0), "{}", said(&cleared));
    let decision: Value = serde_json::from_slice(&cleared.stdout).expect("JSON");
    assert_eq!(decision["success"], true, "{decision}");
    assert_offered(&daemon, "latest");
    let history = daemon.get("/history?type=quarantine&status=cleared").json();
    assert_eq!(history["events"][0]["data"]["version"], "2.0.0", "{history:#}");

    let again = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--yes", "--text"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert!(said(&again).contains("not quarantined any more"), "{}", said(&again));
    let history = daemon.get("/history?type=quarantine").json();
    assert_eq!(history["count"], 1, "nothing was journaled twice: {history:#}");
    assert_eq!(shop.cli(&["journal", "verify"]).status.code(), Some(0));

    let run = daemon.post("/upgrade/run", &json!({"requestedTarget": "latest"})).json();
    assert_eq!(run["state"], "READY", "the dashboard may try it again: {run:#}");
    daemon.wait_settled(crate::shop::END);
    assert_quarantined(&daemon, "latest");
}

#[test]
fn a_quarantine_is_cleared_without_a_daemon_too() {
    let (shop, daemon) = rolled_back(unhealthy());
    assert!(daemon.terminate().success());
    let dry = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--dry-run", "--text"]);
    assert_eq!(dry.status.code(), Some(0), "{}", said(&dry));
    assert!(said(&dry).contains("Nothing was changed."), "{}", said(&dry));
    let unknown = shop.cli(&["recover", "--clear-quarantine", "3.0.0", "--yes"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    let cleared = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--yes", "--json"]);
    assert_eq!(cleared.status.code(), Some(0), "{}", said(&cleared));
    let decision: Value = serde_json::from_slice(&cleared.stdout).expect("JSON");
    assert_eq!(decision["action"], "clear_quarantine", "the dry run did nothing: {decision}");
    let daemon = shop.daemon();
    assert_offered(&daemon, "2.0.0");
}

#[test]
fn a_tag_that_moved_to_another_image_is_offered_again_and_the_old_image_is_not() {
    let (mut shop, daemon) = rolled_back(unhealthy());
    move_tag(&mut shop, "2.0.0", Some(json!({"bootMs": 50, "pullMs": 50})));
    assert_offered(&daemon, "2.0.0");
    let report = daemon.get("/upgrade/inspect").json();
    assert_eq!(report["checks"]["quarantine"]["message"], "no version is quarantined");
    assert_eq!(report["updateInfo"]["canUpdateViaDashboard"], true, "{report:#}");

    // Moved back: the image that failed is as quarantined as before.
    let broken = json!({"bootMs": 50, "pullMs": 50, "health": [500], "takesPayments": false});
    move_tag(&mut shop, "2.0.0", Some(broken));
    assert_quarantined(&daemon, "2.0.0");

    move_tag(&mut shop, "2.0.0", Some(json!({"bootMs": 50, "pullMs": 50})));
    let run = daemon.post("/upgrade/run", &json!({"requestedTarget": "latest"})).json();
    assert_eq!(run["state"], "READY", "{run:#}");
    assert_eq!(daemon.wait_settled(crate::shop::END)["phase"], "VERIFIED");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
}

#[test]
fn where_the_registry_does_not_say_what_the_tag_names_it_stays_quarantined_and_that_is_said() {
    let (mut shop, daemon) = rolled_back(unhealthy());
    move_tag(&mut shop, "2.0.0", None);
    let plan = assert_quarantined(&daemon, "2.0.0");
    let unsure = plan["quarantined"][0]["unsure"].as_str().expect("why it is not certain");
    assert!(unsure.contains("404"), "{unsure}");
    assert!(plan["message"].as_str().expect("a sentence").contains(unsure), "{plan:#}");
}

#[test]
fn a_quarantined_breakpoint_in_the_middle_of_the_route_refuses_the_route() {
    let shop = Shop::open(json!({"2.0.0": unhealthy(), "2.1.0": {}, "1.9.7": {}}));
    let policy = shop.ready["policy"].as_str().expect("a path");
    let text = fs::read_to_string(policy).expect("a policy");
    let mut changed: Value = serde_json::from_str(&text).expect("JSON");
    changed["breakpoints"] = json!([{"version": "2.0.0", "reason": "keys move"}]);
    fs::write(policy, changed.to_string()).expect("a policy");
    let daemon = shop.daemon();
    assert_offered(&daemon, "2.1.0");
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(4), "{said}");
    let plan = assert_quarantined(&daemon, "2.1.0");
    assert_eq!(plan["quarantined"][0]["version"], "2.0.0", "{plan:#}");
    assert_offered(&daemon, "1.9.7");
}

#[test]
fn what_failed_before_it_was_started_is_offered_again() {
    let (_shop, daemon) = rolled_back(json!({"pullFails": "unexpected EOF"}));
    assert_offered(&daemon, "2.0.0");
}

#[test]
fn a_version_that_changed_rows_is_quarantined_once_its_database_was_put_back() {
    let release = json!({"migration": {"schema": true, "rows": 10, "fails": true}});
    let shop = Shop::open(json!({"2.0.0": release}));
    let daemon = shop.daemon();
    let (exit, text) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{text}");
    assert_eq!(plan(&daemon, "2.0.0")["failureCode"], "RECOVERY_REQUIRED");
    let recovered = shop.cli(&["recover", "--restore-database", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", said(&recovered));
    assert_quarantined(&daemon, "2.0.0");
}

#[test]
fn a_quarantined_version_that_is_verified_by_hand_is_quarantined_no_more() {
    let mut shop = Shop::open(json!({"2.0.0": {"bootMs": 5000}}));
    shop.set("START_TIMEOUT_SECONDS", "3");
    let daemon = shop.daemon();
    let (exit, text) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(4), "3 s are not enough for it: {text}");
    assert_quarantined(&daemon, "2.0.0");
    assert!(daemon.terminate().success());
    shop.set("START_TIMEOUT_SECONDS", "60");
    let _daemon = shop.daemon();
    let (exit, text) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(0), "{text}");
    let shown = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--dry-run", "--text"]);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    let expected = "2.0.0 is not quarantined any more: it was verified later";
    assert!(said(&shown).contains(expected), "{}", said(&shown));
}
