//! The PayRam application inside its container: where its core answers, whether it is healthy,
//! which version it is, and the programs that its supervisor runs.
//!
//! Called by `plan`, `driver`, `inspect` and `api`. Asks and, for `supervisor`, stops and starts
//! programs; decides nothing about upgrades.

pub mod container;
pub mod core;
pub mod supervisor;
pub mod unmounted;
mod version;
pub mod watch;

#[cfg(test)]
mod fake;
