//! Where every HTTP client of this product begins.
//!
//! The container engine, the registry, the policy and the core are all asked by `reqwest`,
//! each with its own deadlines; what they share is here: the TLS provider, no proxy, and the
//! name under which this product asks. Called by `engine`, `plan` and `app`; sends nothing.

use std::error::Error;

/// A client without timeouts and without proxies; the caller adds deadlines and redirects.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Refused only when another thread installed it in between, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    reqwest::Client::builder()
        .no_proxy()
        .user_agent(concat!("payram-updater/", env!("CARGO_PKG_VERSION")))
}

/// What a request met, in the words of the layer that met it: `Connection refused (os error
/// 111)`. The layers above it say only that sending failed, and repeat the URL.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut deepest: &dyn Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_client_is_built_like_the_first() {
        for _ in 0..2 {
            let client = client_builder().tls_certs_only([]).build();
            assert!(client.is_ok(), "{client:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_called_by_its_cause() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let client = client_builder().tls_certs_only([]).build().expect("a client");
        let error = client.get(format!("http://127.0.0.1:{port}/")).send().await.expect_err("none");
        assert!(reason(&error).starts_with("Connection refused"), "{}", reason(&error));
    }
}
