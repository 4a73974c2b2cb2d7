//! The shop as a backup and a restore find it: the container, and the database that it names. Where
//! the container is gone, the database as it was found last (contract section 4).

use serde_json::Value;

use super::prepare::strings;
use super::{Driver, durable};
use crate::app::container;
use crate::app::core::{Probe, label_version};
use crate::database::{self, Access, Database, Runner};
use crate::engine::Inspection;
use crate::machine::facts::CoreRules;
use crate::machine::failure::{Failure, FailureCode};
use crate::plan::fetch;

/// The container, and where the database is.
pub(super) struct Shop {
    /// None where it is gone and the database is elsewhere.
    pub container: Option<Standing>,
    pub database: Database,
}

/// A container that is there.
pub(super) struct Standing {
    pub id: String,
    pub name: String,
    pub inspection: Value,
}

impl Standing {
    pub fn runs(&self) -> bool {
        Inspection(&self.inspection).may_start_upgrade()
    }
}

impl Shop {
    /// What PostgreSQL's programs are run in.
    pub fn container_id(&self) -> &str {
        self.container.as_ref().map_or("", |container| container.id.as_str())
    }

    pub fn runner<'a>(&'a self, driver: &'a Driver) -> Runner<'a> {
        Runner::new(driver.engine.as_ref(), self.container_id(), &self.database)
    }

    /// Refuses a database in a container that does not run: nobody could ask it.
    fn must_answer(&self) -> Result<(), Failure> {
        let Some(container) = &self.container else { return Ok(()) };
        if self.database.access == Access::OnHost || container.runs() {
            return Ok(());
        }
        let status = Inspection(&container.inspection).status();
        let message = format!(
            "the database is in container {}, which is {status}: it can be asked only while that runs",
            container.name
        );
        Err(Failure::new(FailureCode::RuntimeInspectionFailed, message))
    }
}

impl Driver {
    /// Finds it, and writes down where the database is.
    ///
    /// # Errors
    /// When there is no container and nothing was written down of a database elsewhere, or it is
    /// in a container that does not run.
    pub(super) async fn shop(&self) -> Result<Shop, Failure> {
        let shop = match self.standing().await {
            Ok(container) => self.shop_of(container)?,
            Err(gone) => without_container(gone, || database::recall(&self.settings.state_dir))?,
        };
        shop.must_answer()?;
        Ok(shop)
    }

    /// The shop whose container this is.
    pub(super) fn shop_of(&self, container: Standing) -> Result<Shop, Failure> {
        let environment = strings(&container.inspection["Config"]["Env"]);
        let database = database::locate(&environment, &self.settings.pg)?;
        Ok(Shop { container: Some(container), database })
    }

    async fn standing(&self) -> Result<Standing, Failure> {
        let last = self.reader.last_executed_job();
        let last = last.ok().flatten().map(|job| job.body.container_name);
        let name = match last {
            Some(name) => Some(name),
            // One that can't be had names none: then the image finds it.
            None => {
                let manifest = fetch::manifest(&self.settings).await.ok();
                manifest.and_then(|found| found.container_name(None).map(str::to_owned))
            }
        };
        let engine = self.engine.as_ref();
        let found = container::find(engine, &self.settings, name.as_deref()).await?;
        let inspected = engine.inspect_container(&found.id).await;
        match inspected.map_err(|error| Failure::from(&error))? {
            Some(inspection) => Ok(Standing { id: found.id, name: found.name, inspection }),
            None => {
                let message = format!("container {} is gone", found.name);
                Err(Failure::new(FailureCode::ContainerNotFound, message))
            }
        }
    }

    /// Writes down where the database is; nothing else depends on it, so that a failure is only
    /// told in the log.
    pub(super) async fn remember(&self, database: &Database) {
        let (state, database) = (self.settings.state_dir.clone(), database.clone());
        let written = durable(move || Ok(database::remember(&state, &database))).await;
        if let Ok(Err(failure)) = written {
            tracing::warn!(%failure, "where the database is could not be written down");
        }
    }

    /// The version that serves, as the core says it, or else the container's label.
    pub(super) async fn serving_version(&self, shop: &Shop) -> Option<String> {
        let container = shop.container.as_ref()?;
        let probe = Probe::of(&self.settings);
        let rules = CoreRules::Api { health_path: String::new() };
        let said = match probe.find_at_once(self.engine.as_ref(), &container.inspection).await {
            Ok(place) => probe.version(&place, &rules, &container.inspection).await.ok(),
            Err(_silent) => None,
        };
        said.or_else(|| label_version(&container.inspection))
    }
}

/// A database elsewhere is there without the container; one in it is not.
fn without_container(
    gone: Failure,
    recall: impl FnOnce() -> Result<Option<Database>, Failure>,
) -> Result<Shop, Failure> {
    let is_gone =
        matches!(gone.code, FailureCode::ContainerNotFound | FailureCode::PayramContainerNotFound);
    if !is_gone {
        return Err(gone);
    }
    match recall()? {
        Some(database) if database.access == Access::OnHost => {
            Ok(Shop { container: None, database })
        }
        Some(database) => Err(Failure::new(
            gone.code,
            format!(
                "{}; its database {} was in it, so that it can be asked only while that runs (payram-updater recover says what can be started)",
                gone.message, database.name
            ),
        )),
        None => Err(gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn found(access: Access) -> Result<Option<Database>, Failure> {
        Ok(Some(Database {
            host: "db".into(),
            port: 5432,
            name: "payram".into(),
            user: "payram".into(),
            password: Secret::new("hunter22".into()),
            sslmode: None,
            access,
        }))
    }

    #[test]
    fn without_the_container_only_a_database_elsewhere_is_there() {
        let gone = |code| Failure::new(code, "it is gone");
        let not_found = FailureCode::ContainerNotFound;
        let shop = without_container(gone(not_found), || found(Access::OnHost)).ok();
        assert_eq!(shop.map(|shop| shop.database.name).as_deref(), Some("payram"));
        let inside = without_container(gone(not_found), || found(Access::InContainer));
        let failure = inside.err().expect("refused");
        assert!(failure.message.contains("payram-updater recover"), "{failure}");
        assert!(without_container(gone(not_found), || Ok(None)).is_err());
        // An engine that can't be asked says nothing about the container.
        let unasked = gone(FailureCode::DockerDaemonDown);
        assert!(without_container(unasked, || found(Access::OnHost)).is_err());
    }
}
