//! What is heard from cores, friendly and hostile, over real loopback connections.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::app::fake::FakeEngine;

mod searching;
pub(super) mod tls;

/// Patient enough for a machine that is busy with other tests, and quick to give up.
fn probe() -> Probe {
    Probe { base: None, within: Duration::from_secs(2), database_port: 5432 }
}

fn place(url: &Url) -> Place {
    Place { url: url.clone(), is_own: false }
}

async fn find(container: &Value) -> Result<Url, Silent> {
    probe().find(&FakeEngine::default(), container).await.map(|place| place.url)
}

async fn find_at(base: &Url, container: &Value) -> Result<Url, Silent> {
    let probe = Probe { base: Some(base.clone()), ..probe() };
    probe.find(&FakeEngine::default(), container).await.map(|place| place.url)
}

async fn health(url: &Url, rules: &CoreRules) -> Health {
    probe().health(&place(url), rules).await
}

async fn version(url: &Url, rules: &CoreRules, container: &Value) -> Result<String, Silent> {
    probe().version(&place(url), rules, container).await
}

/// An address of this host that is not loopback; none, said aloud, without a network.
pub(super) fn own_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: the kernel only says from where it would be (TEST-NET-1, RFC 5737).
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let found = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    match found {
        Ok(address) => Some(address.ip()),
        Err(error) => {
            eprintln!("skipped: this machine has no address but loopback: {error}");
            None
        }
    }
}

/// An HTTP server on a free port; ends when it is dropped.
struct Server {
    url: Url,
    port: u16,
    _tasks: JoinSet<()>,
}

/// A server that answers each path with these bytes, verbatim, and closes.
async fn server(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Server {
    let answer = Arc::new(answer);
    serve(move |path, mut connection| {
        let answer = Arc::clone(&answer);
        async move {
            let _ = connection.write_all(&answer(&path)).await;
        }
    })
    .await
}

/// A server that does what it likes with a connection whose request has been read.
async fn serve<F>(talk: impl Fn(String, TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    serve_at("127.0.0.1:0", talk).await
}

/// The same, at this address.
async fn serve_at<F>(
    address: &str,
    talk: impl Fn(String, TcpStream) -> F + Send + 'static,
) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let Ok(length) = connection.read(&mut request).await else { continue };
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            connections.spawn(talk(path, connection));
        }
    });
    let url = Url::parse(&format!("http://127.0.0.1:{port}/")).expect("a URL");
    Server { url, port, _tasks: tasks }
}

fn response(status: u16, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn core_that_says(version: &'static str) -> Server {
    server(move |path| match path {
        "/" => response(200, "<h1>Welcome to Payram Core</h1>"),
        "/api/v1/health" => response(200, r#"{"status":"ok","db":"ok"}"#),
        "/api/v1/version" => response(200, format!(r#"{{"version":"{version}"}}"#)),
        _ => response(404, ""),
    })
    .await
}

/// The inspection of a running container that publishes these host ports.
fn publishing(ports: &[u16]) -> Value {
    let bindings: Vec<Value> = ports
        .iter()
        .map(|port| json!({"HostIp": "0.0.0.0", "HostPort": port.to_string()}))
        .collect();
    json!({"NetworkSettings": {"Ports": {"80/tcp": bindings}}})
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

fn api() -> CoreRules {
    CoreRules::Api { health_path: HEALTH_PATH.into() }
}

/// What an operator reads of a health answer.
async fn health_of(status: u16, body: &str) -> Result<(), String> {
    let body = body.to_owned();
    let core = server(move |_| response(status, &body)).await;
    match health(&core.url, &api()).await {
        Health::Healthy => Ok(()),
        Health::Unhealthy { found } => Err(found),
        Health::Silent { reason } => panic!("it answered: {reason}"),
    }
}

#[tokio::test]
async fn the_core_is_the_published_port_that_welcomes() {
    let other = server(|_| response(200, "<h1>Grafana</h1>")).await;
    let core = core_that_says("1.9.7").await;
    let ports = publishing(&[other.port, free_port(), core.port]);
    assert_eq!(find(&ports).await, Ok(core.url.clone()));
}

#[tokio::test]
async fn of_two_cores_the_lower_port_is_taken_though_it_answers_last() {
    let asked = Arc::new(Notify::new());
    let cores = [0, 1].map(|_| {
        let asked = Arc::clone(&asked);
        async move {
            serve(move |_, mut connection| {
                let asked = Arc::clone(&asked);
                async move {
                    let port = connection.local_addr().expect("its address").port();
                    let lower = LOWER.load(std::sync::atomic::Ordering::SeqCst);
                    // The lower one waits until the higher has been asked.
                    if port == lower {
                        asked.notified().await
                    } else {
                        asked.notify_one()
                    }
                    let _ = connection.write_all(&response(200, WELCOME)).await;
                }
            })
            .await
        }
    });
    static LOWER: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let cores = futures_util::future::join_all(cores).await;
    let lower = cores.iter().min_by_key(|core| core.port).expect("two");
    LOWER.store(lower.port, std::sync::atomic::Ordering::SeqCst);
    let ports = publishing(&[cores[0].port, cores[1].port]);
    assert_eq!(find(&ports).await, Ok(lower.url.clone()));
}

#[tokio::test]
async fn a_redirect_is_shown_and_not_followed() {
    let core = core_that_says("1.9.7").await;
    let target = core.url.to_string();
    let redirecting = server(move |_| {
        format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n").into()
    })
    .await;
    let silent = find(&publishing(&[redirecting.port])).await.expect_err("no core");
    let expected = format!("{} answered 302, a redirect to {}", redirecting.url, core.url);
    assert!(silent.to_string().contains(&expected), "{silent}");
}

#[tokio::test]
async fn a_silent_search_says_what_each_port_answered() {
    let failing = server(|_| response(500, format!("{WELCOME} is broken"))).await;
    let refused = free_port();
    let silent = find(&publishing(&[failing.port, refused])).await.expect_err("no core");
    let silent = silent.to_string();
    assert!(silent.contains(&format!("{} answered 500: {WELCOME} is broken", failing.url)));
    assert!(
        silent.contains(&format!("http://127.0.0.1:{refused}/: Connection refused")),
        "{silent}"
    );
}

#[tokio::test]
async fn a_container_without_anywhere_to_ask_says_why() {
    for (container, why) in [
        (json!({}), "has no address of its own"),
        (
            json!({"HostConfig": {"NetworkMode": "container:vpn"}}),
            "of container vpn, which is gone",
        ),
    ] {
        let silent = find(&container).await.expect_err("nothing to ask").to_string();
        assert!(silent.contains("nowhere to ask for the core") && silent.contains(why), "{silent}");
    }
}

#[tokio::test]
async fn a_base_url_wins_and_must_welcome() {
    let published = core_that_says("1.9.7").await;
    let ports = publishing(&[published.port]);
    let proxied = server(|path| match path {
        "/core" => response(200, WELCOME),
        _ => response(200, "<h1>Loading…</h1>"),
    })
    .await;
    let base = proxied.url.join("core").expect("a URL");
    assert_eq!(find_at(&base, &ports).await, Ok(base.clone()));
    let front = find_at(&proxied.url, &ports).await.expect_err("only a front end");
    assert!(front.to_string().contains("answered 200: <h1>Loading…</h1>"), "{front}");
    let nobody = Url::parse(&format!("http://127.0.0.1:{}/", free_port())).expect("a URL");
    let silent = find_at(&nobody, &ports).await.expect_err("nobody");
    assert!(silent.to_string().starts_with("no PayRam core answers at CORE_BASE_URL: http://"));
}

#[tokio::test]
async fn a_core_with_a_self_signed_certificate_is_found_on_loopback() {
    let Some(url) = tls::server(WELCOME) else { return };
    let port = url.port().expect("a port");
    assert_eq!(find(&publishing(&[port])).await, Ok(url));
}

#[tokio::test]
async fn health_is_status_ok_and_a_database_that_is_ok_or_not_mentioned() {
    for body in [r#"{"status":"ok"}"#, r#"{"status":"ok","db":"ok","uptime":3}"#] {
        assert_eq!(health_of(200, body).await, Ok(()), "{body}");
    }
    for (status, body, expected) in [
        (503, r#"{"status":"ok"}"#, "answered 503: {\"status\":\"ok\"}; expected 200"),
        (201, r#"{"status":"ok"}"#, "expected 200"),
        (200, r#"{"status":"starting"}"#, "expected status \"ok\""),
        (200, r#"{"status":"ok","db":"down"}"#, "expected db \"ok\" or none"),
        (200, r#"{"status":"ok","db":null}"#, "expected db \"ok\" or none"),
        (200, r#"["ok"]"#, "expected status \"ok\""),
        (200, "ok", "expected JSON"),
        (200, "", "answered 200 without a body; expected JSON"),
    ] {
        let found = health_of(status, body).await.expect_err("unhealthy");
        assert!(found.contains(expected), "{body}: {found}");
    }
}

#[tokio::test]
async fn health_is_asked_where_the_manifest_says_and_only_on_the_cores_host() {
    // A base with a path keeps it, with and without a slash at its end.
    let below = server(|path| match path {
        "/core/api/v1/version" => response(200, r#"{"version":"1.9.7"}"#),
        _ => response(404, ""),
    })
    .await;
    for base in ["core", "core/"] {
        let base = below.url.join(base).expect("a URL");
        assert_eq!(version(&base, &api(), &json!({})).await, Ok("1.9.7".into()));
    }
    let core = server(|path| match path {
        "/ready?deep=1" | "//elsewhere.example/health" => response(200, r#"{"status":"ok"}"#),
        _ => response(404, ""),
    })
    .await;
    for path in ["/ready?deep=1", "//elsewhere.example/health"] {
        let rules = CoreRules::Api { health_path: path.into() };
        assert_eq!(health(&core.url, &rules).await, Health::Healthy, "{path}");
    }
    let absolute = rules_for("1.9.7", None, Some("http://elsewhere.example/health"));
    let Health::Unhealthy { found } = health(&core.url, &absolute).await else { panic!("404") };
    assert!(found.starts_with(core.url.as_str()), "{found}");
}

#[tokio::test]
async fn a_core_that_does_not_answer_is_silent() {
    let nobody = Url::parse(&format!("http://127.0.0.1:{}/", free_port())).expect("a URL");
    let Health::Silent { reason } = health(&nobody, &api()).await else { panic!("nobody") };
    assert!(reason.contains("/api/v1/health: Connection refused"), "{reason}");
    let hanging = serve(|_, connection| async move {
        let _held = connection;
        std::future::pending::<()>().await;
    })
    .await;
    let Health::Silent { reason } = health(&hanging.url, &api()).await else { panic!("hangs") };
    assert!(reason.contains("no whole answer within 2 s"), "{reason}");
}

#[tokio::test]
async fn a_body_without_end_is_read_to_a_limit() {
    let endless = serve(|_, mut connection| async move {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        if connection.write_all(head).await.is_ok() {
            while connection.write_all(&[b' '; 8192]).await.is_ok() {}
        }
    })
    .await;
    let Health::Unhealthy { found } = health(&endless.url, &api()).await else { panic!("bad") };
    assert!(found.contains("larger than 65536 bytes"), "{found}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_shown_harmlessly() {
    let body = [&b"\xff\xfe\x1b[2J\x07"[..], &[b'x'; 5000]].concat();
    let hostile = server(move |_| response(200, &body)).await;
    let Health::Unhealthy { found } = health(&hostile.url, &api()).await else { panic!("bad") };
    assert!(!found.contains(char::is_control) && found.len() < 600, "{found}");
    let silent = version(&hostile.url, &api(), &json!({})).await.expect_err("no version");
    assert!(!silent.to_string().contains(char::is_control), "{silent}");
}

#[tokio::test]
async fn the_version_is_what_the_core_reports() {
    let core = core_that_says("v1.9.7").await;
    assert_eq!(version(&core.url, &api(), &json!({})).await, Ok("v1.9.7".into()));
}

#[tokio::test]
async fn a_version_that_cannot_be_one_is_an_error_with_what_was_found() {
    for (status, body) in [
        (404, "no such page".to_owned()),
        (200, "1.9.7".to_owned()),
        (200, r#"{"version":7}"#.to_owned()),
        (200, r#"{"version":"  "}"#.to_owned()),
        (200, r#"{"version":"1.9.7\u001b[2J"}"#.to_owned()),
        (200, format!(r#"{{"version":"{}"}}"#, "9".repeat(1000))),
    ] {
        let shown = body.clone();
        let core = server(move |_| response(status, &body)).await;
        let silent = version(&core.url, &api(), &json!({})).await.expect_err("no version");
        assert!(silent.to_string().contains(&format!("answered {status}: ")), "{shown}: {silent}");
    }
}

#[tokio::test]
async fn a_legacy_core_is_healthy_when_it_welcomes_and_has_its_version_on_the_label() {
    let core = core_that_says("unused").await;
    assert_eq!(health(&core.url, &CoreRules::Legacy).await, Health::Healthy);
    let other = server(|_| response(200, "starting")).await;
    let Health::Unhealthy { found } = health(&other.url, &CoreRules::Legacy).await else {
        panic!("it does not welcome")
    };
    assert!(found.contains("starting; expected 200 and `Welcome to Payram Core`"), "{found}");
    let labelled = json!({"Config": {"Labels": {VERSION_LABEL: "1.8.3"}}});
    let found = version(&core.url, &CoreRules::Legacy, &labelled).await;
    assert_eq!(found, Ok("1.8.3".into()));
    let bare = version(&core.url, &CoreRules::Legacy, &json!({"Config": {"Labels": null}})).await;
    assert!(bare.expect_err("no label").to_string().contains(VERSION_LABEL));
}

#[test]
fn a_leading_v_and_the_architecture_make_no_other_version() {
    assert!(is_same_version("v1.9.7", "1.9.7-arm64"));
    assert!(is_same_version(" 1.9.7-amd64", "1.9.7"));
    assert!(!is_same_version("1.9.7", "1.9.70"));
    assert!(!is_same_version("1.9.7", "1.9.7-rc.1"));
}

#[test]
fn versions_below_the_first_with_an_api_are_asked_the_old_way() {
    for version in ["1.9.5", "v1.9.5-arm64", "1.9.6-rc.1"] {
        assert_eq!(rules_for(version, Some("1.9.6"), None), CoreRules::Legacy, "{version}");
    }
    for (version, first) in
        [("1.9.6", Some("v1.9.6")), ("1.0.0", None), ("edge", Some("1.9.6")), ("1.0.0", Some("x"))]
    {
        assert_eq!(rules_for(version, first, None), api(), "{version}");
    }
    let health_path = "/ready".to_owned();
    assert_eq!(rules_for("2.0.0", None, Some(" ready ")), CoreRules::Api { health_path });
    assert_eq!(rules_for("2.0.0", None, Some(" ")), api());
}
