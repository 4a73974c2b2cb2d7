//! What a make-believe container and image look like to whoever inspects them.
//!
//! Pure. The merge of a create request with its image follows the engine's `ContainerCreate`
//! (Engine API v1.41): text is inherited when empty, maps and the environment key by key, the
//! command only when neither entry point nor command was given.

use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::scenario::Release;
use crate::clock::Timestamp;

/// Where the image keeps its database, inside the container.
pub(super) const DATA_DIRECTORY: &str = "/var/lib/payram/db/postgres";

/// The server's program, by which a container of the server alone is known.
pub(super) const SERVER: &str = "/usr/lib/postgresql/15/bin/postgres";

/// The label that names an image's version.
pub(super) use crate::names::VERSION_LABEL;

/// Hex sha256 of a text, which makes every id here.
pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of a release's image. A release that behaves otherwise is another image, so a tag
/// moves when its entry in the scenario is changed.
fn image_id(tag: &str, release: &Release) -> String {
    format!("sha256:{}", digest(&format!("image {tag} {release:?}")))
}

/// The manifest that the registry has for a tag; its sha256 is the image's digest.
pub(super) fn manifest(tag: &str, release: &Release) -> String {
    // The product takes three bytes of disk for each compressed one.
    let size = release.image_mb * 1_000_000 / 3;
    json!({
        "schemaVersion": 2,
        "config": {"digest": image_id(tag, release)},
        "layers": [{"size": size}],
    })
    .to_string()
}

/// An image as it is inspected after its pull.
pub(super) fn image(repo: &str, tag: &str, release: &Release) -> Value {
    json!({
        "Id": image_id(tag, release),
        "RepoTags": [format!("{repo}:{tag}")],
        "RepoDigests": [format!("{repo}@sha256:{}", digest(&manifest(tag, release)))],
        "Created": "2026-01-01T00:00:00Z",
        "Architecture": architecture(),
        "Os": "linux",
        "Size": release.image_mb * 1_000_000,
        "Config": {
            "Env": ["PATH=/usr/bin:/bin", format!("PGDATA={DATA_DIRECTORY}")],
            "Entrypoint": ["/opt/payram/entrypoint"],
            "Cmd": null,
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {VERSION_LABEL: tag},
            "StopSignal": "SIGTERM",
            "User": "",
            "WorkingDir": "/opt/payram",
        },
    })
}

/// As Docker calls this machine.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A container as it is inspected before its first start.
pub(super) fn container(
    id: &str,
    name: &str,
    body: &Value,
    image: &Value,
    volumes: &Path,
) -> Value {
    let mut config = body.as_object().cloned().unwrap_or_default();
    let mut host = match config.remove("HostConfig") {
        Some(Value::Object(host)) => host,
        Some(_) | None => Map::new(),
    };
    config.remove("NetworkingConfig");
    inherit(&mut config, &image["Config"]);
    if is_empty(config.get("Hostname")) {
        config.insert("Hostname".into(), json!(id.get(..12).unwrap_or(id)));
    }
    for (field, default) in [
        ("RestartPolicy", json!({"Name": "no", "MaximumRetryCount": 0})),
        ("LogConfig", json!({"Type": "json-file", "Config": {}})),
        ("NetworkMode", json!("default")),
        ("PortBindings", json!({})),
    ] {
        if is_empty(host.get(field)) {
            host.insert(field.into(), default);
        }
    }
    let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default();
    let network = if mode == "default" { "bridge" } else { mode };
    let mounts = mounts(&host, volumes);
    json!({
        "Id": id,
        "Created": Timestamp::now().rfc3339(),
        "Name": format!("/{name}"),
        "Image": image["Id"],
        "RestartCount": 0,
        "State": {
            "Status": "created", "Running": false, "Paused": false, "Restarting": false,
            "OOMKilled": false, "Dead": false, "Pid": 0, "ExitCode": 0, "Error": "",
            "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z",
        },
        "Mounts": mounts,
        "NetworkSettings": {"Ports": {}, "Networks": {network: endpoint()}},
        "Config": config,
        "HostConfig": host,
    })
}

/// An address of its own is the one thing that a make-believe container has not.
fn endpoint() -> Value {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": digest("bridge"),
        "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "MacAddress": "",
    })
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => false,
    }
}

fn inherit(config: &mut Map<String, Value>, image: &Value) {
    for field in ["User", "WorkingDir", "StopSignal", "Healthcheck"] {
        if is_empty(config.get(field)) {
            config.insert(field.into(), image[field].clone());
        }
    }
    for field in ["ExposedPorts", "Volumes", "Labels"] {
        let mut merged = image[field].as_object().cloned().unwrap_or_default();
        if let Some(Value::Object(own)) = config.get(field) {
            merged.extend(own.clone());
        }
        config.insert(field.into(), Value::Object(merged));
    }
    let mut environment = texts(config.get("Env").unwrap_or(&Value::Null));
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in texts(&image["Env"]) {
        if !environment.iter().any(|own| key(own) == key(&entry)) {
            environment.push(entry);
        }
    }
    config.insert("Env".into(), json!(environment));
    if is_empty(config.get("Entrypoint")) {
        if is_empty(config.get("Cmd")) {
            config.insert("Cmd".into(), image["Cmd"].clone());
        }
        config.insert("Entrypoint".into(), image["Entrypoint"].clone());
    }
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn mounts(host: &Map<String, Value>, volumes: &Path) -> Vec<Value> {
    let mount = |source: &str, destination: &str, is_writable: bool| {
        let is_bind = source.starts_with('/');
        let path = match is_bind {
            true => source.to_owned(),
            false => volumes.join(source).join("_data").to_string_lossy().into_owned(),
        };
        let mut mount = json!({
            "Type": if is_bind { "bind" } else { "volume" },
            "Source": path, "Destination": destination, "Mode": "", "RW": is_writable,
            "Propagation": if is_bind { "rprivate" } else { "" },
        });
        if !is_bind {
            mount["Name"] = json!(source);
            mount["Driver"] = json!("local");
        }
        mount
    };
    let binds = texts(host.get("Binds").unwrap_or(&Value::Null));
    let of_binds = binds.iter().filter_map(|bind| {
        let mut parts = bind.splitn(3, ':');
        let (source, destination) = (parts.next()?, parts.next()?);
        Some(mount(source, destination, parts.next() != Some("ro")))
    });
    let asked = host.get("Mounts").and_then(Value::as_array);
    let of_mounts = asked.into_iter().flatten().filter_map(|asked| {
        let (source, target) = (asked["Source"].as_str()?, asked["Target"].as_str()?);
        Some(mount(source, target, asked["ReadOnly"] != true))
    });
    of_binds.chain(of_mounts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_says_wins_over_its_image() {
        let release = Release::default();
        let image = image("r/payram", "1.9.7", &release);
        let body = json!({
            "Image": "r/payram:1.9.7",
            "Env": ["PGDATA=/elsewhere", "AES_KEY=x"],
            "Labels": {"mine": "yes"},
            "HostConfig": {"Binds": ["/srv:/var/lib/payram", "v:/v:ro"]},
        });
        let made = container(&digest("a"), "payram", &body, &image, Path::new("/volumes"));
        assert_eq!(
            made["Config"]["Env"],
            json!(["PGDATA=/elsewhere", "AES_KEY=x", "PATH=/usr/bin:/bin"])
        );
        assert_eq!(made["Config"]["Labels"]["mine"], "yes");
        assert_eq!(made["Config"]["Labels"][VERSION_LABEL], "1.9.7");
        assert_eq!(made["Config"]["Entrypoint"], json!(["/opt/payram/entrypoint"]));
        assert_eq!(made["Mounts"][0]["Source"], "/srv");
        assert_eq!(made["Mounts"][1]["Source"], "/volumes/v/_data");
        assert_eq!(made["Mounts"][1]["RW"], false);
        assert_eq!(made["HostConfig"]["RestartPolicy"]["Name"], "no");
    }
}
