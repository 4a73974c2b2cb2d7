//! `serve`: the daemon. Puts the parts together and ends them in order.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::systemd::{self, Pulse, Watched, notify};
use crate::api::Api;
use crate::auto_update::AutoUpdate;
use crate::config::{LogFormat, Settings};
use crate::driver::{Driver, LockError, StateLock};
use crate::engine::Engine;
use crate::engine::docker::Docker;
use crate::journal::Reader;
use crate::notify::Notifier;

/// Runs until SIGTERM or SIGINT; the step in hand is finished or left resumable first.
pub(super) async fn serve() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payram-updater: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (settings, warnings) = Settings::load()?;
    start_log(&settings);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let stop = CancellationToken::new();
    let lock = take("STATE_DIR", &settings.state_dir)?;
    // Two states behind one socket would be one too many: the later takes the socket away.
    let _socket = take("RUN_DIR", &settings.run_dir)?;
    warn_of_others(&settings);
    raise_file_limit();
    let settings = Arc::new(settings);
    let engine = Docker::connect(&settings.docker_bin, settings.docker_host.as_deref()).await?;
    let engine: Arc<dyn Engine> = Arc::new(engine.with_pull_silence(settings.pull_silence));
    let driver =
        Arc::new(Driver::new(Arc::clone(&settings), Arc::clone(&engine), lock, stop.clone())?);
    let reader = Arc::new(Reader::open(&settings.journal_path())?);
    let auto_update = AutoUpdate::new(
        Arc::clone(&settings),
        Arc::clone(&engine),
        Arc::clone(&driver),
        Arc::clone(&reader),
        stop.clone(),
    );
    let notifier = Notifier::new(
        Arc::clone(&settings),
        Arc::clone(&driver),
        Arc::clone(&reader),
        stop.clone(),
    );
    let api = Arc::new(Api::new(
        Arc::clone(&settings),
        Arc::clone(&engine),
        Arc::clone(&driver),
        Arc::clone(&reader),
        stop.clone(),
    ));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        engine = engine.endpoint(),
        state = %settings.state_dir.display(),
        "payram-updater starts"
    );
    tokio::spawn(stop_on_signal(stop.clone())?);
    let pulse = Arc::new(Pulse::default());
    let watched = Watched { driver: Arc::clone(&driver), reader, pulse: Arc::clone(&pulse) };
    let runs = tokio::spawn(async move { pulse.of(driver.run()).await });
    let updates = tokio::spawn(auto_update.run());
    let tells = tokio::spawn(notifier.run());
    let (socket, told) = (settings.socket_path(), stop.clone());
    let ready = || {
        notify("READY=1");
        tokio::spawn(async move { systemd::keep_told(watched, &socket, told).await });
    };
    let served = api.serve(ready).await;
    // A listener that failed ends the daemon in the same order as a signal.
    stop.cancel();
    notify("STOPPING=1");
    runs.await?;
    updates.await?;
    tells.await?;
    served?;
    tracing::info!("payram-updater has ended; an unfinished upgrade goes on at the next start");
    Ok(())
}

/// The lock of a directory; what is wrong with the directory names the setting that chose it.
fn take(key: &str, directory: &Path) -> Result<StateLock, String> {
    StateLock::take(directory).map_err(|error| match error {
        LockError::Held { .. } => error.to_string(),
        LockError::Io { path, source } => format!(
            "{key} is `{}`; allowed: a directory that this user may write, or that can be made. {}: {source}",
            directory.display(),
            path.display()
        ),
    })
}

/// Who may write what the daemon believes may have it do anything.
fn warn_of_others(settings: &Settings) {
    let own = rustix::process::geteuid().as_raw();
    for path in [settings.state_dir.clone(), settings.journal_path(), settings.run_dir.clone()] {
        // What is not there yet is made for its owner alone.
        let Ok(found) = std::fs::metadata(&path) else { continue };
        let (path, mode) = (path.display(), found.mode() & 0o777);
        if found.uid() != own && found.uid() != 0 {
            tracing::warn!(
                "{path} belongs to user {}, who may change it: chown {own} {path}",
                found.uid()
            );
        }
        if mode & 0o022 != 0 {
            tracing::warn!("{path} may be written by others (mode {mode:o}): chmod go-w {path}");
        }
    }
}

/// As many open files as the system allows: each connection is one, and so is each that the
/// upgrade itself needs.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

fn stop_on_signal(
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: finishing the current step");
        stop.cancel();
    })
}

fn start_log(settings: &Settings) {
    // Settings are checked: the filter parses.
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // Whoever read the log may be gone. That can't be told to anybody, and to try would end the task
    // that has something to say, the one that ends the daemon included.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match settings.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
