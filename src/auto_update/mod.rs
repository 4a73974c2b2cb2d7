//! Auto-update: an upgrade to `latest` that the operator asked for once and for all.
//!
//! Off unless `payram-updater init` turned it on ([`stored`]).

pub mod stored;
