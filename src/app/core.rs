//! The core server, asked from outside over its published port (contract section 4).

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use semver::Version;
use serde_json::Value;
use url::{Host, Url};

use crate::http;
use crate::machine::facts::CoreRules;

/// What the core says of itself on `/`.
const WELCOME: &str = "Welcome to Payram Core";

/// The label that names an image's version
/// (<https://github.com/opencontainers/image-spec/blob/main/annotations.md>).
const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// Where the core tells its version.
const VERSION_PATH: &str = "api/v1/version";

/// Where it tells its health when the manifest names no other path.
const HEALTH_PATH: &str = "/api/v1/health";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// For the whole of one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// As much of an answer as is read.
const BODY_LIMIT: usize = 64 * 1024;

/// As much of an answer as is shown.
const SHOWN: usize = 200;

/// The core does not answer as the core.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Silent(String);

/// What the core says of its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// 200, `status` ok, `db` absent or ok.
    Healthy,
    /// It answers something else.
    Unhealthy {
        /// What.
        found: String,
    },
    /// It does not answer.
    Silent {
        /// What the attempt met.
        reason: String,
    },
}

/// The core's URL: `base` when it is set, otherwise the published TCP port, first by HTTP, then
/// by HTTPS, that welcomes.
///
/// # Errors
/// [`Silent`] says what was tried and what each answered.
pub async fn find_core(base: Option<&Url>, container: &Value) -> Result<Url, Silent> {
    if let Some(base) = base {
        return match welcomes(base).await {
            Ok(()) => Ok(base.clone()),
            Err(reason) => Err(Silent(format!("{base} (CORE_BASE_URL): {reason}"))),
        };
    }
    let addresses = published(container);
    if addresses.is_empty() {
        return Err(Silent(
            "the container publishes no TCP port; CORE_BASE_URL names where its core answers"
                .into(),
        ));
    }
    let candidates: Vec<Url> = ["http", "https"]
        .iter()
        .flat_map(|scheme| addresses.iter().map(move |(ip, port)| url_of(scheme, *ip, *port)))
        .flatten()
        .collect();
    // All at once, and the first in order that welcomes: the answer is the same each time.
    let answers = join_all(candidates.iter().map(welcomes)).await;
    let mut refused = Vec::new();
    for (url, answer) in candidates.into_iter().zip(answers) {
        match answer {
            Ok(()) => return Ok(url),
            Err(reason) => refused.push(format!("{url}: {reason}")),
        }
    }
    Err(Silent(format!("nothing says {WELCOME:?}: {}", refused.join("; "))))
}

/// The addresses on this host that lead to the container's TCP ports, in the order of ports.
fn published(container: &Value) -> Vec<(IpAddr, u16)> {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let mut found = Vec::new();
    let tcp = |key: &str| key.strip_suffix("/tcp").and_then(|port| port.parse::<u16>().ok());
    if container["HostConfig"]["NetworkMode"] == "host" {
        let exposed = container["Config"]["ExposedPorts"].as_object();
        found.extend(
            exposed
                .into_iter()
                .flat_map(|ports| ports.keys())
                .filter_map(|key| Some((loopback, tcp(key)?))),
        );
    }
    for (key, bindings) in container["NetworkSettings"]["Ports"].as_object().into_iter().flatten() {
        if tcp(key).is_none() {
            continue;
        }
        for binding in bindings.as_array().into_iter().flatten() {
            let Some(port) = binding["HostPort"].as_str().and_then(|port| port.parse().ok()) else {
                continue;
            };
            let address = binding["HostIp"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
            let address = address.filter(|ip| !ip.is_unspecified()).unwrap_or(loopback);
            found.push((address, port));
        }
    }
    found.sort_by_key(|(ip, port)| (*port, *ip));
    found.dedup();
    found
}

fn url_of(scheme: &str, ip: IpAddr, port: u16) -> Option<Url> {
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    Url::parse(&format!("{scheme}://{host}:{port}/")).ok()
}

async fn welcomes(url: &Url) -> Result<(), String> {
    let (status, body) = ask(url).await?;
    if body.contains(WELCOME) {
        return Ok(());
    }
    Err(format!("answered {} {}", status.as_u16(), shown(&body)))
}

/// Asks for the health of a version.
pub async fn health(url: &Url, rules: &CoreRules) -> Health {
    match rules {
        CoreRules::Legacy => match welcomes(url).await {
            Ok(()) => Health::Healthy,
            Err(found) => Health::Unhealthy { found: format!("{url}: {found}") },
        },
        CoreRules::Api { health_path } => {
            let Ok(at) = url.join(health_path.trim_start_matches('/')) else {
                return Health::Silent { reason: format!("{health_path:?} is no path of {url}") };
            };
            match ask(&at).await {
                Ok((status, body)) if is_healthy(status, &body) => Health::Healthy,
                Ok((status, body)) => Health::Unhealthy {
                    found: format!(
                        "{at}: expected 200 with status ok, found {} {}",
                        status.as_u16(),
                        shown(&body)
                    ),
                },
                Err(reason) => Health::Silent { reason: format!("{at}: {reason}") },
            }
        }
    }
}

fn is_healthy(status: StatusCode, body: &str) -> bool {
    let Ok(answer) = serde_json::from_str::<Value>(body) else { return false };
    let database = &answer["db"];
    status == StatusCode::OK && answer["status"] == "ok" && (database.is_null() || database == "ok")
}

/// Asks which version answers.
///
/// # Errors
/// [`Silent`] when none is told.
pub async fn version(url: &Url, rules: &CoreRules, container: &Value) -> Result<String, Silent> {
    match rules {
        CoreRules::Legacy => label_version(container)
            .ok_or_else(|| Silent(format!("the container has no label {VERSION_LABEL}"))),
        CoreRules::Api { .. } => {
            let at = url.join(VERSION_PATH).map_err(|error| Silent(format!("{url}: {error}")))?;
            let (status, body) =
                ask(&at).await.map_err(|reason| Silent(format!("{at}: {reason}")))?;
            let answer: Option<Value> = serde_json::from_str(&body).ok();
            let told = answer.as_ref().and_then(|answer| answer["version"].as_str());
            match told.filter(|version| status == StatusCode::OK && !version.is_empty()) {
                Some(version) => Ok(version.to_owned()),
                None => Err(Silent(format!(
                    "{at}: expected 200 with a version, found {} {}",
                    status.as_u16(),
                    shown(&body)
                ))),
            }
        }
    }
}

/// The version that the container's label names.
pub fn label_version(container: &Value) -> Option<String> {
    let label = container["Config"]["Labels"][VERSION_LABEL].as_str()?;
    (!label.is_empty()).then(|| label.to_owned())
}

/// How a version is asked: below `since` by the legacy rules, otherwise by the API.
pub fn rules_for(version: &str, since: Option<&str>, health_path: Option<&str>) -> CoreRules {
    let is_below = match (lenient_version(version), since.and_then(lenient_version)) {
        (Some(version), Some(since)) => version < since,
        (Some(_) | None, _) => false,
    };
    if is_below {
        return CoreRules::Legacy;
    }
    CoreRules::Api { health_path: health_path.unwrap_or(HEALTH_PATH).to_owned() }
}

/// Whether two texts name one version: a leading `v` and an architecture at the end don't count.
pub fn is_same_version(a: &str, b: &str) -> bool {
    bare(a) == bare(b)
}

/// The version that a tag or an answer names, if it names one.
pub(super) fn lenient_version(text: &str) -> Option<Version> {
    Version::parse(bare(text)).ok()
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix('v').unwrap_or(text);
    ["-arm64", "-amd64"].iter().find_map(|arch| text.strip_suffix(arch)).unwrap_or(text)
}

/// Asks, and reads as much of the answer as is wanted.
async fn ask(url: &Url) -> Result<(StatusCode, String), String> {
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, async {
        let client = client(url)?;
        let mut response =
            client.get(url.clone()).send().await.map_err(|error| http::reason(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while body.len() < BODY_LIMIT {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(http::reason(&error)),
            }
        }
        body.truncate(BODY_LIMIT);
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    });
    match asked.await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

/// The client for a URL: only a loopback host may show a certificate that nobody signed.
fn client(url: &Url) -> Result<&'static Client, String> {
    static LOOPBACK: OnceLock<Result<Client, String>> = OnceLock::new();
    static ELSEWHERE: OnceLock<Result<Client, String>> = OnceLock::new();
    let is_loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let build = |builder: reqwest::ClientBuilder| {
        let builder = builder.redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT);
        builder.build().map_err(|error| http::reason(&error))
    };
    let client = if is_loopback || url.scheme() == "http" {
        LOOPBACK.get_or_init(|| {
            build(http::client_builder().tls_certs_only([]).tls_danger_accept_invalid_certs(true))
        })
    } else {
        ELSEWHERE.get_or_init(|| build(http::client_builder()))
    };
    client.as_ref().map_err(Clone::clone)
}

/// The beginning of an answer, on one line.
fn shown(body: &str) -> String {
    let beginning: String = body.chars().take(SHOWN).collect();
    let ellipsis = if beginning.len() < body.len() { "…" } else { "" };
    format!("{:?}{ellipsis}", beginning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers each path with these, until the test ends.
    async fn server(answers: &'static [(&'static str, &'static str)]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its number").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or("").to_owned();
                let answer = answers.iter().find(|(known, _)| *known == path);
                let text = answer.map_or("HTTP/1.1 404 Not Found\r\n\r\n", |(_, text)| text);
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        port
    }

    fn container(port: u16) -> Value {
        let port = port.to_string();
        json!({
            "Config": {"Labels": {"org.opencontainers.image.version": "1.9.0"}},
            "NetworkSettings": {"Ports": {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": port}, {"HostIp": "::", "HostPort": port}],
                "443/tcp": null,
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
            }},
        })
    }

    fn api() -> CoreRules {
        CoreRules::Api { health_path: "/api/v1/health".into() }
    }

    #[tokio::test]
    async fn the_core_is_found_behind_its_published_port_and_asked() {
        let port = server(&[
            ("/", "HTTP/1.1 200 OK\r\n\r\nWelcome to Payram Core\n"),
            ("/api/v1/health", "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\",\"db\":\"ok\"}"),
            ("/api/v1/version", "HTTP/1.1 200 OK\r\n\r\n{\"version\":\"v1.9.6\"}"),
        ])
        .await;
        let url = find_core(None, &container(port)).await.expect("found");
        assert_eq!(url.as_str(), format!("http://127.0.0.1:{port}/"));
        assert_eq!(health(&url, &api()).await, Health::Healthy);
        let told = version(&url, &api(), &container(port)).await.expect("told");
        assert!(is_same_version(&told, "1.9.6-arm64"), "{told}");
        assert_eq!(version(&url, &CoreRules::Legacy, &container(port)).await, Ok("1.9.0".into()));
        assert_eq!(health(&url, &CoreRules::Legacy).await, Health::Healthy);
    }

    #[tokio::test]
    async fn what_is_not_the_core_is_named_with_what_it_answered() {
        let port = server(&[
            ("/", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\nmoved"),
            ("/api/v1/health", "HTTP/1.1 500 Oops\r\n\r\n{\"status\":\"ok\"}"),
            ("/api/v1/version", "HTTP/1.1 200 OK\r\n\r\n\u{1b}[31mnot json"),
        ])
        .await;
        let silent = find_core(None, &container(port)).await.expect_err("no core").to_string();
        assert!(silent.contains("answered 302 \"moved\""), "{silent}");
        let url = Url::parse(&format!("http://127.0.0.1:{port}/")).expect("a URL");
        match health(&url, &api()).await {
            Health::Unhealthy { found } => assert!(found.contains("found 500"), "{found}"),
            other => panic!("expected unhealthy, found {other:?}"),
        }
        let silent = version(&url, &api(), &container(port)).await.expect_err("none").to_string();
        assert!(silent.contains("\\u{1b}[31mnot json"), "{silent}");
    }

    #[test]
    fn health_needs_status_and_a_database_that_is_well() {
        let ok = StatusCode::OK;
        assert!(is_healthy(ok, r#"{"status":"ok"}"#));
        assert!(!is_healthy(ok, r#"{"status":"ok","db":"down"}"#));
        assert!(!is_healthy(ok, r#"{"status":"degraded","db":"ok"}"#));
        assert!(!is_healthy(StatusCode::CREATED, r#"{"status":"ok"}"#));
        assert!(!is_healthy(ok, "ok"));
    }

    #[test]
    fn a_version_below_the_first_with_an_api_is_asked_the_old_way() {
        assert_eq!(rules_for("v1.9.5-arm64", Some("1.9.6"), None), CoreRules::Legacy);
        assert_eq!(rules_for("1.9.6", Some("1.9.6"), None), api());
        assert_eq!(rules_for("nightly", Some("1.9.6"), None), api());
        assert_eq!(rules_for("1.0.0", None, None), api());
    }
}
