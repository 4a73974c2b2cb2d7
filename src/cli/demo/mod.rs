//! `demo`: three upgrades in front of the reader, on a make-believe container engine or on a
//! real one.
//!
//! Nothing is played but the engine (see `sandbox`): the daemon, the journal and the commands
//! are child processes of this very program. Exit 0 only when all three ended as promised and
//! no acknowledged payment is missing. Leaves nothing behind, however it ends. For people alone:
//! there is no JSON of it, its exit code tells a program all.
//!
//! | file | subject |
//! |---|---|
//! | here | the walk: what is done, in which order, and what is promised of it |
//! | `paper` | how it looks |
//! | `stage` | directory, daemon, commands |
//! | `line` | between the daemon and its engine: where it is killed |
//! | `backstage` | what the two engines do differently |
//! | `simulated` | the one |
//! | `real`, `images` | the other, and what runs on it |

mod backstage;
mod images;
mod line;
mod paper;
mod process;
mod real;
mod simulated;
mod stage;

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use self::paper::Paper;
use self::stage::Stage;
use super::args::Demo;
use super::{Exit, Problem, Reading};
use crate::engine::EngineError;

/// What keeps the demo from going on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The output, a file or a process.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The container engine.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Fault::Other(message.into())
    }
}

/// What the shop serves at the beginning.
const FIRST_VERSION: &str = "1.9.6";

/// What is promised of one upgrade.
struct Act {
    heading: &'static str,
    words: &'static str,
    target: &'static str,
    /// How `run` ends.
    exit: i32,
    phase: &'static str,
    /// What serves afterwards.
    serves: &'static str,
}

const ACTS: [Act; 3] = [
    Act {
        heading: "1 of 3: an upgrade, 1.9.6 to 1.9.7",
        words: "The shop serves 1.9.6 and takes a payment every 50 ms. The new release \
                migrates the database. First the plan, then the upgrade.",
        target: "1.9.7",
        exit: 0,
        phase: "VERIFIED",
        serves: "1.9.7",
    },
    Act {
        heading: "2 of 3: a broken release, 9.0.4, goes back by itself",
        words: "Its migration changes the schema and fails half way. No row was touched, so the \
                restore point comes back without asking; the failed directory is kept.",
        target: "9.0.4",
        exit: 4,
        phase: "ROLLED_BACK",
        serves: "1.9.7",
    },
    Act {
        heading: "3 of 3: SIGKILL in mid-swap, 1.9.7 to 1.9.8",
        words: "The daemon will be killed at the worst moment: the old container is stopped, \
                the new one is not started yet, the shop is down.",
        target: "1.9.8",
        exit: 0,
        phase: "VERIFIED",
        serves: "1.9.8",
    },
];

/// `demo`
pub(super) async fn demo(asked: &Demo, reading: Reading) -> Result<Exit, Problem> {
    if reading == Reading::Json {
        let message = "a demo is for people: it has no JSON, its exit code tells";
        return Err(Problem::stopped(Exit::Usage, "NO_JSON", message));
    }
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let mut interrupted = std::pin::pin!(async {
        let waits = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures_util::future::select_all(waits).await;
    });
    let stage = tokio::select! {
        stage = Stage::set(asked.engine) => stage,
        () = interrupted.as_mut() => return Ok(was_interrupted()),
    };
    let mut stage = stage.map_err(|fault| stopped(&fault))?;
    let paper = Paper::of_stdout();
    let played = tokio::select! {
        played = play(&mut stage, &paper) => Some(played),
        () = interrupted.as_mut() => None,
    };
    // Whoever can't be told any more is told nothing; what is there goes all the same.
    let _ = paper.end_wait();
    let struck = stage.strike().await;
    if let Some(Err(fault)) = &played
        && struck.is_err()
    {
        eprintln!("payram-updater: demo: {fault}");
    }
    struck.map_err(|fault| stopped(&fault))?;
    let ended = played.map(|played| {
        let is_kept = played?;
        paper.say("\nEverything that the demo made is removed.")?;
        Ok(is_kept)
    });
    match ended {
        None => Ok(was_interrupted()),
        Some(Ok(true)) => Ok(Exit::Done),
        Some(Ok(false)) => Ok(Exit::Failed),
        Some(Err(Fault::Io(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Exit::OutputClosed)
        }
        Some(Err(fault)) => Err(stopped(&fault)),
    }
}

fn stopped(fault: &Fault) -> Problem {
    Problem::stopped(Exit::Failed, "DEMO_FAILED", format!("demo: {fault}"))
}

fn was_interrupted() -> Exit {
    eprintln!("\npayram-updater: demo interrupted, everything was removed");
    Exit::Interrupted
}

/// All acts, and the sum; whether every promise was kept.
async fn play(stage: &mut Stage, paper: &Paper) -> Result<bool, Fault> {
    paper.heading("payram-updater demo")?;
    paper.say(&stage.introduction())?;
    stage.open(paper).await?;
    let mut verdicts = Vec::new();
    for (index, act) in ACTS.iter().enumerate() {
        paper.heading(act.heading)?;
        paper.say(act.words)?;
        if index == 0 {
            stage.run(&["dry-run", "--to", act.target], paper).await?;
        }
        let arguments = ["run", "--to", act.target, "--yes"];
        let exit = match index {
            2 => run_and_kill(stage, &arguments, paper).await?,
            _ => stage.run(&arguments, paper).await?,
        };
        verdicts.push(judge(stage, act, exit).await?);
    }
    paper.heading("What happened")?;
    stage.run(&["history", "--type", "upgrade"], paper).await?;
    stage.run(&["journal", "verify"], paper).await?;

    paper.heading("What was promised")?;
    let (acknowledged, lost) = stage.payments().await?;
    verdicts.push((
        lost.is_empty() && acknowledged > 0,
        format!(
            "payments acknowledged: {acknowledged}, in the database: {}, lost: {}",
            acknowledged - lost.len(),
            lost.len()
        ),
    ));
    let is_kept = verdicts.iter().all(|(is_kept, _)| *is_kept);
    verdicts.iter().try_for_each(|(is_kept, text)| paper.verdict(*is_kept, text))?;
    Ok(is_kept)
}

/// Whether an act ended as promised, and how it did.
async fn judge(stage: &Stage, act: &Act, exit: i32) -> Result<(bool, String), Fault> {
    let status = stage.ask_daemon("/upgrade/status").await?;
    let phase = status["phase"].as_str().unwrap_or("unknown").to_owned();
    let serves = stage.serving().await.unwrap_or_else(|| "nothing".to_owned());
    let downtime = match status["downtimeSeconds"].as_f64() {
        Some(seconds) => format!("{seconds:.1} s of downtime"),
        None => "no downtime".to_owned(),
    };
    let is_kept = exit == act.exit && phase == act.phase && serves == act.serves;
    let wanted = match is_kept {
        true => String::new(),
        false => format!("; promised: exit {}, {}, {} serves", act.exit, act.phase, act.serves),
    };
    let text =
        format!("to {}: exit {exit}, {phase}, {serves} serves, {downtime}{wanted}", act.target);
    Ok((is_kept, text))
}

/// Runs an upgrade whose daemon is killed when it asks for the new container's start.
async fn run_and_kill(stage: &mut Stage, arguments: &[&str], paper: &Paper) -> Result<i32, Fault> {
    let held = stage.hold_next_start();
    paper.command(arguments)?;
    let mut finishing = std::pin::pin!(stage.begin(arguments)?.finish(paper));
    tokio::select! {
        ended = finishing.as_mut() => {
            let exit = ended?;
            let message = format!("it ended with {exit} before a container was started");
            return Err(Fault::new(message));
        }
        held = held => held.map_err(|_| Fault::new("the line to the engine is cut"))?,
    }
    let killed_and_back = async {
        stage.kill_daemon().await?;
        let containers = stage.containers().await?;
        let serves = stage.serving().await.unwrap_or_else(|| "nothing".to_owned());
        paper.event("SIGKILL. The daemon is dead. Its containers:")?;
        for (name, state) in &containers {
            paper.event(&format!("{name} is {state}"))?;
        }
        paper.event(&format!("{serves} serves. The daemon is started again:"))?;
        stage.start_daemon().await
    };
    let ((), exit) = tokio::try_join!(killed_and_back, finishing)?;
    Ok(exit)
}
