//! What a registry says of an image before anything is pulled: how large it will be, and which
//! image its tag names now.
//!
//! Called by the verb `registry_size`, for the disk table of the plan: an estimate; and by
//! `registry_digest`, for the quarantine. It is read from the registry itself (OCI distribution
//! specification, "Pulling manifests"), since the engine's API has no way to ask for a size
//! without pulling. No credentials; what goes wrong is a reason to do without, never a failure.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Host;

/// For all requests together.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Bytes of disk for each compressed byte: the layer as it is received, which the engine keeps
/// until it is unpacked (1), and its files (2, what images of Debian packages come to).
const DISK_PER_COMPRESSED_BYTE: u64 = 3;

/// The largest manifest or token answer that is read; the specification asks for 4 MiB.
const LARGEST_ANSWER: usize = 4 << 20;

/// Lists of manifests before manifests, of OCI before Docker's own.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// The disk that `repo:tag` needs on an engine of this architecture, or why it is not known.
pub(super) async fn size(repo: &str, tag: &str, architecture: &str) -> Result<u64, String> {
    let mut registry = Registry::of(repo)?;
    let mut manifest = registry.manifest(tag).await?;
    if let Some(digest) = manifest.digest_for(architecture)? {
        manifest = registry.manifest(&digest).await?;
    }
    let layers = manifest.layers.ok_or("its manifest lists no layers")?;
    let compressed = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    compressed
        .and_then(|bytes| bytes.checked_mul(DISK_PER_COMPRESSED_BYTE))
        .ok_or_else(|| "its layers' sizes are absurd".to_owned())
}

/// The digest that `repo:tag` has now, or why it is not known.
///
/// It is computed, not believed: the sha256 of the manifest's bytes (OCI image specification,
/// "Digests"), which is what an engine notes as the digest of a tag that it pulled.
pub(super) async fn digest(repo: &str, tag: &str) -> Result<String, String> {
    let bytes = Registry::of(repo)?.manifest_bytes(tag).await?;
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// A repository in a registry.
struct Registry {
    client: Client,
    base: Url,
    repository: String,
    is_loopback: bool,
    token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    manifests: Option<Vec<Listed>>,
    layers: Option<Vec<Layer>>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Layer {
    size: u64,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    fn of(repo: &str) -> Result<Self, String> {
        let (host, repository) = split(repo);
        let is_loopback = is_loopback(&host);
        let scheme = if is_loopback { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| format!("`{host}` is no registry: {error}"))?;
        let mut builder = crate::http::client_builder().redirect(redirect::Policy::none());
        if is_loopback {
            // Without TLS, so a host without certificates is fine.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| crate::http::reason(&error))?;
        Ok(Self { client, base, repository, is_loopback, token: None })
    }

    /// The manifest of a tag or digest.
    async fn manifest(&mut self, reference: &str) -> Result<Manifest, String> {
        parse(&self.manifest_bytes(reference).await?)
    }

    /// The same as it stands; fetches a token when the registry wants one.
    async fn manifest_bytes(&mut self, reference: &str) -> Result<Vec<u8>, String> {
        let mut response = self.get_manifest(reference).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.token.is_none() {
            self.token = Some(self.fetch_token(&response).await?);
            response = self.get_manifest(reference).await?;
        }
        body(response).await
    }

    async fn get_manifest(&self, reference: &str) -> Result<Response, String> {
        let path = format!("{}/manifests/{reference}", self.repository);
        let url = self.base.join(&path).map_err(|error| format!("{path}: {error}"))?;
        // A repository is no way out of the registry's own paths.
        if !url.as_str().starts_with(self.base.as_str()) {
            return Err(format!("`{path}` is no repository and tag"));
        }
        let mut request = self.client.get(url).header(ACCEPT, MANIFEST_TYPES);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|error| crate::http::reason(&error))
    }

    /// Distribution's token authentication, anonymously: the refusal says where a token is had.
    async fn fetch_token(&self, refusal: &Response) -> Result<String, String> {
        let challenge = refusal.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let realm = parameter(challenge, "realm").ok_or("it wants credentials")?;
        let mut url = Url::parse(realm).map_err(|error| format!("realm `{realm}`: {error}"))?;
        if url.scheme() != "https" && !self.is_loopback {
            return Err(format!("its tokens come from {realm}, expected https"));
        }
        for key in ["service", "scope"] {
            if let Some(value) = parameter(challenge, key) {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        let response = self.client.get(url).send().await;
        let answer = body(response.map_err(|error| crate::http::reason(&error))?).await?;
        let token: Token = parse(&answer)?;
        token.token.or(token.access_token).ok_or_else(|| "its token service gave none".to_owned())
    }
}

impl Manifest {
    /// The manifest to read instead when this one is a list; `None` when it is none.
    fn digest_for(&self, architecture: &str) -> Result<Option<String>, String> {
        let Some(listed) = &self.manifests else { return Ok(None) };
        let fits = |listed: &&Listed| {
            listed.platform.as_ref().is_some_and(|platform| {
                platform.os == "linux" && platform.architecture == architecture
            })
        };
        match listed.iter().find(fits) {
            Some(found) => Ok(Some(found.digest.clone())),
            None => Err(format!("it has no image for linux/{architecture}")),
        }
    }
}

/// The registry's host and the repository in it, as Docker reads a name: the first component
/// is a host when it has a dot or a colon or is `localhost`.
fn split(repo: &str) -> (String, String) {
    let (host, repository) = match repo.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        Some(_) | None => ("docker.io", repo),
    };
    if !matches!(host, "docker.io" | "index.docker.io") {
        return (host.to_owned(), repository.to_owned());
    }
    let official = if repository.contains('/') { "" } else { "library/" };
    ("registry-1.docker.io".to_owned(), format!("{official}{repository}"))
}

fn is_loopback(host: &str) -> bool {
    match Url::parse(&format!("http://{host}/")).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// A quoted parameter of `Bearer realm="…",service="…",scope="…"`.
fn parameter<'a>(challenge: &'a str, key: &str) -> Option<&'a str> {
    let (scheme, mut rest) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let (value, after) = value.split_once('"')?;
        if name.trim_matches([',', ' ']).eq_ignore_ascii_case(key) {
            return Some(value);
        }
        rest = after;
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!("it answered {status}"));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| crate::http::reason(&error))? {
        if bytes.len() + piece.len() > LARGEST_ANSWER {
            return Err(format!("its answer is larger than {LARGEST_ANSWER} bytes"));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("its answer is no such JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeEngine, answer};
    use super::*;

    #[test]
    fn the_registry_is_read_from_the_name_as_docker_reads_it() {
        let read = |repo| {
            let (host, repository) = split(repo);
            format!("{host} {repository}")
        };
        assert_eq!(read("payramapp/payram"), "registry-1.docker.io payramapp/payram");
        assert_eq!(read("docker.io/payramapp/payram"), "registry-1.docker.io payramapp/payram");
        assert_eq!(read("debian"), "registry-1.docker.io library/debian");
        assert_eq!(read("127.0.0.1:5000/payramapp/payram"), "127.0.0.1:5000 payramapp/payram");
        assert_eq!(read("localhost/payram"), "localhost payram");
        assert_eq!(read("ghcr.io/a/b/c"), "ghcr.io a/b/c");
    }

    #[test]
    fn only_loopback_is_asked_without_tls() {
        for host in ["localhost:5000", "127.0.0.1:5000", "127.8.0.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["ghcr.io", "10.0.0.1:5000", "localhost.example.com", "::", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_challenge_is_read_parameter_by_parameter() {
        let challenge = r#"Bearer realm="https://auth/token", service="reg",scope="a:b:pull""#;
        assert_eq!(parameter(challenge, "realm"), Some("https://auth/token"));
        assert_eq!(parameter(challenge, "service"), Some("reg"));
        assert_eq!(parameter(challenge, "scope"), Some("a:b:pull"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("Basic realm=\"x\"", "realm"), None);
    }

    #[tokio::test]
    async fn the_layers_of_the_engines_architecture_are_added_up() {
        let registry = FakeEngine::start(|line| match line {
            "GET /v2/payramapp/payram/manifests/1.9.7 HTTP/1.1" => answer(
                200,
                &[],
                r#"{"manifests":[
                    {"digest":"sha256:1","size":9,"platform":{"architecture":"arm64","os":"linux"}},
                    {"digest":"sha256:2","size":9,"platform":{"architecture":"amd64","os":"linux"}},
                    {"digest":"sha256:3","size":9}]}"#,
            ),
            "GET /v2/payramapp/payram/manifests/sha256:2 HTTP/1.1" => {
                answer(200, &[], r#"{"config":{"size":5},"layers":[{"size":100},{"size":20}]}"#)
            }
            other => answer(404, &[], other),
        })
        .await;
        let repo = format!("{}/payramapp/payram", registry.address());
        assert_eq!(size(&repo, "1.9.7", "amd64").await, Ok(360));
        let missing = size(&repo, "1.9.7", "riscv64").await;
        assert_eq!(missing, Err("it has no image for linux/riscv64".to_owned()));
        let missing = size(&repo, "2.0.0", "amd64").await;
        assert!(missing.as_ref().is_err_and(|why| why.contains("404")), "{missing:?}");
    }

    #[tokio::test]
    async fn a_registry_that_wants_a_token_is_asked_anonymously() {
        let address = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
        let own = std::sync::Arc::clone(&address);
        let asked = std::sync::atomic::AtomicBool::new(false);
        let registry = FakeEngine::start(move |line| match line {
            "GET /v2/payram/manifests/1 HTTP/1.1"
                if asked.load(std::sync::atomic::Ordering::SeqCst) =>
            {
                answer(200, &[], r#"{"layers":[{"size":7}]}"#)
            }
            "GET /v2/payram/manifests/1 HTTP/1.1" => {
                let host = own.get().expect("started");
                let challenge = format!(
                    "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"reg\",scope=\"s\""
                );
                answer(401, &[&challenge], "")
            }
            "GET /token?service=reg&scope=s HTTP/1.1" => {
                asked.store(true, std::sync::atomic::Ordering::SeqCst);
                answer(200, &[], r#"{"token":"t"}"#)
            }
            other => answer(404, &[], other),
        })
        .await;
        address.set(registry.address()).expect("once");
        let repo = format!("{}/payram", registry.address());
        assert_eq!(size(&repo, "1", "amd64").await, Ok(21));
    }

    #[tokio::test]
    async fn the_digest_of_a_tag_is_that_of_its_manifests_bytes() {
        let registry = FakeEngine::start(|line| match line {
            "GET /v2/payram/manifests/1 HTTP/1.1" => answer(200, &[], "{}\n"),
            other => answer(404, &[], other),
        })
        .await;
        let repo = format!("{}/payram", registry.address());
        // printf '{}\n' | sha256sum
        let expected = "sha256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356";
        assert_eq!(digest(&repo, "1").await.as_deref(), Ok(expected));
        let gone = digest(&repo, "2").await;
        assert!(gone.as_ref().is_err_and(|why| why.contains("404")), "{gone:?}");
    }

    #[tokio::test]
    async fn a_registry_that_is_away_is_a_reason_and_no_failure() {
        let registry = FakeEngine::start(|_| String::new()).await;
        let repo = format!("{}/payram", registry.address());
        assert!(size(&repo, "1", "amd64").await.is_err());
        assert!(digest(&repo, "1").await.is_err());
        assert!(size(&repo, "../../../etc", "amd64").await.is_err());
    }
}
