//! From a request to a plan: which version, by which route, whether it may be and can be done.
//!
//! Called by `api` (plan, run) and by auto-update. Reads only: no job, no log line, no change
//! at the engine.
//!
//! `make`, `surroundings` and `owners` do the looking; the deciding is pure and has a file for each subject: `versions`
//! and `architecture`, `route`, `current`, `space`, `visibility`, `updates`, `quarantine`,
//! `playbook`.

mod after;
mod architecture;
mod coming;
mod current;
mod environment;
pub mod fetch;
pub mod hash;
mod image;
mod make;
pub mod manifest;
pub(crate) mod mounted;
pub mod offers;
mod origin;
pub mod owners;
pub mod playbook;
pub mod policy;
mod preflight;
pub mod quarantine;
pub mod route;
mod shape;
pub mod space;
mod surroundings;
#[cfg(test)]
pub(crate) mod testing;
pub mod updates;
pub mod versions;
mod visibility;

pub(crate) use image::runs;
pub use make::make;
pub(crate) use preflight::free_bytes;

use environment::Environment;
use quarantine::QuarantinedVersion;

use serde::{Deserialize, Serialize};

use crate::journal::{JobBody, Mode, Task};
use crate::machine::failure::Failure;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who decides.
    pub mode: Mode,
    /// `latest`, or a version.
    pub requested_target: String,
    /// What the caller says of itself; journaled.
    pub source: Option<String>,
    /// The version that serves now, when the caller knows it; otherwise it is found.
    pub current_version: Option<String>,
    /// Manual mode: allows a downgrade, the same version again, to go on from a version that is seen
    /// and is not well, and to replace an image of one's own.
    pub force: bool,
}

/// What came of it: the answer of `POST /upgrade/plan` (contract section 3), and the job that
/// a run would begin.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// `READY` or `FAILED`.
    pub state: PlanState,
    /// Who decides.
    pub mode: Mode,
    /// As asked.
    pub requested_target: String,
    /// The version to end at; empty when the plan failed before it was known.
    pub resolved_target: String,
    /// Empty when the plan is ready.
    pub failure_code: String,
    /// A sentence.
    pub message: String,
    /// `payramapp/payram`; empty when unknown.
    pub image_repo: String,
    /// `payram`; empty when unknown.
    pub container_name: String,
    /// The version that serves now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
    /// Each hop, with why the route stops there.
    pub route: Vec<RouteHop>,
    /// The gate that ends the route below the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<StoppedAt>,
    /// What was checked, with what was needed and found.
    pub checks: Vec<Check>,
    /// Who else manages the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<owners::Owner>,
    /// What becomes of the container's environment, by the names of variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// What a person has to do once it has ended well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<Task>,
    /// What becomes of the shop and of its rows where the new version fails; none when refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// How long the shop will be down, of all hops together; none where nothing of it was ever
    /// measured here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_downtime_seconds: Option<f64>,
    /// What that is taken from, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_downtime_from: Option<String>,
    /// Things worth knowing that refuse nothing.
    pub notes: Vec<String>,
    /// Versions on the route whose image failed here before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedVersion>,
    /// What it saw that matters, for a run that is to do this and nothing else; none when it is
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// What a run would begin; none when the plan is refused.
    #[serde(skip)]
    pub job: Option<JobBody>,
}

/// The two states of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PlanState {
    /// It can be run.
    Ready,
    /// It is refused.
    Failed,
}

/// One hop of the route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteHop {
    /// The version.
    pub version: String,
    /// `payramapp/payram:1.9.7`
    pub image: String,
    /// Why the route stops there.
    pub why: String,
}

/// A gate that an operator must pass by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoppedAt {
    /// The gate.
    pub version: String,
    /// The policy's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy's documentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
}

/// One check of the preflight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// `engine`, `disk:backup`, …
    pub name: String,
    /// Whether it allows the run.
    pub passed: bool,
    /// A sentence: path, need, have, short by.
    pub message: String,
    /// Bytes needed, of a check about space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need_bytes: Option<u64>,
    /// Bytes free, of a check about space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub have_bytes: Option<u64>,
}

impl Plan {
    /// The code when it is refused.
    pub fn refusal(&self) -> Option<&str> {
        (self.state == PlanState::Failed).then_some(self.failure_code.as_str())
    }

    /// Expects of each hop what one cost here before; nothing of a plan that is refused.
    pub fn expect_downtime(&mut self, seconds: f64, from: String) {
        if self.state == PlanState::Ready {
            let all = seconds * self.route.len() as f64;
            // A tenth of a second is more than can be foretold.
            self.expected_downtime_seconds = Some((all * 10.0).round() / 10.0);
            self.expected_downtime_from = Some(from);
        }
    }

    /// Refuses it for a reason that the plan itself could not know.
    pub fn refuse(&mut self, failure: &Failure) {
        self.state = PlanState::Failed;
        self.failure_code = failure.code.to_string();
        self.message = failure.message.clone();
        self.plan_hash = None;
        self.expected_downtime_seconds = None;
        self.expected_downtime_from = None;
        self.job = None;
    }
}
