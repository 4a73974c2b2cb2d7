//! A Docker engine of a test's own, which may be stopped, killed and cut off from power while
//! the machine's engine and everything on it stay as they are.
//!
//! ```text
//! let mut engine = PrivateEngine::start();
//! let world = World::build("1.9.6").on(&engine).start();
//! engine.power_cut();
//! engine.start_again();
//! ```
//!
//! It is this host's, or that of another Debian (`other_engine`).

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::http::Request;
use super::{Fixture, wait_until};

/// Starts in a row that may fail but for the last.
const START_TRIES: u32 = 4;
/// From the start of dockerd to its first answer, containers that it restarts included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to its end: it stops its containers first.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Until what was killed is gone.
const GONE_LIMIT: Duration = Duration::from_secs(20);

/// The engine, its directories and its bridge. Everything goes when it is dropped.
pub struct PrivateEngine {
    root: tempfile::TempDir,
    kind: Kind,
    keeps_containers: bool,
    dockerd: Option<Child>,
}

/// Whose program it is, and on which network.
pub(super) enum Kind {
    /// This host's, on a bridge beside the others of this host.
    Own { bridge: String, driver: String },
    /// Another Debian's, whose root this is, in a network of its own.
    Other { debian: PathBuf, stores_in_containerd: bool },
}

impl PrivateEngine {
    /// An engine that has the images of some tags.
    pub fn start(tags: &[&str]) -> PrivateEngine {
        Self::with(false, tags)
    }

    /// One whose containers go on without it (`live-restore`).
    pub fn start_live_restoring(tags: &[&str]) -> PrivateEngine {
        Self::with(true, tags)
    }

    fn with(keeps_containers: bool, tags: &[&str]) -> PrivateEngine {
        let driver = output(Command::new("docker").args(["info", "--format", "{{.Driver}}"]));
        let kind = Kind::Own { bridge: make_bridge(), driver };
        let engine = Self::of(kind, keeps_containers);
        for tag in tags {
            engine.pull(&Fixture::get().image(tag));
        }
        engine
    }

    /// Any, without an image.
    pub(super) fn of(kind: Kind, keeps_containers: bool) -> PrivateEngine {
        // Short: the path of a Unix socket has 107 bytes.
        let root = tempfile::Builder::new().prefix("pr-eng-").tempdir_in("/var/tmp");
        let root = root.expect("a directory");
        let mut engine = PrivateEngine { root, kind, keeps_containers, dockerd: None };
        // The machine's own configuration is for the machine's own engine.
        let in_containerd = matches!(engine.kind, Kind::Other { stores_in_containerd: true, .. });
        let configuration =
            serde_json::json!({"features": {"containerd-snapshotter": in_containerd}});
        fs::write(engine.path("daemon.json"), configuration.to_string()).expect("a configuration");
        engine.start_again();
        engine
    }

    /// Has it pull an image.
    pub fn pull(&self, image: &str) {
        output(self.client().args(["pull", "--quiet", image]));
    }

    /// What its client prints.
    pub fn docker(&self, args: &[&str]) -> String {
        output(self.client().args(args))
    }

    /// The process that it runs in, and with it its network.
    pub fn pid(&self) -> u32 {
        self.dockerd.as_ref().expect("it runs").id()
    }

    /// The engine's socket; it stays the same when the engine is started again.
    pub fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command
    }

    /// Control group of its containers, by which their processes are known.
    fn cgroup(&self) -> String {
        let name = self.root.path().file_name().expect("it has a name");
        format!("payram-test-{}", name.display())
    }

    /// Starts it, with what it had. As its unit does, it starts it again when it gives up, as it
    /// does on a busy machine whose containerd takes more than its fifteen seconds.
    pub fn start_again(&mut self) {
        assert!(self.dockerd.is_none(), "it runs already");
        for _ in 1..START_TRIES {
            if self.try_start() {
                return;
            }
        }
        assert!(self.try_start(), "dockerd ended:\n{}", self.log());
    }

    /// Answers whether it came up.
    fn try_start(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.path("dockerd.log"));
        let log = log.expect("the engine's log");
        let mut command = self.program();
        command
            .arg("--config-file")
            .arg(self.path("daemon.json"))
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("dockerd.pid"))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .args(["--cgroup-parent", &format!("/{}", self.cgroup())])
            .args(["--insecure-registry", "127.0.0.0/8"])
            .arg(format!("--live-restore={}", self.keeps_containers))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            // Its containers are no business of the terminal's.
            .process_group(0);
        self.dockerd = Some(command.spawn().expect("dockerd starts"));
        let is_up = wait_until("the private engine answers", START_LIMIT, || {
            let dockerd = self.dockerd.as_mut().expect("it was started");
            if dockerd.try_wait().expect("the state of a child").is_some() {
                return Some(false);
            }
            let answer = Request::get("/_ping").to_socket(&self.socket()).ok()?;
            (answer.status == 200).then_some(true)
        });
        if !is_up {
            self.dockerd = None;
        }
        is_up
    }

    /// What is started, with the arguments that are its alone.
    fn program(&self) -> Command {
        match &self.kind {
            Kind::Own { bridge, driver } => {
                let mut command = Command::new("dockerd");
                command.args(["--bridge", bridge, "--storage-driver", driver]).args([
                    "--iptables=false",
                    "--ip-masq=false",
                    "--ip-forward=false",
                ]);
                command
            }
            Kind::Other { debian, .. } => {
                let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/start");
                let mut command = Command::new(start);
                command.arg(debian).arg(self.root.path()).arg(std::env::temp_dir());
                command
            }
        }
    }

    /// SIGTERM, as `systemctl stop docker` sends it, and until it has ended.
    pub fn stop(&mut self) {
        let mut dockerd = self.dockerd.take().expect("it runs");
        kill_process(Pid::from_child(&dockerd), Signal::TERM).expect("SIGTERM is sent");
        wait_until("dockerd ends", STOP_LIMIT, || dockerd.try_wait().expect("a child"));
        self.wait_for_its_containerd();
    }

    /// SIGKILL of dockerd alone. Its containers go on.
    pub fn kill(&mut self) {
        let mut dockerd = self.dockerd.take().expect("it runs");
        dockerd.kill().expect("SIGKILL is sent");
        dockerd.wait().expect("dockerd is gone");
        self.wait_for_its_containerd();
    }

    /// A containerd that lingers would keep the next engine's own from starting.
    fn wait_for_its_containerd(&self) {
        let config = self.path("exec/containerd/containerd.toml").display().to_string();
        wait_until("its containerd is gone", GONE_LIMIT, || {
            let found = processes().into_iter().any(|(_, command)| {
                command.starts_with("containerd\0") && command.contains(&config)
            });
            (!found).then_some(())
        });
    }

    /// What a power cut does: the engine, its containerd, shims and every process of every
    /// container are killed at once, and nothing that only memory holds is left: no mount, no
    /// runtime directory.
    pub fn power_cut(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            dockerd.kill().expect("SIGKILL is sent");
            dockerd.wait().expect("dockerd is gone");
        }
        wait_until("all of the engine is dead", GONE_LIMIT, || {
            let alive = self.alive();
            for pid in &alive {
                // One that is gone already is as good.
                kill_process(*pid, Signal::KILL).ok();
            }
            alive.is_empty().then_some(())
        });
        self.unmount_all();
        for gone in ["exec", "dockerd.pid", "docker.sock"] {
            let path = self.path(gone);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { remove(&path) };
            removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// Processes of its containers, and those that name its directories.
    fn alive(&self) -> Vec<Pid> {
        let root = self.root.path().display().to_string();
        let group = format!("/{}/", self.cgroup());
        let mut alive = Vec::new();
        for (pid, command) in processes() {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let is_dead = fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')));
            let is_ours = command.contains(&root) || groups.contains(&group);
            // The test itself may name them in its own arguments.
            if is_ours && !is_dead && pid != std::process::id() {
                alive.extend(i32::try_from(pid).ok().and_then(Pid::from_raw));
            }
        }
        alive
    }

    fn unmount_all(&self) {
        let root = self.root.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let mut places: Vec<&str> =
            mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        places.retain(|place| place.starts_with(&root));
        // What is mounted on another comes later.
        for place in places.into_iter().rev() {
            Command::new("umount").args(["--lazy", place]).output().expect("umount starts");
        }
    }

    /// What dockerd has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("dockerd.log")).unwrap_or_default()
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- dockerd ---\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.power_cut();
        if let Kind::Own { bridge, .. } = &self.kind {
            Command::new("ip").args(["link", "delete", bridge]).output().ok();
        }
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_group(&controller.path().join(self.cgroup()));
        }
        remove_group(&Path::new("/sys/fs/cgroup").join(self.cgroup()));
    }
}

/// A bridge with a network of its own; its name says which, so that no two are the same.
fn make_bridge() -> String {
    for number in 1..255 {
        let name = format!("payramtest{number}");
        let made = Command::new("ip").args(["link", "add", &name, "type", "bridge"]).output();
        if made.expect("ip starts").status.success() {
            let address = format!("10.213.{number}.1/24");
            output(Command::new("ip").args(["address", "add", &address, "dev", &name]));
            output(Command::new("ip").args(["link", "set", &name, "up"]));
            return name;
        }
    }
    panic!("no bridge could be made");
}

/// Every process with its command line, words apart by NUL.
fn processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&command).into_owned()))
        })
        .collect()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A control group has no files that could be removed, only groups.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).ok();
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
