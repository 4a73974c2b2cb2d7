//! The two passes: one while the server writes, one after it was stopped.
//!
//! Both do the same work, in an order that leaves something the next pass mends wherever it is
//! cut: what does not belong goes, directories come, files, links, and last what each directory
//! looks like. They differ in what a change under their hands means. For the first it is the
//! next pass's work; for the second it is a server that was not stopped, and an error (I6).

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bring::{Bringer, Tally, share_blocks};
use super::cancel::Watch;
use super::error::{Refusal, RestorePointError, io_at};
use super::ledger::Ledger;
use super::manifest::{self, Manifest, SYNCED_SINGLY};
use super::room::Room;
use super::survey::{POSTMASTER_PID, is_kept, is_mount_point};
use super::threads::on_two_threads;
use super::tree::{Node, Shape, Tree};
use super::{Cancel, OnProgress, back_ledger_path, intent_path, ledger_path, must_be_ours};

type Result<T> = std::result::Result<T, RestorePointError>;

/// How a pass copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The copy shares the source's blocks until one of them is written to.
    Reflink,
    /// Bytes were read and written.
    Copy,
}

/// What the first pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassReport {
    /// Files in the copy.
    pub files: u64,
    /// Bytes written to it.
    pub bytes_copied: u64,
    /// Bytes that it shares with the source.
    pub bytes_shared: u64,
    /// Bytes in the source's files, when the pass began.
    pub bytes_seen: u64,
    /// How.
    pub strategy: Strategy,
    /// How long it took, until all was on disk.
    pub took: Duration,
}

/// What the second pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishReport {
    /// Files in the restore point.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes written by this pass.
    pub bytes_copied: u64,
    /// Bytes that this pass let the copy share with the source.
    pub bytes_shared: u64,
    /// Bytes that were read of files that the copy had, to find what differs.
    pub bytes_compared: u64,
    /// Files that this pass wrote to.
    pub files_copied: u64,
    /// Files, links and directories that this pass removed from the copy.
    pub files_removed: u64,
    /// How long it took, until all was on disk.
    pub took: Duration,
    /// Hex sha256 of the manifest, which names every file with its checksum.
    pub manifest_sha256: String,
    /// What an operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// Copies a data directory while its server runs. What it leaves is no restore point yet.
///
/// `copy` need not exist; its name contains [`super::NAME_MARK`]. Run again, it copies what
/// differs by then, so that a run shortly before the server stops leaves [`finish`] little.
///
/// # Errors
/// [`RestorePointError::Refused`] as in [`super::survey`], and when the copy would lie on
/// another file system; [`RestorePointError::NoRoom`] before the disk is full;
/// [`RestorePointError::Cancelled`].
pub fn pre_copy(
    source: &Path,
    copy: &Path,
    progress: &mut OnProgress<'_>,
    cancel: &Cancel,
) -> Result<PassReport> {
    let began = Instant::now();
    let pass = Pass::begin(source, copy, true, Watch::new(progress, cancel))?;
    let nodes = pass.nodes()?;
    if !pass.files.shares_blocks.load(Ordering::Relaxed) {
        pass.files.room.must_hold(&nodes, &pass.files.copy)?;
    }
    let brought = pass.run(&nodes)?;
    // Or the second pass would have to wait for what this one wrote.
    pass.files.copy.sync()?;
    pass.files.ledger.synced()?;
    let tally = &pass.files.tally;
    Ok(PassReport {
        files: brought.checksums.len() as u64,
        bytes_copied: tally.bytes_copied.load(Ordering::Relaxed),
        bytes_shared: tally.bytes_shared.load(Ordering::Relaxed),
        bytes_seen: bytes(&nodes),
        strategy: if pass.files.shares_blocks.load(Ordering::Relaxed) {
            Strategy::Reflink
        } else {
            Strategy::Copy
        },
        took: began.elapsed(),
    })
}

/// Makes the copy equal to the directory, whose server was stopped, and seals it with a
/// manifest. Without a pass before it, or run again, it does what is left to do.
///
/// A `postmaster.pid` does not refuse it: the number in it is of the container's own count of
/// processes and says nothing here. A file that changes while it works does.
///
/// # Errors
/// [`RestorePointError::Moving`] when something still writes; otherwise as in [`pre_copy`].
pub fn finish(
    source: &Path,
    copy: &Path,
    progress: &mut OnProgress<'_>,
    cancel: &Cancel,
) -> Result<FinishReport> {
    let began = Instant::now();
    let pass = Pass::begin(source, copy, false, Watch::new(progress, cancel))?;
    let nodes = pass.nodes()?;
    let brought = pass.run(&nodes)?;
    must_be_equal(&pass.files.source, &nodes, &pass.nodes()?)?;
    pass.make_durable()?;
    let sealed = Manifest::of(source, &nodes, &brought.checksums)?;
    let manifest_sha256 = sealed.write(copy)?;
    let tally = &pass.files.tally;
    let mut notes = Vec::new();
    if pass.files.source.entry(POSTMASTER_PID)?.is_some() {
        notes.push(
            "postmaster.pid was left behind: the database's server was killed, and recovers when it starts again; the file is not in the copy"
                .to_owned(),
        );
    }
    Ok(FinishReport {
        files: brought.checksums.len() as u64,
        bytes: bytes(&nodes),
        bytes_copied: tally.bytes_copied.load(Ordering::Relaxed),
        bytes_shared: tally.bytes_shared.load(Ordering::Relaxed),
        bytes_compared: tally.bytes_compared.load(Ordering::Relaxed),
        files_copied: tally.files_copied.load(Ordering::Relaxed),
        files_removed: brought.removed,
        took: began.elapsed(),
        manifest_sha256,
        notes,
    })
}

/// Makes a directory hold what its copy does, and nothing else. Cut anywhere and run again, it does
/// what is left.
pub(super) fn bring_back(copy: &Path, target: &Path) -> Result<()> {
    let cancel = Cancel::default();
    let mut untold = |_| {};
    let pass = Pass::back(copy, target, Watch::new(&mut untold, &cancel))?;
    let nodes = pass.nodes()?;
    pass.run(&nodes)?;
    pass.files.copy.sync()
}

struct Pass<'a> {
    files: Bringer<'a>,
}

struct Brought {
    /// Hex, by path, of every file in the copy.
    checksums: HashMap<String, String>,
    removed: u64,
}

impl<'a> Pass<'a> {
    fn begin(source: &Path, copy: &Path, is_live: bool, watch: Watch<'a>) -> Result<Self> {
        must_be_ours(copy)?;
        let tree = Tree::open(source)?;
        let is_apart = is_mount_point(source)?;
        must_lie_beside(&tree, source, copy, is_apart)?;
        if intent_path(copy).exists() {
            return Err(RestorePointError::refused(copy, Refusal::Restoring));
        }
        // From here on the copy is not what a manifest says.
        manifest::remove(copy)?;
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(copy)
        {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io_at("create directory", copy)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let (ledger, known) = Ledger::open(&ledger_path(copy))?;
        let files = Bringer {
            source: tree,
            copy: Tree::open(copy)?,
            ledger,
            known,
            shares_blocks: AtomicBool::new(!is_apart && can_share_blocks(copy)?),
            room: Room::of(copy, is_live),
            is_live,
            watch,
            tally: Tally::default(),
        };
        Ok(Self { files })
    }

    /// The way back: what a copy holds is brought into the directory that it was made of.
    fn back(copy: &Path, target: &Path, watch: Watch<'a>) -> Result<Self> {
        let (ledger, known) = Ledger::open(&back_ledger_path(copy))?;
        let files = Bringer {
            source: Tree::open(copy)?,
            copy: Tree::open(target)?,
            ledger,
            known,
            shares_blocks: AtomicBool::new(false),
            room: Room::of(target, false),
            is_live: false,
            watch,
            tally: Tally::default(),
        };
        Ok(Self { files })
    }

    /// What belongs into the copy.
    fn nodes(&self) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for node in self.files.source.walk()? {
            if is_kept(&self.files.source, &node)? {
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    fn run(&self, nodes: &[Node]) -> Result<Brought> {
        let copy = &self.files.copy;
        let removed = self.remove_what_differs_in_kind(nodes)?;
        for node in of_kind(nodes, |shape| *shape == Shape::Directory) {
            if !node.path.is_empty() {
                self.files.watch.go_on()?;
                copy.make_directory(&node.path)?;
            }
        }
        let mut files: Vec<&Node> = of_kind(nodes, |shape| *shape == Shape::File).collect();
        // The largest first, so that neither thread has one left when the other is done.
        files.sort_by_key(|node| std::cmp::Reverse(node.stamp.size));
        let checksums = Mutex::new(HashMap::with_capacity(files.len()));
        on_two_threads(&files, |node, buffers| {
            if let Some(sha256) = self.files.bring(node, buffers)? {
                let mut checksums = checksums.lock().unwrap_or_else(PoisonError::into_inner);
                checksums.insert(node.path.clone(), sha256);
            }
            Ok(())
        })?;
        for node in nodes {
            if let Shape::Link(target) = &node.shape
                && copy.entry(&node.path)?.is_none()
            {
                self.files.watch.go_on()?;
                copy.make_link(&node.path, target, &node.stamp)?;
            }
        }
        // Each after what it holds, whose making changed its time.
        let directories: Vec<&Node> = of_kind(nodes, |shape| *shape == Shape::Directory).collect();
        for node in directories.into_iter().rev() {
            self.files.watch.go_on()?;
            // Names that came and went have changed its time.
            if copy.dress_directory(&node.path, &node.stamp)? {
                self.files.tally.touch(&node.path);
            }
        }
        let checksums = checksums.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Brought { checksums, removed })
    }

    /// Makes the copy durable: only what this pass changed, where the pass before it left all on
    /// disk. A sync of the whole file system would wait for what the rest of the host has
    /// written meanwhile, in the downtime.
    fn make_durable(&self) -> Result<()> {
        let copy = &self.files.copy;
        let touched = &self.files.tally.touched;
        let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.known.is_synced || touched.len() > SYNCED_SINGLY {
            return copy.sync();
        }
        // A directory may be there twice, and a link is durable with its directory.
        touched.sort_unstable();
        touched.dedup();
        on_two_threads(&touched, |path, _| copy.sync_entry(path))
    }

    /// Removes from the copy what the source does not have, or has as something else.
    fn remove_what_differs_in_kind(&self, nodes: &[Node]) -> Result<u64> {
        let copy = &self.files.copy;
        let wanted: HashMap<&str, &Node> =
            nodes.iter().map(|node| (node.path.as_str(), node)).collect();
        let mut removed = 0;
        // Each directory after what it holds.
        for there in copy.walk()?.iter().rev() {
            let stays = wanted.get(there.path.as_str()).is_some_and(|node| {
                match (&node.shape, &there.shape) {
                    (Shape::Directory, Shape::Directory) | (Shape::File, Shape::File) => true,
                    (Shape::Link(_), Shape::Link(_)) => {
                        node.shape == there.shape && node.stamp.looks_like(&there.stamp)
                    }
                    _ => false,
                }
            });
            if !stays {
                self.files.watch.go_on()?;
                copy.remove(&there.path, there.shape == Shape::Directory)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn of_kind(nodes: &[Node], is_it: impl Fn(&Shape) -> bool) -> impl Iterator<Item = &Node> {
    nodes.iter().filter(move |node| is_it(&node.shape))
}

fn bytes(nodes: &[Node]) -> u64 {
    of_kind(nodes, |shape| *shape == Shape::File).map(|node| node.stamp.size).sum()
}

/// The copy must be one rename away, unless that is no way back anyhow, and not inside of what it
/// copies.
fn must_lie_beside(tree: &Tree, source: &Path, copy: &Path, is_apart: bool) -> Result<()> {
    let directory = copy.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let directory = directory.canonicalize().map_err(io_at("resolve", directory))?;
    let whole = source.canonicalize().map_err(io_at("resolve", source))?;
    if directory.starts_with(&whole) {
        return Err(RestorePointError::refused(source, Refusal::CopyInside));
    }
    if !is_apart && Tree::open(&directory)?.device() != tree.device() {
        return Err(RestorePointError::refused(source, Refusal::CopyElsewhere { directory }));
    }
    Ok(())
}

/// Tries it, with the ledger: a file that was just written to.
fn can_share_blocks(copy: &Path) -> Result<bool> {
    let from = File::open(ledger_path(copy)).map_err(io_at("open", &ledger_path(copy)))?;
    let probe = super::beside(copy, ".probe");
    let to = File::create(&probe).map_err(io_at("create", &probe))?;
    let shares = share_blocks(&from, &to);
    std::fs::remove_file(&probe).map_err(io_at("remove", &probe))?;
    Ok(shares)
}

/// That nothing changed between the two looks: what was copied is one moment of the source.
fn must_be_equal(source: &Tree, before: &[Node], after: &[Node]) -> Result<()> {
    let moving = |node: &Node, what: &str| {
        Err(RestorePointError::Moving { path: source.at(&node.path), what: what.into() })
    };
    let mut later: HashMap<&str, &Node> =
        after.iter().map(|node| (node.path.as_str(), node)).collect();
    for node in before {
        match later.remove(node.path.as_str()) {
            Some(now) if now == node => {}
            Some(_) => return moving(node, "its size or times are not what they were"),
            None => return moving(node, "it is gone"),
        }
    }
    later.into_values().next().map_or(Ok(()), |node| moving(node, "it is new"))
}
