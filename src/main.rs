//! The program: hands its arguments to the commands, and their exit code to the system.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    payram_updater::cli::run(std::env::args_os()).await
}
