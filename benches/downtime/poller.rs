//! Asks the application for its health, again and again, as a customer would who waits: its
//! good answers are all that is known of a downtime from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::support::http::Request;

/// Between an answer and the next question.
const EVERY: Duration = Duration::from_millis(5);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that asks; ends when it is dropped.
pub struct Poller {
    stop: Arc<AtomicBool>,
    /// When each good answer had come, by the host's clock, like the journal's times.
    good: Arc<Mutex<Vec<SystemTime>>>,
    thread: Option<JoinHandle<()>>,
}

/// The longest time without a good answer.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// The last good answer before.
    pub last: SystemTime,
    /// The first good answer after.
    pub first: SystemTime,
}

impl Gap {
    pub fn length(&self) -> Duration {
        since(self.last, self.first)
    }
}

impl Poller {
    /// Starts to ask at this port.
    pub fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let good = Arc::new(Mutex::new(Vec::new()));
        let (ends, notes) = (Arc::clone(&stop), Arc::clone(&good));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let asked = Request::get("/api/v1/health").patience(PATIENCE).to_port(port);
                let is_good = asked.is_ok_and(|answer| {
                    answer.status == 200 && answer.body.contains(r#""status":"ok""#)
                });
                if is_good {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push(SystemTime::now());
                }
                std::thread::park_timeout(EVERY);
            }
        });
        Self { stop, good, thread: Some(thread) }
    }

    /// The longest gap since `begin`, which was followed by a good answer; forgets everything.
    pub fn longest_gap(&self, begin: SystemTime) -> Option<Gap> {
        let good = std::mem::take(&mut *self.good.lock().unwrap_or_else(PoisonError::into_inner));
        let gaps = good.iter().zip(good.iter().skip(1));
        gaps.filter(|(_, first)| **first >= begin)
            .map(|(last, first)| Gap { last: *last, first: *first })
            .max_by_key(Gap::length)
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say that was not said.
            thread.join().ok();
        }
    }
}

/// From one moment to another; nothing when the clock was set back between.
pub fn since(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
