//! The next container's specification, from the old one's, both images and the manifest.
//!
//! `inspect` answers what a container *is*: what the operator said, what the image said and
//! what the engine filled in, in one object. A create request must hold only the first, or the
//! new image's own defaults never apply; and it must hold all of it, or a setting is lost. So
//! everything is copied as raw JSON, and only what is known to come from elsewhere is taken
//! out: a field that this program has never heard of survives.
//!
//! Called by `driver` (the step `create_next`) and by `plan` (what the operator is told before).
//! Pure: no engine, no clock. What the engine made of it is proved by [`parity`], which
//! shares only the reading of single fields ([`read`]) with this module, so that a mistake made
//! here is found there.
//!
//! Where the engine's rules come from: Docker Engine API v1.41 to v1.50 (`ContainerCreate`,
//! `ContainerInspect`) and the merge of image and container configuration in the engine's
//! `ContainerCreate`: text and number fields are inherited when empty, maps and the environment
//! key by key, the command only when neither entry point nor command was given.

pub(super) mod read;

mod config;
mod isolated;
#[cfg(test)]
pub(super) mod model;
mod mounts;
mod networks;
mod overlay;
pub mod parity;
#[cfg(test)]
mod tests;

pub use isolated::{Isolation, isolated};
use networks::configured_mac;
pub(crate) use overlay::added_ports;

use serde_json::{Map, Value, json};

use crate::machine::facts::Overlay;
use read::ApiVersion;

/// All that a container mounts, as the parts of a `HostConfig` that say so: volumes that were made
/// for it alone by their names.
pub fn mounts_of(container: &Value) -> Value {
    let mut host = Map::new();
    for key in ["Binds", "Mounts", "VolumesFrom", "Tmpfs"] {
        if !container["HostConfig"][key].is_null() {
            host.insert(key.into(), container["HostConfig"][key].clone());
        }
    }
    mounts::carry(container, &mut host);
    Value::Object(host)
}

/// Where the body of a create request, or a container, has something mounted that it names, memory
/// left out.
pub fn mounted_by_name(of: &Value) -> Vec<String> {
    let host = &of["HostConfig"];
    let without_memory = json!({"HostConfig": {"Binds": host["Binds"], "Mounts": host["Mounts"]}});
    read::named_destinations(&without_memory)
}

/// Everything that the next container's specification is made of.
#[derive(Clone, Copy)]
pub struct SpecInputs<'a> {
    /// The raw inspection of the old container.
    pub old: &'a Value,
    /// The raw inspection of the image that the old container runs.
    pub old_image: &'a Value,
    /// The raw inspection of the image to go to.
    pub new_image: &'a Value,
    /// What the new image is called, `payramapp/payram:1.9.7`.
    pub image_reference: &'a str,
    /// What the manifest adds where it is missing.
    pub overlay: &'a Overlay,
    /// Labels that mark the container as this product's.
    pub labels: &'a [(String, String)],
    /// The API version that was agreed with the engine, `1.41`.
    pub api_version: &'a str,
}

/// What to ask of the engine.
#[derive(Clone, Debug)]
pub struct NextSpec {
    /// The body of the create request.
    pub create_body: Value,
    /// Networks to connect to after that, each with its raw endpoint settings: an engine below
    /// API 1.44 takes only one network at creation.
    pub further_networks: Vec<(String, Value)>,
    /// Sentences for a person: what was taken for a default, what the manifest adds or can't
    /// add. They hold names of environment variables, never a value (I10).
    pub notes: Vec<String>,
}

/// Why no specification can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The engine removes such a container when it stops, and with it the way back (I1).
    #[error(
        "the container was started with --rm (HostConfig.AutoRemove is true): the engine would \
         remove it as soon as it is stopped, and nothing would be left to go back to; create it \
         again without --rm, then upgrade"
    )]
    AutoRemove,
    /// The inspection is not one.
    #[error("build the new container's specification: the inspection of {of} has no {field}")]
    Incomplete {
        /// `the old container`
        of: &'static str,
        /// `HostConfig`
        field: &'static str,
    },
    /// The version decides how networks are attached, so it is not guessed.
    #[error(
        "build the new container's specification: the engine's API version is {0:?}, expected \
         two numbers such as 1.41"
    )]
    ApiVersion(String),
}

/// Builds the specification.
///
/// # Errors
/// See [`SpecError`]. Nothing was asked of the engine by then.
pub fn next(inputs: &SpecInputs<'_>) -> Result<NextSpec, SpecError> {
    let missing = |field| SpecError::Incomplete { of: "the old container", field };
    let api = ApiVersion::parse(inputs.api_version)
        .ok_or_else(|| SpecError::ApiVersion(inputs.api_version.to_owned()))?;
    let old_config = inputs.old["Config"].as_object().ok_or_else(|| missing("Config"))?;
    let old_host = inputs.old["HostConfig"].as_object().ok_or_else(|| missing("HostConfig"))?;
    // Without its id, what the engine derived from it can't be told from what was asked for.
    read::short_id(inputs.old).ok_or_else(|| missing("Id"))?;
    if read::is_true(&inputs.old["HostConfig"]["AutoRemove"]) {
        return Err(SpecError::AutoRemove);
    }

    let mut notes = Vec::new();
    let mut config = config::own(inputs, old_config.clone(), api, &mut notes);
    let mut host = host(inputs, old_host.clone());
    overlay::apply(inputs, &mut config, &mut host, &mut notes);
    let attachments = networks::attachments(inputs, api);

    let mut body = config;
    body.insert("HostConfig".into(), Value::Object(host));
    if !attachments.at_creation.is_empty() {
        body.insert(
            "NetworkingConfig".into(),
            json!({ "EndpointsConfig": attachments.at_creation }),
        );
    }
    Ok(NextSpec { create_body: Value::Object(body), further_networks: attachments.further, notes })
}

/// `HostConfig` whole, but for the restart policy and what must be said in another form.
fn host(inputs: &SpecInputs<'_>, mut host: Map<String, Value>) -> Map<String, Value> {
    // Held back until the new version is verified: a host that reboots in mid-upgrade must not
    // start both containers on one database (I2).
    host.insert("RestartPolicy".into(), json!({ "Name": "no", "MaximumRetryCount": 0 }));
    let links: Vec<Value> = read::links(&inputs.old["HostConfig"]["Links"])
        .into_iter()
        .map(|(peer, alias)| Value::String(format!("{peer}:{alias}")))
        .collect();
    if !links.is_empty() {
        host.insert("Links".into(), Value::Array(links));
    }
    mounts::carry(inputs.old, &mut host);
    host
}
