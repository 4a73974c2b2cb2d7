//! Whether the application answers now, for the status: asked at most once a second, however
//! often the status is, and by one question at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::core::{Probe, Search};
use crate::config::Settings;
use crate::engine::Engine;

/// How old an observation may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long the status waits for the application. One that needs longer is not silent: the
/// question goes on, and until its answer the last observation counts.
const PATIENCE: Duration = Duration::from_millis(800);

/// How much longer than one answer of the application a question may take, its search included.
const SEARCH_BEYOND: Duration = Duration::from_secs(30);

/// The last observation, and the question that is under way.
#[derive(Default)]
pub(super) struct Serving(Arc<Mutex<Seen>>);

/// Whether it answers now, looked for everywhere and waited for: for a decision that depends on
/// it. What can't be asked does not answer.
pub(super) async fn surely(settings: &Settings, engine: &dyn Engine, container: &str) -> bool {
    match engine.inspect_container(container).await {
        Ok(Some(found)) => Probe::of(settings).find_at_once(engine, &found).await.is_ok(),
        Ok(None) | Err(_) => false,
    }
}

#[derive(Default)]
struct Seen {
    last: Option<(Instant, bool)>,
    /// The id of the container that was asked last.
    container: Option<String>,
    asking: Option<watch::Receiver<Option<bool>>>,
    /// Where it was found; with the question while one is under way.
    search: Option<Search>,
}

impl Serving {
    /// Whether the core behind the container of this name or id answers, as far as is known at
    /// once.
    pub async fn of(&self, settings: &Settings, engine: &Arc<dyn Engine>, container: &str) -> bool {
        let (last, mut asking) = {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, serves)) = seen.last
                && at.elapsed() < FRESH_FOR
            {
                return serves;
            }
            let asking = match seen.asking.clone() {
                Some(asking) => asking,
                None => self.ask(&mut seen, settings, engine, container),
            };
            (seen.last.is_some_and(|(_, serves)| serves), asking)
        };
        let answered = tokio::time::timeout(PATIENCE, asking.wait_for(Option::is_some)).await;
        match answered {
            Ok(Ok(answer)) => answer.unwrap_or(last),
            Ok(Err(_ended_without_a_word)) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).asking = None;
                last
            }
            Err(_takes_longer) => last,
        }
    }

    /// The id of the container that answered last; none where it does not answer now.
    pub fn who(&self) -> Option<String> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.last.and_then(|(_, serves)| seen.container.clone().filter(|_| serves))
    }

    /// Asks in a task of its own, so that a slow answer is not asked for in vain again and again.
    fn ask(
        &self,
        seen: &mut Seen,
        settings: &Settings,
        engine: &Arc<dyn Engine>,
        container: &str,
    ) -> watch::Receiver<Option<bool>> {
        let (tell, asking) = watch::channel(None);
        seen.asking = Some(asking.clone());
        let mut search = seen.search.take().unwrap_or_else(|| Search::new(Probe::of(settings)));
        let limit = settings.answer_timeout.saturating_add(SEARCH_BEYOND);
        let (engine, container) = (Arc::clone(engine), container.to_owned());
        let kept = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut who = None;
            let looked = tokio::time::timeout(limit, async {
                match engine.inspect_container(&container).await {
                    Ok(Some(found)) => {
                        who = found["Id"].as_str().map(str::to_owned);
                        search.look_until_heard(engine.as_ref(), &found).await.is_ok()
                    }
                    Ok(None) | Err(_) => false,
                }
            });
            let serves = looked.await.unwrap_or(false);
            let mut seen = kept.lock().unwrap_or_else(PoisonError::into_inner);
            seen.last = Some((Instant::now(), serves));
            seen.container = who;
            seen.asking = None;
            seen.search = Some(search);
            tell.send_replace(Some(serves));
        });
        asking
    }
}
