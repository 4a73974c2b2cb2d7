//! A plan as this host's journal allows it: what failed here before is not offered again, and
//! nothing begins while the last upgrade waits for a person.
//!
//! Called by `api` and by auto-update, which read the journal each in its own way. Reads only.

use super::{Measured, refusal_after};
use crate::config::Settings;
use crate::engine::Engine;
use crate::journal::{JobRecord, Quarantined};
use crate::plan::{self, Plan, Request};

/// Plans what is asked; `quarantined`, `last` and `measured` are what the journal holds.
pub async fn make_plan(
    settings: &Settings,
    engine: &dyn Engine,
    request: &Request,
    quarantined: &[Quarantined],
    last: Option<&JobRecord>,
    measured: Option<&Measured>,
) -> Plan {
    let mut plan = plan::make(settings, engine, request).await;
    plan::quarantine::check(engine, &mut plan, quarantined).await;
    if let Some(refused) = last.and_then(refusal_after) {
        plan.refuse(&refused);
    }
    if let Some(measured) = measured.filter(|one| one.container == plan.container_name) {
        plan.expect_downtime(measured.seconds, measured.sentence());
    }
    plan
}
