//! The make-believe shop with its daemon, and an upgrade of it, measured from outside.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::Failure;
use crate::poller::Poller;
use crate::support::http::Request;
use crate::support::{Daemon, Sandbox, free_port, sandbox};

/// For an upgrade.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Shop {
    pub port: u16,
    settings: BTreeMap<String, String>,
    core: u16,
    next: Cell<u32>,
    _engine: Sandbox,
    root: tempfile::TempDir,
}

/// An upgrade.
pub struct Upgrade {
    pub downtime: Duration,
    pub whole: Duration,
}

impl Shop {
    /// A shop that can be upgraded so often.
    pub fn open(times: u32) -> Self {
        let root = tempfile::Builder::new().prefix("payram-reading-").tempdir().expect("a place");
        let releases: serde_json::Map<String, Value> =
            (1..=times).map(|number| (format!("2.0.{number}"), json!({}))).collect();
        let mut scenario = sandbox::scenario(50, &Value::Object(releases));
        let core = free_port();
        scenario["port"] = json!(core);
        sandbox::write_scenario(root.path(), &scenario);
        let engine = Sandbox::start(root.path());
        let port = free_port();
        let settings = engine.settings(root.path(), port);
        Self { port, settings, core, next: Cell::new(1), _engine: engine, root }
    }

    pub fn journal(&self) -> PathBuf {
        self.root.path().join("state/journal.db")
    }

    pub fn daemon(&self) -> Daemon {
        let mut command = sandbox::updater(self.root.path());
        command.arg("serve").envs(&self.settings);
        let mut daemon = Daemon::spawn(command, self.port, &self.root.path().join("daemon.log"));
        daemon.wait_ready();
        daemon
    }

    /// To the next version.
    pub fn upgrade(&self, daemon: &Daemon) -> Result<Upgrade, Failure> {
        let number = self.next.replace(self.next.get() + 1);
        let poller = Poller::start(self.core);
        let body = json!({"mode": "MANUAL", "requestedTarget": format!("2.0.{number}")});
        let (begin, began) = (Instant::now(), SystemTime::now());
        let answer = Request::post("/upgrade/run", &body.to_string())
            .patience(LIMIT)
            .to_socket(&self.root.path().join("run/updater.sock"))?
            .json();
        let job = answer["jobId"].as_str().unwrap_or_default();
        if job.is_empty() {
            return Err(format!("no upgrade: {answer}").into());
        }
        let ended = daemon.wait_status("the upgrade ends", LIMIT, |status| {
            status["jobId"] == job && status["active"] != true
        });
        if ended["phase"] != "VERIFIED" {
            return Err(format!("not verified: {ended}").into());
        }
        let whole = begin.elapsed();
        let gap = poller.longest_gap(began).ok_or("the shop never answered")?;
        Ok(Upgrade { downtime: gap.length(), whole })
    }
}
