//! Where every HTTP client of this product begins.
//!
//! The container engine, the registry, the policy and the core are all asked by `reqwest`,
//! each with its own deadlines; what they share is here: the TLS provider, the name under which
//! this product asks, and whether the environment's proxy is used: for what is outside of this
//! host, never for loopback, the engine and the core. Called by `engine`, `plan` and `app`; sends
//! nothing.

use std::error::Error;

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

/// A client without timeouts and without proxies; the caller adds deadlines and redirects.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    builder().no_proxy()
}

/// The same for something outside of this host, through the proxy that the environment names for
/// it (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`); loopback is never asked through one.
pub(crate) fn outside(url: &Url) -> reqwest::ClientBuilder {
    if is_loopback(url) { client_builder() } else { builder() }
}

/// ` through the proxy http://proxy:3128`, for a sentence; empty when there is none for this URL.
/// Without the name and password that it may have (I10).
pub(crate) fn through(url: &Url) -> String {
    let Ok(uri) = url.as_str().parse() else { return String::new() };
    if is_loopback(url) {
        return String::new();
    }
    match Matcher::from_env().intercept(&uri) {
        None => String::new(),
        Some(proxy) => {
            let (scheme, host) =
                (proxy.uri().scheme_str().unwrap_or("http"), proxy.uri().host().unwrap_or("?"));
            let port = proxy.uri().port().map(|port| format!(":{port}")).unwrap_or_default();
            format!(" through the environment's proxy {scheme}://{host}{port}")
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn builder() -> reqwest::ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Refused only when another thread installed it in between, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    reqwest::Client::builder().user_agent(concat!("payram-updater/", env!("CARGO_PKG_VERSION")))
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
