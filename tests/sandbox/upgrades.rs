//! Good and broken releases, each to its end.

use serde_json::json;

use crate::shop::Shop;

#[test]
fn an_upgrade_ends_verified_and_loses_no_payment() {
    let shop = Shop::open(json!({"1.9.7": {"migration": {"schema": true}}}));
    let _daemon = shop.daemon();
    let before = shop.id();
    let (exit, said) = shop.upgrade("1.9.7");
    assert_eq!(exit, Some(0), "{said}");
    assert_eq!(shop.serves().as_deref(), Some("1.9.7"));
    assert_eq!(shop.containers(), ["payram running"]);
    assert_ne!(shop.id(), before);
    let policy = &shop.ask("/containers/payram/json")["HostConfig"]["RestartPolicy"]["Name"];
    assert_eq!(policy, "unless-stopped");
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.beside_the_database(), ["postgres"]);
    assert_eq!(shop.two_at_once(), "");
    let verified = shop.cli(&["journal", "verify"]);
    assert_eq!(verified.status.code(), Some(0));
}

/// The release is rolled back with this code, and the old container serves again.
fn goes_back(release: serde_json::Value, code: &str) -> Shop {
    let mut shop = Shop::open(json!({"2.0.0": release}));
    // Long enough for what turns bad only later.
    shop.set("VERIFY_SECONDS", "4");
    let daemon = shop.daemon();
    let before = shop.id();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(4), "{said}");
    let status = daemon.status();
    assert_eq!((&status["phase"], &status["failureCode"]), (&json!("ROLLED_BACK"), &json!(code)));
    assert_eq!(shop.id(), before, "the very container that was there before");
    assert_eq!(shop.containers(), ["payram running"]);
    assert_eq!(shop.serves().as_deref(), Some("1.9.6"));
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
    shop
}

#[test]
fn a_release_whose_health_is_500_goes_back() {
    goes_back(json!({"health": [500], "takesPayments": false}), "HEALTHCHECK_FAILED");
}

#[test]
fn a_release_that_turns_bad_after_good_answers_goes_back() {
    let release = json!({"health": [200, 200, 500], "takesPayments": false});
    goes_back(release, "HEALTHCHECK_FAILED");
}

#[test]
fn a_release_that_exits_at_its_start_goes_back() {
    goes_back(json!({"exitsAtStart": true}), "HEALTHCHECK_FAILED");
}

#[test]
fn a_release_that_dies_later_goes_back_and_its_database_was_asked_on_its_own() {
    let release = json!({"exitsAfterMs": 1500, "takesPayments": false});
    goes_back(release, "HEALTHCHECK_FAILED");
}

#[test]
fn a_release_that_says_another_version_goes_back() {
    goes_back(json!({"reports": "1.0.0", "takesPayments": false}), "VERSION_MISMATCH");
}

#[test]
fn a_migration_that_broke_without_touching_a_row_brings_the_restore_point_back() {
    let shop =
        goes_back(json!({"migration": {"schema": true, "fails": true}}), "HEALTHCHECK_FAILED");
    let said = String::from_utf8_lossy(&shop.cli(&["journal", "export"]).stdout).into_owned();
    assert!(said.contains("it had written nothing that is missing now"), "{said}");
    let kept = shop.beside_the_database();
    assert_eq!(kept.len(), 2, "the failed directory is kept: {kept:?}");
    assert!(kept[1].starts_with("postgres.failed-"), "{kept:?}");
}

#[test]
fn a_pull_that_breaks_off_never_stops_the_old_version() {
    let shop = goes_back(json!({"pullFails": "unexpected EOF"}), "DOCKER_PULL_FAILED");
    let restarts = &shop.ask("/containers/payram/json")["RestartCount"];
    assert_eq!(restarts, 0);
}

#[test]
fn rows_that_a_failed_version_changed_wait_for_an_operator() {
    let release = json!({"migration": {"schema": true, "rows": 10, "fails": true}});
    let shop = Shop::open(json!({"2.0.0": release}));
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");
    let status = daemon.status();
    assert_eq!(status["phase"], "NEEDS_OPERATOR");
    assert!(said.contains("public.payments"), "it says which table: {said}");
    assert!(said.contains("10 rows"), "it says how many: {said}");
    let running = shop.containers().into_iter().filter(|one| one.ends_with("running")).count();
    assert_eq!(running, 0, "{:?}", shop.containers());
    assert_eq!(shop.lost(), Vec::<String>::new());
    assert_eq!(shop.two_at_once(), "");
}
