//! A world: one running stand-in for PayRam with its database, the directories and settings of
//! an updater, and a watch over both. Everything is removed when it is dropped.
//!
//! ```text
//! let world = World::build("1.9.6").rows(1000).setting("START_TIMEOUT_SECONDS", "20").start();
//! let daemon = world.daemon();
//! let run = world.cli(&["run", "--to", "1.9.7", "--yes"]);
//! assert_eq!(world.lost(), Vec::<String>::new());
//! assert_eq!(world.two_at_once(), Vec::<String>::new());
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::builder::WorldBuilder;
use super::container::Mounts;
use super::daemon::Daemon;
use super::disk::SmallDisk;
use super::http::{Answer, Request};
use super::wait_until;
use super::watch::Watcher;

/// From `docker run` to a healthy answer: a first start makes a database.
pub(super) const START_LIMIT: Duration = Duration::from_secs(180);
/// Given to the container; long enough to be told apart from anything else in a search.
pub const PASSWORD: &str = "correct-horse-'battery'-staple-7c1d";
/// Given to the container as `AES_KEY`.
pub const AES_KEY: &str = "00112233445566778899aabbccddeeff-aes-key";
/// The container's label; its value is the world's id.
pub(super) const LABEL: &str = "payram-test";

/// A container of the stand-in and everything around it.
pub struct World {
    /// Name of the container: `payram-test-` and the world's id.
    pub name: String,
    /// The core's port on 127.0.0.1, published by the container unless it is built otherwise.
    pub port: u16,
    pub(super) is_published: bool,
    /// Port of the updater's API.
    pub updater_port: u16,
    pub(super) id: String,
    pub(super) root: tempfile::TempDir,
    pub(super) run_args: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) settings: RefCell<BTreeMap<String, String>>,
    pub(super) watcher: RefCell<Option<Watcher>>,
    /// Socket of the engine that the container runs on.
    pub(super) engine: PathBuf,
    /// What its images are tags of.
    pub(super) repo: String,
    pub(super) mounts: Mounts,
    /// What the database lies on, when that is a file system of its own.
    pub(super) disk: RefCell<Option<SmallDisk>>,
}

impl World {
    /// A healthy container of a tag, with nothing unusual about it.
    pub fn start(tag: &str) -> World {
        World::build(tag).start()
    }

    /// Begins to describe a world.
    pub fn build(tag: &str) -> WorldBuilder {
        WorldBuilder::new(tag)
    }

    /// On the host: what the container mounts at `/var/lib/payram`, or with nested mounts at
    /// `/root/payram`. The database is in `db/postgres` below it.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// On the host: what the container mounts at `/ack`.
    pub fn ack_dir(&self) -> PathBuf {
        self.path("ack")
    }

    /// `STATE_DIR`
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// `RUN_DIR`
    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// `BACKUP_DIR`
    pub fn backup_dir(&self) -> PathBuf {
        self.path("backups")
    }

    /// Any file or directory of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes the policy that the updater reads.
    pub fn write_policy(&self, policy: &Value) {
        fs::write(self.path("policy.json"), policy.to_string()).expect("a policy");
    }

    /// Writes the manifest that the updater reads.
    pub fn write_manifest(&self, manifest: &Value) {
        fs::write(self.path("manifest.json"), manifest.to_string()).expect("a manifest");
    }

    /// Changes a setting for the daemons and commands that are started from here on.
    pub fn set(&self, key: &str, value: &str) {
        self.settings.borrow_mut().insert(key.into(), value.into());
    }

    /// Takes a setting away.
    pub fn unset(&self, key: &str) {
        self.settings.borrow_mut().remove(key);
    }

    /// Socket of the engine that the container runs on.
    pub fn engine(&self) -> &Path {
        &self.engine
    }

    /// The engine's own client, not run yet.
    pub(super) fn docker_client(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.engine.display()));
        command
    }

    pub(super) fn default_settings(&self, repo: &str) -> BTreeMap<String, String> {
        let path = |name| self.path(name).display().to_string();
        [
            ("UPDATER_PORT", self.updater_port.to_string()),
            ("POLICY_URL", path("policy.json")),
            ("RUNTIME_MANIFEST_URL", path("manifest.json")),
            ("STATE_DIR", path("state")),
            ("RUN_DIR", path("run")),
            ("BACKUP_DIR", path("backups")),
            ("TARGET_CONTAINER_NAME", self.name.clone()),
            ("IMAGE_REPO_OVERRIDE", repo.to_owned()),
            ("START_TIMEOUT_SECONDS", "60".to_owned()),
            ("HEALTH_TIMEOUT_SECONDS", "20".to_owned()),
            // A test that is about the watch sets its own.
            ("VERIFY_SECONDS", "3".to_owned()),
            ("PROBATION_MINUTES", "0".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// What `docker` prints, trimmed.
    ///
    /// # Panics
    /// When it fails.
    pub fn docker(&self, args: &[&str]) -> String {
        succeed(self.docker_client().args(args))
    }

    /// Standard output and error of a container, together.
    pub fn container_log(&self) -> String {
        let output = self.docker_client().args(["logs", &self.name]).output();
        let output = output.expect("docker starts");
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    }

    /// `docker inspect` of the container that has the world's name.
    pub fn container(&self) -> Option<Value> {
        self.inspect(&self.name)
    }

    /// `docker inspect` of any container, image or network; none when there is none.
    pub fn inspect(&self, what: &str) -> Option<Value> {
        let output = self.docker_client().args(["inspect", what]).output().expect("docker starts");
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        list.get(0).cloned()
    }

    /// `docker inspect` of all containers that belong to this world, running or not: those with
    /// its label and those that mount its database.
    pub fn containers(&self) -> Vec<Value> {
        self.container_ids().iter().filter_map(|id| self.inspect(id)).collect()
    }

    fn container_ids(&self) -> Vec<String> {
        let filters = [
            format!("label={LABEL}={}", self.id),
            format!("name={}", self.name),
            format!("volume={}", self.data_dir().display()),
        ];
        let mut ids = Vec::new();
        for filter in &filters {
            let found = self
                .docker_client()
                .args(["ps", "--all", "--quiet", "--no-trunc", "--filter", filter])
                .output();
            let found = found.map(|output| output.stdout).unwrap_or_default();
            ids.extend(String::from_utf8_lossy(&found).lines().map(str::to_owned));
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// The file system that the database lies on, when it has one of its own.
    pub fn with_disk<T>(&self, work: impl FnOnce(&SmallDisk) -> T) -> T {
        work(self.disk.borrow().as_ref().expect("a world that was built with a disk"))
    }

    /// Asks the core, through the published port, or else at the container's own address.
    pub fn core(&self, path: &str) -> std::io::Result<Answer> {
        let request = Request::get(path).patience(Duration::from_secs(10));
        match self.is_published {
            true => request.to_port(self.port),
            false => request.to((self.address()?, 80).into()),
        }
    }

    /// The container's address on its first network, or that of the one whose network it shares.
    pub fn address(&self) -> std::io::Result<IpAddr> {
        let nowhere = || std::io::Error::other("the container has no address");
        let container = self.container().ok_or_else(nowhere)?;
        let mode = container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        let networked = match mode.strip_prefix("container:") {
            Some(other) => self.inspect(other).ok_or_else(nowhere)?,
            None => container,
        };
        let networks = networked["NetworkSettings"]["Networks"].as_object();
        let mut texts = networks.into_iter().flatten().filter_map(|(_, n)| n["IPAddress"].as_str());
        texts.find_map(|text| text.parse().ok()).ok_or_else(nowhere)
    }

    /// Whether the core says that it is healthy.
    pub fn is_healthy(&self) -> bool {
        self.core("/api/v1/health")
            .is_ok_and(|answer| answer.status == 200 && answer.body.contains(r#""status":"ok""#))
    }

    /// The version that the core reports.
    pub fn version(&self) -> Option<String> {
        let answer = self.core("/api/v1/version").ok()?;
        answer.json()["version"].as_str().map(str::to_owned)
    }

    /// Waits until the core is healthy.
    pub fn wait_healthy(&self) {
        wait_until(&format!("{} is healthy", self.name), START_LIMIT, || {
            self.is_healthy().then_some(())
        });
    }

    /// Every moment at which two containers ran on the database directory (I2). Ends the watch.
    pub fn two_at_once(&self) -> Vec<String> {
        let mut seen = match self.watcher.borrow_mut().take() {
            Some(mut watcher) => watcher.finish(),
            None => panic!("two_at_once is asked once, at the end"),
        };
        let noted = fs::read_to_string(self.ack_dir().join("two-servers.log")).unwrap_or_default();
        seen.extend(noted.lines().map(str::to_owned));
        seen
    }

    /// Starts the daemon, and waits until its API answers.
    pub fn daemon(&self) -> Daemon {
        let mut daemon = self.spawn_daemon();
        daemon.wait_ready();
        daemon
    }

    /// Starts the daemon. Its output is appended to `daemon.log`.
    pub fn spawn_daemon(&self) -> Daemon {
        Daemon::spawn(self.updater(&["serve"]), self.updater_port, &self.path("daemon.log"))
    }

    /// Runs a command of the product to its end; no terminal, nothing on its standard input.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.updater(args).stdin(Stdio::null()).output().expect("the product starts")
    }

    /// The product with this world's settings and nothing else in its environment, not run yet.
    pub fn updater(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payram-updater"));
        command.args(super::sandbox::as_text(args)).env_clear().current_dir(self.root.path());
        for inherited in ["PATH", "DOCKER_HOST", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(inherited) {
                command.env(inherited, value);
            }
        }
        command.env("HOME", self.path("home")).envs(self.settings.borrow().iter());
        command
    }

    /// Path, content and mode of every file below a directory of this world: to look for what
    /// must not be there.
    pub fn files_below(&self, name: &str) -> Vec<(PathBuf, Vec<u8>, u32)> {
        let mut files = Vec::new();
        read_below(&self.path(name), &mut files);
        files
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let daemon = fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
            eprintln!("--- container {} ---\n{}", self.name, tail(&self.container_log()));
            eprintln!("--- daemon ---\n{}", tail(&daemon));
        }
        drop(self.watcher.borrow_mut().take());
        let ids = self.container_ids();
        if !ids.is_empty() {
            let removed =
                self.docker_client().args(["rm", "--force", "--volumes"]).args(&ids).output();
            if let Ok(output) = removed
                && !output.status.success()
            {
                eprintln!("{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
            }
        }
        // Before the directory that it is mounted on is removed.
        drop(self.disk.borrow_mut().take());
    }
}

/// A file's path, content and mode, for every file below a directory.
fn read_below(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>, u32)>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            read_below(&path, files);
        } else if metadata.is_file() {
            files.push((
                path.clone(),
                fs::read(&path).unwrap_or_default(),
                metadata.permissions().mode(),
            ));
        }
    }
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

pub(super) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("docker starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {error}", command.get_args().collect::<Vec<_>>());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
