//! Whether a container that was stopped or restarted was so by somebody else, told by the
//! engine's events: a stop, a restart, or a kill by a signal that ends, shortly before the death
//! that follows it. A death without one is the version's own (design section 2). Also whether it
//! was frozen meanwhile, which is somebody's doing, too.
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

/// The actions that are nothing but an end brought about from outside.
const HANDS: [&str; 2] = ["stop", "restart"];

/// The signals that end a program which does not want otherwise, by number and name. Others are
/// for its logs and settings.
const ENDING: [(i64, &str); 4] = [(15, "TERM"), (9, "KILL"), (2, "INT"), (3, "QUIT")];

/// Further ones that an image may name to be stopped by.
const STOPPING: [(i64, &str); 5] =
    [(1, "HUP"), (10, "USR1"), (12, "USR2"), (28, "WINCH"), (37, "RTMIN+3")];

/// The seconds that an engine grants a container to stop, unless it is told otherwise.
const STOP_TIMEOUT_SECONDS: i64 = 10;

/// How much longer an end may take that was brought about.
const ENDS_WITHIN_MS: i64 = 10_000;

/// One run of a container, and what the engine noted about it.
pub(in crate::driver) struct Outside {
    started_at: String,
    restarts: i64,
    since_ms: i64,
    asked: Option<tokio::time::Instant>,
    events: Vec<EngineEvent>,
    forgiven: bool,
    ending: Ending,
    freezes_told: usize,
}

/// What brings a container to its end.
#[derive(Clone)]
struct Ending {
    /// Its stop signal, as its specification writes it.
    signal: String,
    /// From the signal to the death at most.
    within_ms: i64,
}

/// Who ended a run.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::driver) enum Cause {
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
            ending: Ending::of(container),
            freezes_told: 0,
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

    /// Whether it was frozen since the last time that this was asked, as far as the engine noted.
    pub fn was_frozen(&mut self) -> bool {
        let freezes = self.events.iter().filter(|event| event.action == "pause").count();
        let is_told = freezes <= self.freezes_told;
        self.freezes_told = freezes.max(self.freezes_told);
        !is_told
    }

    /// Asks for what the engine noted since the last time, where that is a while ago. An engine
    /// that does not answer is asked again.
    pub async fn listen(&mut self, engine: &dyn Engine, id: &str) {
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= LISTEN_EVERY);
        if is_due {
            self.listen_now(engine, id).await;
        }
    }

    /// Asks now.
    pub async fn listen_now(&mut self, engine: &dyn Engine, id: &str) {
        self.asked = Some(tokio::time::Instant::now());
        self.ask(engine, id).await;
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
        match (hand(&self.events, &self.ending), self.forgiven) {
            (None, _) => Cause::Itself,
            (Some(how), false) => Cause::Somebody { how },
            (Some(how), true) => Cause::SomebodyAgain { how },
        }
    }
}

/// How somebody ended the last run that ended since this moment, where the engine remembers that
/// each end since then was somebody's doing; none where one was not, or nothing is known.
pub(in crate::driver) async fn by_hand_since(
    engine: &dyn Engine,
    container: &Value,
    since_ms: i64,
) -> Option<&'static str> {
    let now = Timestamp::now().millis();
    let id = container["Id"].as_str()?;
    let mut events = engine.events_between(id, since_ms, now).await.ok()?;
    events.sort_by_key(|event| event.at_ms);
    each_by_hand(&events, &Ending::of(container))
}

/// Whether the last run of a container that is down ended by itself, as far as the engine
/// remembers its end; an engine that was restarted since remembers none.
pub(in crate::driver) async fn ended_by_itself(engine: &dyn Engine, container: &Value) -> bool {
    let (Some(id), Some(started)) =
        (container["Id"].as_str(), Timestamp::parse(&started_at(container)))
    else {
        return false;
    };
    let now = Timestamp::now().millis();
    let Ok(mut events) = engine.events_between(id, started.millis(), now).await else {
        return false;
    };
    events.sort_by_key(|event| event.at_ms);
    let last = events.rsplit(|event| event.action == "start").next().unwrap_or_default();
    let is_noted = last.iter().any(|event| event.action == "die");
    is_noted && hand(last, &Ending::of(container)).is_none()
}

fn each_by_hand(events: &[EngineEvent], ending: &Ending) -> Option<&'static str> {
    let runs = events.split(|event| event.action == "start");
    let ended = runs.filter(|run| run.iter().any(|event| event.action == "die"));
    let hands: Vec<Option<&'static str>> = ended.map(|run| hand(run, ending)).collect();
    hands.iter().copied().collect::<Option<Vec<_>>>()?.last().copied()
}

impl Ending {
    fn of(container: &Value) -> Self {
        let config = &container["Config"];
        let seconds = config["StopTimeout"].as_i64().unwrap_or(STOP_TIMEOUT_SECONDS);
        Self {
            signal: config["StopSignal"].as_str().unwrap_or_default().to_owned(),
            within_ms: seconds.saturating_mul(1000).saturating_add(ENDS_WITHIN_MS),
        }
    }

    /// Whether an action before a death may have brought it about.
    fn is_by(&self, event: &EngineEvent) -> bool {
        if HANDS.contains(&event.action.as_str()) {
            return true;
        }
        // An engine that does not say which signal it was.
        let Some(signal) = event.attributes.get("signal") else { return event.action == "kill" };
        let meant = number(signal);
        let is_ending = ENDING.iter().any(|(one, _)| Some(*one) == meant);
        event.action == "kill" && (is_ending || (meant.is_some() && meant == number(&self.signal)))
    }
}

/// `15`, `TERM` or `SIGTERM` as a number; none of a signal that is not known here.
fn number(signal: &str) -> Option<i64> {
    let name = signal.trim().to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = ENDING.iter().chain(&STOPPING);
    name.parse().ok().or_else(|| known.clone().find(|(_, one)| *one == name).map(|(n, _)| *n))
}

/// How somebody brought the first death about; none when nobody did.
fn hand(events: &[EngineEvent], ending: &Ending) -> Option<&'static str> {
    let mut events: Vec<&EngineEvent> = events.iter().collect();
    events.sort_by_key(|event| event.at_ms);
    let death = events.iter().position(|event| event.action == "die")?;
    // How the run began has no part in its end, and a restart is noted after the start that it made.
    let began = events.iter().take(death).rposition(|event| event.action == "start");
    let begun = began.map_or(0, |at| at + 1);
    let restart = events.get(begun).filter(|event| began.is_some() && event.action == "restart");
    let begun = begun + usize::from(restart.is_some());
    let (before, since) = events.split_at_checked(death)?;
    let before = before.get(begun..).unwrap_or_default();
    let death_ms = since.first()?.at_ms;
    let is_by =
        |event: &&&EngineEvent| ending.is_by(event) && death_ms - event.at_ms <= ending.within_ms;
    // The engine notes that a stop is done after the death, however long a stop it was.
    let run = since.iter().take_while(|event| event.action != "start");
    let is_stopped = run.clone().any(|event| HANDS.contains(&event.action.as_str()));
    let is_by_hand = (is_stopped || before.iter().any(|event| is_by(&event)))
        && !before.iter().any(|event| event.action == "oom");
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

    fn ending(signal: &str) -> Ending {
        Ending::of(&serde_json::json!({"Config": {"StopSignal": signal}}))
    }

    fn killed(signal: &str, seconds_before: i64) -> Vec<EngineEvent> {
        let mut events = events(&["kill", "die"]);
        events[0].attributes.insert("signal".into(), signal.into());
        events[1].at_ms = seconds_before * 1000;
        events
    }

    #[test]
    fn only_a_signal_that_ends_and_a_death_soon_after_it_are_somebodys_doing() {
        for (signal, seconds, stop_signal, expected) in [
            ("15", 1, "", Some("killed")),
            ("SIGKILL", 0, "", Some("killed")),
            ("3", 19, "", Some("killed")),
            ("15", 54, "", None),
            ("12", 0, "", None),
            ("10", 1, "SIGTERM", None),
            ("28", 1, "SIGWINCH", Some("killed")),
            ("37", 1, "SIGRTMIN+3", Some("killed")),
            ("1", 1, "", None),
        ] {
            let found = hand(&killed(signal, seconds), &ending(stop_signal));
            assert_eq!(found, expected, "{signal} {seconds} s before");
        }
        // A long stop, whose end the engine notes afterwards.
        let mut long = killed("15", 54);
        long.extend(events(&["stop"]));
        long[2].at_ms = 54_010;
        assert_eq!(hand(&long, &ending("")), Some("stopped"));
    }

    #[test]
    fn a_freeze_is_told_once() {
        let mut outside = Outside::of(&Value::Null);
        assert!(!outside.was_frozen());
        outside.events = events(&["pause", "unpause"]);
        assert!(outside.was_frozen() && !outside.was_frozen());
        outside.events.extend(events(&["pause"]));
        assert!(outside.was_frozen());
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
            assert_eq!(hand(&events(actions), &ending("")), expected, "{actions:?}");
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
            assert_eq!(each_by_hand(&events(actions), &ending("")), expected, "{actions:?}");
        }
    }
}
