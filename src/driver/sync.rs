//! `sync`: a person put things right by hand, or upgraded by other means, and says so. What runs
//! now is looked at as strictly as `inspect` does, and recorded as the last good version, with the
//! container and the image that it is (contract section 8). A stopped upgrade that waited for a
//! person is closed by it. Said again, it writes nothing.

use serde_json::Value;

use super::effects::{name_of, occupies_database};
use super::recover::{PUT_BACK, WATCH};
use super::recovery::{Decision, Remedy};
use super::{Driver, RecoverError, durable};
use crate::app::container;
use crate::app::core::{Probe, label_version, rules_for};
use crate::history::{By, read_last_good};
use crate::journal::{Ending, JobRecord, NewEvent};
use crate::machine::State;
use crate::machine::facts::{Copy, CoreRules, Probation};
use crate::plan::fetch;

impl Driver {
    /// Records what runs now as good, when it is.
    ///
    /// # Errors
    /// When the journal or the engine can't be asked.
    pub async fn sync(&self) -> Result<Decision, RecoverError> {
        if self.reader.active_restore()?.is_some() {
            return Ok(Decision::refused(PUT_BACK, WATCH));
        }
        let job = self.reader.last_executed_job()?;
        let job = job.as_ref();
        if job.is_some_and(JobRecord::is_active) {
            let message = "an upgrade is under way";
            return Ok(Decision::refused(message, "payram-updater status says where it is"));
        }
        let found = match self.what_serves(job).await? {
            Ok(found) => found,
            Err(reason) => {
                let then = "fix it first, then payram-updater sync; what does not serve is not recorded as good";
                return Ok(Decision::refused(reason, then));
            }
        };
        let Found { id, name, image, version, .. } = &found;
        // One that failed, or stopped and waits, is closed by it.
        let open = job
            .filter(|job| job.ending.as_ref().is_some_and(|ending| ending.failure_code.is_some()));
        let is_known = read_last_good(&self.reader)?.is_some_and(|good| {
            // After a watch that found something a person's word is new.
            let is_in_doubt = good.by == By::Verified && job.is_some_and(keeps_the_way_back);
            good.is(version, id, image) && !is_in_doubt
        });
        let (action, mut message) = match (open, is_known) {
            (None, true) => {
                ("none", format!("{version} serves in {name} and is recorded as good already"))
            }
            (_, _) => ("sync", format!("{version} serves in {name} and is recorded as good")),
        };
        if action == "sync" {
            let event = recorded(&found, &message);
            let ending = Ending { failure_code: None, message: format!("sync: {message}") };
            let (journal, open) =
                (std::sync::Arc::clone(&self.journal), open.map(|job| job.id.clone()));
            durable(move || match open {
                Some(job) => journal.end(&job, &ending, &[event]),
                None => journal.note(&[event]),
            })
            .await?;
        }
        let Some(job) = job else { return Ok(Decision::will(action, Remedy::Nothing, message)) };
        self.give_policy_back(job, &found).await?;
        let left = self.left_over(job, id).await?;
        if !left.is_empty() {
            message = format!(
                "{message}; what the upgrade left is kept; when you are sure that it is not needed: {}",
                left.join(" && ")
            );
        }
        Ok(Decision::will(action, Remedy::Nothing, message))
    }

    /// The policy that an upgrade held back and never came to give. A container that a person made
    /// keeps the one that it was made with.
    async fn give_policy_back(&self, job: &JobRecord, found: &Found) -> Result<(), RecoverError> {
        let Some(known) = job.hop().map(|hop| hop.machine.state().known()) else { return Ok(()) };
        let next = known.next.map(|next| next.id.as_str());
        let is_its_own = found.id == known.hop.old.id || next == Some(found.id.as_str());
        if is_its_own && found.is_held_back {
            let policy = &known.hop.old.restart_policy;
            self.engine.set_restart_policy(&found.id, policy).await?;
        }
        Ok(())
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

    async fn what_serves(
        &self,
        job: Option<&JobRecord>,
    ) -> Result<Result<Found, String>, RecoverError> {
        // By the name that the last upgrade knew, as everything else about it; without one, as
        // `inspect` finds it. A manifest that can't be had names none: then the image finds it.
        let manifest = match job {
            Some(_) => None,
            None => fetch::manifest(&self.settings).await.ok(),
        };
        let name = match job {
            Some(job) => Some(job.body.container_name.as_str()),
            None => manifest.as_ref().and_then(|manifest| manifest.container_name(None)),
        };
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
        let rules = match job {
            Some(job) => rules_of(job),
            None => {
                let policy = fetch::policy(&self.settings).await.ok();
                let since = policy.and_then(|policy| policy.updater_api_init_version);
                let path = manifest.as_ref().map(|manifest| manifest.health_path.as_str());
                let label = label_version(&inspected).unwrap_or_default();
                rules_for(&label, since.as_deref(), path)
            }
        };
        Ok(match probe.judge(&place, &rules, &inspected).await {
            Ok(version) => Ok(Found::of(found, &inspected, version)),
            Err(unfit) => Err(unfit.to_string()),
        })
    }
}

/// Whether its version was verified, and the watch after that found something.
fn keeps_the_way_back(job: &JobRecord) -> bool {
    job.hop().is_some_and(|hop| match hop.machine.state() {
        State::Verified(verified) => {
            verified.probation.as_ref().is_some_and(Probation::keeps_the_way_back)
        }
        State::Planned(_)
        | State::BackedUp(_)
        | State::Pulled(_)
        | State::Swapped(_)
        | State::RollingBack(_)
        | State::RolledBack(_)
        | State::NeedsOperator(_) => false,
    })
}

/// How the last job's versions were asked.
fn rules_of(job: &JobRecord) -> CoreRules {
    job.body.hops.last().map_or_else(|| job.body.from_rules.clone(), |hop| hop.rules.clone())
}

/// The event that says it: what `history` takes it from.
fn recorded(found: &Found, message: &str) -> NewEvent {
    let data = [
        ("version", &found.version),
        ("container", &found.name),
        ("containerId", &found.id),
        ("imageId", &found.image),
    ];
    NewEvent {
        kind: "sync",
        status: "succeeded",
        message: message.to_owned(),
        data: data.map(|(key, value)| (key.to_owned(), value.clone())).into(),
    }
}

/// What serves.
struct Found {
    id: String,
    name: String,
    /// The image's id.
    image: String,
    version: String,
    /// Whether it would not start by itself after a reboot.
    is_held_back: bool,
}

impl Found {
    fn of(found: container::Found, inspected: &Value, version: String) -> Self {
        let policy = inspected["HostConfig"]["RestartPolicy"]["Name"].as_str();
        Self {
            id: found.id,
            name: found.name,
            image: inspected["Image"].as_str().unwrap_or_default().to_owned(),
            version,
            is_held_back: matches!(policy, None | Some("" | "no")),
        }
    }
}
