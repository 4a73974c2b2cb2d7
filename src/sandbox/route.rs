//! What each request of the Engine API means, by method and path.
//!
//! Written from the reference of API v1.41. Called by `http`, once the faults were met.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal, Reply};
use super::archive;
use super::events::Wanted;
use super::http::{Asked, Face};
use super::inspection::architecture;
use super::pull;
use super::scenario::Changed;
use super::world::World;

/// The Engine API's version that is spoken: that of Docker 20.10.
const API_VERSION: &str = "1.41";

/// What the engine calls itself.
const VERSION: &str = "20.10.0-sandbox";

impl Face {
    pub(super) async fn route(self: Arc<Self>, asked: Asked) -> Answer<Reply> {
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        let query = |key: &str| asked.query.get(key).map(String::as_str);
        let world = &self.world;
        match (asked.method.as_str(), path.as_slice()) {
            ("GET" | "HEAD", ["_ping"]) => Ok(answer::ping(API_VERSION)),
            ("GET", ["version"]) => Ok(answer::json(
                200,
                &json!({
                    "Version": VERSION, "ApiVersion": API_VERSION, "MinAPIVersion": "1.25",
                    "Arch": architecture(), "Os": "linux",
                }),
            )),
            ("GET", ["info"]) => Ok(answer::json(
                200,
                &json!({
                    "Name": "sandbox", "ServerVersion": VERSION,
                    "DockerRootDir": world.root(), "OperatingSystem": "payram-updater sandbox",
                }),
            )),
            ("GET", ["containers", "json"]) => {
                let label = query("filters").and_then(label_filter);
                let is_all = matches!(query("all"), Some("1" | "true" | "True"));
                Ok(answer::json(200, &world.list(label.as_deref(), is_all)))
            }
            ("GET", ["containers", id, "json"]) => Ok(answer::json(200, &world.inspect(id)?)),
            ("GET", ["containers", id, "logs"]) => {
                let tail = query("tail").and_then(|tail| tail.parse().ok());
                Ok(answer::frames(last_lines(&world.printed(id)?, tail).as_bytes(), b""))
            }
            ("GET", ["containers", id, "top"]) => top(world, id, query("ps_args")),
            ("GET", ["containers", id, "changes"]) => {
                let inspection = world.inspect(id)?;
                let was_started = inspection["State"]["StartedAt"]
                    .as_str()
                    .is_some_and(|at| !at.starts_with("0001-"));
                let changes = world.release_of(&inspection).changes;
                Ok(answer::json(200, &if was_started { listed(&changes) } else { Value::Null }))
            }
            ("GET", ["containers", id, "archive"]) => {
                let inspection = world.inspect(id)?;
                let release = world.release_of(&inspection);
                let path = query("path").unwrap_or_default();
                Ok(answer::archive(archive::archive(&inspection, &release, path)?))
            }
            ("GET", ["volumes", name]) => Ok(answer::json(200, &world.volume(name)?)),
            ("GET", ["images", reference @ .., "json"]) => {
                Ok(answer::json(200, &world.image(&reference.join("/"))?))
            }
            ("GET", ["networks", "bridge"]) => Ok(answer::json(
                200,
                &json!({
                    "Name": "bridge", "Driver": "bridge", "IPAM": {"Config": []},
                }),
            )),
            ("POST", ["containers", "create"]) => {
                let name = query("name").unwrap_or("unnamed");
                let id = world.create(name, &asked.body)?;
                Ok(answer::json(201, &json!({"Id": id, "Warnings": []})))
            }
            ("POST", ["containers", id, "start"]) => Ok(answer::done(world.start(id)?)),
            ("POST", ["containers", id, "stop"]) => {
                let grace = query("t").and_then(|t| t.parse().ok()).map(Duration::from_secs);
                Ok(answer::done(world.stop(id, grace).await?))
            }
            ("POST", ["containers", id, "kill"]) => match query("signal") {
                None | Some("KILL" | "SIGKILL" | "9") => {
                    world.kill(id).await?;
                    Ok(answer::done(true))
                }
                Some(other) => {
                    Err(Refusal::new(400, format!("the sandbox does not play signal {other}")))
                }
            },
            ("POST", ["containers", id, "restart"]) => {
                let grace = query("t").and_then(|t| t.parse().ok()).map(Duration::from_secs);
                world.restart(id, grace).await?;
                Ok(answer::done(true))
            }
            ("POST", ["containers", id, "rename"]) => {
                world.rename(id, query("name").unwrap_or_default())?;
                Ok(answer::done(true))
            }
            ("POST", ["containers", id, "update"]) => {
                world.set_policy(id, &asked.body["RestartPolicy"])?;
                Ok(answer::json(200, &json!({"Warnings": []})))
            }
            ("DELETE", ["containers", id]) => {
                world.remove(id)?;
                Ok(answer::done(true))
            }
            ("POST", ["containers", id, "exec"]) => self.create_exec(id, &asked.body),
            ("POST", ["exec", id, "start"]) => {
                let (id, upgrade) = ((*id).to_owned(), asked.upgrade);
                self.start_exec(&id, upgrade).await
            }
            ("GET", ["exec", id, "json"]) => Ok(answer::json(200, &self.exec_state(id)?)),
            ("POST", ["images", "create"]) => {
                let repo = query("fromImage").unwrap_or_default();
                let tag = query("tag").unwrap_or("latest");
                pull::pull(Arc::clone(world), repo, tag)
            }
            ("GET", ["events"]) => Ok(world.events.listen(Wanted::of(&asked.query)?)),
            ("GET", ["sandbox", "requests"]) => {
                Ok(answer::json(200, &json!(world.faults.requests())))
            }
            ("GET", ["sandbox", "programs", id]) => {
                Ok(answer::json(200, &json!(world.shop(id)?.programs.states())))
            }
            ("GET", ["sandbox", "observations"]) => {
                Ok(answer::json(200, &json!(world.faults.observations())))
            }
            ("POST", ["networks", name, "connect"]) | ("GET", ["networks", name]) => {
                Err(Refusal::new(404, format!("network {name} not found")))
            }
            (method, _) => {
                let path = path.join("/");
                Err(Refusal::new(404, format!("the sandbox does not play {method} /{path}")))
            }
        }
    }
}

/// The processes of a container, with the columns of `-eo A,B`.
fn top(world: &World, id: &str, arguments: Option<&str>) -> Answer<Reply> {
    let inspection = world.inspect(id)?;
    let shop = world.shop(id)?;
    let columns = arguments
        .and_then(|text| text.strip_prefix("-eo "))
        .map(|columns| columns.split(',').map(str::trim).collect::<Vec<&str>>());
    let rows = columns.as_ref().and_then(|columns| shop.programs.top(columns, shop.sessions()));
    let (Some(columns), Some(rows)) = (columns, rows) else {
        let arguments = arguments.unwrap_or("-ef");
        return Err(Refusal::new(500, format!("ps: the sandbox does not play {arguments}")));
    };
    let titles: Vec<&str> = columns
        .iter()
        .map(|column| match *column {
            "pid" => "PID",
            "ppid" => "PPID",
            "etimes" => "ELAPSED",
            _ => "COMMAND",
        })
        .collect();
    world.tell(inspection["Id"].as_str().unwrap_or_default(), "top", &[]);
    Ok(answer::json(200, &json!({"Titles": titles, "Processes": rows})))
}

/// `null` when there are none, as the real engine says it.
fn listed(changes: &BTreeMap<String, Changed>) -> Value {
    if changes.is_empty() {
        return Value::Null;
    }
    let kind = |changed: &Changed| match changed {
        Changed::Modified => 0,
        Changed::Added => 1,
        Changed::Deleted => 2,
    };
    changes.iter().map(|(path, changed)| json!({"Path": path, "Kind": kind(changed)})).collect()
}

/// Of `{"label":["key=value"]}`, the label.
fn label_filter(filters: &str) -> Option<String> {
    let filters: Value = serde_json::from_str(filters).ok()?;
    filters["label"][0].as_str().map(str::to_owned)
}

fn last_lines(text: &str, tail: Option<usize>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(tail.unwrap_or(usize::MAX));
    lines.iter().skip(from).map(|line| format!("{line}\n")).collect()
}
