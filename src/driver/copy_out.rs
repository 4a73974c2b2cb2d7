//! `BACKUP_COPY_COMMAND`: an operator's own command that takes each proved backup off the host.
//!
//! Its end is told and changes nothing: the backup on this host is good, copied or not. It has the
//! daemon's environment but for the database's password, is given the backup's path as its last
//! argument, and is ended with everything that it started when its time is over.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::Instant;

use crate::secret::Secret;

/// Bytes of its output that are kept: the last ones.
const KEPT: usize = 8 * 1024;

/// Lines of it that are shown.
const LINES: usize = 20;

/// What is not for it: secrets of the updater's own, and its socket to systemd.
const WITHHELD: [&str; 4] = ["PG_PASSWORD", "NOTIFY_URL", "NOTIFY_SECRET", "NOTIFY_SOCKET"];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    /// How it ended, as a sentence; `Err` when not well.
    pub end: Result<String, String>,
    /// The last lines that it printed.
    pub said: Vec<String>,
}

/// Runs it to its end.
pub(super) async fn run(
    command: &str,
    backup: &Path,
    within: Duration,
    password: &Secret<String>,
) -> Copied {
    let began = Instant::now();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{command} \"$1\""))
        .arg("payram-updater-copy")
        .arg(backup)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for key in WITHHELD {
        shell.env_remove(key);
    }
    let mut child = match shell.spawn() {
        Ok(child) => child,
        Err(error) => {
            let end = Err(format!("it could not be started: {error}"));
            return Copied { end, said: Vec::new() };
        }
    };
    let group = Group(child.id());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut kept = Vec::new();
    let ran = tokio::time::timeout(within, async {
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let ((), (), status) =
            tokio::join!(keep(out, &mut said), keep(err, &mut complained), child.wait());
        kept = said;
        kept.extend(complained);
        status
    });
    let ran = ran.await;
    drop(group);
    let seconds = began.elapsed().as_secs();
    let end = match ran {
        Ok(Ok(status)) if status.success() => Ok(format!("it ended well after {seconds} s")),
        Ok(Ok(status)) => Err(match status.code() {
            Some(code) => format!("it ended with exit code {code} after {seconds} s"),
            None => format!("it was ended by a signal after {seconds} s"),
        }),
        Ok(Err(error)) => Err(format!("its end could not be seen: {error}")),
        Err(_) => Err(format!("it did not end within {} s and was killed", within.as_secs())),
    };
    Copied { end, said: lines(&kept, password) }
}

/// The processes of the command; killed when dropped, those that are left.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.0.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // None is left where all have ended.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// The last of what is read, to the end.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut piece = vec![0; 4096];
    while let Ok(read) = stream.read(&mut piece).await {
        if read == 0 {
            return;
        }
        kept.extend_from_slice(piece.get(..read).unwrap_or_default());
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
}

fn lines(kept: &[u8], password: &Secret<String>) -> Vec<String> {
    let text = String::from_utf8_lossy(kept);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|it| !it.is_empty()).collect();
    let first = lines.len().saturating_sub(LINES);
    let hide = |line: &&str| match password.expose().as_str() {
        // As for PostgreSQL's own programs.
        short if short.len() < 4 => (*line).to_owned(),
        password => line.replace(password, "***"),
    };
    lines.get(first..).unwrap_or_default().iter().map(hide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(command: &str, within: Duration) -> Copied {
        let password = Secret::new("hunter22".to_owned());
        run(command, Path::new("/backups/a b.dump"), within, &password).await
    }

    #[tokio::test]
    async fn the_path_is_its_last_argument_and_its_output_is_kept_without_the_password() {
        let copied = ran("printf '%s\\n' hunter22 first", Duration::from_secs(60)).await;
        assert!(copied.end.is_ok(), "{copied:?}");
        assert_eq!(copied.said, ["***", "first", "/backups/a b.dump"]);
    }

    #[tokio::test]
    async fn a_bad_end_is_told() {
        let copied = ran("echo no room >&2; false", Duration::from_secs(60)).await;
        assert!(copied.end.expect_err("it failed").contains("exit code 1"));
        assert_eq!(copied.said, ["no room"]);
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_what_it_started() {
        let copied = ran("sleep 1000 & sleep 1000 #", Duration::from_millis(200)).await;
        assert!(copied.end.expect_err("it hangs").contains("was killed"));
    }
}
