//! The shapes of the report.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::driver::JobView;
use crate::plan::playbook::Playbook;
use crate::plan::updates::UpdateInfo;

/// The verdict, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OverallState {
    /// Nothing to do.
    Ok,
    /// Something is amiss; the application may serve.
    Degraded,
    /// An operator is needed.
    Broken,
}

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Makes the state DEGRADED.
    Warning,
    /// Makes the state BROKEN.
    Critical,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Not as it should be, and not fatal.
    Warning,
    /// As it must not be.
    Failed,
    /// Could not be looked at.
    Unknown,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `payram-updater recover`
    Recover,
    /// Run the upgrade again.
    Retry,
    /// Load the rows of a failed version that were set aside, or dismiss them.
    LoadRows,
    /// Have what else manages the container leave it alone, or follow the upgrade.
    HandOver,
    /// Put a backup back.
    RestoreDb,
    /// Put the old version back by hand.
    ManualRollback,
    /// `payram-updater sync`
    Sync,
    /// Ask the vendor.
    ContactSupport,
    /// Install again.
    Reinstall,
    /// Wait for what is under way.
    Wait,
    /// Nothing.
    None,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// The check it comes from.
    pub component: String,
    /// A sentence with the evidence.
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
}

/// Something to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// What.
    pub action: Action,
    /// How.
    pub description: String,
    /// 1 is first.
    pub priority: u8,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// How it ended.
    pub status: CheckStatus,
    /// A sentence.
    pub message: String,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The verdict.
    pub overall_state: OverallState,
    /// What was found, worst first.
    pub issues: Vec<Issue>,
    /// What to do, most urgent first.
    pub recommendations: Vec<Recommendation>,
    /// The last job, as the status shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_job: Option<JobView>,
    /// What to do about its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_playbook: Option<Playbook>,
    /// Whether there is a newer version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_info: Option<UpdateInfo>,
    /// Each check by name.
    pub checks: BTreeMap<String, CheckResult>,
}
