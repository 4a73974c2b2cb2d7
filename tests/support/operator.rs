//! What an operator asks and sees: plans and their checks, commands that are followed while
//! something is done beside them, and what is said at the end.

use std::fs::File;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Daemon, World, wait_until};

/// From the command to its end, and to each step before that.
const END_LIMIT: Duration = Duration::from_secs(240);

/// From the command to the end.
pub fn upgrade(world: &World, target: &str) -> Output {
    world.cli(&["run", "--to", target, "--yes"])
}

/// `dry-run --json`: its exit code and the plan.
pub fn plan(world: &World, target: &str) -> (Option<i32>, Value) {
    let plan = world.cli(&["dry-run", "--to", target, "--json"]);
    (plan.status.code(), serde_json::from_slice(&plan.stdout).expect("a plan"))
}

/// A check of a plan: whether it passed, and its sentence.
pub fn check<'p>(plan: &'p Value, name: &str) -> (bool, &'p str) {
    let checks = plan["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name}: {plan:#}"));
    (found["passed"] == true, found["message"].as_str().expect("a sentence"))
}

/// Asserts that the plan and the upgrade are refused alike, and that nothing was touched.
pub fn assert_refused(world: &World, target: &str, code: &str, name: &str, parts: &[&str]) {
    let before = identity(world);
    let (exit, plan) = plan(world, target);
    assert_eq!((exit, plan["failureCode"].as_str()), (Some(1), Some(code)), "{plan:#}");
    let (passed, why) = check(&plan, name);
    assert!(!passed, "{plan:#}");
    assert_parts(why, parts);
    let run = upgrade(world, target);
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    assert_parts(&said(&run), &[code]);
    assert_eq!(identity(world), before, "it was touched");
    println!("{name}: {why}");
}

/// Asserts that each part is said.
pub fn assert_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is said in: {text}");
    }
}

/// What a command printed.
pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// The container and when it was started: the same as long as nobody touched it.
pub fn identity(world: &World) -> (Value, Value) {
    let container = world.container().expect("a container");
    (container["Id"].clone(), container["State"]["StartedAt"].clone())
}

/// `inspect --json`
pub fn inspection(world: &World) -> Value {
    let inspected = world.cli(&["inspect", "--json"]);
    serde_json::from_slice(&inspected.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&inspected)))
}

/// Severities and sentences of what `inspect` found.
pub fn issues(report: &Value) -> Vec<String> {
    let issues = report["issues"].as_array().expect("issues");
    issues.iter().map(|issue| format!("{} {}", issue["severity"], issue["description"])).collect()
}

/// An upgrade that is followed in another process while the test does something.
pub struct Running<'w> {
    world: &'w World,
    child: Child,
}

impl<'w> Running<'w> {
    /// Begins it: `run --to TARGET --yes`.
    pub fn begin(world: &'w World, target: &str) -> Self {
        let log = File::create(world.path("run.log")).expect("a file");
        let child = world
            .updater(&["run", "--to", target, "--yes"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the product starts");
        Self { world, child }
    }

    /// Waits until this step is in hand.
    pub fn wait_step(&mut self, daemon: &Daemon, step: &str) {
        wait_until(&format!("{step} begins"), END_LIMIT, || {
            if self.child.try_wait().expect("a child").is_some() {
                panic!("it ended before {step}: {}\n{}", self.text(), daemon.log());
            }
            (daemon.status()["step"] == step).then_some(())
        });
    }

    /// Waits until it has stepped past this one.
    pub fn wait_for(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        wait_until(what, END_LIMIT, || {
            if self.child.try_wait().expect("a child").is_some() {
                panic!("it ended before that ({what}): {}", self.text());
            }
            is_so().then_some(())
        });
    }

    /// Its end, and all it printed.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status =
            wait_until("the command ends", END_LIMIT, || self.child.try_wait().expect("a child"));
        (status, self.text())
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.world.path("run.log")).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Most have ended by now.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
