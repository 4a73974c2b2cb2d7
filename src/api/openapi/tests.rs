//! That the document is whole: no endpoint without its description, no name that means nothing.

use std::collections::BTreeSet;

use super::*;
use crate::machine::{JobState, Phase};

#[test]
fn every_route_is_described_once_and_nothing_else_is() {
    for (path, _, endpoint) in ROUTES {
        let found = OPERATIONS.iter().filter(|one| one.endpoint == *endpoint).count();
        assert_eq!(found, 1, "{path}: src/api/openapi/operations.rs has {found} operations for it");
    }
    for one in OPERATIONS {
        let is_routed = ROUTES.iter().any(|(_, _, endpoint)| *endpoint == one.endpoint);
        assert!(is_routed, "{}: src/api/routes.rs has no route for it", one.name);
    }
    let document = made();
    let mut names = BTreeSet::new();
    for (path, method, _) in ROUTES {
        let described = &document["paths"][path][method.to_lowercase()];
        let name = described["operationId"].as_str().expect("a name").to_owned();
        assert!(names.insert(name), "{path}: two operations of one name");
        assert_eq!(described["requestBody"].is_object(), *method == "POST", "{path}");
        let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
        let names_a_job = parameters.iter().any(|one| one["in"] == "path");
        assert_eq!(names_a_job, path.contains('{'), "{path}");
    }
    assert_eq!(names.len(), ROUTES.len());
}

#[test]
fn every_shape_that_is_named_is_there_and_every_one_that_is_there_is_named() {
    let document = made();
    let mut named = BTreeSet::new();
    references(&document, &mut named);
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let there: BTreeSet<String> =
        schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
    assert_eq!(named, there);
}

fn references(value: &Value, named: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                named.insert(reference.to_owned());
            }
            fields.values().for_each(|field| references(field, named));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, named)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn states_and_phases_are_those_of_the_program() {
    let document = made();
    let words = |field: &str| {
        let words = &document["components"]["schemas"]["Job"]["properties"][field]["enum"];
        let words = words.as_array().expect("words").iter().filter_map(Value::as_str);
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("phase"), Phase::ALL.map(|phase| phase.as_str().to_owned()));
    let states = [
        JobState::Idle,
        JobState::Ready,
        JobState::BackingUp,
        JobState::Executing,
        JobState::Verifying,
        JobState::Failed,
    ];
    assert_eq!(words("state"), states.map(|state| state.as_str().to_owned()));
}
