//! Copies of what a container has mounted, for a rehearsal of another version: what it does to them
//! reaches nobody, and they are thrown away with it (I14).
//!
//! The driver asks first what a mount holds, since one in which a socket, a pipe or a device lies is
//! a way out whoever may write to it. Clusters of databases are not copied: the application's own
//! is put in its place as a copy of another kind, and others are nobody's here. Symbolic links are
//! copied and never followed. Called from threads that may block.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::{RestorePointError, io_at};
use super::tree::{Node, Shape, Tree, dress};

type Result<T> = std::result::Result<T, RestorePointError>;

/// Entries of one mount that are looked at.
const MOST_ENTRIES: usize = 200_000;

/// What lies in the directory of every cluster of PostgreSQL.
const CLUSTER: &str = "PG_VERSION";

/// What a mount holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// One file, of so many bytes.
    File(u64),
    /// A directory.
    Directory {
        /// Files and links outside of clusters of databases.
        files: u64,
        /// Bytes in them.
        bytes: u64,
        /// A socket, a pipe or a device in it.
        special: Option<String>,
    },
    /// A socket, a pipe or a device itself.
    Special,
    /// More than is looked at.
    TooMuch,
}

/// Looks at what a mount holds, without what lies `apart`; changes nothing. All paths are free of
/// symbolic links.
///
/// # Errors
/// [`RestorePointError::Io`] where it can't be read.
pub fn look_into(source: &Path, apart: &[PathBuf]) -> Result<Mounted> {
    let meta = std::fs::symlink_metadata(source).map_err(io_at("look at", source))?;
    if meta.is_file() {
        return Ok(Mounted::File(meta.len()));
    }
    if !meta.is_dir() {
        return Ok(Mounted::Special);
    }
    let tree = Tree::open(source)?;
    let Some(nodes) = entries(&tree, source, apart)? else { return Ok(Mounted::TooMuch) };
    let is_special = |node: &&Node| matches!(node.shape, Shape::Socket | Shape::Special(_));
    let special = nodes.iter().find(is_special).map(|node| node.path.clone());
    let clusters = clusters(&nodes);
    let copied = nodes.iter().filter(|node| !is_below(&node.path, &clusters));
    let (mut files, mut bytes) = (0, 0_u64);
    for node in copied.filter(|node| matches!(node.shape, Shape::File | Shape::Link(_))) {
        files += 1;
        bytes = bytes.saturating_add(node.stamp.size);
    }
    Ok(Mounted::Directory { files, bytes, special })
}

/// Copies what a mount holds to `to`, which is made: contents, names, owners, modes, times and
/// links. Of a file that grows meanwhile the beginning is copied.
///
/// # Errors
/// [`RestorePointError::Io`] where it can't be read or written.
pub fn copy_apart(source: &Path, to: &Path, apart: &[PathBuf]) -> Result<()> {
    let meta = std::fs::symlink_metadata(source).map_err(io_at("look at", source))?;
    if meta.is_file() {
        let (Some(parent), Some(name)) = (source.parent(), source.file_name()) else {
            return Ok(());
        };
        let tree = Tree::open(parent)?;
        let name = name.to_string_lossy();
        let Some((Shape::File, stamp)) = tree.entry(&name)? else { return Ok(()) };
        let node = Node { path: name.into_owned(), shape: Shape::File, stamp };
        let file = File::create_new(to).map_err(io_at("create", to))?;
        return pour(&tree, &node, file, to);
    }
    std::fs::create_dir(to).map_err(io_at("create directory", to))?;
    let (tree, copy) = (Tree::open(source)?, Tree::open(to)?);
    let nodes = entries(&tree, source, apart)?.unwrap_or_default();
    let clusters = clusters(&nodes);
    let copied: Vec<&Node> = nodes.iter().filter(|node| !is_below(&node.path, &clusters)).collect();
    for node in copied.iter().filter(|node| !node.path.is_empty()) {
        match &node.shape {
            // What is mounted in it comes by a mount of its own, or not at all.
            Shape::Directory | Shape::Mount => copy.make_directory(&node.path)?,
            Shape::Link(target) => copy.make_link(&node.path, target, &node.stamp)?,
            Shape::File => {
                let file = copy.write(&node.path)?;
                pour(&tree, node, file, &copy.at(&node.path))?;
            }
            Shape::Socket | Shape::Special(_) => {}
        }
    }
    for node in copied.iter().rev().filter(|node| node.shape == Shape::Directory) {
        copy.dress_directory(&node.path, &node.stamp)?;
    }
    Ok(())
}

/// Copies the files of a cluster's directory that its server reads its settings from: those of the
/// directory itself and of `conf.d`, by how their names end.
///
/// # Errors
/// [`RestorePointError::Io`] where they can't be read or written.
pub fn copy_settings(source: &Path, to: &Path) -> Result<()> {
    const ENDS: [&str; 4] = [".conf", ".crt", ".key", ".pem"];
    let (tree, copy) = (Tree::open(source)?, Tree::open(to)?);
    let nodes = tree.walk_within(MOST_ENTRIES, &|path| path == "conf.d")?.unwrap_or_default();
    for node in &nodes {
        let is_setting = ENDS.iter().any(|end| node.path.ends_with(end));
        match node.shape {
            Shape::Directory if node.path == "conf.d" => {
                copy.make_directory(&node.path)?;
                copy.dress_directory(&node.path, &node.stamp)?;
            }
            Shape::File if is_setting => {
                let file = copy.write(&node.path)?;
                file.set_len(0).map_err(io_at("empty", &copy.at(&node.path)))?;
                pour(&tree, node, file, &copy.at(&node.path))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes on disk that a directory and all below it take.
///
/// # Errors
/// [`RestorePointError::Io`] where it can't be read.
pub fn bytes_of(directory: &Path) -> Result<u64> {
    let nodes = Tree::open(directory)?.walk()?;
    Ok(nodes.iter().map(|node| node.stamp.size).sum())
}

fn entries(tree: &Tree, source: &Path, apart: &[PathBuf]) -> Result<Option<Vec<Node>>> {
    let apart: BTreeSet<&Path> =
        apart.iter().filter_map(|path| path.strip_prefix(source).ok()).collect();
    let is_entered = |relative: &str| !apart.contains(Path::new(relative));
    tree.walk_within(MOST_ENTRIES, &is_entered)
}

/// The directories of clusters among these.
fn clusters(nodes: &[Node]) -> Vec<&str> {
    let marks = nodes.iter().filter(|node| node.shape == Shape::File);
    marks
        .filter_map(|node| match node.path.rsplit_once('/') {
            Some((directory, CLUSTER)) => Some(directory),
            _ => None,
        })
        .collect()
}

fn is_below(path: &str, directories: &[&str]) -> bool {
    directories
        .iter()
        .any(|directory| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
}

fn pour(from: &Tree, node: &Node, mut file: File, to: &Path) -> Result<()> {
    let Some(source) = from.read(&node.path)? else { return Ok(()) };
    let mut source = source.take(node.stamp.size);
    std::io::copy(&mut source, &mut file).map_err(io_at("copy to", to))?;
    dress(&file, &node.stamp).map_err(io_at("set owner and mode of", to))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn mount() -> (tempfile::TempDir, PathBuf) {
        let host = tempfile::tempdir().expect("a directory");
        let source = host.path().canonicalize().expect("a path").join("payram");
        for directory in ["db/postgres/base", "db/postgres.failed-1-1/base", "keys"] {
            std::fs::create_dir_all(source.join(directory)).expect("a directory");
        }
        for cluster in ["db/postgres", "db/postgres.failed-1-1"] {
            std::fs::write(source.join(cluster).join("PG_VERSION"), "15\n").expect("a cluster");
            std::fs::write(source.join(cluster).join("base/1"), vec![0; 4096]).expect("rows");
        }
        let key = source.join("keys/keystore.json");
        std::fs::write(&key, "{}").expect("a key store");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("its mode");
        symlink("/etc/passwd", source.join("keys/link")).expect("a link");
        (host, source)
    }

    #[test]
    fn a_private_copy_has_the_files_and_no_cluster_and_follows_no_link() {
        let (host, source) = mount();
        let apart = [source.join("db/postgres")];
        let found = look_into(&source, &apart).expect("read");
        let link = "/etc/passwd".len() as u64;
        assert_eq!(found, Mounted::Directory { files: 2, bytes: 2 + link, special: None });
        let to = host.path().join("copy");
        copy_apart(&source, &to, &apart).expect("copied");
        let key = to.join("keys/keystore.json");
        assert_eq!(std::fs::read_to_string(&key).expect("the key store"), "{}");
        let mode = std::fs::metadata(&key).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let link = std::fs::read_link(to.join("keys/link")).expect("a link");
        assert_eq!(link, Path::new("/etc/passwd"));
        for empty in ["db/postgres", "db/postgres.failed-1-1"] {
            let held = std::fs::read_dir(to.join(empty)).expect("a directory").count();
            assert_eq!(held, 0, "{empty}");
        }
        assert!(bytes_of(&to).expect("read") > 0);
    }

    #[test]
    fn a_socket_or_a_pipe_anywhere_in_a_mount_is_seen() {
        let (_host, source) = mount();
        let _socket = UnixListener::bind(source.join("keys/.s")).expect("a socket");
        let found = look_into(&source, &[]).expect("read");
        assert!(
            matches!(&found, Mounted::Directory { special: Some(at), .. } if at == "keys/.s"),
            "{found:?}"
        );
        assert_eq!(look_into(&source.join("keys/.s"), &[]).expect("read"), Mounted::Special);
        let key = source.join("keys/keystore.json");
        assert_eq!(look_into(&key, &[]).expect("read"), Mounted::File(2));
        // In the database itself, which is not entered: that place is covered.
        std::fs::remove_file(source.join("keys/.s")).expect("removed");
        let _socket = UnixListener::bind(source.join("db/postgres/.s")).expect("a socket");
        let apart = [source.join("db/postgres")];
        let found = look_into(&source, &apart).expect("read");
        assert!(matches!(found, Mounted::Directory { special: None, .. }), "{found:?}");
    }

    #[test]
    fn a_clusters_settings_are_copied_and_nothing_else_of_it() {
        let (host, source) = mount();
        let cluster = source.join("db/postgres");
        std::fs::write(cluster.join("pg_hba.conf"), "host all all all scram-sha-256\n")
            .expect("a file");
        std::fs::write(cluster.join("server.key"), "key").expect("a file");
        let to = host.path().join("cluster");
        std::fs::create_dir(&to).expect("a directory");
        std::fs::write(
            to.join("pg_hba.conf"),
            "local all all trust # much longer than the other\n",
        )
        .expect("a file");
        copy_settings(&cluster, &to).expect("copied");
        let hba = std::fs::read_to_string(to.join("pg_hba.conf")).expect("a file");
        assert_eq!(hba, "host all all all scram-sha-256\n");
        let mut names: Vec<String> = std::fs::read_dir(&to)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["pg_hba.conf", "server.key"]);
    }
}
