//! The programs that run inside the container under supervisord
//! (<https://supervisord.org/running.html#supervisorctl-actions>).

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::engine::{Engine, EngineError, ExecRequest, Frame};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;

/// For one call of `supervisorctl`.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Until programs are in the state that was asked for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `supervisorctl status` ends with it when a program does not run.
const SOME_DO_NOT_RUN: i64 = 3;

/// The shell's codes for a command that is not there or can't be run.
const NOT_THERE: [i64; 2] = [126, 127];

/// A program of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `core`, or `group:core`.
    pub name: String,
    /// `RUNNING`, `STOPPED`, `FATAL`, …
    pub state: String,
}

/// The programs; `None` when the container has no supervisor.
pub async fn programs(engine: &dyn Engine, id: &str) -> Result<Option<Vec<Program>>, Trouble> {
    let answer = match call(engine, id, &["status"]).await {
        Ok(answer) => answer,
        Err(EngineError::Refused { message, .. })
            if message.contains("executable file not found") =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let no_supervisor =
        answer.output.contains("refused connection") || answer.output.contains("no such file");
    match answer.code {
        code if NOT_THERE.contains(&code) => Ok(None),
        0 | SOME_DO_NOT_RUN => Ok(Some(parse(&answer.output))),
        _ if no_supervisor => Ok(None),
        code => Err(Trouble::failed(
            FailureCode::SupervisorctlFailed,
            format!("supervisorctl status ended with {code}: {}", answer.output.trim()),
        )),
    }
}

fn parse(output: &str) -> Vec<Program> {
    output
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, state) = (words.next()?, words.next()?);
            let is_state = state.len() > 2 && state.bytes().all(|b| b.is_ascii_uppercase());
            is_state.then(|| Program { name: name.to_owned(), state: state.to_owned() })
        })
        .collect()
}

/// Those that run and are to be stopped, by full name, group or own name.
pub fn select(programs: &[Program], exclude: &[String], include: Option<&[String]>) -> Vec<String> {
    let is_named = |program: &Program, names: &[String]| {
        let (group, own) = program.name.split_once(':').unwrap_or((&program.name, &program.name));
        names.iter().any(|name| {
            [program.name.as_str(), group, own].iter().any(|n| n.eq_ignore_ascii_case(name))
        })
    };
    programs
        .iter()
        .filter(|program| ["RUNNING", "STARTING", "BACKOFF"].contains(&program.state.as_str()))
        .filter(|program| match include {
            Some(include) => is_named(program, include),
            None => !is_named(program, exclude),
        })
        .map(|program| program.name.clone())
        .collect()
}

/// Stops programs and sees that they have stopped.
pub async fn stop(engine: &dyn Engine, id: &str, names: &[String]) -> Result<(), Trouble> {
    let stopped = ["STOPPED", "EXITED", "FATAL"];
    bring(engine, id, "stop", names, &stopped).await
}

/// Starts programs and sees that they run.
pub async fn start(engine: &dyn Engine, id: &str, names: &[String]) -> Result<(), Trouble> {
    bring(engine, id, "start", names, &["RUNNING"]).await
}

/// Asks for those that are not in one of the states yet, then looks until all are. A supervisor
/// that has just started reports nothing for a moment.
async fn bring(
    engine: &dyn Engine,
    id: &str,
    verb: &str,
    names: &[String],
    wanted: &[&str],
) -> Result<(), Trouble> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut asked = false;
    let mut said = String::new();
    loop {
        let programs = programs(engine, id).await?;
        let missing: Vec<(&String, Option<&str>)> = names
            .iter()
            .map(|name| {
                let found = programs.iter().flatten().find(|program| program.name == *name);
                (name, found.map(|program| program.state.as_str()))
            })
            .filter(|(_, state)| !state.is_some_and(|state| wanted.contains(&state)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let is_up = programs.is_some();
        if is_up && !asked {
            let mut arguments = vec![verb];
            let settling = ["STARTING", "STOPPING"];
            arguments.extend(missing.iter().filter_map(|(name, state)| {
                (!state.is_some_and(|state| settling.contains(&state))).then_some(name.as_str())
            }));
            if arguments.len() > 1 {
                said = call(engine, id, &arguments).await?.output.trim().to_owned();
                asked = true;
                continue;
            }
        }
        if Instant::now() >= deadline {
            let found: Vec<String> = missing
                .iter()
                .map(|(name, state)| format!("{name} is {}", state.unwrap_or("unknown")))
                .collect();
            return Err(Trouble::failed(
                FailureCode::SupervisorctlFailed,
                format!(
                    "supervisorctl {verb}: expected {} within {} s, found {}; it said: {said}",
                    wanted.join(" or "),
                    SETTLE_TIMEOUT.as_secs(),
                    found.join(", ")
                ),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a call printed, both streams, and how it ended.
struct Answer {
    output: String,
    code: i64,
}

async fn call(engine: &dyn Engine, id: &str, arguments: &[&str]) -> Result<Answer, EngineError> {
    let argv = std::iter::once("supervisorctl").chain(arguments.iter().copied());
    let argv: Vec<String> = argv.map(str::to_owned).collect();
    let doing = format!("exec {} in container {}", argv.join(" "), id.get(..12).unwrap_or(id));
    let request = ExecRequest { argv, env: Vec::new(), user: None, stdin: false };
    let called = tokio::time::timeout(CALL_TIMEOUT, async {
        let mut exec = engine.exec(id, request).await?;
        let mut output = Vec::new();
        while let Some(frame) = exec.output.next().await {
            match frame? {
                Frame::Stdout(bytes) | Frame::Stderr(bytes) => output.extend_from_slice(&bytes),
            }
        }
        let output = String::from_utf8_lossy(&output).into_owned();
        match engine.exec_exit_code(&exec.id).await? {
            Some(code) => Ok(Answer { output, code }),
            None => Err(EngineError::Unknown {
                doing: doing.clone(),
                reason: "its output ended and it has no exit code".into(),
            }),
        }
    });
    match called.await {
        Ok(answer) => answer,
        Err(_) => Err(EngineError::Unknown {
            doing,
            reason: format!("timed out after {} s", CALL_TIMEOUT.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
payram-core                      RUNNING   pid 31, uptime 0:00:12
payram-worker                    STOPPED   Nov 24 07:00 PM
nginx:nginx_00                   STARTING
postgresql                       RUNNING   pid 12, uptime 0:00:13
error: <class 'ConnectionRefusedError'>, [Errno 111] Connection refused
";

    #[test]
    fn the_status_names_each_program_with_its_state() {
        let states: Vec<(String, String)> =
            parse(STATUS).into_iter().map(|program| (program.name, program.state)).collect();
        let expected = [
            ("payram-core", "RUNNING"),
            ("payram-worker", "STOPPED"),
            ("nginx:nginx_00", "STARTING"),
            ("postgresql", "RUNNING"),
        ];
        assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
    }

    #[test]
    fn only_what_runs_and_is_not_the_database_is_stopped() {
        let all = parse(STATUS);
        let exclude = ["postgres".to_owned(), "PostgreSQL".to_owned()];
        assert_eq!(select(&all, &exclude, None), ["payram-core", "nginx:nginx_00"]);
        let include = ["nginx".to_owned()];
        assert_eq!(select(&all, &exclude, Some(&include)), ["nginx:nginx_00"]);
    }
}
