//! Bad input: settings, requests, versions, policies. Each is refused with a clear error and the
//! documented status or exit code, and nothing is changed by it.

mod support;

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use support::http::Request;
use support::{Answer, Daemon, World, require};

#[test]
fn a_bad_setting_stops_the_daemon_with_the_key_the_value_and_its_place() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").unattended().start();
    for (key, value, allowed) in [
        ("UPDATER_PORT", "70000", "1 to 65535"),
        ("BACKUP_RETENTION", "none", "whole number"),
        ("HEALTH_TIMEOUT_SECONDS", "-1", "whole seconds"),
        ("ROLLBACK_DATABASE", "sometimes", "lossless, manual or always"),
        ("POLICY_URL", "ftp://policy.example/", "http"),
        ("STATE_DIR", "state", "absolute path"),
        ("TARGET_CONTAINER_NAME", "../payram", "container's name"),
        ("DOCKER_HOST", "docker.sock", "unix:///PATH"),
    ] {
        let mut serve = world.updater(&["serve"]);
        let ended = serve.env(key, value).output().expect("the product starts");
        assert_eq!(ended.status.code(), Some(1), "{key}: {ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        for part in [key, value, allowed, "environment"] {
            assert!(said.contains(part), "{key}: {part:?} is said in: {said}");
        }
    }

    // All of them at once, with the file and the line of each.
    let file = world.path(".env");
    fs::write(&file, "LOG=info\nBACKUP_PROOF=some\n\nFETCH_TIMEOUT_SECONDS='soon'\n")
        .expect("a file of settings");
    let ended = world.cli(&["serve"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    for part in ["BACKUP_PROOF", "some", ".env:2", "FETCH_TIMEOUT_SECONDS", "soon", ".env:4"] {
        assert!(said.contains(part), "{part:?} is said in: {said}");
    }
    fs::remove_file(&file).expect("it was there");

    // What is missing is named; a password is never shown.
    let mut serve = world.updater(&["serve"]);
    let ended = serve.env_remove("POLICY_URL").env("PG_PORT", "s3cret").output();
    let said = String::from_utf8_lossy(&ended.expect("the product starts").stderr).into_owned();
    assert!(said.contains("POLICY_URL") && said.contains("PG_PORT"), "{said}");
    assert!(!world.state_dir().join("journal.db").exists(), "nothing was begun");
}

#[test]
fn a_bad_request_is_answered_with_its_status_and_starts_nothing() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let daemon = world.daemon();
    let port = world.updater_port;
    let send = |request: Request<'_>| request.to_port(port).expect("an answer");

    // Bodies.
    let good = r#"{"requestedTarget":"1.9.7"}"#;
    let large = format!(r#"{{"requestedTarget":"1.9.7","source":"{}"}}"#, "x".repeat(70_000));
    for path in ["/upgrade/plan", "/upgrade/run"] {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            "\"1.9.7\"",
            r#"{"requestedTarget":""}"#,
            r#"{"requestedTarget":197}"#,
            r#"{"requestedTarget":"1.9.7","mode":"ROOT"}"#,
            "{\"requestedTarget\":\"1.9.7\"} trailing",
        ] {
            assert_error(&send(Request::post(path, body)), 400, "INVALID_REQUEST", body);
        }
        let plain = Request::new("POST", path).header("Content-Type", "text/plain").body(good);
        assert_error(&send(plain), 415, "UNSUPPORTED_MEDIA_TYPE", path);
        let form = Request::new("POST", path)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body("requestedTarget=1.9.7");
        assert_error(&send(form), 415, "UNSUPPORTED_MEDIA_TYPE", path);
        assert_error(
            &send(Request::new("POST", path).body(good)),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            path,
        );
        assert_error(&send(Request::post(path, &large)), 413, "BODY_TOO_LARGE", path);
    }

    // Methods and paths.
    for (method, path, allow) in [
        ("GET", "/upgrade/run", "POST"),
        ("PUT", "/upgrade/plan", "POST"),
        ("DELETE", "/history", "GET"),
        ("PATCH", "/upgrade/status", "GET"),
    ] {
        let answer = send(Request::new(method, path));
        assert_error(&answer, 405, "METHOD_NOT_ALLOWED", path);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    for path in ["/upgrade", "/upgrade/run/", "/../etc/passwd", "/health%00", "/nothing"] {
        assert_error(&send(Request::get(path)), 404, "NOT_FOUND", path);
    }

    // Who asks.
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", ""] {
        let answer = send(Request::get("/upgrade/status").header("Host", host));
        assert_error(&answer, 421, "HOST_NOT_ALLOWED", host);
        let answer = send(Request::post("/upgrade/run", good).header("Host", host));
        assert_error(&answer, 421, "HOST_NOT_ALLOWED", host);
    }
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "https://localhost"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let answer = send(Request::post("/upgrade/run", good).header(name, value));
        assert_error(&answer, 403, "CROSS_ORIGIN", value);
    }
    let cancel = send(Request::post("/upgrade/cancel", "{}"));
    assert_error(&cancel, 403, "FORBIDDEN", "calling off is for the socket");
    for path in ["/upgrade/sync", "/upgrade/recover", "/backup/create", "/backup/restore"] {
        assert_error(&send(Request::post(path, "{}")), 403, "FORBIDDEN", path);
    }

    // Parameters.
    for query in [
        "/history?limit=0",
        "/history?limit=-1",
        "/history?limit=ten",
        "/history?limit=",
        "/upgrade/history?limit=1.5",
        "/upgrade/logs?after=-1",
        "/upgrade/logs?format=xml",
    ] {
        assert_error(&send(Request::get(query)), 400, "INVALID_PARAMETER", query);
    }

    assert_nothing_happened(&world, &daemon);
}

#[test]
fn a_target_that_is_no_version_or_not_a_way_forward_is_refused_and_starts_nothing() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let daemon = world.daemon();
    for (target, code) in [
        ("../x", "INVALID_TARGET"),
        ("1.9.x", "INVALID_TARGET"),
        ("1.9.7; reboot", "INVALID_TARGET"),
        ("1.9.7@sha256:00", "INVALID_TARGET"),
        ("newest", "INVALID_TARGET"),
        ("99999999999999999999.0.0", "INVALID_TARGET"),
        ("1.9.6", "ALREADY_ON_TARGET"),
        ("1.9.5", "DOWNGRADE_NOT_ALLOWED"),
    ] {
        for command in [&["dry-run", "--to", target][..], &["run", "--to", target, "--yes"]] {
            let output = world.cli(&[command, &["--json"]].concat());
            assert_refused(&output, code, target);
        }
    }
    for (target, code) in [
        ("../x", "INVALID_TARGET"),
        ("1.9.6", "ALREADY_ON_TARGET"),
        ("1.9.99", "VERSION_NOT_IN_POLICY"),
    ] {
        for path in ["/upgrade/plan", "/upgrade/run"] {
            let answer = daemon.post(path, &json!({"requestedTarget": target}));
            assert_eq!(answer.status, 200, "{path} {target}: {}", answer.body);
            let answer = answer.json();
            assert_eq!(answer["state"], "FAILED", "{path} {target}: {answer}");
            assert_eq!(answer["failureCode"], code, "{path} {target}: {answer}");
        }
    }
    let usage = world.cli(&["run", "--yes"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    let unasked = world.cli(&["run", "--to", "1.9.7"]);
    assert_eq!(unasked.status.code(), Some(2), "no terminal and no --yes: {unasked:?}");
    assert_nothing_happened(&world, &daemon);
}

#[test]
fn a_policy_or_manifest_that_is_no_such_thing_is_refused_with_the_field_that_is_wrong() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let daemon = world.daemon();
    let policy = world.path("policy.json");
    let good = fs::read_to_string(&policy).expect("a policy");
    let large = format!(r#"{{"releases": ["1.9.7"], "pad": "{}"}}"#, "x".repeat(1 << 20));
    for (content, code, part) in [
        ("", "POLICY_INVALID_JSON", "policy.json"),
        ("<html>moved</html>", "POLICY_INVALID_JSON", "policy.json"),
        ("[]", "POLICY_INVALID_JSON", "policy.json"),
        (r#"{"latest": "1.9.7"}"#, "POLICY_INVALID_JSON", "releases"),
        (r#"{"releases": "1.9.7"}"#, "POLICY_INVALID_JSON", "releases"),
        (r#"{"releases": ["1.9.7", 2]}"#, "POLICY_INVALID_JSON", "releases[1]"),
        (
            r#"{"releases": ["1.9.7", "1.9.6"], "breakpoints": [{"version": "soon"}]}"#,
            "POLICY_INVALID_GATE",
            "soon",
        ),
        (
            r#"{"releases": ["1.9.7", "1.9.6"], "stop_points": [{"reason": "why"}]}"#,
            "POLICY_INVALID_JSON",
            "stop_points[0]",
        ),
        (&large, "POLICY_FETCH_FAILED", "policy.json"),
    ] {
        fs::write(&policy, content).expect("a policy");
        let shown: String = content.chars().take(80).collect();
        assert_plan_fails(&daemon, code, part, &shown);
    }
    fs::remove_file(&policy).expect("it was there");
    assert_plan_fails(&daemon, "POLICY_FETCH_FAILED", "policy.json", "no policy at all");
    // By hand no policy is needed, except for `latest`.
    let latest = world.cli(&["run", "--to", "latest", "--yes", "--json"]);
    assert_refused(&latest, "POLICY_REQUIRED", "latest");
    let by_hand = world.cli(&["dry-run", "--to", "1.9.7", "--json"]);
    assert_eq!(by_hand.status.code(), Some(0), "{by_hand:?}");

    fs::write(&policy, good).expect("a policy");
    let manifest = world.path("manifest.json");
    for (content, code, part) in [
        ("{", "MANIFEST_INVALID_JSON", "manifest.json"),
        ("{}", "MANIFEST_INVALID_JSON", "image"),
        (r#"{"image": {"repo": 7}}"#, "MANIFEST_INVALID_JSON", "image.repo"),
        (
            r#"{"image": {"repo": "payramapp/payram"}, "defaults": {"ports": [{"container": 0}]}}"#,
            "MANIFEST_INVALID_JSON",
            "ports[0]",
        ),
    ] {
        fs::write(&manifest, content).expect("a manifest");
        assert_plan_fails(&daemon, code, part, content);
    }
    fs::remove_file(&manifest).expect("it was there");
    assert_plan_fails(&daemon, "MANIFEST_FETCH_FAILED", "manifest.json", "no manifest at all");
    assert_nothing_happened(&world, &daemon);
}

#[test]
fn a_second_daemon_on_the_same_state_does_not_start() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").unattended().start();
    let daemon = world.daemon();
    world.set("UPDATER_PORT", &support::free_port().to_string());
    let mut second = world.spawn_daemon();
    let ended = second.wait_exit(Duration::from_secs(20));
    assert_eq!(ended.code(), Some(1), "{}", second.log());
    assert!(second.log().contains("another"), "{}", second.log());
    assert_eq!(daemon.get("/health").status, 200);
}

/// Status, code and a sentence.
fn assert_error(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what:?}: {}", answer.body);
    let body = answer.json();
    assert_eq!(body["code"], code, "{what:?}: {body}");
    assert!(body["error"].as_str().is_some_and(|said| said.len() > 10), "{what:?}: {body}");
}

/// A refusal by a command: exit 1 and the code.
fn assert_refused(output: &Output, code: &str, what: &str) {
    assert_eq!(output.status.code(), Some(1), "{what:?}: {output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{what:?}: {error}: {output:?}"));
    assert_eq!(answer["state"], "FAILED", "{what:?}: {answer}");
    assert_eq!(answer["failureCode"], code, "{what:?}: {answer}");
}

/// A refusal of the plan and of the run by HTTP, with a part of its sentence.
fn assert_plan_fails(daemon: &Daemon, code: &str, part: &str, what: &str) {
    for path in ["/upgrade/plan", "/upgrade/run"] {
        let answer = daemon.post(path, &json!({"requestedTarget": "1.9.7"})).json();
        assert_eq!(answer["state"], "FAILED", "{path} {what}: {answer}");
        assert_eq!(answer["failureCode"], code, "{path} {what}: {answer}");
        let message = answer["message"].as_str().expect("a message");
        assert!(message.contains(part), "{path} {what}: {part:?} is said in: {message}");
    }
}

/// No job, no event, one container, never restarted, and it serves.
fn assert_nothing_happened(world: &World, daemon: &Daemon) {
    let status = daemon.status();
    assert_eq!(status["state"], "IDLE", "{status}");
    assert_eq!(daemon.get("/history").json(), json!({"events": [], "count": 0}));
    assert_eq!(daemon.get("/upgrade/logs").body, "");
    let containers = world.containers();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["Name"], format!("/{}", world.name));
    assert!(world.is_healthy());
    assert!(world.files_below("backups").is_empty());
    world.wait_for_payments(3);
    assert_eq!(world.lost(), Vec::<String>::new());
}
