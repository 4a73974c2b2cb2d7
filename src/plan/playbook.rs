//! What an operator does about a failure, for each code (contract section 10).
//!
//! Called by `api` and `cli`. The text is in `playbooks.json`, from which the documentation
//! and the tests come too; here the placeholders are filled in with what is known. A step is
//! `N. COMMAND`: what follows the number can be pasted into a shell as it stands, and says
//! behind `#` what it is for.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::machine::failure::FailureCode;

const TABLE: &str = include_str!("playbooks.json");

/// The step that is added where there is such a file.
const EXPORTED: &str = "sudo less <export_path>  # the rows that the failed version wrote, and the command that loads them";

/// Where the pages that `docs` names lie.
const DOCS: &str = "https://docs.payram.com/";

/// What is known; what is not stays a placeholder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `<container_name>`
    pub container_name: Option<String>,
    /// `<base_url>`: where the core answers, `http://127.0.0.1:8080`.
    pub base_url: Option<String>,
    /// `<http_port>`
    pub http_port: Option<u16>,
    /// `<db_port>`
    pub db_port: Option<u16>,
    /// `<image_repo>`
    pub image_repo: Option<String>,
    /// `<backup_path>`
    pub backup_path: Option<String>,
    /// Where the database is kept that the failed version changed, once it was replaced.
    pub failed_database: Option<String>,
    /// `<export_path>`: the file of the rows that the failed version wrote.
    pub export_path: Option<String>,
    /// `DOCKER_BIN`; `docker` when none.
    pub docker_bin: Option<String>,
    /// Whether the old version was put back and verified: it serves.
    pub rolled_back: bool,
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// Nothing has to be done.
    Info,
    /// It can be tried again.
    Retryable,
    /// A person has to do something.
    ManualRequired,
}

/// Whether data may be lost or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataRisk {
    /// No.
    None,
    /// It is not ruled out.
    Possible,
    /// Most likely.
    Likely,
    /// It can't be told.
    Unknown,
}

/// What to do about one failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Playbook {
    /// The failure's code, known or not.
    pub code: String,
    /// How urgent it is.
    pub severity: Severity,
    /// A few words.
    pub title: String,
    /// What happened and what it means, for the merchant.
    pub user_message: String,
    /// Numbered commands, to be pasted on the server.
    pub ssh_steps: Vec<String>,
    /// Where it is explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs_url: Option<String>,
    /// Whether data may be lost or changed.
    pub data_risk: DataRisk,
    /// The backup that was made before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_path: Option<String>,
}

/// The playbook for a code; an unknown one has that of `UNKNOWN`, under its own code.
pub fn playbook(code: &str, facts: &Facts) -> Playbook {
    let entry = TABLE_READ.entry(code);
    let rolled_back = facts.rolled_back.then_some(&TABLE_READ.rolled_back);
    let mut steps = rolled_back.map_or(&entry.steps, |after| &after.steps).clone();
    let mut user_message = match rolled_back {
        Some(after) => format!("{} {}", after.message, entry.happened),
        None => match &entry.advice {
            Some(advice) => format!("{} {advice}", entry.happened),
            None => entry.happened.clone(),
        },
    };
    if let Some(directory) = &facts.failed_database {
        user_message.push_str(&format!(" The failed version's database is kept in {directory}."));
    }
    if let Some(file) = &facts.export_path {
        user_message.push_str(&format!(" The rows that it wrote are in {file}."));
        steps.push(EXPORTED.to_owned());
    }
    Playbook {
        code: code.to_owned(),
        severity: if facts.rolled_back { entry.severity.lower() } else { entry.severity },
        title: entry.title.clone(),
        user_message,
        ssh_steps: steps
            .iter()
            // `status`, the step before, asks at whatever place the core is found.
            .filter(|step| facts.base_url.is_some() || !step.contains("<base_url>"))
            .enumerate()
            .map(|(at, step)| format!("{}. {}", at + 1, fill(step, facts)))
            .collect(),
        docs_url: entry.docs.as_ref().map(|page| format!("{DOCS}{page}")),
        data_risk: entry.data_risk,
        backup_path: facts.backup_path.clone(),
    }
}

impl Severity {
    /// After a verified rollback nothing is on fire any more.
    fn lower(self) -> Self {
        match self {
            Severity::ManualRequired => Severity::Retryable,
            Severity::Retryable | Severity::Info => Severity::Info,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Table {
    /// Instead of the entry's own steps, and before its text.
    rolled_back: RolledBack,
    playbooks: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RolledBack {
    message: String,
    steps: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    severity: Severity,
    data_risk: DataRisk,
    title: String,
    /// What happened: true whether it was rolled back or not.
    happened: String,
    /// What to do about it: said only when it was not rolled back.
    advice: Option<String>,
    steps: Vec<String>,
    /// Below [`DOCS`].
    docs: Option<String>,
}

impl Table {
    #[allow(clippy::expect_used)] // The table is part of the program; a test finds an entry for every code.
    fn entry(&self, code: &str) -> &Entry {
        self.playbooks
            .get(code)
            .or_else(|| self.playbooks.get(FailureCode::Unknown.as_str()))
            .expect("playbooks.json has an entry UNKNOWN")
    }
}

// As above: a test reads the very text that is built in here.
#[allow(clippy::expect_used)]
static TABLE_READ: LazyLock<Table> =
    LazyLock::new(|| serde_json::from_str(TABLE).expect("playbooks.json is well formed"));

/// Fills in placeholders in one pass, so that a value that looks like one stays a value.
fn fill(step: &str, facts: &Facts) -> String {
    let mut text = String::with_capacity(step.len());
    let mut rest = step;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        match after.split_once('>').map(|(name, tail)| (known(name, facts), name, tail)) {
            Some((Some(value), _, tail)) => {
                text.push_str(&quoted(&value));
                rest = tail;
            }
            Some((None, name, tail)) => {
                text.push_str(&format!("<{name}>"));
                rest = tail;
            }
            None => {
                text.push('<');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn known(placeholder: &str, facts: &Facts) -> Option<String> {
    match placeholder {
        "container_name" => facts.container_name.clone(),
        "base_url" => facts.base_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
        "http_port" => facts.http_port.map(|port| port.to_string()),
        "db_port" => facts.db_port.map(|port| port.to_string()),
        "image_repo" => facts.image_repo.clone(),
        "backup_path" => facts.backup_path.clone(),
        "export_path" => facts.export_path.clone(),
        "docker_bin" => Some(facts.docker_bin.clone().unwrap_or_else(|| "docker".to_owned())),
        _ => None,
    }
}

/// As one word of a shell's command (POSIX, Shell Command Language, "Quoting").
fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty()
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "_./:@%+=,-[]".contains(c));
    if is_plain { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[path = "playbook_tests.rs"]
mod tests;
