//! The three ways to show a running upgrade: a display on a terminal, log lines into a pipe,
//! JSON for a program. Called by `follow` at each look.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::answers::{Job, LogLine};
use super::follow::{self, Observer, Snapshot, Until, Watched};
use super::screen::{Screen, Tone, clean, time_of_day};
use super::{Context, Exit, Problem, Reading, object_line};
use crate::machine::Phase;

/// Between two turns of the spinner.
const SPIN_EVERY: Duration = Duration::from_millis(120);

/// While the bytes of the step are counted.
const WITH_BYTES: &str = "{spinner} {prefix}\n  {wide_msg}\n  [{bar:32}] {decimal_bytes} of {decimal_total_bytes}  {percent} %";

/// While they are not.
const WITHOUT_BYTES: &str = "{spinner} {prefix}\n  {wide_msg}\n  {elapsed} so far";

/// A display on a terminal: log lines scroll above where the upgrade is.
pub(super) struct Display {
    bar: ProgressBar,
    screen: Screen,
    shows_bytes: bool,
    step: Option<String>,
    /// Since when this display knows that the application does not answer.
    silent_since: Option<Instant>,
}

impl Display {
    /// Begins to show.
    pub(super) fn new(screen: Screen) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stdout());
        bar.set_style(style(WITHOUT_BYTES));
        bar.enable_steady_tick(SPIN_EVERY);
        Self { bar, screen, shows_bytes: false, step: None, silent_since: None }
    }

    /// Shows that something goes on which is no upgrade.
    pub(super) fn wait_for(&self, what: &str, details: &str) {
        self.bar.set_prefix(self.screen.paint(Tone::Strong, &clean(what)));
        self.bar.set_message(clean(details));
    }

    /// A line above the display.
    pub(super) fn say(&self, line: &str) -> io::Result<()> {
        // Over the bar, and through a Write that says when nobody reads.
        self.bar.suspend(|| writeln!(io::stdout(), "{line}"))
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Display {
    fn lines(&mut self, _job: &str, lines: &[LogLine]) -> io::Result<()> {
        lines.iter().try_for_each(|line| self.say(&terminal_line(self.screen, line)))
    }

    fn state(&mut self, now: &Snapshot) -> io::Result<()> {
        let job = &now.job;
        if self.step != job.step {
            self.step.clone_from(&job.step);
            self.bar.reset_elapsed();
        }
        let total = job.total_bytes.filter(|total| *total > 0);
        if total.is_some() != self.shows_bytes {
            self.shows_bytes = total.is_some();
            self.bar.set_style(style(if self.shows_bytes { WITH_BYTES } else { WITHOUT_BYTES }));
        }
        if let Some(total) = total {
            self.bar.set_length(total);
            self.bar.set_position(job.done_bytes.unwrap_or(0).min(total));
        }
        self.bar.set_prefix(stages(self.screen, job));
        self.silent_since = match job.serving {
            Some(false) => self.silent_since.or_else(|| Some(Instant::now())),
            Some(true) | None => None,
        };
        self.bar.set_message(activity(job, self.silent_since));
        Ok(())
    }

    fn notice(&mut self, sentence: &str) -> io::Result<()> {
        // What was known of the application is known no longer.
        self.silent_since = None;
        self.bar.set_message(clean(sentence));
        self.say(&self.screen.paint(Tone::Unsure, &clean(sentence)))
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a test parses them.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

/// A log line as a person sees it.
pub(super) fn terminal_line(screen: Screen, line: &LogLine) -> String {
    let time = time_of_day(&line.at);
    let indent = time.chars().count() + 1;
    format!("{} {}", screen.paint(Tone::Faint, &time), screen.hang(indent, &line.text))
}

/// A log line as a pipe takes it: what `GET /upgrade/logs` answers.
pub(super) fn plain_line(line: &LogLine) -> String {
    format!("{} {}", line.at, line.text)
}

/// `1.9.6 → 1.9.7  ✔ back up  ▸ pull  · swap  · verify`
fn stages(screen: Screen, job: &Job) -> String {
    const STAGES: [&str; 4] = ["back up", "pull", "swap", "verify"];
    let way = screen.paint(Tone::Strong, &clean(&job.way()));
    if job.is_restore() || job.is_rehearsal() {
        return way;
    }
    let done = match job.phase() {
        Some(Phase::Planned) => 0,
        Some(Phase::BackedUp) => 1,
        Some(Phase::Pulled) => 2,
        Some(Phase::Swapped) => 3,
        Some(Phase::Verified) => 4,
        Some(Phase::RollingBack) => {
            return format!("{way}  {}", screen.paint(Tone::Unsure, "↺ rolling back"));
        }
        Some(Phase::RolledBack) => {
            return format!("{way}  {}", screen.paint(Tone::Unsure, "↺ rolled back"));
        }
        Some(Phase::NeedsOperator) => {
            return format!("{way}  {}", screen.paint(Tone::Bad, "✘ needs an operator"));
        }
        None => return format!("{way}  {}", clean(&job.state)),
    };
    let stages = STAGES.iter().enumerate().map(|(index, stage)| match index {
        _ if index < done => screen.paint(Tone::Good, &format!("✔ {stage}")),
        _ if index == done => screen.paint(Tone::Strong, &format!("▸ {stage}")),
        _ => screen.paint(Tone::Faint, &format!("· {stage}")),
    });
    format!("{way}  {}", stages.collect::<Vec<_>>().join("  "))
}

/// Whether the shop serves, first, where a narrow terminal cuts nothing off, and what is being done.
fn activity(job: &Job, silent_since: Option<Instant>) -> String {
    let doing = clean(job.activity.as_deref().unwrap_or(&job.message));
    let down = silent_since.map(|since| since.elapsed().as_secs()).filter(|seconds| *seconds > 0);
    match (job.serving, down) {
        (Some(true), _) => format!("UP · {doing}"),
        (Some(false), Some(seconds)) => format!("DOWN {seconds} s · {doing}"),
        (Some(false), None) => format!("DOWN · {doing}"),
        (None, _) => doing,
    }
}

/// Log lines into a pipe; notices about the watching go to stderr.
pub(super) struct Lines<'a> {
    pub out: &'a mut dyn Write,
}

impl Observer for Lines<'_> {
    fn lines(&mut self, _job: &str, lines: &[LogLine]) -> io::Result<()> {
        lines.iter().try_for_each(|line| writeln!(self.out, "{}", plain_line(line)))?;
        self.out.flush()
    }

    fn state(&mut self, _now: &Snapshot) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, sentence: &str) -> io::Result<()> {
        notice_beside(sentence);
        Ok(())
    }
}

/// JSON, a line for each change of state, phase or step; the last line is the job at its end.
pub(super) struct Changes<'a> {
    out: &'a mut dyn Write,
    last: Option<[Option<String>; 5]>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, last: None }
    }
}

impl Observer for Changes<'_> {
    fn lines(&mut self, _job: &str, _lines: &[LogLine]) -> io::Result<()> {
        Ok(())
    }

    fn state(&mut self, now: &Snapshot) -> io::Result<()> {
        let job = &now.job;
        // A job that is READY at its end differs from one that waits by `active` alone.
        let rest = (!job.is_active()).then(String::new);
        let waits = job.waits_for.as_ref().map(|waits| waits.who.clone());
        let this = [Some(job.state.clone()), job.phase.clone(), job.step.clone(), rest, waits];
        if self.last.as_ref() == Some(&this) {
            return Ok(());
        }
        self.last = Some(this);
        object_line(self.out, &now.raw)
    }

    fn notice(&mut self, sentence: &str) -> io::Result<()> {
        notice_beside(sentence);
        Ok(())
    }
}

/// Says something on stderr, so that the output stays what it is.
pub(super) fn notice_beside(sentence: &str) {
    // A closed stderr is no reason to stop watching.
    let _ = writeln!(io::stderr(), "payram-updater: {sentence}");
}

/// What the operator reads when the watching ends before the job does.
pub(super) fn farewell(exit: Exit, job: &str) -> String {
    let why = match exit {
        Exit::Interrupted => "no longer watching",
        Exit::OutputClosed => "the output was closed",
        Exit::Done
        | Exit::Failed
        | Exit::Usage
        | Exit::Unreachable
        | Exit::RolledBack
        | Exit::NeedsOperator => "the watching ended",
    };
    format!(
        "{why}; the upgrade goes on as {job}. Watch it: payram-updater watch. Cancel it: payram-updater cancel"
    )
}

/// Shows a job until it ends: a display for a person, lines of text, and for a program nothing until
/// then.
pub(super) async fn shown(
    context: &Context,
    until: Until,
    out: &mut dyn Write,
) -> Result<Watched, Problem> {
    let mut nothing = io::sink();
    let mut observer: Box<dyn Observer + '_> = match context.reading {
        Reading::Person => Box::new(Display::new(context.screen)),
        Reading::Text => Box::new(Lines { out }),
        Reading::Json => Box::new(Lines { out: &mut nothing }),
    };
    follow::follow(&context.client, until, observer.as_mut()).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Screen = Screen { color: false, width: 80 };

    fn snapshot(state: &str, phase: &str, step: Option<&str>) -> Snapshot {
        let mut raw = json!({"jobId": "job-1", "state": state, "phase": phase,
            "resolvedTarget": "1.9.7", "fromVersion": "1.9.6"});
        if let Some(step) = step {
            raw["step"] = json!(step);
        }
        Snapshot { job: serde_json::from_value(raw.clone()).expect("a job"), raw }
    }

    #[test]
    fn the_templates_of_the_display_are_well_formed() {
        for template in [WITH_BYTES, WITHOUT_BYTES] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn the_stages_say_what_is_done_and_what_is_in_hand() {
        let pulling = snapshot("EXECUTING", "BACKED_UP", Some("pull"));
        let expected = "1.9.6 → 1.9.7  ✔ back up  ▸ pull  · swap  · verify";
        assert_eq!(stages(PLAIN, &pulling.job), expected);
        let back = snapshot("EXECUTING", "ROLLING_BACK", Some("start_old"));
        assert_eq!(stages(PLAIN, &back.job), "1.9.6 → 1.9.7  ↺ rolling back");
    }

    #[test]
    fn a_program_reads_a_line_for_each_change_and_none_for_a_repetition() {
        let mut out = Vec::new();
        let mut changes = Changes::new(&mut out);
        for now in [
            snapshot("BACKING_UP", "PLANNED", Some("back_up")),
            snapshot("BACKING_UP", "PLANNED", Some("back_up")),
            snapshot("BACKING_UP", "PLANNED", Some("prove_backup")),
            snapshot("READY", "VERIFIED", None),
        ] {
            changes.state(&now).expect("written");
        }
        let text = String::from_utf8(out).expect("text");
        let steps: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(steps.len(), 3, "{text}");
        assert_eq!(steps[1]["step"], "prove_backup");
        assert_eq!(steps[2]["state"], "READY");
    }

    #[test]
    fn a_pipe_gets_the_lines_that_the_api_answers() {
        let mut out = Vec::new();
        let line = LogLine { seq: 1, at: "2026-01-31T12:00:00Z".into(), text: "pull".into() };
        Lines { out: &mut out }.lines("job-1", &[line]).expect("written");
        assert_eq!(String::from_utf8(out).expect("text"), "2026-01-31T12:00:00Z pull\n");
    }
}
