//! `serve`: the daemon.

use std::process::ExitCode;

/// Runs the daemon until it is told to end.
pub(super) async fn serve() -> ExitCode {
    eprintln!("payram-updater: serve: the daemon is not part of this build");
    ExitCode::FAILURE
}
