//! The login that this host has for a registry, from the Docker client's own configuration.
//!
//! Called by [`super::registry`] and by the verb `pull`, so that what `docker pull` may do here the
//! updater may do, too. Reads `config.json` (`DOCKER_CONFIG`, else `~/.docker`) and runs the
//! credential helper that it names (docker/docker-credential-helpers, "Development": the program
//! `docker-credential-NAME get` is told a server and answers JSON). The secret goes into requests
//! and nowhere else (I10).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::secret::Secret;

/// How long a credential helper may take.
const HELPER_WITHIN: Duration = Duration::from_secs(5);

/// What Docker's own registry is called in configurations.
const HUB: [&str; 5] = [
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
    "registry-1.docker.io",
    "registry.hub.docker.com",
];

/// What a helper says as the name of somebody whose secret is a token.
const TOKEN_NAME: &str = "<token>";

/// A login.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub username: String,
    pub secret: Secret<String>,
    /// Whether the secret is an identity token, with which tokens are had.
    pub is_identity: bool,
    /// The server as the configuration calls it.
    server: String,
    /// Where it comes from, for sentences.
    from: String,
}

impl Login {
    /// For a person: whose it is and where it comes from.
    pub fn shown(&self) -> String {
        match self.is_identity {
            true => format!("the login of {}", self.from),
            false => format!("the login of {} ({})", self.username, self.from),
        }
    }

    /// For the engine, as the header `X-Registry-Auth` (Engine API v1.41, "Authentication").
    pub fn header(&self) -> Secret<String> {
        let login = match self.is_identity {
            true => json!({"identitytoken": self.secret.expose(), "serveraddress": self.server}),
            false => json!({
                "username": self.username,
                "password": self.secret.expose(),
                "serveraddress": self.server,
            }),
        };
        Secret::new(URL_SAFE.encode(login.to_string()))
    }
}

/// The configuration, as far as logins go.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<Secret<String>>,
    username: Option<String>,
    password: Option<Secret<String>>,
    identitytoken: Option<Secret<String>>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret<String>,
}

/// The login for a registry's host; none when this host has none.
///
/// # Errors
/// A sentence without any secret: what could not be read.
pub(super) async fn of(host: &str) -> Result<Option<Login>, String> {
    let Some(path) = path() else { return Ok(None) };
    let bytes = match tokio::fs::read(&path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    // What is wrong with it is not said in the parser's words: it might quote a secret.
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{}: line {} is no such JSON", path.display(), error.line()))?;
    from(&config, host, &path.display().to_string()).await
}

/// Where the client of this user has its configuration.
fn path() -> Option<PathBuf> {
    let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty());
    if let Some(directory) = set("DOCKER_CONFIG") {
        return Some(PathBuf::from(directory).join("config.json"));
    }
    let home = match set("HOME") {
        Some(home) => PathBuf::from(home),
        // A unit has none unless it asks for it.
        None if rustix::process::geteuid().is_root() => PathBuf::from("/root"),
        None => return None,
    };
    Some(home.join(".docker/config.json"))
}

async fn from(config: &Config, host: &str, path: &str) -> Result<Option<Login>, String> {
    let keys = keys(host);
    let helper = keys.iter().find_map(|key| Some((config.helpers.get(key)?, key)));
    // Where no helper is for this registry alone, the store has what has no secret here.
    let stored = keys.iter().find(|key| config.auths.contains_key(*key)).or(keys.first());
    let store = config.store.as_ref().filter(|name| !name.is_empty()).zip(stored);
    let mut unread = None;
    if let Some((name, key)) = helper.or(store) {
        match ask(name, key).await {
            Ok(Some(login)) => return Ok(Some(login)),
            Ok(None) => {}
            Err(reason) => unread = Some(reason),
        }
    }
    for key in &keys {
        let found = config.auths.get(key).and_then(|auth| plain(auth, key, path));
        if found.is_some() {
            return Ok(found);
        }
    }
    unread.map_or(Ok(None), Err)
}

/// What a registry may be called in a configuration.
fn keys(host: &str) -> Vec<String> {
    if HUB.contains(&host) {
        return HUB.map(str::to_owned).to_vec();
    }
    let ends = ["", "/", "/v1/", "/v2/"];
    let of = |head: &str| ends.map(|end| format!("{head}{host}{end}"));
    [of(""), of("https://"), of("http://")].concat()
}

/// A login that stands in the file itself.
fn plain(auth: &Auth, server: &str, path: &str) -> Option<Login> {
    let login = |username: String, secret: Secret<String>, is_identity| Login {
        username,
        secret,
        is_identity,
        server: server.to_owned(),
        from: path.to_owned(),
    };
    if let Some(token) = auth.identitytoken.as_ref().filter(|token| !token.expose().is_empty()) {
        return Some(login(String::new(), token.clone(), true));
    }
    let given = auth.username.clone().zip(auth.password.clone());
    if let Some((username, password)) = given.filter(|(name, _)| !name.is_empty()) {
        return Some(login(username, password, false));
    }
    let decoded = STANDARD.decode(auth.auth.as_ref()?.expose().trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    let password = password.trim_end_matches('\0').to_owned();
    Some(login(username.to_owned(), Secret::new(password), false))
}

/// Asks a credential helper; none when it has nothing for this server.
async fn ask(helper: &str, server: &str) -> Result<Option<Login>, String> {
    let is_name = helper.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let program = format!("docker-credential-{helper}");
    if !is_name || helper.is_empty() {
        return Err("the Docker configuration names no credential helper".to_owned());
    }
    let asking = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing answers all the same.
            let _ = stdin.write_all(server.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(HELPER_WITHIN, asking).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{program}: {error}")),
        Err(_) => {
            return Err(format!("{program}: no answer within {} s", HELPER_WITHIN.as_secs()));
        }
    };
    if !output.status.success() {
        // What it says goes to standard output, as a secret would: it is only looked at.
        let said = String::from_utf8_lossy(&output.stdout);
        return match said.contains("not found") {
            true => Ok(None),
            false => Err(format!("{program} ended with {}", output.status)),
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{program} answered no such JSON"))?;
    Ok(Some(Login {
        is_identity: answer.username == TOKEN_NAME,
        username: answer.username,
        secret: answer.secret,
        server: server.to_owned(),
        from: program,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).expect("a configuration")
    }

    async fn found(text: &str, host: &str) -> Option<(String, String, bool)> {
        let login = from(&config(text), host, "config.json").await.expect("read")?;
        Some((login.username, login.secret.expose().clone(), login.is_identity))
    }

    #[tokio::test]
    async fn a_login_in_the_file_is_read_by_every_name_of_its_registry() {
        // printf 'me:pass:word' | base64
        let expected = Some(("me".to_owned(), "pass:word".to_owned(), false));
        for (key, host) in [
            ("https://index.docker.io/v1/", "registry-1.docker.io"),
            ("docker.io", "registry-1.docker.io"),
            ("registry.example:5000", "registry.example:5000"),
            ("https://registry.example:5000", "registry.example:5000"),
            ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"bWU6cGFzczp3b3Jk"}}}}}}"#);
            assert_eq!(found(&text, host).await, expected, "{key}");
            assert_eq!(found(&text, "other.example").await, None, "{key}");
        }
        let text = r#"{"auths":{"r":{"identitytoken":"t"}}}"#;
        assert_eq!(found(text, "r").await, Some((String::new(), "t".to_owned(), true)));
        assert_eq!(found("{}", "r").await, None);
        assert_eq!(found(r#"{"auths":{"r":{}},"credsStore":""}"#, "r").await, None);
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named_and_no_secret_is_shown() {
        let text = r#"{"credHelpers":{"r":"none-such"}}"#;
        let error = from(&config(text), "r", "config.json").await.expect_err("no helper");
        assert!(error.starts_with("docker-credential-none-such: "), "{error}");
        let text = r#"{"credsStore":"../x","auths":{"r":{}}}"#;
        assert!(from(&config(text), "r", "config.json").await.is_err());
        let text = r#"{"auths":{"r":{"auth":"bWU6cGFzczp3b3Jk"}}}"#;
        let login = from(&config(text), "r", "config.json").await.expect("read").expect("one");
        assert_eq!(login.shown(), "the login of me (config.json)");
        assert!(!format!("{login:?}").contains("pass:word"));
        let header = URL_SAFE.decode(login.header().expose()).expect("base64");
        let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
        assert_eq!(header["password"], "pass:word");
    }
}
