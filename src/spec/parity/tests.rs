//! Parity, on what a model of the engine makes of the specification.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::machine::facts::{OverlayPort, OverlayVolume};
use crate::spec::model::{World, created, world};

impl World {
    fn created(&self) -> Value {
        created(&self.next(), &self.new_image)
    }

    fn differences(&self, container: &Value) -> Vec<String> {
        differences(container, &self.inputs()).iter().map(ToString::to_string).collect()
    }
}

/// A container with every kind of setting.
fn unusual() -> World {
    let mut world = world();
    let volume = |name: &str, path: &str, mode: &str| {
        json!({ "Type": "volume", "Name": name, "Source": format!("/volumes/{name}/_data"),
                "Destination": path, "Driver": "local", "Mode": mode, "RW": true,
                "Propagation": "" })
    };
    world.old_image["Config"]["Volumes"] = json!({ "/data": {} });
    world.new_image["Config"]["Volumes"] = json!({ "/data": {}, "/more": {} });
    world.new_image["Config"]["Healthcheck"] = json!({ "Test": ["CMD", "ok"] });
    world.old["Config"]["Volumes"] = json!({ "/data": {}, "/anon": {} });
    world.old["Config"]["Hostname"] = json!("pay.example");
    world.old["Config"]["StopTimeout"] = json!(42);
    world.old["Config"]["Healthcheck"] = json!({ "Interval": 5_000_000_000_u64 });
    world.old["HostConfig"]["Binds"] = json!(["named:/named", "/srv:/srv:ro"]);
    world.old["HostConfig"]["Mounts"] = json!([{ "Type": "volume", "Target": "/m" }]);
    world.old["HostConfig"]["CapAdd"] = json!(["NET_ADMIN"]);
    world.old["HostConfig"]["Init"] = json!(true);
    world.old["HostConfig"]["MaskedPaths"] = json!([]);
    world.old["HostConfig"]["NetworkMode"] = json!("pay");
    world.old["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": "8080" }] });
    world.old["Mounts"] = json!([
        volume("named", "/named", "z"),
        { "Type": "bind", "Source": "/srv", "Destination": "/srv", "Mode": "ro", "RW": false,
          "Propagation": "rprivate" },
        volume("aaa", "/data", ""),
        volume("bbb", "/anon", ""),
        volume("ccc", "/m", "z"),
    ]);
    world.old["NetworkSettings"]["Networks"] = json!({
        "pay": { "IPAMConfig": { "IPv4Address": "10.7.0.9" }, "Links": ["peer:db"],
                 "Aliases": ["al", "f8f57a6e93f5", "pay.example"], "EndpointID": "e" },
        "aux": { "IPAMConfig": {}, "Aliases": ["f8f57a6e93f5", "pay.example"] },
    });
    world.overlay.environment = vec!["TZ=UTC".into()];
    world.overlay.ports = vec![OverlayPort { container: 99, host: None, protocol: "tcp".into() }];
    world.overlay.volumes = vec![OverlayVolume {
        source: "/etc/certs".into(),
        destination: "/certs".into(),
        readonly: true,
    }];
    world
}

#[test]
fn a_container_made_from_the_specification_differs_in_nothing_that_matters() {
    for api in ["1.41", "1.50"] {
        for mut world in [world(), unusual()] {
            world.api = api;
            assert_eq!(world.differences(&world.created()), Vec::<String>::new());
        }
    }
}

#[test]
fn each_field_that_got_lost_or_changed_is_named() {
    let lost = |pointer: &str, value: Value, difference: &str| {
        let world = unusual();
        let mut container = world.created();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        container.pointer_mut(parent).expect("there")[key.replace("~1", "/").as_str()] = value;
        let found = world.differences(&container);
        assert!(
            found.len() == 1 && found.iter().all(|found| found.starts_with(difference)),
            "{pointer}: {found:?}"
        );
    };
    lost("/HostConfig/Memory", json!(0), "HostConfig.Memory: expected 536870912, found 0");
    lost("/HostConfig/Init", json!(false), "HostConfig.Init: expected true, found false");
    lost(
        "/HostConfig/Binds",
        json!(["named:/named", "/etc/certs:/certs:ro"]),
        "HostConfig.Binds[/srv]: expected \"/srv:/srv:ro\", found nothing",
    );
    lost("/HostConfig/RestartPolicy", json!({ "Name": "always" }), "HostConfig.RestartPolicy.Name");
    lost("/HostConfig/MaskedPaths", json!(["/proc/kcore"]), "HostConfig.MaskedPaths: expected []");
    lost("/HostConfig/CapAdd", json!(null), "HostConfig.CapAdd");
    lost(
        "/HostConfig/Privileged",
        json!(true),
        "HostConfig.Privileged: expected nothing, found true",
    );
    lost("/HostConfig/NetworkMode", json!("aux"), "HostConfig.NetworkMode: expected \"pay\"");
    lost("/HostConfig/Quantum", json!(1), "HostConfig.Quantum: expected nothing, found 1");
    lost(
        "/HostConfig/PortBindings/80~1tcp",
        json!([{ "HostPort": "1" }]),
        "HostConfig.PortBindings[80/tcp]",
    );
    lost(
        "/HostConfig/PortBindings/81~1tcp",
        json!([]),
        "HostConfig.PortBindings[81/tcp]: expected nothing, found []",
    );
    lost(
        "/HostConfig/LogConfig/Config",
        json!({}),
        "HostConfig.LogConfig.Config[max-size]: expected ***, found nothing",
    );
    lost("/Config/Cmd", json!(["serve"]), "Config.Cmd: expected ***, found ***");
    lost("/Config/StopSignal", json!("SIGTERM"), "Config.StopSignal: expected \"SIGINT\"");
    lost("/Config/StopTimeout", json!(null), "Config.StopTimeout: expected 42, found nothing");
    lost("/Config/Hostname", json!("other"), "Config.Hostname");
    lost("/Config/Image", json!("other"), "Config.Image");
    lost(
        "/Config/ExposedPorts",
        json!({ "80/tcp": {}, "99/tcp": {} }),
        "Config.ExposedPorts[443/tcp]",
    );
    lost("/Config/Volumes", json!({ "/data": {}, "/more": {} }), "Config.Volumes[/anon]");
    lost("/Config/Healthcheck/Interval", json!(null), "Config.Healthcheck.Interval");
    lost("/Config/Labels/version", json!("1.9.6"), "Config.Labels[version]: expected ***");
    lost(
        "/Config/Labels/com.payram.updater.hop",
        json!(null),
        "Config.Labels[com.payram.updater.hop]",
    );
    lost(
        "/NetworkSettings/Networks/pay/IPAMConfig",
        json!(null),
        "NetworkSettings.Networks[pay].IPAMConfig.IPv4Address: expected \"10.7.0.9\"",
    );
    lost(
        "/NetworkSettings/Networks/pay/Aliases",
        json!(["pay.example"]),
        "NetworkSettings.Networks[pay].Aliases",
    );
    lost("/NetworkSettings/Networks/pay/Links", json!([]), "NetworkSettings.Networks[pay].Links");
    lost(
        "/NetworkSettings/Networks/extra",
        json!({}),
        "NetworkSettings.Networks[extra]: expected nothing, found \"attached\"",
    );
    lost("/Novelty", json!("here"), "Novelty: expected nothing, found \"here\"");
}

#[test]
fn a_variable_that_changed_is_named_and_no_value_is_shown() {
    let world = unusual();
    let changed = |environment: Value| {
        let mut container = world.created();
        container["Config"]["Env"] = environment;
        world.differences(&container)
    };
    let good = ["AES_KEY=s3cret", "TZ=UTC", "PATH=/bin:/sbin", "EXTRA=1"];
    assert!(changed(json!(good)).is_empty());
    assert_eq!(changed(json!(&good[1..])), ["Config.Env[AES_KEY]: expected ***, found nothing"]);
    let wrong = ["AES_KEY=other", "TZ=UTC", "PATH=/bin", "EXTRA=1", "ODD=1", "PG_HOME=/pg13"];
    assert_eq!(
        changed(json!(wrong)),
        [
            "Config.Env[AES_KEY]: expected ***, found ***",
            "Config.Env[ODD]: expected nothing, found ***",
            "Config.Env[PATH]: expected ***, found ***",
            "Config.Env[PG_HOME]: expected nothing, found ***",
        ]
    );
}

#[test]
fn a_volume_that_is_another_or_is_missing_is_named_by_its_place() {
    let world = unusual();
    let mount = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut container = world.created();
        let mounts = container["Mounts"].as_array_mut().expect("mounts");
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
        change(mounts);
        world.differences(&container)
    };
    assert!(mount(&|mounts| mounts.reverse()).is_empty());
    // /anon, /certs, /data, …
    assert_eq!(
        mount(&|mounts| mounts[2]["Name"] = json!("fresh")),
        ["Mounts[/data].Name: expected \"aaa\", found \"fresh\""]
    );
    assert_eq!(
        mount(&|mounts| mounts[0]["RW"] = json!(false)),
        ["Mounts[/anon].RW: expected true, found false"]
    );
    let gone = mount(&|mounts| drop(mounts.remove(0)));
    assert!(gone.len() == 1 && gone[0].starts_with("Mounts[/anon]: expected {"), "{gone:?}");
    assert_eq!(
        mount(&|mounts| mounts[1]["RW"] = json!(true))[0].split(':').next(),
        Some("Mounts[/certs]")
    );
}

#[test]
fn a_network_that_was_not_attached_again_is_named() {
    let world = unusual();
    let mut container = world.created();
    container["NetworkSettings"]["Networks"].as_object_mut().expect("networks").remove("aux");
    assert_eq!(
        world.differences(&container),
        ["NetworkSettings.Networks[aux]: expected \"attached\", found nothing"]
    );
}

#[test]
fn what_an_older_engine_never_said_may_be_filled_in() {
    let world = world();
    let mut container = world.created();
    container["HostConfig"]["CgroupnsMode"] = json!("host");
    container["HostConfig"]["Runtime"] = json!("runc");
    container["HostConfig"]["ShmSize"] = json!(67_108_864);
    container["HostConfig"]["MaskedPaths"] = json!(["/proc/kcore"]);
    container["HostConfig"]["NetworkMode"] = json!("bridge");
    container["HostConfig"]["LogConfig"]["Config"]["max-file"] = json!("3");
    assert!(world.differences(&container).is_empty());
}

#[test]
fn every_row_of_the_table_says_why_and_no_field_is_in_it_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for (field, rule, why) in table::TABLE {
        assert!(seen.insert(field), "{field} is there twice");
        assert!(*rule == Rule::Within || !why.is_empty(), "{field} has no reason");
    }
}

/// Any JSON that a field may hold.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[A-Z][a-z]{1,5}", inner, 0..4)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// Environments, as an operator and two images may have them; few names, so that they meet.
fn environment() -> impl Strategy<Value = Vec<String>> {
    prop::collection::hash_map("[A-D]", "[12]?", 0..4).prop_map(|entries| {
        entries.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    })
}

proptest! {
    #[test]
    fn unknown_fields_survive_and_are_compared(
        fields in prop::collection::hash_map("X[a-z]{1,8}", any_json(), 0..8)
    ) {
        let mut world = unusual();
        for (name, value) in &fields {
            world.old["HostConfig"][name.as_str()] = value.clone();
            world.old["Config"][name.as_str()] = value.clone();
        }
        let mut container = world.created();
        for (name, value) in &fields {
            prop_assert_eq!(&container["HostConfig"][name.as_str()], value);
            prop_assert_eq!(&container["Config"][name.as_str()], value);
        }
        prop_assert_eq!(world.differences(&container), Vec::<String>::new());
        for name in fields.keys() {
            container["HostConfig"][name.as_str()] = json!("something else");
        }
        prop_assert!(world.differences(&container).len() >= fields.len());
    }

    #[test]
    fn a_container_is_at_parity_with_itself(
        fields in prop::collection::hash_map("[A-Z][a-z]{1,8}", any_json(), 0..8)
    ) {
        let mut world = unusual();
        world.new_image = world.old_image.clone();
        world.labels.clear();
        for (name, value) in fields {
            world.old["HostConfig"][name] = value;
        }
        let mut same = world.old.clone();
        same["HostConfig"]["RestartPolicy"] = json!({ "Name": "no" });
        same["HostConfig"]["Mounts"] = json!([{ "Type": "volume", "Target": "/m", "Source": "ccc" }]);
        same["Config"]["Image"] = json!("payramapp/payram:1.9.7");
        same["Config"]["Env"] = json!(["AES_KEY=s3cret", "PATH=/bin", "PG_HOME=/pg13", "TZ=UTC"]);
        prop_assert_eq!(world.differences(&same), Vec::<String>::new());
    }

    #[test]
    fn every_value_of_the_operators_reaches_the_new_container(
        own in environment(), old_image in environment(), new_image in environment(),
        command in prop::option::of(prop::collection::vec("[ab]", 1..3)),
        entrypoint in prop::option::of(prop::collection::vec("[ab]", 1..2)),
    ) {
        let mut world = world();
        world.old_image["Config"]["Env"] = json!(old_image);
        world.new_image["Config"]["Env"] = json!(new_image);
        // What the engine made of the operator's request and the old image.
        let request = crate::spec::NextSpec {
            create_body: json!({
                "Env": own, "Cmd": command, "Entrypoint": entrypoint, "Image": "x",
                "HostConfig": world.old["HostConfig"],
            }),
            further_networks: Vec::new(),
            notes: Vec::new(),
        };
        world.old = created(&request, &world.old_image);
        let container = world.created();
        prop_assert_eq!(world.differences(&container), Vec::<String>::new());
        for entry in own.iter().filter(|entry| !old_image.contains(entry)) {
            prop_assert!(read::texts(&container["Config"]["Env"]).contains(&entry.as_str()));
        }
    }
}
