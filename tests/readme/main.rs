//! README.md is true: every command of its blocks is run, or, where it installs or needs a machine
//! that boots systemd, checked for its form; what is shown below a command is what comes. In the
//! long run the rest is typed on such a machine, as a newcomer would, and timed.

#[path = "../support/mod.rs"]
mod support;

mod blocks;
mod machine;
mod shop;

const README: &str = include_str!("../../README.md");
