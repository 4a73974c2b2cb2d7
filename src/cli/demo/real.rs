//! A real Docker engine with a real PostgreSQL; the images are the tests' stand-ins for
//! PayRam's. Needs root.
//!
//! Everything that it makes on the engine carries a label of its own; nothing else is touched.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::backstage::{Backstage, Place, Shop};
use super::images;
use super::paper::Paper;
use super::process::{LOOK_EVERY, ask};
use super::{FIRST_VERSION, Fault};
use crate::engine::docker::Docker;
use crate::engine::{Engine, EngineError, EngineFacts, ExecRequest, Frame};

/// From the container's start to its first good answer: PostgreSQL makes its database.
const OPEN_WITHIN: Duration = Duration::from_secs(120);

/// How long one question to the database may take.
const QUERY_WITHIN: Duration = Duration::from_secs(30);

/// How long the removal of this demo's containers may take.
const CLEAR_WITHIN: Duration = Duration::from_secs(60);

/// The shop's port is one of these: below the ports that outgoing connections are given, so
/// that it is still free when a container comes back to it.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried that turn out to be taken.
const PORT_TRIES: usize = 5;

/// Lines of a container's log that an error quotes.
const LOG_LINES: usize = 10;

/// The engine, found and answering.
pub(super) struct Real {
    engine: Docker,
    socket: PathBuf,
    facts: EngineFacts,
    repo: String,
}

impl Real {
    /// Looks for everything that is needed, and changes nothing.
    pub async fn find() -> Result<Self, Fault> {
        if !rustix::process::geteuid().is_root() {
            return Err(Fault::new(
                "--engine docker needs root, as the updater does: it copies the database's \
                 files. Run it with sudo; without --engine the demo needs neither root nor Docker",
            ));
        }
        let given = std::env::var("DOCKER_HOST").ok();
        let tool = std::env::var("DOCKER_BIN").unwrap_or_else(|_| "docker".to_owned());
        let needs = |why: String| {
            Fault::new(format!(
                "--engine docker needs a Docker engine that answers, on this host: {why}. \
                 Without --engine the demo needs neither root nor Docker"
            ))
        };
        let no_answer = |error: EngineError| needs(error.to_string());
        let engine = Docker::connect(&tool, given.as_deref()).await.map_err(no_answer)?;
        let endpoint = engine.endpoint();
        let Some(socket) = endpoint.strip_prefix("unix://").map(PathBuf::from) else {
            return Err(needs(format!("{endpoint} is no Unix socket")));
        };
        let facts = engine.facts().await.map_err(no_answer)?;
        let repo = images::repository().await?;
        Ok(Self { engine, socket, facts, repo })
    }

    /// Creates the shop's container on a port that is free, and starts it; its id and the port.
    async fn start_shop(&self, place: &Place, line: &Docker) -> Result<(String, u16), Fault> {
        let mut tries = 0;
        loop {
            let port = free_port(&place.id)?;
            let id = line.create_container(&name_of(place), &self.spec(place, port)).await?;
            tries += 1;
            match line.start(&id).await {
                Ok(()) => return Ok((id, port)),
                // Between the look and the start somebody else took it.
                Err(error) if is_about_the_port(&error) && tries < PORT_TRIES => {
                    line.remove(&id).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What `docker run` would make of an operator's arguments.
    fn spec(&self, place: &Place, port: u16) -> Value {
        let secret = || uuid::Uuid::now_v7().simple().to_string();
        let (label, value) = label_of(place);
        json!({
            "Image": format!("{}:{}", self.repo, FIRST_VERSION),
            "Env": [
                "POSTGRES_HOST=localhost", "POSTGRES_PORT=5432",
                "POSTGRES_DATABASE=payram", "POSTGRES_USERNAME=payram",
                format!("POSTGRES_PASSWORD={}", secret()), format!("AES_KEY={}", secret()),
            ],
            "Labels": {label: value},
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "Binds": [
                    format!("{}:/var/lib/payram", place.at("data").display()),
                    format!("{}:/ack", place.at("ack").display()),
                ],
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port.to_string()}]},
                "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            },
        })
    }

    async fn wait_healthy(&self, id: &str, core: &str) -> Result<(), Fault> {
        let client = crate::http::client_builder()
            .timeout(LOOK_EVERY * 20)
            .build()
            .map_err(|error| Fault::new(crate::http::reason(&error)))?;
        let deadline = Instant::now() + OPEN_WITHIN;
        loop {
            let answer = client.get(format!("{core}/api/v1/health")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let log = self.engine.logs(id, LOG_LINES).await?;
                return Err(Fault::new(format!("the shop does not open:\n{log}")));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

#[async_trait(?Send)]
impl Backstage for Real {
    fn introduction(&self) -> String {
        format!(
            "The container engine is REAL: Docker {} at {}, with a real PostgreSQL; the daemon \
             reaches it over ~/docker.sock, where the demo can stop it at a known moment. The \
             images are STAND-INS for PayRam's, from {}: a small core that takes payments, \
             two idle workers, supervisord. No other container is touched. ~ is a temporary \
             directory. All of it is gone afterwards but those images and their registry, which \
             the tests use too. It takes about two minutes.",
            self.facts.version,
            self.engine.endpoint(),
            self.repo
        )
    }

    /// `/tmp` may lie in memory, and this is a database with copies of it.
    fn temporary(&self) -> PathBuf {
        std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
    }

    fn socket(&self, _place: &Place) -> PathBuf {
        self.socket.clone()
    }

    async fn open(&mut self, place: &Place, paper: &Paper) -> Result<Shop, Fault> {
        let line = Docker::at(&place.docker_host())?;
        let version = FIRST_VERSION;
        paper.begin_wait(
            &format!("Opening a shop on {version}"),
            "pulling its image, PostgreSQL makes its database",
        )?;
        let (policy, manifest) = (place.at("policy.json"), place.at("manifest.json"));
        for directory in [place.at("data"), place.at("ack")] {
            fs::create_dir(directory)?;
        }
        let said = json!({
            "latest": "1.9.8", "updater_api_init_version": version,
            "releases": ["9.0.4", "1.9.8", "1.9.7", version],
        });
        fs::write(&policy, said.to_string())?;
        let said = json!({
            "image": {"repo": "payramapp/payram"},
            "health_check": {"endpoint": "/api/v1/health"},
        });
        fs::write(&manifest, said.to_string())?;
        line.pull(&self.repo, version, &mut |_| {}).await?;
        let (id, port) = self.start_shop(place, &line).await?;
        let core = format!("http://127.0.0.1:{port}");
        self.wait_healthy(&id, &core).await?;
        paper.end_wait()?;
        let container = name_of(place);
        paper.say(&format!("The shop is open: container {container}, {core}/"))?;
        let (label, value) = label_of(place);
        Ok(Shop {
            container,
            label: Some(format!("{label}={value}")),
            repo: self.repo.clone(),
            policy,
            manifest,
            core,
            acknowledged: place.at("ack/acked.log"),
            start_timeout_seconds: 60,
        })
    }

    async fn payments(&self, shop: &Shop) -> Result<BTreeSet<String>, Fault> {
        // Inside the container the user postgres is let in without a password.
        let words = ["psql", "-X", "-A", "-t", "-d", "payram", "-c", "SELECT id FROM payments"];
        let request = ExecRequest {
            argv: words.map(str::to_owned).to_vec(),
            env: Vec::new(),
            user: Some("postgres".to_owned()),
            stdin: false,
        };
        let asked = timeout(QUERY_WITHIN, async {
            let mut exec = self.engine.exec(&shop.container, request).await?;
            let (mut rows, mut errors) = (Vec::new(), Vec::new());
            while let Some(frame) = exec.output.next().await {
                match frame? {
                    Frame::Stdout(bytes) => rows.extend_from_slice(&bytes),
                    Frame::Stderr(bytes) => errors.extend_from_slice(&bytes),
                }
            }
            loop {
                match self.engine.exec_exit_code(&exec.id).await? {
                    Some(0) => return Ok(String::from_utf8_lossy(&rows).into_owned()),
                    Some(code) => {
                        let errors = String::from_utf8_lossy(&errors);
                        return Err(Fault::new(format!("psql ended with {code}: {errors}")));
                    }
                    None => sleep(LOOK_EVERY).await,
                }
            }
        });
        let rows = asked.await.map_err(|_| Fault::new("psql did not end in time"))??;
        Ok(rows.lines().map(str::to_owned).collect())
    }

    async fn clear(&mut self, place: &Place) -> Result<(), Fault> {
        let (label, value) = label_of(place);
        let label = format!("{label}={value}");
        let deadline = Instant::now() + CLEAR_WITHIN;
        loop {
            // What the updater made in between has its own label and the shop's name.
            let mut left = self.engine.containers(Some(&label)).await?;
            let prefix = format!("{}-", name_of(place));
            let named = self.engine.containers(Some(crate::names::HOP_LABEL)).await?;
            left.extend(named.into_iter().filter(|one| one.name.starts_with(&prefix)));
            let Some(first) = left.first() else { return Ok(()) };
            let mut why = String::new();
            for container in &left {
                let path = format!("/containers/{}?force=1&v=1", container.id);
                // Gone already, or being removed: the next list says whether it is.
                if let Err(fault) = ask(&self.socket, Method::DELETE, &path).await {
                    why = fault.to_string();
                }
            }
            if Instant::now() >= deadline {
                return Err(Fault::new(format!(
                    "container {} is left behind: {why}. Remove it: docker rm -f -v {}",
                    first.name, first.name
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn name_of(place: &Place) -> String {
    format!("payram-demo-{}", place.id)
}

/// What every container of this demo carries: the updater gives it to those that it makes.
fn label_of(place: &Place) -> (&'static str, &str) {
    ("payram-demo", &place.id)
}

fn is_about_the_port(error: &EngineError) -> bool {
    let said = error.to_string();
    error.status().is_some()
        && ["port is already allocated", "address already in use"]
            .iter()
            .any(|taken| said.contains(taken))
}

/// A port on loopback that nobody listens on; two demos begin to look at different ones.
fn free_port(id: &str) -> Result<u16, Fault> {
    let begin = id.bytes().fold(0_usize, |sum, byte| sum * 31 % PORTS.len() + usize::from(byte));
    let skipped = begin % PORTS.len();
    PORTS
        .skip(skipped)
        .chain(PORTS.take(skipped))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Fault::new(format!("no port of {PORTS:?} is free")))
}
