//! `GET /openapi.json` against the daemon that serves it: what is answered has the shape that the
//! document says, field by field, before an upgrade and after a good and a bad one.

use serde_json::{Value, json};

use crate::shop::{END, Shop};
use crate::support::Daemon;
use crate::support::http::Request;

/// What does not fit, as sentences. A field that the document does not have does not fit either.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        let schema = document.pointer(pointer).unwrap_or_else(|| panic!("{reference} is nowhere"));
        return misfits(document, schema, value, at, found);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = |one: &Value| {
            let mut found = Vec::new();
            misfits(document, one, value, at, &mut found);
            found.is_empty()
        };
        if !any.iter().any(fits) {
            found.push(format!("{at}: {value} is none of those allowed"));
        }
        return;
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    if !kinds.iter().any(|kind| is_of(kind.as_str().expect("a type"), value)) {
        found.push(format!("{at}: {value} is not {kinds:?}"));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at}: {value} is none of {words:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        misfits(document, &schema["items"], item, &format!("{at}[{index}]"), found);
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{at}.{name} is missing"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(of), _) | (None, Some(of)) => misfits(document, of, field, &at, found),
            (None, None) => found.push(format!("{at} is not in the document: {field}")),
        }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("{other} is no type of JSON Schema"),
    }
}

/// Asks, and compares with what the document says of this path.
fn check(document: &Value, method: &str, path: &str, asked: &str, daemon: &Daemon, body: &Value) {
    let answer = match method {
        "get" => daemon.get(asked),
        _ => daemon.post(asked, body),
    };
    let responses = &document["paths"][path][method]["responses"];
    let status = answer.status.to_string();
    let said = responses.get(&status).unwrap_or(&responses["default"]);
    let kind = answer.header("content-type").expect("a type");
    let kind = kind.split(';').next().unwrap_or_default();
    let schema = &said["content"][kind]["schema"];
    assert!(schema.is_object(), "{path}: {status} {kind} is not in the document");
    if kind == "application/json" && path != "/openapi.json" {
        let mut found = Vec::new();
        misfits(document, schema, &answer.json(), "", &mut found);
        assert!(found.is_empty(), "{method} {asked}: {found:#?}");
    }
}

/// Everything that may be asked without changing anything.
fn check_all(document: &Value, daemon: &Daemon, target: &str) {
    let jobs = daemon.get("/upgrade/jobs?limit=1").json();
    let job = jobs["jobs"][0]["jobId"].as_str().unwrap_or("job-1").to_owned();
    let paths = document["paths"].as_object().expect("paths");
    let mut checked = 0;
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            // A stream has no end, and what changes something is asked elsewhere.
            if path == "/upgrade/events" || path == "/upgrade/run" {
                continue;
            }
            checked += 1;
            let asked = path.replace("{id}", &job);
            check(document, method, path, &asked, daemon, &json!({"requestedTarget": target}));
            if path.ends_with("/logs") {
                check(document, method, path, &format!("{asked}?format=json"), daemon, &json!({}));
            }
        }
    }
    assert!(checked > 20, "only {checked} were asked");
}

#[test]
fn what_is_answered_has_the_shape_that_the_document_says() {
    let shop = Shop::open(json!({"2.0.0": {}, "1.9.7": {},
        "9.0.1": {"health": [500], "takesPayments": false}}));
    let daemon = shop.daemon();
    let document = daemon.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    check_all(&document, &daemon, "1.9.7");
    let run = json!({"requestedTarget": "1.9.7"});
    check(&document, "post", "/upgrade/run", "/upgrade/run", &daemon, &run);
    // While it is under way.
    check(&document, "get", "/upgrade/status", "/upgrade/status", &daemon, &json!({}));
    check(&document, "post", "/upgrade/run", "/upgrade/run", &daemon, &run);
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");
    check_all(&document, &daemon, "2.0.0");
    assert_eq!(shop.upgrade("9.0.1").0, Some(4));
    check_all(&document, &daemon, "9.0.1");
    // Over the socket, where the operator's own are answered.
    let ask = |path: &str, body: Value| {
        let body = body.to_string();
        let answer = Request::post(path, &body).patience(END);
        let answer = answer.to_socket(&shop.path("run/updater.sock")).expect("an answer");
        let responses = &document["paths"][path]["post"]["responses"];
        let said = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
        let schema = &said["content"]["application/json"]["schema"];
        let mut found = Vec::new();
        misfits(&document, schema, &answer.json(), "", &mut found);
        assert!(found.is_empty(), "{path}: {found:#?}");
        answer.status
    };
    assert_eq!(ask("/upgrade/recover", json!({"dryRun": true})), 200);
    assert_eq!(ask("/upgrade/sync", json!({})), 200);
    assert_eq!(ask("/upgrade/cleanup", json!({"what": "state", "dryRun": true})), 200);
    assert_eq!(ask("/upgrade/cleanup", json!({"what": "backups", "dryRun": true})), 200);
    assert_eq!(ask("/upgrade/cancel", json!({})), 409);
    assert_eq!(ask("/backup/restore", json!({"file": "none.dump", "dryRun": true})), 422);
}
