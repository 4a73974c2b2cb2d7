//! A container with everything that an operator may have set, on this host's engine. On others:
//! tests/engines.

mod support;

use support::{require, unusual};

#[test]
fn a_container_with_forty_unusual_settings_is_after_the_upgrade_what_it_was() {
    if require("docker") {
        unusual::is_afterwards_what_it_was(None);
    }
}
