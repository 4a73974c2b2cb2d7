//! The demo keeps what it promises, fits on 80 columns and leaves nothing behind.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The demo in a temporary directory of its own, so that what it leaves behind shows.
fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payram-updater"));
    command.arg("demo").env_clear().env("TMPDIR", temporary).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
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

fn nothing_is_left(temporary: &Path) {
    let left: Vec<_> = fs::read_dir(temporary).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_of(temporary), Vec::<String>::new());
}

#[test]
fn the_demo_keeps_its_promises_on_80_columns_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let ran = demo(temporary.path()).output().expect("the demo starts");
    let out = String::from_utf8(ran.stdout).expect("text");
    assert_eq!(ran.status.code(), Some(0), "{out}\n{}", String::from_utf8_lossy(&ran.stderr));
    for expected in [
        "SIMULATED",
        "UPGRADE SUMMARY",
        "✔ Done  1.9.6 → 1.9.7",
        "↺ Rolled back, the old version serves  1.9.7 → 1.9.8",
        ">>> SIGKILL",
        "✔ Done  1.9.7 → 1.9.9",
        "✔ to 1.9.7: exit 0, VERIFIED, 1.9.7 serves",
        "✔ to 1.9.8: exit 4, ROLLED_BACK, 1.9.7 serves",
        "✔ to 1.9.9: exit 0, VERIFIED, 1.9.9 serves",
        "lost: 0",
    ] {
        assert!(out.contains(expected), "no {expected:?} in:\n{out}");
    }
    let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    nothing_is_left(temporary.path());
}

/// Waits until the demo has written this.
fn wait_for(child: &mut Child, text: &str) {
    let mut out = child.stdout.take().expect("it is piped");
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&read).contains(text) {
        let count = out.read(&mut piece).expect("the demo's output");
        assert!(count > 0, "it ended without {text:?}:\n{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..count]);
    }
    child.stdout = Some(out);
}

#[test]
fn an_interrupted_demo_takes_everything_with_it() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut child = demo(temporary.path()).stdout(Stdio::piped()).spawn().expect("the demo starts");
    wait_for(&mut child, "PULLED -> SWAPPED");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("SIGINT is sent");
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        match child.try_wait().expect("its state") {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "it does not end"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(130));
    nothing_is_left(temporary.path());
}
