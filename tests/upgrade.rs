//! The main job on the real thing: PayRam 1.9.6 with real PostgreSQL goes to 1.9.7 on a real
//! Docker engine, by the command and by the dashboard's HTTP, and no payment is lost.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::world::{AES_KEY, PASSWORD};
use support::{World, require, wait_until};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// From the request to the end of the job.
const JOB_LIMIT: Duration = Duration::from_secs(150);

#[test]
fn an_upgrade_by_the_command_ends_verified_without_losing_a_payment_or_showing_a_secret() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(1000).start();
    let old = world.container().expect("the old container");
    let old_id = id_of(&old);
    let beside_database = names_below(&world, "data/db");
    let daemon = world.daemon();
    let engine_log = EngineLog::start(&world, &old_id);
    let spy = ArgvSpy::start();

    let run = world.cli(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let output = String::from_utf8(run.stdout).expect("text");
    world.wait_for_payments(20);
    wait_until("the old container is gone", JOB_LIMIT, || {
        (world.containers().len() == 1).then_some(())
    });
    wait_until("tidying is journaled", JOB_LIMIT, || {
        let rows = journal(&world);
        rows.iter().any(|row| row["kind"] == "outcome" && row["name"] == "tidy").then_some(())
    });

    // What the operator sees.
    assert_in_order(
        &output,
        &[
            "back_up: ",
            "prove_backup: ",
            "PLANNED -> BACKED_UP",
            "pull: ",
            "create_next: ",
            "BACKED_UP -> PULLED",
            "pre_copy: ",
            "quiesce: ",
            "stop_old: ",
            "restore_point: ",
            "rename_old: ",
            "rename_next: ",
            "start_next: ",
            "PULLED -> SWAPPED",
            "verify: ",
            "arm_next: ",
            "SWAPPED -> VERIFIED",
            "1.9.6 → 1.9.7",
            "Downtime: ",
        ],
    );
    let status = daemon.status();
    assert_eq!((&status["state"], &status["phase"]), (&json!("READY"), &json!("VERIFIED")));
    assert_eq!(status["serving"], true, "{status}");
    assert_eq!(status["servingVersion"], status["resolvedTarget"], "{status}");
    assert_eq!(status["failureCode"], "", "{status}");
    assert!(status["downtimeSeconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");

    // What the history keeps.
    let history = daemon.get("/history").json();
    let job = status["jobId"].as_str().expect("a job");
    for (kind, state) in [
        ("upgrade", "started"),
        ("backup", "succeeded"),
        ("backup", "validated"),
        ("upgrade", "succeeded"),
    ] {
        let event = event(&history, kind, state);
        assert_eq!(event["data"]["jobId"], job, "{event}");
    }
    let ended = event(&history, "upgrade", "succeeded");
    let downtime = ended["data"]["downtimeSeconds"].as_str().expect("the downtime is kept");
    assert!(downtime.parse::<f64>().is_ok_and(|seconds| seconds > 0.0), "{ended}");
    let backup = event(&history, "backup", "succeeded");
    let path = backup["data"]["backupPath"].as_str().expect("the backup's path");
    let size = std::fs::metadata(path).expect("the backup is kept").len();
    assert_eq!(backup["data"]["sizeBytes"], size.to_string());

    // The new version serves like the old one did, and nothing is left over.
    let new = world.container().expect("the new container");
    assert_ne!(id_of(&new), old_id);
    assert_eq!(new["Name"], old["Name"]);
    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    assert_eq!(new["HostConfig"]["RestartPolicy"], old["HostConfig"]["RestartPolicy"]);
    assert_eq!(world.containers().len(), 1);
    assert_eq!(names_below(&world, "data/db"), beside_database);

    // I1: the old container was there until the journal said Verified.
    let rows = journal(&world);
    let verified = rows
        .iter()
        .find(|row| row["kind"] == "transition" && row["body"]["to"] == "VERIFIED")
        .unwrap_or_else(|| panic!("no transition to VERIFIED: {rows:?}"));
    let tidy = rows
        .iter()
        .find(|row| row["kind"] == "intent" && row["name"] == "tidy")
        .unwrap_or_else(|| panic!("no intent of tidy: {rows:?}"));
    assert!(verified["seq"].as_i64() < tidy["seq"].as_i64(), "{verified} {tidy}");
    let removed = engine_log.removed_at();
    let verified = verified["at"].as_str().expect("a time");
    let verified = OffsetDateTime::parse(verified, &Rfc3339).expect("a time");
    assert!(removed >= verified, "removed at {removed}, verified at {verified}");

    // No payment lost, never two servers on one database (I2).
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());

    // I10: no secret anywhere but in files that root alone reads.
    assert_eq!(spy.seen(), Vec::<String>::new());
    assert!(!has_secret(output.as_bytes()) && !has_secret(&run.stderr));
    for path in [
        "/upgrade/status",
        "/upgrade/last",
        "/upgrade/logs",
        "/upgrade/logs?format=json",
        "/upgrade/playbook",
        "/upgrade/inspect",
        "/history",
    ] {
        assert!(!has_secret(daemon.get(path).body.as_bytes()), "{path} shows a secret");
    }
    let plan = daemon.post("/upgrade/plan", &json!({"requestedTarget": "1.9.8"}));
    assert_eq!(plan.json()["state"], "READY", "{}", plan.body);
    assert!(!has_secret(plan.body.as_bytes()), "the plan shows a secret: {}", plan.body);
    assert!(!has_secret(daemon.log().as_bytes()), "{}", daemon.log());
    let export = world.cli(&["journal", "export"]);
    assert!(!has_secret(&export.stdout), "the journal holds a secret");
    for (path, content, mode) in world.files_below("state") {
        let is_journal =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal.db"));
        assert!(!(is_journal && has_secret(&content)), "{} holds a secret", path.display());
        if has_secret(&content) {
            assert_eq!(mode & 0o777, 0o600, "{} is for root alone", path.display());
        }
    }
    let verify = world.cli(&["journal", "verify"]);
    assert_eq!(verify.status.code(), Some(0), "{verify:?}");
}

#[test]
fn an_upgrade_by_the_dashboards_http_walks_through_the_states_and_is_told_as_events() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    let daemon = world.daemon();
    assert_eq!(daemon.status()["state"], "IDLE");
    assert_eq!(daemon.get("/upgrade/last").json(), json!({"message": "No upgrade job found"}));
    let events = EventStream::open(world.updater_port);

    // MANUAL over TCP has no effect: the policy doesn't know this version.
    let manual = json!({"requestedTarget": "9.0.3", "mode": "MANUAL", "source": "CLI"});
    for path in ["/upgrade/plan", "/upgrade/run"] {
        let answer = daemon.post(path, &manual).json();
        assert_eq!(answer["state"], "FAILED", "{path}: {answer}");
        assert_eq!(answer["failureCode"], "VERSION_NOT_IN_POLICY", "{path}: {answer}");
        assert_eq!(answer["mode"], "DASHBOARD", "{path}: {answer}");
    }
    assert_eq!(daemon.status()["state"], "IDLE", "a refused plan makes no job");

    let wanted = json!({"requestedTarget": "1.9.7", "mode": "DASHBOARD", "source": "dashboard"});
    let plan = daemon.post("/upgrade/plan", &wanted).json();
    assert_eq!(plan["state"], "READY", "{plan}");
    assert_eq!(plan["resolvedTarget"], "1.9.7", "{plan}");
    assert_eq!(plan["fromVersion"], "1.9.6", "{plan}");
    assert_eq!(plan["containerName"], world.name.as_str(), "{plan}");
    assert_eq!(daemon.status()["state"], "IDLE", "a plan is no job");

    let run = daemon.post("/upgrade/run", &wanted);
    assert_eq!(run.status, 200, "{}", run.body);
    let run = run.json();
    let job = run["jobId"].as_str().expect("a job id").to_owned();
    assert!(job.starts_with("job-"), "{run}");
    let mut walk = vec![run["state"].as_str().expect("a state").to_owned()];
    wait_until("the job ends", JOB_LIMIT, || {
        let last = daemon.get("/upgrade/last").json();
        let state = last["state"].as_str().expect("a state").to_owned();
        if walk.last() != Some(&state) {
            walk.push(state);
        }
        (last["active"] == false).then_some(())
    });
    assert_eq!(walk, ["READY", "BACKING_UP", "EXECUTING", "VERIFYING", "READY"]);

    let status = daemon.status();
    assert_eq!(status["jobId"], job, "{status}");
    assert_eq!(status["mode"], "DASHBOARD", "{status}");
    assert_eq!(status["phase"], "VERIFIED", "{status}");
    let last = daemon.get("/upgrade/last").json();
    assert_eq!(last["jobId"], job, "{last}");
    assert_eq!(last["recoveryPlaybook"], Value::Null, "{last}");
    let logs = daemon.get("/upgrade/logs");
    assert!(logs.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    assert_in_order(&logs.body, &["PLANNED -> BACKED_UP", "PULLED -> SWAPPED", "-> VERIFIED"]);
    let history = daemon.get("/history?type=upgrade&status=succeeded").json();
    assert_eq!(history["count"], 1, "{history}");
    assert_eq!(history["events"][0]["data"]["jobId"], job, "{history}");
    let playbook = daemon.get("/upgrade/playbook").json();
    assert_eq!(playbook["playbook"], Value::Null, "{playbook}");

    let told = events.wait_for(|events| {
        events.iter().any(|(kind, data)| kind == "state" && data["phase"] == "VERIFIED")
    });
    let states: Vec<&Value> =
        told.iter().filter(|(kind, _)| kind == "state").map(|(_, data)| &data["state"]).collect();
    for state in ["IDLE", "BACKING_UP", "EXECUTING", "VERIFYING", "READY"] {
        assert!(states.contains(&&json!(state)), "{state} is among {states:?}");
    }
    let lines: String = told
        .iter()
        .filter(|(kind, _)| kind == "log")
        .map(|(_, data)| format!("{}\n", data["text"].as_str().expect("a text")))
        .collect();
    assert_in_order(&lines, &["back_up: ", "pull: ", "verify: ", "SWAPPED -> VERIFIED"]);

    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    world.wait_for_payments(5);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// Every row of the journal, as `journal export` prints it.
fn journal(world: &World) -> Vec<Value> {
    let export = world.cli(&["journal", "export"]);
    assert!(export.status.success(), "{export:?}");
    let text = String::from_utf8(export.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a row as JSON")).collect()
}

fn id_of(container: &Value) -> String {
    container["Id"].as_str().expect("an id").to_owned()
}

fn names_below(world: &World, directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(world.path(directory)).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
}

/// The one event of a type and a status.
fn event<'a>(history: &'a Value, kind: &str, status: &str) -> &'a Value {
    let events = history["events"].as_array().expect("events");
    let mut found =
        events.iter().filter(|event| event["type"] == kind && event["status"] == status);
    match (found.next(), found.next()) {
        (Some(event), None) => event,
        (_, _) => panic!("exactly one {kind} {status} in {history}"),
    }
}

fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("{part:?} comes in its place in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

/// Whether a text holds the database's password or the key, or the part of them that no quoting
/// changes.
fn has_secret(text: &[u8]) -> bool {
    let parts = [AES_KEY, PASSWORD.rsplit('\'').next().expect("a part")];
    parts.iter().any(|part| text.windows(part.len()).any(|window| window == part.as_bytes()))
}

/// What the engine reports about one container, from now on. The engine itself keeps too few.
struct EngineLog {
    child: Child,
    path: std::path::PathBuf,
}

impl EngineLog {
    fn start(world: &World, id: &str) -> Self {
        let path = world.path("engine-events");
        let filter = format!("container={id}");
        let child = Command::new("docker")
            .args(["events", "--filter", &filter, "--format", "{{json .}}"])
            .stdout(File::create(&path).expect("a file"))
            .spawn()
            .expect("docker starts");
        Self { child, path }
    }

    /// When the container was removed, by this machine's clock.
    fn removed_at(&self) -> OffsetDateTime {
        wait_until("the engine reports the removal", Duration::from_secs(15), || {
            let text = std::fs::read_to_string(&self.path).ok()?;
            let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut removals = events.filter(|event| event["Action"] == "destroy");
            let nanoseconds = removals.next()?["timeNano"].as_i64()?;
            OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok()
        })
    }
}

impl Drop for EngineLog {
    fn drop(&mut self) {
        // It may be gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Looks at the command lines of all processes on this machine until it is asked.
struct ArgvSpy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl ArgvSpy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !told.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
                    // Most entries are no process, and a process may end while it is read.
                    let Ok(argv) = std::fs::read(process.path().join("cmdline")) else { continue };
                    if has_secret(&argv) {
                        seen.insert(String::from_utf8_lossy(&argv).replace('\0', " "));
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Every command line that held a secret.
    fn seen(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the spy went on to its end").into_iter().collect()
    }
}

/// `GET /upgrade/events`, read as it comes.
struct EventStream {
    text: Arc<std::sync::Mutex<String>>,
}

impl EventStream {
    fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the API");
        stream
            .write_all(b"GET /upgrade/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("a request");
        let text = Arc::new(std::sync::Mutex::new(String::new()));
        let into = Arc::clone(&text);
        // Ends with the daemon, which closes the connection.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                let read = String::from_utf8_lossy(&buffer[..read]);
                into.lock().expect("unbroken").push_str(&read);
            }
        });
        Self { text }
    }

    /// Waits until the events so far are as wanted: kind and data of each.
    fn wait_for(&self, is_so: impl Fn(&[(String, Value)]) -> bool) -> Vec<(String, Value)> {
        wait_until("the events arrive", Duration::from_secs(15), || {
            Some(self.so_far()).filter(|events| is_so(events))
        })
    }

    fn so_far(&self) -> Vec<(String, Value)> {
        let text = self.text.lock().expect("unbroken");
        let mut kind = String::new();
        let mut events = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("event:") {
                kind = name.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                // What is not whole yet will be at the next look.
                if let Ok(data) = serde_json::from_str(data) {
                    events.push((kind.clone(), data));
                }
            }
        }
        events
    }
}
