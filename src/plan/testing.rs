//! What the tests of `plan` share: the published files, and JSON with one field spoilt.

use proptest::prelude::*;
use serde_json::{Value, json};

/// The published policy, as of the release that this was written for.
pub(crate) const POLICY: &str = include_str!("../../tests/fixtures/plan/upgrade-policy.json");

/// The published manifest.
pub(crate) const MANIFEST: &str = include_str!("../../tests/fixtures/plan/runtime-manifest.json");

/// Small JSON of any shape but `null`, which means "left out".
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
    .prop_filter("null is no wrong type", |value| !value.is_null())
}

/// Replaces the `at`-th node of the document by something of another JSON type; answers the
/// node's path, or nothing when there was nothing to spoil.
pub(crate) fn mutate(document: &mut Value, at: usize, junk: Value) -> Option<String> {
    let mut paths = Vec::new();
    collect(document, String::new(), String::new(), &mut paths);
    let (pointer, path) = paths.swap_remove(at % paths.len());
    let node = document.pointer_mut(&pointer).expect("a collected path exists");
    if std::mem::discriminant(node) == std::mem::discriminant(&junk) {
        return None;
    }
    *node = junk;
    Some(path)
}

fn collect(value: &Value, pointer: String, path: String, paths: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(inner, format!("{pointer}/{name}"), below, paths);
            }
        }
        Value::Array(items) => {
            for (number, inner) in items.iter().enumerate() {
                collect(inner, format!("{pointer}/{number}"), format!("{path}[{number}]"), paths);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if !path.is_empty() {
        paths.push((pointer, path));
    }
}

/// A policy with these releases and gates.
pub(crate) fn policy(releases: &[&str], breakpoints: &[&str], stops: &[&str]) -> Value {
    let gates = |versions: &[&str]| -> Vec<Value> {
        versions
            .iter()
            .map(|v| json!({"version": v, "reason": format!("reason {v}"), "docs": "https://d"}))
            .collect()
    };
    json!({
        "latest": releases.first(),
        "releases": releases,
        "breakpoints": gates(breakpoints),
        "stop_points": gates(stops),
    })
}

/// A version whose tag still names an image that failed here.
pub(crate) fn quarantined(version: &str) -> super::quarantine::QuarantinedVersion {
    super::quarantine::QuarantinedVersion {
        version: version.to_owned(),
        image: format!("payramapp/payram:{version}"),
        digest: "sha256:bad".to_owned(),
        failed_at: "2026-01-31T12:00:00.250Z".to_owned(),
        failure_code: "HEALTHCHECK_FAILED".to_owned(),
        reason: "health answered 500".to_owned(),
        unsure: None,
        clear: super::quarantine::clearing(version),
    }
}
