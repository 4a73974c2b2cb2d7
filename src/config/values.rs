//! What each kind of value may look like: text in, a checked value or nothing out.
//!
//! Called by [`super::load`], which also holds the sentence that says what is allowed.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

/// The socket's name below `RUN_DIR`.
pub(super) const SOCKET_NAME: &str = "updater.sock";

/// A week: longer than anything that is waited for, short enough to be added to any clock.
const LONGEST_SECONDS: u64 = 7 * 24 * 3600;

/// Linux's limit for the path of a Unix socket is 108 bytes, its end included (unix(7)).
const SOCKET_PATH_LIMIT_BYTES: usize = 107;

/// A TCP port.
pub(super) fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port > 0)
}

/// A number of things of which there must be at least one.
pub(super) fn count(text: &str) -> Option<NonZeroU32> {
    text.trim().parse().ok()
}

/// A duration in whole seconds.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse().ok()?;
    (1..=LONGEST_SECONDS).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// A duration in minutes, decimals allowed; none at all is one too.
pub(super) fn minutes(text: &str) -> Option<Duration> {
    let minutes: f64 = text.trim().parse().ok()?;
    let most = LONGEST_SECONDS as f64 / 60.0;
    (0.0..=most).contains(&minutes).then(|| Duration::from_secs_f64((minutes * 60.0).round()))
}

/// A number of hours up to a year.
pub(super) fn hours(text: &str) -> Option<Duration> {
    let hours: f64 =
        text.trim().parse().ok().filter(|hours: &f64| (0.0..=8760.0).contains(hours))?;
    Some(Duration::from_secs_f64(hours * 3600.0))
}

/// Yes or no.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// One of these words, in any case.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    let text = text.trim();
    words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

/// Text on one line.
pub(super) fn line(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// Any text that a process can be given.
pub(super) fn any_text(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| text.to_owned())
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Option<PathBuf> {
    path(text).filter(|path| path.is_absolute())
}

/// A path, absolute or not.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    line(text).map(PathBuf::from)
}

/// A directory that is short enough to hold the commands' socket.
pub(super) fn socket_directory(text: &str) -> Option<PathBuf> {
    absolute_path(text).filter(|directory| {
        let socket = directory.join(SOCKET_NAME);
        socket.as_os_str().len() <= SOCKET_PATH_LIMIT_BYTES
    })
}

/// An `http(s)://` URL or a path.
pub(super) fn url_or_path(text: &str) -> Option<String> {
    let text = line(text)?;
    if text.contains("://") {
        http_url(&text).map(|_| text)
    } else {
        (!Path::new(&text).as_os_str().is_empty()).then_some(text)
    }
}

/// The URL that paths are appended to: a host, perhaps a port and a path.
pub(super) fn base_url(text: &str) -> Option<Url> {
    http_url(text.trim()).filter(|url| {
        url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

/// Where something is posted to.
pub(super) fn web_hook(text: &str) -> Option<Url> {
    http_url(text.trim())
}

fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// Where a container engine listens.
pub(super) fn engine_endpoint(text: &str) -> Option<String> {
    let text = line(text)?;
    let is_endpoint = match text.split_once("://") {
        Some(("unix", path)) => path.starts_with('/'),
        Some(("tcp" | "http", host)) => !host.is_empty(),
        Some(_) | None => false,
    };
    is_endpoint.then_some(text)
}

/// An image repository without tag and digest.
pub(super) fn image_repository(text: &str) -> Option<String> {
    let text = text.trim();
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    // The OCI distribution specification has names in lower case; a host may be in any.
    let is_lower = |part: &&str| !part.contains(|c: char| c.is_ascii_uppercase());
    let mut parts: Vec<&str> = text.split('/').collect();
    let mut is_host = false;
    // Only what stands before a slash may be a host, and have a port.
    if parts.len() > 1
        && let Some(first) = parts.first_mut()
    {
        is_host = first.contains(['.', ':']) || *first == "localhost";
        if let Some((host, port_text)) = first.rsplit_once(':') {
            port(port_text)?;
            *first = host;
        }
    }
    let is_repository = parts.iter().skip(usize::from(is_host)).all(is_lower);
    (is_repository && parts.into_iter().all(is_name)).then(|| text.to_owned())
}

/// A container's name, as the Engine API allows it.
pub(super) fn container_name(text: &str) -> Option<String> {
    let text = text.trim();
    (text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)))
    .then(|| text.to_owned())
}

/// Words between commas, at least one.
pub(super) fn list(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> =
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let is_clean = |word: &String| !word.contains(|c: char| c.is_control() || c.is_whitespace());
    (!words.is_empty() && words.iter().all(is_clean)).then_some(words)
}

/// Names or addresses of hosts between commas, as a `Host` header has them: in lower case, and a
/// name of other than ASCII letters in its ASCII form (`xn--…`). A pattern matches nothing, so it
/// is none.
pub(super) fn hosts(text: &str) -> Option<Vec<String>> {
    let host = |text: &String| {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(address.to_string());
        }
        let name = url::Host::parse(text).ok()?.to_string();
        let is_name = name.split('.').all(|label| {
            !label.is_empty()
                && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        });
        is_name.then_some(name)
    };
    list(&text.to_lowercase())?.iter().map(host).collect()
}

/// A filter of log lines. What stands alone must be a level: as the name of a part of a program,
/// which the filter would take it for, it would silence everything else.
pub(super) fn log_filter(text: &str) -> Option<String> {
    let text = line(text)?;
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word.trim()));
    let is_directive = |part: &str| match part.rsplit_once('=') {
        Some((target, level)) => !target.trim().is_empty() && is_level(level),
        None => is_level(part),
    };
    // A filter by fields (`target[span{field=value}]=level`) is for the parser to judge.
    if !text.contains('[') && !text.split(',').all(is_directive) {
        return None;
    }
    tracing_subscriber::EnvFilter::try_new(&text).is_ok().then_some(text)
}
