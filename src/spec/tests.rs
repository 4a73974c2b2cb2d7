//! The specification, on containers as engine 20.10 shows them.

use serde_json::{Value, json};

use super::model::{World, world};
use super::*;
use crate::machine::facts::{OverlayPort, OverlayVolume};

impl World {
    fn body(&self) -> Value {
        self.next().create_body
    }

    fn note_about(&self, subject: &str) -> Option<String> {
        self.next().notes.into_iter().find(|note| note.contains(subject))
    }
}

#[test]
fn what_the_operator_said_stays_and_the_old_images_defaults_go() {
    let body = world().body();
    assert_eq!(body["Env"], json!(["AES_KEY=s3cret"]));
    assert_eq!(body["Labels"], json!({ "mine": "yes", "com.payram.updater.hop": "job-1/1" }));
    for inherited in ["Cmd", "Entrypoint", "ExposedPorts", "StopSignal", "Hostname"] {
        assert!(body.get(inherited).is_none(), "{inherited} is sent");
    }
    assert_eq!(body["Image"], "payramapp/payram:1.9.7");
    assert_eq!(body["HostConfig"]["Memory"], 536_870_912);
}

#[test]
fn the_restart_policy_is_held_back() {
    assert_eq!(world().body()["HostConfig"]["RestartPolicy"]["Name"], "no");
}

#[test]
fn a_field_that_nobody_knows_survives_wherever_it_is() {
    let mut world = world();
    world.old["HostConfig"]["Quantum"] = json!({ "Spin": [1, null, "up"] });
    world.old["Config"]["Mood"] = json!("fine");
    world.old["NetworkSettings"]["Networks"]["bridge"]["GwPriority"] = json!(7);
    let body = world.body();
    assert_eq!(body["HostConfig"]["Quantum"], json!({ "Spin": [1, null, "up"] }));
    assert_eq!(body["Mood"], "fine");
    assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["bridge"], json!({ "GwPriority": 7 }));
}

#[test]
fn a_container_that_vanishes_when_it_stops_is_refused() {
    let mut world = world();
    world.old["HostConfig"]["AutoRemove"] = json!(true);
    let refused = next(&world.inputs()).expect_err("refused");
    assert_eq!(refused, SpecError::AutoRemove);
    assert!(refused.to_string().contains("--rm"), "{refused}");
}

#[test]
fn an_inspection_that_is_none_is_refused_by_the_field_it_lacks() {
    for field in ["Config", "HostConfig", "Id"] {
        let mut world = world();
        world.old[field] = Value::Null;
        let refused = next(&world.inputs()).expect_err("refused").to_string();
        assert!(refused.ends_with(&format!("the old container has no {field}")), "{refused}");
    }
    let mut world = world();
    world.api = "latest";
    assert_eq!(next(&world.inputs()).expect_err("refused"), SpecError::ApiVersion("latest".into()));
}

#[test]
fn an_override_stays_though_the_new_image_changes_its_default() {
    let mut world = world();
    world.old["Config"]["Env"] = json!(["PATH=/mine", "PG_HOME=/pg13"]);
    world.old["Config"]["StopSignal"] = json!("SIGQUIT");
    world.old["Config"]["Labels"] = json!({ "version": "mine" });
    let body = world.body();
    assert_eq!(body["Env"], json!(["PATH=/mine"]));
    assert_eq!(body["StopSignal"], "SIGQUIT");
    assert_eq!(body["Labels"]["version"], "mine");
}

#[test]
fn a_value_that_was_given_and_equals_the_default_is_named_but_not_shown() {
    let mut world = world();
    world.old["Config"]["Env"] = json!(["PG_HOME=/pg13", "AES_KEY=s3cret", "PATH=/bin"]);
    assert_eq!(world.body()["Env"], json!(["AES_KEY=s3cret"]));
    let note = world.note_about("PG_HOME").expect("a note");
    assert!(note.contains("was given") && note.contains("the new image has none"), "{note}");
    assert!(world.next().notes.iter().all(|note| !note.contains("/pg13")));
    let note = world.note_about("PATH").expect("a note");
    assert!(note.contains("differs") && !note.contains("was given"), "{note}");
}

#[test]
fn a_variable_that_was_unset_or_said_twice_stays_as_it_was() {
    let mut world = world();
    world.old["Config"]["Env"] = json!(["PATH", "X=1", "X=2", "PG_HOME=/pg13"]);
    assert_eq!(world.body()["Env"], json!(["PATH", "X=1", "X=2"]));
}

#[test]
fn entry_point_and_command_are_told_apart_from_the_images_as_the_engine_merges_them() {
    let cases = [
        // the old container's pair, what must be sent
        (json!(["/entry"]), json!(["serve"]), json!(null), json!(null)),
        (json!(["/entry"]), json!(["mine"]), json!(null), json!(["mine"])),
        (json!(["/mine"]), json!(["serve"]), json!(["/mine"]), json!(["serve"])),
        (json!(["/mine"]), json!(null), json!(["/mine"]), json!(null)),
        // given, though equal: the image's command was cleared by it
        (json!(["/entry"]), json!(null), json!(["/entry"]), json!(null)),
        // `--entrypoint ""`
        (json!(null), json!(["serve"]), json!([""]), json!(["serve"])),
        (json!([]), json!(["serve"]), json!([]), json!(null)),
        (json!([]), json!(["mine"]), json!([]), json!(["mine"])),
    ];
    for (entrypoint, cmd, sent_entrypoint, sent_cmd) in cases {
        let mut world = world();
        world.old["Config"]["Entrypoint"] = entrypoint.clone();
        world.old["Config"]["Cmd"] = cmd.clone();
        let body = world.body();
        let sent = (&body["Entrypoint"], &body["Cmd"]);
        assert_eq!(sent, (&sent_entrypoint, &sent_cmd), "of {entrypoint} {cmd}");
    }
}

#[test]
fn a_health_check_keeps_the_parts_that_were_given() {
    let mut world = world();
    world.old_image["Config"]["Healthcheck"] = json!({ "Test": ["CMD", "ok"], "Retries": 3 });
    world.old["Config"]["Healthcheck"] =
        json!({ "Test": ["CMD", "ok"], "Retries": 3, "Interval": 5_000_000_000_u64 });
    assert_eq!(world.body()["Healthcheck"], json!({ "Interval": 5_000_000_000_u64 }));
    world.old["Config"]["Healthcheck"] = json!({ "Test": ["NONE"] });
    assert_eq!(world.body()["Healthcheck"], json!({ "Test": ["NONE"] }));
    world.old["Config"]["Healthcheck"] = world.old_image["Config"]["Healthcheck"].clone();
    assert!(world.body().get("Healthcheck").is_none());
}

#[test]
fn a_published_port_stays_exposed_whatever_the_new_image_exposes() {
    let mut world = world();
    world.old["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    assert_eq!(world.body()["ExposedPorts"], json!({ "80/tcp": {} }));
}

#[test]
fn anonymous_volumes_are_carried_by_name_and_named_ones_stay_as_they_were_asked_for() {
    let mut world = world();
    let volume = |name: &str, path: &str, writable: bool| {
        json!({ "Type": "volume", "Name": name, "Destination": path, "Driver": "local",
                "Mode": "", "RW": writable, "Propagation": "" })
    };
    world.old_image["Config"]["Volumes"] = json!({ "/data": {} });
    world.old["Config"]["Volumes"] = json!({ "/data": {}, "/anon": {} });
    world.old["HostConfig"]["Binds"] = json!(["named:/named:ro,nocopy", "/bare/"]);
    world.old["HostConfig"]["Mounts"] = json!([{ "Type": "volume", "Target": "/m" }]);
    world.old["Mounts"] = json!([
        volume("named", "/named", false),
        volume("aaa", "/data", true),
        volume("bbb", "/anon", true),
        volume("ccc", "/bare", true),
        volume("ddd", "/m", true),
        { "Type": "bind", "Source": "/srv", "Destination": "/from-peer", "Mode": "", "RW": false,
          "Propagation": "rslave" },
        { "Type": "volume", "Name": "eee", "Destination": "/nfs", "Driver": "nfs", "RW": true },
    ]);
    let body = world.body();
    let host = &body["HostConfig"];
    assert_eq!(host["Binds"], json!(["named:/named:ro,nocopy"]));
    let pin = |name: &str, path: &str| {
        json!({ "Type": "volume", "Target": path, "ReadOnly": false, "Source": name,
                "VolumeOptions": { "NoCopy": true } })
    };
    let mut with_driver = pin("eee", "/nfs");
    with_driver["VolumeOptions"]["DriverConfig"] = json!({ "Name": "nfs" });
    assert_eq!(
        host["Mounts"],
        json!([
            { "Type": "volume", "Target": "/m", "Source": "ddd" },
            pin("aaa", "/data"),
            pin("bbb", "/anon"),
            pin("ccc", "/bare"),
            { "Type": "bind", "Target": "/from-peer", "ReadOnly": true, "Source": "/srv",
              "BindOptions": { "Propagation": "rslave" } },
            with_driver,
        ])
    );
    assert_eq!(body["Volumes"], json!({ "/anon": {} }));
}

#[test]
fn an_older_engine_gets_the_primary_network_first_and_the_others_one_by_one() {
    let mut world = world();
    world.old["HostConfig"]["NetworkMode"] = json!("4d3ea2b4");
    world.old["NetworkSettings"]["Networks"] = json!({
        "aux": { "IPAMConfig": {}, "Aliases": ["f8f57a6e93f5"], "DriverOpts": {} },
        "pay": { "IPAMConfig": { "IPv4Address": "10.7.0.9" }, "Links": ["peer:db"],
                 "Aliases": ["al", "f8f57a6e93f5", "pay.example"], "NetworkID": "4d3ea2b4cd83",
                 "IPAddress": "10.7.0.9", "MacAddress": "02:42:0a:07:00:09" },
    });
    let pay = json!({ "IPAMConfig": { "IPv4Address": "10.7.0.9" }, "Links": ["peer:db"],
                      "Aliases": ["al", "pay.example"] });
    let spec = world.next();
    assert_eq!(spec.create_body["NetworkingConfig"]["EndpointsConfig"], json!({ "pay": pay }));
    assert_eq!(spec.further_networks, [("aux".to_owned(), json!({}))]);

    world.api = "1.44";
    let spec = world.next();
    let all = json!({ "aux": {}, "pay": pay });
    assert_eq!(spec.create_body["NetworkingConfig"]["EndpointsConfig"], all);
    assert!(spec.further_networks.is_empty());
}

#[test]
fn modes_without_networks_of_their_own_send_none_and_no_host_name_that_is_not_theirs() {
    for (mode, hostname) in [("host", Some("vm")), ("none", Some("vm")), ("container:ab", None)] {
        let mut world = world();
        world.old["HostConfig"]["NetworkMode"] = json!(mode);
        world.old["Config"]["Hostname"] = json!("vm");
        world.old["NetworkSettings"]["Networks"] = json!({ mode: {} });
        let body = world.body();
        assert!(body.get("NetworkingConfig").is_none(), "{mode}");
        assert_eq!(body["HostConfig"]["NetworkMode"], mode);
        assert_eq!(body["Hostname"].as_str(), hostname, "{mode}");
    }
    let mut world = world();
    world.old["HostConfig"]["UTSMode"] = json!("host");
    world.old["Config"]["Hostname"] = json!("vm");
    assert!(world.body().get("Hostname").is_none());
}

#[test]
fn the_default_bridge_gets_no_alias_and_legacy_links_the_form_that_is_accepted() {
    let mut world = world();
    world.old["NetworkSettings"]["Networks"]["bridge"]["Aliases"] = json!(["x"]);
    world.old["HostConfig"]["Links"] = json!(["/db:/payram/database"]);
    let body = world.body();
    assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["bridge"], json!({}));
    assert_eq!(body["HostConfig"]["Links"], json!(["db:database"]));
}

#[test]
fn a_hardware_address_is_carried_unless_the_engine_derived_it_from_the_ip_address() {
    let mut world = world();
    world.old["Config"]["MacAddress"] = json!("02:42:0a:4d:00:55");
    assert_eq!(world.body()["MacAddress"], "02:42:0a:4d:00:55");
    world.api = "1.50";
    let bridge = |world: &World| {
        world.body()["NetworkingConfig"]["EndpointsConfig"]["bridge"]["MacAddress"].clone()
    };
    assert_eq!(bridge(&world), "02:42:0a:4d:00:55");
    assert!(world.body().get("MacAddress").is_none());
    world.old["Config"]["MacAddress"] = Value::Null;
    assert_eq!(bridge(&world), Value::Null);
    world.api = "1.47";
    world.old["NetworkSettings"]["Networks"]["bridge"]["MacAddress"] = json!("aa:bb:cc:00:00:01");
    assert_eq!(bridge(&world), "aa:bb:cc:00:00:01");
}

/// The fields as Docker 28 (API 1.51) was seen to answer them for a container that was made without
/// `--mac-address`.
#[test]
fn a_hardware_address_that_docker_28_made_up_stays_the_engines() {
    let mut world = world();
    world.api = "1.51";
    world.old["Config"]["MacAddress"] = Value::Null;
    world.old["NetworkSettings"]["Networks"]["bridge"]["MacAddress"] = json!("6a:0c:3f:9e:51:d2");
    let body = world.body();
    let bridge = &body["NetworkingConfig"]["EndpointsConfig"]["bridge"];
    assert_eq!(bridge["MacAddress"], Value::Null);
    assert!(body.get("MacAddress").is_none());
    world.old["Config"]["MacAddress"] = json!("02:42:0a:4d:00:55");
    let body = world.body();
    let bridge = &body["NetworkingConfig"]["EndpointsConfig"]["bridge"];
    assert_eq!(bridge["MacAddress"], "02:42:0a:4d:00:55");
}

#[test]
fn the_manifest_adds_what_is_missing_and_changes_nothing_that_is_there() {
    let mut world = world();
    world.old["HostConfig"]["PortBindings"] =
        json!({ "80/tcp": [{ "HostPort": "8080" }], "90/tcp": [{ "HostPort": "9000-9010" }] });
    world.old["HostConfig"]["Tmpfs"] = json!({ "/scratch": "" });
    let port = |container, host| OverlayPort { container, host, protocol: "tcp".into() };
    let volume = |destination: &str| OverlayVolume {
        source: "/srv/x".into(),
        destination: destination.into(),
        readonly: true,
    };
    world.overlay = Overlay {
        ports: vec![
            port(80, Some(81)),
            port(443, None),
            port(444, Some(8080)),
            port(445, Some(9005)),
        ],
        volumes: vec![volume("/scratch/"), volume("/certs"), volume("/certs/")],
        environment: vec!["AES_KEY=no".into(), "EXTRA=no".into(), "TZ=UTC".into(), "TZ=no".into()],
    };
    let body = world.body();
    assert_eq!(
        body["HostConfig"]["PortBindings"],
        json!({
            "80/tcp": [{ "HostPort": "8080" }],
            "90/tcp": [{ "HostPort": "9000-9010" }],
            "443/tcp": [{ "HostIp": "", "HostPort": "443" }],
        })
    );
    assert_eq!(body["ExposedPorts"], json!({ "80/tcp": {}, "443/tcp": {} }));
    assert_eq!(body["HostConfig"]["Binds"], json!(["/srv/x:/certs:ro"]));
    assert_eq!(body["Env"], json!(["AES_KEY=s3cret", "TZ=UTC"]));
    assert!(
        world.note_about("444/tcp").expect("a note").contains("port 80/tcp uses host port 8080")
    );
    assert!(world.note_about("445/tcp").expect("a note").contains("90/tcp"));
    assert!(world.note_about("UTC").is_none());
}

#[test]
fn the_manifest_publishes_nothing_where_the_network_is_not_the_containers() {
    let mut world = world();
    world.old["HostConfig"]["NetworkMode"] = json!("host");
    world.overlay.ports = vec![OverlayPort { container: 443, host: None, protocol: "tcp".into() }];
    assert_eq!(world.body()["HostConfig"]["PortBindings"], json!({}));
    assert!(world.note_about("443/tcp").expect("a note").contains("network mode"));
}

#[test]
fn what_a_container_mounts_is_told_with_the_volumes_that_were_made_for_it_alone() {
    let container = json!({
        "HostConfig": {"Binds": ["/srv/log:/log"], "Mounts": null, "Tmpfs": {"/run": ""}},
        "Mounts": [
            {"Type": "bind", "Source": "/srv/log", "Destination": "/log", "RW": true},
            {"Type": "volume", "Name": "3f2a", "Source": "/v/3f2a/_data", "Driver": "local",
             "Destination": "/var/lib/payram", "RW": true},
        ],
    });
    let mounts = mounts_of(&container);
    assert_eq!(mounts["Binds"], json!(["/srv/log:/log"]));
    assert_eq!(mounts["Tmpfs"], json!({"/run": ""}));
    let volume = &mounts["Mounts"][0];
    assert_eq!((&volume["Source"], &volume["Target"]), (&json!("3f2a"), &json!("/var/lib/payram")));
}
