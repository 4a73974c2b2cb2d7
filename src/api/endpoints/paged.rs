//! History and log as pages of an answer: together they are the JSON or the text that one
//! piece would be.

use serde_json::json;

use crate::api::answers;
use crate::api::pages::{Page, Pages};
use crate::journal::{JobId, JournalError, Reader, Seq};

/// The events of these rows: `{"events": […], "count": N}`.
pub(super) struct HistoryPages {
    pub rows: Vec<Seq>,
    /// So many of them are in earlier pages.
    pub done: usize,
    /// Where a further request goes on, when there may be more.
    pub next: Option<Seq>,
}

impl Pages for HistoryPages {
    fn next(&mut self, reader: &Reader, bytes: usize) -> Result<Page, JournalError> {
        let rest = self.rows.get(self.done..).unwrap_or_default();
        let events = reader.events(rest, bytes)?;
        let mut text = String::new();
        if self.done == 0 {
            text.push_str(r#"{"events":["#);
        }
        for event in &events {
            if self.done > 0 {
                text.push(',');
            }
            text.push_str(&json!(event).to_string());
            self.done += 1;
        }
        // A row that is there is given; none is left out in silence.
        let is_last = self.done >= self.rows.len();
        if is_last {
            let next = self.next.map(|next| format!(r#","nextCursor":"{next}""#));
            text.push_str(&format!(r#"],"count":{}{}}}"#, self.done, next.unwrap_or_default()));
        }
        Ok(Page { text: text.into_bytes(), is_last })
    }
}

/// The log lines of a job after one row and up to another, as text or as
/// `{"jobId": …, "lines": […]}`.
pub(super) struct LogPages {
    /// None when there never was one.
    pub job: Option<JobId>,
    pub after: Seq,
    pub upto: Seq,
    pub wants_json: bool,
    /// Whether a page was made already.
    pub has_begun: bool,
}

impl Pages for LogPages {
    fn next(&mut self, reader: &Reader, bytes: usize) -> Result<Page, JournalError> {
        let (lines, is_last) = match &self.job {
            Some(job) => reader.log_page(job, self.after, self.upto, bytes)?,
            None => (Vec::new(), true),
        };
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let mut text = String::new();
        if self.wants_json && is_first {
            let job = self.job.as_ref().map(JobId::as_str).unwrap_or_default();
            text.push_str(&format!(r#"{{"jobId":{},"lines":["#, json!(job)));
        }
        for (index, line) in lines.iter().enumerate() {
            if !self.wants_json {
                text.push_str(&answers::log_line(line.at, &line.text));
                text.push('\n');
                continue;
            }
            if !(is_first && index == 0) {
                text.push(',');
            }
            let line = json!({"seq": line.seq, "at": line.at.rfc3339(), "text": line.text});
            text.push_str(&line.to_string());
        }
        if let Some(last) = lines.last() {
            self.after = last.seq;
        }
        if self.wants_json && is_last {
            text.push_str("]}");
        }
        Ok(Page { text: text.into_bytes(), is_last })
    }
}
