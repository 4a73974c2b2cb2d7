//! A container with everything that an operator may have set: after the upgrade the engine's
//! inspection of it differs only in what was meant to change, and [`MEANT`] is the list of it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};
use support::{Fixture, World, require};

/// What may differ, and why. A `*` stands for any text.
const MEANT: &[(&str, &str)] = &[
    ("Id", "another container"),
    ("Created", "another container"),
    ("Image", "the new version"),
    ("Config.Image", "the new version"),
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
    ("NetworkSettings.Networks.payram-test-plain-*.IPAddress", "no static address was asked for"),
];

#[test]
fn a_container_with_forty_unusual_settings_is_after_the_upgrade_what_it_was() {
    if !require("docker") {
        return;
    }
    let networks = Networks::make(["pay", "audit", "plain"]);
    let [(pay, pay_net), (audit, audit_net), (plain, _)] = &networks.0;
    let volume = Volume::make();
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
        ["--volume", &format!("{}:/named", volume.0)],
        ["--volume", "/anonymous"],
        ["--volume", &format!("{}:/host:ro", host.path().display())],
        ["--env", "OPERATOR_SAYS=yes, \"quoted\" = 'too'"],
        ["--entrypoint", "/bin/bash"],
    ];
    let world = World::build("1.9.6")
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
    assert_eq!(at("Config.Image"), json!(Fixture::get().image("1.9.7")));
    assert_eq!(at("Image"), json!(Fixture::get().image_id("1.9.7")));
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
        if let Some(aliases) = network["Aliases"].as_array_mut() {
            aliases.retain(|alias| *alias != short_id.as_str());
            aliases.sort_by_key(Value::to_string);
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
struct Networks([(String, String); 3]);

impl Networks {
    fn make(names: [&str; 3]) -> Self {
        Self(names.map(|name| {
            // Others make networks at the same time: a taken subnet means another try.
            let made = (0..64).find_map(|_| {
                let [.., a, b, c, d, e] = uuid::Uuid::now_v7().into_bytes();
                let full = format!("payram-test-{name}-{a:02x}{b:02x}{c:02x}");
                let net = format!("10.{}.{}", 100 + d % 90, e);
                let subnet = format!("{net}.0/24");
                docker(&["network", "create", "--subnet", &subnet, &full]).ok()?;
                Some((full, net))
            });
            made.expect("a free subnet")
        }))
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for (name, _) in &self.0 {
            if let Err(error) = docker(&["network", "rm", name]) {
                eprintln!("{name}: {error}");
            }
        }
    }
}

/// A named volume; removed at the end.
struct Volume(String);

impl Volume {
    fn make() -> Self {
        let name = format!("payram-test-volume-{}", uuid::Uuid::now_v7().simple());
        docker(&["volume", "create", &name]).expect("a volume");
        Self(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Err(error) = docker(&["volume", "rm", &self.0]) {
            eprintln!("{}: {error}", self.0);
        }
    }
}

fn docker(args: &[&str]) -> Result<(), String> {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
