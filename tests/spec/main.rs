//! The next container's specification and its parity, on the real engine: containers with
//! unusual settings are made with the `docker` command, the specification is built from what
//! the engine answers, sent to it as it is, and compared.
//!
//! Needs Docker and a static busybox (Debian: `busybox-static`) for the images.

mod bench;

use bench::{Bench, docker};
use serde_json::{Value, json};

const NONE: [&str; 0] = [];

#[test]
fn a_container_with_thirty_unusual_settings_is_created_again_without_losing_one() {
    let Some(mut bench) = Bench::new() else { return };
    let host_directory = tempfile::tempdir().expect("a directory");
    let (pay, pay_net) = bench.network("pay");
    let (audit, audit_net) = bench.network("audit");
    let (plain, _) = bench.network("plain");
    let peer = bench.start("peer", &["--network", &pay], &[]);
    let (named, asked) = (bench.volume("named"), bench.volume("asked"));
    let ip = format!("{pay_net}.9");
    let link = format!("{peer}:db");
    let named_bind = format!("{named}:/named:nocopy");
    let read_only = format!("{}:/host:ro", host_directory.path().display());
    let mount = format!("type=volume,src={asked},dst=/asked,readonly");
    let settings = [
        ["--memory", "64m"],
        ["--memory-reservation", "32m"],
        ["--cpu-shares", "300"],
        ["--cap-add", "NET_ADMIN"],
        ["--cap-drop", "MKNOD"],
        ["--ulimit", "nofile=1000:2000"],
        ["--dns", "1.1.1.1"],
        ["--dns-search", "pay.example"],
        ["--add-host", "gateway.example:10.1.2.3"],
        ["--device", "/dev/null:/dev/xnull"],
        ["--sysctl", "net.core.somaxconn=200"],
        ["--tmpfs", "/scratch:size=1m"],
        ["--label", "mine=yes"],
        ["--health-cmd", "true"],
        ["--health-interval", "50s"],
        ["--hostname", "pay.example"],
        ["--domainname", "example"],
        ["--stop-timeout", "42"],
        ["--stop-signal", "SIGQUIT"],
        ["--log-opt", "max-size=1m"],
        ["--shm-size", "80m"],
        ["--pids-limit", "99"],
        ["--security-opt", "no-new-privileges"],
        ["--security-opt", "systempaths=unconfined"],
        ["--group-add", "7"],
        ["--oom-score-adj", "100"],
        ["--restart", "unless-stopped"],
        ["--network", &pay],
        ["--network-alias", "gateway"],
        ["--ip", &ip],
        ["--link", &link],
        ["-v", &named_bind],
        ["-v", "/anonymous"],
        ["-v", &read_only],
        ["--mount", &mount],
        ["--mount", "type=volume,dst=/unnamed"],
        ["--entrypoint", "/bin/sh"],
        ["-e", "A=over"],
        ["-e", "AES_KEY=s3cret"],
        ["-p", "127.0.0.1::80"],
    ];
    let mut arguments: Vec<&str> = settings.iter().flatten().copied().collect();
    arguments.extend(["--init", "--read-only"]);
    let old = bench.start("old", &arguments, &["-c", "sleep 999"]);
    let audit_ip = format!("{audit_net}.5");
    docker(&["network", "connect", "--alias", "auditor", "--ip", &audit_ip, &audit, &old]);
    docker(&["network", "connect", &plain, &old]);

    let upgraded = bench.upgrade(&old);
    upgraded.assert_parity();

    let config = &upgraded.container["Config"];
    // The docker command shuffles what it is given with -e.
    let mut environment: Vec<_> = config["Env"].as_array().expect("a list").iter().collect();
    environment.sort_by_key(|entry| entry.to_string());
    assert_eq!(environment, ["A=over", "AES_KEY=s3cret", "B=zwei", "C=new"]);
    assert_eq!(config["Labels"]["version"], "2");
    assert_eq!(config["WorkingDir"], "/");
    assert_eq!(config["Entrypoint"], json!(["/bin/sh"]));
    assert_eq!(config["Healthcheck"]["Retries"], 7);
    assert_eq!(upgraded.container["HostConfig"]["RestartPolicy"]["Name"], "no");

    let pay_endpoint = format!("/NetworkSettings/Networks/{pay}");
    for (pointer, value, field) in [
        ("/HostConfig/Memory", json!(0), "HostConfig.Memory: expected 67108864, found 0"),
        ("/HostConfig/CpuShares", json!(299), "HostConfig.CpuShares: expected 300, found 299"),
        ("/HostConfig/CapAdd", Value::Null, "HostConfig.CapAdd"),
        ("/HostConfig/CapDrop", Value::Null, "HostConfig.CapDrop"),
        ("/HostConfig/Ulimits", json!([]), "HostConfig.Ulimits"),
        ("/HostConfig/Dns", json!(["8.8.8.8"]), "HostConfig.Dns"),
        ("/HostConfig/ExtraHosts", Value::Null, "HostConfig.ExtraHosts"),
        ("/HostConfig/Devices", json!([]), "HostConfig.Devices"),
        ("/HostConfig/Sysctls", json!({}), "HostConfig.Sysctls.net.core.somaxconn"),
        ("/HostConfig/Tmpfs", json!({}), "HostConfig.Tmpfs./scratch"),
        ("/HostConfig/Init", json!(false), "HostConfig.Init"),
        ("/HostConfig/ShmSize", json!(1), "HostConfig.ShmSize"),
        ("/HostConfig/PidsLimit", Value::Null, "HostConfig.PidsLimit"),
        ("/HostConfig/SecurityOpt", Value::Null, "HostConfig.SecurityOpt"),
        ("/HostConfig/MaskedPaths", json!(["/proc/kcore"]), "HostConfig.MaskedPaths"),
        ("/HostConfig/GroupAdd", Value::Null, "HostConfig.GroupAdd"),
        ("/HostConfig/ReadonlyRootfs", json!(false), "HostConfig.ReadonlyRootfs"),
        ("/HostConfig/PortBindings", json!({}), "HostConfig.PortBindings[80/tcp]"),
        (
            "/HostConfig/LogConfig/Config/max-size",
            json!("2m"),
            "HostConfig.LogConfig.Config[max-size]",
        ),
        ("/HostConfig/RestartPolicy/Name", json!("always"), "HostConfig.RestartPolicy.Name"),
        ("/Config/Hostname", json!("x"), "Config.Hostname"),
        ("/Config/StopTimeout", json!(10), "Config.StopTimeout: expected 42, found 10"),
        ("/Config/StopSignal", json!("SIGTERM"), "Config.StopSignal"),
        ("/Config/Labels/mine", json!("no"), "Config.Labels[mine]: expected ***, found ***"),
        ("/Config/Healthcheck/Test", json!(["NONE"]), "Config.Healthcheck.Test: expected ***"),
        ("/Config/Entrypoint", Value::Null, "Config.Entrypoint"),
        ("/Config/Cmd", json!(["sleep 2000"]), "Config.Cmd"),
        ("/Config/WorkingDir", json!("/bin"), "Config.WorkingDir"),
        ("/Config/Env/2", json!("B=two"), "Config.Env[B]: expected ***, found ***"),
        (
            &format!("{pay_endpoint}/IPAMConfig"),
            Value::Null,
            &format!("NetworkSettings.Networks[{pay}].IPAMConfig.IPv4Address"),
        ),
        (
            &format!("{pay_endpoint}/Aliases"),
            json!([]),
            &format!("NetworkSettings.Networks[{pay}].Aliases"),
        ),
        (
            &format!("{pay_endpoint}/Links"),
            Value::Null,
            &format!("NetworkSettings.Networks[{pay}].Links"),
        ),
    ] {
        let found = upgraded.with(pointer, value);
        assert!(found.len() == 1 && found[0].starts_with(field), "{pointer}: {found:?}");
    }
    let mounts = upgraded.container["Mounts"].as_array().expect("mounts").len();
    for index in 0..mounts {
        let path = upgraded.container["Mounts"][index]["Destination"].as_str().expect("a path");
        let found = upgraded.with(&format!("/Mounts/{index}"), json!({}));
        // A fresh volume of the new image's is no loss.
        let lost = if path == "/more" { 0 } else { 1 };
        let named = found.iter().filter(|found| found.starts_with(&format!("Mounts[{path}]")));
        assert_eq!(named.count(), lost, "{path}: {found:?}");
    }

    // The addresses are free once the old one is stopped, and what was proved holds when it runs.
    docker(&["stop", "-t", "0", &old]);
    docker(&["start", &upgraded.name]);
    let running = bench.inspect("containers", &upgraded.name);
    assert_eq!(running["NetworkSettings"]["Networks"][&pay]["IPAddress"], ip.as_str());
    assert_eq!(running["NetworkSettings"]["Networks"][&audit]["IPAddress"], audit_ip.as_str());
    assert_eq!(upgraded.differences(&running), NONE);
}

#[test]
fn containers_on_the_default_bridge_keep_links_addresses_and_volumes_of_others() {
    let Some(mut bench) = Bench::new() else { return };
    let donor = bench.start("donor", &["-v", "/donated"], &[]);
    let link = format!("{donor}:db");
    let donated = format!("{donor}:ro");
    let settings = ["--link", &link, "--volumes-from", &donated, "-P", "-it"];
    let old = bench.start("old", &settings, &[]);
    let upgraded = bench.upgrade(&old);
    upgraded.assert_parity();
    assert_eq!(upgraded.container["Config"]["Cmd"], json!(["sleep 2000"]));
    let found = upgraded.with("/HostConfig/Links", Value::Null);
    assert!(found.len() == 1 && found[0].starts_with("HostConfig.Links"), "{found:?}");

    // What the command line can't say: a bare bind, a hardware address, no entry point.
    let old = bench.create(
        "raw",
        &json!({
            "Image": bench.images[0],
            "Entrypoint": [""],
            "Cmd": ["/bin/sleep", "1000"],
            "MacAddress": "02:42:ac:99:00:55",
            "HostConfig": { "Binds": ["/bare"], "NetworkMode": "default" },
        }),
    );
    docker(&["start", &old]);
    let upgraded = bench.upgrade(&old);
    upgraded.assert_parity();
    assert!(upgraded.container["Config"]["Entrypoint"].is_null());
    docker(&["stop", "-t", "0", &old]);
    docker(&["start", &upgraded.name]);
    let running = bench.inspect("containers", &upgraded.name);
    let mac = &running["NetworkSettings"]["Networks"]["bridge"]["MacAddress"];
    assert_eq!(mac, "02:42:ac:99:00:55");
}

#[test]
fn containers_without_networks_of_their_own_are_created_again() {
    let Some(mut bench) = Bench::new() else { return };
    let peer = bench.start("peer", &["--hostname", "peer.example"], &[]);
    let joined = format!("container:{peer}");
    for (what, settings) in [
        ("host", ["--network", "host"]),
        ("none", ["--network", "none"]),
        ("joined", ["--network", joined.as_str()]),
        ("uts", ["--uts", "host"]),
    ] {
        let old = bench.start(what, &settings, &[]);
        bench.upgrade(&old).assert_parity();
    }
    let settings = json!({ "Privileged": true, "NetworkMode": "none" });
    let body = json!({ "Image": bench.images[0], "HostConfig": settings });
    let old = bench.create("privileged", &body);
    bench.upgrade(&old).assert_parity();
}

#[test]
fn an_address_and_a_network_that_were_changed_after_creation_are_kept() {
    let Some(mut bench) = Bench::new() else { return };
    let (moved, net) = bench.network("moved");
    let old = bench.start("old", &[], &[]);
    let ip = format!("{net}.77");
    docker(&["network", "connect", "--ip", &ip, "--alias", "new-home", &moved, &old]);
    docker(&["network", "disconnect", "bridge", &old]);
    let upgraded = bench.upgrade(&old);
    upgraded.assert_parity();
    let networks = upgraded.container["NetworkSettings"]["Networks"].as_object().expect("networks");
    assert_eq!(networks.keys().collect::<Vec<_>>(), [&moved]);
}
