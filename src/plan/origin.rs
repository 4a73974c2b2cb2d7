//! Where the running image comes from: its repository and tag as the container was made with, and
//! whether it is a build of the shop's own on top of the repository's image. Pure; called by
//! `make`.
//!
//! The tag is read from the inspection: a listing shows an id as soon as the tag was moved or
//! removed. An image of one's own is never replaced by the stock one in silence (design section 4).

use serde_json::Value;

use super::versions::{architecture, tag_of};
use crate::engine::RegistryImage;

/// What is known of the running image's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// `payramapp/payram`; none when only an id is known of it.
    pub repository: Option<String>,
    /// `1.9.6-arm64`
    pub tag: Option<String>,
    /// What a person should know of how the tag was found.
    pub note: Option<String>,
    /// Its repositories by digest: where it was pulled from or pushed to.
    pulled_from: Vec<String>,
    /// Every repository that it has a tag of.
    tagged: Vec<String>,
    /// Whether the engine calls images by the digest of their manifest (containerd image store).
    is_by_manifest: bool,
    id: String,
    layers: Vec<String>,
}

impl Origin {
    /// From the inspections of a container and of its image, none where that is gone.
    pub fn of(container: &Value, image: Option<&Value>) -> Self {
        let named = container["Config"]["Image"].as_str().unwrap_or_default();
        let empty = Value::Null;
        let image = image.unwrap_or(&empty);
        let tags = texts(&image["RepoTags"]);
        let digests = texts(&image["RepoDigests"]);
        let id = container["Image"].as_str().unwrap_or_default().to_owned();
        let mut origin = Self {
            repository: repository(named).map(str::to_owned),
            tag: tag_of(named).filter(|_| repository(named).is_some()).map(str::to_owned),
            note: None,
            pulled_from: digests
                .iter()
                .filter_map(|it| repository(it))
                .map(str::to_owned)
                .collect(),
            tagged: tags.iter().filter_map(|it| repository(it)).map(str::to_owned).collect(),
            is_by_manifest: digests.iter().any(|it| it.rsplit('@').next() == Some(&id)),
            id,
            layers: texts(&image["RootFS"]["Layers"]).iter().map(|it| (*it).to_owned()).collect(),
        };
        if origin.repository.is_none() {
            let first = origin.tagged.first().or(origin.pulled_from.first());
            origin.repository = first.cloned();
        }
        if origin.tag.is_none() {
            let own = tags.iter().find(|tag| repository(tag) == origin.repository.as_deref());
            origin.tag = own.and_then(|tag| tag_of(tag)).map(str::to_owned);
            origin.note = Some(match &origin.tag {
                Some(tag) => format!("the container names its image without a tag; it is {tag}"),
                None => {
                    "the container names its image without a tag, and no tag names it".to_owned()
                }
            });
            // Named by digest or id only: its architecture stands for the suffix of the tag.
            let suffix = image["Architecture"].as_str().unwrap_or_default();
            let label = image["Config"]["Labels"]["org.opencontainers.image.version"].as_str();
            if let (None, "arm64", Some(version)) = (&origin.tag, suffix, label) {
                let has_suffix = architecture(version).is_some();
                origin.tag =
                    Some(if has_suffix { version.to_owned() } else { format!("{version}-arm64") });
            }
        }
        origin
    }

    /// Whether the image is one of this repository's: by the name that the container has for it, by
    /// another tag, or by where it was pulled from.
    pub fn is_of(&self, repo: &str) -> bool {
        let names = self.repository.iter().chain(&self.pulled_from).chain(&self.tagged);
        names.map(|name| plain(name)).any(|name| name == plain(repo))
    }

    /// Whether it may be an image of one's own under the repository's name, so that the registry
    /// should be asked for what it has under that tag.
    pub fn may_be_own_build(&self, repo: &str) -> bool {
        let was_pulled = self.pulled_from.iter().any(|name| plain(name) == plain(repo));
        !was_pulled || self.is_by_manifest || !self.is_named(repo)
    }

    /// Whether the container names it by this repository.
    fn is_named(&self, repo: &str) -> bool {
        self.repository.as_deref().is_some_and(|name| plain(name) == plain(repo))
    }

    /// Whether it was made on this host: it has come from no registry.
    pub fn is_made_here(&self) -> bool {
        self.pulled_from.is_empty()
    }

    /// What it is beside the registry's image of its version.
    pub fn compared_to(&self, registry: &RegistryImage) -> Compared {
        let Some(config) = registry.config.as_ref() else { return Compared::Unknown };
        let theirs = texts(&config["rootfs"]["diff_ids"]);
        let begins_with = self.layers.len() >= theirs.len()
            && self.layers.iter().zip(&theirs).all(|(own, their)| own == their);
        if theirs.is_empty() || !begins_with {
            // Nothing is told, or its tag has moved since.
            return Compared::Unknown;
        }
        match self.layers.len() - theirs.len() {
            0 if self.is_by_manifest => Compared::Same,
            0 => match registry.config_digest.as_deref() {
                None => Compared::Unknown,
                Some(digest) if digest == self.id => Compared::Same,
                Some(_) => {
                    Compared::Added("settings of its own (environment, labels, command)".to_owned())
                }
            },
            1 => Compared::Added("a layer of its own".to_owned()),
            more => Compared::Added(format!("{more} layers of its own")),
        }
    }
}

/// An image beside the registry's of the same version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// It is that image.
    Same,
    /// It is that image with something on top.
    Added(String),
    /// It can't be told.
    Unknown,
}

/// The repository of a reference; none of an id.
fn repository(reference: &str) -> Option<&str> {
    let named = reference.split('@').next()?;
    let (head, last) = match named.rsplit_once('/') {
        Some((head, last)) => (Some(head), last),
        None => (None, named),
    };
    let name = last.split(':').next()?;
    let is_id = head.is_none()
        && (name == "sha256" || (name.len() >= 12 && name.bytes().all(|b| b.is_ascii_hexdigit())));
    if is_id || name.is_empty() || name == "<none>" {
        return None;
    }
    named.get(..named.len() - (last.len() - name.len()))
}

/// A repository without what goes without saying.
fn plain(repo: &str) -> &str {
    let repo = repo.strip_prefix("docker.io/").unwrap_or(repo);
    let repo = repo.strip_prefix("index.docker.io/").unwrap_or(repo);
    repo.strip_prefix("library/").unwrap_or(repo)
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const REPO: &str = "payramapp/payram";

    fn container(image: &str) -> Value {
        json!({"Image": "sha256:run", "Config": {"Image": image}})
    }

    fn image(tags: &[&str], digests: &[&str], layers: &[&str]) -> Value {
        json!({
            "RepoTags": tags, "RepoDigests": digests, "RootFS": {"Layers": layers},
            "Architecture": "amd64",
        })
    }

    fn registry(layers: &[&str], config_digest: &str) -> RegistryImage {
        RegistryImage {
            config: Some(json!({"rootfs": {"diff_ids": layers}})),
            config_digest: Some(config_digest.to_owned()),
            ..RegistryImage::default()
        }
    }

    #[test]
    fn the_tag_is_the_one_that_the_container_was_made_with() {
        let moved = image(&[], &["payramapp/payram@sha256:m"], &[]);
        let origin = Origin::of(&container("payramapp/payram:1.9.6-arm64"), Some(&moved));
        assert_eq!(origin.tag.as_deref(), Some("1.9.6-arm64"));
        assert_eq!((origin.note.as_deref(), origin.is_of(REPO)), (None, true));
        let gone = Origin::of(&container("docker.io/payramapp/payram:1.9.6"), None);
        assert_eq!(gone.tag.as_deref(), Some("1.9.6"));
        assert!(gone.is_of(REPO));
    }

    #[test]
    fn an_image_that_is_named_by_digest_or_id_is_looked_up() {
        let tagged = image(&["payramapp/payram:1.9.6-arm64"], &["payramapp/payram@sha256:m"], &[]);
        let id = "3f2a9c1b7d55e0aa";
        let digest = format!("payramapp/payram@sha256:{id}");
        for named in [digest.as_str(), "sha256:3f2a9c1b7d55e0aa", id] {
            let origin = Origin::of(&container(named), Some(&tagged));
            assert_eq!(origin.tag.as_deref(), Some("1.9.6-arm64"), "{named}");
            assert!(origin.is_of(REPO) && origin.note.is_some(), "{named}");
        }
        let pinned = Origin::of(&container("payramapp/payram:1.9.6@sha256:m"), None);
        assert_eq!(pinned.tag.as_deref(), Some("1.9.6"));
        let nameless = json!({
            "RepoTags": [], "RepoDigests": ["payramapp/payram@sha256:m"], "Architecture": "arm64",
            "Config": {"Labels": {"org.opencontainers.image.version": "1.9.6"}},
        });
        let origin = Origin::of(&container(id), Some(&nameless));
        assert_eq!(origin.tag.as_deref(), Some("1.9.6-arm64"));
        assert_eq!(Origin::of(&container(id), None).repository, None);
    }

    #[test]
    fn a_build_on_top_is_told_from_the_registrys_own_image() {
        let stock = registry(&["a", "b"], "sha256:stock");
        let of = |layers: &[&str]| {
            let image = image(&["payramapp/payram:1.9.6"], &[], layers);
            Origin::of(&container("payramapp/payram:1.9.6"), Some(&image))
        };
        let derived = of(&["a", "b", "c"]);
        assert!(derived.may_be_own_build(REPO) && derived.is_made_here());
        let added = |what: &str| Compared::Added(what.to_owned());
        assert_eq!(derived.compared_to(&stock), added("a layer of its own"));
        let settings = "settings of its own (environment, labels, command)";
        assert_eq!(of(&["a", "b"]).compared_to(&stock), added(settings));
        let loaded = registry(&["a", "b"], "sha256:run");
        assert_eq!(of(&["a", "b"]).compared_to(&loaded), Compared::Same);
        let moved = of(&["x", "b", "c"]).compared_to(&stock);
        assert_eq!(moved, Compared::Unknown, "the tag was moved");
        let pulled = image(&["payramapp/payram:1.9.6"], &["payramapp/payram@sha256:m"], &["a"]);
        let pulled = Origin::of(&container("payramapp/payram:1.9.6"), Some(&pulled));
        assert!(!pulled.may_be_own_build(REPO));
        let other = image(&["shop/own:3"], &[], &["a", "b", "c"]);
        let other = Origin::of(&container("shop/own:3"), Some(&other));
        assert!(!other.is_of(REPO) && other.may_be_own_build(REPO));
    }
}
