//! The PayRam core: where it answers, whether it is healthy, which version it is
//! (contract section 4).
//!
//! Asked by the driver's gate and, in the very same way, by `plan` before anything is stopped
//! (I15); by `inspect`, `sync`, `recover` and the status too. Sends GET requests to the container's
//! own addresses, each with a deadline, and follows no redirect; what it hears is untrusted, read
//! to a limit, and escaped before it is shown.
//!
//! [`Probe`] is how it is asked, from the settings; `search` finds a [`Place`] among the
//! `addresses` of a container, and `fetch` makes one request.

mod addresses;
mod fetch;
mod inside;
mod listening;
mod search;

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use self::fetch::{Answer, fetch};
use super::version;
use crate::config::Settings;
use crate::machine::facts::CoreRules;
use crate::names::VERSION_LABEL;

pub use inside::{Door, Shut};
pub use search::Search;

/// What the core's first page says, by which it is told from whatever else is published.
const WELCOME: &str = "Welcome to Payram Core";

/// Where health is asked unless the manifest says otherwise.
const HEALTH_PATH: &str = "/api/v1/health";

/// Where the version is asked.
const VERSION_PATH: &str = "/api/v1/version";

/// Longer than any version.
const VERSION_LIMIT_CHARS: usize = 128;

/// How the core is asked.
#[derive(Clone, Debug)]
pub struct Probe {
    /// `CORE_BASE_URL`
    base: Option<Url>,
    /// `ANSWER_TIMEOUT_SECONDS`: how long one answer may take.
    within: Duration,
    /// `PG_PORT`: where a database in the container listens unless its environment says so.
    database_port: u16,
}

/// Where a core answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The base URL.
    url: Url,
    /// Whether the engine says that its host is the container's own address.
    is_own: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// The core did not say what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Silent {
    /// What was tried and what answered.
    sentence: String,
    /// Where a web server answered that the one behind it does not (a 5xx).
    fronts: Vec<Place>,
}

/// A place for the tests of whoever weighs what was seen.
#[cfg(test)]
pub(crate) fn anywhere(url: &str) -> Place {
    Place { url: Url::parse(url).expect("a URL"), is_own: false }
}

impl Silent {
    fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), fronts: Vec::new() }
    }

    /// For the tests of whoever weighs it.
    #[cfg(test)]
    pub(crate) fn heard(sentence: &str) -> Self {
        Self::new(sentence)
    }

    /// The same, of a web server whose core is down.
    #[cfg(test)]
    pub(crate) fn behind_a_front(sentence: &str) -> Self {
        let fronts = vec![anywhere("http://127.0.0.1:8080/")];
        Self { sentence: sentence.to_owned(), fronts }
    }

    /// Whether the place is right and the core is down: what stands before it answered so.
    pub fn is_behind_a_front(&self) -> bool {
        !self.fronts.is_empty()
    }
}

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

/// Why a version that was found is not believed; each with what was asked, expected and found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It answers, and not that it is well.
    #[error("{0}")]
    Unhealthy(String),
    /// It does not say how it is.
    #[error("{0}")]
    Silent(String),
    /// It is well and does not say which version it is.
    #[error("{0}")]
    Nameless(String),
}

impl Probe {
    /// As the settings say.
    pub fn of(settings: &Settings) -> Self {
        Self {
            base: settings.core_base_url.clone(),
            within: settings.answer_timeout,
            database_port: settings.pg.port,
        }
    }

    /// Asks once whether the core is well and which version it is: what the gate believes, and
    /// what the plan looks for in the running version before it is stopped.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub async fn judge(
        &self,
        place: &Place,
        rules: &CoreRules,
        container: &Value,
    ) -> Result<String, Unfit> {
        match self.health(place, rules).await {
            Health::Healthy => {}
            Health::Unhealthy { found } => return Err(Unfit::Unhealthy(found)),
            Health::Silent { reason } => return Err(Unfit::Silent(reason)),
        }
        let version = self.version(place, rules, container).await;
        version.map_err(|silent| Unfit::Nameless(silent.to_string()))
    }

    /// Asks the core how it is.
    pub async fn health(&self, place: &Place, rules: &CoreRules) -> Health {
        let asked = match rules {
            CoreRules::Api { health_path } => place.below(health_path),
            CoreRules::Legacy => place.below("/"),
        };
        let answer = match fetch(&asked, self.within).await {
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

    /// Asks the core for its version; a legacy one has it on the label of its `container`, a raw
    /// inspection.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn version(
        &self,
        place: &Place,
        rules: &CoreRules,
        container: &Value,
    ) -> Result<String, Silent> {
        match rules {
            CoreRules::Api { .. } => self.reported_version(&place.below(VERSION_PATH)).await,
            CoreRules::Legacy => label_version(container).ok_or_else(|| {
                Silent::new(format!("the container has no version in label {VERSION_LABEL}"))
            }),
        }
    }

    async fn reported_version(&self, asked: &Place) -> Result<String, Silent> {
        let answer = fetch(asked, self.within).await;
        let answer = answer.map_err(|reason| Silent::new(format!("{asked}: {reason}")))?;
        let found = |expected: String| Silent::new(format!("{asked} {answer}; {expected}"));
        if answer.status != 200 {
            return Err(found("expected 200".into()));
        }
        let json = answer.json().map_err(|reason| found(format!("expected JSON: {reason}")))?;
        json.get("version")
            .and_then(Value::as_str)
            .and_then(plausible)
            .ok_or_else(|| found("expected a text in `version`".into()))
    }
}

impl Place {
    /// A path below the base URL. Only the path and the query are taken from it, so that a
    /// manifest which says `//elsewhere/` or `http://elsewhere/` still asks the base's own host.
    fn below(&self, path: &str) -> Place {
        let mut url = self.url.clone();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        url.set_query(query);
        Place { url, is_own: self.is_own }
    }
}

fn is_welcome(answer: &Answer) -> bool {
    (200..300).contains(&answer.status) && answer.text().contains(WELCOME)
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

/// The version that the label of a container, a raw inspection, names.
pub fn label_version(container: &Value) -> Option<String> {
    container.pointer("/Config/Labels")?.get(VERSION_LABEL)?.as_str().and_then(plausible)
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

#[cfg(test)]
mod tests;
