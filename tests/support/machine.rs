//! A machine that boots systemd, as a container of the engine: what is installed and run on it is
//! what a person would install and run. The shop's directories and the engine's socket are mounted
//! in under their own paths, and so is the engine's client.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{World, wait_until};

/// From something that was done to what follows from it.
const SOON: Duration = Duration::from_secs(60);
const SCRIPT: &str = include_str!("../../packaging/setup_payram_updater.sh");

/// A container of the engine in which systemd runs. Removed when it is dropped.
pub struct Machine {
    /// The container's name.
    pub name: String,
}

impl Machine {
    /// Boots it, with this world's directories and engine under the same paths.
    pub fn boot(suite: &str, world: &World) -> Self {
        let make = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/systemd-machine/make");
        let made = Command::new(make).arg(suite).stderr(Stdio::inherit()).output().expect("make");
        assert!(made.status.success(), "the machine's image");
        let image = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let name = format!("{}-machine-{suite}", world.name);
        let root = world.path("").display().to_string();
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--name", &name, "--network", "host", "--cgroupns", "host"]);
        // What systemd needs to be the init of a container.
        run.args(["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"]);
        run.args(["--security-opt", "seccomp=unconfined", "--env", "container=docker"]);
        run.args(["--tmpfs", "/run", "--tmpfs", "/run/lock"]);
        run.args(["-v", "/sys/fs/cgroup:/sys/fs/cgroup"]);
        run.args(["-v", &format!("{root}:{root}")]);
        run.args(["-v", &format!("{}:/var/run/docker.sock", world.engine().display())]);
        if let Some(client) = client() {
            run.args(["-v", &format!("{client}:/usr/bin/docker:ro")]);
        }
        let output = run.args([&image, "/sbin/init"]).output().expect("docker");
        assert!(output.status.success(), "{}", said(&output));
        let machine = Self { name };
        machine.await_boot();
        machine
    }

    /// Waits until systemd says that it is up.
    pub fn await_boot(&self) {
        wait_until("the machine has booted", SOON, || {
            let state = self.run("systemctl is-system-running");
            matches!(state.0.trim(), "running" | "degraded").then_some(())
        });
    }

    /// What a command says, and whether it ended well.
    pub fn run(&self, line: &str) -> (String, bool) {
        let output = Command::new("docker").args(["exec", &self.name, "sh", "-c", line]).output();
        let output = output.expect("docker");
        (said(&output), output.status.success())
    }

    /// What a command says that must end well.
    #[track_caller]
    pub fn must(&self, line: &str) -> String {
        let (said, is_good) = self.run(line);
        assert!(
            is_good,
            "{line}:\n{said}\n{}",
            self.run("journalctl -u payram-updater | tail -n 40").0
        );
        said
    }

    /// What a command shows on a terminal on which this is typed.
    pub fn typed(&self, line: &str, keys: &str) -> (String, Option<i32>) {
        let line = format!("script -qec '{line}' /dev/null");
        let mut child = Command::new("docker")
            .args(["exec", "--interactive", "--env", "TERM=xterm", "--env", "NO_COLOR=1"])
            .args([&self.name, "sh", "-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker");
        let mut keyboard = child.stdin.take().expect("piped");
        keyboard.write_all(keys.as_bytes()).expect("typed");
        // Whoever hangs up ends what runs on the terminal.
        let mut shown = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut shown).expect("text");
        let status = child.wait().expect("an end");
        drop(keyboard);
        (shown.replace('\r', ""), status.code())
    }

    /// The upgrade that runs, or ran last; null where nobody answers.
    pub fn job(&self) -> Value {
        serde_json::from_str(&self.run("payram-updater status --json 2>/dev/null").0)
            .unwrap_or_default()
    }

    /// Waits until one of these steps is in hand.
    pub fn await_step(&self, steps: &[&str]) {
        wait_until(&format!("{steps:?}"), SOON * 2, || {
            let job = self.job();
            assert_ne!(job["state"], "FAILED", "{job:#}");
            steps.iter().any(|step| job["step"] == *step).then_some(())
        });
    }

    /// Waits for the end of the upgrade, which must be good.
    pub fn await_verified(&self, world: &World, version: &str) {
        wait_until(&format!("{version} is verified"), SOON * 3, || {
            let job = self.job();
            assert_ne!(job["state"], "FAILED", "{job:#}");
            (job["phase"] == "VERIFIED" && job["resolvedTarget"] == version).then_some(())
        });
        assert_eq!(world.version().as_deref(), Some(version));
    }

    /// What systemd says of the service.
    pub fn show(&self, property: &str) -> String {
        let line = format!("systemctl show payram-updater --value -p {property}");
        self.must(&line).trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        Command::new("docker").args(["rm", "--force", "--volumes", &self.name]).output().ok();
    }
}

/// The engine's client on this host, where it needs no library of it.
fn client() -> Option<String> {
    let found =
        Command::new("sh").args(["-c", "readlink -f $(command -v docker)"]).output().ok()?;
    let path = String::from_utf8(found.stdout).ok()?.trim().to_owned();
    let needs = Command::new("ldd").arg(&path).output().ok()?;
    (!needs.status.success()).then_some(path)
}

/// What a command printed.
pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part)).concat()
}

/// A release on loopback: the installer, which looks for releases there, this program and its
/// checksum. Its URL, as that of `releases/latest/download`.
pub fn release() -> String {
    let program = fs::read(env!("CARGO_BIN_EXE_payram-updater")).expect("the program");
    let sum: String = Sha256::digest(&program).iter().map(|byte| format!("{byte:02x}")).collect();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let script = SCRIPT.replace("https://github.com/PayRam/payram-updates/releases", &base);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap_or_default();
            let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
            let path = asked.split(' ').nth(1).unwrap_or_default();
            let (status, body): (_, &[u8]) = match path.rsplit('/').next().unwrap_or_default() {
                "setup_payram_updater.sh" => ("200 OK", script.as_bytes()),
                "payram-updater-linux-amd64.sha256" => ("200 OK", sum.as_bytes()),
                "payram-updater-linux-amd64" => ("200 OK", &program),
                _ => ("404 Not Found", b""),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
        }
    });
    format!("{base}/latest/download")
}
