//! `backup create`, `list` and `restore` (contract section 5).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{self, Job};
use super::args::{Backup, Restore};
use super::ask::{self, Consent};
use super::client::ClientError;
use super::follow::{Until, Watched};
use super::progress::{Display, farewell, notice_beside, shown};
use super::screen::{self, Screen, Tone, clean, date_time};
use super::{Context, Exit, Problem, Reading, document, render};
use crate::config::Settings;
use crate::database;

/// How long a backup and its proof may take before the command gives up; the daemon has nearer
/// deadlines of its own.
const CREATE_WITHIN: Duration = Duration::from_secs(6 * 60 * 60);

/// How long a look at the file and the database may take: a large file is read twice.
const LOOK_WITHIN: Duration = Duration::from_secs(60 * 60);

/// Between two questions how far the backup is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// `GET /backups`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    backups: Vec<Listing>,
    in_hand: Option<InHand>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct InHand {
    done_bytes: u64,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listing {
    file: String,
    filename: String,
    created_at: String,
    size_bytes: u64,
    version: Option<String>,
}

/// `POST /backup/create`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Created {
    backup: Made,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Made {
    path: String,
    size: u64,
    proof: String,
    pruned: Vec<String>,
    copied: Option<Copied>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Copied {
    success: bool,
    message: String,
}

/// `POST /backup/restore`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Planned {
    job_id: String,
    plan: Plan,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Plan {
    backup: Source,
    replaces: Replaced,
    kept_as: String,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    file: String,
    size_bytes: u64,
    is_as_noted: bool,
    created_at: String,
    version: Option<String>,
    rows: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Replaced {
    database: String,
    host: String,
    port: u16,
    size_bytes: u64,
    tables: u64,
    rows: Option<u64>,
    container: Option<String>,
    version: Option<String>,
}

/// `backup …`
pub(super) async fn backup(
    context: &Context,
    asked: &Backup,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    match asked {
        Backup::Create => create(context, out).await,
        Backup::List => list(context, out).await,
        Backup::Restore(asked) => restore(context, asked, out).await,
    }
}

async fn create(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let (client, body) = (&context.client, json!({}));
    let making = client.post_within("/backup/create", &body, CREATE_WITHIN);
    let raw = match context.reading {
        Reading::Person => {
            let display = Display::new(context.screen);
            display.wait_for("Backing up the database", "PayRam serves meanwhile");
            tokio::select! {
                made = making => made?,
                () = show_progress(context, &display) => json!({}),
            }
        }
        Reading::Json | Reading::Text => making.await?,
    };
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => {
            let made: Created = answers::read("/backup/create", &raw)?;
            show_made(out, context.screen, &made.backup)?;
        }
    }
    Ok(Exit::Done)
}

/// Until it is dropped.
async fn show_progress(context: &Context, display: &Display) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let Ok(raw) = context.client.get("/backups").await else { continue };
        let Ok(listed) = answers::read::<Listed>("/backups", &raw) else { continue };
        if let Some(in_hand) = listed.in_hand.filter(|in_hand| in_hand.done_bytes > 0) {
            let written = screen::bytes(in_hand.done_bytes);
            let details = format!("{written} written, then it is proved; PayRam serves meanwhile");
            display.wait_for("Backing up the database", &details);
        }
    }
}

fn show_made(out: &mut dyn Write, screen: Screen, made: &Made) -> io::Result<()> {
    let head = screen.paint(Tone::Good, "✔ Backed up");
    writeln!(out, "{head}  {}", screen::bytes(made.size))?;
    // A path is never wrapped: it is there to be copied.
    writeln!(out, "  {}", clean(&made.path))?;
    writeln!(out, "  {}", screen.hang(2, &sentence(&made.proof)))?;
    for path in &made.pruned {
        writeln!(out, "  Removed, as BACKUP_RETENTION says: {}", clean(path))?;
    }
    match &made.copied {
        Some(copied) if copied.success => writeln!(out, "  {}", screen.hang(2, &copied.message)),
        Some(copied) => {
            writeln!(out, "{}", screen.paint(Tone::Bad, &screen.hang(0, &copied.message)))
        }
        None => Ok(()),
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

/// By the daemon, or by this process where none answers: the directory is all that is read.
async fn list(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let raw = match context.client.get("/backups").await {
        Err(unreachable @ ClientError::Unreachable { .. }) => without_daemon(unreachable)?,
        answered => answered?,
    };
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => {
            let listed: Listed = answers::read("/backups", &raw)?;
            table(out, context.screen, &listed.backups)?;
        }
    }
    Ok(Exit::Done)
}

fn without_daemon(unreachable: ClientError) -> Result<Value, Problem> {
    // Settings that can't be read are why the daemon does not run, or another user's.
    let Ok((settings, _)) = Settings::load() else { return Err(unreachable.into()) };
    let backups = database::list(&settings.backup_dir)
        .map_err(|failure| Problem::stopped(Exit::Failed, "BACKUP_FAILED", failure.message))?;
    Ok(json!({"backups": backups, "count": backups.len(), "success": true}))
}

fn table(out: &mut dyn Write, screen: Screen, backups: &[Listing]) -> io::Result<()> {
    let Some(newest) = backups.first() else {
        writeln!(out, "No backups yet.")?;
        return writeln!(out, "Make one: payram-updater backup create");
    };
    let directory = Path::new(&newest.file).parent().unwrap_or(Path::new("")).display();
    writeln!(out, "In {}, newest first:", clean(&directory.to_string()))?;
    let head = format!("{:<16}  {:>8}  FILE", "MADE (UTC)", "SIZE");
    writeln!(out, "{}", screen.paint(Tone::Strong, &head))?;
    for backup in backups {
        let made: String = date_time(&backup.created_at).chars().take(16).collect();
        let size = screen::bytes(backup.size_bytes);
        let start = format!("{made:<16}  {size:>8}  ");
        let name = clean(&backup.filename);
        if start.chars().count() + name.chars().count() > screen.width {
            writeln!(out, "{}\n  {name}", start.trim_end())?;
        } else {
            writeln!(out, "{start}{name}")?;
        }
        if let Some(version) = &backup.version {
            let note = format!("{:<16}  {:>8}  of PayRam {}", "", "", clean(version));
            writeln!(out, "{}", screen.paint(Tone::Faint, &note))?;
        }
    }
    writeln!(out, "\nPut one back: payram-updater backup restore --file FILE")
}

async fn restore(context: &Context, asked: &Restore, out: &mut dyn Write) -> Result<Exit, Problem> {
    if asked.full_recovery {
        let message = "--full-recovery is not there yet, and nothing was changed. Go back to the backup's version first (payram-updater run --to VERSION --force), then restore the database";
        return Err(Problem::stopped(Exit::Failed, "NOT_SUPPORTED", message));
    }
    let file = named(&asked.file)?;
    let ask = |is_dry: bool| json!({"file": file, "dryRun": is_dry});
    let body = ask(true);
    let raw = context.client.post_within("/backup/restore", &body, LOOK_WITHIN).await?;
    let planned: Planned = answers::read("/backup/restore", &raw)?;
    if asked.dry_run {
        match context.reading {
            Reading::Json => document(out, &raw)?,
            Reading::Person | Reading::Text => {
                explain(out, context.screen, &planned.plan)?;
                writeln!(out, "\nNothing was changed: this is what it would do.")?;
            }
        }
        return Ok(Exit::Done);
    }
    if !asked.yes {
        let question = "\nType yes to replace it";
        let consent = ask::for_yes(context, out, question, ask::NOTHING_CHANGED, |out| {
            explain(out, context.screen, &planned.plan)
        })?;
        if consent == Consent::Declined {
            return Ok(Exit::Failed);
        }
    } else if context.reading != Reading::Json {
        explain(out, context.screen, &planned.plan)?;
    }
    let body = ask(false);
    let raw = context.client.post_within("/backup/restore", &body, LOOK_WITHIN).await?;
    let begun: Planned = answers::read("/backup/restore", &raw)?;
    watch(context, &begun.job_id, raw, out).await
}

/// As it is named from here; what is not here is looked for in the backup directory.
fn named(file: &Path) -> Result<PathBuf, Problem> {
    let is_name = file.components().count() == 1;
    if is_name && !file.exists() {
        return Ok(file.to_owned());
    }
    std::path::absolute(file).map_err(Problem::Output)
}

fn explain(out: &mut dyn Write, screen: Screen, plan: &Plan) -> io::Result<()> {
    let (from, to) = (&plan.backup, &plan.replaces);
    let count = |rows: Option<u64>| rows.map(|rows| format!("{rows} rows, "));
    let mut row = |label: &str, text: &str| writeln!(out, "  {label:<10}{}", screen.hang(12, text));
    row("Backup", &from.file)?;
    let by = from.version.as_ref().map(|it| format!(", of PayRam {it}")).unwrap_or_default();
    row("Made", &format!("{} UTC{by}", date_time(&from.created_at)))?;
    let checked = match from.is_as_noted {
        true => "its checksum is as noted",
        false => "no checksum was noted",
    };
    let held = count(from.rows).unwrap_or_default();
    row("Holds", &format!("{held}{}; {checked}", screen::bytes(from.size_bytes)))?;
    let inside = to.container.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
    row("Replaces", &format!("database {}{inside} ({}:{})", to.database, to.host, to.port))?;
    let serves = to.version.as_ref().map(|it| format!("; {it} serves")).unwrap_or_default();
    let now = format!(
        "{}{} tables, {}{serves}",
        count(to.rows).unwrap_or_default(),
        to.tables,
        screen::bytes(to.size_bytes)
    );
    row("Now", &now)?;
    row("Kept as", &plan.kept_as)?;
    for note in &plan.notes {
        writeln!(out, "  • {}", screen.hang(4, &sentence(note)))?;
    }
    let how = "The backup is loaded beside it while PayRam serves; then PayRam's programs are \
               stopped for some seconds and the two change places. What was written since the \
               backup was made is not in it: it stays in the database that is kept.";
    writeln!(out, "\n{}", screen.hang(0, how))
}

/// Shows the job until it ends.
async fn watch(
    context: &Context,
    job: &str,
    mut raw: Value,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let until = Until::Ended(job.to_owned());
    let ended = match shown(context, until, out).await? {
        Watched::Ended(ended) => ended,
        Watched::Interrupted => {
            notice_beside(&farewell(Exit::Interrupted, job));
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
        Reading::Person | Reading::Text => show_end(context, &ended.job, out).await?,
    }
    Ok(exit)
}

async fn show_end(context: &Context, job: &Job, out: &mut dyn Write) -> Result<(), Problem> {
    render::closing(out, context.screen, job)?;
    if job.exit() == Exit::Done {
        return Ok(());
    }
    let serves = match job.serving {
        Some(true) => "The shop serves.",
        Some(false) => "The shop is DOWN. Look: payram-updater inspect",
        None => "Look: payram-updater inspect",
    };
    writeln!(out, "\n{serves}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: Screen = Screen { color: false, width: 80 };

    fn text(show: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        show(&mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text
    }

    #[test]
    fn the_list_fits_a_terminal_and_says_what_to_do_with_it() {
        let listing = |filename: &str| Listing {
            file: format!("/var/lib/payram-updater/data/backups/{filename}"),
            filename: filename.into(),
            created_at: "2026-01-31T12:00:00Z".into(),
            size_bytes: 12_345_678,
            version: Some("1.9.6".into()),
        };
        let backups = [
            listing("payram-backup-20260131-120000-manual-to-manual.dump"),
            listing("payram-backup-20260131-120000-1.10.10-rc.1-to-1.10.11-arm64.dump"),
        ];
        let shown = text(|out| table(out, SCREEN, &backups));
        assert!(shown.contains("2026-01-31 12:00   12.3 MB  payram-backup-20260131"), "{shown}");
        assert!(shown.ends_with("backup restore --file FILE\n"), "{shown}");
        assert!(text(|out| table(out, SCREEN, &[])).contains("backup create"));
    }

    #[test]
    fn what_is_replaced_is_told_before_the_question() {
        let plan: Plan = serde_json::from_value(json!({
            "backup": {"file": "/b/payram-backup-20260131-120000-1.9.6-to-1.9.7.dump",
                "sizeBytes": 12_345_678, "isAsNoted": true, "version": "1.9.6", "rows": 1408,
                "createdAt": "2026-01-31T12:00:00Z"},
            "replaces": {"database": "payram", "host": "localhost", "port": 5432, "tables": 9,
                "sizeBytes": 34_500_000, "rows": 1500, "container": "payram", "version": "1.9.7"},
            "keptAs": "payram_before_restore_20260131_120105",
            "notes": ["the backup is of 1.9.6, and 1.9.7 serves: only the database is put back"],
        }))
        .expect("a plan");
        let shown = text(|out| explain(out, SCREEN, &plan));
        for part in [
            "Made      2026-01-31 12:00:00 UTC, of PayRam 1.9.6",
            "Holds     1408 rows, 12.3 MB; its checksum is as noted",
            "Replaces  database payram in payram (localhost:5432)",
            "Now       1500 rows, 9 tables, 34.5 MB; 1.9.7 serves",
            "Kept as   payram_before_restore_20260131_120105",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
