//! `inspect`: what state the shop is in, and what to do about it (contract section 6).
//!
//! [`inspect`] gathers what is seen (journal, engine, container, core, policy), [`verdict`]
//! judges it without I/O. Called by the API, and by the command itself when no daemon answers.
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

use std::sync::Arc;

use crate::config::Settings;
use crate::engine::Engine;
use crate::journal::{JobRecord, Reader};
use crate::machine::Phase;
use crate::machine::failure::FailureCode;
use crate::plan::playbook::{self, Playbook};

/// Looks at everything and judges it. `blocked` is what keeps the daemon from its journal.
pub async fn inspect(
    settings: &Settings,
    engine: &dyn Engine,
    reader: &Arc<Reader>,
    chain: Chain<'_>,
    blocked: Option<&str>,
) -> Report {
    let mut seen = seen::look(settings, engine, Some((reader, chain))).await;
    seen.blocked = blocked.map(str::to_owned);
    verdict::judge(settings, &seen)
}

/// The same where there is no journal yet.
pub async fn inspect_without_journal(settings: &Settings, engine: &dyn Engine) -> Report {
    let seen = seen::look(settings, engine, None).await;
    verdict::judge(settings, &seen)
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
