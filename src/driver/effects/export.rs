//! The rows that a failed version wrote, exported from its directory after the restore point has
//! taken its place and the old version serves again.
//!
//! Its server runs once more, alone and read-only, on what was moved aside and on nothing that
//! the old version uses: no other mount of it covers the database in use (I2).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::carry::LogPlace;
use super::lone;
use super::{Effects, fail};
use crate::clock::Timestamp;
use crate::database::{self, Heading, Runner, said_of_table};
use crate::driver::prepare::SavedSpec;
use crate::engine::mounts;
use crate::error::Trouble;
use crate::machine::facts::{Copy, Export, Fingerprint, Server};
use crate::machine::failure::FailureCode;
use crate::machine::{Fact, Known};

/// It shares the host with the old version, which serves: it takes little, and keeps no log.
pub(super) const MODEST: [&str; 3] =
    ["shared_buffers=32MB", "huge_pages=off", "logging_collector=off"];

impl Effects<'_> {
    /// Exports what the failed version wrote to a file beside its directory. Written anew when it
    /// is run again.
    pub(super) async fn export_rows(&self, known: &Known<'_>) -> Result<Fact, Trouble> {
        self.remove_lone_server(known).await?;
        let unknown = |what: &str| fail(FailureCode::RuntimeInspectionFailed, what);
        let (Some(restored), Some(Copy::Directory { source, server, .. })) =
            (known.restored, known.copy)
        else {
            return unknown("no database was moved aside");
        };
        let Some(before) = known.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref()) else {
            return unknown("the database was not fingerprinted at the cut-over");
        };
        let failed = PathBuf::from(&restored.failed);
        if let Err(reason) = lone::must_be_readable_by(server, &failed).await {
            return unknown(&reason);
        }
        let exported = self.export_from(known, Path::new(source), &failed, server, before).await;
        if let Err(trouble) = self.remove_lone_server(known).await {
            // It goes with the new container, two steps on.
            self.say(&format!("the export's server is not removed yet: {trouble}")).await;
        }
        let export = exported?;
        if let Export::Written { tables, .. } = &export {
            for table in tables {
                self.say(&format!("written by the failed version: {}", said_of_table(table))).await;
                for refused in &table.refused {
                    let said = database::said_of_refused(refused);
                    self.say(&format!("export of {}: {said}", table.name)).await;
                }
            }
        }
        Ok(Fact::Export(export))
    }

    async fn export_from(
        &self,
        known: &Known<'_>,
        source: &Path,
        failed: &Path,
        server: &Server,
        before: &Fingerprint,
    ) -> Result<Export, Trouble> {
        let saved = SavedSpec::read(&known.hop.old.spec_file)?;
        let Some(mounts) = mounts_for(&saved.container, source, failed) else {
            return fail(
                FailureCode::RuntimeInspectionFailed,
                format!("where {} lies inside the container is not known", source.display()),
            );
        };
        let alone = self.start_lone_server(known, (server, failed), mounts, &MODEST).await?;
        let target = self.database(known)?;
        let (lone, old) = (
            Runner::new(self.engine, &alone.id, &alone.database),
            Runner::new(self.engine, self.old_id(known), &target),
        );
        let path = crate::driver::export_path(&failed.to_string_lossy());
        let container = &known.hop.old.name;
        let docker = &self.settings.docker_bin;
        let heading = Heading {
            upgrade: format!("{} hop {}", self.at.job.id, self.at.hop),
            version: &known.hop.version,
            old_version: known.hop.from.as_deref().unwrap_or("the old version"),
            written_at: Timestamp::now().rfc3339(),
            directory: failed,
            load_command: load_command(docker, container, &target),
        };
        let within = self.settings.backup_timeout;
        let is_carried = known.restored.is_some_and(|restored| restored.carried.is_some());
        let at = LogPlace::of(&saved.container, server, source);
        let carried = match is_carried {
            true => Some(at.cut_over(known)?),
            false => None,
        };
        let file = (Path::new(&path), &heading);
        database::export_rows(&lone, &old, before, carried.as_ref(), file, within).await
    }
}

/// A command that loads a file from its standard input as the application's role. The password
/// stays inside the container.
fn load_command(docker: &str, container: &str, target: &database::Database) -> String {
    let word = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let inside = format!(
        "PGPASSWORD=$POSTGRES_PASSWORD psql -X -h {} -p {} -U {} -d {}",
        word(&target.host),
        target.port,
        word(&target.user),
        word(&target.name),
    );
    format!("{docker} exec -i {} sh -c {}", word(container), word(&inside))
}

/// What the server of the failed directory mounts: that directory wherever the container sees the
/// one in use, one of which its server expects, and of the old container's other mounts those that
/// hold nothing of the database in use, to be read only. None when the directory lies on no mount.
pub(super) fn mounts_for(old: &Value, source: &Path, failed: &Path) -> Option<Value> {
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
pub(super) fn places_inside(old: &Value, source: &Path) -> Vec<PathBuf> {
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
