//! What a registry says of an image before anything is pulled: whether it is there and for which
//! architecture, how large it will be, how it is configured, and which image its tag names now.
//!
//! Called by the verbs `registry_image`, for the plan, and `registry_digest`, for the quarantine. It
//! is read from the registry itself (OCI distribution specification, "Pulling manifests"), since
//! the engine's API has no way to ask without pulling. With the login that this host has for the
//! registry, and through the proxy that the environment names.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Host;

use super::login::{self, Login};
use crate::engine::{RegistryImage, RegistryNo};
use crate::secret::Secret;

/// For all requests together.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

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

/// What the registry has for `repo:tag` on an engine of this architecture.
pub(super) async fn image(
    repo: &str,
    tag: &str,
    architecture: &str,
) -> Result<RegistryImage, RegistryNo> {
    let mut registry = Registry::of(repo).await.map_err(RegistryNo::Unknown)?;
    let mut manifest = registry.manifest(tag).await?;
    let mut architectures = Vec::new();
    if let Some(listed) = &manifest.manifests {
        architectures = linux_architectures(listed);
        let fitting = listed.iter().find(|one| one.is_for(architecture));
        let Some(digest) = fitting.map(|one| one.digest.clone()) else {
            let (engine, offered) = (architecture.to_owned(), architectures);
            return Err(RegistryNo::OtherArchitecture { engine, offered });
        };
        manifest = registry.manifest(&digest).await?;
    }
    let config_digest = manifest.config.as_ref().and_then(|config| config.digest.clone());
    let config = match &config_digest {
        // A registry without it has still said that it has the image.
        Some(digest) => registry.config(digest).await.ok(),
        None => None,
    };
    let stated = config.as_ref().and_then(|config| config["architecture"].as_str());
    if let Some(stated) = stated.filter(|_| architectures.is_empty()) {
        architectures.push(stated.to_owned());
    }
    Ok(RegistryImage {
        disk_bytes: manifest.disk_bytes(),
        architectures,
        config_digest,
        config,
        login: registry.login.map(|login| login.shown()),
    })
}

fn linux_architectures(listed: &[Listed]) -> Vec<String> {
    let mut names: Vec<String> = listed
        .iter()
        .filter_map(|one| one.platform.as_ref())
        // What is listed beside the images (attestations) has no real one.
        .filter(|platform| platform.os == "linux" && platform.architecture != "unknown")
        .map(|platform| platform.architecture.clone())
        .collect();
    names.dedup();
    names
}

/// The digest that `repo:tag` has now, or why it is not known.
///
/// It is computed, not believed: the sha256 of the manifest's bytes (OCI image specification,
/// "Digests"), which is what an engine notes as the digest of a tag that it pulled.
pub(super) async fn digest(repo: &str, tag: &str) -> Result<String, String> {
    let mut registry = Registry::of(repo).await?;
    let bytes = registry.bytes("manifests", tag).await.map_err(|no| no.to_string())?;
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// The login that this host has for a repository's registry.
pub(super) async fn login_for(repo: &str) -> Result<Option<Login>, String> {
    login::of(&split(repo).0).await
}

/// A repository in a registry.
struct Registry {
    client: Client,
    base: Url,
    /// As a person calls it, without the path.
    host: String,
    repository: String,
    is_loopback: bool,
    token: Option<Secret<String>>,
    /// What this host has for it.
    login: Option<Login>,
    /// Why that could not be read.
    login_unread: Option<String>,
    /// Whether it has asked for name and password with each request.
    wants_basic: bool,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    manifests: Option<Vec<Listed>>,
    layers: Option<Vec<Layer>>,
    config: Option<Described>,
}

#[derive(Debug, Deserialize)]
struct Described {
    digest: Option<String>,
}

/// What a registry says beside a status (OCI distribution specification, "Error Codes").
#[derive(Debug, Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<OneError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OneError {
    code: String,
    message: String,
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
    async fn of(repo: &str) -> Result<Self, String> {
        let (host, repository) = split(repo);
        let is_loopback = is_loopback(&host);
        let scheme = if is_loopback { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| format!("`{host}` is no registry: {error}"))?;
        let mut builder = crate::http::outside(&base).redirect(redirect::Policy::none());
        if is_loopback {
            // Without TLS, so a host without certificates is fine.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| crate::http::reason(&error))?;
        let (login, login_unread) = match login::of(&host).await {
            Ok(login) => (login, None),
            Err(reason) => (None, Some(reason)),
        };
        Ok(Self {
            client,
            base,
            host,
            repository,
            is_loopback,
            token: None,
            login,
            login_unread,
            wants_basic: false,
        })
    }

    /// The manifest of a tag or digest.
    async fn manifest(&mut self, reference: &str) -> Result<Manifest, RegistryNo> {
        parse(&self.bytes("manifests", reference).await?).map_err(RegistryNo::Unknown)
    }

    /// An image's configuration.
    async fn config(&mut self, digest: &str) -> Result<Value, RegistryNo> {
        parse(&self.bytes("blobs", digest).await?).map_err(RegistryNo::Unknown)
    }

    /// The same as it stands; gets a token when the registry wants one.
    async fn bytes(&mut self, kind: &str, reference: &str) -> Result<Vec<u8>, RegistryNo> {
        let mut response = self.get(kind, reference).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.token.is_none() {
            self.answer_challenge(&response).await?;
            response = self.get(kind, reference).await?;
        }
        if response.status().is_redirection() {
            response = self.elsewhere(&response).await?;
        }
        match response.status() {
            StatusCode::OK => body(response).await.map_err(RegistryNo::Unknown),
            _ => Err(self.no(response).await),
        }
    }

    async fn get(&self, kind: &str, reference: &str) -> Result<Response, RegistryNo> {
        let path = format!("{}/{kind}/{reference}", self.repository);
        let url = self.base.join(&path);
        let url = url.map_err(|error| RegistryNo::Unknown(format!("{path}: {error}")))?;
        // A repository is no way out of the registry's own paths.
        if !url.as_str().starts_with(self.base.as_str()) {
            return Err(RegistryNo::Unknown(format!("`{path}` is no repository and tag")));
        }
        let mut request = self.client.get(url).header(ACCEPT, MANIFEST_TYPES);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        } else if let Some(login) = self.login.as_ref().filter(|_| self.wants_basic) {
            request = request.basic_auth(&login.username, Some(login.secret.expose()));
        }
        request.send().await.map_err(|error| self.unreached(&error))
    }

    /// A blob may lie with somebody else, who is shown no token.
    async fn elsewhere(&self, redirect: &Response) -> Result<Response, RegistryNo> {
        let location = redirect.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| self.base.join(location).ok());
        let Some(url) = url.filter(|url| self.is_loopback || url.scheme() == "https") else {
            return Err(RegistryNo::Unknown("it leads to no place over https".to_owned()));
        };
        self.client.get(url).send().await.map_err(|error| self.unreached(&error))
    }

    fn unreached(&self, error: &reqwest::Error) -> RegistryNo {
        let through = crate::http::through(&self.base);
        RegistryNo::Unknown(format!("{}{through}: {}", self.host, crate::http::reason(error)))
    }

    /// What an answer that is no image means.
    async fn no(&self, response: Response) -> RegistryNo {
        let status = response.status();
        let said = match text(response).await {
            said if said.is_empty() => format!("{} answered {status}", self.host),
            said => format!("{} answered {status}: {said}", self.host),
        };
        match status {
            StatusCode::NOT_FOUND => RegistryNo::Missing(said),
            StatusCode::TOO_MANY_REQUESTS => RegistryNo::Limited(said),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.login_refused(said),
            _ => RegistryNo::Unknown(said),
        }
    }

    fn login_refused(&self, said: String) -> RegistryNo {
        let said = match &self.login_unread {
            Some(reason) => format!("{said} ({reason})"),
            None => said,
        };
        RegistryNo::Login { login: self.login.as_ref().map(Login::shown), said }
    }

    /// Distribution's token authentication, with this host's login or anonymously: the refusal says
    /// where a token is had. Or name and password, where it says `Basic`.
    async fn answer_challenge(&mut self, refusal: &Response) -> Result<(), RegistryNo> {
        let challenge = refusal.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(realm) = parameter(challenge, "realm").filter(|_| !is_basic(challenge)) else {
            self.wants_basic = true;
            return match &self.login {
                Some(_) => Ok(()),
                None => Err(self.login_refused(format!("{} wants a login", self.host))),
            };
        };
        let unknown = RegistryNo::Unknown;
        let mut url =
            Url::parse(realm).map_err(|error| unknown(format!("realm `{realm}`: {error}")))?;
        if url.scheme() != "https" && !self.is_loopback {
            return Err(unknown(format!("its tokens come from {realm}, expected https")));
        }
        let parts = ["service", "scope"];
        let parts = parts.map(|key| (key, parameter(challenge, key).map(str::to_owned)));
        let request = match &self.login {
            Some(login) if login.is_identity => {
                let mut form = vec![
                    ("grant_type".to_owned(), "refresh_token".to_owned()),
                    ("client_id".to_owned(), "payram-updater".to_owned()),
                    ("refresh_token".to_owned(), login.secret.expose().clone()),
                ];
                let given = parts.into_iter().filter_map(|(key, value)| Some((key, value?)));
                form.extend(given.map(|(key, value)| (key.to_owned(), value)));
                let body = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(form)
                    .finish();
                let form = "application/x-www-form-urlencoded";
                self.client.post(url).header(CONTENT_TYPE, form).body(body)
            }
            other => {
                for (key, value) in parts {
                    if let Some(value) = value {
                        url.query_pairs_mut().append_pair(key, &value);
                    }
                }
                let request = self.client.get(url);
                match other {
                    Some(login) => request.basic_auth(&login.username, Some(login.secret.expose())),
                    None => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| self.unreached(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.no(response).await);
        }
        let answer = body(response).await.map_err(unknown)?;
        let token: Token = parse(&answer).map_err(unknown)?;
        let token = token.token.or(token.access_token);
        let token = token.ok_or_else(|| unknown("its token service gave none".to_owned()))?;
        self.token = Some(Secret::new(token));
        Ok(())
    }
}

impl Manifest {
    /// What its layers need here; none when it states no sizes.
    fn disk_bytes(&self) -> Option<u64> {
        let layers = self.layers.as_ref()?;
        let compressed = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size))?;
        compressed.checked_mul(DISK_PER_COMPRESSED_BYTE)
    }
}

impl Listed {
    fn is_for(&self, architecture: &str) -> bool {
        self.platform
            .as_ref()
            .is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
    }
}

/// What it says of an error, in a line.
async fn text(response: Response) -> String {
    let bytes = content(response).await.unwrap_or_default();
    let errors: Errors = parse(&bytes).unwrap_or_default();
    let said = errors.errors.into_iter().map(|one| match one.message.is_empty() {
        true => one.code,
        false => one.message,
    });
    let said: Vec<String> = said.filter(|said| !said.is_empty()).take(3).collect();
    said.join("; ").chars().filter(|c| !c.is_control()).take(300).collect()
}

fn is_basic(challenge: &str) -> bool {
    challenge.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
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

async fn body(response: Response) -> Result<Vec<u8>, String> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!("it answered {status}"));
    }
    content(response).await
}

async fn content(mut response: Response) -> Result<Vec<u8>, String> {
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
        let found = image(&repo, "1.9.7", "amd64").await.expect("it is there");
        assert_eq!(found.disk_bytes, Some(360));
        assert_eq!(found.architectures, ["arm64", "amd64"]);
        let other = image(&repo, "1.9.7", "riscv64").await.expect_err("for another");
        let said = "it has it for arm64, amd64, and this engine is for riscv64";
        assert_eq!(other.to_string(), said);
        let missing = image(&repo, "2.0.0", "amd64").await;
        assert!(
            matches!(&missing, Err(RegistryNo::Missing(why)) if why.contains("404")),
            "{missing:?}"
        );
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
        let found = image(&repo, "1", "amd64").await.expect("it is there");
        assert_eq!(found.disk_bytes, Some(21));
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
        let away = image(&repo, "1", "amd64").await;
        assert!(matches!(away, Err(RegistryNo::Unknown(_))), "{away:?}");
        assert!(digest(&repo, "1").await.is_err());
        assert!(image(&repo, "../../../etc", "amd64").await.is_err());
    }

    #[tokio::test]
    async fn a_registry_that_refuses_or_limits_is_called_by_what_it_said() {
        let registry = FakeEngine::start(|line| match line {
            "GET /v2/private/manifests/1 HTTP/1.1" => {
                answer(401, &["WWW-Authenticate: Basic realm=\"r\""], "")
            }
            "GET /v2/denied/manifests/1 HTTP/1.1" => {
                answer(403, &[], r#"{"errors":[{"code":"DENIED","message":"access denied"}]}"#)
            }
            _ => answer(429, &[], r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#),
        })
        .await;
        let asked = async |name: &str| {
            let repo = format!("{}/{name}", registry.address());
            image(&repo, "1", "amd64").await.expect_err("refused")
        };
        assert!(matches!(asked("private").await, RegistryNo::Login { login: None, .. }));
        let denied = asked("denied").await;
        assert!(matches!(denied, RegistryNo::Login { .. }), "{denied:?}");
        assert!(denied.to_string().ends_with("access denied"), "{denied}");
        let limited = asked("busy").await;
        assert!(matches!(limited, RegistryNo::Limited(_)), "{limited:?}");
        assert!(limited.to_string().contains("429") && limited.to_string().contains("TOOMANY"));
    }

    #[tokio::test]
    async fn the_configuration_tells_the_architecture_of_an_image_that_is_no_list() {
        let registry = FakeEngine::start(|line| match line {
            "GET /v2/payram/manifests/1 HTTP/1.1" => {
                answer(200, &[], r#"{"config":{"digest":"sha256:c"},"layers":[{"size":1}]}"#)
            }
            "GET /v2/payram/blobs/sha256:c HTTP/1.1" => {
                answer(200, &[], r#"{"architecture":"arm64","config":{"Env":["PG_MAJOR=17"]}}"#)
            }
            other => answer(404, &[], other),
        })
        .await;
        let repo = format!("{}/payram", registry.address());
        let found = image(&repo, "1", "amd64").await.expect("it is there");
        assert_eq!(found.architectures, ["arm64"]);
        assert_eq!(found.config_digest.as_deref(), Some("sha256:c"));
        let environment = &found.config.expect("read")["config"]["Env"];
        assert_eq!(environment[0], "PG_MAJOR=17");
    }
}
