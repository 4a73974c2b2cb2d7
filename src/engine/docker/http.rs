//! One request to the engine and its answer: API version, deadline, and what a failure means.
//!
//! Called by the verbs of this module's parent. Every connection serves one request: with a
//! pool, a connection that died with the engine's restart would turn a request that was never
//! read into an `Unknown`. Repeats a request only when the engine refused its API version.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{CONNECTION, HeaderValue, UPGRADE};
use reqwest::{Method, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::version::ApiVersion;
use crate::engine::EngineError;
use crate::secret::Secret;

/// How long a TCP connection may take to be made; a Unix socket is made at once.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The most that is kept of one answer; the inspection of a container is some 10 KB.
const LARGEST_ANSWER: usize = 32 << 20;

/// The most that is kept of a refusal's sentence.
const LARGEST_REFUSAL: usize = 2_000;

/// Bytes as they arrive.
pub(super) type ByteStream = BoxStream<'static, Result<Bytes, EngineError>>;

/// How long the engine may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For an answer to a question.
    pub(super) read: Duration,
    /// For a change: creating copies volumes, removing deletes layers.
    pub(super) change: Duration,
    /// For a stop, beyond the container's grace.
    pub(super) stop_margin: Duration,
    /// Between two pieces of a stream that must not fall silent.
    pub(super) silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(30),
            change: Duration::from_secs(120),
            stop_margin: Duration::from_secs(30),
            silence: Duration::from_secs(600),
        }
    }
}

/// A request that was not sent yet. Has no `Debug`: the body may hold secrets (I10).
pub(super) struct Call {
    doing: String,
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    deadline: Duration,
    takes_over: bool,
    registry_login: Option<Secret<String>>,
}

impl Call {
    /// A request to `/vX.Y/path…`; `doing` says in errors what was asked, to what.
    pub(super) fn new(
        method: Method,
        path: &[&str],
        doing: impl Into<String>,
        deadline: Duration,
    ) -> Self {
        Self {
            doing: doing.into(),
            method,
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            query: Vec::new(),
            body: None,
            deadline,
            takes_over: false,
            registry_login: None,
        }
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// Sends this JSON.
    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Hands the engine a login for the registry that it is to ask (Engine API v1.41,
    /// "Authentication").
    pub(super) fn registry_login(mut self, login: Option<Secret<String>>) -> Self {
        self.registry_login = login;
        self
    }

    /// Asks to take the connection over for raw bytes in both directions (Engine API v1.41,
    /// "Hijacking").
    pub(super) fn taking_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    /// What was asked, for errors about the rest of the answer.
    pub(super) fn doing(&self) -> &str {
        &self.doing
    }

    fn url(&self, base: &Url, version: ApiVersion) -> Result<Url, EngineError> {
        // `url` drops such segments, and the request would go to another resource.
        if let Some(bad) = self.path.iter().find(|part| matches!(part.as_str(), "" | "." | "..")) {
            let message = format!("not sent: `{bad}` can't be a name");
            return Err(self.refused(StatusCode::BAD_REQUEST.as_u16(), message));
        }
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| self.protocol(format!("{base} can't carry a path")))?
            .pop_if_empty()
            .push(&format!("v{version}"))
            .extend(&self.path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }

    /// The engine's no.
    pub(super) fn refused(&self, status: u16, message: String) -> EngineError {
        EngineError::Refused { doing: self.doing.clone(), status, message }
    }

    /// No answer, or half of one.
    pub(super) fn unknown(&self, reason: String) -> EngineError {
        EngineError::Unknown { doing: self.doing.clone(), reason }
    }

    /// An answer that is none.
    pub(super) fn protocol(&self, reason: String) -> EngineError {
        EngineError::Protocol { doing: self.doing.clone(), reason }
    }

    /// Waits for a part of the answer, but not beyond the deadline.
    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        answer: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::time::timeout(deadline, answer)
            .await
            .unwrap_or_else(|_| Err(self.unknown(format!("timed out after {deadline:?}"))))
    }
}

/// The connection to one engine.
pub(super) struct Http {
    endpoint: Endpoint,
    client: reqwest::Client,
    agreed: Mutex<Option<ApiVersion>>,
    pub(super) deadlines: Deadlines,
}

impl Http {
    /// Prepares to talk to `endpoint`; the engine need not be there yet.
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, EngineError> {
        let mut builder = crate::http::client_builder()
            // The engine is reached without TLS, so a host without certificates is fine.
            .tls_certs_only([])
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE)
            .pool_max_idle_per_host(0);
        if let Some(socket) = &endpoint.socket {
            builder = builder.unix_socket(socket.as_path());
        }
        let client = builder.build().map_err(|error| EngineError::Unreachable {
            endpoint: endpoint.shown.clone(),
            reason: format!("no HTTP client: {}", crate::http::reason(&error)),
        })?;
        Ok(Self { endpoint, client, agreed: Mutex::new(None), deadlines: Deadlines::default() })
    }

    /// Where the engine is, for messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint.shown
    }

    /// Sends `call` and answers when the engine's head has come; the body is the caller's.
    pub(super) async fn ask(&self, call: &Call) -> Result<Response, EngineError> {
        call.within(call.deadline, self.send(call)).await
    }

    /// Sends `call` and waits for the end of the answer, which says nothing more.
    pub(super) async fn done(&self, call: &Call) -> Result<(), EngineError> {
        call.within(call.deadline, async {
            let response = self.send(call).await?;
            whole(call, response).await.map(drop)
        })
        .await
    }

    /// Sends `call` and reads the answer as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, EngineError> {
        let bytes = call
            .within(call.deadline, async {
                let response = self.send(call).await?;
                whole(call, response).await
            })
            .await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| call.protocol(format!("its JSON is not as expected: {error}")))
    }

    /// Like [`Http::json`], with `None` for 404.
    pub(super) async fn found(&self, call: &Call) -> Result<Option<Value>, EngineError> {
        match self.json(call).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND.as_u16()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends `call` and answers with its body as it arrives.
    pub(super) async fn stream(&self, call: &Call) -> Result<ByteStream, EngineError> {
        let response = self.ask(call).await?;
        let doing = call.doing.clone();
        let bytes = response.bytes_stream().map(move |piece| {
            piece.map_err(|error| EngineError::Unknown {
                doing: doing.clone(),
                reason: crate::http::reason(&error),
            })
        });
        Ok(bytes.boxed())
    }

    /// The API version that both sides speak, agreed on at the first contact.
    pub(super) async fn api_version(&self) -> Result<ApiVersion, EngineError> {
        let agreed = *self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        match agreed {
            Some(version) => Ok(version),
            None => self.negotiate().await,
        }
    }

    /// Asks the engine for its newest API version (`GET /_ping`, header `Api-Version`).
    pub(super) async fn negotiate(&self) -> Result<ApiVersion, EngineError> {
        let call = Call::new(Method::GET, &[], "agree on an API version", self.deadlines.read);
        let mut url = self.endpoint.base.clone();
        url.path_segments_mut()
            .map_err(|()| call.protocol("its endpoint can't carry a path".to_owned()))?
            .pop_if_empty()
            .push("_ping");
        let newest = call
            .within(call.deadline, async {
                let response = self.exchange(&call, url).await?;
                let header = response.headers().get("api-version").cloned();
                whole(&call, response).await?;
                header.ok_or_else(|| call.protocol("`/_ping` names no Api-Version".to_owned()))
            })
            .await?;
        let newest: ApiVersion =
            newest.to_str().unwrap_or_default().parse().map_err(|why| call.protocol(why))?;
        let version = newest.agreed().ok_or_else(|| {
            call.protocol(format!("it speaks {newest}, expected {} or newer", ApiVersion::OLDEST))
        })?;
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        Ok(version)
    }

    async fn send(&self, call: &Call) -> Result<Response, EngineError> {
        let version = self.api_version().await?;
        match self.exchange(call, call.url(&self.endpoint.base, version)?).await {
            Err(refusal) if refuses_version(&refusal) => {
                // Another engine answers since its restart. Nothing was done: it only refused.
                let agreed = self.negotiate().await?;
                if agreed == version {
                    return Err(refusal);
                }
                self.exchange(call, call.url(&self.endpoint.base, agreed)?).await
            }
            answer => answer,
        }
    }

    async fn exchange(&self, call: &Call, url: Url) -> Result<Response, EngineError> {
        tracing::trace!(method = %call.method, path = url.path(), "engine request");
        let mut request = self.client.request(call.method.clone(), url);
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        if call.takes_over {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let login = call.registry_login.as_ref().map(|login| HeaderValue::from_str(login.expose()));
        // It is base64, which every header may hold.
        if let Some(Ok(mut login)) = login {
            login.set_sensitive(true);
            request = request.header("X-Registry-Auth", login);
        }
        let response = request.send().await.map_err(|error| self.unanswered(call, &error))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(call.refused(status.as_u16(), sentence(response).await));
        }
        let as_expected = match call.takes_over {
            true => status == StatusCode::SWITCHING_PROTOCOLS,
            false => status.is_success() || status == StatusCode::NOT_MODIFIED,
        };
        if !as_expected {
            return Err(call.protocol(format!("unexpected status {status}")));
        }
        Ok(response)
    }

    fn unanswered(&self, call: &Call, error: &reqwest::Error) -> EngineError {
        let reason = crate::http::reason(error);
        if error.is_connect() || error.is_builder() {
            let endpoint = self.endpoint.shown.clone();
            return EngineError::Unreachable { endpoint, reason };
        }
        call.unknown(reason)
    }
}

async fn whole(call: &Call, mut response: Response) -> Result<Bytes, EngineError> {
    let mut bytes = BytesMut::new();
    loop {
        let piece =
            response.chunk().await.map_err(|error| call.unknown(crate::http::reason(&error)))?;
        let Some(piece) = piece else { return Ok(bytes.freeze()) };
        if bytes.len() + piece.len() > LARGEST_ANSWER {
            return Err(call.protocol(format!("its answer is larger than {LARGEST_ANSWER} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
}

/// The engine's sentence: `{"message": "…"}`, else the text, else the status' own name.
async fn sentence(mut response: Response) -> String {
    let status = response.status();
    let mut bytes = Vec::new();
    // A body that breaks off takes nothing from the status, which is the answer.
    while let Ok(Some(piece)) = response.chunk().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() > LARGEST_REFUSAL {
            break;
        }
    }
    let json: Option<Value> = serde_json::from_slice(&bytes).ok();
    let message = json.as_ref().and_then(|json| json.get("message")).and_then(Value::as_str);
    let text = match message {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&bytes).chars().take(LARGEST_REFUSAL).collect(),
    };
    match text.trim() {
        "" => status.canonical_reason().unwrap_or("it did not say why").to_owned(),
        text => text.to_owned(),
    }
}

/// `client version 1.48 is too new. Maximum supported API version is 1.41` and its opposite.
fn refuses_version(error: &EngineError) -> bool {
    match error {
        EngineError::Refused { status: 400, message, .. } => {
            message.contains("client version") && message.contains("is too ")
        }
        EngineError::Refused { .. }
        | EngineError::Unreachable { .. }
        | EngineError::Unknown { .. }
        | EngineError::Protocol { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeEngine, answer};
    use super::*;

    fn http(endpoint: &str) -> Http {
        Http::new(Endpoint::parse(endpoint).expect("an endpoint")).expect("a client")
    }

    fn get(path: &[&str]) -> Call {
        Call::new(Method::GET, path, "read it", Duration::from_secs(20))
    }

    #[tokio::test]
    async fn a_version_that_a_restarted_engine_refuses_is_agreed_on_again() {
        let pings = std::sync::atomic::AtomicUsize::new(0);
        let engine = FakeEngine::start(move |line| match line {
            "GET /_ping HTTP/1.1" => match pings.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => answer(200, &["Api-Version: 1.52"], "OK"),
                _ => answer(200, &["Api-Version: 1.41"], "OK"),
            },
            "GET /v1.48/info HTTP/1.1" => answer(
                400,
                &[],
                r#"{"message":"client version 1.48 is too new. Maximum supported API version is 1.41"}"#,
            ),
            "GET /v1.41/info HTTP/1.1" => answer(200, &[], r#"{"ok":true}"#),
            other => answer(500, &[], other),
        })
        .await;
        let http = http(&engine.endpoint());
        let value: Value = http.json(&get(&["info"])).await.expect("an answer");
        assert_eq!(value, serde_json::json!({"ok": true}));
        assert_eq!(http.api_version().await.expect("agreed").to_string(), "1.41");
    }

    #[tokio::test]
    async fn a_refusal_carries_the_engines_own_sentence() {
        let engine = FakeEngine::start(|line| match line {
            "GET /_ping HTTP/1.1" => answer(200, &["Api-Version: 1.41"], "OK"),
            _ => answer(409, &[], r#"{"message":"container is paused"}"#),
        })
        .await;
        let error = http(&engine.endpoint()).done(&get(&["x"])).await.expect_err("refused");
        assert_eq!(
            error.to_string(),
            "read it: the container engine answered 409: container is paused"
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_no_json_is_not_the_protocol() {
        let engine = FakeEngine::start(|line| match line {
            "GET /_ping HTTP/1.1" => answer(200, &["Api-Version: 1.41"], "OK"),
            _ => answer(200, &[], "<html>"),
        })
        .await;
        let answer = http(&engine.endpoint()).json::<Value>(&get(&["x"])).await;
        assert!(matches!(answer, Err(EngineError::Protocol { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_named_with_what_is_expected() {
        let engine = FakeEngine::start(|_| answer(200, &["Api-Version: 1.23"], "OK")).await;
        let error = http(&engine.endpoint()).api_version().await.expect_err("too old");
        assert!(error.to_string().contains("it speaks 1.23, expected 1.25 or newer"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_after_the_request_leaves_it_unknown() {
        let engine = FakeEngine::start(|line| match line {
            "GET /_ping HTTP/1.1" => answer(200, &["Api-Version: 1.41"], "OK"),
            "GET /v1.41/half HTTP/1.1" => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".into(),
            _ => String::new(),
        })
        .await;
        let http = http(&engine.endpoint());
        for path in ["half", "nothing"] {
            let error = http.done(&get(&[path])).await.expect_err("broken");
            assert!(error.is_unknown(), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_unreachable() {
        let error = http("unix:///nonexistent/docker.sock").api_version().await.expect_err("none");
        assert!(
            error.to_string().starts_with(
                "container engine at unix:///nonexistent/docker.sock is unreachable: No such file"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_name_never_leads_to_another_resource() {
        let base = Url::parse("http://docker/").expect("a URL");
        let url = get(&["containers", "a/../b?c#d", "json"]).url(&base, ApiVersion::NEWEST);
        assert_eq!(
            url.expect("a URL").as_str(),
            "http://docker/v1.48/containers/a%2F..%2Fb%3Fc%23d/json"
        );
        for name in ["", ".", ".."] {
            let error = get(&["containers", name, "json"]).url(&base, ApiVersion::NEWEST);
            assert_eq!(error.expect_err("refused").status(), Some(400), "{name}");
        }
    }
}
