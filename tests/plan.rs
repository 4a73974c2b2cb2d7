//! Plans against the outside: what is fetched, from where, within what bounds, and which code
//! an operator gets when it does not work. Loopback only.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use payram_updater::config::{
    BackupProof, LogFormat, PgDefaults, Resume, RollbackDatabase, Settings,
};
use payram_updater::engine::{
    Change, ContainerSummary, Engine, EngineError, EngineEvent, EngineFacts, Exec, ExecRequest,
    Process, PullProgress,
};
use payram_updater::journal::Mode;
use payram_updater::plan::{self, Plan, PlanState, Request, fetch};
use payram_updater::secret::Secret;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const POLICY: &str = include_str!("fixtures/plan/upgrade-policy.json");
const MANIFEST: &str = include_str!("fixtures/plan/runtime-manifest.json");

fn settings(policy_url: &str, manifest_url: &str, directory: &Path) -> Settings {
    Settings {
        port: 0,
        policy_url: policy_url.to_owned(),
        manifest_url: manifest_url.to_owned(),
        fetch_timeout: Duration::from_secs(10),
        state_dir: directory.to_owned(),
        run_dir: directory.to_owned(),
        docker_bin: "docker".to_owned(),
        docker_host: None,
        backup_dir: directory.join("backups"),
        backup_retention: NonZeroU32::MIN,
        backup_timeout: Duration::from_secs(600),
        backup_proof: BackupProof::Toc,
        backup_copy_command: None,
        pg: PgDefaults {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            database: "payram".to_owned(),
            user: "payram".to_owned(),
            password: Secret::default(),
        },
        debug_version_mode: false,
        image_repo_override: None,
        target_container_name: Some("payram".to_owned()),
        core_base_url: None,
        answer_timeout: Duration::from_secs(10),
        pull_silence: Duration::from_secs(600),
        dry_run: false,
        supervisor_exclude: Vec::new(),
        supervisor_include: None,
        allowed_hosts: Vec::new(),
        rollback_database: RollbackDatabase::Lossless,
        resume: Resume::Resume,
        start_timeout: Duration::from_secs(900),
        health_timeout: Duration::from_secs(60),
        verify_for: Duration::from_secs(20),
        probation: Duration::from_secs(900),
        keep_previous: Duration::from_secs(72 * 3600),
        auto_update_window: payram_updater::config::window::Window::default(),
        notify_url: None,
        notify_secret: None,
        rehearsal_dir: "/var/tmp".into(),
        rehearsal_within: Duration::from_secs(1800),
        log: String::new(),
        log_format: LogFormat::Text,
    }
}

/// Answers by path: `/STATUS` that status, `/hops/N` N redirects to the policy, `/huge` and
/// `/endless` more than is read, `/silent` nothing, `/drip` a body that never ends,
/// everything else the policy.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let target = text.split_whitespace().nth(1).unwrap_or("/");
                let path = target.split('?').next().unwrap_or("/").to_owned();
                // A client that has seen enough hangs up: not an error here.
                answer(&mut stream, &path).await.ok();
            });
        }
    });
    address
}

async fn answer(stream: &mut tokio::net::TcpStream, path: &str) -> std::io::Result<()> {
    let whole = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let redirects = path.strip_prefix("/hops/").and_then(|n| n.parse::<u32>().ok());
    let reply = match (path, redirects) {
        (_, Some(0)) => whole("302 Found", "Location: /policy\r\n", ""),
        (_, Some(n)) => whole("302 Found", &format!("Location: /hops/{}\r\n", n - 1), ""),
        ("/404", None) => whole("404 Not Found", "", POLICY),
        ("/204", None) => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
        ("/huge", None) => "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n".to_owned(),
        ("/html", None) => whole("200 OK", "", "<html>not found</html>"),
        ("/wrong", None) => whole("200 OK", "", r#"{"releases": "1.0.0", "image": []}"#),
        ("/manifest", None) => whole("200 OK", "", MANIFEST),
        ("/endless", None) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 65536]).await?;
            }
        }
        ("/silent", None) => {
            // Until the client hangs up.
            stream.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
        ("/drip", None) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await?;
            stream.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
        (_, None) => whole("200 OK", "", POLICY),
    };
    stream.write_all(reply.as_bytes()).await
}

async fn policy_failure(settings: &Settings) -> (String, String) {
    let failure = fetch::policy(settings).await.expect_err("the policy can't be had");
    (failure.code.to_string(), failure.message)
}

#[tokio::test]
async fn policy_and_manifest_are_fetched_by_http() {
    let at = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    let url = |path: &str| format!("http://{at}/{path}");
    let settings = settings(&url("policy"), &url("manifest"), directory.path());
    let policy = fetch::policy(&settings).await.expect("the policy");
    assert_eq!(policy.latest.as_deref(), Some("3.3.0"));
    let manifest = fetch::manifest(&settings).await.expect("the manifest");
    assert_eq!(manifest.image_repo, "payramapp/payram");
}

#[tokio::test]
async fn policy_and_manifest_are_read_from_a_path() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let (policy, manifest) = (place("policy", POLICY), place("manifest", MANIFEST));
    let settings = settings(&policy, &manifest, directory.path());
    assert!(fetch::policy(&settings).await.is_ok());
    assert!(fetch::manifest(&settings).await.is_ok());
}

#[tokio::test]
async fn every_way_not_to_get_a_policy_says_what_was_expected_and_found() {
    let at = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    let large = directory.path().join("large");
    std::fs::write(&large, vec![b' '; 1024 * 1024 + 1]).expect("a file");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = free.local_addr().expect("bound");
    drop(free);
    let cases = [
        (format!("http://{at}/404"), "POLICY_FETCH_FAILED", "expected status 200, found 404"),
        (format!("http://{at}/204"), "POLICY_FETCH_FAILED", "expected status 200, found 204"),
        (
            format!("http://{at}/huge"),
            "POLICY_FETCH_FAILED",
            "at most 1048576 bytes, found 1048577",
        ),
        (
            format!("http://{at}/endless"),
            "POLICY_FETCH_FAILED",
            "at most 1048576 bytes, found more",
        ),
        (format!("http://{at}/html"), "POLICY_INVALID_JSON", "line 1 column 1"),
        (
            format!("http://{at}/wrong"),
            "POLICY_INVALID_JSON",
            "field releases: expected a list, found a text",
        ),
        (format!("http://{at}/hops/5"), "POLICY_FETCH_FAILED", "more than 5 redirects"),
        (format!("http://{nobody}/"), "POLICY_FETCH_FAILED", "onnection refused"),
        ("/not/there.json".to_owned(), "POLICY_FETCH_FAILED", "No such file"),
        (directory.path().to_string_lossy().into_owned(), "POLICY_FETCH_FAILED", "expected a file"),
        (
            large.to_string_lossy().into_owned(),
            "POLICY_FETCH_FAILED",
            "at most 1048576 bytes, found 1048577",
        ),
        ("ftp://127.0.0.1/p".to_owned(), "POLICY_FETCH_FAILED", "expected http://, https://"),
    ];
    for (place, code, part) in cases {
        let (found, message) = policy_failure(&settings(&place, "", directory.path())).await;
        assert_eq!(found, code, "{place}: {message}");
        assert!(message.contains(part), "{place}: {message}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_finish_in_time_is_given_up() {
    let at = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    for path in ["silent", "drip"] {
        let mut settings = settings(&format!("http://{at}/{path}"), "", directory.path());
        settings.fetch_timeout = Duration::from_millis(200);
        let (code, message) = policy_failure(&settings).await;
        assert_eq!(code, "POLICY_FETCH_FAILED", "{message}");
        assert!(message.contains("0.2 s") || message.contains("timed out"), "{message}");
    }
}

#[tokio::test]
async fn five_redirects_are_followed() {
    let at = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(&format!("http://{at}/hops/4"), "", directory.path());
    assert!(fetch::policy(&settings).await.is_ok());
}

#[tokio::test]
async fn the_manifests_failures_have_codes_of_their_own() {
    let at = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    for (path, code) in [
        ("404", "MANIFEST_FETCH_FAILED"),
        ("html", "MANIFEST_INVALID_JSON"),
        ("wrong", "MANIFEST_INVALID_JSON"),
    ] {
        let settings = settings("", &format!("http://{at}/{path}"), directory.path());
        let failure = fetch::manifest(&settings).await.expect_err("no manifest");
        assert_eq!(failure.code.as_str(), code, "{}", failure.message);
    }
}

#[tokio::test]
async fn a_password_in_an_address_is_in_no_message() {
    let at = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    for path in ["404?token=hunter2", "html?token=hunter2", "hops/9?token=hunter2"] {
        let place = format!("http://user:hunter2@{at}/{path}");
        let (_, message) = policy_failure(&settings(&place, "", directory.path())).await;
        assert!(!message.contains("hunter2"), "{message}");
    }
}

async fn plan(policy: &str, manifest: &str, mode: Mode, target: &str) -> Plan {
    let directory = tempfile::tempdir().expect("a directory");
    let request = Request {
        mode,
        requested_target: target.to_owned(),
        source: None,
        current_version: None,
        force: false,
    };
    let plan = plan::make(&settings(policy, manifest, directory.path()), &NoEngine, &request).await;
    assert_eq!(plan.state, PlanState::Failed);
    assert!(plan.job.is_none());
    plan
}

#[tokio::test]
async fn what_is_wrong_with_the_request_or_the_policy_is_said_before_the_engine_is_asked() {
    let at = server().await;
    let url = |path: &str| format!("http://{at}/{path}");
    let (good, manifest) = (url("policy"), url("manifest"));
    let cases = [
        (url("404"), manifest.clone(), Mode::Dashboard, "latest", "POLICY_FETCH_FAILED"),
        (url("html"), manifest.clone(), Mode::Dashboard, "1.9.7", "POLICY_INVALID_JSON"),
        (url("404"), manifest.clone(), Mode::Manual, "latest", "POLICY_REQUIRED"),
        (good.clone(), url("404"), Mode::Manual, "1.9.7", "MANIFEST_FETCH_FAILED"),
        (good.clone(), manifest.clone(), Mode::Dashboard, "9.9.9", "VERSION_NOT_IN_POLICY"),
        (good.clone(), manifest.clone(), Mode::Manual, "newest", "INVALID_TARGET"),
        (good, manifest, Mode::Dashboard, "latest", "DOCKER_DAEMON_DOWN"),
    ];
    for (policy, manifest, mode, target, code) in cases {
        let found = plan(&policy, &manifest, mode, target).await;
        assert_eq!(found.refusal(), Some(code), "{}", found.message);
        assert!(!found.message.is_empty());
    }
}

#[tokio::test]
async fn what_became_known_before_a_refusal_stays_in_the_plan() {
    let at = server().await;
    let found = plan(
        &format!("http://{at}/policy"),
        &format!("http://{at}/manifest"),
        Mode::Dashboard,
        "latest",
    )
    .await;
    assert_eq!(found.refusal(), Some("DOCKER_DAEMON_DOWN"));
    assert_eq!(found.resolved_target, "3.3.0");
    assert_eq!(found.image_repo, "payramapp/payram");
    assert_eq!(found.checks.len(), 1);
    assert!(!found.checks[0].passed && found.checks[0].message.contains("unix:///nowhere"));
}

#[tokio::test]
async fn a_policy_that_cannot_be_fetched_does_not_stop_manual_mode() {
    let at = server().await;
    let found =
        plan(&format!("http://{at}/404"), &format!("http://{at}/manifest"), Mode::Manual, "v1.9.7")
            .await;
    assert_eq!(found.refusal(), Some("DOCKER_DAEMON_DOWN"));
    assert_eq!(found.resolved_target, "1.9.7");
    assert!(found.notes[0].contains("found 404"), "{:?}", found.notes);
}

/// An engine at an endpoint where nobody listens.
struct NoEngine;

fn nobody<T>() -> Result<T, EngineError> {
    Err(EngineError::Unreachable {
        endpoint: "unix:///nowhere".to_owned(),
        reason: "nobody listens".to_owned(),
    })
}

#[async_trait]
impl Engine for NoEngine {
    fn endpoint(&self) -> String {
        "unix:///nowhere".to_owned()
    }
    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        nobody()
    }
    async fn containers(&self, _: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError> {
        nobody()
    }
    async fn inspect_container(&self, _: &str) -> Result<Option<Value>, EngineError> {
        nobody()
    }
    async fn inspect_image(&self, _: &str) -> Result<Option<Value>, EngineError> {
        nobody()
    }
    async fn inspect_network(&self, _: &str) -> Result<Option<Value>, EngineError> {
        nobody()
    }
    async fn registry_image(
        &self,
        _: &str,
        _: &str,
    ) -> Result<payram_updater::engine::RegistryImage, payram_updater::engine::RegistryNo> {
        Err(payram_updater::engine::RegistryNo::Unknown("there is no registry".to_owned()))
    }
    async fn registry_digest(&self, _: &str, _: &str) -> Result<String, String> {
        Err("there is no registry".to_owned())
    }
    async fn create_container(&self, _: &str, _: &Value) -> Result<String, EngineError> {
        nobody()
    }
    async fn connect_network(&self, _: &str, _: &str, _: &Value) -> Result<(), EngineError> {
        nobody()
    }
    async fn start(&self, _: &str) -> Result<(), EngineError> {
        nobody()
    }
    async fn stop(&self, _: &str, _: Option<Duration>) -> Result<(), EngineError> {
        nobody()
    }
    async fn rename(&self, _: &str, _: &str) -> Result<(), EngineError> {
        nobody()
    }
    async fn set_restart_policy(&self, _: &str, _: &Value) -> Result<(), EngineError> {
        nobody()
    }
    async fn remove(&self, _: &str) -> Result<(), EngineError> {
        nobody()
    }
    async fn exec(&self, _: &str, _: ExecRequest) -> Result<Exec, EngineError> {
        nobody()
    }
    async fn exec_exit_code(&self, _: &str) -> Result<Option<i64>, EngineError> {
        nobody()
    }
    async fn pull(
        &self,
        _: &str,
        _: &str,
        _: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), EngineError> {
        nobody()
    }
    async fn logs(&self, _: &str, _: usize) -> Result<String, EngineError> {
        nobody()
    }
    async fn events(&self) -> Result<BoxStream<'static, Result<Value, EngineError>>, EngineError> {
        nobody()
    }
    async fn inspect_volume(&self, _: &str) -> Result<Option<Value>, EngineError> {
        nobody()
    }
    async fn processes(&self, _: &str) -> Result<Vec<Process>, EngineError> {
        nobody()
    }
    async fn changes(&self, _: &str) -> Result<Vec<Change>, EngineError> {
        nobody()
    }
    async fn archive(
        &self,
        _: &str,
        _: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        nobody()
    }
    async fn kill(&self, _: &str) -> Result<(), EngineError> {
        nobody()
    }
    async fn events_between(
        &self,
        _: &str,
        _: i64,
        _: i64,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        nobody()
    }
}
