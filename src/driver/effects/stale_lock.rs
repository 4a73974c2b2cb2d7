//! The lock file of a server that was killed, `postmaster.pid`: it names a process by the number
//! that it had in its own container. In the next container the same number may be a live process,
//! and the next server then refuses to start. It is renamed aside right before a start, and only
//! where nobody can be running there (PostgreSQL manual, section 73.1).
//!
//! Called by the steps that start a container on the database's directory.

use std::path::Path;

use crate::database::{self, Place};
use crate::driver::context::StepContext;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::failure::FailureCode;

/// The lock file's name.
pub(in crate::driver) const LOCK_FILE: &str = "postmaster.pid";

/// Longest lock file that is kept as noted; a real one has about a hundred bytes.
const LONGEST_BYTES: usize = 4096;

/// File systems on which another host may work, by their magic numbers (statfs(2)): NFS, SMB,
/// CIFS, Ceph, AFS, GFS2, OCFS2, 9p, FUSE.
const SHARED_WITH_OTHERS: [i64; 10] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x5346_414f,
    0x0116_1970,
    0x7461_636f,
    0x0102_1997,
    0x6573_5546,
];

impl StepContext<'_> {
    /// What the lock file says now; none when there is none, or this host can't read it.
    pub(in crate::driver) fn lock_file(&self) -> Option<String> {
        let bytes = std::fs::read(self.directory()?.join(LOCK_FILE)).ok()?;
        let kept = bytes.get(..LONGEST_BYTES).unwrap_or(&bytes);
        Some(String::from_utf8_lossy(kept).into_owned())
    }

    /// Before a new version is started: renames the lock file aside that the old version's server
    /// left when it was killed, and which must be the one that was `noted` at the cut-over.
    ///
    /// # Errors
    /// When it is there and may not be renamed: the new version is not started on it.
    pub(in crate::driver) async fn free_of_old_lock(&self, noted: &str) -> Result<(), Trouble> {
        match self.free_of_lock(Some(noted)).await? {
            Ok(()) => Ok(()),
            Err(why) => fail(
                FailureCode::DatabaseMismatch,
                format!("{why}; the new version is not started on this directory"),
            ),
        }
    }

    /// Before any container is started again: the same, whoever left it, where it is safe. Where
    /// it is not, it is said, and the server itself decides: not to start the shop for it would be
    /// the greater harm.
    pub(in crate::driver) async fn free_of_any_lock(&self) -> Result<(), Trouble> {
        if let Err(why) = self.free_of_lock(None).await? {
            self.say(&why).await;
        }
        Ok(())
    }

    /// Renames a lock file aside; a sentence where that may not be done.
    async fn free_of_lock(&self, noted: Option<&str>) -> Result<Result<(), String>, Trouble> {
        let Some(directory) = self.directory() else { return Ok(Ok(())) };
        let Some(found) = self.lock_file() else { return Ok(Ok(())) };
        let path = directory.join(LOCK_FILE);
        let refused = |why: String| {
            let path = path.display();
            Ok(Err(format!(
                "{path} is left by a database server that did not end in good order, and {why}"
            )))
        };
        if let Some(noted) = noted
            && noted != found
        {
            return refused("it is not the one that the old version's server had".into());
        }
        let place = match Place::of(directory) {
            Ok(place) => place,
            Err(error) => return refused(format!("{}: {error}", directory.display())),
        };
        if let Some(server) = database::servers_in(place).first() {
            return refused(format!("process {} of this host works in its directory", server.pid));
        }
        if let Some(name) = self.running_on(directory).await? {
            return refused(format!("container {name} runs and mounts its directory"));
        }
        match rustix::fs::statfs(directory) {
            Ok(found) if SHARED_WITH_OTHERS.contains(&(found.f_type)) => {
                return refused("its file system may be in use by another host".into());
            }
            Ok(_) => {}
            Err(error) => return refused(format!("statfs {}: {error}", directory.display())),
        }
        let aside = directory.join(format!("{LOCK_FILE}.stale-{}", self.id_of_hop()));
        let renamed = std::fs::rename(&path, &aside).and_then(|()| sync(directory));
        if let Err(error) = renamed {
            return refused(format!("it can't be renamed to {}: {error}", aside.display()));
        }
        self.say(&format!(
            "{} was left by a server that was killed; nobody works in its directory, so it is renamed to {}",
            path.display(),
            aside.display()
        ))
        .await;
        Ok(Ok(()))
    }

    /// The name of a running container that mounts the directory, ours included; none when there
    /// is none.
    async fn running_on(&self, directory: &Path) -> Result<Option<String>, Trouble> {
        for container in self.engine.containers(None).await? {
            if container.state != "running" || !database::may_write_to(&container, directory) {
                continue;
            }
            let is_product = container.id == self.old_id()
                || self.next_container.is_some_and(|next| next.id == container.id)
                || self.is_a_server(&container.id).await?;
            if is_product {
                return Ok(Some(container.name));
            }
        }
        Ok(None)
    }

    /// Whether a running container runs a PostgreSQL server; one of which it can't be told may.
    async fn is_a_server(&self, id: &str) -> Result<bool, Trouble> {
        match self.engine.processes(id).await {
            Ok(processes) => Ok(processes.iter().any(|process| {
                ["postgres", "postmaster"].iter().any(|name| process.command.contains(name))
            })),
            Err(error) if error.status().is_some() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a rename durable.
fn sync(directory: &Path) -> std::io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}
