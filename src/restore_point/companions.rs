//! The files beside the database that a container can write to: copied before a new version is
//! started, compared and put back one by one when it failed.
//!
//! No rename puts these back: what holds them is a mount of the container, and it may hold the
//! database, the host's own files and other mounts as well. So each entry is written down with
//! what it was, and only what differs is touched. What the failed version had in its place is
//! copied aside first; nothing is removed that is not in there. Of a mount that holds more than is
//! copied the smallest files are: a configuration, a key store. The others are written down, so
//! that they are not taken for new.
//!
//! The caller says what is not to be looked at: the database, other mounts, scratch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Cancel;
use super::error::{Refusal, RestorePointError, io_at};
use super::ledger::now_ns;
use super::pieces::hex;
use super::survey::mount_points;
use super::tree::{Node, Shape, Stamp, Tree, dress};

type Result<T> = std::result::Result<T, RestorePointError>;

/// Bytes of one mount that are copied.
const MOST_BYTES: u64 = 256 << 20;

/// Entries of one mount that are looked at.
const MOST_ENTRIES: usize = 20_000;

/// A file whose times lie less than this back may change again without their changing.
const AT_REST_NS: i64 = 2_000_000_000;

/// So many files are synced one by one; beyond, the whole file system at once.
const SYNCED_SINGLY: usize = 64;

/// Bytes that a failed version's files take at most where they are kept aside.
const MOST_ASIDE: u64 = 256 << 20;

/// Free space that is left to the journal, which lies on the same disk.
const LEFT_FREE: u64 = 512 << 20;

/// The list of what a copy holds.
const LIST: &str = "list.json";

/// Directories of the host that hold its own files: what lies in one of the first kind, or is one
/// of the second, is not the shop's (Filesystem Hierarchy Standard 3.0).
const OF_THE_HOST: [&str; 8] =
    ["/etc", "/usr", "/boot", "/proc", "/sys", "/dev", "/run", "/var/run"];
const TOO_WIDE: [&str; 12] = [
    "/", "/home", "/root", "/opt", "/srv", "/var", "/var/lib", "/mnt", "/media", "/tmp", "/bin",
    "/lib",
];

/// A directory or a file of this host that a container has mounted.
#[derive(Clone, Debug)]
pub struct Companion {
    /// On this host.
    pub source: PathBuf,
    /// The same inside of the container.
    pub destination: String,
    /// Paths of this host, without links in them, that are not entered.
    pub apart: Vec<PathBuf>,
    /// Whatever begins like this is not entered either: `/srv/db/postgres.failed-`.
    pub apart_prefix: Option<String>,
    /// Whether a path inside of the container holds nothing that matters.
    pub is_scratch: fn(&str) -> bool,
}

/// What a mount holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// So much is copied.
    Small {
        /// Files and links.
        files: u64,
        /// Bytes in them.
        bytes: u64,
        /// Files that are too large.
        left: u64,
    },
    /// It is not copied.
    LeftOut {
        /// Why: `it holds more than 20000 files`.
        why: String,
    },
}

/// A copy of a mount's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFiles {
    /// Files and links.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files that were too large.
    pub left: u64,
    /// Hex sha256 of the list of what it holds.
    pub sha256: String,
}

/// What is done with files that are not as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They are told, and stay.
    Tell,
    /// They are put back; what was added, or added to the end of a file, stays: rows that stay may
    /// be about it.
    KeepAdditions,
    /// They are put back, and what was added is moved aside.
    Exact,
}

/// What was put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutBack {
    /// Paths, relative to the mount, whose contents were put back, or that were missing.
    pub contents: Vec<String>,
    /// Paths that were not there before and were moved aside.
    pub moved: Vec<String>,
    /// Paths that are not as they were and were left.
    pub left: Vec<String>,
    /// Entries whose owner or mode was put right.
    pub dressed: u64,
    /// What could not be put back, a sentence each.
    pub failed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    path: String,
    kind: Kind,
    stamp: StampRecord,
    /// Whether the file was at rest when it was read, so that equal times mean equal contents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    at_rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Kind {
    Directory,
    File {
        sha256: String,
    },
    Link {
        target: String,
    },
    /// A file that is in no copy.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StampRecord {
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime_ns: i64,
    ctime_ns: i64,
    ino: u64,
}

impl From<Stamp> for StampRecord {
    fn from(stamp: Stamp) -> Self {
        let Stamp { size, mode, uid, gid, mtime_ns, ctime_ns, ino, .. } = stamp;
        Self { size, mode, uid, gid, mtime_ns, ctime_ns, ino }
    }
}

impl StampRecord {
    fn stamp(&self) -> Stamp {
        let Self { size, mode, uid, gid, mtime_ns, ctime_ns, ino } = *self;
        Stamp { size, mode, uid, gid, mtime_ns, ctime_ns, ino, links: 1 }
    }
}

/// Looks at what a mount holds; changes nothing.
///
/// # Errors
/// [`RestorePointError::Io`] where it can't be read.
pub fn size_of(companion: &Companion) -> Result<Size> {
    let Some(place) = Place::of(companion)? else {
        return Ok(Size::LeftOut { why: "it can't be reached from this host".into() });
    };
    if let Some(why) = place.whose() {
        return Ok(Size::LeftOut { why });
    }
    let Some(nodes) = place.nodes()? else {
        return Ok(Size::LeftOut { why: too_much() });
    };
    let largest = largest_copied(&nodes);
    let (files, bytes, left) = sum(&nodes, largest);
    Ok(Size::Small { files, bytes, left })
}

/// Copies what a mount holds into the directory `copy`, which it makes; run again, it copies what
/// differs by then. With `is_live`, somebody may write meanwhile.
///
/// # Errors
/// [`RestorePointError::Moving`] where somebody writes and should not;
/// [`RestorePointError::Cancelled`]; otherwise as [`size_of`].
pub fn keep(
    companion: &Companion,
    copy: &Path,
    is_live: bool,
    cancel: &Cancel,
) -> Result<std::result::Result<KeptFiles, String>> {
    let Some(place) = Place::of(companion)? else {
        return Ok(Err("it can't be reached from this host".into()));
    };
    if let Some(why) = place.whose() {
        return Ok(Err(why));
    }
    let Some(nodes) = place.nodes()? else { return Ok(Err(too_much())) };
    let largest = largest_copied(&nodes);
    let (files, bytes, left) = sum(&nodes, largest);
    make_directory(copy)?;
    if !has_room(copy, bytes)? {
        return Ok(Err(format!("there is no room for {bytes} bytes in {}", copy.display())));
    }
    let before: BTreeMap<String, Entry> =
        read_list(copy)?.into_iter().flatten().map(|entry| (entry.path.clone(), entry)).collect();
    let (mut entries, mut written) = (Vec::with_capacity(nodes.len()), Vec::new());
    for node in &nodes {
        if cancel.is_cancelled() {
            return Err(RestorePointError::Cancelled);
        }
        let stamp = StampRecord::from(node.stamp);
        let known = before.get(&node.path).filter(|known| known.at_rest && known.stamp == stamp);
        let (kind, at_rest) = match (&node.shape, known) {
            (Shape::Directory, _) => (Kind::Directory, false),
            (Shape::Link(target), _) => (Kind::Link { target: target.clone() }, false),
            (_, _) if node.stamp.size > largest => (Kind::Left, false),
            (_, Some(Entry { kind: kind @ Kind::File { sha256 }, .. }))
                if copy.join(sha256).is_file() =>
            {
                (kind.clone(), true)
            }
            (_, _) => {
                let began = now_ns();
                let Some((sha256, is_new)) = store(&place.tree, node, copy, is_live)? else {
                    continue;
                };
                if is_new {
                    written.push(copy.join(&sha256));
                }
                let at_rest = node.stamp.mtime_ns.max(node.stamp.ctime_ns) + AT_REST_NS < began;
                (Kind::File { sha256 }, at_rest)
            }
        };
        entries.push(Entry { path: node.path.clone(), kind, stamp, at_rest });
    }
    make_durable(copy, &written)?;
    let sha256 = write_list(copy, &entries)?;
    Ok(Ok(KeptFiles { files, bytes, left, sha256 }))
}

/// Puts a mount's files back as they are in `copy`, where they differ; what stood in their place
/// goes into the directory `aside` first. Run again after it was cut anywhere, it does what is left.
///
/// What can't be put back is told and holds nothing else up.
///
/// # Errors
/// [`RestorePointError::Damaged`] where the copy is not the one that was made.
pub fn put_back(
    companion: &Companion,
    copy: &Path,
    sha256: &str,
    aside: &Path,
    way: Way,
) -> Result<PutBack> {
    let entries = read_list(copy)?.unwrap_or_default();
    let found = match std::fs::read(copy.join(LIST)) {
        Ok(text) => hex(&Sha256::digest(text)),
        Err(error) => return Err(io_at("read", &copy.join(LIST))(error)),
    };
    if found != sha256 {
        let what = format!("expected checksum {sha256}, found {found}");
        return Err(RestorePointError::Damaged { path: copy.join(LIST), what });
    }
    let Some(place) = Place::of(companion)? else {
        let what = "the mount's directory is gone".to_owned();
        return Err(RestorePointError::Damaged { path: companion.source.clone(), what });
    };
    let mut back =
        Back { place: &place, copy, aside, way, aside_bytes: 0, done: PutBack::default() };
    let listed: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    // First, so that what takes another's place finds it free.
    match place.nodes()? {
        Some(nodes) => back.deal_with_additions(&nodes, &listed),
        None => back.done.failed.push(format!(
            "{}: it holds too much by now to tell what was added",
            companion.destination
        )),
    }
    for entry in &entries {
        if let Err(error) = back.entry(entry) {
            back.done.failed.push(format!("{}: {error}", back.inside(&entry.path)));
        }
    }
    if way == Way::Tell {
        return Ok(back.done);
    }
    // Each after what it holds, whose making changed its time.
    for entry in entries.iter().rev().filter(|entry| entry.kind == Kind::Directory) {
        if let Err(error) = back.dress_directory(entry) {
            back.done.failed.push(format!("{}: {error}", back.inside(&entry.path)));
        }
    }
    place.tree.sync()?;
    back.tell_what_is_aside();
    Ok(back.done)
}

/// A mount that can be reached: a directory, or one file in a directory.
struct Place<'a> {
    companion: &'a Companion,
    tree: Tree,
    real: PathBuf,
    only: Option<String>,
    apart: Vec<PathBuf>,
}

impl<'a> Place<'a> {
    /// None where there is nothing to copy: it is not there, or a socket or a device.
    fn of(companion: &'a Companion) -> Result<Option<Self>> {
        let Ok(real) = companion.source.canonicalize() else { return Ok(None) };
        let meta = std::fs::metadata(&real).map_err(io_at("look at", &real))?;
        let (root, only) = match (meta.is_dir(), meta.is_file()) {
            (true, _) => (real.clone(), None),
            (false, true) => {
                let name = real.file_name().and_then(|name| name.to_str()).map(str::to_owned);
                let (Some(parent), Some(name)) = (real.parent(), name) else { return Ok(None) };
                (parent.to_owned(), Some(name))
            }
            (false, false) => return Ok(None),
        };
        let mut apart = companion.apart.clone();
        // A bind mount of the same file system has the same device.
        apart.extend(mount_points()?.into_iter().filter(|point| *point != root));
        Ok(Some(Self { companion, tree: Tree::open(&root)?, real, only, apart }))
    }

    /// Why it is not the shop's; none when it may be.
    fn whose(&self) -> Option<String> {
        let (real, inside) = (&self.real, OF_THE_HOST.iter().any(|it| self.real.starts_with(it)));
        let is_wide = TOO_WIDE.iter().any(|it| real == Path::new(it));
        (inside || is_wide).then(|| "it holds files of the host itself".to_owned())
    }

    /// What is there and matters, each directory before what it holds; none where it is too much.
    fn nodes(&self) -> Result<Option<Vec<Node>>> {
        if let Some(name) = &self.only {
            let found = self.tree.entry(name)?;
            let node = found.map(|(shape, stamp)| Node { path: name.clone(), shape, stamp });
            return Ok(Some(node.into_iter().collect()));
        }
        let Some(nodes) = self.tree.walk_within(MOST_ENTRIES, &|path| self.is_entered(path))?
        else {
            return Ok(None);
        };
        let matters = |node: &Node| {
            let is_kind = matches!(node.shape, Shape::Directory | Shape::File | Shape::Link(_));
            is_kind && !node.path.is_empty() && self.is_entered(&node.path)
        };
        Ok(Some(nodes.into_iter().filter(matters).collect()))
    }

    fn is_like_apart(&self, at: &Path) -> bool {
        let prefix = self.companion.apart_prefix.as_ref();
        prefix.is_some_and(|prefix| at.to_string_lossy().starts_with(prefix.as_str()))
    }

    fn is_entered(&self, path: &str) -> bool {
        let at = self.tree.at(path);
        let name = path.rsplit('/').next().unwrap_or_default();
        !name.contains(super::NAME_MARK)
            && !self.apart.contains(&at)
            && !self.is_like_apart(&at)
            && !(self.companion.is_scratch)(&inside(&self.companion.destination, path))
    }
}

/// One mount on its way back.
struct Back<'a> {
    place: &'a Place<'a>,
    copy: &'a Path,
    aside: &'a Path,
    way: Way,
    /// Bytes that were copied aside.
    aside_bytes: u64,
    done: PutBack,
}

impl Back<'_> {
    fn inside(&self, path: &str) -> String {
        match self.place.only {
            Some(_) => self.place.companion.destination.clone(),
            None => inside(&self.place.companion.destination, path),
        }
    }

    fn deal_with_additions(&mut self, nodes: &[Node], listed: &BTreeSet<&str>) {
        // Each directory after what it holds.
        for node in nodes.iter().rev().filter(|node| !listed.contains(node.path.as_str())) {
            if is_draft(&node.path) {
                // Of an attempt before this one.
                self.place.tree.remove(&node.path, false).ok();
                continue;
            }
            if self.way != Way::Exact {
                if node.shape != Shape::Directory {
                    self.done.left.push(self.inside(&node.path));
                }
                continue;
            }
            if let Err(error) = self.move_aside(node, "added") {
                self.done.failed.push(format!("{}: {error}", self.inside(&node.path)));
            }
        }
    }

    /// Copies an entry aside, then removes it.
    fn move_aside(&mut self, node: &Node, kind: &str) -> Result<()> {
        self.copy_aside(node, kind)?;
        let is_directory = node.shape == Shape::Directory;
        match self.place.tree.remove(&node.path, is_directory) {
            // What may not be touched is in it.
            Err(RestorePointError::Io { source, .. })
                if is_directory && source.kind() == std::io::ErrorKind::DirectoryNotEmpty =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn copy_aside(&mut self, node: &Node, kind: &str) -> Result<()> {
        make_directory(self.aside)?;
        if node.shape == Shape::File {
            let bytes = self.aside_bytes.saturating_add(node.stamp.size);
            if bytes > MOST_ASIDE || !has_room(self.aside, node.stamp.size)? {
                let refusal = Refusal::TooLarge { bytes: node.stamp.size };
                return Err(RestorePointError::refused(self.place.tree.at(&node.path), refusal));
            }
            self.aside_bytes = bytes;
        }
        let root = self.aside.join(kind);
        make_directory(&root)?;
        let tree = Tree::open(&root)?;
        let mut way = String::new();
        let directories = match node.shape {
            Shape::Directory => node.path.as_str(),
            _ => node.path.rsplit_once('/').map_or("", |(directory, _)| directory),
        };
        for step in directories.split('/').filter(|step| !step.is_empty()) {
            if !way.is_empty() {
                way.push('/');
            }
            way.push_str(step);
            tree.make_directory(&way)?;
        }
        match &node.shape {
            Shape::File => {
                let Some(mut from) = self.place.tree.read(&node.path)? else { return Ok(()) };
                let mut to = tree.write(&node.path)?;
                to.set_len(0).map_err(io_at("empty", &tree.at(&node.path)))?;
                std::io::copy(&mut from, &mut to).map_err(io_at("write", &tree.at(&node.path)))?;
                dress(&to, &node.stamp).map_err(io_at("set owner of", &tree.at(&node.path)))?;
                to.sync_all().map_err(io_at("sync", &tree.at(&node.path)))
            }
            Shape::Link(target) if tree.entry(&node.path)?.is_none() => {
                tree.make_link(&node.path, target, &node.stamp)
            }
            _ => Ok(()),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let tree = &self.place.tree;
        let now = tree.entry(&entry.path)?;
        let now = now.map(|(shape, stamp)| Node { path: entry.path.clone(), shape, stamp });
        if self.way == Way::Tell || entry.kind == Kind::Left {
            if !self.is_as_it_was(entry, now.as_ref())? {
                self.done.left.push(self.inside(&entry.path));
            }
            return Ok(());
        }
        match (&entry.kind, now) {
            (Kind::Left, _) => Ok(()),
            (Kind::Directory, Some(Node { shape: Shape::Directory, .. })) => Ok(()),
            (Kind::Directory, now) => {
                self.make_room(now)?;
                tree.make_directory(&entry.path)?;
                self.done.contents.push(self.inside(&entry.path));
                Ok(())
            }
            (Kind::Link { target }, Some(Node { shape: Shape::Link(found), stamp, .. }))
                if *target == found =>
            {
                let is_ours = (stamp.uid, stamp.gid) == (entry.stamp.uid, entry.stamp.gid);
                tree.dress_link(&entry.path, &entry.stamp.stamp())?;
                self.done.dressed += u64::from(!is_ours);
                Ok(())
            }
            (Kind::Link { target }, now) => {
                self.make_room(now)?;
                tree.make_link(&entry.path, target, &entry.stamp.stamp())?;
                self.done.contents.push(self.inside(&entry.path));
                Ok(())
            }
            (Kind::File { sha256 }, Some(node)) if node.shape == Shape::File => {
                self.file(entry, sha256, &node)
            }
            (Kind::File { sha256 }, now) => {
                self.make_room(now)?;
                self.write(entry, sha256)
            }
        }
    }

    /// Whether an entry has the kind and the contents that it had.
    fn is_as_it_was(&self, entry: &Entry, now: Option<&Node>) -> Result<bool> {
        let Some(now) = now else { return Ok(false) };
        Ok(match (&entry.kind, &now.shape) {
            (Kind::Directory, Shape::Directory) => true,
            (Kind::Link { target }, Shape::Link(found)) => target == found,
            (Kind::Left, Shape::File) => {
                (now.stamp.size, now.stamp.mtime_ns) == (entry.stamp.size, entry.stamp.mtime_ns)
            }
            (Kind::File { .. }, Shape::File)
                if entry.at_rest && StampRecord::from(now.stamp) == entry.stamp =>
            {
                true
            }
            (Kind::File { sha256 }, Shape::File) => {
                let Some(file) = self.place.tree.read(&entry.path)? else { return Ok(false) };
                let path = self.place.tree.at(&entry.path);
                checksum(&file, u64::MAX).map_err(io_at("read", &path))? == *sha256
            }
            (_, _) => false,
        })
    }

    /// What stands in the place of something of another kind goes.
    fn make_room(&mut self, now: Option<Node>) -> Result<()> {
        match now {
            Some(node) => self.move_aside(&node, "changed"),
            None => Ok(()),
        }
    }

    fn file(&mut self, entry: &Entry, sha256: &str, now: &Node) -> Result<()> {
        let tree = &self.place.tree;
        let path = tree.at(&entry.path);
        if entry.at_rest && StampRecord::from(now.stamp) == entry.stamp {
            return Ok(());
        }
        let Some(file) = tree.read(&entry.path)? else { return self.write(entry, sha256) };
        if checksum(&file, u64::MAX).map_err(io_at("read", &path))? == sha256 {
            let is_ours = (now.stamp.mode, now.stamp.uid, now.stamp.gid)
                == (entry.stamp.mode, entry.stamp.uid, entry.stamp.gid);
            dress(&file, &entry.stamp.stamp()).map_err(io_at("set owner and mode of", &path))?;
            self.done.dressed += u64::from(!is_ours);
            return Ok(());
        }
        if self.way == Way::KeepAdditions && now.stamp.size > entry.stamp.size {
            let file = tree.read(&entry.path)?;
            let begins = file.map(|file| checksum(&file, entry.stamp.size)).transpose();
            if begins.map_err(io_at("read", &path))?.as_deref() == Some(sha256) {
                self.done.left.push(self.inside(&entry.path));
                return Ok(());
            }
        }
        self.copy_aside(now, "changed")?;
        self.write(entry, sha256)
    }

    /// Under another name first, so that a file is the one or the other whenever this is cut.
    fn write(&mut self, entry: &Entry, sha256: &str) -> Result<()> {
        let tree = &self.place.tree;
        let stored = self.copy.join(sha256);
        let from = File::open(&stored).map_err(io_at("open", &stored))?;
        if checksum(&from, u64::MAX).map_err(io_at("read", &stored))? != sha256 {
            let what = "its contents are not what its name says".to_owned();
            return Err(RestorePointError::Damaged { path: stored, what });
        }
        let draft = draft_of(&entry.path);
        let (mut from, mut to) =
            (File::open(&stored).map_err(io_at("open", &stored))?, tree.write(&draft)?);
        to.set_len(0).map_err(io_at("empty", &tree.at(&draft)))?;
        std::io::copy(&mut from, &mut to).map_err(io_at("write", &tree.at(&draft)))?;
        dress(&to, &entry.stamp.stamp()).map_err(io_at("set owner of", &tree.at(&draft)))?;
        to.sync_all().map_err(io_at("sync", &tree.at(&draft)))?;
        tree.rename(&draft, &entry.path)?;
        self.done.contents.push(self.inside(&entry.path));
        Ok(())
    }

    fn dress_directory(&mut self, entry: &Entry) -> Result<()> {
        let Some((Shape::Directory, now)) = self.place.tree.entry(&entry.path)? else {
            return Ok(());
        };
        let is_ours =
            (now.mode, now.uid, now.gid) == (entry.stamp.mode, entry.stamp.uid, entry.stamp.gid);
        self.place.tree.dress_directory(&entry.path, &entry.stamp.stamp())?;
        self.done.dressed += u64::from(!is_ours);
        Ok(())
    }

    /// Also what an attempt before this one moved.
    fn tell_what_is_aside(&mut self) {
        let list = |kind: &str| -> Vec<String> {
            let walked = Tree::open(&self.aside.join(kind)).and_then(|tree| tree.walk());
            let files = walked.into_iter().flatten().filter(|it| it.shape != Shape::Directory);
            files.map(|node| self.inside(&node.path)).collect()
        };
        let (changed, added) = (list("changed"), list("added"));
        self.done.contents.extend(changed);
        self.done.moved.extend(added);
        for told in [&mut self.done.contents, &mut self.done.moved, &mut self.done.left] {
            told.sort();
            told.dedup();
        }
    }
}

fn too_much() -> String {
    format!("it holds more than {MOST_ENTRIES} files and directories")
}

/// The size of the largest file that is copied: the smallest ones are, as many as fit.
fn largest_copied(nodes: &[Node]) -> u64 {
    let files = nodes.iter().filter(|node| node.shape == Shape::File);
    let mut sizes: Vec<u64> = files.map(|node| node.stamp.size).collect();
    sizes.sort_unstable();
    let mut sum = 0_u64;
    // Of files of the same size all are, or none.
    for size in sizes.iter().copied() {
        sum = sum.saturating_add(size);
        if sum > MOST_BYTES {
            return size.saturating_sub(1);
        }
    }
    u64::MAX
}

/// Files that are copied, their bytes, and files that are not.
fn sum(nodes: &[Node], largest: u64) -> (u64, u64, u64) {
    let files = nodes.iter().filter(|node| node.shape != Shape::Directory);
    files.fold((0, 0, 0), |(files, bytes, left), node| {
        let is_left = node.shape == Shape::File && node.stamp.size > largest;
        match is_left {
            true => (files, bytes, left + 1),
            false => (files + 1, bytes + node.stamp.size, left),
        }
    })
}

fn inside(destination: &str, path: &str) -> String {
    match path.is_empty() {
        true => destination.to_owned(),
        false => format!("{}/{path}", destination.trim_end_matches('/')),
    }
}

const DRAFT: &str = ".payram-put-back";

fn draft_of(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((directory, name)) => format!("{directory}/.{name}{DRAFT}"),
        None => format!(".{path}{DRAFT}"),
    }
}

fn is_draft(path: &str) -> bool {
    path.ends_with(DRAFT)
}

/// Writes a file's contents under their checksum. None when it is gone; whether it was not there.
fn store(tree: &Tree, node: &Node, copy: &Path, is_live: bool) -> Result<Option<(String, bool)>> {
    let path = tree.at(&node.path);
    let moved = || RestorePointError::Moving {
        path: path.clone(),
        what: "its size or times are not what they were".into(),
    };
    let Some(mut from) = tree.read(&node.path)? else {
        return if is_live { Ok(None) } else { Err(moved()) };
    };
    let draft = copy.join("draft");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut to = options.open(&draft).map_err(io_at("create", &draft))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = from.read(&mut buffer).map_err(io_at("read", &path))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(io_at("write", &draft))?;
    }
    let (after, _) = Stamp::of_open(&from).map_err(io_at("look at", &path))?;
    if !is_live && after != node.stamp {
        return Err(moved());
    }
    let sha256 = hex(&hash.finalize());
    let stored = copy.join(&sha256);
    let is_new = !stored.is_file();
    std::fs::rename(&draft, &stored).map_err(io_at("rename", &draft))?;
    Ok(Some((sha256, is_new)))
}

/// Of the first bytes of a file.
fn checksum(file: &File, most: u64) -> std::io::Result<String> {
    let (mut hash, mut file) = (Sha256::new(), file.take(most));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Whether so many bytes leave the disk of this directory the room that others need.
fn has_room(directory: &Path, bytes: u64) -> Result<bool> {
    let space = rustix::fs::statvfs(directory).map_err(io_at("look at", directory))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    Ok(free >= bytes.saturating_add(LEFT_FREE))
}

fn make_directory(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(io_at("create directory", path))
}

fn make_durable(copy: &Path, written: &[PathBuf]) -> Result<()> {
    if written.len() > SYNCED_SINGLY {
        return Tree::open(copy)?.sync();
    }
    for path in written {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(io_at("sync", path))?;
    }
    Ok(())
}

fn read_list(copy: &Path) -> Result<Option<Vec<Entry>>> {
    let path = copy.join(LIST);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            RestorePointError::Damaged { path, what: format!("it can't be read: {error}") }
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at("read", &path)(error)),
    }
}

fn write_list(copy: &Path, entries: &[Entry]) -> Result<String> {
    let (path, draft) = (copy.join(LIST), copy.join("list.draft"));
    let text = serde_json::to_vec(entries).map_err(|error| RestorePointError::Damaged {
        path: path.clone(),
        what: format!("it can't be written: {error}"),
    })?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&draft).map_err(io_at("create", &draft))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io_at("write", &draft))?;
    std::fs::rename(&draft, &path).map_err(io_at("rename", &draft))?;
    let synced = File::open(copy).and_then(|directory| directory.sync_all());
    synced.map_err(io_at("sync", copy))?;
    Ok(hex(&Sha256::digest(&text)))
}

#[cfg(test)]
#[path = "companions/tests.rs"]
mod tests;
