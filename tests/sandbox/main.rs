//! The product on the make-believe engine: the same daemon and commands, over `DOCKER_HOST`.
//! Needs neither Docker nor root.

#[path = "../support/mod.rs"]
mod support;

mod auto_update;
mod backups;
mod carrying;
mod crash;
mod engine;
mod init;
mod invariants;
mod keeping;
mod last_good;
mod matrix;
mod metrics;
mod notify;
mod openapi;
mod operations;
mod overlay;
mod plays;
mod points;
mod quarantine;
mod scenarios;
mod shop;
mod strikes;
mod sync;
mod tracer;
mod upgrades;
mod waiting;
