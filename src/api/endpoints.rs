//! What each endpoint answers (contract sections 1 and 3).
//!
//! Called by [`super::listen`] with a request that access control has let through. Those that
//! tell what the journal holds are in `reads`, those that plan an upgrade or ask the driver for
//! something in `orders`.

mod orders;
mod reads;

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use warp::reply::Response;

use super::access::{self, Caller};
use super::answers;
use super::routes::{self, Endpoint, NoRoute};
use super::{Api, events};
use crate::inspect;
use crate::journal::{JournalError, Reader};

/// A request, after access control.
pub(super) struct Asked {
    pub caller: Caller,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Answers a request.
pub(super) async fn answer(api: Arc<Api>, method: &Method, path: &str, asked: Asked) -> Response {
    let endpoint = match routes::endpoint(method, path) {
        Ok(endpoint) => endpoint,
        Err(NoRoute::WrongMethod { allow }) => return answers::wrong_method(allow),
        Err(NoRoute::UnknownPath) => {
            let message = format!("there is nothing at {path:?}");
            return answers::error(StatusCode::NOT_FOUND, "NOT_FOUND", &message);
        }
    };
    if let (Caller::Tcp(_), &Method::POST) = (asked.caller, method)
        && let Err(refusal) = access::check_content_type(&asked.headers)
    {
        return answers::refusal(&refusal);
    }
    let answered = match endpoint {
        Endpoint::Health => Ok(answers::json(&health(&api))),
        Endpoint::Status => reads::status(&api).await,
        Endpoint::Last => reads::last(&api).await,
        Endpoint::Logs => reads::logs(&api, &asked.query).await,
        Endpoint::Playbook => reads::playbook(&api).await,
        Endpoint::Inspect => {
            let blocked = api.driver.blocked();
            let engine = api.engine.as_ref();
            let report =
                inspect::inspect(&api.settings, engine, &api.reader, blocked.as_deref()).await;
            Ok(answers::json(&report))
        }
        Endpoint::Events => Ok(events::stream(Arc::clone(&api), &asked.headers)),
        Endpoint::History => reads::history(&api, &asked.query).await,
        Endpoint::Plan => orders::make_plan(&api, &asked).await,
        Endpoint::Run => orders::run(&api, &asked).await,
        Endpoint::Cancel => orders::cancel(&api, &asked).await,
        Endpoint::Recover => orders::recover(&api, &asked).await,
        Endpoint::Sync => orders::sync(&api, &asked).await,
    };
    match answered {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "the journal can't be read");
            let message = error.to_string();
            answers::error(StatusCode::INTERNAL_SERVER_ERROR, "JOURNAL_ERROR", &message)
        }
    }
}

/// Reads the journal where it may block.
pub(super) async fn read<T: Send + 'static>(
    api: &Api,
    read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let reader = Arc::clone(&api.reader);
    match tokio::task::spawn_blocking(move || read(&reader)).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The container that PayRam is known to run in: the setting, or the last job's.
pub(super) async fn container_name(api: &Api) -> Option<String> {
    if let Some(name) = &api.settings.target_container_name {
        return Some(name.clone());
    }
    let last = read(api, Reader::last_executed_job).await.ok().flatten();
    last.map(|job| job.body.container_name)
}

/// The daemon answers; `blocked` says why it does nothing else.
fn health(api: &Api) -> Value {
    let mut health = json!({"status": "ok"});
    if let Some(blocked) = api.driver.blocked() {
        health["blocked"] = blocked.into();
    }
    health
}
