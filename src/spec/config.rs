//! `Config` of the next container: the old one's, less what the old image had put there.
//!
//! The engine writes the image's defaults into the container when it is created and forgets
//! which were which; a value that equals the old image's default is taken for that default. A
//! variable that the operator set to the very same value can't be told from it, so the notes
//! name it where it matters.

use serde_json::{Map, Value, json};

use super::SpecInputs;
use super::read::{self, ApiVersion, NetworkMode};

/// Fields that are inherited whole: the operator's when there is one, otherwise the image's.
/// `Shell` and `OnBuild` belong to builds; an engine that shows the image's in a container is
/// not to have it pinned.
const WHOLE: [&str; 5] = ["User", "WorkingDir", "StopSignal", "Shell", "OnBuild"];

/// What the operator said of the old container, with the new image's name and our labels.
pub(super) fn own(
    inputs: &SpecInputs<'_>,
    mut config: Map<String, Value>,
    api: ApiVersion,
    notes: &mut Vec<String>,
) -> Map<String, Value> {
    let defaults = &inputs.old_image["Config"];
    let next_defaults = &inputs.new_image["Config"];
    for field in WHOLE {
        if config.get(field).is_some_and(|value| read::same(value, &defaults[field])) {
            config.remove(field);
            follow(field, defaults, next_defaults, notes);
        }
    }
    let published = read::keys(&inputs.old["HostConfig"]["PortBindings"]);
    without_keys(&mut config, "ExposedPorts", |port| {
        // An engine publishes only what is exposed (seen on 20.10), so a published port stays
        // exposed whatever the new image says.
        read::has_key(&defaults["ExposedPorts"], port) && !published.contains(&port)
    });
    without_keys(&mut config, "Volumes", |path| read::has_key(&defaults["Volumes"], path));
    labels(inputs, &mut config);
    config.insert("Env".into(), environment(inputs, notes));
    command(&mut config, defaults, next_defaults, notes);
    health(&mut config, defaults, next_defaults, notes);
    if read::hostname_is_assigned(inputs.old) {
        config.remove("Hostname");
    }
    if NetworkMode::of(inputs.old) == NetworkMode::Container {
        config.remove("Domainname");
    }
    if api >= ApiVersion::MANY_NETWORKS {
        // Said for each network there (`networks`); the container-wide field is on its way out.
        config.remove("MacAddress");
    }
    config.insert("Image".into(), Value::String(inputs.image_reference.to_owned()));
    config
}

/// Notes that a field follows the new image, when that makes a difference.
fn follow(field: &str, defaults: &Value, next_defaults: &Value, notes: &mut Vec<String>) {
    if !read::same(&defaults[field], &next_defaults[field]) {
        notes.push(format!(
            "{field} was the old image's default and follows the new image, whose default differs"
        ));
    }
}

/// Takes keys out of a map of the configuration, and the map itself when none is left.
fn without_keys(config: &mut Map<String, Value>, field: &str, is_default: impl Fn(&str) -> bool) {
    let Some(Value::Object(entries)) = config.get_mut(field) else { return };
    entries.retain(|key, _| !is_default(key));
    if entries.is_empty() {
        config.remove(field);
    }
}

fn labels(inputs: &SpecInputs<'_>, config: &mut Map<String, Value>) {
    let defaults = &inputs.old_image["Config"]["Labels"];
    let mut labels = match config.remove("Labels") {
        Some(Value::Object(labels)) => labels,
        Some(_) | None => Map::new(),
    };
    labels.retain(|key, value| defaults.get(key.as_str()) != Some(value));
    for (key, value) in inputs.labels {
        labels.insert(key.clone(), Value::String(value.clone()));
    }
    config.insert("Labels".into(), Value::Object(labels));
}

/// The operator's entries, in their order.
fn environment(inputs: &SpecInputs<'_>, notes: &mut Vec<String>) -> Value {
    let old = read::texts(&inputs.old["Config"]["Env"]);
    let defaults = read::texts(&inputs.old_image["Config"]["Env"]);
    let next_defaults = read::texts(&inputs.new_image["Config"]["Env"]);
    let is_default = |entry: &str| {
        // All entries of one name stay together: the last of them wins.
        read::env_of(&old, read::env_key(entry)).iter().all(|entry| defaults.contains(entry))
    };
    // The engine appends the image's defaults after the operator's entries. What stands before
    // an entry of the operator's was given with the container.
    let given = old.iter().rposition(|entry| !is_default(entry)).unwrap_or(0);
    let mut own = Vec::new();
    for (index, entry) in old.iter().enumerate() {
        if !is_default(entry) {
            own.push(json!(entry));
            continue;
        }
        let key = read::env_key(entry);
        let next = read::env_of(&next_defaults, key);
        let outcome = match next.as_slice() {
            [] => "; the new image has none, so it is dropped",
            next if next.contains(entry) => "",
            _ => "; the new image's default differs and applies",
        };
        if index < given {
            notes.push(format!(
                "environment variable {key} was given with the old image's default as its value \
                 and is taken for a default{outcome}"
            ));
        } else if !outcome.is_empty() {
            notes.push(format!("environment variable {key} is the old image's default{outcome}"));
        }
    }
    Value::Array(own)
}

/// Entry point and command, which the engine inherits together: an entry point of the
/// operator's clears the image's command, so a command beside it is the operator's whatever it
/// says.
fn command(
    config: &mut Map<String, Value>,
    defaults: &Value,
    next_defaults: &Value,
    notes: &mut Vec<String>,
) {
    let entrypoint = config.get("Entrypoint").cloned().unwrap_or(Value::Null);
    let cmd = config.get("Cmd").cloned().unwrap_or(Value::Null);
    let cmd_is_default = read::same(&cmd, &defaults["Cmd"]);
    if read::same(&entrypoint, &defaults["Entrypoint"]) {
        if read::is_nothing(&cmd) && !cmd_is_default {
            // The image's command was cleared, which only a given entry point does.
            return;
        }
        config.remove("Entrypoint");
        follow("Entrypoint", defaults, next_defaults, notes);
        if cmd_is_default {
            config.remove("Cmd");
            config.remove("ArgsEscaped");
            follow("Cmd", defaults, next_defaults, notes);
        }
    } else if entrypoint.is_null() {
        // `--entrypoint ""` took the image's away and is shown as null. Null in a request would
        // bring the new image's; this is the form that takes it away.
        config.insert("Entrypoint".into(), json!([""]));
    } else if read::is_nothing(&entrypoint) && cmd_is_default {
        // An empty list takes the entry point away and leaves the image's command.
        config.remove("Cmd");
        config.remove("ArgsEscaped");
        follow("Cmd", defaults, next_defaults, notes);
    }
}

/// The health check is inherited field by field.
fn health(
    config: &mut Map<String, Value>,
    defaults: &Value,
    next_defaults: &Value,
    notes: &mut Vec<String>,
) {
    let defaults = &defaults["Healthcheck"];
    let Some(Value::Object(check)) = config.get_mut("Healthcheck") else { return };
    check.retain(|field, value| !read::same(value, &defaults[field.as_str()]));
    if check.is_empty() {
        config.remove("Healthcheck");
        if !read::same(defaults, &next_defaults["Healthcheck"]) {
            notes.push("Healthcheck was the old image's default and follows the new image, whose default differs".into());
        }
    }
}
