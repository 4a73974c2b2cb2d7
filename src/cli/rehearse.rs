//! `rehearse`: tries a version on a copy of the shop's data, and says what came of it. Exit 0 when
//! it passed or nothing can be said, 1 when it was refused or not tried; the shop serves throughout.

use std::io::{self, Write};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::answers::{self, Job, RunAnswer};
use super::args::Rehearse;
use super::client::{ClientError, Ways};
use super::follow::{Until, Watched};
use super::progress::{notice_beside, shown};
use super::report::{Changes, Copied, Tried};
use super::screen::{self, Screen, Tone, clean};
use super::{Context, Exit, Problem, Reading, document};

/// Lines of what changed that are shown, of each kind.
const CHANGES_SHOWN: usize = 12;

/// `rehearse`
pub(super) async fn rehearse(
    context: &Context,
    asked: &Rehearse,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let body = json!({
        "mode": "MANUAL", "requestedTarget": asked.to, "source": "CLI", "force": asked.force,
    });
    let begun = context.client.post("/upgrade/rehearse", &body, Ways::SocketOnly).await;
    let raw = match begun {
        Ok(raw) => raw,
        Err(error) => return Err(not_begun(error)?),
    };
    let answer: RunAnswer = answers::read("/upgrade/rehearse", &raw)?;
    if answer.job_id.is_empty() {
        match context.reading {
            Reading::Json => document(out, &raw)?,
            Reading::Person | Reading::Text => {
                let head = context.screen.paint(Tone::Bad, "✘ Refused:");
                writeln!(out, "{head} {}", context.screen.hang(2, &answer.message))?;
                writeln!(out, "  Code: {}", clean(&answer.failure_code))?;
                writeln!(out, "\nNothing was tried, and nothing was stopped.")?;
            }
        }
        return Ok(Exit::Failed);
    }
    watch(context, &answer.job_id, raw, out).await
}

/// What to say of a request that began nothing.
fn not_begun(error: ClientError) -> Result<Problem, Problem> {
    match error {
        ClientError::Refused { status: StatusCode::CONFLICT, sentence, body, .. } => {
            let active: Job = answers::read("/upgrade/rehearse", &body)?;
            let message = match active.job_id.is_empty() {
                true => sentence,
                false => format!(
                    "{sentence}: {} ({}): {}. Cancel it: payram-updater cancel",
                    active.job_id, active.state, active.message
                ),
            };
            Ok(Problem::stopped(Exit::Failed, "CONCURRENCY_BLOCKED", message))
        }
        error => Ok(error.into()),
    }
}

/// Shows the job until it ends.
async fn watch(
    context: &Context,
    job: &str,
    mut raw: Value,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let until = Until::EndedApart(job.to_owned());
    let ended = match shown(context, until, out).await? {
        Watched::Ended(ended) => ended,
        Watched::Interrupted => {
            notice_beside(&format!(
                "no longer watching; the rehearsal goes on as {job}. Cancel it: payram-updater cancel"
            ));
            return Ok(Exit::Interrupted);
        }
    };
    let exit = ended.job.exit();
    match context.reading {
        Reading::Json => {
            raw["success"] = json!(exit == Exit::Done);
            raw["job"] = ended.raw;
            document(out, &raw)?;
        }
        Reading::Person | Reading::Text => show(out, context.screen, &ended.job)?,
    }
    Ok(exit)
}

/// The report, for whoever keeps the shop.
fn show(out: &mut dyn Write, screen: Screen, job: &Job) -> io::Result<()> {
    let Some(report) = &job.rehearsal else { return writeln!(out, "{}", clean(&job.message)) };
    let version = clean(&report.version);
    let (tone, head) = match report.verdict.as_deref() {
        Some("passed") => (Tone::Good, format!("✔ {version} serves on a copy of your data")),
        Some("refused") => {
            (Tone::Bad, format!("✘ {version} does not serve on a copy of your data"))
        }
        Some("unsure") => (Tone::Unsure, format!("? {version}: a rehearsal can't tell")),
        Some("skipped") => (Tone::Unsure, format!("- {version} was not tried")),
        Some(_) | None => (Tone::Unsure, format!("- the rehearsal of {version} was not finished")),
    };
    writeln!(out, "{}", screen.paint(tone, &head))?;
    writeln!(out, "  {}", screen.hang(2, &sentence(&job.message)))?;
    let mut row = |label: &str, text: &str| writeln!(out, "  {label:<10}{}", screen.hang(12, text));
    if let Some(new) = &report.new {
        of_version(new, &mut row)?;
    }
    let old = job.from_version.as_deref().unwrap_or("the present version");
    if let Some(back) = &report.way_back {
        row("Way back", &stands(back, &format!("{old} on what it made of the data")))?;
    }
    if let Some(control) = &report.control {
        row("Compared", &stands(control, &format!("{old} in the same isolation")))?;
    }
    if let Some(copy) = &report.copy {
        of_copy(copy, report.new.as_ref(), &mut row)?;
    }
    if let Some(seconds) = report.seconds {
        row("Took", &screen::seconds(seconds))?;
    }
    writeln!(out, "\n{}", screen.hang(0, "PayRam was not stopped, and its data was not touched."))
}

/// Writes a labelled line.
type Row<'r> = dyn FnMut(&str, &str) -> io::Result<()> + 'r;

fn of_version(new: &Tried, row: &mut Row<'_>) -> io::Result<()> {
    if let Some(seconds) = new.answers_after_seconds {
        let text = format!(
            "{} from its start to its first answer, migration included, on a small share of the processors. An upgrade is down for such a start, and the stop before it",
            screen::seconds(seconds)
        );
        row("Starts", &text)?;
    }
    if new.stood.stood == "serves" {
        row("Stays", &format!("well without a break for {}", screen::seconds(new.stayed_seconds)))?;
    }
    match &new.migration {
        Some(changes) => of_changes("Migrates", changes, row)?,
        None => row("Migrates", "what it changed could not be read")?,
    }
    match (&new.written, new.answers_after_seconds) {
        (Some(changes), _) => of_changes("Then", changes, row),
        (None, Some(_)) => row("Then", "what it changed could not be read"),
        // It never answered: all that it did was before.
        (None, None) => Ok(()),
    }
}

fn of_copy(copy: &Copied, new: Option<&Tried>, row: &mut Row<'_>) -> io::Result<()> {
    let rows = copy.rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
    let text = format!(
        "a database of {}{rows} in {} tables, rebuilt from a dump in {}",
        screen::bytes(copy.database_bytes),
        copy.tables,
        screen::seconds(copy.seconds)
    );
    row("Copy", &text)?;
    for mount in &copy.mounts {
        row("", mount)?;
    }
    if let Some(taken) = new.and_then(|new| new.memory_bytes) {
        let text = format!(
            "{} of {} that it may take, its files in memory included",
            screen::bytes(taken),
            screen::bytes(copy.memory_limit_bytes)
        );
        row("Memory", &text)?;
    }
    match new.and_then(|new| new.disk_bytes) {
        Some(taken) => row("Disk", &format!("{}, free again", screen::bytes(taken))),
        None => Ok(()),
    }
}

fn of_changes(label: &str, changes: &Changes, row: &mut Row<'_>) -> io::Result<()> {
    let lines: Vec<&String> = changes.schema.iter().chain(&changes.rows).collect();
    if lines.is_empty() {
        return row(label, "changes nothing in the database");
    }
    for (index, line) in lines.iter().take(CHANGES_SHOWN).enumerate() {
        row(if index == 0 { label } else { "" }, line)?;
    }
    match lines.len().saturating_sub(CHANGES_SHOWN) {
        0 => Ok(()),
        more => row("", &format!("and {more} more (--json has all)")),
    }
}

fn stands(tried: &Tried, who: &str) -> String {
    match tried.stood.stood.as_str() {
        "serves" => format!("{who}: serves"),
        "fails" => format!("{who}: does not serve: {}", tried.stood.found),
        _ => format!("{who}: can't be said: {}", tried.stood.found),
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: Screen = Screen { color: false, width: 80 };

    fn shown(job: Value) -> String {
        let job: Job = serde_json::from_value(job).expect("a job");
        let mut out = Vec::new();
        show(&mut out, SCREEN, &job).expect("written");
        let text = String::from_utf8(out).expect("text");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text
    }

    #[test]
    fn a_report_fits_a_terminal_and_says_what_a_shop_owner_asks() {
        let job = json!({
            "jobId": "job-1", "state": "READY", "fromVersion": "1.9.6", "kind": "rehearsal",
            "active": false, "message": "2.0.0 serves on a copy of the shop's data",
            "rehearsal": {
                "verdict": "passed", "version": "2.0.0", "seconds": 31.4,
                "copy": {"databaseBytes": 12_345_678, "tables": 9, "rows": 1408, "seconds": 4.2,
                    "memoryLimitBytes": 2_000_000_000_u64, "mounts": ["/srv is empty: it is a socket"]},
                "new": {"stood": {"stood": "serves"}, "answersAfterSeconds": 3.24,
                    "stayedSeconds": 20.1, "memoryBytes": 210_000_000, "diskBytes": 60_000_000,
                    "migration": {"schema": ["table public.webhooks is new"],
                        "rows": ["public.schema_migrations: 1 row inserted"]},
                    "written": {"schema": [], "rows": []}},
                "wayBack": {"stood": {"stood": "serves"}},
            },
        });
        let text = shown(job);
        for part in [
            "✔ 2.0.0 serves on a copy of your data",
            "Starts    3.2 s from its start",
            "Migrates  table public.webhooks is new",
            "            public.schema_migrations: 1 row inserted",
            "Then      changes nothing in the database",
            "Way back  1.9.6 on what it made of the data: serves",
            "Memory    210.0 MB of 2.0 GB",
            "PayRam was not stopped",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_what_it_was_compared_with() {
        let text = shown(json!({
            "jobId": "job-1", "state": "FAILED", "failureCode": "REHEARSAL_FAILED",
            "fromVersion": "1.9.6", "kind": "rehearsal", "active": false, "message": "it does not",
            "rehearsal": {"verdict": "refused", "version": "9.0.1",
                "new": {"stood": {"stood": "fails", "found": "health is 500"}},
                "control": {"stood": {"stood": "serves"}}},
        }));
        assert!(text.contains("✘ 9.0.1 does not serve"), "{text}");
        assert!(text.contains("Compared  1.9.6 in the same isolation: serves"), "{text}");
    }
}
