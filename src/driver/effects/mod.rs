//! What the steps share: the verbs that change the world and the looks at it, as methods of
//! [`StepContext`](super::context::StepContext), by what they are about. Each observes first and
//! is done at once where the world is as it should be.

pub(super) mod assess;
pub(super) mod carry;
pub(super) mod companions;
pub(super) mod containers;
pub(super) mod copies;
pub(super) mod failed_directory;
pub(super) mod gate;
pub(super) mod habits;
pub(super) mod outside;
pub(super) mod own_database;
mod redact;
pub(super) mod remake;
pub(super) mod second_server;
mod sequences;
pub(super) mod stale_lock;
pub(super) mod standalone_postgres;
mod strangers;
mod stray_requests;
pub(super) mod unmounted;
mod wrote_on;

pub(super) use containers::{name_of, occupies_database, was_started};
