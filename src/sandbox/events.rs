//! The make-believe engine's events: those to come, and the last ones that were.
//!
//! Told by `world` and `http`, asked for by `http`. Remembers as many as the real engine does,
//! in memory alone: after its restart nothing is known.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use super::answer::{self, Answer, Refusal, Reply};
use crate::clock::Timestamp;

/// What the engine remembers, and what a slow listener may lag behind.
const KEPT: usize = 256;

/// See the module.
pub(super) struct Events {
    sender: broadcast::Sender<Value>,
    past: Mutex<VecDeque<Value>>,
}

/// What a listener wants to hear.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    since_ns: Option<i64>,
    until_ns: Option<i64>,
    kinds: Vec<String>,
    containers: Vec<String>,
    actions: Vec<String>,
}

impl Wanted {
    /// Of a request's query.
    pub fn of(query: &HashMap<String, String>) -> Answer<Self> {
        let moment = |key: &str| query.get(key).map(|text| nanoseconds(key, text)).transpose();
        let filters: Value = match query.get("filters") {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Refusal::new(400, format!("filters: {error}")))?,
            None => Value::Null,
        };
        // Both `["a"]` and `{"a": true}` are in use.
        let filter = |key: &str| match &filters[key] {
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Value::Object(fields) => fields.keys().cloned().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        Ok(Self {
            since_ns: moment("since")?,
            until_ns: moment("until")?,
            kinds: filter("type"),
            containers: filter("container"),
            actions: filter("event"),
        })
    }

    fn takes(&self, event: &Value) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_one = |wanted: &[String], found: &str| {
            wanted.is_empty() || wanted.iter().any(|one| one == found)
        };
        let at = event["timeNano"].as_i64().unwrap_or_default();
        let (id, name) = (text(&event["Actor"]["ID"]), text(&event["Actor"]["Attributes"]["name"]));
        is_one(&self.kinds, &text(&event["Type"]))
            && is_one(&self.actions, &text(&event["Action"]))
            // By their beginnings, as the real engine does it.
            && (self.containers.is_empty()
                || self.containers.iter().any(|one| id.starts_with(one) || name.starts_with(one)))
            && self.since_ns.is_none_or(|since| at >= since)
            && self.until_ns.is_none_or(|until| at <= until)
    }
}

impl Events {
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(KEPT), past: Mutex::default() }
    }

    /// Something happened to the container of this inspection; `more` belongs to it.
    pub fn tell(&self, container: &Value, action: &str, more: &[(&str, String)]) {
        let mut attributes = container["Config"]["Labels"].as_object().cloned().unwrap_or_default();
        let name = container["Name"].as_str().unwrap_or_default().trim_start_matches('/');
        attributes.insert("name".into(), json!(name));
        attributes.insert("image".into(), container["Config"]["Image"].clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        let mut past = self.past();
        let now = now_ns();
        // One after the other, also within a millisecond.
        let last = past.back().and_then(|event| event["timeNano"].as_i64()).unwrap_or_default();
        let at = now.max(last + 1);
        let event = json!({
            "status": action, "id": container["Id"], "from": container["Config"]["Image"],
            "Type": "container", "Action": action,
            "Actor": {"ID": container["Id"], "Attributes": attributes},
            "scope": "local", "time": at / 1_000_000_000, "timeNano": at,
        });
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listens most of the time.
        let _ = self.sender.send(event);
    }

    /// The past ones that are wanted, where a past was asked for, and those to come until the
    /// moment that was named, else until the client goes away.
    pub fn listen(&self, wanted: Wanted) -> Reply {
        let (mut coming, past) = {
            // Together, so that none is missed or told twice.
            let past = self.past();
            let is_asked = wanted.since_ns.is_some() || wanted.until_ns.is_some();
            let told: Vec<Value> =
                past.iter().filter(|event| is_asked && wanted.takes(event)).cloned().collect();
            (self.sender.subscribe(), told)
        };
        let left = wanted.until_ns.map(|until| until.saturating_sub(now_ns()));
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            for event in past {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            let end = async {
                match left {
                    Some(left) => {
                        let left = u64::try_from(left).unwrap_or_default();
                        tokio::time::sleep(Duration::from_nanos(left)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(end);
            loop {
                let event = tokio::select! {
                    biased;
                    () = &mut end => return,
                    () = sender.closed() => return,
                    event = coming.recv() => event,
                };
                match event {
                    Ok(event) if wanted.takes(&event) => {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        answer::lines(receiver)
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Value>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ns() -> i64 {
    Timestamp::now().millis().saturating_mul(1_000_000)
}

/// `1795893084` or `1795893084.819424003`
fn nanoseconds(key: &str, text: &str) -> Answer<i64> {
    let refused = || Refusal::new(400, format!("{key}: {text} is no moment"));
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| refused())?;
    let rest: i64 =
        format!("{rest:0<9}").get(..9).unwrap_or_default().parse().map_err(|_| refused())?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_to_the_nanosecond() {
        assert_eq!(nanoseconds("since", "12").expect("one"), 12_000_000_000);
        assert_eq!(nanoseconds("since", "12.000000007").expect("one"), 12_000_000_007);
        assert_eq!(nanoseconds("since", "12.5").expect("one"), 12_500_000_000);
        assert!(nanoseconds("since", "yesterday").is_err());
    }

    #[test]
    fn the_oldest_events_are_forgotten_and_no_two_are_at_once() {
        let events = Events::new();
        for number in 0..KEPT + 5 {
            events.tell(&json!({"Id": number.to_string(), "Name": "/payram"}), "start", &[]);
        }
        let past = events.past();
        assert_eq!((past.len(), &past[0]["id"]), (KEPT, &json!("5")));
        let mut times = past.iter().map(|event| event["timeNano"].as_i64().expect("a time"));
        assert!(times.clone().zip(times.by_ref().skip(1)).all(|(one, next)| one < next));
    }
}
