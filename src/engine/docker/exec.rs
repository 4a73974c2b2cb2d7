//! Commands inside a running container.
//!
//! Called by the verbs `exec` and `exec_exit_code`. Constant memory: output is handed on as it
//! arrives and input is written when the command takes it, so whoever writes much must read
//! the output at the same time. Dropping both ends does not stop the command.

use futures_util::StreamExt;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWrite;
use tokio_util::io::ReaderStream;

use super::frames::frames;
use super::http::{ByteStream, Call, Http};
use super::short;
use crate::engine::{EngineError, Exec, ExecRequest};

/// The size of the pieces in which output is read where it shares the connection with input.
const READ_SIZE: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    exit_code: Option<i64>,
}

/// Creates and starts the command.
pub(super) async fn begin(
    http: &Http,
    container: &str,
    request: ExecRequest,
) -> Result<Exec, EngineError> {
    let program = request.argv.first().map(String::as_str).unwrap_or_default();
    let doing = format!("run `{program}` in container {}", short(container));
    let id = create(http, container, &request, &doing).await?;

    let start = Call::new(Method::POST, &["exec", &id, "start"], &doing, http.deadlines.change)
        .body(json!({"Detach": false, "Tty": false}));
    let (bytes, stdin) = if request.stdin {
        let start = start.taking_over();
        let (bytes, stdin) = take_over(&start, http.ask(&start).await?, http).await?;
        (bytes, Some(stdin))
    } else {
        (http.stream(&start).await?, None)
    };
    Ok(Exec { id, output: frames(doing, bytes), stdin })
}

/// The exit code of a command; `None` while it runs.
pub(super) async fn exit_code(http: &Http, id: &str) -> Result<Option<i64>, EngineError> {
    let doing = format!("read the exit code of exec {}", short(id));
    let call = Call::new(Method::GET, &["exec", id, "json"], doing, http.deadlines.read);
    let state: State = http.json(&call).await?;
    // Not running and without a code: the engine has not begun it yet.
    Ok(state.exit_code.filter(|_| !state.running))
}

async fn create(
    http: &Http,
    container: &str,
    request: &ExecRequest,
    doing: &str,
) -> Result<String, EngineError> {
    let env: Vec<String> =
        request.env.iter().map(|(key, value)| format!("{key}={}", value.expose())).collect();
    let mut body = json!({
        "AttachStdin": request.stdin,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": false,
        "Cmd": request.argv,
        "Env": env,
    });
    if let (Some(user), Some(fields)) = (&request.user, body.as_object_mut()) {
        fields.insert("User".to_owned(), json!(user));
    }
    let path = ["containers", container, "exec"];
    let call = Call::new(Method::POST, &path, doing, http.deadlines.change).body(body);
    let created: Created = http.json(&call).await?;
    Ok(created.id)
}

type Stdin = Box<dyn AsyncWrite + Send + Unpin>;

/// The two directions of a connection that is the command's own from here on.
///
/// Shutting the writing half down sends end of file and leaves the reading half open.
async fn take_over(
    call: &Call,
    response: Response,
    http: &Http,
) -> Result<(ByteStream, Stdin), EngineError> {
    let connection = call
        .within(http.deadlines.read, async {
            response.upgrade().await.map_err(|error| call.unknown(crate::http::reason(&error)))
        })
        .await?;
    let (output, stdin) = tokio::io::split(connection);
    let doing = call.doing().to_owned();
    let bytes = ReaderStream::with_capacity(output, READ_SIZE).map(move |piece| {
        piece.map_err(|error| EngineError::Unknown {
            doing: doing.clone(),
            reason: error.to_string(),
        })
    });
    Ok((bytes.boxed(), Box::new(stdin)))
}
