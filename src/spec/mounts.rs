//! What is mounted: the same volumes by name and the same paths, anonymous volumes too.

use serde_json::{Map, Value, json};

use super::read::{self, Bind};

/// Makes `Binds` and `Mounts` of the new container name every volume that the old one has.
///
/// A volume that was made for the old container alone (an image's `VOLUME`, `-v /path`,
/// `--mount type=volume,dst=/path`) has no name in its settings: asked for in the same words,
/// the engine would make an empty one. `VolumesFrom` stays, and what it brought is named too,
/// so that a peer that was created again since does not change what is mounted here.
pub(super) fn carry(old: &Value, host: &mut Map<String, Value>) {
    let named = read::named_destinations(old);
    let unnamed = |path: &String| !named.contains(path);

    if let Some(Value::Array(binds)) = host.get_mut("Binds") {
        binds.retain(|bind| {
            let Some(bind) = bind.as_str().map(Bind::parse) else { return true };
            // Stays unless it is mounted by name below.
            bind.source.is_some() || read::mounted_at(old, &bind.destination).is_none()
        });
    }

    let mut mounts: Vec<Value> = read::items(&old["HostConfig"]["Mounts"]).to_vec();
    for mount in &mut mounts {
        if mount["Type"].as_str() == Some("volume")
            && read::is_nothing(&mount["Source"])
            && let Some(found) = read::mounted_at(old, &read::target(mount))
            && let Some(fields) = mount.as_object_mut()
        {
            fields.insert("Source".into(), found["Name"].clone());
        }
    }
    let carried = read::items(&old["Mounts"]).iter().filter_map(|mount| {
        let destination = mount["Destination"].as_str().map(read::clean_path)?;
        Some(&destination).filter(|path| unnamed(path))?;
        by_name(mount, &destination)
    });
    mounts.extend(carried);
    if !mounts.is_empty() {
        host.insert("Mounts".into(), Value::Array(mounts));
    }
}

/// A mount that is found as one that is asked for; none for what this form can't ask for (a
/// private SELinux label, a kind that we don't know). `VolumesFrom` brings those again; parity
/// says when it did not.
fn by_name(found: &Value, destination: &str) -> Option<Value> {
    if read::text(&found["Mode"]).is_some_and(|mode| mode.split(',').any(|word| word == "Z")) {
        return None;
    }
    let mut mount = json!({
        "Type": found["Type"],
        "Target": destination,
        "ReadOnly": found["RW"].as_bool() == Some(false),
    });
    match found["Type"].as_str()? {
        "volume" => {
            mount["Source"] = json!(read::text(&found["Name"])?);
            // It was filled when it was made. If it is empty now, that is how the application
            // wants it, and the old container still runs on it: nothing is copied in.
            let mut options = json!({ "NoCopy": true });
            if let Some(driver) = read::text(&found["Driver"]).filter(|driver| *driver != "local") {
                options["DriverConfig"] = json!({ "Name": driver });
            }
            mount["VolumeOptions"] = options;
        }
        "bind" => {
            mount["Source"] = json!(read::text(&found["Source"])?);
            if let Some(propagation) = read::text(&found["Propagation"]) {
                mount["BindOptions"] = json!({ "Propagation": propagation });
            }
        }
        _ => return None,
    }
    Some(mount)
}
