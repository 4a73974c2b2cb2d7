//! One `supervisorctl` command inside the container, bounded in time and output.
//!
//! Called by [`super`]; understands nothing of what it says.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;

use crate::engine::{Engine, EngineError, ExecRequest, Frame};
use crate::error::Trouble;
use crate::machine::failure::{Failure, FailureCode};

/// Between two questions for the exit code of a command whose output has ended.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How much of what it prints is kept; far more than a list of programs.
const OUTPUT_LIMIT_BYTES: usize = 256 * 1024;

/// How much of what it prints is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// A command that came to its end.
#[derive(Debug)]
pub(super) struct Finished {
    pub exit_code: i64,
    /// What it printed, both streams.
    pub said: String,
}

impl Finished {
    /// What an engine, or a shell, says of a command that does not exist or can't be run.
    pub fn is_not_installed(&self) -> bool {
        matches!(self.exit_code, 126 | 127)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.said.trim();
        write!(f, "supervisorctl ended with {}", self.exit_code)?;
        if said.is_empty() {
            return f.write_str(" and said nothing");
        }
        write!(f, ": {}", shown(said))
    }
}

/// What a container printed, cut, on one line, and without control characters.
pub(super) fn shown(said: &str) -> String {
    let mut text = String::new();
    for c in said.chars().take(SHOWN_CHARS) {
        match c {
            '\n' => text.push_str(" / "),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

/// Runs `supervisorctl` with these arguments, each an argument of its own.
///
/// # Errors
/// `Unknown` when it did not end in time, otherwise what the engine met.
pub(super) async fn supervisorctl(
    engine: &dyn Engine,
    id: &str,
    arguments: &[String],
    within: Duration,
) -> Result<Finished, Trouble> {
    let mut argv = vec!["supervisorctl".to_owned()];
    argv.extend_from_slice(arguments);
    run_to_end(engine, id, argv, within).await
}

/// Runs a command, each word an argument of its own.
///
/// # Errors
/// As [`supervisorctl`].
pub(super) async fn run_to_end(
    engine: &dyn Engine,
    id: &str,
    argv: Vec<String>,
    within: Duration,
) -> Result<Finished, Trouble> {
    let command = argv.join(" ");
    match tokio::time::timeout(within, run(engine, id, argv)).await {
        Ok(Ok(finished)) => Ok(finished),
        Ok(Err(error)) => match not_installed(&error) {
            Some(finished) => Ok(finished),
            None => Err(error.into()),
        },
        Err(_elapsed) => Err(Trouble::Unknown(Failure::new(
            FailureCode::SupervisorctlFailed,
            format!("`{command}` in the container: no end within {within:?}"),
        ))),
    }
}

/// An engine that refuses to run a command which does not exist says so instead of an exit
/// code; to the caller it is the same.
fn not_installed(error: &EngineError) -> Option<Finished> {
    match error {
        EngineError::Refused { message, .. } if message.contains("executable file not found") => {
            Some(Finished { exit_code: 127, said: message.clone() })
        }
        EngineError::Refused { .. }
        | EngineError::Unreachable { .. }
        | EngineError::Unknown { .. }
        | EngineError::Protocol { .. } => None,
    }
}

async fn run(engine: &dyn Engine, id: &str, argv: Vec<String>) -> Result<Finished, EngineError> {
    let request = ExecRequest { argv, env: Vec::new(), user: None, stdin: false };
    let mut exec = engine.exec(id, request).await?;
    let mut said = Vec::new();
    while let Some(frame) = exec.output.next().await {
        let (Frame::Stdout(bytes) | Frame::Stderr(bytes)) = frame?;
        let room = OUTPUT_LIMIT_BYTES.saturating_sub(said.len());
        said.extend(bytes.iter().take(room));
    }
    loop {
        if let Some(exit_code) = engine.exec_exit_code(&exec.id).await? {
            let said = String::from_utf8_lossy(&said).into_owned();
            return Ok(Finished { exit_code, said });
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
