//! The restore point is the directory, whatever happened while it was made, and comes back.

mod passes;
mod postgres;
mod trees;
mod way_back;
