//! The make-believe engine itself: it survives a kill, and refuses what it does not play.

use serde_json::json;

use crate::shop::Shop;
use crate::support::http::Request;

#[test]
fn a_killed_sandbox_comes_back_with_its_shop() {
    let mut shop = Shop::open(json!({}));
    shop.wait_serves("1.9.6");
    let before = shop.id();
    shop.restart_engine();
    shop.wait_serves("1.9.6");
    assert_eq!(shop.id(), before);
    assert_eq!(shop.lost(), Vec::<String>::new());
}

#[test]
fn what_the_sandbox_does_not_play_is_refused_by_name() {
    let shop = Shop::open(json!({}));
    let socket = shop.path("docker.sock");
    let answer = Request::get("/v1.41/swarm").to_socket(&socket).expect("an answer");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("does not play GET /swarm"), "{}", answer.body);
    let answer = Request::get("/containers/none/json").to_socket(&socket).expect("an answer");
    assert_eq!((answer.status, answer.body.contains("No such container")), (404, true));
}

#[test]
fn a_scenario_that_is_none_is_refused_with_its_place() {
    let shop = Shop::open(json!({}));
    std::fs::write(shop.path("bad.json"), r#"{"tags": {"1.9.6": {"helth": []}}}"#).expect("a file");
    let scenario = shop.path("bad.json").display().to_string();
    let listen = format!("unix:{}", shop.path("other.sock").display());
    let state = shop.path("other").display().to_string();
    let arguments = ["sandbox", "--state", &state, "--listen", &listen, "--scenario", &scenario];
    let ran = shop.cli(&arguments);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1));
    assert!(said.contains("bad.json") && said.contains("helth"), "{said}");
}
