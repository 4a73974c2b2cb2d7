//! What a data directory holds, and whether a copy of it would be the whole of it.
//!
//! A database that is kept in several places is refused here, by name and place, before an
//! upgrade stops anything: a copy that lacks a tablespace or the write-ahead log is no way back.
//! The passes of a copy ask the same questions again of what they find.

use std::path::{Path, PathBuf};

use super::error::{Refusal, RestorePointError, io_at};
use super::tree::{Node, Shape, Tree};

/// What a file takes on disk beyond its bytes: the rest of its last block, and its inode.
pub(super) const OVERHEAD_BYTES: u64 = 4096 + 512;

/// A data directory that can be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Regular files.
    pub files: u64,
    /// Directories, itself included.
    pub directories: u64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Symbolic links that are kept as they are, each with where it points. What they point to
    /// (a configuration file, a directory of logs) is not in the copy.
    pub links: Vec<(String, String)>,
    /// Files with a second name; the copy has a file for each name.
    pub hard_linked: u64,
    /// PostgreSQL's major version, as `PG_VERSION` says it: 15, and 9 for 9.6.
    pub postgres_major: u32,
    /// Whether a server runs in it, or was killed: `postmaster.pid` is there.
    pub has_postmaster_pid: bool,
}

impl Survey {
    /// Bytes that a whole copy takes on the file system, at most.
    pub fn space_needed(&self) -> u64 {
        self.bytes + (self.files + self.directories) * OVERHEAD_BYTES
    }
}

/// Looks at a data directory, running or not; changes nothing.
///
/// # Errors
/// [`RestorePointError::Refused`] for what can't be copied faithfully or not be put back by a
/// rename, with its path.
pub fn survey(source: &Path) -> Result<Survey, RestorePointError> {
    let tree = Tree::open(source)?;
    let postgres_major = postgres_major(source)?;
    if let Some((place, refusal)) = mounted(source)? {
        return Err(RestorePointError::refused(place, refusal));
    }
    let mut survey = Survey {
        files: 0,
        directories: 0,
        bytes: 0,
        links: Vec::new(),
        hard_linked: 0,
        postgres_major,
        has_postmaster_pid: false,
    };
    for node in tree.walk()? {
        if !is_kept(&tree, &node)? {
            survey.has_postmaster_pid |= node.path == POSTMASTER_PID;
            continue;
        }
        match node.shape {
            Shape::Directory => survey.directories += 1,
            Shape::File => {
                survey.files += 1;
                survey.bytes += node.stamp.size;
                survey.hard_linked += u64::from(node.stamp.links > 1);
            }
            Shape::Link(target) => survey.links.push((node.path, target)),
            // `is_kept` keeps none of these.
            Shape::Socket | Shape::Special(_) | Shape::Mount => {}
        }
    }
    Ok(survey)
}

/// What a running server has in its directory, and one that was killed leaves behind. In the
/// copy it would only mislead the server that starts on it.
pub(super) const POSTMASTER_PID: &str = "postmaster.pid";

/// Whether the entry belongs into the copy.
///
/// # Errors
/// [`RestorePointError::Refused`] for one that would be missing from it.
pub(super) fn is_kept(tree: &Tree, node: &Node) -> Result<bool, RestorePointError> {
    let name = node.path.rsplit('/').next().unwrap_or_default();
    if node.path == POSTMASTER_PID || name.starts_with(".s.PGSQL.") {
        return Ok(false);
    }
    let refusal = match &node.shape {
        Shape::Directory | Shape::File => return Ok(true),
        Shape::Socket => return Ok(false),
        Shape::Special(kind) => Refusal::Special { kind },
        Shape::Mount => Refusal::OtherFileSystem,
        Shape::Link(target) => match link_refusal(&node.path, target.clone()) {
            Some(refusal) => refusal,
            None => return Ok(true),
        },
    };
    Err(RestorePointError::refused(tree.at(&node.path), refusal))
}

/// A link is judged by where it stands, not by what it leads to: its target is a path inside
/// the container, which this host can't follow.
fn link_refusal(path: &str, target: String) -> Option<Refusal> {
    let top = path.split('/').next().unwrap_or_default();
    if top == "pg_tblspc" {
        return Some(Refusal::Tablespace { target });
    }
    if matches!(path, "pg_wal" | "pg_xlog") {
        return Some(Refusal::WalElsewhere { target });
    }
    let holds_data = matches!(top, "base" | "global")
        || top.starts_with("pg_") && !matches!(top, "pg_hba.conf" | "pg_ident.conf" | "pg_log");
    if holds_data && !stays_inside(path, &target) {
        return Some(Refusal::PartElsewhere { target });
    }
    None
}

/// Whether a link's target, read as text, lies inside the directory.
fn stays_inside(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = path.matches('/').count();
    for step in target.split('/') {
        match step {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

fn postgres_major(source: &Path) -> Result<u32, RestorePointError> {
    let path = source.join("PG_VERSION");
    let missing =
        |found: String| RestorePointError::refused(source, Refusal::NotADataDirectory { found });
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing("nothing, it is missing".into()));
        }
        Err(error) => return Err(io_at("read", &path)(error)),
    };
    let text = text.trim();
    text.split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| missing(format!("{:?}", text.chars().take(20).collect::<String>())))
}

/// Whether something is mounted at the directory itself, which no rename moves then.
///
/// # Errors
/// [`RestorePointError::Io`] when this host's mounts can't be read.
pub(super) fn is_mount_point(source: &Path) -> Result<bool, RestorePointError> {
    let source = source.canonicalize().map_err(io_at("resolve", source))?;
    Ok(mount_points()?.contains(&source))
}

/// The first mount point below the directory.
fn mounted(source: &Path) -> Result<Option<(PathBuf, Refusal)>, RestorePointError> {
    let source = source.canonicalize().map_err(io_at("resolve", source))?;
    Ok(mount_below(&source, mount_points()?))
}

/// Where something is mounted, as this process sees mounts. A bind mount of the same file system
/// has the same device number, so only this list gives it away. Empty where there is none.
pub(super) fn mount_points() -> Result<Vec<PathBuf>, RestorePointError> {
    let list = Path::new("/proc/self/mountinfo");
    let text = match std::fs::read(list) {
        Ok(text) => text,
        // No Linux; the device numbers still tell.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_at("read", list)(error)),
    };
    Ok(points_of(&String::from_utf8_lossy(&text)))
}

/// Of proc_pid_mountinfo(5), the fifth field, with blanks and backslashes written in octal.
fn points_of(mountinfo: &str) -> Vec<PathBuf> {
    let fields = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let place = |field: &str| {
        field
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
    };
    fields.map(|field| PathBuf::from(place(field))).collect()
}

fn mount_below(source: &Path, points: Vec<PathBuf>) -> Option<(PathBuf, Refusal)> {
    let mut points = points.into_iter();
    let below = points.find(|place| place != source && place.starts_with(source));
    below.map(|place| (place, Refusal::OtherFileSystem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_kept_in_several_places_is_refused_by_name() {
        let refusal = |path: &str, target: &str| link_refusal(path, target.into());
        let target = || "/mnt/fast".to_owned();
        assert_eq!(
            refusal("pg_tblspc/16400", "/mnt/fast"),
            Some(Refusal::Tablespace { target: target() })
        );
        assert_eq!(
            refusal("pg_wal", "/mnt/fast"),
            Some(Refusal::WalElsewhere { target: target() })
        );
        for path in ["base", "base/5", "global", "pg_xact", "pg_wal/archive_status"] {
            assert_eq!(
                refusal(path, "/mnt/fast"),
                Some(Refusal::PartElsewhere { target: target() }),
                "{path}"
            );
        }
        for path in ["postgresql.conf", "pg_hba.conf", "log", "server.key"] {
            assert_eq!(refusal(path, "/etc/elsewhere"), None, "{path}");
        }
        assert_eq!(refusal("base/1/link", "../5/1234"), None);
        assert!(refusal("base/1/link", "../../../5").is_some());
    }

    #[test]
    fn a_mount_point_is_refused_with_its_path() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda rw\n\
                      40 22 8:1 /x /srv/my\\040data rw shared:1 - ext4 /dev/sda rw\n\
                      41 40 8:2 / /srv/other/pg_wal rw - ext4 /dev/sdb rw\n";
        let at = |path: &str| mount_below(Path::new(path), points_of(mounts));
        assert_eq!(at("/srv/my data"), None, "itself, which is put back by its contents");
        assert_eq!(at("/srv/other"), Some(("/srv/other/pg_wal".into(), Refusal::OtherFileSystem)));
        assert_eq!(at("/srv/my data/pg"), None);
    }
}
