//! One place: a directory with a make-believe engine, a shop and an updater in it, put back to
//! what it was as often as a test wants. The path stays the same, because the journal and the
//! containers name it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Daemon, Sandbox, free_port, sandbox, wait_until};

/// For anything that takes a second.
pub const SOON: Duration = Duration::from_secs(30);

/// For an upgrade and its way back.
pub const END: Duration = Duration::from_secs(90);

/// A container as the engine shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub state: String,
    pub policy: String,
    pub started_at: String,
    /// `io.payram.updater.hop`
    pub hop: Option<String>,
}

impl Container {
    pub fn runs(&self) -> bool {
        self.state == "running"
    }
}

/// The place.
pub struct Place {
    pub port: u16,
    engine: Option<Sandbox>,
    /// What the sandbox said of itself.
    ready: Value,
    settings: BTreeMap<String, String>,
    home: tempfile::TempDir,
    /// How often a daemon met the row that its journal refuses.
    pub halts: Cell<usize>,
    /// What lay beside the database when the place was kept.
    inodes: BTreeMap<u64, String>,
}

impl Place {
    /// A shop on 1.9.6 with these other releases.
    pub fn new(releases: &Value) -> Self {
        let home = tempfile::Builder::new().prefix("payram-recover-").tempdir().expect("a place");
        let mut place = Self {
            port: free_port(),
            engine: None,
            ready: Value::Null,
            settings: BTreeMap::new(),
            home,
            halts: Cell::default(),
            inodes: BTreeMap::new(),
        };
        fs::create_dir(place.root()).expect("a directory");
        place.write_scenario(releases);
        place.start_engine();
        place.wait_serves(&place.container("payram").expect("the shop").id);
        place
    }

    pub fn root(&self) -> PathBuf {
        self.home.path().join("place")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// What the releases do from the engine's next start on.
    pub fn write_scenario(&self, releases: &Value) {
        // Slow enough that what was silenced can be silenced again before it takes a payment.
        sandbox::write_scenario(&self.root(), &sandbox::scenario(300, releases));
    }

    fn updater(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = sandbox::updater(&self.root());
        command
            .args(sandbox::as_text(arguments))
            .envs(&self.settings)
            .envs(settings.iter().copied());
        command
    }

    /// Starts the daemon with these further settings and waits until it answers.
    pub fn daemon(&self, settings: &[(&str, &str)]) -> Daemon {
        let command = self.updater(&["serve"], settings);
        let mut daemon = Daemon::spawn(command, self.port, &self.path("daemon.log"));
        daemon.wait_ready();
        daemon
    }

    /// Runs a command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.updater(arguments, &[]);
        command.stdin(Stdio::null()).output().expect("the product starts")
    }

    /// Begins a command.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = self.updater(arguments, &[]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the product starts")
    }

    pub fn start_engine(&mut self) {
        let engine = Sandbox::start(&self.root());
        self.ready = engine.said.clone();
        self.settings = engine.settings(&self.root(), self.port);
        let limits = [
            ("START_TIMEOUT_SECONDS", "6"),
            ("HEALTH_TIMEOUT_SECONDS", "4"),
            ("VERIFY_SECONDS", "2"),
            ("PROBATION_MINUTES", "0"),
        ];
        self.settings.extend(limits.map(|(key, value)| (key.to_owned(), value.to_owned())));
        self.engine = Some(engine);
    }

    /// Ends the engine: every container ends cleanly with it.
    pub fn stop_engine(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        let pid = rustix::process::Pid::from_child(engine.child());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM is sent");
        wait_until("the engine ends", SOON, || engine.child().try_wait().expect("a child's state"));
    }

    /// Keeps the place as it is now, with the engine stopped.
    pub fn keep(&mut self) {
        let database = self.data().parent().expect("a directory").to_owned();
        let names = self.beside_the_database();
        self.inodes = names.into_iter().map(|name| (inode(&database.join(&name)), name)).collect();
        copy_tree(&self.root(), &self.home.path().join("kept"));
    }

    /// The place as it was kept; the engine does not run.
    pub fn put_back(&mut self) {
        self.stop_engine();
        fs::remove_dir_all(self.root()).expect("it is removed");
        let kept = self.home.path().join("kept");
        copy_tree(&kept, &self.root());
        self.follow_the_inodes();
    }

    /// A copy has other inodes, and a restore that was begun goes by them: its note gets the
    /// numbers of the same directories here.
    fn follow_the_inodes(&self) {
        let database = self.data().parent().expect("a directory").to_owned();
        for name in self.beside_the_database() {
            let path = database.join(name);
            let Ok(text) = fs::read(&path) else { continue };
            let Ok(mut note) = serde_json::from_slice::<Value>(&text) else { continue };
            let before = note.clone();
            for key in ["sourceInode", "copyInode"] {
                if let Some(name) = note[key].as_u64().and_then(|then| self.inodes.get(&then)) {
                    note[key] = json!(inode(&database.join(name)));
                }
            }
            if note != before {
                fs::write(&path, note.to_string()).expect("the note");
            }
        }
    }

    /// Asks the engine.
    pub fn ask(&self, request: &Request<'_>) -> crate::support::Answer {
        request.clone().to_socket(&self.path("docker.sock")).expect("an answer")
    }

    /// Asks it to do something; what it said when it refused.
    pub fn tell(&self, path: &str, body: &Value) -> Result<Value, String> {
        let answer = self.ask(&Request::post(path, &body.to_string()));
        match answer.status {
            200..=304 if answer.body.is_empty() => Ok(Value::Null),
            200..=304 => Ok(serde_json::from_str(&answer.body).unwrap_or(Value::Null)),
            _ => Err(answer.json()["message"].as_str().unwrap_or_default().to_owned()),
        }
    }

    pub fn start(&self, id: &str) -> Result<(), String> {
        self.tell(&format!("/containers/{id}/start"), &json!({})).map(drop)
    }

    pub fn stop(&self, id: &str) {
        self.tell(&format!("/containers/{id}/stop"), &json!({})).expect("it stops");
    }

    pub fn rename(&self, id: &str, name: &str) {
        self.tell(&format!("/containers/{id}/rename?name={name}"), &json!({})).expect("renamed");
    }

    pub fn remove(&self, id: &str) {
        self.stop(id);
        let answer = self.ask(&Request::new("DELETE", &format!("/containers/{id}")));
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// Runs a command inside a container.
    pub fn exec(&self, id: &str, argv: &[&str]) -> String {
        let made = self.tell(&format!("/containers/{id}/exec"), &json!({"Cmd": argv}));
        let exec = made.expect("an exec")["Id"].as_str().expect("an id").to_owned();
        // The answer is in frames, with bytes that are no text.
        let mut stream = UnixStream::connect(self.path("docker.sock")).expect("the engine");
        let head = format!("POST /exec/{exec}/start HTTP/1.1\r\nHost: sandbox\r\n");
        let rest =
            "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(format!("{head}{rest}").as_bytes()).expect("asked");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What the engine does wrong from here on.
    pub fn faults(&self, faults: &Value) {
        self.tell("/sandbox/faults", faults).expect("told");
    }

    pub fn inspect(&self, id: &str) -> Option<Value> {
        let answer = self.ask(&Request::get(&format!("/containers/{id}/json")));
        (answer.status == 200).then(|| answer.json())
    }

    pub fn container(&self, id_or_name: &str) -> Option<Container> {
        self.inspect(id_or_name).map(|seen| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Container {
                id: text(&seen["Id"]),
                name: text(&seen["Name"]).trim_start_matches('/').to_owned(),
                state: text(&seen["State"]["Status"]),
                policy: text(&seen["HostConfig"]["RestartPolicy"]["Name"]),
                started_at: text(&seen["State"]["StartedAt"]),
                hop: seen["Config"]["Labels"]["io.payram.updater.hop"].as_str().map(str::to_owned),
            }
        })
    }

    /// All containers, by id.
    pub fn containers(&self) -> Vec<Container> {
        let list = self.ask(&Request::get("/containers/json?all=1")).json();
        let ids = list.as_array().expect("a list").iter().filter_map(|one| one["Id"].as_str());
        ids.filter_map(|id| self.container(id)).collect()
    }

    /// The version that a container answers with, when it answers.
    pub fn answers(&self, id: &str) -> Option<String> {
        let seen = self.inspect(id)?;
        let port = seen["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].as_str()?;
        let port = port.parse().ok()?;
        let answer = Request::get("/api/v1/version").patience(SOON).to_port(port).ok()?;
        (answer.status == 200).then(|| answer.json()["version"].as_str().map(str::to_owned))?
    }

    pub fn wait_serves(&self, id: &str) {
        wait_until("the container answers", SOON, || self.answers(id));
    }

    /// The containers that answer.
    pub fn serving(&self) -> Vec<String> {
        let all = self.containers();
        let running = all.into_iter().filter(|one| one.runs() && self.answers(&one.id).is_some());
        running.map(|one| one.id).collect()
    }

    /// Where the database lies.
    pub fn data(&self) -> PathBuf {
        PathBuf::from(self.ready["data"].as_str().expect("a path"))
    }

    /// What lies beside the database's directory, itself included.
    pub fn beside_the_database(&self) -> Vec<String> {
        sandbox::beside_the_database(&self.data())
    }

    /// `(payment, version that acknowledged it)`, in order.
    pub fn acknowledged(&self) -> Vec<(String, String)> {
        let path = self.ready["acknowledged"].as_str().expect("a path");
        let text = fs::read_to_string(path).expect("the acknowledged payments");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let pair = |line: &str| line.split_once(' ').map(|(id, by)| (id.to_owned(), by.to_owned()));
        whole.lines().filter_map(pair).collect()
    }

    /// Payments of a database directory.
    pub fn payments(&self, directory: &Path) -> std::collections::BTreeSet<String> {
        let rows = fs::read_to_string(directory.join("payments.jsonl")).unwrap_or_default();
        rows.lines()
            .filter_map(|row| serde_json::from_str::<Value>(row).ok())
            .filter_map(|row| row["id"].as_str().map(str::to_owned))
            .collect()
    }

    /// Containers that were started on a data directory on which another one ran (I2).
    pub fn two_at_once(&self) -> String {
        sandbox::two_at_once(&self.root())
    }

    /// The journal, for looking at; none before there is one.
    pub fn journal(&self) -> Option<Connection> {
        let path = self.path("state/journal.db");
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        reader.busy_timeout(SOON).ok()?;
        Some(reader)
    }

    /// How many rows the journal has, without what a daemon writes by itself when it tidies up
    /// after an upgrade that has ended.
    pub fn rows(&self) -> i64 {
        let count = |journal: &Connection| {
            let sql = "SELECT count(*) FROM journal WHERE name IS NOT 'tidy' AND NOT (
                kind = 'log' AND EXISTS (SELECT 1 FROM journal AS tidy
                    WHERE tidy.kind = 'intent' AND tidy.name = 'tidy' AND tidy.seq < journal.seq))
                -- Nor that the daemon says, once after its start, that it waits for a person.
                AND NOT (kind = 'log' AND body LIKE 'Stopped after a restart, waiting for you%')";
            journal.query_row(sql, [], |row| row.get(0)).ok()
        };
        self.journal().as_ref().and_then(count).unwrap_or(0)
    }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("it is there").ino()
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp starts");
    assert!(copied.success(), "cp -a {} {}", from.display(), to.display());
}
