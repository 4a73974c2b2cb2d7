//! The upgrade engine of a self-hosted PayRam: an upgrade ends `Verified`, or the shop is
//! exactly where it was before; a crash at any instant changes neither.
//!
//! # The map
//!
//! A request comes in by [`api`] (HTTP) or by [`cli`], which asks the same API over its Unix
//! socket. [`plan`] turns it into a job or refuses it; [`driver`] runs the job: *intent → effect →
//! outcome → transition*. What comes next is decided by [`machine`], which is pure; each of the four
//! is in the [`journal`] before the next begins; [`history`] says what its rows mean. The driver's
//! steps work through [`engine`] (containers), [`spec`] (what the new container is), [`database`]
//! (dumps, evidence), [`restore_point`] (the database's directory) and [`app`] (the core and its
//! programs). [`inspect`] looks at all of it and says what to do; [`auto_update`] plans and begins by
//! itself what a dashboard could; [`notify`] tells somebody who is not looking.
//!
//! A backup is put back by a job of its own kind: [`restore`] decides, as pure as [`machine`]. So
//! does [`rehearsal`], which tries a version on a copy of the shop's data.
//!
//! Arrows point one way: `cli, api → inspect → (auto_update, notify) → driver → (plan, spec, engine,
//! database, restore_point, app, history → journal) → (machine, restore, rehearsal)`. `machine`
//! imports nothing of ours; nobody imports `api` or `cli`.

// A daemon that panics is a failed step: where it can't happen, a comment says why.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod api;
pub mod app;
pub mod auto_update;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod driver;
pub mod engine;
pub mod error;
pub mod history;
pub(crate) mod http;
pub mod inspect;
pub mod journal;
pub(crate) mod json;
pub mod machine;
pub(crate) mod names;
pub mod notify;
pub mod plan;
pub mod rehearsal;
pub mod restore;
pub mod restore_point;
pub mod sandbox;
pub mod secret;
pub mod spec;
