//! Pulling an image: the engine's progress stream, added up, and the errors inside it.
//!
//! Called by the verb `pull`. The answer's status is 200 as soon as the first line of progress
//! is out, so the stream's own `error` decides. Does not say which image came: the caller
//! inspects it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::http::{Call, Http};
use super::lines::values;
use crate::engine::{EngineError, PullProgress};

/// Between two questions to an engine that pulls in silence.
const ASK_EVERY: Duration = Duration::from_secs(20);

/// The status of an error that arrives in the stream without one of its own: where it comes
/// before the first line of progress, the engine answers the same errors with 404 or 500.
const STATUS_IN_STREAM: u16 = 500;

/// Pulls `repo:tag`, with the login that this host has for its registry, and tells `progress` of each change.
pub(super) async fn pull(
    http: &Http,
    repo: &str,
    tag: &str,
    progress: &mut (dyn FnMut(PullProgress) + Send),
) -> Result<(), EngineError> {
    let silence = http.deadlines.silence;
    // What can't be read of it is said by the plan; the engine asks without it then.
    let login = super::registry::login_for(repo).await.ok().flatten();
    let call =
        Call::new(Method::POST, &["images", "create"], format!("pull {repo}:{tag}"), silence)
            .query("fromImage", repo)
            .query("tag", tag)
            .registry_login(login.map(|login| login.header()));
    let mut lines = values(call.doing().to_owned(), http.stream(&call).await?);
    let mut layers = Layers::default();
    let mut told = PullProgress::default();
    loop {
        let next =
            next_line(http, &call, silence, async { lines.next().await.transpose() }).await?;
        let Some(line) = next else { return Ok(()) };
        let line: Line = serde_json::from_value(line)
            .map_err(|error| call.protocol(format!("its progress is not as expected: {error}")))?;
        if let Some((status, message)) = line.failure() {
            return Err(call.refused(status, message));
        }
        layers.fold(&line);
        let now = layers.sum();
        if now != told {
            told = now;
            progress(now);
        }
    }
}

/// The next line, however long the engine unpacks in silence: a big layer on a slow disk takes
/// minutes without a word. Meanwhile the engine is asked whether it is there at all; nothing heard
/// for the whole of `silence` is not known to go on.
async fn next_line<T>(
    http: &Http,
    call: &Call,
    silence: Duration,
    line: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let mut line = std::pin::pin!(line);
    let asking = async {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            if let Err(error) = http.negotiate().await {
                return call.unknown(format!("the engine fell silent: {error}"));
            }
        }
    };
    call.within(silence, async {
        tokio::select! {
            line = &mut line => line,
            error = asking => Err(error),
        }
    })
    .await
}

/// One line of the stream (`jsonmessage.JSONMessage` of the engine).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    id: Option<String>,
    status: Option<String>,
    progress_detail: Option<Detail>,
    error: Option<String>,
    error_detail: Option<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: Option<i64>,
    total: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    code: Option<Value>,
    message: Option<String>,
}

impl Line {
    /// The error that this line carries.
    fn failure(&self) -> Option<(u16, String)> {
        let detail = self.error_detail.as_ref();
        let message = detail.and_then(|detail| detail.message.clone()).or(self.error.clone())?;
        let code = detail.and_then(|detail| detail.code.as_ref()).and_then(Value::as_u64);
        let status = code.and_then(|code| u16::try_from(code).ok());
        let status = status.filter(|status| (400..600).contains(status));
        Some((status.unwrap_or(STATUS_IN_STREAM), message))
    }
}

/// How far each layer is, by its id.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, PullProgress>);

impl Layers {
    /// Takes one line in. Only the download is counted: unpacking goes over the same bytes.
    fn fold(&mut self, line: &Line) {
        let (Some(id), Some(status)) = (&line.id, line.status.as_deref()) else { return };
        let detail = line.progress_detail.as_ref();
        let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let current = count(detail.and_then(|detail| detail.current));
        let total = count(detail.and_then(|detail| detail.total));
        match status {
            "Downloading" => {
                let layer = self.0.entry(id.clone()).or_default();
                layer.received_bytes = current.unwrap_or(layer.received_bytes);
                // A registry that states no size: as much as has come, at the least.
                let total = total.unwrap_or(layer.total_bytes);
                layer.total_bytes = total.max(layer.received_bytes);
            }
            // A small layer may come without a line about its download; this is its size then.
            "Extracting" => {
                let layer = self.0.entry(id.clone()).or_default();
                layer.total_bytes = layer.total_bytes.max(total.unwrap_or(0));
                layer.received_bytes = layer.total_bytes;
            }
            // What exists already has no size here, and is nothing to receive.
            "Verifying Checksum" | "Download complete" | "Pull complete" | "Already exists" => {
                if let Some(layer) = self.0.get_mut(id) {
                    layer.received_bytes = layer.total_bytes;
                }
            }
            // `Pulling fs layer`, `Waiting`, `Pulling from …`: nothing to count.
            _ => {}
        }
    }

    fn sum(&self) -> PullProgress {
        self.0.values().fold(PullProgress::default(), |sum, layer| PullProgress {
            received_bytes: sum.received_bytes.saturating_add(layer.received_bytes),
            total_bytes: sum.total_bytes.saturating_add(layer.total_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeEngine, answer};
    use super::super::{Docker, Engine};
    use super::*;

    const TWO_LAYERS: &str = r#"
{"status":"Pulling from payramapp/payram","id":"1.9.7"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}
{"status":"Already exists","progressDetail":{},"id":"ccc"}
{"status":"Downloading","progressDetail":{"current":10,"total":100},"progress":"[>]","id":"aaa"}
{"status":"Downloading","progressDetail":{"current":5,"total":50},"id":"bbb"}
{"status":"Downloading","progressDetail":{"current":90,"total":100},"id":"aaa"}
{"status":"Verifying Checksum","progressDetail":{},"id":"aaa"}
{"status":"Extracting","progressDetail":{"current":32,"total":100},"id":"aaa"}
{"status":"Download complete","progressDetail":{},"id":"bbb"}
{"status":"Extracting","progressDetail":{"current":1,"total":7},"id":"ddd"}
{"status":"Pull complete","progressDetail":{},"id":"bbb"}
{"status":"Digest: sha256:0123"}
{"status":"Status: Downloaded newer image for payramapp/payram:1.9.7"}
"#;

    async fn engine_that_streams(stream: &'static str) -> FakeEngine {
        FakeEngine::start(move |line| match line {
            "GET /_ping HTTP/1.1" => answer(200, &["Api-Version: 1.41"], "OK"),
            "POST /v1.41/images/create?fromImage=h%3A5%2Fpayram&tag=1.9.7 HTTP/1.1" => {
                answer(200, &[], stream)
            }
            other => answer(500, &[], other),
        })
        .await
    }

    async fn pulled(engine: &FakeEngine) -> (Result<(), EngineError>, Vec<(u64, u64)>) {
        let docker = Docker::at(&engine.endpoint()).expect("a client");
        let mut seen = Vec::new();
        let mut note = |now: PullProgress| seen.push((now.received_bytes, now.total_bytes));
        let result = docker.pull("h:5/payram", "1.9.7", &mut note).await;
        (result, seen)
    }

    #[tokio::test]
    async fn progress_is_the_sum_of_the_layers_and_ends_complete() {
        let engine = engine_that_streams(TWO_LAYERS).await;
        let (result, seen) = pulled(&engine).await;
        result.expect("pulled");
        let expected =
            [(10, 100), (15, 150), (95, 150), (105, 150), (150, 150), (157, 157)].to_vec();
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn an_error_inside_the_stream_is_a_refusal_that_names_the_reference() {
        let engine = engine_that_streams(
            "{\"status\":\"Pulling from payram\",\"id\":\"1.9.7\"}\r\n\
             {\"errorDetail\":{\"message\":\"no space left on device\"},\"error\":\"no space\"}\r\n",
        )
        .await;
        let error = pulled(&engine).await.0.expect_err("refused");
        assert_eq!(
            error.to_string(),
            "pull h:5/payram:1.9.7: the container engine answered 500: no space left on device"
        );
    }

    #[test]
    fn an_error_keeps_the_status_that_it_carries() {
        let line: Line = serde_json::from_str(
            r#"{"errorDetail":{"code":401,"message":"denied"},"error":"denied"}"#,
        )
        .expect("a line");
        assert_eq!(line.failure(), Some((401, "denied".to_owned())));
        let line: Line = serde_json::from_str(r#"{"error":"gone"}"#).expect("a line");
        assert_eq!(line.failure(), Some((500, "gone".to_owned())));
    }

    #[test]
    fn numbers_that_no_engine_should_send_are_not_added() {
        let mut layers = Layers::default();
        for (current, total) in [(-1, -1), (7, 0), (i64::MAX, i64::MAX)] {
            layers.fold(&Line {
                id: Some(current.to_string()),
                status: Some("Downloading".to_owned()),
                progress_detail: Some(Detail { current: Some(current), total: Some(total) }),
                ..Line::default()
            });
        }
        assert_eq!(layers.sum().received_bytes, i64::MAX as u64 + 7);
        assert_eq!(layers.sum().total_bytes, i64::MAX as u64 + 7);
    }

    #[tokio::test]
    async fn an_engine_that_falls_silent_leaves_the_pull_unknown() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("tcp://{}", listener.local_addr().expect("its address"));
        let docker = Docker::at(&endpoint).expect("a client");
        let docker = docker.with_deadline(Duration::from_millis(50));
        // The connection is made by the kernel, and nobody ever accepts it.
        let result = docker.pull("payram", "1.9.7", &mut |_| {}).await;
        assert!(result.as_ref().is_err_and(EngineError::is_unknown), "{result:?}");
    }
}
