//! The stand-in's further kinds of versions and environments are what the other tests take them for.

#[path = "../support/mod.rs"]
mod support;

mod harm;
mod look;
mod machines;
mod versions;
