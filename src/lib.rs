//! The upgrade engine of a self-hosted PayRam.

pub mod clock;
pub mod engine;
pub mod machine;
pub mod secret;
