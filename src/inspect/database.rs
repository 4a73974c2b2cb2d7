//! The shop's database as far as containers and processes tell: whether its server works in the
//! directory that the host names, whether another server works there too, and which containers
//! could. Asked by `seen`, judged by `verdict`; reads only.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config::Settings;
use crate::database::{self, Access, OtherCollation, Place, Runner, Sharer, Workplace};
use crate::engine::Engine;
use crate::engine::mounts::{self, Home};

/// How long all looks may take together.
const LOOKS_WITHIN: Duration = Duration::from_secs(5);

/// What was seen of the database's directory.
pub(super) struct DirectorySeen {
    /// Its path on this host.
    pub path: String,
    /// Why it is not the one that the server works in.
    pub mismatch: Option<String>,
    /// Who else works in it now.
    pub second: Option<String>,
    /// Who else mounts it.
    pub sharers: Vec<Sharer>,
}

/// Whether the database was sorted with another version of its collation; none also where that can't
/// be asked, which the other checks say.
pub(super) async fn collation(
    settings: &Settings,
    engine: &dyn Engine,
    container: &Value,
) -> Option<OtherCollation> {
    let list = container["Config"]["Env"].as_array().into_iter().flatten();
    let environment: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    let target = database::locate(&environment, &settings.pg).ok()?;
    let runner = Runner::new(engine, container["Id"].as_str()?, &target);
    let asked = tokio::time::timeout(LOOKS_WITHIN, database::other_collation(&runner)).await;
    asked.ok()?.ok()?
}

/// Whether a database outside of the container can be asked from here, as an upgrade and a backup
/// have to: where it was asked, or why it can't be. None where it is in the container, or where no
/// answer came in time.
pub(super) async fn elsewhere(
    settings: &Settings,
    engine: &dyn Engine,
    container: &Value,
) -> Option<Result<String, String>> {
    let list = container["Config"]["Env"].as_array().into_iter().flatten();
    let environment: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    let target = database::locate(&environment, &settings.pg).ok()?;
    if target.access != Access::OnHost {
        return None;
    }
    let runner = Runner::new(engine, container["Id"].as_str()?, &target);
    let asked = tokio::time::timeout(LOOKS_WITHIN, database::server_version(&runner)).await.ok()?;
    Some(match asked {
        Ok(version) => Ok(format!("PostgreSQL {version} at {}:{}", target.host, target.port)),
        Err(trouble) => Err(format!(
            "the database can't be asked from here, so that it could not be backed up: {}",
            trouble.into_failure().message
        )),
    })
}

/// Looks at a running container's database; none where it is elsewhere, and a sentence where it
/// can't be told.
pub(super) async fn look(
    settings: &Settings,
    engine: &dyn Engine,
    container: &Value,
) -> Option<Result<DirectorySeen, String>> {
    match tokio::time::timeout(LOOKS_WITHIN, seen(settings, engine, container)).await {
        Ok(found) => found,
        Err(_) => Some(Err(format!("no answer within {} s", LOOKS_WITHIN.as_secs()))),
    }
}

async fn seen(
    settings: &Settings,
    engine: &dyn Engine,
    container: &Value,
) -> Option<Result<DirectorySeen, String>> {
    let list = container["Config"]["Env"].as_array().into_iter().flatten();
    let environment: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    let target = match database::locate(&environment, &settings.pg) {
        Ok(target) => target,
        Err(failure) => return Some(Err(failure.message)),
    };
    if target.access == Access::OnHost {
        return None;
    }
    let id = container["Id"].as_str()?;
    let facts = match database::server_facts(engine, id, target.port).await {
        Ok(facts) => facts,
        Err(trouble) => return Some(Err(trouble.to_string())),
    };
    let inside = Path::new(&facts.data_directory);
    let path = match mounts::home(container, inside) {
        Home::Host(path) => path,
        Home::WhileMounted => return None,
        Home::InContainer => {
            let inside = inside.display();
            return Some(Err(format!("{inside} lies on no mount: it goes with the container")));
        }
    };
    let works = database::server_works_in(engine, container, target.port, &path).await;
    let mismatch = match works {
        Ok(Workplace::There) => None,
        Ok(Workplace::Elsewhere(found)) => Some(found),
        Ok(Workplace::Unseen(found)) => return Some(Err(found)),
        Err(trouble) => return Some(Err(trouble.to_string())),
    };
    let sharers = match database::sharers(engine, container, &path, &[id]).await {
        Ok(sharers) => sharers,
        Err(error) => return Some(Err(error.to_string())),
    };
    let second = Place::of(&path).ok().and_then(|place| {
        let servers = database::servers_in(place);
        let other = servers
            .iter()
            .find(|server| !server.is_of(container) && server.is_told_apart_from(container))?;
        Some(match other.container_id() {
            Some(id) => format!("container {}", id.get(..12).unwrap_or(id)),
            None => format!("process {} of this host", other.pid),
        })
    });
    Some(Ok(DirectorySeen { path: path.display().to_string(), mismatch, second, sharers }))
}
