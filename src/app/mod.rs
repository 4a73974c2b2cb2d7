//! The PayRam core and its supervisor, as seen from the host.
