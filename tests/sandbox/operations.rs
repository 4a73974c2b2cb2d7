//! What an operator does beside upgrading: versions, jobs, logs, a plan that is run and no other,
//! and cleaning up.

use std::fs;

use serde_json::{Value, json};

use crate::shop::{END, SOON, Shop};
use crate::support::http::Request;
use crate::support::{Daemon, wait_until};

fn answer(shop: &Shop, arguments: &[&str]) -> (Option<i32>, Value) {
    let ran = shop.cli(arguments);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    (ran.status.code(), value)
}

fn lines(daemon: &Daemon, path: &str) -> Vec<String> {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body.lines().map(str::to_owned).collect()
}

/// Gates and releases of the shop's policy.
fn change_policy(shop: &Shop, change: impl FnOnce(&mut Value)) {
    let path = shop.ready["policy"].as_str().expect("a path");
    let text = fs::read_to_string(path).expect("a policy");
    let mut policy: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut policy);
    fs::write(path, policy.to_string()).expect("a policy");
}

#[test]
fn versions_says_what_can_be_gone_to_by_which_way_and_what_stands_in_it() {
    let shop = Shop::open(json!({"3.0.0": {}, "2.0.0": {}, "1.9.7": {"health": [500]}}));
    change_policy(&shop, |policy| {
        policy["breakpoints"] = json!([{"version": "2.0.0", "reason": "keys move"}]);
        policy["stop_points"] = json!([{"version": "3.0.0", "docs": "https://d"}]);
    });
    let daemon = shop.daemon();
    assert_eq!(shop.upgrade("1.9.7").0, Some(4), "1.9.7 is quarantined from here on");
    let (exit, all) = answer(&shop, &["versions"]);
    assert_eq!((exit, &all["currentVersion"]), (Some(0), &json!("1.9.6")), "{all:#}");
    let said = |version: &str| {
        let all = all["versions"].as_array().expect("a list");
        all.iter().find(|one| one["version"] == version).expect("it is named").clone()
    };
    assert_eq!(said("1.9.7")["failureCode"], "VERSION_QUARANTINED", "{all:#}");
    assert_eq!(said("2.0.0")["failureCode"], "VERSION_QUARANTINED", "1.9.7 is on its way: {all:#}");
    assert_eq!(said("3.0.0")["failureCode"], "MANUAL_UPGRADE_REQUIRED", "{all:#}");
    let kinds: Vec<&Value> =
        all["gates"].as_array().expect("gates").iter().map(|g| &g["kind"]).collect();
    assert_eq!(kinds, ["breakpoint", "stopPoint"]);
    let shown = shop.cli(&["versions", "--text"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("must be passed through") && text.contains("by hand"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    let first = daemon.get("/versions");
    let tag = first.header("etag").expect("a tag").to_owned();
    let known = Request::get("/versions").header("If-None-Match", &tag).to_port(shop.port);
    let known = known.expect("an answer");
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    fs::remove_file(shop.ready["policy"].as_str().expect("a path")).expect("removed");
    let (exit, none) = answer(&shop, &["versions"]);
    assert_eq!((exit, &none["failureCode"]), (Some(1), &json!("POLICY_FETCH_FAILED")), "{none:#}");
}

#[test]
fn every_upgrade_has_pages_of_its_own_and_its_log_can_be_cut() {
    let shop = Shop::open(json!({"2.0.0": {}, "1.9.7": {}}));
    let daemon = shop.daemon();
    let run = daemon.post("/upgrade/run", &json!({"requestedTarget": "1.9.7", "source": "panel"}));
    let first = run.json()["jobId"].as_str().expect("a job").to_owned();
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");
    assert_eq!(shop.upgrade("2.0.0").0, Some(0));
    let all = daemon.get("/upgrade/jobs").json();
    let targets: Vec<&Value> =
        all["jobs"].as_array().expect("jobs").iter().map(|job| &job["resolvedTarget"]).collect();
    assert_eq!((targets, &all["count"]), (vec![&json!("2.0.0"), &json!("1.9.7")], &json!(2)));
    let page = daemon.get("/upgrade/jobs?limit=1").json();
    let next = page["nextCursor"].as_str().expect("there is more");
    let page = daemon.get(&format!("/upgrade/jobs?limit=1&cursor={next}")).json();
    assert_eq!(page["jobs"][0]["jobId"], first.as_str(), "{page:#}");
    let one = daemon.get(&format!("/upgrade/jobs/{first}")).json();
    assert_eq!((&one["source"], &one["phase"]), (&json!("panel"), &json!("VERIFIED")), "{one:#}");

    let path = format!("/upgrade/jobs/{first}/logs");
    let log = lines(&daemon, &path);
    assert!(log.iter().all(|line| !line.contains("2.0.0")) && log.len() > 5, "{log:#?}");
    assert_eq!(lines(&daemon, &format!("{path}?last=2")), log[log.len() - 2..]);
    assert_eq!(lines(&daemon, &format!("{path}?last=100000")), log);
    assert_eq!(lines(&daemon, &format!("{path}?since=2020-01-01T00:00:00Z")), log);
    assert!(lines(&daemon, &format!("{path}?since=2999-01-01T00:00:00Z")).is_empty());
    let shown = shop.cli(&["logs", "-n", "3", &first]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(text.lines().collect::<Vec<_>>(), log[log.len() - 3..]);
    assert_eq!(shop.cli(&["logs", "--since", "2d", "-n", "1"]).status.code(), Some(0));

    let events = daemon.get(&format!("/upgrade/jobs/{first}/events")).json();
    let of_first = |event: &Value| event["data"]["jobId"] == first.as_str();
    let all = events["events"].as_array().expect("events");
    assert!(!all.is_empty() && all.iter().all(of_first), "{events:#}");
    for path in ["", "/logs", "/events"] {
        let missing = daemon.get(&format!("/upgrade/jobs/job-0{path}"));
        assert_eq!((missing.status, &missing.json()["code"]), (404, &json!("JOB_NOT_FOUND")));
    }
    let missing = shop.cli(&["logs", "job-0"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");

    // The history page by page is the history.
    let whole = daemon.get("/history").json();
    let (mut paged, mut path) = (Vec::new(), "/history?limit=2".to_owned());
    loop {
        let page = daemon.get(&path).json();
        paged.extend(page["events"].as_array().expect("events").clone());
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = format!("/history?limit=2&cursor={next}");
    }
    assert_eq!(whole["events"], json!(paged));
    for bad in ["type=upgrades", "status=fine", "since=today", "before=x", "cursor=-1", "limit=0"] {
        assert_eq!(daemon.get(&format!("/history?{bad}")).status, 400, "{bad}");
    }
    let none = daemon.get("/history?before=2020-01-01T00:00:00Z").json();
    assert_eq!(none["count"], 0);
    let codes = daemon.get("/failure-codes").json();
    assert!(codes["failureCodes"].to_string().contains("DISK_SPACE_LOW"), "{codes:#}");
}

#[test]
fn a_plan_is_run_as_it_was_or_not_at_all() {
    let shop = Shop::open(json!({"2.0.0": {}, "1.9.7": {}}));
    let daemon = shop.daemon();
    let (_, plan) = answer(&shop, &["dry-run", "--to", "2.0.0"]);
    let hash = plan["planHash"].as_str().expect("a hash").to_owned();
    let (_, again) = answer(&shop, &["dry-run", "--to", "2.0.0"]);
    assert_eq!(again["planHash"], hash.as_str(), "nothing has changed");
    let on_failure = plan["onFailure"].as_str().expect("what a failure means");
    assert!(on_failure.contains("1.9.6 comes back by itself"), "{on_failure}");
    let other = shop.cli(&["run", "--to", "1.9.7", "--yes", "--plan", &hash]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let said = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(said.contains("PLAN_CHANGED") && said.contains("the route"), "{said}");

    shop.tell("/containers/payram/restart");
    shop.wait_serves("1.9.6");
    let body = json!({"requestedTarget": "2.0.0", "mode": "MANUAL", "planHash": hash}).to_string();
    let run = Request::post("/upgrade/run", &body).to_socket(&shop.path("run/updater.sock"));
    let run = run.expect("an answer").json();
    assert_eq!(
        (&run["failureCode"], &run["jobId"]),
        (&json!("PLAN_CHANGED"), &json!("")),
        "{run:#}"
    );
    let message = run["message"].as_str().expect("a sentence");
    assert!(message.contains("started again") && !message.contains("the route"), "{message}");
    assert_eq!(daemon.get("/upgrade/jobs").json()["count"], 0, "nothing was begun");
    let (_, plan) = answer(&shop, &["dry-run", "--to", "2.0.0"]);
    let hash = plan["planHash"].as_str().expect("a hash");
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--plan", hash]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(
        daemon.post("/upgrade/run", &json!({"requestedTarget": "latest", "planHash": "x"})).status,
        400
    );
}

#[test]
fn cleanup_says_what_goes_asks_and_never_takes_the_way_back() {
    let shop = Shop::open(json!({"2.0.0": {"pullMs": 4000}, "1.9.8": {}, "1.9.7": {}}));
    let daemon = shop.daemon();
    for target in ["1.9.7", "1.9.8"] {
        assert_eq!(shop.upgrade(target).0, Some(0));
    }
    let backups = || -> Vec<String> {
        let entries = fs::read_dir(shop.path("backups")).expect("a listing");
        let mut names: Vec<String> = entries
            .map(|one| one.expect("one").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let before = backups();
    assert_eq!(before.len(), 4, "two dumps, each with what is beside it: {before:?}");
    let unasked = shop.cli(&["cleanup", "backups"]);
    assert_eq!(unasked.status.code(), Some(2), "no terminal to ask on: {unasked:?}");
    let (exit, dry) = answer(&shop, &["cleanup", "backups", "--keep", "0", "--dry-run"]);
    assert_eq!((exit, dry["files"].as_array().map(Vec::len)), (Some(0), Some(1)), "{dry:#}");
    assert!(dry["bytes"].as_u64() > Some(0), "{dry:#}");
    assert!(dry["kept"][0].as_str().expect("why").contains("way back"), "{dry:#}");
    assert_eq!(backups(), before, "it was only asked");
    let over_tcp = daemon.post("/upgrade/cleanup", &json!({"what": "backups"}));
    assert_eq!(over_tcp.status, 403, "{}", over_tcp.body);

    // While an upgrade is under way nothing goes.
    let begun = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    let busy = shop.cli(&["cleanup", "backups", "--yes"]);
    assert_eq!(busy.status.code(), Some(1), "{busy:?}");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("an upgrade is under way"), "{busy:?}");
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");

    let (exit, done) = answer(&shop, &["cleanup", "backups", "--yes"]);
    assert_eq!((exit, &done["success"]), (Some(0), &json!(true)), "{done:#}");
    assert_eq!(done["files"].as_array().map(Vec::len), Some(2), "{done:#}");
    let left = backups();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].contains("1.9.8-to-2.0.0"), "the way back of the last one stays: {left:?}");
    let (exit, none) = answer(&shop, &["cleanup", "backups", "--yes"]);
    assert_eq!((exit, &none["bytes"]), (Some(0), &json!(0)), "{none:#}");
    let history = daemon.get("/history?type=cleanup").json();
    assert_eq!(history["count"], 1, "{history:#}");

    // Without a daemon the command does it itself.
    assert!(daemon.terminate().success());
    fs::write(shop.path("state/specs/job-019-1.json"), "{}").expect("left by an earlier upgrade");
    let (exit, done) = answer(&shop, &["cleanup", "state", "--yes"]);
    assert_eq!(exit, Some(0), "{done:#}");
    assert!(done["files"].to_string().contains("job-019-1.json"), "{done:#}");
    assert!(!shop.path("state/specs/job-019-1.json").exists());
    assert_eq!(fs::read_dir(shop.path("state/specs")).expect("a listing").count(), 1);
    assert_eq!(shop.cli(&["journal", "verify"]).status.code(), Some(0));
}

#[test]
fn what_is_said_twice_is_refused_and_what_a_plan_notes_is_logged() {
    let shop = Shop::open(json!({"2.0.0": {}}));
    change_policy(&shop, |policy| {
        policy["breakpoints"] = json!([{"version": "1.9.9", "reason": "nobody made it"}]);
    });
    let daemon = shop.daemon();
    let twice = r#"{"requestedTarget":"2.0.0","requestedTarget":"1.9.7"}"#;
    let refused = Request::post("/upgrade/plan", twice).to_port(shop.port).expect("an answer");
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("is there twice"), "{}", refused.body);
    let plan = daemon.post("/upgrade/plan", &json!({"requestedTarget": "latest"})).json();
    let route: Vec<&Value> =
        plan["route"].as_array().expect("a route").iter().map(|hop| &hop["version"]).collect();
    assert_eq!(route, ["2.0.0"], "what is no release is no hop: {plan:#}");
    assert!(plan["notes"].to_string().contains("1.9.9 must be passed through"), "{plan:#}");
    let run = daemon.post("/upgrade/run", &json!({"requestedTarget": "latest"})).json();
    assert_eq!(run["state"], "READY", "{run:#}");
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");
    let log = daemon.get("/upgrade/logs").body;
    assert!(log.contains("plan: 1.9.9 must be passed through"), "{log}");
    let path = shop.ready["policy"].as_str().expect("a path");
    let text = fs::read_to_string(path).expect("a policy");
    fs::write(path, text.replacen('{', r#"{"latest":"9.9.9","#, 1)).expect("a policy");
    let plan = daemon.post("/upgrade/plan", &json!({"requestedTarget": "latest"})).json();
    assert_eq!(plan["failureCode"], "POLICY_INVALID_JSON", "{plan:#}");
}

#[test]
fn a_daemon_whose_log_nobody_reads_any_more_upgrades_and_ends_when_it_is_told_to() {
    let shop = Shop::open(json!({"2.0.0": {}}));
    let mut daemon = shop.unheard_daemon();
    assert_eq!(shop.upgrade("2.0.0").0, Some(0));
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM is sent");
    let ended = wait_until("the daemon ends", SOON, || daemon.try_wait().expect("its state"));
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn a_plan_says_how_long_the_shop_will_be_down_once_that_was_measured_here() {
    let shop = Shop::open(json!({"3.0.0": {}, "2.0.0": {}, "1.9.7": {},
        "9.0.1": {"health": [500], "takesPayments": false}}));
    let daemon = shop.daemon();
    let plan = |target: &str| {
        let body = json!({"requestedTarget": target});
        daemon.post("/upgrade/plan", &body).json()
    };
    let unknown = plan("1.9.7");
    assert_eq!(
        (&unknown["state"], &unknown["expectedDowntimeSeconds"]),
        (&json!("READY"), &json!(null))
    );
    assert_eq!(shop.upgrade("1.9.7").0, Some(0));
    let down = daemon.status()["downtimeSeconds"].as_f64().expect("measured");
    let near = |found: &Value, expected: f64| {
        let found =
            found["expectedDowntimeSeconds"].as_f64().unwrap_or_else(|| panic!("{found:#}"));
        assert!((found - expected).abs() < 0.051, "{found} where {expected} was measured");
    };
    let one = plan("2.0.0");
    near(&one, down);
    let from = one["expectedDowntimeFrom"].as_str().expect("a sentence");
    assert!(from.starts_with("the upgrade to 1.9.7 on "), "{from}");
    let shown = shop.cli(&["dry-run", "--to", "2.0.0", "--text"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains(&format!("Downtime: {from}.")), "{text}");
    assert!(text.contains(", as it was here before."), "{text}");

    // One that went back says nothing of one that does not; each hop counts.
    assert_eq!(shop.upgrade("9.0.1").0, Some(4));
    change_policy(&shop, |policy| policy["breakpoints"] = json!([{"version": "2.0.0"}]));
    let two = plan("3.0.0");
    assert_eq!(two["route"].as_array().map(Vec::len), Some(2), "{two:#}");
    near(&two, down * 2.0);
    let refused = plan("1.9.7");
    assert_eq!(refused["expectedDowntimeSeconds"], json!(null), "{refused:#}");
}
