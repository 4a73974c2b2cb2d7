//! A make-believe shop: the sandbox and the daemon as processes, in a temporary directory.
//! Everything ends when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Daemon, free_port, wait_until};
use crate::tracer::{Mark, Traced};

/// For anything that takes a second.
pub const SOON: Duration = Duration::from_secs(30);

/// For an upgrade and its way back.
pub const END: Duration = Duration::from_secs(120);

/// Bytes that must be free for the preflight of some shops at once.
const ROOM: u64 = 6_000_000_000;

/// A sandbox with its shop, and the settings of an updater.
pub struct Shop {
    pub port: u16,
    engine: Child,
    /// What the sandbox said of itself.
    pub ready: Value,
    settings: BTreeMap<String, String>,
    root: tempfile::TempDir,
}

impl Shop {
    /// A shop on 1.9.6 that can be upgraded to these releases.
    pub fn open(releases: Value) -> Self {
        let root = tempfile::Builder::new()
            .prefix("payram-sandbox-")
            .tempdir_in(place())
            .expect("a place");
        let mut tags = json!({"1.9.6": {"bootMs": 50}});
        let own = tags.as_object_mut().expect("an object");
        own.extend(releases.as_object().expect("releases by tag").clone());
        for release in own.values_mut() {
            let fields = release.as_object_mut().expect("an object");
            fields.entry("bootMs").or_insert(json!(50));
            fields.entry("pullMs").or_insert(json!(50));
        }
        // Below the ephemeral ports: nobody's connection has it while its container is down.
        let scenario = json!({
            "running": "1.9.6", "port": free_port(), "payments": 100, "stopMs": 20, "tags": tags,
        });
        fs::write(root.path().join("scenario.json"), scenario.to_string()).expect("a scenario");
        let (engine, ready) = start_engine(root.path());
        let port = free_port();
        let at = |name: &str| root.path().join(name).display().to_string();
        let text = |key: &str| ready[key].as_str().expect("a text").to_owned();
        let settings = [
            ("UPDATER_PORT", port.to_string()),
            ("STATE_DIR", at("state")),
            ("RUN_DIR", at("run")),
            ("BACKUP_DIR", at("backups")),
            ("DOCKER_HOST", text("dockerHost")),
            ("POLICY_URL", text("policy")),
            ("RUNTIME_MANIFEST_URL", text("manifest")),
            ("START_TIMEOUT_SECONDS", "30".to_owned()),
            ("HEALTH_TIMEOUT_SECONDS", "2".to_owned()),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value)).into();
        Self { port, engine, ready, settings, root }
    }

    /// Changes a setting for the daemons and commands that are started from here on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Starts the daemon and waits until it answers.
    pub fn daemon(&self) -> Daemon {
        let mut daemon = self.spawn_daemon();
        daemon.wait_ready();
        daemon
    }

    /// Starts the daemon.
    pub fn spawn_daemon(&self) -> Daemon {
        Daemon::spawn(self.updater(&["serve"]), self.port, &self.path("daemon.log"))
    }

    /// Starts the daemon under a tracer.
    pub fn traced(&self, mark: Option<Mark>) -> Traced {
        Traced::spawn(self.updater(&["serve"]), &self.path("daemon.log"), mark)
    }

    /// Asks a daemon for the upgrade to 2.0.0, as the operator's command does; whether it was
    /// accepted. A daemon that is killed while it answers does not say.
    pub fn begin(&self) -> bool {
        let body = json!({"mode": "MANUAL", "requestedTarget": "2.0.0"}).to_string();
        let answer = Request::post("/upgrade/run", &body)
            .patience(END)
            .to_socket(&self.path("run/updater.sock"));
        answer.is_ok_and(|answer| answer.json()["jobId"].is_string())
    }

    /// Runs a command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.updater(arguments).stdin(Stdio::null()).output().expect("the product starts")
    }

    /// `run --to TAG --yes`; its exit code and what it said.
    pub fn upgrade(&self, tag: &str) -> (Option<i32>, String) {
        let ran = self.cli(&["run", "--to", tag, "--yes"]);
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn updater(&self, arguments: &[&str]) -> Command {
        let mut command = updater(self.root.path());
        command.args(arguments).envs(&self.settings);
        command
    }

    /// Kills the sandbox, as a power cut does, and starts it again.
    pub fn restart_engine(&mut self) {
        self.engine.kill().expect("SIGKILL is sent");
        self.engine.wait().expect("it is gone");
        // What it says of its core is that of the container with the shop's name, and in
        // mid-swap there may be none of it.
        (self.engine, _) = start_engine(self.root.path());
    }

    /// Asks the engine.
    pub fn ask(&self, path: &str) -> Value {
        let answer = Request::get(path).to_socket(&self.path("docker.sock")).expect("an answer");
        answer.json()
    }

    /// Tells the engine to do something, as an operator does by hand.
    pub fn tell(&self, path: &str) {
        let told = Request::post(path, "{}").to_socket(&self.path("docker.sock"));
        let told = told.expect("an answer");
        assert!(told.status < 300, "{path}: {} {}", told.status, told.body);
    }

    /// What the engine does wrong from here on; the counting of requests begins again.
    pub fn faults(&self, faults: &Value) {
        let told = Request::post("/sandbox/faults", &faults.to_string())
            .to_socket(&self.path("docker.sock"))
            .expect("an answer");
        assert_eq!(told.status, 204, "{}", told.body);
    }

    /// Names and states of all containers, sorted.
    pub fn containers(&self) -> Vec<String> {
        let list = self.ask("/containers/json?all=1");
        let mut lines: Vec<String> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| {
                let name = one["Names"][0].as_str().expect("a name").trim_start_matches('/');
                format!("{name} {}", one["State"].as_str().expect("a state"))
            })
            .collect();
        lines.sort();
        lines
    }

    /// The inspections of all containers.
    pub fn inspections(&self) -> Vec<Value> {
        let list = self.ask("/containers/json?all=1");
        let ids = list.as_array().expect("a list").iter().filter_map(|one| one["Id"].as_str());
        let inspections = ids.map(|id| self.ask(&format!("/containers/{id}/json")));
        inspections.filter(|inspection| inspection["Id"].is_string()).collect()
    }

    /// Names and states of the programs in the container that has the shop's name.
    pub fn programs(&self) -> Vec<(String, String)> {
        let programs = self.ask("/sandbox/programs/payram");
        serde_json::from_value(programs).unwrap_or_default()
    }

    /// The id of the container that has the shop's name.
    pub fn id(&self) -> String {
        self.ask("/containers/payram/json")["Id"].as_str().expect("an id").to_owned()
    }

    /// The version that serves.
    pub fn serves(&self) -> Option<String> {
        let core = self.ready["core"].as_str().expect("an address");
        let port = core.rsplit(':').next()?.parse().ok()?;
        let answer = Request::get("/api/v1/version").to_port(port).ok()?;
        (answer.status == 200).then(|| answer.json()["version"].as_str().map(str::to_owned))?
    }

    /// Waits until this version serves.
    pub fn wait_serves(&self, version: &str) {
        wait_until(&format!("{version} serves"), SOON, || {
            (self.serves().as_deref() == Some(version)).then_some(())
        });
    }

    /// Acknowledged payments that the database lacks.
    pub fn lost(&self) -> Vec<String> {
        let acknowledged = self.read("acknowledged");
        let data = PathBuf::from(self.ready["data"].as_str().expect("a path"));
        let rows = fs::read_to_string(data.join("payments.jsonl")).expect("the payments");
        let there: BTreeSet<String> = rows
            .lines()
            .filter_map(|row| serde_json::from_str::<Value>(row).ok())
            .map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect();
        let ids = acknowledged.lines().filter_map(|line| line.split(' ').next());
        ids.filter(|id| !there.contains(*id)).map(str::to_owned).collect()
    }

    fn read(&self, key: &str) -> String {
        fs::read_to_string(self.ready[key].as_str().expect("a path")).expect("it is there")
    }

    /// Containers that were started on a data directory on which another one ran (I2).
    pub fn two_at_once(&self) -> String {
        fs::read_to_string(self.path("engine/two-at-once.log")).unwrap_or_default()
    }

    /// Every file and directory beside the database's directory that was kept.
    pub fn beside_the_database(&self) -> Vec<String> {
        let data = PathBuf::from(self.ready["data"].as_str().expect("a path"));
        let beside = fs::read_dir(data.parent().expect("a directory")).expect("a listing");
        let names = beside.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> =
            names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The end of what the daemons have printed.
    pub fn last_lines(&self) -> String {
        let log = fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- daemon ---\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Any file of this shop.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
        // It may have ended already; either way it is gone afterwards.
        self.engine.kill().ok();
        self.engine.wait().ok();
    }
}

/// In memory where there is room for what the product wants to be free: a process that is
/// killed leaves what it wrote, synced or not, and a disk under many shops at once is slow.
fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let free = rustix::fs::statvfs(&memory).map(|found| found.f_bavail * found.f_frsize);
    if free.is_ok_and(|free| free > ROOM) { memory } else { std::env::temp_dir() }
}

/// The product with nothing in its environment.
fn updater(directory: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payram-updater"));
    command.env_clear().current_dir(directory).env("HOME", directory);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn start_engine(root: &std::path::Path) -> (Child, Value) {
    let listen = format!("unix:{}", root.join("docker.sock").display());
    let mut engine = updater(root)
        .args(["sandbox", "--state", "engine", "--scenario", "scenario.json"])
        .args(["--listen", &listen])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the sandbox starts");
    let mut line = String::new();
    let out = engine.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    (engine, ready)
}
