//! The way back: the failed version's directory is moved aside and the copy takes its place.
//!
//! Before that everything in the copy is given the owner, mode and time that were noted when it
//! was finished: an entry point of the failed version may have reached it.
//!
//! Two renames, with a note of what lies where written before the first: which inode is the
//! failed directory, which the copy. After a crash anywhere the note and the inodes say how far
//! it came, and running it again ends it. Any arrangement that it can't have left is an error,
//! and nothing is touched (I7, I11).
//!
//! A directory that is a mount point itself no rename moves: what the failed version left is copied
//! aside, then the copy's contents are brought back into it. The note says how far that came; until
//! its end no server may start on the directory, and whoever runs it again brings it there.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::copy::bring_back;
use super::error::{Refusal, RestorePointError, io_at};
use super::manifest::{self, sync_directory_of};
use super::survey::is_mount_point;
use super::{Cancel, beside, intent_path, must_be_ours};

type Result<T> = std::result::Result<T, RestorePointError>;

/// Puts a finished copy in the place of the directory that it was made of, which is kept as
/// `failed`. The copy is used up by it; its side files stay until [`super::discard`].
///
/// No server may run in either. Call [`super::verify`] before: this reads no file's content.
/// Returns how many files and directories of the copy had another owner, mode or time than was
/// noted. Run again after it ended well, it finds that and does nothing.
///
/// # Errors
/// Whatever the error, the directory that was there is there, or it is `failed` and running
/// this again puts the copy in its place. [`RestorePointError::Unexpected`] changes nothing.
pub fn restore(source: &Path, copy: &Path, failed: &Path) -> Result<u64> {
    must_be_ours(copy)?;
    let intent = match Intent::read(copy)? {
        Some(intent) => intent.must_be_about(source, copy, failed)?,
        None => Intent::begin(source, copy, failed)?,
    };
    if let Some(stage) = intent.stage {
        return restore_contents(source, copy, failed, intent, stage);
    }
    let (at_source, at_copy, at_failed) = (inode(source)?, inode(copy)?, inode(failed)?);
    if at_source == Some(intent.copy_inode) && at_copy.is_none() {
        // Where the failed directory went since is the operator's affair.
        return Ok(0);
    }
    if at_copy != Some(intent.copy_inode) {
        return unexpected(copy, "the copy is not what it was when the restore began");
    }
    let dressed = manifest::dress_all(copy)?;
    if at_source == Some(intent.source_inode) && at_failed.is_none() {
        rename(source, failed)?;
        sync_directory_of(source)?;
        sync_directory_of(failed)?;
    } else if at_failed == Some(intent.source_inode) {
        make_way(source, copy)?;
    } else {
        let found = format!(
            "neither {} nor {} is the directory that the failed version used",
            source.display(),
            failed.display()
        );
        return unexpected(copy, &found);
    }
    if let Err(error) = rename(copy, source) {
        // Back to where it was, so that "nothing was changed" is true.
        rename(failed, source)?;
        sync_directory_of(source)?;
        return Err(error);
    }
    sync_directory_of(source)?;
    sync_directory_of(copy)?;
    Ok(dressed)
}

/// Whether [`restore`] of these came to its end, and what it put back is still there.
///
/// # Errors
/// When its note can't be read, or is about others.
pub fn is_back(source: &Path, copy: &Path, failed: &Path) -> Result<bool> {
    let Some(intent) = Intent::read(copy)? else { return Ok(false) };
    let intent = intent.must_be_about(source, copy, failed)?;
    match intent.stage {
        Some(stage) => Ok(stage == Stage::Done),
        None => Ok(inode(source)? == Some(intent.copy_inode) && inode(copy)?.is_none()),
    }
}

/// The way back of a mount point, by its contents. The copy stays until it is discarded.
fn restore_contents(
    source: &Path,
    copy: &Path,
    failed: &Path,
    mut intent: Intent,
    mut stage: Stage,
) -> Result<u64> {
    if stage == Stage::Keeping {
        // Made under a name of our own, so that what has its name is whole.
        if inode(failed)?.is_none() {
            let aside = beside(copy, "-failed");
            super::discard(&aside)?;
            super::finish(source, &aside, &mut |_| {}, &Cancel::default())?;
            rename(&aside, failed)?;
            super::discard(&aside)?;
            sync_directory_of(failed)?;
            sync_directory_of(&aside)?;
        }
        stage = Stage::BringingBack;
        intent.stage = Some(stage);
        intent.write(copy)?;
    }
    if stage == Stage::Done {
        return Ok(0);
    }
    let dressed = manifest::dress_all(copy)?;
    bring_back(copy, source)?;
    if let Some(path) = manifest::first_difference(source, copy)? {
        return unexpected(copy, &format!("{} is not what the copy has: {path}", source.display()));
    }
    intent.stage = Some(Stage::Done);
    intent.write(copy)?;
    Ok(dressed)
}

/// How far a way back by contents came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Stage {
    /// What the failed version left is copied aside.
    Keeping,
    /// The directory is brought back to what it was; it may hold some of both.
    BringingBack,
    /// It is as it was.
    Done,
}

/// What lay where before the first rename.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Intent {
    source: String,
    failed: String,
    source_inode: u64,
    copy_inode: u64,
    /// Of a mount point; none where directories are renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
}

impl Intent {
    pub(super) fn read(copy: &Path) -> Result<Option<Self>> {
        let path = intent_path(copy);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_at("read", &path)(error)),
        };
        let damaged =
            |error: serde_json::Error| RestorePointError::Damaged { path, what: error.to_string() };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Checks that both renames can be done, and notes them, durably.
    fn begin(source: &Path, copy: &Path, failed: &Path) -> Result<Self> {
        let Some(copy_inode) = inode(copy)? else {
            return unexpected(copy, "there is no such directory");
        };
        if manifest::finished(copy)?.is_none() {
            return Err(RestorePointError::NotFinished { path: copy.to_owned() });
        }
        let Some(source_inode) = inode(source)? else {
            return unexpected(copy, &format!("there is no directory {}", source.display()));
        };
        match std::fs::symlink_metadata(failed) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_at("look at", failed)(error)),
            Ok(_) => return unexpected(copy, &format!("{} is there already", failed.display())),
        }
        let stage = match is_mount_point(source)? {
            true => Some(Stage::Keeping),
            false => None,
        };
        if stage.is_none() {
            one_file_system(source, copy, failed)?;
        }
        let intent = Self {
            source: source.to_string_lossy().into_owned(),
            failed: failed.to_string_lossy().into_owned(),
            source_inode,
            copy_inode,
            stage,
        };
        intent.write(copy)?;
        Ok(intent)
    }

    fn write(&self, copy: &Path) -> Result<()> {
        let path = intent_path(copy);
        let draft = beside(&path, ".draft");
        let text = serde_json::to_vec(self).map_err(io_at("write", &path))?;
        std::fs::write(&draft, text).map_err(io_at("write", &draft))?;
        std::fs::File::open(&draft)
            .and_then(|file| file.sync_all())
            .map_err(io_at("sync", &draft))?;
        std::fs::rename(&draft, &path).map_err(io_at("rename to", &path))?;
        sync_directory_of(&path)
    }

    fn must_be_about(self, source: &Path, copy: &Path, failed: &Path) -> Result<Self> {
        if self.source == source.to_string_lossy() && self.failed == failed.to_string_lossy() {
            return Ok(self);
        }
        let found =
            format!("a restore of {} with {} kept was begun before", self.source, self.failed);
        unexpected(copy, &found)
    }

    /// Whether the copy is all that there is to put back: the failed directory has left.
    pub(super) fn is_under_way(&self) -> Result<bool> {
        if let Some(stage) = self.stage {
            return Ok(stage == Stage::BringingBack);
        }
        Ok(inode(Path::new(&self.source))? != Some(self.source_inode))
    }
}

/// Removes the empty directory that a container engine makes in the place of a bind mount's
/// missing source, and nothing else.
fn make_way(source: &Path, copy: &Path) -> Result<()> {
    match std::fs::remove_dir(source) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => unexpected(
            copy,
            &format!("something has taken the place of {}: {error}", source.display()),
        ),
    }
}

fn one_file_system(source: &Path, copy: &Path, failed: &Path) -> Result<()> {
    let device = |path: &Path| {
        std::fs::symlink_metadata(path).map(|meta| meta.dev()).map_err(io_at("look at", path))
    };
    let home = device(source)?;
    if device(parent(source))? != home {
        return Err(RestorePointError::refused(source, Refusal::MountPoint));
    }
    for (path, directory) in [(copy, copy), (failed, parent(failed))] {
        if device(directory)? != home {
            let directory = parent(path).to_owned();
            return Err(RestorePointError::refused(source, Refusal::CopyElsewhere { directory }));
        }
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Of a directory; a symbolic link is none.
fn inode(path: &Path) -> Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(Some(meta.ino())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at("look at", path)(error)),
    }
}

/// Never over something that is there.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let renamed = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without the flag; the caller has looked that nothing is there.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(CWD, from, CWD, to),
        other => other,
    };
    renamed.map_err(|errno| match errno {
        Errno::BUSY => RestorePointError::refused(from, Refusal::MountPoint),
        errno => io_at("rename", from)(errno),
    })
}

fn unexpected<T>(copy: &Path, found: &str) -> Result<T> {
    Err(RestorePointError::Unexpected { copy: copy.to_owned(), found: found.into() })
}
