//! Who else manages the container (design section 4): whoever starts, replaces or removes it
//! beside the engine and a person. Each owner says what it would do during an upgrade or after it,
//! and how the container is handed over.
//!
//! Called by `make` for the plan, and by `inspect`. [`look`] gathers: labels and settings
//! (`labels`), the compose project's file (`compose`), units (`units`), loops, crontabs and boot
//! scripts (`jobs`). Nothing is changed, and no command line that is read is ever shown: it may
//! hold secrets (I10).

mod commands;
mod compose;
mod jobs;
mod labels;
mod scripts;
mod units;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use self::commands::Wanted;
use crate::config::Settings;
use crate::engine::Engine;
use crate::journal::Task;

/// How long all looks may take together.
const LOOKS_WITHIN: Duration = Duration::from_secs(6);

/// How long systemd may take to say how a unit is.
const SYSTEMD_WITHIN: Duration = Duration::from_secs(3);

/// Somebody else who manages the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// What it is.
    pub kind: Kind,
    /// What it is called: `payram.service`, `shop/payram`, …
    pub name: String,
    /// The file that says so, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether an upgrade could not end well as long as it manages the container.
    pub refuses: bool,
    /// What it is and what it would do.
    pub message: String,
    /// What hands the container over, or keeps the owner from undoing the upgrade.
    pub hand_over: Vec<String>,
    /// Whether there is something to do about it also when no upgrade is wanted.
    #[serde(skip)]
    pub is_at_odds: bool,
    /// What a person has to do once an upgrade has ended well.
    #[serde(skip)]
    pub after: Option<Task>,
}

/// The kinds of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A systemd unit, of the system or of a user.
    Systemd,
    /// A loop, a crontab, a boot script, another supervisor.
    Job,
    /// The engine itself: `--rm`.
    AutoRemove,
    /// A compose project.
    Compose,
    /// Docker Swarm.
    Swarm,
    /// Kubernetes.
    Kubernetes,
    /// Nomad, ECS and the like.
    Scheduler,
    /// Coolify, Portainer and the like.
    Platform,
    /// Watchtower.
    Watcher,
}

/// The container, and what an upgrade would bring.
pub(crate) struct Shop<'a> {
    pub settings: &'a Settings,
    pub engine: &'a dyn Engine,
    pub name: &'a str,
    pub inspection: &'a Value,
    /// `payramapp/payram:1.9.7`; none when nothing is planned.
    pub next_image: Option<&'a str>,
}

/// Looks for everybody who manages the container; those that refuse an upgrade come first.
///
/// # Errors
/// A sentence: what could not be looked at. Those that were found until then are lost with it.
pub(crate) async fn look(shop: &Shop<'_>) -> Result<Vec<Owner>, String> {
    match tokio::time::timeout(LOOKS_WITHIN, all(shop)).await {
        Ok(found) => found,
        Err(_) => Err(format!("no answer within {} s", LOOKS_WITHIN.as_secs())),
    }
}

async fn all(shop: &Shop<'_>) -> Result<Vec<Owner>, String> {
    let about = labels::About {
        container: shop.inspection,
        name: shop.name,
        image: shop.next_image,
        docker: &shop.settings.docker_bin,
    };
    let mut found = on_this_host(shop).await?;
    found.extend(labels::owners(&about));
    found.extend(of_compose(shop).await);
    found.extend(labels::watcher(&about, &watchers(shop).await?));
    found.sort_by_key(|owner| !owner.refuses);
    Ok(found)
}

/// The project that made it, with the line of its file.
async fn of_compose(shop: &Shop<'_>) -> Option<Owner> {
    let (name, docker) = (shop.name.to_owned(), shop.settings.docker_bin.clone());
    let (next, container) = (shop.next_image.map(str::to_owned), shop.inspection.clone());
    blocking(move || {
        let runs = container["Config"]["Image"].as_str().unwrap_or_default();
        let about = compose::About { name: &name, docker: &docker, runs, next: next.as_deref() };
        compose::owner(&about, &container)
    })
    .await
}

/// The inspections of the containers that are updaters of others.
async fn watchers(shop: &Shop<'_>) -> Result<Vec<Value>, String> {
    let listed = shop.engine.containers(None).await.map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for one in
        listed.iter().filter(|one| one.state == "running" && one.image.contains("watchtower"))
    {
        let inspected = shop.engine.inspect_container(&one.id).await;
        found.extend(inspected.map_err(|error| error.to_string())?);
    }
    Ok(found)
}

/// Units, loops, crontabs and the like.
async fn on_this_host(shop: &Shop<'_>) -> Result<Vec<Owner>, String> {
    let wanted = wanted(shop);
    let (units, jobs) = blocking(move || {
        let root = Path::new("/");
        (units::find(root, &wanted), jobs::find(root, &wanted))
    })
    .await;
    let mut found = Vec::new();
    for unit in units {
        let rests = unit.user.is_none() && rests(&unit.name).await;
        found.push(of_unit(shop, &unit, rests));
    }
    found.extend(jobs.iter().map(|job| of_job(shop, job)));
    Ok(found)
}

fn wanted(shop: &Shop<'_>) -> Wanted {
    let container = shop.inspection;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let image = text(&container["Config"]["Image"]);
    let image = image.strip_prefix("docker.io/").unwrap_or(&image);
    let image = image.split('@').next().unwrap_or_default();
    let repository = match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        Some(_) | None => image,
    };
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let sources = mounts.filter(|mount| mount["Type"] == "bind");
    Wanted {
        name: shop.name.to_owned(),
        id: text(&container["Id"]),
        // The name of an image that is an id alone says nothing of its repository.
        repository: if image.contains('/') { repository.to_owned() } else { String::new() },
        sources: sources.map(|mount| text(&mount["Source"])).filter(|it| !it.is_empty()).collect(),
        project: compose::project(container),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Whether systemd says that this unit is neither enabled nor active. Where it does not run it says
/// nothing, and a unit that is there counts.
async fn rests(unit: &str) -> bool {
    if !Path::new("/run/systemd/system").is_dir() {
        return false;
    }
    let mut asking = tokio::process::Command::new("systemctl");
    asking.args(["show", "--property=ActiveState,UnitFileState", "--", unit]).kill_on_drop(true);
    match tokio::time::timeout(SYSTEMD_WITHIN, asking.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            says_rest(&String::from_utf8_lossy(&output.stdout))
        }
        Ok(Ok(_) | Err(_)) | Err(_) => false,
    }
}

fn says_rest(said: &str) -> bool {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?");
    matches!(value("ActiveState="), "inactive" | "failed")
        && matches!(value("UnitFileState="), "disabled" | "masked")
}

fn of_unit(shop: &Shop<'_>, unit: &units::Unit, rests: bool) -> Owner {
    let (file, docker, name) = (unit.file.display(), &shop.settings.docker_bin, shop.name);
    let (whose, systemctl) = match &unit.user {
        None => (String::new(), "sudo systemctl".to_owned()),
        Some(user) => {
            (format!(" of user {user}"), format!("sudo systemctl --user --machine={user}@"))
        }
    };
    let refuses = unit.acts && !rests;
    let does = &unit.does;
    let what = match (unit.acts, rests) {
        (true, false) => {
            "it would start the old version on the new version's database, or a second server on the same directory. Hand the container over first: the engine's restart policy keeps it running then"
        }
        (true, true) => {
            "it is neither enabled nor active, so it does nothing by itself; do not start it"
        }
        (false, _) => "it does not act by itself in an upgrade; do not run it meanwhile",
    };
    let start = match shop.inspection["HostConfig"]["AutoRemove"] == true
        || does.contains("makes it")
    {
        true => format!(
            "# then {docker} run --detach --restart unless-stopped --name {name}, with the other options of its run command and without --rm"
        ),
        false => {
            format!("{docker} update --restart unless-stopped {name} && {docker} start {name}")
        }
    };
    Owner {
        kind: Kind::Systemd,
        name: unit.name.clone(),
        file: Some(file.to_string()),
        refuses,
        is_at_odds: refuses,
        after: None,
        message: format!(
            "the systemd unit {}{whose} ({file}) owns {name}: {does}; {what}",
            unit.name
        ),
        hand_over: match refuses {
            false => Vec::new(),
            true => vec![
                format!(
                    "{systemctl} disable --now {}  # may stop the shop for a moment",
                    unit.name
                ),
                format!("sudo mv {file} {file}.handed-over && {systemctl} daemon-reload"),
                start,
            ],
        },
    }
}

fn of_job(shop: &Shop<'_>, job: &jobs::Job) -> Owner {
    let name = shop.name;
    let file = job.file.as_ref().map(|file| file.display().to_string());
    let place = match (&file, job.pid) {
        (Some(file), Some(_)) => format!(" of {file}"),
        (Some(_) | None, _) => String::new(),
    };
    let what = match job.acts {
        true => {
            "it would start the old version on the new version's database, or a second server on the same directory. End it first, and have the engine start the container again by its restart policy"
        }
        false => "don't have it run during an upgrade",
    };
    let hand_over = match (job.acts, job.pid, &file) {
        (false, ..) => Vec::new(),
        (true, Some(pid), _) => vec![
            format!("ps -o pid,ppid,lstart,args -p {pid}  # what it is"),
            format!("sudo kill {pid}  # and whatever starts it"),
        ],
        (true, None, Some(file)) => {
            vec![format!("sudo nano {file}  # take the lines about {name} out")]
        }
        (true, None, None) => Vec::new(),
    };
    Owner {
        kind: Kind::Job,
        name: job.name.clone(),
        refuses: job.acts,
        is_at_odds: job.acts,
        after: None,
        message: format!(
            "{}{place} {}, and has commands that start, stop or remove {name}: {what}",
            job.name, job.how
        ),
        file,
        hand_over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_rests_only_when_systemd_says_both() {
        assert!(says_rest("ActiveState=inactive\nUnitFileState=disabled\n"));
        assert!(!says_rest("ActiveState=active\nUnitFileState=disabled\n"));
        assert!(!says_rest("ActiveState=inactive\nUnitFileState=enabled\n"));
        // A timer or another unit starts it.
        assert!(!says_rest("ActiveState=inactive\nUnitFileState=static\n"));
        assert!(!says_rest(""));
    }
}
