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

/// What is known of an address without a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// The PayRam container's.
    Known,
    /// Somebody else's.
    Stranger,
    /// The last look is too old to tell.
    Unsure,
}

/// The last look, and the one under way.
#[derive(Default)]
pub(super) struct Neighbours {
    last: Mutex<Option<(Instant, Addresses)>>,
    looking: tokio::sync::Mutex<()>,
}

impl Neighbours {
    /// Whether this address is the PayRam container's, as far as the last look tells.
    pub fn recall(&self, address: IpAddr) -> Recall {
        let Some((at, addresses)) = self.last() else { return Recall::Unsure };
        let is_known = addresses.container.contains(&address);
        match (is_known, at.elapsed()) {
            (true, age) if age < BELIEVED_FOR => Recall::Known,
            (false, age) if age < LOOK_AGAIN_AFTER => Recall::Stranger,
            (true | false, _) => Recall::Unsure,
        }
    }

    /// Whether this address is the PayRam container's. Looks when that is not known; however
    /// many ask, one look is made for all of them.
    pub async fn knows(
        &self,
        address: IpAddr,
        settings: &Settings,
        engine: &dyn Engine,
        container: impl Future<Output = Option<String>>,
    ) -> bool {
        if self.recall(address) == Recall::Unsure {
            let _alone = self.looking.lock().await;
            if self.recall(address) == Recall::Unsure {
                let container = container.await;
                let found = self.look(settings, engine, container.as_deref()).await;
                return found.container.contains(&address);
            }
        }
        self.recall(address) == Recall::Known
    }

    /// Looks and remembers.
    pub async fn look(
        &self,
        settings: &Settings,
        engine: &dyn Engine,
        container: Option<&str>,
    ) -> Addresses {
        let found = look(settings, engine, container).await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
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
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn look(settings: &Settings, engine: &dyn Engine, container: Option<&str>) -> Addresses {
    let mut found = Addresses::default();
    if let Ok(Some(network)) = engine.inspect_network(DEFAULT_NETWORK).await {
        found.gateways.extend(gateways_of_network(&network));
    }
    let named = match container {
        Some(name) => engine.inspect_container(name).await.ok().flatten(),
        None => None,
    };
    let inspected = match named {
        Some(inspected) => Some(inspected),
        // A name that nothing has tells nothing.
        None => match container::find(engine, settings, None).await {
            Ok(found) => engine.inspect_container(&found.id).await.ok().flatten(),
            Err(_) => None,
        },
    };
    if let Some(inspected) = inspected {
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
