//! A request after access control, and the journal read for it without blocking anybody else.
//!
//! Made by [`super::connection`]; for the endpoints and the stream of events.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderMap;
use tokio::sync::Semaphore;

use super::Api;
use super::access::Caller;
use super::places::Place;
use crate::journal::{JournalError, Reader};

/// A request, after access control.
pub(super) struct Asked {
    pub caller: Caller,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The place of the connection that it came by.
    pub place: Arc<Place>,
}

/// Reads the journal where it may block.
pub(super) async fn read<T: Send + 'static>(
    api: &Api,
    read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    read_within(api, &api.reads, read).await
}

/// The same for a read that may look through many rows: some connections stay free of those.
pub(super) async fn read_much<T: Send + 'static>(
    api: &Api,
    read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    read_within(api, &api.long_reads, read).await
}

async fn read_within<T: Send + 'static>(
    api: &Api,
    places: &Semaphore,
    read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    // Nobody closes it; and who waits here holds no thread.
    let _place = places.acquire().await;
    let reader = Arc::clone(&api.reader);
    match tokio::task::spawn_blocking(move || read(&reader)).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
