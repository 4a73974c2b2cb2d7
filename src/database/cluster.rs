//! Which cluster a server serves, and how far its log is: what tells the application's own
//! database from any other, an older copy of it included (I13).
//!
//! Called by the driver at the cut-over and by its gate. A server that runs is asked; of one that
//! has ended the control file tells, which is read here byte by byte (PostgreSQL,
//! `src/include/catalog/pg_control.h`: the first fields have kept their places since version 11).
//! Reads only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::runner::Runner;
use super::tool::ToolError;
use crate::error::Trouble;
use crate::machine::facts::Cluster;
use crate::machine::failure::FailureCode;

/// One row, one JSON object. `pg_control_system` and `pg_control_checkpoint` may be called by
/// every role. Sessions: those of the application's role, without this one and its like.
/// Counters: of all who use the database, this question included.
const IDENTITY: &str = "select json_build_object(\
    'systemIdentifier', (select system_identifier::text from pg_control_system()), \
    'timeline', (select timeline_id from pg_control_checkpoint()), \
    'databaseOid', (select oid::bigint from pg_database where datname = current_database()), \
    'walPosition', case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
        else pg_current_wal_lsn() end, \
    'walFile', case when pg_is_in_recovery() then '' \
        else pg_walfile_name(pg_current_wal_lsn()) end, \
    'major', current_setting('server_version_num')::int / 10000, \
    'counters', (select json_build_object('transactions', xact_commit + xact_rollback, \
            'written', tup_inserted + tup_updated + tup_deleted) \
        from pg_stat_database where datname = current_database()), \
    'sessions', (select count(*) from pg_stat_activity \
        where datname = current_database() and usename = current_user \
          and pid <> pg_backend_pid() and application_name not like 'payram-updater%' \
          and coalesce(backend_type, 'client backend') = 'client backend'), \
    'programs', coalesce((select json_agg(distinct application_name) from pg_stat_activity \
        where datname = current_database() and usename = current_user \
          and pid <> pg_backend_pid() and application_name not like 'payram-updater%' \
          and coalesce(backend_type, 'client backend') = 'client backend'), '[]'))";

/// The control file's versions whose first fields lie where [`Control::read`] looks: PostgreSQL
/// 11 and later.
const CONTROL_VERSIONS: std::ops::RangeInclusive<u32> = 1100..=1999;

/// The state of a cluster that was shut down in good order, and of a standby that was.
const SHUT_DOWN: [u32; 2] = [1, 2];

/// What a server says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which one it is, and how far.
    pub cluster: Cluster,
    /// Sessions that the application has in its database now.
    pub sessions: u32,
    /// The programs that they belong to, by the name that they give, which may be empty.
    pub programs: Vec<String>,
    /// What the server counted in this database; none where it does not say.
    pub counters: Option<Counters>,
}

/// What a server counted in one database since it did last begin to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Transactions that ended, well or not.
    pub transactions: u64,
    /// Rows that were inserted, updated or deleted.
    pub written: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    system_identifier: String,
    timeline: u32,
    database_oid: u32,
    wal_position: String,
    wal_file: String,
    #[serde(default)]
    major: u32,
    sessions: u32,
    #[serde(default)]
    programs: Vec<Option<String>>,
    #[serde(default)]
    counters: Option<Counters>,
}

/// Asks the server, which reads no table for it.
///
/// # Errors
/// `RUNTIME_INSPECTION_FAILED` when it does not answer, `INVALID_DB_CONFIG` when it refuses the
/// credentials. Unknown when there was no answer in time, which may be this host's slowness.
pub async fn identity(runner: &Runner<'_>, within: Duration) -> Result<Identity, Trouble> {
    let doing = format!("ask which cluster serves database {}", runner.database().name);
    let failed = FailureCode::RuntimeInspectionFailed;
    let statements = ["set search_path = pg_catalog", IDENTITY];
    let answer = runner.psql(None, &statements, within).await.map_err(|error| {
        let is_late = matches!(error, ToolError::TimedOut { .. });
        match error.trouble(&doing, failed, failed) {
            Trouble::Failed(failure) if is_late => Trouble::Unknown(failure),
            trouble => trouble,
        }
    })?;
    let answer: Answer = serde_json::from_str(answer.trim()).map_err(|error| {
        Trouble::failed(
            failed,
            format!("{doing}: psql's answer is not what was asked for: {error}"),
        )
    })?;
    Ok(Identity {
        cluster: Cluster {
            system_identifier: answer.system_identifier,
            timeline: answer.timeline,
            database_oid: answer.database_oid,
            wal_position: answer.wal_position,
            wal_file: answer.wal_file,
            major: answer.major,
        },
        sessions: answer.sessions,
        programs: answer.programs.into_iter().map(Option::unwrap_or_default).collect(),
        counters: answer.counters,
    })
}

/// What differs between the cluster that was served `then` and the one `now`; none when it is the
/// same one, as far on as it was or further.
pub fn difference(then: &Cluster, now: &Cluster) -> Option<String> {
    if then.system_identifier != now.system_identifier {
        return Some(format!(
            "another cluster is served: system identifier {} before, {} now",
            then.system_identifier, now.system_identifier
        ));
    }
    if then.database_oid != now.database_oid {
        return Some(format!(
            "another database of that name is served: number {} before, {} now",
            then.database_oid, now.database_oid
        ));
    }
    if then.timeline != now.timeline {
        return Some(format!(
            "the cluster is on timeline {}, it was on {}: it was restored or promoted in between",
            now.timeline, then.timeline
        ));
    }
    match (position(&then.wal_position), position(&now.wal_position)) {
        (Some(before), Some(after)) if after >= before => None,
        (Some(_), Some(_)) => Some(format!(
            "an older state of the cluster is served: its log ends at {}, it had reached {}",
            now.wal_position, then.wal_position
        )),
        (_, _) => Some(format!(
            "how far its log is can't be compared: {:?} before, {:?} now",
            then.wal_position, now.wal_position
        )),
    }
}

/// `16/B374D848` as a number (PostgreSQL manual, section 8.20).
fn position(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    let part = |digits: &str| u32::from_str_radix(digits, 16).ok();
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

/// What the control file of a directory says, whose server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The cluster's `system_identifier`.
    pub system_identifier: u64,
    /// Whether its server was shut down in good order.
    pub is_shut_down: bool,
    /// Where its last checkpoint lies in the log.
    pub checkpoint: u64,
    /// The timeline of that checkpoint.
    pub timeline: u32,
}

impl Control {
    /// Reads `global/pg_control`; none when it is of a version that is not known.
    ///
    /// # Errors
    /// A sentence: the file can't be read, or is none.
    pub fn read(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join("global/pg_control");
        let bytes =
            std::fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
        let version = bytes.get(8..12).and_then(|part| part.try_into().ok());
        match version.map(u32::from_ne_bytes) {
            Some(version) if CONTROL_VERSIONS.contains(&version) => Self::parse(&bytes)
                .map(Some)
                .ok_or_else(|| format!("{} is cut short", path.display())),
            Some(_) => Ok(None),
            None => Err(format!("{} is cut short", path.display())),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let four = |at: usize| {
            let part: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(part))
        };
        let eight = |at: usize| {
            let part: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_ne_bytes(part))
        };
        Some(Self {
            system_identifier: eight(0)?,
            is_shut_down: SHUT_DOWN.contains(&four(16)?),
            checkpoint: eight(32)?,
            timeline: four(48)?,
        })
    }
}

/// Why a directory whose server has ended is not the one in which the cluster worked that was
/// noted at the cut-over, or not as far on; none when it is. After an orderly end its last
/// checkpoint lies at or behind the noted position; after a kill that is so too, or the file of the log
/// that holds this position is there.
pub fn directory_difference(then: &Cluster, directory: &Path) -> Option<String> {
    let control = match Control::read(directory) {
        Ok(Some(control)) => control,
        // Older than PostgreSQL 11: what its server says, once it runs, decides alone.
        Ok(None) => return None,
        Err(reason) => return Some(reason),
    };
    if control.system_identifier.to_string() != then.system_identifier {
        return Some(format!(
            "{} holds another cluster: system identifier {}, expected {}",
            directory.display(),
            control.system_identifier,
            then.system_identifier
        ));
    }
    if control.timeline != then.timeline {
        return Some(format!(
            "{} is on timeline {}, expected {}",
            directory.display(),
            control.timeline,
            then.timeline
        ));
    }
    let Some(noted) = position(&then.wal_position) else {
        return Some(format!("the noted position {:?} is none", then.wal_position));
    };
    if control.checkpoint >= noted {
        return None;
    }
    if control.is_shut_down {
        return Some(format!(
            "{} is older than it was at the cut-over: its last checkpoint lies at {:X}/{:X}, the log had reached {}",
            directory.display(),
            control.checkpoint >> 32,
            control.checkpoint & 0xffff_ffff,
            then.wal_position
        ));
    }
    let segment: PathBuf = directory.join("pg_wal").join(&then.wal_file);
    (then.wal_file.is_empty() || !segment.is_file()).then(|| {
        format!(
            "{} was not shut down in good order, and the file of its log that holds {} is not there: {}",
            directory.display(),
            then.wal_position,
            segment.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            system_identifier: "7300000000000000001".into(),
            timeline: 1,
            database_oid: 16384,
            wal_position: "0/3000060".into(),
            wal_file: "000000010000000000000003".into(),
            major: 15,
        }
    }

    fn control(identifier: u64, version: u32, state: u32, checkpoint: u64) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[0..8].copy_from_slice(&identifier.to_ne_bytes());
        bytes[8..12].copy_from_slice(&version.to_ne_bytes());
        bytes[16..20].copy_from_slice(&state.to_ne_bytes());
        bytes[32..40].copy_from_slice(&checkpoint.to_ne_bytes());
        bytes[48..52].copy_from_slice(&1_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_same_cluster_may_only_go_on() {
        let then = cluster();
        let later = Cluster { wal_position: "1/0".into(), wal_file: "x".into(), ..cluster() };
        assert_eq!(difference(&then, &then), None);
        assert_eq!(difference(&then, &later), None);
        let back = difference(&later, &then).expect("an older state");
        assert!(back.contains("older state"), "{back}");
        for (other, word) in [
            (Cluster { system_identifier: "7".into(), ..cluster() }, "another cluster"),
            (Cluster { database_oid: 5, ..cluster() }, "another database"),
            (Cluster { timeline: 2, ..cluster() }, "timeline"),
            (Cluster { wal_position: "?".into(), ..cluster() }, "can't be compared"),
        ] {
            let found = difference(&then, &other).expect("a difference");
            assert!(found.contains(word), "{found}");
        }
    }

    #[test]
    fn a_directory_is_known_again_by_its_control_file_and_by_how_far_it_is() {
        let home = tempfile::tempdir().expect("a directory");
        let found = |bytes: &[u8]| {
            std::fs::create_dir_all(home.path().join("global")).expect("a directory");
            std::fs::write(home.path().join("global/pg_control"), bytes).expect("a file");
            directory_difference(&cluster(), home.path())
        };
        let (own, noted) = (7_300_000_000_000_000_001, 0x300_0060);
        assert_eq!(found(&control(own, 1300, 1, noted)), None);
        assert_eq!(found(&control(own, 1800, 1, noted + 8)), None);
        assert!(found(&control(own, 1300, 1, noted - 8)).expect("older").contains("older than"));
        assert!(found(&control(8, 1300, 1, noted)).expect("other").contains("another cluster"));
        assert_eq!(found(&control(8, 942, 1, 0)), None, "of a version that is not known");
        assert!(found(&[1, 2, 3]).expect("cut").contains("cut short"));
        assert!(found(&control(own, 1300, 1, noted)[..50]).expect("cut").contains("cut short"));
        // Killed: the log must be there.
        let killed = control(own, 1300, 6, noted - 8);
        assert!(found(&killed).expect("no log").contains("not shut down in good order"));
        assert_eq!(found(&control(own, 1300, 6, noted)), None, "it went on before it was killed");
        found(&killed);
        std::fs::create_dir_all(home.path().join("pg_wal")).expect("a directory");
        std::fs::write(home.path().join("pg_wal").join(cluster().wal_file), "x").expect("a log");
        assert_eq!(found(&killed), None);
        std::fs::remove_file(home.path().join("global/pg_control")).expect("removed");
        let gone = directory_difference(&cluster(), home.path()).expect("no control file");
        assert!(gone.contains("read "), "{gone}");
    }
}
