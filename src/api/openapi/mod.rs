//! `GET /openapi.json`: the API as OpenAPI 3.1, made from the one table of [`operations`] and the
//! table of routes; what is sent and answered is in `schemas.json`.
//!
//! The document is a constant of the program: made once, and the same for whoever asks. A test
//! compares the tables, so that no endpoint is without its description.

mod operations;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::routes::{ROUTES, job_parameter};
use operations::{Answer, Audience, OPERATIONS, Operation, Parameter, Place};

/// The shapes of bodies and answers, by name.
const SCHEMAS: &str = include_str!("schemas.json");

/// The whole document as text.
pub(super) fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| made().to_string());
    &DOCUMENT
}

fn made() -> Value {
    let mut paths = Map::new();
    for (path, method, endpoint) in ROUTES {
        // A test finds each of them.
        let Some(operation) = OPERATIONS.iter().find(|one| one.endpoint == *endpoint) else {
            continue;
        };
        let item = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        item[method.to_lowercase()] = described(path, operation);
    }
    // A test reads it.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "payram-updater",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Upgrades a self-hosted PayRam: an upgrade ends verified, or the shop is where it was before. API.md says more. What is marked as the operator's is answered over the Unix socket alone.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": "http://127.0.0.1:2567", "description": "this machine"},
            {"url": "http://host.docker.internal:2567", "description": "the PayRam container"},
        ],
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn described(path: &str, operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = operation.parameters.iter().map(parameter).collect();
    if let Some(name) = job_parameter(path) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true,
            "description": "The id of a job.", "schema": {"type": "string", "minLength": 1},
        }));
    }
    let mut responses: Map<String, Value> =
        operation.answers.iter().map(|one| (one.status.to_owned(), answer(one))).collect();
    responses.insert("default".to_owned(), answer(&operations::REFUSED));
    let mut described = json!({
        "operationId": operation_id(path, operation),
        "summary": operation.summary,
        "tags": [match operation.audience {
            Audience::Anyone => "anyone",
            Audience::Operator => "operator",
        }],
        "responses": responses,
    });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": reference(schema)}},
        });
    }
    described
}

/// One name for each path: an endpoint may have two.
fn operation_id(path: &str, operation: &Operation) -> String {
    let is_second = ROUTES
        .iter()
        .filter(|(_, _, endpoint)| *endpoint == operation.endpoint)
        .position(|(known, _, _)| *known == path)
        .is_some_and(|place| place > 0);
    format!("{}{}", operation.name, if is_second { "Again" } else { "" })
}

fn parameter(parameter: &Parameter) -> Value {
    let mut schema = json!({"type": parameter.kind});
    match parameter.limits {
        operations::Limits::None => {}
        operations::Limits::From(least) => schema["minimum"] = least.into(),
        operations::Limits::Row(least) => {
            schema["minimum"] = least.into();
            schema["maximum"] = i64::MAX.into();
        }
        operations::Limits::Moment => schema["format"] = "date-time".into(),
        operations::Limits::Words(words) => schema["enum"] = json!(words),
        operations::Limits::Job => schema["minLength"] = 1.into(),
    }
    json!({
        "name": parameter.name,
        "in": match parameter.place { Place::Query => "query", Place::Header => "header" },
        "required": false,
        "description": parameter.about,
        "schema": schema,
    })
}

fn answer(answer: &Answer) -> Value {
    let mut described = json!({"description": answer.about});
    for (kind, schema) in answer.content {
        described["content"][*kind] = match schema {
            Some(name) => json!({"schema": reference(name)}),
            None => json!({"schema": {"type": "string"}}),
        };
    }
    described
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

#[cfg(test)]
mod tests;
