//! Who made or manages a container, by its labels and settings: Swarm, Kubernetes, schedulers,
//! platforms, updaters, `--rm`. Pure; compose has a file of its own.
//!
//! Each says what it would do, and how the container is handed over or upgraded by its owner. The
//! labels are those that the owners document or that `inspect` shows of their containers.

use serde_json::Value;

use super::{Kind, Owner};
use crate::journal::Task;

/// What is needed for the sentences.
pub(super) struct About<'a> {
    pub container: &'a Value,
    /// The container's name.
    pub name: &'a str,
    /// The image that an upgrade would bring, `payramapp/payram:1.9.7`; none when it is not known.
    pub image: Option<&'a str>,
    /// `DOCKER_BIN`
    pub docker: &'a str,
}

impl About<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.container["Config"]["Labels"][key].as_str().filter(|value| !value.is_empty())
    }

    fn image(&self) -> &str {
        self.image.unwrap_or("IMAGE")
    }
}

/// Schedulers that start a container of theirs again, and would have two on one database.
const SCHEDULERS: [(&str, &str, &str); 6] = [
    ("com.hashicorp.nomad.alloc_id", "Nomad", "nomad alloc status"),
    ("com.amazonaws.ecs.task-arn", "Amazon ECS", "aws ecs describe-tasks --tasks"),
    ("io.balena.supervised", "balena", "balena devices"),
    ("io.rancher.container.uuid", "Rancher", "rancher ps"),
    ("com.dokku.app-name", "Dokku", "dokku ps:report"),
    ("io.hass.type", "the Home Assistant Supervisor", "ha addons"),
];

/// Platforms that make the container again from a description of their own when somebody deploys.
const PLATFORMS: [(&str, &str, &str); 7] = [
    ("coolify.managed", "Coolify", "the resource's image tag, in Coolify's dashboard"),
    ("coolify.applicationId", "Coolify", "the resource's image tag, in Coolify's dashboard"),
    ("coolify.serviceId", "Coolify", "the service's compose file, in Coolify's dashboard"),
    ("net.unraid.docker.managed", "Unraid", "the repository's tag, in the container's template"),
    ("runtipi.managed", "Runtipi", "the app's version, in Runtipi"),
    ("casaos", "CasaOS", "the tag, in the app's settings in CasaOS"),
    ("cosmos-stack", "Cosmos", "the image, in Cosmos' dashboard"),
];

/// All that own the container by what its inspection says; compose and units not among them.
pub(super) fn owners(about: &About<'_>) -> Vec<Owner> {
    let mut found = Vec::new();
    found.extend(swarm(about));
    found.extend(kubernetes(about));
    found.extend(podman_unit(about));
    for (label, who, asks) in SCHEDULERS {
        found.extend(about.label(label).map(|value| scheduler(about, who, asks, label, value)));
    }
    if found.is_empty() {
        found.extend(platform(about));
    }
    found.extend(auto_remove(about));
    found
}

fn swarm(about: &About<'_>) -> Option<Owner> {
    let service = about
        .label("com.docker.swarm.service.name")
        .or_else(|| about.label("com.docker.swarm.service.id"))
        .or_else(|| about.label("com.docker.swarm.task.name"))
        .or_else(|| about.label("com.docker.swarm.task.id"))
        .or_else(|| about.label("com.docker.swarm.node.id"))?;
    let platform = match (service.starts_with("srv-captain--"), dokploy(about)) {
        (true, _) => " (an app of CapRover)",
        (false, true) => " (an app of Dokploy)",
        (false, false) => "",
    };
    let stack = about.label("com.docker.stack.namespace");
    let stack = stack.map(|stack| format!(", of stack {stack}")).unwrap_or_default();
    let docker = about.docker;
    Some(Owner {
        kind: Kind::Swarm,
        name: service.to_owned(),
        file: None,
        refuses: true,
        is_at_odds: true,
        after: None,
        message: format!(
            "{} is a task of the Swarm service {service}{platform}{stack}: Swarm starts another one as soon as this one is stopped, and two servers on one database destroy it. Swarm upgrades it itself, after a backup of your own; or take it out of Swarm first",
            about.name
        ),
        hand_over: vec![
            format!("{docker} service update --image {} {service}", about.image()),
            format!(
                "{docker} service scale {service}=0  # or: out of Swarm, then start the container yourself with {docker} run --restart unless-stopped"
            ),
        ],
    })
}

fn dokploy(about: &About<'_>) -> bool {
    let labels = about.container["Config"]["Labels"].as_object();
    labels.into_iter().flatten().any(|(key, value)| {
        key.contains("dokploy") || value.as_str().is_some_and(|value| value.contains("dokploy"))
    })
}

fn kubernetes(about: &About<'_>) -> Option<Owner> {
    let pod = about.label("io.kubernetes.pod.name")?;
    let space = about.label("io.kubernetes.pod.namespace").unwrap_or("default");
    let container = about.label("io.kubernetes.container.name").unwrap_or(about.name);
    Some(Owner {
        kind: Kind::Kubernetes,
        name: format!("{space}/{pod}"),
        file: None,
        refuses: true,
        is_at_odds: true,
        after: None,
        message: format!(
            "{} is container {container} of the Kubernetes pod {pod} in namespace {space}: the kubelet starts another one as soon as this one is stopped. Kubernetes upgrades it itself, by the image in what owns the pod",
            about.name
        ),
        hand_over: vec![
            format!(
                "kubectl --namespace {space} describe pod {pod}  # Controlled By: what owns it"
            ),
            format!(
                "# then, after a backup of your own, give what owns it the image {} for container {container}",
                about.image()
            ),
        ],
    })
}

fn podman_unit(about: &About<'_>) -> Option<Owner> {
    let unit = about.label("PODMAN_SYSTEMD_UNIT")?;
    Some(Owner {
        kind: Kind::Systemd,
        name: unit.to_owned(),
        file: None,
        refuses: true,
        is_at_odds: true,
        after: None,
        message: format!(
            "{} belongs to the systemd unit {unit} (label PODMAN_SYSTEMD_UNIT), which starts it again when it is stopped. Hand it over first: the updater can't replace what systemd restarts",
            about.name
        ),
        hand_over: vec![format!(
            "sudo systemctl disable --now {unit}  # then start the container with --restart unless-stopped"
        )],
    })
}

fn scheduler(about: &About<'_>, who: &str, asks: &str, label: &str, value: &str) -> Owner {
    Owner {
        kind: Kind::Scheduler,
        name: who.to_owned(),
        file: None,
        refuses: true,
        is_at_odds: true,
        after: None,
        message: format!(
            "{} is run by {who} (label {label}), which starts another one as soon as this one is stopped: two servers on one database destroy it. Upgrade it there, after a backup of your own, or take it out of {who} first",
            about.name
        ),
        hand_over: vec![format!("{asks} {value}")],
    }
}

fn platform(about: &About<'_>) -> Option<Owner> {
    let known = PLATFORMS.iter().find(|(label, ..)| about.label(label).is_some());
    let (who, label, place) = match known {
        Some((label, who, place)) => ((*who).to_owned(), (*label).to_owned(), *place),
        None => {
            let (key, who) = managed(about)?;
            (who, key, "the image, where it is deployed from")
        }
    };
    Some(Owner {
        kind: Kind::Platform,
        name: who.clone(),
        file: None,
        refuses: false,
        is_at_odds: false,
        after: Some(Task {
            what: format!(
                "set {place}, to {}, or the next deployment by {who} puts the old image on the new version's database",
                about.image()
            ),
            command: None,
        }),
        message: format!(
            "{} was made by {who} (label {label}): its next deployment puts the image back that it knows, on the database that the new version has changed. Change {place} right after the upgrade, before anybody deploys",
            about.name
        ),
        hand_over: vec![format!("# set {place}, to {}", about.image())],
    })
}

/// A label that says that somebody manages the container: `….managed=true`, `managed-by=NAME`.
fn managed(about: &About<'_>) -> Option<(String, String)> {
    let labels = about.container["Config"]["Labels"].as_object()?;
    labels.iter().find_map(|(key, value)| {
        let value = value.as_str()?.trim();
        let last = key.rsplit(['.', '/']).next()?;
        match last {
            "managed" if value.eq_ignore_ascii_case("true") => {
                let who = key.trim_end_matches(last).trim_end_matches(['.', '/']);
                (!who.is_empty()).then(|| (key.clone(), who.to_owned()))
            }
            "managed-by" | "managed_by" | "managedBy" if !value.is_empty() => {
                Some((key.clone(), value.to_owned()))
            }
            _ => None,
        }
    })
}

/// The engine removes such a container when it stops, and with it the way back (I1).
fn auto_remove(about: &About<'_>) -> Option<Owner> {
    if about.container["HostConfig"]["AutoRemove"] != true {
        return None;
    }
    Some(Owner {
        kind: Kind::AutoRemove,
        name: "--rm".to_owned(),
        file: None,
        refuses: true,
        is_at_odds: true,
        after: None,
        message: format!(
            "{} was started with --rm: the engine removes it as soon as it is stopped, and nothing is left to go back to. Whatever started it starts it again from its own image. Find that (a unit, a script, a job, a terminal), end it, and start the container again without --rm and with --restart unless-stopped",
            about.name
        ),
        hand_over: vec![
            format!(
                "sudo grep -rsl -- {} /etc/systemd/system /etc/cron* /etc/rc.local  # what may start it",
                about.name
            ),
            "ps -eo pid,ppid,args | grep '[d]ocker run'  # or a loop or terminal that does"
                .to_owned(),
        ],
    })
}

/// An updater that replaces containers whose tag has moved, where it watches this one.
pub(super) fn watcher(about: &About<'_>, others: &[Value]) -> Option<Owner> {
    const ENABLE: &str = "com.centurylinklabs.watchtower.enable";
    let enabled = about.label(ENABLE).map(|value| value.eq_ignore_ascii_case("true"));
    if enabled == Some(false) {
        return None;
    }
    let monitors_only = about.label("com.centurylinklabs.watchtower.monitor-only");
    let watcher = others.iter().find(|other| watches(other, about.name, enabled));
    if watcher.is_none() && enabled.is_none() || monitors_only == Some("true") {
        return None;
    }
    let name = watcher.and_then(|other| other["Name"].as_str()).unwrap_or("watchtower");
    let name = name.trim_start_matches('/').to_owned();
    let how = match watcher {
        Some(_) => format!("container {name} watches {}", about.name),
        None => format!("{} has the label {ENABLE}=true", about.name),
    };
    Some(Owner {
        kind: Kind::Watcher,
        message: format!(
            "{how}: Watchtower replaces it, without a backup or a way back, whenever the registry has another image for its tag, also in the middle of an upgrade. Stop it for the upgrade, and leave {} out of it afterwards (label {ENABLE}=false)",
            about.name
        ),
        hand_over: match watcher {
            Some(_) => vec![format!("{} stop {name}", about.docker)],
            None => vec![format!("{} ps --filter name=watchtower", about.docker)],
        },
        name,
        file: None,
        refuses: false,
        is_at_odds: watcher.is_some(),
        after: None,
    })
}

/// Whether this running container is a Watchtower that would replace ours.
fn watches(other: &Value, name: &str, enabled: Option<bool>) -> bool {
    let image = other["Config"]["Image"].as_str().unwrap_or_default();
    let repository = image.split(['@']).next().unwrap_or_default();
    let last = repository.rsplit('/').next().unwrap_or_default();
    if last.split(':').next() != Some("watchtower") || other["State"]["Running"] != true {
        return false;
    }
    let environment = texts(&other["Config"]["Env"]);
    let arguments =
        [texts(&other["Config"]["Entrypoint"]), texts(&other["Config"]["Cmd"])].concat();
    let is_set = |flag: &str, variable: &str| {
        arguments.iter().any(|word| *word == flag || *word == format!("{flag}=true"))
            || environment.iter().any(|entry| *entry == format!("{variable}=true"))
    };
    if is_set("--monitor-only", "WATCHTOWER_MONITOR_ONLY")
        || (is_set("--label-enable", "WATCHTOWER_LABEL_ENABLE") && enabled != Some(true))
    {
        return false;
    }
    // Names that it is given are the only ones that it watches.
    let command = texts(&other["Config"]["Cmd"]);
    let mut named = Vec::new();
    let mut words = command.iter().peekable();
    while let Some(word) = words.next() {
        match word.starts_with('-') {
            true if !word.contains('=') => {
                // The value of an option is no name; a flag without one is followed by a name or
                // another flag, which can't be told apart here.
                words.next_if(|next| next.chars().all(|c| c.is_ascii_digit() || c == ' '));
            }
            true => {}
            false => named.push(*word),
        }
    }
    named.is_empty() || named.contains(&name)
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about(container: &Value) -> About<'_> {
        About { container, name: "payram", image: Some("payramapp/payram:1.9.7"), docker: "docker" }
    }

    fn labelled(key: &str, value: &str) -> Value {
        json!({"Config": {"Labels": {key: value}}})
    }

    #[test]
    fn who_would_start_another_one_refuses_and_says_the_command() {
        for (key, value, kind, command) in [
            (
                "com.docker.swarm.service.name",
                "srv-captain--payram",
                Kind::Swarm,
                "docker service update --image payramapp/payram:1.9.7 srv-captain--payram",
            ),
            ("com.docker.swarm.task.id", "abc", Kind::Swarm, "docker service"),
            ("io.kubernetes.pod.name", "payram-5d9c-x2", Kind::Kubernetes, "kubectl --namespace"),
            ("com.hashicorp.nomad.alloc_id", "8f", Kind::Scheduler, "nomad alloc status 8f"),
            ("com.dokku.app-name", "payram", Kind::Scheduler, "dokku ps:report payram"),
            (
                "PODMAN_SYSTEMD_UNIT",
                "payram.service",
                Kind::Systemd,
                "disable --now payram.service",
            ),
        ] {
            let container = labelled(key, value);
            let found = owners(&about(&container));
            assert_eq!(found.len(), 1, "{key}");
            assert!(found[0].refuses && found[0].kind == kind, "{found:?}");
            assert!(found[0].hand_over.concat().contains(command), "{found:?}");
        }
        let container = json!({"HostConfig": {"AutoRemove": true}});
        let found = owners(&about(&container));
        assert!(found[0].refuses && found[0].message.contains("--rm"), "{found:?}");
    }

    #[test]
    fn a_platform_that_deploys_again_warns() {
        for (key, value, who) in [
            ("coolify.managed", "true", "Coolify"),
            ("net.unraid.docker.managed", "dockerman", "Unraid"),
            ("com.example.managed", "true", "com.example"),
            ("app.kubernetes.io/managed-by", "Helm", "Helm"),
        ] {
            let container = labelled(key, value);
            let found = owners(&about(&container));
            assert_eq!(found.len(), 1, "{key}");
            assert!(!found[0].refuses && found[0].name == who, "{found:?}");
        }
    }

    #[test]
    fn an_ordinary_container_is_owned_by_nobody() {
        for labels in [
            json!({}),
            json!(null),
            json!({"maintainer": "PayRam", "org.opencontainers.image.version": "1.9.6"}),
            json!({"io.payram.updater.hop": "job-1/1", "mine": "yes"}),
            json!({"traefik.enable": "true", "com.example.managed": "false"}),
        ] {
            let container = json!({
                "Config": {"Labels": labels},
                "HostConfig": {"AutoRemove": false, "RestartPolicy": {"Name": "unless-stopped"}},
            });
            assert_eq!(owners(&about(&container)), []);
            assert_eq!(watcher(&about(&container), &[]), None);
        }
    }

    #[test]
    fn a_watchtower_is_told_of_where_it_watches_this_container() {
        let tower = |cmd: Value, environment: Value| {
            json!({
                "Name": "/tower", "State": {"Running": true},
                "Config": {"Image": "containrrr/watchtower:1.7", "Cmd": cmd, "Env": environment},
            })
        };
        let plain = json!({"Config": {"Labels": {}}});
        let told = |shop: &Value, tower: Value| watcher(&about(shop), &[tower]).is_some();
        assert!(told(&plain, tower(json!(null), json!([]))));
        assert!(told(&plain, tower(json!(["--interval", "300", "payram"]), json!([]))));
        assert!(!told(&plain, tower(json!(["other"]), json!([]))));
        assert!(!told(&plain, tower(json!(["--label-enable"]), json!([]))));
        assert!(!told(&plain, tower(json!(null), json!(["WATCHTOWER_LABEL_ENABLE=true"]))));
        assert!(!told(&plain, tower(json!(["--monitor-only"]), json!([]))));
        let left_out = labelled("com.centurylinklabs.watchtower.enable", "false");
        assert!(!told(&left_out, tower(json!(null), json!([]))));
        let asked_for = labelled("com.centurylinklabs.watchtower.enable", "true");
        assert!(told(&asked_for, tower(json!(["--label-enable"]), json!([]))));
        assert!(watcher(&about(&asked_for), &[]).is_some());
    }
}
