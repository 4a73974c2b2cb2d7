//! `inspect`: what state the shop is in, and what to do about it (contract section 6).
//!
//! [`look`] gathers what is seen (journal, engine, container, core, policy), [`judge`] judges it
//! without I/O. Called by the API, and by the command itself when no daemon answers.
//! Reads only.

mod chain;
mod database;
mod report;
mod seen;
mod verdict;

pub use chain::Chain;
pub use report::{
    Action, CheckResult, CheckStatus, Issue, OverallState, Recommendation, Report, Severity,
};
pub use seen::Seen;

use std::sync::Arc;

use crate::config::Settings;
use crate::driver::Worker;
use crate::engine::Engine;
use crate::journal::{JobRecord, Reader, RestoreRecord};
use crate::machine::Phase;
use crate::machine::failure::FailureCode;
use crate::plan::playbook::{self, Playbook};
use crate::plan::quarantine::QuarantinedVersion;

/// Looks at everything; without `journal` where there is none yet.
pub async fn look(
    settings: &Settings,
    engine: &dyn Engine,
    journal: Option<(&Arc<Reader>, Chain<'_>)>,
) -> Seen {
    seen::look(settings, engine, journal).await
}

/// Versions whose tag still names an image that failed here; an error when the journal can't say.
pub(crate) async fn quarantined(
    engine: &dyn Engine,
    reader: Option<&Arc<Reader>>,
) -> Result<Vec<QuarantinedVersion>, String> {
    seen::quarantined(engine, reader).await
}

/// Judges what was seen; `worker` is who should work on an unfinished upgrade. Pure.
pub fn judge(settings: &Settings, seen: &Seen, worker: Worker<'_>) -> Report {
    verdict::judge(settings, seen, worker)
}

/// The playbook of a job that ended badly, with what is known of it filled in.
pub(crate) fn playbook_of_job(settings: &Settings, job: &JobRecord, code: FailureCode) -> Playbook {
    let known = job.hop().map(|hop| hop.machine.state().known());
    let facts = playbook::Facts {
        container_name: Some(job.body.container_name.clone()),
        base_url: settings.core_base_url.as_ref().map(ToString::to_string),
        image_repo: job.body.hops.first().map(|hop| hop.target.repo.clone()),
        backup_path: known.and_then(|known| known.backup).map(|backup| backup.path.clone()),
        failed_database: known
            .and_then(|known| known.restored)
            .map(|restored| restored.failed.clone()),
        export_path: known.and_then(|known| known.export).and_then(crate::driver::file_of),
        docker_bin: Some(settings.docker_bin.clone()),
        rolled_back: job.phase() == Phase::RolledBack,
        ..playbook::Facts::default()
    };
    playbook::playbook(code.as_str(), &facts)
}

/// The playbook of a restore that ended badly.
pub(crate) fn playbook_of_restore(
    settings: &Settings,
    job: &RestoreRecord,
    code: FailureCode,
) -> Playbook {
    let facts = playbook::Facts {
        container_name: job.body.container.as_ref().map(|container| container.name.clone()),
        base_url: settings.core_base_url.as_ref().map(ToString::to_string),
        backup_path: Some(job.body.file.clone()),
        docker_bin: Some(settings.docker_bin.clone()),
        ..playbook::Facts::default()
    };
    playbook::playbook(code.as_str(), &facts)
}
