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
    }
}
