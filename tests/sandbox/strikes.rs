//! What fails is not the version: the updater dies again and again, or the host is rebooted,
//! while the new version is being verified; or the engine does late what it was asked long ago.

use serde_json::{Value, json};

use crate::shop::{END, SOON, Shop};
use crate::support::http::Request;
use crate::support::trap::reader;
use crate::support::{Daemon, wait_until};

/// How often the journal says that a step was begun.
fn times_begun(shop: &Shop, step: &str) -> Option<i64> {
    let sql = "SELECT count(*) FROM journal WHERE kind = 'intent' AND name = ?";
    let journal = reader(&shop.path("state/journal.db"))?;
    journal.query_row(sql, [step], |row| row.get(0)).ok()
}

#[test]
fn a_new_version_that_serves_is_not_stopped_because_the_updater_died_three_times() {
    let shop = Shop::open(json!({"2.0.0": {"migration": {"schema": true}}}));
    let mut daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for begun in 1..=3 {
        wait_until("it is verifying", END, || {
            (times_begun(&shop, "verify") == Some(begun)).then_some(())
        });
        shop.wait_serves("2.0.0");
        daemon.kill();
        daemon = shop.daemon();
    }
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status}");
    assert_eq!(status["failureCode"], "STEP_INTERRUPTED");
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains("2.0.0 serves and is left running"), "{message}");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
    let new = shop.id();

    let recover = shop.cli(&["recover", "--yes", "--json"]);
    let said = String::from_utf8_lossy(&recover.stdout).into_owned();
    assert_eq!(recover.status.code(), Some(5), "{said}");
    assert!(said.contains("payram-updater sync"), "it says the way out: {said}");
    assert_eq!(shop.id(), new);
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));

    let sync = shop.cli(&["sync", "--json"]);
    let said = String::from_utf8_lossy(&sync.stdout).into_owned();
    assert_eq!(sync.status.code(), Some(0), "{said}");
    wait_until("what serves comes back after a reboot", SOON, || {
        let policy = &shop.ask("/containers/payram/json")["HostConfig"]["RestartPolicy"]["Name"];
        (policy == "unless-stopped").then_some(())
    });
    assert_eq!(shop.id(), new);
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

#[test]
fn an_orderly_reboot_while_it_is_verified_is_no_fault_of_the_new_version() {
    let release = json!({"migration": {"schema": true}, "bootMs": 2500});
    let shop = Shop::open(json!({"2.0.0": release}));
    let daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    wait_until("it is verifying", END, || (times_begun(&shop, "verify") == Some(1)).then_some(()));
    // As systemd and the engine end at a shutdown: the daemon is told, then the container.
    assert!(daemon.terminate().success());
    let new = shop.id();
    let stopped = Request::post(&format!("/containers/{new}/stop"), "")
        .to_socket(&shop.path("docker.sock"))
        .expect("an answer");
    assert_eq!(stopped.status, 204, "{}", stopped.body);
    let daemon = shop.daemon();
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "VERIFIED", "{status}");
    assert_eq!(shop.id(), new);
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

/// What the request of a daemon that was killed makes when the engine comes to it at last: a
/// second new container, of the name that the first no longer has.
fn create_late(shop: &Shop) {
    let of_old = shop.containers().into_iter().find(|name| name.contains("-previous-"));
    let of_old = of_old.expect("the old container gave up its name");
    let name = of_old.split(' ').next().unwrap_or_default().replace("-previous-", "-next-");
    let next = shop.ask("/containers/payram/json");
    let config = &next["Config"];
    let body = json!({"Image": config["Image"], "Labels": config["Labels"]}).to_string();
    let made = Request::post(&format!("/containers/create?name={name}"), &body)
        .to_socket(&shop.path("docker.sock"))
        .expect("an answer");
    assert_eq!(made.status, 201, "{}", made.body);
}

fn upgrade_with_a_late_container(release: Value, faults: &Value, phase: &str) {
    let shop = Shop::open(json!({"2.0.0": release}));
    let daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    wait_until("it is verifying", END, || (times_begun(&shop, "verify") == Some(1)).then_some(()));
    create_late(&shop);
    shop.faults(faults);
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], phase, "{status}\n{}", shop.last_lines());
    wait_until("only what serves is left", SOON, || {
        (shop.containers() == ["payram running"]).then_some(())
    });
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

#[test]
fn a_container_that_the_engine_makes_late_is_not_left_beside_a_verified_one() {
    upgrade_with_a_late_container(json!({"migration": {"schema": true}}), &json!([]), "VERIFIED");
}

#[test]
fn a_container_that_the_engine_makes_late_does_not_bar_the_way_back() {
    let fails = json!({"health": [500], "takesPayments": false});
    upgrade_with_a_late_container(fails.clone(), &json!([]), "ROLLED_BACK");
    // Nor when the engine does not remove it.
    let stays = json!([{"on": "remove", "nth": 1, "do": "refuse"}]);
    upgrade_with_a_late_container(fails, &stays, "ROLLED_BACK");
}

#[test]
fn a_container_of_somebody_elses_is_left_alone_though_its_labels_are_copied() {
    let shop = Shop::open(json!({"2.0.0": {}}));
    let daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    wait_until("it is verifying", END, || (times_begun(&shop, "verify") == Some(1)).then_some(()));
    let next = shop.ask("/containers/payram/json");
    let config = &next["Config"];
    let body = json!({"Image": config["Image"], "Labels": config["Labels"]});
    do_late(&shop, "/containers/create?name=spare", &body);
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "VERIFIED", "{status}");
    wait_until("the old container is tidied away", SOON, || {
        (!shop.containers().iter().any(|one| one.contains("-previous-"))).then_some(())
    });
    assert!(daemon.terminate().success());
    assert_eq!(shop.containers(), ["payram running", "spare created"]);
}

/// Something that was asked of the old container on the way forward and is done to it late.
fn do_late(shop: &Shop, path: &str, body: &Value) -> Value {
    let done = Request::post(path, &body.to_string())
        .to_socket(&shop.path("docker.sock"))
        .expect("an answer");
    assert!(matches!(done.status, 200..=204), "{path}: {} {}", done.status, done.body);
    serde_json::from_str(&done.body).unwrap_or_default()
}

/// A shop whose upgrade has failed and whose old version is being verified; its container's id.
fn going_back() -> (Shop, String, Daemon) {
    let shop = Shop::open(json!({"2.0.0": {"exitsAtStart": true}}));
    let old = shop.id();
    let daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    wait_until("the old version is verified", END, || {
        (times_begun(&shop, "verify_old") == Some(1)).then_some(())
    });
    // Its gate has heard it.
    wait_until("the old version answers", END, || {
        shop.last_lines().contains("the old container").then_some(())
    });
    shop.wait_serves("1.9.6");
    (shop, old, daemon)
}

fn go_back_while(late: impl FnOnce(&Shop, &str)) {
    let (shop, old, daemon) = going_back();
    late(&shop, &old);
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "ROLLED_BACK", "{status}\n{}", shop.last_lines());
    assert_eq!(shop.containers(), ["payram running"], "{}", shop.last_lines());
    assert_eq!(shop.id(), old);
    let policy = &shop.ask("/containers/payram/json")["HostConfig"]["RestartPolicy"]["Name"];
    assert_eq!(policy, "unless-stopped");
    let programs = shop.programs();
    assert!(programs.iter().all(|(_, state)| state == "RUNNING"), "{programs:?}");
    assert_eq!(shop.serves().as_deref(), Some("1.9.6"));
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

#[test]
fn an_old_version_that_is_stopped_late_is_started_again() {
    go_back_while(|shop, old| {
        do_late(shop, &format!("/containers/{old}/stop"), &json!({}));
    });
}

#[test]
fn an_old_version_whose_programs_are_stopped_late_gets_them_again() {
    go_back_while(|shop, old| {
        let argv = ["supervisorctl", "stop", "payram-core", "payram-worker"];
        let exec = do_late(shop, &format!("/containers/{old}/exec"), &json!({"Cmd": argv}));
        let id = exec["Id"].as_str().expect("an id");
        // What it prints comes as frames, which are no text.
        let path = format!("/exec/{id}/start");
        let _ = Request::post(&path, "{}").to_socket(&shop.path("docker.sock"));
        wait_until("they are stopped", SOON, || {
            shop.programs().iter().any(|(_, state)| state == "STOPPED").then_some(())
        });
    });
}

#[test]
fn an_old_version_that_is_disarmed_and_renamed_late_gets_its_policy_and_its_name_again() {
    go_back_while(|shop, old| {
        let never = json!({"RestartPolicy": {"Name": "no"}});
        do_late(shop, &format!("/containers/{old}/update"), &never);
        do_late(shop, &format!("/containers/{old}/rename?name=payram-previous-x"), &json!({}));
    });
}

#[test]
fn an_old_version_that_is_stopped_a_second_time_is_a_persons_doing_and_stays_down() {
    let (shop, old, daemon) = going_back();
    for _ in 0..2 {
        shop.wait_serves("1.9.6");
        do_late(&shop, &format!("/containers/{old}/stop"), &json!({}));
    }
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status}\n{}", shop.last_lines());
    let state = shop.ask(&format!("/containers/{old}/json"))["State"]["Status"].clone();
    assert_eq!(state, "exited");
    assert_eq!(shop.lost(), Vec::<String>::new());
}

#[test]
fn what_could_not_be_tidied_at_once_is_tidied_later_without_being_asked() {
    let shop = Shop::open(json!({"2.0.0": {}}));
    // The first removal of a good upgrade is that of the old container; it is tried twice at once.
    shop.faults(&json!([
        {"on": "remove", "nth": 1, "do": "refuse"},
        {"on": "remove", "nth": 2, "do": "refuse"},
    ]));
    let daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "VERIFIED", "{status}");
    wait_until("only what serves is left", SOON, || {
        (shop.containers() == ["payram running"]).then_some(())
    });
    assert!(shop.last_lines().contains("tidy: failed"), "{}", shop.last_lines());
    assert_eq!(times_begun(&shop, "tidy"), Some(3));
}

#[test]
fn a_watch_in_which_the_updater_dies_three_times_goes_on_to_its_end() {
    let mut shop = Shop::open(json!({"2.0.0": {"migration": {"schema": true}}}));
    shop.set("PROBATION_MINUTES", "0.25");
    let old = shop.id();
    let mut daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for begun in 1..=3 {
        wait_until("it is watched", END, || {
            (times_begun(&shop, "probation") == Some(begun)).then_some(())
        });
        daemon.kill();
        assert_eq!(both_containers(&shop, &old), ["exited", "running"]);
        assert_eq!(times_begun(&shop, "tidy"), Some(0));
        daemon = shop.daemon();
    }
    wait_until("only what serves is left", SOON, || {
        (shop.containers() == ["payram running"]).then_some(())
    });
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "VERIFIED", "{status}\n{}", shop.last_lines());
    assert_eq!(status["failureCode"], "", "{status}");
    assert_eq!((times_begun(&shop, "probation"), times_begun(&shop, "tidy")), (Some(4), Some(1)));
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

/// The states of the old container and of what has the shop's name.
fn both_containers(shop: &Shop, old: &str) -> [String; 2] {
    [old, "payram"].map(|container| {
        let state = shop.ask(&format!("/containers/{container}/json"))["State"].clone();
        state["Status"].as_str().unwrap_or("gone").to_owned()
    })
}

#[test]
fn a_tidying_that_kills_the_updater_three_times_is_done_by_the_fourth() {
    let mut shop = Shop::open(json!({"2.0.0": {"migration": {"schema": true}}}));
    shop.set("PROBATION_MINUTES", "0.02");
    // Its first removal is that of the old container.
    let (kills, none) = (json!([{"on": "remove", "nth": 1, "do": "kill-before"}]), json!([]));
    shop.faults(&kills);
    let mut daemon = shop.daemon();
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for begun in 1..=3 {
        daemon.wait_exit(END);
        assert_eq!(times_begun(&shop, "tidy"), Some(begun));
        assert_eq!(shop.containers().len(), 2, "{:?}", shop.containers());
        shop.faults(if begun < 3 { &kills } else { &none });
        daemon = shop.spawn_daemon();
    }
    wait_until("only what serves is left", SOON, || {
        (shop.containers() == ["payram running"]).then_some(())
    });
    daemon.wait_ready();
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], "VERIFIED", "{status}\n{}", shop.last_lines());
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
    assert_eq!(shop.lost(), Vec::<String>::new());
}

#[test]
fn a_version_that_was_stopped_while_the_updater_was_down_is_not_said_to_have_ended_by_itself() {
    let mut shop = Shop::open(json!({"2.0.0": {"migration": {"schema": true}}}));
    shop.set("PROBATION_MINUTES", "5");
    let daemon = shop.daemon();
    let (code, said) = shop.upgrade("2.0.0");
    assert_eq!(code, Some(0), "{said}");
    daemon.kill();
    shop.tell("/containers/payram/stop");
    let daemon = shop.daemon();
    wait_until("the watch finds it", SOON, || {
        daemon.log().contains("after the verdict").then_some(())
    });
    let log = daemon.log();
    assert!(log.contains("was stopped by somebody"), "{log}");
    assert!(!log.contains("ended by itself"), "{log}");
}
