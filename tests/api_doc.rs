//! API.md is true: every `$ curl` in it is run, and answers what stands below it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon that never upgraded anything, and whose engine is not there.
struct Idle {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Idle {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let path = |name: &str| directory.path().join(name).display().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_payram-updater"))
            .arg("serve")
            .current_dir(directory.path())
            .env("STATE_DIR", path("state"))
            .env("RUN_DIR", path("run"))
            .env("UPDATER_PORT", port.to_string())
            .env("POLICY_URL", path("policy.json"))
            .env("RUNTIME_MANIFEST_URL", path("manifest.json"))
            .env("DOCKER_HOST", format!("unix://{}", path("no-engine.sock")))
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let idle = Self { child, port, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(30);
        while idle.shell("curl -s http://127.0.0.1:2567/health").is_empty() {
            assert!(Instant::now() < deadline, "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        idle
    }

    /// What a command of the document prints, asked of this daemon.
    fn shell(&self, command: &str) -> String {
        let command = command.replace("127.0.0.1:2567", &format!("127.0.0.1:{}", self.port));
        let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The commands of the document, each with what is written below it.
fn examples(document: &str) -> Vec<(String, String)> {
    document
        .split("```console\n")
        .skip(1)
        .filter_map(|block| block.split("\n```").next())
        .filter_map(|block| block.strip_prefix("$ ")?.split_once('\n'))
        .map(|(command, answer)| (command.to_owned(), answer.to_owned()))
        .collect()
}

#[test]
fn every_example_of_the_document_answers_what_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: every_example_of_the_document_answers_what_it_says needs curl");
        return;
    }
    let examples = examples(include_str!("../API.md"));
    assert!(examples.len() >= 12, "only {} examples were found", examples.len());
    let idle = Idle::start();
    for (command, expected) in examples {
        assert_eq!(idle.shell(&command), expected, "$ {command}");
    }
}

#[test]
fn every_failure_code_is_in_the_document_as_the_program_has_it() {
    use payram_updater::machine::failure::FailureCode;
    use payram_updater::plan::playbook::{Facts, playbook};
    let document = include_str!("../API.md");
    let (_, table) = document.split_once("## Failure codes").expect("the list");
    let written: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let text = |value: serde_json::Value| value.as_str().expect("a word").to_owned();
    let expected: Vec<String> = FailureCode::ALL
        .iter()
        .map(|code| {
            let book = serde_json::to_value(playbook(code.as_str(), &Facts::default()));
            let book = book.expect("plain data");
            let (severity, risk) = (text(book["severity"].clone()), text(book["dataRisk"].clone()));
            let title = text(book["title"].clone());
            format!("| `{code}` | `{severity}` | `{risk}` | {title} |")
        })
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn every_code_of_an_error_is_in_the_document() {
    let document = include_str!("../API.md");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let (mut ahead, mut checked) = (vec![root], 0);
    while let Some(place) = ahead.pop() {
        for entry in std::fs::read_dir(place).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                ahead.push(path);
                continue;
            }
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            for word in text.split('"').skip(1).step_by(2) {
                let is_code = word.len() > 8
                    && word.contains('_')
                    && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                // Names of settings and of the build are written like codes.
                let is_name = word.starts_with("ALLOWED_") || word.starts_with("CARGO_");
                if is_code && !is_name {
                    checked += 1;
                    let is_there = document.contains(&format!("`{word}`"));
                    assert!(is_there, "{word} of {}", path.display());
                }
            }
        }
    }
    assert!(checked > 20, "{checked}");
}
