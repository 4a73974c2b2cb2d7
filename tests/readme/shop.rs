//! The commands of the document on a make-believe engine, one after the other, in its order.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::README;
use crate::blocks::{Typed, commands, inline, program_words, without_what_varies};
use crate::support::sandbox::{scenario, updater, write_scenario};
use crate::support::{Daemon, Sandbox, free_port};

const INSTALLER: &str = include_str!("../../packaging/setup_payram_updater.sh");

/// A shop on 1.9.6 with a daemon: 1.9.7 is good, 2.0.0 breaks its migration.
struct Shop {
    port: u16,
    settings: BTreeMap<String, String>,
    _daemon: Daemon,
    _engine: Sandbox,
    root: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let releases = json!({
            "1.9.7": {"migration": {"schema": true}},
            "2.0.0": {"migration": {"schema": true, "fails": true}},
        });
        write_scenario(root.path(), &scenario(50, &releases));
        let engine = Sandbox::start(root.path());
        let port = free_port();
        let mut settings = engine.settings(root.path(), port);
        settings.insert("VERIFY_SECONDS".into(), "1".into());
        settings.insert("START_TIMEOUT_SECONDS".into(), "30".into());
        // It is turned on and off again, and must not begin in between.
        settings.insert("AUTO_UPDATE_WINDOW".into(), another_day().into());
        // Where it is without a setting, so that the document's paths are the test's.
        settings.insert("BACKUP_DIR".into(), "data/backups".into());
        let mut serve = updater(root.path());
        serve.arg("serve").envs(&settings);
        let mut daemon = Daemon::spawn(serve, port, &root.path().join("log"));
        daemon.wait_ready();
        Self { port, settings, _daemon: daemon, _engine: engine, root }
    }

    /// Runs it, with what only a terminal or this host lacks; its exit code and what it said.
    fn run(&self, words: &[&str], is_shown: bool) -> (Option<i32>, String) {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        for word in &mut words {
            if word == "FILE" {
                *word = self.newest_backup();
            }
        }
        let asks = ["run", "cancel", "cleanup", "recover"].contains(&&*words[0])
            || words.starts_with(&["backup".into(), "restore".into()]);
        let is_dry = words.iter().any(|word| word == "--dry-run");
        if asks && !is_dry && !words.contains(&"--yes".into()) {
            words.push("--yes".into());
        }
        if is_shown && !words.contains(&"--json".into()) {
            words.push("--text".into());
        }
        let mut command = updater(self.root.path());
        command.args(&words).envs(&self.settings).stdin(Stdio::null());
        if words.iter().any(|word| word == "-f") {
            return (Some(0), first_line(&mut command));
        }
        let output = command.output().expect("the program");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), self.as_installed(&String::from_utf8_lossy(&said)))
    }

    /// Asks the API of this shop's daemon, with what is behind it in a pipe.
    fn ask(&self, line: &str) -> (Option<i32>, String) {
        let here = line.replace("127.0.0.1:2567", &format!("127.0.0.1:{}", self.port));
        let output = Command::new("sh").args(["-c", &here]).output().expect("a shell");
        let said = [output.stdout, b"\n".to_vec(), output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Paths as they are where the program is installed.
    fn as_installed(&self, text: &str) -> String {
        let root = self.root.path().display().to_string();
        text.replace(&format!("{root}/engine/shop"), "/srv/payram")
            .replace(&format!("{root}/state"), "/var/lib/payram-updater")
            .replace(&format!("{root}/run"), "/run/payram-updater")
    }

    fn newest_backup(&self) -> String {
        let all = fs::read_dir(self.root.path().join("state/data/backups")).expect("backups");
        let names = all.map(|entry| entry.expect("an entry").file_name().into_string());
        let dumps = names.map(|name| name.expect("text")).filter(|name| name.ends_with(".dump"));
        dumps.max().expect("a backup")
    }
}

/// A day of the week that is neither today nor beside it.
fn another_day() -> &'static str {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    // 1970-01-01 was a Thursday.
    let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let today = usize::try_from(now.as_secs() / 86_400).expect("a day");
    days[(today + 3) % 7]
}

/// Of a command that goes on until it is ended.
fn first_line(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program");
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    child.kill().expect("it is running");
    child.wait().expect("its end");
    line
}

/// A restart needs systemd, and the make-believe PostgreSQL reads no backup and is not made anew.
fn is_for_a_machine(line: &str) -> bool {
    ["restart", "rehearse", "backup restore"]
        .iter()
        .any(|it| line.contains(&format!("payram-updater {it}")))
}

/// How the program's commands end in this shop, where it is not well.
fn exit_of(line: &str) -> i32 {
    match program_words(line).unwrap_or_default().as_slice() {
        // Nothing is under way.
        ["cancel", ..] => 1,
        _ => 0,
    }
}

/// What is checked of a command that is not the program's, or does not run here.
fn check_form(line: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_settable = |word: &&str| {
        let Some((key, _)) = word.split_once('=') else { return true };
        INSTALLER.contains(&format!("${{{key}:-"))
    };
    match words[0] {
        "curl" => {
            let url = words.iter().find(|word| word.starts_with("https://")).expect("a URL");
            let (base, file) = url.rsplit_once('/').expect("a path");
            assert!(INSTALLER.contains(base.trim_end_matches("/latest/download")), "{line}");
            assert_eq!(file, "setup_payram_updater.sh");
            assert!(words.iter().all(is_settable), "{line}");
        }
        "less" => assert!(root.join("packaging").join(words[1]).is_file(), "{line}"),
        "sudo" if words.contains(&"setup_payram_updater.sh") => {
            assert!(words.iter().all(is_settable), "{line}");
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let arm = format!("{flag})");
                let or = format!("{flag} |");
                assert!(INSTALLER.contains(&arm) || INSTALLER.contains(&or), "{line}");
            }
        }
        "systemctl" | "journalctl" => {
            assert!(words.contains(&"payram-updater"), "{line}");
            assert!(INSTALLER.contains("UNIT_NAME=payram-updater.service"));
        }
        "sudo" if words.get(1) == Some(&"apt") => {
            assert_eq!(words[2], "install", "{line}");
        }
        "cargo" => {
            // tests/demo.rs runs it.
            assert_eq!(words[..4], ["cargo", "run", "--release", "--"], "{line}");
            has_the_form_of_the_program(&words[4..]);
        }
        script => {
            let mode = fs::metadata(root.join(script)).expect(line).permissions().mode();
            assert!(mode & 0o111 != 0, "{line}");
        }
    }
}

/// The program's own command line takes it.
fn has_the_form_of_the_program(words: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_payram-updater"))
        .args(words)
        .arg("--help")
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "payram-updater {}: {said}", words.join(" "));
}

#[test]
fn every_command_of_the_readme_runs_and_shows_what_stands_below_it() {
    let shop = Shop::open();
    let all = commands(README);
    let (mut run, mut formed, mut compared, mut wrong) = (0, 0, 0, Vec::new());
    let mut has_failed = false;
    for Typed { section, line, shown } in &all {
        let words = program_words(line);
        if section == "When something is wrong" && !has_failed {
            // What that section is about.
            let (exit, said) = shop.run(&["run", "--to", "2.0.0"], false);
            assert_eq!(exit, Some(4), "{said}");
            has_failed = true;
        }
        if is_for_a_machine(line) {
            has_the_form_of_the_program(&words.expect("the program"));
            formed += 1;
            continue;
        }
        let (exit, said) = match (&words, shown) {
            (Some(words), _) => {
                has_the_form_of_the_program(words);
                shop.run(words, shown.is_some())
            }
            (None, Some(_)) if line.contains("http://127.0.0.1:2567/") => shop.ask(line),
            (None, Some(_)) => panic!("{section}: nothing runs `{line}` here"),
            (None, None) => {
                check_form(line);
                formed += 1;
                continue;
            }
        };
        run += 1;
        if exit != Some(exit_of(line)) {
            wrong.push(format!("{section}: `{line}` ended with {exit:?}:\n{said}"));
        }
        let Some(shown) = shown else { continue };
        compared += 1;
        if without_what_varies(shown) != without_what_varies(&said) {
            wrong.push(format!("{section}: `{line}` shows:\n{said}"));
        }
    }
    println!(
        "README.md: {} commands; {run} run, {formed} checked for their form, {compared} outputs compared",
        all.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run > 20 && formed > 10 && compared > 6, "{run} {formed} {compared}");
}

#[test]
fn every_command_in_the_text_of_the_readme_has_the_form_of_the_program() {
    let all = inline(README);
    for line in &all {
        has_the_form_of_the_program(&program_words(line).expect("the program"));
    }
    println!("README.md: {} commands in its text, all of the program's form", all.len());
    assert!(all.len() > 20, "{}", all.len());
}
