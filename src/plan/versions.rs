//! Versions as PayRam writes them, and their order.
//!
//! Used by the rest of `plan`; knows no policy and no I/O. A version is semantic and read
//! leniently: a leading `v` is ignored, `-arm64` or `-amd64` at the end is an architecture and
//! not a pre-release, and `3.1` is 3.1.0 (never the moving tag `3.1`, see
//! [`Version`]'s `Display`). One number alone is no version: it is as likely a build number.

use std::cmp::Reverse;
use std::fmt;

/// Architectures that a tag may end in.
const ARCHITECTURES: [&str; 2] = ["arm64", "amd64"];

/// A tag's greatest length (OCI distribution specification, section "Pulling manifests").
const TAG_LENGTH: usize = 128;

/// A semantic version. It prints as three numbers and a pre-release if it has one, without `v`
/// and without an architecture. Build metadata (`+…`) has no place in a tag and is dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// Why a text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a version: expected numbers as in 1.9.7, {reason}")]
pub struct NotAVersion {
    text: String,
    reason: String,
}

impl Version {
    /// Reads a version leniently.
    ///
    /// # Errors
    /// When it is not two or three numbers with an optional pre-release.
    pub fn parse(text: &str) -> Result<Self, NotAVersion> {
        let not = |reason: String| NotAVersion { text: text.chars().take(80).collect(), reason };
        if text.len() > TAG_LENGTH {
            return Err(not(format!("found {} characters", text.len())));
        }
        let bare = without_architecture(text.trim());
        let bare = bare.strip_prefix('v').unwrap_or(bare);
        let (core, rest) = match bare.find(['-', '+']) {
            Some(at) => bare.split_at(at),
            None => (bare, ""),
        };
        let full = match core.matches('.').count() {
            1 => format!("{core}.0{rest}"),
            2 => bare.to_owned(),
            dots => return Err(not(format!("found {} parts", dots + 1))),
        };
        let mut version =
            semver::Version::parse(&full).map_err(|error| not(format!("found: {error}")))?;
        version.build = semver::BuildMetadata::EMPTY;
        Ok(Self(version))
    }

    /// Whether it comes before the release of the same number.
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The architecture that a tag ends in, `arm64`.
pub fn architecture(tag: &str) -> Option<&'static str> {
    ARCHITECTURES.into_iter().find(|name| {
        tag.strip_suffix(name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('-'))
    })
}

/// A tag without the architecture that it ends in.
pub fn without_architecture(tag: &str) -> &str {
    match architecture(tag) {
        // The architecture and the `-` before it are ASCII and at the end.
        Some(name) => tag.get(..tag.len() - name.len() - 1).unwrap_or(tag),
        None => tag,
    }
}

/// The tag of an image reference; none where it is named without one or by digest alone.
pub fn tag_of(image: &str) -> Option<&str> {
    let named = image.split_once('@').map_or(image, |(named, _)| named);
    let (name, tag) = named.rsplit('/').next()?.split_once(':')?;
    (name != "sha256" && is_tag(tag)).then_some(tag)
}

/// Whether a registry could have a tag of this spelling.
pub fn is_tag(text: &str) -> bool {
    text.len() <= TAG_LENGTH
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What versions are and how they are ordered.
#[derive(Clone, Copy, Debug)]
pub enum Scheme<'a> {
    /// Semantic versions.
    Semantic,
    /// `DEBUG_VERSION_MODE`: any tag is a version, and the first of these is the newest.
    Position(&'a [String]),
}

/// A version's place in its [`Scheme`]; only ranks of the same scheme are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// By its numbers.
    Version(Version),
    /// By its place in the list, the first being the highest.
    Position(Reverse<usize>),
}

impl<'a> Scheme<'a> {
    /// The scheme that `DEBUG_VERSION_MODE` selects.
    pub fn select(debug_version_mode: bool, releases: &'a [String]) -> Self {
        if debug_version_mode { Scheme::Position(releases) } else { Scheme::Semantic }
    }

    /// Where a version stands; none for what is no version in this scheme.
    pub fn rank(&self, text: &str) -> Option<Rank> {
        match self {
            Scheme::Semantic => Version::parse(text).ok().map(Rank::Version),
            Scheme::Position(releases) => {
                let text = text.trim();
                let place = |wanted: &str| releases.iter().position(|r| r.trim() == wanted);
                place(text)
                    .or_else(|| place(without_architecture(text)))
                    .map(|at| Rank::Position(Reverse(at)))
            }
        }
    }

    /// The version as its core reports it: normalised, or the tag itself in debug mode.
    pub fn version_text(&self, text: &str) -> String {
        match (self, Version::parse(text)) {
            (Scheme::Semantic, Ok(version)) => version.to_string(),
            (Scheme::Semantic, Err(_)) | (Scheme::Position(_), _) => text.trim().to_owned(),
        }
    }
}

impl Rank {
    /// Whether it is a version before its release.
    pub fn is_prerelease(&self) -> bool {
        match self {
            Rank::Version(version) => version.is_prerelease(),
            Rank::Position(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn a_leading_v_an_architecture_and_build_metadata_do_not_matter() {
        for same in ["1.9.7", "v1.9.7", "1.9.7-arm64", "v1.9.7-amd64", " 1.9.7 ", "1.9.7+build.5"] {
            assert_eq!(version(same), version("1.9.7"), "{same}");
        }
        assert_eq!(version("v1.9.7-arm64").to_string(), "1.9.7");
        assert_eq!(version("2.0.0-rc.1-arm64").to_string(), "2.0.0-rc.1");
    }

    #[test]
    fn a_version_of_two_numbers_has_a_third_that_is_zero() {
        assert_eq!(version("3.1").to_string(), "3.1.0");
        assert_eq!(version("v2.0-arm64").to_string(), "2.0.0");
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        let ascending = ["1.9.9", "1.9.10", "1.10.0", "2.0.0-alpha", "2.0.0-rc.1", "2.0.0"];
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused_with_what_was_found() {
        for bad in ["", "latest", "3", "1.2.3.4", "1..2", "1.2.x", "-1.2.3", "arm64", "01.2.3"] {
            let error = Version::parse(bad).expect_err(bad).to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
        assert!(Version::parse(&"9".repeat(500)).is_err());
        assert!(Version::parse("99999999999999999999.1.1").is_err());
    }

    #[test]
    fn a_tag_is_found_behind_a_registry_with_a_port() {
        assert_eq!(tag_of("127.0.0.1:5000/payramapp/payram:1.9.7-arm64"), Some("1.9.7-arm64"));
        assert_eq!(tag_of("127.0.0.1:5000/payramapp/payram"), None);
        assert_eq!(tag_of("payram:1.0.0@sha256:00ff"), Some("1.0.0"));
        assert_eq!(tag_of("payram@sha256:00ff"), None);
        assert_eq!(tag_of("sha256:00ff"), None);
        assert_eq!(tag_of(""), None);
    }

    #[test]
    fn in_debug_mode_any_tag_is_a_version_and_the_first_is_the_newest() {
        let releases = ["nightly".to_owned(), "broken".to_owned(), "base".to_owned()];
        let scheme = Scheme::select(true, &releases);
        assert!(scheme.rank("nightly") > scheme.rank("broken"));
        assert!(scheme.rank("broken-arm64") > scheme.rank("base"));
        assert_eq!(scheme.rank("1.9.7"), None);
        assert_eq!(scheme.version_text("nightly"), "nightly");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_accepts_reads_back_the_same(
            text in "[v0-9a-z.+\\-]{0,24}|\\PC{0,40}"
        ) {
            tag_of(&text);
            if let Ok(version) = Version::parse(&text) {
                prop_assert_eq!(Version::parse(&version.to_string()), Ok(version));
            }
        }
    }
}
