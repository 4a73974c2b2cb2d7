//! Runs PostgreSQL's programs against one database: inside its container through the engine,
//! or as processes of this host when the database is elsewhere.
//!
//! Every parameter of the connection, the password above all, travels in the environment and
//! never in an argument (I10). Called by everything else in this module; decides only where
//! and with what a program runs.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::AsyncWrite;
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};
use tokio_util::io::ReaderStream;

use super::locate::{Access, Database};
use super::pooler;
use super::tool::{End, Running, Tail, Tool, ToolError};
use crate::engine::{Engine, EngineError, ExecRequest, Frame};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;
use crate::secret::Secret;

/// Finds and runs a program; the same inside the container and on this host.
const FIND_TOOL: &str = include_str!("find_tool.sh");

/// Seconds that a connection to the server may take.
const CONNECT_SECONDS: &str = "10";

/// How long this host may take to say whether it knows the database's host.
const LOOKUP_WITHIN: Duration = Duration::from_secs(5);

/// How long a small reading may take.
pub(super) const READING_TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer than our own deadline a program may run inside the container: our deadline
/// comes first and says why.
const INSIDE_GRACE: Duration = Duration::from_secs(5);

/// Bytes of an answer of `psql` that are read at most; a schema's definitions fit many times.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Bytes that are read at once from a process of this host.
const OUTPUT_PIECE: usize = 128 * 1024;

/// Runs PostgreSQL's programs against one database.
#[derive(Clone, Copy)]
pub struct Runner<'a> {
    engine: &'a dyn Engine,
    container_id: &'a str,
    database: &'a Database,
}

/// A program to run.
pub(super) struct Run<'r> {
    pub tool: Tool,
    pub arguments: Vec<String>,
    /// The database to connect to; none for the application's.
    pub database: Option<&'r str>,
    /// What the server shows as the session's application.
    pub application: &'r str,
    /// Whether its standard input is written.
    pub stdin: bool,
    pub timeout: Duration,
    /// Where the program is taken from, if it is there; none for whichever is found.
    pub programs: Option<&'r str>,
}

impl<'a> Runner<'a> {
    /// A runner for the database of this container.
    pub fn new(engine: &'a dyn Engine, container_id: &'a str, database: &'a Database) -> Self {
        Self { engine, container_id, database }
    }

    /// The database that it is for.
    pub(super) fn database(&self) -> &'a Database {
        self.database
    }

    /// Starts a program, unless what it would set for itself would stay with the application.
    pub(super) async fn start(&self, run: Run<'_>) -> Result<Running<'a>, ToolError> {
        let connects = !matches!(run.tool, Tool::PgWaldump) && !reads_a_file(&run);
        if self.database.access == Access::OnHost && connects {
            self.must_keep_sessions_apart().await?;
        }
        self.start_at_once(run).await
    }

    /// Refuses where a pooler would have what we set be in force for the application.
    async fn must_keep_sessions_apart(&self) -> Result<(), ToolError> {
        let mixes = match pooler::known(self.database) {
            Some(mixes) => mixes,
            None => {
                let mixes = self.mixes_sessions().await?;
                pooler::note(self.database, mixes);
                mixes
            }
        };
        match mixes {
            true => Err(ToolError::Pooled(pooler::sentence(self.database))),
            false => Ok(()),
        }
    }

    async fn mixes_sessions(&self) -> Result<bool, ToolError> {
        for _ in 0..pooler::ROUNDS {
            let [set, whose] = pooler::marking(&unique("m"));
            let first = self.bare_session(&[&set, &whose]).await?;
            let Some(look) = pooler::looking(&first) else { return Ok(false) };
            let second = self.bare_session(&[&look]).await?;
            if let Some(mixes) = pooler::verdict(&second) {
                return Ok(mixes);
            }
        }
        Ok(false)
    }

    /// A session that sets nothing for itself.
    async fn bare_session(&self, statements: &[&str]) -> Result<String, ToolError> {
        let run = reading(None, &[], READING_TIMEOUT);
        let arguments = statements.iter().flat_map(|one| ["-c".to_owned(), (*one).to_owned()]);
        let mut run = Run { arguments: BARE.map(String::from).into(), ..run };
        run.arguments.extend(arguments);
        let answer = self.start_at_once(run).await?.collect(LARGEST_ANSWER).await?;
        Ok(readable(&answer))
    }

    /// Starts a program.
    pub(super) async fn start_at_once(&self, run: Run<'_>) -> Result<Running<'a>, ToolError> {
        let deadline = Instant::now() + run.timeout;
        let (output, stdin, end) = match self.database.access {
            Access::InContainer => {
                let request = ExecRequest {
                    argv: argv(&run, (run.timeout + INSIDE_GRACE).as_secs().max(1)),
                    env: self.environment(&run),
                    user: None,
                    stdin: run.stdin,
                };
                let started = self.engine.exec(self.container_id, request);
                let exec = match timeout_at(deadline, started).await {
                    Ok(started) => started?,
                    Err(_) => {
                        return Err(ToolError::Engine(EngineError::Unknown {
                            doing: format!("start {} in the container", run.tool.name()),
                            reason: format!("no answer within {} s", run.timeout.as_secs()),
                        }));
                    }
                };
                let output = exec.output.map(|frame| frame.map_err(ToolError::Engine)).boxed();
                (output, exec.stdin, End::Exec { engine: self.engine, id: exec.id })
            }
            Access::OnHost => {
                let address = self.address().await;
                self.spawn(&run, address)?
            }
        };
        Ok(Running {
            tool: run.tool,
            output,
            stdin,
            end,
            deadline,
            limit: run.timeout,
            errors: Tail::new(&self.database.password),
        })
    }

    /// The address of a host that only the container's networks know by name: another container of
    /// theirs, which this host reaches all the same. None where this host knows the name.
    async fn address(&self) -> Option<IpAddr> {
        let (host, port) = (self.database.host.as_str(), self.database.port);
        if host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let known = tokio::net::lookup_host((host, port));
        let known = tokio::time::timeout(LOOKUP_WITHIN, known).await;
        if known.is_ok_and(|known| known.is_ok_and(|mut found| found.next().is_some())) {
            return None;
        }
        super::peers::address_of(self.engine, self.container_id, host).await
    }

    fn spawn(&self, run: &Run<'_>, address: Option<IpAddr>) -> Result<Started<'a>, ToolError> {
        let tool = run.tool.name();
        let broken = |reason: String| ToolError::Broken { tool, reason };
        // No limit from inside: the shell becomes the program, and dropping it kills it.
        let argv = argv(run, 0);
        let mut words = argv.iter();
        let program = words.next().map_or("sh", String::as_str);
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .stdin(if run.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Where libpq looks for certificates.
        if let Some(home) = std::env::var_os("HOME") {
            command.env("HOME", home);
        }
        for (key, value) in self.environment(run) {
            command.env(key, value.expose());
        }
        if let Some(address) = address {
            // The search takes the variable of this name for the container's own.
            command.env("PAYRAM_HOSTADDR", address.to_string());
        }
        let mut child =
            command.spawn().map_err(|error| broken(format!("start it on this host: {error}")))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(broken("its output is not connected".into()));
        };
        let unread = move |error: std::io::Error| ToolError::Broken {
            tool,
            reason: format!("read its output: {error}"),
        };
        let stdout = ReaderStream::with_capacity(stdout, OUTPUT_PIECE)
            .map(move |piece| piece.map(Frame::Stdout).map_err(unread));
        let stderr = ReaderStream::with_capacity(stderr, OUTPUT_PIECE)
            .map(move |piece| piece.map(Frame::Stderr).map_err(unread));
        let stdin =
            child.stdin.take().map(|stdin| Box::new(stdin) as Box<dyn AsyncWrite + Send + Unpin>);
        Ok((stream::select(stdout, stderr).boxed(), stdin, End::Host(Box::new(child))))
    }

    /// How libpq is told where to connect (PostgreSQL manual, section 34.15).
    fn environment(&self, run: &Run<'_>) -> Vec<(String, Secret<String>)> {
        let database = self.database;
        let mut environment = vec![
            ("LC_ALL", "C".to_owned()),
            ("PGHOST", database.host.clone()),
            ("PGPORT", database.port.to_string()),
            ("PGUSER", database.user.clone()),
            ("PGDATABASE", run.database.unwrap_or(&database.name).to_owned()),
            ("PGCONNECT_TIMEOUT", CONNECT_SECONDS.to_owned()),
            ("PGAPPNAME", run.application.to_owned()),
        ];
        if let Some(programs) = run.programs {
            environment.push(("PAYRAM_UPDATER_PROGRAMS", programs.to_owned()));
        }
        if let Some(mode) = &database.sslmode {
            environment.push(("PGSSLMODE", mode.clone()));
        }
        if !database.password.expose().is_empty() {
            environment.push(("PGPASSWORD", database.password.expose().clone()));
        }
        environment.into_iter().map(|(key, value)| (key.into(), Secret::new(value))).collect()
    }

    /// What these statements answer, each sent on its own in one session; it stops at the
    /// first that fails. Rows are lines, columns are parted by `|`.
    pub(super) async fn psql(
        &self,
        database: Option<&str>,
        statements: &[&str],
        timeout: Duration,
    ) -> Result<String, ToolError> {
        let running = self.start(reading(database, statements, timeout)).await?;
        let answer = running.collect(LARGEST_ANSWER).await?;
        Ok(readable(&answer).trim_end_matches('\n').to_owned())
    }

    /// The same in a session that others are told from by its application's name.
    pub(super) async fn psql_as(
        &self,
        application: &str,
        database: &str,
        statements: &[&str],
        timeout: Duration,
    ) -> Result<String, ToolError> {
        let run = Run { application, ..reading(Some(database), statements, timeout) };
        let answer = self.start(run).await?.collect(LARGEST_ANSWER).await?;
        Ok(readable(&answer).trim_end_matches('\n').to_owned())
    }

    /// The same in the database's own encoding, byte for byte.
    pub(super) async fn exact(
        &self,
        statements: &[&str],
        timeout: Duration,
    ) -> Result<Vec<u8>, ToolError> {
        self.start(exact(statements, timeout)).await?.collect(LARGEST_ANSWER).await
    }

    /// The same, with a last statement that is in this encoding too, and an answer that is taken
    /// piece by piece.
    pub(super) async fn begin_exact(
        &self,
        statements: &[&str],
        last: &[u8],
        timeout: Duration,
    ) -> Result<Running<'a>, ToolError> {
        let mut running = self.start(with_input(exact(statements, timeout))).await?;
        running.tell(last).await?;
        Ok(running)
    }

    /// The same, with further statements from a file; `take` is given the answer.
    pub(super) async fn exact_of_file(
        &self,
        statements: &[&str],
        path: &Path,
        timeout: Duration,
        take: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), ToolError> {
        self.start(with_input(exact(statements, timeout))).await?.feed(path, take).await
    }

    /// Ends the sessions of a program that was given up. Inside the container the program
    /// itself may live on; without its session it ends.
    pub(super) async fn end_sessions(&self, application: &str) {
        let ask = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where application_name = '{application}' and pid <> pg_backend_pid()"
        );
        if let Err(error) = self.psql(None, &[&ask], READING_TIMEOUT).await {
            // The caller's own failure is the answer; this is what may have been left behind.
            tracing::warn!(%error, application, "sessions that were given up may go on");
        }
    }
}

/// An answer as text. Of a byte that is not UTF-8, which only a database in `SQL_ASCII` holds, the
/// number is written behind a replacement character, so that two of them are not the same text.
pub(super) fn readable(answer: &[u8]) -> String {
    let mut text = String::with_capacity(answer.len());
    for chunk in answer.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("{}{byte:02X}", char::REPLACEMENT_CHARACTER));
        }
    }
    text
}

/// UTF-8, as our statements are written and answers read; but `SQL_ASCII`, which is no encoding,
/// can't be converted: its bytes are taken as they are. It answers no row.
const AS_TEXT: &str = "select 1 where pg_catalog.set_config('client_encoding', \
    case pg_catalog.current_setting('server_encoding') when 'SQL_ASCII' then 'SQL_ASCII' \
    else 'UTF8' end, false) is null";

/// The database's own encoding, whichever it is: nothing is converted. It answers no row.
const AS_IT_IS: &str = "select 1 where pg_catalog.set_config('client_encoding', \
    pg_catalog.current_setting('server_encoding'), false) is null";

/// How `psql` is called: no settings of the user's, rows as lines, no question, and an end at the
/// first error.
const BARE: [&str; 7] = ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"];

/// One session of `psql` that sends these statements, each on its own.
fn reading<'r>(database: Option<&'r str>, statements: &[&str], timeout: Duration) -> Run<'r> {
    session(database, &[AS_TEXT], statements, timeout)
}

/// The same in the database's own encoding; the statements are ASCII.
fn exact<'r>(statements: &[&str], timeout: Duration) -> Run<'r> {
    session(None, &[AS_IT_IS], statements, timeout)
}

/// The same, which goes on with what its standard input says.
fn with_input(mut run: Run<'_>) -> Run<'_> {
    run.arguments.extend(["-f", "-"].map(String::from));
    run.stdin = true;
    run
}

fn session<'r>(
    database: Option<&'r str>,
    encoding: &[&str],
    statements: &[&str],
    timeout: Duration,
) -> Run<'r> {
    let mut arguments: Vec<String> = BARE.map(String::from).into();
    // What the database or the role sets by default may not change how a value is written,
    // nor keep a statement waiting for a lock that nobody gives back.
    for statement in encoding.iter().chain(&["set lock_timeout = '5s'"]).chain(statements) {
        arguments.extend(["-c".to_owned(), (*statement).to_owned()]);
    }
    let application = "payram-updater";
    let programs = None;
    Run { tool: Tool::Psql, arguments, database, application, stdin: false, timeout, programs }
}

/// Whether it is a `pg_restore` that connects nowhere.
fn reads_a_file(run: &Run<'_>) -> bool {
    run.arguments.iter().any(|argument| argument == "--list")
}

type Started<'a> = (
    futures_util::stream::BoxStream<'static, Result<Frame, ToolError>>,
    Option<Box<dyn AsyncWrite + Send + Unpin>>,
    End<'a>,
);

fn argv(run: &Run<'_>, limit_seconds: u64) -> Vec<String> {
    let mut argv: Vec<String> = ["sh", "-c", FIND_TOOL, "payram-updater"].map(String::from).into();
    argv.extend([run.tool.name().to_owned(), limit_seconds.to_string()]);
    argv.extend(run.arguments.iter().cloned());
    argv
}

/// A name for a session that no other session has; letters, digits and hyphens.
pub(super) fn unique(what: &str) -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    // The last digits of a v7 id are random.
    let random: String = id.chars().skip(id.len().saturating_sub(8)).collect();
    format!("{what}{random}")
}

/// Bytes that the database takes on its server's disk.
pub async fn size(runner: &Runner<'_>) -> Result<u64, Trouble> {
    let doing = format!("ask for the size of database {}", runner.database.name);
    let answer = runner
        .psql(None, &["select pg_database_size(current_database())"], READING_TIMEOUT)
        .await
        .map_err(|error| {
            error.trouble(&doing, FailureCode::BackupFailed, FailureCode::BackupTimeout)
        })?;
    answer.trim().parse().map_err(|_| {
        let message = format!("{doing}: expected a number, found {answer:?}");
        Trouble::failed(FailureCode::BackupFailed, message)
    })
}

/// Has the server write to disk what it holds in memory, which it does by itself every few
/// minutes and when it stops. It may be asked by a superuser or, since PostgreSQL 15, by a
/// member of `pg_checkpoint`.
pub async fn checkpoint(runner: &Runner<'_>, within: Duration) -> Result<(), Trouble> {
    runner.psql(None, &["checkpoint"], within).await.map(drop).map_err(|error| {
        let code = FailureCode::RuntimeInspectionFailed;
        error.trouble("ask the database server for a checkpoint", code, code)
    })
}

/// The server's version as it says it itself, `15.18 (Debian 15.18-0+deb12u1)`.
pub async fn server_version(runner: &Runner<'_>) -> Result<String, Trouble> {
    runner.psql(None, &["show server_version"], READING_TIMEOUT).await.map_err(|error| {
        error.trouble(
            "ask for the database server's version",
            FailureCode::BackupFailed,
            FailureCode::BackupTimeout,
        )
    })
}

/// Whether a server that has started refuses whoever asks, so that it is in vain to wait for it:
/// PostgreSQL says that it is fatal, and not that it is not ready yet (its manual, appendix A,
/// 57P03 `cannot_connect_now`). Of a server that speaks English.
pub fn is_refusal(trouble: &Trouble) -> bool {
    const NOT_YET: &str = "the database system is ";
    let Trouble::Failed(failure) = trouble else { return false };
    failure.message.contains("FATAL:") && !failure.message.contains(NOT_YET)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Runs the search with these programs first on the PATH; what `pg_dump --version` says then.
    fn version_of_the_dump(programs: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, says) in programs {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).expect("a program");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("its mode");
        }
        let path = format!("{}:/usr/bin:/bin", directory.path().display());
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", FIND_TOOL, "payram-updater", "pg_dump", "0", "--version"])
            .env("PATH", path)
            .output()
            .expect("a shell");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn a_dump_is_made_by_the_program_of_the_servers_major_and_not_by_the_first_on_the_path() {
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let majors = installed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let Some(major) = majors.max() else {
            println!("skipped: no PostgreSQL below /usr/lib/postgresql");
            return;
        };
        let old = format!("pg_dump (PostgreSQL) {}.4", major - 2);
        let server = format!("{major}0004");
        let of_server = format!("pg_dump (PostgreSQL) {major}.");
        let said = version_of_the_dump(&[("pg_dump", &old), ("psql", &server)]);
        assert!(said.starts_with(&of_server), "{said}");
        // A server that is not here, and one that does not answer: the PATH's.
        let newer = format!("{}0001", major + 9);
        assert_eq!(version_of_the_dump(&[("pg_dump", &old), ("psql", &newer)]), old);
        assert_eq!(version_of_the_dump(&[("pg_dump", &old), ("psql", "")]), old);
        let same = format!("pg_dump (PostgreSQL) {}.4", major - 2);
        let server = format!("{}0010", major - 2);
        assert_eq!(version_of_the_dump(&[("pg_dump", &same), ("psql", &server)]), same);
    }

    #[test]
    fn a_server_that_refuses_is_told_from_one_that_is_not_ready_yet() {
        let refuses = |said: &str| is_refusal(&Trouble::failed(FailureCode::BackupFailed, said));
        assert!(refuses("psql: error: FATAL:  password authentication failed for user \"payram\""));
        assert!(refuses("psql: error: FATAL:  too many connections for role \"payram\""));
        assert!(!refuses("psql: error: FATAL:  the database system is starting up"));
        assert!(!refuses("psql: error: FATAL:  the database system is not accepting connections"));
        assert!(!refuses("psql: error: connection to server failed: Connection refused"));
    }
}
