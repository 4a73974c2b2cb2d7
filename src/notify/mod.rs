//! `NOTIFY_URL`: what happens to the shop's upgrades, posted to somebody who is not looking.
//!
//! The journal is the source: [`task`] follows the history from the last event that was told, has
//! [`letter`] say which events are worth a word and what it is, signs it ([`sign`]) and posts it
//! ([`post`]). How that ended is an event of the history of its own, so that a restart neither
//! tells twice what was told nor forgets what was not. Nothing waits for it, and nothing fails by
//! it.

mod letter;
mod post;
mod sign;
mod task;

pub use task::Notifier;
pub(crate) use task::last_of_all;

/// The type of its events in the history.
pub const NOTIFICATION: &str = "notification";

/// From here on it is told: the first event of all.
pub const STARTED: &str = "started";

/// It was taken.
pub const SUCCEEDED: &str = "succeeded";

/// Nobody took it, and it is not tried again.
pub const FAILED: &str = "failed";

/// The key of the event that was told in the data of its own event.
pub const EVENT_ID: &str = "eventId";
