//! What tells one cluster from another, and how far it has come: `global/pg_control` and the
//! write-ahead log, as much of them as anybody outside of a server reads.
//!
//! The first bytes of the control file are those of PostgreSQL 11 to 17 on a little-endian
//! machine (`pg_control.h`, `ControlFileData`); the rest is zero, its checksum too. The log's
//! file holds nothing but where it ends and the next transaction, which so survive a kill; its
//! records lie beside it, a line each, as `pg_waldump` prints them. Used by the server alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Of `ControlFileData` in PostgreSQL 13 to 17.
const CONTROL_VERSION: u32 = 1300;
/// PostgreSQL 15.
const CATALOG_VERSION: u32 = 202_209_061;
const TIMELINE: u32 = 1;
/// `PG_CONTROL_FILE_SIZE`
const CONTROL_SIZE: usize = 8192;
/// Where a new cluster's log begins to be written by others than `initdb`.
const FIRST_POSITION: u64 = 0x0300_0060;
/// The first one that is not `initdb`'s.
const FIRST_TRANSACTION: u64 = 700;
/// The size of one of the log's files.
const SEGMENT: u64 = 16 << 20;
/// What there is of a file of the log.
const KEPT_OF_SEGMENT: usize = 64 << 10;
/// Where in its file the log's end is noted.
const END_AT: u64 = 8;
/// What the log's records say, each behind the place where it begins.
const RECORDS: &str = "pg_wal/records";

/// `DBState`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    ShutDown = 1,
    InProduction = 6,
}

/// A cluster's name and the end of its log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    pub system: u64,
    pub position: u64,
    pub next_transaction: u64,
    /// Where the last checkpoint is.
    checkpoint: u64,
}

impl Log {
    /// Of a cluster that is made now.
    pub fn make(directory: &Path, seconds: i64) -> io::Result<()> {
        // As `initdb` does it: the time, and below it what tells apart what is made at once.
        let [a, b, c, d] = *uuid::Uuid::now_v7().as_bytes().last_chunk().unwrap_or(&[0; 4]);
        let low = u64::from(u32::from_le_bytes([a, b, c, d]));
        let system = (seconds.unsigned_abs() << 32) | low;
        let log = Self {
            system,
            position: FIRST_POSITION,
            next_transaction: FIRST_TRANSACTION,
            checkpoint: FIRST_POSITION,
        };
        log.keep(directory)?;
        log.control(directory, State::ShutDown, seconds)
    }

    /// What the directory holds of it.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let path = directory.join("global/pg_control");
        let bytes = fs::read(&path)?;
        let number = |at: usize| {
            let eight = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            eight.map(u64::from_le_bytes)
        };
        let (Some(system), Some(checkpoint), CONTROL_SIZE) = (number(0), number(32), bytes.len())
        else {
            let found = bytes.len();
            let message = format!("{}: {found} bytes, expected {CONTROL_SIZE}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory.join("pg_wal"))? {
            files.push(entry?.path());
        }
        let Some(newest) = files.iter().filter(|file| is_segment(file)).max() else {
            let message = "could not locate a valid checkpoint record: pg_wal is empty";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        let (mut position, mut next) = ([0; 8], [0; 8]);
        let file = fs::File::open(newest)?;
        file.read_exact_at(&mut position, END_AT)?;
        file.read_exact_at(&mut next, END_AT + 8)?;
        Ok(Self {
            system,
            position: u64::from_le_bytes(position),
            next_transaction: u64::from_le_bytes(next),
            checkpoint,
        })
    }

    /// Writes so many bytes more into the log.
    pub fn write(&mut self, directory: &Path, bytes: u64) -> io::Result<()> {
        // Records begin at multiples of eight.
        self.position += bytes.next_multiple_of(8);
        self.keep(directory)
    }

    /// Notes what a record says that begins where the log ends now. One of `XLOG` is the server's
    /// own, any other the next transaction's.
    pub fn record(&self, directory: &Path, manager: &str, said: &str) -> io::Result<()> {
        let (at, shown) = (self.position, self.shown());
        let number = if manager == "XLOG" { 0 } else { self.next_transaction };
        let line = format!(
            "{at:016X} rmgr: {manager:<11} len (rec/tot):     54/    54, tx: {number:>10}, lsn: {shown}, prev 0/00000000, desc: {said}\n"
        );
        let path = directory.join(RECORDS);
        OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
    }

    /// What `pg_waldump` prints of the records from one place to another.
    pub fn records(directory: &Path, from: u64, to: u64) -> io::Result<Vec<String>> {
        let text = match fs::read_to_string(directory.join(RECORDS)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines = text.lines().filter_map(|line| {
            let (at, line) = line.split_once(' ')?;
            let at = u64::from_str_radix(at, 16).ok()?;
            (from..to).contains(&at).then(|| line.to_owned())
        });
        Ok(lines.collect())
    }

    /// A clean end's checkpoint, or the one that ends the recovery from another end; its record is
    /// itself in the log.
    pub fn checkpoint(&mut self, directory: &Path) -> io::Result<()> {
        self.checkpoint = self.position;
        let said = format!(
            "CHECKPOINT_SHUTDOWN redo {}; tli {TIMELINE}; prev tli {TIMELINE}; fpw true; xid {}:{}; oid 24576; multi 1; offset 0; shutdown",
            self.shown(),
            self.next_transaction >> 32,
            self.next_transaction & 0xFFFF_FFFF
        );
        self.record(directory, "XLOG", &said)?;
        self.write(directory, 0x78)
    }

    fn keep(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join("pg_wal").join(self.file());
        if !path.exists() {
            fs::write(&path, vec![0; KEPT_OF_SEGMENT])?;
        }
        let end = [self.position.to_le_bytes(), self.next_transaction.to_le_bytes()].concat();
        OpenOptions::new().write(true).open(path)?.write_all_at(&end, END_AT)
    }

    /// The file that holds the log's end.
    pub fn file(&self) -> String {
        let segment = self.position / SEGMENT;
        format!("{TIMELINE:08X}{:08X}{:08X}", segment / 256, segment % 256)
    }

    /// `0/3000060`
    pub fn shown(&self) -> String {
        format!("{:X}/{:X}", self.position >> 32, self.position & 0xFFFF_FFFF)
    }

    pub fn timeline(&self) -> u32 {
        TIMELINE
    }

    /// Writes the control file in its place, as a server does.
    pub fn control(&self, directory: &Path, state: State, seconds: i64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(CONTROL_SIZE);
        bytes.extend(self.system.to_le_bytes());
        bytes.extend(CONTROL_VERSION.to_le_bytes());
        bytes.extend(CATALOG_VERSION.to_le_bytes());
        bytes.extend((state as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(seconds.to_le_bytes());
        bytes.extend(self.checkpoint.to_le_bytes());
        bytes.extend(self.checkpoint.to_le_bytes());
        bytes.extend(TIMELINE.to_le_bytes());
        bytes.resize(CONTROL_SIZE, 0);
        let path = directory.join("global/pg_control");
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all(&bytes)
    }
}

/// The number of a place in the log, `0/3000060`.
pub(super) fn position(shown: &str) -> Option<u64> {
    let (high, low) = shown.split_once('/')?;
    let part = |text| u64::from_str_radix(text, 16).ok();
    Some(part(high)? << 32 | part(low)?)
}

/// Whether the name is one of the log's files and no other that lies beside them.
fn is_segment(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_outgrows_its_file_goes_on_in_the_next_one() {
        let root = tempfile::tempdir().expect("a directory");
        for below in ["global", "pg_wal"] {
            fs::create_dir(root.path().join(below)).expect("a directory");
        }
        Log::make(root.path(), 1_795_893_084).expect("made");
        let mut log = Log::read(root.path()).expect("read");
        assert_eq!(
            (log.shown(), log.file()),
            ("0/3000060".into(), "000000010000000000000003".into())
        );
        log.write(root.path(), SEGMENT).expect("written");
        let again = Log::read(root.path()).expect("read");
        assert_eq!(
            (again.shown(), again.file()),
            ("0/4000060".into(), "000000010000000000000004".into())
        );
        assert_eq!(again.system, log.system);
    }

    #[test]
    fn the_control_file_has_its_fields_where_postgres_has_them() {
        let root = tempfile::tempdir().expect("a directory");
        for below in ["global", "pg_wal"] {
            fs::create_dir(root.path().join(below)).expect("a directory");
        }
        Log::make(root.path(), 7).expect("made");
        let mut log = Log::read(root.path()).expect("read");
        log.checkpoint(root.path()).expect("a checkpoint");
        log.control(root.path(), State::InProduction, 9).expect("written");
        let bytes = fs::read(root.path().join("global/pg_control")).expect("read");
        let (four, eight) = (
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")),
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight")),
        );
        assert_eq!(bytes.len(), 8192);
        assert_eq!((eight(0), four(8), four(16)), (log.system, 1300, 6));
        assert_eq!((eight(24), eight(32), eight(40), four(48)), (9, 0x300_0060, 0x300_0060, 1));
    }
}
