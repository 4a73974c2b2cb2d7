//! Watches that no two containers run on one database directory (invariant I2).
//!
//! Asks the engine ten times a second. What falls between two looks is caught by the stand-in
//! itself: its PostgreSQL runs under a lock that all containers on the directory see, and it
//! leaves a note when it finds the lock taken.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http::Request;

/// How often the engine is asked.
const EVERY: Duration = Duration::from_millis(100);

/// A thread that watches one directory.
pub struct Watcher {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watcher {
    /// Starts to watch the containers of an engine that mount `directory`.
    pub fn start(directory: &Path, engine: &Path) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (directory, engine) = (directory.to_owned(), engine.to_owned());
        let thread = std::thread::spawn(move || watch(&directory, &engine, &stopped));
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// Ends the watch: one line for each look that saw two or more running.
    pub fn finish(&mut self) -> Vec<String> {
        drop(self.stop.take());
        let thread = self.thread.take().expect("a watch is ended once");
        thread.join().expect("the watch went on to its end")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.finish();
        }
    }
}

fn watch(directory: &Path, engine: &Path, stopped: &mpsc::Receiver<()>) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        // An engine that is being restarted can't be asked; nothing new runs then either.
        let running = running_on(directory, engine).unwrap_or_default();
        if running.len() > 1 {
            seen.push(format!("running at once on {}: {running:?}", directory.display()));
        }
        match stopped.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return seen,
        }
    }
}

/// Names of the running containers that mount a directory of the host; none when the engine
/// can't be asked.
pub fn running_on(directory: &Path, engine: &Path) -> Option<Vec<String>> {
    let filters = serde_json::json!({"volume": [directory], "status": ["running", "paused"]});
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("filters", &filters.to_string())
        .finish();
    let answer = Request::get(&format!("/containers/json?{query}")).to_socket(engine).ok()?;
    let containers = answer.json();
    Some(
        containers
            .as_array()?
            .iter()
            .map(|container| container["Names"][0].to_string().trim_matches(['"', '/']).to_owned())
            .collect(),
    )
}

/// The socket of the machine's engine.
pub fn engine() -> PathBuf {
    std::env::var("DOCKER_HOST")
        .ok()
        .and_then(|host| host.strip_prefix("unix://").map(PathBuf::from))
        .unwrap_or_else(|| "/var/run/docker.sock".into())
}
