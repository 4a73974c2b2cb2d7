//! A make-believe shop: the sandbox and the daemon as processes, in a temporary directory.
//! Everything ends when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Daemon, Sandbox, free_port, sandbox, wait_until};
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
    engine: Sandbox,
    /// What the sandbox said of itself.
    pub ready: Value,
    settings: BTreeMap<String, String>,
    root: tempfile::TempDir,
}

impl Shop {
    /// A shop on 1.9.6 that can be upgraded to these releases.
    pub fn open(releases: Value) -> Self {
        Self::open_in(&place(), releases)
    }

    /// The same on a disk: what lies in memory is the host's, and of that no file is copied.
    pub fn open_on_disk(releases: Value) -> Self {
        Self::open_in(&std::env::temp_dir(), releases)
    }

    fn open_in(place: &Path, releases: Value) -> Self {
        let root =
            tempfile::Builder::new().prefix("payram-sandbox-").tempdir_in(place).expect("a place");
        let mut scenario = sandbox::scenario(50, &releases);
        // Below the ephemeral ports: nobody's connection has it while its container is down.
        scenario["port"] = json!(free_port());
        sandbox::write_scenario(root.path(), &scenario);
        let engine = Sandbox::start(root.path());
        let port = free_port();
        let mut settings = engine.settings(root.path(), port);
        let limits = [
            ("START_TIMEOUT_SECONDS", "30"),
            ("HEALTH_TIMEOUT_SECONDS", "2"),
            ("VERIFY_SECONDS", "1"),
            ("PROBATION_MINUTES", "0"),
        ];
        settings.extend(limits.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let ready = engine.said.clone();
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

    /// Starts a daemon whose log goes into a pipe that nobody reads from then on.
    pub fn unheard_daemon(&self) -> Child {
        let mut child = self
            .updater(&["serve"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert!(log.read_line(&mut line).expect("text") > 0, "it ended before it listened");
        }
        child
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
        answer.is_ok_and(|answer| answer.json()["jobId"].as_str().is_some_and(|id| !id.is_empty()))
    }

    /// The same for `recover`, in these ways: `{"keepNew": true}`.
    pub fn recover(&self, ways: &Value) -> bool {
        let answer = Request::post("/upgrade/recover", &ways.to_string())
            .patience(END)
            .to_socket(&self.path("run/updater.sock"));
        answer.is_ok_and(|answer| answer.json()["success"] == true)
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
        let mut command = sandbox::updater(self.root.path());
        command.args(sandbox::as_text(arguments)).envs(&self.settings);
        command
    }

    /// Kills the sandbox, as a power cut does, and starts it again.
    pub fn restart_engine(&mut self) {
        self.engine.child().kill().expect("SIGKILL is sent");
        self.engine.child().wait().expect("it is gone");
        // What it says of its core is that of the container with the shop's name, and in
        // mid-swap there may be none of it.
        self.engine = Sandbox::start(self.root.path());
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

    /// The id of the container that served before the upgrade, which has the shop's name until it
    /// gives it up.
    pub fn old_id(&self) -> String {
        let all = self.inspections();
        let is_parked = |one: &&Value| {
            one["Name"].as_str().is_some_and(|it| it.starts_with("/payram-previous-"))
        };
        match all.iter().find(is_parked) {
            Some(parked) => parked["Id"].as_str().expect("an id").to_owned(),
            None => self.id(),
        }
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
        let rows = fs::read_to_string(self.data().join("payments.jsonl")).expect("the payments");
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
        sandbox::two_at_once(self.root.path())
    }

    /// Where the database lies.
    pub fn data(&self) -> PathBuf {
        PathBuf::from(self.ready["data"].as_str().expect("a path"))
    }

    /// A file below the shop's mount.
    pub fn in_mount(&self, file: &str) -> PathBuf {
        self.data().ancestors().nth(2).expect("a mount").join(file)
    }

    /// Every file and directory beside the database's directory that was kept.
    pub fn beside_the_database(&self) -> Vec<String> {
        sandbox::beside_the_database(&self.data())
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
    }
}

/// In memory where there is room for what the product wants to be free: a process that is
/// killed leaves what it wrote, synced or not, and a disk under many shops at once is slow.
fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let free = rustix::fs::statvfs(&memory).map(|found| found.f_bavail * found.f_frsize);
    if free.is_ok_and(|free| free > ROOM) { memory } else { std::env::temp_dir() }
}
