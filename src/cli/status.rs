//! `status` and `health`.

use std::io::{self, Write};

use super::answers::{Job, WaitsFor};
use super::screen::{self, Screen, Tone, clean};
use super::{Context, Exit, Problem, Reading, document, follow, render};

/// `status`: the job that runs, or ran last.
pub(super) async fn status(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let now = follow::status(&context.client).await?;
    match context.reading {
        Reading::Json => document(out, &now.raw)?,
        Reading::Person | Reading::Text => show(out, context.screen, &now.job)?,
    }
    Ok(Exit::Done)
}

/// `health`: whether the daemon answers.
pub(super) async fn health(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let raw = context.client.get("/health").await?;
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => writeln!(out, "The daemon answers.")?,
    }
    Ok(Exit::Done)
}

fn show(out: &mut dyn Write, screen: Screen, job: &Job) -> io::Result<()> {
    if job.is_none() {
        writeln!(out, "No upgrade was ever run here.")?;
        if let Some(updates) = job.auto_update.as_ref().and_then(|it| it.sentence()) {
            writeln!(out, "Updates by itself: {}", screen.hang(19, &updates))?;
        }
        return writeln!(out, "Plan one: payram-updater dry-run --to latest");
    }
    let head = format!("{}  {}", clean(&job.way()), clean(&job.mode));
    writeln!(out, "{}", screen.paint(Tone::Strong, &head))?;
    let mut row = |label: &str, value: &str| match value {
        "" => Ok(()),
        value => writeln!(out, "  {label:<10}{}", screen.hang(12, value)),
    };
    let state = [Some(job.state.as_str()), job.phase.as_deref(), job.step.as_deref()];
    let state: Vec<&str> = state.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    row("State", &state.join(" · "))?;
    row("Message", &job.message)?;
    if job.activity.as_deref() != Some(&job.message) {
        row("Now", job.activity.as_deref().unwrap_or_default())?;
    }
    row("Blocked", job.blocked.as_deref().unwrap_or_default())?;
    let waits = job.waits_for.as_ref();
    row("Waits for", &waits.map(waiting).unwrap_or_default())?;
    row("Progress", &progress(job))?;
    let answers = match (job.serving, &job.serving_version) {
        (Some(true), Some(version)) => format!("{version} answers"),
        (Some(true), None) => "answers".to_owned(),
        (Some(false), _) => "does not answer".to_owned(),
        (None, _) => String::new(),
    };
    row("PayRam", &answers)?;
    let watched = job.probation.as_ref().and_then(|probation| probation.sentence());
    row("Watched", watched.as_deref().unwrap_or_default())?;
    row("Failure", &job.failure_code)?;
    row("Downtime", &job.downtime_seconds.map(screen::seconds).unwrap_or_default())?;
    row("Backup", job.backup_path.as_deref().unwrap_or_default())?;
    row("Kept as", job.kept_database.as_deref().unwrap_or_default())?;
    row("Began", &in_utc(&job.created_at))?;
    row("Changed", &in_utc(&job.updated_at))?;
    row("Job", &job.job_id)?;
    let updates = job.auto_update.as_ref().and_then(|it| it.sentence());
    row("Updates", updates.as_deref().unwrap_or_default())?;
    if let Some(book) = &job.recovery_playbook {
        writeln!(out)?;
        render::playbook(out, screen, book)?;
    }
    Ok(())
}

/// `the operator: sudo payram-updater recover, or sudo payram-updater cancel`
fn waiting(waits: &WaitsFor) -> String {
    let how: Vec<String> = waits.how.iter().map(|command| format!("sudo {command}")).collect();
    format!("the {}: {}", waits.who, how.join(", or "))
}

fn in_utc(time: &str) -> String {
    if time.is_empty() { String::new() } else { format!("{} UTC", screen::date_time(time)) }
}

fn progress(job: &Job) -> String {
    let percent = job.progress.map(|percent| format!("{percent:.0} %"));
    let amount = match (job.done_bytes, job.total_bytes) {
        (Some(done), Some(total)) => {
            Some(format!("{} of {}", screen::bytes(done), screen::bytes(total)))
        }
        (Some(done), None) => Some(screen::bytes(done)),
        (None, _) => None,
    };
    [percent, amount].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(job: &Job) -> String {
        let mut out = Vec::new();
        show(&mut out, Screen { color: false, width: 80 }, job).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_running_upgrade_shows_what_it_does_and_how_far_it_is() {
        let job = Job {
            job_id: "job-1".into(),
            mode: "MANUAL".into(),
            resolved_target: "1.9.7".into(),
            from_version: Some("1.9.6".into()),
            state: "EXECUTING".into(),
            phase: Some("BACKED_UP".into()),
            step: Some("pull".into()),
            message: "pulling the image".into(),
            activity: Some("pulling the image".into()),
            progress: Some(43.0),
            done_bytes: Some(12_300_000),
            total_bytes: Some(28_600_000),
            serving: Some(true),
            created_at: "2026-01-31T12:00:00Z".into(),
            ..Job::default()
        };
        let expected = "\
1.9.6 → 1.9.7  MANUAL
  State     EXECUTING · BACKED_UP · pull
  Message   pulling the image
  Progress  43 %, 12.3 MB of 28.6 MB
  PayRam    answers
  Began     2026-01-31 12:00:00 UTC
  Job       job-1
";
        assert_eq!(shown(&job), expected);
    }

    #[test]
    fn an_upgrade_that_waits_for_a_person_says_for_whom_and_what_to_type() {
        let how = ["payram-updater recover", "payram-updater cancel"].map(str::to_owned);
        let job = Job {
            job_id: "job-1".into(),
            state: "EXECUTING".into(),
            message: "Stopped after a restart, waiting for you (RESUME=manual)".into(),
            waits_for: Some(WaitsFor { who: "operator".into(), how: how.into() }),
            ..Job::default()
        };
        let text = shown(&job);
        let told = "  Waits for the operator: sudo payram-updater recover, or sudo payram-updater\n            cancel\n";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn a_host_without_any_upgrade_says_what_comes_first() {
        let job = Job { state: "IDLE".into(), ..Job::default() };
        assert!(shown(&job).starts_with("No upgrade was ever run here.\n"));
    }
}
