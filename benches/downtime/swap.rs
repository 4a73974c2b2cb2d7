//! One swap of versions, by hand and by the daemon, with the times of its parts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::poller::{Gap, Poller, since};
use crate::support::http::Request;
use crate::support::{Daemon, World, wait_until};
use crate::{FROM, Failure, HEALTHY_LIMIT, TO};

/// Good answers after a swap before it counts as over: the gap is behind us then.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// A plan on a machine that has other things to do.
const PLAN_LIMIT: Duration = Duration::from_secs(180);

/// A job, its backup included.
const JOB_LIMIT: Duration = Duration::from_secs(7200);

/// A stop and a start by hand.
pub struct Bare {
    pub downtime: Duration,
    /// From the command to the last good answer.
    pub still_serving: Duration,
    pub stop: Duration,
    pub renames: Duration,
    pub start: Duration,
    /// From the end of `docker start` to the first good answer.
    pub boot: Duration,
}

/// An upgrade by the daemon.
pub struct Upgrade {
    pub downtime: Duration,
    /// As its journal has it.
    pub journaled: Duration,
    /// From the intent of each step to its outcome.
    pub steps: BTreeMap<String, Duration>,
    /// Between the steps of the cut-over: what the journal's own writes take.
    pub between: Duration,
    /// From the intent of `quiesce` to the last good answer.
    pub still_serving: Duration,
    /// From the outcome of `start_next` to the first good answer.
    pub boot: Duration,
    /// Of the first passes, while the application serves.
    pub bytes_before: u64,
    pub files: u64,
    /// Of the last pass, in the downtime.
    pub bytes_during: u64,
    pub said: Vec<String>,
}

/// By hand: the new version takes over, and the old one after it.
pub fn there_and_back(world: &World, poller: &Poller) -> Result<(Bare, Bare), Failure> {
    let (aside, next) = (format!("{}-aside", world.name), format!("{}-next", world.name));
    world.create_beside(&next, TO);
    let there = by_hand(world, poller, &aside, &next, TO)?;
    crate::fill::settle(world);
    let back = by_hand(world, poller, &next, &aside, FROM)?;
    world.docker(&["rm", &next]);
    Ok((there, back))
}

fn by_hand(
    world: &World,
    poller: &Poller,
    leaves_as: &str,
    comes_from: &str,
    version: &str,
) -> Result<Bare, Failure> {
    let name = world.name.as_str();
    let begin = SystemTime::now();
    world.docker(&["stop", name]);
    let stopped = SystemTime::now();
    world.docker(&["rename", name, leaves_as]);
    world.docker(&["rename", comes_from, name]);
    let renamed = SystemTime::now();
    world.docker(&["start", name]);
    let started = SystemTime::now();
    wait_for_version(world, version);
    let gap = gap_since(poller, begin)?;
    Ok(Bare {
        downtime: gap.length(),
        still_serving: since(begin, gap.last),
        stop: since(begin, stopped),
        renames: since(stopped, renamed),
        start: since(renamed, started),
        boot: since(started, gap.first),
    })
}

/// By the daemon, asked as the dashboard asks it.
pub fn by_daemon(world: &World, daemon: &Daemon, poller: &Poller) -> Result<Upgrade, Failure> {
    let begin = SystemTime::now();
    let asked = json!({"requestedTarget": TO}).to_string();
    let run =
        Request::post("/upgrade/run", &asked).patience(PLAN_LIMIT).to_port(world.updater_port)?;
    let job = run.json()["jobId"].as_str().unwrap_or_default().to_owned();
    if job.is_empty() {
        return Err(format!("no upgrade began: {}", run.body).into());
    }
    let status = daemon.wait_settled(JOB_LIMIT);
    if status["phase"] != "VERIFIED" {
        return Err(format!("the upgrade was not good: {status}\n{}", daemon.log()).into());
    }
    let rows = wait_until("the last upgrade is tidied", HEALTHY_LIMIT, || {
        let rows = journal(world, &job);
        at(&rows, "outcome", "tidy").is_some().then_some(rows)
    });
    let gap = gap_since(poller, begin)?;
    Upgrade::read(&rows, gap, &status)
}

impl Upgrade {
    fn read(rows: &[Value], gap: Gap, status: &Value) -> Result<Self, Failure> {
        let time = |kind: &str, step: &str| {
            at(rows, kind, step).ok_or(format!("the journal has no {kind} of {step}"))
        };
        let mut steps = BTreeMap::new();
        for row in rows.iter().filter(|row| row["kind"] == "intent") {
            let step = row["name"].as_str().unwrap_or_default();
            steps.insert(step.to_owned(), since(time("intent", step)?, time("outcome", step)?));
        }
        let cut_over = since(time("intent", "quiesce")?, time("outcome", "start_next")?);
        let in_steps: Duration = CUT_OVER.iter().filter_map(|step| steps.get(*step)).sum();
        let fact = |step: &str| -> Value {
            let outcome = rows.iter().find(|row| row["kind"] == "outcome" && row["name"] == step);
            outcome.map(|row| row["body"]["fact"].clone()).unwrap_or_default()
        };
        let number = |fact: &Value, key: &str| find(fact, key).and_then(Value::as_u64);
        let (copy, point) = (fact("pre_copy"), fact("restore_point"));
        let said = rows
            .iter()
            .filter(|row| row["kind"] == "log")
            .filter_map(|row| row["body"].as_str())
            .filter(|line| line.contains("restore point") || line.contains("pre_copy"))
            .map(str::to_owned)
            .collect();
        Ok(Self {
            downtime: gap.length(),
            journaled: Duration::from_secs_f64(
                status["downtimeSeconds"].as_f64().ok_or("the job has no downtime")?,
            ),
            between: cut_over.saturating_sub(in_steps),
            still_serving: since(time("intent", "quiesce")?, gap.last),
            boot: since(time("outcome", "start_next")?, gap.first),
            bytes_before: number(&copy, "bytes").ok_or("the copy tells no bytes")?,
            files: number(&copy, "files").ok_or("the copy tells no files")?,
            bytes_during: number(&point, "bytes").ok_or("the restore point tells no bytes")?,
            steps,
            said,
        })
    }
}

/// The steps in which the application is down.
pub const CUT_OVER: [&str; 6] =
    ["quiesce", "stop_old", "restore_point", "rename_old", "rename_next", "start_next"];

/// A key anywhere in a fact.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => {
            fields.get(key).or_else(|| fields.values().find_map(|inner| find(inner, key)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

/// Waits until this version is healthy, and a little longer.
pub fn wait_for_version(world: &World, version: &str) {
    wait_until(&format!("{version} serves"), HEALTHY_LIMIT, || {
        (world.is_healthy() && world.version().as_deref() == Some(version)).then_some(())
    });
}

fn gap_since(poller: &Poller, begin: SystemTime) -> Result<Gap, Failure> {
    let until = Instant::now() + AFTERWARDS;
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    poller.longest_gap(begin).ok_or_else(|| "the application never answered".into())
}

/// The rows of a job, as `journal export` prints them.
fn journal(world: &World, job: &str) -> Vec<Value> {
    let export = world.cli(&["journal", "export"]);
    let text = String::from_utf8_lossy(&export.stdout).into_owned();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|row| row["job"] == job)
        .collect()
}

/// When the first row of a kind was written about a step.
fn at(rows: &[Value], kind: &str, step: &str) -> Option<SystemTime> {
    let row = rows.iter().find(|row| row["kind"] == kind && row["name"] == step)?;
    OffsetDateTime::parse(row["at"].as_str()?, &Rfc3339).ok().map(SystemTime::from)
}
