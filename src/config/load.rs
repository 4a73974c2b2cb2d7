//! Loads the settings: each key with its default, what is allowed, and where it goes.
//!
//! This is the one list of keys; a key that is not taken here is unknown. Called by `serve`
//! ([`Settings::load`]) and by the commands ([`ClientSettings::load`]).

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::sources::{ConfigError, Reader, Sources};
use super::values;
use super::window::Window;
use super::{
    BackupProof, ClientSettings, LogFormat, PgDefaults, Resume, RollbackDatabase, Settings,
};
use crate::secret::Secret;

/// `BACKUP_RETENTION` unless set.
// `new` is none only of 0.
#[allow(clippy::unwrap_used)]
const BACKUP_RETENTION: NonZeroU32 = NonZeroU32::new(10).unwrap();

const PORT: &str = "a port, 1 to 65535";
const SECONDS: &str = "whole seconds, 1 to 604800";
const URL_OR_PATH: &str = "an http:// or https:// URL, or a path";
const ABSOLUTE_PATH: &str = "an absolute path";
const BOOLEAN: &str = "true, false, 1, 0, yes or no";
const LINE: &str = "text on one line";
const NAMES: &str = "names separated by commas";

impl Settings {
    /// The settings of this process, and a sentence for each line of the files that means
    /// nothing.
    ///
    /// # Errors
    /// Everything that is wrong, at once; a file that exists and can't be read is wrong.
    pub fn load() -> Result<(Self, Vec<String>), ConfigError> {
        Self::from_sources(&Sources::of_this_process())
    }

    /// The settings that these sources make.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_sources(sources: &Sources<'_>) -> Result<(Self, Vec<String>), ConfigError> {
        let mut reader = Reader::new(sources);
        let settings = take_all(&mut reader);
        let mut problems = reader.take_file_problems();
        problems.extend(reader.take_value_problems());
        if problems.is_empty() {
            Ok((settings, reader.warnings()))
        } else {
            Err(ConfigError { problems })
        }
    }
}

impl ClientSettings {
    /// What a command of this process needs. Files that can't be read, as by an ordinary user,
    /// and bad values of other keys don't matter.
    ///
    /// # Errors
    /// When a value that is needed is bad.
    pub fn load() -> Result<Self, ConfigError> {
        Self::from_sources(&Sources::of_this_process())
    }

    /// What these sources make.
    ///
    /// # Errors
    /// As [`ClientSettings::load`].
    pub fn from_sources(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let socket_path = run_dir(&mut reader).join(values::SOCKET_NAME);
        let port = updater_port(&mut reader);
        let state_dir = state_dir(&mut reader);
        let problems = reader.take_value_problems();
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let unread = reader.take_file_problems().iter().map(ToString::to_string).collect();
        Ok(Self { socket_path, port, state_dir, unread })
    }
}

fn updater_port(reader: &mut Reader<'_>) -> u16 {
    reader.or("UPDATER_PORT", PORT, 2567, values::port)
}

fn state_dir(reader: &mut Reader<'_>) -> PathBuf {
    let default = PathBuf::from("/var/lib/payram-updater");
    reader.or("STATE_DIR", ABSOLUTE_PATH, default, values::absolute_path)
}

fn run_dir(reader: &mut Reader<'_>) -> PathBuf {
    let default = PathBuf::from("/run/payram-updater");
    let allowed = "an absolute path of at most 94 bytes, so that a socket fits below it";
    reader.or("RUN_DIR", allowed, default, values::socket_directory)
}

pub(super) fn take_all(reader: &mut Reader<'_>) -> Settings {
    let seconds = |reader: &mut Reader<'_>, key, default| {
        reader.or(key, SECONDS, Duration::from_secs(default), values::seconds)
    };
    let state_dir = state_dir(reader);
    Settings {
        port: updater_port(reader),
        policy_url: reader.required("POLICY_URL", URL_OR_PATH, values::url_or_path),
        manifest_url: reader.required("RUNTIME_MANIFEST_URL", URL_OR_PATH, values::url_or_path),
        fetch_timeout: seconds(reader, "FETCH_TIMEOUT_SECONDS", 10),
        run_dir: run_dir(reader),
        docker_bin: reader.or("DOCKER_BIN", LINE, "docker".into(), values::line),
        docker_host: reader.optional(
            "DOCKER_HOST",
            "unix:///PATH, tcp://HOST:PORT or http://HOST:PORT",
            values::engine_endpoint,
        ),
        backup_dir: state_dir.join(reader.or(
            "BACKUP_DIR",
            "a path, absolute or below STATE_DIR",
            PathBuf::from("data/backups"),
            values::path,
        )),
        backup_retention: reader.or(
            "BACKUP_RETENTION",
            "a whole number, 1 or more",
            BACKUP_RETENTION,
            values::count,
        ),
        backup_timeout: seconds(reader, "BACKUP_TIMEOUT_SECONDS", 600),
        backup_proof: reader.or("BACKUP_PROOF", "full, toc or off", BackupProof::Full, |text| {
            let words =
                [("full", BackupProof::Full), ("toc", BackupProof::Toc), ("off", BackupProof::Off)];
            values::word(text, &words)
        }),
        backup_copy_command: reader.optional(
            "BACKUP_COPY_COMMAND",
            "a command line; the backup's path is added at its end",
            values::line,
        ),
        pg: PgDefaults {
            host: reader.or("PG_HOST", LINE, "127.0.0.1".into(), values::line),
            port: reader.or("PG_PORT", PORT, 5432, values::port),
            database: reader.or("PG_DB", LINE, "payram".into(), values::line),
            user: reader.or("PG_USER", LINE, "payram".into(), values::line),
            password: reader.or(
                "PG_PASSWORD",
                "text without a NUL",
                Secret::new(String::new()),
                |text| values::any_text(text).map(Secret::new),
            ),
        },
        debug_version_mode: reader.or("DEBUG_VERSION_MODE", BOOLEAN, false, values::boolean),
        image_repo_override: reader.optional(
            "IMAGE_REPO_OVERRIDE",
            "an image repository without a tag, such as payramapp/payram",
            values::image_repository,
        ),
        target_container_name: reader.optional(
            "TARGET_CONTAINER_NAME",
            "a container's name: letters, digits, `_`, `.` and `-`",
            values::container_name,
        ),
        core_base_url: reader.optional(
            "CORE_BASE_URL",
            "an http:// or https:// URL without user, query and fragment",
            values::base_url,
        ),
        answer_timeout: seconds(reader, "ANSWER_TIMEOUT_SECONDS", 10),
        pull_silence: seconds(reader, "PULL_SILENCE_SECONDS", 600),
        dry_run: reader.or("EXECUTION_MODE", "execute or dry-run", false, |text| {
            values::word(text, &[("execute", false), ("dry-run", true)])
        }),
        supervisor_exclude: reader.or(
            "SUPERVISOR_EXCLUDE",
            NAMES,
            vec!["postgres".into(), "postgresql".into()],
            values::list,
        ),
        supervisor_include: reader.optional("SUPERVISOR_INCLUDE", NAMES, values::list),
        allowed_hosts: reader.or(
            "ALLOWED_HOSTS",
            "names or addresses of hosts separated by commas, without scheme and port",
            Vec::new(),
            values::hosts,
        ),
        rollback_database: reader.or(
            "ROLLBACK_DATABASE",
            "lossless, manual or always",
            RollbackDatabase::Lossless,
            |text| {
                let words = [
                    ("lossless", RollbackDatabase::Lossless),
                    ("manual", RollbackDatabase::Manual),
                    ("always", RollbackDatabase::Always),
                ];
                values::word(text, &words)
            },
        ),
        resume: reader.or("RESUME", "resume, rollback or manual", Resume::Resume, |text| {
            let words = [
                ("resume", Resume::Resume),
                ("rollback", Resume::Rollback),
                ("manual", Resume::Manual),
            ];
            values::word(text, &words)
        }),
        start_timeout: seconds(reader, "START_TIMEOUT_SECONDS", 900),
        health_timeout: seconds(reader, "HEALTH_TIMEOUT_SECONDS", 60),
        verify_for: seconds(reader, "VERIFY_SECONDS", 20),
        probation: reader.or(
            "PROBATION_MINUTES",
            "minutes, 0 to 10080, with decimals where wanted",
            Duration::from_secs(15 * 60),
            values::minutes,
        ),
        keep_previous: reader.or(
            "KEEP_PREVIOUS_HOURS",
            "hours, 0 to 8760, with decimals where wanted",
            Duration::from_secs(72 * 3600),
            values::hours,
        ),
        rehearsal_dir: state_dir.join(reader.or(
            "REHEARSAL_DIR",
            "a path, absolute or below STATE_DIR",
            PathBuf::from("rehearsal"),
            values::path,
        )),
        rehearsal_within: reader.or(
            "REHEARSAL_MINUTES",
            "minutes, more than 0 and up to 10080, with decimals where wanted",
            Duration::from_secs(30 * 60),
            |text| values::minutes(text).filter(|within| !within.is_zero()),
        ),
        auto_update_window: reader.or(
            "AUTO_UPDATE_WINDOW",
            "any, or days and hours such as `Sat,Sun 02:00-05:00; Mon-Fri 22:00-04:00`",
            Window::default(),
            Window::parse,
        ),
        notify_url: reader.optional(
            "NOTIFY_URL",
            "an http:// or https:// URL that takes a POST",
            |text| values::web_hook(text).map(Secret::new),
        ),
        notify_secret: reader.optional("NOTIFY_SECRET", "text without a NUL", |text| {
            values::any_text(text).map(Secret::new)
        }),
        log: reader.or(
            "LOG",
            "a level (error, warn, info, debug, trace) or target=level pairs",
            "info".into(),
            values::log_filter,
        ),
        log_format: reader.or("LOG_FORMAT", "text or json", LogFormat::Text, |text| {
            values::word(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
        }),
        state_dir,
    }
}

#[cfg(test)]
mod tests;
