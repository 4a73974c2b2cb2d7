//! One GET request to a core: bounded in time and size, no redirect, no connection kept.
//!
//! A certificate is not verified on loopback and at an address that the engine says is the
//! container's own, where the core's is self-signed and nobody else listens; it is verified
//! everywhere else. Called by [`super`].

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use serde_json::Value;
use url::{Host, Url};

use super::Place;

/// How long a connection may take: two lost SYNs are sent again within it, 1 s and 3 s after the
/// first (RFC 6298), as to a busy machine; an address behind which nobody is costs no more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How much of a body is read.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// How much of an answer is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// The `Location` of a redirect, which is shown and not followed.
    location: Option<String>,
    body: Vec<u8>,
    /// Whether the body went on after [`BODY_LIMIT_BYTES`].
    is_cut: bool,
}

impl Answer {
    /// The body as text, what is not UTF-8 replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as JSON, else why it is none.
    pub fn json(&self) -> Result<Value, String> {
        if self.is_cut {
            return Err(format!("the answer is larger than {BODY_LIMIT_BYTES} bytes"));
        }
        serde_json::from_slice(&self.body).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered {}", self.status)?;
        if let Some(location) = &self.location {
            return write!(f, ", a redirect to {}", excerpt(location));
        }
        match self.text().trim() {
            "" => f.write_str(" without a body"),
            text => write!(f, ": {}", excerpt(text)),
        }
    }
}

/// Cut, and without control characters: a core's words may not steer a terminal or a log.
pub(super) fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == SHOWN_CHARS {
            shown.push('…');
            break;
        }
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Asks once for what lies there; the whole answer may take `within`.
///
/// # Errors
/// What the attempt met, when there was no whole answer in time.
pub(super) async fn fetch(place: &Place, within: Duration) -> Result<Answer, String> {
    let url = &place.url;
    let is_verified = url.scheme() == "https" && !place.is_own && !is_loopback(url);
    ask(client(is_verified)?, url, within).await.map_err(|error| {
        if error.is_connect() && error.is_timeout() && within > CONNECT_TIMEOUT {
            return format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
        }
        if error.is_timeout() {
            return format!("no whole answer within {} s", within.as_secs_f32());
        }
        excerpt(&crate::http::reason(&error))
    })
}

async fn ask(client: &Client, url: &Url, within: Duration) -> Result<Answer, reqwest::Error> {
    let mut response = client.get(url.clone()).timeout(within).send().await?;
    let location = response.status().is_redirection().then(|| {
        let location = response.headers().get(reqwest::header::LOCATION);
        location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let mut answer = Answer {
        status: response.status().as_u16(),
        location: location.flatten(),
        body: Vec::new(),
        is_cut: false,
    };
    while let Some(chunk) = response.chunk().await? {
        let room = BODY_LIMIT_BYTES - answer.body.len();
        answer.is_cut = chunk.len() > room;
        answer.body.extend(chunk.iter().take(room));
        if answer.is_cut {
            break;
        }
    }
    Ok(answer)
}

/// Whether a URL's host is this one, and nothing else can be.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The client for a request; both are made once, because making one reads certificates and the
/// gate asks ten times a second.
fn client(is_verified: bool) -> Result<&'static Client, String> {
    static VERIFYING: OnceLock<Result<Client, String>> = OnceLock::new();
    static TRUSTING: OnceLock<Result<Client, String>> = OnceLock::new();
    let slot = if is_verified { &VERIFYING } else { &TRUSTING };
    let made = slot.get_or_init(|| {
        crate::http::client_builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            // Each question is a new connection: that a core answered before its container was
            // replaced says nothing about the next one.
            .pool_max_idle_per_host(0)
            .tls_danger_accept_invalid_certs(!is_verified)
            .build()
            .map_err(|error| format!("no HTTP client: {}", crate::http::reason(&error)))
    });
    made.as_ref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_goes_unverified_on_loopback_only() {
        for (url, expected) in [
            ("https://127.0.0.1:1/", true),
            ("https://127.8.8.8/", true),
            ("https://[::1]/", true),
            ("https://LOCALHOST/", true),
            ("https://localhost.evil.example/", false),
            ("https://10.0.0.1/", false),
            ("https://0.0.0.0/", false),
            ("https://[::ffff:127.0.0.1]/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).expect("a URL")), expected, "{url}");
        }
    }

    #[test]
    fn what_a_core_says_is_cut_and_escaped_before_it_is_shown() {
        assert_eq!(excerpt("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        let long = excerpt(&"ü".repeat(10_000));
        assert_eq!(long.chars().count(), SHOWN_CHARS + 1);
    }

    #[tokio::test]
    async fn a_self_signed_certificate_is_refused_where_certificates_are_verified() {
        let Some(server) = super::super::tests::tls::server("x") else { return };
        let verifying = client(true).expect("a client");
        let error =
            ask(verifying, &server, Duration::from_secs(10)).await.expect_err("not trusted");
        assert!(crate::http::reason(&error).contains("certificate"), "{error:?}");
    }

    #[tokio::test]
    async fn a_certificate_goes_unverified_at_an_address_that_is_the_containers_own() {
        let Some(url) = super::super::tests::tls::server_at("0.0.0.0:0", "x") else { return };
        let Some(ip) = super::super::tests::own_address() else { return };
        let url = url.as_str().replace("0.0.0.0", &ip.to_string());
        let place = |is_own| Place { url: Url::parse(&url).expect("a URL"), is_own };
        let within = Duration::from_secs(10);
        let own = fetch(&place(true), within).await.expect("an answer");
        assert_eq!(own.text(), "x");
        let named = fetch(&place(false), within).await.expect_err("anywhere else it is verified");
        assert!(named.contains("certificate"), "{named}");
    }
}
