//! What a container does and did: its processes, its changed files, its past events.
//!
//! Called by the verbs `processes`, `changes` and `events_between`. Reads alone, and hands on
//! what the engine says; what it means for an upgrade is judged elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::http::{Call, Http};
use super::{lines, short};
use crate::engine::{Change, ChangeKind, EngineError, EngineEvent, Process};

/// What the engine's `ps` is asked for. `-e` because engines that can't choose the container's
/// own processes by `-q` choose them from all.
const PS: &str = "-eo pid,ppid,etimes,args";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Top {
    titles: Vec<String>,
    processes: Option<Vec<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChangeLine {
    path: String,
    kind: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EventLine {
    #[serde(rename = "Type")]
    kind: String,
    action: String,
    actor: Actor,
    #[serde(rename = "timeNano")]
    nanoseconds: i64,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
}

/// `GET /containers/{id}/top`
pub(super) async fn processes(http: &Http, id: &str) -> Result<Vec<Process>, EngineError> {
    let doing = format!("list the processes of container {}", short(id));
    let path = ["containers", id, "top"];
    let call = Call::new(Method::GET, &path, doing, http.deadlines.read).query("ps_args", PS);
    let top: Top = http.json(&call).await?;
    let rows = top.processes.unwrap_or_default();
    let read = rows.iter().map(|row| {
        process(row).ok_or_else(|| {
            let titles = top.titles.join(" ");
            let found = row.join(" ");
            call.protocol(format!("expected `{PS}`, found under `{titles}`: `{found}`"))
        })
    });
    read.collect()
}

fn process(row: &[String]) -> Option<Process> {
    let [pid, parent, age, command] = row else { return None };
    Some(Process {
        pid: pid.parse().ok()?,
        parent: parent.parse().ok()?,
        age: Duration::from_secs(age.parse().ok()?),
        command: command.clone(),
    })
}

/// `GET /containers/{id}/changes`
pub(super) async fn changes(http: &Http, id: &str) -> Result<Vec<Change>, EngineError> {
    let doing = format!("list the changed files of container {}", short(id));
    let path = ["containers", id, "changes"];
    let call = Call::new(Method::GET, &path, doing, http.deadlines.read);
    // `null` when there are none.
    let lines: Option<Vec<ChangeLine>> = http.json(&call).await?;
    let read = lines.unwrap_or_default().into_iter().map(|line| {
        let kind = match line.kind {
            0 => ChangeKind::Modified,
            1 => ChangeKind::Added,
            2 => ChangeKind::Deleted,
            other => {
                let path = line.path;
                return Err(
                    call.protocol(format!("expected a kind of 0 to 2, found {other} for {path}"))
                );
            }
        };
        Ok(Change { path: line.path, kind })
    });
    read.collect()
}

/// `GET /events?since=…&until=…`
pub(super) async fn events_between(
    http: &Http,
    id: &str,
    since_ms: i64,
    until_ms: i64,
) -> Result<Vec<EngineEvent>, EngineError> {
    let doing = format!("read the past events of container {}", short(id));
    let filters = json!({ "type": ["container"], "container": [id] });
    // The whole of the last millisecond, as the engine counts in nanoseconds.
    let call = Call::new(Method::GET, &["events"], &doing, http.deadlines.read)
        .query("since", moment(since_ms, "000000"))
        .query("until", moment(until_ms, "999999"))
        .query("filters", filters.to_string());
    let values: Vec<_> = call
        .within(http.deadlines.read, async {
            lines::values(doing, http.stream(&call).await?).try_collect().await
        })
        .await?;
    let mut events = Vec::new();
    for value in values {
        let line: EventLine = serde_json::from_value(value)
            .map_err(|error| call.protocol(format!("an event is not as expected: {error}")))?;
        let attributes = line.actor.attributes.unwrap_or_default();
        // The engine's filter takes every container whose id or name begins so: `payram` also
        // finds `payram-old`.
        let is_its = line.actor.id == id || attributes.get("name").is_some_and(|name| name == id);
        if line.kind == "container" && is_its {
            let at_ms = line.nanoseconds.div_euclid(1_000_000);
            events.push(EngineEvent { at_ms, action: line.action, attributes });
        }
    }
    events.sort_by_key(|event| event.at_ms);
    Ok(events)
}

/// `1795893084.819` and these last six digits; nothing is known from before the epoch.
fn moment(ms: i64, rest: &str) -> String {
    let ms = ms.max(0);
    format!("{}.{:03}{rest}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::super::Docker;
    use super::super::fake::{FakeEngine, answer};
    use super::*;
    use crate::engine::Engine;

    /// An engine that answers one path, whatever its query, with `body`.
    async fn answering(path: &'static str, status: u16, body: String) -> (FakeEngine, Docker) {
        let engine = FakeEngine::start(move |line| {
            let asked = line.split([' ', '?']).nth(1).unwrap_or_default();
            match asked {
                "/_ping" => answer(200, &["Api-Version: 1.41"], "OK"),
                _ if asked == path => answer(status, &[], &body),
                _ => answer(404, &[], r#"{"message":"no such thing"}"#),
            }
        })
        .await;
        let docker = Docker::at(&engine.endpoint()).expect("a client");
        (engine, docker)
    }

    #[tokio::test]
    async fn a_process_is_its_numbers_its_age_and_its_command_line() {
        let body = json!({
            "Titles": ["PID", "PPID", "ELAPSED", "COMMAND"],
            "Processes": [["24420", "24396", "90", "postgres: payram payram 127.0.0.1(9) idle"]],
        });
        let (_engine, docker) = answering("/v1.41/containers/c/top", 200, body.to_string()).await;
        let expected = Process {
            pid: 24420,
            parent: 24396,
            age: Duration::from_secs(90),
            command: "postgres: payram payram 127.0.0.1(9) idle".into(),
        };
        assert_eq!(docker.processes("c").await.expect("processes"), [expected]);
    }

    #[tokio::test]
    async fn a_ps_that_prints_other_columns_is_not_understood() {
        let body = json!({
            "Titles": ["PID", "USER", "TIME", "COMMAND"],
            "Processes": [["1", "root", "0:00", "sleep"]],
        });
        let (_engine, docker) = answering("/v1.41/containers/c/top", 200, body.to_string()).await;
        let error = docker.processes("c").await.expect_err("other columns");
        assert!(matches!(error, EngineError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains("PID USER TIME COMMAND"), "{error}");
    }

    #[tokio::test]
    async fn a_host_without_ps_is_told_in_the_engines_own_words() {
        let sentence = r#"exec: \"ps\": executable file not found in $PATH"#;
        let body = format!(r#"{{"message":"{sentence}"}}"#);
        let (_engine, docker) = answering("/v1.41/containers/c/top", 500, body).await;
        let error = docker.processes("c").await.expect_err("no ps");
        assert_eq!(error.status(), Some(500));
        assert!(error.to_string().contains("executable file not found"), "{error}");
    }

    #[tokio::test]
    async fn no_changes_are_null_and_an_unknown_kind_is_not_taken_for_one() {
        let (_engine, docker) = answering("/v1.41/containers/c/changes", 200, "null".into()).await;
        assert_eq!(docker.changes("c").await.expect("none"), []);
        let body = json!([{ "Path": "/etc/x", "Kind": 7 }]).to_string();
        let (_engine, docker) = answering("/v1.41/containers/c/changes", 200, body).await;
        let error = docker.changes("c").await.expect_err("a kind that is none");
        assert!(error.to_string().contains("found 7 for /etc/x"), "{error}");
    }

    #[tokio::test]
    async fn events_are_one_containers_own_and_the_oldest_comes_first() {
        let event = |name: &str, action: &str, nanoseconds: i64| {
            let attributes = json!({ "name": name, "exitCode": "137" });
            let actor = json!({ "ID": format!("id-of-{name}"), "Attributes": attributes });
            let event = json!({
                "Type": "container", "Action": action, "Actor": actor, "timeNano": nanoseconds,
            });
            format!("{event}\n")
        };
        let body = [
            event("payram", "die", 7_999_999),
            event("payram-old", "kill", 6_500_000),
            event("payram", "kill", 6_000_000),
        ];
        let (_engine, docker) = answering("/v1.41/events", 200, body.concat()).await;
        for id in ["payram", "id-of-payram"] {
            let events = docker.events_between(id, 0, 10).await.expect("events");
            let seen: Vec<_> =
                events.iter().map(|event| (event.at_ms, event.action.as_str())).collect();
            assert_eq!(seen, [(6, "kill"), (7, "die")], "{id}");
            assert_eq!(events[1].attributes["exitCode"], "137");
        }
    }

    #[test]
    fn a_moment_is_seconds_with_nine_digits() {
        assert_eq!(moment(1_795_893_084_007, "999999"), "1795893084.007999999");
        assert_eq!(moment(-5, "000000"), "0.000000000");
    }

    #[tokio::test]
    async fn a_kill_that_is_refused_is_fine_only_when_the_container_does_not_run() {
        for (running, fine) in [(false, true), (true, false)] {
            let engine = FakeEngine::start(move |line| match line {
                "GET /_ping HTTP/1.1" => answer(200, &["Api-Version: 1.41"], "OK"),
                "POST /v1.41/containers/c/kill?signal=SIGKILL HTTP/1.1" => {
                    answer(409, &[], r#"{"message":"no"}"#)
                }
                "GET /v1.41/containers/c/json HTTP/1.1" => {
                    answer(200, &[], &json!({"State": {"Running": running}}).to_string())
                }
                other => answer(500, &[], other),
            })
            .await;
            let docker = Docker::at(&engine.endpoint()).expect("a client");
            let killed = docker.kill("c").await;
            assert_eq!(killed.is_ok(), fine, "{killed:?}");
        }
    }
}
