//! Every promise that others rely on, and the test that exercises it: endpoints, commands, flags,
//! settings, fields, statuses and failure codes, by the names that they have outside. The table is
//! printed by `cargo test --test contract -- --nocapture`; a name that no test uses is a failure.
//!
//! A name that a test uses is not proved to be right by that; it says where to look, and that a
//! promise was not forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Endpoints by method; a test names the path.
const ENDPOINTS: &[&str] = &[
    "/health",
    "/upgrade/status",
    "/upgrade/last",
    "/upgrade/logs",
    "/upgrade/playbook",
    "/upgrade/inspect",
    "/upgrade/plan",
    "/upgrade/run",
    "/upgrade/rehearse",
    "/upgrade/history",
    "/history",
    "/upgrade/events",
    "/upgrade/cancel",
    "/upgrade/recover",
    "/upgrade/sync",
    "/upgrade/jobs",
    "/versions",
    "/backups",
    "/metrics",
    "/openapi.json",
];

const COMMANDS: &[&str] = &[
    "serve",
    "status",
    "health",
    "logs",
    "history",
    "dry-run",
    "rehearse",
    "run",
    "watch",
    "cancel",
    "inspect",
    "recover",
    "sync",
    "backup",
    "create",
    "list",
    "restore",
    "cleanup",
    "state",
    "backups",
    "init",
    "restart",
    "versions",
    "config",
    "version",
    "help",
    "completions",
    "man",
    "journal",
    "verify",
    "export",
    "sandbox",
    "demo",
];

const FLAGS: &[&str] = &[
    "--json",
    "--text",
    "--to",
    "--mode",
    "--force",
    "--yes",
    "--detach",
    "--plan",
    "--restore-database",
    "--carry-rows",
    "--keep-new",
    "--dry-run",
    "--clear-quarantine",
    "--dismiss-rows",
    "--type",
    "--status",
    "--limit",
    "--follow",
    "--until-done",
    "--since",
    "--file",
    "--full-recovery",
    "--no-autoupdate",
    "--env",
];

const SETTINGS: &[&str] = &[
    "UPDATER_PORT",
    "POLICY_URL",
    "RUNTIME_MANIFEST_URL",
    "STATE_DIR",
    "FETCH_TIMEOUT_SECONDS",
    "DOCKER_BIN",
    "DOCKER_HOST",
    "BACKUP_DIR",
    "BACKUP_RETENTION",
    "BACKUP_TIMEOUT_SECONDS",
    "PG_HOST",
    "PG_PORT",
    "PG_DB",
    "PG_USER",
    "PG_PASSWORD",
    "DEBUG_VERSION_MODE",
    "IMAGE_REPO_OVERRIDE",
    "TARGET_CONTAINER_NAME",
    "CORE_BASE_URL",
    "EXECUTION_MODE",
    "SUPERVISOR_EXCLUDE",
    "SUPERVISOR_INCLUDE",
    "VERIFY_SECONDS",
    "ANSWER_TIMEOUT_SECONDS",
    "PULL_SILENCE_SECONDS",
    "KEEP_PREVIOUS_HOURS",
    "AUTO_UPDATE_WINDOW",
    "BACKUP_COPY_COMMAND",
    "NOTIFY_URL",
    "NOTIFY_SECRET",
    "PROBATION_MINUTES",
    "REHEARSAL_DIR",
    "REHEARSAL_MINUTES",
    "RUN_DIR",
    "ALLOWED_HOSTS",
    "ROLLBACK_DATABASE",
    "RESUME",
    "START_TIMEOUT_SECONDS",
    "HEALTH_TIMEOUT_SECONDS",
    "BACKUP_PROOF",
    "LOG",
    "LOG_FORMAT",
];

/// Of jobs, plans, playbooks, inspections, events and answers.
const FIELDS: &[&str] = &[
    "jobId",
    "mode",
    "requestedTarget",
    "resolvedTarget",
    "state",
    "failureCode",
    "message",
    "backupPath",
    "createdAt",
    "updatedAt",
    "phase",
    "step",
    "progress",
    "fromVersion",
    "hops",
    "downtimeSeconds",
    "hopDowntimes",
    "serving",
    "servingVersion",
    "rehearsal",
    "rowsSetAside",
    "waitsFor",
    "recoveryPlaybook",
    "playbook",
    "events",
    "count",
    "timestamp",
    "type",
    "status",
    "data",
    "dryRun",
    "imageRepo",
    "containerName",
    "route",
    "stoppedAt",
    "checks",
    "planHash",
    "owners",
    "onFailure",
    "expectedDowntimeSeconds",
    "code",
    "severity",
    "title",
    "userMessage",
    "sshSteps",
    "docsUrl",
    "dataRisk",
    "overallState",
    "issues",
    "recommendations",
    "lastJob",
    "updateInfo",
    "currentVersion",
    "latestVersion",
    "updateAvailable",
    "canUpdateViaDashboard",
    "maxDashboardVersion",
    "nextBreakpoint",
    "success",
    "action",
    "refusals",
    "backup",
    "checksum",
    "sizeBytes",
    "toVersion",
    "filename",
    "format",
    "autoUpdateEnabled",
    "autoUpdateIntervalHours",
    "initialized",
];

const CODES: &[&str] = &[
    "POLICY_FETCH_FAILED",
    "POLICY_INVALID_JSON",
    "POLICY_REQUIRED",
    "POLICY_INVALID_GATE",
    "MANIFEST_FETCH_FAILED",
    "MANIFEST_INVALID_JSON",
    "CURRENT_VERSION_UNKNOWN",
    "VERSION_NOT_IN_POLICY",
    "DOWNGRADE_NOT_ALLOWED",
    "ALREADY_ON_TARGET",
    "MANUAL_UPGRADE_REQUIRED",
    "VERSION_QUARANTINED",
    "CONTAINER_NAME_UNRESOLVED",
    "CONTAINER_NOT_FOUND",
    "PAYRAM_CONTAINER_NOT_FOUND",
    "INVALID_DB_CONFIG",
    "SUPERVISORCTL_FAILED",
    "DOCKER_DAEMON_DOWN",
    "DISK_SPACE_LOW",
    "DOCKER_PULL_FAILED",
    "DOCKER_RUN_BUILD_FAILED",
    "DOCKER_ERROR",
    "CONCURRENCY_BLOCKED",
    "BACKUP_FAILED",
    "BACKUP_TIMEOUT",
    "BACKUP_INVALID",
    "RUNTIME_INSPECTION_FAILED",
    "PORT_CONFLICT",
    "HEALTHCHECK_FAILED",
    "VERSION_MISMATCH",
    "MIGRATION_TIMEOUT",
    "MIGRATION_FAILED",
    "SPEC_PARITY_FAILED",
    "DATABASE_NOT_PERSISTENT",
    "DATABASE_MISMATCH",
    "DATABASE_DAMAGED",
    "POSTGRES_MAJOR_CHANGE",
    "CORE_NOT_VISIBLE",
    "CONTAINER_OWNED",
    "IMAGE_NOT_FOUND",
    "IMAGE_ARCHITECTURE",
    "REGISTRY_LOGIN",
    "PLAN_CHANGED",
    "RECOVERY_REQUIRED",
    "REHEARSAL_FAILED",
    "RESTORE_POINT_FAILED",
];

/// Promised, and not there yet.
const NOT_THERE: &[&str] = &["GET /", "undo", "--hold", "REHEARSAL"];

/// A test and what it says.
struct Test {
    name: String,
    body: String,
}

#[test]
fn every_name_that_others_rely_on_is_used_by_a_test() {
    let tests = tests();
    assert!(tests.len() > 500, "only {} tests were found", tests.len());
    let quoted = |name: &&str| vec![format!("\"{name}\"")];
    let path = |name: &&str| vec![format!("{name}\""), format!("{name}?"), format!("{name}/")];
    let setting = |name: &&str| vec![format!("\"{name}\""), format!("{name}=")];
    let short = |name: &&str| {
        let letter = name.trim_start_matches('-').get(..1).unwrap_or_default();
        vec![format!("\"{name}\""), format!("\"-{letter}\"")]
    };
    // As JSON has it, or as the type that it is read into.
    let field = |name: &&str| vec![format!("\"{name}\""), snake(name)];
    let code = |name: &&str| vec![(*name).to_owned(), format!("FailureCode::{}", camel(name))];
    let mut missing = Vec::new();
    let mut table = |kind: &str, names: &[&str], needles: &dyn Fn(&&str) -> Vec<String>| {
        for name in names {
            let needles = needles(name);
            let by = tests.iter().find(|test| needles.iter().any(|one| test.body.contains(one)));
            println!("| {kind} | `{name}` | {} |", by.map_or("**none**", |test| &test.name));
            if by.is_none() {
                missing.push(format!("{kind} {name}"));
            }
        }
    };
    println!("| | promised | exercised by |\n|---|---|---|");
    table("endpoint", ENDPOINTS, &path);
    table("command", COMMANDS, &quoted);
    table("flag", FLAGS, &short);
    table("setting", SETTINGS, &setting);
    table("field", FIELDS, &field);
    table("code", CODES, &code);
    for name in NOT_THERE {
        println!("| not there yet | `{name}` | |");
    }
    assert!(missing.is_empty(), "no test uses: {missing:#?}");
}

/// `stoppedAt` as `stopped_at`; a single word as JSON has it.
fn snake(name: &str) -> String {
    if name.chars().all(char::is_lowercase) {
        return format!("\"{name}\"");
    }
    name.chars()
        .flat_map(|c| [c.is_uppercase().then_some('_'), c.to_lowercase().next()])
        .flatten()
        .collect()
}

/// `MIGRATION_FAILED` as `MigrationFailed`.
fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(1.min(word.len()));
        first.to_owned() + &rest.to_lowercase()
    });
    words.collect()
}

/// The tests of the project, with the helpers that stand in the same file.
fn tests() -> Vec<Test> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["tests", "src"] {
        sources(&root.join(directory), &mut files);
    }
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        if shown == "tests/contract.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        let is_product = shown.starts_with("src/") && !shown.contains("/tests");
        let text = match (is_product, text.split_once("#[cfg(test)]")) {
            (true, Some((_, tests))) => tests.to_owned(),
            (true, None) => continue,
            (false, _) => text,
        };
        for (name, body) in functions(&text) {
            all.entry(format!("{shown} {name}")).or_default().push_str(&body);
        }
    }
    all.into_iter().map(|(name, body)| Test { name, body }).collect()
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The functions of a file, each with its lines up to the next one.
fn functions(text: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let start = line.trim_start();
        let name = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(super) fn "]
            .iter()
            .find_map(|words| start.strip_prefix(words))
            .and_then(|rest| rest.split(['(', '<']).next());
        match (name, all.last_mut()) {
            (Some(name), _) => all.push((name.to_owned(), line.to_owned())),
            (None, Some((_, body))) => {
                body.push('\n');
                body.push_str(line);
            }
            (None, None) => {}
        }
    }
    all
}
