//! A line in the log for something that strangers can cause as often as they like: once in a
//! while, with how often it happened.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of thing that happens.
#[derive(Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// It happened; answers how often since the last line, when a line is due.
    pub fn count(&self) -> Option<u64> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.1 += 1;
        if seen.0.is_some_and(|last| last.elapsed() < EVERY) {
            return None;
        }
        seen.0 = Some(Instant::now());
        Some(std::mem::take(&mut seen.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_refusals_are_one_line_that_counts_them() {
        let refused = Seldom::default();
        assert_eq!(refused.count(), Some(1));
        assert_eq!((refused.count(), refused.count()), (None, None));
        tokio::time::advance(EVERY).await;
        assert_eq!(refused.count(), Some(3));
    }
}
