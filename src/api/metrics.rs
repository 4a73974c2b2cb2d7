//! The text format of Prometheus (version 0.0.4), and what this program measures of itself. Pure;
//! [`super::endpoints`] gathers what is in it.
//!
//! Every name of a series is in [`Measured::text`]. Its labels come from this program's own words
//! (states, phases, types of events), never from a request, so that their number is bounded.

use std::fmt::Write;

use crate::driver::JobView;
use crate::journal::EventTally;
use crate::machine::{JobState, Phase};

/// What the format is called.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The states of a job, for a series each.
const STATES: [JobState; 6] = [
    JobState::Idle,
    JobState::Ready,
    JobState::BackingUp,
    JobState::Executing,
    JobState::Verifying,
    JobState::Failed,
];

/// Everything at one moment.
pub(super) struct Measured {
    /// When this program began, in milliseconds since the epoch.
    pub began_ms: i64,
    /// The newest job.
    pub job: JobView,
    /// Whether the journal can't be used.
    pub is_blocked: bool,
    /// Whether the application answers; none where no container is known.
    pub serves: Option<bool>,
    /// What the journal says.
    pub journal: FromJournal,
    /// Whether something is wrong with the journal's chain, as far as it was walked.
    pub is_broken: bool,
    /// Whether this host updates by itself; none where its configuration can't be read.
    pub updates_itself: Option<bool>,
}

/// What the rows of the journal say; they are read again only when there are further ones.
#[derive(Clone, Debug, Default)]
pub(super) struct FromJournal {
    pub events: EventTally,
    pub quarantined: usize,
    /// Rows of failed versions that nobody has dealt with: how many upgrades left some, and how
    /// many rows are known.
    pub set_aside: (usize, u64),
    /// Seconds, of the newest verified hop.
    pub downtime: Option<f64>,
    /// What was good last.
    pub good_version: Option<String>,
}

impl Measured {
    /// As Prometheus reads it.
    pub(super) fn text(&self) -> String {
        let mut out = Text::default();
        out.family("payram_updater_info", "gauge", "The program that answers.");
        out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        out.family("process_start_time_seconds", "gauge", "When it began, since the epoch.");
        out.sample(&[], seconds(self.began_ms));
        out.one(
            "payram_updater_blocked",
            "Whether nothing is done because the journal can't be used.",
            u8::from(self.is_blocked),
        );
        self.job(&mut out);
        if let Some(serves) = self.serves {
            let help = "Whether the application answers now.";
            out.one("payram_updater_application_up", help, u8::from(serves));
        }
        self.journal(&mut out);
        if let Some(updates) = self.updates_itself {
            let help = "Whether this host updates by itself.";
            out.one("payram_updater_auto_update_enabled", help, u8::from(updates));
        }
        out.0
    }

    fn job(&self, out: &mut Text) {
        let job = &self.job;
        let help = "Whether an upgrade or a restore is under way.";
        out.one("payram_updater_job_active", help, u8::from(job.active == Some(true)));
        let help = "Whether the newest job waits for a person: nothing goes on by itself.";
        out.one("payram_updater_job_waits_for_operator", help, u8::from(job.waits_for.is_some()));
        let help = "The state of the newest job: 1 for the one that it is in.";
        out.family("payram_updater_job_state", "gauge", help);
        for state in STATES {
            out.sample(&[("state", state.as_str())], u8::from(job.state == state.as_str()));
        }
        let help = "The phase of the newest job: 1 for the one that it is in.";
        out.family("payram_updater_job_phase", "gauge", help);
        for phase in Phase::ALL {
            out.sample(&[("phase", phase.as_str())], u8::from(job.phase == Some(phase.as_str())));
        }
    }

    fn journal(&self, out: &mut Text) {
        let FromJournal { events, quarantined, set_aside: (jobs, rows), downtime, good_version } =
            &self.journal;
        if let Some(version) = good_version {
            let help = "The version that was good last: verified, or recorded by sync.";
            out.family("payram_updater_last_good_version_info", "gauge", help);
            out.sample(&[("version", version)], 1);
        }
        if let Some(downtime) = downtime {
            let help = "The downtime of the newest verified hop, seen from outside.";
            out.one("payram_updater_last_downtime_seconds", help, downtime);
        }
        let help = "Versions that failed here and are not offered again.";
        out.one("payram_updater_quarantined_versions", help, quarantined);
        let help = "Upgrades that went back and left rows aside which nobody has dealt with.";
        out.one("payram_updater_set_aside_upgrades", help, jobs);
        let help = "The rows that they left aside, as far as they could be counted.";
        out.one("payram_updater_set_aside_rows", help, rows);
        out.one("payram_updater_journal_rows", "The number of the newest row.", events.upto());
        let help = "Whether the journal was changed by something else, as far as it was walked.";
        out.one("payram_updater_journal_broken", help, u8::from(self.is_broken));
        if events.kinds().next().is_none() {
            return;
        }
        let help = "Events of the history, by type and status.";
        out.family("payram_updater_events_total", "counter", help);
        for (kind, status, tallied) in events.kinds() {
            out.sample(&[("type", kind), ("status", status)], tallied.count);
        }
        let help = "When the newest of them was written, since the epoch.";
        out.family("payram_updater_event_timestamp_seconds", "gauge", help);
        for (kind, status, tallied) in events.kinds() {
            let at = seconds(tallied.newest.millis());
            out.sample(&[("type", kind), ("status", status)], at);
        }
    }
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

/// What was written so far; the last family is the one that samples belong to.
#[derive(Default)]
struct Text(String, String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A text takes everything.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        name.clone_into(&mut self.1);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{}{labels} {value}", self.1);
    }

    /// A gauge without labels.
    fn one(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(&[], value);
    }
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn measured() -> Measured {
        Measured {
            began_ms: 1_767_225_600_500,
            job: JobView::idle(),
            is_blocked: false,
            serves: Some(true),
            journal: FromJournal {
                downtime: Some(4.25),
                good_version: Some("1.9\"7\\\n".into()),
                ..FromJournal::default()
            },
            is_broken: false,
            updates_itself: None,
        }
    }

    #[test]
    fn each_series_has_its_help_and_type_once_and_every_line_is_one_of_the_format() {
        let text = measured().text();
        let mut families = BTreeSet::new();
        let mut series = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(matches!(kind, "gauge" | "counter"), "{line}");
                assert!(families.insert(name.to_owned()), "{name} stands twice");
            } else if !line.starts_with("# HELP ") {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                let name = sample.split('{').next().expect("a name");
                assert!(families.contains(name), "{line} comes before its type");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(sample.to_owned()), "{sample} stands twice");
            }
        }
        assert!(text.contains("payram_updater_job_state{state=\"IDLE\"} 1\n"), "{text}");
        assert!(text.contains("payram_updater_job_state{state=\"FAILED\"} 0\n"), "{text}");
        assert!(text.contains("process_start_time_seconds 1767225600.5\n"), "{text}");
        assert!(text.contains("payram_updater_last_downtime_seconds 4.25\n"), "{text}");
        assert!(text.contains(r#"_version_info{version="1.9\"7\\\n"} 1"#), "{text}");
        assert!(!text.contains("auto_update"), "what is not known is left out: {text}");
    }
}
