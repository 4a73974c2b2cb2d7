//! What becomes of the container's environment: which variables stay, which came from the old image
//! and give way to the new one's, and of which that can't be told. Names alone, never a value (I10).
//! Pure; called by `make`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The contract's `environment` of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Set for the container: they stay.
    pub kept: Vec<String>,
    /// The old image's own: the new image's apply instead.
    pub dropped: Vec<String>,
    /// As the old image has them, while the new one has another value or none: if an operator set
    /// them so, they change.
    pub ambiguous: Vec<String>,
}

/// From the configurations of the container, its image, and the new image where that is known.
pub(super) fn compare(container: &Value, old: &Value, new: Option<&Value>) -> Environment {
    let (own, old) = (variables(&container["Env"]), variables(&old["Env"]));
    let new = new.map(|new| variables(&new["Env"]));
    let mut found = Environment::default();
    for (name, value) in own {
        let list = match (old.get(name) == Some(&value), &new) {
            (false, _) => &mut found.kept,
            (true, Some(new)) if new.get(name) != Some(&value) => &mut found.ambiguous,
            (true, _) => &mut found.dropped,
        };
        list.push(name.to_owned());
    }
    found
}

fn variables(list: &Value) -> BTreeMap<&str, &str> {
    let entries = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    entries.filter_map(|entry| entry.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_sorted_by_where_they_come_from_without_their_values() {
        let container = json!({"Env": ["AES_KEY=hunter2", "PATH=/bin", "MODE=a", "VERSION=1"]});
        let old = json!({"Env": ["PATH=/bin", "MODE=a", "VERSION=0"]});
        let new = json!({"Env": ["PATH=/bin", "MODE=b"]});
        let found = compare(&container, &old, Some(&new));
        assert_eq!(found.kept, ["AES_KEY", "VERSION"]);
        assert_eq!(found.dropped, ["PATH"]);
        assert_eq!(found.ambiguous, ["MODE"]);
        assert!(!format!("{found:?}").contains("hunter2"));
        assert_eq!(compare(&container, &old, None).dropped, ["MODE", "PATH"]);
    }
}
