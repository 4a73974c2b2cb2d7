//! The upgrade engine of a self-hosted PayRam.

pub mod app;
pub mod clock;
pub mod config;
pub mod database;
pub mod engine;
pub mod error;
pub(crate) mod http;
pub mod journal;
pub mod machine;
pub mod plan;
pub mod restore_point;
pub mod secret;
