//! The demo on both engines keeps what it promises, fits on 80 columns and leaves nothing
//! behind, whenever it is interrupted; where it can't be shown it says what is missing.
//!
//! The moments of the interruptions are drawn by a seed that is printed and that
//! `PAYRAM_DEMO_SEED` sets; `PAYRAM_DEMO_MOMENTS` says how many there are on each engine.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Draw, require, setting, wait_until};

/// From a signal to the end of the demo, and of all that it killed.
const END_LIMIT: Duration = Duration::from_secs(120);
/// Every demo says at least so many lines before it ends.
const LINES: usize = 120;
/// The longest pause between a line and the signal.
const PAUSE_MS: usize = 1500;
/// Somebody who is nobody.
const NOBODY: u32 = 65534;

const PROMISES: [&str; 10] = [
    "UPGRADE SUMMARY",
    "✔ Done  1.9.6 → 1.9.7",
    "↺ Rolled back: 1.9.7 serves, 9.0.4 failed",
    ">>> SIGKILL",
    ">>> nothing serves",
    "✔ Done  1.9.7 → 1.9.8",
    "✔ to 1.9.7: exit 0, VERIFIED, 1.9.7 serves",
    "✔ to 9.0.4: exit 4, ROLLED_BACK, 1.9.7 serves",
    "✔ to 1.9.8: exit 0, VERIFIED, 1.9.8 serves",
    "lost: 0",
];

/// The demo in a temporary directory of its own, so that what it leaves behind shows.
fn demo(engine: &str, temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payram-updater"));
    command.args(["demo", "--engine", engine]).env_clear().env("TMPDIR", temporary);
    for inherited in ["PATH", "HOME", "DOCKER_HOST", "PAYRAM_FIXTURE_DIR"] {
        if let Some(value) = std::env::var_os(inherited) {
            command.env(inherited, value);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Command lines of processes that work in a directory or name it.
fn processes_of(directory: &Path) -> Vec<String> {
    let named = directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let works_there =
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if works_there || line.contains(&named) {
            found.push(line.replace('\0', " "));
        }
    }
    found
}

/// Names of containers, running or not, that mount something below a directory.
fn containers_on(directory: &Path) -> Vec<String> {
    let ids = docker(&["ps", "--all", "--quiet", "--no-trunc"]);
    let format = "{{.Name}} {{range .Mounts}}{{.Source}} {{end}}";
    let mut found = Vec::new();
    for id in ids.lines() {
        // Another test's may be gone by now.
        let mounts = docker(&["inspect", "--format", format, id]);
        if mounts.contains(&*directory.to_string_lossy()) {
            found.push(mounts);
        }
    }
    found
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn nothing_is_left(engine: &str, temporary: &Path) {
    let left: Vec<_> = fs::read_dir(temporary).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    // A process that was killed takes a moment to be gone.
    wait_until("no process is left", END_LIMIT, || {
        processes_of(temporary).is_empty().then_some(())
    });
    if engine == "docker" {
        assert_eq!(containers_on(temporary), Vec::<String>::new());
    }
}

fn shown_whole(engine: &str, real_or_not: &str) {
    let temporary = tempfile::tempdir().expect("a directory");
    let ran = demo(engine, temporary.path()).output().expect("the demo starts");
    let out = String::from_utf8(ran.stdout).expect("text");
    assert_eq!(ran.status.code(), Some(0), "{out}\n{}", String::from_utf8_lossy(&ran.stderr));
    for expected in PROMISES.iter().chain([&real_or_not]) {
        assert!(out.contains(expected), "no {expected:?} in:\n{out}");
    }
    let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    assert!(!out.contains('\x1b'), "colours in a pipe:\n{out}");
    assert!(out.lines().count() > LINES, "{} lines", out.lines().count());
    nothing_is_left(engine, temporary.path());
}

#[test]
fn the_demo_keeps_its_promises_on_80_columns_and_leaves_nothing_behind() {
    shown_whole("sandbox", "SIMULATED");
}

#[test]
fn the_demo_on_a_real_engine_keeps_the_same_promises_and_leaves_nothing_behind() {
    if !require("docker") || !require("root") {
        return;
    }
    shown_whole("docker", "STAND-INS");
}

/// A moment in each part of the demo: after how many lines, and how much later.
fn moments(engine: &str, default: usize) -> Vec<(usize, Duration)> {
    let count = setting("PAYRAM_DEMO_MOMENTS").unwrap_or(default);
    let mut draw = Draw::seeded("PAYRAM_DEMO_SEED", &format!("{count} moments on {engine}"));
    let drawn: Vec<_> = (0..count)
        .map(|part| {
            let line = part * LINES / count + draw.below((LINES / count).max(1));
            (line, Duration::from_millis(draw.below(PAUSE_MS) as u64))
        })
        .collect();
    println!("{engine}: {drawn:?}");
    drawn
}

/// Waits until the demo has written so many lines. The rest is for [`Child::wait`].
fn wait_for_line(child: &mut Child, line: usize) {
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut read = String::new();
    for _ in 0..line {
        let count = out.read_line(&mut read).expect("the demo's output");
        assert!(count > 0, "it ended before line {line}:\n{read}");
    }
    // Read on, so that it never waits for a reader.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
}

fn interrupted_at(engine: &str, line: usize, pause: Duration, signal: Signal) {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = demo(engine, temporary.path());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo starts");
    // Before its first line it listens to no signal yet.
    wait_for_line(&mut child, line.max(1));
    // Any moment will do: this is not a wait for something.
    std::thread::sleep(pause);
    kill_process(Pid::from_child(&child), signal).expect("a signal is sent");
    let status = wait_until("the demo ends", END_LIMIT, || child.try_wait().expect("its state"));
    let mut said = String::new();
    let mut error = child.stderr.take().expect("it is piped");
    std::io::Read::read_to_string(&mut error, &mut said).expect("text");
    let moment = format!("line {line}, {pause:?} later: {said}");
    assert_eq!(status.code(), Some(130), "{moment}");
    assert!(said.contains("demo interrupted, everything was removed"), "{moment}");
    nothing_is_left(engine, temporary.path());
}

#[test]
fn a_demo_that_is_interrupted_at_any_moment_takes_everything_with_it() {
    let running: Vec<_> = moments("sandbox", 6)
        .into_iter()
        .zip([Signal::INT, Signal::TERM].into_iter().cycle())
        .map(|((line, pause), signal)| {
            std::thread::spawn(move || interrupted_at("sandbox", line, pause, signal))
        })
        .collect();
    running.into_iter().for_each(|one| one.join().expect("nothing is left"));
}

#[test]
fn a_demo_on_a_real_engine_that_is_interrupted_at_any_moment_takes_everything_with_it() {
    if !require("docker") || !require("root") {
        return;
    }
    let signals = [Signal::INT, Signal::TERM].into_iter().cycle();
    for ((line, pause), signal) in moments("docker", 3).into_iter().zip(signals) {
        interrupted_at("docker", line, pause, signal);
    }
}

/// What a demo that can't be shown says; it changes nothing.
fn refused(command: &mut Command, temporary: &Path) -> String {
    let ran: Output = command.output().expect("the demo starts");
    let error = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{error}");
    assert!(ran.stdout.is_empty(), "{}", String::from_utf8_lossy(&ran.stdout));
    nothing_is_left("sandbox", temporary);
    error
}

#[test]
fn without_root_the_demo_on_a_real_engine_says_that_it_needs_root() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = demo("docker", temporary.path());
    if rustix::process::geteuid().is_root() {
        // Where nobody in particular may read it.
        let place = tempfile::tempdir().expect("a directory");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let program = place.path().join("payram-updater");
        fs::copy(env!("CARGO_BIN_EXE_payram-updater"), &program).expect("a copy");
        let mut nobodys = Command::new(&program);
        nobodys.args(["demo", "--engine", "docker"]).env_clear().current_dir("/");
        let error = refused(nobodys.uid(NOBODY).gid(NOBODY), temporary.path());
        assert!(error.contains("--engine docker needs root"), "{error}");
        return;
    }
    let error = refused(&mut command, temporary.path());
    assert!(error.contains("--engine docker needs root"), "{error}");
}

#[test]
fn without_an_engine_that_answers_the_demo_says_where_it_looked() {
    if !require("root") {
        return;
    }
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = demo("docker", temporary.path());
    let error = refused(command.env("DOCKER_HOST", "unix:///no/such.sock"), temporary.path());
    assert!(error.contains("needs a Docker engine that answers"), "{error}");
    assert!(error.contains("unix:///no/such.sock"), "{error}");
}

#[test]
fn without_the_images_the_demo_says_what_makes_them() {
    if !require("docker") || !require("root") {
        return;
    }
    let temporary = tempfile::tempdir().expect("a directory");
    let elsewhere: PathBuf = tempfile::tempdir().expect("a directory").keep();
    let mut command = demo("docker", temporary.path());
    let error = refused(command.current_dir(&elsewhere), temporary.path());
    assert!(error.contains("a clone of payram-updater"), "{error}");
    assert!(error.contains("tests/run --only-prepare"), "{error}");

    let mut command = demo("docker", temporary.path());
    let error = refused(command.env("PAYRAM_FIXTURE_DIR", &elsewhere), temporary.path());
    assert!(error.contains("not built yet"), "{error}");
    let make = format!("{}/tests/run --only-prepare", env!("CARGO_MANIFEST_DIR"));
    assert!(error.contains(&make), "{error}");
    fs::remove_dir_all(&elsewhere).expect("it goes");
}

#[test]
fn a_demo_has_no_json() {
    let temporary = tempfile::tempdir().expect("a directory");
    let ran = demo("sandbox", temporary.path()).arg("--json").output().expect("it starts");
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("NO_JSON"));
}
