//! What each endpoint answers (contract sections 1 and 3).
//!
//! Called by [`super::listen`] with a request that access control has let through. Those that
//! tell what the journal holds are in `reads` and `jobs`, what can be gone to in `versions`, what
//! a monitoring system asks in `metrics`, those that plan an upgrade or ask the driver for something
//! in `orders`, those of backups in `backups`, that of a rehearsal in `rehearse`.

mod backups;
mod jobs;
mod metrics;
mod orders;
mod paged;
mod reads;
mod rehearse;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use warp::reply::Response;

use super::access::{self, Caller};
use super::answers;
use super::asked::{Asked, read, read_much};
use super::fresh::Lost;
use super::routes::{self, Endpoint, NoRoute};
use super::{Api, events, openapi};
use crate::inspect::{self, Chain};
use crate::journal::Reader;
use crate::plan;

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
        Endpoint::Logs => reads::logs(&api, &asked, None).await,
        Endpoint::Jobs => jobs::list(&api, &asked).await,
        Endpoint::Job => jobs::one(&api, routes::job_of(path)).await,
        Endpoint::JobLogs => reads::logs(&api, &asked, Some(routes::job_of(path))).await,
        Endpoint::JobEvents => reads::history(&api, &asked, Some(routes::job_of(path))).await,
        Endpoint::Versions => Ok(versions::answer(&api, &asked).await),
        Endpoint::FailureCodes => Ok(answers::json(&versions::failure_codes())),
        Endpoint::Metrics => Ok(metrics::answer(&api).await),
        Endpoint::OpenApi => {
            Ok(answers::ready_json(Bytes::from_static(openapi::document().as_bytes())))
        }
        Endpoint::Playbook => reads::playbook(&api).await,
        Endpoint::Inspect => Ok(inspection(&api, asked.caller).await),
        Endpoint::Events => Ok(events::stream(&api, &asked)),
        Endpoint::History => reads::history(&api, &asked, None).await,
        Endpoint::Plan => orders::plan(&api, &asked).await,
        Endpoint::Run => orders::run(&api, &asked).await,
        Endpoint::Rehearse => rehearse::rehearse(&api, &asked).await,
        Endpoint::Cancel => orders::cancel(&api, &asked).await,
        Endpoint::Recover => orders::recover(&api, &asked).await,
        Endpoint::Sync => orders::sync(&api, &asked).await,
        Endpoint::Cleanup => orders::cleanup(&api, &asked).await,
        Endpoint::Backups => backups::list(&api).await,
        Endpoint::BackupCreate => backups::create(&api, &asked).await,
        Endpoint::BackupRestore => backups::restore(&api, &asked).await,
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

/// The report, made once for all who ask at once. Over TCP it may be a second old, so that
/// polling it costs nothing; an operator is told what is so now.
async fn inspection(api: &Arc<Api>, caller: Caller) -> Response {
    let within = match caller {
        Caller::Operator => Duration::ZERO,
        Caller::Tcp(_) => api.limits.inspect_age,
    };
    let looked = api.inspection.get(within, || {
        let api = Arc::clone(api);
        async move {
            let (engine, chain) = (api.engine.as_ref(), Chain::Watched(&api.chain));
            let seen = inspect::look(&api.settings, engine, Some((&api.reader, chain))).await;
            let report =
                api.driver.with_worker(|worker| inspect::judge(&api.settings, &seen, worker));
            serde_json::to_vec(&report).map(Bytes::from).map_err(|error| error.to_string())
        }
    });
    let failed = |message: &str| {
        tracing::error!(message, "inspect could not be answered");
        answers::error(StatusCode::INTERNAL_SERVER_ERROR, "INSPECT_FAILED", message)
    };
    match looked.await {
        Ok(Ok(report)) => answers::ready_json(report),
        Ok(Err(error)) => failed(&format!("the report could not be written: {error}")),
        Err(Lost) => {
            failed("the look at this host failed because of a fault in payram-updater; see its log")
        }
    }
}

/// How old what the manifest says of the container's name may be.
const MANIFEST_FRESH_FOR: Duration = Duration::from_secs(60);

/// The container that PayRam is known to run in: the setting, the last job's, or, where there was
/// none yet, the manifest's, as a plan would find it.
pub(super) async fn container_name(api: &Api) -> Option<String> {
    if let Some(name) = &api.settings.target_container_name {
        return Some(name.clone());
    }
    let last = read(api, Reader::last_executed_job).await.ok().flatten();
    if let Some(job) = last {
        return Some(job.body.container_name);
    }
    let look = || {
        let settings = Arc::clone(&api.settings);
        async move {
            let manifest = plan::fetch::manifest(&settings).await.ok()?;
            manifest.container_name(None).map(str::to_owned)
        }
    };
    api.manifest_name.get(MANIFEST_FRESH_FOR, look).await.ok().flatten()
}

/// The daemon answers; `blocked` says why it does nothing else.
fn health(api: &Api) -> Value {
    let mut health = json!({"status": "ok"});
    if let Some(blocked) = api.driver.blocked() {
        health["blocked"] = blocked.into();
    }
    health
}
