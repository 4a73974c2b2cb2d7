//! From the environment and the files to checked settings. Every bad value is reported at once,
//! with its key, its place and what is allowed; a secret's value is never shown.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use url::Url;

use super::env_file;
use super::{BackupProof, LogFormat, PgDefaults, Resume, RollbackDatabase, Settings};
use crate::secret::Secret;

/// Where the machine's settings lie.
const SYSTEM_FILE: &str = "/etc/payram/updater.env";

/// Where a directory's settings lie.
const LOCAL_FILE: &str = ".env";

/// Every key that there is.
const KEYS: [&str; 31] = [
    "UPDATER_PORT",
    "POLICY_URL",
    "RUNTIME_MANIFEST_URL",
    "STATE_DIR",
    "RUN_DIR",
    "FETCH_TIMEOUT_SECONDS",
    "DOCKER_BIN",
    "DOCKER_HOST",
    "BACKUP_DIR",
    "BACKUP_RETENTION",
    "BACKUP_TIMEOUT_SECONDS",
    "BACKUP_PROOF",
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
    "ALLOWED_HOSTS",
    "ROLLBACK_DATABASE",
    "RESUME",
    "START_TIMEOUT_SECONDS",
    "HEALTH_TIMEOUT_SECONDS",
    "LOG",
    "LOG_FORMAT",
];

/// The longest time that any timeout may be: a week.
const LONGEST: u64 = 7 * 24 * 3600;

/// What is wrong with the settings, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings can't be used:\n{}", .0.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// What a command needs to reach the daemon.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `RUN_DIR/updater.sock`
    pub socket_path: PathBuf,
    /// `UPDATER_PORT`
    pub port: u16,
    /// `STATE_DIR`
    pub state_dir: PathBuf,
}

impl Settings {
    /// Reads and checks all settings; answers warnings beside them.
    ///
    /// # Errors
    /// [`ConfigError`] names every bad value.
    pub fn load() -> Result<(Self, Vec<String>), ConfigError> {
        let values = Values::read(&|key| std::env::var(key).ok(), &files());
        Self::from_values(values)
    }

    fn from_values(mut values: Values) -> Result<(Self, Vec<String>), ConfigError> {
        let v = &mut values;
        let state_dir = v.directory("STATE_DIR", "/var/lib/payram-updater");
        let backup_dir =
            state_dir.join(v.text("BACKUP_DIR").unwrap_or_else(|| "data/backups".into()));
        let settings = Self {
            port: v.number("UPDATER_PORT", 2567, 1, u64::from(u16::MAX)) as u16,
            policy_url: v.source("POLICY_URL"),
            manifest_url: v.source("RUNTIME_MANIFEST_URL"),
            fetch_timeout: v.seconds("FETCH_TIMEOUT_SECONDS", 10),
            run_dir: v.directory("RUN_DIR", "/run/payram-updater"),
            docker_bin: v.text("DOCKER_BIN").unwrap_or_else(|| "docker".into()),
            docker_host: v.text("DOCKER_HOST"),
            backup_dir,
            backup_retention: NonZeroU32::new(v.number("BACKUP_RETENTION", 10, 1, 100_000) as u32)
                .unwrap_or(NonZeroU32::MIN),
            backup_timeout: v.seconds("BACKUP_TIMEOUT_SECONDS", 600),
            backup_proof: v.choice(
                "BACKUP_PROOF",
                &[
                    ("full", BackupProof::Full),
                    ("toc", BackupProof::Toc),
                    ("off", BackupProof::Off),
                ],
            ),
            pg: PgDefaults {
                host: v.text("PG_HOST").unwrap_or_else(|| "127.0.0.1".into()),
                port: v.number("PG_PORT", 5432, 1, u64::from(u16::MAX)) as u16,
                database: v.text("PG_DB").unwrap_or_else(|| "payram".into()),
                user: v.text("PG_USER").unwrap_or_else(|| "payram".into()),
                password: Secret::new(v.text("PG_PASSWORD").unwrap_or_default()),
            },
            debug_version_mode: v.boolean("DEBUG_VERSION_MODE"),
            image_repo_override: v.text("IMAGE_REPO_OVERRIDE"),
            target_container_name: v.text("TARGET_CONTAINER_NAME"),
            core_base_url: v.url("CORE_BASE_URL"),
            dry_run: v.choice("EXECUTION_MODE", &[("execute", false), ("dry-run", true)]),
            supervisor_exclude: v
                .list("SUPERVISOR_EXCLUDE")
                .unwrap_or_else(|| vec!["postgres".into(), "postgresql".into()]),
            supervisor_include: v.list("SUPERVISOR_INCLUDE"),
            allowed_hosts: v.list("ALLOWED_HOSTS").unwrap_or_default(),
            rollback_database: v.choice(
                "ROLLBACK_DATABASE",
                &[
                    ("lossless", RollbackDatabase::Lossless),
                    ("manual", RollbackDatabase::Manual),
                    ("always", RollbackDatabase::Always),
                ],
            ),
            resume: v.choice(
                "RESUME",
                &[
                    ("resume", Resume::Resume),
                    ("rollback", Resume::Rollback),
                    ("manual", Resume::Manual),
                ],
            ),
            start_timeout: v.seconds("START_TIMEOUT_SECONDS", 900),
            health_timeout: v.seconds("HEALTH_TIMEOUT_SECONDS", 60),
            log: v.log_filter(),
            log_format: v
                .choice("LOG_FORMAT", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            state_dir,
        };
        if values.bad.is_empty() {
            Ok((settings, values.warnings))
        } else {
            Err(ConfigError(values.bad))
        }
    }
}

impl ClientSettings {
    /// Reads what is needed to reach the daemon. Files that this user may not read are passed
    /// over, and so is what is wrong elsewhere.
    pub fn load() -> Self {
        let mut values = Values::read(&|key| std::env::var(key).ok(), &files());
        Self {
            socket_path: values.directory("RUN_DIR", "/run/payram-updater").join("updater.sock"),
            port: values.number("UPDATER_PORT", 2567, 1, u64::from(u16::MAX)) as u16,
            state_dir: values.directory("STATE_DIR", "/var/lib/payram-updater"),
        }
    }
}

/// A file that may hold settings, as it was read.
struct SettingsFile {
    path: PathBuf,
    text: io::Result<String>,
}

/// Those that exist, the strongest first.
fn files() -> Vec<SettingsFile> {
    [LOCAL_FILE, SYSTEM_FILE]
        .iter()
        .map(|path| SettingsFile { path: path.into(), text: std::fs::read_to_string(path) })
        .filter(|file| !file.text.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound))
        .collect()
}

/// The raw values with where they stand, and what is wrong with them.
struct Values {
    values: BTreeMap<String, (String, String)>,
    bad: Vec<String>,
    warnings: Vec<String>,
}

impl Values {
    fn read(environment: &dyn Fn(&str) -> Option<String>, files: &[SettingsFile]) -> Self {
        let mut read = Self { values: BTreeMap::new(), bad: Vec::new(), warnings: Vec::new() };
        // The weakest first, so that the stronger ones replace it.
        for file in files.iter().rev() {
            read.read_file(&file.path, &file.text);
        }
        for key in KEYS {
            if let Some(value) = environment(key) {
                read.values.insert(key.to_owned(), (value, "the environment".to_owned()));
            }
        }
        read
    }

    fn read_file(&mut self, path: &Path, text: &io::Result<String>) {
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.bad.push(format!("{}: {error}", path.display())),
        };
        let (assignments, bad) = env_file::parse(text);
        for (line, reason) in bad {
            self.bad.push(format!("{}:{line}: {reason}", path.display()));
        }
        for found in assignments {
            let place = format!("{}:{}", path.display(), found.line);
            if !KEYS.contains(&found.key.as_str()) {
                self.warnings.push(format!("{place}: {} is not a setting", found.key));
            }
            self.values.insert(found.key, (found.value, place));
        }
    }

    /// An empty value is none.
    fn text(&self, key: &str) -> Option<String> {
        self.values.get(key).map(|(value, _)| value.trim().to_owned()).filter(|v| !v.is_empty())
    }

    fn refuse(&mut self, key: &str, allowed: &str) {
        if let Some((value, place)) = self.values.get(key) {
            self.bad.push(format!("{key}={value:?} ({place}): expected {allowed}"));
        }
    }

    fn number(&mut self, key: &str, default: u64, least: u64, most: u64) -> u64 {
        let Some(text) = self.text(key) else { return default };
        match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => number,
            Ok(_) | Err(_) => {
                self.refuse(key, &format!("a whole number from {least} to {most}"));
                default
            }
        }
    }

    fn seconds(&mut self, key: &str, default: u64) -> Duration {
        Duration::from_secs(self.number(key, default, 1, LONGEST))
    }

    fn boolean(&mut self, key: &str) -> bool {
        self.choice(
            key,
            &[
                ("false", false),
                ("true", true),
                ("0", false),
                ("1", true),
                ("no", false),
                ("yes", true),
            ],
        )
    }

    /// One of these words, in any case; the first is the default.
    fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        let text = self.text(key);
        let found = words
            .iter()
            .find(|(word, _)| text.as_ref().is_some_and(|text| text.eq_ignore_ascii_case(word)));
        if let Some((_, value)) = found {
            return *value;
        }
        if text.is_some() {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(key, &allowed.join(", "));
        }
        // Every list of words is written here and has a first.
        words[0].1
    }

    fn list(&self, key: &str) -> Option<Vec<String>> {
        let text = self.text(key)?;
        Some(text.split(',').map(|item| item.trim().to_owned()).filter(|i| !i.is_empty()).collect())
    }

    fn directory(&mut self, key: &str, default: &str) -> PathBuf {
        let text = self.text(key).unwrap_or_else(|| default.to_owned());
        if !text.starts_with('/') {
            self.refuse(key, "an absolute path");
        }
        PathBuf::from(text)
    }

    /// Required: a URL or a path.
    fn source(&mut self, key: &str) -> String {
        match self.text(key) {
            Some(text) if text.contains("://") && http_url(&text).is_none() => {
                self.refuse(key, "an http:// or https:// URL, or a path");
                String::new()
            }
            Some(text) => text,
            None => {
                self.bad.push(format!("{key} is missing: an http(s):// URL, or a path"));
                String::new()
            }
        }
    }

    fn url(&mut self, key: &str) -> Option<Url> {
        let text = self.text(key)?;
        let url = http_url(&text);
        if url.is_none() {
            self.refuse(key, "an http:// or https:// URL");
        }
        url
    }

    fn log_filter(&mut self) -> String {
        let text = self.text("LOG").unwrap_or_else(|| "info".to_owned());
        if EnvFilter::try_new(&text).is_err() {
            self.refuse("LOG", "error, warn, info, debug, trace, or a filter like info,hyper=warn");
        }
        text
    }
}

fn http_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Loaded = Result<(Settings, Vec<String>), ConfigError>;

    fn load(environment: &[(&str, &str)], files: &[(&str, &str)]) -> Loaded {
        let of = |key: &str| {
            environment.iter().find(|(k, _)| *k == key).map(|(_, value)| (*value).to_owned())
        };
        let files: Vec<SettingsFile> = files
            .iter()
            .map(|(path, text)| SettingsFile { path: path.into(), text: Ok((*text).to_owned()) })
            .collect();
        Settings::from_values(Values::read(&of, &files))
    }

    const REQUIRED: &str = "POLICY_URL=/p.json\nRUNTIME_MANIFEST_URL=https://example.com/m.json\n";

    #[test]
    fn defaults_are_those_of_the_contract() {
        let (settings, warnings) = load(&[], &[("/etc/u.env", REQUIRED)]).expect("loads");
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(settings.port, 2567);
        assert_eq!(settings.backup_dir, Path::new("/var/lib/payram-updater/data/backups"));
        assert_eq!(settings.socket_path(), Path::new("/run/payram-updater/updater.sock"));
        assert_eq!(settings.supervisor_exclude, ["postgres", "postgresql"]);
        assert_eq!(settings.backup_proof, BackupProof::Full);
        assert_eq!(settings.rollback_database, RollbackDatabase::Lossless);
        assert_eq!(settings.start_timeout.as_secs(), 900);
        assert!(!settings.dry_run);
    }

    #[test]
    fn the_environment_wins_over_the_directory_over_the_machine() {
        let machine = format!("{REQUIRED}UPDATER_PORT=1000\nPG_DB=machine\nPG_USER=machine\n");
        let files = [(".env", "UPDATER_PORT=2000\nPG_DB=directory\n"), ("/etc/u.env", &machine)];
        let (settings, _) = load(&[("UPDATER_PORT", "3000")], &files).expect("loads");
        assert_eq!(settings.port, 3000);
        assert_eq!(
            (settings.pg.database, settings.pg.user),
            ("directory".into(), "machine".into())
        );
    }

    #[test]
    fn every_bad_value_is_named_with_its_place_and_what_is_allowed() {
        let text = "UPDATER_PORT=0\nBACKUP_RETENTION=none\nEXECUTION_MODE=maybe\n\
                    CORE_BASE_URL=ftp://x\nSTATE_DIR=relative\nLOG=a=b=c\nPOLICY_URL=gopher://x\n";
        let ConfigError(bad) = load(&[], &[("/etc/u.env", text)]).expect_err("refused");
        assert_eq!(bad.len(), 8, "{bad:#?}");
        let all = bad.join("\n");
        for part in [
            "UPDATER_PORT=\"0\" (/etc/u.env:1): expected a whole number from 1 to 65535",
            "EXECUTION_MODE=\"maybe\" (/etc/u.env:3): expected execute, dry-run",
            "STATE_DIR=\"relative\" (/etc/u.env:5): expected an absolute path",
            "RUNTIME_MANIFEST_URL is missing",
        ] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
    }

    #[test]
    fn an_unknown_key_of_a_file_warns_and_a_password_is_never_shown() {
        let text = format!("{REQUIRED}PG_PASSWORD=hunter22\nBACKUP_DRI=/x\nUPDATER_PORT=x\n");
        let error = load(&[], &[("u.env", &text)]).expect_err("refused").to_string();
        assert!(!error.contains("hunter22"), "{error}");
        let text = text.replace("UPDATER_PORT=x", "");
        let (settings, warnings) = load(&[], &[("u.env", &text)]).expect("loads");
        assert_eq!(warnings, ["u.env:4: BACKUP_DRI is not a setting"]);
        assert!(!format!("{settings:?}").contains("hunter22"));
    }
}
