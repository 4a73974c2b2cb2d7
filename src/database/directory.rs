//! The directory that a running server works in, as this host names it, and who else may work
//! there.
//!
//! Called by the plan, before anything is stopped, by the driver right before and after the stop,
//! and by `inspect`. Reads only; what follows from it is the caller's.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::host_servers::{self, Place, reaches};
use super::may_serve::may_serve;
use super::server::server_facts;
use crate::engine::{ContainerSummary, Engine, EngineError, mounts};
use crate::error::Trouble;

/// Where a container's server was seen to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workplace {
    /// In the directory that was asked about.
    There,
    /// In another one: a sentence with both paths.
    Elsewhere(String),
    /// No server was seen at all, as while it is stopped or starts: a sentence.
    Unseen(String),
}

/// Whether the server in a running container, a raw inspection, works in this directory of the
/// host: by device and inode, as the kernel says it of the server's own process at this moment;
/// where this host can't look, by the container's mounts.
///
/// # Errors
/// When the engine does not answer.
pub async fn server_works_in(
    engine: &dyn Engine,
    container: &Value,
    port: u16,
    directory: &Path,
) -> Result<Workplace, Trouble> {
    let place = match Place::of(directory) {
        Ok(place) => place,
        Err(error) => {
            return Ok(Workplace::Elsewhere(format!(
                "the database's directory, which its container mounts, should be {} on this host, which can't be looked at: {error}",
                directory.display()
            )));
        }
    };
    if host_servers::in_place(place).iter().any(|server| server.is_of(container)) {
        return Ok(Workplace::There);
    }
    // Not there, or this host can't see it: the container is asked where its server works.
    let id = container["Id"].as_str().unwrap_or_default();
    let facts = match server_facts(engine, id, port).await {
        Ok(facts) => facts,
        Err(Trouble::Failed(failure)) => return Ok(Workplace::Unseen(failure.message)),
        Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
    };
    let inside = Path::new(&facts.data_directory);
    if let Some(seen) = host_servers::place_inside(container, inside) {
        return Ok(match seen == place {
            true => Workplace::There,
            false => Workplace::Elsewhere(format!(
                "the database's server works in {} of its container, which is not {} of this host: that one was moved, or something else is mounted over it, since the container was started",
                inside.display(),
                directory.display()
            )),
        });
    }
    let host = mounts::host_path(container, inside);
    let is_same = host.as_deref().is_some_and(|host| is_one_path(host, directory));
    Ok(match is_same {
        true => Workplace::There,
        false => Workplace::Elsewhere(format!(
            "the database's server works in {} of its container, which is {} on this host, expected {}",
            inside.display(),
            host.map_or("on no mount".to_owned(), |host: PathBuf| host.display().to_string()),
            directory.display()
        )),
    })
}

fn is_one_path(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}

/// A container, not the shop's own, that mounts the database's directory and may write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// Its name.
    pub name: String,
    /// `running`, `exited`, `created`, …
    pub state: String,
    /// The name of its restart policy; `no` where it has none.
    pub policy: String,
    /// Whether it may run a server there: it is of the same product, mounts the directory itself
    /// and not one above it, as a log shipper or a backup job does, or starts a server.
    pub is_server: bool,
}

impl Sharer {
    /// Whether it runs, or the engine may start it without being asked: one whose policy is
    /// `unless-stopped` stays down only if somebody stopped it by hand, which nobody can see.
    pub fn may_run(&self) -> bool {
        self.is_server && (self.is_running() || self.policy != "no")
    }

    /// Whether it runs now.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "restarting" | "paused")
    }
}

/// Every container but `ours` that mounts this directory of the host and may write to it, running
/// or not; `shop` is the raw inspection of the one that serves.
///
/// # Errors
/// When the engine can't be asked.
pub async fn sharers(
    engine: &dyn Engine,
    shop: &Value,
    directory: &Path,
    ours: &[&str],
) -> Result<Vec<Sharer>, EngineError> {
    let mut found = Vec::new();
    let servers = Place::of(directory).map(host_servers::in_place).unwrap_or_default();
    for other in engine.containers(None).await? {
        if ours.contains(&other.id.as_str()) {
            continue;
        }
        let Some(is_direct) = reach(&other, directory) else { continue };
        let Some(inspected) = engine.inspect_container(&other.id).await? else { continue };
        let policy = inspected["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default();
        found.push(Sharer {
            name: other.name,
            state: inspected["State"]["Status"].as_str().unwrap_or_default().to_owned(),
            policy: if policy.is_empty() { "no" } else { policy }.to_owned(),
            is_server: is_direct
                || is_same_product(shop, &inspected)
                || may_serve(&inspected, directory)
                || servers.iter().any(|server| server.is_of(&inspected)),
        });
    }
    Ok(found)
}

/// Whether a container reaches this directory of the host with a mount that it may write to.
pub fn may_write_to(container: &ContainerSummary, directory: &Path) -> bool {
    reach(container, directory).is_some()
}

/// Whether who may write to this path of the host may write to the directory, or to a part of it.
pub fn is_reached_by(source: &Path, directory: &Path) -> bool {
    reach_by(source, directory).is_some()
}

/// How a container reaches the directory with a mount that it may write to: by the directory
/// itself or something in it (true), or by one above it (false); none when it does not.
fn reach(container: &ContainerSummary, directory: &Path) -> Option<bool> {
    let writable = container.mounts.iter().filter(|mount| mount.writable);
    writable.filter_map(|mount| reach_by(Path::new(&mount.source), directory)).max()
}

/// The same of one path of this host, by whatever name it is mounted: by device and inode, since a
/// bind mount gives a directory another path.
fn reach_by(source: &Path, directory: &Path) -> Option<bool> {
    if !source.is_absolute() {
        return None;
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (source, directory) = (real(source), real(directory));
    if source.starts_with(&directory) {
        return Some(true);
    }
    if directory.starts_with(&source) {
        return Some(false);
    }
    let is_in = |path: &Path, place: Place| path.ancestors().any(|above| reaches(above, place));
    if Place::of(&directory).is_ok_and(|place| is_in(&source, place)) {
        return Some(true);
    }
    Place::of(&source).is_ok_and(|place| is_in(&directory, place)).then_some(false)
}

/// Whether two containers, raw inspections, run the same image, or ones of the same repository.
pub fn is_same_product(a: &Value, b: &Value) -> bool {
    let repo = |container: &Value| {
        let image = container["Config"]["Image"].as_str().unwrap_or_default();
        let image = image.split('@').next().unwrap_or_default().to_owned();
        // A colon before the last slash is a registry's port.
        match image.rsplit_once(':') {
            Some((repo, tag)) if !tag.contains('/') => repo.to_owned(),
            Some(_) | None => image,
        }
    };
    a["Image"] == b["Image"] || repo(a) == repo(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MountSummary;

    fn mounting(source: &str, writable: bool) -> ContainerSummary {
        let mount = MountSummary {
            kind: "bind".into(),
            name: None,
            source: source.into(),
            destination: "/x".into(),
            writable,
        };
        ContainerSummary {
            id: "1".into(),
            name: "x".into(),
            image: "x".into(),
            state: "running".into(),
            labels: Vec::new(),
            mounts: vec![mount],
        }
    }

    #[test]
    fn only_who_may_write_to_the_directory_reaches_it() {
        let reaches = |source: &str, writable: bool| {
            reach(&mounting(source, writable), Path::new("/srv/payram/db/postgres"))
        };
        for (source, expected) in [
            ("/srv", Some(false)),
            ("/srv/payram/db", Some(false)),
            ("/srv/payram/db/postgres", Some(true)),
            ("/srv/payram/db/postgres/pg_wal", Some(true)),
            ("/srv/payram/log", None),
            ("/srv/payram/db/postgres.failed-1", None),
            ("", None),
        ] {
            assert_eq!(reaches(source, true), expected, "{source}");
            assert_eq!(reaches(source, false), None, "{source} is read only");
        }
    }

    #[test]
    fn a_directory_that_has_another_name_is_the_same() {
        let home = tempfile::tempdir().expect("a directory");
        let (data, other) = (home.path().join("data"), home.path().join("other"));
        std::fs::create_dir_all(data.join("db/postgres/pg_wal")).expect("directories");
        std::fs::create_dir(&other).expect("a directory");
        let database = data.join("db/postgres");
        let alias = home.path().join("alias");
        // As a bind mount does, to which a test has no right.
        std::os::unix::fs::symlink(&data, &alias).expect("a link");
        assert_eq!(reach_by(&alias, &database), Some(false));
        assert_eq!(reach_by(&alias.join("db/postgres/pg_wal"), &database), Some(true));
        assert_eq!(reach_by(&other, &database), None);
    }

    #[test]
    fn who_could_start_by_itself_is_told_from_who_can_not() {
        let sharer = |state: &str, policy: &str, is_server| Sharer {
            name: "payram-old".into(),
            state: state.into(),
            policy: policy.into(),
            is_server,
        };
        assert!(sharer("running", "no", true).may_run());
        assert!(sharer("exited", "always", true).may_run());
        assert!(sharer("created", "unless-stopped", true).may_run());
        assert!(!sharer("exited", "no", true).may_run());
        assert!(!sharer("running", "always", false).may_run(), "a log shipper");
    }
}
