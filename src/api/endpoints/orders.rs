//! The endpoints that plan an upgrade or ask the driver for something: plan, run, cancel, recover
//! and sync.
//!
//! Called by [`super::answer`]. Nothing is done here: a plan is made by [`plan`], a job is handed
//! to the driver, and what came of it is answered. What only the operator may ask for is refused
//! to every other caller (I9).

use std::path::PathBuf;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use warp::reply::Response;

use super::{Asked, read, read_much};
use crate::api::access::Caller;
use crate::api::serving;
use crate::api::{Api, answers};
use crate::driver::{
    CleanupError, Consent, Decision, NotBegun, RecoverError, Rubbish, Worker, last_downtime,
    make_plan, may_turn,
};
use crate::journal::{
    JobId, JobRecord, JournalError, LastJob, Mode, Reader, RehearsalRecord, RestoreRecord,
};
use crate::machine::Phase;
use crate::machine::failure::FailureCode;
use crate::plan::{self, PlanState};
use crate::restore::RestoreStep;

/// The body of plan and run. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    requested_target: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    current_version: Option<String>,
    #[serde(default)]
    force: bool,
    /// Of run: the plan that is to be run and no other.
    #[serde(default)]
    plan_hash: Option<String>,
}

/// The request in a body, and the hash of the plan that is meant; `Err` is the answer to a bad one.
pub(super) fn wanted(asked: &Asked) -> Result<(plan::Request, Option<String>), Box<Response>> {
    let bad = |message: String| {
        Box::new(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message))
    };
    let body = crate::json::read(&asked.body)
        .map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    if !body.is_object() {
        return Err(bad("the body is not a JSON object".into()));
    }
    let wanted: Wanted = serde_json::from_value(body)
        .map_err(|error| bad(format!("the body is not the JSON expected here: {error}")))?;
    let target = wanted.requested_target.map(|target| target.trim().to_owned());
    let Some(requested_target) = target.filter(|target| !target.is_empty()) else {
        return Err(bad("requestedTarget is missing: a version, or latest".into()));
    };
    let named = match wanted.mode.as_deref().map(str::to_ascii_uppercase).as_deref() {
        None | Some("") => None,
        Some("MANUAL") => Some(Mode::Manual),
        Some("DASHBOARD") => Some(Mode::Dashboard),
        Some(other) => {
            return Err(bad(format!("mode is MANUAL or DASHBOARD, found {other:?}")));
        }
    };
    // Over TCP the policy decides, whatever the body says (I9).
    let (mode, force) = match asked.caller {
        Caller::Operator => (named.unwrap_or(Mode::Manual), wanted.force),
        Caller::Tcp(_) => (Mode::Dashboard, false),
    };
    let hash = wanted.plan_hash.filter(|hash| !hash.is_empty());
    if let Some(hash) = hash.as_deref().filter(|hash| !plan::hash::is_one(hash)) {
        let hash: String = hash.chars().take(80).collect();
        let message = format!("planHash is the planHash of a plan's answer, found {hash:?}");
        return Err(bad(message));
    }
    let request = plan::Request {
        mode,
        requested_target,
        source: wanted.source,
        current_version: wanted.current_version.filter(|version| !version.is_empty()),
        force,
    };
    Ok((request, hash))
}

pub(super) async fn plan(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    let (request, _) = match wanted(asked) {
        Ok(wanted) => wanted,
        Err(answer) => return Ok(*answer),
    };
    Ok(answers::json(&planned(api, &request).await?))
}

/// The plan, refused where the journal says that it must not be run.
pub(super) async fn planned(
    api: &Api,
    request: &plan::Request,
) -> Result<plan::Plan, JournalError> {
    let quarantined = read(api, Reader::quarantine).await?;
    let last = read(api, Reader::last_executed_job).await?;
    let measured = read_much(api, last_downtime).await?;
    let (engine, last) = (api.engine.as_ref(), last.as_ref());
    Ok(make_plan(&api.settings, engine, request, &quarantined, last, measured.as_ref()).await)
}

pub(super) async fn run(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    let (request, hash) = match wanted(asked) {
        Ok(wanted) => wanted,
        Err(answer) => return Ok(*answer),
    };
    if let Some(active) = under_way(api).await? {
        return Ok(conflict(api, &active));
    }
    let mut plan = planned(api, &request).await?;
    if let (Some(wanted), Some(found)) = (&hash, &plan.plan_hash)
        && let Some(changed) = plan::hash::changed(wanted, found)
    {
        plan.refuse(&changed);
    }
    let answer = |job: &str, state: &str, message: &str| {
        answers::json(&json!({
            "jobId": job,
            "state": state,
            "mode": plan.mode,
            "requestedTarget": plan.requested_target,
            "resolvedTarget": plan.resolved_target,
            "failureCode": plan.failure_code,
            "message": message,
        }))
    };
    let (PlanState::Ready, Some(body)) = (plan.state, plan.job.clone()) else {
        return Ok(answer("", "FAILED", &plan.message));
    };
    // One that tries a version gives way to one that goes to it.
    if let Err(refused) = api.driver.make_way("an upgrade").await {
        return not_begun(api, refused).await;
    }
    let (driver, notes) = (Arc::clone(&api.driver), plan.notes.clone());
    let submitted = tokio::task::spawn_blocking(move || driver.submit(&body, &notes)).await;
    match submitted {
        Ok(Ok(job)) => Ok(answer(job.as_str(), "READY", "upgrade started")),
        Ok(Err(refused)) => not_begun(api, refused).await,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The job that is under way, of whichever kind.
pub(super) async fn under_way(api: &Api) -> Result<Option<LastJob>, JournalError> {
    let newest = read(api, Reader::newest_job).await?;
    Ok(match newest {
        Some(LastJob::Upgrade(job)) if !job.is_active() => {
            // One that was taken up again may be older than a job that was planned only.
            read(api, Reader::active_job).await?.map(|job| LastJob::Upgrade(Box::new(job)))
        }
        Some(LastJob::Restore(job)) if !job.is_active() => {
            read(api, Reader::active_job).await?.map(|job| LastJob::Upgrade(Box::new(job)))
        }
        newest => newest,
    })
}

/// The same, or else the rehearsal that is.
pub(super) async fn under_way_or_rehearsed(api: &Api) -> Result<Option<LastJob>, JournalError> {
    match under_way(api).await? {
        Some(active) => Ok(Some(active)),
        None => {
            let rehearsal = read(api, Reader::active_rehearsal).await?;
            Ok(rehearsal.map(|job| LastJob::Rehearsal(Box::new(job))))
        }
    }
}

/// Why nothing was begun.
pub(super) async fn not_begun(api: &Api, refused: NotBegun) -> Result<Response, JournalError> {
    let blocked = "CONCURRENCY_BLOCKED";
    match refused {
        NotBegun::Job(_) => match under_way_or_rehearsed(api).await? {
            Some(active) => Ok(conflict(api, &active)),
            // It has ended since.
            None => {
                let message = "An active job already exists";
                Ok(answers::error(StatusCode::CONFLICT, blocked, message))
            }
        },
        NotBegun::Backup => {
            let message = "a backup is being made by hand; try again when it is there";
            Ok(answers::error(StatusCode::CONFLICT, blocked, message))
        }
        NotBegun::Journal(error) => Err(error),
        NotBegun::Failed(failure) => {
            let status = status_of(failure.code);
            Ok(answers::error(status, failure.code.as_str(), &failure.message))
        }
    }
}

/// A file that is none of the backup's is the caller's to mend, what is around it the host's.
fn status_of(code: FailureCode) -> StatusCode {
    match code {
        FailureCode::BackupInvalid => StatusCode::UNPROCESSABLE_ENTITY,
        FailureCode::RecoveryRequired | FailureCode::ConcurrencyBlocked => StatusCode::CONFLICT,
        FailureCode::DockerDaemonDown => StatusCode::SERVICE_UNAVAILABLE,
        _other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) fn conflict(api: &Api, active: &LastJob) -> Response {
    let view = api.driver.view_last(active);
    let body = json!({
        "error": "An active job already exists",
        "code": "CONCURRENCY_BLOCKED",
        "jobId": view.job_id,
        "state": view.state,
        "message": view.message,
    });
    answers::with_status(StatusCode::CONFLICT, &body)
}

/// The body of cancel. Unknown fields are ignored, and it may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CancelWanted {
    /// The job that a person has seen and means; none of an earlier client, which means the active
    /// one.
    #[serde(default)]
    job_id: Option<String>,
}

/// Cancels the active job. Going back is the operator's word, so only over the socket.
pub(super) async fn cancel(api: &Arc<Api>, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "an upgrade is cancelled by the payram-updater command on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    let wanted = match asked.body.trim_ascii() {
        b"" => Ok(CancelWanted::default()),
        _ => body_of(asked),
    };
    let wanted: CancelWanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("the body is not the JSON expected here: {error}");
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message));
        }
    };
    if let Some(restore) = read(api, Reader::active_restore).await? {
        return Ok(cancel_restore(api, &restore, wanted.job_id.as_deref()));
    }
    if let Some(rehearsal) = read(api, Reader::active_rehearsal).await? {
        return Ok(cancel_rehearsal(api, &rehearsal, wanted.job_id.as_deref()));
    }
    let Some(job) = read(api, Reader::active_job).await? else {
        let message = "no upgrade is under way";
        return Ok(answers::error(StatusCode::CONFLICT, "NOTHING_TO_CANCEL", message));
    };
    if let Some(meant) = wanted.job_id.as_deref().filter(|meant| *meant != job.id.as_str()) {
        return Ok(another_job(meant, &job.id));
    }
    let serves = job.phase() == Phase::Swapped && {
        let name = &job.body.container_name;
        serving::surely(&api.settings, api.engine.as_ref(), name).await
    };
    if let Some(message) = api.driver.with_worker(|worker| uncancellable(&job, serves, worker)) {
        return Ok(answers::error(StatusCode::CONFLICT, "NOTHING_TO_CANCEL", &message));
    }
    api.driver.cancel(&job.id);
    let message = "cancelled; what was begun is being undone";
    let body = json!({"jobId": job.id.as_str(), "message": message});
    Ok(answers::with_status(StatusCode::ACCEPTED, &body))
}

/// The job that was meant has ended, and another one began since: that one is not touched.
fn another_job(meant: &str, active: &JobId) -> Response {
    let active = active.as_str();
    let meant: String = meant.chars().take(80).collect();
    let body = json!({
        "error": format!("{meant:?} is not under way, {active} is: it was not cancelled"),
        "code": "ANOTHER_JOB_ACTIVE",
        "jobId": active,
    });
    answers::with_status(StatusCode::CONFLICT, &body)
}

/// A restore is called off as long as the application serves on its own data.
fn cancel_restore(api: &Api, restore: &RestoreRecord, meant: Option<&str>) -> Response {
    if let Some(meant) = meant.filter(|meant| *meant != restore.id.as_str()) {
        return another_job(meant, &restore.id);
    }
    let step = restore.restore.step();
    if !step.is_some_and(RestoreStep::may_be_called_off) {
        let message = "the restore stops and starts the application now: it comes to its end by itself, and that is the nearest way to a shop that serves";
        return answers::error(StatusCode::CONFLICT, "NOTHING_TO_CANCEL", message);
    }
    api.driver.cancel(&restore.id);
    let message = "cancelled; nothing was changed";
    let body = json!({"jobId": restore.id.as_str(), "message": message});
    answers::with_status(StatusCode::ACCEPTED, &body)
}

/// A rehearsal is called off at any time.
fn cancel_rehearsal(api: &Api, rehearsal: &RehearsalRecord, meant: Option<&str>) -> Response {
    if let Some(meant) = meant.filter(|meant| *meant != rehearsal.id.as_str()) {
        return another_job(meant, &rehearsal.id);
    }
    api.driver.cancel(&rehearsal.id);
    let message = "cancelled; the copy is removed";
    let body = json!({"jobId": rehearsal.id.as_str(), "message": message});
    answers::with_status(StatusCode::ACCEPTED, &body)
}

/// Why a job that is under way can't be made to go back; none when it can.
fn uncancellable(job: &JobRecord, serves: bool, worker: Worker<'_>) -> Option<String> {
    let target = &job.body.resolved_target;
    let is_held = worker == Worker::Holds;
    match job.phase() {
        // A new version that answers takes payments: to stop it would strand them.
        Phase::Swapped if serves => Some(match is_held {
            true => format!(
                "{target} answers and takes payments, so it is not stopped; payram-updater recover goes on verifying it"
            ),
            false => format!(
                "{target} answers and takes payments, so it is not stopped; it is verified, or goes back by itself"
            ),
        }),
        phase if may_turn(phase) => None,
        Phase::RollingBack if is_held => Some(format!(
            "the upgrade to {target} is going back already and waits; payram-updater recover goes on with that"
        )),
        Phase::RollingBack => Some(format!("the upgrade to {target} is going back already")),
        phase => Some(format!("the upgrade to {target} has come to rest: it is {phase}")),
    }
}

/// The body of recover. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecoverWanted {
    #[serde(default)]
    restore_database: bool,
    #[serde(default)]
    carry_rows: bool,
    #[serde(default)]
    keep_new: bool,
    /// A version that may be offered again; then nothing else is done.
    #[serde(default)]
    clear_quarantine: Option<String>,
    /// An upgrade whose rows set aside are dealt with; then nothing else is done.
    #[serde(default)]
    dismiss_rows: Option<String>,
    /// What `shown` was in the answer that a person consented to.
    #[serde(default)]
    shown: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Does the safe thing about the last job, or says what it would be. It may put a database
/// back, so only over the socket (I9).
pub(super) async fn recover(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "a recovery is started by the payram-updater command on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    let wanted: RecoverWanted = match body_of(asked) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("the body is not the JSON expected here: {error}");
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message));
        }
    };
    let is_word = wanted.clear_quarantine.is_some() || wanted.dismiss_rows.is_some();
    let is_both = wanted.clear_quarantine.is_some() && wanted.dismiss_rows.is_some();
    if is_both || is_word && (wanted.restore_database || wanted.keep_new) {
        let message =
            "clearQuarantine, dismissRows, restoreDatabase and keepNew are different requests";
        return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message));
    }
    if let Some(version) = &wanted.clear_quarantine {
        return decided(api.driver.clear_quarantine(version, wanted.dry_run).await);
    }
    if let Some(job) = &wanted.dismiss_rows {
        return decided(api.driver.dismiss_rows(job, wanted.dry_run).await);
    }
    if wanted.restore_database && wanted.keep_new {
        let message = "restoreDatabase and keepNew exclude each other: the one puts the old version back, the other goes on with the new one";
        return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message));
    }
    if wanted.carry_rows && !wanted.restore_database {
        let message = "carryRows goes with restoreDatabase: rows are carried over into the database that comes back";
        return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message));
    }
    let consent = Consent {
        restore_database: wanted.restore_database,
        carry_rows: wanted.carry_rows,
        keep_new: wanted.keep_new,
    };
    match &wanted.shown {
        Some(shown) if !wanted.dry_run => {
            decided(api.driver.recover_as_shown(consent, shown).await)
        }
        Some(_) | None => decided(api.driver.recover(consent, wanted.dry_run).await),
    }
}

/// Records what runs now as good, when it is.
pub(super) async fn sync(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "sync is run by the payram-updater command on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    decided(api.driver.sync().await)
}

/// A body of the shape expected; `Err` says what is wrong with it.
pub(super) fn body_of<T: serde::de::DeserializeOwned>(asked: &Asked) -> Result<T, String> {
    let body = crate::json::read(&asked.body)?;
    // A list would be taken for the fields in their order.
    if !body.is_object() {
        return Err("it is not an object".to_owned());
    }
    serde_json::from_value(body).map_err(|error| error.to_string())
}

/// The body of cleanup. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CleanupWanted {
    what: Rubbish,
    /// So many of the newest backups stay.
    #[serde(default = "one")]
    keep: u64,
    /// These files alone, which a person was shown.
    #[serde(default)]
    only: Option<Vec<PathBuf>>,
    #[serde(default)]
    dry_run: bool,
}

fn one() -> u64 {
    1
}

/// Removes what nobody needs any more, or says what that is. What is gone is gone, so only over
/// the socket.
pub(super) async fn cleanup(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "cleanup is run by the payram-updater command on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    let wanted: CleanupWanted = match body_of(asked) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("the body is not the JSON expected here: {error}");
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message));
        }
    };
    let CleanupWanted { what, keep, only, dry_run } = wanted;
    // More than can be counted is as good as all.
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    match api.driver.cleanup(what, keep, only.as_deref(), dry_run).await {
        Ok(cleaned) => Ok(answers::json(&cleaned)),
        Err(CleanupError::Journal(error)) => Err(error),
        Err(error @ CleanupError::Active(_)) => {
            let message = error.to_string();
            Ok(answers::error(StatusCode::CONFLICT, "CONCURRENCY_BLOCKED", &message))
        }
        Err(CleanupError::Unseen(failure)) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(answers::error(status, failure.code.as_str(), &failure.message))
        }
    }
}

fn decided(decision: Result<Decision, RecoverError>) -> Result<Response, JournalError> {
    match decision {
        Ok(decision) => Ok(answers::json(&decision)),
        Err(RecoverError::Journal(error)) => Err(error),
        Err(error @ RecoverError::Engine(_)) => {
            let message = error.to_string();
            Ok(answers::error(StatusCode::SERVICE_UNAVAILABLE, "DOCKER_DAEMON_DOWN", &message))
        }
        Err(error @ RecoverError::Forbidden(_)) => {
            let message = error.to_string();
            Ok(answers::error(StatusCode::CONFLICT, "NOTHING_TO_RECOVER", &message))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::HeaderMap;

    use super::*;

    fn asked(caller: Caller, body: &str) -> Asked {
        Asked {
            caller,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
            place: crate::api::places::Place::alone(),
        }
    }

    fn tcp() -> Caller {
        Caller::Tcp(std::net::Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn manual_mode_is_for_the_socket_alone() {
        let body = r#"{"mode":"MANUAL","requestedTarget":"1.9.7","source":"CLI","force":true}"#;
        let (over_socket, _) = wanted(&asked(Caller::Operator, body)).expect("a request");
        assert_eq!((over_socket.mode, over_socket.force), (Mode::Manual, true));
        let (over_tcp, _) = wanted(&asked(tcp(), body)).expect("a request");
        assert_eq!((over_tcp.mode, over_tcp.force), (Mode::Dashboard, false));
        assert_eq!(over_tcp.source.as_deref(), Some("CLI"));
    }

    #[test]
    fn a_list_is_no_body_of_anything() {
        for body in ["[]", "[true]", "null", "7", "\"recover\""] {
            let read = body_of::<RecoverWanted>(&asked(Caller::Operator, body));
            assert!(read.is_err(), "{body} was taken for {read:?}");
        }
        let read = body_of::<RecoverWanted>(&asked(Caller::Operator, "{}"));
        assert!(!read.expect("an object").restore_database);
    }

    #[test]
    fn a_body_that_asks_for_nothing_is_a_bad_request() {
        for body in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"requestedTarget":" "}"#,
            r#"{"requestedTarget":7}"#,
            r#"{"requestedTarget":"1.9.7","requestedTarget":"1.9.8"}"#,
            r#"{"requestedTarget":"1.9.7","planHash":"abc"}"#,
            r#"{"requestedTarget":"1.9.7","mode":"ROOT"}"#,
        ] {
            let answer = wanted(&asked(tcp(), body)).expect_err(body);
            assert_eq!(answer.status(), 400, "{body}");
        }
    }
}
