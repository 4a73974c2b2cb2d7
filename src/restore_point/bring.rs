//! One file, brought from the source to the copy: not at all, by sharing its blocks, or by
//! writing what differs; and its checksum, taken of the same bytes.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::RestorePointError;
use super::cancel::Watch;
use super::error::io_at;
use super::ledger::{Known, Ledger, Record, now_ns};
use super::pieces::{PIECE_BYTES, Pieces, read_full};
use super::room::Room;
use super::tree::{Node, Shape, Stamp, Tree, dress};

/// How much is read at once: whole pieces.
const CHUNK_BYTES: usize = 4 * PIECE_BYTES;

/// A file from this size on is read by two threads at once.
const LARGE_BYTES: u64 = 64 << 20;

/// Read whatever its times say: the one file that decides how a server recovers, written in
/// place at every checkpoint, and too small to be worth a thought.
const ALWAYS_READ: &str = "global/pg_control";

/// What all files of a pass share.
pub(super) struct Bringer<'a> {
    pub source: Tree,
    pub copy: Tree,
    pub ledger: Ledger,
    /// What earlier passes left.
    pub known: Known,
    /// Whether blocks can be shared with the source.
    pub shares_blocks: AtomicBool,
    /// On the copy's file system.
    pub room: Room,
    /// Whether the source's server still runs.
    pub is_live: bool,
    pub watch: Watch<'a>,
    pub tally: Tally,
}

/// What a pass did to files.
#[derive(Default)]
pub(super) struct Tally {
    pub files_copied: AtomicU64,
    pub bytes_copied: AtomicU64,
    pub bytes_shared: AtomicU64,
    pub bytes_compared: AtomicU64,
    /// Entries of the copy, by path, that this pass changed in any way.
    pub touched: Mutex<Vec<String>>,
}

impl Tally {
    /// Notes an entry of the copy that is not as it is on disk any more.
    pub(super) fn touch(&self, path: &str) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }
}

/// Room for what is read of each side.
pub(super) struct Buffers {
    source: Vec<u8>,
    copy: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { source: vec![0; CHUNK_BYTES], copy: vec![0; PIECE_BYTES] }
    }
}

/// What was read of a file, and whether the copy had to be written for it.
struct Content {
    pieces: Pieces,
    is_written: bool,
}

impl Bringer<'_> {
    /// Makes the copy of a file equal to it; returns its checksum, or none when a live source
    /// removed it meanwhile.
    pub(super) fn bring(
        &self,
        node: &Node,
        buffers: &mut Buffers,
    ) -> Result<Option<String>, RestorePointError> {
        self.watch.go_on()?;
        let held = self.held(node)?;
        if let Some((record, copy)) = held
            && node.path != ALWAYS_READ
            && record.describes(&node.stamp)
            && copy.looks_like(&node.stamp)
        {
            self.watch.add(node.stamp.size);
            return Ok(Some(record.pieces.checksum()));
        }
        let path = self.source.at(&node.path);
        let began_ns = now_ns();
        let Some(from) = self.source.read(&node.path)? else {
            return self.gone(node);
        };
        let (before, is_file) = Stamp::of_open(&from).map_err(io_at("look at", &path))?;
        if !is_file {
            return self.gone(node);
        }
        let to = self.copy.write(&node.path)?;
        self.tally.touch(&node.path);
        let known = held.map(|(record, _)| &record.pieces);
        let content = self.fill(&from, &to, node, before.size, known, buffers)?;
        let (after, _) = Stamp::of_open(&from).map_err(io_at("look at", &path))?;
        if !self.is_live && (after != before || before != node.stamp) {
            return Err(RestorePointError::Moving {
                path,
                what: "its size or times are not what they were".into(),
            });
        }
        dress(&to, &before).map_err(io_at("set owner and mode of", &self.copy.at(&node.path)))?;
        self.ledger.note(&node.path, began_ns, &before, &after, &content.pieces)?;
        self.tally.files_copied.fetch_add(u64::from(content.is_written), Ordering::Relaxed);
        Ok(Some(content.pieces.checksum()))
    }

    /// What an earlier pass read into the copy's file, when that still has it.
    fn held(&self, node: &Node) -> Result<Option<(&Record, Stamp)>, RestorePointError> {
        let Some(record) = self.known.records.get(&node.path) else { return Ok(None) };
        Ok(match self.copy.entry(&node.path)? {
            Some((Shape::File, copy)) if record.is_held_by(&copy) => Some((record, copy)),
            Some(_) | None => None,
        })
    }

    fn gone(&self, node: &Node) -> Result<Option<String>, RestorePointError> {
        if self.is_live {
            return Ok(None);
        }
        let path = self.source.at(&node.path);
        Err(RestorePointError::Moving { path, what: "it is gone".into() })
    }

    fn fill(
        &self,
        from: &File,
        to: &File,
        node: &Node,
        size: u64,
        known: Option<&Pieces>,
        buffers: &mut Buffers,
    ) -> Result<Content, RestorePointError> {
        if self.shares_blocks.load(Ordering::Relaxed) {
            if let Some(pieces) = self.share(from, to, node, buffers)? {
                return Ok(Content { pieces, is_written: true });
            }
            self.shares_blocks.store(false, Ordering::Relaxed);
            return self.merge(from, to, node, size, None, buffers);
        }
        self.merge(from, to, node, size, known, buffers)
    }

    /// Lets the copy have the source's blocks (FICLONE, ioctl_ficlone(2)), at no cost in bytes;
    /// none when the file system does not do it for this file.
    fn share(
        &self,
        from: &File,
        to: &File,
        node: &Node,
        buffers: &mut Buffers,
    ) -> Result<Option<Pieces>, RestorePointError> {
        let path = self.copy.at(&node.path);
        self.ledger.void(&node.path)?;
        // What the copy had beyond the source's end would stay.
        to.set_len(0).map_err(io_at("truncate", &path))?;
        if !share_blocks(from, to) {
            return Ok(None);
        }
        // A live source has moved on since; one at rest is in the page cache, its clone is not.
        let (read, at) = if self.is_live { (to, path) } else { (from, self.source.at(&node.path)) };
        let mut bytes = 0;
        let pieces = pieces_of(&mut &*read, buffers, |read| {
            bytes += read;
            self.watch.add(read);
            self.watch.go_on()
        });
        self.tally.bytes_shared.fetch_add(bytes, Ordering::Relaxed);
        pieces.map_err(io_at("read", &at))?.map(Some)
    }

    /// Reads the source as far as it went when it was opened, and writes the pieces that the
    /// copy does not have: by their checksums, where those are known, by comparing elsewhere.
    ///
    /// A large file of a source at rest is read by two threads: it may be the only one that
    /// changed, and the application is down.
    fn merge(
        &self,
        from: &File,
        to: &File,
        node: &Node,
        size: u64,
        known: Option<&Pieces>,
        buffers: &mut Buffers,
    ) -> Result<Content, RestorePointError> {
        let copy = self.copy.at(&node.path);
        let had = to.metadata().map_err(io_at("look at", &copy))?.len();
        let merge = Merge { files: self, from, to, node, known, had, is_void: Mutex::new(false) };
        let middle = (size / 2).next_multiple_of(CHUNK_BYTES as u64);
        let mut merged = if self.is_live || size < LARGE_BYTES {
            merge.part(0..size, buffers)?
        } else {
            let (first, second) = std::thread::scope(|scope| {
                let other = scope.spawn(|| merge.part(middle..size, &mut Buffers::new()));
                let mine = merge.part(0..middle, buffers);
                (mine, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            });
            let (first, second) = (first?, second?);
            if (first.end, second.end) != (middle, size) {
                let (path, what) = (self.source.at(&node.path), "it became shorter".into());
                return Err(RestorePointError::Moving { path, what });
            }
            Merged {
                pieces: first.pieces.followed_by(second.pieces),
                is_written: first.is_written || second.is_written,
                end: second.end,
            }
        };
        if merged.end < had {
            merge.void()?;
            to.set_len(merged.end).map_err(io_at("truncate", &copy))?;
            merged.is_written = true;
        }
        Ok(Content { pieces: merged.pieces, is_written: merged.is_written || had == 0 })
    }
}

/// One file that is being merged, shared by the threads that do it.
struct Merge<'m, 'w> {
    files: &'m Bringer<'w>,
    from: &'m File,
    to: &'m File,
    node: &'m Node,
    /// What the copy holds, as far as that is known.
    known: Option<&'m Pieces>,
    /// How long the copy was.
    had: u64,
    is_void: Mutex<bool>,
}

/// What came of a part of a file.
struct Merged {
    pieces: Pieces,
    is_written: bool,
    /// Where the part ended, which is earlier than wanted where the source ended.
    end: u64,
}

impl Merge<'_, '_> {
    /// Before the first write: what was known of the copy's file is void.
    fn void(&self) -> Result<(), RestorePointError> {
        // Held until the line is written: no other thread may write to the file before it.
        let mut is_void = self.is_void.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_void, true) {
            self.files.ledger.void(&self.node.path)?;
        }
        Ok(())
    }

    fn part(&self, range: Range<u64>, buffers: &mut Buffers) -> Result<Merged, RestorePointError> {
        let files = self.files;
        let (source, copy) = (files.source.at(&self.node.path), files.copy.at(&self.node.path));
        let mut merged = Merged { pieces: Pieces::default(), is_written: false, end: range.start };
        let mut from = At(self.from, range.start).take(range.end - range.start);
        loop {
            let read = read_full(&mut from, &mut buffers.source).map_err(io_at("read", &source))?;
            let chunk = buffers.source.get(..read).unwrap_or_default();
            for piece in chunk.chunks(PIECE_BYTES) {
                let at = merged.end;
                let mut is_equal = merged.pieces.push(piece, self.known, at);
                if at < self.had {
                    files.tally.bytes_compared.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    if self.known.is_none() {
                        let room = buffers.copy.get_mut(..piece.len()).unwrap_or_default();
                        let there = read_full(&mut At(self.to, at), room);
                        is_equal =
                            there.map_err(io_at("read", &copy))? == piece.len() && room == piece;
                    }
                }
                if !is_equal {
                    self.void()?;
                    files.room.take(piece.len() as u64)?;
                    self.to.write_all_at(piece, at).map_err(io_at("write", &copy))?;
                    files.tally.bytes_copied.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    merged.is_written = true;
                }
                merged.end += piece.len() as u64;
            }
            if chunk.is_empty() {
                return Ok(merged);
            }
            files.watch.add(read as u64);
            files.watch.go_on()?;
        }
    }
}

/// The pieces of a file, read to its end; `on_read` hears how much was read each time, and its
/// error ends it.
pub(super) fn pieces_of<E>(
    file: &mut impl Read,
    buffers: &mut Buffers,
    mut on_read: impl FnMut(u64) -> Result<(), E>,
) -> std::io::Result<Result<Pieces, E>> {
    let mut pieces = Pieces::default();
    loop {
        let read = read_full(file, &mut buffers.source)?;
        for piece in buffers.source.get(..read).unwrap_or_default().chunks(PIECE_BYTES) {
            pieces.push(piece, None, 0);
        }
        if read == 0 {
            return Ok(Ok(pieces));
        }
        if let Err(error) = on_read(read as u64) {
            return Ok(Err(error));
        }
    }
}

/// Whether `to`, which is empty, now shares the blocks of `from`.
pub(super) fn share_blocks(from: &File, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        false
    }
}

/// A file, read from an offset.
struct At<'a>(&'a File, u64);

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read_at(buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}
