//! What a person reads of it: log lines, events of the history, the closing sentence. Pure;
//! called by the driver for what it is about to journal, and by renderings of a job.

use std::collections::BTreeMap;

use crate::database::{said_of_carried, said_of_export};
use crate::journal::{Ending, JobBody, JobRecord, NewEvent};
use crate::machine::facts::{
    Assessment, Copy, Export, ExportedTable, FilesRestored, Probation, ProbationEnd, Restored,
};
use crate::machine::failure::FailureCode;
use crate::machine::{Event, Fact, Known, Machine, Outcome, Phase, State, Step, Transition};

/// The lines that an outcome leaves in the log.
pub(super) fn log_lines(step: Step, outcome: &Outcome, transitions: &[Transition]) -> Vec<String> {
    let mut lines = vec![match outcome {
        Outcome::Done { fact } => format!("{step}: {}", found(fact)),
        Outcome::Failed { failure } => format!("{step}: failed: {} {failure}", failure.code),
        Outcome::Unknown { failure } => {
            format!("{step}: no certain outcome, looking again: {failure}")
        }
        Outcome::Interrupted => {
            format!("{step}: the updater ended in the middle of it, looking again")
        }
        Outcome::Left => format!("{step}: left for the next start, the updater was asked to end"),
        Outcome::Cancelled { failure } => format!("{step}: {failure}"),
    }];
    for transition in transitions {
        lines.push(format!("{} -> {}", transition.from, transition.to));
    }
    lines
}

fn found(fact: &Fact) -> String {
    match fact {
        Fact::Backup(backup) => {
            format!("{} ({} bytes, sha256 {})", backup.path, backup.size_bytes, backup.sha256)
        }
        Fact::Proof(proof) => {
            format!("readable, {} entries, data of {} tables", proof.toc_entries, proof.tables)
        }
        Fact::Image(image) => match &image.digest {
            Some(digest) => format!("{} ({digest})", image.id),
            None => image.id.clone(),
        },
        Fact::Next(next) => {
            format!("container {} as {}, like the old one", short(&next.id), next.temporary_name)
        }
        Fact::Programs(programs) if programs.running.is_empty() => "none to stop".to_owned(),
        Fact::Programs(programs) => format!("running: {}", programs.running.join(", ")),
        Fact::Quiesced(quiesced) => match &quiesced.fingerprint {
            Some(fingerprint) => {
                format!("silent; {} tables fingerprinted", fingerprint.tables.len())
            }
            None => "silent; the database could not be fingerprinted".to_owned(),
        },
        Fact::Copy(Copy::Directory { source, copy, files, bytes, .. }) => format!(
            "{source}: {files} files, {bytes} bytes copied to {copy} while the application serves"
        ),
        Fact::Copy(Copy::Dump { reason, .. }) => {
            format!("no directory to copy ({reason}): a dump is taken after the last write")
        }
        Fact::RestorePoint(point) => format!(
            "exact: {} bytes copied in {} ms of downtime, sha256 {}",
            point.bytes, point.millis, point.sha256
        ),
        Fact::Restored(restored) => {
            let sequences = said_of_sequences(restored, "the failed version");
            let sequences = sequences.map(|said| format!("; {said}")).unwrap_or_default();
            let carried = said_of_carried_over(restored);
            format!(
                "the database is as it was; the failed version's is kept: {}{sequences}{carried}",
                restored.failed
            )
        }
        Fact::Files(files) => match said_of_files(files, "the failed version") {
            Some(said) => said,
            None => "no file beside the database was changed".to_owned(),
        },
        Fact::Export(Export::Nothing) => {
            "the failed version wrote no row that the database does not have".to_owned()
        }
        Fact::Export(Export::Written { path, tables, .. }) => {
            format!("the failed version's database: {}", said_of_export(path, tables))
        }
        Fact::Export(Export::Missing { reason }) => reason.clone(),
        Fact::Verdict(verdict) => {
            format!(
                "healthy, version {}, {} good answers in a row",
                verdict.version, verdict.answers
            )
        }
        Fact::Assessment(found) => assessed(&found.assessment),
        Fact::Probation(Probation { end, findings, seconds }) => {
            let how = match end {
                ProbationEnd::Passed => "nothing was found",
                ProbationEnd::NextUpgrade => "ended by the next upgrade, nothing was found",
                ProbationEnd::Troubled | ProbationEnd::Damaged => {
                    "the old container, its image and the restore point are kept"
                }
                ProbationEnd::ToConfirm => {
                    "nothing was found; the old container, its image and the restore point are kept until you confirm the upgrade"
                }
            };
            let found = match findings.is_empty() {
                true => String::new(),
                false => format!(": {}", findings.join("; ")),
            };
            format!("{seconds} s after the verdict: {how}{found}")
        }
        Fact::Done => "done".to_owned(),
    }
}

fn assessed(assessment: &Assessment) -> String {
    match assessment {
        Assessment::Unchanged => "schema and rows are as they were at the cut-over".to_owned(),
        Assessment::SchemaChanged { what } => {
            format!("the schema was changed, no row was: {what}")
        }
        Assessment::WorkersWrote { tables } => {
            format!("rows were written as workers write them, and stay: {}", tables.join("; "))
        }
        Assessment::RowsChanged { tables } => {
            format!("rows were changed: {}", tables.join("; "))
        }
        Assessment::Damaged { by } => {
            format!("two servers worked on the database's directory: {by}")
        }
        Assessment::Unreadable { reason } => format!("can't be told: {reason}"),
        Assessment::Serves { version } => {
            format!("not looked at: {version} serves and is left running")
        }
    }
}

/// How a job that has come to rest ended.
pub(super) fn ending(machine: &Machine) -> Ending {
    let failure_code = match machine.state() {
        State::RolledBack(back) => Some(back.failure.code),
        State::NeedsOperator(needs) => Some(match needs.reason.code {
            // A hold is about the data and says more than the failure that led to it.
            code @ (FailureCode::MigrationFailed
            | FailureCode::DatabaseDamaged
            | FailureCode::DatabaseShared) => code,
            _ if matches!(needs.assessment, Some(Assessment::Damaged { .. })) => {
                FailureCode::DatabaseDamaged
            }
            _ => needs.failure.code,
        }),
        State::Planned(_)
        | State::BackedUp(_)
        | State::Pulled(_)
        | State::Swapped(_)
        | State::Verified(_)
        | State::RollingBack(_) => None,
    };
    Ending { failure_code, message: closing_message(machine) }
}

/// The closing sentence of a hop that rests.
pub fn closing_message(machine: &Machine) -> String {
    let hop = machine.state().known().hop;
    let old = hop.from.as_deref().unwrap_or("the old version");
    match machine.state() {
        State::Verified(verified) => {
            format!("upgraded to {}: verified, {} serves", hop.version, verified.verdict.version)
        }
        State::RolledBack(back) => {
            let never_stopped =
                machine.state().known().programs.is_none() && !was_quiesced(&back.interrupted);
            let how = if never_stopped { "was never stopped" } else { "serves again" };
            let known = machine.state().known();
            let kept = kept(machine).or_else(|| stays(&known));
            let files = known.files.and_then(|files| said_of_files(files, &hop.version));
            let kept: String =
                [kept, files].into_iter().flatten().map(|said| format!("; {said}")).collect();
            format!("upgrade to {} failed: {}; {old} {how}{kept}", hop.version, back.failure)
        }
        State::NeedsOperator(needs) => {
            if let Some(Assessment::Serves { version }) = &needs.assessment {
                return format!(
                    "upgrade to {} was not finished: {}; {version} serves and is left running: \
                     payram-updater sync records it as good",
                    hop.version, needs.failure
                );
            }
            let mut kept = match kept(machine) {
                Some(kept) => kept,
                None => format!("{} and its database are kept as they are", hop.old.name),
            };
            let files = machine.state().known().files;
            if let Some(said) = files.and_then(|files| said_of_files(files, &hop.version)) {
                kept = format!("{kept}; {said}");
            }
            format!(
                "upgrade to {} failed: {}; it stopped because {}; {kept}",
                hop.version, needs.failure, needs.reason
            )
        }
        State::Planned(_)
        | State::BackedUp(_)
        | State::Pulled(_)
        | State::Swapped(_)
        | State::RollingBack(_) => format!("upgrade to {} is under way", hop.version),
    }
}

/// Where the failed version's database is kept and what became of its rows; none when it was not
/// replaced.
pub fn kept(machine: &Machine) -> Option<String> {
    let known = machine.state().known();
    let restored = known.restored?;
    let failed = &restored.failed;
    let rows = match known.export {
        Some(Export::Written { path, tables, .. }) => {
            format!(", {}", said_of_export(path, tables))
        }
        Some(Export::Nothing) => ", it had written nothing that is missing now".to_owned(),
        Some(Export::Missing { reason }) => format!(", its rows are not exported: {reason}"),
        None => String::new(),
    };
    let sequences = said_of_sequences(restored, &known.hop.version);
    let sequences = sequences.map(|said| format!("; {said}")).unwrap_or_default();
    let version = &known.hop.version;
    let carried = said_of_carried_over(restored);
    Some(format!("{version}'s database is kept in {failed}{carried}{rows}{sequences}"))
}

/// Its rows that were carried over, where a person asked for that.
fn said_of_carried_over(restored: &Restored) -> String {
    let said = restored.carried.as_ref().map(said_of_carried).unwrap_or_default();
    said.iter().map(|one| format!("; {one}")).collect()
}

/// Files that are named one by one.
const FILES_NAMED: usize = 8;

/// What became of the files beside the database; none when there is nothing to tell.
fn said_of_files(files: &FilesRestored, version: &str) -> Option<String> {
    let named = |paths: &[String]| {
        let more = paths.len().saturating_sub(FILES_NAMED);
        let mut named = paths.iter().take(FILES_NAMED).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            named.push_str(&format!(" and {more} more"));
        }
        named
    };
    let mut said = Vec::new();
    if !files.contents.is_empty() {
        said.push(format!(
            "put back, because {version} had changed them: {}",
            named(&files.contents)
        ));
    }
    if !files.moved.is_empty() {
        said.push(format!(
            "moved aside, because {version} had added them: {}",
            named(&files.moved)
        ));
    }
    if let (Some(place), false) = (&files.kept_in, said.is_empty()) {
        said.push(format!("{version}'s own are kept in {place}"));
    }
    if !files.left.is_empty() {
        said.push(format!("files left as {version} has them: {}", named(&files.left)));
    }
    if files.dressed > 0 {
        let what = match files.dressed {
            1 => "1 file".to_owned(),
            more => format!("{more} files and directories"),
        };
        said.push(format!("owner or mode of {what} put right"));
    }
    if !files.failed.is_empty() {
        said.push(format!(
            "files that could not be compared or put back: {}",
            files.failed.join("; ")
        ));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// Sequences that are named one by one.
const SEQUENCES_NAMED: usize = 20;

/// What became of the sequences that the failed version drew from; none when nothing did.
fn said_of_sequences(restored: &Restored, version: &str) -> Option<String> {
    let moves = restored.sequences.iter();
    let mut said: Vec<String> = moves
        .take(SEQUENCES_NAMED)
        .map(|one| {
            format!(
                "sequence {} set from {} to {}, which {version} had reached",
                one.name, one.from, one.to
            )
        })
        .collect();
    let more = restored.sequences.len().saturating_sub(SEQUENCES_NAMED);
    if more > 0 {
        said.push(format!("{more} further sequences set as well"));
    }
    let check = restored.sequences_to_check.iter();
    said.extend(check.map(|what| format!("to be checked: {what}")));
    (!said.is_empty()).then(|| said.join("; "))
}

/// What the failed version's workers wrote, where the database stayed with it. Without a supervisor
/// it may be the old version's, which wrote on after the cut-over was noted.
fn stays(known: &Known<'_>) -> Option<String> {
    let Some(Assessment::WorkersWrote { tables }) = known.assessment else { return None };
    let before = match known.copy {
        Some(Copy::Directory { copy: path, .. } | Copy::Dump { path, .. }) => {
            format!("; as it was before them it lies in {path}")
        }
        None => String::new(),
    };
    let wrote_on = known.quiesced.is_some_and(|quiesced| quiesced.programs.running.is_empty());
    let old = match &known.hop.from {
        Some(from) if wrote_on => format!("{from}, until it was stopped, or "),
        None if wrote_on => "the old version, until it was stopped, or ".to_owned(),
        Some(_) | None => String::new(),
    };
    Some(format!(
        "what {old}{}'s workers wrote is kept in the database: {}{before}",
        known.hop.version,
        tables.join("; ")
    ))
}

fn was_quiesced(interrupted: &State) -> bool {
    matches!(interrupted.phase(), Phase::Swapped) || interrupted.known().programs.is_some()
}

/// The downtime of a hop in seconds, when both its ends are known: by the clock that nobody
/// sets, and by the host's own where the host was started anew in between.
pub fn downtime_seconds(machine: &Machine) -> Option<f64> {
    let known = machine.state().known();
    let began = known.quiesced?;
    let ended = match machine.state() {
        State::RolledBack(back) => back.verdict.as_ref()?,
        State::Planned(_)
        | State::BackedUp(_)
        | State::Pulled(_)
        | State::Swapped(_)
        | State::Verified(_)
        | State::RollingBack(_)
        | State::NeedsOperator(_) => known.verdict?,
    };
    let millis = match (&began.last_answer_up, &ended.first_answer_up) {
        (Some(began), Some(ended)) if began.boot == ended.boot => ended.millis - began.millis,
        _ => ended.first_answer_ms - began.last_answer_ms?,
    };
    // A clock that was set back in between tells nothing.
    (millis >= 0).then_some(millis as f64 / 1000.0)
}

/// The event that opens a job in the history.
pub(super) fn upgrade_started(body: &JobBody) -> NewEvent {
    NewEvent {
        kind: "upgrade",
        status: "started",
        message: format!("upgrade to {} started", body.resolved_target),
        data: upgrade_data(body),
    }
}

/// The event that opens a recovery in the history.
pub(super) fn recovery_started(job: &JobRecord, event: Event) -> NewEvent {
    let mut data = upgrade_data(&job.body);
    let is_keeping = event == Event::RecoverKeeping;
    let is_restoring = !is_keeping && event != Event::Recover;
    data.insert("restoreDatabase".into(), is_restoring.to_string());
    data.insert("carryRows".into(), event.carries_rows().to_string());
    data.insert("keepNew".into(), is_keeping.to_string());
    let target = &job.body.resolved_target;
    let message = match is_keeping {
        true => format!("{target} is started again on the database as it is"),
        false => format!("going back from {target} again"),
    };
    NewEvent { kind: "recovery", status: "started", message, data }
}

/// The event of an unfinished upgrade that waits for a person.
pub(super) fn waiting(job: &JobRecord, message: &str) -> NewEvent {
    let data = upgrade_data(&job.body);
    NewEvent { kind: "recovery", status: "waiting", message: message.to_owned(), data }
}

/// The event of a container that `recover` starts where there never was an upgrade.
pub(super) fn start_by_recovery(message: String) -> NewEvent {
    NewEvent { kind: "recovery", status: "started", message, data: BTreeMap::new() }
}

/// The event that closes a job in the history.
pub(super) fn upgrade_ended(
    job: &JobRecord,
    ending: &Ending,
    machine: Option<&Machine>,
) -> NewEvent {
    let status = match (&ending.failure_code, machine.map(Machine::phase)) {
        (None, _) => "succeeded",
        (Some(_), Some(Phase::RolledBack)) => "rolled_back",
        (Some(_), _) => "failed",
    };
    let mut data = upgrade_data(&job.body);
    if let Some(code) = ending.failure_code {
        data.insert("failureCode".into(), code.to_string());
    }
    if let Some(machine) = machine {
        let known = machine.state().known();
        if let Some(digest) = known.image.and_then(|image| image.digest.as_ref()) {
            data.insert("digest".into(), digest.clone());
        }
        data.extend(kept_data(&known));
        if let Some(seconds) = downtime_seconds(machine) {
            data.insert("downtimeSeconds".into(), format!("{seconds:.1}"));
        }
    }
    NewEvent { kind: "upgrade", status, message: ending.message.clone(), data }
}

/// The same as [`kept`], for programs.
fn kept_data(known: &Known<'_>) -> Vec<(String, String)> {
    let mut data = Vec::new();
    let mut put = |key: &str, value: String| data.push((key.to_owned(), value));
    if let Some(restored) = known.restored {
        put("failedDatabase", restored.failed.clone());
    }
    match known.export {
        Some(Export::Written { path, tables, .. }) => {
            let sum =
                |of: fn(&ExportedTable) -> u64| tables.iter().map(of).sum::<u64>().to_string();
            put("exportPath", path.clone());
            put("rowsInserted", sum(|table| table.inserted + table.taken));
            put("rowsUpdated", sum(|table| table.updated));
            put("rowsNotExported", sum(|table| table.refused.iter().map(|some| some.rows).sum()));
        }
        Some(Export::Missing { reason }) => put("exportError", reason.clone()),
        Some(Export::Nothing) | None => {}
    }
    data
}

fn upgrade_data(body: &JobBody) -> BTreeMap<String, String> {
    [
        ("mode", body.mode.as_str().to_owned()),
        ("requestedTarget", body.requested_target.clone()),
        ("resolvedTarget", body.resolved_target.clone()),
        ("executionMode", if body.dry_run { "dry-run" } else { "execute" }.to_owned()),
        ("dryRun", body.dry_run.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The events of the history that an outcome makes.
pub(super) fn events(
    job: &JobRecord,
    step: Step,
    outcome: &Outcome,
    machine: &Machine,
    ends: bool,
) -> Vec<NewEvent> {
    let mut events = Vec::new();
    events.extend(backup_event(step, outcome, machine));
    events.extend(probation_event(job, outcome));
    if ends {
        events.push(upgrade_ended(job, &ending(machine), Some(machine)));
    }
    events
}

/// What the watch after the verdict found; nothing where it found nothing.
fn probation_event(job: &JobRecord, outcome: &Outcome) -> Option<NewEvent> {
    let Outcome::Done { fact: Fact::Probation(probation) } = outcome else { return None };
    if probation.findings.is_empty() {
        return None;
    }
    let (data, target) = (upgrade_data(&job.body), &job.body.resolved_target);
    let found = probation.findings.join("; ");
    let message = format!(
        "after {target} was verified: {found}; the old container, its image and the restore point are kept"
    );
    Some(NewEvent { kind: "probation", status: "failed", message, data })
}

fn backup_event(step: Step, outcome: &Outcome, machine: &Machine) -> Option<NewEvent> {
    let (status, message, failure) = match (step, outcome) {
        (Step::BackUp, Outcome::Done { fact: Fact::Backup(backup) }) => {
            ("succeeded", format!("backup written to {}", backup.path), None)
        }
        (Step::ProveBackup, Outcome::Done { fact: fact @ Fact::Proof(_) }) => {
            ("validated", format!("backup is {}", found(fact)), None)
        }
        (Step::BackUp | Step::ProveBackup, Outcome::Failed { failure }) => {
            ("failed", failure.message.clone(), Some(failure.code))
        }
        _ => return None,
    };
    let known = machine.state().known();
    let mut data = BTreeMap::from([
        ("targetVersion".to_owned(), known.hop.version.clone()),
        ("container".to_owned(), known.hop.old.name.clone()),
    ]);
    if let Some(from) = &known.hop.from {
        data.insert("fromVersion".into(), from.clone());
    }
    if let Some(backup) = known.backup {
        data.insert("backupPath".into(), backup.path.clone());
        data.insert("sizeBytes".into(), backup.size_bytes.to_string());
        data.insert("dbHost".into(), backup.database_host.clone());
        data.insert("dbPort".into(), backup.database_port.to_string());
        data.insert("dbName".into(), backup.database_name.clone());
    }
    if let Some(code) = failure {
        data.insert("failureCode".into(), code.to_string());
    }
    Some(NewEvent { kind: "backup", status, message, data })
}

/// The first twelve digits of a container's id, as engines print it.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
