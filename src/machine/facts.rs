//! What is known at each point of an upgrade: plain, serialisable facts without secrets.
//!
//! They travel in the states and in the journal. Whoever needs a secret (the database's
//! password, the container's environment) reads it from the saved inspection, a file of mode
//! 0600 that [`OldContainer::spec_file`] names (I5).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sequences::{Sequence, SequenceMove};

/// The container that serves when the hop begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldContainer {
    /// Full id; every observation goes by it, never by the name alone (I4).
    pub id: String,
    /// Its name, which the next container takes over.
    pub name: String,
    /// Id of the image it runs.
    pub image_id: String,
    /// Its raw `RestartPolicy`, to be set on the next one or set back.
    pub restart_policy: Value,
    /// Where its whole inspection lies, mode 0600.
    pub spec_file: String,
}

/// The image to go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetImage {
    /// `payramapp/payram`
    pub repo: String,
    /// `1.9.7`, with an architecture suffix where one belongs.
    pub tag: String,
}

/// What the manifest adds where it is missing; it never changes or removes (design section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overlay {
    /// Ports to publish.
    pub ports: Vec<OverlayPort>,
    /// Volumes and binds to mount.
    pub volumes: Vec<OverlayVolume>,
    /// `KEY=value`, each for a key that the container does not have.
    pub environment: Vec<String>,
}

/// A port of an [`Overlay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayPort {
    /// Inside the container.
    pub container: u16,
    /// On the host; the container's number when none is given.
    pub host: Option<u16>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A mount of an [`Overlay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayVolume {
    /// A volume's name, or an absolute path of the host.
    pub source: String,
    /// Where it is mounted.
    pub destination: String,
    /// Whether the container may only read it.
    pub readonly: bool,
}

/// How the core of a version is asked for its health and version (contract section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum CoreRules {
    /// Health at this path, version at `/api/v1/version`.
    Api {
        /// `/api/v1/health`
        health_path: String,
    },
    /// Below `updater_api_init_version`: the welcome text and the image's version label.
    Legacy,
}

/// A dump that is complete, synced and checked on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// The dump's path; the sidecar is beside it with `.json`.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Hex sha256 of the file, taken while it was written.
    pub sha256: String,
    /// The database's host, as the application calls it.
    pub database_host: String,
    /// Its port.
    pub database_port: u16,
    /// Its name.
    pub database_name: String,
}

/// What proves that a dump can be read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Entries in the dump's table of contents.
    pub toc_entries: u64,
    /// Tables whose data the dump holds.
    pub tables: u64,
}

/// An image that is on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PulledImage {
    /// The image's id, `sha256:…`.
    pub id: String,
    /// The digest that the registry knows it by; none for an image that was never pulled.
    pub digest: Option<String>,
}

/// The container of the new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextContainer {
    /// Full id.
    pub id: String,
    /// The name it was created under, until it takes over.
    pub temporary_name: String,
}

/// What the database held at one moment, as its server counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fingerprint {
    /// Hex sha256 over the definition of every table, view, sequence, function and type.
    pub schema: String,
    /// When the counters of the database and of its server were last reset, as the server says
    /// it. Two fingerprints that differ here can't be compared by their counters.
    pub counters_since: String,
    /// Sessions that could still have written something the server had not counted yet.
    #[serde(default)]
    pub unsettled_sessions: u64,
    /// The number of the server's next transaction, epoch included: a row version that has this
    /// one or a later one was written after this moment. None in journals of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_transaction: Option<u64>,
    /// Every table of the application that holds rows itself, by qualified name.
    pub tables: Vec<TableCount>,
    /// What the schema consists of, to say what differs.
    #[serde(default)]
    pub objects: Vec<ObjectDigest>,
    /// What belongs to no single database: roles, their settings, the databases themselves. None
    /// in journals of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Vec<ObjectDigest>>,
    /// The other databases of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<OtherDatabase>,
    /// Where the sequences of the application's database stand; none in journals of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Vec<Sequence>>,
}

/// A database of the cluster beside the application's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherDatabase {
    /// Its name.
    pub name: String,
    /// The server's own number for it.
    pub id: u32,
    /// What was written in it since the counters began.
    pub kinds: ChangeKinds,
}

/// One object of the schema of a [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectDigest {
    /// `table public.payments`
    pub name: String,
    /// The first half of the hex sha256 of its definition.
    pub digest: String,
}

/// One table of a [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableCount {
    /// `public.payments`
    pub name: String,
    /// The server's own number for it, which a renamed table keeps and a new one of the same
    /// name does not have.
    pub id: u32,
    /// The file that holds its rows; another one after `TRUNCATE`, which the counters miss.
    pub file: Option<u32>,
    /// Rows inserted, updated and deleted since the counters began.
    pub changes: u64,
    /// Rows by `count(*)`; none where counting would have cost too long.
    pub rows: Option<u64>,
    /// Of the changes, rows inserted, updated and deleted; none in journals of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<ChangeKinds>,
    /// Of the rows, those whose version was written since the cut-over; none where they were
    /// not counted, or there was no cut-over yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
}

/// Changes of a table's rows by kind, as the server counts them: a row that was updated twice
/// counts twice, and so does one whose transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeKinds {
    /// Insertions.
    pub inserted: u64,
    /// Updates.
    pub updated: u64,
    /// Deletions.
    pub deleted: u64,
}

/// The application's programs, noted before any of them is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Programs {
    /// Those that run and will be stopped; exactly these are started again on the way back.
    /// Empty when the container has no supervisor.
    pub running: Vec<String>,
    /// When the old version last answered, milliseconds since the epoch; none when it was
    /// silent already.
    pub last_answer_ms: Option<i64>,
    /// How the old version was while it was watched, as long as a new one is; none in journals of
    /// versions that did not watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub habits: Option<Box<Habits>>,
}

/// What the old version did by itself while it was watched: no fault in a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Habits {
    /// Programs that its supervisor had given up on before anything was touched.
    pub given_up: Vec<String>,
    /// Programs that ended, or came back as another process, meanwhile: judged by their state
    /// alone.
    pub restless: Vec<String>,
    /// Those of them that were seen at work in between: a new version's have to be, too.
    pub came_up: Vec<String>,
    /// Programs that stayed.
    pub steady: Vec<String>,
    /// Looks at the database in which the application had a session of its own, of all of them.
    pub looks_with_sessions: u32,
    /// Looks at the database.
    pub looks: u32,
    /// Its slowest answer, in milliseconds.
    pub slowest_answer_ms: u64,
    /// Seconds that it was watched.
    pub seconds: u64,
    /// How its database was used meanwhile.
    pub usage: Usage,
    /// Programs that its supervisor was told not to run, by somebody.
    pub stopped: Vec<String>,
}

/// How a database was used while a version was watched, by what its server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Looks at it.
    pub looks: u32,
    /// Looks that found a session of the application.
    pub looks_with_sessions: u32,
    /// Looks that found one, or transactions since the look before.
    pub looks_used: u32,
    /// Times between two looks over which the server's counters can be compared.
    pub intervals: u32,
    /// Those in which rows were written.
    pub intervals_with_rows: u32,
    /// Transactions of others than the updater in all of them.
    pub transactions: u64,
    /// How long they were together.
    pub milliseconds: u64,
    /// Programs that had a session in every look, by the name that they give; what differs from
    /// version to version is left out.
    pub programs: Vec<String>,
}

/// Which database it is: of two clusters no two of these are equal, whatever rows they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// The cluster's `system_identifier`, given by `initdb`.
    pub system_identifier: String,
    /// The timeline of its WAL.
    pub timeline: u32,
    /// The database's own number in it.
    pub database_oid: u32,
    /// The end of its WAL, `0/16B3748`: what comes later is newer.
    pub wal_position: String,
    /// The file of `pg_wal` that holds this position.
    pub wal_file: String,
    /// The server's major version.
    #[serde(default)]
    pub major: u32,
}

/// A moment by the clock that nobody sets: since which start of the host, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Uptime {
    /// The kernel's own id of this start of the host.
    pub boot: String,
    /// Milliseconds since then, sleep included.
    pub millis: i64,
}

/// What stopping the application's programs found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quiesced {
    /// What was noted before.
    pub programs: Programs,
    /// The database after the last write; none when it could not be read.
    pub fingerprint: Option<Fingerprint>,
    /// The last moment the old version is known to have answered, milliseconds since the
    /// epoch; none when it was silent before the upgrade touched it.
    pub last_answer_ms: Option<i64>,
    /// The same moment by the clock that nobody sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer_up: Option<Uptime>,
    /// Which database it is, after the last write; none when it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// The contents of its server's lock file, `postmaster.pid`; none when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_file: Option<String>,
}

/// What a failed version's changed database leads to by itself (`ROLLBACK_DATABASE`); fixed
/// when a hop is planned, so that the way back is decided by the journal alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RollbackDatabase {
    /// The restore point comes back by itself where no row is lost by it.
    #[default]
    Lossless,
    /// Never by itself.
    Manual,
    /// Always by itself.
    Always,
}

/// The first, dirty copy of the database, made while the application serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Copy {
    /// The database's directory, as this host sees it.
    #[serde(rename_all = "camelCase")]
    Directory {
        /// The directory that the database's server works in.
        source: String,
        /// The copy, on the same file system.
        copy: String,
        /// Files in it.
        files: u64,
        /// Bytes that this pass copied.
        bytes: u64,
        /// How to run the database's server again without the application.
        server: Server,
    },
    /// There is no directory to copy: a dump is taken after the last write.
    #[serde(rename_all = "camelCase")]
    Dump {
        /// Where the dump will lie.
        path: String,
        /// Why no directory is copied.
        reason: String,
        /// Whether the database's server is outside of the container, so that it can be asked and
        /// changed whichever container runs, and others may write to it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_elsewhere: bool,
    },
}

/// How the database's server was started, to start it again on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// The server's program inside the container, `/usr/lib/postgresql/15/bin/postgres`.
    pub program: String,
    /// What it was started with.
    pub arguments: Vec<String>,
    /// Owner of the directory, `UID:GID`.
    pub owner: String,
    /// `15`
    pub major: u32,
}

/// The database as it was after the last write of the old version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// Hex sha256 of the copy's manifest, or of the dump.
    pub sha256: String,
    /// Bytes copied while the application was down.
    pub bytes: u64,
    /// Milliseconds that it added to the downtime.
    pub millis: u64,
    /// Copies of what lies beside the database in small mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<KeptMount>,
    /// Mounts that are in no copy, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files_left_out: Vec<String>,
}

impl RestorePoint {
    /// Of the database alone.
    pub fn of_database(sha256: impl Into<String>, bytes: u64, millis: u64) -> Self {
        let (files, files_left_out) = (Vec::new(), Vec::new());
        Self { sha256: sha256.into(), bytes, millis, files, files_left_out }
    }
}

/// A mount of the old container whose files were copied before the new version was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptMount {
    /// Inside the container.
    pub destination: String,
    /// On this host.
    pub source: String,
    /// Directory of the copy.
    pub copy: String,
    /// Hex sha256 of the list of what it holds.
    pub sha256: String,
    /// Files and links in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files of the mount that are too large for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
}

// Its place in an attribute of serde's asks for the reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What became of the files beside the database, once the failed version was stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilesRestored {
    /// Files, as the container calls them, that have their former contents again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<String>,
    /// Files that the failed version had added, and that were moved aside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<String>,
    /// Files that it had changed, and that were left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// Files and directories whose owner or mode was put right.
    pub dressed: u64,
    /// What could not be put back, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// Where the failed version's files are kept; none where it had changed none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_in: Option<String>,
}

impl FilesRestored {
    /// Whether nothing was to be done and nothing is to be told.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every file is as the failed version left it.
    pub fn touched_nothing(&self) -> bool {
        let left = self.left.clone();
        *self == Self { left, ..Self::default() }
    }
}

/// A database that was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Where the failed version's database is kept (I7).
    pub failed: String,
    /// Sequences that were set to where the failed version had them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<SequenceMove>,
    /// What is not known or not done about others, a sentence each: a person has to look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences_to_check: Vec<String>,
    /// What of the failed version's rows was carried over; none where nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// The number that the database has from here on, where it was loaded anew on the same server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_oid: Option<u32>,
}

/// Rows of a failed version that were carried over into the database which came back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// By table, in order of names.
    pub tables: Vec<CarriedTable>,
    /// The transactions that they were inserted in.
    pub transactions: u64,
    /// Transactions that were left out whole, with what was written in them that is still there.
    pub refused: Vec<RefusedTransactions>,
}

/// Of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarriedTable {
    /// As the old version calls it.
    pub name: String,
    /// Rows carried over.
    pub rows: u64,
}

/// Transactions that were left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedTransactions {
    /// A part of a sentence: they `also changed rows`.
    pub reason: String,
    /// How many.
    pub transactions: u64,
    /// Rows of theirs that are still there, by table.
    pub tables: Vec<CarriedTable>,
    /// The first of their numbers, as the server gave them.
    pub numbers: Vec<u32>,
}

impl Restored {
    /// Put back, with nothing to do or say about its sequences.
    pub fn kept_in(failed: impl Into<String>) -> Self {
        let failed = failed.into();
        Self {
            failed,
            sequences: Vec::new(),
            sequences_to_check: Vec::new(),
            carried: None,
            database_oid: None,
        }
    }
}

/// What became of the rows that a failed version wrote, once its database was moved aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Export {
    /// It wrote none that the database which came back does not have.
    Nothing,
    /// They are in a file beside its database.
    Written {
        /// The file.
        path: String,
        /// Every table in which it changed rows.
        tables: Vec<ExportedTable>,
        /// The shell's command that loads it; none in journals of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        load: Option<String>,
    },
    /// They could not be exported; they are in its database, which is kept.
    Missing {
        /// Why.
        reason: String,
    },
}

/// What a failed version did to the rows of one table: distinct rows, compared with the
/// database that came back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportedTable {
    /// `public.payments`, as the old version calls it.
    pub name: String,
    /// Whether migrations are noted in it: its rows are none of the shop's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_ledger: bool,
    /// Rows that the old version's table does not have.
    pub inserted: u64,
    /// Rows that it has with other values.
    pub updated: u64,
    /// Rows whose key the old version has written a row under since it came back.
    pub taken: u64,
    /// Rows that are gone; none where that can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
    /// Changes as the failed version's server counted them; none when its counters are no
    /// evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// Columns that the old version's table does not have; their values are in comments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Rows that were not exported to be loaded, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRows>,
}

impl ExportedTable {
    /// Rows of the failed version that the shop's database does not have, or not with these
    /// values.
    pub fn set_aside(&self) -> u64 {
        let refused: u64 = self.refused.iter().map(|some| some.rows).sum();
        match self.is_ledger {
            true => 0,
            false => self.inserted + self.updated + self.taken + refused,
        }
    }
}

/// Rows that are not among those that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRows {
    /// How many; 0 where that is not known.
    pub rows: u64,
    /// Why not.
    pub reason: String,
    /// Whether their values are in the file all the same, in comments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_told: bool,
}

/// The new version's good verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The version that the core reported.
    pub version: String,
    /// Good answers in a row.
    pub answers: u32,
    /// The first moment the core answered, milliseconds since the epoch.
    pub first_answer_ms: i64,
    /// The same moment by the clock that nobody sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_answer_up: Option<Uptime>,
    /// What was seen that a person should know and that is no reason against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why a person has to confirm it before anything is tidied away; none when nobody has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_confirm: Option<String>,
    /// Whether that holds without a probation, too. In an older journal it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_a_person: bool,
}

/// What the watch after `Verified` came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probation {
    /// How it ended.
    pub end: ProbationEnd,
    /// What was found, a sentence each; empty when nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Seconds since the verdict.
    pub seconds: u64,
}

/// How a [`Probation`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbationEnd {
    /// Nothing was found in all of its time.
    Passed,
    /// The next upgrade began.
    NextUpgrade,
    /// The version did not stay, or fell silent.
    Troubled,
    /// A second server worked on the database's directory.
    Damaged,
    /// Nothing was found, and a person has to confirm the verdict all the same.
    ToConfirm,
}

impl Probation {
    /// Whether a person has to say so before the old container, its image and the restore point
    /// may go.
    pub fn keeps_the_way_back(&self) -> bool {
        match self.end {
            ProbationEnd::Passed | ProbationEnd::NextUpgrade => false,
            ProbationEnd::Troubled | ProbationEnd::Damaged | ProbationEnd::ToConfirm => true,
        }
    }
}

/// What a failed version did to the database, found before the way back is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Assessment {
    /// The schema and every counter are as they were at the cut-over: the database stays.
    Unchanged,
    /// The schema differs, and no row of a table that existed at the cut-over was changed.
    SchemaChanged {
        /// What differs, for a person.
        what: String,
    },
    /// The schema is as it was, and rows were written as the application's workers write them:
    /// the database stays, with these rows, and the old version goes on with it.
    WorkersWrote {
        /// A line for each table, as those of `RowsChanged`.
        tables: Vec<String>,
    },
    /// Rows were changed; going back would forget them.
    RowsChanged {
        /// `public.payments: 2 rows inserted, 1 updated; 60 changes`, a line for each table.
        tables: Vec<String>,
    },
    /// The database can't be read, or there is no evidence.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// Two servers worked on the database's directory at the same time, so that it may be damaged
    /// in ways that no reading finds.
    Damaged {
        /// Who the second one was, and what became of it.
        by: String,
    },
    /// Nothing was looked at, because the new version serves: what failed was not its doing,
    /// and payments may have been taken by it.
    Serves {
        /// As it reports it.
        version: String,
    },
}

impl Assessment {
    /// Whether going back forgets the same by either. Of two databases that can't be read nothing
    /// is known, whatever the reasons.
    pub fn forgets_the_same(&self, other: &Assessment) -> bool {
        match (self, other) {
            (Assessment::Unreadable { .. }, Assessment::Unreadable { .. }) => true,
            (one, other) => one == other,
        }
    }
}
