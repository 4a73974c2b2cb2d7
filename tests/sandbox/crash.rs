//! One crash: the daemon is killed at a point and started again, and what is wrong then.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::invariants::{Told, at_the_crash, at_the_end};
use crate::points::{At, Point, Then};
use crate::scenarios::Scenario;
use crate::shop::{END, SOON, Shop};
use crate::support::http::Request;
use crate::support::{Daemon, wait_until};
use crate::tracer::{Counted, Mark, Traced};

/// How long what comes after an upgrade's end may take.
pub const TIDIES_WITHIN: Duration = Duration::from_millis(1500);

/// Between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Between two looks at its journal.
const READ_EVERY: Duration = Duration::from_millis(300);

/// A daemon's life, under a tracer or not.
pub enum Life {
    Plain(Daemon),
    Traced(Traced),
}

impl Life {
    /// Starts the daemon; with a tracer when one is given a mark, or told to count.
    pub fn begin(shop: &Shop, tracer: Option<Option<Mark>>) -> Self {
        match tracer {
            Some(mark) => Life::Traced(shop.traced(mark)),
            None => Life::Plain(shop.spawn_daemon()),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Life::Plain(daemon) => daemon.exited().is_some(),
            Life::Traced(traced) => traced.has_ended(),
        }
    }

    /// Until it answers, or is gone.
    pub fn wait_ready(&mut self, shop: &Shop) {
        wait_until("the daemon answers, or is gone", SOON, || {
            let is_ready = Request::get("/health").to_port(shop.port).is_ok();
            (is_ready || self.has_ended()).then_some(())
        });
    }

    /// Kills it, if it is not gone.
    pub fn end(self) -> Counted {
        match self {
            Life::Plain(mut daemon) => match daemon.exited() {
                Some(status) => {
                    assert_eq!(status.code(), None, "it was not killed: {status}");
                    Counted { is_marked: true, ..Counted::default() }
                }
                None => {
                    daemon.kill();
                    Counted::default()
                }
            },
            Life::Traced(traced) => traced.end(),
        }
    }
}

/// What came of a point.
#[derive(Debug, Default)]
pub struct Tried {
    pub wrong: Vec<String>,
    /// Whether the upgrade came to the point at all.
    pub is_reached: bool,
    /// Where the upgrade was by its journal.
    pub was_at: String,
}

/// Tries a point in a shop of its own.
pub fn try_point(point: &Point<'_>) -> Tried {
    let mut shop = point.scenario.open();
    let old = shop.old_id();
    let mut tried = Tried::default();
    let is_killed = live(&shop, point.at, &point.scenario.faults, Some(point.scenario));
    tried.is_reached = is_killed || !point.at.kills();
    tried.was_at = Told::of(&shop).map_or("no journal".to_owned(), |told| told.place());
    at_the_crash(&shop, &old, &mut tried.wrong);
    match point.then {
        Then::Restart => {}
        Then::Again(at) => {
            live(&shop, at, &[], None);
            at_the_crash(&shop, &old, &mut tried.wrong);
        }
        Then::Reboot => {
            shop.restart_engine();
            at_the_crash(&shop, &old, &mut tried.wrong);
        }
    }
    // What was to happen and did not, happens no more.
    shop.faults(&json!([]));
    let mut daemon = shop.spawn_daemon();
    daemon.wait_ready();
    let phase = until_it_rests(&shop, &point.to_string());
    if point.scenario.recover.is_some() && phase == "NEEDS_OPERATOR" {
        // A person whose command was not answered gives it again.
        point.scenario.begin(&shop);
        until_it_rests(&shop, &point.to_string());
    }
    at_the_end(&shop, point, &old, &mut tried.wrong);
    if let Some(status) = daemon.exited() {
        tried.wrong.push(format!("the daemon ended by itself: {status}"));
    }
    if !tried.wrong.is_empty() {
        tried.wrong.push(shop.last_lines());
    }
    tried
}

/// A daemon's life up to this point, or to where its upgrade rests; whether it was killed there.
/// It is asked for what `begins`, where that is given.
fn live(shop: &Shop, at: At, faults: &[Value], begins: Option<&Scenario>) -> bool {
    let faults: Vec<Value> = at.fault().into_iter().chain(faults.iter().cloned()).collect();
    shop.faults(&Value::from(faults));
    let mut life = Life::begin(shop, at.mark().map(Some));
    life.wait_ready(shop);
    if let Some(scenario) = begins.filter(|_| !life.has_ended()) {
        scenario.begin(shop);
    }
    let deadline = Instant::now() + END;
    let mut next_look = Instant::now();
    let mut rests_since = None;
    while !life.has_ended() {
        if Instant::now() >= next_look {
            next_look = Instant::now() + READ_EVERY;
            let rests = Told::of(shop).is_none_or(|told| told.rests());
            let since = rests_since.get_or_insert_with(Instant::now);
            if !rests {
                rests_since = None;
            } else if since.elapsed() > TIDIES_WITHIN {
                break;
            }
        }
        assert!(Instant::now() < deadline, "neither killed nor at rest within {END:?}");
        std::thread::sleep(LOOK_EVERY);
    }
    life.end().is_marked
}

/// Waits until no upgrade is under way or watched; the phase that the last one ended in.
pub fn until_it_rests(shop: &Shop, what: &str) -> String {
    let deadline = Instant::now() + END;
    loop {
        match Told::of(shop) {
            Some(told) if told.rests() => return told.phase,
            None => return "none".to_owned(),
            Some(told) => {
                assert!(Instant::now() < deadline, "{what}: still at {}", told.place());
            }
        }
        std::thread::sleep(READ_EVERY);
    }
}
