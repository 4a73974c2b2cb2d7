//! A PostgreSQL server of a test's own, in a temporary directory on a free port, and an engine
//! whose containers are this host.

// Each test file compiles this module for itself and uses another part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use payram_updater::engine::{
    Change, ContainerSummary, Engine, EngineError, EngineEvent, EngineFacts, Exec, ExecRequest,
    Frame, Process, PullProgress,
};
use serde_json::Value;
use tokio_util::io::ReaderStream;

pub const ROLE: &str = "payram";
pub const PASSWORD: &str = "hunter2-of-payram";

/// The superuser of the server.
const SUPERUSER: &str = "keeper";

const DEADLINE: Duration = Duration::from_secs(30);

/// A server that ends with the test.
pub struct Server {
    pub port: u16,
    bin: PathBuf,
    directory: tempfile::TempDir,
}

impl Server {
    /// None, said aloud, where PostgreSQL's server is not installed.
    pub fn start() -> Option<Self> {
        let Some(bin) = programs() else {
            let required = std::env::var("PAYRAM_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.contains("postgres"), "initdb is missing: install postgresql");
            eprintln!("skipped: needs postgres");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        if let Some((uid, gid)) = other_user() {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).expect("an owner");
        }
        let password = directory.path().join("password");
        std::fs::write(&password, "keeper-of-the-server").expect("a file");
        if let Some((uid, gid)) = other_user() {
            std::os::unix::fs::chown(&password, Some(uid), Some(gid)).expect("an owner");
        }
        let mut server = Self { port: 0, bin, directory };
        let made = server
            .command("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"])
            .args(["--username", SUPERUSER])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(server.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        // Another program may take the port between our look and the server's.
        for _ in 0..5 {
            server.port = free_port();
            if server.try_start() {
                return Some(server);
            }
        }
        panic!("the server does not start: {}", server.log());
    }

    /// Another server, on a copy of this one's directory; both run afterwards.
    pub fn copy(&self) -> Self {
        self.copy_ended("fast")
    }

    /// The same, ended so before: `fast`, or `immediate` as if it were killed.
    pub fn copy_ended(&self, how: &str) -> Self {
        self.stop(how);
        let directory = tempfile::tempdir().expect("a directory");
        if let Some((uid, gid)) = other_user() {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).expect("an owner");
        }
        let mut other = Self { port: 0, bin: self.bin.clone(), directory };
        let copied = Command::new("cp").arg("-a").arg(self.data()).arg(other.data()).status();
        assert!(copied.expect("cp").success(), "the directory is not copied");
        self.start_again();
        for _ in 0..5 {
            other.port = free_port();
            if other.try_start() {
                return other;
            }
        }
        panic!("the copy does not start: {}", other.log());
    }

    /// Sets the stopped server's next transaction, where all rows are frozen.
    pub fn set_next_transaction(&self, number: u32) {
        // Its state is kept in a file for each 2^20 transactions (PostgreSQL's `clog.c`).
        let segment = self.data().join("pg_xact").join(format!("{:04X}", number >> 20));
        std::fs::write(&segment, vec![0; 256 * 1024]).expect("a file");
        if let Some((uid, gid)) = other_user() {
            std::os::unix::fs::chown(&segment, Some(uid), Some(gid)).expect("an owner");
        }
        let mut command = self.command("pg_resetwal");
        command.args(["-x", &number.to_string(), "-D"]).arg(self.data());
        let done = command.stdout(Stdio::null()).status();
        assert!(done.expect("pg_resetwal").success(), "pg_resetwal");
    }

    /// Loads a file with `psql`, in no mode of our own; what it printed.
    pub fn load(&self, database: &str, file: &Path) -> String {
        let mut command = self.psql(database);
        // Not as a test reads: as an operator would.
        let done = command.args(["-v", "QUIET=off"]).arg("-f").arg(file).output();
        let done = done.expect("psql");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{}: {said}", file.display());
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Starts the server again after a stop.
    pub fn start_again(&self) {
        assert!(self.try_start(), "the server does not start: {}", self.log());
    }

    fn try_start(&self) -> bool {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c fsync=off -k {}",
            self.port,
            self.directory.path().display()
        );
        let mut command = self.command("pg_ctl");
        command.args(["start", "-w", "-o", &options, "-l"]).arg(self.directory.path().join("log"));
        command.arg("-D").arg(self.data());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl").success()
    }

    /// Stops the server: `fast` is a clean shutdown, `immediate` is a crash.
    pub fn stop(&self, mode: &str) {
        let mut command = self.command("pg_ctl");
        command.args(["stop", "-w", "-m", mode, "-D"]).arg(self.data());
        let stopped = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(stopped.expect("pg_ctl").success(), "the server does not stop: {}", self.log());
    }

    /// The directory that it works in.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// `15`
    pub fn major(&self) -> String {
        std::fs::read_to_string(self.data().join("PG_VERSION")).expect("PG_VERSION").trim().into()
    }

    pub fn is_debian(&self) -> bool {
        self.bin.starts_with("/usr/lib/postgresql")
    }

    /// Where its programs are.
    pub fn programs(&self) -> &Path {
        &self.bin
    }

    /// A program of the server's; it refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if let Some((uid, gid)) = other_user() {
            command.uid(uid).gid(gid);
        }
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        command
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", SUPERUSER])
            .args(["-p", &self.port.to_string(), "-d", database])
            .env("PGPASSWORD", "keeper-of-the-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs statements as the server's keeper; answers the rows as lines.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let mut child = self.psql(database).spawn().expect("psql");
        child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("statements");
        let done = child.wait_with_output().expect("psql ends");
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// A session that did `text` in a transaction and leaves it open until it is dropped.
    pub fn hold(&self, database: &str, text: &str) -> Held {
        let mut child = self.psql(database).spawn().expect("psql");
        let mut stdin = child.stdin.take().expect("stdin");
        let name = format!("held-{}", child.id());
        writeln!(stdin, "set application_name = '{name}'; begin; {text};").expect("statements");
        let waiting = format!(
            "select count(*) from pg_stat_activity \
             where application_name = '{name}' and state = 'idle in transaction'"
        );
        self.until(database, &waiting, "1");
        // Between `begin` and its statement the session is idle too; the lock tells.
        let locked = format!(
            "select count(*) > 0 from pg_locks l join pg_stat_activity a using (pid) \
             where a.application_name = '{name}' and l.mode ~ 'Exclusive' \
               and l.locktype = 'relation' and l.granted"
        );
        self.until(database, &locked, "t");
        Held { child, _stdin: stdin }
    }

    /// Waits until a question has this answer.
    pub fn until(&self, database: &str, question: &str, answer: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.sql(database, question);
            if found.trim() == answer {
                return;
            }
            assert!(Instant::now() < deadline, "{question}: expected {answer}, found {found}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = self.command("pg_ctl");
        command.args(["stop", "-w", "-m", "immediate", "-D"]).arg(self.data());
        // It may be stopped already.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// An open session.
pub struct Held {
    child: Child,
    _stdin: std::process::ChildStdin,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of the server's programs, the newest version's.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|directory| directory.join("initdb").exists())
    };
    found.pop().map(|(_, bin)| bin).or_else(on_path)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who the server runs as when this is root: `postgres` where there is one, else `nobody`.
fn other_user() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let postgres = passwd.lines().find(|line| line.starts_with("postgres:")).and_then(|line| {
        let mut numbers = line.split(':').skip(2);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    Some(postgres.unwrap_or((65534, 65534)))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A file system of one MiB.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None, said aloud, for those who may not mount.
    pub fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
                .arg(directory.path())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: needs a tmpfs, which only root may mount");
        }
        mounted.then_some(Self(directory))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// An engine whose only verb is `exec`, which runs the command on this host. Like a real one it
/// lets the command live when nobody listens any more.
#[derive(Default)]
pub struct LocalEngine {
    /// The `PATH` inside the container; none for this host's.
    path: Option<String>,
    ends: Arc<Mutex<HashMap<String, i64>>>,
    asked: Mutex<Vec<String>>,
}

impl LocalEngine {
    /// An engine in whose containers programs are looked for here alone.
    pub fn with_path(path: &str) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// Every command line that was asked for.
    pub fn argvs(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn down<T>(&self) -> Result<T, EngineError> {
        Err(EngineError::Unreachable { endpoint: self.endpoint(), reason: "there is none".into() })
    }
}

#[async_trait]
impl Engine for LocalEngine {
    fn endpoint(&self) -> String {
        "local:".into()
    }

    async fn exec(&self, _id: &str, request: ExecRequest) -> Result<Exec, EngineError> {
        let program = match request.argv[0].as_str() {
            "sh" => "/bin/sh",
            program => program,
        };
        let mut command = tokio::process::Command::new(program);
        command.args(&request.argv[1..]);
        for (key, value) in &request.env {
            command.env(key, value.expose());
        }
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        // What the container's own environment may hold must not lead astray.
        command.env("PGHOSTADDR", "192.0.2.1").env("PGOPTIONS", "-c nonsense=1");
        command.stdin(if request.stdin { Stdio::piped() } else { Stdio::null() });
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| {
                EngineError::Refused {
                    doing: format!("exec {program}"),
                    status: 400,
                    message: error.to_string(),
                }
            })?;
        let mut asked = self.asked.lock().unwrap();
        asked.push(request.argv.join(" "));
        let id = format!("exec-{}", asked.len());
        drop(asked);
        let broken = |error: std::io::Error| EngineError::Unknown {
            doing: "read an exec's output".into(),
            reason: error.to_string(),
        };
        let stdout = ReaderStream::new(child.stdout.take().unwrap())
            .map(move |piece| piece.map(Frame::Stdout).map_err(broken));
        let stderr = ReaderStream::new(child.stderr.take().unwrap())
            .map(move |piece| piece.map(Frame::Stderr).map_err(broken));
        let stdin = child
            .stdin
            .take()
            .map(|stdin| Box::new(stdin) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>);
        let (ends, key) = (Arc::clone(&self.ends), id.clone());
        tokio::spawn(async move {
            let status = child.wait().await.expect("the end of a command");
            ends.lock().unwrap().insert(key, status.code().map_or(137, i64::from));
        });
        Ok(Exec { id, output: stream::select(stdout, stderr).boxed(), stdin })
    }

    async fn exec_exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError> {
        Ok(self.ends.lock().unwrap().get(exec_id).copied())
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        self.down()
    }

    async fn containers(&self, _: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError> {
        self.down()
    }

    async fn inspect_container(&self, _: &str) -> Result<Option<Value>, EngineError> {
        self.down()
    }

    async fn inspect_image(&self, _: &str) -> Result<Option<Value>, EngineError> {
        self.down()
    }

    async fn inspect_network(&self, _: &str) -> Result<Option<Value>, EngineError> {
        self.down()
    }

    async fn registry_image(
        &self,
        _: &str,
        _: &str,
    ) -> Result<payram_updater::engine::RegistryImage, payram_updater::engine::RegistryNo> {
        Err(payram_updater::engine::RegistryNo::Unknown("there is no registry".to_owned()))
    }

    async fn registry_digest(&self, _: &str, _: &str) -> Result<String, String> {
        Err("there is no registry".to_owned())
    }

    async fn create_container(&self, _: &str, _: &Value) -> Result<String, EngineError> {
        self.down()
    }

    async fn connect_network(&self, _: &str, _: &str, _: &Value) -> Result<(), EngineError> {
        self.down()
    }

    async fn start(&self, _: &str) -> Result<(), EngineError> {
        self.down()
    }

    async fn stop(&self, _: &str, _: Option<Duration>) -> Result<(), EngineError> {
        self.down()
    }

    async fn rename(&self, _: &str, _: &str) -> Result<(), EngineError> {
        self.down()
    }

    async fn set_restart_policy(&self, _: &str, _: &Value) -> Result<(), EngineError> {
        self.down()
    }

    async fn remove(&self, _: &str) -> Result<(), EngineError> {
        self.down()
    }

    async fn pull(
        &self,
        _: &str,
        _: &str,
        _: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), EngineError> {
        self.down()
    }

    async fn logs(&self, _: &str, _: usize) -> Result<String, EngineError> {
        self.down()
    }

    async fn events(
        &self,
    ) -> Result<stream::BoxStream<'static, Result<Value, EngineError>>, EngineError> {
        self.down()
    }

    async fn inspect_volume(&self, _: &str) -> Result<Option<Value>, EngineError> {
        self.down()
    }

    async fn processes(&self, _: &str) -> Result<Vec<Process>, EngineError> {
        self.down()
    }

    async fn changes(&self, _: &str) -> Result<Vec<Change>, EngineError> {
        self.down()
    }

    async fn archive(
        &self,
        _: &str,
        _: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        self.down()
    }

    async fn kill(&self, _: &str) -> Result<(), EngineError> {
        self.down()
    }

    async fn events_between(
        &self,
        _: &str,
        _: i64,
        _: i64,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        self.down()
    }
}
