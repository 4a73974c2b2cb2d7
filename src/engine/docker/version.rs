//! The version of the Engine API, which engine and client agree on before anything else.

use std::fmt;
use std::str::FromStr;

/// A version of the Engine API, ordered by number: 1.9 is older than 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion {
    major: u32,
    minor: u32,
}

impl ApiVersion {
    /// The newest version whose reference this client was written from (Docker 28), and the first
    /// that says which hardware addresses were asked for.
    pub(super) const NEWEST: Self = Self { major: 1, minor: 48 };

    /// The oldest usable one (Docker 1.13): below it an exec drops its environment, where
    /// passwords travel, and a container has no `StopTimeout`.
    pub(super) const OLDEST: Self = Self { major: 1, minor: 25 };

    /// What to speak with an engine whose newest version is this; `None` when it is too old.
    pub(super) fn agreed(self) -> Option<Self> {
        (self >= Self::OLDEST).then_some(self.min(Self::NEWEST))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unlike = || format!("`{text}` is no API version like 1.41");
        let (major, minor) = text.trim().split_once('.').ok_or_else(unlike)?;
        let major = major.parse().map_err(|_| unlike())?;
        let minor = minor.parse().map_err(|_| unlike())?;
        Ok(Self { major, minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(text: &str) -> Option<String> {
        text.parse::<ApiVersion>().expect("a version").agreed().map(|version| version.to_string())
    }

    #[test]
    fn the_older_of_both_sides_is_spoken() {
        assert_eq!(agreed("1.41").as_deref(), Some("1.41"));
        assert_eq!(agreed("1.52").as_deref(), Some("1.48"));
        assert_eq!(agreed("1.9"), None);
        assert_eq!(agreed("1.24"), None);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1", "v1.41", "1.x", "1.41.2"] {
            assert!(text.parse::<ApiVersion>().is_err(), "{text}");
        }
    }
}
