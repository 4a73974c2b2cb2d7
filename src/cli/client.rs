//! The daemon, asked over its Unix socket; where that can't be opened, reading commands ask
//! over loopback TCP, where the policy always binds (I9).
//!
//! Each request has a deadline. A request that changes something is sent once: a lost answer
//! is said to be lost, never repeated.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Exit;
use crate::config::ClientSettings;

/// How long the daemon may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer out of the journal may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an answer may take for which policy, manifest, registry and engine are asked.
const LOOK_TIMEOUT: Duration = Duration::from_secs(180);

/// Why an answer did not come, or is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody listens.
    #[error(
        "the daemon can't be reached ({reasons}). Start it with `systemctl start payram-updater`, or in the foreground with `payram-updater serve`"
    )]
    Unreachable {
        /// What was tried, and what was met.
        reasons: String,
    },
    /// The socket is there and this user may not open it.
    #[error(
        "{path}: permission denied. This goes over the daemon's socket alone, which only root may open: run it as root (sudo)",
        path = socket.display()
    )]
    NeedsRoot {
        /// Which socket.
        socket: PathBuf,
    },
    /// The connection was there, the answer was not.
    #[error("{method} {path}: no answer from the daemon: {reason}")]
    Lost {
        /// What was asked.
        method: Method,
        /// Of what.
        path: String,
        /// What was met.
        reason: String,
    },
    /// An answer that says no.
    #[error("{sentence}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The code in the answer.
        code: String,
        /// The sentence in the answer.
        sentence: String,
        /// The answer.
        body: Box<Value>,
    },
    /// An answer that is not of the shape expected.
    #[error("{path}: the daemon's answer is not understood: {reason}")]
    Protocol {
        /// What was asked.
        path: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No client could be made.
    #[error("set up an HTTP client: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// How a command ends with it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            ClientError::Unreachable { .. } | ClientError::Lost { .. } => Exit::Unreachable,
            ClientError::NeedsRoot { .. }
            | ClientError::Refused { .. }
            | ClientError::Protocol { .. }
            | ClientError::Setup { .. } => Exit::Failed,
        }
    }

    /// For programs.
    pub(super) fn code(&self) -> &str {
        match self {
            ClientError::Unreachable { .. } => "DAEMON_UNREACHABLE",
            ClientError::Lost { .. } => "ANSWER_LOST",
            ClientError::NeedsRoot { .. } => "NEEDS_ROOT",
            ClientError::Refused { code, .. } => code,
            ClientError::Protocol { .. } => "ANSWER_NOT_UNDERSTOOD",
            ClientError::Setup { .. } => "CLIENT_SETUP_FAILED",
        }
    }

    /// Whether a daemon that restarts looks like this.
    pub(super) fn may_be_a_restart(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. } | ClientError::Lost { .. })
    }
}

/// Which ways a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// The socket, or TCP where it can't be opened.
    Any,
    /// The socket alone: over TCP it would mean something else.
    SocketOnly,
}

/// A client of the daemon.
pub(super) struct Client {
    over_socket: reqwest::Client,
    over_tcp: reqwest::Client,
    socket: PathBuf,
    tcp_base: String,
}

impl Client {
    /// A client of the daemon that these settings name; connects when asked something.
    pub(super) fn new(settings: &ClientSettings) -> Result<Self, ClientError> {
        // No connection is kept: a daemon that restarts leaves none behind to trip over.
        let builder = || {
            crate::http::client_builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
        };
        let setup = |error: reqwest::Error| ClientError::Setup { reason: chain(&error) };
        let socket = settings.socket_path.clone();
        Ok(Self {
            over_socket: builder().unix_socket(socket.clone()).build().map_err(setup)?,
            over_tcp: builder().build().map_err(setup)?,
            socket,
            tcp_base: format!("http://127.0.0.1:{}", settings.port),
        })
    }

    /// An answer out of the journal.
    pub(super) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None, Ways::Any, READ_TIMEOUT).await
    }

    /// An answer for which the daemon looks at the world.
    pub(super) async fn look(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None, Ways::Any, LOOK_TIMEOUT).await
    }

    /// Asks for something to be planned or done.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &Value,
        ways: Ways,
    ) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(body), ways, LOOK_TIMEOUT).await
    }

    /// The same over the socket alone, of what takes its time.
    pub(super) async fn post_within(
        &self,
        path: &str,
        body: &Value,
        within: Duration,
    ) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(body), Ways::SocketOnly, within).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        ways: Ways,
        timeout: Duration,
    ) -> Result<Value, ClientError> {
        let send = |client: &reqwest::Client, base: &str| {
            let request = client.request(method.clone(), format!("{base}{path}")).timeout(timeout);
            match body {
                Some(body) => request.json(body),
                None => request,
            }
            .send()
        };
        let lost = |error: reqwest::Error| ClientError::Lost {
            method: method.clone(),
            path: path.to_owned(),
            reason: chain(&error),
        };
        let response = match send(&self.over_socket, "http://localhost").await {
            Ok(response) => response,
            Err(refused) if refused.is_connect() => match ways {
                Ways::SocketOnly if is_denied(&refused) => {
                    return Err(ClientError::NeedsRoot { socket: self.socket.clone() });
                }
                Ways::SocketOnly => {
                    return Err(ClientError::Unreachable { reasons: self.socket_reason(&refused) });
                }
                Ways::Any => match send(&self.over_tcp, &self.tcp_base).await {
                    Ok(response) => response,
                    Err(error) if error.is_connect() => {
                        let socket = self.socket_reason(&refused);
                        let reasons = format!("{socket}; {}: {}", self.tcp_base, root(&error));
                        return Err(ClientError::Unreachable { reasons });
                    }
                    Err(error) => return Err(lost(error)),
                },
            },
            Err(error) => return Err(lost(error)),
        };
        let status = response.status();
        let text = response.text().await.map_err(lost)?;
        let value = serde_json::from_str::<Value>(&text);
        if status.is_success() {
            return value.map_err(|error| ClientError::Lost {
                method,
                path: path.to_owned(),
                reason: format!("expected JSON, found {:?}: {error}", excerpt(&text)),
            });
        }
        let body = value.unwrap_or_else(|_| json!({"error": excerpt(&text)}));
        let of = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let sentence = match of("error") {
            "" => format!("{method} {path}: the daemon answered {status}"),
            said => said.to_owned(),
        };
        let code = match of("code") {
            "" => format!("HTTP_{}", status.as_u16()),
            code => code.to_owned(),
        };
        Err(ClientError::Refused { status, code, sentence, body: Box::new(body) })
    }

    fn socket_reason(&self, error: &reqwest::Error) -> String {
        format!("{}: {}", self.socket.display(), root(error))
    }
}

/// Whether the system forbade opening the socket.
fn is_denied(error: &reqwest::Error) -> bool {
    sources(error).any(|source| {
        source
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
    })
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The innermost reason.
fn root(error: &reqwest::Error) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

/// Every reason, outermost first.
fn chain(error: &reqwest::Error) -> String {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}
