//! `init`: what it looks at, and what it stores for the daemon.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::shop::Shop;

fn stored(shop: &Shop) -> Option<Value> {
    let text = fs::read_to_string(shop.path("state/updater-config.json")).ok()?;
    Some(serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn init_stores_what_was_decided_and_keeps_what_an_earlier_tool_stored() {
    let shop = Shop::open(json!({}));
    let ran = shop.cli(&["init", "--no-autoupdate"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let answer: Value = serde_json::from_slice(&ran.stdout).expect("JSON in a pipe");
    assert_eq!(answer["success"], true, "{answer:#}");
    for check in ["container", "port"] {
        assert_eq!(answer["checks"][check]["status"], "OK", "{answer:#}");
    }
    let off = json!({"autoUpdateEnabled": false, "autoUpdateIntervalHours": 24,
        "initialized": true});
    assert_eq!((stored(&shop), &answer["config"]), (Some(off.clone()), &off));

    // Without a terminal nobody is asked: what an earlier tool stored stays.
    let earlier = json!({"autoUpdateEnabled": true, "autoUpdateIntervalHours": 6,
        "initialized": true, "channel": "stable"});
    fs::write(shop.path("state/updater-config.json"), earlier.to_string()).expect("written");
    assert_eq!(shop.cli(&["init"]).status.code(), Some(0));
    assert_eq!(stored(&shop), Some(earlier));
    let ran = shop.cli(&["init", "--autoupdate", "--interval-hours", "12", "--text"]);
    let text = String::from_utf8(ran.stdout).expect("text");
    assert!(text.contains("every 12 hours"), "{text}");
    let found = stored(&shop).expect("stored");
    assert_eq!(
        (&found["autoUpdateIntervalHours"], &found["channel"]),
        (&json!(12), &json!("stable"))
    );

    fs::write(shop.path("state/updater-config.json"), "{").expect("written");
    let ran = shop.cli(&["init", "--no-autoupdate"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("updater-config.json: it is not JSON"), "{said}");
}

#[test]
fn init_stores_nothing_where_payram_does_not_run_or_the_port_is_open_to_others() {
    let shop = Shop::open(json!({}));
    let refused = |part: &str| {
        let ran = shop.cli(&["init", "--no-autoupdate", "--json"]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        let answer: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
        assert_eq!(
            (&answer["success"], &answer["code"]),
            (&json!(false), &json!("HOST_NOT_READY"))
        );
        assert!(answer["checks"].to_string().contains(part), "{answer:#}");
        assert_eq!(stored(&shop), None);
    };
    let open = TcpListener::bind(("0.0.0.0", shop.port)).expect("the port is free");
    refused("listens on port");
    drop(open);
    shop.tell("/containers/payram/stop");
    refused("container payram does not run: it is exited");
}
