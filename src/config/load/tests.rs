//! What an operator sees of his settings.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::config::SourceFile;

/// An environment and files, by a small vocabulary.
#[derive(Default)]
struct World {
    environment: HashMap<String, OsString>,
    files: Vec<(&'static str, Result<Vec<u8>, String>)>,
}

/// A world with the two keys that must be there.
fn world() -> World {
    World::default()
        .with("POLICY_URL", "https://x.example/p.json")
        .with("RUNTIME_MANIFEST_URL", "/etc/payram/manifest.json")
}

impl World {
    fn with(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    fn file(mut self, path: &'static str, text: &str) -> Self {
        self.files.push((path, Ok(text.into())));
        self
    }

    fn unreadable(mut self, path: &'static str) -> Self {
        self.files.push((path, Err("Permission denied (os error 13)".into())));
        self
    }

    fn read<T>(&self, read: impl FnOnce(&Sources<'_>) -> T) -> T {
        let environment = |key: &str| self.environment.get(key).cloned();
        let files = self.files.iter().map(|(path, content)| SourceFile {
            path: PathBuf::from(path),
            content: content.clone(),
        });
        read(&Sources { environment: &environment, files: files.collect() })
    }

    fn settings(&self) -> Settings {
        self.read(Settings::from_sources).expect("valid settings").0
    }

    fn warnings(&self) -> Vec<String> {
        self.read(Settings::from_sources).expect("valid settings").1
    }

    fn error(&self) -> String {
        self.read(Settings::from_sources).expect_err("bad settings").to_string()
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = world().settings();
    assert_eq!(settings.port, 2567);
    assert_eq!(settings.state_dir, Path::new("/var/lib/payram-updater"));
    assert_eq!(settings.backup_dir, Path::new("/var/lib/payram-updater/data/backups"));
    assert_eq!(settings.socket_path(), Path::new("/run/payram-updater/updater.sock"));
    assert_eq!(settings.fetch_timeout, Duration::from_secs(10));
    assert_eq!(settings.docker_bin, "docker");
    assert_eq!(settings.docker_host, None);
    assert_eq!(settings.backup_retention.get(), 10);
    assert_eq!(settings.backup_timeout, Duration::from_secs(600));
    assert_eq!(settings.backup_proof, BackupProof::Full);
    let pg = &settings.pg;
    assert_eq!((pg.host.as_str(), pg.port), ("127.0.0.1", 5432));
    assert_eq!((pg.database.as_str(), pg.user.as_str()), ("payram", "payram"));
    assert_eq!(pg.password.expose(), "");
    assert!(!settings.debug_version_mode && !settings.dry_run);
    assert_eq!(settings.supervisor_exclude, ["postgres", "postgresql"]);
    assert_eq!(settings.supervisor_include, None);
    assert_eq!(settings.rollback_database, RollbackDatabase::Lossless);
    assert_eq!(settings.resume, Resume::Resume);
    assert_eq!(settings.answer_timeout, Duration::from_secs(10));
    assert_eq!(settings.pull_silence, Duration::from_secs(600));
    assert_eq!(settings.start_timeout, Duration::from_secs(900));
    assert_eq!(settings.health_timeout, Duration::from_secs(60));
    assert_eq!(settings.log_format, LogFormat::Text);
}

#[test]
fn the_environment_wins_over_the_first_file_and_that_over_the_second() {
    let world = world()
        .with("UPDATER_PORT", "1000")
        .file(".env", "UPDATER_PORT=2000\nPG_PORT=2001\n")
        .file("/etc/payram/updater.env", "UPDATER_PORT=3000\nPG_PORT=3001\nPG_DB='shop db'\n");
    let settings = world.settings();
    assert_eq!((settings.port, settings.pg.port), (1000, 2001));
    assert_eq!(settings.pg.database, "shop db");
}

#[test]
fn an_empty_value_is_the_default_and_hides_what_stands_further_back() {
    let settings = world()
        .with("TARGET_CONTAINER_NAME", "")
        .with("SUPERVISOR_EXCLUDE", "")
        .file(".env", "TARGET_CONTAINER_NAME=other\n")
        .settings();
    assert_eq!(settings.target_container_name, None);
    assert_eq!(settings.supervisor_exclude, ["postgres", "postgresql"]);
}

#[test]
fn a_backup_directory_is_below_the_state_directory_unless_absolute() {
    let relative = world().with("STATE_DIR", "/s").with("BACKUP_DIR", "b").settings();
    assert_eq!(relative.backup_dir, Path::new("/s/b"));
    let absolute = world().with("BACKUP_DIR", "/mnt/b").settings();
    assert_eq!(absolute.backup_dir, Path::new("/mnt/b"));
}

#[test]
fn everything_wrong_is_reported_at_once_with_value_place_and_what_is_allowed() {
    let error = World::default()
        .with("UPDATER_PORT", "70000")
        .with("POLICY_URL", "ftp://x/p")
        .file("/etc/payram/updater.env", "# ports\nEXECUTION_MODE=maybe\nBACKUP_RETENTION=0\n")
        .error();
    assert_eq!(
        error,
        "the settings are not valid:\n  \
         UPDATER_PORT is `70000` (environment); allowed: a port, 1 to 65535\n  \
         POLICY_URL is `ftp://x/p` (environment); allowed: an http:// or https:// URL, or a path\n  \
         RUNTIME_MANIFEST_URL is not set; it is required: an http:// or https:// URL, or a path\n  \
         BACKUP_RETENTION is `0` (/etc/payram/updater.env:3); allowed: a whole number, 1 or more\n  \
         EXECUTION_MODE is `maybe` (/etc/payram/updater.env:2); allowed: execute or dry-run"
    );
}

#[test]
fn each_of_these_values_is_refused() {
    for (key, value) in [
        ("UPDATER_PORT", "0"),
        ("UPDATER_PORT", "2567 # the port"),
        ("PG_PORT", "-1"),
        ("FETCH_TIMEOUT_SECONDS", "0"),
        ("ANSWER_TIMEOUT_SECONDS", "2.5"),
        ("START_TIMEOUT_SECONDS", "1.5"),
        ("HEALTH_TIMEOUT_SECONDS", "18446744073709551615"),
        ("BACKUP_TIMEOUT_SECONDS", "10m"),
        ("STATE_DIR", "state"),
        ("RUN_DIR", "run"),
        ("RUN_DIR", &format!("/{}", "r".repeat(94))),
        ("DEBUG_VERSION_MODE", "maybe"),
        ("IMAGE_REPO_OVERRIDE", "payramapp/payram:1.9.7"),
        ("IMAGE_REPO_OVERRIDE", "--privileged"),
        ("IMAGE_REPO_OVERRIDE", "payramapp//payram"),
        ("TARGET_CONTAINER_NAME", "-rf"),
        ("CORE_BASE_URL", "ftp://127.0.0.1"),
        ("CORE_BASE_URL", "127.0.0.1:8080"),
        ("DOCKER_HOST", "ssh://host"),
        ("ALLOWED_HOSTS", "http://panel.example"),
        ("ALLOWED_HOSTS", "panel.example:8080"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "*.panel.example"),
        ("IMAGE_REPO_OVERRIDE", "UPPER/Case"),
        ("LOG", "loud"),
        ("LOG", "info,payram_updater"),
        ("LOG", "=info"),
        ("AUTO_UPDATE_WINDOW", "weekend"),
        ("AUTO_UPDATE_WINDOW", "Sat 2-5"),
        ("SUPERVISOR_INCLUDE", ","),
        ("BACKUP_PROOF", "maybe"),
        ("ROLLBACK_DATABASE", "never"),
        ("RESUME", "no"),
        ("LOG", "info=x=y"),
        ("LOG_FORMAT", "xml"),
        ("POLICY_URL", "file:///etc/policy.json"),
    ] {
        let error = world().with(key, value).error();
        assert!(error.contains(&format!("{key} is `{value}` (environment)")), "{error}");
    }
}

#[test]
fn each_of_these_values_is_taken() {
    for (key, value) in [
        ("UPDATER_PORT", " 65535 "),
        ("DEBUG_VERSION_MODE", "YES"),
        ("IMAGE_REPO_OVERRIDE", "127.0.0.1:5000/payramapp/payram"),
        ("IMAGE_REPO_OVERRIDE", "payram"),
        ("TARGET_CONTAINER_NAME", "payram_1.test-x"),
        ("CORE_BASE_URL", "https://[::1]:8443/core"),
        ("DOCKER_HOST", "unix:///run/docker.sock"),
        ("DOCKER_HOST", "tcp://127.0.0.1:2375"),
        ("ALLOWED_HOSTS", "Panel.example, 10.0.0.1,::1"),
        ("BACKUP_PROOF", "Toc"),
        ("LOG", "info,payram_updater=debug"),
        ("LOG", "OFF"),
        ("IMAGE_REPO_OVERRIDE", "Registry.Example:5000/payramapp/payram"),
        ("AUTO_UPDATE_WINDOW", "Sat,Sun 02:00-05:00; Mon-Fri 22:00-04:00"),
        ("POLICY_URL", "policy.json"),
        ("RUN_DIR", &format!("/{}", "r".repeat(93))),
    ] {
        world().with(key, value).settings();
    }
    let hosts = world().with("ALLOWED_HOSTS", "Panel.example, ::1").settings().allowed_hosts;
    assert_eq!(hosts, ["panel.example", "::1"]);
    let hosts = world().with("ALLOWED_HOSTS", "M\u{dc}nchen.de,host_1").settings().allowed_hosts;
    assert_eq!(hosts, ["xn--mnchen-3ya.de", "host_1"], "as a Host header has them");
}

#[test]
fn a_password_is_in_no_error_and_no_debug_output() {
    let settings = world().with("PG_PASSWORD", "hunter2").settings();
    assert_eq!(settings.pg.password.expose(), "hunter2");
    assert!(!format!("{settings:?}").contains("hunter2"));
    let bad = world().file(".env", "PG_PASSWORD=hunter2\0\n").error();
    assert!(bad.contains("PG_PASSWORD is `***` (.env:1)"), "{bad}");
    let unclosed = world().file(".env", "PG_PASSWORD=\"hunter2\nUPDATER_PORT=1\n").error();
    assert!(unclosed.contains(".env:1: the quote that opens the value of PG_PASSWORD"));
    let url = world().with("CORE_BASE_URL", "http://root:hunter2@127.0.0.1").error();
    assert!(url.contains("CORE_BASE_URL is `http://***@127.0.0.1`"), "{url}");
    let query = world().with("CORE_BASE_URL", "http://127.0.0.1/?token=hunter2").error();
    assert!(query.contains("CORE_BASE_URL is `http://127.0.0.1/?***`"), "{query}");
    let policy = world().with("POLICY_URL", "ftp://u:hunter2@h/p?token=hunter2#hunter2").error();
    assert!(policy.contains("POLICY_URL is `ftp://***@h/p?***`"), "{policy}");
    let asked = world().with("CORE_BASE_URL", "http://u:hun?hunter2@127.0.0.1/").error();
    let slashed = world().with("CORE_BASE_URL", "http://root:hun/hunter2@127.0.0.1").error();
    for error in [bad, unclosed, url, query, policy, asked, slashed] {
        assert!(!error.contains("u:hun"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_hostile_value_is_cut_and_escaped() {
    let value = format!("\u{1b}[31m{}", "9".repeat(5000));
    let error = world().with("UPDATER_PORT", &value).error();
    assert!(!error.contains('\u{1b}') && error.len() < 400, "{error}");
}

#[test]
fn a_value_that_is_not_utf_8_is_refused() {
    let mut world = world();
    world.environment.insert("PG_DB".into(), OsString::from_vec(vec![0xff, 0xfe]));
    let error = world.error();
    assert!(error.contains("PG_DB is `text that is not UTF-8` (environment)"), "{error}");
}

#[test]
fn an_unknown_key_of_a_file_warns_and_one_of_the_environment_does_not() {
    let warnings = world()
        .with("HOME", "/root")
        .file("/etc/payram/updater.env", "UPDATER_PROT=1\nnonsense\nexport PG_DB=x\n")
        .warnings();
    assert_eq!(
        warnings,
        [
            "/etc/payram/updater.env:2: this line is no KEY=value and is ignored",
            "/etc/payram/updater.env:1: unknown setting `UPDATER_PROT`, ignored",
            "/etc/payram/updater.env:3: unknown setting `export PG_DB`, ignored; write it without `export`, which these files don't have",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_stops_the_daemon_and_not_the_commands() {
    let world = world()
        .unreadable("/etc/payram/updater.env")
        .with("PG_PORT", "nonsense")
        .with("RUN_DIR", "/run/other");
    let error = world.error();
    assert!(
        error.contains(
            "settings file /etc/payram/updater.env can't be read: Permission denied (os error 13)"
        ),
        "{error}"
    );
    let client = world.read(ClientSettings::from_sources).expect("enough for a command");
    assert_eq!(client.socket_path, Path::new("/run/other/updater.sock"));
    assert_eq!(client.port, 2567);
    assert_eq!(client.state_dir, Path::new("/var/lib/payram-updater"));
    assert_eq!(client.unread.len(), 1);
}

#[test]
fn a_command_needs_no_policy_and_still_refuses_a_bad_port() {
    let client = World::default().read(ClientSettings::from_sources).expect("enough");
    assert!(client.unread.is_empty());
    let bad = World::default().with("UPDATER_PORT", "x");
    let error = bad.read(ClientSettings::from_sources).expect_err("a bad port").to_string();
    assert!(error.contains("UPDATER_PORT is `x` (environment)"), "{error}");
}

#[test]
fn a_file_is_read_from_disk_and_a_missing_one_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(SourceFile::read(directory.path().join("none")).is_none());
    let path = directory.path().join("updater.env");
    std::fs::write(&path, "A=1\n").expect("written");
    let file = SourceFile::read(path).expect("there");
    assert_eq!(file.content.as_deref(), Ok(b"A=1\n".as_slice()));
    let not_a_file = SourceFile::read(directory.path().to_owned()).expect("there");
    assert_eq!(not_a_file.content, Err("it is not a regular file".into()));
    let large = directory.path().join("large");
    std::fs::write(&large, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(SourceFile::read(large).expect("there").content.is_err());
}

#[test]
fn each_of_these_is_taken_from_where_its_name_says() {
    let settings = world()
        .with("DOCKER_BIN", "/opt/podman")
        .with("PG_HOST", "db.example")
        .with("PG_USER", "keeper")
        .with("PULL_SILENCE_SECONDS", "90")
        .with("KEEP_PREVIOUS_HOURS", "5")
        .settings();
    assert_eq!(settings.docker_bin, "/opt/podman");
    assert_eq!((settings.pg.host.as_str(), settings.pg.user.as_str()), ("db.example", "keeper"));
    assert_eq!(settings.pull_silence, Duration::from_secs(90));
    assert_eq!(settings.keep_previous, Duration::from_secs(5 * 3600));
}
