//! `recover --restore-database --carry-rows`: what a failed version only inserted is in the database
//! that came back, and what it changed is in a file.

use std::fs;

use serde_json::{Value, json};

use crate::shop::Shop;

/// A release that migrates and changes rows, is ill, and whose worker writes meanwhile.
fn failing() -> Value {
    json!({"2.0.0": {"migration": {"schema": true, "rows": 10}, "health": [500],
                     "takesPayments": false, "writesRows": true}})
}

fn stopped() -> (Shop, crate::support::Daemon) {
    let shop = Shop::open(failing());
    let daemon = shop.daemon();
    let (exit, said) = shop.upgrade("2.0.0");
    assert_eq!(exit, Some(5), "{said}");
    (shop, daemon)
}

/// The rows that were exported, as the file says it.
fn exported(shop: &Shop) -> String {
    let beside = shop.beside_the_database();
    let name = beside.iter().find(|name| name.ends_with(".rows.sql"));
    let name = name.unwrap_or_else(|| panic!("no file of rows: {beside:?}"));
    fs::read_to_string(shop.data().with_file_name(name)).expect("the file")
}

/// Ids of the payments that this version wrote, in the served database.
fn written_by(shop: &Shop, version: &str) -> Vec<String> {
    let rows = fs::read_to_string(shop.data().join("payments.jsonl")).expect("the payments");
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).expect("a payment"));
    let its = rows.filter(|row| row["written_by"] == version);
    its.map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn what_a_failed_version_inserted_is_carried_over_and_what_it_changed_is_in_a_file() {
    let (shop, daemon) = stopped();
    assert!(shop.recover(&json!({"restoreDatabase": true, "carryRows": true})));
    let phase = crate::crash::until_it_rests(&shop, "carrying");
    assert_eq!(phase, "ROLLED_BACK", "{}", daemon.status());
    shop.wait_serves("1.9.6");
    assert_eq!(shop.lost(), Vec::<String>::new());
    let carried = written_by(&shop, "2.0.0").len();
    assert!(carried > 0);
    let message = daemon.status()["message"].as_str().unwrap_or_default().to_owned();
    println!("{message}");
    assert!(message.contains(&format!("public.payments {carried} row")), "{message}");
    let file = exported(&shop);
    assert_eq!(file.matches("-- updated: ").count(), 10, "{file}");
    assert!(!file.lines().any(|line| line.starts_with("INSERT INTO public.payments")), "{file}");
    assert_eq!(shop.two_at_once(), "");
}

#[test]
fn without_that_word_they_are_in_the_file() {
    let (shop, daemon) = stopped();
    assert!(shop.recover(&json!({"restoreDatabase": true})));
    let phase = crate::crash::until_it_rests(&shop, "restoring");
    assert_eq!(phase, "ROLLED_BACK", "{}", daemon.status());
    shop.wait_serves("1.9.6");
    assert_eq!(written_by(&shop, "2.0.0"), Vec::<String>::new());
    let (file, lost) = (exported(&shop), shop.lost());
    assert!(!lost.is_empty());
    let is_there = |id: &&String| file.lines().any(|line| line.contains(id.as_str()));
    assert_eq!(lost.iter().filter(is_there).count(), lost.len(), "{file}");
    assert_eq!(file.matches("-- updated: ").count(), 10, "{file}");
}
