//! `recover --keep-new`: a person goes on with a version that had failed, on the database that it
//! left. It passes its gate, or the person is asked again, and nothing of either is gone.

use serde_json::{Value, json};

use crate::shop::Shop;

/// A release that changes rows, and is ill for so many answers.
fn ill_for(answers: usize) -> Value {
    let mut health = vec![500; answers];
    health.push(200);
    json!({"migration": {"schema": true, "rows": 10}, "health": health})
}

fn recover(shop: &Shop, arguments: &[&str]) -> (Option<i32>, String) {
    let mut all = vec!["recover", "--yes"];
    all.extend(arguments);
    let ran = shop.cli(&all);
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    println!("recover {arguments:?}: exit {:?}\n{said}", ran.status.code());
    (ran.status.code(), said)
}

fn running(shop: &Shop) -> usize {
    shop.containers().into_iter().filter(|one| one.ends_with("running")).count()
}

#[test]
fn a_failed_version_that_was_only_slow_is_kept_and_verified() {
    let mut shop = Shop::open(json!({"2.0.0": ill_for(8)}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");
    assert_eq!(running(&shop), 0);
    let (exit, said) = recover(&shop, &[]);
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("recover --keep-new"), "the way is named: {said}");
    drop(daemon);
    shop.set("HEALTH_TIMEOUT_SECONDS", "60");
    let daemon = shop.daemon();
    let (exit, said) = recover(&shop, &["--keep-new"]);
    assert_eq!(exit, Some(0), "{said}");
    assert_eq!(daemon.status()["phase"], "VERIFIED");
    assert_eq!(daemon.status()["failureCode"], "");
    assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}

#[test]
fn one_that_fails_again_is_left_running_and_the_way_back_stays() {
    let shop = Shop::open(json!({"2.0.0": ill_for(10_000)}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");
    let (exit, said) = recover(&shop, &["--keep-new"]);
    assert_eq!(exit, Some(5), "{said}");
    assert_eq!(daemon.status()["phase"], "NEEDS_OPERATOR");
    assert_eq!(running(&shop), 1, "it is left as it is: {:?}", shop.containers());
    assert_eq!(shop.containers().len(), 2, "nothing was removed");
    // It answers, if badly: nobody stops it but the person.
    let (exit, said) = recover(&shop, &["--restore-database"]);
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("it is not stopped"), "{said}");
    shop.tell("/containers/payram/stop");
    let (exit, said) = recover(&shop, &["--restore-database"]);
    assert_eq!(exit, Some(0), "{said}");
    shop.wait_serves("1.9.6");
    assert_eq!(daemon.status()["phase"], "ROLLED_BACK");
    assert_eq!(shop.two_at_once(), "");
    let (exit, said) = recover(&shop, &["--keep-new"]);
    assert_eq!(exit, Some(0), "after a way back there is nothing to keep: {said}");
    assert!(!said.contains("is started again"), "{said}");
    shop.wait_serves("1.9.6");
}

#[test]
fn what_was_never_started_can_not_be_kept_and_both_ways_at_once_are_refused() {
    let shop = Shop::open(json!({"2.0.0": {"pullFails": "unexpected EOF"}}));
    let _daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(4), "{said}");
    let before = shop.id();
    let (_, said) = recover(&shop, &["--keep-new"]);
    assert!(!said.contains("is started again"), "{said}");
    assert_eq!(shop.id(), before);
    let (exit, said) = recover(&shop, &["--keep-new", "--restore-database"]);
    assert_eq!(exit, Some(2), "{said}");
    assert!(said.contains("--restore-database"), "{said}");
}
