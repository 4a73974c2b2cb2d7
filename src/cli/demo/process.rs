//! Child processes of the demo, and questions to those that listen on a socket.
//!
//! Called by `stage` and by both engines behind it.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

use super::Fault;

/// How long a child process may take until it is ready.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long one question may take.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at something that is waited for.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Settings of this process that its children keep.
const INHERITED: [&str; 6] = ["PATH", "TERM", "LANG", "LC_ALL", "NO_COLOR", "COLORTERM"];

/// A child in a process group of its own, so that Ctrl-C reaches this process alone, which
/// then takes everything down in order.
pub(super) fn child(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().process_group(0).kill_on_drop(true);
    for key in INHERITED {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command
}

/// One request over a Unix socket, and the JSON that it is answered with; null for none.
pub(super) async fn ask(socket: &Path, method: Method, path: &str) -> Result<Value, Fault> {
    let client = crate::http::client_builder()
        .unix_socket(socket)
        .timeout(ASK_WITHIN)
        .build()
        .map_err(|error| Fault::new(crate::http::reason(&error)))?;
    let request = client.request(method, format!("http://localhost{path}"));
    let failed = |error: reqwest::Error| {
        Fault::new(format!("{} {path}: {}", socket.display(), crate::http::reason(&error)))
    };
    let response = request.send().await.and_then(reqwest::Response::error_for_status);
    let text = response.map_err(failed)?.text().await.map_err(failed)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|error| Fault::new(format!("{path}: {error}")))
}
