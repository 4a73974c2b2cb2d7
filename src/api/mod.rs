//! The HTTP API (contract section 1): one warp service behind three kinds of listeners.
//!
//! A request's way: [`listen`] accepts a connection and knows who called, [`access`] decides
//! whether that caller may, `serve` here bounds the body, [`routes`] names the endpoint, and
//! [`endpoints`] answers from the journal (by the read-only [`Reader`]) or hands a plan to the
//! driver. Nothing here changes the world; only the driver does.

mod access;
mod answers;
mod endpoints;
mod events;
mod listen;
mod neighbours;
mod routes;
mod serving;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::driver::Driver;
use crate::engine::Engine;
use crate::journal::Reader;

pub use listen::ListenError;

/// What every endpoint answers from.
pub struct Api {
    settings: Arc<Settings>,
    engine: Arc<dyn Engine>,
    driver: Arc<Driver>,
    reader: Arc<Reader>,
    serving: serving::Serving,
    neighbours: neighbours::Neighbours,
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
        Self {
            settings,
            engine,
            driver,
            reader,
            serving: serving::Serving::default(),
            neighbours: neighbours::Neighbours::default(),
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
