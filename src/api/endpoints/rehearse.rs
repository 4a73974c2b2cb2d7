//! `POST /upgrade/rehearse`: a version tried on a copy of the shop's data (contract section 1).
//!
//! Whoever access control lets through may ask for it: it stops nothing and changes nothing. It
//! takes memory and room for a while, so that over TCP each image may be tried once an hour.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;
use warp::reply::Response;

use super::{Asked, orders, read};
use crate::api::access::Caller;
use crate::api::{Api, answers};
use crate::clock::Timestamp;
use crate::journal::JournalError;
use crate::plan::PlanState;

/// How long one image is not tried again over TCP.
const AGAIN_AFTER_MS: i64 = 60 * 60 * 1000;

/// Begins one, of the first stop of the route.
pub(super) async fn rehearse(api: &Arc<Api>, asked: &Asked) -> Result<Response, JournalError> {
    let (request, _) = match orders::wanted(asked) {
        Ok(wanted) => wanted,
        Err(answer) => return Ok(*answer),
    };
    if let Some(active) = orders::under_way_or_rehearsed(api).await? {
        return Ok(orders::conflict(api, &active));
    }
    let plan = orders::planned(api, &request).await?;
    let answer = |job: &str, state: &str, version: &str, message: &str| {
        answers::json(&json!({
            "jobId": job,
            "state": state,
            "mode": plan.mode,
            "requestedTarget": plan.requested_target,
            "resolvedTarget": plan.resolved_target,
            "version": version,
            "failureCode": plan.failure_code,
            "message": message,
        }))
    };
    let (PlanState::Ready, Some(body)) = (plan.state, plan.job.clone()) else {
        return Ok(answer("", "FAILED", "", &plan.message));
    };
    let Some(first) = body.hops.first().cloned() else {
        return Ok(answer("", "FAILED", "", "the plan has no version to try"));
    };
    if api.settings.dry_run {
        let message = "EXECUTION_MODE is dry-run, so that nothing is tried";
        return Ok(answers::error(StatusCode::CONFLICT, "DRY_RUN", message));
    }
    let digest = api.engine.registry_digest(&first.target.repo, &first.target.tag).await.ok();
    if asked.caller != Caller::Operator {
        let since = Timestamp::from_millis(Timestamp::now().millis() - AGAIN_AFTER_MS);
        let (version, of) = (first.version.clone(), digest.clone());
        let tried = read(api, move |reader| reader.rehearsed_since(&version, of.as_deref(), since));
        if let Some(at) = tried.await? {
            let message = format!(
                "{} was rehearsed at {}, and is rehearsed again an hour later at the earliest; on the host: payram-updater rehearse --to {}",
                first.version,
                at.rfc3339(),
                first.version
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Ok(answers::error(status, "REHEARSED_ALREADY", &message));
        }
    }
    let (driver, version) = (Arc::clone(&api.driver), first.version.clone());
    let begun =
        tokio::task::spawn_blocking(move || driver.begin_rehearsal(&body, &first, digest)).await;
    match begun {
        Ok(Ok(job)) => Ok(answer(job.as_str(), "READY", &version, "rehearsal started")),
        Ok(Err(refused)) => orders::not_begun(api, refused).await,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
