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
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use warp::Reply;
use warp::reply::Response;
use warp::sse::Event;

use super::{Api, endpoints};
use crate::driver::{JobView, Progress};
use crate::journal::{Line, Reader, Seq};

/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How far one listener is.
struct Listener {
    api: Arc<Api>,
    job: String,
    after: Seq,
    view: Value,
    progress: Progress,
    ready: VecDeque<Event>,
    has_looked: bool,
}

/// The stream, from now on or from after `Last-Event-ID`.
pub(super) fn stream(api: Arc<Api>, headers: &HeaderMap) -> Response {
    let after = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .and_then(|id| id.parse().ok())
        .unwrap_or(0);
    let listener = Listener {
        api,
        job: String::new(),
        after,
        view: Value::Null,
        progress: Progress::default(),
        ready: VecDeque::new(),
        has_looked: false,
    };
    warp::sse::reply(warp::sse::keep_alive().stream(events(listener))).into_response()
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

impl Listener {
    async fn look(&mut self) {
        let after = self.after;
        let found = endpoints::read(&self.api, move |reader: &Reader| match reader.last_job()? {
            Some(job) => {
                let lines = reader.log_lines(&job.id, after)?;
                Ok(Some((job, lines)))
            }
            None => Ok(None),
        })
        .await;
        let (job, lines) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                return self.state(serde_json::to_value(JobView::idle()).unwrap_or_default());
            }
            Err(error) => {
                let body = json!({"error": error.to_string()}).to_string();
                self.ready.push_back(Event::default().event("error").data(body));
                return;
            }
        };
        if self.job != job.id.as_str() {
            self.job = job.id.to_string();
        }
        for line in &lines {
            self.after = line.seq;
            self.log(line);
        }
        let view = JobView::of(&job, Progress::default());
        self.state(serde_json::to_value(view).unwrap_or_default());
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
