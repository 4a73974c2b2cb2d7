//! The commands as an operator meets them: the real program against a daemon of these tests.

mod daemon;
mod reading;
mod terminal;
mod upgrade;
