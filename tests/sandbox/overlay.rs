//! What the manifest adds for one version is given to the container of that version.

use std::fs;

use serde_json::{Value, json};

use crate::shop::{END, Shop};

fn change(shop: &Shop, what: &str, change: impl FnOnce(&mut Value)) {
    let path = shop.ready[what].as_str().expect("a path");
    let text = fs::read_to_string(path).expect("it is there");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

#[test]
fn what_the_manifest_adds_for_a_version_in_the_middle_of_the_route_is_added_there() {
    let shop = Shop::open(json!({"1.9.8": {}, "2.0.0": {}}));
    change(&shop, "policy", |policy| {
        policy["breakpoints"] = json!([{"version": "1.9.8", "reason": "keys move"}]);
    });
    change(&shop, "manifest", |manifest| {
        manifest["overrides"] = json!([
            {"version": "1.9.8", "environment": {"MIDDLE": "1"}},
            {"version": "2.0.0", "environment": {"LAST": "1"}},
        ]);
    });
    let daemon = shop.daemon();
    let asked = json!({"mode": "DASHBOARD", "requestedTarget": "2.0.0"});
    let answer = daemon.post("/upgrade/run", &asked).json();
    assert_eq!(answer["state"], "READY", "{answer:#}");
    let is_over = |status: &Value| status["active"] == false;
    let status = daemon.wait_status("both hops are done", END, is_over);
    assert_eq!(
        (&status["phase"], &status["hops"]),
        (&json!("VERIFIED"), &json!(["1.9.8", "2.0.0"]))
    );
    let inspection = shop.ask("/containers/payram/json");
    let environment = inspection["Config"]["Env"].to_string();
    assert!(environment.contains("MIDDLE=1"), "it came with 1.9.8 and stayed: {environment}");
    assert!(environment.contains("LAST=1"), "{environment}");
}
