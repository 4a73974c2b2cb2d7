//! The rows that a failed version wrote, exported from its directory after the restore point has
//! taken its place and the old version serves again.
//!
//! Its server runs once more, alone and read-only, on what was moved aside and on nothing that
//! the old version uses: no other mount of it covers the database in use (I2).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::engine::mounts;

/// It shares the host with the old version, which serves: it takes little, and keeps no log.
pub(in crate::driver) const MODEST: [&str; 3] =
    ["shared_buffers=32MB", "huge_pages=off", "logging_collector=off"];

/// What the server of the failed directory mounts: that directory wherever the container sees the
/// one in use, one of which its server expects, and of the old container's other mounts those that
/// hold nothing of the database in use, to be read only. None when the directory lies on no mount.
pub(in crate::driver) fn mounts_for(old: &Value, source: &Path, failed: &Path) -> Option<Value> {
    let inside = places_inside(old, source);
    if inside.is_empty() {
        return None;
    }
    let places = places_of(old);
    let bind = |from: &Path, to: &Path, is_read_only: bool| json!({"Type": "bind", "Source": from, "Target": to, "ReadOnly": is_read_only});
    let mut binds: Vec<Value> = inside.iter().map(|inside| bind(failed, inside, false)).collect();
    let mut empty = serde_json::Map::new();
    for (from, to) in places {
        let holds_database = source.starts_with(from) || from.starts_with(source);
        let is_in_place = inside.iter().any(|inside| to.starts_with(inside));
        let is_above = inside.iter().any(|inside| inside != to && inside.starts_with(to));
        if !holds_database && !is_in_place && from.is_absolute() {
            binds.push(bind(from, to, true));
        } else if is_above {
            // Nor does the image's own volume come in its place.
            empty.insert(to.to_string_lossy().into_owned(), json!(""));
        }
    }
    Some(json!({"Mounts": binds, "Tmpfs": empty}))
}

/// What is mounted from where.
fn places_of(old: &Value) -> impl Iterator<Item = (&Path, &Path)> {
    old["Mounts"].as_array().into_iter().flatten().filter_map(|mount| {
        Some((Path::new(mount["Source"].as_str()?), Path::new(mount["Destination"].as_str()?)))
    })
}

/// Wherever the container sees this directory of the host.
pub(in crate::driver) fn places_inside(old: &Value, source: &Path) -> Vec<PathBuf> {
    let mut inside: Vec<PathBuf> = places_of(old)
        .filter_map(|(from, to)| {
            let rest = source.strip_prefix(from).ok()?;
            Some(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
        })
        .filter(|inside| mounts::host_path(old, inside).as_deref() == Some(source))
        .collect();
    inside.sort();
    inside.dedup();
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old() -> Value {
        json!({"Mounts": [
            {"Type": "bind", "Source": "/srv/payram", "Destination": "/var/lib/payram"},
            {"Type": "bind", "Source": "/etc/pg", "Destination": "/etc/postgresql"},
            {"Type": "tmpfs", "Source": "", "Destination": "/run"},
        ]})
    }

    #[test]
    fn the_server_of_an_export_mounts_the_failed_directory_and_nothing_of_the_one_in_use() {
        let source = Path::new("/srv/payram/db/pg");
        let failed = Path::new("/srv/payram/db/pg.failed-1");
        assert_eq!(
            mounts_for(&old(), source, failed).expect("mounts"),
            json!({
                "Mounts": [
                    {"Type": "bind", "Source": "/srv/payram/db/pg.failed-1",
                     "Target": "/var/lib/payram/db/pg", "ReadOnly": false},
                    {"Type": "bind", "Source": "/etc/pg", "Target": "/etc/postgresql",
                     "ReadOnly": true},
                ],
                "Tmpfs": {"/var/lib/payram": ""},
            })
        );
        assert_eq!(mounts_for(&old(), Path::new("/other/pg"), failed), None);
    }

    #[test]
    fn a_directory_that_is_a_mount_itself_is_replaced_as_one() {
        let old = json!({"Mounts": [{"Source": "/srv/pg", "Destination": "/data"}]});
        let found = mounts_for(&old, Path::new("/srv/pg"), Path::new("/srv/pg.failed-1"));
        let expected = json!({
            "Mounts": [{"Type": "bind", "Source": "/srv/pg.failed-1", "Target": "/data",
                        "ReadOnly": false}],
            "Tmpfs": {},
        });
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_directory_that_the_container_sees_twice_is_replaced_at_both_places() {
        let old = json!({"Mounts": [
            {"Type": "bind", "Source": "/srv/payram", "Destination": "/root/payram"},
            {"Type": "bind", "Source": "/srv/payram/db/pg", "Destination": "/var/lib/payram/db/pg"},
        ]});
        let failed = Path::new("/srv/payram/db/pg.failed-1");
        let bind =
            |to: &str| json!({"Type": "bind", "Source": failed, "Target": to, "ReadOnly": false});
        let expected = json!({
            "Mounts": [bind("/root/payram/db/pg"), bind("/var/lib/payram/db/pg")],
            "Tmpfs": {"/root/payram": ""},
        });
        assert_eq!(mounts_for(&old, Path::new("/srv/payram/db/pg"), failed), Some(expected));
    }
}
