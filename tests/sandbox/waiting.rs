//! An upgrade that waits for a person says so everywhere, and goes on or goes back on a word. A
//! cancellation is of the job that the person saw.

use serde_json::{Value, json};

use crate::shop::{END, SOON, Shop};
use crate::support::Daemon;
use crate::support::http::Request;
use crate::support::wait_until;

const WAITS: &str = "Stopped after a restart, waiting for you (RESUME=manual)";

/// A shop whose updater was killed at this request to the engine, and was started again with
/// RESUME=manual.
fn held_after(release: Value, fault: Value) -> (Shop, Daemon) {
    let mut shop = Shop::open(json!({"2.0.0": release}));
    let mut daemon = shop.daemon();
    shop.faults(&json!([fault]));
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    daemon.wait_exit(END);
    drop(daemon);
    shop.set("RESUME", "manual");
    let daemon = shop.daemon();
    wait_until("it says that it waits", SOON, || {
        daemon.get("/upgrade/logs").body.contains(WAITS).then_some(())
    });
    (shop, daemon)
}

fn how(status: &Value) -> Vec<&str> {
    let how = status["waitsFor"]["how"].as_array().expect("how");
    how.iter().filter_map(Value::as_str).collect()
}

fn cancel(shop: &Shop, body: &Value) -> (u16, Value) {
    let answer = Request::post("/upgrade/cancel", &body.to_string())
        .to_socket(&shop.path("run/updater.sock"))
        .expect("an answer");
    (answer.status, answer.json())
}

fn held_with_the_shop_down() -> (Shop, Daemon) {
    held_after(json!({}), json!({"on": "stop", "do": "kill-after"}))
}

#[test]
fn an_upgrade_that_waits_after_a_restart_says_so_everywhere_and_is_cancelled() {
    let (shop, daemon) = held_with_the_shop_down();
    let status = daemon.status();
    assert_eq!(status["waitsFor"]["who"], "operator", "{status:#}");
    assert_eq!(how(&status), ["payram-updater recover", "payram-updater cancel"]);
    let message = status["message"].as_str().expect("a sentence");
    assert!(message.starts_with(WAITS), "{message}");
    assert!(message.contains("Go on: sudo payram-updater recover"), "{message}");
    assert!(status.get("activity").is_none(), "nothing is being done: {status:#}");
    assert_eq!(daemon.get("/upgrade/last").json()["waitsFor"], status["waitsFor"]);

    let report = shop.cli(&["inspect", "--json"]);
    assert_eq!(report.status.code(), Some(1), "{report:?}");
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["overallState"], "BROKEN", "nothing serves: {report:#}");
    assert_eq!(report["recommendations"][0]["action"], "recover", "{report:#}");
    let advice = report["recommendations"][0]["description"].as_str().expect("a text");
    assert!(advice.contains("payram-updater cancel"), "{advice}");
    assert!(report["issues"].to_string().contains(WAITS), "{report:#}");

    let text = shop.cli(&["status", "--text"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("Waits for the operator: sudo payram-updater recover"), "{text}");
    let recover = shop.cli(&["recover", "--dry-run", "--text"]).stdout;
    let recover = String::from_utf8_lossy(&recover).into_owned();
    assert!(recover.contains("to go back instead: payram-updater cancel"), "{recover}");

    let cancelled = shop.cli(&["cancel", "--yes"]);
    assert_eq!(cancelled.status.code(), Some(0), "{cancelled:?}");
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}");
    assert!(status.get("waitsFor").is_none(), "{status:#}");
    shop.wait_serves("1.9.6");
    assert_eq!(shop.containers(), ["payram running"]);
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

#[test]
fn an_upgrade_that_waits_goes_on_when_recover_says_so() {
    let (shop, daemon) = held_with_the_shop_down();
    let recovered = shop.cli(&["recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(0), "{recovered:?}");
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
    assert_eq!(shop.lost(), Vec::<String>::new());
}

#[test]
fn a_way_back_that_waits_cant_be_cancelled_and_the_truth_is_said() {
    // The third renaming is the first of the way back.
    let fault = json!({"on": "rename", "nth": 3, "do": "kill-after"});
    let (shop, daemon) = held_after(json!({"exitsAtStart": true}), fault);
    let status = daemon.status();
    assert_eq!(status["phase"], "ROLLING_BACK", "{status:#}");
    assert_eq!(how(&status), ["payram-updater recover"]);
    let (code, answer) = cancel(&shop, &json!({"jobId": status["jobId"]}));
    assert_eq!((code, &answer["code"]), (409, &json!("NOTHING_TO_CANCEL")), "{answer:#}");
    let said = answer["error"].as_str().expect("a text");
    assert!(said.contains("going back already and waits; payram-updater recover"), "{said}");
    assert_eq!(daemon.status()["phase"], "ROLLING_BACK", "nothing went on");
    shop.cli(&["recover", "--yes"]);
    assert_eq!(daemon.wait_settled(END)["phase"], "ROLLED_BACK");
    shop.wait_serves("1.9.6");
}

#[test]
fn a_job_that_stopped_for_a_decision_says_who_must_act() {
    let release = json!({"migration": {"schema": true, "rows": 10, "fails": true}});
    let shop = Shop::open(json!({"2.0.0": release}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");
    let status = daemon.status();
    assert_eq!(status["waitsFor"]["who"], "operator", "{status:#}");
    assert_eq!(how(&status), ["payram-updater recover"]);
}

#[test]
fn a_job_that_began_since_is_not_cancelled_in_the_place_of_the_one_that_was_meant() {
    let shop = Shop::open(json!({"1.9.7": {}, "2.0.0": {"pullMs": 4000}}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("1.9.7");
    assert_eq!(exit, Some(0), "{said}");
    let meant = daemon.status()["jobId"].clone();
    assert!(shop.begin(), "the next one begins");
    let (code, answer) = cancel(&shop, &json!({"jobId": meant}));
    assert_eq!((code, &answer["code"]), (409, &json!("ANOTHER_JOB_ACTIVE")), "{answer:#}");
    let active = daemon.status()["jobId"].clone();
    assert_eq!(answer["jobId"], active, "it says which one is: {answer:#}");
    for body in [json!({"jobId": 7}), json!("job"), json!({"jobId": ""})] {
        let (code, answer) = cancel(&shop, &body);
        assert!((400..500).contains(&code), "{body}: {answer:#}");
    }
    let status = daemon.wait_settled(END);
    assert_eq!((&status["phase"], &status["jobId"]), (&json!("VERIFIED"), &active), "{status:#}");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
}

#[test]
fn the_active_job_is_cancelled_by_its_id_and_by_an_earlier_client_that_names_none() {
    for names in [true, false] {
        let shop = Shop::open(json!({"2.0.0": {"pullMs": 20000}}));
        shop.wait_serves("1.9.6");
        let daemon = shop.daemon();
        assert!(shop.begin());
        let job = daemon.status()["jobId"].clone();
        let body = if names { json!({"jobId": job}) } else { json!({}) };
        let (code, answer) = cancel(&shop, &body);
        assert_eq!((code, &answer["jobId"]), (202, &job), "{answer:#}");
        let status = daemon.wait_settled(END);
        assert_eq!(status["failureCode"], "CANCELLED", "{status:#}");
        assert_eq!(shop.serves().as_deref(), Some("1.9.6"));
    }
}

#[test]
fn what_a_setting_takes_back_after_a_restart_is_not_called_an_operators_word() {
    let mut shop = Shop::open(json!({"2.0.0": {}}));
    let mut daemon = shop.daemon();
    shop.faults(&json!([{"on": "stop", "do": "kill-after"}]));
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    daemon.wait_exit(END);
    drop(daemon);
    shop.set("RESUME", "rollback");
    let daemon = shop.daemon();
    let status = daemon.wait_settled(END);
    assert_eq!(
        (&status["phase"], &status["failureCode"]),
        (&json!("ROLLED_BACK"), &json!("CANCELLED"))
    );
    let message = status["message"].as_str().expect("a sentence");
    assert!(message.contains("cancelled by RESUME=rollback, after a restart, at"), "{message}");
    shop.wait_serves("1.9.6");
}
