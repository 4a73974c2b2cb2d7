//! Where the sequences of a database stand, and those that a way back has set on: an index that a
//! failed version handed out is never handed out twice.

use serde::{Deserialize, Serialize};

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
