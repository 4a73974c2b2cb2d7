//! Backups by hand on the make-believe engine: what is answered, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use serde_json::{Value, json};

use crate::shop::{SOON, Shop};
use crate::support::wait_until;

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_backup_is_made_listed_and_told_in_the_history_and_a_copy_that_fails_fails_nothing() {
    let mut shop = Shop::open(json!({}));
    shop.set("BACKUP_COPY_COMMAND", "sh -c 'echo no room there >&2; exit 7' copy");
    let daemon = shop.daemon();
    let none = answer(&shop.cli(&["backup", "list", "--json"]));
    assert_eq!(none, json!({"backups": [], "count": 0, "success": true}));

    let made = shop.cli(&["backup", "create", "--json"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let made = answer(&made);
    let backup = &made["backup"];
    assert_eq!((&made["success"], &backup["version"]), (&json!(true), &json!("1.9.6")));
    assert_eq!(backup["copied"]["success"], false, "{made:#}");
    let told = backup["copied"]["message"].as_str().expect("a sentence");
    assert!(told.contains("exit code 7") && told.contains("the backup itself is good"), "{told}");
    let path = backup["path"].as_str().expect("a path");
    for file in [path.to_owned(), format!("{path}.json")] {
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let listed = answer(&shop.cli(&["backup", "list", "--json"]));
    assert_eq!(listed["backups"][0]["checksum"], backup["checksum"]);
    assert_eq!(daemon.get("/backups").json(), listed);
    let history = daemon.get("/history?type=backup").json();
    let event = &history["events"][1];
    assert_eq!(
        (&event["status"], &event["data"]["backupPath"]),
        (&json!("succeeded"), &json!(path))
    );
    let copies = daemon.get("/history?type=backup_copy").json();
    assert_eq!(copies["events"][0]["status"], "failed");
    // The directory is all that is needed for the list.
    drop(daemon);
    assert_eq!(answer(&shop.cli(&["backup", "list", "--json"])), listed);
    let text = shop.cli(&["backup", "list", "--text"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("payram-backup-") && text.contains("of PayRam 1.9.6"), "{text}");
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn what_is_not_the_operators_or_no_backup_or_not_now_is_refused() {
    let shop = Shop::open(json!({"2.0.0": {"bootMs": 1500}}));
    let daemon = shop.daemon();
    for path in ["/backup/create", "/backup/restore"] {
        let refused = daemon.post(path, &json!({"file": "a.dump"}));
        assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("FORBIDDEN")), "{path}");
    }
    let file = shop.path("foreign.dump");
    fs::write(&file, "GIF89a").expect("a file");
    let foreign = file.display().to_string();
    for (arguments, exit, code) in [
        (vec!["--file", &foreign, "--yes"], 1, "BACKUP_INVALID"),
        (vec!["--file", "not-there.dump", "--yes"], 1, "BACKUP_INVALID"),
        (vec!["--file", &foreign, "--yes", "--full-recovery"], 1, "NOT_SUPPORTED"),
    ] {
        let mut line = vec!["backup", "restore", "--json"];
        line.extend(&arguments);
        let refused = shop.cli(&line);
        assert_eq!(refused.status.code(), Some(exit), "{arguments:?}: {refused:?}");
        assert_eq!(answer(&refused)["code"], code, "{arguments:?}");
    }
    assert!(shop.begin(), "an upgrade begins");
    wait_until("it is under way", SOON, || (daemon.status()["active"] == true).then_some(()));
    for line in [vec!["backup", "create"], vec!["backup", "restore", "--file", &foreign, "--yes"]] {
        let refused = shop.cli(&[line.as_slice(), &["--json"]].concat());
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(answer(&refused)["code"], "CONCURRENCY_BLOCKED", "{line:?}");
    }
    daemon.wait_settled(SOON);
}
