//! The shop, looked at for a rehearsal: what a copy of it is made by, and what its version does by
//! itself. Reads only; called by the step `copy`.

use std::time::Duration;

use tokio::time::Instant;

use super::mounts;
use super::set::Original;
use super::steps::{Steps, fail};
use super::trial::programs_of;
use crate::app::watch::Watch;
use crate::clock;
use crate::database::{self, Access, Recipe, Runner, UsageWatch};
use crate::driver::prepare::strings;
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::machine::facts::Habits;
use crate::machine::failure::FailureCode;

/// Looks at the shop by which its habits are learnt, at least.
const LOOKS_AT_LEAST: u32 = 3;

/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one question to its database's server may take.
const ASK_WITHIN: Duration = Duration::from_secs(30);

impl Steps<'_> {
    /// The shop, as far as a copy of it is made.
    pub(super) async fn look(&self) -> Result<Original, Trouble> {
        let engine = self.driver.engine.as_ref();
        let name = &self.record.body.container;
        let Some(container) = engine.inspect_container(name).await? else {
            return fail(FailureCode::ContainerNotFound, format!("there is no container {name}"));
        };
        if !Inspection(&container).may_start_upgrade() {
            let status = Inspection(&container).status();
            return fail(
                FailureCode::RuntimeInspectionFailed,
                format!("container {name} is {status}, a rehearsal needs one that serves"),
            );
        }
        let environment = strings(&container["Config"]["Env"]);
        let database = database::locate(&environment, &self.driver.settings.pg)?;
        if database.access == Access::OnHost {
            return fail(
                FailureCode::RuntimeInspectionFailed,
                format!(
                    "the database is elsewhere ({}), and only one in the container can be rehearsed on",
                    database.host
                ),
            );
        }
        let id = container["Id"].as_str().unwrap_or_default();
        let server = database::server_facts(engine, id, database.port).await?;
        let Some(home) = mounts::home(&container, &server.data_directory) else {
            return fail(
                FailureCode::DatabaseNotPersistent,
                format!("{} is on no mount that this host reaches", server.data_directory),
            );
        };
        let image_id = container["Image"].as_str().unwrap_or_default();
        let Some(image) = engine.inspect_image(image_id).await? else {
            return fail(
                FailureCode::RuntimeInspectionFailed,
                format!("the image {image_id} of container {name} is not on this host any more"),
            );
        };
        let recipe = Recipe::ask(&Runner::new(engine, id, &database)).await?;
        let dump = self.root().join("shop.dump");
        Ok(Original { container, image, database, server, home, recipe, dump })
    }

    /// What the version that serves does by itself, watched as long as a new one will be.
    pub(super) async fn habits(&self, shop: &str, runner: &Runner<'_>) -> Habits {
        let (mut watch, mut usage) = (Watch::default(), UsageWatch::default());
        let (began, mut looks) = (Instant::now(), 0);
        while looks < LOOKS_AT_LEAST || began.elapsed() < self.driver.settings.verify_for {
            // What can't be seen of it is not held against a new one.
            if let Ok(Some(running)) = programs_of(self.driver, shop).await {
                watch.look(&running);
            }
            if let Ok(found) = database::identity(runner, ASK_WITHIN).await {
                let at = clock::uptime().map_or(0, |up| up.millis);
                usage.look(u64::try_from(at).unwrap_or_default(), found);
            }
            looks += 1;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let usage = usage.usage();
        Habits {
            looks: usage.looks,
            looks_with_sessions: usage.looks_with_sessions,
            seconds: began.elapsed().as_secs(),
            usage,
            ..watch.habits()
        }
    }
}
