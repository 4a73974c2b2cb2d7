//! `sync`: an operator put things right by hand, and what serves then is recorded as good.

use std::fs;

use serde_json::{Value, json};

use crate::shop::{SOON, Shop};
use crate::support::wait_until;

/// What an operator does by hand, as the README says it: the failed container out of the way,
/// the database as it was before in its place, the old container under its name, started.
fn put_the_old_one_back(shop: &Shop) {
    let containers = shop.containers();
    let mut exited = containers.iter().filter_map(|one| one.strip_suffix(" exited"));
    let previous = exited.find(|name| name.starts_with("payram-previous-"));
    let previous = previous.unwrap_or_else(|| panic!("the old one is kept: {containers:?}"));
    shop.tell("/containers/payram/rename?name=payram-failed");
    let data = shop.data();
    let beside = shop.beside_the_database();
    let copy = beside
        .iter()
        .find(|name| name.contains("/.postgres.payram-restore-") && name.ends_with("-1"))
        .unwrap_or_else(|| panic!("the restore point is kept: {beside:?}"));
    fs::rename(&data, data.with_file_name("postgres-by-hand")).expect("it is moved aside");
    fs::rename(data.with_file_name(copy), &data).expect("it is in its place");
    shop.tell(&format!("/containers/{previous}/rename?name=payram"));
    shop.tell("/containers/payram/start");
    shop.wait_serves("1.9.6");
}

fn policy(shop: &Shop) -> Value {
    shop.ask("/containers/payram/json")["HostConfig"]["RestartPolicy"]["Name"].clone()
}

#[test]
fn an_old_container_put_back_by_hand_is_recorded_by_sync_and_the_next_upgrade_may_begin() {
    let release = json!({"migration": {"schema": true, "rows": 10, "fails": true}});
    let shop = Shop::open(json!({"1.9.7": {"migration": {"schema": true}}, "2.0.0": release}));
    let daemon = shop.daemon();
    let before = shop.id();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");

    let refused = shop.cli(&["sync", "--json"]);
    assert_eq!(refused.status.code(), Some(1), "nothing serves: {refused:?}");
    let decision: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(decision["success"], false, "{decision}");
    assert_eq!(daemon.status()["failureCode"], "MIGRATION_FAILED", "nothing was recorded");

    put_the_old_one_back(&shop);
    assert_eq!(shop.id(), before);
    assert_eq!(policy(&shop), "no", "the upgrade held it back");
    let plan = daemon.post("/upgrade/plan", &json!({"requestedTarget": "1.9.7"})).json();
    assert_eq!(plan["failureCode"], "RECOVERY_REQUIRED", "{plan:#}");

    let synced = shop.cli(&["sync", "--json"]);
    assert_eq!(synced.status.code(), Some(0), "{synced:?}");
    let decision: Value = serde_json::from_slice(&synced.stdout).expect("JSON");
    let message = decision["message"].as_str().expect("a sentence");
    assert!(message.starts_with("1.9.6 serves in payram and is recorded as good"), "{message}");
    assert!(message.ends_with("docker rm payram-failed"), "what is left is named: {message}");
    assert_eq!(policy(&shop), "unless-stopped", "it starts again after a reboot");
    let history = daemon.get("/history?type=sync").json();
    assert_eq!(history["events"][0]["data"]["version"], "1.9.6", "{history:#}");
    let report = daemon.get("/upgrade/inspect").json();
    assert_eq!(report["overallState"], "OK", "{report:#}");
    let recover = shop.cli(&["recover", "--dry-run", "--json"]);
    let decision: Value = serde_json::from_slice(&recover.stdout).expect("JSON");
    assert_eq!(decision["action"], "none", "{decision}");

    let plan = |target| daemon.post("/upgrade/plan", &json!({"requestedTarget": target})).json();
    assert_eq!(plan("1.9.7")["state"], "READY", "{:#}", plan("1.9.7"));
    let failed = plan("2.0.0");
    assert_eq!(failed["failureCode"], "VERSION_QUARANTINED", "by hand or not: {failed:#}");
    let (exit, said) = shop.upgrade("1.9.7");
    assert_eq!(exit, Some(0), "{said}");
    assert_eq!(shop.serves().as_deref(), Some("1.9.7"));
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
    assert_eq!(shop.cli(&["journal", "verify"]).status.code(), Some(0));
}

#[test]
fn a_failed_version_that_an_operator_records_as_good_is_not_quarantined() {
    // Unhealthy for longer than it is waited for, while it takes payments.
    let mut health = vec![500; 12];
    health.push(200);
    let release = json!({"health": health, "migration": {"schema": true}});
    let shop = Shop::open(json!({"2.0.0": release}));
    let _daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");
    shop.tell("/containers/payram/start");
    wait_until("2.0.0 is healthy and recorded", SOON, || {
        (shop.cli(&["sync"]).status.code() == Some(0)).then_some(())
    });
    let shown = shop.cli(&["recover", "--clear-quarantine", "2.0.0", "--dry-run", "--text"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("it was recorded as good by sync"), "{text}");
}
