//! The addresses around the PayRam container: its own, which may call, and the gateways that
//! it reaches this host by, which are listened on.
//!
//! An upgrade gives the container another address, so this is looked up again, not once.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::app::container;
use crate::config::Settings;
use crate::engine::Engine;

/// How long an address that was found stays believed without a look.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// How soon after a look a stranger's call causes the next.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The engine's default network, whose gateway is `docker0`.
const DEFAULT_NETWORK: &str = "bridge";

/// What the last look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// The container's own addresses.
    pub container: Vec<IpAddr>,
    /// Gateways of its networks and of the default bridge.
    pub gateways: Vec<IpAddr>,
}

/// The last look.
#[derive(Default)]
pub(super) struct Neighbours(Mutex<Option<(Instant, Addresses)>>);

impl Neighbours {
    /// Whether this address is the PayRam container's.
    pub async fn knows(
        &self,
        address: IpAddr,
        settings: &Settings,
        engine: &dyn Engine,
        container: Option<&str>,
    ) -> bool {
        if let Some((at, addresses)) = self.last() {
            let age = at.elapsed();
            let is_known = addresses.container.contains(&address);
            if is_known && age < BELIEVED_FOR {
                return true;
            }
            if !is_known && age < LOOK_AGAIN_AFTER {
                return false;
            }
        }
        self.look(settings, engine, container).await.container.contains(&address)
    }

    /// Looks and remembers.
    pub async fn look(
        &self,
        settings: &Settings,
        engine: &dyn Engine,
        container: Option<&str>,
    ) -> Addresses {
        let found = look(settings, engine, container).await;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), found.clone()));
        found
    }

    /// The gateways that the last look found, as `Host` may name them.
    pub fn gateways(&self) -> Vec<String> {
        self.last()
            .map(|(_, found)| found.gateways.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    fn last(&self) -> Option<(Instant, Addresses)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn look(settings: &Settings, engine: &dyn Engine, container: Option<&str>) -> Addresses {
    let mut found = Addresses::default();
    if let Ok(Some(network)) = engine.inspect_network(DEFAULT_NETWORK).await {
        found.gateways.extend(gateways_of_network(&network));
    }
    let name = match container {
        Some(name) => Some(name.to_owned()),
        None => container::find(engine, settings, None).await.ok().map(|found| found.id),
    };
    if let Some(name) = name
        && let Ok(Some(inspected)) = engine.inspect_container(&name).await
    {
        let (own, gateways) = addresses_of_container(&inspected);
        found.container.extend(own);
        found.gateways.extend(gateways);
    }
    found.gateways.sort();
    found.gateways.dedup();
    found
}

fn gateways_of_network(network: &Value) -> Vec<IpAddr> {
    network["IPAM"]["Config"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|config| address(&config["Gateway"]))
        .collect()
}

fn addresses_of_container(container: &Value) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let endpoints: Vec<&Value> = networks.into_iter().flat_map(|n| n.values()).collect();
    let of = |key: &str| endpoints.iter().filter_map(|e| address(&e[key])).collect::<Vec<_>>();
    let own = of("IPAddress").into_iter().chain(of("GlobalIPv6Address")).collect();
    (own, of("Gateway"))
}

/// An address that means one host: neither empty nor "any".
fn address(value: &Value) -> Option<IpAddr> {
    let address: IpAddr = value.as_str()?.parse().ok()?;
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_networks_of_the_container_count_and_empty_addresses_do_not() {
        let inspected = json!({"NetworkSettings": {"Networks": {
            "bridge": {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1", "GlobalIPv6Address": ""},
            "shop": {"IPAddress": "10.9.0.7", "Gateway": "", "GlobalIPv6Address": "fd00::7"},
            "host": {"IPAddress": "0.0.0.0", "Gateway": "0.0.0.0"},
        }}});
        let (own, gateways) = addresses_of_container(&inspected);
        let text = |list: Vec<IpAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(own), ["172.17.0.2", "10.9.0.7", "fd00::7"]);
        assert_eq!(text(gateways), ["172.17.0.1"]);
    }
}
