//! Every setting with its value and where it came from: what `payram-updater config` shows.
//!
//! The keys are those that [`super::load`] takes; what each is for, and its default as text, is in
//! the example file that the installer writes, so that the two can't differ: a test of this module
//! reads the one by the other.

use super::load;
use super::sources::{Origin, Reader, Sources, Taken};

/// The file that the installer writes and packages ship.
pub const EXAMPLE: &str = include_str!("../../packaging/examples/updater.env.example");

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value as text, also where it is not valid; `***` for a secret, none where there is
    /// neither a value nor a default.
    pub value: Option<String>,
    /// Where it is set; none for the default.
    pub origin: Option<Origin>,
    /// What it is without being set.
    pub default: Option<String>,
    /// What a value of it may be.
    pub allowed: &'static str,
    /// What it is for.
    pub about: String,
}

/// All settings, and what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// In the order of the example.
    pub settings: Vec<Setting>,
    /// Lines of the files that mean nothing.
    pub warnings: Vec<String>,
    /// Why the daemon would not start with these.
    pub problems: Vec<String>,
}

impl Survey {
    /// The settings of this process.
    pub fn of_this_process() -> Self {
        Self::from_sources(&Sources::of_this_process())
    }

    /// The settings that these sources make.
    pub fn from_sources(sources: &Sources<'_>) -> Self {
        let mut reader = Reader::new(sources);
        load::take_all(&mut reader);
        let mut problems = reader.take_file_problems();
        problems.extend(reader.take_value_problems());
        let entries = entries();
        let place = |key: &str| entries.iter().position(|entry| entry.key == key);
        let mut taken = reader.taken().to_vec();
        taken.sort_by_key(|taken| place(taken.key).unwrap_or(usize::MAX));
        Self {
            settings: taken.into_iter().map(|taken| setting(taken, &entries)).collect(),
            warnings: reader.warnings(),
            problems: problems.iter().map(ToString::to_string).collect(),
        }
    }

    /// The setting of this key, in any case.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key.eq_ignore_ascii_case(key))
    }
}

fn setting(taken: Taken, entries: &[Entry]) -> Setting {
    let entry = entries.iter().find(|entry| entry.key == taken.key);
    let default = entry.and_then(|entry| entry.default.clone());
    Setting {
        key: taken.key,
        // A value that is set and empty is as good as none.
        value: taken.shown.or_else(|| default.clone()),
        origin: taken.origin,
        default,
        allowed: taken.allowed,
        about: entry.map(|entry| entry.about.clone()).unwrap_or_default(),
    }
}

/// What the example says of a key.
struct Entry {
    key: String,
    default: Option<String>,
    about: String,
}

/// Of each key, the comment above it; a comment goes for those that follow it without one.
fn entries() -> Vec<Entry> {
    let (mut entries, mut about, mut is_open) = (Vec::new(), String::new(), false);
    for line in EXAMPLE.lines() {
        match assignment(line) {
            Some((key, value)) => {
                is_open = false;
                let default = (!value.is_empty()).then(|| value.to_owned());
                entries.push(Entry { key: key.to_owned(), default, about: about.clone() });
            }
            None => match line.strip_prefix("# ") {
                Some(text) if is_open => about = format!("{about} {text}"),
                Some(text) => (about, is_open) = (text.to_owned(), true),
                None => is_open = false,
            },
        }
    }
    entries
}

/// `KEY=value` or `#KEY=value`.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix('#').unwrap_or(line).split_once('=')?;
    let is_key = |c: char| c.is_ascii_uppercase() || c == '_';
    (!key.is_empty() && key.chars().all(is_key)).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Settings, SourceFile};

    fn survey(files: &[(&str, &str)]) -> Survey {
        let files = files.iter().map(|(path, text)| source(path, text)).collect();
        Survey::from_sources(&Sources { environment: &|_| None, files })
    }

    fn source(path: &str, text: &str) -> SourceFile {
        SourceFile { path: PathBuf::from(path), content: Ok(text.into()) }
    }

    fn settings(text: &str) -> Settings {
        let sources = Sources { environment: &|_| None, files: vec![source("/e", text)] };
        Settings::from_sources(&sources).unwrap_or_else(|error| panic!("{error}\n{text}")).0
    }

    const REQUIRED: &str = "POLICY_URL=/p.json\nRUNTIME_MANIFEST_URL=/m.json\n";

    #[test]
    fn the_example_has_every_setting_once_and_nothing_else() {
        let keys: Vec<String> = entries().into_iter().map(|entry| entry.key).collect();
        let example: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        let code: BTreeSet<&str> = survey(&[]).settings.iter().map(|one| one.key).collect();
        assert_eq!(example, code, "packaging/examples/updater.env.example and src/config/load.rs");
        assert_eq!(keys.len(), example.len(), "a key stands twice in the example");
        assert!(entries().iter().all(|entry| !entry.about.is_empty()));
    }

    #[test]
    fn the_defaults_that_the_example_shows_are_those_of_the_code() {
        let lines = EXAMPLE.lines().filter_map(assignment);
        let shown: String = lines
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect();
        let explicit = settings(&format!("{REQUIRED}{shown}"));
        assert_eq!(format!("{explicit:?}"), format!("{:?}", settings(REQUIRED)));
    }

    #[test]
    fn the_example_as_it_is_asks_for_what_is_required_and_for_nothing_else() {
        let survey = survey(&[("/etc/payram/updater.env", EXAMPLE)]);
        assert_eq!(survey.problems.len(), 2, "{:?}", survey.problems);
        assert!(survey.problems.iter().all(|problem| problem.contains("is not set")));
        assert_eq!(survey.warnings, Vec::<String>::new());
    }

    #[test]
    fn each_setting_says_where_it_came_from() {
        let survey = survey(&[
            ("/w/.env", "UPDATER_PORT=1234\nLOG=info=x=y\n"),
            ("/etc/payram/updater.env", "UPDATER_PORT=9\nSTATE_DIR=/s\nODD=1\n"),
        ]);
        let port = survey.get("updater_port").expect("there");
        assert_eq!(port.value.as_deref(), Some("1234"));
        assert_eq!(port.origin.as_ref().map(ToString::to_string).as_deref(), Some("/w/.env:1"));
        assert_eq!(port.default.as_deref(), Some("2567"));
        let retention = survey.get("BACKUP_RETENTION").expect("there");
        assert_eq!((retention.value.as_deref(), &retention.origin), (Some("10"), &None));
        assert_eq!(survey.get("DOCKER_HOST").expect("there").value, None);
        let log = survey.get("LOG").expect("there");
        assert_eq!(log.value.as_deref(), Some("info=x=y"), "shown although it is not valid");
        assert_eq!(survey.problems.len(), 3, "{:?}", survey.problems);
        assert_eq!(survey.warnings.len(), 1, "{:?}", survey.warnings);
    }

    #[test]
    fn no_secret_is_shown() {
        let passwords = survey(&[(
            "/e",
            "PG_PASSWORD=hunter2\nPOLICY_URL=https://u:hunter2@h.example/p?token=hunter2\n",
        )]);
        assert_eq!(passwords.get("PG_PASSWORD").expect("there").value.as_deref(), Some("***"));
        let hook =
            "NOTIFY_URL=https://u:hunter2@hooks.example/hunter2?t=hunter2\nNOTIFY_SECRET=hunter2\n";
        let told = survey(&[("/e", hook)]);
        let value = |key: &str| told.get(key).expect("there").value.clone();
        assert_eq!(value("NOTIFY_URL").as_deref(), Some("https://hooks.example/***"));
        assert_eq!(value("NOTIFY_SECRET").as_deref(), Some("***"));
        let bad = survey(&[("/e", "NOTIFY_URL=hunter2")]);
        assert!(!format!("{told:?}{bad:?}").contains("hunter2"), "{bad:?}");
        let policy = passwords.get("POLICY_URL").expect("there").value.clone();
        assert_eq!(policy.as_deref(), Some("https://***@h.example/p?***"));
        assert!(!format!("{passwords:?}").contains("hunter2"));
    }
}
