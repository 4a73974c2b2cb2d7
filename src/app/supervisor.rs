//! The programs that supervisord runs inside the container (contract section 4).
//!
//! Called by the driver to silence the application and to let it speak again, by its gate, and
//! while a container is stopped. Every verb that changes something looks first and believes only
//! what `supervisorctl status` says afterwards, so it can be run again after a crash at any
//! instant (I4).

mod command;

use std::time::Duration;

use tokio::time::Instant;

use self::command::supervisorctl;
use crate::engine::Engine;
use crate::error::Trouble;
use crate::machine::failure::FailureCode;

/// What every caller gets.
const PATIENCE: Patience =
    Patience { command: Duration::from_secs(30), settle: Duration::from_secs(60) };

/// Between two looks while programs settle.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Before the first question that is there to wake the supervisor, and between two of them. A
/// stop that is quicker needs none.
const WAKE_EVERY: Duration = Duration::from_millis(150);

/// How long such a question may take.
const WAKE_WITHIN: Duration = Duration::from_secs(2);

/// Prints the sockets of a supervisord. The kernel lists what is bound in the network namespace,
/// which may be another container's too: only those whose file is here count. supervisord binds
/// `NAME.PID` and renames it to `NAME` (supervisor 4.2, `http.py`).
const FIND_SOCKET: &str = "while read -r _ _ _ _ _ _ _ path; do \
    case $path in /*supervisor*) for one in \"$path\" \"${path%.*}\"; do \
    if [ -S \"$one\" ]; then echo \"$one\"; fi; done;; esac; done </proc/net/unix";

/// The states that supervisord knows (its manual, "Process States").
const STATES: [&str; 8] =
    ["STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"];

/// How long is waited; given from outside so that tests need not.
#[derive(Clone, Copy)]
struct Patience {
    /// For one command to end.
    command: Duration,
    /// For programs to stop or to run.
    settle: Duration,
}

/// A program under supervisord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `core`, or `group:core` where it is one of a group.
    pub name: String,
    /// `RUNNING`, `STOPPED`, `FATAL`, …
    pub state: String,
    /// Its process in the container, while it has one.
    pub pid: Option<u32>,
}

impl Program {
    fn is_at_rest(&self) -> bool {
        matches!(self.state.as_str(), "STOPPED" | "EXITED" | "FATAL")
    }

    fn is_moving(&self) -> bool {
        matches!(self.state.as_str(), "STARTING" | "STOPPING" | "BACKOFF")
    }
}

/// All programs of a running container; `None` when nothing supervises there: there is no
/// `supervisorctl`, or nothing at the place where it looks for its daemon.
///
/// A socket that is there and refuses is another matter: a daemon made it, and programs of its
/// may write and can't be stopped. That is a failure.
///
/// # Errors
/// `SUPERVISORCTL_FAILED` when it can't tell, or what the engine met.
pub async fn programs(engine: &dyn Engine, id: &str) -> Result<Option<Vec<Program>>, Trouble> {
    status(engine, id, PATIENCE).await
}

/// The socket of a supervisord that listens in a container, whether `supervisorctl` finds it or
/// not; `None` when there is none, or no shell to look with.
///
/// # Errors
/// What the engine met.
pub async fn socket(engine: &dyn Engine, id: &str) -> Result<Option<String>, Trouble> {
    let argv = ["sh", "-c", FIND_SOCKET].map(str::to_owned).to_vec();
    let finished = command::run_to_end(engine, id, argv, PATIENCE.command).await?;
    let found = finished.said.lines().map(str::trim).find(|line| line.starts_with('/'));
    Ok(found.filter(|_| finished.exit_code == 0).map(command::shown))
}

async fn status(
    engine: &dyn Engine,
    id: &str,
    patience: Patience,
) -> Result<Option<Vec<Program>>, Trouble> {
    let finished = supervisorctl(engine, id, &["status".to_owned()], patience.command).await?;
    if finished.is_not_installed() || is_without_daemon(&finished.said) {
        return Ok(None);
    }
    // 3: some program does not run (LSB). Anything else that is not 0 is no answer.
    let programs = parse(&finished.said);
    if matches!(finished.exit_code, 0 | 3) && !is_refused(&finished.said) {
        return Ok(Some(programs));
    }
    Err(Trouble::failed(
        FailureCode::SupervisorctlFailed,
        format!("ask the supervisor for its programs: {finished}"),
    ))
}

/// The programs that an upgrade stops: of those that run, all but `exclude`, or only `include`
/// when there is one. A word means a program by its name, its whole name or its group,
/// whatever the case.
pub fn select(programs: &[Program], exclude: &[String], include: Option<&[String]>) -> Vec<String> {
    programs
        .iter()
        .filter(|program| matches!(program.state.as_str(), "RUNNING" | "STARTING"))
        .filter(|program| match include {
            Some(include) => is_meant(&program.name, include),
            None => !is_meant(&program.name, exclude),
        })
        .map(|program| program.name.clone())
        .collect()
}

/// Stops programs and sees that they rest; fine when they do already.
///
/// # Errors
/// `SUPERVISORCTL_FAILED` with the program, what was expected and what was found.
pub async fn stop(engine: &dyn Engine, id: &str, names: &[String]) -> Result<(), Trouble> {
    settle(engine, id, names, Aim::Stop, PATIENCE).await
}

/// Asks once that programs stop, and looks at nothing: `true` when the supervisor named each of
/// them as stopped. That is worth a look by [`are_stopped`]; anything else is for [`stop`].
///
/// # Errors
/// What the engine met, when it is certain that nothing was asked.
pub async fn ask_to_stop(engine: &dyn Engine, id: &str, names: &[String]) -> Result<bool, Trouble> {
    let mut argv = vec![Aim::Stop.verb().to_owned()];
    argv.extend_from_slice(names);
    match supervisorctl(engine, id, &argv, PATIENCE.command).await {
        Ok(finished) => Ok(names.iter().all(|name| is_said_stopped(name, &finished.said))),
        // It may have done its work all the same (I4).
        Err(Trouble::Unknown(_)) => Ok(false),
        Err(failed @ Trouble::Failed(_)) => Err(failed),
    }
}

/// One look: whether programs rest.
///
/// # Errors
/// What the engine met.
pub async fn are_stopped(engine: &dyn Engine, id: &str, names: &[String]) -> Result<bool, Trouble> {
    let looked = look(engine, id, names, Aim::Stop, PATIENCE).await?;
    Ok(looked.is_ok_and(|unsettled| unsettled.is_empty()))
}

/// Asks the supervisor again and again, for as long as it is polled, so that it shuts down without
/// its pauses.
///
/// When supervisord shuts down it ends one group of programs in each turn of its loop, which waits
/// a second for something to happen. The end of a program is such a thing; for a group that was
/// stopped before nothing happens, and each adds a second of downtime (supervisor 4.2,
/// `Supervisor.runforever`). A question is a thing that happens, and changes nothing.
pub async fn keep_awake(engine: &dyn Engine, id: &str) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(WAKE_EVERY).await;
        match supervisorctl(engine, id, &["status".to_owned()], WAKE_WITHIN).await {
            Ok(finished) if finished.is_not_installed() || is_without_daemon(&finished.said) => {
                return std::future::pending().await;
            }
            // It hangs, and each further question would be one more process that does.
            Err(Trouble::Unknown(_)) => return std::future::pending().await,
            // Nobody waits for an answer: the container is on its way down.
            Ok(_) | Err(Trouble::Failed(_)) => {}
        }
    }
}

/// Starts programs and sees that they run; fine when they do already.
///
/// # Errors
/// `SUPERVISORCTL_FAILED` with the program, what was expected and what was found.
pub async fn start(engine: &dyn Engine, id: &str, names: &[String]) -> Result<(), Trouble> {
    settle(engine, id, names, Aim::Start, PATIENCE).await
}

/// What is wanted of programs.
#[derive(Clone, Copy)]
enum Aim {
    Stop,
    Start,
}

impl Aim {
    fn verb(self) -> &'static str {
        match self {
            Aim::Stop => "stop",
            Aim::Start => "start",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Aim::Stop => "stopped",
            Aim::Start => "RUNNING",
        }
    }

    fn is_reached(self, program: &Program) -> bool {
        match self {
            Aim::Stop => program.is_at_rest(),
            Aim::Start => program.state == "RUNNING",
        }
    }

    /// Whether the program is on its way there by itself.
    fn is_under_way(self, program: &Program) -> bool {
        match self {
            Aim::Stop => program.state == "STOPPING",
            Aim::Start => program.state == "STARTING",
        }
    }
}

/// Looks until every program is where it should be, and asks once for those that are not. A
/// supervisor that has only just started, as after a container's start, may not answer yet or
/// not know its programs: that is waited for.
async fn settle(
    engine: &dyn Engine,
    id: &str,
    names: &[String],
    aim: Aim,
    patience: Patience,
) -> Result<(), Trouble> {
    let deadline = Instant::now() + patience.settle;
    let mut asked = None;
    loop {
        let looked = look(engine, id, names, aim, patience).await?;
        let unsettled = match &looked {
            Ok(programs) if programs.is_empty() => return Ok(()),
            Ok(programs) => programs.as_slice(),
            Err(_not_yet) => &[],
        };
        let idle: Vec<String> = unsettled
            .iter()
            .filter(|program| !aim.is_under_way(program))
            .map(|program| program.name.clone())
            .collect();
        if asked.is_none() && !idle.is_empty() {
            asked = Some(ask(engine, id, aim, idle, patience).await?);
            continue;
        }
        let is_hopeless = asked.as_ref().is_some_and(|asked| asked.is_hopeless_for(unsettled));
        if is_hopeless || Instant::now() >= deadline {
            let found = match looked {
                Ok(programs) => {
                    let states: Vec<String> = programs
                        .iter()
                        .map(|each| format!("{} is {}", each.name, each.state))
                        .collect();
                    states.join(", ")
                }
                Err(why) => why,
            };
            let said = asked.map(|asked| asked.said).unwrap_or_default();
            return Err(Trouble::failed(
                FailureCode::SupervisorctlFailed,
                format!(
                    "{} programs under the supervisor: expected {} to be {}, found that {found}{said}",
                    aim.verb(),
                    names.join(", "),
                    aim.expected(),
                ),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What came of asking for a change.
struct Asked {
    /// Whether it was refused, as far as is known.
    is_refused: bool,
    /// What to add to an error.
    said: String,
}

impl Asked {
    /// Whether these programs will not come to where they should be by waiting.
    fn is_hopeless_for(&self, unsettled: &[Program]) -> bool {
        unsettled.iter().any(|program| program.state == "FATAL")
            || (self.is_refused
                && !unsettled.is_empty()
                && !unsettled.iter().any(Program::is_moving))
    }
}

async fn ask(
    engine: &dyn Engine,
    id: &str,
    aim: Aim,
    names: Vec<String>,
    patience: Patience,
) -> Result<Asked, Trouble> {
    let mut argv = vec![aim.verb().to_owned()];
    argv.extend(names);
    match supervisorctl(engine, id, &argv, patience.command).await {
        Ok(finished) => {
            Ok(Asked { is_refused: finished.exit_code != 0, said: format!("; {finished}") })
        }
        // It may have done its work all the same: the next look decides (I4).
        Err(Trouble::Unknown(why)) => Ok(Asked { is_refused: false, said: format!("; {why}") }),
        Err(failed @ Trouble::Failed(_)) => Err(failed),
    }
}

/// Those of the programs that are not where they should be; or, as a sentence, why that can't
/// be told yet.
async fn look(
    engine: &dyn Engine,
    id: &str,
    names: &[String],
    aim: Aim,
    patience: Patience,
) -> Result<Result<Vec<Program>, String>, Trouble> {
    let programs = match status(engine, id, patience).await {
        Ok(Some(programs)) => programs,
        Ok(None) => return Ok(Err("no supervisor answers in the container".into())),
        Err(Trouble::Failed(failure)) if failure.code == FailureCode::SupervisorctlFailed => {
            return Ok(Err(failure.message));
        }
        Err(trouble) => return Err(trouble),
    };
    let mut unsettled = Vec::new();
    for name in names {
        match programs.iter().find(|program| program.name == *name) {
            Some(program) if aim.is_reached(program) => {}
            Some(program) => unsettled.push(program.clone()),
            None => return Ok(Err(format!("the supervisor has no program {name}"))),
        }
    }
    Ok(Ok(unsettled))
}

/// The lines `NAME STATE …`; everything else that it prints is no program.
fn parse(output: &str) -> Vec<Program> {
    output
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, state) = (words.next()?, words.next()?);
            // `RUNNING   pid 42, uptime 0:00:10`
            let pid = match (words.next(), words.next()) {
                (Some("pid"), Some(pid)) => pid.trim_end_matches(',').parse().ok(),
                (_, _) => None,
            };
            STATES.contains(&state).then(|| Program {
                name: name.to_owned(),
                state: state.to_owned(),
                pid,
            })
        })
        .collect()
}

/// Whether the answer of `supervisorctl stop` has the line `NAME: stopped`.
fn is_said_stopped(name: &str, output: &str) -> bool {
    output.lines().any(|line| line.trim().strip_suffix(": stopped") == Some(name))
}

/// Whether there is nothing where the daemon should be: no socket file, no configuration that
/// would name one, or no listener at an address.
fn is_without_daemon(output: &str) -> bool {
    output.lines().any(|line| {
        let line = line.trim().to_ascii_lowercase();
        (line.starts_with("unix://") && line.ends_with("no such file"))
            || (line.starts_with("http://") && line.ends_with("refused connection"))
            || line.starts_with("error: no config file found")
    })
}

/// Older versions say so and exit with 0.
fn is_refused(output: &str) -> bool {
    output.lines().any(|line| {
        let line = line.trim();
        line.starts_with("unix://") && line.ends_with("refused connection")
    })
}

/// Whether one of the words means this program.
fn is_meant(name: &str, words: &[String]) -> bool {
    let (group, process) = name.split_once(':').unwrap_or((name, name));
    words.iter().any(|word| {
        let word = word.trim().trim_end_matches(":*");
        [name, group, process].iter().any(|part| part.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests;
