//! Which events are told, and in which words. Pure.

use serde::Serialize;

use crate::driver::WaitsFor;
use crate::journal::HistoryEvent;

/// Types of which everything is told: they stop and start the shop.
const TOLD: [&str; 7] =
    ["upgrade", "restore", "rollback", "recovery", "undo", "rehearsal", "probation"];

/// Whether somebody who is not looking wants to know of this event: whatever touches the shop, and
/// whatever failed.
pub(super) fn is_told(event: &HistoryEvent) -> bool {
    event.status == "failed" || TOLD.contains(&event.kind.as_str())
}

/// What is posted: the event as the history has it, and what a person makes of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Letter<'a> {
    #[serde(flatten)]
    pub event: &'a HistoryEvent,
    /// This machine's name.
    pub host: &'a str,
    /// Whether nothing goes on before a person acts.
    pub needs_operator: bool,
    /// Commands for that, the first of them the one that goes on.
    pub how: Vec<String>,
    /// All of it in a line, for what shows text and nothing else.
    pub text: String,
}

impl<'a> Letter<'a> {
    /// About this event; `waits` is what the shop waits for now.
    pub fn of(event: &'a HistoryEvent, host: &'a str, waits: Option<&WaitsFor>) -> Self {
        let how = waits.map(|waits| waits.how.clone()).unwrap_or_default();
        let mut text = format!("PayRam on {host}: {}", event.message);
        if let Some(first) = how.first() {
            text.push_str(&format!(". A person is needed: sudo {first}"));
        }
        Self { event, host, needs_operator: waits.is_some(), how, text }
    }

    /// `upgrade.failed`
    pub fn subject(&self) -> String {
        format!("{}.{}", self.event.kind, self.event.status)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event(kind: &str, status: &str) -> HistoryEvent {
        HistoryEvent {
            id: "7".into(),
            timestamp: "2026-01-31T12:00:00.000Z".into(),
            kind: kind.into(),
            status: status.into(),
            message: "upgrade to 2.0.0 failed".into(),
            data: BTreeMap::from([("jobId".into(), "job-1".into())]),
        }
    }

    #[test]
    fn what_touches_the_shop_and_what_failed_is_told_and_nothing_else() {
        for (kind, status) in [
            ("upgrade", "started"),
            ("upgrade", "rolled_back"),
            ("restore", "succeeded"),
            ("recovery", "waiting"),
            ("backup", "failed"),
            ("backup_copy", "failed"),
            ("auto_update", "failed"),
        ] {
            assert!(is_told(&event(kind, status)), "{kind} {status}");
        }
        for (kind, status) in
            [("backup", "validated"), ("auto_update", "waiting"), ("sync", "succeeded")]
        {
            assert!(!is_told(&event(kind, status)), "{kind} {status}");
        }
    }

    #[test]
    fn a_letter_is_the_event_and_says_what_a_person_has_to_type() {
        let failed = event("upgrade", "failed");
        let waits = WaitsFor {
            who: "operator",
            why: "Stopped".into(),
            how: vec!["payram-updater recover".into()],
        };
        let letter = Letter::of(&failed, "till", Some(&waits));
        assert_eq!(letter.subject(), "upgrade.failed");
        let posted = serde_json::to_value(&letter).expect("JSON");
        let expected = serde_json::json!({
            "id": "7", "timestamp": "2026-01-31T12:00:00.000Z", "type": "upgrade",
            "status": "failed", "message": "upgrade to 2.0.0 failed", "data": {"jobId": "job-1"},
            "host": "till", "needsOperator": true, "how": ["payram-updater recover"],
            "text": "PayRam on till: upgrade to 2.0.0 failed. A person is needed: sudo payram-updater recover",
        });
        assert_eq!(posted, expected);
        let calm = Letter::of(&failed, "till", None);
        assert!(!calm.needs_operator && !calm.text.contains("sudo"), "{calm:?}");
    }
}
