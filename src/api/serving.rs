//! Whether the application answers now, for the status: asked at most once a second, however
//! often the status is.

use std::sync::Arc;
use std::time::Duration;

use super::Api;
use super::fresh::Fresh;
use crate::app::core;

/// How old an observation may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long the application may take to answer before it counts as silent here.
const PATIENCE: Duration = Duration::from_millis(800);

/// The last observation.
#[derive(Default)]
pub(super) struct Serving(Arc<Fresh<bool>>);

impl Serving {
    /// Whether the core behind the container of this name or id answers.
    pub async fn of(&self, api: &Arc<Api>, container: &str) -> bool {
        let looked = self.0.get(FRESH_FOR, || {
            let (api, container) = (Arc::clone(api), container.to_owned());
            async move {
                let looked = tokio::time::timeout(PATIENCE, look(&api, &container));
                looked.await.unwrap_or(false)
            }
        });
        // A look that panicked has seen nobody serve.
        looked.await.unwrap_or(false)
    }
}

async fn look(api: &Api, container: &str) -> bool {
    match api.engine.inspect_container(container).await {
        Ok(Some(found)) => {
            core::find_core(api.settings.core_base_url.as_ref(), &found).await.is_ok()
        }
        Ok(None) | Err(_) => false,
    }
}
