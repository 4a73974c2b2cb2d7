//! Where the sequences of a database stand, and those that a way back has set on: an index that a
//! failed version handed out is never handed out twice.

use serde::{Deserialize, Serialize};

use super::facts::Assessment;

/// A sequence at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sequence {
    /// `public.addresses_number_seq`
    pub name: String,
    /// The server's own number for it, which a renamed one keeps.
    pub id: u32,
    /// Its `last_value`; none where the application's role may not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<i64>,
    /// Whether this value was handed out; otherwise it is the next one to be.
    pub is_called: bool,
    /// What it goes on by; a descending one by less than 0.
    pub increment: i64,
    /// Whether it begins anew at its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cycles: bool,
}

/// A sequence of the database that was put back, set to where the failed version had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SequenceMove {
    /// As the database that was put back calls it.
    pub name: String,
    /// The server's own number for it.
    pub id: u32,
    /// Its value at the cut-over.
    pub from: i64,
    /// The failed version's value, which it has now.
    pub to: i64,
    /// Whether the failed version handed that one out.
    pub is_called: bool,
}

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
