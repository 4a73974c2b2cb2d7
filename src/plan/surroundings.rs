//! What lies around the database and could make an upgrade end badly, looked at before anything is
//! stopped (I13, I15): whether its directory is the one that the host names, whether a restore
//! point can be made of it, which other containers may work in it, and which files of the
//! container lie outside of every mount.
//!
//! Called by `make`. Reads only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::mounted::{self, Mounted};
use super::preflight::Preflight;
use crate::app::unmounted;
use crate::config::Settings;
use crate::database::{self, Access, Database, Sharer, Workplace};
use crate::engine::mounts::{self, Home};
use crate::engine::{Change, Engine, EngineError};
use crate::error::Trouble;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore_point::{self, RestorePointError, Size};

/// How long the looks of each check may take together.
const LOOKS_WITHIN: Duration = Duration::from_secs(30);

/// How long the engine may take to say which files were changed.
const CHANGES_WITHIN: Duration = Duration::from_secs(8);

/// Files that a sentence names.
const NAMED: usize = 8;

/// The container that serves.
pub(super) struct Shop<'a> {
    pub settings: &'a Settings,
    pub engine: &'a dyn Engine,
    pub id: &'a str,
    pub name: &'a str,
    pub inspection: &'a Value,
}

/// Looks, and adds the checks `directory`, `neighbours` and `unmounted`; answers what else a
/// person should know.
pub(super) async fn look(shop: &Shop<'_>, preflight: &mut Preflight) -> Vec<String> {
    let environment = environment(shop.inspection);
    let mut notes = Vec::new();
    // A database that is not named is refused by the check of that name.
    let Ok(target) = database::locate(&environment, &shop.settings.pg) else { return notes };
    // Some engines walk the whole image for it: asked for beside the other looks, and not for long.
    let changes = tokio::time::timeout(CHANGES_WITHIN, shop.engine.changes(shop.id));
    let ((), changes) = tokio::join!(around(shop, &target, preflight, &mut notes), changes);
    match changes {
        Ok(changes) => files(shop, changes, preflight),
        Err(_) => preflight.passed(
            "unmounted",
            format!(
                "the engine did not say within {} s which files were changed outside of the mounts; they are looked for again, and kept, before anything is stopped",
                CHANGES_WITHIN.as_secs()
            ),
        ),
    }
    notes
}

/// The database's directory, and who else mounts it.
async fn around(
    shop: &Shop<'_>,
    target: &Database,
    preflight: &mut Preflight,
    notes: &mut Vec<String>,
) {
    if target.access == Access::OnHost {
        let at = format!("the database is outside of the container, at {}", target.host);
        preflight.passed("directory", at);
        notes.extend(bounded(beside_the_database(shop, None)).await.unwrap_or_default());
    } else if let Some(directory) = bounded(directory(shop, target, preflight)).await.flatten() {
        let looked = bounded(neighbours(shop, &directory, preflight)).await;
        if looked.is_none() {
            let message = format!("no answer within {} s", LOOKS_WITHIN.as_secs());
            preflight.refused("neighbours", Failure::new(FailureCode::DockerError, message));
        }
        notes.extend(bounded(reached_copy(shop, &directory)).await.flatten());
        notes
            .extend(bounded(beside_the_database(shop, Some(&directory))).await.unwrap_or_default());
    }
}

/// That the copy of the database will lie where the container reaches it; none when it will not.
async fn reached_copy(shop: &Shop<'_>, directory: &Path) -> Option<String> {
    let (source, reached) = (directory.to_owned(), mounts::sources(shop.inspection));
    let looked = tokio::task::spawn_blocking(move || restore_point::place(&source, &reached)).await;
    match looked {
        Ok(Ok(place)) => {
            let mount = place.reached_by?;
            Some(format!(
                "the copy of the database will lie in {}, which {} reaches through its mount of {}: no directory outside of its mounts is on the same file system. A version whose entry point changes what it finds there changes the copy too, which is seen before it is put back",
                place.directory.display(),
                shop.name,
                mount.display()
            ))
        }
        // The copy itself will say what is wrong.
        Ok(Err(error)) => Some(format!("where the copy of the database will lie: {error}")),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Which files beside the database are copied and put back when the new version fails, and which
/// are in no copy; none when there are no such files.
async fn beside_the_database(shop: &Shop<'_>, directory: Option<&Path>) -> Vec<String> {
    let ours = [&shop.settings.state_dir, &shop.settings.backup_dir];
    let ours: Vec<PathBuf> = ours.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mounts = mounted::beside(shop.inspection, directory, &ours);
    let looked = tokio::task::spawn_blocking(move || sizes(&mounts)).await;
    let looked = looked.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let (mut copied, mut left_out) = (Vec::new(), Vec::new());
    for (destination, size) in looked {
        match size {
            Size::Small { files: 0, left: 0, .. } => {}
            Size::Small { files, bytes, left } => {
                let said = if files == 1 { "file" } else { "files" };
                copied.push(format!("{destination} ({files} {said}, {bytes} bytes)"));
                if left > 0 {
                    left_out.push(format!("{destination} ({left} that are too large)"));
                }
            }
            Size::LeftOut { why } => left_out.push(format!("{destination} ({why})")),
        }
    }
    let mut notes = Vec::new();
    if !copied.is_empty() {
        notes.push(format!(
            "files beside the database are copied before the new version starts, and put back if it fails: {}",
            copied.join(", ")
        ));
    }
    if !left_out.is_empty() {
        notes.push(format!(
            "what the new version changes there stays when it fails, because these files are in no copy: {}",
            left_out.join(", ")
        ));
    }
    notes
}

/// What each mount holds, by its place in the container.
fn sizes(mounts: &[Mounted]) -> Vec<(String, Size)> {
    let size = |mount: &Mounted| match mount {
        Mounted::Here(companion) => {
            let size = restore_point::size_of(companion);
            let size = size.unwrap_or_else(|error| Size::LeftOut { why: error.to_string() });
            (companion.destination.clone(), size)
        }
        Mounted::Unreachable(destination) => {
            let why = "this host does not reach it".to_owned();
            (destination.clone(), Size::LeftOut { why })
        }
    };
    mounts.iter().map(size).collect()
}

async fn bounded<T>(looks: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(LOOKS_WITHIN, looks).await.ok()
}

/// Whether the database's directory is the one that the host names, and can be copied and put
/// back. The directory, where this host reaches it.
async fn directory(
    shop: &Shop<'_>,
    target: &Database,
    preflight: &mut Preflight,
) -> Option<PathBuf> {
    let facts = match database::server_facts(shop.engine, shop.id, target.port).await {
        Ok(facts) => facts,
        Err(trouble) => {
            let Failure { code, message } = trouble.into_failure();
            let message = format!("{message}{}", elsewhere(shop.inspection, target));
            preflight.refused("directory", Failure::new(code, message));
            return None;
        }
    };
    let inside = Path::new(&facts.data_directory);
    let named = match mounts::home(shop.inspection, inside) {
        Home::Host(named) => named,
        Home::WhileMounted => {
            let message = format!(
                "{} lies on a volume that this host reaches only while a container runs with it: a dump after the last write is the restore point, which lengthens the downtime",
                inside.display()
            );
            preflight.passed("directory", message);
            return None;
        }
        Home::InContainer => {
            let message = format!(
                "the database's directory {} lies on no mount of {}, or in memory: it would go with the container",
                inside.display(),
                shop.name
            );
            let failure = Failure::new(FailureCode::DatabaseNotPersistent, message);
            preflight.refused("directory", failure);
            return None;
        }
    };
    let real = named.canonicalize().unwrap_or_else(|_| named.clone());
    let works = database::server_works_in(shop.engine, shop.inspection, target.port, &real).await;
    match works {
        Ok(Workplace::There) => {}
        Ok(Workplace::Unseen(found)) => {
            preflight
                .refused("directory", Failure::new(FailureCode::RuntimeInspectionFailed, found));
            return None;
        }
        Ok(Workplace::Elsewhere(found)) => {
            let message = format!(
                "{found}. Put it back where it was (move it back, or unmount what lies over it), then try again; {} must not be restarted before that, because it would then serve what lies there now",
                shop.name
            );
            preflight.refused("directory", Failure::new(FailureCode::DatabaseMismatch, message));
            return None;
        }
        Err(Trouble::Failed(failure) | Trouble::Unknown(failure)) => {
            preflight.refused("directory", failure);
            return None;
        }
    }
    if !real.join("PG_VERSION").is_file() {
        let message = format!(
            "{} can't be read on this host: a dump after the last write is the restore point, which lengthens the downtime",
            real.display()
        );
        preflight.passed("directory", message);
        return None;
    }
    let source = real.clone();
    let surveyed = tokio::task::spawn_blocking(move || restore_point::survey(&source)).await;
    // Files come and go in it while its server works: only what can't be copied at all counts.
    if let Ok(Err(refused @ RestorePointError::Refused { .. })) = surveyed {
        let message = format!("there would be no exact way back: {refused}");
        preflight.refused("directory", Failure::new(FailureCode::RestorePointFailed, message));
        return None;
    }
    let link = match real == named {
        true => String::new(),
        false => format!(", which {} leads to", named.display()),
    };
    let by_contents = match mount_point(&real) {
        None => String::new(),
        Some(point) => format!(
            "; it is a mount point ({point}), so it would be put back by its contents, which takes longer, and needs as much space again beside it"
        ),
    };
    let works = format!("the database works in {}{link}{by_contents}", real.display());
    preflight.passed("directory", works);
    Some(real)
}

/// What to do where no server works in the container: its own loopback may lead out of it.
fn elsewhere(container: &Value, target: &Database) -> String {
    let mode = container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    let how = match mode {
        "host" => {
            "the container has this host's network, so it may be a server of the host".to_owned()
        }
        mode if mode.starts_with("container:") => {
            "the container has another one's network, so it may be the server of that one"
                .to_owned()
        }
        _ => "a pooler or a tunnel in the container may lead to it".to_owned(),
    };
    format!(
        ". The application's database is at {}:{}, and {how}: an upgrade needs the server itself. Give the application an address of it that this host reaches, too (POSTGRES_HOST, POSTGRES_PORT)",
        target.host, target.port
    )
}

/// What is mounted at this very path, `DEVICE TYPE`; none when nothing is (proc(5), `mountinfo`).
fn mount_point(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounted_at(&text, path)
}

fn mounted_at(mountinfo: &str, path: &Path) -> Option<String> {
    let line = mountinfo.lines().rev().find(|line| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        Path::new(&unescaped(point)) == path
    })?;
    let mut after = line.split(" - ").nth(1)?.split(' ');
    let (kind, device) = (after.next()?, after.next()?);
    Some(format!("{device} {kind}"))
}

/// Octal escapes of spaces, tabs, newlines and backslashes, undone.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Which other containers may work in the directory.
async fn neighbours(shop: &Shop<'_>, directory: &Path, preflight: &mut Preflight) {
    let found = match database::sharers(shop.engine, shop.inspection, directory, &[shop.id]).await {
        Ok(found) => found,
        Err(error) => return preflight.refused("neighbours", Failure::from(&error)),
    };
    let docker = &shop.settings.docker_bin;
    if let Some(worst) = found.iter().find(|other| other.may_run()) {
        let (what, how) = match worst.is_running() {
            true => ("runs".to_owned(), format!("{docker} stop {}", worst.name)),
            false => (
                format!("may be started by the engine (restart policy {})", worst.policy),
                format!("{docker} update --restart=no {}", worst.name),
            ),
        };
        let message = format!(
            "container {}, which is not {}, mounts the database's directory {} and {what}: two servers on one directory destroy it. First: {how}",
            worst.name,
            shop.name,
            directory.display()
        );
        preflight.refused("neighbours", Failure::new(FailureCode::DatabaseShared, message));
        return;
    }
    let said = |other: &Sharer| {
        format!("{} ({}, restart policy {})", other.name, other.state, other.policy)
    };
    let names: Vec<String> = found.iter().map(said).collect();
    preflight.passed(
        "neighbours",
        match names.is_empty() {
            true => "no other container mounts the database's directory".to_owned(),
            false => format!(
                "they mount the database's directory, too, and must not be started meanwhile: {}",
                names.join(", ")
            ),
        },
    );
}

/// Which files the container changed outside of every mount.
fn files(shop: &Shop<'_>, changes: Result<Vec<Change>, EngineError>, preflight: &mut Preflight) {
    let changes = match changes {
        Ok(changes) => changes,
        Err(error) => {
            let message = format!("the engine does not say which files were changed: {error}");
            return preflight.passed("unmounted", message);
        }
    };
    let files = unmounted::files(shop.inspection, &changes);
    let mut named = files.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if files.len() > NAMED {
        named.push_str(&format!(" and {} more", files.len() - NAMED));
    }
    preflight.passed(
        "unmounted",
        match files.len() {
            0 => format!("{} has changed nothing outside of its mounts that matters", shop.name),
            number => format!(
                "{number} changed outside of every mount of {}; the new container does not have them, an archive of them is kept in {}: {named}",
                shop.name,
                shop.settings.state_dir.join("unmounted").display()
            ),
        },
    );
}

/// `KEY=value` each; holds secrets.
fn environment(container: &Value) -> Vec<String> {
    let list = container["Config"]["Env"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_at_a_path_is_found_and_what_is_mounted_above_it_is_not() {
        let mountinfo = "22 1 254:1 / / rw - ext4 /dev/vda rw\n\
            40 22 8:1 / /srv/shop\\040db rw,relatime shared:1 - xfs /dev/sdb1 rw\n";
        let at = |path: &str| mounted_at(mountinfo, Path::new(path));
        assert_eq!(at("/srv/shop db").as_deref(), Some("/dev/sdb1 xfs"));
        assert_eq!(at("/srv/shop db/postgres"), None);
        assert_eq!(at("/").as_deref(), Some("/dev/vda ext4"));
        assert_eq!(mounted_at("", Path::new("/srv")), None);
    }
}
