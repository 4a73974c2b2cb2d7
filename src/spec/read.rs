//! How single fields of the engine's JSON are read: binds, links, paths, modes, versions.
//!
//! Used by `spec` and by `parity`; knows nothing of upgrades. A field that is missing or of
//! another type reads as nothing: indexing a [`Value`] by text answers null then, never panics.

use serde_json::Value;

/// Null, absent, or empty: what the engine means when nothing was said.
pub fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Whether two values say the same, nothing being nothing in whatever form.
pub fn same(one: &Value, other: &Value) -> bool {
    one == other || (is_nothing(one) && is_nothing(other))
}

/// Whether it is the literal `true`.
pub fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

/// The texts of an array, in order.
pub fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The items of an array.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The keys of an object, in order.
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Whether an object has this key, whatever its value: `{"80/tcp": {}}`.
pub fn has_key(value: &Value, key: &str) -> bool {
    value.as_object().is_some_and(|fields| fields.contains_key(key))
}

/// The text of a field, nothing when it is empty.
pub fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// The first twelve digits of a container's id, which the engine uses as host name and alias.
pub fn short_id(container: &Value) -> Option<&str> {
    container["Id"].as_str().and_then(|id| id.get(..12))
}

/// The name in `NAME=value`; an entry without `=` is a name alone and unsets the variable.
pub fn env_key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// The entries of an environment for this name.
pub fn env_of<'a>(environment: &[&'a str], key: &str) -> Vec<&'a str> {
    environment.iter().copied().filter(|entry| env_key(entry) == key).collect()
}

/// An absolute path without `.`, `..`, doubled or trailing slashes, as the engine keeps it.
pub fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// One entry of `HostConfig.Binds`, the form of `docker run -v`.
pub struct Bind<'a> {
    /// A volume's name or a path; none for a bare destination, which is an anonymous volume.
    pub source: Option<&'a str>,
    /// Where it is mounted, cleaned.
    pub destination: String,
}

impl<'a> Bind<'a> {
    /// Reads `DEST`, `SOURCE:DEST` or `SOURCE:DEST:OPTIONS`.
    pub fn parse(entry: &'a str) -> Self {
        let mut parts = entry.split(':');
        match (parts.next(), parts.next()) {
            (Some(source), Some(destination)) => {
                Self { source: Some(source), destination: clean_path(destination) }
            }
            (only, _) => Self { source: None, destination: clean_path(only.unwrap_or_default()) },
        }
    }
}

/// The destination of an entry of `HostConfig.Mounts`, cleaned.
pub fn target(mount: &Value) -> String {
    clean_path(mount["Target"].as_str().unwrap_or_default())
}

/// Every destination that the container's own settings name with a source of its own: binds,
/// mounts, tmpfs. What is mounted elsewhere came from an image's `VOLUME`, an anonymous `-v`,
/// or another container.
pub fn named_destinations(container: &Value) -> Vec<String> {
    let host = &container["HostConfig"];
    let binds = texts(&host["Binds"]).into_iter().map(Bind::parse);
    let with_source = binds.filter(|bind| bind.source.is_some()).map(|bind| bind.destination);
    let mounts = items(&host["Mounts"]).iter().map(target);
    let tmpfs = keys(&host["Tmpfs"]).into_iter().map(clean_path);
    with_source.chain(mounts).chain(tmpfs).collect()
}

/// What the inspection's `Mounts` has at this destination.
pub fn mounted_at<'a>(container: &'a Value, destination: &str) -> Option<&'a Value> {
    items(&container["Mounts"]).iter().find(|mount| {
        mount["Destination"].as_str().is_some_and(|path| clean_path(path) == destination)
    })
}

/// Legacy links as `(peer, alias)`. The engine takes `peer:alias` and answers
/// `/peer:/container/alias`.
pub fn links(value: &Value) -> Vec<(&str, &str)> {
    texts(value)
        .into_iter()
        .map(|link| {
            let (peer, alias) = link.split_once(':').unwrap_or((link, link));
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            (peer.trim_start_matches('/'), alias.trim_start_matches('/'))
        })
        .collect()
}

/// What `HostConfig.NetworkMode` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode<'a> {
    /// `default`, `bridge` or nothing: the engine's own bridge.
    Bridge,
    /// The host's network.
    Host,
    /// None at all.
    None,
    /// `container:ID`: another container's.
    Container,
    /// A network of the operator's, by name or id.
    Named(&'a str),
}

impl<'a> NetworkMode<'a> {
    /// The mode of an inspected container.
    pub fn of(container: &'a Value) -> Self {
        match container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default() {
            "" | "default" | "bridge" => NetworkMode::Bridge,
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            mode if mode.starts_with("container:") => NetworkMode::Container,
            mode => NetworkMode::Named(mode),
        }
    }

    /// Whether the container has networks of its own to be attached to.
    pub fn attaches(self) -> bool {
        match self {
            NetworkMode::Bridge | NetworkMode::Named(_) => true,
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container => false,
        }
    }
}

/// Whether the engine, not the operator, decided the host name that the inspection shows: it
/// is the short id, the peer's (`container:`), or the host's own (`--uts host`). In the last
/// two cases the engine refuses a create request that has one.
pub fn hostname_is_assigned(container: &Value) -> bool {
    NetworkMode::of(container) == NetworkMode::Container
        || container["HostConfig"]["UTSMode"].as_str() == Some("host")
        || container["Config"]["Hostname"].as_str() == short_id(container)
}

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(u32, u32);

impl ApiVersion {
    /// The first that takes several networks at creation, and hardware addresses for each.
    pub const MANY_NETWORKS: ApiVersion = ApiVersion(1, 44);

    /// The first whose engines make hardware addresses up at random, and show the one that was
    /// asked for in `Config.MacAddress` (Docker 28).
    pub const TELLS_CONFIGURED_MAC: ApiVersion = ApiVersion(1, 48);

    /// Reads `1.41`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_cleaned_as_the_engine_cleans_them() {
        for (given, clean) in
            [("/data/", "/data"), ("//a/./b/../c", "/a/c"), ("/", "/"), ("/..", "/")]
        {
            assert_eq!(clean_path(given), clean);
        }
    }

    #[test]
    fn a_bind_is_a_bare_destination_or_a_source_and_a_destination() {
        let bare = Bind::parse("/anon/");
        assert_eq!((bare.source, bare.destination.as_str()), (None, "/anon"));
        let full = Bind::parse("v:/x:ro,nocopy");
        assert_eq!((full.source, full.destination.as_str()), (Some("v"), "/x"));
    }

    #[test]
    fn a_link_reads_the_same_in_the_form_that_is_sent_and_the_form_that_is_answered() {
        assert_eq!(links(&json!(["db:alias"])), [("db", "alias")]);
        assert_eq!(links(&json!(["/db:/payram/alias"])), [("db", "alias")]);
        assert_eq!(links(&json!(["db"])), [("db", "db")]);
    }

    #[test]
    fn api_versions_are_ordered_as_numbers() {
        let parsed = |text| ApiVersion::parse(text).expect("a version");
        assert!(parsed("1.9") < parsed("1.41"));
        assert!(parsed("1.44") >= ApiVersion::MANY_NETWORKS);
        assert!(ApiVersion::parse("41").is_none());
        assert!(ApiVersion::parse("1.x").is_none());
    }
}
