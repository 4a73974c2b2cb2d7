//! Where settings come from, and what is wrong with them.
//!
//! [`Sources`] is everything that is read, given from outside, so that reading settings is a
//! function of it. [`Reader`] takes one key after the other from it and collects what is wrong,
//! so that an operator sees all of it at once. Called by [`super::load`].

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::env_file::{self, EnvFile};

/// The file in the working directory.
const LOCAL_FILE: &str = ".env";

/// The file that the installer writes.
const SYSTEM_FILE: &str = "/etc/payram/updater.env";

/// More than this is no file of settings.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// How much of a bad value is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// Keys whose value is never shown (I10).
const SECRET_KEYS: &[&str] = &["PG_PASSWORD", "NOTIFY_SECRET"];

/// Keys whose value is an address that may be known to nobody else: only its host is shown.
const SECRET_ADDRESSES: &[&str] = &["NOTIFY_URL"];

/// Everything that settings are read from.
pub struct Sources<'a> {
    /// The environment: by key, the value.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The files that exist; what an earlier one says wins.
    pub files: Vec<SourceFile>,
}

/// A file that exists.
pub struct SourceFile {
    /// Where it lies, for messages.
    pub path: PathBuf,
    /// What it holds, or why it can't be read.
    pub content: Result<Vec<u8>, String>,
}

impl Sources<'_> {
    /// This process's environment, `.env` in its working directory and
    /// `/etc/payram/updater.env`.
    pub fn of_this_process() -> Sources<'static> {
        let local = std::env::current_dir().unwrap_or_default().join(LOCAL_FILE);
        let files = [local, PathBuf::from(SYSTEM_FILE)];
        Sources {
            environment: &|key| std::env::var_os(key),
            files: files.into_iter().filter_map(SourceFile::read).collect(),
        }
    }
}

impl SourceFile {
    /// Reads a file; `None` when there is none.
    pub fn read(path: PathBuf) -> Option<Self> {
        let content = match read_bounded(&path) {
            Ok(content) => Ok(content),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return None;
            }
            Err(error) => Err(error.to_string()),
        };
        Some(Self { path, content })
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_LIMIT_BYTES {
        return Err(std::io::Error::other(format!("it is larger than {FILE_LIMIT_BYTES} bytes")));
    }
    Ok(content)
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment.
    Environment,
    /// A line, counted from 1, of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line that the assignment begins on.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Environment => f.write_str("environment"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A value is none of those allowed.
    #[error("{key} is `{shown}` ({origin}); allowed: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, cut and escaped; `***` for a secret.
        shown: String,
        /// Where it is set.
        origin: Origin,
        /// What may stand there.
        allowed: &'static str,
    },
    /// A value that must be given is not.
    #[error("{key} is not set; it is required: {allowed}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What may stand there.
        allowed: &'static str,
    },
    /// A file exists and can't be read.
    #[error("settings file {path} can't be read: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What reading met.
        reason: String,
    },
    /// A quote swallows the rest of a file.
    #[error("{origin}: the quote that opens the value of {key} is never closed")]
    UnclosedQuote {
        /// Where the assignment begins.
        origin: Origin,
        /// The key.
        key: String,
    },
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings are not valid:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Takes keys from sources.
pub(super) struct Reader<'a> {
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    files: Vec<(PathBuf, EnvFile)>,
    /// Files that could not be read, or not to their end.
    file_problems: Vec<Problem>,
    /// What is wrong with the values taken so far.
    value_problems: Vec<Problem>,
    asked: BTreeSet<&'static str>,
    taken: Vec<Taken>,
}

/// A key that was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub key: &'static str,
    /// What a value of it may be.
    pub allowed: &'static str,
    /// What the nearest source says, as it may be shown; none when that is nothing.
    pub shown: Option<String>,
    /// The nearest source; none when there is none.
    pub origin: Option<Origin>,
}

impl<'a> Reader<'a> {
    pub fn new(sources: &Sources<'a>) -> Self {
        let mut reader = Self {
            environment: sources.environment,
            files: Vec::new(),
            file_problems: Vec::new(),
            value_problems: Vec::new(),
            asked: BTreeSet::new(),
            taken: Vec::new(),
        };
        for SourceFile { path, content } in &sources.files {
            match content {
                Ok(content) => {
                    let file = env_file::parse(content);
                    if let Some((line, key)) = &file.unclosed {
                        reader.file_problems.push(Problem::UnclosedQuote {
                            origin: Origin::File { path: path.clone(), line: *line },
                            key: shown(key),
                        });
                    }
                    reader.files.push((path.clone(), file));
                }
                Err(reason) => reader
                    .file_problems
                    .push(Problem::Unreadable { path: path.clone(), reason: reason.clone() }),
            }
        }
        reader
    }

    /// The value of a key when it is set and valid. An empty value is as good as none, and
    /// hides what a source further back says.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.asked.insert(key);
        let Some((text, origin)) = self.find(key) else {
            self.taken.push(Taken { key, allowed, shown: None, origin: None });
            return None;
        };
        if text.as_deref() == Some("") {
            self.taken.push(Taken { key, allowed, shown: None, origin: Some(origin) });
            return None;
        }
        let value = text.as_deref().and_then(parse);
        let shown = match text {
            _ if SECRET_KEYS.contains(&key) => "***".to_owned(),
            Some(text) if SECRET_ADDRESSES.contains(&key) => shown(&host_only(&text)),
            Some(text) => shown(&without_password(&text)),
            None => "text that is not UTF-8".to_owned(),
        };
        let taken =
            Taken { key, allowed, shown: Some(shown.clone()), origin: Some(origin.clone()) };
        self.taken.push(taken);
        if value.is_none() {
            self.value_problems.push(Problem::BadValue { key, shown, origin, allowed });
        }
        value
    }

    /// The keys that were taken, in that order.
    pub fn taken(&self) -> &[Taken] {
        &self.taken
    }

    /// The value of a key, else its default.
    pub fn or<T>(
        &mut self,
        key: &'static str,
        allowed: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        self.optional(key, allowed, parse).unwrap_or(default)
    }

    /// The value of a key that must be given; empty when it is not, which is then a problem.
    pub fn required(
        &mut self,
        key: &'static str,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Option<String>,
    ) -> String {
        let problems = self.value_problems.len();
        let value = self.optional(key, allowed, parse);
        if value.is_none() && self.value_problems.len() == problems {
            self.value_problems.push(Problem::Missing { key, allowed });
        }
        value.unwrap_or_default()
    }

    /// What the nearest source says; no text when it is not UTF-8.
    fn find(&self, key: &str) -> Option<(Option<String>, Origin)> {
        if let Some(value) = (self.environment)(key) {
            return Some((value.into_string().ok(), Origin::Environment));
        }
        self.files.iter().find_map(|(path, file)| {
            let found = file.get(key)?;
            let origin = Origin::File { path: path.clone(), line: found.line };
            Some((found.value.clone(), origin))
        })
    }

    /// A sentence for each line of the files that means nothing to those who took their keys.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (path, file) in &self.files {
            let path = path.display();
            for line in &file.ignored_lines {
                warnings.push(format!("{path}:{line}: this line is no KEY=value and is ignored"));
            }
            for assignment in &file.assignments {
                let (line, key) = (assignment.line, assignment.key.as_str());
                if self.asked.contains(key) {
                    continue;
                }
                let hint = match key.strip_prefix("export ") {
                    Some(bare) if self.asked.contains(bare.trim()) => {
                        "; write it without `export`, which these files don't have"
                    }
                    Some(_) | None => "",
                };
                let key = shown(key);
                warnings.push(format!("{path}:{line}: unknown setting `{key}`, ignored{hint}"));
            }
        }
        warnings
    }

    /// What is wrong with the values that were taken.
    pub fn take_value_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.value_problems)
    }

    /// What is wrong with the files.
    pub fn take_file_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.file_problems)
    }
}

/// Cut, and without control characters.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == SHOWN_CHARS {
            shown.push('…');
            break;
        }
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// `https://hooks.example/***`; nothing at all of what is no address.
fn host_only(text: &str) -> String {
    let url = url::Url::parse(text.trim()).ok();
    let host = url.as_ref().and_then(|url| Some((url.scheme(), url.host_str()?)));
    host.map_or_else(|| "***".to_owned(), |(scheme, host)| format!("{scheme}://{host}/***"))
}

/// A URL's user and password are masked, whatever else is wrong with it (I10): everything up to
/// the last `@`, because a password may hold what ends a host elsewhere. So is what follows a `?` or
/// a `#`, which may be a token.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    match rest.find(['?', '#']).and_then(|at| rest.get(..=at)) {
        Some(path) => format!("{scheme}://{user}{path}***"),
        None => format!("{scheme}://{user}{rest}"),
    }
}
