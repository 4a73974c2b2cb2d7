//! The forms of the engine's answers: JSON, frames, streams of lines (Engine API v1.41).
//!
//! Called by `http` and whatever answers a request of its own; decides nothing.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// The engine's no.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: u16,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Of the disk that the world is kept on.
    pub fn disk(doing: &str, error: &std::io::Error) -> Self {
        Self::new(500, format!("{doing}: {error}"))
    }
}

/// What a verb of the world comes to.
pub(super) type Answer<T> = Result<T, Refusal>;

/// What every request is answered with.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn reply(status: u16, kind: &'static str, body: Bytes) -> Reply {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// One JSON value.
pub(super) fn json(status: u16, value: &Value) -> Reply {
    reply(status, "application/json", Bytes::from(value.to_string()))
}

/// `{"message": …}`
pub(super) fn refused(refusal: &Refusal) -> Reply {
    json(refusal.status, &json!({"message": refusal.message}))
}

/// Nothing more to say: 204, or 304 when it was so already.
pub(super) fn done(is_change: bool) -> Reply {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() =
        if is_change { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED };
    response
}

/// The answer of `/_ping`, which names the API's version.
pub(super) fn ping(version: &'static str) -> Reply {
    let mut response = reply(200, "text/plain", Bytes::from_static(b"OK"));
    response.headers_mut().insert("api-version", HeaderValue::from_static(version));
    response
}

/// The connection is the command's from here on.
pub(super) fn switching() -> Reply {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// A tar archive.
pub(super) fn archive(tar: Vec<u8>) -> Reply {
    reply(200, "application/x-tar", Bytes::from(tar))
}

/// Both outputs of a command or a container, interleaved.
pub(super) fn frames(out: &[u8], err: &[u8]) -> Reply {
    let kind = "application/vnd.docker.raw-stream";
    reply(200, kind, Bytes::from(framed(out, err)))
}

fn framed(out: &[u8], err: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (stream, content) in [(1, out), (2, err)] {
        for piece in content.chunks(32 * 1024) {
            bytes.extend([stream, 0, 0, 0]);
            // A piece has 32 KiB at most.
            bytes.extend((piece.len() as u32).to_be_bytes());
            bytes.extend(piece);
        }
    }
    bytes
}

/// A command's standard input, until its writer has shut it down.
pub(super) async fn read_to_end(
    connection: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    connection.read_to_end(&mut input).await?;
    Ok(input)
}

/// A command's outputs on the connection that it has taken over.
pub(super) async fn write_frames(
    connection: &mut (impl tokio::io::AsyncWrite + Unpin),
    out: &[u8],
    err: &[u8],
) -> std::io::Result<()> {
    connection.write_all(&framed(out, err)).await?;
    connection.shutdown().await
}

/// One value on each line, as they come.
pub(super) fn lines(receiver: mpsc::Receiver<Value>) -> Reply {
    let values = stream::unfold(receiver, |mut receiver| async {
        let value = receiver.recv().await?;
        let line = Bytes::from(format!("{value}\r\n"));
        Some((Ok::<_, Infallible>(Frame::data(line)), receiver))
    });
    let mut response = Response::new(StreamBody::new(values).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_of_output_stands_behind_its_stream_and_length() {
        assert_eq!(framed(b"ab", b"c"), b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01c");
        assert_eq!(framed(&[7; 40_000], b"").len(), 40_000 + 2 * 8);
    }
}
