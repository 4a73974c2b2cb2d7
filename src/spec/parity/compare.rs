//! Comparing raw values: what counts as equal, and how a difference is shown.

use serde_json::{Map, Value};

use super::{Difference, table};
use crate::spec::read;

/// Longer values are cut in messages (a seccomp profile is a page of JSON).
const SHOWN_CHARS: usize = 200;

/// Collects differences.
#[derive(Default)]
pub(super) struct Comparison {
    /// In the order in which they were found.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Equal as the engine normalises: null, absent, `""`, `[]`, `{}`, `false` and 0 are all
    /// "not set". Objects are compared key by key, so that the difference names the key.
    pub fn equal(&mut self, field: &str, expected: &Value, found: &Value) {
        let objects = (expected.is_object() || is_unset(expected))
            && (found.is_object() || is_unset(found))
            && (expected.is_object() || found.is_object());
        if objects {
            for key in union(expected, found) {
                self.equal(&format!("{field}.{key}"), &expected[key], &found[key]);
            }
        } else if !alike(expected, found) {
            self.report(field, expected, found);
        }
    }

    /// Equal to the letter, but null for absent.
    pub fn exact(&mut self, field: &str, expected: &Value, found: &Value) {
        if expected != found {
            self.report(field, expected, found);
        }
    }

    /// Equal as sets of keys: `{"80/tcp": {}}`.
    pub fn keys(&mut self, field: &str, expected: &[&str], found: &[&str]) {
        for key in expected.iter().filter(|key| !found.contains(key)) {
            self.report(&format!("{field}[{key}]"), &Value::from("present"), &Value::Null);
        }
        for key in found.iter().filter(|key| !expected.contains(key)) {
            self.report(&format!("{field}[{key}]"), &Value::Null, &Value::from("present"));
        }
    }

    /// Equal as sets.
    pub fn sets<T: Ord + Clone + Into<String>>(
        &mut self,
        field: &str,
        expected: &[T],
        found: &[T],
    ) {
        let sorted = |items: &[T]| -> Vec<Value> {
            let mut items = items.to_vec();
            items.sort();
            items.dedup();
            items.into_iter().map(|item| Value::String(item.into())).collect()
        };
        self.equal(field, &Value::Array(sorted(expected)), &Value::Array(sorted(found)));
    }

    /// Notes a difference.
    pub fn report(&mut self, field: &str, expected: &Value, found: &Value) {
        self.differences.push(Difference {
            field: field.to_owned(),
            expected: shown(field, expected),
            found: shown(field, found),
        });
    }
}

/// The keys of both, each once.
pub(super) fn union<'a>(one: &'a Value, other: &'a Value) -> Vec<&'a str> {
    let mut keys = read::keys(one);
    keys.extend(read::keys(other).into_iter().filter(|key| !read::has_key(one, key)));
    keys
}

/// Whether it is one of the forms of "not set".
fn is_unset(value: &Value) -> bool {
    read::is_nothing(value) || *value == false || value.as_f64() == Some(0.0)
}

fn alike(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => objects_alike(one, other),
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        _ => expected == found || (is_unset(expected) && is_unset(found)),
    }
}

fn objects_alike(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let within = |one: &Map<String, Value>, other: &Map<String, Value>| {
        one.iter().all(|(key, value)| alike(value, other.get(key).unwrap_or(&Value::Null)))
    };
    within(one, other) && within(other, one)
}

/// The value for a person. `nothing` is said of a secret too; it tells nothing about one.
fn shown(field: &str, value: &Value) -> String {
    if value.is_null() {
        return "nothing".into();
    }
    if table::is_secret(field) {
        return "***".into();
    }
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(expected: Value, found: Value) -> Vec<String> {
        let mut comparison = Comparison::default();
        comparison.equal("X", &expected, &found);
        comparison.differences.into_iter().map(|difference| difference.field).collect()
    }

    #[test]
    fn all_forms_of_nothing_are_equal_at_any_depth() {
        let forms = [json!(null), json!(""), json!([]), json!({}), json!(false), json!(0)];
        for one in &forms {
            for other in &forms {
                assert!(fields(json!({ "a": one }), json!({ "a": other })).is_empty());
                assert!(fields(json!([one]), json!([other])).is_empty());
            }
            assert!(fields(json!({ "a": { "b": one } }), json!(null)).is_empty());
        }
    }

    #[test]
    fn a_difference_inside_an_object_names_the_key() {
        assert_eq!(fields(json!({ "a": { "b": 1 } }), json!(null)), ["X.a.b"]);
        assert_eq!(fields(json!(null), json!({ "a": [1] })), ["X.a"]);
        assert_eq!(fields(json!({ "a": 1 }), json!("text")), ["X"]);
    }

    #[test]
    fn what_may_hold_a_secret_is_never_shown() {
        assert_eq!(shown("Config.Env[AES_KEY]", &json!(["AES_KEY=x"])), "***");
        assert_eq!(shown("HostConfig.Memory", &json!(5)), "5");
        assert!(shown("HostConfig.SecurityOpt", &json!("é".repeat(500))).chars().count() < 210);
    }
}
