//! What the integration tests share: which real things are there, and the worlds made of them.
//!
//! A test file says `mod support;`. A test that needs a real thing begins with
//! `if !require("docker") { return; }`; it is then skipped, and counted as skipped, where the
//! thing is missing, or fails there when `PAYRAM_TEST_REQUIRE` names it. [`World`] is a running
//! stand-in for PayRam (tests/fixtures/payram-image) and the daemon that upgrades it.

// Each test file compiles this module for itself and uses another part of it.
#![allow(dead_code, unused_imports)]

pub mod account;
pub mod builder;
pub mod clock;
pub mod container;
pub mod daemon;
pub mod disk;
pub mod draw;
pub mod external;
pub mod facts;
pub mod fixture;
pub mod http;
pub mod lanes;
pub mod ledger;
pub mod machine;
pub mod operator;
pub mod other_engine;
pub mod outage;
pub mod own_image;
pub mod private_engine;
pub mod registry;
pub mod sandbox;
pub mod settings;
pub mod sound;
pub mod trap;
pub mod unusual;
pub mod watch;
pub mod world;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use account::Account;
pub use daemon::Daemon;
pub use disk::SmallDisk;
pub use draw::Draw;
pub use fixture::Fixture;
pub use http::Answer;
pub use lanes::side_by_side;
pub use outage::Outage;
pub use own_image::OwnImage;
pub use private_engine::PrivateEngine;
pub use registry::SlowRegistry;
pub use sandbox::Sandbox;
pub use settings::{chosen, is_full, named_steps, setting};
pub use trap::{Point, Trap};
pub use world::World;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Fixed ports are chosen from here on, below the ephemeral ones.
const FIRST_PORT: u16 = 10_000;
/// How many ports there are to choose from.
const PORTS: u16 = 9_000;

/// Whether `what` (`docker`, `dockerd`, `postgres`, `root`, `faketime`, `ptrace`, `browser`,
/// `systemd`, `pgbouncer`, `engine-trixie`, `engine-sid`) is here.
///
/// Where it isn't, says so, appends the line to the file that `PAYRAM_TEST_SKIPS` names, and
/// returns false. Where it is, appends `WHAT TEST` to the file that `PAYRAM_TEST_USED` names.
///
/// # Panics
/// When it is missing and `PAYRAM_TEST_REQUIRE` (a list with commas) has it.
pub fn require(what: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    match present(what) {
        Ok(()) => {
            note("PAYRAM_TEST_USED", &format!("{what} {test}"));
            true
        }
        Err(why) => {
            let required = std::env::var("PAYRAM_TEST_REQUIRE").unwrap_or_default();
            if required.split(',').any(|one| one.trim() == what) {
                panic!("{test} needs {what}, which PAYRAM_TEST_REQUIRE asks for: {why}");
            }
            let line = format!("skipped: {test} needs {what}: {why}");
            println!("{line}");
            note("PAYRAM_TEST_SKIPS", &line);
            false
        }
    }
}

/// Whether the long run is asked for (`PAYRAM_TEST_FULL=1`), to which this whole test belongs.
/// Where it isn't, appends the test to the file that `PAYRAM_TEST_LEFT` names and returns false.
pub fn in_long_run() -> bool {
    let is_asked_for = is_full();
    if !is_asked_for {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("left to the long run: {test}");
        note("PAYRAM_TEST_LEFT", &test);
    }
    is_asked_for
}

/// `Ok` when the real thing is here, otherwise what is missing.
fn present(what: &str) -> Result<(), String> {
    match what {
        "docker" => Fixture::there().map(|_| ()).map_err(str::to_owned),
        "postgres" => match postgres_bin() {
            Some(_) => Ok(()),
            None => Err("no initdb and pg_dump below /usr/lib/postgresql".into()),
        },
        "root" => match rustix::process::geteuid().is_root() {
            true => Ok(()),
            false => Err("these tests don't run as root".into()),
        },
        "dockerd" => match ["dockerd", "ip"].into_iter().find(|program| !on_path(program)) {
            None => Ok(()),
            Some(program) => Err(format!("no {program} on the PATH")),
        },
        "faketime" => match clock::library() {
            Some(_) => Ok(()),
            None => Err("no libfaketime.so.1 below /usr/lib".into()),
        },
        "systemd" => match Path::new("/run/systemd/system").is_dir() {
            true => Ok(()),
            false => Err("systemd does not run here".into()),
        },
        "ptrace" => may_trace(),
        "pgbouncer" => match Path::new("/usr/sbin/pgbouncer").is_file() {
            true => Ok(()),
            false => Err("no pgbouncer in /usr/sbin".into()),
        },
        "engine-trixie" => other_engine::Suite::Trixie.root().map(drop),
        "engine-sid" => other_engine::Suite::Sid.root().map(drop),
        "browser" => match ["chromium", "chromium-browser", "firefox"].into_iter().find(on_path) {
            Some(_) => Ok(()),
            None => Err("no chromium or firefox on the PATH".into()),
        },
        other => panic!("require knows no '{other}'"),
    }
}

/// Whether a process of this one's may be traced: some containers forbid it.
fn may_trace() -> Result<(), String> {
    use nix::{sys::ptrace, unistd::Pid};
    let mut child =
        Command::new("sleep").arg("60").spawn().map_err(|error| format!("sleep: {error}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let seized = ptrace::seize(pid, ptrace::Options::empty());
    child.kill().and_then(|()| child.wait()).map_err(|error| format!("sleep: {error}"))?;
    seized.map_err(|error| format!("ptrace: {error}"))
}

/// The directory of the newest PostgreSQL server on this host.
pub fn postgres_bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|major| {
            let bin = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
            bin.join("initdb").is_file() && bin.join("pg_dump").is_file()
        })
        .max()
        .map(|major| format!("/usr/lib/postgresql/{major}/bin").into())
}

fn on_path(program: &&str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Appends a line to the file that an environment variable names, if it names one.
fn note(variable: &str, line: &str) {
    if let Some(path) = std::env::var_os(variable) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("open {}: {error}", Path::new(&path).display()));
        file.write_all(format!("{line}\n").as_bytes()).expect("a line in the test run's notes");
    }
}

/// Looks until `probe` has a value.
///
/// # Panics
/// With `what` when it has none within `limit`.
pub fn wait_until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// A port that nobody listens on and that no outgoing connection is given, so that it is still
/// free when a container comes back to it. No two test binaries that run are given the same one.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run side by side, with process ids side by side, begin far apart: a port
    // whose container is stopped for a moment looks free to the others.
    let start = u16::try_from(std::process::id() * 97 % u32::from(PORTS)).expect("less than PORTS");
    for _ in 0..PORTS {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        let port = FIRST_PORT + offset;
        if is_claimed(port) && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST_PORT} and {}", FIRST_PORT + PORTS);
}

/// Claims a port for as long as this process lives; false when another test binary has it.
fn is_claimed(port: u16) -> bool {
    let directory = std::env::temp_dir().join("payram-ports");
    let claim = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::File::create(directory.join(port.to_string())));
    match claim {
        Ok(file) => Box::leak(Box::new(file)).try_lock().is_ok(),
        // Made by another user: then the ports that are in use are all that is known.
        Err(_) => true,
    }
}
