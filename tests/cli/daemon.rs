//! A daemon for these tests: it answers what a test tells it to, over a Unix socket in a
//! temporary directory, and remembers what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// What the daemon of this test answers, and what it was asked.
#[derive(Default)]
pub struct World {
    pub plan: Value,
    pub run: (u16, Value),
    pub cancel: (u16, Value),
    /// One after the other; the last one stays.
    pub recover: VecDeque<Value>,
    /// One after the other; the last one stays.
    pub statuses: VecDeque<Value>,
    pub logs: Vec<(i64, &'static str)>,
    pub playbook: Value,
    pub inspect: Value,
    pub cleanup: Value,
    pub history: Value,
    pub asked: Vec<(String, Value)>,
}

pub struct Daemon {
    runtime: Runtime,
    pub directory: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    pub port: u16,
    serving: Option<JoinHandle<()>>,
}

pub fn ready_plan() -> Value {
    json!({"state": "READY", "mode": "MANUAL", "requestedTarget": "1.9.7",
        "resolvedTarget": "1.9.7", "failureCode": "", "message": "ready",
        "imageRepo": "payramapp/payram", "containerName": "payram", "fromVersion": "1.9.6",
        "route": [{"version": "1.9.7", "image": "payramapp/payram:1.9.7", "why": "the target"}],
        "checks": [{"name": "engine", "passed": true, "message": "answers"}], "notes": []})
}

pub fn refused_plan() -> Value {
    json!({"state": "FAILED", "mode": "MANUAL", "requestedTarget": "1.9.7",
        "resolvedTarget": "", "failureCode": "DISK_SPACE_LOW",
        "message": "/var/lib has 1.0 GB free, 2.5 GB are needed", "imageRepo": "",
        "containerName": "", "route": [], "checks": [], "notes": []})
}

pub fn status(state: &str, phase: &str, code: &str) -> Value {
    json!({"jobId": "job-1", "mode": "MANUAL", "requestedTarget": "1.9.7",
        "resolvedTarget": "1.9.7", "fromVersion": "1.9.6", "state": state, "phase": phase,
        "failureCode": code, "message": format!("it is {phase}"),
        "createdAt": "2026-01-31T12:00:00Z", "updatedAt": "2026-01-31T12:00:09Z",
        "downtimeSeconds": 3.2})
}

/// A world in which the upgrade can be planned and begun, and then comes to these statuses.
pub fn world(statuses: impl IntoIterator<Item = Value>) -> World {
    World {
        plan: ready_plan(),
        run: (
            200,
            json!({"jobId": "job-1", "state": "READY", "mode": "MANUAL",
            "requestedTarget": "1.9.7", "resolvedTarget": "1.9.7", "failureCode": "",
            "message": "upgrade started"}),
        ),
        cancel: (202, json!({"jobId": "job-1", "message": "called off"})),
        statuses: statuses.into_iter().collect(),
        logs: vec![(4, "back up the database"), (9, "pull the image")],
        playbook: json!({"playbook": null, "message": "No recovery playbook needed"}),
        ..World::default()
    }
}

pub fn answer(
    world: &mut World,
    method: &str,
    path: &str,
    query: &str,
    body: Value,
) -> (u16, Value) {
    world.asked.push((format!("{method} {path}"), body));
    match (method, path) {
        ("GET", "/health") => (200, json!({"status": "ok"})),
        ("POST", "/upgrade/plan") => (200, world.plan.clone()),
        ("POST", "/upgrade/run") => world.run.clone(),
        ("POST", "/upgrade/cleanup") => (200, world.cleanup.clone()),
        ("POST", "/upgrade/cancel") => world.cancel.clone(),
        ("POST", "/upgrade/recover") => {
            let next = match world.recover.len() {
                0 | 1 => world.recover.front().cloned(),
                _ => world.recover.pop_front(),
            };
            (200, next.unwrap_or_default())
        }
        ("GET", "/upgrade/status") => {
            let next = match world.statuses.len() {
                0 | 1 => world.statuses.front().cloned(),
                _ => world.statuses.pop_front(),
            };
            (200, next.unwrap_or_else(|| json!({"jobId": "", "state": "IDLE"})))
        }
        ("GET", "/upgrade/logs") => {
            let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
            let after: i64 = after.map_or(0, |after| after.parse().expect("a row"));
            let lines: Vec<Value> = world
                .logs
                .iter()
                .filter(|(seq, _)| *seq > after)
                .map(|(seq, text)| json!({"seq": seq, "at": "2026-01-31T12:00:00Z", "text": text}))
                .collect();
            let last = query.split('&').find_map(|pair| pair.strip_prefix("last="));
            let last = last.map_or(lines.len(), |last| last.parse().expect("a number"));
            let lines = &lines[lines.len().saturating_sub(last)..];
            (200, json!({"jobId": "job-1", "lines": lines}))
        }
        ("GET", "/upgrade/playbook") => (200, world.playbook.clone()),
        ("GET", "/upgrade/inspect") => (200, world.inspect.clone()),
        ("GET", "/upgrade/history") => (200, world.history.clone()),
        _ => (404, json!({"error": format!("there is nothing at {path}"), "code": "NOT_FOUND"})),
    }
}

async fn serve(
    world: Arc<Mutex<World>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let (status, answer) =
        answer(&mut world.lock().expect("unbroken"), head.method.as_str(), path, query, body);
    let response = Response::builder().status(status).body(Full::from(answer.to_string()));
    Ok(response.expect("a response"))
}

async fn connection<S>(world: Arc<Mutex<World>>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| serve(Arc::clone(&world), request));
    // A client that went away is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Daemon {
    /// A daemon that does not listen yet.
    pub fn asleep(world: World) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        // A port on which nobody listens: it was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        let world = Arc::new(Mutex::new(world));
        Self { runtime, directory, world, port, serving: None }
    }

    /// A daemon that listens on its socket.
    pub fn over_socket(world: World) -> Self {
        let mut daemon = Self::asleep(world);
        daemon.wake();
        daemon
    }

    /// A daemon whose socket is not there; it listens on loopback.
    pub fn over_tcp(world: World) -> Self {
        let mut daemon = Self::asleep(world);
        let listener =
            daemon.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        daemon.port = listener.local_addr().expect("an address").port();
        let world = Arc::clone(&daemon.world);
        daemon.serving = Some(daemon.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(Arc::clone(&world), stream));
            }
        }));
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("updater.sock")
    }

    pub fn wake(&mut self) {
        let _guard = self.runtime.enter();
        let listener = UnixListener::bind(self.socket()).expect("a socket");
        let world = Arc::clone(&self.world);
        self.serving = Some(self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(Arc::clone(&world), stream));
            }
        }));
    }

    pub fn fall_asleep(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        std::fs::remove_file(self.socket()).expect("the socket was there");
    }

    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().expect("unbroken"));
    }

    /// The bodies of these requests.
    pub fn asked(&self, what: &str) -> Vec<Value> {
        let world = self.world.lock().expect("unbroken");
        world.asked.iter().filter(|(asked, _)| asked == what).map(|(_, b)| b.clone()).collect()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.directory.path(), self.port);
        command.args(arguments);
        // Read as a person would: into a pipe these write JSON unless they are told otherwise.
        let is_one = matches!(arguments.first(), Some(&("run" | "watch" | "recover")));
        let says_how = ["--json", "--detach", "--dry-run", "--help"];
        if is_one && !arguments.iter().any(|one| says_how.contains(one)) {
            command.arg("--text");
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().expect("the program runs"))
    }
}

pub fn program(directory: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payram-updater"));
    command
        .current_dir(directory)
        .env("RUN_DIR", directory)
        .env("STATE_DIR", directory)
        .env("UPDATER_PORT", port.to_string())
        .stdin(Stdio::null());
    command
}

#[derive(Debug)]
pub struct Ran {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            exit: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}
