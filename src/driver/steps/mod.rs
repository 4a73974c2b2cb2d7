//! The steps, one file each: what it looks at, does and finds (`act`), and what a person reads
//! meanwhile (`ACTIVITY`). Each observes the world first, by container id and label (I4), and does
//! what is missing. It decides nothing about what comes next.
//!
//! Called by `hop` for the piece of work that the machine hands out. What steps share is in
//! `effects`. A new step is a file here, a line in each of the two matches, and its place in
//! `machine`.

mod arm_next;
mod assess_again;
mod assess_database;
mod back_up;
mod create_next;
mod disarm_next;
mod disarm_old;
mod discard_copy;
mod export_rows;
mod note_programs;
mod pre_copy;
mod probation;
mod prove_backup;
mod pull;
mod quiesce;
mod rearm_old;
mod remove_next;
mod rename_next;
mod rename_old;
mod restore_database;
mod restore_files;
mod restore_next_name;
mod restore_old_name;
mod restore_point;
mod resume_programs;
mod start_again;
mod start_next;
mod start_old;
mod stop_next;
mod stop_old;
mod tidy;
mod verify;
mod verify_old;

use std::time::Duration;

use super::context::StepContext;
use crate::engine::EngineError;
use crate::error::Trouble;
use crate::machine::{Fact, Outcome, Phase, Step, Work};

/// How long an engine that can't be reached is waited for before the attempt counts.
const ENGINE_RETURNS_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks at whether it can.
const ENGINE_LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is being done, for a job that is under way.
pub fn activity(step: Step) -> &'static str {
    match step {
        Step::BackUp => back_up::ACTIVITY,
        Step::ProveBackup => prove_backup::ACTIVITY,
        Step::Pull => pull::ACTIVITY,
        Step::CreateNext => create_next::ACTIVITY,
        Step::PreCopy => pre_copy::ACTIVITY,
        Step::DisarmOld => disarm_old::ACTIVITY,
        Step::NotePrograms => note_programs::ACTIVITY,
        Step::Quiesce => quiesce::ACTIVITY,
        Step::StopOld => stop_old::ACTIVITY,
        Step::RestorePoint => restore_point::ACTIVITY,
        Step::RenameOld => rename_old::ACTIVITY,
        Step::RenameNext => rename_next::ACTIVITY,
        Step::StartNext => start_next::ACTIVITY,
        Step::StartAgain => start_again::ACTIVITY,
        Step::Verify => verify::ACTIVITY,
        Step::ArmNext => arm_next::ACTIVITY,
        Step::Probation => probation::ACTIVITY,
        Step::Tidy => tidy::ACTIVITY,
        Step::DisarmNext => disarm_next::ACTIVITY,
        Step::AssessDatabase => assess_database::ACTIVITY,
        Step::StopNext => stop_next::ACTIVITY,
        Step::RestoreDatabase => restore_database::ACTIVITY,
        Step::RestoreFiles => restore_files::ACTIVITY,
        Step::RestoreNextName => restore_next_name::ACTIVITY,
        Step::RestoreOldName => restore_old_name::ACTIVITY,
        Step::StartOld => start_old::ACTIVITY,
        Step::ResumePrograms => resume_programs::ACTIVITY,
        Step::RearmOld => rearm_old::ACTIVITY,
        Step::VerifyOld => verify_old::ACTIVITY,
        Step::AssessAgain => assess_again::ACTIVITY,
        Step::ExportRows => export_rows::ACTIVITY,
        Step::RemoveNext => remove_next::ACTIVITY,
        Step::DiscardCopy => discard_copy::ACTIVITY,
    }
}

/// Runs a piece of work to its end.
///
/// An error of the engine whose effect is uncertain is an unknown outcome: the step runs again and
/// looks. An engine that can't be reached is waited for, because a restart of it in the middle of
/// an upgrade is ordinary.
pub(super) async fn run(cx: &StepContext<'_>, phase: Phase, work: Work<'_>) -> Outcome {
    wait_for_engine(cx).await;
    if matches!(phase, Phase::Swapped | Phase::Verified | Phase::RollingBack)
        && let Ok(Some(id)) = cx.find_remade().await
    {
        // Set here alone, once for each run.
        cx.remade.set(id).ok();
    }
    let result = match old_is_alone(cx, work.step()).await {
        Ok(()) => act(cx, work).await,
        Err(trouble) => Err(trouble),
    };
    match result {
        Ok(fact) => Outcome::Done { fact },
        Err(Trouble::Failed(failure)) => Outcome::Failed { failure },
        Err(Trouble::Unknown(failure)) => Outcome::Unknown { failure },
    }
}

async fn act(cx: &StepContext<'_>, work: Work<'_>) -> Result<Fact, Trouble> {
    match work {
        Work::BackUp => back_up::act(cx).await,
        Work::ProveBackup(backup) => prove_backup::act(cx, backup).await,
        Work::Pull => pull::act(cx).await,
        Work::CreateNext(image) => create_next::act(cx, image).await,
        Work::PreCopy(next) => pre_copy::act(cx, next).await,
        Work::DisarmOld(_, copy) => disarm_old::act(cx, copy).await,
        Work::NotePrograms(_) => note_programs::act(cx).await,
        Work::Quiesce(programs, copy) => quiesce::act(cx, programs, copy).await,
        Work::StopOld => stop_old::act(cx).await,
        Work::RestorePoint(_, copy) => restore_point::act(cx, copy).await,
        Work::RenameOld => rename_old::act(cx).await,
        Work::RenameNext(next) => rename_next::act(cx, next).await,
        Work::StartNext(next, copy, quiesced) => start_next::act(cx, next, copy, quiesced).await,
        Work::StartAgain(next) => start_again::act(cx, next).await,
        Work::Verify(next) => verify::act(cx, next).await,
        Work::ArmNext(next) => arm_next::act(cx, next).await,
        Work::Probation(next, verdict) => probation::act(cx, next, verdict).await,
        Work::Tidy(next, backup) => tidy::act(cx, next, backup).await,
        Work::DisarmNext(next) => disarm_next::act(cx, next).await,
        Work::AssessDatabase(work) => assess_database::act(cx, work).await,
        Work::StopNext(next) => stop_next::act(cx, next).await,
        Work::RestoreDatabase(work) => restore_database::act(cx, work).await,
        Work::RestoreFiles(work) => restore_files::act(cx, work).await,
        Work::RestoreNextName(next) => restore_next_name::act(cx, next).await,
        Work::RestoreOldName => restore_old_name::act(cx).await,
        Work::StartOld(next) => start_old::act(cx, next).await,
        Work::ResumePrograms(programs) => resume_programs::act(cx, programs).await,
        Work::RearmOld => rearm_old::act(cx).await,
        Work::VerifyOld => verify_old::act(cx).await,
        Work::AssessAgain(work) => assess_again::act(cx, work).await,
        Work::ExportRows(restored, copy) => export_rows::act(cx, restored, copy).await,
        Work::RemoveNext(next, failure) => remove_next::act(cx, next, failure).await,
        Work::DiscardCopy(copy) => discard_copy::act(cx, copy).await,
    }
}

/// From the copy on nobody but the old version may work in the directory, until the new one is
/// started.
async fn old_is_alone(cx: &StepContext<'_>, step: Step) -> Result<(), Trouble> {
    let is_looked_for = matches!(
        step,
        Step::PreCopy
            | Step::DisarmOld
            | Step::NotePrograms
            | Step::Quiesce
            | Step::StopOld
            | Step::RestorePoint
    );
    match is_looked_for {
        true => cx.old_is_alone(step).await,
        false => Ok(()),
    }
}

/// Until the engine answers, or for as long as is sensible; the step itself then says what it met.
async fn wait_for_engine(cx: &StepContext<'_>) {
    let deadline = tokio::time::Instant::now() + ENGINE_RETURNS_WITHIN;
    let mut said = false;
    while let Err(error @ EngineError::Unreachable { .. }) = cx.engine.reach().await {
        if tokio::time::Instant::now() >= deadline {
            return;
        }
        if !said {
            cx.say(&format!("waiting for the container engine: {error}")).await;
            said = true;
        }
        tokio::time::sleep(ENGINE_LOOK_EVERY).await;
    }
}
