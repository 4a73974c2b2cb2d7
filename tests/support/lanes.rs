//! Work that is mostly waited for, done side by side.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs something for each item, `lanes` at a time; the results are in the items' order.
pub fn side_by_side<'i, T: Sync, R: Send>(
    lanes: usize,
    items: &'i [T],
    run: impl Fn(&'i T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..lanes.max(1).min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = items.get(index) else { return };
                    let result = run(item);
                    results.lock().expect("no test panics with it").insert(index, result);
                }
            });
        }
    });
    results.into_inner().expect("no test panics with it").into_values().collect()
}
