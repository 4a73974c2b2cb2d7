//! The container engine as this product uses it.
//!
//! [`Engine`] is the whole vocabulary: some twenty-five verbs, each bounded in time. The Docker
//! implementation is [`docker::Docker`]; specifications stay raw [`Value`]s, because a typed
//! model drops the fields it does not know, and a field that an upgrade drops is the very
//! fault this product exists to avoid. Called by `plan`, `database`, `app` and `driver`;
//! decides nothing.

pub mod docker;
mod inspection;
pub mod mounts;

pub use inspection::Inspection;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWrite;

use crate::secret::Secret;

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// The engine's own version, `20.10.24`.
    pub version: String,
    /// The API version agreed on, `1.41`.
    pub api_version: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Where images and layers lie on this host, `/var/lib/docker`; for the disk table.
    pub data_root: String,
}

/// One line of a container listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSummary {
    /// The full id, 64 hex digits.
    pub id: String,
    /// The name without its leading slash.
    pub name: String,
    /// The image as it was named at creation, `payramapp/payram:1.9.6`.
    pub image: String,
    /// `running`, `exited`, `created`, …
    pub state: String,
    /// All labels.
    pub labels: Vec<(String, String)>,
    /// What is mounted into it; a `--tmpfs` is not listed by Docker.
    pub mounts: Vec<MountSummary>,
}

/// One mount of a container, as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSummary {
    /// `bind`, `volume`, `tmpfs`, …
    pub kind: String,
    /// The volume's name; `None` for what is no volume.
    pub name: Option<String>,
    /// The path on the engine's host; empty when there is none (tmpfs).
    pub source: String,
    /// The path inside the container.
    pub destination: String,
    /// Whether the container may write to it.
    pub writable: bool,
}

/// A process of a running container, with the numbers that the engine's host gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number on the host, not the one inside the container.
    pub pid: u32,
    /// Its parent's number; that of the container's first process is outside of it.
    pub parent: u32,
    /// Whole seconds since it was started.
    pub age: Duration,
    /// Its command line; runs of spaces are one space.
    pub command: String,
}

/// A path that a container changed in its own file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path inside the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// How a container changed a path of its own file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is in the image with another content or mode, or holds what was changed.
    Modified,
    /// It is not in the image.
    Added,
    /// It is in the image, and gone.
    Deleted,
}

/// What the engine noted of one container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// When, by the engine's clock, in milliseconds since the epoch.
    pub at_ms: i64,
    /// `kill`, `die`, `stop`, `start`, `restart`, `oom`, …
    pub action: String,
    /// What belongs to it: `signal` of a `kill`, `exitCode` of a `die`, and the labels.
    pub attributes: BTreeMap<String, String>,
}

/// A command to run inside a container.
pub struct ExecRequest {
    /// The command and its arguments; never holds a secret (I10).
    pub argv: Vec<String>,
    /// Environment for this command alone; where secrets go.
    pub env: Vec<(String, Secret<String>)>,
    /// User inside the container, `None` for the container's own.
    pub user: Option<String>,
    /// Whether the command's standard input is to be written by the caller.
    pub stdin: bool,
}

/// A piece of a running command's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
}

/// A command that runs inside a container.
pub struct Exec {
    /// The exec's id, for [`Engine::exec_exit_code`].
    pub id: String,
    /// Output until the command ends. Each wait for a frame is bounded by the caller.
    pub output: BoxStream<'static, Result<Frame, EngineError>>,
    /// The command's standard input when it was asked for; shutting it down is end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes received so far, over all layers.
    pub received_bytes: u64,
    /// Bytes to receive, as far as the engine has said; grows as layers become known.
    pub total_bytes: u64,
}

/// What a registry has for a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryImage {
    /// Bytes of disk that it needs here, as far as its layers' sizes tell.
    pub disk_bytes: Option<u64>,
    /// The architectures that it is made for, `amd64`; empty when that is not known.
    pub architectures: Vec<String>,
    /// The digest of its configuration, which is the image's id in the classic image store.
    pub config_digest: Option<String>,
    /// Its configuration (OCI image specification, "Image Configuration"), where it could be read.
    pub config: Option<Value>,
    /// The login that was used, without its secret; none when there is none.
    pub login: Option<String>,
}

/// Why a registry does not say what it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryNo {
    /// It has no such repository or tag.
    #[error("{0}")]
    Missing(String),
    /// It wants a login, or refuses the one that this host has.
    #[error("{said}")]
    Login {
        /// The login that was used, without its secret; none when there is none.
        login: Option<String>,
        /// What it answered.
        said: String,
    },
    /// It limits how often it may be asked.
    #[error("{0}")]
    Limited(String),
    /// It has it for other architectures alone.
    #[error("it has it for {}, and this engine is for {engine}", offered.join(", "))]
    OtherArchitecture {
        /// The engine's.
        engine: String,
        /// What it has.
        offered: Vec<String>,
    },
    /// It could not be asked, or its answer is none: nothing is known.
    #[error("{0}")]
    Unknown(String),
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No connection: the engine is down or the endpoint is wrong. Nothing was done.
    #[error("container engine at {endpoint} is unreachable: {reason}")]
    Unreachable {
        /// `unix:///var/run/docker.sock`
        endpoint: String,
        /// What the attempt met.
        reason: String,
    },
    /// No answer in time, or the connection broke: it may have been done. Observe (I4).
    #[error("{doing}: no answer from the container engine ({reason}); it may have been done")]
    Unknown {
        /// What was asked: `stop container 3f2a…`.
        doing: String,
        /// `timed out after 30 s`, `connection reset`.
        reason: String,
    },
    /// The engine answered no.
    #[error("{doing}: the container engine answered {status}: {message}")]
    Refused {
        /// What was asked.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// The engine's own sentence.
        message: String,
    },
    /// The engine answered something that is not its protocol.
    #[error("{doing}: the container engine's answer is not understood: {reason}")]
    Protocol {
        /// What was asked.
        doing: String,
        /// What was expected and found.
        reason: String,
    },
}

impl EngineError {
    /// Whether the effect may have happened all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, EngineError::Unknown { .. })
    }

    /// The HTTP status when the engine answered no.
    pub fn status(&self) -> Option<u16> {
        match self {
            EngineError::Refused { status, .. } => Some(*status),
            EngineError::Unreachable { .. }
            | EngineError::Unknown { .. }
            | EngineError::Protocol { .. } => None,
        }
    }
}

/// The container engine. Every verb has a deadline of its own; no verb retries.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Where this engine is, for messages: `unix:///var/run/docker.sock`.
    fn endpoint(&self) -> String;

    /// Reaches the engine and says what it is.
    async fn facts(&self) -> Result<EngineFacts, EngineError>;

    /// Whether the engine answers at all, asked as cheaply as it can be.
    async fn reach(&self) -> Result<(), EngineError> {
        self.facts().await.map(drop)
    }

    /// All containers, stopped ones too; with `label` only those that carry `key=value`.
    async fn containers(&self, label: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError>;

    /// The raw inspection of a container by id or name; `None` when there is none.
    async fn inspect_container(&self, id_or_name: &str) -> Result<Option<Value>, EngineError>;

    /// The raw inspection of an image by id or reference; `None` when it is not here.
    async fn inspect_image(&self, reference: &str) -> Result<Option<Value>, EngineError>;

    /// The raw inspection of a network by id or name; `None` when there is none.
    async fn inspect_network(&self, name: &str) -> Result<Option<Value>, EngineError>;

    /// The raw inspection of a volume by name; `None` when there is none.
    async fn inspect_volume(&self, name: &str) -> Result<Option<Value>, EngineError>;

    /// The processes of a running container, as the host sees them. Refused when it does not
    /// run, and with the engine's own sentence when its host has no `ps` that can tell.
    async fn processes(&self, id: &str) -> Result<Vec<Process>, EngineError>;

    /// What the container changed in its own file system, outside of its mounts.
    async fn changes(&self, id: &str) -> Result<Vec<Change>, EngineError>;

    /// A tar archive of a path inside a container, running or not, its mounts included.
    /// Refused with 404 when there is no such path. Each wait for a piece is bounded by the
    /// caller.
    async fn archive(
        &self,
        id: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError>;

    /// What the registry has for `repo:tag` on an engine of this architecture, asked with the login
    /// that this host has for it. Reads the registry over HTTP(S).
    async fn registry_image(&self, repo: &str, tag: &str) -> Result<RegistryImage, RegistryNo>;

    /// The digest, `sha256:…`, that the registry has for `repo:tag` now, or why it does not say:
    /// what a pull would bring. Reads the registry over HTTP(S); never fails the caller.
    async fn registry_digest(&self, repo: &str, tag: &str) -> Result<String, String>;

    /// Creates a container from a raw specification; answers its full id.
    async fn create_container(&self, name: &str, spec: &Value) -> Result<String, EngineError>;

    /// Connects a container to one more network with this raw `EndpointConfig`.
    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &Value,
    ) -> Result<(), EngineError>;

    /// Starts a container; fine when it runs already.
    async fn start(&self, id: &str) -> Result<(), EngineError>;

    /// Stops a container with `grace` before the kill (`None`: the container's own, else 10 s);
    /// fine when it is stopped already. The deadline is the grace and 30 s more.
    async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<(), EngineError>;

    /// Kills a container without grace (SIGKILL); fine when it does not run.
    async fn kill(&self, id: &str) -> Result<(), EngineError>;

    /// Gives a container another name.
    async fn rename(&self, id: &str, name: &str) -> Result<(), EngineError>;

    /// Replaces the restart policy by this raw `RestartPolicy`.
    async fn set_restart_policy(&self, id: &str, policy: &Value) -> Result<(), EngineError>;

    /// Removes a stopped container; its volumes are never removed.
    async fn remove(&self, id: &str) -> Result<(), EngineError>;

    /// The same, with the volumes that the engine made for this container alone: anonymous ones,
    /// which nothing names. An engine that knows none removes the container.
    async fn remove_with_anonymous(&self, id: &str) -> Result<(), EngineError> {
        self.remove(id).await
    }

    /// Starts a command inside a running container.
    async fn exec(&self, id: &str, request: ExecRequest) -> Result<Exec, EngineError>;

    /// The exit code of a command whose output has ended; `None` while it still runs.
    async fn exec_exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError>;

    /// Pulls `repo:tag`; an error inside the engine's progress stream is an error here.
    /// Fails as `Unknown` when nothing is heard for `PULL_SILENCE_SECONDS`, or the engine is gone.
    async fn pull(
        &self,
        repo: &str,
        tag: &str,
        progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), EngineError>;

    /// The last `lines` lines that a container wrote, both streams, as text.
    async fn logs(&self, id: &str, lines: usize) -> Result<String, EngineError>;

    /// The engine's events from now on, raw.
    async fn events(&self) -> Result<BoxStream<'static, Result<Value, EngineError>>, EngineError>;

    /// The engine's events of one container between two moments of its host's clock, both
    /// included, oldest first; both in milliseconds since the epoch. A moment that is still to
    /// come is waited for. The engine remembers few events (Docker: the last 256 of all
    /// containers together, commands run inside them counted too) and none from before its own
    /// start, so a missing event proves nothing.
    async fn events_between(
        &self,
        id: &str,
        since_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<EngineEvent>, EngineError>;
}
