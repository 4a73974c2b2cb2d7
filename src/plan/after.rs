//! What will be another way once the container was replaced: ports that the engine chose, containers
//! that live in its network or by its volumes, proxies that remember its address; and what the
//! manifest adds that can't be had here.
//!
//! Called by `make`. [`look`] asks the engine for the other containers and tries ports; the judging
//! is pure. An ordinary container, published at fixed ports and alone, gives nothing to say.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use serde_json::Value;

use super::preflight::Preflight;
use crate::config::Settings;
use crate::engine::Engine;
use crate::journal::{HopTarget, Task};
use crate::machine::failure::{Failure, FailureCode};
use crate::spec;

/// Containers that are looked at.
const LOOKED_AT: usize = 200;

/// Names of images that look an address up when they start and keep it.
const PROXIES: [&str; 8] =
    ["nginx", "haproxy", "caddy", "httpd", "openresty", "envoy", "swag", "traefik"];

/// What a person should know, before and afterwards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Before it is run.
    pub notes: Vec<String>,
    /// Once it has ended well.
    pub afterwards: Vec<Task>,
}

/// The container.
pub(super) struct Shop<'a> {
    pub settings: &'a Settings,
    pub engine: &'a dyn Engine,
    pub id: &'a str,
    pub name: &'a str,
    pub inspection: &'a Value,
}

/// Looks, and adds the check `ports`, and `sidecars` where there are some.
pub(super) async fn look(
    shop: &Shop<'_>,
    hops: &[HopTarget],
    preflight: &mut Preflight,
) -> Changes {
    let mut changes = Changes::default();
    let others = match others(shop).await {
        Ok(others) => others,
        Err(reason) => {
            changes
                .notes
                .push(format!("which containers depend on {} is not known: {reason}", shop.name));
            Vec::new()
        }
    };
    ports(shop, hops, &others, preflight, &mut changes);
    let docker = &shop.settings.docker_bin;
    let sidecars: Vec<Sidecar> = others
        .iter()
        .filter_map(|other| sidecar(other, shop.id, shop.name, shop.inspection, docker))
        .collect();
    if !sidecars.is_empty() {
        let said: Vec<&str> = sidecars.iter().map(|one| one.what.as_str()).collect();
        preflight.passed("sidecars", said.join("; "));
        changes.afterwards.extend(sidecars.into_iter().map(|one| one.then));
    }
    changes
}

/// The inspections of all other containers.
async fn others(shop: &Shop<'_>) -> Result<Vec<Value>, String> {
    let listed = shop.engine.containers(None).await.map_err(|error| error.to_string())?;
    let ids = listed.into_iter().filter(|one| one.id != shop.id).take(LOOKED_AT);
    let mut found = Vec::new();
    for one in ids {
        let inspected = shop.engine.inspect_container(&one.id).await;
        found.extend(inspected.map_err(|error| error.to_string())?);
    }
    Ok(found)
}

fn ports(
    shop: &Shop<'_>,
    hops: &[HopTarget],
    others: &[Value],
    preflight: &mut Preflight,
    changes: &mut Changes,
) {
    let docker = &shop.settings.docker_bin;
    let chosen = chosen_ports(shop.inspection);
    let asked = shop.settings.core_base_url.as_ref().and_then(|url| url.port());
    if let Some((key, at)) = chosen.iter().find(|(_, at)| asked.is_some_and(|it| ends_at(at, it))) {
        let message = format!(
            "CORE_BASE_URL names {at}, the port that the engine chose for {key}: the new container gets another one, and could not be seen there. Publish a fixed port, or take CORE_BASE_URL away"
        );
        return preflight.refused("ports", Failure::new(FailureCode::CoreNotVisible, message));
    }
    for (port, key) in hops
        .iter()
        .filter_map(|hop| hop.overlay.as_ref())
        .flat_map(|overlay| spec::added_ports(shop.inspection, overlay))
    {
        if let Some(who) = user_of(port, &key, others) {
            let message = format!(
                "the manifest adds port {key} at host port {port}, which is taken by {who}: the new container could not start"
            );
            return preflight.refused("ports", Failure::new(FailureCode::PortConflict, message));
        }
    }
    if chosen.is_empty() {
        return preflight.passed("ports", "every published port stays as it is");
    }
    let said: Vec<String> = chosen.iter().map(|(key, at)| format!("{key} at {at}")).collect();
    preflight.passed(
        "ports",
        format!(
            "the engine chose {}: the new container gets another port, and who has the present one (a proxy) does not find it. Publish a fixed port, or tell them afterwards",
            said.join(", ")
        ),
    );
    for (key, at) in chosen {
        changes.afterwards.push(Task {
            what: format!(
                "{key} of {} was at {at}, which the engine chose: tell whoever has that port (a proxy) where it is now",
                shop.name
            ),
            command: Some(format!("{docker} port {} {key}", shop.name)),
        });
    }
}

fn ends_at(address: &str, port: u16) -> bool {
    address.rsplit(':').next().is_some_and(|end| end == port.to_string())
}

/// Ports that are published at one that the engine chose, with where they are now.
fn chosen_ports(container: &Value) -> Vec<(String, String)> {
    let published = container["NetworkSettings"]["Ports"].as_object();
    let all = container["HostConfig"]["PublishAllPorts"] == true;
    let mut found = Vec::new();
    for (key, places) in published.into_iter().flatten() {
        let bindings = container["HostConfig"]["PortBindings"][key].as_array();
        let is_chosen = match bindings.filter(|bindings| !bindings.is_empty()) {
            Some(bindings) => bindings.iter().any(|binding| {
                let port = binding["HostPort"].as_str().unwrap_or_default();
                port.is_empty() || port == "0" || port.contains('-')
            }),
            None => all,
        };
        let place = places.as_array().into_iter().flatten().next();
        if let Some(place) = place.filter(|_| is_chosen) {
            let text = |key: &str| place[key].as_str().unwrap_or_default();
            found.push((key.clone(), format!("{}:{}", text("HostIp"), text("HostPort"))));
        }
    }
    found
}

/// Who has a port of this host: another container, or some program.
fn user_of(port: u16, key: &str, others: &[Value]) -> Option<String> {
    let is_udp = key.ends_with("/udp");
    let wanted = port.to_string();
    let holds = |other: &&Value| {
        let published = other["NetworkSettings"]["Ports"].as_object();
        published.into_iter().flatten().any(|(their, places)| {
            their.ends_with("/udp") == is_udp
                && places
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|it| it["HostPort"] == wanted.as_str())
        })
    };
    if let Some(other) = others.iter().find(holds) {
        return Some(format!("container {}", name_of(other)));
    }
    let place = (Ipv4Addr::UNSPECIFIED, port);
    let tried = if is_udp { UdpSocket::bind(place).err() } else { TcpListener::bind(place).err() };
    let is_taken = tried.is_some_and(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => true,
        // A low port that this process may not have; the kernel's table tells.
        std::io::ErrorKind::PermissionDenied => ["/proc/net/tcp", "/proc/net/tcp6"]
            .into_iter()
            .filter_map(|table| std::fs::read_to_string(table).ok())
            .any(|table| listens(&table, port)),
        _ => false,
    });
    is_taken.then(|| "a program of this host".to_owned())
}

/// Whether somebody listens on this port (proc(5), `/proc/net/tcp`).
fn listens(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let end = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|own| own.ends_with(&end)) && fields.get(3) == Some(&LISTEN)
    })
}

/// A container that lives by another one.
#[derive(Debug, PartialEq, Eq)]
struct Sidecar {
    /// What will become of it.
    what: String,
    /// What to do about it afterwards.
    then: Task,
}

/// Whether a container lives by the shop's, and what that means for it.
fn sidecar(other: &Value, id: &str, name: &str, shop: &Value, docker: &str) -> Option<Sidecar> {
    let is_ours = |named: &str| named == name || (named.len() >= 12 && id.starts_with(named));
    let host = &other["HostConfig"];
    let own = name_of(other);
    let shares = |key: &str| {
        host[key].as_str().and_then(|mode| mode.strip_prefix("container:")).is_some_and(is_ours)
    };
    let spaces = [("NetworkMode", "network"), ("PidMode", "processes"), ("IpcMode", "memory")];
    if let Some((_, what)) = spaces.into_iter().find(|(key, _)| shares(key)) {
        return Some(Sidecar {
            what: format!(
                "{own} lives in {name}'s {what} (container:…): it is cut off when {name} is stopped, and has to be made again afterwards, since it names the old container by its id"
            ),
            then: Task {
                what: format!(
                    "{own} shared the old container's {what} and is cut off: make it again, with its run command where compose does not"
                ),
                command: Some(made_again(other, docker)),
            },
        });
    }
    let from = host["VolumesFrom"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let takes_volumes = from.filter_map(|from| from.split(':').next()).any(is_ours);
    let links = host["Links"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let is_linked = links
        .filter_map(|link| link.trim_start_matches('/').split(':').next())
        .any(|peer| is_ours(peer.trim_start_matches('/')));
    if other["State"]["Running"] != true {
        return None;
    }
    let why = match (takes_volumes, is_linked) {
        (true, _) => format!("mounts {name}'s volumes (--volumes-from)"),
        (_, true) => format!("is linked to {name} (--link) and has its old address"),
        (false, false) => {
            let network = shared_network(shop, other)?;
            format!(
                "is a proxy in network {network}, where {name} gets another address: it may have the old one"
            )
        }
    };
    Some(Sidecar {
        what: format!("{own} {why}; restart it afterwards"),
        then: Task {
            what: format!("{own} {why}: restart it"),
            command: Some(format!("{docker} restart {own}")),
        },
    })
}

/// How a container is made again: by compose where it is a service, else by whoever made it.
fn made_again(other: &Value, docker: &str) -> String {
    let label = |key: &str| other["Config"]["Labels"][key].as_str().filter(|it| !it.is_empty());
    let service = label("com.docker.compose.service");
    match service.zip(label("com.docker.compose.project.working_dir")) {
        Some((service, directory)) => format!(
            "{docker} compose --project-directory {directory} up --detach --no-deps --force-recreate {service}"
        ),
        None => format!("{docker} rm --force {}", name_of(other)),
    }
}

/// A network of one's own that a proxy and the shop are both in, where the shop's address is not
/// fixed.
fn shared_network(shop: &Value, other: &Value) -> Option<String> {
    let image = other["Config"]["Image"].as_str()?;
    let last = image.rsplit('/').next()?.split([':', '@']).next()?;
    if !PROXIES.iter().any(|proxy| last.contains(proxy)) {
        return None;
    }
    let networks = shop["NetworkSettings"]["Networks"].as_object()?;
    let theirs = other["NetworkSettings"]["Networks"].as_object()?;
    let is_shared = |(name, endpoint): &(&String, &Value)| {
        !["bridge", "host", "none"].contains(&name.as_str())
            && theirs.contains_key(*name)
            && endpoint["IPAMConfig"]["IPv4Address"].as_str().unwrap_or_default().is_empty()
    };
    networks.iter().find(is_shared).map(|(name, _)| name.clone())
}

fn name_of(container: &Value) -> &str {
    container["Name"].as_str().unwrap_or_default().trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0123456789abcdef";

    #[test]
    fn a_port_that_the_engine_chose_is_told_from_a_fixed_one() {
        let published = |bindings: Value, all: bool| {
            json!({
                "HostConfig": {"PortBindings": bindings, "PublishAllPorts": all},
                "NetworkSettings": {"Ports": {
                    "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}], "81/tcp": null,
                }},
            })
        };
        let fixed = published(json!({"80/tcp": [{"HostIp": "", "HostPort": "49153"}]}), false);
        assert_eq!(chosen_ports(&fixed), []);
        for port in ["", "0", "49100-49200"] {
            let chosen = published(json!({"80/tcp": [{"HostPort": port}]}), false);
            assert_eq!(chosen_ports(&chosen)[0].1, "127.0.0.1:49153", "{port:?}");
        }
        assert_eq!(chosen_ports(&published(json!({}), true)).len(), 1);
        assert_eq!(chosen_ports(&published(json!(null), false)), []);
    }

    fn told(host: Value) -> Option<Sidecar> {
        let other = json!({"Name": "/side", "HostConfig": host, "State": {"Running": true}});
        sidecar(&other, ID, "payram", &json!({}), "docker")
    }

    #[test]
    fn containers_that_live_by_the_shop_are_named_with_what_to_do() {
        for mode in [format!("container:{ID}"), "container:payram".to_owned()] {
            let found = told(json!({"NetworkMode": mode})).expect("a sidecar");
            assert!(found.then.command.as_deref() == Some("docker rm --force side"), "{found:?}");
        }
        let found = told(json!({"VolumesFrom": ["payram:ro"]})).expect("a sidecar");
        assert!(found.then.command.as_deref() == Some("docker restart side"), "{found:?}");
        assert!(told(json!({"Links": ["/payram:/side/shop"]})).is_some());
        assert_eq!(told(json!({"NetworkMode": "container:fedcba9876543210"})), None);
        assert_eq!(told(json!({"NetworkMode": "bridge", "VolumesFrom": null})), None);
    }

    #[test]
    fn a_sidecar_of_a_compose_project_is_made_again_by_compose() {
        let other = json!({
            "Name": "/side", "HostConfig": {"NetworkMode": "container:payram"},
            "Config": {"Labels": {
                "com.docker.compose.service": "vpn",
                "com.docker.compose.project.working_dir": "/srv/shop",
            }},
        });
        let found = sidecar(&other, ID, "payram", &json!({}), "docker").expect("a sidecar");
        let command = "docker compose --project-directory /srv/shop up --detach --no-deps";
        assert!(
            found.then.command.as_deref().is_some_and(|it| it.starts_with(command)),
            "{found:?}"
        );
    }

    #[test]
    fn a_proxy_in_a_network_of_ones_own_may_have_the_old_address() {
        let shop = |endpoint: Value| json!({"NetworkSettings": {"Networks": {"web": endpoint}}});
        let proxy = |image: &str, network: &str| {
            json!({
                "Name": "/proxy", "State": {"Running": true}, "Config": {"Image": image},
                "NetworkSettings": {"Networks": {network: {}}},
            })
        };
        let told = |shop: Value, other: Value| sidecar(&other, ID, "payram", &shop, "docker");
        assert!(told(shop(json!({})), proxy("nginx:1.27", "web")).is_some());
        assert_eq!(told(shop(json!({})), proxy("nginx:1.27", "other")), None);
        assert_eq!(told(shop(json!({})), proxy("redis:7", "web")), None);
        let fixed = json!({"IPAMConfig": {"IPv4Address": "10.1.2.3"}});
        assert_eq!(told(shop(fixed), proxy("nginx:1.27", "web")), None);
    }

    #[test]
    fn a_listener_is_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st\n   \
            0: 00000000:0050 00000000:0000 0A 0 0\n   1: 0100007F:01BB 0100007F:9C40 01 0 0\n";
        assert!(listens(table, 80));
        assert!(!listens(table, 443), "a connection is no listener");
        assert!(!listens(table, 8080));
    }

    #[test]
    fn a_taken_port_is_found_with_who_has_it() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(user_of(port, "80/tcp", &[]).as_deref(), Some("a program of this host"));
        let other = json!({
            "Name": "/web",
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": port.to_string()}]}},
        });
        assert_eq!(user_of(port, "80/tcp", &[other]).as_deref(), Some("container web"));
    }
}
