//! Where the container engine listens: `DOCKER_HOST`, else the command line tool's active
//! context, else the default socket.
//!
//! Called once by [`super::Docker::connect`]; opens no connection, so that the daemon starts
//! (and can say so) while the engine is down.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use url::Url;

use crate::engine::EngineError;

/// Where Docker listens unless told otherwise.
const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";

/// How long the command line tool may take to name its context; it only reads a file.
const CONTEXT_DEADLINE: Duration = Duration::from_secs(5);

/// The port of `tcp://HOST` without one, as Docker's own client takes it.
const DEFAULT_TCP_PORT: u16 = 2375;

/// What an endpoint may look like.
const EXPECTED: &str = "expected unix:///PATH, tcp://HOST:PORT or http://HOST:PORT";

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// As it was given, for messages.
    pub(super) shown: String,
    /// What request paths are appended to; the host is a placeholder behind a socket.
    pub(super) base: Url,
    /// The Unix socket, `None` for TCP.
    pub(super) socket: Option<PathBuf>,
}

impl Endpoint {
    /// The endpoint that the settings name, else the active context of `docker_bin`, else the
    /// default socket.
    ///
    /// # Errors
    /// `Unreachable` when what is named is no endpoint that this client can use.
    pub(super) async fn find(
        docker_bin: &str,
        docker_host: Option<&str>,
    ) -> Result<Self, EngineError> {
        if let Some(host) = docker_host.map(str::trim).filter(|host| !host.is_empty()) {
            return Self::parse(host);
        }
        match active_context(docker_bin).await {
            Ok(host) => Self::parse(&host),
            Err(why) => {
                tracing::info!("{docker_bin} names no context ({why}): {DEFAULT_ENDPOINT} is used");
                Self::parse(DEFAULT_ENDPOINT)
            }
        }
    }

    /// Reads `unix:///PATH`, `tcp://HOST[:PORT]` or `http://HOST[:PORT]`.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::unix(text, path);
        }
        if text.starts_with("tcp://") || text.starts_with("http://") {
            return Self::tcp(text);
        }
        Err(unusable(text, EXPECTED))
    }

    fn unix(text: &str, path: &str) -> Result<Self, EngineError> {
        if !path.starts_with('/') {
            return Err(unusable(text, &format!("the socket's path is not absolute; {EXPECTED}")));
        }
        let base = Url::parse("http://docker/").map_err(|error| unusable(text, &error))?;
        Ok(Self { shown: text.to_owned(), base, socket: Some(PathBuf::from(path)) })
    }

    fn tcp(text: &str) -> Result<Self, EngineError> {
        let given = Url::parse(text).map_err(|error| unusable(text, &error))?;
        if !given.username().is_empty() || given.password().is_some() {
            // The text is not repeated: it holds a password (I10).
            let scheme = format!("{}://…", given.scheme());
            return Err(unusable(&scheme, &format!("credentials are not supported; {EXPECTED}")));
        }
        let host = given.host_str().filter(|host| !host.is_empty());
        let (Some(host), None, None) = (host, given.query(), given.fragment()) else {
            return Err(unusable(text, EXPECTED));
        };
        let port = match given.scheme() {
            "tcp" => given.port().unwrap_or(DEFAULT_TCP_PORT),
            _ => given.port_or_known_default().unwrap_or(80),
        };
        let base = format!("http://{host}:{port}{}", given.path());
        let base = Url::parse(&base).map_err(|error| unusable(text, &error))?;
        Ok(Self { shown: text.to_owned(), base, socket: None })
    }
}

fn unusable(endpoint: &str, reason: &(impl std::fmt::Display + ?Sized)) -> EngineError {
    EngineError::Unreachable { endpoint: endpoint.to_owned(), reason: reason.to_string() }
}

/// The endpoint of the active context, or why there is none.
async fn active_context(docker_bin: &str) -> Result<String, String> {
    let mut command = Command::new(docker_bin);
    command
        .args(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        // Where it is set it was looked at already; here it would hide the context.
        .env_remove("DOCKER_HOST")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(CONTEXT_DEADLINE, command.output())
        .await
        .map_err(|_| format!("no answer in {} s", CONTEXT_DEADLINE.as_secs()))?
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()));
    }
    let host = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if host.is_empty() { Err("its endpoint is empty".to_owned()) } else { Ok(host) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn base(text: &str) -> String {
        Endpoint::parse(text).expect("an endpoint").base.to_string()
    }

    #[test]
    fn a_unix_socket_is_a_path() {
        let endpoint = Endpoint::parse("unix:///run/user/0/docker.sock").expect("an endpoint");
        assert_eq!(endpoint.socket.as_deref(), Some(Path::new("/run/user/0/docker.sock")));
        assert_eq!(endpoint.shown, "unix:///run/user/0/docker.sock");
    }

    #[test]
    fn tcp_is_http_on_the_port_that_is_named() {
        assert_eq!(base("tcp://10.0.0.5:2376"), "http://10.0.0.5:2376/");
        assert_eq!(base("tcp://10.0.0.5:80"), "http://10.0.0.5/");
        assert_eq!(base("tcp://engine"), "http://engine:2375/");
        assert_eq!(base("tcp://[::1]:2375"), "http://[::1]:2375/");
        assert_eq!(base("http://engine:8080/proxy"), "http://engine:8080/proxy");
        assert_eq!(base("http://engine"), "http://engine/");
    }

    #[test]
    fn anything_else_is_refused_with_what_is_expected() {
        for text in ["ssh://root@host", "npipe:////./pipe/x", "https://h:1", "docker.sock", "fd://"]
        {
            let error = Endpoint::parse(text).expect_err(text).to_string();
            assert!(error.contains(text) && error.contains(EXPECTED), "{error}");
        }
        for text in ["unix://", "unix://docker.sock", "tcp://", "tcp://h:99999", "tcp://h:1?x=y"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_the_endpoint_is_not_repeated() {
        let error = Endpoint::parse("tcp://root:hunter2@host:2375").expect_err("refused");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn docker_host_wins_over_the_context() {
        let found = Endpoint::find("/nonexistent/docker", Some("tcp://h:1")).await;
        assert_eq!(found.expect("an endpoint").shown, "tcp://h:1");
    }

    #[tokio::test]
    async fn without_a_docker_tool_the_default_socket_is_used() {
        for bin in ["/nonexistent/docker", "/bin/false", "/bin/true"] {
            let found = Endpoint::find(bin, None).await.expect("an endpoint");
            assert_eq!(found.shown, DEFAULT_ENDPOINT, "{bin}");
        }
    }

    #[tokio::test]
    async fn the_active_context_names_the_endpoint() {
        let directory = tempfile::tempdir().expect("a directory");
        let tool = directory.path().join("docker");
        std::fs::write(&tool, "#!/bin/sh\necho unix:///run/other.sock\n").expect("written");
        std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).expect("executable");
        let tool = tool.to_str().expect("text");
        let found = Endpoint::find(tool, Some("  ")).await.expect("an endpoint");
        assert_eq!(found.shown, "unix:///run/other.sock");
    }
}
