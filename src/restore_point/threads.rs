//! Work on many files by two threads: one waits for the disk while the other computes.
//!
//! Called by `copy` and `manifest`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::bring::Buffers;
use super::error::RestorePointError;

type Result<T> = std::result::Result<T, RestorePointError>;

/// Works on all items, on this thread and one more; ends at the first error.
pub(super) fn on_two_threads<T: Sync>(
    items: &[T],
    work: impl Fn(&T, &mut Buffers) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let run = || {
        let mut buffers = Buffers::new();
        while !is_over.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let done = work(item, &mut buffers);
            if done.is_err() {
                is_over.store(true, Ordering::Relaxed);
                return done;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = (items.len() > 1).then(|| scope.spawn(run));
        let mine = run();
        let theirs = other.map_or(Ok(()), |other| {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        mine.and(theirs)
    })
}
