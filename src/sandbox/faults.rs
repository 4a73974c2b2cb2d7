//! Which request goes wrong. Counts the requests: those that change something, and apart from
//! them those that only ask.
//!
//! Asked by `http` before each of them. `POST /sandbox/faults` replaces the list and counts
//! from the start again, `GET /sandbox/requests` and `GET /sandbox/observations` answer what
//! was counted since: that is how a test learns how many points there are to break at. Whoever
//! set the faults meets none and is not counted: it watches.

use std::sync::{Mutex, PoisonError};

use super::scenario::Fault;

/// The kind of all requests that only ask.
const OBSERVE: &str = "observe";

/// The faults to come, and what was counted.
#[derive(Default)]
pub(super) struct Faults(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    faults: Vec<Fault>,
    /// The process that set them.
    watcher: Option<i32>,
    requests: Vec<String>,
    observations: Vec<String>,
}

impl Faults {
    /// These, from the first request on.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self(Mutex::new(Counted { faults, ..Counted::default() }))
    }

    /// Forgets everything and begins again with these, which `watcher` has set.
    pub fn replace(&self, faults: Vec<Fault>, watcher: Option<i32>) {
        *self.locked() = Counted { faults, watcher, ..Counted::default() };
    }

    /// Counts a request that changes something; answers the fault that it meets.
    pub fn meet(&self, kind: &str, who: Option<i32>) -> Option<Fault> {
        let mut counted = self.locked();
        if who.is_some() && counted.watcher == who {
            return None;
        }
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

    /// Counts a request that only asks; answers the fault that it meets.
    pub fn observe(&self, what: String, who: Option<i32>) -> Option<Fault> {
        let mut counted = self.locked();
        if who.is_some() && counted.watcher == who {
            return None;
        }
        counted.observations.push(what);
        let nth = counted.observations.len();
        let is_met = |fault: &Fault| fault.on.as_deref() == Some(OBSERVE) && fault.nth == nth;
        let position = counted.faults.iter().position(is_met)?;
        Some(counted.faults.remove(position))
    }

    /// What was asked of it, in order.
    pub fn observations(&self) -> Vec<String> {
        self.locked().observations.clone()
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
        ("POST", ["containers", _, "kill"]) => Some("kill"),
        ("POST", ["containers", _, "restart"]) => Some("restart"),
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
        assert!(faults.meet("stop", None).is_none());
        assert!(faults.meet("start", None).is_none());
        assert!(faults.meet("stop", None).is_some());
        assert!(faults.meet("stop", None).is_none());
        assert_eq!(faults.requests(), ["stop", "start", "stop", "stop"]);
    }

    #[test]
    fn whoever_set_the_faults_meets_none_and_questions_are_counted_apart() {
        let fault = |on: Option<&str>| Fault {
            on: on.map(str::to_owned),
            nth: 1,
            act: Act::DropBefore,
            ms: 0,
        };
        let faults = Faults::default();
        faults.replace(vec![fault(None), fault(Some(OBSERVE))], Some(7));
        assert!(faults.meet("stop", Some(7)).is_none());
        assert!(faults.observe("version".into(), Some(7)).is_none());
        assert!(faults.observe("version".into(), Some(8)).is_some());
        assert!(faults.meet("stop", Some(8)).is_some());
        assert_eq!(faults.requests(), ["stop"]);
        assert_eq!(faults.observations(), ["version"]);
    }
}
