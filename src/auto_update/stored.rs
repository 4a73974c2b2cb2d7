//! `STATE_DIR/updater-config.json`: whether this host updates by itself, and how often.
//!
//! Written by `payram-updater init`, read by the daemon before each look. The earlier tool wrote
//! the same three fields; what else it, or somebody, put there is kept as it is. Without the file
//! auto-update is off and everything else works.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// The file's name in the state directory.
pub const FILE: &str = "updater-config.json";

/// Hours between two looks unless the operator says otherwise.
pub const INTERVAL_HOURS: u32 = 24;

/// A year.
pub const MOST_HOURS: u32 = 8760;

/// More than this is no configuration of ours.
const LIMIT_BYTES: u64 = 64 * 1024;

const ENABLED: &str = "autoUpdateEnabled";
const INTERVAL: &str = "autoUpdateIntervalHours";
const INITIALIZED: &str = "initialized";

/// What the operator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whether this host updates by itself.
    pub enabled: bool,
    /// Hours between two looks.
    pub interval_hours: u32,
    /// Whether `init` came to its end.
    pub initialized: bool,
    /// Fields that are not ours.
    pub(super) others: Map<String, Value>,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            enabled: false,
            interval_hours: INTERVAL_HOURS,
            initialized: false,
            others: Map::new(),
        }
    }
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// It can't be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not say what it should.
    #[error("{}: {reason}; correct it, or remove it and run payram-updater init", path.display())]
    Misshapen {
        /// Which file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
}

impl Stored {
    /// What is stored in this state directory; none where nothing is.
    ///
    /// # Errors
    /// When there is a file and it can't be understood: nobody guesses what was decided.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, StoredError> {
        let path = state_dir.join(FILE);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(LIMIT_BYTES).read_to_end(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoredError::Io { doing: "read", path, source }),
        }
        Self::parse(&text).map(Some).map_err(|reason| StoredError::Misshapen { path, reason })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let Value::Object(mut others) = value else {
            return Err(format!("expected a JSON object, found {value}"));
        };
        let defaults = Self::default();
        let mut flag = |key: &str, default: bool| match others.shift_remove(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(found) => Err(format!("{key}: expected true or false, found {found}")),
        };
        let enabled = flag(ENABLED, defaults.enabled)?;
        let initialized = flag(INITIALIZED, defaults.initialized)?;
        let interval_hours = match others.shift_remove(INTERVAL) {
            None => defaults.interval_hours,
            Some(found) => whole_hours(&found).ok_or_else(|| {
                format!("{INTERVAL}: expected whole hours, 1 to {MOST_HOURS}, found {found}")
            })?,
        };
        Ok(Self { enabled, interval_hours, initialized, others })
    }

    /// As the file has it.
    pub fn to_json(&self) -> Value {
        let mut all = json!({
            ENABLED: self.enabled,
            INTERVAL: self.interval_hours,
            INITIALIZED: self.initialized,
        });
        if let Some(fields) = all.as_object_mut() {
            fields.extend(self.others.clone());
        }
        all
    }

    /// Puts it in the place of what was there, whole or not at all: written beside, synced,
    /// renamed. Answers where it lies.
    ///
    /// # Errors
    /// When the directory or the file can't be written; what was there is there still.
    pub fn write(&self, state_dir: &Path) -> Result<PathBuf, StoredError> {
        let path = state_dir.join(FILE);
        let partial = state_dir.join(format!("{FILE}.partial"));
        let text = format!("{:#}\n", self.to_json());
        let write = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&partial, &path)?;
            File::open(state_dir)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(source) => Err(StoredError::Io { doing: "write", path, source }),
        }
    }
}

/// Whole hours in bounds, also as the `24.0` that some programs write.
fn whole_hours(value: &Value) -> Option<u32> {
    let hours = value.as_f64().filter(|hours| hours.fract() == 0.0)?;
    (1.0..=f64::from(MOST_HOURS)).contains(&hours).then_some(hours as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Stored, String> {
        Stored::parse(text.as_bytes())
    }

    #[test]
    fn what_is_written_is_read_again_and_what_is_not_ours_is_kept() {
        let state = tempfile::tempdir().expect("a directory");
        let directory = state.path().join("state");
        assert_eq!(Stored::read(&directory).expect("nothing there"), None);
        let earlier = r#"{"autoUpdateEnabled":true,"autoUpdateIntervalHours":12,
            "initialized":true,"theme":"dark"}"#;
        let mut stored = parsed(earlier).expect("of an earlier tool");
        assert_eq!((stored.enabled, stored.interval_hours), (true, 12));
        stored.enabled = false;
        let path = stored.write(&directory).expect("written");
        assert_eq!(Stored::read(&directory).expect("read"), Some(stored));
        let text = std::fs::read_to_string(path).expect("there");
        assert!(text.contains("\"theme\": \"dark\""), "{text}");
        assert_eq!(std::fs::read_dir(&directory).expect("a listing").count(), 1);
    }

    #[test]
    fn what_is_missing_has_its_default_which_is_off() {
        assert_eq!(parsed("{}"), Ok(Stored::default()));
        assert!(!Stored::default().enabled);
        let float = parsed(r#"{"autoUpdateIntervalHours":6.0}"#).expect("whole");
        assert_eq!(float.interval_hours, 6);
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_what_was_expected_and_found() {
        for (text, part) in [
            ("", "not JSON"),
            ("[]", "expected a JSON object, found []"),
            (r#"{"autoUpdateEnabled":"yes"}"#, "autoUpdateEnabled: expected true or false"),
            (r#"{"autoUpdateIntervalHours":0}"#, "whole hours, 1 to 8760, found 0"),
            (r#"{"autoUpdateIntervalHours":1.5}"#, "found 1.5"),
            (r#"{"autoUpdateIntervalHours":"24"}"#, "found \"24\""),
            (r#"{"autoUpdateIntervalHours":1e9}"#, "whole hours"),
            (r#"{"initialized":null}"#, "initialized: expected true or false, found null"),
        ] {
            let reason = parsed(text).expect_err(text);
            assert!(reason.contains(part), "{text}: {reason}");
        }
    }
}
