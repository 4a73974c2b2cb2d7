//! Where a container's core may answer, from its raw inspection. Pure; called by
//! [`super::find_core`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use url::Url;

/// What the inspection of a container says about where to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    /// These base URLs, in the order in which they count: HTTP before HTTPS, then by port.
    Ask(Vec<Url>),
    /// Nowhere, and why.
    Nowhere(String),
}

/// The published TCP ports; those of a container in the host's network are the exposed ones.
pub(super) fn of(container: &Value) -> Addresses {
    let mode = container.pointer("/HostConfig/NetworkMode").and_then(Value::as_str);
    let mode = mode.unwrap_or_default();
    if let Some(other) = mode.strip_prefix("container:") {
        let other: String = other.chars().take(64).collect();
        return Addresses::Nowhere(format!(
            "the container shares the network of container {other}, which publishes its ports"
        ));
    }
    let is_host = mode == "host";
    let mut candidates = if is_host { exposed(container) } else { published(container) };
    candidates.sort_by_key(|address| (address.port(), address.ip()));
    candidates.dedup();
    let urls = |scheme| {
        candidates.iter().filter_map(move |at| Url::parse(&format!("{scheme}://{at}/")).ok())
    };
    match (candidates.is_empty(), is_host) {
        (false, _) => Addresses::Ask(urls("http").chain(urls("https")).collect()),
        (true, true) => Addresses::Nowhere(
            "the container is in the host's network and exposes no TCP port".into(),
        ),
        (true, false) => Addresses::Nowhere("the container publishes no TCP port".into()),
    }
}

/// The keys of an object like `{"80/tcp": …}` that are TCP, with their values.
fn tcp_ports(ports: Option<&Value>) -> impl Iterator<Item = (u16, &Value)> {
    ports.and_then(Value::as_object).into_iter().flatten().filter_map(|(key, value)| {
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (protocol == "tcp").then_some((port, value))
    })
}

fn exposed(container: &Value) -> Vec<SocketAddr> {
    tcp_ports(container.pointer("/Config/ExposedPorts"))
        .map(|(port, _)| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
        .collect()
}

fn published(container: &Value) -> Vec<SocketAddr> {
    tcp_ports(container.pointer("/NetworkSettings/Ports"))
        .flat_map(|(_, bindings)| bindings.as_array().into_iter().flatten())
        .filter_map(|binding| {
            let port = binding.get("HostPort")?.as_str()?.parse().ok().filter(|port| *port > 0)?;
            let ip = match binding.get("HostIp").and_then(Value::as_str).unwrap_or_default() {
                "" => Ipv4Addr::UNSPECIFIED.into(),
                text => text.parse().ok()?,
            };
            Some(SocketAddr::new(reachable(ip), port))
        })
        .collect()
}

/// What listens on every address is asked on loopback.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        specific => specific,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(container: &Value) -> Vec<String> {
        match of(container) {
            Addresses::Ask(urls) => urls.into_iter().map(String::from).collect(),
            Addresses::Nowhere(why) => vec![why],
        }
    }

    #[test]
    fn published_ports_are_asked_by_http_before_https_and_lowest_first() {
        let container = json!({"NetworkSettings": {"Ports": {
            "443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9443"}, {"HostIp": "::", "HostPort": "9443"}],
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
            "5432/tcp": null,
            "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
            "8000/tcp": [{"HostIp": "10.1.2.3", "HostPort": "80"}],
        }}});
        assert_eq!(
            asked(&container),
            [
                "http://10.1.2.3/",
                "http://127.0.0.1:8080/",
                "http://127.0.0.1:9443/",
                "http://[::1]:9443/",
                "https://10.1.2.3:80/",
                "https://127.0.0.1:8080/",
                "https://127.0.0.1:9443/",
                "https://[::1]:9443/",
            ]
        );
    }

    #[test]
    fn a_container_in_the_hosts_network_is_asked_at_its_exposed_ports() {
        let container = json!({
            "HostConfig": {"NetworkMode": "host"},
            "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
        });
        assert_eq!(asked(&container), ["http://127.0.0.1/", "https://127.0.0.1:80/"]);
    }

    #[test]
    fn a_container_without_ports_of_its_own_says_why() {
        let shared = json!({"HostConfig": {"NetworkMode": "container:abc"}});
        assert!(asked(&shared)[0].contains("shares the network of container abc"));
        assert_eq!(asked(&json!({})), ["the container publishes no TCP port"]);
        let host = json!({"HostConfig": {"NetworkMode": "host"}});
        assert!(asked(&host)[0].contains("exposes no TCP port"));
    }

    #[test]
    fn what_is_no_port_is_passed_over() {
        let container = json!({"NetworkSettings": {"Ports": {
            "80/tcp": [{"HostPort": "0"}, {"HostPort": "70000"}, {"HostPort": 8080}, "x", null],
            "http": [{"HostIp": "0.0.0.0", "HostPort": "1"}],
            "81/tcp": [{"HostIp": "evil.example", "HostPort": "81"}],
        }}});
        assert_eq!(asked(&container), ["the container publishes no TCP port"]);
    }
}
