//! The place on the host: mounts, ports, capabilities, logging.

use serde_json::{Value, json};

use super::compare::{Comparison, union};
use crate::machine::facts::OverlayVolume;
use crate::spec::SpecInputs;
use crate::spec::read::{self, Bind};

/// Compares `Mounts` and the fields of `HostConfig` that the table sets apart.
pub(super) fn compare(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    let old = &inputs.old["HostConfig"];
    let new = &container["HostConfig"];
    let policy = new["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    if !matches!(policy, "" | "no") {
        // Held back: two armed containers on one database is what I2 forbids.
        comparison.report("HostConfig.RestartPolicy.Name", &json!("no"), &json!(policy));
    }
    let mode = |host: &Value| match host["NetworkMode"].as_str().unwrap_or_default() {
        "" | "default" => json!("bridge"),
        mode => json!(mode),
    };
    comparison.exact("HostConfig.NetworkMode", &mode(old), &mode(new));
    let links = |host: &Value| -> Vec<String> {
        let links = read::links(&host["Links"]).into_iter();
        links.map(|(peer, alias)| format!("{peer}:{alias}")).collect()
    };
    comparison.sets("HostConfig.Links", &links(old), &links(new));
    for field in ["CapAdd", "CapDrop"] {
        let field_name = format!("HostConfig.{field}");
        comparison.sets(&field_name, &capabilities(&old[field]), &capabilities(&new[field]));
    }
    for field in ["MaskedPaths", "ReadonlyPaths"] {
        paths(comparison, &format!("HostConfig.{field}"), &old[field], &new[field]);
    }
    logging(comparison, &old["LogConfig"]["Config"], &new["LogConfig"]["Config"]);
    ports(comparison, &old["PortBindings"], &new["PortBindings"], inputs);
    binds(comparison, container, inputs);
    asked_mounts(comparison, container, inputs);
    mounts(comparison, container, inputs);
}

/// Names as engines since 20.10 write them.
fn capabilities(value: &Value) -> Vec<String> {
    read::texts(value)
        .into_iter()
        .map(str::to_ascii_uppercase)
        .map(|name| match name.as_str() {
            "ALL" => name,
            short if !short.starts_with("CAP_") => format!("CAP_{short}"),
            _ => name,
        })
        .collect()
}

/// A list that was given stays to the letter, an empty one too (it takes the protection away);
/// where none was given the engine puts its own.
fn paths(comparison: &mut Comparison, field: &str, old: &Value, new: &Value) {
    if !old.is_null() {
        comparison.exact(field, old, new);
    }
}

/// The engine adds options from its own settings; none that was given may change.
fn logging(comparison: &mut Comparison, old: &Value, new: &Value) {
    for key in read::keys(old) {
        comparison.equal(&format!("HostConfig.LogConfig.Config[{key}]"), &old[key], &new[key]);
    }
}

/// Whether the manifest has this port, `80/tcp`.
pub(super) fn is_added(inputs: &SpecInputs<'_>, key: &str) -> bool {
    let mut ports = inputs.overlay.ports.iter();
    ports.any(|port| format!("{}/{}", port.container, port.protocol) == key)
}

fn ports(comparison: &mut Comparison, old: &Value, new: &Value, inputs: &SpecInputs<'_>) {
    for key in union(old, new) {
        let field = format!("HostConfig.PortBindings[{key}]");
        // An empty list is a port that is there without a number, not one that is not there.
        match (old.get(key), new.get(key)) {
            (None, Some(_)) if is_added(inputs, key) => {}
            (Some(expected), Some(found)) => comparison.equal(&field, expected, found),
            (expected, found) => {
                let side = |value: Option<&Value>| value.cloned().unwrap_or(Value::Null);
                comparison.report(&field, &side(expected), &side(found));
            }
        }
    }
}

/// Every bind stays to the letter; one without a source is an anonymous volume, which is
/// mounted by name instead. Only the manifest's may be added.
fn binds(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    let old = read::texts(&inputs.old["HostConfig"]["Binds"]);
    let new = read::texts(&container["HostConfig"]["Binds"]);
    let field = |bind: &str| format!("HostConfig.Binds[{}]", Bind::parse(bind).destination);
    for bind in old.iter().filter(|bind| Bind::parse(bind).source.is_some()) {
        if !new.contains(bind) {
            comparison.report(&field(bind), &json!(bind), &Value::Null);
        }
    }
    for bind in new.iter().filter(|bind| !old.contains(bind)) {
        let destination = Bind::parse(bind).destination;
        if added_at(inputs, &destination).is_none_or(|volume| !is_bind_of(bind, volume)) {
            comparison.report(&field(bind), &Value::Null, &json!(bind));
        }
    }
}

/// The manifest's volume at this destination.
fn added_at<'a>(inputs: &SpecInputs<'a>, destination: &str) -> Option<&'a OverlayVolume> {
    let volumes = &inputs.overlay.volumes;
    volumes.iter().find(|volume| read::clean_path(&volume.destination) == destination)
}

fn is_bind_of(bind: &str, volume: &OverlayVolume) -> bool {
    let plain = format!("{}:{}", volume.source, volume.destination);
    bind == if volume.readonly { format!("{plain}:ro") } else { plain }
}

/// Mounts in the form of `--mount`: each as it was, an anonymous volume by its name. Further
/// ones only where the old container has a mount that none of its settings names.
fn asked_mounts(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    let old = read::items(&inputs.old["HostConfig"]["Mounts"]);
    let new = read::items(&container["HostConfig"]["Mounts"]);
    let at = |mounts: &[Value], target: &str| {
        mounts.iter().find(|mount| read::target(mount) == target).cloned()
    };
    for mount in old {
        let target = read::target(mount);
        let mut expected = mount.clone();
        if read::is_nothing(&mount["Source"])
            && mount["Type"].as_str() == Some("volume")
            && let Some(found) = read::mounted_at(inputs.old, &target)
            && let Some(fields) = expected.as_object_mut()
        {
            fields.insert("Source".into(), found["Name"].clone());
        }
        let found = at(new, &target).unwrap_or(Value::Null);
        comparison.equal(&format!("HostConfig.Mounts[{target}]"), &expected, &found);
    }
    let named = read::named_destinations(inputs.old);
    for mount in new {
        let target = read::target(mount);
        let carried = read::mounted_at(inputs.old, &target).is_some() && !named.contains(&target);
        if at(old, &target).is_none() && !carried {
            comparison.equal(&format!("HostConfig.Mounts[{target}]"), &Value::Null, mount);
        }
    }
}

/// What is really mounted, by destination: this is where a lost volume shows, whatever the
/// settings say.
fn mounts(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    for old in read::items(&inputs.old["Mounts"]) {
        let path = read::clean_path(old["Destination"].as_str().unwrap_or_default());
        let field = format!("Mounts[{path}]");
        let Some(new) = read::mounted_at(container, &path) else {
            comparison.report(&field, old, &Value::Null);
            continue;
        };
        for key in union(old, new) {
            let field = format!("{field}.{key}");
            let (expected, found) = (&old[key], &new[key]);
            match key {
                "Destination" => {}
                // Where a volume's driver keeps it; some say so only while it is mounted.
                "Source" if old["Type"].as_str() == Some("volume") => {}
                "Mode" => comparison.sets(&field, &options(expected), &options(found)),
                "Propagation" => {
                    comparison.equal(&field, &propagation(expected), &propagation(found));
                }
                _ => comparison.equal(&field, expected, found),
            }
        }
    }
    for new in read::items(&container["Mounts"]) {
        let path = read::clean_path(new["Destination"].as_str().unwrap_or_default());
        if read::mounted_at(inputs.old, &path).is_none() && !is_expected(inputs, &path, new) {
            comparison.report(&format!("Mounts[{path}]"), &Value::Null, new);
        }
    }
}

/// Whether a mount that the old container lacks is the manifest's, or a fresh volume of the
/// new image.
fn is_expected(inputs: &SpecInputs<'_>, path: &str, mount: &Value) -> bool {
    if let Some(volume) = added_at(inputs, path) {
        let sources = [&mount["Name"], &mount["Source"]];
        return sources.into_iter().any(|source| source == volume.source.as_str())
            && mount["RW"].as_bool() == Some(!volume.readonly);
    }
    let volumes = read::keys(&inputs.new_image["Config"]["Volumes"]);
    mount["Type"].as_str() == Some("volume")
        && volumes.into_iter().any(|volume| read::clean_path(volume) == path)
}

/// The options of `Mode`, less those that say the default or what another field shows: `z` is
/// what the engine notes of every volume that has a name, `ro` is `RW`, `nocopy` is about the
/// first use, and propagation has a field of its own.
fn options(mode: &Value) -> Vec<&str> {
    let shown_elsewhere = |option: &str| {
        matches!(option, "" | "z" | "rw" | "ro" | "nocopy")
            || option.ends_with("private")
            || option.ends_with("shared")
            || option.ends_with("slave")
    };
    let mode = mode.as_str().unwrap_or_default();
    mode.split(',').filter(|option| !shown_elsewhere(option)).collect()
}

/// `rprivate` is the default of binds, said or not.
fn propagation(value: &Value) -> Value {
    if value == "rprivate" { Value::Null } else { value.clone() }
}
