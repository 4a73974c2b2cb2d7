//! What the tests of the specification and of parity stand on: an old container as engine 20.10
//! shows it, and a small model of its `ContainerCreate`, which merges a create request with an
//! image and answers what `ContainerInspect` would.

use serde_json::{Map, Value, json};

use super::read::{self, Bind};
use super::{NextSpec, SpecInputs, next};
use crate::machine::facts::Overlay;

/// An old container, both images and the manifest, to be changed by a test.
pub struct World {
    pub old: Value,
    pub old_image: Value,
    pub new_image: Value,
    pub overlay: Overlay,
    pub labels: Vec<(String, String)>,
    pub api: &'static str,
}

pub const OLD_ID: &str = "f8f57a6e93f5307da231870e18fa900993b07a2f4e4b34d30c400d0be334e600";

/// A plain container of an image with some defaults.
pub fn world() -> World {
    World {
        old: json!({
            "Id": OLD_ID,
            "Name": "/payram",
            "State": { "Running": true },
            "Image": "sha256:old",
            "HostConfig": {
                "Binds": null,
                "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m" } },
                "NetworkMode": "default",
                "PortBindings": {},
                "RestartPolicy": { "Name": "always", "MaximumRetryCount": 0 },
                "AutoRemove": false,
                "Memory": 536_870_912,
            },
            "Mounts": [],
            "Config": {
                "Hostname": "f8f57a6e93f5",
                "User": "",
                "Env": ["AES_KEY=s3cret", "PATH=/bin", "PG_HOME=/pg13"],
                "Cmd": ["serve"],
                "Entrypoint": ["/entry"],
                "Image": "payramapp/payram:1.9.6",
                "Labels": { "version": "1.9.6", "mine": "yes" },
                "Volumes": null,
                "ExposedPorts": { "80/tcp": {} },
                "StopSignal": "SIGTERM",
            },
            "NetworkSettings": { "Networks": { "bridge": {
                "Aliases": null, "NetworkID": "9c0e", "IPAddress": "172.17.0.2",
                "MacAddress": "02:42:ac:11:00:02",
            } } },
        }),
        old_image: json!({ "Id": "sha256:old", "Config": {
            "Env": ["PATH=/bin", "PG_HOME=/pg13"],
            "Cmd": ["serve"],
            "Entrypoint": ["/entry"],
            "Labels": { "version": "1.9.6" },
            "ExposedPorts": { "80/tcp": {} },
            "StopSignal": "SIGTERM",
        } }),
        new_image: json!({ "Id": "sha256:new", "Config": {
            "Env": ["PATH=/bin:/sbin", "EXTRA=1"],
            "Cmd": ["serve", "--next"],
            "Entrypoint": ["/entry2"],
            "Labels": { "version": "1.9.7" },
            "ExposedPorts": { "80/tcp": {}, "443/tcp": {} },
            "StopSignal": "SIGINT",
        } }),
        overlay: Overlay::default(),
        labels: vec![("com.payram.updater.hop".into(), "job-1/1".into())],
        api: "1.41",
    }
}

impl World {
    pub fn inputs(&self) -> SpecInputs<'_> {
        SpecInputs {
            old: &self.old,
            old_image: &self.old_image,
            new_image: &self.new_image,
            image_reference: "payramapp/payram:1.9.7",
            overlay: &self.overlay,
            labels: &self.labels,
            api_version: self.api,
        }
    }

    pub fn next(&self) -> NextSpec {
        next(&self.inputs()).expect("a specification")
    }
}

/// The id of every container that the model makes.
pub const ID: &str = "beefbeefbeef0000000000000000000000000000000000000000000000000000";

/// What inspecting the container made from this specification and image would answer.
pub fn created(spec: &NextSpec, image: &Value) -> Value {
    let body = spec.create_body.as_object().expect("an object");
    let mut config = body.clone();
    let mut host = config.remove("HostConfig").unwrap_or_else(|| json!({}));
    let networking = config.remove("NetworkingConfig").unwrap_or(Value::Null);
    let mut config = Value::Object(config);
    merge(&mut config, &image["Config"]);
    if read::is_nothing(&config["Hostname"]) {
        config["Hostname"] = json!(&ID[..12]);
    }
    let mounts = mounts(&host, &config);
    let mut networks = match &networking["EndpointsConfig"] {
        Value::Object(endpoints) => endpoints.clone(),
        _ => Map::new(),
    };
    networks.extend(spec.further_networks.iter().cloned());
    if networks.is_empty() {
        let mode = host["NetworkMode"].as_str().unwrap_or("default").to_owned();
        let name = if mode == "default" { "bridge".to_owned() } else { mode };
        if !name.starts_with("container:") {
            networks.insert(name, json!({}));
        }
    }
    if host["LogConfig"]["Type"].is_null() {
        host["LogConfig"] = json!({ "Type": "json-file", "Config": {} });
    }
    json!({
        "Id": ID, "Name": "/next", "Image": image["Id"], "State": { "Status": "created" },
        "HostConfig": host, "Config": config, "Mounts": mounts,
        "NetworkSettings": { "Networks": networks, "SandboxID": "" },
    })
}

/// The merge of the engine's `daemon/commit.go`.
fn merge(config: &mut Value, image: &Value) {
    for field in ["User", "WorkingDir", "StopSignal"] {
        if read::is_nothing(&config[field]) {
            config[field] = image[field].clone();
        }
    }
    for field in ["ExposedPorts", "Volumes", "Labels"] {
        if config[field].is_null() {
            config[field] = json!({});
        }
        for key in read::keys(&image[field]) {
            if config[field].get(key).is_none() {
                config[field][key] = image[field][key].clone();
            }
        }
    }
    let mut environment: Vec<String> =
        read::texts(&config["Env"]).into_iter().map(str::to_owned).collect();
    for entry in read::texts(&image["Env"]) {
        if !environment.iter().any(|own| read::env_key(own) == read::env_key(entry)) {
            environment.push(entry.to_owned());
        }
    }
    config["Env"] = json!(environment);
    if read::is_nothing(&config["Entrypoint"]) {
        if read::is_nothing(&config["Cmd"]) {
            config["Cmd"] = image["Cmd"].clone();
        }
        if config["Entrypoint"].is_null() {
            config["Entrypoint"] = image["Entrypoint"].clone();
        }
    }
    if config["Entrypoint"] == json!([""]) {
        config["Entrypoint"] = Value::Null;
    }
    if image["Healthcheck"].is_object() {
        if config["Healthcheck"].is_null() {
            config["Healthcheck"] = image["Healthcheck"].clone();
        }
        for field in read::keys(&image["Healthcheck"]) {
            if read::is_nothing(&config["Healthcheck"][field]) || config["Healthcheck"][field] == 0
            {
                config["Healthcheck"][field] = image["Healthcheck"][field].clone();
            }
        }
    }
}

fn mounts(host: &Value, config: &Value) -> Vec<Value> {
    let volume = |name: &str, path: &str, mode: &str, writable: bool| {
        json!({
            "Type": "volume", "Name": name, "Source": format!("/volumes/{name}/_data"),
            "Destination": path, "Driver": "local", "Mode": mode, "RW": writable,
            "Propagation": "",
        })
    };
    let mut mounts: Vec<Value> = Vec::new();
    for bind in read::texts(&host["Binds"]) {
        let parsed = Bind::parse(bind);
        let options = bind.split(':').nth(2).unwrap_or_default();
        let writable = !options.split(',').any(|option| option == "ro");
        mounts.push(match parsed.source {
            Some(path) if path.starts_with('/') => json!({
                "Type": "bind", "Source": path, "Destination": parsed.destination,
                "Mode": options, "RW": writable, "Propagation": "rprivate",
            }),
            name => volume(name.unwrap_or("fresh"), &parsed.destination, "z", writable),
        });
    }
    for mount in read::items(&host["Mounts"]) {
        let writable = !read::is_true(&mount["ReadOnly"]);
        let path = read::target(mount);
        let source = read::text(&mount["Source"]).unwrap_or("fresh");
        mounts.push(match mount["Type"].as_str() {
            Some("volume") => volume(source, &path, "z", writable),
            kind => json!({
                "Type": kind, "Source": source, "Destination": path, "Mode": "", "RW": writable,
                "Propagation": "rprivate",
            }),
        });
    }
    for path in read::keys(&config["Volumes"]) {
        let path = read::clean_path(path);
        if !mounts.iter().any(|mount| mount["Destination"] == path.as_str()) {
            mounts.push(volume("fresh", &path, "", true));
        }
    }
    mounts
}
