//! The networks that the next container is attached to, with what was configured for each.
//!
//! The inspection of an endpoint mixes what was asked for with what the engine gave. What the
//! engine gives is listed in [`ASSIGNED`]; everything else is carried, known or not. Addresses
//! of a stopped container are free (the engine takes them at start), so the next container may
//! be created with the old one's static address while the old one still runs.
//!
//! Hardware addresses: below API 1.44 `Config.MacAddress` is there only when it was asked for.
//! From 1.44 on an endpoint's `MacAddress` is shown whether it was asked for or made up, and
//! losing one that was asked for would cut a container off its switch port or licence. So it
//! is carried, except when it is the one that engines before 28 derive from the IPv4 address:
//! that one, pinned, would one day meet another container that got the address. Engines from API
//! 1.48 (Docker 28) on make random ones up, and show in `Config.MacAddress` what was asked for on
//! the network that the mode names: there it alone is believed. On further networks a random one
//! can't be told from one that was asked for; it is harmless to keep, since the old container
//! never runs beside the new one (I2).

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::SpecInputs;
use super::read::{self, ApiVersion, NetworkMode};

/// Fields of an endpoint that the engine fills in.
const ASSIGNED: [&str; 10] = [
    "NetworkID",
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "MacAddress",
    "DNSNames",
];

/// Networks, by when they are attached.
#[derive(Default)]
pub(super) struct Attachments {
    /// `EndpointsConfig` of the create request.
    pub at_creation: Map<String, Value>,
    /// To be connected one by one, in this order.
    pub further: Vec<(String, Value)>,
}

/// Sorts the old container's networks into those of the create request and further ones.
pub(super) fn attachments(inputs: &SpecInputs<'_>, api: ApiVersion) -> Attachments {
    let mode = NetworkMode::of(inputs.old);
    let mut attachments = Attachments::default();
    let Some(networks) = inputs.old["NetworkSettings"]["Networks"].as_object() else {
        return attachments;
    };
    if !mode.attaches() {
        // The mode says it all; an endpoint for it is the engine's.
        return attachments;
    }
    let primary = |name: &str| is_primary(mode, name, &networks[name]);
    // An operator may have disconnected the network that the mode names. An older engine takes
    // any single one in its place; without one it would attach the mode's again.
    let first = networks.keys().find(|name| primary(name)).or_else(|| networks.keys().next());
    for (name, endpoint) in networks {
        let settings = configured(inputs, api, name, endpoint);
        if api >= ApiVersion::MANY_NETWORKS || first == Some(name) {
            attachments.at_creation.insert(name.clone(), settings);
        } else {
            attachments.further.push((name.clone(), settings));
        }
    }
    attachments
}

/// Whether the mode means this network; it may name it by id.
fn is_primary(mode: NetworkMode<'_>, name: &str, endpoint: &Value) -> bool {
    match mode {
        NetworkMode::Bridge => name == "bridge",
        NetworkMode::Named(wanted) => {
            name == wanted
                || read::text(&endpoint["NetworkID"]).is_some_and(|id| id.starts_with(wanted))
        }
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container => false,
    }
}

/// What was asked for when the old container was attached to this network.
fn configured(inputs: &SpecInputs<'_>, api: ApiVersion, name: &str, endpoint: &Value) -> Value {
    let mut settings = endpoint.as_object().cloned().unwrap_or_default();
    settings.retain(|field, value| !ASSIGNED.contains(&field.as_str()) && !read::is_nothing(value));
    settings.remove("Aliases");
    // The engine refuses aliases on its own bridge, even none of its own making.
    if name != "bridge" {
        let short_id = read::short_id(inputs.old);
        let aliases: Vec<&str> = read::texts(&endpoint["Aliases"])
            .into_iter()
            .filter(|alias| Some(*alias) != short_id)
            .collect();
        if !aliases.is_empty() {
            settings.insert("Aliases".into(), json!(aliases));
        }
    }
    if api >= ApiVersion::MANY_NETWORKS
        && let Some(mac) = configured_mac(inputs, name)
    {
        settings.insert("MacAddress".into(), json!(mac));
    }
    Value::Object(settings)
}

/// The hardware address to ask for on this network where the API takes one for each network;
/// see the head of this module.
pub(in crate::spec) fn configured_mac<'a>(
    inputs: &SpecInputs<'a>,
    network: &str,
) -> Option<&'a str> {
    let old: &'a Value = inputs.old;
    let endpoint = &old["NetworkSettings"]["Networks"][network];
    let for_container = read::text(&old["Config"]["MacAddress"]);
    let tells = ApiVersion::parse(inputs.api_version)
        .is_some_and(|version| version >= ApiVersion::TELLS_CONFIGURED_MAC);
    let is_told = for_container.is_some() || tells;
    if is_told && is_primary(NetworkMode::of(old), network, endpoint) {
        return for_container;
    }
    let mac = read::text(&endpoint["MacAddress"])?;
    let address: Option<Ipv4Addr> = endpoint["IPAddress"].as_str().and_then(|ip| ip.parse().ok());
    let derived = address.map(|address| {
        let [a, b, c, d] = address.octets();
        format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    });
    (derived.as_deref() != Some(mac.to_ascii_lowercase().as_str())).then_some(mac)
}
