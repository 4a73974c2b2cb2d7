//! What a person is told of a restore: log lines, events of the history, how it ended. Pure.

use std::collections::BTreeMap;

use crate::database;
use crate::journal::{Ending, NewEvent, RestoreRecord};
use crate::machine::failure::FailureCode;
use crate::restore::{
    Place, Restore, RestoreBody, RestoreFact, RestoreOutcome, RestoreStep, Served, temporary_name,
};

/// It begins.
pub(super) fn started(body: &RestoreBody) -> NewEvent {
    let message = format!("restore of {} into database {} began", body.file, body.database);
    NewEvent { kind: "restore", status: "started", message, data: data(body) }
}

/// It came to rest.
pub(super) fn ended(body: &RestoreBody, restore: &Restore, ending: &Ending) -> NewEvent {
    let mut data = data(body);
    let mut put = |key: &str, value: Option<String>| {
        data.extend(value.map(|value| (key.to_owned(), value)));
    };
    put("failureCode", ending.failure_code.map(|code| code.to_string()));
    put("downtimeSeconds", restore.downtime_seconds().map(|seconds| format!("{seconds:.3}")));
    put("rows", restore.loaded.as_ref().and_then(|loaded| loaded.rows).map(|it| it.to_string()));
    put("keptDatabase", (restore.place == Place::Backup).then(|| body.aside.clone()));
    put("failedDatabase", (restore.place == Place::PresentAgain).then(|| body.failed.clone()));
    let status = if ending.failure_code.is_none() { "succeeded" } else { "failed" };
    NewEvent { kind: "restore", status, message: ending.message.clone(), data }
}

fn data(body: &RestoreBody) -> BTreeMap<String, String> {
    let filename = body.file.rsplit('/').next().unwrap_or_default();
    let (from, to) = database::versions(filename);
    let mut data = BTreeMap::from([
        ("backupFile".to_owned(), body.file.clone()),
        ("fromVersion".to_owned(), from),
        ("toVersion".to_owned(), to),
        ("fullRecovery".to_owned(), "false".to_owned()),
        ("dbName".to_owned(), body.database.clone()),
    ]);
    if let Some(container) = &body.container {
        data.insert("container".into(), container.name.clone());
    }
    data
}

/// What came of a step.
pub(super) fn log_lines(
    step: RestoreStep,
    outcome: &RestoreOutcome,
    restore: &Restore,
) -> Vec<String> {
    let line = match outcome {
        RestoreOutcome::Done { fact } => format!("{step}: {}", found(fact)),
        RestoreOutcome::Failed { failure } => format!("{step} failed: {failure}"),
        RestoreOutcome::Unknown { failure } => {
            format!("{step}: it is not known what came of it: {failure}; it is looked at again")
        }
        RestoreOutcome::Interrupted => format!("{step}: interrupted; it is looked at again"),
        RestoreOutcome::CalledOff { failure } => format!("{step}: {failure}"),
    };
    let mut lines = vec![line];
    if step == RestoreStep::StartPrograms && restore.stuck.is_some() {
        lines.push("not everything could be put back; what runs is looked at".to_owned());
    }
    lines
}

fn found(fact: &RestoreFact) -> String {
    match fact {
        RestoreFact::Loaded(loaded) => {
            let rows = loaded.rows.map_or("rows not counted".to_owned(), |it| format!("{it} rows"));
            format!("{} tables, {rows}, as the backup has them", loaded.tables)
        }
        RestoreFact::Noted(noted) => {
            let served = match noted.served {
                Served::No => "the application does not answer",
                Served::Answers => "the application answers, and does not say that it is well",
                Served::Healthy => "the application is well",
            };
            match noted.running.as_slice() {
                [] => format!("no programs to stop; {served}"),
                running => format!("{}; {served}", running.join(", ")),
            }
        }
        RestoreFact::Answer { .. } | RestoreFact::Done => "done".to_owned(),
    }
}

/// How it came to rest.
pub(super) fn ending(record: &RestoreRecord, restore: &Restore, docker: &str) -> Ending {
    let body = &record.body;
    let failure = restore.failure.as_ref();
    let mut message = match (failure, restore.place, &restore.stuck) {
        (None, _, _) => in_place(body, restore, docker),
        (Some(failure), Place::Present, None) => format!(
            "the restore failed: {failure}. Nothing was changed: database {} is as it was",
            body.database
        ),
        (Some(failure), Place::PresentAgain, None) => format!(
            "the restore failed: the application was not well on the backup's data: {failure}. The data from before serves again; the backup's, with what was written to it meanwhile, is kept as database {}. When you don't need it: {}",
            body.failed,
            drop_command(body, &body.failed, docker)
        ),
        (Some(failure), Place::Backup, None) => format!(
            "{}. The application does not answer, as it did not before: {failure}",
            in_place(body, restore, docker)
        ),
        (Some(failure), Place::Present | Place::PresentAgain, Some(stuck)) => format!(
            "the restore failed: {failure}. The data is as it was, and the application is not: {stuck}. Start it: {docker} restart {}",
            body.container.as_ref().map_or("its container", |it| it.name.as_str())
        ),
        (Some(failure), Place::Backup, Some(stuck)) => format!(
            "the restore failed: {failure}. The backup's data is in place and could not be taken back: {stuck}. The data from before is in database {}",
            body.aside
        ),
    };
    if let Some(left) = &restore.left {
        let made = temporary_name(record.id.short());
        message.push_str(&format!(
            ". Database {made}, made for it, could not be dropped: {left}; the next restore drops it"
        ));
    }
    let failure_code = restore.failure_code().map(|code| match restore.stuck {
        Some(_) => FailureCode::RestoreFailed,
        None => code,
    });
    Ending { failure_code, message }
}

fn in_place(body: &RestoreBody, restore: &Restore, docker: &str) -> String {
    let rows = restore.loaded.as_ref().and_then(|loaded| loaded.rows);
    let rows = rows.map_or(String::new(), |rows| format!(" ({rows} rows)"));
    let made = body.made_at.as_deref().map_or(String::new(), |at| format!(" of {at}"));
    format!(
        "the backup{made}{rows} is in place in database {}. What was there before is kept as database {}. When you don't need it: {}",
        body.database,
        body.aside,
        drop_command(body, &body.aside, docker)
    )
}

/// What drops a database that is kept aside, as the role that made it.
fn drop_command(body: &RestoreBody, name: &str, docker: &str) -> String {
    let is_plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/".contains(c));
    if !is_plain(&body.user) || !is_plain(&body.host) {
        return format!("drop database {name} (in psql, connected to database postgres)");
    }
    let psql = format!("psql -h {} -p {} -U {} -d postgres", body.host, body.port, body.user);
    match &body.container {
        Some(container) if is_inside(&body.host) => format!(
            "{docker} exec {} sh -c 'PGPASSWORD=\"$POSTGRES_PASSWORD\" {psql} -c \"drop database {name}\"'",
            container.name
        ),
        Some(_) | None => format!("{psql} -c 'drop database {name}'"),
    }
}

fn is_inside(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "::1")
        || host.eq_ignore_ascii_case("localhost")
        || host.starts_with('/')
}
