//! A rehearsal's report, as far as the commands read it (`rehearsal` of a job). Called by `answers`
//! and by `rehearse`.

use serde::Deserialize;

/// A report (`rehearsal` of a job).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Report {
    pub verdict: Option<String>,
    pub version: String,
    pub seconds: Option<f64>,
    pub copy: Option<Copied>,
    pub new: Option<Tried>,
    pub way_back: Option<Tried>,
    pub control: Option<Tried>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Copied {
    pub database_bytes: u64,
    pub tables: u64,
    pub rows: Option<u64>,
    pub seconds: f64,
    pub memory_limit_bytes: u64,
    pub mounts: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Tried {
    pub stood: Stood,
    pub answers_after_seconds: Option<f64>,
    pub stayed_seconds: f64,
    pub migration: Option<Changes>,
    pub written: Option<Changes>,
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Stood {
    pub stood: String,
    pub found: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Changes {
    pub schema: Vec<String>,
    pub rows: Vec<String>,
}
