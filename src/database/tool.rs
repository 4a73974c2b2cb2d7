//! One run of a PostgreSQL program, in the container or on this host: its output piece by
//! piece, its input from a file, its end, and the deadline over all of it.
//!
//! Made by [`super::Runner`]; read by the dump, the proofs and the readings. It keeps the last
//! of what the program said on standard error, and nothing else, so memory does not grow with
//! the database. It knows no failure code: [`ToolError::trouble`] is given the caller's.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

use crate::engine::{Engine, EngineError, Frame};
use crate::error::Trouble;
use crate::machine::failure::{Failure, FailureCode};
use crate::secret::Secret;

/// How long the engine may take to note the end of a command whose output has ended.
const END_NOTED_WITHIN: Duration = Duration::from_secs(10);

/// Between two questions for that end.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Bytes of standard error that are kept.
const STDERR_KEPT: usize = 8 * 1024;

/// Lines of standard error that a message quotes.
const STDERR_LINES: usize = 5;

/// How pg_restore says which object it was at.
pub(super) const ENTRY: &str = "from TOC entry ";

/// Bytes that are read from an input file at once.
const INPUT_PIECE: usize = 256 * 1024;

/// Exit codes of a shell that can't run a program, and of our own search for one.
const NOT_RUNNABLE: [i64; 2] = [126, 127];

/// Exit code of `timeout` (coreutils) when it ended the program.
const ENDED_BY_TIMEOUT: i64 = 124;

/// The programs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Psql,
    PgDump,
    PgRestore,
    PgWaldump,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::Psql => "psql",
            Tool::PgDump => "pg_dump",
            Tool::PgRestore => "pg_restore",
            Tool::PgWaldump => "pg_waldump",
        }
    }
}

/// Why a run did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// The engine would not, or may have.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// The program is not where it must run.
    #[error("{tool} can't be run {place}: {said}")]
    Missing { tool: &'static str, place: &'static str, said: String },
    /// This host or the connection did not play along.
    #[error("{tool}: {reason}")]
    Broken { tool: &'static str, reason: String },
    /// The file that was to be its input can't be read.
    #[error("{0}")]
    Input(String),
    /// Nothing may be asked: a pooler mixes sessions.
    #[error("{0}")]
    Pooled(String),
    /// It did not end in time.
    #[error("{tool} did not end within {} s{}", limit.as_secs(), after(said))]
    TimedOut { tool: &'static str, limit: Duration, said: String },
    /// It ended badly.
    #[error("{tool} ended with exit code {code}{}", after(said))]
    Ended { tool: &'static str, code: i64, said: String },
}

fn after(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// What servers and libpq say when the settings are wrong, not the moment.
const WRONG_SETTINGS: [&str; 7] = [
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "could not translate host name",
    "server does not support SSL",
    "FATAL:  database \"",
    "FATAL:  role \"",
];

impl ToolError {
    /// As the caller says it: `doing` and what was met, with one of the caller's codes. What
    /// the engine leaves uncertain stays uncertain.
    pub fn trouble(self, doing: &str, failed: FailureCode, timed_out: FailureCode) -> Trouble {
        let code = match &self {
            ToolError::TimedOut { .. } => timed_out,
            ToolError::Ended { said, .. }
                if WRONG_SETTINGS.iter().any(|words| said.contains(words)) =>
            {
                FailureCode::InvalidDbConfig
            }
            ToolError::Pooled(_) => FailureCode::InvalidDbConfig,
            ToolError::Engine(_)
            | ToolError::Missing { .. }
            | ToolError::Broken { .. }
            | ToolError::Input(_)
            | ToolError::Ended { .. } => failed,
        };
        let message = format!("{doing}: {self}");
        match self {
            ToolError::Engine(error) => match Trouble::from(error) {
                Trouble::Failed(failure) => Trouble::Failed(Failure::new(failure.code, message)),
                Trouble::Unknown(failure) => Trouble::Unknown(Failure::new(failure.code, message)),
            },
            ToolError::Missing { .. }
            | ToolError::Broken { .. }
            | ToolError::Input(_)
            | ToolError::Pooled(_)
            | ToolError::TimedOut { .. }
            | ToolError::Ended { .. } => Trouble::failed(code, message),
        }
    }
}

/// Who knows how the run ended.
pub(super) enum End<'a> {
    Exec { engine: &'a dyn Engine, id: String },
    // Killed when dropped.
    Host(Box<Child>),
}

/// A program that runs. Dropping it kills it on this host; in the container the search script's
/// `timeout` is what ends it for certain.
pub(super) struct Running<'a> {
    pub tool: Tool,
    pub output: BoxStream<'static, Result<Frame, ToolError>>,
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub end: End<'a>,
    pub deadline: Instant,
    pub limit: Duration,
    pub errors: Tail,
}

impl Running<'_> {
    /// The next piece of standard output, `None` at its end. Cancel safe.
    pub async fn stdout(&mut self) -> Result<Option<Bytes>, ToolError> {
        loop {
            match timeout_at(self.deadline, self.output.next()).await {
                Err(_) => return Err(self.timed_out()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(error),
                Ok(Some(Ok(Frame::Stdout(piece)))) => return Ok(Some(piece)),
                Ok(Some(Ok(Frame::Stderr(piece)))) => self.errors.push(&piece),
            }
        }
    }

    /// Writes all of its standard input at once: statements that it reads to their end before
    /// it answers. A program that stops reading early is fine; its exit code is what counts.
    pub async fn tell(&mut self, input: &[u8]) -> Result<(), ToolError> {
        let Some(mut stdin) = self.stdin.take() else { return Ok(()) };
        let told = async {
            if stdin.write_all(input).await.is_ok() {
                // As in `pour`.
                let _ = stdin.shutdown().await;
            }
        };
        timeout_at(self.deadline, told).await.map_err(|_| self.timed_out())
    }

    /// The error of a run whose time is over.
    pub fn timed_out(&self) -> ToolError {
        ToolError::TimedOut { tool: self.tool.name(), limit: self.limit, said: self.errors.text() }
    }

    /// All of standard output, at most `most` bytes.
    pub async fn collect(mut self, most: usize) -> Result<Vec<u8>, ToolError> {
        let mut all = Vec::new();
        while let Some(piece) = self.stdout().await? {
            if all.len() + piece.len() > most {
                return Err(ToolError::Broken {
                    tool: self.tool.name(),
                    reason: format!("it answered more than {most} bytes"),
                });
            }
            all.extend_from_slice(&piece);
        }
        self.finish().await?;
        Ok(all)
    }

    /// Writes a file to its standard input while `take` is given its output, until its output
    /// ends. A program that stops reading early is fine; its exit code is what counts.
    pub async fn feed(
        mut self,
        path: &Path,
        take: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), ToolError> {
        let stdin = self.stdin.take();
        {
            let mut feeding = pin!(pour(path, stdin));
            let mut is_fed = false;
            loop {
                tokio::select! {
                    fed = &mut feeding, if !is_fed => {
                        is_fed = true;
                        fed?;
                    }
                    piece = self.stdout() => match piece? {
                        Some(piece) => take(&piece),
                        None => break,
                    },
                }
            }
        }
        self.finish().await
    }

    /// The end of a run whose output has ended; good only with exit code 0.
    pub async fn finish(mut self) -> Result<(), ToolError> {
        let tool = self.tool.name();
        let (code, place) = match &mut self.end {
            End::Exec { engine, id } => (exec_end(*engine, id, tool).await?, "in the container"),
            End::Host(child) => {
                let ended = match timeout_at(self.deadline, child.wait()).await {
                    Ok(ended) => ended,
                    Err(_) => return Err(self.timed_out()),
                };
                let status =
                    ended.map_err(|error| ToolError::Broken { tool, reason: error.to_string() })?;
                // No code: ended by a signal, which a shell would say as more than 128.
                (status.code().map_or(128, i64::from), "on this host")
            }
        };
        match code {
            0 => Ok(()),
            ENDED_BY_TIMEOUT => Err(self.timed_out()),
            code if NOT_RUNNABLE.contains(&code) => {
                let said = match &self.errors.text() {
                    said if said.is_empty() => format!("exit code {code}"),
                    said => said.clone(),
                };
                Err(ToolError::Missing { tool, place, said })
            }
            code => Err(ToolError::Ended { tool, code, said: self.errors.text() }),
        }
    }
}

async fn exec_end(engine: &dyn Engine, id: &str, tool: &'static str) -> Result<i64, ToolError> {
    let deadline = Instant::now() + END_NOTED_WITHIN;
    loop {
        if let Some(code) = engine.exec_exit_code(id).await? {
            return Ok(code);
        }
        if Instant::now() >= deadline {
            return Err(ToolError::Engine(EngineError::Unknown {
                doing: format!("run {tool} in the container"),
                reason: format!(
                    "its output has ended and it still runs after {} s",
                    END_NOTED_WITHIN.as_secs()
                ),
            }));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Copies a file into a program. Only what concerns the file is an error.
async fn pour(
    path: &Path,
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
) -> Result<(), ToolError> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    let unreadable =
        |error: std::io::Error| ToolError::Input(format!("read {}: {error}", path.display()));
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut piece = vec![0; INPUT_PIECE];
    loop {
        let read = file.read(&mut piece).await.map_err(unreadable)?;
        let Some(part) = piece.get(..read).filter(|part| !part.is_empty()) else { break };
        if stdin.write_all(part).await.is_err() {
            return Ok(());
        }
    }
    // It may have gone already, having read all it wanted; the exit code tells.
    let _ = stdin.shutdown().await;
    Ok(())
}

/// The last of what a program said, without the database's password.
pub(super) struct Tail {
    kept: Vec<u8>,
    password: Secret<String>,
}

impl Tail {
    pub fn new(password: &Secret<String>) -> Self {
        Self { kept: Vec::new(), password: password.clone() }
    }

    fn push(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
        let over = self.kept.len().saturating_sub(STDERR_KEPT);
        self.kept.drain(..over);
    }

    /// The last lines, joined.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let first = lines.len().saturating_sub(STDERR_LINES);
        let mut quoted = lines.get(first..).unwrap_or_default().to_vec();
        // What pg_restore was at comes before a statement and its context, which may be long.
        let earlier = lines.get(..first).unwrap_or_default();
        quoted.splice(..0, earlier.iter().rev().copied().find(|line| line.contains(ENTRY)));
        let text = quoted.join("; ");
        match self.password.expose().as_str() {
            // A shorter one would take ordinary words out of the message and hides nothing.
            short if short.len() < 4 => text,
            password => text.replace(password, "***"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_quotes_the_last_lines_without_the_password() {
        let mut tail = Tail::new(&Secret::new("hunter22".into()));
        for line in 0..10_000 {
            tail.push(format!("line {line} hunter22\n").as_bytes());
        }
        assert!(tail.kept.len() <= STDERR_KEPT);
        assert_eq!(
            tail.text(),
            "line 9995 ***; line 9996 ***; line 9997 ***; line 9998 ***; line 9999 ***"
        );
    }

    #[test]
    fn wrong_credentials_are_a_matter_of_settings_and_an_engine_that_is_silent_is_unknown() {
        let ended = |said: &str| ToolError::Ended { tool: "psql", code: 2, said: said.into() };
        let code = |error: ToolError| {
            error
                .trouble("ask", FailureCode::BackupFailed, FailureCode::BackupTimeout)
                .into_failure()
                .code
        };
        assert_eq!(
            code(ended("FATAL:  password authentication failed for user \"payram\"")),
            FailureCode::InvalidDbConfig
        );
        assert_eq!(code(ended("Connection refused")), FailureCode::BackupFailed);
        let silent = ToolError::Engine(EngineError::Unknown {
            doing: "exec".into(),
            reason: "timed out".into(),
        });
        assert!(matches!(
            silent.trouble("ask", FailureCode::BackupFailed, FailureCode::BackupTimeout),
            Trouble::Unknown(_)
        ));
    }
}
