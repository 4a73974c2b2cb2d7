//! `sync`: a person put things right by hand, or upgraded by other means, and says so. What runs
//! now is looked at as strictly as `inspect` does, and recorded as the last good version; a
//! stopped upgrade that waited for a person is closed by it (contract section 8).

use super::effects::{name_of, occupies_database};
use super::recovery::{Decision, Remedy};
use super::{Driver, RecoverError, durable};
use crate::app::container;
use crate::app::core::Probe;
use crate::journal::{Ending, JobRecord, NewEvent};
use crate::machine::facts::{Copy, CoreRules};

impl Driver {
    /// Records what runs now as good, when it is.
    ///
    /// # Errors
    /// When the journal or the engine can't be asked.
    pub async fn sync(&self) -> Result<Decision, RecoverError> {
        let Some(job) = self.reader.last_executed_job()? else {
            let message = "no upgrade was ever run; there is nothing to put right";
            return Ok(Decision::will("none", Remedy::Nothing, message));
        };
        if job.is_active() {
            let message = "an upgrade is under way";
            return Ok(Decision::refused(message, "payram-updater status says where it is"));
        }
        let found = match self.what_serves(&job).await? {
            Ok(found) => found,
            Err(reason) => {
                let then = "mend it first; what does not serve is not recorded as good";
                return Ok(Decision::refused(reason, then));
            }
        };
        let message = format!("{} serves in {} and is recorded as good", found.version, found.name);
        let ending = Ending { failure_code: None, message: format!("sync: {message}") };
        let data = [
            ("version".to_owned(), found.version.clone()),
            ("container".to_owned(), found.name.clone()),
        ];
        let event = NewEvent {
            kind: "sync",
            status: "succeeded",
            message: message.clone(),
            data: data.into(),
        };
        let (journal, id) = (std::sync::Arc::clone(&self.journal), job.id.clone());
        durable(move || journal.end(&id, &ending, &[event])).await?;
        // The policy that an upgrade held back and never came to give.
        if let Some(known) = job.hop().map(|hop| hop.machine.state().known()) {
            let policy = &known.hop.old.restart_policy;
            self.engine.set_restart_policy(&found.id, policy).await?;
        }
        let left = self.left_over(&job, &found.id).await?;
        let message = match left.is_empty() {
            true => message,
            false => format!(
                "{message}; what the upgrade left is kept; when you are sure that it is not needed: {}",
                left.join(" && ")
            ),
        };
        Ok(Decision::will("sync", Remedy::Nothing, message))
    }

    /// The commands that clear what nobody tidies: the upgrade was closed by a person.
    async fn left_over(&self, job: &JobRecord, serves: &str) -> Result<Vec<String>, RecoverError> {
        let Some(known) = job.hop().map(|hop| hop.machine.state().known()) else {
            return Ok(Vec::new());
        };
        let mut commands = Vec::new();
        let next = known.next.map(|next| next.id.as_str());
        for id in [Some(known.hop.old.id.as_str()), next].into_iter().flatten() {
            if let Some(container) = self.engine.inspect_container(id).await?
                && id != serves
            {
                commands.push(format!("{} rm {}", self.settings.docker_bin, name_of(&container)));
            }
        }
        if let Some(Copy::Directory { copy, .. }) = known.copy
            && std::path::Path::new(copy).is_dir()
        {
            commands.push(format!("rm -r {copy}"));
        }
        Ok(commands)
    }

    async fn what_serves(&self, job: &JobRecord) -> Result<Result<Found, String>, RecoverError> {
        // By the name that the last upgrade knew, as everything else about it.
        let name = Some(job.body.container_name.as_str());
        let found = match container::find(self.engine.as_ref(), &self.settings, name).await {
            Ok(found) => found,
            Err(failure) => return Ok(Err(failure.message)),
        };
        let Some(inspected) = self.engine.inspect_container(&found.id).await? else {
            return Ok(Err(format!("container {} is gone", found.name)));
        };
        if !occupies_database(&inspected) {
            return Ok(Err(format!("container {} does not run", found.name)));
        }
        let probe = Probe::of(&self.settings);
        let place = match probe.find(self.engine.as_ref(), &inspected).await {
            Ok(place) => place,
            Err(silent) => return Ok(Err(silent.to_string())),
        };
        Ok(match probe.judge(&place, &rules_of(job), &inspected).await {
            Ok(version) => Ok(Found { id: found.id, name: found.name, version }),
            Err(unfit) => Err(unfit.to_string()),
        })
    }
}

/// How the last job's versions were asked.
fn rules_of(job: &JobRecord) -> CoreRules {
    job.body.hops.last().map_or_else(|| job.body.from_rules.clone(), |hop| hop.rules.clone())
}

/// What serves.
struct Found {
    id: String,
    name: String,
    version: String,
}
