//! JSON from outside, in which nothing is said twice.
//!
//! Of two equal keys most readers take the last and some the first: whoever checked a document may
//! have read another one than we do. So it is refused. Called by `plan` for policy and manifest
//! and by `api` for bodies. A byte order mark is passed over.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a document.
///
/// # Errors
/// A sentence with line and column.
pub(crate) fn read(text: &[u8]) -> Result<Value, String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Once.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Builds a value, each key once.
struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, found: bool) -> Result<Value, E> {
        Ok(found.into())
    }

    fn visit_i64<E: Error>(self, found: i64) -> Result<Value, E> {
        Ok(found.into())
    }

    fn visit_u64<E: Error>(self, found: u64) -> Result<Value, E> {
        Ok(found.into())
    }

    fn visit_f64<E: Error>(self, found: f64) -> Result<Value, E> {
        Ok(Number::from_f64(found).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, found: &str) -> Result<Value, E> {
        Ok(found.into())
    }

    fn visit_string<E: Error>(self, found: String) -> Result<Value, E> {
        Ok(found.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Once)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                let key: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            let value = entries.next_value_seed(Once)?;
            fields.insert(key, value);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::testing::any_json;

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":[{"b":1,"c":2,"b":3}]}"#, r#"{"a":1,"\u0061":2}"#]
        {
            let reason = read(text.as_bytes()).expect_err(text);
            assert!(reason.contains("is there twice at line 1"), "{reason}");
        }
        assert_eq!(read(br#"{"a":{"a":1}}"#), Ok(serde_json::json!({"a": {"a": 1}})));
        assert!(read(b"{} x").is_err());
        assert_eq!(read(b"\xef\xbb\xbf[1]"), Ok(serde_json::json!([1])));
    }

    proptest! {
        #[test]
        fn everything_else_is_read_as_every_reader_does(value in any_json()) {
            let text = value.to_string();
            let expected = serde_json::from_slice::<Value>(text.as_bytes()).expect("JSON");
            prop_assert_eq!(read(text.as_bytes()), Ok(expected));
        }
    }
}
