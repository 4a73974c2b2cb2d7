//! What the manifest adds: ports, mounts and environment that the container lacks. Never
//! changes or removes anything; what it can't add, it says.

use serde_json::{Map, Value, json};

use super::SpecInputs;
use super::read::{self, NetworkMode};
use crate::machine::facts::{Overlay, OverlayPort, OverlayVolume};

/// Adds to what [`super::next`] has built from the old container.
pub(super) fn apply(
    inputs: &SpecInputs<'_>,
    config: &mut Map<String, Value>,
    host: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) {
    for port in &inputs.overlay.ports {
        let key = port_key(port);
        match add_port(inputs, config, host, port) {
            Ok(number) => notes.push(format!("the manifest adds port {key} at host port {number}")),
            Err(Some(why)) => {
                notes.push(format!("the manifest's port {key} is not added: {why}"));
            }
            Err(None) => {}
        }
    }
    for volume in &inputs.overlay.volumes {
        if is_mounted(inputs.old, host, &volume.destination) {
            continue;
        }
        push(host, "Binds", Value::String(bind(volume)));
        notes.push(format!("the manifest adds {} at {}", volume.source, volume.destination));
    }
    let new_image = read::texts(&inputs.new_image["Config"]["Env"]);
    for entry in &inputs.overlay.environment {
        let key = read::env_key(entry);
        let own = read::texts(config.get("Env").unwrap_or(&Value::Null));
        if read::env_of(&own, key).is_empty() && read::env_of(&new_image, key).is_empty() {
            push(config, "Env", Value::String(entry.clone()));
            notes.push(format!("the manifest adds environment variable {key}"));
        }
    }
}

/// The ports that this overlay would add to a container, by the host's port.
pub(crate) fn added_ports(old: &Value, overlay: &Overlay) -> Vec<(u16, String)> {
    let nothing = Value::Null;
    let inputs = SpecInputs {
        old,
        old_image: &nothing,
        new_image: &nothing,
        image_reference: "",
        overlay,
        labels: &[],
        api_version: "",
    };
    let fields = |key: &str| old[key].as_object().cloned().unwrap_or_default();
    let (mut config, mut host) = (fields("Config"), fields("HostConfig"));
    let added = overlay.ports.iter().filter_map(|port| {
        let number = add_port(&inputs, &mut config, &mut host, port).ok()?;
        Some((number, port_key(port)))
    });
    added.collect()
}

/// `80/tcp`
pub(super) fn port_key(port: &OverlayPort) -> String {
    format!("{}/{}", port.container, port.protocol)
}

/// The volume in the form of `docker run -v`.
pub(super) fn bind(volume: &OverlayVolume) -> String {
    let options = if volume.readonly { ":ro" } else { "" };
    format!("{}:{}{options}", volume.source, volume.destination)
}

/// Publishes a port; answers the host's port, or why not (nothing when there is nothing to do).
fn add_port(
    inputs: &SpecInputs<'_>,
    config: &mut Map<String, Value>,
    host: &mut Map<String, Value>,
    port: &OverlayPort,
) -> Result<u16, Option<String>> {
    let key = port_key(port);
    let number = port.host.unwrap_or(port.container);
    let bindings = host.get("PortBindings").unwrap_or(&Value::Null);
    if read::has_key(bindings, &key) {
        return Err(None);
    }
    if !NetworkMode::of(inputs.old).attaches() {
        let mode = &inputs.old["HostConfig"]["NetworkMode"];
        return Err(Some(format!("the container's network mode is {mode}")));
    }
    if read::is_true(&inputs.old["HostConfig"]["PublishAllPorts"])
        && read::has_key(&inputs.old["Config"]["ExposedPorts"], &key)
    {
        return Err(Some("it is published already, with every exposed port".into()));
    }
    let user = read::keys(bindings).into_iter().find(|other| {
        let same_protocol = other.rsplit('/').next() == Some(port.protocol.as_str());
        same_protocol
            && read::items(&bindings[*other])
                .iter()
                .any(|binding| covers(binding["HostPort"].as_str().unwrap_or_default(), number))
    });
    if let Some(user) = user {
        return Err(Some(format!("the container's port {user} uses host port {number}")));
    }
    let binding = json!([{ "HostIp": "", "HostPort": number.to_string() }]);
    put(host, "PortBindings", &key, binding);
    put(config, "ExposedPorts", &key, json!({}));
    Ok(number)
}

/// Whether a binding's host port, `8080` or `8000-8010`, takes this one.
fn covers(host_port: &str, number: u16) -> bool {
    let (first, last) = host_port.split_once('-').unwrap_or((host_port, host_port));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&number),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn is_mounted(old: &Value, host: &Map<String, Value>, destination: &str) -> bool {
    let destination = read::clean_path(destination);
    let so_far = json!({ "HostConfig": { "Binds": host.get("Binds") } });
    read::mounted_at(old, &destination).is_some()
        || read::named_destinations(old).contains(&destination)
        || read::named_destinations(&so_far).contains(&destination)
}

/// Adds to the array of this name, made when it is missing or null.
fn push(fields: &mut Map<String, Value>, name: &str, value: Value) {
    let mut items = match fields.remove(name) {
        Some(Value::Array(items)) => items,
        Some(_) | None => Vec::new(),
    };
    items.push(value);
    fields.insert(name.to_owned(), Value::Array(items));
}

/// Adds to the object of this name, made when it is missing or null.
fn put(fields: &mut Map<String, Value>, name: &str, key: &str, value: Value) {
    let mut entries = match fields.remove(name) {
        Some(Value::Object(entries)) => entries,
        Some(_) | None => Map::new(),
    };
    entries.insert(key.to_owned(), value);
    fields.insert(name.to_owned(), Value::Object(entries));
}
