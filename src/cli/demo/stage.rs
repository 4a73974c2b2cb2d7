//! The stage of the demo: a temporary directory, the make-believe engine and the daemon, both
//! child processes of this program, and the commands that are run against them.
//!
//! Whatever comes of the demo, [`Stage::strike`] takes it away; dropping it does so too.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::Fault;
use super::paper::Paper;
use crate::sandbox::Ready;

/// How long a child process may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a command may take to its end.
const COMMAND_WITHIN: Duration = Duration::from_secs(90);

/// How long one question may take.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Settings of this process that its children keep.
const INHERITED: [&str; 6] = ["PATH", "TERM", "LANG", "LC_ALL", "NO_COLOR", "COLORTERM"];

/// Lines of the daemon's log that an error quotes.
const LOG_LINES: usize = 10;

/// Everything that was set up for the demo.
pub(super) struct Stage {
    program: PathBuf,
    settings: Vec<(&'static str, String)>,
    pub ready: Ready,
    engine: Child,
    daemon: Option<Child>,
    /// Dropped last: nobody writes to it by then.
    directory: Directory,
}

/// Removed when dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("payram-updater: {} is left behind: {error}", self.0.display());
        }
    }
}

impl Stage {
    /// Sets everything up but the daemon.
    pub async fn set(scenario: &Value) -> Result<Self, Fault> {
        let program = std::env::current_exe()?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let name = format!("payram-demo-{}", id.get(24..).unwrap_or(&id));
        let directory = Directory(std::env::temp_dir().join(name));
        fs::DirBuilder::new().mode(0o700).create(&directory.0)?;
        let at = |name: &str| directory.0.join(name);
        fs::write(at("scenario.json"), scenario.to_string())?;
        let listen = format!("unix:{}", at("docker.sock").display());
        let mut engine = child(&program, &directory.0)
            .arg("sandbox")
            .args([OsStr::new("--state"), at("engine").as_os_str()])
            .args(["--listen", &listen])
            .args([OsStr::new("--scenario"), at("scenario.json").as_os_str()])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = engine.stdout.take().ok_or_else(|| Fault::new("the engine has no output"))?;
        let line = timeout(READY_WITHIN, BufReader::new(out).lines().next_line()).await;
        let line = line.map_err(|_| Fault::new("the engine was not ready in time"))??;
        let line = line.ok_or_else(|| Fault::new("the engine ended before it was ready"))?;
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|error| Fault::new(format!("the engine said {line:?}: {error}")))?;
        let settings = settings(&directory.0, &ready)?;
        Ok(Self { program, settings, ready, engine, daemon: None, directory })
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start_daemon(&mut self) -> Result<(), Fault> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.at("daemon.log"))?;
        let daemon = self
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.daemon = Some(daemon);
        let deadline = Instant::now() + READY_WITHIN;
        while self.ask_daemon("/health").await.is_err() {
            let ended = self.daemon.as_mut().map(Child::try_wait).transpose()?;
            if let Some(status) = ended.flatten() {
                return Err(Fault::new(format!("the daemon ended, {status}:\n{}", self.log())));
            }
            if Instant::now() >= deadline {
                return Err(Fault::new(format!("the daemon does not answer:\n{}", self.log())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until the daemon has ended; how it did.
    pub async fn daemon_ends(&mut self) -> Result<ExitStatus, Fault> {
        let Some(daemon) = &mut self.daemon else {
            return Err(Fault::new("no daemon runs"));
        };
        let ended = timeout(COMMAND_WITHIN, daemon.wait()).await;
        let status = ended.map_err(|_| Fault::new("the daemon did not end in time"))??;
        self.daemon = None;
        Ok(status)
    }

    /// A command of this program, begun. On a terminal it is shown as it is; otherwise its
    /// lines are for [`Running::finish`].
    pub fn begin(&self, arguments: &[&str], paper: &Paper) -> Result<Running, Fault> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        if paper.is_terminal {
            return Ok(Running { child: command.spawn()?, lines: None });
        }
        command.arg("--text");
        // Both in one pipe, so that they stay in order.
        let (reader, writer) = io::pipe()?;
        let child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
        drop(command);
        let reader = std::os::fd::OwnedFd::from(reader);
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader)?;
        Ok(Running { child, lines: Some(BufReader::new(reader).lines()) })
    }

    /// A command to its end; its exit code.
    pub async fn run(&self, arguments: &[&str], paper: &Paper) -> Result<i32, Fault> {
        paper.command(arguments)?;
        self.begin(arguments, paper)?.finish(paper).await
    }

    /// Asks the daemon over its socket.
    pub async fn ask_daemon(&self, path: &str) -> Result<Value, Fault> {
        ask(&self.at("run/updater.sock"), path, None).await
    }

    /// Asks the engine, or tells it something.
    pub async fn ask_engine(&self, path: &str, body: Option<Value>) -> Result<Value, Fault> {
        ask(&self.at("docker.sock"), path, body).await
    }

    /// The version that the shop says it is; none when it does not answer.
    pub async fn serving(&self) -> Option<String> {
        let client = crate::http::client_builder().timeout(ASK_WITHIN).build().ok()?;
        let url = format!("{}/api/v1/version", self.ready.core);
        let answer: Value = client.get(url).send().await.ok()?.json().await.ok()?;
        answer["version"].as_str().map(str::to_owned)
    }

    /// How many payments were acknowledged, and those of them that the database lacks.
    pub fn payments(&self) -> Result<(usize, Vec<String>), Fault> {
        // In this order: what is acknowledged while the database is read is no loss.
        let acknowledged = fs::read_to_string(&self.ready.acknowledged)?;
        let rows = fs::read_to_string(self.ready.data.join("payments.jsonl"))?;
        let there: BTreeSet<String> = rows
            .lines()
            .filter_map(|row| serde_json::from_str::<Value>(row).ok())
            .filter_map(|row| row["id"].as_str().map(str::to_owned))
            .collect();
        let ids: Vec<&str> =
            acknowledged.lines().filter_map(|line| line.split(' ').next()).collect();
        let lost = ids.iter().filter(|id| !there.contains(**id)).map(|id| (*id).to_owned());
        Ok((ids.len(), lost.collect()))
    }

    /// Ends every child process and removes the directory.
    pub async fn strike(mut self) {
        for child in self.daemon.iter_mut().chain([&mut self.engine]) {
            // Ended already is as good; the directory goes when this is dropped.
            let _ = child.kill().await;
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = child(&self.program, &self.directory.0);
        command.args(arguments).envs(self.settings.iter().map(|(key, value)| (*key, value)));
        command
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// The last lines of the daemon's log.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.at("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.into_iter().skip(from).collect::<Vec<_>>().join("\n")
    }
}

/// A command that runs.
pub(super) struct Running {
    child: Child,
    lines: Option<Lines<BufReader<tokio::net::unix::pipe::Receiver>>>,
}

impl Running {
    /// Shows what it says until it ends; its exit code.
    pub async fn finish(mut self, paper: &Paper) -> Result<i32, Fault> {
        let ended = timeout(COMMAND_WITHIN, async {
            if let Some(lines) = &mut self.lines {
                while let Some(line) = lines.next_line().await? {
                    paper.quote(&line)?;
                }
            }
            self.child.wait().await
        });
        let status = ended.await.map_err(|_| Fault::new("a command did not end in time"))??;
        status.code().ok_or_else(|| Fault::new(format!("a command ended by {status}")))
    }
}

/// A child in a process group of its own, so that Ctrl-C reaches this process alone, which
/// then takes everything down in order.
fn child(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().process_group(0).kill_on_drop(true);
    for key in INHERITED {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command
}

/// What the daemon and the commands are told. More than is needed, so that an updater that is
/// installed on this host, with a file of settings, does not speak into the demo.
fn settings(directory: &Path, ready: &Ready) -> Result<Vec<(&'static str, String)>, Fault> {
    let at = |name: &str| directory.join(name).display().to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(vec![
        ("HOME", at("")),
        ("UPDATER_PORT", free.to_string()),
        ("STATE_DIR", at("state")),
        ("RUN_DIR", at("run")),
        ("BACKUP_DIR", at("backups")),
        ("DOCKER_HOST", ready.docker_host.clone()),
        ("POLICY_URL", ready.policy.display().to_string()),
        ("RUNTIME_MANIFEST_URL", ready.manifest.display().to_string()),
        ("IMAGE_REPO_OVERRIDE", ready.repo.clone()),
        ("TARGET_CONTAINER_NAME", "payram".to_owned()),
        ("CORE_BASE_URL", ready.core.clone()),
        ("EXECUTION_MODE", "execute".to_owned()),
        ("DEBUG_VERSION_MODE", "false".to_owned()),
        ("RESUME", "resume".to_owned()),
        ("ROLLBACK_DATABASE", "lossless".to_owned()),
        ("START_TIMEOUT_SECONDS", "10".to_owned()),
        ("HEALTH_TIMEOUT_SECONDS", "10".to_owned()),
        ("LOG", "info".to_owned()),
    ])
}

async fn ask(socket: &Path, path: &str, body: Option<Value>) -> Result<Value, Fault> {
    let client = crate::http::client_builder()
        .unix_socket(socket)
        .timeout(ASK_WITHIN)
        .build()
        .map_err(|error| Fault::new(crate::http::reason(&error)))?;
    let url = format!("http://localhost{path}");
    let request = match body {
        Some(body) => client.post(url).json(&body),
        None => client.get(url),
    };
    let failed = |error: reqwest::Error| {
        Fault::new(format!("{} {path}: {}", socket.display(), crate::http::reason(&error)))
    };
    let response = request.send().await.and_then(reqwest::Response::error_for_status);
    let text = response.map_err(failed)?.text().await.map_err(failed)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|error| Fault::new(format!("{path}: {error}")))
}
