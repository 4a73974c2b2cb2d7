//! A make-believe container engine: `payram-updater sandbox`.
//!
//! A process of its own that speaks the part of the Docker Engine API that the product uses.
//! Its containers really listen on their published port, really write to a data directory and
//! really stop; nothing else of them is there. The daemon and the commands reach it over
//! `DOCKER_HOST` by the same code as a real engine: the product has no special case for it. For
//! the demo, for the development of the dashboard, and for the search for crashes.
//!
//! | file | subject |
//! |---|---|
//! | `scenario` | which releases there are and how each behaves |
//! | `http`, `route`, `answer` | requests of the Engine API, what they mean, and the forms of their answers |
//! | `events`, `archive` | what the engine noted; files of a container as a tar |
//! | `faults` | which request goes wrong |
//! | `world` | containers and images, on disk, and what runs |
//! | `inspection` | what a container looks like; pure |
//! | `shop` | what runs inside a container |
//! | `cluster` | the make-believe PostgreSQL directory |
//! | `exec` | commands inside a container |
//! | `registry` | the images' sizes |

mod answer;
mod archive;
mod cluster;
mod events;
mod exec;
mod faults;
mod http;
mod inspection;
mod pull;
mod registry;
mod route;
mod scenario;
mod shop;
mod world;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::http::Face;
use self::scenario::Scenario;
use self::world::World;

/// The container's port for the core.
const CORE_PORT: &str = "80/tcp";

/// What keeps the sandbox from running, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SandboxError(String);

impl SandboxError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What the sandbox is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its world is kept.
    pub state: PathBuf,
    /// The Unix socket that it listens on.
    pub socket: PathBuf,
    /// The scenario; none for the built-in one.
    pub scenario: Option<PathBuf>,
}

/// What whoever uses the sandbox wants to know; printed as one line of JSON when it is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `DOCKER_HOST`
    pub docker_host: String,
    /// The repository of its images.
    pub repo: String,
    /// `POLICY_URL`
    pub policy: PathBuf,
    /// `RUNTIME_MANIFEST_URL`
    pub manifest: PathBuf,
    /// Where the core answers.
    pub core: String,
    /// The data directory of the first container, on this host.
    pub data: PathBuf,
    /// The file in which its payments are acknowledged.
    pub acknowledged: PathBuf,
}

/// Runs until told to stop. `ready` is called once the socket can be asked.
///
/// # Errors
/// When the state, the scenario or the socket can't be used.
pub async fn run(
    options: &Options,
    stop: CancellationToken,
    ready: impl FnOnce(&Ready),
) -> Result<(), SandboxError> {
    let scenario = match &options.scenario {
        Some(path) => Scenario::read(path)?,
        None => Scenario::built_in()?,
    };
    let root = std::path::absolute(&options.state)
        .map_err(|error| failed("find", &options.state, &error))?;
    fs::create_dir_all(&root).map_err(|error| failed("make", &root, &error))?;
    let port_file = root.join("registry-port");
    let earlier = fs::read_to_string(&port_file).ok().and_then(|text| text.trim().parse().ok());
    let registry = registry::bind(earlier)
        .await
        .map_err(|error| SandboxError::new(format!("listen as a registry on loopback: {error}")))?;
    let port = registry.local_addr().map_err(|error| failed("ask for", &root, &error))?.port();
    fs::write(&port_file, format!("{port}\n"))
        .map_err(|error| failed("write", &port_file, &error))?;
    let repo = format!("127.0.0.1:{port}/{}", registry::REPOSITORY);

    let world = World::open(&root, scenario, repo)?;
    if world.is_empty() {
        first_container(&world)?;
    }
    let told = write_inputs(&world, options)?;
    let socket = http::bind(&options.socket)
        .map_err(|error| failed("listen on", &options.socket, &error))?;
    tokio::spawn(registry::serve(Arc::clone(&world), registry, stop.clone()));
    ready(&told);
    Face::new(Arc::clone(&world)).serve(socket, stop).await;
    world.close().await;
    // Whoever comes next binds it anew.
    let _ = fs::remove_file(&options.socket);
    Ok(())
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> SandboxError {
    SandboxError::new(format!("{doing} {}: {error}", path.display()))
}

/// The container that is there from the start.
fn first_container(world: &Arc<World>) -> Result<(), SandboxError> {
    let scenario = &world.scenario;
    let tag = &scenario.running;
    let refused = |refusal: answer::Refusal| {
        SandboxError::new(format!("make container {}: {}", scenario.container, refusal.message))
    };
    let release = world.release(&world.repo, tag).map_err(refused)?;
    world.add_image(tag, &release).map_err(refused)?;
    let port = std::net::TcpListener::bind(("127.0.0.1", scenario.port));
    let port = port.and_then(|one| one.local_addr());
    let port = port
        .map_err(|error| SandboxError::new(format!("find a free port: {error}")))?
        .port()
        .to_string();
    let (data, ack) = (world.root().join("shop/data"), world.root().join("shop/ack"));
    for directory in [&data, &ack] {
        fs::create_dir_all(directory).map_err(|error| failed("make", directory, &error))?;
    }
    let id = world
        .create(
            &scenario.container,
            &json!({
                "Image": format!("{}:{tag}", world.repo),
                "Env": [
                    "POSTGRES_HOST=localhost", "POSTGRES_PORT=5432",
                    "POSTGRES_DATABASE=payram", "POSTGRES_USERNAME=payram",
                    "POSTGRES_PASSWORD=make-believe", "AES_KEY=make-believe-key",
                ],
                "HostConfig": {
                    "Binds": [
                        format!("{}:/var/lib/payram", data.display()),
                        format!("{}:/ack", ack.display()),
                    ],
                    "PortBindings": {CORE_PORT: [{"HostIp": "127.0.0.1", "HostPort": port}]},
                    "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
                },
            }),
        )
        .map_err(refused)?;
    world.start(&id).map_err(refused)?;
    let shop = world.shop(&id).map_err(refused)?;
    shop.take(scenario.payments)
        .map_err(|error| SandboxError::new(format!("take the first payments: {error}")))
}

/// A policy and a manifest that fit the scenario, unless there are some already.
fn write_inputs(world: &World, options: &Options) -> Result<Ready, SandboxError> {
    let root = world.root();
    let (policy, manifest) = (root.join("policy.json"), root.join("manifest.json"));
    let releases: Vec<&String> = world.scenario.tags.keys().rev().collect();
    let good = world.scenario.tags.keys().rev().find(|tag| !tag.starts_with("9."));
    let inputs = [
        (
            &policy,
            json!({
                "schema_version": 1, "latest": good, "dashboard_max": good,
                "updater_api_init_version": "1.9.0", "releases": releases, "breakpoints": [],
            }),
        ),
        (
            &manifest,
            json!({
                "image": {"repo": world.repo},
                "defaults": {"container_name": world.scenario.container},
            }),
        ),
    ];
    for (path, value) in inputs {
        if !path.exists() {
            let text = serde_json::to_vec_pretty(&value).unwrap_or_default();
            cluster::replace(path, &text).map_err(|error| failed("write", path, &error))?;
        }
    }
    let container = world.inspect(&world.scenario.container).unwrap_or(Value::Null);
    let port = container["HostConfig"]["PortBindings"][CORE_PORT][0]["HostPort"].as_str();
    Ok(Ready {
        docker_host: format!("unix://{}", options.socket.display()),
        repo: world.repo.clone(),
        policy,
        manifest,
        core: format!("http://127.0.0.1:{}", port.unwrap_or("0")),
        data: root.join("shop/data/db/postgres"),
        acknowledged: root.join("shop/ack/acked.log"),
    })
}
