//! What is seen of the make-believe world without changing it: listing, inspections, volumes,
//! and what a container printed. Called by `route`.

use std::fs;

use serde_json::{Value, json};

use super::{Answer, Refusal, World, find, gone};
use crate::sandbox::inspection::VERSION_LABEL;
use crate::sandbox::scenario::Release;

impl World {
    /// The containers as the listing has them, with a label filter `key=value`: those that run,
    /// or all.
    pub fn list(&self, label: Option<&str>, is_all: bool) -> Value {
        let inner = self.inner();
        let wanted = label.map(|label| label.split_once('=').unwrap_or((label, "")));
        let lines = inner.containers.values().map(|one| &one.inspection).filter(|one| {
            let is_labelled =
                wanted.is_none_or(|(key, value)| one["Config"]["Labels"][key] == value);
            is_labelled && (is_all || one["State"]["Running"] == true)
        });
        lines
            .map(|one| {
                json!({
                    "Id": one["Id"], "Names": [one["Name"]], "Image": one["Config"]["Image"],
                    "ImageID": one["Image"], "State": one["State"]["Status"],
                    "Status": one["State"]["Status"], "Labels": one["Config"]["Labels"],
                    "Mounts": one["Mounts"],
                })
            })
            .collect()
    }

    /// A container's inspection.
    pub fn inspect(&self, id_or_name: &str) -> Answer<Value> {
        let inner = self.inner();
        let id = find(&inner, id_or_name)?;
        inner.containers.get(&id).map(|one| one.inspection.clone()).ok_or_else(|| gone(id_or_name))
    }

    /// An image's inspection, by id or `repo:tag`.
    pub fn image(&self, reference: &str) -> Answer<Value> {
        let inner = self.inner();
        let found = inner.images.iter().find(|image| {
            image["Id"] == reference
                || image["RepoTags"]
                    .as_array()
                    .is_some_and(|tags| tags.iter().any(|tag| tag == reference))
        });
        found.cloned().ok_or_else(|| Refusal::new(404, format!("No such image: {reference}")))
    }

    /// The release that a container runs.
    pub fn release_of(&self, inspection: &Value) -> Release {
        let version = inspection["Config"]["Labels"][VERSION_LABEL].as_str().unwrap_or_default();
        self.scenario.tags.get(version).cloned().unwrap_or_default()
    }

    /// A volume that some container mounts or mounted.
    pub fn volume(&self, name: &str) -> Answer<Value> {
        let path = self.root.join("volumes").join(name).join("_data");
        let is_mounted = self.inner().containers.values().any(|one| {
            let mounts = one.inspection["Mounts"].as_array();
            mounts.into_iter().flatten().any(|mount| mount["Name"] == name)
        });
        if !is_mounted && !path.exists() {
            return Err(Refusal::new(404, format!("get {name}: no such volume")));
        }
        Ok(json!({
            "Name": name, "Driver": "local", "Mountpoint": path, "Scope": "local",
            "Labels": null, "Options": null, "CreatedAt": "2026-01-01T00:00:00Z",
        }))
    }

    /// What a container printed.
    pub fn printed(&self, id_or_name: &str) -> Answer<String> {
        let id = find(&self.inner(), id_or_name)?;
        Ok(fs::read_to_string(self.log(&id)).unwrap_or_default())
    }
}
