//! `recover --dismiss-rows JOB`: an operator says that the rows of a failed version, which were set
//! aside, are dealt with. It is a record in the journal like any other; their file and that
//! version's database stay where they are.
//!
//! Called by `api` and, without a daemon, by the command itself, both under the state lock.

use std::sync::Arc;

use super::recovery::{Decision, Remedy};
use super::{Driver, RecoverError, durable};
use crate::history::{SetAside, read_set_aside};
use crate::journal::{DISMISSED, NewEvent, ROWS};

impl Driver {
    /// Ends the finding about the rows of this upgrade, unless it is only asked.
    ///
    /// # Errors
    /// When the journal can't be read or written.
    pub async fn dismiss_rows(&self, job: &str, is_dry: bool) -> Result<Decision, RecoverError> {
        let (decision, event) = dismissing(&read_set_aside(&self.reader)?, job);
        if let (false, Some(event)) = (is_dry, event) {
            let journal = Arc::clone(&self.journal);
            tracing::info!(job, "rows set aside were dismissed");
            durable(move || journal.note(&[event])).await?;
        }
        Ok(decision)
    }
}

/// What to answer, and what to journal. Pure.
fn dismissing(all: &[SetAside], job: &str) -> (Decision, Option<NewEvent>) {
    let Some(found) = all.iter().rev().find(|one| one.job == job) else {
        let open: Vec<&str> =
            all.iter().filter(|one| one.dismissed.is_none()).map(|one| one.job.as_str()).collect();
        let listed = match open.is_empty() {
            true => "no rows are set aside".to_owned(),
            false => format!("rows are set aside of: {}", open.join(", ")),
        };
        return (Decision::refused(format!("no rows of {job} are set aside"), listed), None);
    };
    if let Some(at) = found.dismissed {
        let message = format!("the rows of {job} were dismissed at {}", at.rfc3339());
        return (Decision::will("none", Remedy::Nothing, message), None);
    }
    let kept = match &found.file {
        Some(file) => format!("{file} and {}", found.database),
        None => found.database.clone(),
    };
    let message = format!(
        "{}. They count as dealt with from now on, and inspect does not name them any more; {kept} stays where it is",
        found.sentence()
    );
    let data = [("jobId", job), ("version", &found.version), ("failedDatabase", &found.database)];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let message_of_event = format!("rows of {} were dismissed", found.version);
    let event = NewEvent { kind: ROWS, status: DISMISSED, message: message_of_event, data };
    (Decision::will("dismiss_rows", Remedy::Nothing, message), Some(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn aside(job: &str, dismissed: Option<i64>) -> SetAside {
        SetAside {
            job: job.into(),
            version: "2.0.0".into(),
            at: Timestamp::from_millis(0),
            rows: Some(60),
            file: Some("/f.sql".into()),
            load: None,
            reason: None,
            database: "/db.failed-1".into(),
            dismissed: dismissed.map(Timestamp::from_millis),
        }
    }

    #[test]
    fn rows_are_dismissed_once_and_by_their_upgrade() {
        let all = [aside("job-1", Some(0)), aside("job-2", None)];
        let (decision, event) = dismissing(&all, "job-2");
        assert!(decision.success && decision.action == "dismiss_rows", "{decision:?}");
        assert_eq!(event.expect("an event").data["jobId"], "job-2");
        let (decision, event) = dismissing(&all, "job-1");
        assert!(decision.success && decision.action == "none" && event.is_none());
        let (decision, event) = dismissing(&all, "job-3");
        assert!(!decision.success && event.is_none());
        assert_eq!(decision.refusals, ["rows are set aside of: job-2"]);
    }
}
