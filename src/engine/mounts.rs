//! Where a path inside a container lies on this host: pure, over the container's inspection.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The host's path of an absolute path inside the container: that of the innermost mount which
/// holds it. `None` when it lies on no mount, or on one without a path on the host (tmpfs).
pub fn host_path(container: &Value, inside: &Path) -> Option<PathBuf> {
    let mounts = container["Mounts"].as_array()?;
    let innermost = mounts
        .iter()
        .filter_map(|mount| Some((Path::new(mount["Destination"].as_str()?), mount)))
        .filter(|(destination, _)| inside.starts_with(destination))
        .max_by_key(|(destination, _)| destination.components().count())?;
    let (destination, mount) = innermost;
    let source = mount["Source"].as_str().filter(|source| source.starts_with('/'))?;
    let rest = inside.strip_prefix(destination).ok()?;
    Some(if rest.as_os_str().is_empty() { source.into() } else { Path::new(source).join(rest) })
}

/// The host's paths of all that a container has mounted, files and read-only mounts too.
pub fn sources(container: &Value) -> Vec<PathBuf> {
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let sources = mounts.filter_map(|mount| mount["Source"].as_str());
    sources.filter(|source| source.starts_with('/')).map(PathBuf::from).collect()
}

/// The host's path that a volume of the local driver is another name for, by its inspection:
/// `--opt type=none --opt o=bind --opt device=PATH`.
pub fn device(volume: &Value) -> Option<PathBuf> {
    let options = &volume["Options"];
    let is_bind = ["o", "type"].iter().any(|key| {
        let value = options[*key].as_str().unwrap_or_default();
        value.split(',').any(|word| matches!(word, "bind" | "rbind"))
    });
    let device = options["device"].as_str().filter(|device| device.starts_with('/'));
    let is_local = volume["Driver"].as_str().is_none_or(|driver| driver == "local");
    device.filter(|_| is_bind && is_local).map(PathBuf::from)
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

    #[test]
    fn a_volume_that_is_a_name_for_a_directory_leads_there() {
        let volume = |options: Value| device(&json!({"Driver": "local", "Options": options}));
        let bound = json!({"type": "none", "o": "rw,bind", "device": "/srv/payram"});
        assert_eq!(volume(bound), Some("/srv/payram".into()));
        let disk = json!({"type": "ext4", "device": "/dev/sdb1"});
        assert_eq!(volume(disk), None);
        assert_eq!(volume(Value::Null), None);
    }
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
