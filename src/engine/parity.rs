//! Whether a created container is what the old one was, but for what was meant to change.
