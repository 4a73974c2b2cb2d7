//! The Docker implementation of [`super::Engine`]: one verb, one request of the Engine API.
//!
//! Made by `main`, used through the trait. Written from the references v1.41 (Docker 20.10) to
//! v1.48; the version is agreed on at the first contact, and nothing is contacted before that,
//! so that the daemon starts while the engine is down. Observes before no verb and repeats
//! none: that is the driver's part (I4).

mod endpoint;
mod exec;
#[cfg(test)]
mod fake;
mod frames;
mod http;
mod lines;
mod listing;
mod login;
mod look;
mod pull;
mod registry;
mod version;
mod volumes;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use self::endpoint::Endpoint;
use self::http::{Call, Deadlines, Http};
use self::volumes::{Home, Volumes};
use super::{
    Change, ContainerSummary, Engine, EngineError, EngineEvent, EngineFacts, Exec, ExecRequest,
    Frame, Process, PullProgress, RegistryImage, RegistryNo,
};

/// The grace of a container that states none (Engine API v1.41, `StopTimeout`).
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// The longest grace that is waited for. A container may ask for an endless one (`-1`); the
/// wait for its end then ends as unknown.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);

/// The most that is kept of a container's log, from its end.
const LARGEST_LOG: usize = 1 << 20;

/// A Docker engine behind a Unix socket or TCP.
pub struct Docker {
    http: Http,
    volumes: Volumes,
}

impl Docker {
    /// The engine at `docker_host`, else at the active context of `docker_bin`, else at
    /// `unix:///var/run/docker.sock`. The engine itself is not contacted yet.
    ///
    /// # Errors
    /// `Unreachable` when the endpoint is none that this client can use.
    pub async fn connect(docker_bin: &str, docker_host: Option<&str>) -> Result<Self, EngineError> {
        let endpoint = Endpoint::find(docker_bin, docker_host).await?;
        Ok(Self { http: Http::new(endpoint)?, volumes: Volumes::default() })
    }

    /// The engine at `unix:///PATH`, `tcp://HOST:PORT` or `http://HOST:PORT`.
    ///
    /// # Errors
    /// `Unreachable` when the endpoint is none that this client can use.
    pub fn at(endpoint: &str) -> Result<Self, EngineError> {
        Ok(Self { http: Http::new(Endpoint::parse(endpoint)?)?, volumes: Volumes::default() })
    }

    /// How long a pull may go on without a word of the engine.
    pub fn with_pull_silence(mut self, silence: Duration) -> Self {
        self.http.deadlines.silence = silence;
        self
    }

    /// Replaces every deadline of this client, and what a stop gets beyond its grace.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.http.deadlines = Deadlines {
            read: deadline,
            change: deadline,
            stop_margin: deadline,
            silence: deadline,
        };
        self
    }

    fn read(&self, path: &[&str], doing: impl Into<String>) -> Call {
        Call::new(Method::GET, path, doing, self.http.deadlines.read)
    }

    fn change(&self, path: &[&str], doing: impl Into<String>) -> Call {
        Call::new(Method::POST, path, doing, self.http.deadlines.change)
    }

    /// Where this host keeps what a volume holds.
    async fn home_of(&self, name: &str) -> Result<Home, EngineError> {
        if let Some(home) = self.volumes.known(name) {
            return Ok(home);
        }
        let volume = self.inspect_volume(name).await?;
        let home = volume.map_or(Home::AsTold, |volume| Home::of(&volume));
        self.volumes.note(name, &home);
        Ok(home)
    }

    /// How long the container itself wants to be waited for.
    async fn own_grace(&self, id: &str) -> Result<Duration, EngineError> {
        let container = self.inspect_container(id).await?;
        let seconds = container.as_ref().and_then(|it| it.pointer("/Config/StopTimeout"));
        Ok(match seconds.and_then(Value::as_i64) {
            None => DEFAULT_GRACE,
            Some(seconds) => match u64::try_from(seconds) {
                Ok(seconds) => Duration::from_secs(seconds).min(LONGEST_GRACE),
                Err(_) => LONGEST_GRACE,
            },
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VersionAnswer {
    version: String,
    arch: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SystemAnswer {
    docker_root_dir: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreatedAnswer {
    id: String,
    warnings: Option<Vec<String>>,
}

#[async_trait]
impl Engine for Docker {
    fn endpoint(&self) -> String {
        self.http.endpoint().to_owned()
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        let api_version = self.http.api_version().await?.to_string();
        let version: VersionAnswer =
            self.http.json(&self.read(&["version"], "read the engine's version")).await?;
        let system: SystemAnswer =
            self.http.json(&self.read(&["info"], "read where the engine keeps images")).await?;
        Ok(EngineFacts {
            version: version.version,
            api_version,
            architecture: version.arch,
            data_root: system.docker_root_dir,
        })
    }

    /// By `/_ping`: what `facts` asks makes the engine count its containers and images.
    async fn reach(&self) -> Result<(), EngineError> {
        self.http.negotiate().await.map(drop)
    }

    async fn containers(&self, label: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError> {
        let mut call = self.read(&["containers", "json"], "list containers").query("all", "1");
        if let Some(label) = label {
            call = call.query("filters", json!({ "label": [label] }).to_string());
        }
        let lines: Vec<listing::ContainerLine> = self.http.json(&call).await?;
        let mut containers: Vec<ContainerSummary> =
            lines.into_iter().map(ContainerSummary::from).collect();
        for mount in containers.iter_mut().flat_map(|container| &mut container.mounts) {
            if let Some(name) = mount.name.as_deref().filter(|_| mount.kind == "volume") {
                match self.home_of(name).await? {
                    Home::AsTold => {}
                    Home::Directory(directory) => mount.source = directory,
                    Home::WhileMounted => mount.source.clear(),
                }
            }
        }
        Ok(containers)
    }

    async fn inspect_container(&self, id_or_name: &str) -> Result<Option<Value>, EngineError> {
        let doing = format!("inspect container {}", short(id_or_name));
        let found = self.http.found(&self.read(&["containers", id_or_name, "json"], doing)).await?;
        let Some(mut container): Option<Value> = found else { return Ok(None) };
        let mounts = container["Mounts"].as_array_mut().into_iter().flatten();
        for mount in mounts.filter(|mount| mount["Type"] == "volume") {
            let Some(name) = mount["Name"].as_str().map(str::to_owned) else { continue };
            self.home_of(&name).await?.put_into(&mut mount["Source"]);
        }
        Ok(Some(container))
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<Value>, EngineError> {
        // Its slashes are the path's own: proxies in front of an engine match on them.
        let parts = ["images"].into_iter().chain(reference.split('/')).chain(["json"]);
        let path: Vec<&str> = parts.collect();
        self.http.found(&self.read(&path, format!("inspect image {reference}"))).await
    }

    async fn inspect_network(&self, name: &str) -> Result<Option<Value>, EngineError> {
        let doing = format!("inspect network {}", short(name));
        self.http.found(&self.read(&["networks", name], doing)).await
    }

    async fn inspect_volume(&self, name: &str) -> Result<Option<Value>, EngineError> {
        self.http.found(&self.read(&["volumes", name], format!("inspect volume {name}"))).await
    }

    async fn processes(&self, id: &str) -> Result<Vec<Process>, EngineError> {
        look::processes(&self.http, id).await
    }

    async fn changes(&self, id: &str) -> Result<Vec<Change>, EngineError> {
        look::changes(&self.http, id).await
    }

    async fn archive(
        &self,
        id: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        let doing = format!("read {path} of container {}", short(id));
        let call = self.read(&["containers", id, "archive"], doing).query("path", path);
        self.http.stream(&call).await
    }

    async fn registry_image(&self, repo: &str, tag: &str) -> Result<RegistryImage, RegistryNo> {
        let asked = tokio::time::timeout(registry::DEADLINE, async {
            let call = self.read(&["version"], "read the engine's architecture");
            let version: VersionAnswer = self
                .http
                .json(&call)
                .await
                .map_err(|error| RegistryNo::Unknown(error.to_string()))?;
            registry::image(repo, tag, &version.arch).await
        });
        match asked.await {
            Ok(answer) => answer,
            Err(_) => Err(RegistryNo::Unknown(format!("no answer in {:?}", registry::DEADLINE))),
        }
    }

    async fn registry_digest(&self, repo: &str, tag: &str) -> Result<String, String> {
        match tokio::time::timeout(registry::DEADLINE, registry::digest(repo, tag)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {:?}", registry::DEADLINE)),
        }
    }

    async fn create_container(&self, name: &str, spec: &Value) -> Result<String, EngineError> {
        let call = self
            .change(&["containers", "create"], format!("create container {name}"))
            .query("name", name)
            .body(spec.clone());
        let created: CreatedAnswer = self.http.json(&call).await?;
        for warning in created.warnings.unwrap_or_default() {
            tracing::warn!("the engine on creating container {name}: {warning}");
        }
        Ok(created.id)
    }

    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &Value,
    ) -> Result<(), EngineError> {
        let doing = format!("connect container {} to network {network}", short(container));
        let body = json!({ "Container": container, "EndpointConfig": endpoint });
        self.http.done(&self.change(&["networks", network, "connect"], doing).body(body)).await
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        let doing = format!("start container {}", short(id));
        self.http.done(&self.change(&["containers", id, "start"], doing)).await
    }

    async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        // Whole seconds are all that the engine takes; rounded up, nothing is killed early.
        let seconds = grace.map(|grace| grace.as_secs() + u64::from(grace.subsec_nanos() > 0));
        let wait = match seconds {
            Some(seconds) => Duration::from_secs(seconds).min(LONGEST_GRACE),
            None => self.own_grace(id).await?,
        };
        let doing = format!("stop container {}", short(id));
        let deadline = wait + self.http.deadlines.stop_margin;
        let mut call = Call::new(Method::POST, &["containers", id, "stop"], doing, deadline);
        if let Some(seconds) = seconds {
            call = call.query("t", seconds.to_string());
        }
        self.http.done(&call).await
    }

    async fn kill(&self, id: &str) -> Result<(), EngineError> {
        let doing = format!("kill container {}", short(id));
        let call = self.change(&["containers", id, "kill"], doing).query("signal", "SIGKILL");
        match self.http.done(&call).await {
            // Engines say in sentences of their own that it does not run, so it is looked at.
            Err(refusal) if refusal.status() == Some(409) => {
                let container = self.inspect_container(id).await?;
                let running = container.as_ref().and_then(|it| it.pointer("/State/Running"));
                match running.and_then(Value::as_bool) {
                    Some(false) => Ok(()),
                    Some(true) | None => Err(refusal),
                }
            }
            answer => answer,
        }
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let doing = format!("rename container {} to {name}", short(id));
        let call = self.change(&["containers", id, "rename"], doing).query("name", name);
        self.http.done(&call).await
    }

    async fn set_restart_policy(&self, id: &str, policy: &Value) -> Result<(), EngineError> {
        let doing = format!("set the restart policy of container {}", short(id));
        let body = json!({ "RestartPolicy": policy });
        self.http.done(&self.change(&["containers", id, "update"], doing).body(body)).await
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let doing = format!("remove container {}", short(id));
        let deadline = self.http.deadlines.change;
        let call = Call::new(Method::DELETE, &["containers", id], doing, deadline)
            .query("v", "false")
            .query("force", "false");
        self.http.done(&call).await
    }

    async fn remove_with_anonymous(&self, id: &str) -> Result<(), EngineError> {
        let doing = format!("remove container {} with its anonymous volumes", short(id));
        let deadline = self.http.deadlines.change;
        let call = Call::new(Method::DELETE, &["containers", id], doing, deadline)
            .query("v", "true")
            .query("force", "false");
        self.http.done(&call).await
    }

    async fn exec(&self, id: &str, request: ExecRequest) -> Result<Exec, EngineError> {
        exec::begin(&self.http, id, request).await
    }

    async fn exec_exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError> {
        exec::exit_code(&self.http, exec_id).await
    }

    async fn pull(
        &self,
        repo: &str,
        tag: &str,
        progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), EngineError> {
        pull::pull(&self.http, repo, tag, progress).await
    }

    async fn logs(&self, id: &str, lines: usize) -> Result<String, EngineError> {
        let doing = format!("read the log of container {}", short(id));
        let call = self
            .read(&["containers", id, "logs"], doing.clone())
            .query("stdout", "1")
            .query("stderr", "1")
            .query("tail", lines.to_string());
        // With a terminal the two streams were one from the start, and come without frames.
        let container = self.inspect_container(id).await?;
        let tty = container.as_ref().and_then(|it| it.pointer("/Config/Tty"));
        let has_terminal = tty.and_then(Value::as_bool).unwrap_or(false);
        call.within(self.http.deadlines.read, async {
            let bytes = self.http.stream(&call).await?;
            let mut pieces = match has_terminal {
                true => bytes,
                false => frames::frames(doing, bytes)
                    .map(|frame| {
                        frame.map(|frame| match frame {
                            Frame::Stdout(bytes) | Frame::Stderr(bytes) => bytes,
                        })
                    })
                    .boxed(),
            };
            let mut kept = Vec::new();
            while let Some(piece) = pieces.next().await {
                kept.extend_from_slice(&piece?);
                if kept.len() > 2 * LARGEST_LOG {
                    kept.drain(..kept.len() - LARGEST_LOG);
                }
            }
            kept.drain(..kept.len().saturating_sub(LARGEST_LOG));
            Ok(String::from_utf8_lossy(&kept).into_owned())
        })
        .await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Value, EngineError>>, EngineError> {
        let call = self.read(&["events"], "listen to the engine's events");
        Ok(lines::values(call.doing().to_owned(), self.http.stream(&call).await?))
    }

    async fn events_between(
        &self,
        id: &str,
        since_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        look::events_between(&self.http, id, since_ms, until_ms).await
    }
}

/// A full id as its first twelve digits, as engines print it; a name as it is.
fn short(id_or_name: &str) -> &str {
    let is_id = id_or_name.len() == 64 && id_or_name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { id_or_name.get(..12).unwrap_or(id_or_name) } else { id_or_name }
}
