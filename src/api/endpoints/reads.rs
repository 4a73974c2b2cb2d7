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
use crate::auto_update::view::AutoUpdateView;
use crate::clock::Timestamp;
use crate::driver::{JobView, version_of};
use crate::history::{STATUSES, TYPES};
use crate::inspect;
use crate::journal::{HistoryFilter, JobId, JournalError, LastJob, Reader, Seq};

/// What `limit` of the history is when none is given.
const HISTORY_LIMIT: u32 = 100;

/// Events that one answer holds at most, whatever is asked.
const HISTORY_MOST: u32 = 10_000;

pub(super) async fn status(api: &Arc<Api>) -> Result<Response, JournalError> {
    let settings = Arc::clone(&api.settings);
    let found = read(api, move |reader| {
        Ok((reader.newest_job()?, AutoUpdateView::read(&settings, Some(reader))?))
    });
    let (job, auto_update) = found.await?;
    let auto_update = serde_json::to_value(&auto_update).unwrap_or_default();
    let Some(job) = job else {
        let mut idle = serde_json::to_value(JobView::idle()).unwrap_or_default();
        idle["autoUpdate"] = auto_update;
        return Ok(answers::json(&idle));
    };
    let mut view = api.driver.view_last(&job);
    if let Some(name) = container_of(&job) {
        view.serving = Some(api.serving.of(&api.settings, &api.engine, name).await);
    }
    if let (LastJob::Upgrade(job), Some(true), Some(id)) = (&job, view.serving, api.serving.who()) {
        view.serving_version = version_of(job, &id);
    }
    let mut answer = serde_json::to_value(&view).unwrap_or_default();
    if let Some(playbook) = playbook_of(api, &job) {
        answer["recoveryPlaybook"] = playbook;
    }
    answer["autoUpdate"] = auto_update;
    Ok(answers::json(&answer))
}

/// The container of a job, where it has one.
pub(super) fn container_of(job: &LastJob) -> Option<&str> {
    match job {
        LastJob::Upgrade(job) => Some(&job.body.container_name),
        LastJob::Restore(job) => job.body.container.as_ref().map(|it| it.name.as_str()),
        LastJob::Rehearsal(job) => Some(&job.body.container),
    }
}

pub(super) async fn last(api: &Api) -> Result<Response, JournalError> {
    Ok(match read(api, Reader::newest_job).await? {
        Some(job) => answers::json(&api.driver.view_last(&job)),
        None => answers::json(&json!({"message": "No upgrade job found"})),
    })
}

/// The log of the last job, or of this one.
pub(super) async fn logs(
    api: &Arc<Api>,
    asked: &Asked,
    job: Option<&str>,
) -> Result<Response, JournalError> {
    let wanted = match LogWanted::of(&asked.query) {
        Ok(wanted) => wanted,
        Err(message) => return Ok(bad_parameter(&message)),
    };
    let LogWanted { after, wants_json, last, since } = wanted;
    let meant = job.map(|id| JobId::from_text(id.to_owned()));
    let found = read(api, move |reader| {
        let job = match meant {
            Some(meant) => reader.job(&meant)?.map(|job| job.id().clone()),
            None => reader.newest_job()?.map(|job| job.id().clone()),
        };
        let mut after = after;
        if let (Some(job), Some(count)) = (&job, last) {
            after = after.max(reader.row_before_last(job, count)?);
        }
        if let (Some(job), Some(since)) = (&job, since) {
            after = after.max(reader.row_before(job, since)?);
        }
        // What comes while it is read is for the next request.
        Ok((job, after, reader.newest_row()?))
    });
    let (found, after, upto) = found.await?;
    if let (Some(id), None) = (job, &found) {
        return Ok(unknown(id));
    }
    let content_type = if wants_json { "application/json" } else { "text/plain; charset=utf-8" };
    let pages = LogPages { job: found, after, upto, wants_json, has_begun: false };
    pages::answer(api, &asked.place, content_type, pages).await
}

/// Which lines of a log are wanted.
struct LogWanted {
    after: Seq,
    wants_json: bool,
    /// Only so many, the last.
    last: Option<u32>,
    since: Option<Timestamp>,
}

impl LogWanted {
    fn of(query: &str) -> Result<Self, String> {
        let mut wanted = Self { after: 0, wants_json: false, last: None, since: None };
        for (key, value) in parameters(query) {
            match key.as_str() {
                "after" => {
                    let after = value.parse().ok().filter(|after| *after >= 0);
                    wanted.after = after.ok_or("after is the number of a row, 0 or more")?;
                }
                "format" => {
                    wanted.wants_json = match value.as_str() {
                        "text" => false,
                        "json" => true,
                        other => return Err(format!("format is text or json, found {other:?}")),
                    }
                }
                "last" => {
                    let last = count(&value);
                    wanted.last = Some(
                        last.ok_or_else(|| format!("last is a whole number, found {value:?}"))?,
                    );
                }
                "since" => wanted.since = Some(moment("since", &value)?),
                _ => {}
            }
        }
        Ok(wanted)
    }
}

/// A whole number of a query; what is more than can be counted here is as good as the most.
pub(super) fn count(value: &str) -> Option<u32> {
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u32::MAX))
}

/// An RFC 3339 time of a query.
fn moment(key: &str, value: &str) -> Result<Timestamp, String> {
    // A `+` of an offset that was not escaped has become a space.
    let text = value.replace(' ', "+");
    Timestamp::parse(&text)
        .ok_or_else(|| format!("{key} is a time such as 2026-01-31T12:00:00Z, found {value:?}"))
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
        // It left the shop as it was: its own page says what it found.
        LastJob::Rehearsal(_) => return None,
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

/// The events of the history, or those of one job.
pub(super) async fn history(
    api: &Arc<Api>,
    asked: &Asked,
    job: Option<&str>,
) -> Result<Response, JournalError> {
    let mut filter = match history_filter(&asked.query) {
        Ok(filter) => filter,
        Err(message) => return Ok(bad_parameter(&message)),
    };
    if let Some(id) = job {
        let wanted = JobId::from_text(id.to_owned());
        filter.job = Some(wanted.clone());
        if read(api, move |reader| reader.job(&wanted)).await?.is_none() {
            return Ok(unknown(id));
        }
    }
    let limit = filter.limit;
    let rows = read_much(api, move |reader| reader.history_rows(&filter)).await?;
    let next = rows.last().copied().filter(|_| rows.len() as u32 == limit);
    let pages = HistoryPages { rows, done: 0, next };
    pages::answer(api, &asked.place, "application/json", pages).await
}

fn history_filter(query: &str) -> Result<HistoryFilter, String> {
    let mut filter = HistoryFilter { limit: HISTORY_LIMIT, ..HistoryFilter::default() };
    for (key, value) in parameters(query) {
        match key.as_str() {
            "type" if !value.is_empty() => filter.kind = Some(one_of("type", value, &TYPES)?),
            "status" if !value.is_empty() => {
                filter.status = Some(one_of("status", value, &STATUSES)?);
            }
            "limit" => {
                let limit = count(&value).filter(|limit| *limit > 0);
                let limit = limit
                    .ok_or_else(|| format!("limit is a whole number from 1, found {value:?}"))?;
                filter.limit = limit.min(HISTORY_MOST);
            }
            "since" => filter.since = Some(moment("since", &value)?),
            "before" => filter.before = Some(moment("before", &value)?),
            "cursor" => {
                let row = value.parse().ok().filter(|row: &Seq| *row > 0);
                filter.below = Some(row.ok_or_else(|| {
                    format!(
                        "cursor is the nextCursor of an answer, or an event's id, found {value:?}"
                    )
                })?);
            }
            _ => {}
        }
    }
    Ok(filter)
}

fn one_of(key: &str, value: String, known: &[&str]) -> Result<String, String> {
    match known.iter().any(|one| one.eq_ignore_ascii_case(&value)) {
        true => Ok(value),
        false => Err(format!("{key} is one of {}, found {value:?}", known.join(", "))),
    }
}

/// 400
pub(super) fn bad_parameter(message: &str) -> Response {
    answers::error(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", message)
}

/// 404 for a job that there never was.
pub(super) fn unknown(id: &str) -> Response {
    let id: String = id.chars().take(80).collect();
    let message = format!("there is no job {id:?}; GET /upgrade/jobs lists them");
    answers::error(StatusCode::NOT_FOUND, "JOB_NOT_FOUND", &message)
}

pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_no_count_is_a_bad_request() {
        for query in ["limit=0", "limit=-1", "limit=x", "limit=", "limit=1.5"] {
            assert!(history_filter(query).is_err(), "{query}");
        }
        let most = history_filter("limit=99999999999").expect("as good as the most");
        assert_eq!(most.limit, HISTORY_MOST);
        for query in
            ["type=upgrades", "status=ok", "since=yesterday", "before=1", "cursor=0", "cursor=x"]
        {
            assert!(history_filter(query).is_err(), "{query}");
        }
        let filter =
            history_filter("since=2026-01-31T12:00:00Z&before=2026-02-01T00:00:00+01:00&cursor=7");
        let filter = filter.expect("fine");
        assert_eq!(
            filter.since.map(Timestamp::rfc3339).as_deref(),
            Some("2026-01-31T12:00:00.000Z")
        );
        assert_eq!(
            filter.before.map(Timestamp::rfc3339).as_deref(),
            Some("2026-01-31T23:00:00.000Z")
        );
        assert_eq!(filter.below, Some(7));
        let filter = history_filter("type=Upgrade&status=&limit=7&other=1").expect("fine");
        assert_eq!(
            (filter.kind.as_deref(), filter.status, filter.limit),
            (Some("Upgrade"), None, 7)
        );
    }
}
