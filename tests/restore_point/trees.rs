//! Directories to be copied, what happens to them meanwhile, and how they look.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use payram_updater::restore_point::{self, Cancel, FinishReport, PassReport, RestorePointError};
use proptest::prelude::*;

/// A data directory, and where its copy and its failed successor lie.
pub struct World {
    directory: tempfile::TempDir,
}

pub fn world() -> World {
    let world = World { directory: tempfile::tempdir().expect("a directory") };
    fs::create_dir_all(world.source().join("global")).expect("a data directory");
    write(&world.source().join("PG_VERSION"), b"15\n");
    write(&world.source().join("global/pg_control"), &[7; 8192]);
    world
}

impl World {
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn copy(&self) -> PathBuf {
        self.directory.path().join(".data.payram-restore-0198")
    }

    pub fn failed(&self) -> PathBuf {
        self.directory.path().join("data.failed-0198")
    }

    pub fn beside_the_copy(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.copy().display()))
    }

    pub fn with(self, edits: &[Edit]) -> Self {
        edits.iter().for_each(|edit| edit.apply(&self.source()));
        self
    }

    pub fn pre_copy(&self) -> PassReport {
        self.try_pre_copy(&mut |_| {}, &Cancel::default()).expect("a first pass")
    }

    pub fn try_pre_copy(
        &self,
        progress: &mut (dyn FnMut(u64) + Send),
        cancel: &Cancel,
    ) -> Result<PassReport, RestorePointError> {
        restore_point::pre_copy(&self.source(), &self.copy(), progress, cancel)
    }

    pub fn finish(&self) -> FinishReport {
        self.try_finish(&mut |_| {}, &Cancel::default()).expect("a second pass")
    }

    pub fn try_finish(
        &self,
        progress: &mut (dyn FnMut(u64) + Send),
        cancel: &Cancel,
    ) -> Result<FinishReport, RestorePointError> {
        restore_point::finish(&self.source(), &self.copy(), progress, cancel)
    }

    pub fn verify(&self) -> Result<(), RestorePointError> {
        restore_point::verify(&self.copy(), None, &mut |_| {}, &Cancel::default())
    }

    pub fn restore(&self) -> Result<u64, RestorePointError> {
        restore_point::restore(&self.source(), &self.copy(), &self.failed())
    }

    /// The copy is the directory, and its manifest says so.
    pub fn assert_exact(&self, what: &str) {
        assert_eq!(look(&self.copy()), look(&self.source()), "{what}");
        self.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = restore_point::first_difference(&self.source(), &self.copy()).expect("looks");
        assert_eq!(found, None, "{what}");
    }
}

/// Everything about an entry that a copy keeps.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    kind: String,
    owner: (u32, u32),
    mode: u32,
    mtime: (i64, i64),
    content: Vec<u8>,
}

/// A directory and all below it.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let meta = fs::symlink_metadata(&path).expect("an entry");
        let (kind, content) = if meta.is_dir() {
            for entry in fs::read_dir(&path).expect("a listing") {
                ahead.push(entry.expect("an entry").path());
            }
            ("directory".to_owned(), Vec::new())
        } else if meta.is_symlink() {
            (format!("link to {}", fs::read_link(&path).expect("a target").display()), Vec::new())
        } else {
            ("file".to_owned(), fs::read(&path).expect("content"))
        };
        let entry = Seen {
            kind,
            owner: (meta.uid(), meta.gid()),
            mode: meta.mode(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            content,
        };
        seen.insert(path.strip_prefix(root).expect("below").to_owned(), entry);
    }
    seen
}

/// Something that happens to a directory.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A file of so many bytes of this kind, whatever was there.
    File(&'static str, usize, u8),
    Directory(&'static str),
    Link(&'static str, &'static str),
    Append(&'static str, usize),
    Truncate(&'static str, usize),
    /// One byte, with the size and the modification time kept.
    Secretly(&'static str, u8),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Mode(&'static str, u32),
    /// Only root may; nothing happens otherwise.
    Owner(&'static str, u32),
    Touch(&'static str, u32),
}

impl Edit {
    pub fn apply(&self, root: &Path) {
        match self {
            Edit::File(path, size, byte) => {
                let path = room_for(root, path);
                write(&path, &vec![*byte; *size]);
            }
            Edit::Directory(path) => {
                let path = root.join(path);
                if !path.is_dir() {
                    fs::create_dir(room_for(root, path.strip_prefix(root).expect("below")))
                        .expect("a directory");
                }
            }
            Edit::Link(path, target) => {
                symlink(target, room_for(root, path)).expect("a link");
            }
            Edit::Append(path, size) => on_file(root, path, |path| {
                let mut content = fs::read(path).expect("content");
                content.extend(vec![b'+'; *size]);
                fs::write(path, content).expect("written");
            }),
            Edit::Truncate(path, size) => on_file(root, path, |path| {
                let file = File::options().write(true).open(path).expect("a file");
                let now = file.metadata().expect("a size").len();
                file.set_len(now.min(*size as u64)).expect("truncated");
            }),
            Edit::Secretly(path, byte) => on_file(root, path, |path| {
                let time = fs::metadata(path).expect("a time").modified().expect("a time");
                let mut content = fs::read(path).expect("content");
                if let Some(last) = content.last_mut() {
                    *last = *byte;
                }
                let file = File::options().write(true).open(path).expect("a file");
                std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).expect("written");
                file.set_times(FileTimes::new().set_modified(time)).expect("set back");
            }),
            Edit::Remove(path) => remove(&root.join(path)),
            Edit::Rename(from, to) => {
                // A link is refused where the database lies.
                let may_move = |meta: fs::Metadata| !meta.is_symlink() && !to.starts_with(from);
                if root.join(from).symlink_metadata().is_ok_and(may_move) {
                    let aside = root.join("aside");
                    fs::rename(root.join(from), &aside).expect("moved");
                    fs::rename(aside, room_for(root, to)).expect("moved");
                }
            }
            Edit::Mode(path, mode) => on_file(root, path, |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("a mode");
            }),
            Edit::Owner(path, id) => on_file(root, path, |path| {
                let _ = std::os::unix::fs::chown(path, Some(*id), Some(*id));
            }),
            Edit::Touch(path, seconds) => on_file(root, path, |path| {
                let time =
                    SystemTime::UNIX_EPOCH + Duration::new(u64::from(*seconds), *seconds / 7);
                let file = File::options().write(true).open(path).expect("a file");
                file.set_times(FileTimes::new().set_modified(time)).expect("a time");
            }),
        }
    }
}

fn on_file(root: &Path, path: &str, edit: impl Fn(&Path)) {
    let path = root.join(path);
    if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        edit(&path);
    }
}

/// The path with directories above it and nothing at it.
fn room_for(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    let mut above = root.to_owned();
    for step in path.parent().expect("below the root") {
        above.push(step);
        if !above.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            remove(&above);
            fs::create_dir(&above).expect("a directory");
        }
    }
    remove(&root.join(path));
    root.join(path)
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

pub fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A few names, so that files, directories and links take each other's place.
const NAMES: [&str; 12] = [
    "base/1/100",
    "base/1/101",
    "base/1/101.1",
    "base/1",
    "base/2/200",
    "base",
    "pg_wal/000000010000000000000001",
    "pg_wal/archive_status",
    "postgresql.conf",
    "log/today",
    "log",
    "global/pg_control",
];

pub fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    let name = || proptest::sample::select(&NAMES[..]);
    // Around the size of a piece as well.
    let size =
        || prop_oneof![4 => 0..9000_usize, 1 => 65_500..65_600_usize, 1 => 262_100..262_200_usize];
    let edit = prop_oneof![
        6 => (name(), size(), any::<u8>()).prop_map(|(p, size, b)| Edit::File(p, size, b)),
        1 => name().prop_map(Edit::Directory),
        1 => Just(Edit::Link("base/1/link", "../2/200")),
        1 => Just(Edit::Link("log", "/var/log/postgresql")),
        3 => (name(), size()).prop_map(|(p, size)| Edit::Append(p, size)),
        2 => (name(), size()).prop_map(|(p, size)| Edit::Truncate(p, size)),
        4 => (name(), any::<u8>()).prop_map(|(p, b)| Edit::Secretly(p, b)),
        2 => name().prop_map(Edit::Remove),
        2 => (name(), name()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => (name(), proptest::sample::select(vec![0o600, 0o640, 0o644]))
            .prop_map(|(p, mode)| Edit::Mode(p, mode)),
        1 => (name(), 1000..1003_u32).prop_map(|(p, id)| Edit::Owner(p, id)),
        1 => (name(), any::<u32>()).prop_map(|(p, seconds)| Edit::Touch(p, seconds)),
    ];
    proptest::collection::vec(edit, 0..most)
}

/// Until what was written so far counts as at rest.
pub fn until_at_rest() {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let (written, deadline) = (now(), Instant::now() + Duration::from_secs(30));
    while now() < written + Duration::from_millis(2100) {
        assert!(Instant::now() < deadline, "the wall clock stands still");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
