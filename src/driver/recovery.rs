//! `recover`: what the journal and the world say, and the safe thing to do about it.
//!
//! [`decide`] is pure: a table over the last job's state and the two containers. The driver
//! looks ([`look`]) and does what was decided. It never stops what serves, and where rows are
//! at stake it refuses until a person has said so (contract section 8).

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::{Engine, EngineError};
use crate::journal::JobRecord;
use crate::machine::facts::{Assessment, Copy};
use crate::machine::failure::FailureCode;
use crate::machine::{Event, State};

use super::effects::{is_running, was_started};
use super::narrate::kept;
use super::{export_path, failed_path};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// The restore point may come back, whatever rows of the failed version it forgets.
    pub restore_database: bool,
}

/// A container as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// There is none of this id.
    Gone,
    /// It was never started.
    Created,
    /// It has ended.
    Stopped,
    /// It runs.
    Running,
}

/// The two containers of the last hop, and whether the application answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// The container that served before the hop.
    pub old: Seen,
    /// The container of the new version.
    pub next: Seen,
    /// Whether the application behind either answers.
    pub serves: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing.
    Nothing,
    /// The job that is under way goes on by itself.
    GoOn,
    /// The way back is taken again.
    TakeWayBack(Event),
    /// The container that should serve is started again.
    StartOld,
    /// The same, of the new version.
    StartNext,
    /// What an ended upgrade left over is cleared.
    Tidy,
}

/// The answer of `recover` (contract section 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Whether it can be done, or nothing need be.
    pub success: bool,
    /// What is seen, what will be done, and why.
    pub message: String,
    /// `none`, `wait`, `retry`, `rollback`, `restore_database`, `start`, `tidy`, `changed`,
    /// `refused`.
    pub action: &'static str,
    /// The last job's failure code; empty when it has none.
    pub code: String,
    /// Why not, with the command that would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// What a restore of the database forgets, a line for each table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// Names exactly this decision, where rows are at stake: a consent to it is given back with
    /// it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shown: String,
    /// What the driver does.
    #[serde(skip)]
    pub remedy: Remedy,
}

impl Decision {
    pub(super) fn will(action: &'static str, remedy: Remedy, message: impl Into<String>) -> Self {
        Self {
            success: true,
            message: message.into(),
            action,
            code: String::new(),
            refusals: Vec::new(),
            found: Vec::new(),
            shown: String::new(),
            remedy,
        }
    }

    /// Not done, because it is not what was shown.
    pub(super) fn changed(self) -> Self {
        Self {
            success: false,
            action: "changed",
            message: format!(
                "what was found has changed since it was shown; now: {}",
                self.message
            ),
            refusals: vec!["nothing was done; look at it again: payram-updater recover".into()],
            remedy: Remedy::Nothing,
            ..self
        }
    }

    pub(super) fn refused(message: impl Into<String>, refusal: impl Into<String>) -> Self {
        Self {
            success: false,
            refusals: vec![refusal.into()],
            ..Self::will("refused", Remedy::Nothing, message)
        }
    }
}

/// Looks at the two containers of the last hop. `serves` is the caller's own observation.
pub async fn look(
    engine: &dyn Engine,
    job: &JobRecord,
    serves: bool,
) -> Result<World, EngineError> {
    let known = job.hop().map(|hop| hop.machine.state().known());
    let old = match known {
        Some(known) => seen(engine, &known.hop.old.id).await?,
        None => Seen::Gone,
    };
    let next = match known.and_then(|known| known.next) {
        Some(next) => seen(engine, &next.id).await?,
        None => Seen::Gone,
    };
    Ok(World { old, next, serves })
}

async fn seen(engine: &dyn Engine, id: &str) -> Result<Seen, EngineError> {
    Ok(match engine.inspect_container(id).await? {
        None => Seen::Gone,
        Some(container) if is_running(&container) => Seen::Running,
        Some(container) if was_started(&container) => Seen::Stopped,
        Some(_) => Seen::Created,
    })
}

/// What is to be done about the last job in this world. Pure.
pub fn decide(job: Option<&JobRecord>, world: World, consent: Consent) -> Decision {
    let Some(job) = job else {
        return Decision::will(
            "none",
            Remedy::Nothing,
            "no upgrade was ever run; nothing to recover",
        );
    };
    let code = job.ending.as_ref().and_then(|ending| ending.failure_code);
    let mut decision = decide_for(job, world, consent);
    decision.code = code.map(|code| code.to_string()).unwrap_or_default();
    if matches!(decision.remedy, Remedy::TakeWayBack(Event::RecoverRestoring)) {
        decision.shown = name_of(job, &decision);
    }
    decision
}

/// Another one whenever the journal of the job goes on or the sentence is another.
fn name_of(job: &JobRecord, decision: &Decision) -> String {
    let mut name = Sha256::new();
    for part in [job.id.to_string(), job.updated.rfc3339(), decision.message.clone()] {
        name.update((part.len() as u64).to_be_bytes());
        name.update(part.as_bytes());
    }
    name.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn decide_for(job: &JobRecord, world: World, consent: Consent) -> Decision {
    let target = &job.body.resolved_target;
    if job.is_active() {
        return Decision::will(
            "wait",
            Remedy::GoOn,
            format!(
                "the upgrade to {target} is unfinished ({}); it goes on from there",
                job.phase()
            ),
        );
    }
    let Some(hop) = job.hop() else {
        return Decision::will(
            "retry",
            Remedy::Nothing,
            format!("the upgrade to {target} never began; nothing was changed: run it again"),
        );
    };
    match hop.machine.state() {
        State::Verified(verified) => after_success(target, world, verified.is_tidy),
        State::RolledBack(_) => {
            let mut decision = after_rollback(target, world);
            if let Some(kept) = kept(&hop.machine) {
                decision.message = format!("{}; {kept}", decision.message);
            }
            decision
        }
        State::NeedsOperator(_)
            if job.ending.as_ref().is_some_and(|ending| ending.failure_code.is_none()) =>
        {
            let message = "what serves was recorded as good; nothing to recover";
            Decision::will("none", Remedy::Nothing, message)
        }
        State::NeedsOperator(needs) => {
            let mut decision = needs_operator(
                target,
                world,
                consent,
                needs.assessment.as_ref(),
                &needs.reason.code,
            );
            if decision.action == "restore_database" {
                decision.found = found(needs.assessment.as_ref());
                if !decision.found.is_empty() {
                    let found = decision.found.join("; ");
                    decision.message =
                        format!("{target} changed the database: {found}; {}", decision.message);
                }
                let copy = needs.interrupted.known().copy;
                let rows = what_becomes_of_rows(job, copy);
                decision.message = format!("{}; {rows}", decision.message);
            }
            decision
        }
        // A job that is not active rests in one of the three above, or is between two hops.
        State::Planned(_)
        | State::BackedUp(_)
        | State::Pulled(_)
        | State::Swapped(_)
        | State::RollingBack(_) => Decision::refused(
            format!(
                "the journal says that the upgrade to {target} ended in {}",
                hop.machine.phase()
            ),
            "this is a state that no rule covers; keep the journal and ask",
        ),
    }
}

/// What going back forgets, as it was found.
fn found(assessment: Option<&Assessment>) -> Vec<String> {
    match assessment {
        Some(Assessment::RowsChanged { tables }) => tables.clone(),
        Some(Assessment::Unreadable { reason }) => vec![format!("it can't be told: {reason}")],
        Some(Assessment::SchemaChanged { what }) => vec![format!("no row, but its schema: {what}")],
        Some(Assessment::Unchanged) | None => Vec::new(),
    }
}

/// Where the rows of the failed version will be.
fn what_becomes_of_rows(job: &JobRecord, copy: Option<&Copy>) -> String {
    match copy {
        Some(Copy::Directory { source, .. }) => {
            let failed = failed_path(source, &job.id, job.hops.len());
            let file = export_path(&failed);
            format!("it is kept in {failed}, and its rows are then exported to {file}")
        }
        Some(Copy::Dump { reason, .. }) => format!("its rows are not exported: {reason}"),
        None => "nothing is exported: the database was never copied".to_owned(),
    }
}

fn after_success(target: &str, world: World, is_tidy: bool) -> Decision {
    match world.next {
        Seen::Running if !is_tidy => Decision::will(
            "tidy",
            Remedy::Tidy,
            format!("{target} serves; what the upgrade left over is cleared"),
        ),
        Seen::Running => Decision::will(
            "none",
            Remedy::Nothing,
            format!("{target} was verified and its container runs; nothing to recover"),
        ),
        Seen::Stopped | Seen::Created if world.old != Seen::Running => Decision::will(
            "start",
            Remedy::StartNext,
            format!("{target} was verified and its container does not run; it is started"),
        ),
        Seen::Stopped | Seen::Created | Seen::Gone => Decision::refused(
            format!("the container of {target} was replaced by somebody else since"),
            "if what runs is right: payram-updater sync",
        ),
    }
}

fn after_rollback(target: &str, world: World) -> Decision {
    match world.old {
        Seen::Running => Decision::will(
            "retry",
            Remedy::Nothing,
            format!(
                "the upgrade to {target} was rolled back and the old version's container runs; mend the cause and run it again"
            ),
        ),
        Seen::Stopped | Seen::Created if world.next != Seen::Running => Decision::will(
            "start",
            Remedy::StartOld,
            "the old version was rolled back to and its container does not run; it is started",
        ),
        Seen::Stopped | Seen::Created | Seen::Gone => Decision::refused(
            "the old version's container was replaced by somebody else since",
            "if what runs is right: payram-updater sync",
        ),
    }
}

fn needs_operator(
    target: &str,
    world: World,
    consent: Consent,
    assessment: Option<&Assessment>,
    reason: &FailureCode,
) -> Decision {
    if world.serves && world.next == Seen::Running {
        return Decision::refused(
            format!("the container of {target} runs and answers: it is not stopped"),
            "if it is right: payram-updater sync; otherwise stop it by hand first",
        );
    }
    if world.old == Seen::Gone {
        return Decision::refused(
            "the old container is gone: there is nothing to go back to",
            "the backup that the last job names is the way: pg_restore it into a database of that version",
        );
    }
    if consent.restore_database {
        return Decision::will(
            "restore_database",
            Remedy::TakeWayBack(Event::RecoverRestoring),
            format!(
                "the database comes back as it was before {target}; what {target} wrote is moved aside and kept, then the old version is started and verified"
            ),
        );
    }
    let at_stake = match assessment {
        Some(Assessment::RowsChanged { tables }) => Some(tables.join("; ")),
        Some(Assessment::Unreadable { reason }) => Some(reason.clone()),
        Some(Assessment::SchemaChanged { what }) => Some(what.clone()),
        Some(Assessment::Unchanged) | None => None,
    };
    match at_stake {
        Some(what) if *reason == FailureCode::MigrationFailed => Decision::refused(
            format!("{target} changed the database: {what}"),
            "payram-updater recover --restore-database: the database as it was before; what the failed version wrote is kept aside",
        ),
        Some(_) | None => Decision::will(
            "rollback",
            Remedy::TakeWayBack(Event::Recover),
            format!("the way back from {target} is taken again, then the old version is verified"),
        ),
    }
}
