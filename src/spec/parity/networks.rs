//! Networks, by name: what was configured for each must be there again.

use serde_json::{Value, json};

use super::compare::{Comparison, union};
use crate::spec::read::{self, ApiVersion, NetworkMode};
use crate::spec::{self, SpecInputs};

/// Fields of an endpoint that the engine fills in when the container starts.
const ASSIGNED: [&str; 9] = [
    "NetworkID",
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "DNSNames",
];

/// Compares `NetworkSettings.Networks` and the hardware addresses.
pub(super) fn compare(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    let old = &inputs.old["NetworkSettings"]["Networks"];
    let new = &container["NetworkSettings"]["Networks"];
    let for_each = ApiVersion::parse(inputs.api_version)
        .is_some_and(|version| version >= ApiVersion::MANY_NETWORKS);
    if !for_each {
        let mac = |container: &Value| container["Config"]["MacAddress"].clone();
        comparison.equal("Config.MacAddress", &mac(inputs.old), &mac(container));
    }
    let attaches = NetworkMode::of(inputs.old).attaches();
    for name in union(old, new) {
        let field = format!("NetworkSettings.Networks[{name}]");
        match (old.get(name), new.get(name)) {
            (Some(expected), Some(found)) => {
                endpoint(comparison, &field, (inputs.old, expected), (container, found));
                if for_each {
                    hardware_address(comparison, &field, name, found, inputs);
                }
            }
            // Of the modes without networks of their own, the engine makes the entry.
            (expected, found) if attaches => {
                let presence = |side: Option<&Value>| match side {
                    Some(_) => json!("attached"),
                    None => Value::Null,
                };
                comparison.report(&field, &presence(expected), &presence(found));
            }
            (_, _) => {}
        }
    }
}

/// One endpoint; each side is a container and its endpoint on the network.
fn endpoint(
    comparison: &mut Comparison,
    field: &str,
    (old, expected): (&Value, &Value),
    (new, found): (&Value, &Value),
) {
    for key in union(expected, found) {
        let name = format!("{field}.{key}");
        match key {
            "Aliases" => {
                let of = |endpoint| aliases(endpoint, [old, new]);
                comparison.sets(&name, &of(expected), &of(found));
            }
            "Links" => {
                comparison.sets(&name, &read::texts(&expected[key]), &read::texts(&found[key]));
            }
            "MacAddress" => {}
            key if ASSIGNED.contains(&key) => {}
            key => comparison.equal(&name, &expected[key], &found[key]),
        }
    }
}

/// Aliases less those that the engine adds at start: short ids and host names.
fn aliases<'a>(endpoint: &'a Value, containers: [&Value; 2]) -> Vec<&'a str> {
    let is_added = |alias: &str| {
        containers.iter().any(|container| {
            Some(alias) == read::short_id(container)
                || Some(alias) == container["Config"]["Hostname"].as_str()
        })
    };
    read::texts(&endpoint["Aliases"]).into_iter().filter(|alias| !is_added(alias)).collect()
}

/// From API 1.44 on. An engine that says nothing before the first start can't be held to it.
fn hardware_address(
    comparison: &mut Comparison,
    field: &str,
    network: &str,
    found: &Value,
    inputs: &SpecInputs<'_>,
) {
    let expected = spec::configured_mac(inputs, network);
    let found = read::text(&found["MacAddress"]);
    if let (Some(expected), Some(found)) = (expected, found)
        && !expected.eq_ignore_ascii_case(found)
    {
        comparison.report(&format!("{field}.MacAddress"), &json!(expected), &json!(found));
    }
}
