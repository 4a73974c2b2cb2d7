//! Whether a container that was stopped or restarted was so by somebody else, told by the
//! engine's events: a stop, a kill or a restart is noted before the death that follows it. A
//! death without one is the version's own (design section 2).
//!
//! Called by the gate and by the probation. The engine remembers few events, so they are asked
//! for again and again while a version is watched, and kept here.

use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::engine::{Engine, EngineEvent};

/// Between two questions for events.
const LISTEN_EVERY: Duration = Duration::from_secs(1);

/// How long the engine may take to note a death that the inspection shows already.
const NOTED_WITHIN: Duration = Duration::from_secs(3);

/// Between two looks for it.
const NOTED_EVERY: Duration = Duration::from_millis(200);

/// The actions that bring an end about from outside.
const HANDS: [&str; 3] = ["stop", "kill", "restart"];

/// One run of a container, and what the engine noted about it.
pub(super) struct Outside {
    started_at: String,
    restarts: i64,
    since_ms: i64,
    asked: Option<tokio::time::Instant>,
    events: Vec<EngineEvent>,
    forgiven: bool,
}

/// Who ended a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The version itself, or nobody knows who.
    Itself,
    /// Somebody, for the first time.
    Somebody {
        /// `stopped`, `killed` or `restarted`.
        how: &'static str,
    },
    /// Somebody, and not for the first time.
    SomebodyAgain {
        /// The same.
        how: &'static str,
    },
}

impl Outside {
    /// The run that this inspection shows.
    pub fn of(container: &Value) -> Self {
        Self {
            started_at: started_at(container),
            restarts: restarts(container),
            since_ms: Timestamp::now().millis(),
            asked: None,
            events: Vec::new(),
            forgiven: false,
        }
    }

    /// The run that this inspection shows to be over, at an end that nobody watched.
    pub fn over(container: &Value) -> Self {
        let run = Self::of(container);
        let since = Timestamp::parse(&run.started_at).map(Timestamp::millis);
        Self { since_ms: since.unwrap_or(run.since_ms), ..run }
    }

    /// The next run, after one that somebody ended.
    pub fn again(&self, container: &Value) -> Self {
        Self { forgiven: true, ..Self::of(container) }
    }

    /// Whether this inspection shows the same run.
    pub fn is_same_run(&self, container: &Value) -> bool {
        self.started_at == started_at(container) && self.restarts == restarts(container)
    }

    /// Asks for what the engine noted since the last time, where that is a while ago. An engine
    /// that does not answer is asked again.
    pub async fn listen(&mut self, engine: &dyn Engine, id: &str) {
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= LISTEN_EVERY);
        if is_due {
            self.asked = Some(tokio::time::Instant::now());
            self.ask(engine, id).await;
        }
    }

    async fn ask(&mut self, engine: &dyn Engine, id: &str) {
        let now = Timestamp::now().millis();
        if let Ok(events) = engine.events_between(id, self.since_ms, now).await {
            for event in events {
                if !self.events.contains(&event) {
                    self.events.push(event);
                }
            }
        }
    }

    /// Whether the engine has noted that this run ended.
    pub fn has_noted_the_end(&self) -> bool {
        self.events.iter().any(|event| event.action == "die")
    }

    /// Who ended this run: looked up once more, until the death is noted.
    pub async fn cause(&mut self, engine: &dyn Engine, id: &str) -> Cause {
        let deadline = tokio::time::Instant::now() + NOTED_WITHIN;
        loop {
            self.ask(engine, id).await;
            if self.has_noted_the_end() || tokio::time::Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(NOTED_EVERY).await;
        }
        match (hand(&self.events), self.forgiven) {
            (None, _) => Cause::Itself,
            (Some(how), false) => Cause::Somebody { how },
            (Some(how), true) => Cause::SomebodyAgain { how },
        }
    }
}

/// How somebody ended the last run that ended since this moment, where the engine remembers that
/// each end since then was somebody's doing; none where one was not, or nothing is known.
pub(super) async fn by_hand_since(
    engine: &dyn Engine,
    id: &str,
    since_ms: i64,
) -> Option<&'static str> {
    let now = Timestamp::now().millis();
    let mut events = engine.events_between(id, since_ms, now).await.ok()?;
    events.sort_by_key(|event| event.at_ms);
    each_by_hand(&events)
}

fn each_by_hand(events: &[EngineEvent]) -> Option<&'static str> {
    let runs = events.split(|event| event.action == "start");
    let ended = runs.filter(|run| run.iter().any(|event| event.action == "die"));
    let hands: Vec<Option<&'static str>> = ended.map(hand).collect();
    hands.iter().copied().collect::<Option<Vec<_>>>()?.last().copied()
}

/// How somebody brought the first death about; none when nobody did.
fn hand(events: &[EngineEvent]) -> Option<&'static str> {
    let mut events: Vec<&EngineEvent> = events.iter().collect();
    events.sort_by_key(|event| event.at_ms);
    let death = events.iter().position(|event| event.action == "die")?;
    // How the run began has no part in its end, and a restart is noted after the start that it made.
    let began = events.iter().take(death).rposition(|event| event.action == "start");
    let begun = began.map_or(0, |at| at + 1);
    let restart = events.get(begun).filter(|event| began.is_some() && event.action == "restart");
    let begun = begun + usize::from(restart.is_some());
    let before = events.iter().take(death).skip(begun);
    let is_by_hand = before.clone().any(|event| HANDS.contains(&event.action.as_str()))
        && !before.clone().any(|event| event.action == "oom");
    if !is_by_hand {
        return None;
    }
    let is = |action: &str| events.iter().skip(begun).any(|event| event.action == action);
    Some(match (is("restart"), is("stop")) {
        (true, _) => "restarted",
        (false, true) => "stopped",
        (false, false) => "killed",
    })
}

fn started_at(container: &Value) -> String {
    container["State"]["StartedAt"].as_str().unwrap_or_default().to_owned()
}

fn restarts(container: &Value) -> i64 {
    container["RestartCount"].as_i64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn events(actions: &[&str]) -> Vec<EngineEvent> {
        let event = |(at_ms, action): (i64, &&str)| EngineEvent {
            at_ms,
            action: (*action).into(),
            attributes: BTreeMap::new(),
        };
        (0..).zip(actions).map(event).collect()
    }

    #[test]
    fn a_death_is_somebody_elses_only_when_a_hand_was_noted_before_it() {
        for (actions, expected) in [
            (&["kill", "die", "stop"][..], Some("stopped")),
            (&["kill", "die", "stop", "start", "restart"], Some("restarted")),
            (&["kill", "die"], Some("killed")),
            (&["die"], None),
            (&["die", "kill"], None),
            (&["oom", "die"], None),
            (&["oom", "kill", "die"], None),
            (&["kill"], None),
            (&[], None),
            (&["die", "start", "kill", "die"], None),
            (&["start", "kill", "die", "stop"], Some("stopped")),
            (&["start", "restart", "die"], None),
            (&["start", "restart", "kill", "die"], Some("killed")),
            (&["restart", "die"], Some("restarted")),
        ] {
            assert_eq!(hand(&events(actions)), expected, "{actions:?}");
        }
    }

    #[test]
    fn runs_ended_by_hand_only_where_each_of_them_did() {
        for (actions, expected) in [
            (&["start", "kill", "die", "stop", "start", "restart"][..], Some("stopped")),
            (&["kill", "die", "start", "kill", "die", "stop", "start"], Some("stopped")),
            (&["kill", "die", "stop", "start", "die", "start"], None),
            (&["die", "start"], None),
            (&["start"], None),
            (&[], None),
        ] {
            assert_eq!(each_by_hand(&events(actions)), expected, "{actions:?}");
        }
    }
}
