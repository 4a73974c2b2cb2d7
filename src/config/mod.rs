//! The settings (contract section 9): read once at start, checked, and passed down.
//!
//! Environment before `.env` in the working directory before `/etc/payram/updater.env` before
//! the default. Everything here is valid: whoever holds [`Settings`] need not check again.
//!
//! `serve` reads [`Settings`]; the commands that only talk to the daemon read
//! [`ClientSettings`], which an ordinary user can.

mod env_file;
mod load;
mod sources;
mod survey;
mod values;
pub mod window;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use self::window::Window;
use crate::secret::Secret;

pub use crate::machine::facts::RollbackDatabase;
pub use sources::{ConfigError, Origin, Problem, SourceFile, Sources};
pub use survey::{EXAMPLE, Setting, Survey};

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `UPDATER_PORT`
    pub port: u16,
    /// `POLICY_URL`: where the upgrade policy is, an `http(s)://` URL or a path.
    pub policy_url: String,
    /// `RUNTIME_MANIFEST_URL`: where the runtime manifest is, an `http(s)://` URL or a path.
    pub manifest_url: String,
    /// `FETCH_TIMEOUT_SECONDS`
    pub fetch_timeout: Duration,
    /// `STATE_DIR`
    pub state_dir: PathBuf,
    /// `RUN_DIR`: the Unix socket's directory.
    pub run_dir: PathBuf,
    /// `DOCKER_BIN`
    pub docker_bin: String,
    /// `DOCKER_HOST`, which wins over the context of [`Settings::docker_bin`].
    pub docker_host: Option<String>,
    /// `BACKUP_DIR`, absolute: a relative one is below the state directory.
    pub backup_dir: PathBuf,
    /// `BACKUP_RETENTION`: backups kept.
    pub backup_retention: NonZeroU32,
    /// `BACKUP_TIMEOUT_SECONDS`
    pub backup_timeout: Duration,
    /// `BACKUP_PROOF`
    pub backup_proof: BackupProof,
    /// `BACKUP_COPY_COMMAND`: run after each proved backup, with its path as last argument.
    pub backup_copy_command: Option<String>,
    /// `PG_*`: the database where the container's environment does not name it.
    pub pg: PgDefaults,
    /// `DEBUG_VERSION_MODE`
    pub debug_version_mode: bool,
    /// `IMAGE_REPO_OVERRIDE`
    pub image_repo_override: Option<String>,
    /// `TARGET_CONTAINER_NAME`
    pub target_container_name: Option<String>,
    /// `CORE_BASE_URL`
    pub core_base_url: Option<Url>,
    /// `ANSWER_TIMEOUT_SECONDS`: how long one answer of the core may take.
    pub answer_timeout: Duration,
    /// `PULL_SILENCE_SECONDS`: how long a pull may go on without a word of the engine.
    pub pull_silence: Duration,
    /// `EXECUTION_MODE=dry-run`: jobs stop after the plan.
    pub dry_run: bool,
    /// `SUPERVISOR_EXCLUDE`: programs that are never stopped.
    pub supervisor_exclude: Vec<String>,
    /// `SUPERVISOR_INCLUDE`: when set, the only programs that are stopped.
    pub supervisor_include: Option<Vec<String>>,
    /// `ALLOWED_HOSTS`: further names that a `Host` header may carry.
    pub allowed_hosts: Vec<String>,
    /// `ROLLBACK_DATABASE`
    pub rollback_database: RollbackDatabase,
    /// `RESUME`
    pub resume: Resume,
    /// `START_TIMEOUT_SECONDS`: from a start to the first answer, migrations included.
    pub start_timeout: Duration,
    /// `HEALTH_TIMEOUT_SECONDS`: from the first answer to healthy.
    pub health_timeout: Duration,
    /// `VERIFY_SECONDS`: how long a version is watched, without a break, before it is believed.
    pub verify_for: Duration,
    /// `PROBATION_MINUTES`: how long the watch goes on after `Verified`, with everything for the
    /// way back still there.
    pub probation: Duration,
    /// `KEEP_PREVIOUS_HOURS`: how long the database as it was before a failed version's workers
    /// wrote to it is kept, at least; an upgrade that is verified later removes it.
    pub keep_previous: Duration,
    /// `REHEARSAL_DIR`: where a rehearsal makes its copy, absolute.
    pub rehearsal_dir: PathBuf,
    /// `REHEARSAL_MINUTES`: how long one may take.
    pub rehearsal_within: Duration,
    /// `AUTO_UPDATE_WINDOW`: when an upgrade may begin by itself.
    pub auto_update_window: Window,
    /// `NOTIFY_URL`: where what happens is posted to. The address itself may be the secret.
    pub notify_url: Option<Secret<Url>>,
    /// `NOTIFY_SECRET`: what is posted is signed with it.
    pub notify_secret: Option<Secret<String>>,
    /// `LOG`: a filter of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// `LOG_FORMAT`
    pub log_format: LogFormat,
}

/// How a backup is proved (`BACKUP_PROOF`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupProof {
    /// `full`: restored into a scratch database on the same server and compared.
    Full,
    /// `toc`: its table of contents is read back.
    Toc,
    /// `off`
    Off,
}

/// What a restarted daemon does with an unfinished upgrade (`RESUME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Goes on.
    Resume,
    /// Goes back.
    Rollback,
    /// Waits for `recover`.
    Manual,
}

/// `LOG_FORMAT`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for a person.
    Text,
    /// A JSON object a line.
    Json,
}

/// The database where the container's environment does not name it.
#[derive(Clone, Debug)]
pub struct PgDefaults {
    /// `PG_HOST`
    pub host: String,
    /// `PG_PORT`
    pub port: u16,
    /// `PG_DB`
    pub database: String,
    /// `PG_USER`
    pub user: String,
    /// `PG_PASSWORD`
    pub password: Secret<String>,
}

impl Settings {
    /// Where the journal lies.
    pub fn journal_path(&self) -> PathBuf {
        self.state_dir.join("journal.db")
    }

    /// The Unix socket for the commands.
    pub fn socket_path(&self) -> PathBuf {
        self.run_dir.join(values::SOCKET_NAME)
    }
}

/// What a command needs to reach the daemon and its journal.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The Unix socket for the commands, below `RUN_DIR`.
    pub socket_path: PathBuf,
    /// `UPDATER_PORT`
    pub port: u16,
    /// `STATE_DIR`
    pub state_dir: PathBuf,
    /// Files of settings that exist and could not be read, each with why: what they say is not
    /// in here, which may be why the daemon is not found.
    pub unread: Vec<String>,
}
