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
