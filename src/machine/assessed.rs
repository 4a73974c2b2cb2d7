//! What is known of a failed version's database: what it did to the rows, and where its sequences
//! stand.

use serde::{Deserialize, Serialize};

use super::facts::Assessment;
use super::sequences::Sequence;

/// What `assess_database` found: what the failed version did to the rows, and where its sequences
/// stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessed {
    /// What it did.
    #[serde(flatten)]
    pub assessment: Assessment,
    /// Its sequences; none where they were not read, and in older journals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Vec<Sequence>>,
}

impl From<Assessment> for Assessed {
    fn from(assessment: Assessment) -> Self {
        Self { assessment, sequences: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assessment_of_an_older_journal_is_read_and_written_as_it_was() {
        let older = [
            r#"{"kind":"unchanged"}"#,
            r#"{"kind":"rowsChanged","tables":["public.payments: 1 row inserted"]}"#,
        ];
        for text in older {
            let read: Assessed = serde_json::from_str(text).expect("an assessment");
            assert_eq!(read.sequences, None);
            assert_eq!(serde_json::to_string(&read).expect("text"), text);
        }
        let sequence = Sequence {
            name: "public.s".into(),
            id: 7,
            last: Some(i64::MAX),
            is_called: true,
            increment: -1,
            cycles: true,
        };
        let now = Assessed { assessment: Assessment::Unchanged, sequences: Some(vec![sequence]) };
        let text = serde_json::to_string(&now).expect("text");
        assert_eq!(serde_json::from_str::<Assessed>(&text).expect("an assessment"), now);
    }
}
