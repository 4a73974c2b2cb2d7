//! A make-believe engine with a shop on 1.9.6, as a process, and the updater beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running sandbox. Killed when it is dropped.
pub struct Sandbox {
    child: Child,
    /// What it said of itself when it had started.
    pub said: Value,
}

impl Sandbox {
    /// Starts it on the scenario in a directory, and waits until it serves.
    pub fn start(directory: &Path) -> Self {
        let listen = format!("unix:{}", directory.join("docker.sock").display());
        let mut child = updater(directory)
            .args(["sandbox", "--state", "engine", "--scenario", "scenario.json"])
            .args(["--listen", &listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the sandbox starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, said }
    }

    /// The running process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Settings of an updater that works on it, with what it keeps in this directory.
    pub fn settings(&self, directory: &Path, port: u16) -> BTreeMap<String, String> {
        let at = |name: &str| directory.join(name).display().to_string();
        let said = |key: &str| self.said[key].as_str().expect("a text").to_owned();
        let settings = [
            ("UPDATER_PORT", port.to_string()),
            ("STATE_DIR", at("state")),
            ("RUN_DIR", at("run")),
            ("BACKUP_DIR", at("backups")),
            ("DOCKER_HOST", said("dockerHost")),
            ("POLICY_URL", said("policy")),
            ("RUNTIME_MANIFEST_URL", said("manifest")),
        ];
        settings.map(|(key, value)| (key.to_owned(), value)).into()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The product with nothing in its environment.
pub fn updater(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payram-updater"));
    command.env_clear().current_dir(directory).env("HOME", directory);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// A shop on 1.9.6, which takes `boot_ms` to start, and these other releases.
pub fn scenario(boot_ms: u64, releases: &Value) -> Value {
    let mut tags = json!({"1.9.6": {"bootMs": boot_ms}});
    let own = tags.as_object_mut().expect("an object");
    own.extend(releases.as_object().expect("releases by tag").clone());
    for release in own.values_mut() {
        let fields = release.as_object_mut().expect("an object");
        fields.entry("bootMs").or_insert(json!(50));
        fields.entry("pullMs").or_insert(json!(50));
    }
    json!({"running": "1.9.6", "payments": 100, "stopMs": 20, "tags": tags})
}

/// Writes the scenario that a sandbox in this directory starts with.
pub fn write_scenario(directory: &Path, scenario: &Value) {
    fs::write(directory.join("scenario.json"), scenario.to_string()).expect("a scenario");
}

/// What lies beside a database's directory, itself included, and the copies of it above, as far
/// as the container's mount and one directory further; as paths from there, sorted.
pub fn beside_the_database(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.parent().expect("a directory")).expect("a listing");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut up = String::new();
    for directory in data.ancestors().skip(2).take(2) {
        up.push_str("../");
        let entries = fs::read_dir(directory).expect("a listing").map(|one| one.expect("an entry"));
        let above = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let copies = above.filter(|name| name.contains(".payram-restore-"));
        names.extend(copies.map(|name| format!("{up}{name}")));
    }
    names.sort();
    names
}

/// Containers that were started on a data directory on which another one ran (I2), as the
/// sandbox in this directory noted them.
pub fn two_at_once(directory: &Path) -> String {
    fs::read_to_string(directory.join("engine/two-at-once.log")).unwrap_or_default()
}

/// Arguments of a command whose output the tests read as a person would: `run`, `watch` and
/// `recover` write JSON into a pipe unless they are told otherwise.
pub fn as_text<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = arguments.to_vec();
    let is_one = matches!(all.first(), Some(&("run" | "watch" | "recover")));
    let says_how = ["--json", "--text", "--detach", "--dry-run", "--help"];
    if is_one && !all.iter().any(|one| says_how.contains(one)) {
        all.push("--text");
    }
    all
}
