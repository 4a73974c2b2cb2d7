//! `inspect`: the verdict over this host, what was found, and what to do (contract section 6).
//! Exit 1 when it is BROKEN.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::config::Settings;
use crate::driver::Worker;
use crate::engine::docker::Docker;
use crate::inspect::Chain;
use crate::journal::Reader;

use super::answers::{self, Job, Playbook};
use super::client::ClientError;
use super::screen::{Screen, Tone, clean};
use super::{Context, Exit, Problem, Reading, document, render};

/// `inspect`
pub(super) async fn inspect(
    context: &Context,
    verbose: bool,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let raw = match context.client.look("/upgrade/inspect").await {
        Ok(raw) => raw,
        Err(error @ ClientError::Unreachable { .. }) => inspect_here(error).await?,
        Err(error) => return Err(error.into()),
    };
    let report: Report = answers::read("/upgrade/inspect", &raw)?;
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => show(out, context.screen, &report, verbose)?,
    }
    Ok(if report.overall_state == BROKEN { Exit::Failed } else { Exit::Done })
}

/// The same report, made by this process while the daemon can't be reached: its JSON. Where the
/// settings or the journal are not for this user, the daemon is what is missing.
async fn inspect_here(unreachable: ClientError) -> Result<Value, Problem> {
    let Ok((settings, _)) = Settings::load() else { return Err(unreachable.into()) };
    let engine = Docker::connect(&settings.docker_bin, settings.docker_host.as_deref()).await;
    let engine = engine
        .map_err(|error| Problem::stopped(Exit::Failed, "DOCKER_DAEMON_DOWN", error.to_string()))?;
    let reader =
        match settings.journal_path().exists() {
            true => Some(Reader::open(&settings.journal_path()).map_err(|error| {
                Problem::stopped(Exit::Failed, "JOURNAL_ERROR", error.to_string())
            })?),
            false => None,
        };
    let reader = reader.map(Arc::new);
    let journal = reader.as_ref().map(|reader| (reader, Chain::Whole));
    let seen = crate::inspect::look(&settings, &engine, journal).await;
    let report = crate::inspect::judge(&settings, &seen, Worker::Away);
    serde_json::to_value(&report)
        .map_err(|error| Problem::stopped(Exit::Failed, "UNKNOWN", error.to_string()))
}

const OK: &str = "OK";
const INFO: &str = "INFO";
const BROKEN: &str = "BROKEN";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    overall_state: String,
    issues: Vec<Issue>,
    recommendations: Vec<Recommendation>,
    last_job: Option<Job>,
    recovery_playbook: Option<Playbook>,
    update_info: Option<UpdateInfo>,
    checks: BTreeMap<String, CheckResult>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Issue {
    component: String,
    description: String,
    severity: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Recommendation {
    action: String,
    description: String,
    priority: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CheckResult {
    status: String,
    message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UpdateInfo {
    current_version: String,
    latest_version: String,
    update_available: bool,
    message: String,
}

/// The verdict, what is not in order, and what to do about it; with `verbose` the rest, too.
fn show(out: &mut dyn Write, screen: Screen, report: &Report, verbose: bool) -> io::Result<()> {
    let tone = match report.overall_state.as_str() {
        OK => Tone::Good,
        BROKEN => Tone::Bad,
        _ => Tone::Unsure,
    };
    writeln!(out, "PayRam on this host: {}", screen.paint(tone, &clean(&report.overall_state)))?;
    // What the verdict is for comes first, and then what to do about it.
    let (notes, causes): (Vec<&Issue>, Vec<&Issue>) =
        report.issues.iter().partition(|issue| issue.severity == INFO);
    let (first, later) = match causes.is_empty() {
        true => (notes, causes),
        false => (causes, notes),
    };
    issues(out, screen, &first)?;
    recommended(out, screen, report)?;
    issues(out, screen, &later)?;
    checks(out, screen, report, verbose)?;
    let is_about_the_last = report.issues.iter().any(|issue| issue.component == "lastJob");
    if let Some(book) = report.recovery_playbook.as_ref().filter(|_| verbose || is_about_the_last) {
        writeln!(out)?;
        render::playbook(out, screen, book)?;
    }
    if verbose {
        return rest(out, screen, report);
    }
    writeln!(out)?;
    if let Some(update) = report.update_info.as_ref().filter(|update| update.update_available) {
        writeln!(out, "{}", screen.hang(0, &update.message))?;
    }
    let all = report.checks.len();
    let is_bad = |check: &&CheckResult| !matches!(check.status.as_str(), OK | "UNKNOWN");
    let hint = match report.checks.values().filter(is_bad).count() {
        0 => format!("None of {all} checks found anything wrong; inspect -v shows each of them."),
        bad => format!("{bad} of {all} checks found something; inspect -v shows each of them."),
    };
    writeln!(out, "{}", screen.paint(Tone::Faint, &screen.hang(0, &hint)))
}

/// Findings, worst first.
fn issues(out: &mut dyn Write, screen: Screen, issues: &[&Issue]) -> io::Result<()> {
    for (index, issue) in issues.iter().enumerate() {
        let tone = match issue.severity.as_str() {
            "CRITICAL" => Tone::Bad,
            "WARNING" => Tone::Unsure,
            _ => Tone::Faint,
        };
        if index == 0 {
            writeln!(out)?;
        }
        let severity = screen.paint(tone, &format!("{:<8}", clean(&issue.severity)));
        let text = format!("{}: {}", issue.component, issue.description);
        writeln!(out, "  {severity}  {}", screen.hang(12, &text))?;
    }
    Ok(())
}

/// Those that are not in order and that no issue tells already.
fn checks(out: &mut dyn Write, screen: Screen, report: &Report, verbose: bool) -> io::Result<()> {
    let is_told = |name: &str, check: &CheckResult| {
        let mut issues = report.issues.iter();
        issues.any(|issue| issue.component == name || issue.description == check.message)
    };
    let shown: Vec<(&String, &CheckResult)> = report
        .checks
        .iter()
        .filter(|(name, check)| verbose || !(check.status == OK || is_told(name, check)))
        .filter(|(_, check)| verbose || check.status != "UNKNOWN" || report.overall_state != OK)
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    heading(out, screen, "Checks")?;
    let room = shown.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, check) in shown {
        let mark = match check.status.as_str() {
            OK => screen.paint(Tone::Good, "✔"),
            "WARNING" => screen.paint(Tone::Unsure, "!"),
            "FAILED" => screen.paint(Tone::Bad, "✘"),
            _ => screen.paint(Tone::Faint, "?"),
        };
        let text = screen.hang(room + 6, &check.message);
        writeln!(out, "  {mark} {:<room$}  {text}", clean(name))?;
    }
    Ok(())
}

fn recommended(out: &mut dyn Write, screen: Screen, report: &Report) -> io::Result<()> {
    let mut recommended: Vec<&Recommendation> =
        report.recommendations.iter().filter(|one| one.action != "none").collect();
    if recommended.is_empty() {
        return Ok(());
    }
    heading(out, screen, "Next")?;
    recommended.sort_by_key(|recommendation| recommendation.priority);
    for (index, recommendation) in recommended.into_iter().enumerate() {
        // The action is a word for programs; where nothing else is said it is better than nothing.
        let text = match recommendation.description.as_str() {
            "" => &recommendation.action,
            description => description,
        };
        writeln!(out, "  {}. {}", index + 1, screen.hang(5, text))?;
    }
    Ok(())
}

/// What is of use to whoever wants all of it.
fn rest(out: &mut dyn Write, screen: Screen, report: &Report) -> io::Result<()> {
    if let Some(update) = &report.update_info {
        let tone = if update.update_available { Tone::Unsure } else { Tone::Faint };
        heading(out, screen, "Updates")?;
        let versions =
            format!("{} runs, {} is the latest", update.current_version, update.latest_version);
        writeln!(out, "  {}", screen.paint(tone, &clean(&versions)))?;
        writeln!(out, "  {}", screen.hang(2, &update.message))?;
    }
    if let Some(job) = report.last_job.as_ref().filter(|job| !job.is_none()) {
        heading(out, screen, "Last upgrade")?;
        let state = job.phase.as_deref().unwrap_or(&job.state);
        let text = format!("{}: {state}: {}", job.way(), job.message);
        writeln!(out, "  {}", screen.hang(2, &text))?;
    }
    Ok(())
}

fn heading(out: &mut dyn Write, screen: Screen, text: &str) -> io::Result<()> {
    writeln!(out, "\n{}", screen.paint(Tone::Strong, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_verdict_evidence_and_what_to_do() {
        let report: Report = serde_json::from_value(json!({
            "overallState": "BROKEN",
            "issues": [{"component": "dockerDaemon", "description": "no answer",
                "severity": "CRITICAL"}],
            "recommendations": [
                {"action": "retry", "description": "Run it again.", "priority": 2},
                {"action": "recover", "description": "Start Docker.", "priority": 1}],
            "updateInfo": {"currentVersion": "1.9.6", "latestVersion": "1.9.7",
                "updateAvailable": true, "message": "1.9.7 can be installed."},
            "checks": {"dockerDaemon": {"status": "FAILED", "message": "no answer"},
                "policy": {"status": "OK", "message": "read"}},
        }))
        .expect("a report");
        let shown = |verbose: bool| {
            let mut out = Vec::new();
            show(&mut out, Screen { color: false, width: 80 }, &report, verbose).expect("written");
            String::from_utf8(out).expect("text")
        };
        let expected = "\
PayRam on this host: BROKEN

  CRITICAL  dockerDaemon: no answer

Next
  1. Start Docker.
  2. Run it again.

1.9.7 can be installed.
1 of 2 checks found something; inspect -v shows each of them.
";
        assert_eq!(shown(false), expected);
        let expected = "\
PayRam on this host: BROKEN

  CRITICAL  dockerDaemon: no answer

Next
  1. Start Docker.
  2. Run it again.

Checks
  ✘ dockerDaemon  no answer
  ✔ policy        read

Updates
  1.9.6 runs, 1.9.7 is the latest
  1.9.7 can be installed.
";
        assert_eq!(shown(true), expected);
    }
}
