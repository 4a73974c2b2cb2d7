//! The stage of the demo: a temporary directory, a line to the engine, the daemon, and the
//! commands that are run against it, all child processes of this program.
//!
//! Whatever comes of the demo, [`Stage::strike`] takes it away.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, timeout};

use super::Fault;
use super::backstage::{Backstage, Place, Shop};
use super::line::Line;
use super::paper::Paper;
use super::process::{ASK_WITHIN, LOOK_EVERY, READY_WITHIN, ask, child};
use super::real::Real;
use super::simulated::Simulated;
use crate::cli::answers::{self, Job};
use crate::cli::args::EngineName;
use crate::cli::follow::Snapshot;
use crate::engine::Engine;
use crate::engine::docker::Docker;

/// How long a command may take to its end: a slow machine with a real PostgreSQL takes a minute.
const COMMAND_WITHIN: Duration = Duration::from_secs(240);

/// Between two looks at an upgrade that somebody watches.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Lines of the daemon's log that an error quotes.
const LOG_LINES: usize = 10;

/// Everything that was set up for the demo.
pub(super) struct Stage {
    program: PathBuf,
    place: Place,
    backstage: Box<dyn Backstage>,
    line: Line,
    shop: Option<Shop>,
    settings: Vec<(&'static str, String)>,
    daemon: Option<Child>,
    /// Dropped last: nobody writes to it by then.
    directory: Directory,
}

/// Removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn remove(self) -> Result<(), Fault> {
        fs::remove_dir_all(&self.0)
            .map_err(|error| Fault::new(format!("{} is left behind: {error}", self.0.display())))
    }
}

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
    /// A place and a line to an engine. On the engine nothing is made yet.
    pub async fn set(engine: EngineName) -> Result<Self, Fault> {
        let backstage: Box<dyn Backstage> = match engine {
            EngineName::Sandbox => Box::new(Simulated::default()),
            EngineName::Docker => Box::new(Real::find().await?),
        };
        let program = std::env::current_exe()?;
        let place = Place::below(&backstage.temporary());
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&place.directory)
            .map_err(|error| Fault::new(format!("make {}: {error}", place.directory.display())))?;
        let directory = Directory(place.directory.clone());
        let line = Line::lay(&place.line(), backstage.socket(&place))?;
        let (shop, settings, daemon) = (None, Vec::new(), None);
        Ok(Self { program, place, backstage, line, shop, settings, daemon, directory })
    }

    /// What is real here and what is not.
    pub fn introduction(&self) -> String {
        self.backstage.introduction()
    }

    /// Opens the shop, waits until it serves, and starts the daemon: a plan refuses a shop that
    /// does not answer yet.
    pub async fn open(&mut self, paper: &Paper) -> Result<(), Fault> {
        let shop = self.backstage.open(&self.place, paper).await?;
        self.settings = settings(&self.place, &shop)?;
        let core = shop.core.clone();
        self.shop = Some(shop);
        let deadline = Instant::now() + READY_WITHIN;
        while self.serving().await.is_none() {
            if Instant::now() >= deadline {
                return Err(Fault::new(format!("the shop does not answer at {core}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.start_daemon().await
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start_daemon(&mut self) -> Result<(), Fault> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log_file())?;
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

    /// SIGKILL; the daemon is gone when this returns.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub async fn kill_daemon(&mut self) -> Result<(), Fault> {
        let mut daemon = self.daemon.take().ok_or_else(|| Fault::new("no daemon runs"))?;
        daemon.start_kill()?;
        let status = daemon.wait().await?;
        match status.signal() {
            Some(9) => Ok(()),
            Some(_) | None => {
                let log = self.log();
                Err(Fault::new(format!("the daemon ended before it was killed, {status}:\n{log}")))
            }
        }
    }

    /// Holds the daemon's next request to start a container back; resolves when it is there.
    pub fn hold_next_start(&self) -> oneshot::Receiver<()> {
        self.line.hold_next_start()
    }

    /// A command of this program, begun; its lines are for [`Running::finish`].
    pub fn begin(&self, arguments: &[&str]) -> Result<Running, Fault> {
        // Both in one pipe, so that they stay in order.
        let (reader, writer) = io::pipe()?;
        let child = self
            .command(arguments)
            .arg("--text")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        let reader = std::os::fd::OwnedFd::from(reader);
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader)?;
        let lines = BufReader::new(reader).lines();
        let home = self.place.directory.display().to_string();
        Ok(Running { child, lines, daemon: self.daemon_socket(), home })
    }

    /// A command to its end; its exit code.
    pub async fn run(&self, arguments: &[&str], paper: &Paper) -> Result<i32, Fault> {
        paper.command(arguments)?;
        self.begin(arguments)?.finish(paper).await
    }

    /// Asks the daemon.
    pub async fn ask_daemon(&self, path: &str) -> Result<Value, Fault> {
        ask(&self.daemon_socket(), Method::GET, path).await
    }

    /// This demo's containers, each with its state.
    pub async fn containers(&self) -> Result<Vec<(String, String)>, Fault> {
        let engine = Docker::at(&self.place.docker_host())?;
        let containers = engine.containers(self.shop()?.label.as_deref()).await?;
        Ok(containers.into_iter().map(|one| (one.name, one.state)).collect())
    }

    /// The version that the shop says it is; none when it does not answer.
    pub async fn serving(&self) -> Option<String> {
        let client = crate::http::client_builder().timeout(ASK_WITHIN).build().ok()?;
        let url = format!("{}/api/v1/version", self.shop().ok()?.core);
        let answer: Value = client.get(url).send().await.ok()?.json().await.ok()?;
        answer["version"].as_str().map(str::to_owned)
    }

    /// How many payments were acknowledged, and those of them that the database lacks.
    pub async fn payments(&self) -> Result<(usize, Vec<String>), Fault> {
        let shop = self.shop()?;
        // In this order: what is acknowledged while the database is read is no loss.
        let acknowledged = fs::read_to_string(&shop.acknowledged)?;
        let there = self.backstage.payments(shop).await?;
        let ids: Vec<&str> =
            acknowledged.lines().filter_map(|line| line.split(' ').next()).collect();
        let lost = ids.iter().filter(|id| !there.contains(**id)).map(|id| (*id).to_owned());
        Ok((ids.len(), lost.collect()))
    }

    /// Ends every child process, and removes the containers and the directory. The commands
    /// that were begun must have been dropped.
    pub async fn strike(mut self) -> Result<(), Fault> {
        if let Some(mut daemon) = self.daemon.take() {
            // Ended already is as good.
            let _ = daemon.kill().await;
        }
        // What runs inside a container ends with it, and so does the request that waits for it;
        // a request that the daemon died over may have made one more meanwhile.
        let first = self.backstage.clear(&self.place).await;
        let is_quiet = self.line.hang_up().await;
        first.and(self.backstage.clear(&self.place).await)?;
        self.directory.remove()?;
        match is_quiet {
            true => Ok(()),
            false => Err(Fault::new(format!(
                "the engine has not answered a request yet; what comes of it may be left behind \
                 (docker ps -a --filter name={})",
                self.place.id
            ))),
        }
    }

    fn shop(&self) -> Result<&Shop, Fault> {
        self.shop.as_ref().ok_or_else(|| Fault::new("the shop is not open"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = child(&self.program, &self.place.directory);
        command.args(arguments).envs(self.settings.iter().map(|(key, value)| (*key, value)));
        command
    }

    fn daemon_socket(&self) -> PathBuf {
        self.place.at("run/updater.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.place.at("daemon.log")
    }

    /// The last lines of the daemon's log.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.into_iter().skip(from).collect::<Vec<_>>().join("\n")
    }
}

/// A command that runs.
pub(super) struct Running {
    child: Child,
    lines: Lines<BufReader<tokio::net::unix::pipe::Receiver>>,
    daemon: PathBuf,
    /// The directory that it calls its home.
    home: String,
}

impl Running {
    /// Shows what it says until it ends, and on a terminal how far the upgrade is; its exit
    /// code.
    pub async fn finish(mut self, paper: &Paper) -> Result<i32, Fault> {
        let ended = timeout(COMMAND_WITHIN, self.show(paper)).await;
        paper.end_wait()?;
        let status = ended.map_err(|_| Fault::new("a command did not end in time"))??;
        status.code().ok_or_else(|| Fault::new(format!("a command ended by {status}")))
    }

    async fn show(&mut self, paper: &Paper) -> Result<ExitStatus, Fault> {
        let mut looks = interval(WATCH_EVERY);
        loop {
            tokio::select! {
                line = self.lines.next_line() => match line? {
                    Some(line) => paper.quote(&line.replace(&self.home, "~"))?,
                    None => return Ok(self.child.wait().await?),
                },
                _ = looks.tick(), if paper.is_terminal => {
                    // A daemon that is dead has nothing to show.
                    if let Some(now) = upgrade(&self.daemon).await {
                        paper.progress(&now)?;
                    }
                }
            }
        }
    }
}

/// The upgrade that runs; none when there is none, or nobody who says so.
async fn upgrade(daemon: &Path) -> Option<Snapshot> {
    let raw = ask(daemon, Method::GET, "/upgrade/status").await.ok()?;
    let job: Job = answers::read("/upgrade/status", &raw).ok()?;
    job.is_active().then_some(Snapshot { job, raw })
}

/// What the daemon and the commands are told. More than is needed, so that an updater that is
/// installed on this host, with a file of settings, does not speak into the demo.
fn settings(place: &Place, shop: &Shop) -> Result<Vec<(&'static str, String)>, Fault> {
    let at = |name: &str| place.at(name).display().to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(vec![
        ("HOME", place.directory.display().to_string()),
        ("UPDATER_PORT", free.to_string()),
        ("STATE_DIR", at("state")),
        ("RUN_DIR", at("run")),
        ("BACKUP_DIR", at("backups")),
        ("DOCKER_HOST", place.docker_host()),
        ("POLICY_URL", shop.policy.display().to_string()),
        ("RUNTIME_MANIFEST_URL", shop.manifest.display().to_string()),
        ("IMAGE_REPO_OVERRIDE", shop.repo.clone()),
        ("TARGET_CONTAINER_NAME", shop.container.clone()),
        ("CORE_BASE_URL", shop.core.clone()),
        ("EXECUTION_MODE", "execute".to_owned()),
        ("DEBUG_VERSION_MODE", "false".to_owned()),
        ("RESUME", "resume".to_owned()),
        ("ROLLBACK_DATABASE", "lossless".to_owned()),
        ("START_TIMEOUT_SECONDS", shop.start_timeout_seconds.to_string()),
        ("HEALTH_TIMEOUT_SECONDS", "20".to_owned()),
        // A person watches; a shop is watched for longer.
        ("VERIFY_SECONDS", "3".to_owned()),
        ("PROBATION_MINUTES", "0.1".to_owned()),
        ("LOG", "info".to_owned()),
    ])
}
