//! What a person reads about a plan and about the end of an upgrade. Pure: from answers to
//! text, so that every line of it is tested.

use std::io::{self, Write};

use super::Exit;
use super::answers::{Check, Job, Plan, Playbook, Task};
use super::screen::{self, Screen, Tone, clean};
use crate::journal::Mode;

/// Checks that fit on a screen with the reason above them.
const FITS: usize = 8;

/// Columns between the sides of the summary box.
const INNER: usize = 62;

/// Columns of a label in the summary box, and of its value with the room after it.
const LABEL: usize = 18;
const VALUE: usize = INNER - 2 - LABEL;

/// The summary before the question (contract section 7, to the byte).
pub(super) fn summary_box(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    let rule = "═".repeat(INNER);
    writeln!(out, "╔{rule}╗")?;
    writeln!(out, "║{:<INNER$}║", "                     UPGRADE SUMMARY")?;
    writeln!(out, "╠{rule}╣")?;
    let lines = [
        ("Mode:", &plan.mode),
        ("Requested Target:", &plan.requested_target),
        ("Resolved Target:", &plan.resolved_target),
        ("Image:", &plan.image_repo),
        ("Container:", &plan.container_name),
    ];
    for (label, value) in lines {
        // A value that is too long for its line goes on in the next: nothing is cut off.
        let value: Vec<char> = clean(value).chars().collect();
        for (index, part) in value.chunks(VALUE - 1).enumerate() {
            let label = if index == 0 { label } else { "" };
            let part: String = part.iter().collect();
            writeln!(out, "║  {label:<LABEL$}{part:<VALUE$}║")?;
        }
    }
    writeln!(out, "╠{rule}╣")?;
    writeln!(out, "║{:<INNER$}║", "  ⚠️  This will stop and replace the container.")?;
    writeln!(out, "║{:<INNER$}║", "     Brief downtime expected.")?;
    if let Some(seconds) = plan.expected_downtime_seconds {
        let expected = format!("     About {}, as it was here before.", screen::seconds(seconds));
        writeln!(out, "║{expected:<INNER$}║")?;
    }
    if plan.mode == Mode::Dashboard.as_str() {
        writeln!(out, "║{:<INNER$}║", "     Required versions in between come first, one by one.")?;
    }
    for one in &plan.quarantined {
        let warning = format!("⚠️  {} failed here before: {}", one.version, one.failure_code);
        let warning: Vec<char> = clean(&warning).chars().collect();
        for part in warning.chunks(INNER - 4) {
            let part: String = part.iter().collect();
            writeln!(out, "║  {part:<width$}║", width = INNER - 2)?;
        }
    }
    writeln!(out, "╚{rule}╝")
}

/// From what to what, how long that took before, and what happens where it fails: above the box, which the question follows.
pub(super) fn expectation(out: &mut dyn Write, screen: Screen, plan: &Plan) -> io::Result<()> {
    let from = plan.from_version.as_deref().filter(|from| !from.is_empty());
    if let (Some(from), false) = (from, plan.resolved_target.is_empty()) {
        writeln!(out, "{} → {}", clean(from), clean(&plan.resolved_target))?;
    }
    if let Some(from) = &plan.expected_downtime_from {
        writeln!(out, "Downtime: {}", screen.hang(2, &format!("{from}.")))?;
    }
    match &plan.on_failure {
        Some(how) => writeln!(out, "If it fails: {}", screen.hang(2, how)),
        None => Ok(()),
    }
}

/// How much is shown of what is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// A line for all of it: a question follows, and it has to be on the same screen.
    Folded,
    /// A line for each, and one for all disks.
    Each,
    /// All of it.
    All,
}

/// Route, checks and notes of a plan.
pub(super) fn plan_details(
    out: &mut dyn Write,
    screen: Screen,
    plan: &Plan,
    detail: Detail,
) -> io::Result<()> {
    if !plan.route.is_empty() {
        let from = plan.from_version.as_deref().map(clean);
        writeln!(out, "{}", screen.paint(Tone::Strong, "Route"))?;
        if let Some(from) = from.filter(|from| !from.is_empty()) {
            writeln!(out, "  {from} serves now")?;
        }
        for hop in &plan.route {
            let head = format!("  → {} ", clean(&hop.version));
            let text = match hop.why.as_str() {
                "" => hop.image.clone(),
                why => format!("{} ({why})", hop.image),
            };
            writeln!(out, "{head}{}", screen.hang(head.chars().count(), &text))?;
        }
    }
    if let Some(gate) = &plan.stopped_at {
        let reason = gate.reason.as_deref().unwrap_or("an operator must pass it by hand");
        let text = format!("before {}: {reason}", gate.version);
        writeln!(out, "  {} {}", screen.paint(Tone::Unsure, "stops"), screen.hang(8, &text))?;
        if let Some(docs) = &gate.docs {
            writeln!(out, "        {}", clean(docs))?;
        }
    }
    checks(out, screen, &plan.checks, detail)?;
    for owner in &plan.owners {
        let head = format!("Also managed by {}", clean(&owner.name));
        writeln!(out, "{}", screen.paint(Tone::Strong, &head))?;
        let mark = match owner.refuses {
            true => screen.paint(Tone::Bad, "✘"),
            false => screen.paint(Tone::Unsure, "!"),
        };
        writeln!(out, "  {mark} {}", screen.hang(4, &owner.message))?;
        for command in &owner.hand_over {
            // Never wrapped: it is there to be copied.
            writeln!(out, "    {}", clean(command))?;
        }
    }
    if !plan.afterwards.is_empty() {
        writeln!(out, "{}", screen.paint(Tone::Strong, "To do afterwards"))?;
        for task in &plan.afterwards {
            writeln!(out, "  • {}", screen.hang(4, &task.what))?;
            command(out, task)?;
        }
    }
    if !plan.notes.is_empty() {
        writeln!(out, "{}", screen.paint(Tone::Strong, "Notes"))?;
        for note in &plan.notes {
            writeln!(out, "  • {}", screen.hang(4, note))?;
        }
    }
    Ok(())
}

/// What is not in order stands by itself, whatever is folded.
fn checks(out: &mut dyn Write, screen: Screen, checks: &[Check], detail: Detail) -> io::Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", screen.paint(Tone::Strong, "Checks"))?;
    let is_disk = |check: &Check| check.name.starts_with("disk:");
    let (disks, others): (Vec<&Check>, Vec<&Check>) = checks.iter().partition(|one| is_disk(one));
    let fits = disks.iter().all(|check| check.passed);
    let mut shown: Vec<(String, bool, String)> = Vec::new();
    let mut folded: Vec<&str> = Vec::new();
    for check in others {
        match check.passed && detail == Detail::Folded {
            true => folded.push(&check.name),
            false => shown.push((check.name.clone(), check.passed, check.message.clone())),
        }
    }
    match (detail, fits) {
        (Detail::Folded, true) if !disks.is_empty() => folded.push("disk"),
        (Detail::Each, true) if !disks.is_empty() => {
            shown.push(("disk".into(), true, room(&disks)));
        }
        (_, _) => {
            let each = disks.iter();
            shown.extend(each.map(|one| (one.name.clone(), one.passed, one.message.clone())));
        }
    }
    let width = shown.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    for (name, passed, message) in shown {
        let mark = match passed {
            true => screen.paint(Tone::Good, "✔"),
            false => screen.paint(Tone::Bad, "✘"),
        };
        writeln!(out, "  {mark} {:<width$}  {}", clean(&name), screen.hang(width + 6, &message))?;
    }
    if !folded.is_empty() {
        let all = folded.join(", ");
        let text = format!("{all} ({} in order; dry-run shows them)", folded.len());
        writeln!(out, "  {} {}", screen.paint(Tone::Good, "✔"), screen.hang(4, &text))?;
    }
    Ok(())
}

/// The need of all and what is free, where all of it goes to one disk.
fn room(disks: &[&Check]) -> String {
    let need: u64 = disks.iter().filter_map(|check| check.need_bytes).sum();
    let mut free = disks.iter().filter_map(|check| check.have_bytes);
    let first = free.next();
    let is_one = free.all(|have| Some(have) == first);
    let free = match first.filter(|_| is_one) {
        Some(free) => format!(", {} free", screen::bytes(free)),
        None => ", and there on each disk".to_owned(),
    };
    format!("{} needed{free} (-v: where and for what)", screen::bytes(need))
}

/// Why a plan can't be run, and where to look.
pub(super) fn refusal(out: &mut dyn Write, screen: Screen, plan: &Plan) -> io::Result<()> {
    let head = screen.paint(Tone::Bad, "✘ Refused:");
    writeln!(out, "{head} {}", screen.hang(2, &plan.message))?;
    writeln!(out, "  Code: {}", clean(&plan.failure_code))?;
    plan_details(out, screen, plan, Detail::Each)?;
    // The reason again, where the eye is.
    let again = plan.checks.len() > FITS && !plan.message.is_empty();
    if again {
        writeln!(out, "{head} {}", screen.hang(2, &plan.message))?;
    }
    writeln!(out)?;
    let hint = "Nothing was changed. `payram-updater inspect` looks at the whole host and says \
                what to do.";
    writeln!(out, "{}", screen.hang(0, hint))
}

/// How an upgrade ended.
pub(super) fn closing(out: &mut dyn Write, screen: Screen, job: &Job) -> io::Result<()> {
    let way = clean(&job.way());
    let (tone, head, rest) = match (job.exit(), job.from_version.as_deref()) {
        (Exit::RolledBack, _) if job.is_restore() => {
            (Tone::Unsure, "↺ Put back as it was:", format!(" {way} failed"))
        }
        (Exit::Done, _) => (Tone::Good, "✔ Done", format!("  {way}")),
        // An arrow would point at the version that is not there.
        (Exit::RolledBack, Some(from)) if !from.is_empty() => {
            let (from, to) = (clean(from), clean(&job.resolved_target));
            (Tone::Unsure, "↺ Rolled back:", format!(" {from} serves, {to} failed"))
        }
        (Exit::RolledBack, _) => (Tone::Unsure, "↺ Rolled back:", format!(" {way} failed")),
        (Exit::NeedsOperator, _) => (Tone::Bad, "✘ Needs an operator", format!("  {way}")),
        (
            Exit::Failed | Exit::Usage | Exit::Unreachable | Exit::Interrupted | Exit::OutputClosed,
            _,
        ) => (Tone::Bad, "✘ Failed", format!("  {way}")),
    };
    writeln!(out, "{}{rest}", screen.paint(tone, head))?;
    writeln!(out, "  {}", screen.hang(2, &job.message))?;
    if !job.failure_code.is_empty() {
        writeln!(out, "  Code:     {}", clean(&job.failure_code))?;
    }
    if let Some(downtime) = job.downtime_seconds {
        let each = job.hops.iter().zip(&job.hop_downtimes);
        let each: Vec<String> = each
            .map(|(version, seconds)| {
                format!("{} to {}", screen::seconds(*seconds), clean(version))
            })
            .collect();
        let each = match each.is_empty() {
            true => String::new(),
            false => format!(" ({})", each.join(", ")),
        };
        writeln!(out, "  Downtime: {}{each}", screen::seconds(downtime))?;
    }
    if let Some(path) = job.backup_path.as_deref().filter(|path| !path.is_empty()) {
        writeln!(out, "  Backup:   {}", clean(path))?;
    }
    if let Some(watched) = job.probation.as_ref().and_then(|probation| probation.sentence()) {
        writeln!(out, "  Watched:  {}", screen.hang(12, &watched))?;
    }
    for task in &job.afterwards {
        let head = screen.paint(Tone::Unsure, "To do:");
        writeln!(out, "  {head}    {}", screen.hang(12, &task.what))?;
        command(out, task)?;
    }
    Ok(())
}

/// A task's command; never wrapped, since it is there to be copied.
fn command(out: &mut dyn Write, task: &Task) -> io::Result<()> {
    match &task.command {
        Some(command) => writeln!(out, "    {}", clean(command)),
        None => Ok(()),
    }
}

/// What a person has to know last, where the eye is: whether the shop serves, and what to type. None
/// where an upgrade ended well.
pub(super) fn last_word(out: &mut dyn Write, screen: Screen, job: &Job) -> io::Result<()> {
    let mut words = Vec::new();
    if let Some(rows) = job.rows_set_aside.filter(|rows| *rows > 0) {
        let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        let version = clean(&job.resolved_target);
        words.push((
            Tone::Unsure,
            format!(
                "{rows} of {version} were set aside: they are NOT in the shop unless you have loaded them. What to do: payram-updater inspect"
            ),
        ));
    }
    if job.exit() == Exit::NeedsOperator {
        let how = "What was found, what can be done and what it costs: payram-updater recover";
        words.push(match job.serving {
            Some(true) => (Tone::Unsure, format!("The shop serves. {how}")),
            Some(false) => {
                let target = clean(&job.resolved_target);
                (Tone::Bad, format!("The shop is DOWN: {target} failed, and waits for you. {how}"))
            }
            None => (Tone::Bad, how.to_owned()),
        });
    }
    for (tone, words) in words {
        writeln!(out, "\n{}", screen.paint(tone, &screen.hang(0, &words)))?;
    }
    Ok(())
}

/// What to do about a failure.
pub(super) fn playbook(out: &mut dyn Write, screen: Screen, book: &Playbook) -> io::Result<()> {
    let title = match book.title.as_str() {
        "" => book.code.as_str(),
        title => title,
    };
    writeln!(out, "{}", screen.paint(Tone::Strong, &format!("What to do: {}", clean(title))))?;
    if !book.user_message.is_empty() {
        writeln!(out, "  {}", screen.hang(2, &book.user_message))?;
    }
    if !book.data_risk.is_empty() {
        writeln!(out, "  Risk for data: {}", clean(&book.data_risk))?;
    }
    for (index, step) in book.ssh_steps.iter().enumerate() {
        // A command is never wrapped: it is there to be copied.
        for (line, text) in step.lines().enumerate() {
            let head = if line == 0 { numbered(index + 1, text) } else { "   ".to_owned() };
            let text = clean(text);
            let is_long = head.chars().count() + text.chars().count() + 2 > screen.width;
            match text.split_once("  # ").filter(|_| is_long) {
                Some((command, comment)) => {
                    writeln!(out, "  {head}{command}")?;
                    for part in screen::wrap(comment, screen.width.saturating_sub(7)) {
                        writeln!(out, "     # {part}")?;
                    }
                }
                None => writeln!(out, "  {head}{text}")?,
            }
        }
    }
    if let Some(path) = book.backup_path.as_deref().filter(|path| !path.is_empty()) {
        writeln!(out, "  Backup: {}", clean(path))?;
    }
    if let Some(docs) = book.docs_url.as_deref().filter(|docs| !docs.is_empty()) {
        writeln!(out, "  Docs: {}", clean(docs))?;
    }
    Ok(())
}

/// The number of a step, unless its text brings one.
fn numbered(number: usize, text: &str) -> String {
    let has_number = text
        .split_once(['.', ')'])
        .is_some_and(|(head, _)| !head.is_empty() && head.bytes().all(|b| b.is_ascii_digit()));
    if has_number { String::new() } else { format!("{number}. ") }
}

#[cfg(test)]
mod tests {
    use super::super::answers::{Quarantined, RouteHop, StoppedAt};
    use super::*;

    const PLAIN: Screen = Screen { color: false, width: 80 };

    fn text(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        render(&mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    fn check(name: &str, passed: bool, message: &str) -> Check {
        let (name, message) = (name.into(), message.into());
        Check { name, passed, message, need_bytes: None, have_bytes: None }
    }

    #[test]
    fn what_is_in_order_takes_a_line_and_what_is_not_stands_by_itself() {
        let disk = |name: &str, need| Check {
            need_bytes: Some(need),
            have_bytes: Some(36_340_000_000),
            ..check(name, true, "a long sentence")
        };
        let all = [
            check("engine", true, "answers"),
            disk("disk:backup", 1_000_000_000),
            disk("disk:root", 500_000_000),
            check("core", false, "no answer"),
        ];
        assert_eq!(
            text(|out| checks(out, PLAIN, &all, Detail::Folded)),
            "Checks\n  ✘ core  no answer\n  ✔ engine, disk (2 in order; dry-run shows them)\n"
        );
        assert_eq!(
            text(|out| checks(out, PLAIN, &all, Detail::Each)),
            "Checks\n  ✔ engine  answers\n  ✘ core    no answer\n  \
             ✔ disk    1.5 GB needed, 36.3 GB free (-v: where and for what)\n"
        );
        let shown = text(|out| checks(out, PLAIN, &all, Detail::All));
        assert!(shown.contains("✔ disk:root    a long sentence"), "{shown}");
    }

    fn plan(mode: &str, target: &str) -> Plan {
        Plan {
            state: "READY".into(),
            mode: mode.into(),
            requested_target: target.into(),
            image_repo: "payramapp/payram".into(),
            container_name: "payram".into(),
            ..Plan::default()
        }
    }

    #[test]
    fn the_summary_in_dashboard_mode_is_the_contracts_with_a_line_about_breakpoints() {
        let expected = "\
╔══════════════════════════════════════════════════════════════╗
║                     UPGRADE SUMMARY                          ║
╠══════════════════════════════════════════════════════════════╣
║  Mode:             DASHBOARD                                 ║
║  Requested Target: latest                                    ║
║  Image:            payramapp/payram                          ║
║  Container:        payram                                    ║
╠══════════════════════════════════════════════════════════════╣
║  ⚠️  This will stop and replace the container.               ║
║     Brief downtime expected.                                 ║
║     Required versions in between come first, one by one.     ║
╚══════════════════════════════════════════════════════════════╝
";
        assert_eq!(text(|out| summary_box(out, &plan("DASHBOARD", "latest"))), expected);
    }

    #[test]
    fn the_summary_in_manual_mode_is_the_contracts() {
        let expected = "\
╔══════════════════════════════════════════════════════════════╗
║                     UPGRADE SUMMARY                          ║
╠══════════════════════════════════════════════════════════════╣
║  Mode:             MANUAL                                    ║
║  Requested Target: latest                                    ║
║  Resolved Target:  1.9.7                                     ║
╠══════════════════════════════════════════════════════════════╣
║  ⚠️  This will stop and replace the container.               ║
║     Brief downtime expected.                                 ║
╚══════════════════════════════════════════════════════════════╝
";
        let plan = Plan {
            resolved_target: "1.9.7".into(),
            image_repo: String::new(),
            container_name: String::new(),
            ..plan("MANUAL", "latest")
        };
        assert_eq!(text(|out| summary_box(out, &plan)), expected);
    }

    #[test]
    fn the_summary_says_how_long_the_shop_will_be_down_where_that_is_known() {
        let from = "the upgrade to 1.9.6 on 2026-01-31 was down for 4.2 s here";
        let plan = Plan {
            expected_downtime_seconds: Some(8.4),
            expected_downtime_from: Some(from.into()),
            ..plan("MANUAL", "2.0.0")
        };
        let shown = text(|out| summary_box(out, &plan));
        let expected = "\
║     Brief downtime expected.                                 ║
║     About 8.4 s, as it was here before.                      ║
╚══════════════════════════════════════════════════════════════╝
";
        assert!(shown.ends_with(expected), "{shown}");
        let above = text(|out| expectation(out, PLAIN, &plan));
        assert_eq!(above, format!("Downtime: {from}.\n"));
    }

    #[test]
    fn the_summary_warns_of_a_version_that_failed_here_before() {
        let quarantined =
            Quarantined { version: "2.0.0".into(), failure_code: "HEALTHCHECK_FAILED".into() };
        let plan = Plan { quarantined: vec![quarantined], ..plan("MANUAL", "2.0.0") };
        let shown = text(|out| summary_box(out, &plan));
        let expected = "\
║     Brief downtime expected.                                 ║
║  ⚠️  2.0.0 failed here before: HEALTHCHECK_FAILED            ║
╚══════════════════════════════════════════════════════════════╝
";
        assert!(shown.ends_with(expected), "{shown}");
    }

    #[test]
    fn a_name_too_long_for_the_box_goes_on_in_the_next_line() {
        let plan = Plan { container_name: "%".repeat(60), ..plan("MANUAL", "1.9.7") };
        let shown = text(|out| summary_box(out, &plan));
        assert_eq!(shown.matches('%').count(), 60);
        let widths = shown.lines().map(|line| line.chars().count());
        assert!(widths.into_iter().all(|width| width == INNER + 2), "{shown}");
    }

    #[test]
    fn a_refusal_names_code_evidence_and_the_next_command() {
        let plan = Plan {
            state: "FAILED".into(),
            failure_code: "DISK_SPACE_LOW".into(),
            message: "/var/lib has 1.0 GB free, 2.5 GB are needed".into(),
            from_version: Some("1.9.6".into()),
            route: vec![RouteHop {
                version: "1.9.7".into(),
                image: "payramapp/payram:1.9.7".into(),
                why: "target".into(),
            }],
            stopped_at: Some(StoppedAt {
                version: "2.0.0".into(),
                reason: Some("move the keys first".into()),
                docs: Some("https://docs.payram.com/x".into()),
            }),
            checks: vec![check("engine", true, "answers"), check("disk:backup", false, "short")],
            notes: vec!["worth knowing".into()],
            ..plan("MANUAL", "1.9.7")
        };
        let expected = "\
✘ Refused: /var/lib has 1.0 GB free, 2.5 GB are needed
  Code: DISK_SPACE_LOW
Route
  1.9.6 serves now
  → 1.9.7 payramapp/payram:1.9.7 (target)
  stops before 2.0.0: move the keys first
        https://docs.payram.com/x
Checks
  ✔ engine       answers
  ✘ disk:backup  short
Notes
  • worth knowing

Nothing was changed. `payram-updater inspect` looks at the whole host and says
what to do.
";
        assert_eq!(text(|out| refusal(out, PLAIN, &plan)), expected);
    }

    #[test]
    fn the_end_says_where_the_merchant_is() {
        let job = Job {
            job_id: "job-1".into(),
            state: "FAILED".into(),
            phase: Some("ROLLED_BACK".into()),
            failure_code: "HEALTHCHECK_FAILED".into(),
            message: "health never came".into(),
            from_version: Some("1.9.6".into()),
            resolved_target: "1.9.7".into(),
            downtime_seconds: Some(12.34),
            backup_path: Some("/b.dump".into()),
            ..Job::default()
        };
        let expected = "\
↺ Rolled back: 1.9.6 serves, 1.9.7 failed
  health never came
  Code:     HEALTHCHECK_FAILED
  Downtime: 12.3 s
  Backup:   /b.dump
";
        assert_eq!(text(|out| closing(out, PLAIN, &job)), expected);
        let colored = Screen { color: true, width: 80 };
        assert!(text(|out| closing(out, colored, &job)).starts_with("\x1b[33m↺"));
    }

    #[test]
    fn a_playbook_is_numbered_once_and_its_commands_stay_whole() {
        let long = format!("docker logs {}", "x".repeat(100));
        let book = Playbook {
            title: "Health".into(),
            user_message: "The old version serves.".into(),
            data_risk: "NONE".into(),
            ssh_steps: vec![long.clone(), "2. docker ps".into()],
            docs_url: Some("https://docs.payram.com/y".into()),
            ..Playbook::default()
        };
        let expected = format!(
            "What to do: Health\n  The old version serves.\n  Risk for data: NONE\n  \
             1. {long}\n  2. docker ps\n  Docs: https://docs.payram.com/y\n"
        );
        assert_eq!(text(|out| playbook(out, PLAIN, &book)), expected);
    }
}
