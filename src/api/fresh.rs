//! A look that many ask for is made once: whoever comes while it is under way shares it, and
//! whoever comes shortly after is given what it found.
//!
//! It runs as a task of its own, so that a client that goes away takes it from nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What the last look found, and the one under way.
pub(super) struct Fresh<T> {
    looks: Mutex<Looks<T>>,
}

struct Looks<T> {
    /// With the time at which the look began.
    last: Option<(Instant, T)>,
    running: Option<(Instant, watch::Receiver<Option<T>>)>,
}

/// The look panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self { looks: Mutex::new(Looks { last: None, running: None }) }
    }
}

impl<T: Clone + Send + Sync + 'static> Fresh<T> {
    /// What a look found that began at most `within` before this call.
    pub async fn get<F>(self: &Arc<Self>, within: Duration, look: impl Fn() -> F) -> Result<T, Lost>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let asked = Instant::now();
        let is_fresh = |began: Instant| asked.saturating_duration_since(began) <= within;
        loop {
            let (began, mut found) = {
                let mut looks = self.lock();
                if let Some((began, found)) = &looks.last
                    && is_fresh(*began)
                {
                    return Ok(found.clone());
                }
                match &looks.running {
                    Some((began, found)) => (*began, found.clone()),
                    None => {
                        let (publish, found) = watch::channel(None);
                        let began = Instant::now();
                        looks.running = Some((began, found.clone()));
                        self.spawn(began, publish, look());
                        (began, found)
                    }
                }
            };
            let found = match found.wait_for(Option::is_some).await {
                Ok(found) => found.clone(),
                Err(_) => None,
            };
            match found {
                Some(found) if is_fresh(began) => return Ok(found),
                // It began before what this caller wants to be told of.
                Some(_) => {}
                None => return Err(Lost),
            }
        }
    }

    fn spawn(
        self: &Arc<Self>,
        began: Instant,
        publish: watch::Sender<Option<T>>,
        look: impl Future<Output = T> + Send + 'static,
    ) {
        let fresh = Arc::clone(self);
        tokio::spawn(async move {
            let mut ends = Ends { fresh: &fresh, last: None };
            let found = look.await;
            ends.last = Some((began, found.clone()));
            drop(ends);
            publish.send_replace(Some(found));
        });
    }

    fn lock(&self) -> MutexGuard<'_, Looks<T>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for the next look, also when this one panics.
struct Ends<'a, T: Clone + Send + Sync + 'static> {
    fresh: &'a Fresh<T>,
    last: Option<(Instant, T)>,
}

impl<T: Clone + Send + Sync + 'static> Drop for Ends<'_, T> {
    fn drop(&mut self) {
        let mut looks = self.fresh.lock();
        looks.running = None;
        if self.last.is_some() {
            looks.last = self.last.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// A look that takes until it is let go, and counts itself.
    struct World {
        fresh: Arc<Fresh<u32>>,
        count: Arc<AtomicU32>,
        go: Arc<Semaphore>,
    }

    impl World {
        fn new() -> Self {
            let (count, go) = (Arc::default(), Arc::new(Semaphore::new(0)));
            Self { fresh: Arc::default(), count, go }
        }

        async fn get(&self, within: Duration) -> Result<u32, Lost> {
            self.fresh
                .get(within, || {
                    let (count, go) = (Arc::clone(&self.count), Arc::clone(&self.go));
                    async move {
                        let mine = count.fetch_add(1, Ordering::SeqCst) + 1;
                        go.acquire().await.expect("it is never closed").forget();
                        mine
                    }
                })
                .await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_at_once_share_one_look_and_its_answer_serves_for_a_second() {
        let world = World::new();
        let second = Duration::from_secs(1);
        world.go.add_permits(1);
        let (a, b, c) = tokio::join!(world.get(second), world.get(second), world.get(second));
        assert_eq!((a, b, c), (Ok(1), Ok(1), Ok(1)));
        assert_eq!(world.get(second).await, Ok(1));
        tokio::time::advance(Duration::from_millis(1001)).await;
        world.go.add_permits(1);
        assert_eq!(world.get(second).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_what_is_so_now_is_not_given_a_look_that_began_before() {
        let world = Arc::new(World::new());
        let first = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.get(Duration::ZERO).await }
        });
        while world.count.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_millis(5)).await;
        world.go.add_permits(2);
        assert_eq!(world.get(Duration::ZERO).await, Ok(2));
        assert_eq!(first.await.expect("it ends"), Ok(1));
    }

    #[tokio::test]
    async fn a_look_that_panics_is_lost_and_the_next_one_is_made() {
        let fresh: Arc<Fresh<u32>> = Arc::default();
        let lost = fresh.get(Duration::ZERO, || async { panic!("on purpose") }).await;
        assert_eq!(lost, Err(Lost));
        assert_eq!(fresh.get(Duration::ZERO, || async { 7 }).await, Ok(7));
    }
}
