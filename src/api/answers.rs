//! Answers as HTTP: status, type, JSON. Pure.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::{Value, json};
use warp::Reply;
use warp::reply::Response;

use super::access::Refusal;
use crate::clock::Timestamp;

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

/// 200 with JSON that is written already.
pub(super) fn ready_json(text: Bytes) -> Response {
    let mut response = Response::new(text.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
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

/// A refused request. What is refused for the moment says when to ask again.
pub(super) fn refusal(refusal: &Refusal) -> Response {
    let mut response = error(refusal.status, refusal.code, &refusal.message);
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The same as the bytes of an answer, for a connection that is not served.
pub(super) fn raw(refusal: &Refusal) -> String {
    let body = error_body(refusal.code, &refusal.message).to_string();
    let again = match refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        true => "Retry-After: 1\r\n",
        false => "",
    };
    format!(
        "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{again}Connection: close\r\n\r\n{body}",
        refusal.status,
        body.len()
    )
}

/// 405 with what the path knows.
pub(super) fn wrong_method(allow: &'static str) -> Response {
    let message = format!("this path takes {allow} only");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", &message);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// A log line as the text endpoint and the commands show it.
pub(super) fn log_line(at: Timestamp, text: &str) -> String {
    format!("{} {text}", at.rfc3339())
}
