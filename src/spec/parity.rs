//! Whether a created container is what the old one was, but for what was meant to change.
//!
//! Two inspections are compared field by field, before anything is stopped. What may differ is
//! written down in one table, [`table::TABLE`]; what is not in it must be equal, so a field
//! that this program has never heard of is compared like any other, and one that got lost on
//! the way refuses the swap by name.
//!
//! Called by `driver` (the step `create_next`) and by `plan` (its report). Pure. It does not
//! look at the specification that was sent: whatever [`super`] did wrong, and whatever
//! the engine made of it, shows in the result.
//!
//! Values that may be secrets (environment, labels, commands, options of logging and volume
//! drivers) are shown as `***` (I10).

mod compare;
mod config;
mod host;
mod networks;
mod table;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::SpecInputs;
use super::read;
use compare::Comparison;
use table::Rule;

/// One field in which the created container is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `HostConfig.Memory`, `Config.Env[TZ]`, `Mounts[/var/lib/payram].RW`
    pub field: String,
    /// What it should be, as JSON; `nothing` when it should not be there; `***` for a secret.
    pub expected: String,
    /// What it is, in the same form.
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.field, self.expected, self.found)
    }
}

/// Everything in which `container`, the inspection of the created and not yet started
/// container, differs from the old one without being meant to.
pub fn differences(container: &Value, inputs: &SpecInputs<'_>) -> Vec<Difference> {
    let mut comparison = Comparison::default();
    walk(&mut comparison, "", inputs.old, container);
    config::compare(&mut comparison, container, inputs);
    host::compare(&mut comparison, container, inputs);
    networks::compare(&mut comparison, container, inputs);
    comparison.differences
}

/// Compares all fields of two objects as the table says.
fn walk(comparison: &mut Comparison, path: &str, old: &Value, new: &Value) {
    for key in compare::union(old, new) {
        let field = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let (expected, found) = (&old[key], &new[key]);
        match table::rule(&field) {
            Some(Rule::Within) => walk(comparison, &field, expected, found),
            Some(Rule::Assigned | Rule::Apart) => {}
            Some(Rule::FilledIn) if read::is_nothing(expected) || *expected == 0 => {}
            Some(Rule::Exact) => comparison.exact(&field, expected, found),
            Some(Rule::FilledIn) | None => comparison.equal(&field, expected, found),
        }
    }
}
