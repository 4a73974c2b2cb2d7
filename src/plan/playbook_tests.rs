//! Tests of `playbook`: the table against the contract, and the filling in.

use super::*;

const PLACEHOLDERS: [&str; 8] = [
    "container_name",
    "base_url",
    "http_port",
    "db_port",
    "image_repo",
    "backup_path",
    "export_path",
    "docker_bin",
];

/// Contract section 7.
const COMMANDS: [&str; 20] = [
    "serve", "status", "health", "logs", "watch", "history", "dry-run", "run", "inspect",
    "recover", "rehearse", "versions", "sync", "backup", "cleanup", "init", "restart", "version",
    "help", "journal",
];

fn everything() -> Facts {
    Facts {
        container_name: Some("payram".to_owned()),
        base_url: Some("http://127.0.0.1:8080/".to_owned()),
        http_port: Some(8080),
        db_port: Some(5432),
        image_repo: Some("payramapp/payram".to_owned()),
        backup_path: Some("/var/lib/payram-updater/data/backups/b.dump".to_owned()),
        failed_database: Some("/srv/payram/db.failed-1".to_owned()),
        export_path: Some("/srv/payram/db.failed-1.rows.sql".to_owned()),
        docker_bin: Some("podman".to_owned()),
        rolled_back: false,
    }
}

fn placeholders(step: &str) -> Vec<&str> {
    step.split('<').skip(1).filter_map(|rest| rest.split_once('>').map(|(name, _)| name)).collect()
}

#[test]
fn every_code_has_a_playbook_and_every_playbook_a_code() {
    for code in FailureCode::ALL {
        assert!(TABLE_READ.playbooks.contains_key(code.as_str()), "{code} has no playbook");
    }
    assert_eq!(TABLE_READ.playbooks.len(), FailureCode::ALL.len());
}

#[test]
fn severity_and_data_risk_are_those_of_the_contract() {
    let groups = [
        (
            "POLICY_FETCH_FAILED MANIFEST_FETCH_FAILED DOCKER_PULL_FAILED CONCURRENCY_BLOCKED \
             BACKUP_FAILED BACKUP_FAILED_AFTER_QUIESCE BACKUP_TIMEOUT RUNTIME_INSPECTION_FAILED",
            Severity::Retryable,
            DataRisk::None,
        ),
        (
            "MANUAL_UPGRADE_REQUIRED DISK_SPACE_LOW SUPERVISORCTL_FAILED DOCKER_DAEMON_DOWN \
             CONTAINER_NOT_FOUND INVALID_DB_CONFIG CONTAINER_NAME_UNRESOLVED \
             DOCKER_RUN_BUILD_FAILED PORT_CONFLICT",
            Severity::ManualRequired,
            DataRisk::None,
        ),
        (
            "DOCKER_ERROR HEALTHCHECK_FAILED VERSION_MISMATCH MIGRATION_TIMEOUT",
            Severity::ManualRequired,
            DataRisk::Possible,
        ),
        ("MIGRATION_FAILED", Severity::ManualRequired, DataRisk::Likely),
        ("UNKNOWN", Severity::ManualRequired, DataRisk::Unknown),
    ];
    for (codes, severity, risk) in groups {
        for code in codes.split_whitespace() {
            let found = playbook(code, &Facts::default());
            assert_eq!((found.severity, found.data_risk), (severity, risk), "{code}");
        }
    }
}

#[test]
fn steps_use_known_placeholders_and_existing_commands() {
    let all = TABLE_READ.playbooks.values().flat_map(|entry| &entry.steps);
    for step in all.chain(&TABLE_READ.rolled_back.steps) {
        for name in placeholders(step) {
            assert!(PLACEHOLDERS.contains(&name), "{step}: <{name}>");
        }
        assert!(step.contains("  # "), "{step}: does not say what it is for");
        assert!(!step.contains('\n'), "{step}");
        if let Some(rest) = step.strip_prefix("payram-updater ") {
            let command = rest.split_whitespace().next().unwrap_or_default();
            assert!(COMMANDS.contains(&command), "{step}");
        }
        let first = step.split_whitespace().next().unwrap_or_default();
        assert_ne!(first, "docker", "{step}: DOCKER_BIN may be another");
    }
}

#[test]
fn every_playbook_has_steps_and_its_documentation_at_the_documented_place() {
    for code in FailureCode::ALL {
        let found = playbook(code.as_str(), &Facts::default());
        assert!(!found.ssh_steps.is_empty() && !found.title.is_empty(), "{code}");
        let url = found.docs_url.unwrap_or_else(|| panic!("{code} has no documentation"));
        let topic = url.strip_prefix("https://docs.payram.com/troubleshooting/");
        let is_topic = topic.is_some_and(|topic| {
            !topic.is_empty() && topic.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        });
        let is_page = url == "https://docs.payram.com/upgrades/breaking-changes";
        assert!(is_topic || is_page, "{code}: {url}");
    }
}

#[test]
fn with_everything_known_no_placeholder_is_left() {
    for rolled_back in [false, true] {
        let facts = Facts { rolled_back, ..everything() };
        for code in FailureCode::ALL {
            for (at, step) in playbook(code.as_str(), &facts).ssh_steps.iter().enumerate() {
                assert!(step.starts_with(&format!("{}. ", at + 1)), "{step}");
                assert_eq!(placeholders(step), Vec::<&str>::new(), "{step}");
                assert!(!step.contains("docker ps"), "{step}: DOCKER_BIN is podman");
            }
        }
    }
}

#[test]
fn a_step_that_needs_what_is_unknown_is_left_out() {
    let facts = Facts { container_name: Some("payram".to_owned()), ..Facts::default() };
    let steps = playbook("HEALTHCHECK_FAILED", &facts).ssh_steps.join("\n");
    assert!(steps.contains("docker logs --tail 100 payram "), "{steps}");
    assert!(!steps.contains("curl"), "nobody knows where to ask: {steps}");
}

#[test]
fn the_file_of_the_failed_versions_rows_is_named_where_there_is_one() {
    let facts = Facts { rolled_back: true, ..everything() };
    let found = playbook("MIGRATION_FAILED", &facts);
    assert!(found.user_message.contains("kept in /srv/payram/db.failed-1."), "{found:?}");
    let last = found.ssh_steps.last().expect("steps");
    assert!(last.contains("sudo less /srv/payram/db.failed-1.rows.sql  # "), "{last}");
    let without = playbook("MIGRATION_FAILED", &Facts { rolled_back: true, ..Facts::default() });
    assert!(!without.ssh_steps.join("\n").contains("export_path"), "{without:?}");
}

#[test]
fn what_is_filled_in_is_one_word_of_the_shell_and_is_not_filled_in_again() {
    let facts = Facts {
        backup_path: Some("/b/it's <container_name>; rm -rf x.dump".to_owned()),
        container_name: Some("payram".to_owned()),
        ..Facts::default()
    };
    assert_eq!(
        fill("ls -l <backup_path> <container_name> <", &facts),
        r"ls -l '/b/it'\''s <container_name>; rm -rf x.dump' payram <"
    );
}

#[test]
fn an_unknown_code_has_the_unknown_playbook_under_its_own_code() {
    let found = playbook("SOLAR_FLARE", &Facts::default());
    assert_eq!(found.code, "SOLAR_FLARE");
    assert_eq!(found.title, playbook("UNKNOWN", &Facts::default()).title);
    assert_eq!(found.data_risk, DataRisk::Unknown);
}

#[test]
fn after_a_rollback_the_severity_drops_and_the_text_says_that_the_old_version_serves() {
    for code in FailureCode::ALL {
        let before = playbook(code.as_str(), &everything());
        let after = playbook(code.as_str(), &Facts { rolled_back: true, ..everything() });
        assert_eq!(after.code, before.code);
        let dropped = after.severity < before.severity;
        assert!(dropped || before.severity == Severity::Info, "{code}");
        assert!(after.user_message.contains("the old version serves"), "{code}");
        assert!(!after.ssh_steps.join("\n").contains("recover"), "{code}");
    }
}

#[test]
fn a_playbook_is_written_as_the_contract_names_it() {
    let json = serde_json::to_value(playbook("MIGRATION_FAILED", &everything())).expect("data");
    assert_eq!(json["severity"], "MANUAL_REQUIRED");
    assert_eq!(json["dataRisk"], "LIKELY");
    assert_eq!(json["backupPath"], "/var/lib/payram-updater/data/backups/b.dump");
    for name in ["code", "title", "userMessage", "sshSteps", "docsUrl"] {
        assert!(!json[name].is_null(), "{name}");
    }
    let json = serde_json::to_value(playbook("UNKNOWN", &Facts::default())).expect("data");
    assert!(json.get("backupPath").is_none());
}

#[test]
fn every_step_is_one_command_that_a_shell_can_read() {
    for code in FailureCode::ALL {
        for step in playbook(code.as_str(), &everything()).ssh_steps {
            let (_, command) = step.split_once(". ").expect("a number");
            let output = std::process::Command::new("sh").args(["-n", "-c", command]).output();
            let output = output.expect("every POSIX system has sh");
            assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
