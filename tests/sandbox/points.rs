//! The points of a scenario: where its upgrade can be killed, found by watching one that
//! nothing disturbs.

use serde_json::{Value, json};

use crate::crash::{Life, TIDIES_WITHIN, until_it_rests};
use crate::scenarios::{DROPS, Scenario};
use crate::tracer::{Counted, Mark};

/// Milliseconds by which the engine is late: a daemon that is started again has looked by then.
const LATE_MS: u64 = 400;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A request to the engine that changes something meets this.
    Request(usize, &'static str),
    /// A request that only asks.
    Observation(usize, &'static str),
    /// The journal, or a name in the file system.
    Call(Mark),
}

/// What comes after the kill, besides a new daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Restart,
    /// The new daemon is killed, too, at a point of its own.
    Again(At),
    /// The engine is killed with it: the host lost its power.
    Reboot,
}

/// One crash to try.
#[derive(Clone, Copy)]
pub struct Point<'a> {
    pub scenario: &'a Scenario,
    pub at: At,
    pub then: Then,
}

/// The columns of the table.
pub const COLUMNS: [&str; 7] =
    ["requests", "questions", "commits", "names", "drops", "twice", "reboots"];

impl Point<'_> {
    /// The column that it is counted in.
    pub fn column(&self) -> usize {
        match (self.then, self.at) {
            (Then::Again(_), _) => 5,
            (Then::Reboot, _) => 6,
            (Then::Restart, at) if !at.kills() => 4,
            (Then::Restart, At::Request(..)) => 0,
            (Then::Restart, At::Observation(..)) => 1,
            (Then::Restart, At::Call(Mark::BeforeCommit(_) | Mark::AfterCommit(_))) => 2,
            (Then::Restart, At::Call(Mark::BeforeName(_))) => 3,
        }
    }
}

impl std::fmt::Display for Point<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {:?}", self.scenario.name, self.at)?;
        match self.then {
            Then::Restart => Ok(()),
            Then::Again(at) => write!(f, " and again at {at:?}"),
            Then::Reboot => write!(f, " and the engine with it"),
        }
    }
}

impl At {
    /// Whether the daemon is killed, or lives on.
    pub fn kills(self) -> bool {
        match self {
            At::Request(_, act) | At::Observation(_, act) => act.starts_with("kill"),
            At::Call(_) => true,
        }
    }

    /// What the engine is told.
    pub fn fault(self) -> Option<Value> {
        match self {
            At::Request(nth, act) => Some(json!({"nth": nth, "do": act, "ms": LATE_MS})),
            At::Observation(nth, act) => {
                Some(json!({"on": "observe", "nth": nth, "do": act, "ms": LATE_MS}))
            }
            At::Call(_) => None,
        }
    }

    /// What the tracer is told.
    pub fn mark(self) -> Option<Mark> {
        match self {
            At::Call(mark) => Some(mark),
            At::Request(..) | At::Observation(..) => None,
        }
    }
}

/// What one undisturbed upgrade did.
#[derive(Debug)]
pub struct Trail {
    /// Kinds of the requests that change something.
    pub requests: Vec<String>,
    /// Paths of those that only ask.
    pub observations: Vec<String>,
    pub counted: Counted,
}

impl Trail {
    /// Of this scenario; with `is_traced` its system calls are counted, too.
    pub fn of(scenario: &Scenario, is_traced: bool) -> Self {
        let shop = scenario.open();
        shop.faults(&Value::from(scenario.faults.clone()));
        let mut life = Life::begin(&shop, is_traced.then_some(None));
        life.wait_ready(&shop);
        assert!(scenario.begin(&shop), "{}: it is accepted", scenario.name);
        let phase = until_it_rests(&shop, scenario.name);
        assert_eq!(phase, scenario.phase, "{}", scenario.name);
        // What it tidies after its end counts.
        std::thread::sleep(TIDIES_WITHIN);
        let list = |path| serde_json::from_value(shop.ask(path)).expect("a list");
        let (requests, observations) = (list("/sandbox/requests"), list("/sandbox/observations"));
        Self { requests, observations, counted: life.end() }
    }

    /// Every point that it has.
    pub fn points<'s>(&self, scenario: &'s Scenario) -> Vec<Point<'s>> {
        let (requests, observations) = (self.requests.len(), self.observations.len());
        let Counted { commits, names, .. } = self.counted;
        let mut all: Vec<At> = Vec::new();
        for act in ["kill-before", "kill-after", "kill-late"] {
            all.extend((1..=requests).map(|nth| At::Request(nth, act)));
        }
        // Its answer lost is the same as the question unheard: nothing was changed.
        all.extend((1..=observations).map(|nth| At::Observation(nth, "kill-before")));
        for nth in 1..=commits {
            all.extend([Mark::BeforeCommit(nth), Mark::AfterCommit(nth)].map(At::Call));
        }
        all.extend((1..=names).map(|nth| At::Call(Mark::BeforeName(nth))));
        if scenario.name == DROPS {
            for act in ["drop-before", "drop-after", "late"] {
                all.extend((1..=requests).map(|nth| At::Request(nth, act)));
            }
            all.extend((1..=observations).map(|nth| At::Observation(nth, "drop-before")));
        }
        all.into_iter().map(|at| Point { scenario, at, then: Then::Restart }).collect()
    }
}
