//! What is done to containers as objects: policy, name, start, stop, remove. Called by the steps.
//!
//! Every verb observes by id first and answers at once when the world is as it should be, so
//! that it can be run again after a crash at any instant.

use serde_json::{Value, json};

use super::outside::ended_by_itself;
use crate::app::supervisor;
use crate::driver::context::{StepContext, Which};
use crate::driver::recovery::rival;
use crate::engine::{EngineError, Inspection};
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::NextContainer;
use crate::machine::failure::FailureCode;
use crate::names::HOP_LABEL;

/// How long a container that somebody restarts may be between its end and its start.
const SETTLES_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Between two looks at it.
const SETTLED_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// The policy under which nothing starts by itself.
pub(in crate::driver) fn no_restart() -> Value {
    json!({"Name": "no", "MaximumRetryCount": 0})
}

/// Whether two raw policies mean the same: an empty name is `no`, and the retry count counts
/// only for `on-failure`.
pub(in crate::driver) fn is_same_policy(a: &Value, b: &Value) -> bool {
    let read = |policy: &Value| {
        let name =
            policy["Name"].as_str().filter(|name| !name.is_empty()).unwrap_or("no").to_owned();
        let retries = policy["MaximumRetryCount"].as_i64().unwrap_or(0);
        let retries = if name == "on-failure" { retries } else { 0 };
        (name, retries)
    };
    read(a) == read(b)
}

pub(in crate::driver) fn occupies_database(container: &Value) -> bool {
    Inspection(container).occupies_database()
}

/// Whether a container was ever started; the engine writes year 1 for never.
pub(in crate::driver) fn was_started(container: &Value) -> bool {
    Inspection(container).was_started()
}

/// Whether a container that was started has ended as an engine may bring it about: by
/// SIGTERM, well or not, by SIGKILL, or found dead at the engine's start (Docker writes 255). A
/// program that fails ends otherwise.
fn was_stopped_from_outside(container: &Value) -> bool {
    let state = &container["State"];
    was_started(container)
        && !occupies_database(container)
        && state["OOMKilled"].as_bool() != Some(true)
        && matches!(state["ExitCode"].as_i64(), Some(0 | 137 | 143 | 255))
}

pub(in crate::driver) fn name_of(container: &Value) -> &str {
    Inspection(container).name()
}

impl StepContext<'_> {
    /// Sets a restart policy and sees that it is set.
    pub(in crate::driver) async fn set_policy(
        &self,
        which: Which<'_>,
        policy: &Value,
    ) -> Result<(), Trouble> {
        let container = self.inspect_present(which.id, which.role).await?;
        if is_same_policy(&container["HostConfig"]["RestartPolicy"], policy) {
            return Ok(());
        }
        self.engine.set_restart_policy(which.id, policy).await?;
        let container = self.inspect_present(which.id, which.role).await?;
        let found = &container["HostConfig"]["RestartPolicy"];
        if is_same_policy(found, policy) {
            return Ok(());
        }
        fail(
            FailureCode::DockerError,
            format!("{which}: restart policy set to {policy}, found {found}"),
        )
    }

    /// Gives a container a name and sees that it has it.
    pub(in crate::driver) async fn set_name(
        &self,
        which: Which<'_>,
        name: &str,
    ) -> Result<(), Trouble> {
        let container = self.inspect_present(which.id, which.role).await?;
        if name_of(&container) == name {
            return Ok(());
        }
        self.engine.rename(which.id, name).await?;
        let container = self.inspect_present(which.id, which.role).await?;
        match name_of(&container) {
            found if found == name => Ok(()),
            found => {
                fail(FailureCode::DockerError, format!("{which}: renamed to {name}, found {found}"))
            }
        }
    }

    /// Stops a container with its own grace and sees that it is stopped.
    pub(in crate::driver) async fn stop(&self, which: Which<'_>) -> Result<(), Trouble> {
        let container = self.inspect_present(which.id, which.role).await?;
        if !occupies_database(&container) {
            return Ok(());
        }
        tokio::select! {
            stopped = self.engine.stop(which.id, None) => stopped?,
            never = supervisor::keep_awake(self.engine, which.id) => match never {},
        }
        let container = self.inspect_present(which.id, which.role).await?;
        if occupies_database(&container) {
            return fail(
                FailureCode::DockerError,
                format!("{which}: it was stopped and still is {}", container["State"]["Status"]),
            );
        }
        let code = container["State"]["ExitCode"].as_i64().unwrap_or_default();
        if code == 137 {
            self.say(&format!("{which} did not stop in its grace period and was killed")).await;
        }
        Ok(())
    }

    /// Refuses where this container runs.
    pub(in crate::driver) async fn must_not_run(&self, which: Which<'_>) -> Result<(), Trouble> {
        match self.inspect(which.id).await? {
            Some(container) if occupies_database(&container) => fail(
                FailureCode::DockerError,
                format!("the {which} runs, and two servers would share one database directory"),
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Starts a container that does not run, after seeing that `other`, which mounts the same
    /// database directory, does not run (I2).
    pub(in crate::driver) async fn start(
        &self,
        which: Which<'_>,
        other: Which<'_>,
    ) -> Result<(), Trouble> {
        if let Some(container) = self.inspect(other.id).await?
            && occupies_database(&container)
        {
            return fail(
                FailureCode::DockerError,
                format!(
                    "{which} is not started: the {other} runs, and the two would share one database directory"
                ),
            );
        }
        let container = self.inspect_present(which.id, which.role).await?;
        if occupies_database(&container) {
            return Ok(());
        }
        self.nobody_else_runs(&container).await?;
        self.nobody_works_there(&format!("{which} is not started")).await?;
        self.free_of_any_lock().await?;
        match self.engine.start(which.id).await {
            Ok(()) => Ok(()),
            Err(EngineError::Refused { message, status, .. })
                if message.contains("port is already allocated")
                    || message.contains("address already in use") =>
            {
                fail(
                    FailureCode::PortConflict,
                    format!("start {which}: the engine answered {status}: {message}"),
                )
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sees that no container which somebody made by hand runs on the database's directory (I2);
    /// `container` is one of the two that may.
    pub(in crate::driver) async fn nobody_else_runs(
        &self,
        container: &Value,
    ) -> Result<(), Trouble> {
        let Some(directory) = self.directory() else { return Ok(()) };
        let next = self.next_container.map(|next| next.id.as_str());
        let ours: Vec<&str> = [Some(self.old_id()), next].into_iter().flatten().collect();
        match rival(self.engine, container, directory, &ours).await? {
            None => Ok(()),
            Some(other) => fail(
                FailureCode::DockerError,
                format!(
                    "container {}, which is no part of this upgrade, runs on the same database directory",
                    name_of(&other)
                ),
            ),
        }
    }

    /// A host that was rebooted, or an engine that was restarted, before or in the middle of a
    /// verification has left the version down, which is no fault of the version's: it is started
    /// again, and that is answered. Any other end is for the gate to judge.
    pub(in crate::driver) async fn start_what_was_stopped(
        &self,
        which: Which<'_>,
        other: Which<'_>,
    ) -> Result<bool, Trouble> {
        let container = self.inspect_present(which.id, which.role).await?;
        if !was_stopped_from_outside(&container) || ended_by_itself(self.engine, &container).await {
            return Ok(false);
        }
        self.say(&format!(
            "the {which} was stopped from outside while it was verified (exit code {}); it is started again",
            container["State"]["ExitCode"]
        ))
        .await;
        self.start(which, other).await?;
        Ok(true)
    }

    /// The container once it is not on its way any more, as in the middle of a restart by
    /// somebody; as it is when that takes too long.
    pub(in crate::driver) async fn settled(&self, which: Which<'_>) -> Result<Value, Trouble> {
        let deadline = tokio::time::Instant::now() + SETTLES_WITHIN;
        loop {
            let container = self.inspect_present(which.id, which.role).await?;
            if Inspection(&container).is_up() || tokio::time::Instant::now() >= deadline {
                return Ok(container);
            }
            tokio::time::sleep(SETTLED_EVERY).await;
        }
    }

    /// Removes a stopped container; fine when it is gone.
    pub(in crate::driver) async fn remove(&self, which: Which<'_>) -> Result<(), Trouble> {
        let Some(container) = self.inspect(which.id).await? else { return Ok(()) };
        if occupies_database(&container) {
            return fail(FailureCode::DockerError, format!("{which} is not removed: it runs"));
        }
        match self.engine.remove(which.id).await {
            Ok(()) => Ok(()),
            Err(error) if error.status() == Some(404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The new container, unless a way back that was taken before has removed it.
    pub(in crate::driver) async fn if_present<'n>(
        &self,
        next: &'n NextContainer,
    ) -> Result<Option<Which<'n>>, Trouble> {
        Ok(self.inspect(&next.id).await?.map(|_| Which::next(next)))
    }

    /// Refuses, before anything is stopped for it, where the new container was removed.
    pub(in crate::driver) async fn next_is_there(&self) -> Result<(), Trouble> {
        let next = self.next()?;
        match self.inspect(next.id).await? {
            // Where the database is a directory this was looked for already.
            Some(container) if occupies_database(&container) => fail(
                FailureCode::DatabaseShared,
                format!("somebody started the {next}, which was prepared and is not due yet"),
            ),
            Some(_) => Ok(()),
            None => fail(
                FailureCode::ContainerNotFound,
                format!(
                    "somebody removed the {next}, which was prepared and not started yet (a clean-up job?)"
                ),
            ),
        }
    }

    /// Removes every container of this hop; none of them may run.
    pub(in crate::driver) async fn remove_labelled(&self) -> Result<(), Trouble> {
        let label = format!("{HOP_LABEL}={}", self.hop_label());
        for container in self.engine.containers(Some(&label)).await? {
            self.remove(Which { id: &container.id, role: "new" }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_failed_by_itself_was_not_stopped_from_outside() {
        let ended = |code: i64, is_oom: bool| {
            was_stopped_from_outside(&json!({"State": {
                "Status": "exited", "Running": false, "StartedAt": "2026-01-31T12:00:00Z",
                "ExitCode": code, "OOMKilled": is_oom,
            }}))
        };
        assert!(ended(255, false) && ended(137, false) && ended(143, false) && ended(0, false));
        assert!(!ended(1, false) && !ended(137, true));
        let state = |is_running: bool, started: &str| {
            was_stopped_from_outside(&json!({"State": {
                "Running": is_running, "StartedAt": started, "ExitCode": 0,
            }}))
        };
        assert!(!state(true, "2026-01-31T12:00:00Z"), "it runs");
        assert!(!state(false, "0001-01-01T00:00:00Z"), "it was never started");
    }

    #[test]
    fn policies_are_compared_by_what_they_mean() {
        assert!(is_same_policy(&json!({"Name": ""}), &no_restart()));
        assert!(is_same_policy(
            &json!({"Name": "always", "MaximumRetryCount": 3}),
            &json!({"Name": "always"})
        ));
        assert!(!is_same_policy(
            &json!({"Name": "on-failure", "MaximumRetryCount": 3}),
            &json!({"Name": "on-failure", "MaximumRetryCount": 4})
        ));
    }
}
