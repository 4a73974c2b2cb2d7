//! The address of another container that the application calls by name, as its networks tell it.
//!
//! Called by [`super::Runner`] for a database whose name this host does not know: names of containers
//! are known in their own networks alone (Docker manual, "Container networks", embedded DNS), while
//! their addresses are reached from the host. Reads only.

use std::net::IpAddr;

use serde_json::Value;

use crate::engine::Engine;

/// The address of a container of this name or alias in one of the networks of the application's
/// container, which may have stopped; none where there is none.
pub(super) async fn address_of(
    engine: &dyn Engine,
    container_id: &str,
    host: &str,
) -> Option<IpAddr> {
    let own = engine.inspect_container(container_id).await.ok()??;
    let networks: Vec<String> =
        own["NetworkSettings"]["Networks"].as_object()?.keys().cloned().collect();
    for other in engine.containers(None).await.ok()? {
        if other.id == container_id || other.state != "running" {
            continue;
        }
        // One that is gone by now is not meant.
        let Ok(Some(inspected)) = engine.inspect_container(&other.id).await else { continue };
        if let Some(found) = in_networks(&inspected, &networks, host) {
            return Some(found);
        }
    }
    None
}

fn in_networks(other: &Value, networks: &[String], host: &str) -> Option<IpAddr> {
    let name = other["Name"].as_str().unwrap_or_default().trim_start_matches('/');
    networks.iter().find_map(|network| {
        let endpoint = &other["NetworkSettings"]["Networks"][network];
        let lists = [&endpoint["Aliases"], &endpoint["DNSNames"]];
        let mut names =
            lists.into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
        let is_called = name == host || names.any(|alias| alias == host);
        let address = |key: &str| endpoint[key].as_str()?.parse::<IpAddr>().ok();
        is_called.then(|| address("IPAddress").or_else(|| address("GlobalIPv6Address")))?
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_peer_is_found_by_its_name_or_alias_in_a_network_of_both() {
        let other = json!({
            "Name": "/shop-db-1",
            "NetworkSettings": {"Networks": {
                "shop": {"Aliases": ["db"], "IPAddress": "172.20.0.3"},
                "else": {"Aliases": ["hidden"], "IPAddress": "172.21.0.3"},
            }},
        });
        let networks = ["shop".to_owned()];
        let expected = "172.20.0.3".parse().ok();
        assert_eq!(in_networks(&other, &networks, "db"), expected);
        assert_eq!(in_networks(&other, &networks, "shop-db-1"), expected);
        assert_eq!(in_networks(&other, &networks, "hidden"), None);
        assert_eq!(in_networks(&other, &["bridge".to_owned()], "db"), None);
    }
}
