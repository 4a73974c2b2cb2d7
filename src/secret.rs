//! Values that may not be seen: passwords and keys.
//!
//! Everything that carries a secret carries it in [`Secret`], which has no `Display`, whose
//! `Debug` prints `***`, and which is not `Serialize` (I10). The one way to the value is
//! [`Secret::expose`], so that `grep expose` lists every place where a secret leaves.

use std::fmt;

/// A value that no log line, answer, error or panic may show.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value; from here on it prints as `***`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one consumer that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Secret<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_three_stars() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
        assert_eq!(format!("{:#?}", Some(Secret::new("hunter2"))), "Some(\n    ***,\n)");
    }
}
