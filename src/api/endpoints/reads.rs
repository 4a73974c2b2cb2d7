//! The endpoints that tell what the journal holds: status, last, logs, playbook and history.
//! Status also says how far the step in hand is and who serves.
//!
//! Called by [`super::answer`]. They may change nothing, so whoever access control lets through
//! may ask.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use warp::reply::Response;

use super::paged::{HistoryPages, LogPages};
use super::{Asked, read, read_much};
use crate::api::{Api, answers, pages};
use crate::driver::JobView;
use crate::inspect;
use crate::journal::{HistoryFilter, JournalError, LastJob, Reader};

/// What `limit` of the history is when none is given.
const HISTORY_LIMIT: u32 = 100;

/// Events that one answer holds at most, whatever is asked.
const HISTORY_MOST: u32 = 10_000;

pub(super) async fn status(api: &Arc<Api>) -> Result<Response, JournalError> {
    let Some(job) = read(api, Reader::newest_job).await? else {
        return Ok(answers::json(&JobView::idle()));
    };
    let mut view = api.driver.view_last(&job);
    let name = match &job {
        LastJob::Upgrade(job) => Some(&job.body.container_name),
        LastJob::Restore(job) => job.body.container.as_ref().map(|container| &container.name),
    };
    if let Some(name) = name {
        view.serving = Some(api.serving.of(&api.settings, &api.engine, name).await);
    }
    let mut answer = serde_json::to_value(&view).unwrap_or_default();
    if let Some(playbook) = playbook_of(api, &job) {
        answer["recoveryPlaybook"] = playbook;
    }
    Ok(answers::json(&answer))
}

pub(super) async fn last(api: &Api) -> Result<Response, JournalError> {
    Ok(match read(api, Reader::newest_job).await? {
        Some(job) => answers::json(&api.driver.view_last(&job)),
        None => answers::json(&json!({"message": "No upgrade job found"})),
    })
}

pub(super) async fn logs(api: &Arc<Api>, asked: &Asked) -> Result<Response, JournalError> {
    let parameters = parameters(&asked.query);
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
    let found = read(api, |reader| {
        let job = reader.newest_job()?.map(|job| job.id().clone());
        // What comes while it is read is for the next request.
        Ok((job, reader.newest_row()?))
    });
    let (job, upto) = found.await?;
    let content_type = if wants_json { "application/json" } else { "text/plain; charset=utf-8" };
    let pages = LogPages { job, after, upto, wants_json, has_begun: false };
    pages::answer(api, &asked.place, content_type, pages).await
}

fn playbook_of(api: &Api, job: &LastJob) -> Option<Value> {
    let playbook = match job {
        LastJob::Upgrade(job) => {
            let code = job.ending.as_ref().and_then(|ending| ending.failure_code)?;
            inspect::playbook_of_job(&api.settings, job, code)
        }
        LastJob::Restore(job) => {
            let code = job.ending.as_ref().and_then(|ending| ending.failure_code)?;
            inspect::playbook_of_restore(&api.settings, job, code)
        }
    };
    serde_json::to_value(playbook).ok()
}

pub(super) async fn playbook(api: &Api) -> Result<Response, JournalError> {
    let none = json!({"playbook": null, "message": "No recovery playbook needed"});
    let Some(job) = read(api, Reader::newest_job).await? else {
        return Ok(answers::json(&none));
    };
    let Some(playbook) = playbook_of(api, &job) else { return Ok(answers::json(&none)) };
    let view = api.driver.view_last(&job);
    Ok(answers::json(&json!({
        "playbook": playbook,
        "failureCode": view.failure_code,
        "backupPath": view.backup_path.unwrap_or_default(),
    })))
}

pub(super) async fn history(api: &Arc<Api>, asked: &Asked) -> Result<Response, JournalError> {
    let filter = match history_filter(&asked.query) {
        Ok(filter) => filter,
        Err(message) => {
            return Ok(answers::error(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", &message));
        }
    };
    let rows = read_much(api, move |reader| reader.history_rows(&filter)).await?;
    let pages = HistoryPages { rows, done: 0 };
    pages::answer(api, &asked.place, "application/json", pages).await
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

#[cfg(test)]
mod tests {
    use super::*;

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
