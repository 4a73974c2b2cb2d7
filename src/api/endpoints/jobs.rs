//! `GET /upgrade/jobs` and `/upgrade/jobs/{id}`: every upgrade that there was, not only the last.
//!
//! Called by [`super::answer`]. Their logs and events are in `reads`.

use serde_json::{Value, json};
use warp::reply::Response;

use super::reads::{bad_parameter, count, parameters, unknown};
use super::{Asked, read, read_much};
use crate::api::{Api, answers};
use crate::journal::{JobId, JournalError, LastJob};

/// Jobs that one answer holds unless it is asked for another number, and at most.
const JOBS: u32 = 20;
const MOST_JOBS: u32 = 100;

/// The newest jobs; `cursor` goes on where an answer ended.
pub(super) async fn list(api: &Api, asked: &Asked) -> Result<Response, JournalError> {
    let (mut limit, mut before) = (JOBS, None);
    for (key, value) in parameters(&asked.query) {
        match key.as_str() {
            "limit" => match count(&value).filter(|limit| *limit > 0) {
                Some(wanted) => limit = wanted.min(MOST_JOBS),
                None => {
                    let message = format!("limit is a whole number from 1, found {value:?}");
                    return Ok(bad_parameter(&message));
                }
            },
            "cursor" => before = Some(JobId::from_text(value)),
            _ => {}
        }
    }
    let from = before.clone();
    let found = read_much(api, move |reader| {
        if let Some(from) = &from
            && reader.job(from).is_ok_and(|job| job.is_none())
        {
            return Ok(None);
        }
        let ids = reader.job_ids(limit, from.as_ref())?;
        // One that a program of another age wrote hides none of the others.
        let jobs = ids.into_iter().map(|id| (reader.job(&id), id));
        Ok(Some(jobs.collect::<Vec<_>>()))
    });
    let Some(found) = found.await? else {
        return Ok(unknown(before.as_ref().map(JobId::as_str).unwrap_or_default()));
    };
    let next = (found.len() as u32 == limit).then(|| found.last().map(|(_, id)| id.to_string()));
    let jobs: Vec<Value> = found
        .into_iter()
        .map(|(job, id)| match job {
            Ok(Some(job)) => view(api, &job),
            Ok(None) => json!({"jobId": id.as_str(), "error": "its rows are not there"}),
            Err(error) => json!({"jobId": id.as_str(), "error": error.to_string()}),
        })
        .collect();
    let mut answer = json!({"jobs": jobs, "count": jobs.len()});
    if let Some(next) = next.flatten() {
        answer["nextCursor"] = next.into();
    }
    Ok(answers::json(&answer))
}

/// One job, as the status shows it.
pub(super) async fn one(api: &Api, id: &str) -> Result<Response, JournalError> {
    let wanted = JobId::from_text(id.to_owned());
    Ok(match read(api, move |reader| reader.job(&wanted)).await? {
        Some(job) => answers::json(&view(api, &job)),
        None => unknown(id),
    })
}

fn view(api: &Api, job: &LastJob) -> Value {
    serde_json::to_value(api.driver.view_last(job)).unwrap_or_default()
}
