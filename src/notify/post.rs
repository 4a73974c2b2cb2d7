//! One letter, one POST: within `FETCH_TIMEOUT_SECONDS` in all, through the proxy that the
//! environment names, and to nobody else than `NOTIFY_URL` says: a redirect is not followed.
//!
//! The address may be the secret that lets it in, so that no message shows more of it than the host
//! (I10). The answer's status is all that is read of it.

use reqwest::StatusCode;
use url::Url;

use super::letter::Letter;
use super::sign::hmac_sha256;
use crate::config::Settings;
use crate::http;

/// The event's type and status.
const SUBJECT: &str = "X-Payram-Event";

/// The event's id: the same at each attempt.
const DELIVERY: &str = "X-Payram-Delivery";

/// `sha256=` and the code of the body under `NOTIFY_SECRET`, in hex.
const SIGNATURE: &str = "X-Payram-Signature";

/// Why nobody took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotTaken {
    /// A sentence without the address.
    pub reason: String,
    /// Whether it may be taken later.
    pub may_pass: bool,
}

/// Posts it once.
pub(super) async fn once(
    settings: &Settings,
    url: &Url,
    letter: &Letter<'_>,
) -> Result<(), NotTaken> {
    let body = serde_json::to_vec(letter)
        .map_err(|error| NotTaken { reason: error.to_string(), may_pass: false })?;
    let client = http::outside(url)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(settings.fetch_timeout)
        .build()
        .map_err(|error| NotTaken { reason: http::reason(&error), may_pass: false })?;
    let mut request = client
        .post(url.clone())
        .header(reqwest::header::CONTENT_TYPE, "application/json")
        .header(SUBJECT, letter.subject())
        .header(DELIVERY, &letter.event.id);
    if let Some(secret) = &settings.notify_secret {
        let code = hmac_sha256(secret.expose().as_bytes(), &body);
        request = request.header(SIGNATURE, format!("sha256={code}"));
    }
    match request.body(body).send().await {
        Ok(answer) => judge(answer.status()),
        Err(error) => {
            let reason = match error.is_timeout() {
                true => format!("no answer within {} s", settings.fetch_timeout.as_secs()),
                false => http::reason(&error.without_url()),
            };
            let reason = format!("{reason}{}", http::through(url));
            Err(NotTaken { reason, may_pass: true })
        }
    }
}

/// Whoever refuses it will refuse it again, but for those who are only busy.
fn judge(status: StatusCode) -> Result<(), NotTaken> {
    if status.is_success() {
        return Ok(());
    }
    let is_busy = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    let hint = if status.is_redirection() { ", and a redirect is not followed" } else { "" };
    Err(NotTaken {
        reason: format!("the answer was {status}{hint}"),
        may_pass: is_busy || status.is_server_error(),
    })
}

/// `https://hooks.example`, for a sentence.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_good_is_not_posted_again() {
        assert_eq!(judge(StatusCode::NO_CONTENT), Ok(()));
        for (status, may_pass) in [(302, false), (404, false), (429, true), (500, true)] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(judge(status).expect_err("not taken").may_pass, may_pass, "{status}");
        }
    }

    #[test]
    fn no_sentence_shows_more_of_the_address_than_its_host() {
        let url =
            Url::parse("https://u:hunter2@hooks.example:8443/hunter2?t=hunter2").expect("one");
        assert_eq!(shown(&url), "https://hooks.example:8443");
    }
}
