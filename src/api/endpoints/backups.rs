//! The endpoints of backups (contract section 5): which there are, one more, and one put back.
//!
//! Whoever access control lets through may ask which there are; to make one and to put one back is
//! the operator's alone.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use warp::reply::Response;

use super::{Asked, orders};
use crate::api::access::Caller;
use crate::api::{Api, answers};
use crate::driver::NotBegun;
use crate::journal::JournalError;

/// The backups there are, newest first, and how far the one is that is being made.
pub(super) async fn list(api: &Api) -> Result<Response, JournalError> {
    let backups = match api.driver.backups().await {
        Ok(backups) => backups,
        Err(failure) => return orders::not_begun(api, NotBegun::Failed(failure)).await,
    };
    let mut answer = json!({"backups": backups, "count": backups.len(), "success": true});
    if let Some(progress) = api.driver.backup_in_hand() {
        answer["inHand"] = json!({"doneBytes": progress.done_bytes});
    }
    Ok(answers::json(&answer))
}

/// Makes one; answers when it is there and proved.
pub(super) async fn create(api: &Arc<Api>, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        return Ok(not_yours("a backup is made"));
    }
    let driver = Arc::clone(&api.driver);
    // It goes on when the one who asked for it has gone.
    let made = tokio::spawn(async move { driver.back_up_by_hand().await }).await;
    match made {
        Ok(Ok(backup)) => Ok(answers::json(&json!({"success": true, "backup": backup}))),
        Ok(Err(refused)) => orders::not_begun(api, refused).await,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The body of restore. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    /// A path, or the name of a file in the backup directory.
    file: PathBuf,
    /// Only says what would be done.
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    full_recovery: bool,
}

/// Puts one back, or says what that would do.
pub(super) async fn restore(api: &Arc<Api>, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        return Ok(not_yours("a backup is put back"));
    }
    let wanted: Wanted = match orders::body_of(asked) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("the body is not the JSON expected here: {error}");
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message));
        }
    };
    if wanted.full_recovery {
        let message = "fullRecovery is not there yet: go back to the backup's version first (payram-updater run --to VERSION --force), then restore the database; nothing was changed";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Ok(answers::error(status, "NOT_SUPPORTED", message));
    }
    if let Some(active) = orders::under_way(api).await? {
        return orders::not_begun(api, NotBegun::Job(active.id().clone())).await;
    }
    let plan = match api.driver.plan_restore(&wanted.file).await {
        Ok(plan) => plan,
        Err(refused) => return orders::not_begun(api, refused).await,
    };
    if api.settings.dry_run && !wanted.dry_run {
        let message = "EXECUTION_MODE is dry-run, so nothing is put back; a request with dryRun is told what would be done";
        return Ok(answers::error(StatusCode::CONFLICT, "DRY_RUN", message));
    }
    if wanted.dry_run {
        return Ok(answers::json(&json!({"success": true, "plan": plan})));
    }
    if let Err(refused) = api.driver.make_way("a restore").await {
        return orders::not_begun(api, refused).await;
    }
    let (driver, begins) = (Arc::clone(&api.driver), plan.clone());
    match tokio::task::spawn_blocking(move || driver.begin_restore(&begins)).await {
        Ok(Ok(job)) => {
            let body = json!({"success": true, "jobId": job.as_str(), "plan": plan});
            Ok(answers::with_status(StatusCode::ACCEPTED, &body))
        }
        Ok(Err(refused)) => orders::not_begun(api, refused).await,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn not_yours(what: &str) -> Response {
    let message = format!("{what} by the payram-updater command on the host");
    answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", &message)
}
