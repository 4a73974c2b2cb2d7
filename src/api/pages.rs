//! Answers that may be long, made page by page while the client reads: no answer is ever whole
//! in memory, and a client that does not read keeps a page of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use warp::Reply;
use warp::reply::Response;

use super::access::Refusal;
use super::places::Place;
use super::{Api, answers, asked};
use crate::journal::{JournalError, Reader};

/// Where the pages of an answer come from.
pub(super) trait Pages: Send + Sync + 'static {
    /// The next page; called until it is the last one. May block.
    fn next(&mut self, reader: &Reader, bytes: usize) -> Result<Page, JournalError>;
}

/// A piece of an answer.
pub(super) struct Page {
    pub text: Vec<u8>,
    pub is_last: bool,
}

/// Bytes of pages that were made and that the network has not taken.
#[derive(Default)]
pub(super) struct InHand {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl InHand {
    /// Counts these bytes until the last that refers to them is dropped.
    fn hold(self: &Arc<Self>, text: Vec<u8>) -> Bytes {
        let now = self.now.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        self.most.fetch_max(now, Ordering::Relaxed);
        Bytes::from_owner(Held { text, of: Arc::clone(self) })
    }

    /// Now, and the most so far.
    #[cfg(test)]
    pub fn bytes(&self) -> (usize, usize) {
        (self.now.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed))
    }
}

struct Held {
    text: Vec<u8>,
    of: Arc<InHand>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.now.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

/// An answer that is being given.
struct Giving<P> {
    api: Arc<Api>,
    pages: P,
    until: Instant,
    /// Of an answer of more than one page.
    _turn: OwnedSemaphorePermit,
}

/// 200 with these pages, 503 when there are too many long answers already.
pub(super) async fn answer(
    api: &Arc<Api>,
    place: &Place,
    content_type: &'static str,
    pages: impl Pages,
) -> Result<Response, JournalError> {
    let (pages, first) = page(api, pages).await?;
    let mut response = if first.is_last {
        Response::new(api.in_hand.hold(first.text).into())
    } else {
        let Some(turn) = place.long_answer().await else {
            if let Some(times) = api.answers_refused.count() {
                let most = api.limits.long_answers;
                tracing::warn!(
                    times,
                    "all {most} long answers are being read; further ones were refused"
                );
            }
            return Ok(answers::refusal(&Refusal::too_many_answers()));
        };
        let until = Instant::now() + api.limits.answer;
        let giving = Giving { api: Arc::clone(api), pages, until, _turn: turn };
        let first = api.in_hand.hold(first.text);
        warp::reply::stream(give(first, giving)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn page<P: Pages>(api: &Arc<Api>, mut pages: P) -> Result<(P, Page), JournalError> {
    let bytes = api.limits.page;
    asked::read_much(api, move |reader| {
        let page = pages.next(reader, bytes)?;
        Ok((pages, page))
    })
    .await
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// An error ends the connection in the middle of the answer, so that nobody takes it for whole.
fn give<P: Pages>(
    first: Bytes,
    giving: Giving<P>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + Sync + 'static {
    let rest = stream::unfold(Some(giving), |giving| async move {
        match next(giving?).await {
            Ok((text, giving)) => Some((Ok(text), giving)),
            Err(error) => {
                tracing::warn!(%error, "an answer was cut off");
                Some((Err(error), None))
            }
        }
    });
    stream::once(std::future::ready(Ok(first))).chain(rest)
}

async fn next<P: Pages>(giving: Giving<P>) -> Result<(Bytes, Option<Giving<P>>), Error> {
    let Giving { api, pages, until, _turn } = giving;
    if Instant::now() >= until {
        let seconds = api.limits.answer.as_secs();
        return Err(format!("it was not read to its end within {seconds} s").into());
    }
    let (pages, page) = page(&api, pages).await?;
    let text = api.in_hand.hold(page.text);
    let giving = (!page.is_last).then_some(Giving { api, pages, until, _turn });
    Ok((text, giving))
}
