//! `GET /upgrade/events`: server-sent events, so that a dashboard need not poll.
//!
//! `state` when the job's view changes, `log` for each line, `progress` for the step in hand.
//! A log event's id is its row in the journal; `Last-Event-ID` goes on after it. The journal is
//! the source: what is streamed is what is stored.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use hyper::header::{CONNECTION, HeaderValue};
use serde_json::{Value, json};
use warp::Reply;
use warp::reply::Response;
use warp::sse::Event;

use super::access::Refusal;
use super::asked::{self, Asked};
use super::places::Seat;
use super::{Api, answers};
use crate::driver::{JobView, Progress};
use crate::journal::{LastJob, Line, Reader, Seq};

/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes of log lines that one look takes up at most; what is left comes with the next.
const LOOK_BYTES: usize = 32 * 1024;

/// How far one listener is.
struct Listener {
    api: Arc<Api>,
    job: String,
    after: Seq,
    /// The newest row at the last look: nothing is read again before there is a newer one.
    newest: Option<Seq>,
    view: Value,
    progress: Progress,
    ready: VecDeque<Event>,
    has_looked: bool,
    _seat: Seat,
}

/// The stream, from now on or from after `Last-Event-ID`; 503 when there are too many.
pub(super) fn stream(api: &Arc<Api>, asked: &Asked) -> Response {
    let Some(seat) = asked.place.stream() else {
        let most = api.limits.streams;
        if let Some(times) = api.streams_refused.count() {
            tracing::warn!(
                times,
                "all {most} streams of events are taken; further ones were refused"
            );
        }
        return answers::refusal(&Refusal::too_many_streams(most));
    };
    let after = asked
        .headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .and_then(|id| id.parse().ok())
        .unwrap_or(0);
    let listener = Listener {
        api: Arc::clone(api),
        job: String::new(),
        after,
        newest: None,
        view: Value::Null,
        progress: Progress::default(),
        ready: VecDeque::new(),
        has_looked: false,
        _seat: seat,
    };
    let events = warp::sse::keep_alive().stream(events(listener));
    let mut response = warp::sse::reply(events).into_response();
    // Its place among the connections is gone.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn events(listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    stream::unfold(listener, |mut listener| async move {
        loop {
            if let Some(event) = listener.ready.pop_front() {
                return Some((Ok(event), listener));
            }
            if listener.has_looked {
                let stop = listener.api.stop.clone();
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = stop.cancelled() => return None,
                }
            }
            listener.has_looked = true;
            listener.look().await;
        }
    })
}

/// What a look found.
enum Looked {
    /// Nothing was written since the last.
    Nothing,
    NoJob {
        newest: Seq,
    },
    Job {
        job: Box<LastJob>,
        lines: Vec<Line>,
        /// None when there are further lines.
        newest: Option<Seq>,
    },
}

impl Listener {
    async fn look(&mut self) {
        let (after, newest) = (self.after, self.newest);
        let found = asked::read(&self.api, move |reader: &Reader| {
            let now = reader.newest_row()?;
            if newest == Some(now) {
                return Ok(Looked::Nothing);
            }
            let Some(job) = reader.newest_job()? else { return Ok(Looked::NoJob { newest: now }) };
            let (lines, is_all) = reader.log_page(job.id(), after, now, LOOK_BYTES)?;
            let newest = is_all.then_some(now);
            Ok(Looked::Job { job: Box::new(job), lines, newest })
        })
        .await;
        let (job, lines) = match found {
            Ok(Looked::Job { job, lines, newest }) => {
                self.newest = newest;
                // The lines that are left are not waited for.
                self.has_looked = newest.is_some();
                (job, lines)
            }
            Ok(Looked::Nothing) => return self.progress(),
            Ok(Looked::NoJob { newest }) => {
                self.newest = Some(newest);
                return self.state(serde_json::to_value(JobView::idle()).unwrap_or_default());
            }
            Err(error) => {
                let body = json!({"error": error.to_string()}).to_string();
                self.ready.push_back(Event::default().event("error").data(body));
                return;
            }
        };
        if self.job != job.id().as_str() {
            self.job = job.id().to_string();
        }
        for line in &lines {
            self.after = line.seq;
            self.log(line);
        }
        let idle = Progress::default();
        let view = self.api.driver.with_worker(|worker| JobView::of_last(&job, idle, worker));
        self.state(serde_json::to_value(view).unwrap_or_default());
        self.progress();
    }

    fn progress(&mut self) {
        let progress = self.api.driver.progress();
        if progress != self.progress {
            self.progress = progress;
            let body = json!({
                "doneBytes": progress.done_bytes,
                "totalBytes": progress.total_bytes,
                "progress": progress.percent(),
            });
            self.ready.push_back(Event::default().event("progress").data(body.to_string()));
        }
    }

    fn state(&mut self, view: Value) {
        if view != self.view {
            self.ready.push_back(Event::default().event("state").data(view.to_string()));
            self.view = view;
        }
    }

    fn log(&mut self, line: &Line) {
        let body = json!({"jobId": self.job, "at": line.at.rfc3339(), "text": line.text});
        let event = Event::default().event("log").id(line.seq.to_string()).data(body.to_string());
        self.ready.push_back(event);
    }
}
