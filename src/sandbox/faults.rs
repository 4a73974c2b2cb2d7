//! Which request goes wrong. Counts the requests that change something.
//!
//! Asked by `http` before each of them. `POST /sandbox/faults` replaces the list and counts
//! from the start again, `GET /sandbox/requests` answers what was counted since: that is how a
//! test learns how many points there are to break at.

use std::sync::{Mutex, PoisonError};

use super::scenario::Fault;

/// The faults to come, and what was counted.
#[derive(Default)]
pub(super) struct Faults(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    faults: Vec<Fault>,
    requests: Vec<String>,
}

impl Faults {
    /// These, from the first request on.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self(Mutex::new(Counted { faults, requests: Vec::new() }))
    }

    /// Forgets everything and begins again with these.
    pub fn replace(&self, faults: Vec<Fault>) {
        *self.locked() = Counted { faults, requests: Vec::new() };
    }

    /// Counts a request; answers the fault that it meets.
    pub fn meet(&self, kind: &str) -> Option<Fault> {
        let mut counted = self.locked();
        counted.requests.push(kind.to_owned());
        let of_kind = |wanted: &Option<String>| match wanted {
            None => counted.requests.len(),
            Some(wanted) => counted.requests.iter().filter(|one| *one == wanted).count(),
        };
        let position = counted.faults.iter().position(|fault| {
            fault.on.as_deref().is_none_or(|on| on == kind) && of_kind(&fault.on) == fault.nth
        })?;
        Some(counted.faults.remove(position))
    }

    /// The kinds of the requests that were counted, in order.
    pub fn requests(&self) -> Vec<String> {
        self.locked().requests.clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kind of a request that changes something; none for one that only asks.
pub(super) fn kind(method: &str, path: &[&str]) -> Option<&'static str> {
    match (method, path) {
        ("POST", ["containers", "create"]) => Some("create"),
        ("POST", ["containers", _, "start"]) => Some("start"),
        ("POST", ["containers", _, "stop"]) => Some("stop"),
        ("POST", ["containers", _, "rename"]) => Some("rename"),
        ("POST", ["containers", _, "update"]) => Some("update"),
        ("POST", ["containers", _, "exec"]) => Some("exec"),
        ("POST", ["exec", _, "start"]) => Some("exec-start"),
        ("POST", ["networks", _, "connect"]) => Some("connect"),
        ("POST", ["images", "create"]) => Some("pull"),
        ("DELETE", ["containers", _]) => Some("remove"),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::scenario::Act;

    #[test]
    fn a_fault_is_met_once_by_the_request_that_it_counts() {
        let fault = Fault { on: Some("stop".into()), nth: 2, act: Act::DropAfter, ms: 0 };
        let faults = Faults::new(vec![fault]);
        assert!(faults.meet("stop").is_none());
        assert!(faults.meet("start").is_none());
        assert!(faults.meet("stop").is_some());
        assert!(faults.meet("stop").is_none());
        assert_eq!(faults.requests(), ["stop", "start", "stop", "stop"]);
    }
}
