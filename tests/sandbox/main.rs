//! The product on the make-believe engine: the same daemon and commands, over `DOCKER_HOST`.
//! Needs neither Docker nor root.

#[path = "../support/mod.rs"]
mod support;

mod engine;
mod matrix;
mod quarantine;
mod shop;
mod strikes;
mod sync;
mod upgrades;
