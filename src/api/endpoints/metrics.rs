//! `GET /metrics`: what a monitoring system asks every few seconds.
//!
//! Called by [`super::answer`]. The look is shared by all who ask within a second; the journal is
//! read again only when it has further rows, and of its events only those that are new.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use super::reads::container_of;
use super::{read, read_much};
use crate::api::fresh::Lost;
use crate::api::metrics::{self, FromJournal, Measured};
use crate::api::{Api, answers};
use crate::auto_update::stored::Stored;
use crate::driver::{JobView, last_downtime};
use crate::history::{read_last_good, read_set_aside};
use crate::journal::{JournalError, Reader};

/// How old an answer may be.
const AGE: Duration = Duration::from_secs(1);

pub(super) async fn answer(api: &Arc<Api>) -> Response {
    let looked = api.metrics.get(AGE, || {
        let api = Arc::clone(api);
        async move { look(&api).await.map(Bytes::from).map_err(|error| error.to_string()) }
    });
    let failed = |code, message: &str| {
        tracing::error!(message, "the metrics could not be gathered");
        answers::error(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    };
    let text = match looked.await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return failed("JOURNAL_ERROR", &error),
        Err(Lost) => {
            let message = "the look failed because of a fault in payram-updater; see its log";
            return failed("METRICS_FAILED", message);
        }
    };
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn look(api: &Arc<Api>) -> Result<String, JournalError> {
    let journal = from_journal(api).await?;
    let newest = read(api, Reader::newest_job).await?;
    let name = newest.as_ref().and_then(container_of).map(str::to_owned);
    let name = api.settings.target_container_name.clone().or(name);
    let serves = match name {
        Some(name) => Some(api.serving.of(&api.settings, &api.engine, &name).await),
        None => None,
    };
    let job = match &newest {
        Some(job) => api.driver.view_last(job),
        None => JobView::idle(),
    };
    let stored = Stored::read(&api.settings.state_dir);
    let measured = Measured {
        began_ms: api.began.millis(),
        job,
        is_blocked: api.driver.blocked().is_some(),
        serves,
        journal,
        is_broken: api.chain.state().fault.is_some(),
        updates_itself: stored.ok().map(|stored| stored.is_some_and(|stored| stored.enabled)),
    };
    Ok(measured.text())
}

/// What the rows say; as it was where there are no further ones.
async fn from_journal(api: &Arc<Api>) -> Result<FromJournal, JournalError> {
    let known = Arc::clone(&api.counted);
    read_much(api, move |reader| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.events.upto() == reader.newest_row()? {
            return Ok(known.clone());
        }
        let mut events = std::mem::take(&mut known.events);
        let counted = reader.tally(&mut events);
        known.events = events;
        counted?;
        let aside = read_set_aside(reader)?;
        let left: Vec<_> = aside.iter().filter(|one| one.dismissed.is_none()).collect();
        known.set_aside = (left.len(), left.iter().filter_map(|one| one.rows).sum());
        known.quarantined = reader.quarantine()?.iter().filter(|it| it.stands()).count();
        known.downtime = last_downtime(reader)?.map(|measured| measured.seconds);
        known.good_version = read_last_good(reader)?.and_then(|good| good.version);
        Ok(known.clone())
    })
    .await
}
