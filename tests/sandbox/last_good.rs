//! What was good last is what `recover` starts, and nothing older: also where an operator put
//! another version in place by hand, said so with `sync` or did not, and it was stopped, renamed or
//! removed since.

use std::time::Duration;

use serde_json::{Value, json};

use crate::shop::{SOON, Shop};
use crate::support::Daemon;
use crate::support::http::Request;
use crate::support::wait_until;

/// A shop that a job has brought to this version.
fn upgraded_to(version: &str) -> (Shop, Daemon) {
    let shop = Shop::open(json!({"1.9.7": {}, "1.9.8": {}, "2.0.0": {}, "2.0.1": {
        "health": [500], "takesPayments": false,
    }}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade(version);
    assert_eq!(exit, Some(0), "{said}");
    wait_until("the old one is tidied away", SOON, || {
        (shop.containers() == ["payram running"]).then_some(())
    });
    (shop, daemon)
}

/// What an operator does by hand: the container that runs is put aside as `hand-1`, and one of
/// this version, on the same database, takes its name.
fn by_hand(shop: &Shop, version: &str) {
    let seen = shop.ask("/containers/payram/json");
    let image = seen["Config"]["Image"].as_str().expect("an image");
    let (repo, _) = image.rsplit_once(':').expect("a tag");
    shop.tell("/containers/payram/stop");
    shop.tell("/containers/payram/rename?name=hand-1");
    shop.tell(&format!("/images/create?fromImage={repo}&tag={version}"));
    let body = json!({
        "Image": format!("{repo}:{version}"),
        "Env": seen["Config"]["Env"],
        "HostConfig": {
            "Binds": seen["HostConfig"]["Binds"],
            "PortBindings": seen["HostConfig"]["PortBindings"],
        },
    });
    let made = Request::post("/containers/create?name=payram", &body.to_string())
        .to_socket(&shop.path("docker.sock"))
        .expect("an answer");
    assert_eq!(made.status, 201, "{}", made.body);
    shop.tell("/containers/payram/start");
    shop.wait_serves(version);
}

/// A command with `--json`: its exit code and its answer.
fn json_of(shop: &Shop, arguments: &[&str]) -> (Option<i32>, Value) {
    let ran = shop.cli(&[arguments, &["--json"]].concat());
    let answer = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| {
        panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&ran.stderr))
    });
    (ran.status.code(), answer)
}

fn sync(shop: &Shop) -> Value {
    let (exit, answer) = json_of(shop, &["sync"]);
    assert_eq!(exit, Some(0), "{answer:#}");
    answer
}

/// The report as the operator gets it: what is so now.
fn inspect(shop: &Shop) -> Value {
    json_of(shop, &["inspect"]).1
}

fn assert_inspect_is_ok(shop: &Shop) {
    let report = inspect(shop);
    assert_eq!(report["overallState"], "OK", "{report:#}");
    assert_eq!(report["recommendations"][0]["action"], "none", "{report:#}");
}

fn syncs(daemon: &Daemon) -> usize {
    let history = daemon.get("/history?type=sync").json();
    history["events"].as_array().expect("a list").len()
}

/// `recover --yes` starts what was good last, and that serves.
fn recovers(shop: &Shop, version: &str) -> Value {
    let (exit, answer) = json_of(shop, &["recover", "--yes"]);
    assert_eq!(exit, Some(0), "{answer:#}");
    assert_eq!(answer["action"], "start", "{answer:#}");
    shop.wait_serves(version);
    assert_eq!(shop.two_at_once(), "");
    answer
}

/// Carries out every command that a refusal names, as somebody does who pastes it, and looks
/// after each that the older version never came up.
fn carry_out(shop: &Shop, decision: &Value, older: &str) {
    for refusal in decision["refusals"].as_array().expect("refusals") {
        let refusal = refusal.as_str().expect("a text");
        for command in refusal.split([';', ',', ':', '&']).map(str::trim) {
            let words = command.split_whitespace().skip_while(|word| *word != "docker");
            match words.collect::<Vec<_>>()[..] {
                ["docker", "start", name, ..] => shop.tell(&format!("/containers/{name}/start")),
                ["docker", "stop", name, ..] => shop.tell(&format!("/containers/{name}/stop")),
                ["docker", "rename", from, to, ..] => {
                    shop.tell(&format!("/containers/{from}/rename?name={to}"));
                }
                _ => {}
            }
            if let Some((_, command)) = command.split_once("payram-updater ") {
                match command.starts_with("recover") {
                    true => shop.cli(&["recover", "--yes"]),
                    false => shop.cli(&["sync"]),
                };
            }
            std::thread::sleep(Duration::from_millis(300));
            assert_ne!(shop.serves().as_deref(), Some(older), "after {command:?} of {refusal:?}");
        }
    }
}

#[test]
fn after_sync_the_recorded_version_is_the_last_good_one_and_saying_it_again_writes_nothing() {
    let (shop, daemon) = upgraded_to("1.9.8");
    by_hand(&shop, "2.0.0");
    let before = inspect(&shop);
    assert_eq!(before["recommendations"][0]["action"], "sync", "{before:#}");
    assert_eq!(sync(&shop)["action"], "sync");
    assert_inspect_is_ok(&shop);
    assert_eq!(daemon.status()["resolvedTarget"], "1.9.8", "the upgrade is what it was");
    assert_eq!(daemon.status()["state"], "READY");
    assert_eq!(sync(&shop)["action"], "none");
    assert_eq!(syncs(&daemon), 1);

    shop.tell("/containers/payram/stop");
    let report = inspect(&shop);
    assert_eq!(report["recommendations"][0]["action"], "recover", "{report:#}");
    recovers(&shop, "2.0.0");
    assert_eq!(shop.containers(), ["hand-1 exited", "payram running"]);
    assert_inspect_is_ok(&shop);
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.cli(&["journal", "verify"]).status.code(), Some(0));
}

#[test]
fn a_recorded_version_whose_container_was_removed_is_not_replaced_by_the_older_one() {
    let (shop, _daemon) = upgraded_to("1.9.8");
    by_hand(&shop, "2.0.0");
    sync(&shop);
    shop.tell("/containers/payram/stop");
    let removed = Request::new("DELETE", "/containers/payram").to_socket(&shop.path("docker.sock"));
    assert_eq!(removed.expect("an answer").status, 204);
    let (exit, answer) = json_of(&shop, &["recover", "--yes"]);
    assert_eq!((exit, &answer["action"]), (Some(5), &json!("refused")), "{answer:#}");
    assert!(answer["message"].as_str().expect("a text").contains("2.0.0"), "{answer:#}");
    assert_eq!(shop.containers(), ["hand-1 exited"]);
    carry_out(&shop, &answer, "1.9.8");
    assert_eq!(shop.containers(), ["hand-1 exited"]);
}

#[test]
fn a_recorded_version_is_started_by_its_id_though_the_older_one_has_the_name() {
    let (shop, _daemon) = upgraded_to("1.9.8");
    by_hand(&shop, "2.0.0");
    sync(&shop);
    shop.tell("/containers/payram/stop");
    shop.tell("/containers/payram/rename?name=hand-2");
    shop.tell("/containers/hand-1/rename?name=payram");
    let answer = recovers(&shop, "2.0.0");
    assert_eq!(shop.containers(), ["hand-2 running", "payram exited"]);
    let message = answer["message"].as_str().expect("a text");
    let names = "docker rename payram payram-other && docker rename hand-2 payram";
    assert!(message.contains(names), "it says how it gets its name again: {message}");
}

#[test]
fn a_lower_version_that_was_recorded_is_good_too() {
    let (shop, _daemon) = upgraded_to("2.0.0");
    by_hand(&shop, "1.9.7");
    let before = inspect(&shop);
    assert_eq!(before["overallState"], "BROKEN", "nobody has said that it is right: {before:#}");
    sync(&shop);
    assert_inspect_is_ok(&shop);
    assert_eq!(shop.cli(&["inspect"]).status.code(), Some(0));
    shop.tell("/containers/payram/stop");
    recovers(&shop, "1.9.7");
}

#[test]
fn what_runs_is_recorded_without_any_upgrade_and_started_again() {
    let shop = Shop::open(json!({"1.9.7": {}}));
    let daemon = shop.daemon();
    by_hand(&shop, "1.9.7");
    assert_eq!(sync(&shop)["action"], "sync");
    assert_eq!(syncs(&daemon), 1);
    assert_eq!(sync(&shop)["action"], "none");
    assert_eq!(syncs(&daemon), 1);
    assert_inspect_is_ok(&shop);
    shop.tell("/containers/payram/stop");
    recovers(&shop, "1.9.7");
    assert_eq!(shop.containers(), ["hand-1 exited", "payram running"]);
}

#[test]
fn an_upgrade_after_a_sync_that_goes_back_leaves_the_recorded_version_as_the_good_one() {
    let (shop, _daemon) = upgraded_to("1.9.7");
    by_hand(&shop, "2.0.0");
    sync(&shop);
    let recorded = shop.id();
    let held_back = json!({"RestartPolicy": {"Name": "no"}}).to_string();
    let told =
        Request::post("/containers/hand-1/update", &held_back).to_socket(&shop.path("docker.sock"));
    assert_eq!(told.expect("an answer").status, 200);
    let (exit, said) = shop.upgrade("2.0.1");
    assert_eq!(exit, Some(4), "{said}");
    let report = inspect(&shop);
    assert_eq!(report["overallState"], "OK", "{report:#}");
    assert_eq!(report["checks"]["version"]["message"], "2.0.0", "{report:#}");
    shop.tell("/containers/payram/stop");
    recovers(&shop, "2.0.0");
    assert_eq!(shop.id(), recorded);
}

#[test]
fn nothing_older_is_started_on_what_a_newer_version_wrote_though_nobody_said_sync() {
    let (shop, _daemon) = upgraded_to("1.9.8");
    by_hand(&shop, "2.0.0");
    shop.tell("/containers/payram/stop");
    let (exit, answer) = json_of(&shop, &["recover", "--yes"]);
    assert_eq!((exit, &answer["action"]), (Some(5), &json!("refused")), "{answer:#}");
    // Out of the way, as a person does who wants the old one back.
    shop.tell("/containers/payram/rename?name=payram-other");
    let (exit, answer) = json_of(&shop, &["recover", "--yes"]);
    assert_eq!((exit, &answer["action"]), (Some(5), &json!("refused")), "{answer:#}");
    assert_eq!(shop.containers(), ["hand-1 exited", "payram-other exited"]);
    carry_out(&shop, &answer, "1.9.8");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"), "what it names leads to what fits");
}

#[test]
fn a_version_that_somebody_put_in_place_and_that_serves_is_left_alone() {
    let (shop, _daemon) = upgraded_to("1.9.7");
    by_hand(&shop, "2.0.0");
    let (exit, answer) = json_of(&shop, &["recover", "--yes"]);
    assert_eq!(exit, Some(0), "{answer:#}");
    let message = answer["message"].as_str().expect("a text");
    assert!(message.contains("payram-updater sync"), "{message}");
    carry_out(&shop, &json!({"refusals": [message]}), "1.9.7");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
}
