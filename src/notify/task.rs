//! The task that follows the history and tells of it.
//!
//! Started by `serve` where `NOTIFY_URL` is set. It changes nothing but the journal, in which it
//! writes down what was told. One event after the other, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use url::Url;

use super::letter::{Letter, is_told};
use super::post::{self, NotTaken};
use super::{EVENT_ID, FAILED, NOTIFICATION, STARTED, SUCCEEDED};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::driver::{Driver, WaitsFor};
use crate::journal::{HistoryEvent, HistoryFilter, JournalError, NewEvent, Reader, Seq};

/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Before each further attempt at a letter that was not taken. After the last it is given up.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// What is older when it could be told is no news any more: the daemon, or the setting, was away.
const NEWS_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Events that are read at once.
const PAGE: u32 = 100;

/// The one that tells.
pub struct Notifier {
    settings: Arc<Settings>,
    driver: Arc<Driver>,
    reader: Arc<Reader>,
    stop: CancellationToken,
    host: String,
}

/// How far it is.
struct Course {
    /// Everything up to this row is told, or not worth it.
    told: Seq,
    /// The newest row at the last look.
    newest: Seq,
    /// Whether the last letter was given up: the next ones are tried once.
    is_unheard: bool,
    /// What was last said of a journal that can't be used.
    blocked: Option<String>,
}

impl Notifier {
    /// One that tells of what this driver does.
    pub fn new(
        settings: Arc<Settings>,
        driver: Arc<Driver>,
        reader: Arc<Reader>,
        stop: CancellationToken,
    ) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { settings, driver, reader, stop, host }
    }

    /// Tells, until told to stop; at once over where there is nobody to tell.
    pub async fn run(self) {
        let Some(url) = self.settings.notify_url.clone() else { return };
        let url = url.expose();
        let mut course = None;
        let mut complained = String::new();
        while !self.stop.is_cancelled() {
            match self.turn(url, &mut course).await {
                Ok(()) => complained.clear(),
                Err(error) => {
                    let complaint = error.to_string();
                    if complaint != complained {
                        tracing::warn!("notifications wait for the journal: {complaint}");
                        complained = complaint;
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn turn(&self, url: &Url, course: &mut Option<Course>) -> Result<(), JournalError> {
        let course = match course {
            Some(course) => course,
            None => course.insert(self.begin().await?),
        };
        self.tell_of_the_journal(url, course).await;
        let newest = self.read(Reader::newest_row).await?;
        if newest == course.newest {
            return Ok(());
        }
        loop {
            let after = course.told;
            let events = self.read(move |it| it.events_after(after, NOTIFICATION, PAGE)).await?;
            if events.is_empty() {
                break;
            }
            for event in events {
                if is_told(&event) && is_news(&event) && !self.tell(url, course, &event).await? {
                    return Ok(());
                }
                course.told = event.id.parse().unwrap_or(course.told);
            }
        }
        course.newest = newest;
        Ok(())
    }

    /// Where it was; at the first start of all, the newest row, which is written down.
    async fn begin(&self) -> Result<Course, JournalError> {
        let course = |told| Course { told, newest: 0, is_unheard: false, blocked: None };
        let last = self.read(last_of_all).await?;
        if let Some(told) = last.and_then(|event| event.data.get(EVENT_ID)?.parse().ok()) {
            return Ok(course(told));
        }
        let newest = self.read(Reader::newest_row).await?;
        let message = "notifications begin; what was before is not told".to_owned();
        self.note(STARTED, message, &newest.to_string()).await?;
        Ok(course(newest))
    }

    /// Posts it, again and again where that may help, and writes down how it ended; false when told
    /// to stop before that.
    async fn tell(
        &self,
        url: &Url,
        course: &mut Course,
        event: &HistoryEvent,
    ) -> Result<bool, JournalError> {
        let waits = self.waits(event).await?;
        let letter = Letter::of(event, &self.host, waits.as_ref());
        let pauses: &[Duration] = if course.is_unheard { &[] } else { &PAUSES };
        let Some(posted) = self.post(url, &letter, pauses).await else { return Ok(false) };
        let (what, to) = (letter.subject(), post::shown(url));
        course.is_unheard = posted.is_err();
        match posted {
            Ok(()) => {
                let message = format!("told {to} of {what} (event {})", event.id);
                self.note(SUCCEEDED, message, &event.id).await?;
            }
            Err(NotTaken { reason, .. }) => {
                let message =
                    format!("{to} could not be told of {what} (event {}): {reason}", event.id);
                tracing::warn!("{message}");
                self.note(FAILED, message, &event.id).await?;
            }
        }
        Ok(true)
    }

    async fn post(
        &self,
        url: &Url,
        letter: &Letter<'_>,
        pauses: &[Duration],
    ) -> Option<Result<(), NotTaken>> {
        let attempts = async {
            let mut pauses = pauses.iter();
            loop {
                let refused = match post::once(&self.settings, url, letter).await {
                    Ok(()) => return Ok(()),
                    Err(refused) => refused,
                };
                match pauses.next().filter(|_| refused.may_pass) {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(refused),
                }
            }
        };
        tokio::select! {
            posted = attempts => Some(posted),
            () = self.stop.cancelled() => None,
        }
    }

    /// What the shop waits for, where the event is of the job that waits.
    async fn waits(&self, event: &HistoryEvent) -> Result<Option<WaitsFor>, JournalError> {
        let Some(job) = self.read(Reader::newest_job).await? else { return Ok(None) };
        let is_its = event.data.get("jobId").is_none_or(|id| id == job.id().as_str());
        let is_begun = event.status == STARTED;
        Ok(self.driver.view_last(&job).waits_for.filter(|_| is_its && !is_begun))
    }

    /// That the journal can't be used can't be read in it; nor can it be written down that it was
    /// told. Once for each reason.
    async fn tell_of_the_journal(&self, url: &Url, course: &mut Course) {
        let blocked = self.driver.blocked();
        if blocked == course.blocked {
            return;
        }
        course.blocked.clone_from(&blocked);
        let Some(reason) = blocked else { return };
        let event = HistoryEvent {
            id: String::new(),
            timestamp: Timestamp::now().rfc3339(),
            kind: "journal".to_owned(),
            status: FAILED.to_owned(),
            message: format!("nothing is done until the journal can be used again: {reason}"),
            data: BTreeMap::new(),
        };
        let letter = Letter::of(&event, &self.host, None);
        if let Some(Err(refused)) = self.post(url, &letter, &[]).await {
            let to = post::shown(url);
            tracing::warn!("{to} could not be told of {}: {}", letter.subject(), refused.reason);
        }
    }

    async fn note(
        &self,
        status: &'static str,
        message: String,
        event: &str,
    ) -> Result<(), JournalError> {
        let data = BTreeMap::from([(EVENT_ID.to_owned(), event.to_owned())]);
        self.driver.note(vec![NewEvent { kind: NOTIFICATION, status, message, data }]).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let reader = Arc::clone(&self.reader);
        match tokio::task::spawn_blocking(move || read(&reader)).await {
            Ok(read) => read,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// The newest event about what was told.
///
/// # Errors
/// When the journal can't be read.
pub(crate) fn last_of_all(reader: &Reader) -> Result<Option<HistoryEvent>, JournalError> {
    let filter =
        HistoryFilter { kind: Some(NOTIFICATION.to_owned()), limit: 1, ..HistoryFilter::default() };
    Ok(reader.history(&filter)?.into_iter().next())
}

/// Of a time that can't be read it is not known to be old.
fn is_news(event: &HistoryEvent) -> bool {
    let Some(at) = Timestamp::parse(&event.timestamp) else { return true };
    let age = Timestamp::now().millis().saturating_sub(at.millis());
    u128::try_from(age).unwrap_or_default() <= NEWS_FOR.as_millis()
}
