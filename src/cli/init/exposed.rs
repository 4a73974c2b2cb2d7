//! At which addresses of this host something listens on a port, by the kernel's own table
//! (proc(5): `/proc/net/tcp`, `/proc/net/tcp6`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// The state of a listening socket.
const LISTENS: &str = "0A";

/// The addresses on which something listens on this port; none where this system has no such
/// table.
pub(super) fn listening(port: u16) -> Option<Vec<IpAddr>> {
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/net/{name}")));
    if tables.iter().all(Result::is_err) {
        return None;
    }
    Some(tables.iter().flatten().flat_map(|table| of_table(table, port)).collect())
}

/// Those that are neither this machine's own nor one of the bridges' to its containers.
pub(super) fn open_to_others(addresses: &[IpAddr], gateways: &[IpAddr]) -> Vec<IpAddr> {
    let is_inside = |address: &IpAddr| address.is_loopback() || gateways.contains(address);
    addresses.iter().copied().filter(|address| !is_inside(address)).collect()
}

/// Whether a container hands this port of the host on to itself.
pub(super) fn publishes(container: &Value, port: u16) -> bool {
    let ports = container["NetworkSettings"]["Ports"].as_object();
    let bindings = ports.into_iter().flat_map(|ports| ports.values());
    let mut bindings = bindings.filter_map(Value::as_array).flatten();
    bindings.any(|binding| binding["HostPort"].as_str() == Some(&port.to_string()))
}

fn of_table(table: &str, port: u16) -> Vec<IpAddr> {
    let address = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (address, found) = columns.get(1)?.rsplit_once(':')?;
        let is_it = *columns.get(3)? == LISTENS && u16::from_str_radix(found, 16).ok()? == port;
        is_it.then(|| read_address(address)).flatten()
    };
    table.lines().skip(1).filter_map(address).collect()
}

/// Words of 32 bits in the machine's order of bytes, in hex.
fn read_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[cfg(target_endian = "little")]
    #[test]
    fn only_listeners_on_this_port_that_others_reach_count() {
        let table = "  sl  local_address rem_address   st\n   \
             0: 0100007F:0A07 00000000:0000 0A 0\n   \
             1: 010011AC:0A07 00000000:0000 0A 0\n   \
             2: 00000000:0050 00000000:0000 0A 0\n   \
             3: 0500A8C0:0A07 00000000:0000 0A 0\n   \
             4: 0500A8C0:0A07 0900A8C0:0A07 01 0\n";
        let found = of_table(table, 2567);
        let gateway: IpAddr = "172.17.0.1".parse().expect("an address");
        assert_eq!(
            found,
            ["127.0.0.1", "172.17.0.1", "192.168.0.5"].map(|a| a.parse::<IpAddr>().expect(a))
        );
        let open = open_to_others(&found, &[gateway]);
        assert_eq!(open, ["192.168.0.5".parse::<IpAddr>().expect("an address")]);
        let six = "  sl  local_address rem_address   st\n   \
             0: 00000000000000000000000000000000:0A07 0:0 0A 0\n   \
             1: 00000000000000000000000001000000:0A07 0:0 0A 0\n";
        let found = of_table(six, 2567);
        assert_eq!(open_to_others(&found, &[]), [IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
    }

    #[test]
    fn a_container_that_publishes_the_port_is_seen() {
        let container = json!({"NetworkSettings": {"Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "2567"}], "443/tcp": null}}});
        assert!(publishes(&container, 2567));
        assert!(!publishes(&container, 80));
    }
}
