//! The PostgreSQL servers of this host, found by the directory that they work in.
//!
//! A server's first process works in its data directory as long as it lives, so the kernel says
//! which directory that is, by device and inode, whatever is mounted where and however it is
//! called inside of a container (`proc(5)`, `/proc/PID/cwd`). Called by the plan and by the driver,
//! before the stop and again and again while a new version is watched. Reads only; decides
//! nothing. Elsewhere than on Linux, and for an engine of another host, nothing is seen.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What a server's process is called.
const NAMES: [&str; 2] = ["postgres", "postmaster"];

/// A file of the kernel's by which two paths are one and the same directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    /// Where a path leads now, symbolic links followed.
    ///
    /// # Errors
    /// What the system said.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        fs::metadata(path).map(|meta| Self { device: meta.dev(), inode: meta.ino() })
    }
}

/// Whether a path leads to this very place now.
pub(super) fn reaches(path: &Path, place: Place) -> bool {
    Place::of(path).is_ok_and(|found| found == place)
}

/// A process of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostServer {
    /// Its number on this host.
    pub pid: u32,
    /// Its namespace of process numbers, which all processes of a container share.
    namespace: Option<PathBuf>,
    /// The kernel's words on where it belongs, one line each.
    group: String,
    /// The directory that it works in.
    pub place: Place,
}

impl HostServer {
    /// Whether it runs in this container, a raw inspection.
    pub fn is_of(&self, container: &Value) -> bool {
        let id = container["Id"].as_str().unwrap_or_default();
        if !id.is_empty() && self.group.contains(id) {
            return true;
        }
        // Where the groups are hidden: by the first process, unless it shares the host's numbers.
        let shares = container["HostConfig"]["PidMode"].as_str() == Some("host");
        let first = first_process(container).filter(|_| !shares);
        let own = first.and_then(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok());
        own.is_some() && own == self.namespace
    }

    /// Whether the kernel says enough of both to be certain that it is not of this running
    /// container, when it seems not to be: another container's id, or another namespace of process
    /// numbers than that of the container's first process.
    pub fn is_told_apart_from(&self, container: &Value) -> bool {
        if self.container_id().is_some() {
            return true;
        }
        let own = first_process(container)
            .and_then(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok());
        own.is_some() && self.namespace.is_some() && own != self.namespace
    }

    /// The id of the container that it runs in, as far as the kernel's words tell: the innermost
    /// one, where this host is a container itself.
    pub fn container_id(&self) -> Option<&str> {
        self.group.split(|c: char| !c.is_ascii_hexdigit()).rfind(|word| word.len() == 64)
    }
}

/// All processes of servers on this host.
pub fn all() -> Vec<HostServer> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(server_of)
        .collect()
}

/// Those that work in this directory.
pub fn in_place(place: Place) -> Vec<HostServer> {
    all().into_iter().filter(|server| server.place == place).collect()
}

fn server_of(pid: u32) -> Option<HostServer> {
    let home = Path::new("/proc").join(pid.to_string());
    let name = fs::read_to_string(home.join("comm")).ok()?;
    if !NAMES.contains(&name.trim()) {
        return None;
    }
    Some(HostServer {
        pid,
        namespace: fs::read_link(home.join("ns/pid")).ok(),
        group: fs::read_to_string(home.join("cgroup")).unwrap_or_default(),
        place: Place::of(&home.join("cwd")).ok()?,
    })
}

/// A running container's first process on this host, where it is one of this host's.
fn first_process(container: &Value) -> Option<u32> {
    let pid = container["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
    let id = container["Id"].as_str()?;
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // An engine of another host counts its own processes.
    (pid > 0 && group.contains(id)).then_some(pid)
}

/// Where a path inside a running container leads now, as the container sees it; none where this
/// host can't look.
pub fn place_inside(container: &Value, inside: &Path) -> Option<Place> {
    let pid = first_process(container)?;
    let inside = inside.strip_prefix("/").ok()?;
    Place::of(&Path::new("/proc").join(pid.to_string()).join("root").join(inside)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_directory_is_the_same_by_whatever_path_it_is_reached() {
        let home = tempfile::tempdir().expect("a directory");
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        fs::create_dir(&one).expect("a directory");
        fs::create_dir(&two).expect("a directory");
        std::os::unix::fs::symlink(&one, home.path().join("link")).expect("a link");
        let place = |path: &Path| Place::of(path).expect("it is there");
        assert_eq!(place(&one), place(&home.path().join("link")));
        assert_ne!(place(&one), place(&two));
        let before = place(&one);
        fs::rename(&one, home.path().join("moved")).expect("renamed");
        fs::create_dir(&one).expect("another in its place");
        assert_ne!(place(&one), before);
        assert_eq!(place(&home.path().join("moved")), before);
    }

    #[test]
    fn a_process_belongs_to_the_container_that_its_group_names() {
        let id = "3f".repeat(32);
        let server = |group: String| HostServer {
            pid: 1,
            namespace: None,
            group,
            place: Place { device: 1, inode: 2 },
        };
        let ours = server(format!("0::/system.slice/docker-{id}.scope\n"));
        assert_eq!(ours.container_id(), Some(id.as_str()));
        assert!(ours.is_of(&json!({"Id": id})));
        assert!(!ours.is_of(&json!({"Id": "4e".repeat(32)})));
        let outer = "5d".repeat(32);
        let nested = server(format!("0::/docker/{outer}/docker/{id}\n"));
        assert_eq!(nested.container_id(), Some(id.as_str()));
        let host = server("0::/system.slice/postgresql@15-main.service\n".into());
        assert_eq!(host.container_id(), None);
        assert!(!host.is_of(&json!({"Id": id, "State": {"Pid": 0}})));
        assert!(!host.is_of(&json!({})));
    }
}
