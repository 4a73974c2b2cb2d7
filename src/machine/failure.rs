//! What can go wrong, by name: the stable codes and the failure that carries one.
//!
//! The text that an operator reads for each code (severity, title, steps) is not here but in
//! the table of `plan::playbook`; a test there says when a code has no entry.

use serde::{Deserialize, Serialize};

macro_rules! failure_codes {
    ($($variant:ident => $name:literal),+ $(,)?) => {
        /// A stable failure code (contract section 10). Written as text everywhere outside.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum FailureCode {
            $(
                #[doc = concat!("`", $name, "`")]
                #[serde(rename = $name)]
                $variant,
            )+
        }

        impl FailureCode {
            /// Every code there is, for tables and tests.
            pub const ALL: &'static [FailureCode] = &[$(FailureCode::$variant),+];

            /// The code as the API, the journal and the playbooks write it.
            pub fn as_str(self) -> &'static str {
                match self { $(FailureCode::$variant => $name),+ }
            }
        }
    };
}

failure_codes! {
    PolicyFetchFailed => "POLICY_FETCH_FAILED",
    PolicyInvalidJson => "POLICY_INVALID_JSON",
    PolicyRequired => "POLICY_REQUIRED",
    PolicyInvalidGate => "POLICY_INVALID_GATE",
    ManifestFetchFailed => "MANIFEST_FETCH_FAILED",
    ManifestInvalidJson => "MANIFEST_INVALID_JSON",
    InvalidTarget => "INVALID_TARGET",
    CurrentVersionUnknown => "CURRENT_VERSION_UNKNOWN",
    VersionNotInPolicy => "VERSION_NOT_IN_POLICY",
    DowngradeNotAllowed => "DOWNGRADE_NOT_ALLOWED",
    AlreadyOnTarget => "ALREADY_ON_TARGET",
    ManualUpgradeRequired => "MANUAL_UPGRADE_REQUIRED",
    RecoveryRequired => "RECOVERY_REQUIRED",
    ConcurrencyBlocked => "CONCURRENCY_BLOCKED",
    DockerDaemonDown => "DOCKER_DAEMON_DOWN",
    DockerError => "DOCKER_ERROR",
    DockerPullFailed => "DOCKER_PULL_FAILED",
    DockerRunBuildFailed => "DOCKER_RUN_BUILD_FAILED",
    SpecParityFailed => "SPEC_PARITY_FAILED",
    PortConflict => "PORT_CONFLICT",
    ContainerOwned => "CONTAINER_OWNED",
    ImageNotFound => "IMAGE_NOT_FOUND",
    ImageArchitecture => "IMAGE_ARCHITECTURE",
    ImageDerived => "IMAGE_DERIVED",
    RegistryLogin => "REGISTRY_LOGIN",
    ContainerNameUnresolved => "CONTAINER_NAME_UNRESOLVED",
    ContainerNotFound => "CONTAINER_NOT_FOUND",
    PayramContainerNotFound => "PAYRAM_CONTAINER_NOT_FOUND",
    RuntimeInspectionFailed => "RUNTIME_INSPECTION_FAILED",
    CoreNotVisible => "CORE_NOT_VISIBLE",
    CoreUnhealthy => "CORE_UNHEALTHY",
    DatabaseNotPersistent => "DATABASE_NOT_PERSISTENT",
    DatabaseMismatch => "DATABASE_MISMATCH",
    DatabaseDamaged => "DATABASE_DAMAGED",
    DatabaseShared => "DATABASE_SHARED",
    PostgresMajorChange => "POSTGRES_MAJOR_CHANGE",
    VersionQuarantined => "VERSION_QUARANTINED",
    PlanChanged => "PLAN_CHANGED",
    RehearsalFailed => "REHEARSAL_FAILED",
    RestorePointFailed => "RESTORE_POINT_FAILED",
    InvalidDbConfig => "INVALID_DB_CONFIG",
    DiskSpaceLow => "DISK_SPACE_LOW",
    BackupFailed => "BACKUP_FAILED",
    BackupFailedAfterQuiesce => "BACKUP_FAILED_AFTER_QUIESCE",
    BackupTimeout => "BACKUP_TIMEOUT",
    BackupInvalid => "BACKUP_INVALID",
    RestoreFailed => "RESTORE_FAILED",
    SupervisorctlFailed => "SUPERVISORCTL_FAILED",
    HealthcheckFailed => "HEALTHCHECK_FAILED",
    VersionMismatch => "VERSION_MISMATCH",
    MigrationTimeout => "MIGRATION_TIMEOUT",
    MigrationFailed => "MIGRATION_FAILED",
    StepInterrupted => "STEP_INTERRUPTED",
    Cancelled => "CANCELLED",
    Unknown => "UNKNOWN",
}

impl FailureCode {
    /// Whether a new version that failed with it had its trial and did not pass, or was called
    /// off. All others are troubles around it, through which it may serve all the same.
    pub fn is_a_verdict(self) -> bool {
        matches!(
            self,
            FailureCode::HealthcheckFailed
                | FailureCode::VersionMismatch
                | FailureCode::MigrationTimeout
                | FailureCode::MigrationFailed
                | FailureCode::DatabaseMismatch
                | FailureCode::DatabaseDamaged
                | FailureCode::Cancelled
        )
    }
}

impl std::fmt::Display for FailureCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure that reaches an operator: a code, and a sentence with the evidence in it
/// (what was being done, to what, what was expected, what was found).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// The sentence for a person. Never holds a secret (I10).
    pub message: String,
}

impl Failure {
    /// A failure with this code and sentence.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
