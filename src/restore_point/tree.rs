//! A directory and what is below it, reached through its own descriptor and never through a
//! symbolic link: what a container does to its directory while it is walked leads nowhere else.
//!
//! Mechanism only; what may be copied is decided in `survey`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

use super::error::{Refusal, RestorePointError, io_at};

type Result<T> = std::result::Result<T, RestorePointError>;

/// A directory that is open.
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    device: u64,
}

/// One entry of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Relative to the root, with `/`; empty for the root itself.
    pub path: String,
    /// What it is.
    pub shape: Shape,
    /// What the file system says about it.
    pub stamp: Stamp,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Directory,
    File,
    /// A symbolic link and where it points.
    Link(String),
    Socket,
    /// A device or a pipe.
    Special(&'static str),
    /// A directory of another file system; not entered.
    Mount,
}

/// Owner, mode, size and times; equal stamps of a file at rest mean an equal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Nanoseconds since the epoch; no program can set it.
    pub ctime_ns: i64,
    pub ino: u64,
    pub links: u64,
}

impl Stamp {
    // The widths of these fields differ between targets.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Self {
        let ns = |seconds: i64, nanoseconds: i64| {
            seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
        };
        Self {
            size: stat.st_size as u64,
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid as u32,
            gid: stat.st_gid as u32,
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            ino: stat.st_ino as u64,
            links: stat.st_nlink as u64,
        }
    }

    /// Of an open file, and whether it is a regular one.
    pub(super) fn of_open(file: &File) -> std::io::Result<(Self, bool)> {
        let stat = rustix::fs::fstat(file)?;
        Ok((Self::of(&stat), FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
    }

    /// Whether the two have the same owner, mode, size and modification time.
    pub(super) fn looks_like(&self, other: &Stamp) -> bool {
        let visible =
            |stamp: &Stamp| (stamp.size, stamp.mode, stamp.uid, stamp.gid, stamp.mtime_ns);
        visible(self) == visible(other)
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
            last_modification: Timespec {
                tv_sec: self.mtime_ns.div_euclid(1_000_000_000),
                tv_nsec: self.mtime_ns.rem_euclid(1_000_000_000) as _,
            },
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Tree {
    /// Opens a directory; a symbolic link in its place is refused.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let root = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
            .map_err(io_at("open directory", path))?;
        let stat = rustix::fs::fstat(&root).map_err(io_at("look at", path))?;
        Ok(Self { root, path: path.to_owned(), device: device(&stat) })
    }

    /// The file system's number.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// The whole path of an entry, for a message.
    pub(super) fn at(&self, relative: &str) -> PathBuf {
        if relative.is_empty() { self.path.clone() } else { self.path.join(relative) }
    }

    /// Everything that is there, the root first, each directory before what it holds. What
    /// vanishes meanwhile is left out.
    pub(super) fn walk(&self) -> Result<Vec<Node>> {
        Ok(self.walk_within(usize::MAX, &|_| true)?.unwrap_or_default())
    }

    /// The same, without what lies in directories that are not to be entered; none where there is
    /// more than `most`.
    pub(super) fn walk_within(
        &self,
        most: usize,
        is_entered: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Vec<Node>>> {
        let stat = rustix::fs::fstat(&self.root).map_err(io_at("look at", &self.path))?;
        let root = Node { path: String::new(), shape: Shape::Directory, stamp: Stamp::of(&stat) };
        let mut nodes = vec![root];
        let mut ahead = vec![String::new()];
        while let Some(directory) = ahead.pop() {
            for node in self.list(&directory)? {
                if node.shape == Shape::Directory && is_entered(&node.path) {
                    ahead.push(node.path.clone());
                }
                nodes.push(node);
                if nodes.len() > most {
                    return Ok(None);
                }
            }
        }
        nodes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(nodes))
    }

    fn list(&self, relative: &str) -> Result<Vec<Node>> {
        let path = self.at(relative);
        let directory = match self.directory(relative) {
            Ok(directory) => directory,
            Err(errno) if is_gone(errno) => return Ok(Vec::new()),
            Err(errno) => return Err(io_at("open directory", &path)(errno)),
        };
        let mut nodes = Vec::new();
        for entry in Dir::read_from(&directory).map_err(io_at("list", &path))? {
            let entry = entry.map_err(io_at("list", &path))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(text) = name.to_str() else {
                let path = path.join(name.to_string_lossy().as_ref());
                return Err(RestorePointError::refused(path, Refusal::NotUtf8));
            };
            let child =
                if relative.is_empty() { text.to_owned() } else { format!("{relative}/{text}") };
            if let Some((shape, stamp)) = self.look(&directory, text, &child)? {
                nodes.push(Node { path: child, shape, stamp });
            }
        }
        Ok(nodes)
    }

    /// What an entry is now; none when it is gone.
    pub(super) fn entry(&self, relative: &str) -> Result<Option<(Shape, Stamp)>> {
        match self.parent(relative) {
            Ok((directory, name)) => self.look(&directory, name, relative),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(io_at("look at", &self.at(relative))(errno)),
        }
    }

    fn look(
        &self,
        directory: &OwnedFd,
        name: &str,
        relative: &str,
    ) -> Result<Option<(Shape, Stamp)>> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) if is_gone(errno) => return Ok(None),
            Err(errno) => return Err(io_at("look at", &self.at(relative))(errno)),
        };
        let shape = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if device(&stat) != self.device => Shape::Mount,
            FileType::Directory => Shape::Directory,
            FileType::RegularFile => Shape::File,
            FileType::Socket => Shape::Socket,
            FileType::Fifo => Shape::Special("pipe"),
            FileType::CharacterDevice => Shape::Special("character device"),
            FileType::BlockDevice => Shape::Special("block device"),
            FileType::Symlink => match rustix::fs::readlinkat(directory, name, Vec::new()) {
                Ok(target) => Shape::Link(target.into_string().map_err(|_| {
                    RestorePointError::refused(self.at(relative), Refusal::NotUtf8)
                })?),
                // Gone, or something else by now.
                Err(errno) if is_gone(errno) || errno == Errno::INVAL => return Ok(None),
                Err(errno) => return Err(io_at("read link", &self.at(relative))(errno)),
            },
            FileType::Unknown => Shape::Special("file of a kind this program does not know"),
        };
        Ok(Some((shape, Stamp::of(&stat))))
    }

    /// Opens a file for reading; none when it is gone or no file by now.
    pub(super) fn read(&self, relative: &str) -> Result<Option<File>> {
        // A pipe that took the file's place must not block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match self.open_in(relative, flags) {
            Ok(file) => Ok(Some(file)),
            Err(errno) if is_gone(errno) || errno == Errno::NXIO => Ok(None),
            Err(errno) => Err(io_at("open", &self.at(relative))(errno)),
        }
    }

    /// Opens a file for writing, creating it when missing, for nobody but its owner.
    pub(super) fn write(&self, relative: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_in(relative, flags).map_err(io_at("open for writing", &self.at(relative)))
    }

    fn open_in(&self, relative: &str, flags: OFlags) -> rustix::io::Result<File> {
        let (directory, name) = self.parent(relative)?;
        rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Creates a directory, which may be there.
    pub(super) fn make_directory(&self, relative: &str) -> Result<()> {
        let made = self.parent(relative).and_then(|(directory, name)| {
            match rustix::fs::mkdirat(directory, name, Mode::RWXU) {
                Err(Errno::EXIST) => Ok(()),
                other => other,
            }
        });
        made.map_err(io_at("create directory", &self.at(relative)))
    }

    /// Creates a symbolic link where nothing is, with this owner and time.
    pub(super) fn make_link(&self, relative: &str, target: &str, stamp: &Stamp) -> Result<()> {
        let made = self.parent(relative).and_then(|(directory, name)| {
            rustix::fs::symlinkat(target, &directory, name)?;
            let now = Stamp::of(&rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?);
            if (now.uid, now.gid) != (stamp.uid, stamp.gid) {
                let (uid, gid) = (Uid::from_raw(stamp.uid), Gid::from_raw(stamp.gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags)?;
            }
            rustix::fs::utimensat(&directory, name, &stamp.times(), AtFlags::SYMLINK_NOFOLLOW)
        });
        made.map_err(io_at("create link", &self.at(relative)))
    }

    /// Gives an entry another name in this directory, where what has it is replaced.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let renamed = self.parent(from).and_then(|(old, name)| {
            let (new, becomes) = self.parent(to)?;
            rustix::fs::renameat(old, name, new, becomes)
        });
        renamed.map_err(io_at("rename", &self.at(from)))
    }

    /// Removes an entry; a directory must be empty.
    pub(super) fn remove(&self, relative: &str, is_directory: bool) -> Result<()> {
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let removed = self
            .parent(relative)
            .and_then(|(directory, name)| rustix::fs::unlinkat(directory, name, flags));
        match removed {
            Err(errno) if !is_gone(errno) => Err(io_at("remove", &self.at(relative))(errno)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Gives a directory its owner, mode and time; returns whether it had others.
    pub(super) fn dress_directory(&self, relative: &str, stamp: &Stamp) -> Result<bool> {
        let dressed = self.directory(relative).and_then(|directory| dress(directory, stamp));
        dressed.map_err(io_at("set owner and mode of", &self.at(relative)))
    }

    /// Gives a symbolic link its owner and time; returns whether it had others. It has no mode.
    pub(super) fn dress_link(&self, relative: &str, stamp: &Stamp) -> Result<bool> {
        let dressed = self.parent(relative).and_then(|(directory, name)| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let now = Stamp::of(&rustix::fs::statat(&directory, name, flags)?);
            let reowned = (now.uid, now.gid) != (stamp.uid, stamp.gid);
            if reowned {
                let (uid, gid) = (Uid::from_raw(stamp.uid), Gid::from_raw(stamp.gid));
                rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags)?;
            }
            if now.mtime_ns != stamp.mtime_ns {
                rustix::fs::utimensat(&directory, name, &stamp.times(), flags)?;
            }
            Ok(reowned || now.mtime_ns != stamp.mtime_ns)
        });
        dressed.map_err(io_at("set owner and time of", &self.at(relative)))
    }

    /// Makes one file or directory durable, and reports an earlier write to it that failed
    /// (fsync(2)).
    pub(super) fn sync_entry(&self, relative: &str) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = match relative.is_empty() {
            true => self.directory(relative).map(File::from),
            false => self.open_in(relative, flags),
        };
        let synced = opened.and_then(|file| rustix::fs::fsync(&file));
        synced.map_err(io_at("sync", &self.at(relative)))
    }

    /// Makes durable all that was written to the file system.
    ///
    /// On Linux 5.8 and later it reports an earlier write that failed (syncfs(2)).
    pub(super) fn sync(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&self.root).map_err(io_at("sync the file system of", &self.path))?;
        #[cfg(not(target_os = "linux"))]
        rustix::fs::sync();
        Ok(())
    }

    fn parent<'r>(&self, relative: &'r str) -> rustix::io::Result<(OwnedFd, &'r str)> {
        match relative.rsplit_once('/') {
            Some((directory, name)) => Ok((self.directory(directory)?, name)),
            None => Ok((self.directory("")?, relative)),
        }
    }

    /// Opened step by step, so that no step goes through a symbolic link.
    fn directory(&self, relative: &str) -> rustix::io::Result<OwnedFd> {
        let mut current = self.root.try_clone().map_err(|error| {
            // `try_clone` fails as dup(2) does, with a number.
            error.raw_os_error().map_or(Errno::MFILE, Errno::from_raw_os_error)
        })?;
        for step in relative.split('/').filter(|step| !step.is_empty()) {
            current = rustix::fs::openat(&current, step, DIRECTORY, Mode::empty())?;
        }
        Ok(current)
    }
}

/// Gives an open file or directory its owner, mode and time; returns whether it had others.
pub(super) fn dress(file: impl AsFd, stamp: &Stamp) -> rustix::io::Result<bool> {
    let now = Stamp::of(&rustix::fs::fstat(&file)?);
    let reowned = (now.uid, now.gid) != (stamp.uid, stamp.gid);
    if reowned {
        let (uid, gid) = (Uid::from_raw(stamp.uid), Gid::from_raw(stamp.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    // A change of owner takes bits away.
    if reowned || now.mode != stamp.mode {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(stamp.mode as _))?;
    }
    if now.mtime_ns != stamp.mtime_ns {
        rustix::fs::futimens(&file, &stamp.times())?;
    }
    Ok(reowned || now.mode != stamp.mode || now.mtime_ns != stamp.mtime_ns)
}

#[allow(clippy::unnecessary_cast)]
fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

/// The entry, or a directory on the way to it, is gone or has become something else.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}
