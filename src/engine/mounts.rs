//! Where a path inside a container lies on this host: pure, over the container's inspection.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where a path inside a container lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// At this path of the host.
    Host(PathBuf),
    /// On a volume that this host reaches only while a container runs with it.
    WhileMounted,
    /// On no mount, or on one that is memory: it goes with the container.
    InContainer,
}

/// Where an absolute path inside the container lies, by the innermost mount that holds it.
pub fn home(container: &Value, inside: &Path) -> Home {
    let mount = innermost(container, inside);
    let depth = |path: &Path| path.components().count();
    let mounted = mount.and_then(|mount| mount["Destination"].as_str()).map(Path::new);
    // `--tmpfs` is not among the mounts.
    let memory = container["HostConfig"]["Tmpfs"].as_object().into_iter().flatten();
    let is_memory = memory.map(|(path, _)| Path::new(path)).any(|path| {
        inside.starts_with(path) && mounted.is_none_or(|mounted| depth(path) > depth(mounted))
    });
    let (Some(mount), Some(destination), false) = (mount, mounted, is_memory) else {
        return Home::InContainer;
    };
    let source = mount["Source"].as_str().unwrap_or_default();
    if !source.starts_with('/') {
        return match mount["Type"] == "volume" {
            true => Home::WhileMounted,
            false => Home::InContainer,
        };
    }
    let rest = inside.strip_prefix(destination).unwrap_or(Path::new(""));
    Home::Host(match rest.as_os_str().is_empty() {
        true => source.into(),
        false => Path::new(source).join(rest),
    })
}

/// The host's path of an absolute path inside the container; `None` where it has none.
pub fn host_path(container: &Value, inside: &Path) -> Option<PathBuf> {
    match home(container, inside) {
        Home::Host(path) => Some(path),
        Home::WhileMounted | Home::InContainer => None,
    }
}

/// The host's paths of all that a container has mounted, files and read-only mounts too.
pub fn sources(container: &Value) -> Vec<PathBuf> {
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let sources = mounts.filter_map(|mount| mount["Source"].as_str());
    sources.filter(|source| source.starts_with('/')).map(PathBuf::from).collect()
}

/// What a second container has mounted over a directory that the first one has on a mount, or
/// below it, and the first one has not; none when both have the same there.
pub fn covering(first: &Value, second: &Value, inside: &Path) -> Option<String> {
    let (then, now) = (innermost(first, inside), innermost(second, inside));
    if then.map(origin) != now.map(origin) {
        let said = |mount: Option<&Value>| mount.map_or("no mount".to_owned(), described);
        return Some(format!("it lies on {} there, and on {} here", said(now), said(then)));
    }
    let below = |container: &Value| -> Vec<(String, String)> {
        let mounts = container["Mounts"].as_array().into_iter().flatten();
        let strictly = mounts.filter(|mount| {
            let destination = Path::new(mount["Destination"].as_str().unwrap_or_default());
            destination != inside && destination.starts_with(inside)
        });
        strictly.map(|mount| (origin(mount), described(mount))).collect()
    };
    let known = below(first);
    let new = below(second).into_iter().find(|one| !known.iter().any(|other| other.0 == one.0));
    new.map(|(_, said)| format!("{said} would be mounted inside of it"))
}

fn innermost<'m>(container: &'m Value, inside: &Path) -> Option<&'m Value> {
    let mounts = container["Mounts"].as_array()?.iter();
    mounts
        .filter_map(|mount| Some((Path::new(mount["Destination"].as_str()?), mount)))
        .filter(|(destination, _)| inside.starts_with(destination))
        .max_by_key(|(destination, _)| destination.components().count())
        .map(|(_, mount)| mount)
}

/// Where a mount comes from and where it lies: two that are equal here are one.
fn origin(mount: &Value) -> String {
    let text = |key: &str| mount[key].as_str().unwrap_or_default();
    format!("{} {} {} {}", text("Type"), text("Name"), text("Source"), text("Destination"))
}

fn described(mount: &Value) -> String {
    let text = |key: &str| mount[key].as_str().unwrap_or_default();
    match text("Type") {
        "volume" => format!("volume {} at {}", text("Name"), text("Destination")),
        kind => format!("{kind} {} at {}", text("Source"), text("Destination")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn the_innermost_mount_decides() {
        let container = json!({"Mounts": [
            {"Type": "bind", "Source": "/srv/payram", "Destination": "/var/lib/payram"},
            {"Type": "volume", "Source": "/var/lib/docker/volumes/db/_data",
             "Destination": "/var/lib/payram/db"},
            {"Type": "tmpfs", "Source": "", "Destination": "/var/lib/payram/db/tmp"},
        ]});
        let host = |inside: &str| host_path(&container, Path::new(inside));
        assert_eq!(host("/var/lib/payram/x"), Some("/srv/payram/x".into()));
        assert_eq!(host("/var/lib/payram"), Some("/srv/payram".into()));
        assert_eq!(
            host("/var/lib/payram/db/postgres"),
            Some("/var/lib/docker/volumes/db/_data/postgres".into())
        );
        assert_eq!(host("/var/lib/payram/db/tmp/a"), None);
        assert_eq!(host("/var/lib/payramdb"), None);
        assert_eq!(host("/etc"), None);
        let memory = json!({
            "HostConfig": {"Tmpfs": {"/var/lib/payram/db": "size=1g"}},
            "Mounts": [
                {"Type": "bind", "Source": "/srv/payram", "Destination": "/var/lib/payram"},
                {"Type": "volume", "Name": "nfs", "Source": "", "Destination": "/far"},
            ],
        });
        let home = |inside: &str| home(&memory, Path::new(inside));
        assert_eq!(home("/var/lib/payram/db/postgres"), Home::InContainer);
        assert_eq!(home("/var/lib/payram/log"), Home::Host("/srv/payram/log".into()));
        assert_eq!(home("/far/db"), Home::WhileMounted);
        let sources = sources(&container);
        assert_eq!(
            sources,
            [Path::new("/srv/payram"), Path::new("/var/lib/docker/volumes/db/_data")]
        );
    }

    #[test]
    fn a_volume_of_the_new_image_over_the_database_is_seen_and_one_above_the_mount_is_harmless() {
        let bind = json!({"Type": "bind", "Source": "/srv", "Destination": "/var/lib/payram"});
        let volume =
            |at: &str| json!({"Type": "volume", "Name": "v", "Source": "/v", "Destination": at});
        let old = json!({"Mounts": [bind]});
        let covered = |mounts: Value| {
            covering(&old, &json!({"Mounts": mounts}), Path::new("/var/lib/payram/db/postgres"))
        };
        assert_eq!(covered(json!([bind])), None);
        assert_eq!(covered(json!([bind, volume("/var/lib")])), None);
        assert_eq!(covered(json!([bind, volume("/var/lib/payram/log")])), None);
        for at in ["/var/lib/payram/db", "/var/lib/payram/db/postgres"] {
            let found = covered(json!([bind, volume(at)])).expect("covered");
            assert!(found.contains(at), "{found}");
        }
        let inside = covered(json!([bind, volume("/var/lib/payram/db/postgres/pg_wal")]));
        assert!(inside.expect("inside").contains("inside of it"));
        assert!(covered(json!([])).expect("nothing").contains("no mount"));
    }
}
