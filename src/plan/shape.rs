//! Reads JSON of a known shape and says, when it is another, which field, what was expected
//! and what was found.
//!
//! Used by `policy` and `manifest`, whose files come from outside. Unknown fields are ignored;
//! a field that may be left out may also be `null`; every other deviation is an error, never a
//! default. Values are shown only where the caller lets them be: a manifest's environment may
//! hold secrets (I10).

use serde_json::{Map, Value};

/// A place in a document, `breakpoints[0].version`, and what is there.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    path: String,
    value: &'a Value,
}

/// A field that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {path}: expected {expected}, found {found}")]
pub(super) struct Misshapen {
    pub path: String,
    pub expected: String,
    pub found: String,
}

impl<'a> Field<'a> {
    /// The whole document.
    pub fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    /// The error that this field is not `expected`, with what it is by type.
    pub fn is_not(&self, expected: &str) -> Misshapen {
        self.mismatch(expected, kind(self.value))
    }

    /// The error that this text is not `expected`, with the text.
    pub fn text_is_not(&self, expected: &str) -> Misshapen {
        let text: String = self.value.as_str().unwrap_or_default().chars().take(80).collect();
        self.mismatch(expected, &format!("{text:?}"))
    }

    fn mismatch(&self, expected: &str, found: &str) -> Misshapen {
        let path = if self.path.is_empty() { "(document)" } else { &self.path };
        Misshapen { path: path.to_owned(), expected: expected.to_owned(), found: found.to_owned() }
    }

    /// A field that must be there.
    pub fn required(&self, name: &str) -> Result<Field<'a>, Misshapen> {
        let path = self.below(name);
        self.optional(name)?.ok_or_else(|| Misshapen {
            path,
            expected: "a value".to_owned(),
            found: "nothing".to_owned(),
        })
    }

    /// A field that may be left out or `null`.
    pub fn optional(&self, name: &str) -> Result<Option<Field<'a>>, Misshapen> {
        Ok(self
            .object()?
            .get(name)
            .filter(|value| !value.is_null())
            .map(|value| Field { path: self.below(name), value }))
    }

    /// The texts of an object, in their order.
    pub fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, Misshapen> {
        let entry = |(name, value): (&'a String, &'a Value)| {
            (name.as_str(), Field { path: self.below(name), value })
        };
        Ok(self.object()?.iter().map(entry).collect())
    }

    /// The items of a list.
    pub fn items(&self) -> Result<Vec<Field<'a>>, Misshapen> {
        let items = self.value.as_array().ok_or_else(|| self.is_not("a list"))?;
        let item = |(at, value)| Field { path: format!("{}[{at}]", self.path), value };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// A text, as it stands.
    pub fn text(&self) -> Result<&'a str, Misshapen> {
        self.value.as_str().ok_or_else(|| self.is_not("a text"))
    }

    /// A text that holds something.
    pub fn filled_text(&self) -> Result<&'a str, Misshapen> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return Err(self.text_is_not("a text that is not empty"));
        }
        Ok(text)
    }

    /// A whole number, 0 or above.
    pub fn number(&self) -> Result<u64, Misshapen> {
        self.value.as_u64().ok_or_else(|| self.is_not("a whole number"))
    }

    /// A port.
    pub fn port(&self) -> Result<u16, Misshapen> {
        let number = self.number()?;
        u16::try_from(number)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| self.mismatch("a port from 1 to 65535", &number.to_string()))
    }

    /// `true` or `false`.
    pub fn truth(&self) -> Result<bool, Misshapen> {
        self.value.as_bool().ok_or_else(|| self.is_not("true or false"))
    }

    fn object(&self) -> Result<&'a Map<String, Value>, Misshapen> {
        self.value.as_object().ok_or_else(|| self.is_not("an object"))
    }

    fn below(&self, name: &str) -> String {
        let name: String = name.chars().take(80).collect();
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
