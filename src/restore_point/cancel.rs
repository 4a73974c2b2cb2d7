//! Stopping a pass from outside, and telling how far it is.
//!
//! A pass says before each operation on a file how far it is and asks whether to go on, so that
//! a request is answered within one operation, and a test can interrupt between any two.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{OnProgress, RestorePointError};

/// A request to stop; its clones are one request.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
}

/// Asks when it is dropped.
#[derive(Debug)]
pub struct CancelOnDrop(Cancel);

impl Cancel {
    /// Asks to stop.
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// A guard that asks when it is dropped.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Both for one pass, shared by its threads.
pub(super) struct Watch<'a> {
    progress: Mutex<&'a mut OnProgress<'a>>,
    cancel: &'a Cancel,
    done_bytes: AtomicU64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(progress: &'a mut OnProgress<'a>, cancel: &'a Cancel) -> Self {
        Self { progress: Mutex::new(progress), cancel, done_bytes: AtomicU64::new(0) }
    }

    /// Called before each operation.
    ///
    /// # Errors
    /// [`RestorePointError::Cancelled`], when somebody asked.
    pub(super) fn go_on(&self) -> Result<(), RestorePointError> {
        let done = self.done_bytes.load(Ordering::Relaxed);
        // A callback that panicked on the other thread ends the pass there.
        (self.progress.lock().unwrap_or_else(PoisonError::into_inner))(done);
        if self.cancel.is_cancelled() { Err(RestorePointError::Cancelled) } else { Ok(()) }
    }

    /// Notes that this many bytes were dealt with.
    pub(super) fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
