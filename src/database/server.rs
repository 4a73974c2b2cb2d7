//! The server behind the database: where its directory is, and how it was started.
//!
//! Called by the driver before it copies the directory. Asked of the
//! container's `/proc`; reads only.

use std::time::Duration;

use futures_util::StreamExt;

use crate::engine::{Engine, ExecRequest, Frame};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;

/// How long the look into the container may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the owners of the processes that are called like the server, a line each.
const OWNERS: &str = r#"
for process in /proc/[0-9]*; do
    name=$(tr '\0' '\n' <"$process/cmdline" 2>/dev/null | sed -n 1p)
    case ${name##*/} in
    postgres | postmaster) stat -c %u:%g "$process" ;;
    esac
done
exit 0
"#;

/// Finds the server that listens on port `$1` and prints its program, directory, the
/// directory's owner, `PG_VERSION` and its arguments, a line each. Run as the server's own user,
/// since the kernel tells where a process works to nobody else, root inside a container
/// included. The server itself would not tell an application's role
/// (`pg_read_all_settings`). It works in its directory, whose `postmaster.pid` names it and its
/// port (PostgreSQL manual, section 73.1).
const LOOK: &str = r#"
for process in /proc/[0-9]*; do
    directory=$(readlink "$process/cwd") || continue
    [ -r "$directory/postmaster.pid" ] || continue
    [ "$(sed -n 1p "$directory/postmaster.pid")" = "${process#/proc/}" ] || continue
    [ "$(sed -n 4p "$directory/postmaster.pid")" = "$1" ] || continue
    readlink "$process/exe" && printf '%s\n' "$directory" && stat -c %u:%g "$directory" &&
        cat "$directory/PG_VERSION" && tr '\0' '\n' <"$process/cmdline"
    exit
done
echo "no PostgreSQL server listens on port $1" >&2
exit 1
"#;

/// How the server is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its program inside the container.
    pub program: String,
    /// What it was started with.
    pub arguments: Vec<String>,
    /// Its directory inside the container, symbolic links resolved.
    pub data_directory: String,
    /// Owner of the directory, `UID:GID`.
    pub owner: String,
    /// `15`
    pub major: u32,
}

/// Looks for the server that listens on this port inside a container.
///
/// # Errors
/// `RUNTIME_INSPECTION_FAILED` when there is none or it can't be looked at.
pub async fn server_facts(
    engine: &dyn Engine,
    container: &str,
    port: u16,
) -> Result<ServerFacts, Trouble> {
    let owners = look(engine, container, port, OWNERS, "0").await?;
    let mut owners: Vec<&str> = owners.lines().collect();
    owners.sort_unstable();
    owners.dedup();
    let mut looked = Err(failed(port, "no process is called postgres or postmaster".into()));
    for owner in owners {
        looked = look(engine, container, port, LOOK, owner).await;
        if looked.is_ok() {
            break;
        }
    }
    let looked = looked?;
    parse(&looked).ok_or_else(|| {
        failed(port, format!("expected program, directory, owner and version, found {looked:?}"))
    })
}

fn parse(looked: &str) -> Option<ServerFacts> {
    let mut lines = looked.lines();
    let facts = ServerFacts {
        program: lines.next()?.to_owned(),
        data_directory: lines.next()?.to_owned(),
        owner: lines.next()?.to_owned(),
        major: lines.next()?.trim().parse().ok()?,
        // The first is the name it was called by.
        arguments: lines.skip(1).map(str::to_owned).collect(),
    };
    facts.data_directory.starts_with('/').then_some(facts)
}

fn failed(port: u16, reason: String) -> Trouble {
    Trouble::failed(
        FailureCode::RuntimeInspectionFailed,
        format!("look for the database server on port {port} inside the container: {reason}"),
    )
}

async fn look(
    engine: &dyn Engine,
    container: &str,
    port: u16,
    script: &str,
    user: &str,
) -> Result<String, Trouble> {
    let port_text = port.to_string();
    let argv = ["sh", "-c", script, "payram-updater", &port_text].map(str::to_owned).to_vec();
    let user = Some(user.to_owned());
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
    match looked.await {
        Ok(Ok((out, _, Some(0)))) => Ok(String::from_utf8_lossy(&out).into_owned()),
        Ok(Ok((_, err, code))) => Err(failed(
            port,
            format!("the look ended with {code:?}: {}", String::from_utf8_lossy(&err).trim()),
        )),
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(failed(port, format!("no answer within {} s", LOOK_TIMEOUT.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_becomes_facts_and_a_cut_one_none() {
        let looked = "/usr/lib/postgresql/15/bin/postgres\n/srv/db\n101:103\n15\n\
                      postgres\n-D\n/srv/db\n-c\nconfig_file=/etc/p.conf\n";
        let facts = parse(looked).expect("facts");
        assert_eq!((facts.major, facts.owner.as_str()), (15, "101:103"));
        assert_eq!(facts.arguments, ["-D", "/srv/db", "-c", "config_file=/etc/p.conf"]);
        assert_eq!(parse("/usr/bin/postgres\n/srv/db\n101:103\n"), None);
        assert_eq!(parse(""), None);
    }
}
