//! The old container, made again where somebody removed it: a clean-up job takes what does not
//! run. It is made of the specification that is on disk since before the upgrade changed anything
//! (I5), from the same image by its id, on the database that is there, and only where its volumes
//! are there and it comes out equal (I1). Anything else is for a person.
//!
//! Called while the new version is watched, and on the way back. Nothing is ever started here.

use std::path::Path;

use serde_json::Value;

use crate::driver::context::{StepContext, Which};
use crate::driver::narrate::short;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::Overlay;
use crate::machine::failure::{Failure, FailureCode};
use crate::names::{self, REMADE_LABEL};
use crate::spec::SpecInputs;
use crate::spec::{self, parity};

impl StepContext<'_> {
    /// The container that was made again for this hop, by its label.
    pub(in crate::driver) async fn find_remade(&self) -> Result<Option<String>, Trouble> {
        let label = format!("{REMADE_LABEL}={}", self.hop_label());
        Ok(self.engine.containers(Some(&label)).await?.into_iter().next().map(|found| found.id))
    }

    /// Sees that the old container is there, and makes it again where it is not.
    ///
    /// # Errors
    /// `CONTAINER_NOT_FOUND` with what is missing for that.
    pub(in crate::driver) async fn ensure_old(&self) -> Result<(), Trouble> {
        if self.inspect(self.old().id).await?.is_some() {
            return Ok(());
        }
        if let Some(id) = self.find_remade().await? {
            self.remade.set(id).ok();
            return Ok(());
        }
        let id = self.remake().await?;
        self.remade.set(id).ok();
        Ok(())
    }

    async fn remake(&self) -> Result<String, Trouble> {
        let old = &self.hop.old;
        let gone = format!("the old container {} was removed by somebody", short(&old.id));
        let refused = |why: String| {
            fail(FailureCode::ContainerNotFound, format!("{gone}, and it is not made again: {why}"))
        };
        let saved = SavedSpec::read(&old.spec_file)?;
        let Some(image) = self.engine.inspect_image(&old.image_id).await? else {
            return refused(format!("its image {} is not on this host any more", old.image_id));
        };
        if let Some(missing) = self.missing_mount(&saved.container).await? {
            return refused(missing);
        }
        self.say(&format!("{gone}; it is made again from {}", old.spec_file)).await;
        let reference = self.reference(&saved.container, &old.image_id).await?;
        let facts = self.engine.facts().await?;
        let labels = [(REMADE_LABEL.to_owned(), self.hop_label())];
        let inputs = SpecInputs {
            old: &saved.container,
            old_image: &saved.image,
            new_image: &image,
            image_reference: &reference,
            overlay: &Overlay::default(),
            labels: &labels,
            api_version: &facts.api_version,
        };
        let made = spec::next(&inputs)
            .map_err(|error| Failure::new(FailureCode::DockerRunBuildFailed, error.to_string()))?;
        let name = names::previous(&old.name, &self.id_of_hop());
        let id = self.create(&name, &made.create_body).await?;
        for (network, endpoint) in &made.further_networks {
            self.engine.connect_network(network, &id, endpoint).await?;
        }
        let container = self.inspect_present(&id, "old").await?;
        let differences = parity::differences(&container, &inputs);
        if !differences.is_empty() {
            let fields: Vec<String> = differences.iter().map(ToString::to_string).collect();
            self.remove(Which { id: &id, role: "remade" }).await?;
            return refused(format!("it would differ in {}", fields.join("; ")));
        }
        self.say(&format!("the old container is there again, as {} ({name})", short(&id))).await;
        Ok(id)
    }

    /// The name of its image where that still names it, otherwise the image's id.
    async fn reference(&self, container: &Value, image_id: &str) -> Result<String, Trouble> {
        let named = container["Config"]["Image"].as_str().unwrap_or_default();
        let found = match named.is_empty() {
            true => None,
            false => self.engine.inspect_image(named).await?,
        };
        let is_the_same = found.is_some_and(|image| image["Id"].as_str() == Some(image_id));
        Ok(if is_the_same { named } else { image_id }.to_owned())
    }

    /// What the container mounted and is not there any more; an engine would make it anew, empty.
    async fn missing_mount(&self, container: &Value) -> Result<Option<String>, Trouble> {
        for mount in container["Mounts"].as_array().into_iter().flatten() {
            let text = |key: &str| mount[key].as_str().unwrap_or_default();
            match text("Type") {
                "volume" if self.engine.inspect_volume(text("Name")).await?.is_none() => {
                    return Ok(Some(format!("its volume {} is gone", text("Name"))));
                }
                "bind" if !Path::new(text("Source")).exists() => {
                    return Ok(Some(format!("{} is gone, which it mounts", text("Source"))));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
