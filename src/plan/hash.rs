//! `planHash`: what a plan saw that matters, in four words. A run that is given it refuses when the
//! world has changed since (`PLAN_CHANGED`), and says what has.
//!
//! Each word is the beginning of a sha256: of the container (which, from which image, started when,
//! on which version), of the route, of the images that its tags name at the registry, and of the
//! database (which server, which name). A registry that does not say counts as one that says
//! nothing, so that it has to be as silent again.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::preflight::environment;
use super::{RouteHop, StoppedAt};
use crate::config::Settings;
use crate::database;
use crate::engine::{Engine, Inspection};
use crate::journal::Mode;
use crate::machine::failure::{Failure, FailureCode};

/// How long the registry may take to say what a tag names.
const REGISTRY_WITHIN: Duration = Duration::from_secs(20);

/// Hex digits of a word.
const DIGITS: usize = 12;

/// What the words are about, in their order.
const WORDS: [&str; 4] = [
    "the container (it was replaced, or started again)",
    "the route",
    "an image that a tag on the route names",
    "the database",
];

/// What a plan saw.
pub(super) struct Seen<'a> {
    pub settings: &'a Settings,
    pub mode: Mode,
    pub container: &'a Value,
    pub from: Option<&'a str>,
    pub route: &'a [RouteHop],
    pub stopped_at: Option<&'a StoppedAt>,
}

/// The hash.
pub(super) async fn of(seen: &Seen<'_>, engine: &dyn Engine) -> String {
    let mut digests = Vec::with_capacity(seen.route.len());
    for hop in seen.route {
        digests.push(digest(engine, &hop.image).await);
    }
    let container = json!([
        seen.container["Id"],
        seen.container["Image"],
        Inspection(seen.container).started_at(),
        seen.from,
    ]);
    let route = json!([seen.mode, seen.route, seen.stopped_at]);
    let environment = environment(seen.container);
    let database = match database::locate(&environment, &seen.settings.pg) {
        Ok(found) => json!([found.host, found.port, found.name]),
        Err(_) => Value::Null,
    };
    [container, route, json!(digests), database].map(|part| word(&part)).join("-")
}

async fn digest(engine: &dyn Engine, image: &str) -> Option<String> {
    let (repo, tag) = image.rsplit_once(':')?;
    let asked = engine.registry_digest(repo, tag);
    tokio::time::timeout(REGISTRY_WITHIN, asked).await.ok()?.ok()
}

fn word(part: &Value) -> String {
    let hash = Sha256::digest(part.to_string());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(DIGITS).collect()
}

/// Whether a text is such a hash.
pub fn is_one(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let is_word = |word: &&str| {
        word.len() == DIGITS && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    words.len() == WORDS.len() && words.iter().all(is_word)
}

/// Why a run does not do what a plan with this hash said; none when it does.
pub fn changed(wanted: &str, found: &str) -> Option<Failure> {
    let differ: Vec<&str> = wanted
        .split('-')
        .zip(found.split('-'))
        .zip(WORDS)
        .filter(|((wanted, found), _)| wanted != found)
        .map(|(_, what)| what)
        .collect();
    (wanted != found).then(|| {
        let message = format!(
            "since that plan was made this has changed: {}; nothing was done, plan again",
            differ.join(", ")
        );
        Failure::new(FailureCode::PlanChanged, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named() {
        let hash = ["container", "route", "images", "database"].map(|it| word(&json!(it)));
        let wanted = hash.join("-");
        assert!(is_one(&wanted), "{wanted}");
        assert_eq!(changed(&wanted, &wanted), None);
        let mut other = hash.clone();
        other[0] = word(&json!("another"));
        other[3] = word(&json!("another"));
        let failure = changed(&wanted, &other.join("-")).expect("it differs");
        assert_eq!(failure.code, FailureCode::PlanChanged);
        assert!(failure.message.contains("the container (it was replaced"), "{failure}");
        assert!(failure.message.contains(", the database;"), "{failure}");
        assert!(!failure.message.contains("route"), "{failure}");
    }

    #[test]
    fn what_is_no_hash_is_told_apart() {
        for bad in [
            "",
            "abc",
            "0123456789ab-0123456789ab-0123456789ab",
            "0123456789AB-0123456789ab-0123456789ab-0123456789ab",
            "x",
        ] {
            assert!(!is_one(bad), "{bad}");
        }
    }
}
