//! Exhaustive search of the product's own machine against a small model of the world, for
//! `tests/search.rs`, which says what is searched and how far.

pub mod effects;
pub mod explore;
mod intruder;
pub mod invariants;
mod machines;
mod trace;
pub mod world;
