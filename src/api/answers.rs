//! Answers as HTTP: status, type, JSON. Pure.

use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};
use warp::Reply;
use warp::reply::Response;

use super::access::Refusal;
use crate::clock::Timestamp;
use crate::journal::HistoryEvent;

/// 200 with JSON.
pub(super) fn json(value: &impl Serialize) -> Response {
    with_status(StatusCode::OK, value)
}

/// This status with JSON.
pub(super) fn with_status(status: StatusCode, value: &impl Serialize) -> Response {
    let reply = warp::reply::with_status(warp::reply::json(value), status);
    let mut response = reply.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 200 with plain text.
pub(super) fn text(text: String) -> Response {
    let mut response = text.into_response();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An error as JSON: `{"error": "<sentence>", "code": "<CODE>"}`.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    with_status(status, &error_body(code, message))
}

/// The body of an error.
pub(super) fn error_body(code: &str, message: &str) -> Value {
    json!({"error": message, "code": code})
}

/// A refused request.
pub(super) fn refusal(refusal: &Refusal) -> Response {
    error(refusal.status, refusal.code, &refusal.message)
}

/// 405 with what the path knows.
pub(super) fn wrong_method(allow: &'static str) -> Response {
    let message = format!("this path knows {allow} only");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", &message);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The events of the history.
pub(super) fn history(events: &[HistoryEvent]) -> Value {
    json!({"events": events, "count": events.len()})
}

/// A log line as the text endpoint and the commands show it.
pub(super) fn log_line(at: Timestamp, text: &str) -> String {
    format!("{} {text}", at.rfc3339())
}
