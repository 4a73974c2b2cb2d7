//! The product's daemon as a process: started, asked, killed.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::http::{Answer, Request};
use super::wait_until;

/// From the start of the process to the first answer of its API.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// From SIGTERM to the end: the step in hand is finished first.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// A running daemon. Killed when it is dropped.
pub struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command as the daemon; what it prints is appended to `log`.
    pub fn spawn(mut command: Command, port: u16, log: &Path) -> Self {
        let file: File =
            OpenOptions::new().create(true).append(true).open(log).expect("the daemon's log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the daemon starts");
        Self { child, port, log: log.to_owned() }
    }

    /// Waits until the API answers.
    ///
    /// # Panics
    /// With its log when it ends before that.
    pub fn wait_ready(&mut self) {
        wait_until("the daemon's API answers", READY_LIMIT, || {
            if let Some(status) = self.exited() {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            let answer = Request::get("/health").to_port(self.port).ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        wait_until("the daemon ends", limit, || self.exited())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: what a power cut or the OOM killer does.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL is sent");
        self.child.wait().expect("the daemon is gone");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM is sent");
        self.wait_exit(STOP_LIMIT)
    }

    /// Everything that it and its predecessors in this world have printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `GET path`
    pub fn get(&self, path: &str) -> Answer {
        let answer = Request::get(path).to_port(self.port);
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()))
    }

    /// `POST path` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let answer = Request::post(path, &body.to_string()).to_port(self.port);
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}\n{}", self.log()))
    }

    /// `GET /upgrade/status`
    pub fn status(&self) -> Value {
        self.get("/upgrade/status").json()
    }

    /// Waits until the status is as `is_so` wants it.
    pub fn wait_status(
        &self,
        what: &str,
        limit: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_until(what, limit, || Some(self.status()).filter(|status| is_so(status)))
    }

    /// Waits until no job is active: it ended, well or badly.
    pub fn wait_settled(&self, limit: Duration) -> Value {
        self.wait_status("the job ends", limit, |status| {
            let phase = status["phase"].as_str().unwrap_or_default();
            status["state"] == "FAILED"
                || matches!(phase, "VERIFIED" | "ROLLED_BACK" | "NEEDS_OPERATOR")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
