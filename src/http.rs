//! The one way to make an HTTP client: with the TLS provider installed, without a proxy.
//!
//! Called by whoever speaks HTTP (`plan` for policy and manifest, `app` for the core). No
//! proxy of the environment is used: most of what is asked lies on loopback.

use std::sync::Once;

/// A builder whose client can speak TLS, uses no proxy and names this program.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider is installed already");
        }
    });
    reqwest::Client::builder()
        .no_proxy()
        .user_agent(concat!("payram-updater/", env!("CARGO_PKG_VERSION")))
}
