//! `GET /versions` and `GET /failure-codes`.
//!
//! Called by [`super::answer`]. The look is made once for all who ask at once, as that of
//! `inspect`; over TCP it may be some seconds old. An `ETag` spares a dashboard the body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use warp::reply::Response;

use super::Asked;
use crate::api::access::Caller;
use crate::api::fresh::Lost;
use crate::api::{Api, answers};
use crate::inspect;
use crate::machine::failure::FailureCode;
use crate::plan::{offers, playbook};

/// How old an answer over TCP may be: policy, registry and core are asked for it.
const AGE: Duration = Duration::from_secs(10);

pub(super) async fn answer(api: &Arc<Api>, asked: &Asked) -> Response {
    let within = match asked.caller {
        Caller::Operator => Duration::ZERO,
        Caller::Tcp(_) => AGE,
    };
    let looked = api.versions.get(within, || {
        let api = Arc::clone(api);
        async move {
            let (settings, engine) = (&api.settings, api.engine.as_ref());
            let quarantined = inspect::quarantined(engine, Some(&api.reader)).await?;
            let versions = offers::look(settings, engine, quarantined).await;
            serde_json::to_vec(&versions).map(Bytes::from).map_err(|error| error.to_string())
        }
    });
    let failed = |message: &str| {
        answers::error(StatusCode::INTERNAL_SERVER_ERROR, "VERSIONS_FAILED", message)
    };
    match looked.await {
        Ok(Ok(versions)) => tagged(versions, asked),
        Ok(Err(error)) => failed(&error),
        Err(Lost) => failed("the look failed because of a fault in payram-updater; see its log"),
    }
}

/// 304 without a body when the client has this one.
fn tagged(body: Bytes, asked: &Asked) -> Response {
    let hash = Sha256::digest(&body);
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hex}\"");
    let known = asked.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| {
        known
            .split(',')
            .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
    });
    let mut response = answers::ready_json(if is_known { Bytes::new() } else { body });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// Every code that a plan or a job may end with.
pub(super) fn failure_codes() -> Value {
    let codes: Vec<Value> = FailureCode::ALL
        .iter()
        .map(|code| {
            let book = playbook::playbook(code.as_str(), &playbook::Facts::default());
            json!({
                "code": code.as_str(),
                "severity": book.severity,
                "dataRisk": book.data_risk,
                "title": book.title,
            })
        })
        .collect();
    json!({"count": codes.len(), "failureCodes": codes})
}
