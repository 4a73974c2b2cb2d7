//! On which ports a container that is in the host's network listens itself.
//!
//! There its core's address is the host's, and what answers at it may be another shop's. The
//! kernel says whose a listening socket is (proc(5): `/proc/PID/net/tcp`, `/proc/PID/fd`).

use std::collections::HashSet;
use std::fs;

use serde_json::Value;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// The TCP ports on which a container's processes listen; none where this host can't tell, as for
/// an engine of another host.
pub(super) fn ports(container: &Value) -> Option<Vec<u16>> {
    let id = container["Id"].as_str().filter(|id| !id.is_empty())?;
    let first = container["State"]["Pid"].as_u64().filter(|pid| *pid > 0)?;
    let is_ours = |pid: u64| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|group| group.contains(id))
    };
    if !is_ours(first) {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    let mut sockets = HashSet::new();
    for pid in pids.filter(|pid| is_ours(*pid)) {
        // One that ends meanwhile holds none.
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let open = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        sockets.extend(open.filter_map(|to| {
            Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        }));
    }
    let tables =
        ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{first}/net/{name}")));
    if tables.iter().all(Result::is_err) {
        return None;
    }
    let mut ports: Vec<u16> =
        tables.iter().flatten().flat_map(|table| of_table(table, &sockets)).collect();
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

/// The ports of a table on which one of these sockets listens.
fn of_table(table: &str, sockets: &HashSet<String>) -> Vec<u16> {
    let port = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_ours = *columns.get(3)? == LISTENS && sockets.contains(*columns.get(9)?);
        let (_, port) = columns.get(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok().filter(|_| is_ours)
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_of_the_container_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1 0 100 0 0 10 0\n   \
             1: 0100007F:46B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1002 1 0 100 0 0 10 0\n   \
             2: 0100007F:46B3 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 1003 1 0 100 0 0 10 0\n";
        let sockets = |inodes: &[&str]| inodes.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(of_table(table, &sockets(&["1002", "1003"])), [18099]);
        assert_eq!(of_table(table, &sockets(&["1001"])), [80]);
        assert_eq!(of_table(table, &sockets(&[])), Vec::<u16>::new());
    }
}
