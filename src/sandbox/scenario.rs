//! The scenario: which releases there are, how each behaves, and what the engine does wrong.
//!
//! A JSON file, or [`Scenario::built_in`]. Every field has a default, so that a file says only
//! what is unusual about it. Read once by [`super::run`]; faults may be replaced later by a
//! request (see `faults`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::SandboxError;

/// What the sandbox plays unless a file is given.
const BUILT_IN: &str = include_str!("scenario.json");

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Scenario {
    /// Name of the container that is there from the start.
    pub container: String,
    /// The tag that it runs.
    pub running: String,
    /// The port of this host that it publishes; 0 for one that is free at the start.
    pub port: u16,
    /// Payments that are there from the start.
    pub payments: usize,
    /// Milliseconds that a clean stop of a container takes.
    pub stop_ms: u64,
    /// The releases, by tag.
    pub tags: BTreeMap<String, Release>,
    /// What the engine does wrong.
    pub faults: Vec<Fault>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            container: "payram".into(),
            running: "1.9.6".into(),
            port: 0,
            payments: 1000,
            stop_ms: 200,
            tags: BTreeMap::from([("1.9.6".to_owned(), Release::default())]),
            faults: Vec::new(),
        }
    }
}

/// How a release behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Release {
    /// Milliseconds from the core's start to its migration.
    pub boot_ms: u64,
    /// Statuses of the health answers, one after the other; the last one stays.
    pub health: Vec<u16>,
    /// The version that it reports, if not its own.
    pub reports: Option<String>,
    /// What it does to the database before it serves.
    pub migration: Migration,
    /// Whether it takes a payment every 50 ms while it serves.
    pub takes_payments: bool,
    /// Whether its worker writes a payment every 50 ms from its boot on, however the core is:
    /// unhealthy, hanging, of another version, given up on.
    pub writes_rows: bool,
    /// Exits with 1 before anything is started.
    pub exits_at_start: bool,
    /// Exits with 1 so many milliseconds after it began to serve.
    pub exits_after_ms: Option<u64>,
    /// The core's process dies so many milliseconds after each of its starts, and is started
    /// again by its supervisor.
    pub core_dies_every_ms: Option<u64>,
    /// With what it dies then.
    pub core_exit_code: i64,
    /// The program `payram-webhooks` is FATAL and can't be started.
    pub bystander_fatal: bool,
    /// The program `payram-worker` ends and comes back every so many milliseconds.
    pub restless_program: Option<u64>,
    /// Milliseconds before each of its answers.
    pub answer_ms: u64,
    /// Its server works in a fresh cluster of its own instead of the mounted directory, which it
    /// calls by the same name.
    pub serves_elsewhere: bool,
    /// Its server is the first process of its container and leaves `postmaster.pid` behind at a
    /// clean stop. The server of another release takes that number for an alive one's.
    pub leaves_stale_pid: bool,
    /// A file, by its path in the container, without which it is unhealthy and takes no payment.
    pub needs: Option<String>,
    /// One that it takes away before it starts anything.
    pub removes: Option<String>,
    /// One that it writes anew before it starts anything, with its version.
    pub rewrites: Option<String>,
    /// What it changes in the container's own file system, by path.
    pub changes: BTreeMap<String, Changed>,
    /// Accepts connections and never answers.
    pub hangs: bool,
    /// Ends only when it is killed after the grace period.
    pub ignores_term: bool,
    /// Megabytes of its image.
    pub image_mb: u64,
    /// Milliseconds that its pull takes.
    pub pull_ms: u64,
    /// With what its pull breaks off half way.
    pub pull_fails: Option<String>,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            boot_ms: 300,
            health: vec![200],
            reports: None,
            migration: Migration::default(),
            takes_payments: true,
            writes_rows: false,
            exits_at_start: false,
            exits_after_ms: None,
            core_dies_every_ms: None,
            core_exit_code: 1,
            bystander_fatal: false,
            restless_program: None,
            answer_ms: 0,
            serves_elsewhere: false,
            leaves_stale_pid: false,
            needs: None,
            removes: None,
            rewrites: None,
            changes: BTreeMap::new(),
            hangs: false,
            ignores_term: false,
            image_mb: 20,
            pull_ms: 600,
            pull_fails: None,
        }
    }
}

/// What happens to a path of the container's own file system.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Changed {
    Modified,
    Added,
    Deleted,
}

/// What a release does to the database, in this order.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Migration {
    /// Adds a column and a table.
    pub schema: bool,
    /// Changes so many of the oldest payments.
    pub rows: usize,
    /// Then fails: the core is given up by its supervisor, the database stays up.
    pub fails: bool,
}

/// One thing that the engine does wrong, once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Fault {
    /// The kind of request that is counted: `create start stop rename update remove connect
    /// exec exec-start pull kill restart`; without one all of these are. `observe` counts those that only
    /// ask.
    #[serde(default)]
    pub on: Option<String>,
    /// Which one of them, from 1.
    #[serde(default = "one")]
    pub nth: usize,
    /// What is done.
    #[serde(rename = "do")]
    pub act: Act,
    /// For `late` and `kill-late`: milliseconds.
    #[serde(default)]
    pub ms: u64,
}

fn one() -> usize {
    1
}

/// What the engine does to a request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Act {
    /// Answers after a while.
    Late,
    /// Closes the connection and does nothing.
    DropBefore,
    /// Does it and closes the connection without an answer.
    DropAfter,
    /// Sends SIGKILL to the process that asks, and does nothing.
    KillBefore,
    /// Does it and sends SIGKILL to the process that asked.
    KillAfter,
    /// Sends SIGKILL to the process that asks, and does it a while later: by then the process
    /// may have been started again and have looked.
    KillLate,
    /// Answers 500 and does nothing.
    Refuse,
}

impl Scenario {
    /// The one that comes with the program.
    pub fn built_in() -> Result<Self, SandboxError> {
        Self::parse(BUILT_IN, "the built-in scenario")
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Self, SandboxError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| SandboxError::new(format!("read {shown}: {error}")))?;
        Self::parse(&text, &shown)
    }

    fn parse(text: &str, shown: &str) -> Result<Self, SandboxError> {
        let scenario: Self = serde_json::from_str(text)
            .map_err(|error| SandboxError::new(format!("{shown}: {error}")))?;
        if !scenario.tags.contains_key(&scenario.running) {
            let running = &scenario.running;
            let message = format!("{shown}: running is {running}, which is none of its tags");
            return Err(SandboxError::new(message));
        }
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_scenario_is_read_and_an_unknown_field_is_refused() {
        let scenario = Scenario::built_in().expect("it is valid");
        assert!(scenario.tags["9.0.5"].migration.rows > 0);
        assert!(Scenario::parse(r#"{"tags": {"1.9.6": {"helth": []}}}"#, "it").is_err());
        assert!(Scenario::parse(r#"{"running": "2.0.0"}"#, "it").is_err());
    }
}
