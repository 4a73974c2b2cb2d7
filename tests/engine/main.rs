//! The Docker client against the Docker engine of this machine, and against a silent socket.
//!
//! Needs `/var/run/docker.sock`, the `docker` command and a static busybox; says which is
//! missing and skips, or fails when `PAYRAM_TEST_REQUIRE` names it.

mod look;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;
use payram_updater::engine::docker::Docker;
use payram_updater::engine::{Engine, EngineError, Exec, ExecRequest, Frame};
use payram_updater::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOCKET: &str = "/var/run/docker.sock";
const IMAGE: &str = "payram-test/busybox:1";

/// The longest that anything in here may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// This machine's engine with the test's image in it, or `None` after saying what is missing.
fn engine() -> Option<Docker> {
    static MISSING: OnceLock<Option<&'static str>> = OnceLock::new();
    if let Some(what) = MISSING.get_or_init(prepare) {
        let required = std::env::var("PAYRAM_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == *what), "{what} is required");
        println!("skipped: needs {what}");
        return None;
    }
    Some(Docker::at(&format!("unix://{SOCKET}")).expect("a client"))
}

/// Imports the image where an earlier run has not; answers what is missing for that.
fn prepare() -> Option<&'static str> {
    if !engine_answers() {
        return Some("docker");
    }
    if docker_command()
        .args(["image", "inspect", IMAGE])
        .output()
        .is_ok_and(|it| it.status.success())
    {
        return None;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| is_static(path));
    let Some(busybox) = busybox else { return Some("busybox") };
    let root = tempfile::tempdir().expect("a directory");
    let bin = root.path().join("bin");
    std::fs::create_dir(&bin).expect("bin");
    std::fs::copy(busybox, bin.join("busybox")).expect("busybox");
    for name in ["sh", "cat", "wc", "sleep", "head", "true"] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
    }
    let mut tar = Command::new("tar")
        .args(["-c", "-C"])
        .arg(root.path())
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar");
    let imported = docker_command()
        .args(["import", "-", IMAGE])
        .stdin(tar.stdout.take().expect("piped"))
        .stdout(Stdio::null())
        .status();
    assert!(tar.wait().expect("tar").success());
    match imported {
        Ok(status) => assert!(status.success(), "docker import: {status}"),
        Err(_) => return Some("docker"),
    }
    None
}

fn docker_command() -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", format!("unix://{SOCKET}"));
    command
}

fn engine_answers() -> bool {
    let Ok(mut socket) = UnixStream::connect(SOCKET) else { return false };
    let mut answer = [0; 12];
    socket.set_read_timeout(Some(PATIENCE)).is_ok()
        && socket.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n").is_ok()
        && socket.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}

fn is_static(path: &str) -> bool {
    // An image of one file can't load libraries; `ldd` fails on what needs none.
    let ldd = Command::new("ldd").arg(path).output();
    Path::new(path).exists() && ldd.is_ok_and(|output| !output.status.success())
}

/// A container that is removed with the test, however the test ends.
struct Container {
    id: String,
    name: String,
}

impl Container {
    async fn create(engine: &Docker, command: Value) -> Self {
        let name = format!("payram-test-{}", uuid::Uuid::now_v7());
        let spec = json!({
            "Image": IMAGE,
            "Cmd": command,
            "Labels": { "payram-test": name },
            "StopTimeout": 1,
            "HostConfig": { "NetworkMode": "none", "RestartPolicy": { "Name": "no" } },
        });
        let id = engine.create_container(&name, &spec).await.expect("created");
        Self { id, name }
    }

    async fn running(engine: &Docker) -> Self {
        let container = Self::create(engine, json!(["sleep", "3600"])).await;
        engine.start(&container.id).await.expect("started");
        container
    }

    async fn inspect(&self, engine: &Docker) -> Value {
        let inspected = engine.inspect_container(&self.id).await.expect("inspected");
        inspected.expect("there")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let removed = docker_command()
            .args(["rm", "-f", "-v", &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // Told, not asserted: a panic here would hide the test's own.
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("container {} is left", self.name);
        }
    }
}

/// A network that is removed with the test, after the containers on it.
struct Network(String);

impl Drop for Network {
    fn drop(&mut self) {
        let removed = docker_command().args(["network", "rm", &self.0]).output();
        if !removed.is_ok_and(|output| output.status.success()) {
            eprintln!("network {} is left", self.0);
        }
    }
}

fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest {
        argv: argv.iter().map(|&part| part.to_owned()).collect(),
        env: Vec::new(),
        user: None,
        stdin: false,
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

/// Both streams of a command, until it ends.
async fn output(exec: &mut Exec) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(frame) = soon(exec.output.next()).await {
        match frame.expect("a frame") {
            Frame::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Frame::Stderr(bytes) => stderr.extend_from_slice(&bytes),
        }
    }
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr))
}

async fn exit_code(engine: &Docker, exec: &Exec) -> i64 {
    soon(async {
        loop {
            if let Some(code) = engine.exec_exit_code(&exec.id).await.expect("an exec") {
                return code;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn the_engine_says_what_it_is() {
    let Some(engine) = engine() else { return };
    let facts = engine.facts().await.expect("facts");
    assert!(!facts.version.is_empty());
    assert!(facts.api_version.starts_with("1."), "{facts:?}");
    assert!(["amd64", "arm64"].contains(&facts.architecture.as_str()), "{facts:?}");
    assert!(Path::new(&facts.data_root).is_dir(), "{facts:?}");
    let inspected = engine.inspect_image(IMAGE).await.expect("asked").expect("the image");
    assert_eq!(inspected.pointer("/RepoTags/0"), Some(&json!(IMAGE)));
    let network = engine.inspect_network("bridge").await.expect("asked").expect("the network");
    assert_eq!(network.pointer("/Name"), Some(&json!("bridge")));
}

#[tokio::test]
async fn what_is_not_there_is_none_and_not_an_error() {
    let Some(engine) = engine() else { return };
    let name = format!("payram-test-none-{}", uuid::Uuid::now_v7());
    assert_eq!(engine.inspect_container(&name).await.expect("asked"), None);
    assert_eq!(engine.inspect_image(&format!("{name}:1")).await.expect("asked"), None);
    assert_eq!(engine.inspect_network(&name).await.expect("asked"), None);
    let error = engine.start(&name).await.expect_err("no such container");
    assert_eq!(error.status(), Some(404));
    assert!(error.to_string().contains(&format!("start container {name}")), "{error}");
}

#[tokio::test]
async fn a_container_lives_from_create_to_remove() {
    let Some(engine) = engine() else { return };
    let container = Container::create(&engine, json!(["sleep", "3600"])).await;
    assert_eq!(container.inspect(&engine).await.pointer("/State/Status"), Some(&json!("created")));

    let label = format!("payram-test={}", container.name);
    let listed = engine.containers(Some(&label)).await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].id, &listed[0].name, listed[0].image.as_str(), listed[0].state.as_str()),
        (&container.id, &container.name, IMAGE, "created")
    );
    assert_eq!(listed[0].labels, [("payram-test".to_owned(), container.name.clone())]);
    let all = engine.containers(None).await.expect("listed");
    assert!(all.iter().any(|other| other.id == container.id));

    engine.start(&container.id).await.expect("started");
    engine.start(&container.id).await.expect("started already is fine");
    assert_eq!(container.inspect(&engine).await.pointer("/State/Running"), Some(&json!(true)));

    let policy = json!({ "Name": "on-failure", "MaximumRetryCount": 3 });
    engine.set_restart_policy(&container.id, &policy).await.expect("updated");
    let inspected = container.inspect(&engine).await;
    assert_eq!(inspected.pointer("/HostConfig/RestartPolicy"), Some(&policy));

    let name = format!("{}-renamed", container.name);
    engine.rename(&container.id, &name).await.expect("renamed");
    let inspected = engine.inspect_container(&name).await.expect("asked").expect("there");
    assert_eq!(inspected.pointer("/Id"), Some(&json!(container.id)));

    let refused = engine.remove(&container.id).await.expect_err("it runs");
    assert_eq!(refused.status(), Some(409), "{refused}");
    engine.stop(&container.id, Some(Duration::from_millis(500))).await.expect("stopped");
    engine.stop(&container.id, None).await.expect("stopped already is fine");
    assert_eq!(container.inspect(&engine).await.pointer("/State/Running"), Some(&json!(false)));
    engine.remove(&container.id).await.expect("removed");
    assert_eq!(engine.inspect_container(&container.id).await.expect("asked"), None);
}

#[tokio::test]
async fn a_stop_without_a_grace_takes_the_containers_own() {
    let Some(engine) = engine() else { return };
    // `sleep` as process 1 ignores SIGTERM, so that only the kill after its second ends it.
    let container = Container::running(&engine).await;
    engine.stop(&container.id, None).await.expect("stopped");
    assert_eq!(container.inspect(&engine).await.pointer("/State/ExitCode"), Some(&json!(137)));
}

#[tokio::test]
async fn a_second_network_is_connected_with_its_alias() {
    let Some(engine) = engine() else { return };
    let name = format!("payram-test-{}", uuid::Uuid::now_v7());
    let created = docker_command().args(["network", "create", &name]).output().expect("docker");
    assert!(created.status.success(), "{created:?}");
    let network = Network(name.clone());
    let spec = json!({ "Image": IMAGE, "Cmd": ["sleep", "3600"] });
    let id = engine.create_container(&name, &spec).await.expect("created");
    let container = Container { id, name };
    let endpoint = json!({ "Aliases": ["payram-db"] });
    engine.connect_network(&network.0, &container.id, &endpoint).await.expect("connected");
    let inspected = container.inspect(&engine).await;
    let aliases = &inspected["NetworkSettings"]["Networks"][&network.0]["Aliases"];
    assert!(aliases.to_string().contains("payram-db"), "{aliases}");

    engine.start(&container.id).await.expect("started");
    let nowhere = format!("{}-nowhere", network.0);
    let error = engine.connect_network(&nowhere, &container.id, &endpoint).await;
    assert_eq!(error.expect_err("no such network").status(), Some(404));
}

#[tokio::test]
async fn a_command_answers_with_both_streams_and_its_exit_code() {
    let Some(engine) = engine() else { return };
    let container = Container::running(&engine).await;
    let mut wanted = request(&["sh", "-c", "echo out $WORD; echo err >&2; exit 3"]);
    wanted.env = vec![("WORD".into(), Secret::new("hunter2".into()))];
    let mut exec = engine.exec(&container.id, wanted).await.expect("begun");
    assert!(exec.stdin.is_none());
    assert_eq!(output(&mut exec).await, ("out hunter2\n".to_owned(), "err\n".to_owned()));
    assert_eq!(exit_code(&engine, &exec).await, 3);
}

#[tokio::test]
async fn a_running_command_has_no_exit_code_yet() {
    let Some(engine) = engine() else { return };
    let container = Container::running(&engine).await;
    let exec = engine.exec(&container.id, request(&["sleep", "3600"])).await.expect("begun");
    assert_eq!(engine.exec_exit_code(&exec.id).await.expect("asked"), None);
}

#[tokio::test]
async fn a_command_in_a_stopped_container_is_refused() {
    let Some(engine) = engine() else { return };
    let container = Container::create(&engine, json!(["true"])).await;
    let refused = engine.exec(&container.id, request(&["pg_dump", "-Fc"])).await;
    let error = refused.err().expect("refused");
    assert_eq!(error.status(), Some(409), "{error}");
    let expected = format!("run `pg_dump` in container {}", &container.id[..12]);
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test]
async fn twenty_megabytes_go_in_and_end_of_file_ends_the_command() {
    let Some(engine) = engine() else { return };
    let container = Container::running(&engine).await;
    let mut wanted = request(&["sh", "-c", "cat | wc -c"]);
    wanted.stdin = true;
    let mut exec = engine.exec(&container.id, wanted).await.expect("begun");
    let mut stdin = exec.stdin.take().expect("a standard input");
    let writer = tokio::spawn(async move {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            stdin.write_all(&piece).await.expect("written");
        }
        stdin.shutdown().await.expect("ended");
    });
    assert_eq!(output(&mut exec).await, (format!("{}\n", 20 << 20), String::new()));
    soon(writer).await.expect("the writer");
    assert_eq!(exit_code(&engine, &exec).await, 0);
}

#[tokio::test]
async fn as_much_comes_out_as_goes_in() {
    let Some(engine) = engine() else { return };
    let container = Container::running(&engine).await;
    let mut wanted = request(&["cat"]);
    wanted.stdin = true;
    let mut exec = engine.exec(&container.id, wanted).await.expect("begun");
    let mut stdin = exec.stdin.take().expect("a standard input");
    let writer = tokio::spawn(async move {
        for number in 0..500_000 {
            stdin.write_all(format!("{number}\n").as_bytes()).await.expect("written");
        }
        stdin.shutdown().await.expect("ended");
    });
    let expected: String = (0..500_000).map(|number| format!("{number}\n")).collect();
    let (stdout, stderr) = output(&mut exec).await;
    assert!(stdout == expected, "{} bytes of {}", stdout.len(), expected.len());
    assert_eq!(stderr, "");
    soon(writer).await.expect("the writer");
}

#[tokio::test]
async fn a_command_that_ends_early_ends_its_output() {
    let Some(engine) = engine() else { return };
    let container = Container::running(&engine).await;
    let mut wanted = request(&["sh", "-c", "head -c 5; exit 4"]);
    wanted.stdin = true;
    let mut exec = engine.exec(&container.id, wanted).await.expect("begun");
    let mut stdin = exec.stdin.take().expect("a standard input");
    stdin.write_all(b"12345 and more").await.expect("written");
    stdin.flush().await.expect("flushed");
    assert_eq!(output(&mut exec).await, ("12345".to_owned(), String::new()));
    assert_eq!(exit_code(&engine, &exec).await, 4);
}

#[tokio::test]
async fn the_log_is_text_with_and_without_a_terminal() {
    let Some(engine) = engine() else { return };
    for has_terminal in [false, true] {
        let name = format!("payram-test-{}", uuid::Uuid::now_v7());
        let spec = json!({
            "Image": IMAGE,
            "Cmd": ["sh", "-c", "echo one; echo two; echo three"],
            "Tty": has_terminal,
            "HostConfig": { "NetworkMode": "none" },
        });
        let id = engine.create_container(&name, &spec).await.expect("created");
        let container = Container { id, name };
        engine.start(&container.id).await.expect("started");
        soon(async {
            while container.inspect(&engine).await["State"]["Status"] != json!("exited") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let log = engine.logs(&container.id, 2).await.expect("a log");
        assert_eq!(log.replace('\r', ""), "two\nthree\n", "terminal: {has_terminal}");
    }
}

#[tokio::test]
async fn a_tag_that_does_not_exist_is_refused_by_its_reference() {
    let Some(engine) = engine() else { return };
    let registry = empty_registry().await;
    let repo = format!("{registry}/payramapp/payram");
    let mut seen = Vec::new();
    let mut note = |now| seen.push(now);
    let error = soon(engine.pull(&repo, "0.0.0", &mut note)).await.expect_err("refused");
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("pull {repo}:0.0.0: ")), "{error}");
    assert!(error.to_string().contains("manifest"), "{error}");
    assert_eq!(seen, []);
    let asked = engine.registry_image(&repo, "0.0.0").await;
    assert!(matches!(asked, Err(payram_updater::engine::RegistryNo::Missing(_))), "{asked:?}");
}

#[tokio::test]
async fn a_registry_that_is_away_is_refused_by_the_engine() {
    let Some(engine) = engine() else { return };
    // The port was free a moment ago, and nobody serves it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let repo = format!("{}/payramapp/payram", free.local_addr().expect("its number"));
    drop(free);
    let error = soon(engine.pull(&repo, "1.9.7", &mut |_| {})).await.expect_err("refused");
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("connection refused"), "{error}");
}

/// A registry on loopback that has no image; its `HOST:PORT`. It ends with the test's runtime.
async fn empty_registry() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its number");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = Vec::new();
            // Docker tries TLS first; whatever is no HTTP request is answered all the same.
            while !request.ends_with(b"\r\n\r\n") && request.first() != Some(&0x16) {
                match connection.read_buf(&mut request).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let (status, body) = match request.starts_with(b"GET /v2/ ") {
                true => ("200 OK", "{}"),
                false => (
                    "404 Not Found",
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                ),
            };
            let head = "Content-Type: application/json\r\nConnection: close\r\n\r\n";
            // A client that went away is answered by nobody.
            let answer = format!("HTTP/1.1 {status}\r\n{head}{body}");
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn events_tell_of_a_container_that_starts() {
    let Some(engine) = engine() else { return };
    let mut events = engine.events().await.expect("a stream");
    let container = Container::running(&engine).await;
    soon(async {
        while let Some(event) = events.next().await {
            let event = event.expect("an event");
            if event["Action"] == json!("start") && event["id"] == json!(container.id) {
                return;
            }
        }
        panic!("the events end");
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_accepts_and_never_answers_leaves_it_unknown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
        }
    });
    let engine = Docker::at(&format!("unix://{}", path.display())).expect("a client");
    let engine = engine.with_deadline(Duration::from_millis(50));
    for error in [
        soon(engine.stop("payram", Some(Duration::ZERO))).await.expect_err("silence"),
        soon(engine.inspect_container("payram")).await.expect_err("silence"),
        soon(engine.facts()).await.expect_err("silence"),
        soon(engine.exec("payram", request(&["true"]))).await.err().expect("silence"),
        soon(engine.events()).await.err().expect("silence"),
    ] {
        assert!(error.is_unknown(), "{error}");
    }
    silent.abort();
}

#[tokio::test]
async fn an_engine_that_is_down_is_unreachable() {
    let engine = Docker::connect("/nonexistent/docker", Some("unix:///nonexistent/docker.sock"));
    let engine = engine.await.expect("made without an engine");
    assert_eq!(engine.endpoint(), "unix:///nonexistent/docker.sock");
    let error = engine.start("payram").await.expect_err("down");
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
}
