//! What must be so whenever an upgrade has come to rest with the application serving.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::trap::reader;
use super::watch::running_on;
use super::{World, wait_until};

/// What follows the verdict is done within this.
const TIDY_LIMIT: Duration = Duration::from_secs(60);

/// Loads the rows that a failed version wrote, by the very command that their file gives;
/// answers the command and what it said.
pub fn load_exported(file: impl AsRef<Path>) -> String {
    // It is in the encoding of the database.
    let text = fs::read(file).expect("the file of the rows");
    let text = String::from_utf8_lossy(&text);
    let command = text.lines().find_map(|line| line.strip_prefix("--   docker exec "));
    let command = format!("docker exec {}", command.expect("a command"));
    let loaded = Command::new("sh").args(["-c", &command]).output().expect("sh");
    let said = String::from_utf8_lossy(&[loaded.stdout, loaded.stderr].concat()).into_owned();
    assert!(loaded.status.success(), "{command}: {said}");
    format!("{command}\n{said}")
}

impl World {
    /// Exactly one container is left, it has the name, starts by itself, and serves `version`
    /// healthily; nothing acknowledged is lost; nothing is left over; the journal is whole.
    pub fn assert_sound(&self, version: &str, after: &str) {
        let alone = wait_until(&format!("{after}: one container is left"), TIDY_LIMIT, || {
            let mut all = self.containers();
            (all.len() == 1).then(|| all.remove(0))
        });
        assert_eq!(alone["Name"], format!("/{}", self.name), "{after}");
        let policy = &alone["HostConfig"]["RestartPolicy"]["Name"];
        assert_eq!(policy, "unless-stopped", "{after}");
        assert_eq!(
            running_on(&self.data_dir(), &self.engine),
            Some(vec![self.name.clone()]),
            "{after}"
        );
        assert!(self.is_healthy(), "{after}: it is not healthy");
        assert_eq!(self.version().as_deref(), Some(version), "{after}");
        self.wait_for_payments(1);
        assert_eq!(self.payments_lost(), Vec::<String>::new(), "{after}: lost payments");
        // What is left when one container is, goes within moments.
        let began = Instant::now();
        let left = wait_until("nothing is left over", TIDY_LIMIT * 2, || {
            let left = self.leftovers();
            (left.is_empty() || began.elapsed() > TIDY_LIMIT).then_some(left)
        });
        assert_eq!(left, Vec::<String>::new(), "{after}: left over");
        self.assert_journal_is_whole(after);
    }

    /// This version serves, after what `after` says, and its watch has found something: this is
    /// told, and the old container, its image and the copy of the database are there.
    pub fn assert_way_back_is_kept(&self, version: &str, after: &str) {
        wait_until(&format!("{after}: inspect tells it"), TIDY_LIMIT, || {
            let inspected = self.cli(&["inspect", "--json"]);
            let report: Value = serde_json::from_slice(&inspected.stdout).ok()?;
            let issues = report["issues"].as_array()?;
            issues.iter().any(|issue| issue["component"] == "probation").then_some(())
        });
        assert_eq!(self.version().as_deref(), Some(version), "{after}");
        self.wait_for_payments(1);
        assert_eq!(self.payments_lost(), Vec::<String>::new(), "{after}: lost payments");
        let all = self.containers();
        let parked = format!("/{}-previous-", self.name);
        let is_parked =
            |one: &&Value| one["Name"].as_str().is_some_and(|it| it.starts_with(&parked));
        let old = all.iter().find(is_parked).unwrap_or_else(|| panic!("{after}: {all:?}"));
        assert_eq!(old["State"]["Running"], false, "{after}");
        assert_eq!(old["HostConfig"]["RestartPolicy"]["Name"], "no", "{after}");
        assert!(
            self.inspect(old["Image"].as_str().expect("an id")).is_some(),
            "{after}: its image"
        );
        let left = self.leftovers();
        let is_copy = |name: &String| name.contains("payram-restore");
        assert!(left.iter().any(is_copy), "{after}: the copy is kept: {left:?}");
        self.assert_journal_is_whole(after);
    }

    /// `journal verify` has nothing to say.
    pub fn assert_journal_is_whole(&self, after: &str) {
        let verified = self.cli(&["journal", "verify"]);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(0), "{after}: journal verify: {said}");
    }

    /// Files and databases that a finished upgrade has no use for. A failed version's database
    /// is none of them: it is kept.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let below = |directory: &str| -> Vec<String> {
            let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        for directory in ["data/db", "data", "."] {
            let names = below(directory).into_iter();
            left.extend(names.filter(|name| name.contains("payram-restore")));
        }
        left.extend(below("state/restore"));
        let is_whole = |name: &String| name.ends_with(".dump") || name.ends_with(".json");
        left.extend(below("backups").into_iter().filter(|name| !is_whole(name)));
        let databases = self.try_sql("SELECT datname FROM pg_database ORDER BY 1");
        let known = ["payram", "postgres", "template0", "template1"];
        let databases = databases.unwrap_or_default();
        left.extend(databases.lines().filter(|name| !known.contains(name)).map(str::to_owned));
        left
    }

    /// Directories of failed versions' databases, kept beside the one in use.
    pub fn failed_directories(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("data/db")).expect("the database's place").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains(".failed-")).collect()
    }

    /// `run --to VERSION --yes --detach`: the job's id.
    pub fn begin_upgrade(&self, version: &str) -> String {
        let begun = self.cli(&["run", "--to", version, "--yes", "--detach", "--json"]);
        let said = String::from_utf8_lossy(&begun.stdout).into_owned();
        let error = String::from_utf8_lossy(&begun.stderr).into_owned();
        assert_eq!(begun.status.code(), Some(0), "run --to {version}: {said}{error}");
        let answer: Value = serde_json::from_str(&said).expect("JSON");
        answer["jobId"].as_str().expect("a job id").to_owned()
    }

    /// The log of the last upgrade.
    pub fn upgrade_log(&self) -> String {
        String::from_utf8_lossy(&self.cli(&["logs"]).stdout).into_owned()
    }
}

/// Seconds from the start of the last upgrade's new container to the old one's first answer.
pub fn seconds_without_the_old(world: &World) -> f64 {
    let journal = reader(&world.state_dir().join("journal.db")).expect("a journal");
    let sql = "SELECT
        (SELECT max(atom) FROM journal, json_tree(body)
         WHERE kind = 'outcome' AND name = 'verify_old' AND key = 'firstAnswerMs')
        - (SELECT max(at_ms) FROM journal WHERE kind = 'intent' AND name = 'start_next')";
    let millis: i64 = journal.query_row(sql, [], |row| row.get(0)).expect("both are journaled");
    Duration::from_millis(u64::try_from(millis).expect("in this order")).as_secs_f64()
}
