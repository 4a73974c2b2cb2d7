//! `init`: looks whether this host is ready, asks whether it updates by itself, and stores that.
//!
//! Works without the daemon, which may not be installed yet, and changes nothing but the one file
//! that it writes: the daemon reads it again before each look. Where a check fails nothing is
//! written.

mod exposed;
mod questions;

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::IpAddr;

use serde_json::{Value, json};

use self::questions::Answers;
use super::args::Init;
use super::{Exit, Problem, Reading, document};
use crate::app::container;
use crate::auto_update::stored::Stored;
use crate::config::Settings;
use crate::engine::docker::Docker;
use crate::engine::{Engine, Inspection};
use crate::machine::failure::Failure;
use crate::plan::fetch;

/// The engine's own network, whose gateway is `docker0`.
const DEFAULT_NETWORK: &str = "bridge";

/// How a look ended: a sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Well(String),
    Ill(String),
    /// This system does not say.
    Unknown(String),
}

/// `init`
pub(super) async fn init(
    asked: &Init,
    reading: Reading,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let failed = |code, error: String| Problem::stopped(Exit::Failed, code, error);
    let (settings, _) = Settings::load().map_err(|e| failed("INVALID_SETTINGS", e.to_string()))?;
    let stored = Stored::read(&settings.state_dir)
        .map_err(|error| failed("INVALID_CONFIG", error.to_string()))?;
    let checks = look(&settings).await;
    let is_ready = !checks.iter().any(|(_, seen)| matches!(seen, Seen::Ill(_)));
    if reading != Reading::Json {
        checks.iter().try_for_each(|(_, seen)| writeln!(out, "{}", line(seen)))?;
    }
    if !is_ready {
        let message = "this host is not ready, and nothing was stored; put it right and run payram-updater init again";
        match reading {
            Reading::Json => document(out, &answer(false, message, &checks, None))?,
            Reading::Person | Reading::Text => writeln!(out, "Not stored: {message}.")?,
        }
        return Ok(Exit::Failed);
    }
    let before = stored.unwrap_or_default();
    let wanted = decided(asked, &before, reading, out)?;
    let path = wanted
        .write(&settings.state_dir)
        .map_err(|error| failed("INIT_FAILED", error.to_string()))?;
    let message = said(&wanted);
    match reading {
        Reading::Json => document(out, &answer(true, &message, &checks, Some(&wanted)))?,
        Reading::Person | Reading::Text => {
            writeln!(out, "{message}.")?;
            writeln!(out, "Stored in {}; the daemon needs no restart.", path.display())?;
        }
    }
    Ok(Exit::Done)
}

/// What is stored from here on: flags, else answers, else what was stored before.
fn decided(
    asked: &Init,
    before: &Stored,
    reading: Reading,
    out: &mut dyn Write,
) -> Result<Stored, Problem> {
    let mut wanted = before.clone();
    wanted.initialized = true;
    if let Some(hours) = asked.interval_hours {
        wanted.interval_hours = hours;
    }
    if asked.no_autoupdate || asked.autoupdate {
        wanted.enabled = asked.autoupdate;
        return Ok(wanted);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() || reading != Reading::Person {
        return Ok(wanted);
    }
    let mut stdin = stdin.lock();
    let mut answers = Answers { input: &mut stdin as &mut dyn BufRead, out };
    wanted.enabled =
        answers.yes_or_no("Update PayRam by itself when a new version is out?", before.enabled)?;
    if wanted.enabled && asked.interval_hours.is_none() {
        wanted.interval_hours =
            answers.hours("How many hours between two looks?", before.interval_hours)?;
    }
    Ok(wanted)
}

fn said(stored: &Stored) -> String {
    match (stored.enabled, stored.interval_hours) {
        (true, 1) => "Auto-update is on: it looks for a new version every hour".to_owned(),
        (true, hours) => {
            format!("Auto-update is on: it looks for a new version every {hours} hours")
        }
        (false, _) => {
            "Auto-update is off: upgrades begin when you or the dashboard say so".to_owned()
        }
    }
}

fn answer(
    success: bool,
    message: &str,
    checks: &[(&'static str, Seen)],
    stored: Option<&Stored>,
) -> Value {
    let mut answer = json!({"success": success, "message": message, "checks": {}});
    for (name, seen) in checks {
        let (status, message) = match seen {
            Seen::Well(message) => ("OK", message),
            Seen::Ill(message) => ("FAILED", message),
            Seen::Unknown(message) => ("UNKNOWN", message),
        };
        answer["checks"][*name] = json!({"status": status, "message": message});
    }
    match stored {
        Some(stored) => answer["config"] = stored.to_json(),
        None => answer["code"] = "HOST_NOT_READY".into(),
    }
    answer
}

fn line(seen: &Seen) -> String {
    match seen {
        Seen::Well(message) => format!("ok       {message}"),
        Seen::Ill(message) => format!("NOT OK   {message}"),
        Seen::Unknown(message) => format!("unknown  {message}"),
    }
}

/// The container and the port.
async fn look(settings: &Settings) -> Vec<(&'static str, Seen)> {
    let engine = match Docker::connect(&settings.docker_bin, settings.docker_host.as_deref()).await
    {
        Ok(engine) => engine,
        Err(error) => {
            let seen = Seen::Ill(format!("the container engine can't be asked: {error}"));
            return vec![("container", seen), ("port", port(settings, &[], None))];
        }
    };
    let (seen, inspected) = match look_at_container(settings, &engine).await {
        Ok((seen, inspected)) => (seen, Some(inspected)),
        Err(failure) => (Seen::Ill(failure.message), None),
    };
    let gateways = gateways(&engine, inspected.as_ref()).await;
    vec![("container", seen), ("port", port(settings, &gateways, inspected.as_ref()))]
}

async fn look_at_container(
    settings: &Settings,
    engine: &dyn Engine,
) -> Result<(Seen, Value), Failure> {
    // Without the manifest the container is found by its image.
    let manifest = fetch::manifest(settings).await.ok();
    let name = manifest.as_ref().and_then(|manifest| manifest.container_name(None));
    let found = container::find(engine, settings, name).await?;
    let inspected = engine
        .inspect_container(&found.id)
        .await
        .map_err(|error| Failure::from(&error))?
        .unwrap_or_default();
    let seen = match Inspection(&inspected).runs_steadily() {
        true => Seen::Well(format!("container {} runs ({})", found.name, found.image)),
        false => Seen::Ill(format!(
            "container {} does not run: it is {}",
            found.name,
            Inspection(&inspected).status()
        )),
    };
    Ok((seen, inspected))
}

/// The addresses of this host that only its containers reach: the daemon listens on these too.
async fn gateways(engine: &dyn Engine, container: Option<&Value>) -> Vec<IpAddr> {
    let bridge = engine.inspect_network(DEFAULT_NETWORK).await.ok().flatten();
    let configs = bridge.as_ref().and_then(|bridge| bridge["IPAM"]["Config"].as_array());
    let networks = container.and_then(|it| it["NetworkSettings"]["Networks"].as_object());
    let all = configs.into_iter().flatten().chain(networks.into_iter().flat_map(|it| it.values()));
    let addresses = all.filter_map(|one| one["Gateway"].as_str()?.parse::<IpAddr>().ok());
    addresses.filter(|address| !address.is_unspecified()).collect()
}

/// Whether somebody outside this host gets an answer at the API's port. The daemon itself listens
/// on loopback and on the bridge alone; something else may have that port, or hand it on.
fn port(settings: &Settings, gateways: &[IpAddr], container: Option<&Value>) -> Seen {
    let port = settings.port;
    if let Some(name) = container.filter(|it| exposed::publishes(it, port)) {
        let name = Inspection(name).name();
        return Seen::Ill(format!(
            "container {name} publishes port {port}, the API's, on this host"
        ));
    }
    match exposed::listening(port) {
        None => Seen::Unknown(format!(
            "whether port {port} can be reached from outside: this system does not say who listens"
        )),
        Some(addresses) => match exposed::open_to_others(&addresses, gateways).as_slice() {
            [] => Seen::Well(format!("port {port} can't be reached from outside this host")),
            open => {
                let open: Vec<String> = open.iter().map(ToString::to_string).collect();
                Seen::Ill(format!(
                    "a program listens on port {port}, the API's, where others reach it ({}); end it, or set UPDATER_PORT to another port",
                    open.join(", ")
                ))
            }
        },
    }
}
