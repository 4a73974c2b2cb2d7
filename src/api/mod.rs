//! The HTTP API (contract section 1): one warp service behind three kinds of listeners.
//!
//! A request's way: [`listen`] accepts a connection, knows who called and has a place for it or
//! not ([`places`]), [`connection`] reads the request and bounds its body, [`access`] decides
//! whether that caller may, [`routes`] names the endpoint, and [`endpoints`] answers from the
//! journal (by the read-only [`Reader`]) or hands a plan to the driver. Nothing here changes
//! the world; only the driver does.
//!
//! Whoever calls and however often, what it costs is bounded ([`limits`]): looks are shared
//! ([`fresh`]), long answers are made in [`pages`], and who does not read is cut off
//! ([`deadline`]).

mod access;
mod answers;
mod asked;
mod connection;
mod deadline;
mod endpoints;
mod events;
mod fresh;
mod limits;
mod listen;
mod metrics;
mod neighbours;
mod openapi;
mod pages;
mod places;
mod routes;
mod seldom;
mod serving;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::config::Settings;
use crate::driver::Driver;
use crate::engine::Engine;
use crate::journal::{ChainWatch, Reader};
use fresh::Fresh;
use limits::Limits;

pub use listen::ListenError;

/// What every endpoint answers from.
pub struct Api {
    settings: Arc<Settings>,
    engine: Arc<dyn Engine>,
    driver: Arc<Driver>,
    reader: Arc<Reader>,
    /// So many reads of the journal may run at once, and so many long ones.
    reads: Semaphore,
    long_reads: Semaphore,
    chain: ChainWatch,
    /// The last `inspect`, as JSON, or why there is none.
    inspection: Arc<Fresh<Result<Bytes, String>>>,
    /// The last `versions`, as JSON, or why there is none.
    versions: Arc<Fresh<Result<Bytes, String>>>,
    /// The last `metrics`, as text, or why there is none.
    metrics: Arc<Fresh<Result<Bytes, String>>>,
    /// What the journal said when they were gathered.
    counted: Arc<Mutex<metrics::FromJournal>>,
    /// When this API was made.
    began: Timestamp,
    /// The container's name as the manifest had it last.
    manifest_name: Arc<Fresh<Option<String>>>,
    serving: serving::Serving,
    neighbours: neighbours::Neighbours,
    in_hand: Arc<pages::InHand>,
    answers_refused: seldom::Seldom,
    streams_refused: seldom::Seldom,
    limits: Limits,
    stop: CancellationToken,
}

impl Api {
    /// An API over this driver and the journal that it writes.
    pub fn new(
        settings: Arc<Settings>,
        engine: Arc<dyn Engine>,
        driver: Arc<Driver>,
        reader: Arc<Reader>,
        stop: CancellationToken,
    ) -> Self {
        let chain = ChainWatch::start(&settings.journal_path());
        Self::with(settings, engine, driver, reader, chain, Limits::default(), stop)
    }

    fn with(
        settings: Arc<Settings>,
        engine: Arc<dyn Engine>,
        driver: Arc<Driver>,
        reader: Arc<Reader>,
        chain: ChainWatch,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        Self {
            settings,
            engine,
            driver,
            reader,
            reads: Semaphore::new(limits.reads),
            long_reads: Semaphore::new(limits.long_reads),
            chain,
            inspection: Arc::default(),
            versions: Arc::default(),
            metrics: Arc::default(),
            counted: Arc::default(),
            began: Timestamp::now(),
            manifest_name: Arc::default(),
            serving: serving::Serving::default(),
            neighbours: neighbours::Neighbours::default(),
            in_hand: Arc::default(),
            answers_refused: seldom::Seldom::default(),
            streams_refused: seldom::Seldom::default(),
            limits,
            stop,
        }
    }

    /// Binds the loopback port and the Unix socket, follows the bridge's addresses, and serves
    /// until told to stop. `ready` is called once both are bound.
    ///
    /// # Errors
    /// When the port or the socket can't be bound.
    pub async fn serve(self: Arc<Self>, ready: impl FnOnce()) -> Result<(), ListenError> {
        listen::serve(self, ready).await
    }
}
