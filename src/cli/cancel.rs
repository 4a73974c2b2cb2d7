//! `cancel`: cancels the upgrade that runs, by its id: another one that began since it was shown is
//! not touched. The daemon takes back what was begun, and the version that served before serves
//! again.

use std::io::Write;

use reqwest::StatusCode;
use serde_json::json;

use super::answers::{self, CancelAnswer, Job, Jobs};
use super::args::Cancel;
use super::ask::{self, Consent};
use super::client::{ClientError, Ways};
use super::{Context, Exit, Problem, Reading, document, follow};

const NOT_CANCELLED: &str = "Not cancelled; the upgrade goes on.";

/// `cancel`
pub(super) async fn cancel(
    context: &Context,
    asked: &Cancel,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let mut job = follow::status(&context.client).await?.job;
    if !job.is_active()
        && let Some(rehearsal) = rehearsal(context).await?
    {
        job = rehearsal;
    }
    if !job.is_active() {
        let message = "no upgrade is under way";
        return Err(Problem::stopped(Exit::Failed, "NOTHING_TO_CANCEL", message));
    }
    if !asked.yes {
        let consent = ask::on_terminal(context, out, "Cancel it?", NOT_CANCELLED, |out| {
            writeln!(out, "{} ({}) is under way: {}", job.job_id, job.way(), job.message)?;
            writeln!(out, "Cancelling undoes what was started.")
        })?;
        if consent == Consent::Declined {
            return Ok(Exit::Failed);
        }
    }
    let body = json!({"jobId": job.job_id});
    let raw = context.client.post("/upgrade/cancel", &body, Ways::SocketOnly).await?;
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => {
            let answer: CancelAnswer = answers::read("/upgrade/cancel", &raw)?;
            writeln!(out, "{}: {}.", job.job_id, answer.message)?;
            if !job.is_rehearsal() {
                writeln!(out, "Watch it: payram-updater watch")?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The rehearsal that is under way, which the status does not tell.
async fn rehearsal(context: &Context) -> Result<Option<Job>, Problem> {
    let raw = match context.client.get("/upgrade/jobs?limit=1").await {
        // A daemon without rehearsals.
        Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
        answered => answered?,
    };
    let found: Jobs = answers::read("/upgrade/jobs", &raw)?;
    Ok(found.jobs.into_iter().find(|job| job.is_rehearsal() && job.is_active()))
}
