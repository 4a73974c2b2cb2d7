//! Whether the application answers now, for the status: asked at most once a second, however
//! often the status is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::app::core;
use crate::config::Settings;
use crate::engine::Engine;

/// How old an observation may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long the application may take to answer before it counts as silent here.
const PATIENCE: Duration = Duration::from_millis(800);

/// The last observation.
#[derive(Default)]
pub(super) struct Serving(Mutex<Option<(Instant, bool)>>);

impl Serving {
    /// Whether the core behind the container of this name or id answers.
    pub async fn of(&self, settings: &Settings, engine: &dyn Engine, container: &str) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, serves)) = last
            && at.elapsed() < FRESH_FOR
        {
            return serves;
        }
        let looked = tokio::time::timeout(PATIENCE, async {
            match engine.inspect_container(container).await {
                Ok(Some(found)) => {
                    core::find_core(settings.core_base_url.as_ref(), &found).await.is_ok()
                }
                Ok(None) | Err(_) => false,
            }
        });
        let serves = looked.await.unwrap_or(false);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), serves));
        serves
    }
}
