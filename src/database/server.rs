//! The server behind the database: where its directory is, and how it was started.
//!
//! Called by the driver before it copies the directory. Asked of the server itself and of the
//! container's `/proc`; reads only.

use std::time::Duration;

use futures_util::StreamExt;

use super::runner::{READING_TIMEOUT, Runner};
use crate::engine::{Engine, ExecRequest, Frame};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;

/// How long the look into the container may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the program, the real directory and its owner, a line each; `$1` is the directory.
const LOOK: &str = r#"
pid=$(head -n 1 "$1/postmaster.pid") || exit 1
readlink "/proc/$pid/exe" || exit 1
readlink -f "$1" || exit 1
stat -c %u:%g "$1"
"#;

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its program inside the container.
    pub program: String,
    /// Its directory inside the container, symbolic links resolved.
    pub data_directory: String,
    /// `postgresql.conf` inside the container.
    pub config_file: String,
    /// Owner of the directory, `UID:GID`.
    pub owner: String,
    /// `15`
    pub major: u32,
}

/// Asks the server of a database that is inside a container.
///
/// # Errors
/// `RUNTIME_INSPECTION_FAILED` when it does not answer or its directory can't be looked at.
pub async fn server_facts(
    runner: &Runner<'_>,
    engine: &dyn Engine,
    container: &str,
) -> Result<ServerFacts, Trouble> {
    let code = FailureCode::RuntimeInspectionFailed;
    let doing = "ask the database server where its directory is";
    let ask = "select concat_ws('|', current_setting('server_version_num')::int / 10000, \
               current_setting('config_file'), current_setting('data_directory'))";
    let answer = runner
        .psql(None, &[ask], READING_TIMEOUT)
        .await
        .map_err(|error| error.trouble(doing, code, code))?;
    let strange =
        |found: &str| Trouble::failed(code, format!("{doing}: not understood: {found:?}"));
    let mut parts = answer.trim().splitn(3, '|');
    let (Some(major), Some(config_file), Some(directory)) =
        (parts.next().and_then(|major| major.parse().ok()), parts.next(), parts.next())
    else {
        return Err(strange(&answer));
    };
    let looked = look(engine, container, directory).await?;
    let mut lines = looked.lines();
    match (lines.next(), lines.next(), lines.next()) {
        (Some(program), Some(real), Some(owner)) => Ok(ServerFacts {
            program: program.to_owned(),
            data_directory: real.to_owned(),
            config_file: config_file.to_owned(),
            owner: owner.to_owned(),
            major,
        }),
        (_, _, _) => Err(strange(&looked)),
    }
}

async fn look(engine: &dyn Engine, container: &str, directory: &str) -> Result<String, Trouble> {
    let argv = ["sh", "-c", LOOK, "payram-updater", directory].map(str::to_owned).to_vec();
    // As root: another user may neither enter the directory nor read the process' link.
    let user = Some("0".to_owned());
    let request = ExecRequest { argv, env: Vec::new(), user, stdin: false };
    let looked = tokio::time::timeout(LOOK_TIMEOUT, async {
        let mut exec = engine.exec(container, request).await?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(frame) = exec.output.next().await {
            match frame? {
                Frame::Stdout(bytes) => out.extend_from_slice(&bytes),
                Frame::Stderr(bytes) => err.extend_from_slice(&bytes),
            }
        }
        let code = engine.exec_exit_code(&exec.id).await?;
        Ok::<_, Trouble>((out, err, code))
    });
    let failed = |reason: String| {
        Trouble::failed(
            FailureCode::RuntimeInspectionFailed,
            format!("look at the database's directory {directory}: {reason}"),
        )
    };
    match looked.await {
        Ok(Ok((out, _, Some(0)))) => Ok(String::from_utf8_lossy(&out).into_owned()),
        Ok(Ok((_, err, code))) => Err(failed(format!(
            "the look ended with {code:?}: {}",
            String::from_utf8_lossy(&err).trim()
        ))),
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(failed(format!("no answer within {} s", LOOK_TIMEOUT.as_secs()))),
    }
}
