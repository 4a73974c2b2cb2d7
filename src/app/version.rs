//! Versions as this module compares them: leniently, and only to tell them apart.
//!
//! Called by [`super::core`] and [`super::container`]. Which version may follow which is
//! decided in `plan`.

/// Ends of a tag that name an architecture and are no pre-release.
const ARCHITECTURES: [&str; 2] = ["-arm64", "-amd64"];

/// Without a leading `v` and without the architecture.
pub(super) fn bare(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    ARCHITECTURES.iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text)
}

/// As a semantic version, when it is one.
pub(super) fn parse(text: &str) -> Option<semver::Version> {
    semver::Version::parse(bare(text)).ok()
}
