//! The lines of `GET /containers/json`, and what the product takes from them.
//!
//! Read by the verb `containers`; pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::engine::{ContainerSummary, MountSummary};

/// One container as Docker lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerLine {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    state: String,
    labels: Option<BTreeMap<String, String>>,
    mounts: Option<Vec<MountLine>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MountLine {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: String,
    destination: String,
    #[serde(rename = "RW")]
    writable: bool,
}

impl From<MountLine> for MountSummary {
    fn from(line: MountLine) -> Self {
        Self {
            kind: line.kind,
            name: Some(line.name).filter(|name| !name.is_empty()),
            source: line.source,
            destination: line.destination,
            writable: line.writable,
        }
    }
}

impl From<ContainerLine> for ContainerSummary {
    fn from(line: ContainerLine) -> Self {
        let names = line.names.unwrap_or_default();
        let names = names.iter().map(|name| name.trim_start_matches('/'));
        Self {
            id: line.id,
            // The names that links give it are `/other/alias`.
            name: names.clone().find(|name| !name.contains('/')).unwrap_or_default().to_owned(),
            image: line.image,
            state: line.state,
            labels: line.labels.unwrap_or_default().into_iter().collect(),
            mounts: line.mounts.unwrap_or_default().into_iter().map(MountSummary::from).collect(),
        }
    }
}
