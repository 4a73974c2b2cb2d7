//! Where a container's core may answer, from raw inspections. Pure; called by [`super::probe`].
//!
//! Published ports come first: that is where merchants' browsers reach it. A container behind a
//! proxy publishes none, and is asked at its own addresses on its networks. The database is never
//! spoken to: each such connection is a line of error in its log.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use url::Url;

use super::Place;

/// Where web servers usually listen, most likely first. Every other port comes after them.
const USUAL_PORTS: [u16; 5] = [80, 8080, 443, 8443, 3000];

/// Asked at the container's own addresses when its image names no port.
const UNNAMED_PORTS: [u16; 3] = [80, 8080, 443];

/// Ports of a container behind which no web server is: SSH, SMTP, MySQL, PostgreSQL and its second
/// cluster, Redis, MongoDB. To speak HTTP to them finds nothing and fills their logs.
const OTHER_PROTOCOLS: [u16; 7] = [22, 25, 3306, 5432, 5433, 6379, 27017];

/// Each group is asked only when nothing in the groups before it answered as a core; within a
/// group the order says what counts first.
pub(super) type Groups = Vec<Vec<Place>>;

/// The container whose network this one shares (`--network container:X`).
pub(super) fn shares_network_of(container: &Value) -> Option<&str> {
    container.pointer("/HostConfig/NetworkMode")?.as_str()?.strip_prefix("container:")
}

/// Where to ask `container`, whose network is that of `networked`: itself, unless it shares
/// another's. `database_port` is where a database in it listens unless its environment says so;
/// `listening` are the ports on which its processes listen, where it is in the host's network and
/// this host can tell.
///
/// # Errors
/// Why there is nowhere to ask.
pub(super) fn of(
    container: &Value,
    networked: &Value,
    database_port: u16,
    listening: Option<&[u16]>,
) -> Result<Groups, String> {
    let mode = networked.pointer("/HostConfig/NetworkMode").and_then(Value::as_str);
    let wanted = Wanted::of(container, database_port, listening);
    match mode.unwrap_or_default() {
        "host" => {
            let loopback: [IpAddr; 1] = [Ipv4Addr::LOCALHOST.into()];
            // What listens on another of the host's ports is somebody else's.
            let mut ports = listening.map_or_else(|| wanted.exposed.clone(), <[u16]>::to_vec);
            ports.sort_by_key(|port| likelihood(*port));
            let places = wanted.at(&loopback, &ports, false);
            match places.is_empty() {
                true if listening.is_some() => Err("the container is in the host's network and \
                                                    none of its processes listens on a TCP port \
                                                    of a core"
                    .into()),
                true => Err("the container is in the host's network and exposes no TCP port \
                             other than those of databases"
                    .into()),
                false => Ok(vec![places]),
            }
        }
        mode if mode.starts_with("container:") => {
            Err("the container shares the network of one that shares another's".into())
        }
        _ => {
            let published = wanted.published(networked);
            let ports =
                if wanted.exposed.is_empty() { &UNNAMED_PORTS[..] } else { &wanted.exposed };
            let own = wanted.at(&own_addresses(networked), ports, true);
            let groups: Groups =
                [published, own].into_iter().filter(|group| !group.is_empty()).collect();
            match groups.is_empty() {
                true => Err("the container publishes no TCP port for a core and has no address \
                             of its own"
                    .into()),
                false => Ok(groups),
            }
        }
    }
}

/// Which of a container's ports may be the core's.
struct Wanted<'l> {
    /// On which its processes listen, where that is known.
    listening: Option<&'l [u16]>,
    /// Where its own database listens; none when that is elsewhere.
    database: Option<u16>,
    /// The ports that it exposes, without those that are none of the core's, most likely first.
    exposed: Vec<u16>,
}

impl<'l> Wanted<'l> {
    fn of(container: &Value, database_port: u16, listening: Option<&'l [u16]>) -> Self {
        let database = own_database(container, database_port);
        let mut wanted = Self { listening, database, exposed: Vec::new() };
        let exposed = tcp_ports(container.pointer("/Config/ExposedPorts"));
        wanted.exposed =
            exposed.map(|(port, _)| port).filter(|port| wanted.may_be(*port)).collect();
        wanted.exposed.sort_by_key(|port| likelihood(*port));
        wanted
    }

    /// Whether a port inside the container may be the core's.
    fn may_be(&self, port: u16) -> bool {
        self.database != Some(port)
            && !OTHER_PROTOCOLS.contains(&port)
            && self.listening.is_none_or(|ports| ports.contains(&port))
    }

    /// The published TCP ports, by HTTP before HTTPS, the likeliest port inside first.
    fn published(&self, networked: &Value) -> Vec<Place> {
        let mut found: Vec<(u16, SocketAddr)> =
            tcp_ports(networked.pointer("/NetworkSettings/Ports"))
                .filter(|(inside, _)| self.may_be(*inside))
                .flat_map(|(inside, bindings)| {
                    let bindings = bindings.as_array().into_iter().flatten();
                    bindings.filter_map(bound).map(move |at| (inside, at))
                })
                .collect();
        found.sort_by_key(|(inside, at)| (likelihood(*inside), at.port(), at.ip()));
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for (_, at) in found {
            if !addresses.contains(&at) {
                addresses.push(at);
            }
        }
        places(&addresses, false)
    }

    /// Every port at every address, the likeliest port first.
    fn at(&self, addresses: &[IpAddr], ports: &[u16], is_own: bool) -> Vec<Place> {
        let found: Vec<SocketAddr> = ports
            .iter()
            .filter(|port| self.may_be(**port))
            .flat_map(|port| addresses.iter().map(|ip| SocketAddr::new(*ip, *port)))
            .collect();
        places(&found, is_own)
    }
}

/// What to sort by: the usual ports in their order, then the others from low to high.
fn likelihood(port: u16) -> (usize, u16) {
    let usual = USUAL_PORTS.iter().position(|usual| *usual == port);
    (usual.unwrap_or(USUAL_PORTS.len()), port)
}

/// By HTTP first, then by HTTPS.
fn places(addresses: &[SocketAddr], is_own: bool) -> Vec<Place> {
    let by = |scheme: &'static str| {
        addresses.iter().filter_map(move |at| {
            let url = Url::parse(&format!("{scheme}://{at}/")).ok()?;
            Some(Place { url, is_own })
        })
    };
    by("http").chain(by("https")).collect()
}

/// The port of the database in the container, as `database::locate` finds it: a core may well
/// listen at the number at which a database *elsewhere* does.
fn own_database(container: &Value, otherwise: u16) -> Option<u16> {
    let environment = container.pointer("/Config/Env").and_then(Value::as_array);
    let value = |key: &str| {
        // The last of several, as the engine resolves them.
        let texts = environment.into_iter().flatten().rev().filter_map(Value::as_str);
        let mut pairs = texts.filter_map(|entry| entry.split_once('='));
        pairs.find(|(found, _)| *found == key).map(|(_, value)| value.trim())
    };
    let host = value("POSTGRES_HOST").unwrap_or_default();
    let is_inside = matches!(host, "" | "localhost" | "127.0.0.1" | "::1");
    let port = value("POSTGRES_PORT").and_then(|text| text.parse().ok());
    is_inside.then(|| port.unwrap_or(otherwise))
}

/// The keys of an object like `{"80/tcp": …}` that are TCP, with their values.
fn tcp_ports(ports: Option<&Value>) -> impl Iterator<Item = (u16, &Value)> {
    ports.and_then(Value::as_object).into_iter().flatten().filter_map(|(key, value)| {
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (protocol == "tcp").then_some((port, value))
    })
}

/// The host's address of a binding.
fn bound(binding: &Value) -> Option<SocketAddr> {
    let port = binding.get("HostPort")?.as_str()?.parse().ok().filter(|port| *port > 0)?;
    let ip = match binding.get("HostIp").and_then(Value::as_str).unwrap_or_default() {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        text => text.parse().ok()?,
    };
    Some(SocketAddr::new(reachable(ip), port))
}

/// What listens on every address is asked on loopback.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        specific => specific,
    }
}

/// The addresses that the engine gave a container on its networks, IPv4 before IPv6.
fn own_addresses(container: &Value) -> Vec<IpAddr> {
    let networks = container.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let endpoints: Vec<&Value> = networks.into_iter().flatten().map(|(_, value)| value).collect();
    let mut addresses: Vec<IpAddr> = ["IPAddress", "GlobalIPv6Address"]
        .iter()
        .flat_map(|field| endpoints.iter().filter_map(move |one| one.get(field)?.as_str()))
        .filter_map(|text| text.parse().ok())
        .filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast())
        .collect();
    let mut known = Vec::new();
    addresses.retain(|ip| {
        !known.contains(ip) && {
            known.push(*ip);
            true
        }
    });
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn groups(container: &Value) -> Vec<Vec<String>> {
        let groups = of(container, container, 5432, None).expect("somewhere to ask");
        groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn published_ports_are_asked_by_http_before_https_and_the_likeliest_inside_first() {
        let container = json!({"NetworkSettings": {"Ports": {
            "443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9443"}, {"HostIp": "::", "HostPort": "9443"}],
            "80/tcp": [{"HostIp": "", "HostPort": "18080"}],
            "81/tcp": null,
            "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
            "8000/tcp": [{"HostIp": "10.1.2.3", "HostPort": "80"}],
        }}});
        assert_eq!(
            groups(&container),
            [[
                "http://127.0.0.1:18080/",
                "http://127.0.0.1:9443/",
                "http://[::1]:9443/",
                "http://10.1.2.3/",
                "https://127.0.0.1:18080/",
                "https://127.0.0.1:9443/",
                "https://[::1]:9443/",
                "https://10.1.2.3:80/",
            ]]
        );
    }

    #[test]
    fn the_database_is_never_asked_wherever_it_is_published() {
        let published = |port: &str| json!([{"HostIp": "127.0.0.1", "HostPort": port}]);
        let container = json!({
            "Config": {
                "Env": ["POSTGRES_PORT=5432", "POSTGRES_PORT=6543"],
                "ExposedPorts": {"5432/tcp": {}, "6543/tcp": {}, "6379/tcp": {}, "22/tcp": {}},
            },
            "NetworkSettings": {
                "Ports": {"5432/tcp": published("80"), "6543/tcp": published("8080")},
                "Networks": {"bridge": {"IPAddress": "172.17.0.9"}},
            },
        });
        let asked = groups(&container).concat();
        // Nothing usable is exposed, so the usual ports of its own address are left.
        let ports = ["", ":8080", ":443"].map(|port| format!("http://172.17.0.9{port}/"));
        assert_eq!(asked[..3], ports);
        assert!(!asked.iter().any(|url| url.contains("127.0.0.1")), "{asked:?}");
        for port in ["5432", "6543", "6379", ":22"] {
            assert!(!asked.iter().any(|url| url.contains(port)), "{asked:?}");
        }
    }

    #[test]
    fn the_port_of_a_database_elsewhere_may_be_the_cores() {
        let container = |host: &str| {
            json!({
                "Config": {"Env": [format!("POSTGRES_HOST={host}"), "POSTGRES_PORT=8080"]},
                "NetworkSettings": {"Ports": {"8080/tcp": [{"HostPort": "8080"}]}},
            })
        };
        let elsewhere = container("pool.example");
        assert_eq!(groups(&elsewhere)[0][0], "http://127.0.0.1:8080/");
        let inside = container("localhost");
        assert!(of(&inside, &inside, 5432, None).is_err());
        let by_setting = json!({"NetworkSettings": {"Ports": {"6000/tcp": [{"HostPort": "1"}]}}});
        assert!(of(&by_setting, &by_setting, 6000, None).is_err());
        assert!(of(&by_setting, &by_setting, 5432, None).is_ok());
    }

    #[test]
    fn after_the_published_ports_come_the_containers_own_addresses_at_its_exposed_ports() {
        let container = json!({
            "Config": {"ExposedPorts": {"9000/tcp": {}, "8080/tcp": {}, "80/udp": {}}},
            "NetworkSettings": {
                "Ports": {"9000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9000"}], "8080/tcp": null},
                "Networks": {
                    "proxy": {"IPAddress": "10.5.0.2", "GlobalIPv6Address": "fd00::2"},
                    "same": {"IPAddress": "10.5.0.2", "GlobalIPv6Address": ""},
                },
            },
        });
        let found = groups(&container);
        assert_eq!(found[0], ["http://127.0.0.1:9000/", "https://127.0.0.1:9000/"]);
        assert_eq!(
            found[1][..4],
            [
                "http://10.5.0.2:8080/",
                "http://[fd00::2]:8080/",
                "http://10.5.0.2:9000/",
                "http://[fd00::2]:9000/",
            ]
        );
        let own = of(&container, &container, 5432, None).expect("both")[1]
            .iter()
            .all(|place| place.is_own);
        assert!(own, "only these are taken from the inspection");
    }

    #[test]
    fn a_container_in_the_hosts_network_is_asked_at_its_exposed_ports() {
        let container = json!({
            "HostConfig": {"NetworkMode": "host"},
            "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "5432/tcp": {}}},
            "NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}},
        });
        assert_eq!(groups(&container), [["http://127.0.0.1/", "https://127.0.0.1:80/"]]);
    }

    #[test]
    fn a_container_in_anothers_network_is_asked_at_that_ones_ports_and_addresses() {
        let container = json!({
            "HostConfig": {"NetworkMode": "container:abc"},
            "Config": {"ExposedPorts": {"80/tcp": {}}},
        });
        assert_eq!(shares_network_of(&container), Some("abc"));
        let other = json!({
            "Config": {"ExposedPorts": {"51820/udp": {}}},
            "NetworkSettings": {
                "Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}]},
                "Networks": {"bridge": {"IPAddress": "172.17.0.4"}},
            },
        });
        let found = of(&container, &other, 5432, None).expect("somewhere");
        assert_eq!(found[0][0].to_string(), "http://127.0.0.1:8081/");
        assert_eq!(found[1][0].to_string(), "http://172.17.0.4/");
        assert!(
            of(&container, &container, 5432, None)
                .expect_err("a chain")
                .contains("shares another's")
        );
    }

    #[test]
    fn a_container_without_anywhere_to_ask_says_why() {
        for nothing in
            [json!({}), json!({"NetworkSettings": {"Networks": {"none": {"IPAddress": ""}}}})]
        {
            let why = of(&nothing, &nothing, 5432, None).expect_err("nowhere");
            assert!(why.contains("no address of its own"), "{why}");
        }
        let host = json!({"HostConfig": {"NetworkMode": "host"}});
        assert!(of(&host, &host, 5432, None).expect_err("nowhere").contains("exposes no TCP port"));
        // Whatever it exposes: what another listens on is not asked.
        let exposing = json!({
            "HostConfig": {"NetworkMode": "host"}, "Config": {"ExposedPorts": {"80/tcp": {}}},
        });
        let ports = |listening: Option<&[u16]>| -> Vec<Option<u16>> {
            let groups = of(&exposing, &exposing, 5432, listening).unwrap_or_default();
            groups.concat().iter().map(|place| place.url.port_or_known_default()).collect()
        };
        assert_eq!(ports(None), [Some(80), Some(80)]);
        assert_eq!(ports(Some(&[5432, 18099])), [Some(18099), Some(18099)]);
        assert_eq!(ports(Some(&[])), []);
    }

    #[test]
    fn what_is_no_port_or_no_address_is_passed_over() {
        let container = json!({"NetworkSettings": {
            "Ports": {
                "80/tcp": [{"HostPort": "0"}, {"HostPort": "70000"}, {"HostPort": 8080}, "x", null],
                "http": [{"HostIp": "0.0.0.0", "HostPort": "1"}],
                "81/tcp": [{"HostIp": "evil.example", "HostPort": "81"}],
            },
            "Networks": {
                "a": {"IPAddress": "evil.example", "GlobalIPv6Address": 7},
                "b": {"IPAddress": "127.0.0.1"}, "c": {"IPAddress": "0.0.0.0"}, "d": null,
            },
        }});
        assert!(of(&container, &container, 5432, None).is_err());
    }
}
