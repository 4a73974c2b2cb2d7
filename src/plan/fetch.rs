//! Fetches the policy and the manifest: from `http(s)://` or a local path, within
//! `FETCH_TIMEOUT_SECONDS` in all, at most 1 MiB.
//!
//! Called by `make` and by `inspect`. An address may hold a password or a token, so messages
//! show it without user, query and fragment (I10).

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use url::Url;

use super::manifest::Manifest;
use super::policy::Policy;
use crate::config::Settings;
use crate::machine::failure::{Failure, FailureCode};

/// The greatest policy or manifest that is read, in bytes.
const LIMIT_BYTES: usize = 1024 * 1024;

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// Fetches and reads the policy (`POLICY_URL`).
///
/// # Errors
/// `POLICY_FETCH_FAILED`, `POLICY_INVALID_JSON`.
pub async fn policy(settings: &Settings) -> Result<Policy, Failure> {
    let place = &settings.policy_url;
    let body = fetch(place, settings.fetch_timeout).await.map_err(|reason| {
        Failure::new(
            FailureCode::PolicyFetchFailed,
            format!("fetch the policy from {}: {reason}", shown(place)),
        )
    })?;
    // It may be as large as a mebibyte, and what is read here holds up nobody else.
    let parsed = match tokio::task::spawn_blocking(move || Policy::parse(&body)).await {
        Ok(parsed) => parsed,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    parsed.map_err(|reason| {
        Failure::new(
            FailureCode::PolicyInvalidJson,
            format!("read the policy from {}: {reason}", shown(place)),
        )
    })
}

/// Fetches and reads the manifest (`RUNTIME_MANIFEST_URL`).
///
/// # Errors
/// `MANIFEST_FETCH_FAILED`, `MANIFEST_INVALID_JSON`.
pub async fn manifest(settings: &Settings) -> Result<Manifest, Failure> {
    let place = &settings.manifest_url;
    let body = fetch(place, settings.fetch_timeout).await.map_err(|reason| {
        Failure::new(
            FailureCode::ManifestFetchFailed,
            format!("fetch the manifest from {}: {reason}", shown(place)),
        )
    })?;
    Manifest::parse(&body).map_err(|reason| {
        Failure::new(
            FailureCode::ManifestInvalidJson,
            format!("read the manifest from {}: {reason}", shown(place)),
        )
    })
}

async fn fetch(place: &str, within: Duration) -> Result<Vec<u8>, String> {
    let read = async {
        match Url::parse(place) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => from_web(url, within).await,
            Ok(url) if place.contains("://") => {
                Err(format!("expected http://, https:// or a path, found {}://", url.scheme()))
            }
            Ok(_) | Err(_) => from_file(Path::new(place)).await,
        }
    };
    let read = match tokio::time::timeout(within, read).await {
        Ok(result) => result,
        Err(_) => Err(format!("no complete answer within {} s", within.as_secs_f64())),
    };
    read.map_err(|reason| {
        let through = Url::parse(place).map(|url| crate::http::through(&url)).unwrap_or_default();
        if through.is_empty() { reason } else { format!("{reason} (asked{through})") }
    })
}

async fn from_web(url: Url, within: Duration) -> Result<Vec<u8>, String> {
    let client = crate::http::outside(&url)
        .redirect(reqwest::redirect::Policy::custom(follow))
        .timeout(within)
        .build()
        .map_err(|error| format!("no HTTP client: {}", reasons(&error)))?;
    let response = client.get(url).send().await.map_err(|error| reasons(&error.without_url()))?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(format!("expected status 200, found {}", response.status()));
    }
    if let Some(length) = response.content_length().filter(|length| *length > LIMIT_BYTES as u64) {
        return Err(too_large(&format!("{length} bytes")));
    }
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| reasons(&error.without_url()))?;
        if body.len() + piece.len() > LIMIT_BYTES {
            return Err(too_large("more"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Follows a few redirects, and none from a protected connection to an open one: whoever
/// listens there could then write the policy.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let came_by_tls = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        attempt.error(format!("more than {REDIRECTS} redirects"))
    } else if came_by_tls && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to http is not followed")
    } else {
        attempt.follow()
    }
}

async fn from_file(path: &Path) -> Result<Vec<u8>, String> {
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let there = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?;
    if !there.is_file() {
        return Err("expected a file, found something else".to_owned());
    }
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    file.take(LIMIT_BYTES as u64 + 1)
        .read_to_end(&mut body)
        .await
        .map_err(|error| error.to_string())?;
    if body.len() > LIMIT_BYTES {
        return Err(too_large(&format!("{} bytes", there.len())));
    }
    Ok(body)
}

fn too_large(found: &str) -> String {
    format!("expected at most {LIMIT_BYTES} bytes, found {found}")
}

/// The address as a message may show it.
fn shown(place: &str) -> String {
    match Url::parse(place) {
        Ok(url) if url.has_host() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let host = url.host_str().unwrap_or_default();
            format!("{}://{host}{port}{}", url.scheme(), url.path())
        }
        Ok(_) | Err(_) if place.contains("://") => "an address that can't be read".to_owned(),
        Ok(_) | Err(_) => place.to_owned(),
    }
}

/// An error with all its causes; the outermost alone says only "error sending request".
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_no_password_and_no_token_of_an_address() {
        assert_eq!(
            shown("https://user:hunter2@example.com:8443/p.json?token=t#f"),
            "https://example.com:8443/p.json"
        );
        assert_eq!(shown("https://user:hunter2@:x/"), "an address that can't be read");
        assert_eq!(shown("/etc/payram/policy.json"), "/etc/payram/policy.json");
    }
}
