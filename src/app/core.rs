//! The PayRam core: where it answers, whether it is healthy, which version it is
//! (contract section 4).
//!
//! Called by the driver's gate ten times a second, and by `plan`, `api` and `inspect`. Sends
//! GET requests to the container's own addresses, each with a deadline, and follows no
//! redirect; what it hears is untrusted, read to a limit, and escaped before it is shown.

mod addresses;
mod fetch;

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use url::Url;

use self::addresses::Addresses;
use self::fetch::{Answer, fetch};
use super::version;
use crate::machine::facts::CoreRules;

/// What the core's first page says, by which it is told from whatever else is published.
const WELCOME: &str = "Welcome to Payram Core";

/// Where health is asked unless the manifest says otherwise.
const HEALTH_PATH: &str = "/api/v1/health";

/// Where the version is asked.
const VERSION_PATH: &str = "/api/v1/version";

/// The image label that names a version which has no version endpoint.
const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// Longer than any version.
const VERSION_LIMIT_CHARS: usize = 128;

/// Ports that are tried at the same time.
const TRIED_AT_ONCE: usize = 64;

/// How long the search takes at most, however many ports are published.
const SEARCH_DEADLINE: Duration = Duration::from_secs(10);

/// Attempts that an error names.
const ATTEMPTS_SHOWN: usize = 8;

/// The core did not say what was asked; the sentence says what was tried and what answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Silent(String);

/// What the core says of its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is well.
    Healthy,
    /// It answers, and not that it is well.
    Unhealthy {
        /// What was asked, what was expected and found.
        found: String,
    },
    /// It does not answer.
    Silent {
        /// What was asked and what the attempt met.
        reason: String,
    },
}

/// Finds the core's base URL: that whose `/` welcomes.
///
/// `base` (`CORE_BASE_URL`) wins and must welcome too: a proxy or a front end in the container
/// may answer long before the core does, while it still migrates. Otherwise `container`, the
/// raw inspection, names the ports. All are asked at the same time, and the first in order is
/// taken, whichever answered first: HTTP before HTTPS, then the lowest port.
///
/// # Errors
/// When there is nothing to ask or nothing answered as a core.
pub async fn find_core(base: Option<&Url>, container: &Value) -> Result<Url, Silent> {
    match base {
        None => search(&addresses::of(container)).await,
        Some(base) => {
            let answer = welcomes(base).await;
            answer.map_err(|found| Silent(format!("no PayRam core at CORE_BASE_URL: {found}")))
        }
    }
}

/// The first of the addresses that answers as a core.
async fn search(addresses: &Addresses) -> Result<Url, Silent> {
    let urls = match addresses {
        Addresses::Ask(urls) => urls,
        Addresses::Nowhere(why) => {
            return Err(Silent(format!("{why}; set CORE_BASE_URL to where the core answers")));
        }
    };
    let mut attempts = Vec::new();
    let tried = async {
        let mut answers = futures_util::stream::iter(urls).map(welcomes).buffered(TRIED_AT_ONCE);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(url) => return Some(url),
                Err(found) => attempts.push(found),
            }
        }
        None
    };
    let in_time = tokio::time::timeout(SEARCH_DEADLINE, tried).await;
    if let Ok(Some(url)) = in_time {
        return Ok(url);
    }
    let more = attempts.len().saturating_sub(ATTEMPTS_SHOWN);
    attempts.truncate(ATTEMPTS_SHOWN);
    let mut sentence = format!("no PayRam core answers: {}", attempts.join("; "));
    if more > 0 {
        sentence.push_str(&format!("; and {more} more"));
    }
    if in_time.is_err() {
        sentence.push_str(&format!("; the rest not within {} s", SEARCH_DEADLINE.as_secs()));
    }
    Err(Silent(sentence))
}

/// The URL when a core answers there, else what was found.
async fn welcomes(url: &Url) -> Result<Url, String> {
    match fetch(url).await {
        Ok(answer) if is_welcome(&answer) => Ok(url.clone()),
        Ok(answer) => Err(format!("{url} {answer}")),
        Err(reason) => Err(format!("{url}: {reason}")),
    }
}

fn is_welcome(answer: &Answer) -> bool {
    (200..300).contains(&answer.status) && answer.text().contains(WELCOME)
}

/// Asks the core at this base URL how it is.
pub async fn health(url: &Url, rules: &CoreRules) -> Health {
    let asked = match rules {
        CoreRules::Api { health_path } => below(url, health_path),
        CoreRules::Legacy => below(url, "/"),
    };
    let answer = match fetch(&asked).await {
        Ok(answer) => answer,
        Err(reason) => return Health::Silent { reason: format!("{asked}: {reason}") },
    };
    let fault = match rules {
        CoreRules::Api { .. } => fault_of_health(&answer),
        CoreRules::Legacy if is_welcome(&answer) => None,
        CoreRules::Legacy => Some(format!("expected 200 and `{WELCOME}`")),
    };
    match fault {
        None => Health::Healthy,
        Some(expected) => Health::Unhealthy { found: format!("{asked} {answer}; {expected}") },
    }
}

/// What a health answer lacks; `None` when it is good.
fn fault_of_health(answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return Some("expected 200".into());
    }
    let json = match answer.json() {
        Ok(json) => json,
        Err(reason) => return Some(format!("expected JSON: {reason}")),
    };
    if json.get("status").and_then(Value::as_str) != Some("ok") {
        return Some("expected status \"ok\"".into());
    }
    match json.get("db") {
        None => None,
        Some(db) if db.as_str() == Some("ok") => None,
        Some(_) => Some("expected db \"ok\" or none".into()),
    }
}

/// Asks the core at this base URL for its version; a legacy one has it on the label of its
/// `container`, a raw inspection.
///
/// # Errors
/// When it does not say.
pub async fn version(url: &Url, rules: &CoreRules, container: &Value) -> Result<String, Silent> {
    match rules {
        CoreRules::Api { .. } => reported_version(&below(url, VERSION_PATH)).await,
        CoreRules::Legacy => label_version(container).ok_or_else(|| {
            Silent(format!("the container has no version in label {VERSION_LABEL}"))
        }),
    }
}

/// The version that the label of a container, a raw inspection, names.
pub fn label_version(container: &Value) -> Option<String> {
    container.pointer("/Config/Labels")?.get(VERSION_LABEL)?.as_str().and_then(plausible)
}

async fn reported_version(asked: &Url) -> Result<String, Silent> {
    let answer = fetch(asked).await.map_err(|reason| Silent(format!("{asked}: {reason}")))?;
    let found = |expected: String| Silent(format!("{asked} {answer}; {expected}"));
    if answer.status != 200 {
        return Err(found("expected 200".into()));
    }
    let json = answer.json().map_err(|reason| found(format!("expected JSON: {reason}")))?;
    json.get("version")
        .and_then(Value::as_str)
        .and_then(plausible)
        .ok_or_else(|| found("expected a text in `version`".into()))
}

/// A text that may be a version: short, printable, on one line.
fn plausible(text: &str) -> Option<String> {
    let text = text.trim();
    let is_plausible = !text.is_empty()
        && text.chars().count() <= VERSION_LIMIT_CHARS
        && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    is_plausible.then(|| text.to_owned())
}

/// Whether two texts name one version: a leading `v` and the architecture don't count.
pub fn is_same_version(a: &str, b: &str) -> bool {
    version::bare(a) == version::bare(b)
}

/// How a version is asked. Below `updater_api_init_version` it is asked the old way; a version
/// that can't be compared is taken for a recent one. `health_path` is the manifest's endpoint.
pub fn rules_for(
    version: &str,
    updater_api_init_version: Option<&str>,
    health_path: Option<&str>,
) -> CoreRules {
    let first = updater_api_init_version.and_then(version::parse);
    match (version::parse(version), first) {
        (Some(version), Some(first)) if version < first => CoreRules::Legacy,
        (Some(_) | None, Some(_) | None) => {
            let path = health_path.map(str::trim).filter(|path| !path.is_empty());
            let path = path.unwrap_or(HEALTH_PATH);
            let slash = if path.starts_with('/') { "" } else { "/" };
            CoreRules::Api { health_path: format!("{slash}{path}") }
        }
    }
}

/// A path below a base URL. Only the path and the query are taken from it, so that a manifest
/// which says `//elsewhere/` or `http://elsewhere/` still asks the base's own host.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

#[cfg(test)]
mod tests;
