//! `sandbox`: the make-believe engine as a process. Until SIGTERM or SIGINT.

use std::io::Write;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::args::Sandbox;
use super::{Exit, Problem};
use crate::sandbox::{self, Options};

/// `sandbox`
pub(super) async fn sandbox(asked: Sandbox, out: &mut dyn Write) -> Result<Exit, Problem> {
    let path = asked.listen.strip_prefix("unix:").map(|path| path.trim_start_matches("//"));
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        let message = format!("--listen is {:?}, expected unix:PATH", asked.listen);
        return Err(Problem::stopped(Exit::Usage, "INVALID_LISTEN", message));
    };
    let socket = std::path::absolute(PathBuf::from(path))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    let options = Options { state: asked.state, socket, scenario: asked.scenario };
    let mut said = Ok(());
    let ran = sandbox::run(&options, stop, |ready| {
        let line = serde_json::to_string(ready).unwrap_or_default();
        said = writeln!(out, "{line}").and_then(|()| out.flush());
    });
    let ran = ran.await;
    said?;
    match ran {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Problem::stopped(Exit::Failed, "SANDBOX_FAILED", error.to_string())),
    }
}
