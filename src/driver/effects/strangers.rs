//! Who works in the database's directory while neither of the two versions does: a server that
//! somebody else started there. Nothing is started beside it, and nothing is copied or renamed
//! under it (I2, I6, I7). It is not killed either: alone in the directory it damages nothing.
//!
//! Called before the restore point is finished or put back, and before anything is started or may
//! be started by the engine. That one works *beside* a version is `second_server`.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::containers::name_of;
use crate::database::{self, HostServer, Place};
use crate::driver::context::StepContext;
use crate::driver::narrate::short;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::failure::FailureCode;

/// How long the last process of a container that has ended may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl StepContext<'_> {
    /// Refuses where somebody else's server works in the shop's directory; `or_else` says what is
    /// not done then.
    pub(in crate::driver) async fn nobody_works_there(&self, or_else: &str) -> Result<(), Trouble> {
        match self.directory() {
            Some(directory) => self.nobody_works_in(directory, or_else).await,
            None => Ok(()),
        }
    }

    /// The same, of any directory; neither version runs in it.
    pub(in crate::driver) async fn nobody_works_in(
        &self,
        directory: &Path,
        or_else: &str,
    ) -> Result<(), Trouble> {
        let docker = &self.settings.docker_bin;
        let (who, end) = match self.stranger_in(directory).await? {
            None => return Ok(()),
            Some(Worker::Container(name, id)) => {
                (format!("container {name} ({})", short(&id)), format!("{docker} stop {name}"))
            }
            Some(Worker::Process(pid)) => {
                (format!("process {pid} of this host"), format!("kill -INT {pid}"))
            }
        };
        fail(
            FailureCode::DatabaseShared,
            format!(
                "{or_else}: a PostgreSQL server that is no part of this upgrade works in {}, of {who}. End it, then go on: {end} && payram-updater recover",
                directory.display()
            ),
        )
    }

    async fn stranger_in(&self, directory: &Path) -> Result<Option<Worker>, Trouble> {
        if let Ok(place) = Place::of(directory)
            && let Some(server) = self.server_that_stays(place).await
        {
            let container = match server.container_id() {
                Some(id) => self.inspect(id).await?,
                None => None,
            };
            return Ok(Some(match (container, server.container_id()) {
                (Some(found), Some(id)) => Worker::Container(name_of(&found).into(), id.into()),
                (_, _) => Worker::Process(server.pid),
            }));
        }
        // Of a container that this host does not see into, the engine tells.
        for other in self.engine.containers(None).await? {
            if self.is_ours(&other.id)
                || other.state != "running"
                || !database::may_write_to(&other, directory)
            {
                continue;
            }
            if self.has_unseen_server(&other.id).await? {
                return Ok(Some(Worker::Container(other.name, other.id)));
            }
        }
        Ok(None)
    }

    pub(in crate::driver) fn is_ours(&self, id: &str) -> bool {
        id == self.old_id() || self.next_container.is_some_and(|next| next.id == id)
    }

    /// One that works there; of the two versions' own, one that does not end in time.
    async fn server_that_stays(&self, place: Place) -> Option<HostServer> {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let servers = database::servers_in(place);
            let is_ending =
                |server: &HostServer| server.container_id().is_some_and(|id| self.is_ours(id));
            if let Some(other) = servers.iter().find(|server| !is_ending(server)) {
                return Some(other.clone());
            }
            if servers.is_empty() || Instant::now() >= deadline {
                return servers.into_iter().next();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a container has a server of which the kernel does not say where it works.
    async fn has_unseen_server(&self, id: &str) -> Result<bool, Trouble> {
        let processes = match self.engine.processes(id).await {
            Ok(processes) => processes,
            // It has ended meanwhile, or the engine has no means to list them.
            Err(error) if error.status().is_some() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let seen = database::servers_of_this_host();
        Ok(processes.iter().any(|process| {
            database::is_server_program(&process.command)
                && !seen.iter().any(|server| server.pid == process.pid)
        }))
    }
}

/// Who works there.
enum Worker {
    /// A container: its name and id.
    Container(String, String),
    /// A process of this host.
    Process(u32),
}
