//! What a finished copy holds, with a checksum for each file: written last, read before a copy
//! is trusted.
//!
//! `C.manifest.json` beside the copy `C`, one entry a line. Its own checksum goes into the
//! journal, which so vouches for every byte of the restore point.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bring::{Buffers, pieces_of};
use super::cancel::Watch;
use super::error::{RestorePointError, io_at};
use super::pieces::hex;
use super::survey::is_kept;
use super::threads::on_two_threads;
use super::tree::{Node, Shape, Stamp, Tree, dress};
use super::{Cancel, OnProgress, beside, manifest_path};

type Result<T> = std::result::Result<T, RestorePointError>;

/// So many files and directories are synced one by one; beyond, the whole file system at once
/// is quicker.
pub(super) const SYNCED_SINGLY: usize = 64;

/// The only format there is.
const FORMAT: u32 = 1;

/// The manifest of a copy that was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Hex sha256 of the manifest, as [`super::FinishReport`] told it.
    pub manifest_sha256: String,
    /// Files in the copy.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Whether the copy was finished, and nothing touched it since through this module. Reads the
/// manifest, not the copy.
///
/// # Errors
/// [`RestorePointError::Damaged`] for a manifest that can't be read as one.
pub fn finished(copy: &Path) -> Result<Option<Finished>> {
    let Some((manifest, manifest_sha256)) = Manifest::read(copy)? else { return Ok(None) };
    let mut finished = Finished { manifest_sha256, files: 0, bytes: 0 };
    for entry in &manifest.entries {
        if let Content::File { size, .. } = entry.content {
            finished.files += 1;
            finished.bytes += size;
        }
    }
    Ok(Some(finished))
}

/// Reads the whole copy and compares its contents with its manifest; with `expected`, compares
/// the manifest with its checksum from the journal too. Who owns a file and who may read it is
/// no damage: [`super::restore`] puts it right.
///
/// # Errors
/// [`RestorePointError::Damaged`] with the first difference; [`RestorePointError::NotFinished`].
pub fn verify(
    copy: &Path,
    expected: Option<&str>,
    progress: &mut OnProgress<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let Some((manifest, found)) = Manifest::read(copy)? else {
        return Err(RestorePointError::NotFinished { path: copy.to_owned() });
    };
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(RestorePointError::Damaged {
            path: manifest_path(copy),
            what: format!("its checksum is {found}, the journal has {expected}"),
        });
    }
    let tree = Tree::open(copy)?;
    let watch = Watch::new(progress, cancel);
    let nodes = tree.walk()?;
    let mut there: HashMap<&str, &Node> =
        nodes.iter().map(|node| (node.path.as_str(), node)).collect();
    for entry in &manifest.entries {
        let node = there.remove(entry.path.as_str());
        if let Some(what) = entry.difference(node) {
            return Err(RestorePointError::Damaged { path: tree.at(&entry.path), what });
        }
    }
    if let Some(extra) = there.into_keys().next() {
        let what = "it is not in the manifest".into();
        return Err(RestorePointError::Damaged { path: tree.at(extra), what });
    }
    on_two_threads(&manifest.entries, |entry, buffers| {
        let Content::File { sha256, .. } = &entry.content else { return Ok(()) };
        watch.go_on()?;
        let found = entry.reread(&tree, &watch, buffers)?;
        if found == *sha256 {
            return Ok(());
        }
        let what = format!("its checksum is {found}, expected {sha256}");
        Err(RestorePointError::Damaged { path: tree.at(&entry.path), what })
    })
}

/// Gives everything in the copy the owner, mode and time that were noted when it was finished,
/// durably; returns how many had others.
///
/// # Errors
/// [`RestorePointError::NotFinished`]; [`RestorePointError::Damaged`] for what is gone.
pub(super) fn dress_all(copy: &Path) -> Result<u64> {
    let Some((manifest, _)) = Manifest::read(copy)? else {
        return Err(RestorePointError::NotFinished { path: copy.to_owned() });
    };
    let tree = Tree::open(copy)?;
    let mut dressed = Vec::new();
    let mut has_links = false;
    // Each directory after what it holds.
    for entry in manifest.entries.iter().rev() {
        let stamp = entry.stamp();
        let path = tree.at(&entry.path);
        let had_others = match &entry.content {
            Content::Directory => tree.dress_directory(&entry.path, &stamp)?,
            Content::Link { .. } => {
                let had_others = tree.dress_link(&entry.path, &stamp)?;
                has_links |= had_others;
                had_others
            }
            Content::File { .. } => match tree.read(&entry.path)? {
                Some(file) => dress(file, &stamp).map_err(io_at("set owner and mode of", &path))?,
                None => {
                    let what = "it is missing".into();
                    return Err(RestorePointError::Damaged { path, what });
                }
            },
        };
        if had_others {
            dressed.push(entry.path.as_str());
        }
    }
    if has_links || dressed.len() > SYNCED_SINGLY {
        tree.sync()?;
    } else {
        dressed.iter().try_for_each(|path| tree.sync_entry(path))?;
    }
    Ok(dressed.len() as u64)
}

/// The first file of the directory that is not as it was when its copy was finished, as a
/// sentence; none when all are as they were. A server that was started since shows, since it
/// writes `global/pg_control`.
///
/// A file whose size, inode and times are as they were is not read. One that only changed its
/// inode or change time (somebody set its owner to what it was) is read and compared.
///
/// # Errors
/// [`RestorePointError::NotFinished`] when there is nothing to compare with.
pub fn first_difference(source: &Path, copy: &Path) -> Result<Option<String>> {
    let Some((manifest, _)) = Manifest::read(copy)? else {
        return Err(RestorePointError::NotFinished { path: copy.to_owned() });
    };
    let tree = Tree::open(source)?;
    let mut now: HashMap<String, Node> = HashMap::new();
    for node in tree.walk()? {
        if is_kept(&tree, &node)? {
            now.insert(node.path.clone(), node);
        }
    }
    let (mut nothing, never) = (|_| {}, Cancel::default());
    let watch = Watch::new(&mut nothing, &never);
    let mut buffers = Buffers::new();
    for entry in &manifest.entries {
        let node = now.remove(entry.path.as_str());
        // A directory's time tells of names that came and went, a lock file's among them.
        let with_time = !matches!(entry.content, Content::Directory);
        let looks = || entry.looks_other(node.as_ref()?, with_time);
        if let Some(what) = entry.difference(node.as_ref()).or_else(looks) {
            return Ok(Some(format!("{}: {what}", entry.path)));
        }
        let untouched = node.is_some_and(|node| {
            (node.stamp.ctime_ns, node.stamp.ino) == (entry.ctime_ns, entry.ino)
        });
        if let Content::File { sha256, .. } = &entry.content
            && !untouched
            && entry.reread(&tree, &watch, &mut buffers)? != *sha256
        {
            return Ok(Some(format!("{}: its content differs", entry.path)));
        }
    }
    Ok(now.into_keys().min().map(|path| format!("{path}: it is new")))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    format: u32,
    source: String,
    entries: Vec<Entry>,
}

impl Manifest {
    /// Whether it is of a copy of this directory.
    pub(super) fn is_of(&self, source: &Path) -> bool {
        self.source == source.to_string_lossy()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// Relative to the root, empty for itself.
    path: String,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime_ns: i64,
    /// Of the source.
    ctime_ns: i64,
    /// Of the source.
    ino: u64,
    content: Content,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Content {
    Directory,
    /// The checksum is that of `pieces`.
    File {
        size: u64,
        sha256: String,
    },
    Link {
        target: String,
    },
}

impl Manifest {
    /// Of a source at rest, with the checksum of each of its files.
    pub(super) fn of(
        source: &Path,
        nodes: &[Node],
        checksums: &HashMap<String, String>,
    ) -> Result<Self> {
        let mut entries = Vec::with_capacity(nodes.len());
        for node in nodes {
            let content = match &node.shape {
                Shape::Directory => Content::Directory,
                Shape::Link(target) => Content::Link { target: target.clone() },
                Shape::File => match checksums.get(&node.path) {
                    Some(sha256) => Content::File { size: node.stamp.size, sha256: sha256.clone() },
                    None => {
                        let path = source.join(&node.path);
                        return Err(RestorePointError::Moving { path, what: "it is gone".into() });
                    }
                },
                // Not kept.
                Shape::Socket | Shape::Special(_) | Shape::Mount => continue,
            };
            let Stamp { mode, uid, gid, mtime_ns, ctime_ns, ino, .. } = node.stamp;
            let path = node.path.clone();
            entries.push(Entry { path, mode, uid, gid, mtime_ns, ctime_ns, ino, content });
        }
        Ok(Self { format: FORMAT, source: source.to_string_lossy().into_owned(), entries })
    }

    /// Writes it beside the copy: whole and durable, or not at all. Returns its checksum.
    pub(super) fn write(&self, copy: &Path) -> Result<String> {
        let path = manifest_path(copy);
        let draft = beside(&path, ".draft");
        let text = self.text().map_err(io_at("write", &path))?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(io_at("create", &draft))?;
        file.write_all(&text).map_err(io_at("write", &draft))?;
        file.sync_all().map_err(io_at("sync", &draft))?;
        std::fs::rename(&draft, &path).map_err(io_at("rename to", &path))?;
        sync_directory_of(&path)?;
        Ok(sha256(&text))
    }

    /// Valid JSON with an entry a line.
    fn text(&self) -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let source = serde_json::to_string(&self.source)?;
        write!(text, "{{\"format\":{},\"source\":{source},\"entries\":[", self.format)?;
        for (index, entry) in self.entries.iter().enumerate() {
            text.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
            serde_json::to_writer(&mut text, entry)?;
        }
        text.extend_from_slice(b"\n]}\n");
        Ok(text)
    }

    pub(super) fn read(copy: &Path) -> Result<Option<(Self, String)>> {
        let path = manifest_path(copy);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_at("read", &path)(error)),
        };
        let damaged = |what: String| RestorePointError::Damaged { path: path.clone(), what };
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.format != FORMAT {
            let what = format!("its format is {}, this program knows {FORMAT}", manifest.format);
            return Err(damaged(what));
        }
        let sha256 = sha256(&text);
        Ok(Some((manifest, sha256)))
    }
}

impl Entry {
    /// As far as it is noted.
    fn stamp(&self) -> Stamp {
        Stamp {
            size: 0,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            ino: self.ino,
            links: 1,
        }
    }

    /// How what is there holds something else than what is written, without reading it.
    fn difference(&self, node: Option<&Node>) -> Option<String> {
        let Some(Node { shape, stamp, .. }) = node else { return Some("it is missing".into()) };
        match (&self.content, shape) {
            (Content::Directory, Shape::Directory) => {}
            (Content::File { size, .. }, Shape::File) if *size != stamp.size => {
                return differs("size", size.to_string(), stamp.size.to_string());
            }
            (Content::File { .. }, Shape::File) => {}
            (Content::Link { target }, Shape::Link(found)) if target != found => {
                return differs("target", target.clone(), found.clone());
            }
            (Content::Link { .. }, Shape::Link(_)) => {}
            (Content::Directory | Content::File { .. } | Content::Link { .. }, _) => {
                return Some("it has become something else".into());
            }
        }
        None
    }

    /// How what is there looks other than what is written.
    fn looks_other(&self, node: &Node, with_time: bool) -> Option<String> {
        let stamp = &node.stamp;
        if (self.uid, self.gid) != (stamp.uid, stamp.gid) {
            let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
            return differs("owner", owner(self.uid, self.gid), owner(stamp.uid, stamp.gid));
        }
        if self.mode != stamp.mode {
            return differs("mode", format!("{:o}", self.mode), format!("{:o}", stamp.mode));
        }
        if with_time && self.mtime_ns != stamp.mtime_ns {
            let (expected, found) = (self.mtime_ns.to_string(), stamp.mtime_ns.to_string());
            return differs("modification time in ns", expected, found);
        }
        None
    }

    /// The checksum of what is there now.
    fn reread(&self, tree: &Tree, watch: &Watch<'_>, buffers: &mut Buffers) -> Result<String> {
        let path = tree.at(&self.path);
        let Some(mut file) = tree.read(&self.path)? else {
            return Err(RestorePointError::Damaged { path, what: "it is missing".into() });
        };
        let pieces = pieces_of(&mut file, buffers, |read| {
            watch.add(read);
            watch.go_on()
        });
        Ok(pieces.map_err(io_at("read", &path))??.checksum())
    }
}

fn differs(what: &str, expected: String, found: String) -> Option<String> {
    Some(format!("its {what} is {found}, expected {expected}"))
}

/// Removes the manifest of a copy, durably: what follows makes it untrue.
pub(super) fn remove(copy: &Path) -> Result<()> {
    let path = manifest_path(copy);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_directory_of(&path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_at("remove", &path)(error)),
    }
}

/// Makes a name that was made, changed or removed durable.
pub(super) fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let file = File::open(directory).map_err(io_at("open directory", directory))?;
    file.sync_all().map_err(io_at("sync directory", directory))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
