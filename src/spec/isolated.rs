//! The specification of a container that is tried apart from the shop: the next container's, less
//! everything by which it reaches out or is reached (I14).
//!
//! What may stay is listed, not what goes: a field that this program has never heard of may be a
//! way out. Called by the driver's rehearsal, which has looked at what is mounted. Pure.

use serde_json::{Map, Value, json};

use super::read;

/// Parts of `Config` that say what runs, and nothing of where.
const OF_CONFIG: [&str; 15] = [
    "User",
    "WorkingDir",
    "Entrypoint",
    "Cmd",
    "ArgsEscaped",
    "Env",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "Hostname",
    "Domainname",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    // Published nowhere: they say on which ports its core may be asked.
    "ExposedPorts",
];

/// Parts of `HostConfig` that concern nothing but its own processes.
const OF_HOST: [&str; 12] = [
    "ShmSize",
    "Ulimits",
    "Tmpfs",
    "ReadonlyRootfs",
    "Init",
    "CapDrop",
    "CpuPeriod",
    "CpuQuota",
    "NanoCpus",
    "CpusetCpus",
    "Runtime",
    "StorageOpt",
];

/// Settings of the kernel that each container has of its own, by how they begin.
const OWN_SYSCTLS: [&str; 5] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.", "net."];

/// Options of `SecurityOpt` that take a protection away.
const UNPROTECTED: [&str; 4] = ["unconfined", "disable", "label", "no-new-privileges:false"];

/// A share of the processors when others want them, too; 1024 is usual.
const CPU_SHARES: u64 = 128;

/// Processes and threads that it may have.
const PIDS: u64 = 4096;

/// What its log may take on disk.
const LOG_SIZE: &str = "10m";

/// What is put in the place of what was taken away.
#[derive(Clone, Debug)]
pub struct Isolation<'a> {
    /// The image's id.
    pub image: &'a str,
    /// The raw inspection of that image, whose labels the engine would add.
    pub of_image: &'a Value,
    /// Its only labels.
    pub labels: &'a [(String, String)],
    /// All that is mounted, in the form of `HostConfig.Mounts`.
    pub mounts: &'a [Value],
    /// Memory that it may take.
    pub memory_bytes: u64,
}

/// Takes everything away from the body of a create request but what [`OF_CONFIG`] and [`OF_HOST`]
/// name.
pub fn isolated(next: &Value, with: &Isolation<'_>) -> Value {
    let mut body = kept(next, &OF_CONFIG);
    body.insert("Image".into(), json!(with.image));
    body.insert("Labels".into(), labels(with));
    // The engine asks nothing, and whoever restarts what is unhealthy hears nothing.
    body.insert("Healthcheck".into(), json!({ "Test": ["NONE"] }));
    body.insert("HostConfig".into(), Value::Object(host(&next["HostConfig"], with)));
    Value::Object(body)
}

fn kept(from: &Value, fields: &[&str]) -> Map<String, Value> {
    let said = fields.iter().filter(|field| !from[**field].is_null());
    said.map(|field| ((*field).to_owned(), from[*field].clone())).collect()
}

/// Ours, and each of the image's without a value: the engine adds those where they are missing, and
/// proxies and schedulers act on them.
fn labels(with: &Isolation<'_>) -> Value {
    let of_image = read::keys(&with.of_image["Config"]["Labels"]).into_iter();
    let mut labels: Map<String, Value> = of_image.map(|key| (key.to_owned(), json!(""))).collect();
    for (key, value) in with.labels {
        labels.insert(key.clone(), json!(value));
    }
    Value::Object(labels)
}

fn host(next: &Value, with: &Isolation<'_>) -> Map<String, Value> {
    let mut host = kept(next, &OF_HOST);
    let options = read::texts(&next["SecurityOpt"]).into_iter();
    let options: Vec<&str> =
        options.filter(|option| !UNPROTECTED.iter().any(|word| option.contains(word))).collect();
    let is_own = |key: &str| OWN_SYSCTLS.iter().any(|start| key.starts_with(start));
    let sysctls: Map<String, Value> = next["Sysctls"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| is_own(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let fixed = json!({
        "NetworkMode": "none",
        "IpcMode": "private",
        "Privileged": false,
        "AutoRemove": false,
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "LogConfig": { "Type": "local", "Config": { "max-size": LOG_SIZE, "max-file": "2" } },
        "SecurityOpt": options,
        "Sysctls": sysctls,
        "Mounts": with.mounts,
        "Memory": with.memory_bytes,
        // Together with the memory: none of it beside.
        "MemorySwap": with.memory_bytes,
        "OomScoreAdj": 1000,
        "PidsLimit": PIDS,
        "CpuShares": CPU_SHARES,
    });
    if let Value::Object(fixed) = fixed {
        host.extend(fixed);
    }
    host
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model;
    use super::*;

    /// Everything by which a container reaches out or is reached.
    fn open_to_the_world() -> Value {
        // Too much for `json!`.
        let text = r#"{
            "Image": "payramapp/payram:2.0.0", "Env": ["AES_KEY=s3cret", "A=1"],
            "Cmd": ["serve"], "Entrypoint": ["/entry"], "User": "payram", "Hostname": "shop",
            "Labels": {"traefik.enable": "true", "ofelia.job": "x"},
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/anonymous": {}}, "MacAddress": "02::1",
            "StopTimeout": 30, "NetworkDisabled": false, "AttachStdin": true,
            "NetworkingConfig": {"EndpointsConfig": {"shop": {}}},
            "HostConfig": {
                "Binds": ["/var/run/docker.sock:/var/run/docker.sock", "/srv/payram:/data"],
                "Mounts": [{"Type": "bind", "Source": "/srv", "Target": "/srv"}],
                "PortBindings": {"80/tcp": [{"HostPort": "80"}]}, "PublishAllPorts": true,
                "NetworkMode": "host", "PidMode": "host", "IpcMode": "host", "UTSMode": "host",
                "UsernsMode": "host", "CgroupnsMode": "host", "CgroupParent": "/shop",
                "Links": ["db:db"], "VolumesFrom": ["other"], "GroupAdd": ["docker"],
                "Devices": [{"PathOnHost": "/dev/sda"}], "DeviceRequests": [{"Count": -1}],
                "DeviceCgroupRules": ["a *:* rwm"], "Privileged": true, "CapAdd": ["SYS_ADMIN"],
                "CapDrop": ["MKNOD"], "ExtraHosts": ["a:1.2.3.4"], "Dns": ["1.1.1.1"],
                "RestartPolicy": {"Name": "always"}, "AutoRemove": true,
                "LogConfig": {"Type": "syslog", "Config": {"syslog-address": "udp://1.2.3.4"}},
                "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable",
                    "no-new-privileges"],
                "MaskedPaths": [], "ReadonlyPaths": [], "OomKillDisable": true, "OomScoreAdj": -900,
                "Memory": 0, "MemorySwap": -1, "PidsLimit": -1, "CpuShares": 4096,
                "ShmSize": 268435456, "Tmpfs": {"/run": ""}, "VolumeDriver": "nfs",
                "Sysctls": {"kernel.shmmax": "1", "vm.overcommit_memory": "2"},
                "SomethingNew": {"reaches": "out"}
            }
        }"#;
        serde_json::from_str(text).expect("JSON")
    }

    fn isolate(next: &Value) -> Value {
        let of_image = json!({"Config": {"Labels": {"com.centurylinklabs.watchtower": "true"}}});
        let labels = [("ours".to_owned(), "job-1".to_owned())];
        let mounts = [json!({"Type": "bind", "Source": "/copy", "Target": "/data/db"})];
        isolated(
            next,
            &Isolation {
                image: "sha256:new",
                of_image: &of_image,
                labels: &labels,
                mounts: &mounts,
                memory_bytes: 1 << 30,
            },
        )
    }

    #[test]
    fn nothing_by_which_a_container_reaches_out_or_is_reached_is_left() {
        let body = isolate(&open_to_the_world());
        let host = &body["HostConfig"];
        for gone in [
            "Binds",
            "PortBindings",
            "PublishAllPorts",
            "PidMode",
            "UTSMode",
            "UsernsMode",
            "CgroupnsMode",
            "CgroupParent",
            "Links",
            "VolumesFrom",
            "GroupAdd",
            "Devices",
            "DeviceRequests",
            "DeviceCgroupRules",
            "CapAdd",
            "ExtraHosts",
            "Dns",
            "MaskedPaths",
            "ReadonlyPaths",
            "OomKillDisable",
            "VolumeDriver",
            "SomethingNew",
        ] {
            assert!(host[gone].is_null(), "{gone}: {}", host[gone]);
        }
        for gone in ["Volumes", "MacAddress", "NetworkingConfig", "NetworkDisabled"] {
            assert!(body[gone].is_null(), "{gone}: {}", body[gone]);
        }
        assert_eq!(
            (&host["NetworkMode"], &host["IpcMode"], &host["Privileged"], &host["AutoRemove"]),
            (&json!("none"), &json!("private"), &json!(false), &json!(false))
        );
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        assert_eq!(host["LogConfig"]["Type"], "local");
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
        assert_eq!(host["Sysctls"], json!({"kernel.shmmax": "1"}));
        assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(1 << 30), &json!(1 << 30)));
        assert_eq!((&host["OomScoreAdj"], &host["CpuShares"]), (&json!(1000), &json!(128)));
        assert_eq!(
            host["Mounts"].as_array().map(Vec::len),
            Some(1),
            "those alone that it is given"
        );
        assert_eq!(body["Labels"], json!({"com.centurylinklabs.watchtower": "", "ours": "job-1"}));
    }

    #[test]
    fn what_runs_is_what_would_run_in_the_shop() {
        let next = open_to_the_world();
        let body = isolate(&next);
        for same in ["Env", "Cmd", "Entrypoint", "User", "Hostname", "StopTimeout", "ExposedPorts"]
        {
            assert_eq!(body[same], next[same], "{same}");
        }
        for same in ["ShmSize", "Tmpfs", "CapDrop"] {
            assert_eq!(body["HostConfig"][same], next["HostConfig"][same], "{same}");
        }
        assert_eq!(body["Image"], "sha256:new");
        let of_model = isolate(&model::world().next().create_body);
        assert_eq!(of_model["HostConfig"]["NetworkMode"], "none");
    }

    proptest! {
        #[test]
        fn a_field_of_any_name_and_value_leaves_nothing_behind_but_what_is_listed(
            name in "[A-Z][A-Za-z]{2,14}", value in "[a-z:/=*.-]{0,12}", is_in_host in any::<bool>(),
        ) {
            let mut next = open_to_the_world();
            let plain = isolate(&next);
            let place = if is_in_host { &mut next["HostConfig"] } else { &mut next };
            prop_assume!(place.get(&name).is_none());
            place[&name] = json!([value]);
            let listed = if is_in_host { &OF_HOST[..] } else { &OF_CONFIG[..] };
            let is_listed = listed.contains(&name.as_str());
            prop_assert!(is_listed || isolate(&next) == plain, "{name}");
        }
    }
}
