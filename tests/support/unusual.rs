//! A container with everything that an operator may have set: after the upgrade the engine's
//! inspection of it differs only in what was meant to change, and [`MEANT`] is the list of it.
//! Upgraded on this host's engine and on those of other Debians.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{PrivateEngine, World, watch};

/// What may differ, and why. A `*` stands for any text.
const MEANT: &[(&str, &str)] = &[
    ("Id", "another container"),
    ("Created", "another container"),
    ("Image", "the new version"),
    ("Config.Image", "the new version"),
    ("ImageManifestDescriptor.*", "the new version, where containerd stores the images"),
    ("Config.Env[PAYRAM_IMAGE_VERSION]", "a default of the image's"),
    ("Config.Labels.org.opencontainers.image.version", "a default of the image's"),
    ("Config.Labels.io.payram.updater.hop", "says which upgrade made it"),
    ("ExecIDs", "what its health check runs at this moment"),
    ("State.Pid", "of this run"),
    ("State.StartedAt", "of this run"),
    ("State.Health.*", "of this run"),
    ("ResolvConfPath", "holds the id"),
    ("HostnamePath", "holds the id"),
    ("HostsPath", "holds the id"),
    ("LogPath", "holds the id"),
    ("GraphDriver.Data.*", "its own writable layer"),
    ("HostConfig.Mounts", "the anonymous volume is mounted by its name, or it would be a new one"),
    ("Mounts[/anonymous].Mode", "the engine's word for how it was asked for"),
    ("NetworkSettings.SandboxID", "of this run"),
    ("NetworkSettings.SandboxKey", "of this run"),
    ("NetworkSettings.Networks.*.EndpointID", "of this run"),
    ("NetworkSettings.Networks.payram-test-plain-*.MacAddress", "follows from the address"),
    ("NetworkSettings.Networks.payram-test-pay-*.MacAddress", "none was asked for: made up"),
    ("NetworkSettings.Networks.payram-test-plain-*.IPAddress", "no static address was asked for"),
];

/// Upgrades such a container, on this engine or on this host's.
///
/// # Panics
/// With what has changed that was not meant to.
pub fn is_afterwards_what_it_was(engine: Option<&PrivateEngine>) {
    let socket = engine.map_or_else(watch::engine, PrivateEngine::socket);
    let networks = Networks::make(&socket, ["pay", "audit", "plain"]);
    let [(pay, pay_net), (audit, audit_net), (plain, _)] = &networks.names;
    let volume = Volume::make(&socket);
    let host = tempfile::tempdir().expect("a directory");
    let (pay_ip, audit_ip) = (format!("{pay_net}.9"), format!("{audit_net}.5"));
    let settings = [
        ["--memory", "700m"],
        ["--memory-reservation", "300m"],
        ["--cpu-shares", "900"],
        ["--pids-limit", "300"],
        ["--cap-add", "NET_ADMIN"],
        ["--cap-drop", "MKNOD"],
        ["--ulimit", "nofile=4000:5000"],
        ["--dns", "192.0.2.53"],
        ["--dns-search", "pay.example"],
        ["--dns-option", "ndots:2"],
        ["--add-host", "gateway.example:10.1.2.3"],
        ["--device", "/dev/null:/dev/xnull"],
        ["--sysctl", "net.core.somaxconn=200"],
        ["--tmpfs", "/scratch:size=1m"],
        ["--label", "mine=yes"],
        ["--health-cmd", "true"],
        ["--health-interval", "2s"],
        ["--health-retries", "7"],
        ["--hostname", "pay.example"],
        ["--domainname", "example"],
        ["--stop-timeout", "42"],
        ["--stop-signal", "SIGINT"],
        ["--log-driver", "json-file"],
        ["--log-opt", "max-size=1m"],
        ["--log-opt", "max-file=3"],
        ["--shm-size", "80m"],
        ["--security-opt", "no-new-privileges"],
        ["--group-add", "7"],
        ["--oom-score-adj", "100"],
        ["--restart", "on-failure:5"],
        ["--workdir", "/tmp"],
        ["--network", pay],
        ["--network-alias", "gateway"],
        ["--ip", &pay_ip],
        ["--expose", "9000"],
        ["--volume", &format!("{}:/named", volume.name)],
        ["--volume", "/anonymous"],
        ["--volume", &format!("{}:/host:ro", host.path().display())],
        ["--env", "OPERATOR_SAYS=yes, \"quoted\" = 'too'"],
        ["--entrypoint", "/bin/bash"],
    ];
    let mut shop = World::build("1.9.6");
    if let Some(engine) = engine {
        shop = shop.on(engine);
    }
    let world = shop
        .run_args(settings.iter().flatten().copied())
        .run_args(["--init"])
        .command(["-c", "exec /opt/payram/entrypoint"])
        .rows(100)
        .start();
    world.docker(&[
        "network",
        "connect",
        "--alias",
        "auditor",
        "--ip",
        &audit_ip,
        audit,
        &world.name,
    ]);
    world.docker(&["network", "connect", plain, &world.name]);
    for directory in ["named", "anonymous"] {
        let mark = format!("echo {directory} > /{directory}/mark");
        world.docker(&["exec", &world.name, "sh", "-c", &mark]);
    }
    let old = world.container().expect("the old container");
    let daemon = world.daemon();

    let run = world.cli(&["run", "--to", "1.9.7", "--yes"]);

    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert_eq!(daemon.status()["phase"], "VERIFIED");
    let new = world.container().expect("the new container");
    assert_ne!(new["Id"], old["Id"]);
    let (old, new) = (flat(&old), flat(&new));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differing: Vec<&String> =
        paths.into_iter().filter(|path| old.get(*path) != new.get(*path)).collect();
    let unwanted: Vec<String> = differing
        .iter()
        .filter(|path| !MEANT.iter().any(|(pattern, _)| fits(pattern, path)))
        .map(|path| format!("{path}: {:?} -> {:?}", old.get(*path), new.get(*path)))
        .collect();
    assert!(unwanted.is_empty(), "changed, and not meant to:\n{}", unwanted.join("\n"));

    // What was meant to change is what it was meant to be.
    let at = |path: &str| new.get(path).cloned().unwrap_or_default();
    let image = world.image("1.9.7");
    assert_eq!(at("Config.Image"), json!(image));
    assert_eq!(at("Image"), world.inspect(&image).expect("the image")["Id"]);
    assert_eq!(at("Config.Env[PAYRAM_IMAGE_VERSION]"), json!(["1.9.7"]));
    assert_eq!(at("Config.Labels.org.opencontainers.image.version"), json!("1.9.7"));

    // And it is so inside, not only by inspection.
    for (directory, mark) in [("named", "named"), ("anonymous", "anonymous")] {
        let path = format!("/{directory}/mark");
        assert_eq!(world.docker(&["exec", &world.name, "cat", &path]), mark);
    }
    let addresses = world.docker(&["exec", &world.name, "hostname", "-I"]);
    for address in [&pay_ip, &audit_ip] {
        assert!(addresses.split(' ').any(|one| one == address), "{address} in {addresses}");
    }
    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    world.wait_for_payments(5);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// Every leaf of an inspection by its path. Lists whose order means nothing are keyed or sorted,
/// and the short id, which the engine adds to the aliases itself, is left out of them.
fn flat(inspection: &Value) -> BTreeMap<String, Value> {
    let mut inspection = inspection.clone();
    let short_id: String = inspection["Id"].as_str().expect("an id").chars().take(12).collect();
    let networks = inspection["NetworkSettings"]["Networks"].as_object_mut();
    for (_, network) in networks.expect("networks") {
        // Docker 25 and later have it among the names that its resolver knows.
        for names in ["Aliases", "DNSNames"] {
            if let Some(names) = network[names].as_array_mut() {
                names.retain(|name| *name != short_id.as_str());
                names.sort_by_key(Value::to_string);
            }
        }
    }
    let mut leaves = BTreeMap::new();
    flatten("", &inspection, &mut leaves);
    leaves
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match (path, value) {
        // The engine writes `{}` or null for nothing, as the container was made.
        (_, Value::Object(fields)) if fields.is_empty() => {
            leaves.insert(path.to_owned(), Value::Null);
        }
        (path, Value::Array(list)) if list.is_empty() && path.ends_with(".Aliases") => {
            leaves.insert(path.to_owned(), Value::Null);
        }
        (_, Value::Object(fields)) => {
            for (key, value) in fields {
                let separator = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{separator}{key}"), value, leaves);
            }
        }
        ("Mounts", Value::Array(mounts)) => {
            for mount in mounts {
                let destination = mount["Destination"].as_str().expect("a destination");
                flatten(&format!("Mounts[{destination}]"), mount, leaves);
            }
        }
        ("Config.Env", Value::Array(entries)) => {
            for entry in entries {
                let (key, value) =
                    entry.as_str().and_then(|e| e.split_once('=')).expect("KEY=value");
                let values = leaves.entry(format!("Config.Env[{key}]")).or_insert(json!([]));
                values.as_array_mut().expect("a list").push(json!(value));
            }
        }
        (_, leaf) => {
            leaves.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// Whether a path is what a pattern says; `*` stands for any text.
fn fits(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((head, rest)) => path.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).any(|at| tail.get(at..).is_some_and(|tail| fits(rest, tail)))
        }),
    }
}

/// Three networks with subnets of their own, for static addresses; removed at the end.
struct Networks {
    engine: PathBuf,
    names: [(String, String); 3],
}

impl Networks {
    fn make(engine: &Path, names: [&str; 3]) -> Self {
        let names = names.map(|name| {
            // Others make networks at the same time: a taken subnet means another try.
            let made = (0..64).find_map(|_| {
                let [.., a, b, c, d, e] = uuid::Uuid::now_v7().into_bytes();
                let full = format!("payram-test-{name}-{a:02x}{b:02x}{c:02x}");
                let net = format!("10.{}.{}", 100 + d % 90, e);
                let subnet = format!("{net}.0/24");
                docker(engine, &["network", "create", "--subnet", &subnet, &full]).ok()?;
                Some((full, net))
            });
            made.expect("a free subnet")
        });
        Self { engine: engine.to_owned(), names }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for (name, _) in &self.names {
            if let Err(error) = docker(&self.engine, &["network", "rm", name]) {
                eprintln!("{name}: {error}");
            }
        }
    }
}

/// A named volume; removed at the end.
struct Volume {
    engine: PathBuf,
    name: String,
}

impl Volume {
    fn make(engine: &Path) -> Self {
        let name = format!("payram-test-volume-{}", uuid::Uuid::now_v7().simple());
        docker(engine, &["volume", "create", &name]).expect("a volume");
        Self { engine: engine.to_owned(), name }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Err(error) = docker(&self.engine, &["volume", "rm", &self.name]) {
            eprintln!("{}: {error}", self.name);
        }
    }
}

fn docker(engine: &Path, args: &[&str]) -> Result<(), String> {
    let output = Command::new("docker")
        .env("DOCKER_HOST", format!("unix://{}", engine.display()))
        .args(args)
        .output()
        .expect("docker starts");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
