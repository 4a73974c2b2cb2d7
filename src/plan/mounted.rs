//! Which mounts of a container hold files of the application beside its database: what a new
//! version can change there no copy of the database takes back. Pure but for links, which are
//! followed; called by the plan, which names them, and by the driver, which copies them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::app::unmounted::is_scratch;
use crate::restore_point::Companion;

/// A mount that its container can write to, beside the database.
#[derive(Clone, Debug)]
pub enum Mounted {
    /// It can be looked at from this host.
    Here(Companion),
    /// It can't: its place in the container.
    Unreachable(String),
}

/// Those of a container whose database's server works in `directory` of this host, where it has
/// one there. `apart` are further paths that are not the application's.
pub fn beside(container: &Value, directory: Option<&Path>, apart: &[PathBuf]) -> Vec<Mounted> {
    let all = container["Mounts"].as_array().into_iter().flatten();
    let places: Vec<(&Value, Option<PathBuf>)> = all.map(|it| (it, source(it))).collect();
    let mut found: Vec<Mounted> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    for (mount, source) in &places {
        let destination = mount["Destination"].as_str().unwrap_or_default();
        let is_lasting = mount["RW"] != false && mount["Type"] != "tmpfs";
        if !is_lasting || is_scratch(destination) {
            continue;
        }
        let Some(source) = source else {
            found.push(Mounted::Unreachable(destination.to_owned()));
            continue;
        };
        // The database's own mount, another name of one that is there, and what is no file.
        let is_database = directory.is_some_and(|directory| source.starts_with(directory));
        if is_database || seen.contains(source) || !(source.is_dir() || source.is_file()) {
            continue;
        }
        seen.push(source.clone());
        let others = places.iter().filter_map(|(_, other)| other.clone());
        let mut apart: Vec<PathBuf> = apart.to_vec();
        apart.extend(others.filter(|other| other != source));
        apart.extend(directory.map(Path::to_owned));
        found.push(Mounted::Here(Companion {
            source: source.clone(),
            destination: destination.to_owned(),
            apart,
            // Databases of versions that failed, and what was exported of them.
            apart_prefix: directory.map(|directory| format!("{}.failed-", directory.display())),
            is_scratch,
        }));
    }
    found
}

/// Where a mount comes from on this host, without links.
fn source(mount: &Value) -> Option<PathBuf> {
    let source = mount["Source"].as_str().map(Path::new).filter(|it| it.is_absolute())?;
    source.canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_writable_mount_is_looked_at_once_and_the_database_never() {
        let home = tempfile::tempdir().expect("a directory");
        let root = home.path().canonicalize().expect("its path");
        for path in ["W/db/postgres", "W/sub", "log", "readonly"] {
            std::fs::create_dir_all(root.join(path)).expect("a directory");
        }
        let at = |path: &str| root.join(path).display().to_string();
        let mount = |source: String, destination: &str, writable: bool| json!({"Type": "bind", "Source": source, "Destination": destination, "RW": writable});
        let container = json!({"Mounts": [
            mount(at("W"), "/root/payram", true),
            mount(at("W/db/postgres"), "/var/lib/payram/db/postgres", true),
            mount(at("W/sub"), "/sub", true),
            mount(at("W"), "/again", true),
            mount(at("log"), "/var/log/payram", true),
            mount(at("readonly"), "/readonly", false),
            mount(at("gone"), "/gone", true),
            mount("/dev/null".into(), "/null", true),
            {"Type": "volume", "Source": "", "Destination": "/far", "RW": true},
            {"Type": "tmpfs", "Source": "", "Destination": "/memory", "RW": true},
        ]});
        let directory = root.join("W/db/postgres");
        let found = beside(&container, Some(&directory), &[]);
        let said: Vec<String> = found
            .iter()
            .map(|mount| match mount {
                Mounted::Here(companion) => companion.destination.clone(),
                Mounted::Unreachable(destination) => format!("unreachable {destination}"),
            })
            .collect();
        assert_eq!(said, ["/root/payram", "/sub", "unreachable /gone", "unreachable /far"]);
        let Mounted::Here(first) = &found[0] else { panic!("{found:?}") };
        assert!(first.apart.contains(&directory) && first.apart.contains(&root.join("W/sub")));
    }
}
