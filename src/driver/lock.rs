//! One writer for one state directory, whoever runs it: the daemon, or a command beside it.
//!
//! An advisory lock (`flock`) on `STATE_DIR/lock`; the kernel gives it back when its holder
//! ends, however it ends, so it can't be left behind by a crash or a reboot. The file names
//! its holder for the message that a second one gets: process, command, and the boot that it
//! belongs to, by which a name left from before a reboot is told from a living one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The lock, held while it lives.
pub struct StateLock {
    _file: File,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another payram-updater ({holder}) works on {}: only one may at a time, and nothing was changed. Wait until it has ended, or ask it: payram-updater status", directory.display())]
    Held {
        /// The state directory.
        directory: PathBuf,
        /// What it wrote about itself: `pid 1234, recover, boot 0c9f…`.
        holder: String,
    },
    /// The file can't be made or locked.
    #[error("lock {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StateLock {
    /// Takes the lock of this state directory, creating the directory (0700) when missing.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                // For a message only: on a full disk the lock is held all the same.
                let named = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", owner()));
                if let Err(error) = named {
                    tracing::warn!(path = %path.display(), %error, "the lock does not name its holder");
                }
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "unknown".to_owned(),
                    // Its writer died with that boot; the holder has not named itself yet.
                    named if !boot().is_empty() && !named.ends_with(&boot()) => {
                        format!("unknown; before the last boot: {named}")
                    }
                    named => named.to_owned(),
                };
                Err(LockError::Held { directory: directory.to_owned(), holder })
            }
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

/// This process, for whoever finds the lock taken: `pid 1234, serve, boot 0c9f…`.
fn owner() -> String {
    let command = std::env::args().nth(1).filter(|word| word.chars().all(|c| c.is_alphanumeric()));
    let command = command.unwrap_or_else(|| "serve".to_owned());
    let boot = boot();
    let boot = if boot.is_empty() { String::new() } else { format!(", boot {boot}") };
    format!("pid {}, {command}{boot}", std::process::id())
}

/// Linux's name for this boot (random(4)); empty where there is none.
fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = StateLock::take(directory.path()).expect("free");
        let refused = StateLock::take(directory.path()).err().expect("held").to_string();
        assert!(refused.contains(&format!("(pid {},", std::process::id())), "{refused}");
        assert!(refused.contains(&boot()), "{refused}");
        // A name that is left of another boot is no holder's.
        std::fs::write(directory.path().join("lock"), "pid 7, serve, boot 0000").expect("written");
        let refused = StateLock::take(directory.path()).err().expect("held").to_string();
        assert!(refused.contains("unknown; before the last boot: pid 7"), "{refused}");
        drop(first);
        StateLock::take(directory.path()).expect("free again");
    }
}
