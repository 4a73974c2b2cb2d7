//! The crash matrix: the daemon is killed with SIGKILL at a request to the engine, before it is
//! carried out or after it, and started again. Wherever that is, the upgrade ends, the
//! invariants hold, and no acknowledged payment is missing.
//!
//! All points are tried with `PAYRAM_CRASH_MATRIX=full`; otherwise some, drawn by a seed that
//! is printed and that `PAYRAM_CRASH_SEED` sets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::shop::{END, SOON, Shop};
use crate::support::wait_until;

/// Points of a scenario that are tried unless all are.
const SAMPLED: usize = 3;

/// When the daemon is killed: the request is not carried out, or it is and is not answered.
const ACTS: [&str; 2] = ["kill-before", "kill-after"];

/// Crashes that are tried at the same time.
const WORKERS: usize = 8;

/// A scenario, and how it ends.
struct Scenario {
    name: &'static str,
    release: Value,
    phase: &'static str,
}

fn scenarios() -> Vec<Scenario> {
    let scenario = |name, release, phase| Scenario { name, release, phase };
    vec![
        scenario("good", json!({"migration": {"schema": true}}), "VERIFIED"),
        scenario("health 500", json!({"health": [500], "takesPayments": false}), "ROLLED_BACK"),
        scenario("exits at start", json!({"exitsAtStart": true}), "ROLLED_BACK"),
        scenario(
            "wrong version",
            json!({"reports": "1.0.0", "takesPayments": false}),
            "ROLLED_BACK",
        ),
        scenario(
            "migration breaks",
            json!({"migration": {"schema": true, "fails": true}}),
            "ROLLED_BACK",
        ),
        scenario("pull breaks off", json!({"pullFails": "unexpected EOF"}), "ROLLED_BACK"),
    ]
}

/// Numbers from a seed (splitmix64), so that a sample can be drawn again.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn seed() -> u64 {
    let given = std::env::var("PAYRAM_CRASH_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

/// The kinds of the requests of an upgrade that nothing disturbs.
fn undisturbed(scenario: &Scenario) -> Vec<String> {
    let shop = Shop::open(json!({"2.0.0": scenario.release}));
    let daemon = shop.daemon();
    begin(&shop);
    let status = daemon.wait_settled(END);
    assert_eq!(status["phase"], scenario.phase, "{}: {status}", scenario.name);
    let requests = shop.ask("/sandbox/requests");
    serde_json::from_value(requests).expect("a list of kinds")
}

/// Asks for the upgrade; the requests of its plan are not counted.
fn begin(shop: &Shop) {
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Kills the daemon at the nth request; what is wrong afterwards.
fn crash_at(scenario: &Scenario, nth: usize, act: &str) -> Vec<String> {
    let shop = Shop::open(json!({"2.0.0": scenario.release}));
    shop.wait_serves("1.9.6");
    let old = shop.id();
    let mut daemon = shop.daemon();
    shop.faults(&json!([{"nth": nth, "do": act}]));
    // When the daemon is killed while it answers, the command is the first to know.
    let ran = shop.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
    let was_planned = ran.status.success();
    let killed = wait_until("the daemon is killed, or the upgrade ends", END, || {
        if let Some(status) = daemon.exited() {
            return Some(status.code().is_none());
        }
        let has_settled = was_planned && daemon.status()["active"] == false;
        has_settled.then_some(false)
    });
    let mut wrong = Vec::new();
    let mut daemon = if killed { shop.daemon() } else { daemon };
    let status = daemon.wait_status("the upgrade ends", END, |status| status["active"] != true);
    let phase = status["phase"].as_str().unwrap_or("none").to_owned();
    let serving = match phase.as_str() {
        "VERIFIED" => "2.0.0",
        // Killed in its plan, the upgrade never began.
        "ROLLED_BACK" | "none" | "" => "1.9.6",
        other => {
            wrong.push(format!("it ended {other}: {}", status["message"]));
            return wrong;
        }
    };
    if phase != scenario.phase && was_planned && phase != "none" {
        wrong.push(format!("expected {}, it ended {phase}", scenario.phase));
    }
    wait_until(&format!("{serving} serves"), SOON, || {
        (shop.serves().as_deref() == Some(serving)).then_some(())
    });
    if serving == "1.9.6" && shop.id() != old {
        wrong.push("the old container is not the one that was there".to_owned());
    }
    wait_until("one container is left", SOON, || {
        (shop.containers() == ["payram running"]).then_some(())
    });
    let policy = &shop.ask("/containers/payram/json")["HostConfig"]["RestartPolicy"]["Name"];
    if policy != "unless-stopped" {
        wrong.push(format!("the restart policy is {policy}"));
    }
    let (lost, two) = (shop.lost(), shop.two_at_once());
    if !lost.is_empty() {
        wrong.push(format!("{} acknowledged payments are lost", lost.len()));
    }
    if !two.is_empty() {
        wrong.push(format!("two containers ran on one database: {two}"));
    }
    if daemon.exited().is_some() {
        wrong.push("the daemon ended again".to_owned());
    }
    wrong
}

/// One crash to try.
struct Point<'a> {
    scenario: &'a Scenario,
    nth: usize,
    kind: String,
    act: &'static str,
}

/// The points of a scenario: before and after each of its requests.
fn points(scenario: &Scenario) -> Vec<Point<'_>> {
    let requests = undisturbed(scenario);
    let point = |nth: usize, kind: &str, act| Point { scenario, nth, kind: kind.to_owned(), act };
    let numbered = requests.iter().enumerate();
    numbered.flat_map(|(index, kind)| ACTS.map(|act| point(index + 1, kind, act))).collect()
}

/// Runs something for each item, several at a time: a crash is mostly waited for.
fn side_by_side<'i, T: Sync, R: Send>(items: &'i [T], run: impl Fn(&'i T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let result = run(item);
                    results.lock().expect("no test panics with it").push(result);
                }
            });
        }
    });
    results.into_inner().expect("no test panics with it")
}

#[test]
fn a_daemon_killed_at_any_request_ends_the_upgrade_after_its_restart() {
    let is_full = std::env::var("PAYRAM_CRASH_MATRIX").is_ok_and(|how| how == "full");
    let seed = seed();
    let mut draw = Draw(seed);
    println!("PAYRAM_CRASH_SEED={seed}");
    let scenarios = scenarios();
    let mut tried = Vec::new();
    let mut found = side_by_side(&scenarios, points);
    found.sort_by_key(|points| points.first().map(|point| point.scenario.name));
    for mut all in found {
        let count = all.len();
        let name = all.first().map_or("none", |point| point.scenario.name);
        if !is_full {
            let drawn = (0..SAMPLED).map(|_| all.swap_remove(draw.below(all.len())));
            all = drawn.collect();
        }
        println!("{name}: {} of {count} points", all.len());
        tried.extend(all);
    }
    let violations = side_by_side(&tried, |point| {
        let wrong = crash_at(point.scenario, point.nth, point.act);
        let at = format!("{}, {} request {}", point.scenario.name, point.act, point.nth);
        wrong.into_iter().map(|what| format!("{at} ({}): {what}", point.kind)).collect::<Vec<_>>()
    });
    let violations = violations.concat();
    println!("{} points, {} violations", tried.len(), violations.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_connection_that_breaks_at_a_change_is_observed_and_done_once() {
    // Three in each: with every uncertain outcome the driver waits longer.
    let broken =
        [("drop-before", ["create", "stop", "start"]), ("drop-after", ["stop", "rename", "start"])];
    side_by_side(&broken, |(act, kinds)| {
        let faults: Vec<Value> = kinds.map(|on| json!({"on": on, "do": act})).into();
        let shop = Shop::open(json!({"2.0.0": {"migration": {"schema": true}}}));
        let daemon = shop.daemon();
        shop.faults(&Value::from(faults));
        begin(&shop);
        let status = daemon.wait_settled(END);
        assert_eq!(status["phase"], "VERIFIED", "{act}: {status}");
        assert_eq!(shop.serves().as_deref(), Some("2.0.0"));
        assert_eq!(shop.lost(), Vec::<String>::new());
        assert_eq!(shop.two_at_once(), "");
    });
}
