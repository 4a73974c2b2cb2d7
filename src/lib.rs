//! The upgrade engine of a self-hosted PayRam.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod engine;
pub mod error;
mod http;
pub mod journal;
pub mod machine;
pub mod plan;
pub mod secret;
