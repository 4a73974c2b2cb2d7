//! What a rehearsal found: the copy, and how each version stood on it. The journal keeps these.

use serde::{Deserialize, Serialize};

use crate::machine::failure::FailureCode;

/// The copy that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// The shop's database on disk, in bytes.
    pub database_bytes: u64,
    /// Its tables.
    pub tables: u64,
    /// Their rows; none where the time was over before all were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// From the beginning of the dump to the compared copy.
    pub seconds: f64,
    /// Memory that a version may take on the copy.
    pub memory_limit_bytes: u64,
    /// What a version is given of the container's other mounts, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
}

/// How a version stood on the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stood", rename_all = "camelCase")]
pub enum Stood {
    /// It answered, was well and of its version, and stayed so.
    Serves,
    /// It did not.
    Fails {
        /// By which rule of the gate.
        code: FailureCode,
        /// What was expected and found.
        found: String,
    },
    /// It can't be said, and that is not the version's doing: a limit of ours, or this host.
    Unjudged {
        /// Why.
        found: String,
    },
}

/// One version, tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// How it stood.
    pub stood: Stood,
    /// The version that it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// From its start to its first answer, migration included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_after_seconds: Option<f64>,
    /// How long it stayed well without a break, at the end.
    pub stayed_seconds: f64,
    /// What it changed up to its first answer; none where that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Changes>,
    /// What it wrote from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Changes>,
    /// A line of its log that names something which it could not reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// The most memory that it was seen to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What the copy took on disk afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// What a version changed in the database, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Of the schema: `table public.payouts is new`.
    #[serde(default)]
    pub schema: Vec<String>,
    /// Of rows: `public.payments: 3 rows inserted`.
    #[serde(default)]
    pub rows: Vec<String>,
}
