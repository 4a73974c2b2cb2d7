//! What each endpoint answers (contract sections 1 and 3).

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use warp::reply::Response;

use super::access::{self, Caller};
use super::answers;
use super::routes::{self, Endpoint, NoRoute};
use super::{Api, events};
use crate::driver::{Consent, Decision, JobView, Progress, RecoverError, refusal_after};
use crate::inspect;
use crate::journal::{HistoryFilter, JobRecord, JournalError, Mode, Reader};
use crate::machine::Phase;
use crate::plan::{self, PlanState};

/// What `limit` of the history is when none is given.
const HISTORY_LIMIT: u32 = 100;

/// Events that one answer holds at most, whatever is asked.
const HISTORY_MOST: u32 = 10_000;

/// A request, after access control.
pub(super) struct Asked {
    pub caller: Caller,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

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
        Endpoint::Status => status(&api).await,
        Endpoint::Last => last(&api).await,
        Endpoint::Logs => logs(&api, &asked.query).await,
        Endpoint::Playbook => playbook(&api).await,
        Endpoint::Inspect => {
            let blocked = api.driver.blocked();
            let engine = api.engine.as_ref();
            let report =
                inspect::inspect(&api.settings, engine, &api.reader, blocked.as_deref()).await;
            Ok(answers::json(&report))
        }
        Endpoint::Events => Ok(events::stream(Arc::clone(&api), &asked.headers)),
        Endpoint::History => history(&api, &asked.query).await,
        Endpoint::Plan => make_plan(&api, &asked).await,
        Endpoint::Run => run(&api, &asked).await,
        Endpoint::Cancel => cancel(&api, &asked).await,
        Endpoint::Recover => recover(&api, &asked).await,
        Endpoint::Sync => sync(&api, &asked).await,
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

async fn status(api: &Api) -> Result<Response, JournalError> {
    let Some(job) = read(api, Reader::last_job).await? else {
        return Ok(answers::json(&JobView::idle()));
    };
    let mut view = JobView::of(&job, api.driver.progress());
    view.blocked = api.driver.blocked().filter(|_| job.is_active());
    let name = &job.body.container_name;
    view.serving = Some(api.serving.of(&api.settings, api.engine.as_ref(), name).await);
    let mut answer = serde_json::to_value(&view).unwrap_or_default();
    if let Some(playbook) = playbook_of(api, &job) {
        answer["recoveryPlaybook"] = playbook;
    }
    Ok(answers::json(&answer))
}

async fn last(api: &Api) -> Result<Response, JournalError> {
    Ok(match read(api, Reader::last_job).await? {
        Some(job) => answers::json(&JobView::of(&job, api.driver.progress())),
        None => answers::json(&json!({"message": "No upgrade job found"})),
    })
}

async fn logs(api: &Api, query: &str) -> Result<Response, JournalError> {
    let parameters = parameters(query);
    let of = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, v)| v.as_str());
    let after = match of("after").map(str::parse::<i64>) {
        None => 0,
        Some(Ok(after)) if after >= 0 => after,
        Some(Ok(_) | Err(_)) => {
            let message = "after is the number of a row, 0 or more";
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", message));
        }
    };
    let wants_json = match of("format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            let message = format!("format is text or json, found {other:?}");
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", &message));
        }
    };
    let found = read(api, move |reader| match reader.last_job()? {
        Some(job) => Ok(Some((job.id.clone(), reader.log_lines(&job.id, after)?))),
        None => Ok(None),
    })
    .await?;
    let (job, lines) = match found {
        Some((job, lines)) => (job.to_string(), lines),
        None => (String::new(), Vec::new()),
    };
    if !wants_json {
        let lines = lines.iter().map(|line| answers::log_line(line.at, &line.text) + "\n");
        return Ok(answers::text(lines.collect()));
    }
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| json!({"seq": line.seq, "at": line.at.rfc3339(), "text": line.text}))
        .collect();
    Ok(answers::json(&json!({"jobId": job, "lines": lines})))
}

fn playbook_of(api: &Api, job: &JobRecord) -> Option<Value> {
    let code = job.ending.as_ref().and_then(|ending| ending.failure_code)?;
    let playbook = inspect::playbook_of_job(&api.settings, job, code);
    serde_json::to_value(playbook).ok()
}

async fn playbook(api: &Api) -> Result<Response, JournalError> {
    let none = json!({"playbook": null, "message": "No recovery playbook needed"});
    let Some(job) = read(api, Reader::last_job).await? else { return Ok(answers::json(&none)) };
    let Some(playbook) = playbook_of(api, &job) else { return Ok(answers::json(&none)) };
    let view = JobView::of(&job, api.driver.progress());
    Ok(answers::json(&json!({
        "playbook": playbook,
        "failureCode": view.failure_code,
        "backupPath": view.backup_path.unwrap_or_default(),
    })))
}

async fn history(api: &Api, query: &str) -> Result<Response, JournalError> {
    let filter = match history_filter(query) {
        Ok(filter) => filter,
        Err(message) => {
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", &message));
        }
    };
    let events = read(api, move |reader| reader.history(&filter)).await?;
    Ok(answers::json(&answers::history(&events)))
}

fn history_filter(query: &str) -> Result<HistoryFilter, String> {
    let mut filter = HistoryFilter { kind: None, status: None, limit: HISTORY_LIMIT };
    for (key, value) in parameters(query) {
        match key.as_str() {
            "type" if !value.is_empty() => filter.kind = Some(value),
            "status" if !value.is_empty() => filter.status = Some(value),
            "limit" => {
                let limit = value.parse::<u32>().ok().filter(|limit| *limit > 0);
                let limit = limit
                    .ok_or_else(|| format!("limit is a whole number from 1, found {value:?}"))?;
                filter.limit = limit.min(HISTORY_MOST);
            }
            _ => {}
        }
    }
    Ok(filter)
}

fn parameters(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// The request in a body; `Err` is the answer to a bad one.
fn wanted(asked: &Asked) -> Result<plan::Request, Box<Response>> {
    let bad = |message: String| {
        Box::new(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message))
    };
    let body: Value = serde_json::from_slice(&asked.body)
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
    Ok(plan::Request {
        mode,
        requested_target,
        source: wanted.source,
        current_version: wanted.current_version.filter(|version| !version.is_empty()),
        force,
    })
}

async fn make_plan(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    let request = match wanted(asked) {
        Ok(request) => request,
        Err(answer) => return Ok(*answer),
    };
    Ok(answers::json(&planned(api, &request).await?))
}

/// The plan, refused where the journal says that it must not be run.
async fn planned(api: &Api, request: &plan::Request) -> Result<plan::Plan, JournalError> {
    let mut plan = plan::make(&api.settings, api.engine.as_ref(), request).await;
    let quarantined = read(api, Reader::quarantine).await?;
    plan::quarantine::check(api.engine.as_ref(), &mut plan, &quarantined).await;
    let last = read(api, Reader::last_executed_job).await?;
    if let Some(refused) = last.as_ref().and_then(refusal_after) {
        plan.refuse(&refused);
    }
    Ok(plan)
}

async fn run(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    let request = match wanted(asked) {
        Ok(request) => request,
        Err(answer) => return Ok(*answer),
    };
    if let Some(active) = read(api, Reader::active_job).await? {
        return Ok(conflict(&active));
    }
    let plan = planned(api, &request).await?;
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
    let driver = Arc::clone(&api.driver);
    let submitted = tokio::task::spawn_blocking(move || driver.submit(&body)).await;
    match submitted {
        Ok(Ok(job)) => Ok(answer(job.as_str(), "READY", "upgrade started")),
        Ok(Err(JournalError::AlreadyActive { .. })) => match read(api, Reader::last_job).await? {
            Some(active) => Ok(conflict(&active)),
            None => Ok(answers::error(
                StatusCode::CONFLICT,
                "CONCURRENCY_BLOCKED",
                "An active job already exists",
            )),
        },
        Ok(Err(error)) => Err(error),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn conflict(active: &JobRecord) -> Response {
    let view = JobView::of(active, Progress::default());
    let body = json!({
        "error": "An active job already exists",
        "code": "CONCURRENCY_BLOCKED",
        "jobId": view.job_id,
        "state": view.state,
        "message": view.message,
    });
    answers::with_status(StatusCode::CONFLICT, &body)
}

/// Calls the active job off. Going back is the operator's word, so only over the socket.
async fn cancel(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "an upgrade is called off by the payram-updater command on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    let Some(job) = read(api, Reader::active_job).await? else {
        let message = "no upgrade is under way";
        return Ok(answers::error(StatusCode::CONFLICT, "NOTHING_TO_CANCEL", message));
    };
    let may_turn = match job.phase() {
        Phase::Planned | Phase::BackedUp | Phase::Pulled => true,
        // A new version that answers takes payments: to stop it would strand them. It is
        // verified, or goes back by itself.
        Phase::Swapped => {
            let (settings, engine) = (&api.settings, api.engine.as_ref());
            !api.serving.of(settings, engine, &job.body.container_name).await
        }
        Phase::Verified | Phase::RollingBack | Phase::RolledBack | Phase::NeedsOperator => false,
    };
    if may_turn && api.driver.call_off(&job.id) {
        let message = "called off; what was begun is taken back";
        let body = json!({"jobId": job.id.as_str(), "message": message});
        return Ok(answers::with_status(StatusCode::ACCEPTED, &body));
    }
    let message = format!(
        "the upgrade can't be called off any more: it is {}; a new version that answers is verified, or goes back by itself",
        job.phase()
    );
    Ok(answers::error(StatusCode::CONFLICT, "NOTHING_TO_CANCEL", &message))
}

/// The body of recover. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecoverWanted {
    #[serde(default)]
    restore_database: bool,
    /// A version that may be offered again; then nothing else is done.
    #[serde(default)]
    clear_quarantine: Option<String>,
    /// What `shown` was in the answer that a person consented to.
    #[serde(default)]
    shown: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Does the safe thing about the last job, or says what it would be. It may put a database
/// back, so only over the socket (I9).
async fn recover(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "a recovery is the payram-updater command's on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    let wanted: RecoverWanted = match serde_json::from_slice(&asked.body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("the body is not the JSON expected here: {error}");
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", &message));
        }
    };
    if let Some(version) = &wanted.clear_quarantine {
        if wanted.restore_database {
            let message = "clearQuarantine and restoreDatabase are two requests";
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message));
        }
        return decided(api.driver.clear_quarantine(version, wanted.dry_run).await);
    }
    let consent = Consent { restore_database: wanted.restore_database };
    match &wanted.shown {
        Some(shown) if !wanted.dry_run => {
            decided(api.driver.recover_as_shown(consent, shown).await)
        }
        Some(_) | None => decided(api.driver.recover(consent, wanted.dry_run).await),
    }
}

/// Records what runs now as good, when it is.
async fn sync(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    if asked.caller != Caller::Operator {
        let message = "sync is the payram-updater command's on the host";
        return Ok(answers::error(StatusCode::FORBIDDEN, "FORBIDDEN", message));
    }
    decided(api.driver.sync().await)
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
    use super::*;

    fn asked(caller: Caller, body: &str) -> Asked {
        Asked {
            caller,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
        }
    }

    fn tcp() -> Caller {
        Caller::Tcp(std::net::Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn manual_mode_is_for_the_socket_alone() {
        let body = r#"{"mode":"MANUAL","requestedTarget":"1.9.7","source":"CLI","force":true}"#;
        let over_socket = wanted(&asked(Caller::Operator, body)).expect("a request");
        assert_eq!((over_socket.mode, over_socket.force), (Mode::Manual, true));
        let over_tcp = wanted(&asked(tcp(), body)).expect("a request");
        assert_eq!((over_tcp.mode, over_tcp.force), (Mode::Dashboard, false));
        assert_eq!(over_tcp.source.as_deref(), Some("CLI"));
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
            r#"{"requestedTarget":"1.9.7","mode":"ROOT"}"#,
        ] {
            let answer = wanted(&asked(tcp(), body)).expect_err(body);
            assert_eq!(answer.status(), 400, "{body}");
        }
    }

    #[test]
    fn a_limit_that_is_no_count_is_a_bad_request() {
        for query in ["limit=0", "limit=-1", "limit=x", "limit=", "limit=99999999999"] {
            assert!(history_filter(query).is_err(), "{query}");
        }
        let filter = history_filter("type=Upgrade&status=&limit=7&other=1").expect("fine");
        assert_eq!(
            (filter.kind.as_deref(), filter.status, filter.limit),
            (Some("Upgrade"), None, 7)
        );
    }
}
