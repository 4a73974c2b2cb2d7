//! The commands (contract section 7): what an operator types.
//!
//! `main` calls [`run`] and nothing else. A command's way: [`args`] parses it, [`client`]
//! fetches from the daemon, a module of the command's name renders into a `Write`. Nothing
//! here changes the world: only the daemon does, asked over its socket. No module outside
//! imports this one.

mod answers;
mod args;
mod ask;
mod backup;
mod cancel;
mod cleanup;
mod client;
mod completions;
mod config;
mod demo;
mod follow;
mod help;
mod history;
mod init;
mod inspect;
mod journal;
mod logs;
mod man;
mod mistyped;
mod moment;
mod progress;
mod recover;
mod rehearse;
mod render;
mod report;
mod restart;
mod run;
mod sandbox;
mod screen;
mod serve;
mod statechart;
mod status;
mod systemd;
mod versions;
mod word;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::FromArgMatches;
use serde_json::{Value, json};

use self::args::{Command, CommandLine, Recover};
use self::client::{Client, ClientError};
use self::screen::Screen;
use self::word::Word;
use crate::config::ClientSettings;
use crate::driver::Rubbish;

/// What starts the daemon on a host; the installer puts it in its place.
const SYSTEMD_UNIT: &str = include_str!("../../packaging/systemd/payram-updater.service");
const LAUNCHD_JOB: &str = include_str!("../../packaging/launchd/com.payram.updater.plist");

/// How a command ends, as its exit code (contract section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0
    Done,
    /// 1
    Failed,
    /// 2: usage, or no terminal to ask on.
    Usage,
    /// 3: the daemon can't be reached.
    Unreachable,
    /// 4: the application serves the old version.
    RolledBack,
    /// 5
    NeedsOperator,
    /// 130, as a shell counts SIGINT: the watching ended, the upgrade goes on.
    Interrupted,
    /// 141, as a shell counts SIGPIPE: nobody reads what a running upgrade says.
    OutputClosed,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::RolledBack => 4,
            Exit::NeedsOperator => 5,
            Exit::Interrupted => 130,
            Exit::OutputClosed => 141,
        }
    }
}

/// What keeps a command from its end.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// The output can't be written.
    #[error("write the output: {0}")]
    Output(#[from] io::Error),
    /// The daemon did not answer, or not with what was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Anything else, with its own exit code.
    #[error("{message}")]
    Stopped {
        /// How the command ends.
        exit: Exit,
        /// For programs.
        code: &'static str,
        /// For a person.
        message: String,
    },
}

impl Problem {
    fn stopped(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Problem::Stopped { exit, code, message: message.into() }
    }

    fn exit(&self) -> Exit {
        match self {
            Problem::Output(_) => Exit::Failed,
            Problem::Client(error) => error.exit(),
            Problem::Stopped { exit, .. } => *exit,
        }
    }

    fn code(&self) -> &str {
        match self {
            Problem::Output(_) => "OUTPUT_FAILED",
            Problem::Client(error) => error.code(),
            Problem::Stopped { code, .. } => code,
        }
    }
}

/// Who reads the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A person at a terminal.
    Person,
    /// A program.
    Json,
    /// A pipe or a file that takes lines as they come: a log, a script, a picture.
    Text,
}

impl Reading {
    fn of(command: &Command, wants_json: bool, is_terminal: bool) -> Self {
        let speaks_text = match command {
            Command::Logs(_)
            | Command::Completions { .. }
            | Command::Man
            | Command::Unit { .. }
            | Command::Config(
                args::Config { key: Some(_), .. } | args::Config { example: true, .. },
            )
            | Command::Statechart
            | Command::Sandbox(_)
            | Command::Demo(_)
            | Command::Journal(args::Journal::Export) => true,
            Command::Serve
            | Command::Status
            | Command::Health
            | Command::History(_)
            | Command::Versions
            | Command::DryRun(_)
            | Command::Run(_)
            | Command::Rehearse(_)
            | Command::Watch
            | Command::Recover(_)
            | Command::Cancel(_)
            | Command::Inspect(_)
            | Command::Sync
            | Command::Init(_)
            | Command::Config(_)
            | Command::Restart
            | Command::Cleanup(_)
            | Command::Backup(_)
            | Command::Journal(args::Journal::Verify)
            | Command::Version => false,
        };
        match (wants_json, is_terminal, speaks_text) {
            (true, _, _) | (false, false, false) => Reading::Json,
            (false, true, _) => Reading::Person,
            (false, false, true) => Reading::Text,
        }
    }

    fn is_person(self) -> bool {
        self == Reading::Person
    }
}

/// What every command works with.
struct Context {
    client: Client,
    reading: Reading,
    screen: Screen,
}

/// Runs the command that these arguments name.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = mistyped::plain(arguments.into_iter().collect());
    if let Some(said) = mistyped::too_long(&arguments) {
        eprintln!("payram-updater: {said}");
        return ExitCode::from(Exit::Usage.code());
    }
    let line = match parsed(arguments) {
        Ok(line) => line,
        Err(error) => {
            if let Some(hint) = mistyped::hint(&error) {
                eprintln!("payram-updater: {hint}");
                return ExitCode::from(Exit::Usage.code());
            }
            // Help that nobody reads (`--help | head`) is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if line.command.is_none() && io::stdout().is_terminal() {
        // Help that nobody reads is no failure.
        let _ = help::command().print_help();
        return ExitCode::SUCCESS;
    }
    let command = line.command.unwrap_or(Command::Serve);
    if matches!(command, Command::Serve) {
        return serve::serve().await;
    }
    let reading = match Reading::of(&command, line.json, io::stdout().is_terminal()) {
        Reading::Json if line.text => Reading::Text,
        reading => reading,
    };
    // Not locked: the display of a running upgrade draws from a thread of its own.
    let mut out = io::stdout();
    let ended = dispatch(command, reading, &mut out).await;
    let exit = match ended.and_then(|exit| flushed(&mut out, exit)) {
        Ok(exit) => exit,
        Err(Problem::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(problem) => {
            complain(&problem, reading, &mut out);
            problem.exit()
        }
    };
    ExitCode::from(exit.code())
}

fn parsed(arguments: Vec<OsString>) -> Result<CommandLine, clap::Error> {
    let mut command = help::command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    CommandLine::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The exit code once everything is written. A reader that has gone does not change it: it may
/// say how an upgrade ended.
fn flushed(out: &mut dyn Write, exit: Exit) -> Result<Exit, Problem> {
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(exit),
    }
}

async fn dispatch(
    command: Command,
    reading: Reading,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let context = || {
        let client = Client::new(&settings()?)?;
        Ok::<_, Problem>(Context { client, reading, screen: Screen::of_stdout() })
    };
    match command {
        // Answered before: the daemon has a life of its own.
        Command::Serve => Ok(Exit::Done),
        Command::Status => status::status(&context()?, out).await,
        Command::Health => status::health(&context()?, out).await,
        Command::Watch => run::watch(&context()?, out).await,
        Command::Logs(asked) => logs::logs(&context()?, &asked, out).await,
        Command::History(asked) => history::history(&context()?, &asked, out).await,
        Command::Versions => versions::versions(&context()?, out).await,
        Command::DryRun(asked) => {
            run::dry_run(&context()?, &asked.wanted, asked.verbose, out).await
        }
        Command::Run(asked) => run::run(&context()?, &asked, out).await,
        Command::Rehearse(asked) => rehearse::rehearse(&context()?, &asked, out).await,
        Command::Cancel(asked) => cancel::cancel(&context()?, &asked, out).await,
        Command::Inspect(asked) => inspect::inspect(&context()?, asked.verbose, out).await,
        Command::Sync => recover::sync(&context()?, out).await,
        Command::Recover(Recover { clear_quarantine: Some(version), dry_run, yes, .. }) => {
            let word = Word::ClearQuarantine(&version);
            word::say(&context()?, word, dry_run, yes, out).await
        }
        Command::Recover(Recover { dismiss_rows: Some(job), dry_run, yes, .. }) => {
            word::say(&context()?, Word::DismissRows(&job), dry_run, yes, out).await
        }
        Command::Recover(asked) => recover::recover(&context()?, &asked, out).await,
        Command::Init(asked) => init::init(&asked, reading, out).await,
        Command::Config(asked) => config::config(&asked, reading, out),
        Command::Restart => restart::restart(reading, out),
        Command::Cleanup(args::Cleanup::State(asked)) => {
            cleanup::cleanup(&context()?, Rubbish::State, 1, &asked, out).await
        }
        Command::Cleanup(args::Cleanup::Backups { keep, asked }) => {
            cleanup::cleanup(&context()?, Rubbish::Backups, keep, &asked, out).await
        }
        Command::Journal(asked) => journal::journal(&settings()?.state_dir, &asked, reading, out),
        Command::Backup(asked) => backup::backup(&context()?, &asked, out).await,
        Command::Demo(asked) => demo::demo(&asked, reading).await,
        Command::Sandbox(asked) => sandbox::sandbox(asked, out).await,
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            match reading {
                Reading::Person | Reading::Text => writeln!(out, "payram-updater {version}")?,
                Reading::Json => document(out, &json!({"version": version}))?,
            }
            Ok(Exit::Done)
        }
        Command::Completions { shell } => {
            out.write_all(completions::script(shell).as_bytes())?;
            Ok(Exit::Done)
        }
        Command::Man => {
            out.write_all(man::page().as_bytes())?;
            Ok(Exit::Done)
        }
        Command::Unit { launchd } => {
            out.write_all(if launchd { LAUNCHD_JOB } else { SYSTEMD_UNIT }.as_bytes())?;
            Ok(Exit::Done)
        }
        Command::Statechart => {
            out.write_all(statechart::svg().as_bytes())?;
            Ok(Exit::Done)
        }
    }
}

fn settings() -> Result<ClientSettings, Problem> {
    ClientSettings::load()
        .map_err(|error| Problem::stopped(Exit::Failed, "INVALID_SETTINGS", error.to_string()))
}

/// One JSON document.
fn document(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// One JSON object on a line of its own.
fn object_line(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Says what went wrong: a sentence where a person looks, and JSON where a program reads.
fn complain(problem: &Problem, reading: Reading, out: &mut dyn Write) {
    // There is nowhere left to report a failure to report.
    let _ = writeln!(io::stderr(), "payram-updater: {problem}");
    if reading == Reading::Json {
        let _ = document(out, &json!({"error": problem.to_string(), "code": problem.code()}));
    }
}
