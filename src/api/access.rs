//! Who may call, and with what: pure decisions about one request (contract section 1).
//!
//! The TCP listeners are for the machine itself and for the PayRam container; a browser that
//! was lured elsewhere (DNS rebinding, a form on another site) is kept out by `Host`, `Origin`
//! and the body's type. Forwarding headers are not looked at: there is no proxy to trust.

use std::net::IpAddr;

use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};

/// Set by browsers: how the page that calls relates to what it calls.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By which listener a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// The root-owned Unix socket: an operator of this host (I9).
    Operator,
    /// TCP, from this address.
    Tcp(IpAddr),
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message }
    }

    /// A peer that is neither this machine nor the PayRam container.
    pub fn stranger(peer: IpAddr) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "FORBIDDEN",
            format!("{peer} is neither this machine nor the PayRam container"),
        )
    }

    /// Every place is taken by a request that is being answered.
    pub fn too_many_connections() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "TOO_MANY_CONNECTIONS",
            "every connection that is served at once is in use; ask again in a second".to_owned(),
        )
    }

    /// As many long answers are being read as may.
    pub fn too_many_answers() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "TOO_MANY_ANSWERS",
            "too many long answers are being read; ask again in a second, or for less".to_owned(),
        )
    }

    /// As many listen to events as may.
    pub fn too_many_streams(most: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "TOO_MANY_STREAMS",
            format!("{most} streams of events are open already; close one that nobody looks at"),
        )
    }
}

/// Checks the headers of a request that came over TCP. `hosts`: names allowed beside the
/// loopback ones, without port.
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    uri_host: Option<&str>,
    hosts: &[String],
) -> Result<(), Refusal> {
    check_host(headers, uri_host, hosts)?;
    if *method == Method::POST {
        check_origin(headers)?;
    }
    Ok(())
}

fn check_host(
    headers: &HeaderMap,
    uri_host: Option<&str>,
    hosts: &[String],
) -> Result<(), Refusal> {
    let named = match (uri_host, headers.get(HOST)) {
        (Some(host), _) => Some(host.to_owned()),
        (None, Some(value)) => value.to_str().ok().map(str::to_owned),
        (None, None) => None,
    };
    let misdirected = |message: String| {
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, "HOST_NOT_ALLOWED", message)
    };
    let Some(named) = named else {
        return Err(misdirected("the request names no host".into()));
    };
    let host = without_port(&named).to_ascii_lowercase();
    let is_loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let host = host.trim_matches(['[', ']']);
    if is_loopback || hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(misdirected(format!(
        "host {named:?} is not one of this API's names; ALLOWED_HOSTS adds names"
    )))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 address in brackets may end without a port.
        Some((name, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        Some(_) | None => host,
    }
}

fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let cross = |what: &str| {
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "CROSS_ORIGIN",
            format!("{what}: pages of another origin may not start anything"),
        ))
    };
    if let Some(site) = headers.get(SEC_FETCH_SITE)
        && site != "same-origin"
        && site != "none"
    {
        return cross("Sec-Fetch-Site is not same-origin");
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let same = origin.to_str().ok().and_then(|origin| {
            let authority = origin.strip_prefix("http://")?;
            Some(host.is_some_and(|host| authority.eq_ignore_ascii_case(host)))
        });
        if same != Some(true) {
            return cross("Origin is not this API");
        }
    }
    Ok(())
}

/// Whether a body's type is JSON, as every POST here wants it.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let found = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = found.map(|found| found.split(';').next().unwrap_or_default().trim());
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UNSUPPORTED_MEDIA_TYPE",
        format!("Content-Type must be application/json, found {}", found.unwrap_or("none")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
            })
            .collect()
    }

    fn status(method: Method, pairs: &[(&str, &str)]) -> Option<u16> {
        let hosts = ["172.17.0.1".to_owned(), "host.docker.internal".to_owned()];
        let headers = headers(pairs);
        let checked = check(&method, &headers, None, &hosts).and_then(|()| {
            if method == Method::POST { check_content_type(&headers) } else { Ok(()) }
        });
        checked.err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_host_that_is_not_ours_is_misdirected() {
        for host in [
            "localhost",
            "localhost:2567",
            "127.0.0.1:2567",
            "[::1]:2567",
            "[::1]",
            "172.17.0.1:2567",
            "HOST.docker.internal",
        ] {
            assert_eq!(status(Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "192.168.0.1:2567",
            "",
            ":2567",
            "localhost:2567:80",
        ] {
            assert_eq!(status(Method::GET, &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(status(Method::GET, &[]), Some(421));
    }

    #[test]
    fn a_post_from_another_page_is_forbidden() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "localhost:2567");
        assert_eq!(status(Method::POST, &[host, json]), None);
        assert_eq!(status(Method::POST, &[host, json, ("origin", "http://localhost:2567")]), None);
        for origin in ["http://evil.example", "null", "https://localhost:2567", "http://localhost"]
        {
            assert_eq!(status(Method::POST, &[host, json, ("origin", origin)]), Some(403));
        }
        assert_eq!(
            status(Method::POST, &[host, json, ("sec-fetch-site", "cross-site")]),
            Some(403)
        );
        assert_eq!(status(Method::POST, &[host, json, ("sec-fetch-site", "same-site")]), Some(403));
        assert_eq!(status(Method::POST, &[host, json, ("sec-fetch-site", "same-origin")]), None);
    }

    #[test]
    fn a_post_body_is_json_or_refused() {
        let host = ("host", "localhost");
        assert_eq!(status(Method::POST, &[host]), Some(415));
        assert_eq!(status(Method::POST, &[host, ("content-type", "text/plain")]), Some(415));
        assert_eq!(status(Method::POST, &[host, ("content-type", "application/JSON")]), None);
    }
}
