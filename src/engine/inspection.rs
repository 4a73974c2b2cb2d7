//! What the inspection of a container says, under one name for each purpose. *Running* is no
//! single question: who must not share a directory, what serves, and what an upgrade may begin
//! with are three, and the engine's flags answer them differently. It sets `Running` for a paused
//! container, and for one that it is about to start again.
//!
//! Called by whoever holds an inspection (Engine API v1.41, `GET /containers/{id}/json`,
//! `State`). Pure.

use serde_json::Value;

/// A container's inspection, as the engine answered it.
#[derive(Clone, Copy, Debug)]
pub struct Inspection<'a>(pub &'a Value);

impl<'a> Inspection<'a> {
    /// Whether its processes hold the database's directory, or may at any moment without anybody's
    /// doing: it runs, the engine starts it again, or it is frozen with its files open. Nobody else
    /// may be started on that directory then (I2).
    pub fn occupies_database(self) -> bool {
        self.is("Running") || self.is("Restarting") || self.is("Paused")
    }

    /// Whether its programs work now. A frozen one answers nobody, and one that the engine starts
    /// again has just ended: neither serves.
    pub fn runs_steadily(self) -> bool {
        self.is_up() && !self.is("Paused")
    }

    /// Whether somebody froze it.
    pub fn is_frozen(self) -> bool {
        self.is_up() && self.is("Paused")
    }

    /// Whether its run goes on: it has not ended and is not being started again. That it is frozen
    /// is somebody's doing and no end of it.
    pub fn is_up(self) -> bool {
        self.is("Running") && !self.is_restarting()
    }

    /// Whether its restart policy is about to start it again.
    pub fn is_restarting(self) -> bool {
        self.is("Restarting")
    }

    /// Whether an upgrade may begin with it. It must serve: a frozen one can't be backed up, and
    /// one that ends again and again is nothing to go back to.
    pub fn may_start_upgrade(self) -> bool {
        self.runs_steadily()
    }

    /// Whether it was ever started; the engine writes year 1 for never.
    pub fn was_started(self) -> bool {
        self.started_at().is_some()
    }

    /// When it was started last, as the engine writes it (RFC 3339, in UTC).
    pub fn started_at(self) -> Option<&'a str> {
        self.0["State"]["StartedAt"].as_str().filter(|at| !at.starts_with("0001-"))
    }

    /// `running`, `paused`, `exited`, …
    pub fn status(self) -> &'a str {
        self.0["State"]["Status"].as_str().unwrap_or("in an unknown state")
    }

    /// Its name, without a leading slash; empty when the engine gives none.
    pub fn name(self) -> &'a str {
        self.0["Name"].as_str().unwrap_or_default().trim_start_matches('/')
    }

    fn is(self, flag: &str) -> bool {
        self.0["State"][flag].as_bool() == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(flags: &[&str]) -> Value {
        let mut container = json!({"State": {"StartedAt": "2026-01-31T12:00:00Z"}});
        for flag in flags {
            container["State"][*flag] = json!(true);
        }
        container
    }

    #[test]
    fn a_paused_or_crash_looping_shop_holds_its_database_and_does_not_serve() {
        for flags in [&["Running", "Paused"][..], &["Running", "Restarting"], &["Restarting"]] {
            let container = state(flags);
            let seen = Inspection(&container);
            assert!(seen.occupies_database(), "{flags:?}");
            assert!(!seen.runs_steadily() && !seen.may_start_upgrade(), "{flags:?}");
        }
        let (up, down) = (state(&["Running"]), state(&[]));
        assert!(Inspection(&up).occupies_database() && Inspection(&up).runs_steadily());
        assert!(!Inspection(&down).occupies_database() && !Inspection(&down).runs_steadily());
    }

    #[test]
    fn a_paused_container_goes_on_with_its_run_and_a_restarting_one_does_not() {
        assert!(Inspection(&state(&["Running", "Paused"])).is_up());
        assert!(!Inspection(&state(&["Running", "Restarting"])).is_up());
    }

    #[test]
    fn a_container_that_was_only_created_was_never_started() {
        let created = json!({"State": {"StartedAt": "0001-01-01T00:00:00Z", "Status": "created"}});
        assert!(!Inspection(&created).was_started());
        assert!(Inspection(&state(&[])).was_started());
        assert_eq!(Inspection(&created).status(), "created");
        assert_eq!(Inspection(&json!({"Name": "/payram"})).name(), "payram");
    }
}
