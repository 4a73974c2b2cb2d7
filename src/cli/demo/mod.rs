//! `demo`: three upgrades in front of the reader, on a make-believe container engine.
//!
//! Nothing is played but the engine (see `sandbox`): the daemon, the journal and the commands
//! are child processes of this very program. Exit 0 only when all three ended as promised and
//! no acknowledged payment is missing. Leaves nothing behind, however it ends.

mod paper;
mod stage;

use std::io;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::paper::Paper;
use self::stage::Stage;
use super::{Exit, Problem};

/// What keeps the demo from going on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The output, a file or a process.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Fault::Other(message.into())
    }
}

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
                migrates the database.",
        target: "1.9.7",
        exit: 0,
        phase: "VERIFIED",
        serves: "1.9.7",
    },
    Act {
        heading: "2 of 3: a broken release, 1.9.8, goes back by itself",
        words: "Its migration changes the schema and fails half way. No row was touched, so the \
                restore point comes back without asking; the failed directory is kept.",
        target: "1.9.8",
        exit: 4,
        phase: "ROLLED_BACK",
        serves: "1.9.7",
    },
    Act {
        heading: "3 of 3: SIGKILL in mid-swap, 1.9.7 to 1.9.9",
        words: "The daemon will be killed at the worst moment: the old container is stopped, \
                the new one is not started yet, the shop is down.",
        target: "1.9.9",
        exit: 0,
        phase: "VERIFIED",
        serves: "1.9.9",
    },
];

/// The releases that are played.
fn scenario() -> Value {
    json!({
        "running": "1.9.6",
        "payments": 1000,
        "tags": {
            "1.9.6": {},
            "1.9.7": {"migration": {"schema": true}},
            "1.9.8": {"migration": {"schema": true, "fails": true}},
            "1.9.9": {"bootMs": 500},
        },
    })
}

/// `demo`
pub(super) async fn demo() -> Result<Exit, Problem> {
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let mut interrupted = std::pin::pin!(async {
        let waits = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures_util::future::select_all(waits).await;
    });
    let stage = tokio::select! {
        stage = open() => stage,
        () = interrupted.as_mut() => return Ok(was_interrupted()),
    };
    let mut stage = stage.map_err(|fault| stopped(&fault))?;
    let played = tokio::select! {
        played = play(&mut stage) => Some(played),
        () = interrupted.as_mut() => None,
    };
    stage.strike().await;
    match played {
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

/// Says what is to come and sets everything up.
async fn open() -> Result<Stage, Fault> {
    let paper = Paper::of_stdout();
    paper.heading("payram-updater demo")?;
    paper.say(
        "The container engine is SIMULATED: no Docker, no root, no network. The daemon, the \
         journal, the commands and the files are real, and all of it is gone afterwards. It \
         takes half a minute. The same on a real engine, with PostgreSQL: tests/run",
    )?;
    Stage::set(&scenario()).await
}

/// All acts, and the sum; whether every promise was kept.
async fn play(stage: &mut Stage) -> Result<bool, Fault> {
    let paper = &Paper::of_stdout();
    stage.start_daemon().await?;
    let mut verdicts = Vec::new();
    for (index, act) in ACTS.iter().enumerate() {
        paper.heading(act.heading)?;
        paper.say(act.words)?;
        // On a terminal `run` shows the plan itself.
        if index == 0 && !paper.is_terminal {
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
    let (acknowledged, lost) = stage.payments()?;
    verdicts.push((
        lost.is_empty(),
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

/// Runs a command whose daemon is killed when it asks for the new container's start.
async fn run_and_kill(stage: &mut Stage, arguments: &[&str], paper: &Paper) -> Result<i32, Fault> {
    let fault = json!([{"on": "start", "do": "kill-before"}]);
    stage.ask_engine("/sandbox/faults", Some(fault)).await?;
    paper.command(arguments)?;
    let watched = stage.begin(arguments, paper)?;
    let killed_and_back = async {
        let status = stage.daemon_ends().await?;
        if status.signal() != Some(9) {
            return Err(Fault::new(format!("the daemon was to be killed, it ended: {status}")));
        }
        let containers = stage.ask_engine("/containers/json?all=1", None).await?;
        let containers: Vec<String> = containers
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                let name = one["Names"][0].as_str().unwrap_or_default().trim_start_matches('/');
                format!("{name} is {}", one["State"].as_str().unwrap_or_default())
            })
            .collect();
        let serves = stage.serving().await;
        paper.say("\n>>> SIGKILL. The daemon is dead. Its containers:")?;
        for one in &containers {
            paper.say(&format!(">>> {one}"))?;
        }
        let serves = serves.map_or("nothing".to_owned(), |version| version);
        paper.say(&format!(">>> {serves} serves. The daemon is started again:\n"))?;
        stage.start_daemon().await
    };
    let (exit, back) = tokio::join!(watched.finish(paper), killed_and_back);
    back?;
    exit
}
