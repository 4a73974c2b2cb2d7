//! What a version is given in a rehearsal of what the shop's container has mounted (I14): the copy
//! in the place of the database, private copies of what is small and may be written, the rest
//! read-only; and an empty directory wherever a socket, a pipe or a device would be a way out.
//! Blocks: it reads and copies files.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::engine::mounts;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore_point::{Mounted, RestorePointError, copy_apart, look_into};
use crate::spec;

/// Bytes and files of one mount that are copied at most.
const MOST_BYTES: u64 = 256 << 20;
const MOST_FILES: u64 = 20_000;

/// The place of the database.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// In the container.
    pub inside: PathBuf,
    /// The same on this host.
    pub source: PathBuf,
}

/// What a version is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// In the form of `HostConfig.Mounts`.
    pub mounts: Vec<Value>,
    /// A sentence for each mount that it does not have as the shop has it.
    pub said: Vec<String>,
}

/// Bytes of all private copies that would be made.
pub(super) fn bytes_to_copy(container: &Value, home: &Home) -> u64 {
    let apart = [real(&home.source)];
    let mounted = container["Mounts"].as_array().into_iter().flatten();
    let sources = mounted.filter(|mount| mount["RW"].as_bool() != Some(false));
    let sources = sources.filter_map(|mount| mount["Source"].as_str());
    let size = |source: &str| match look_into(&real(Path::new(source)), &apart) {
        Ok(Mounted::Directory { files, bytes, .. }) if is_small(files, bytes) => bytes,
        Ok(Mounted::File(bytes)) if is_small(1, bytes) => bytes,
        Ok(_) | Err(_) => 0,
    };
    sources.filter(|source| source.starts_with('/')).map(size).sum()
}

/// Makes all of it below `set`, with `cluster` in the place of the database. `next` is the body of
/// the create request of the version that is tried.
///
/// # Errors
/// When it can't be made.
pub(super) fn give(
    container: &Value,
    next: &Value,
    home: &Home,
    (set, cluster): (&Path, &Path),
) -> Result<Given, Failure> {
    let mut giving =
        Giving { home, apart: [real(&home.source)], set, given: Given::default(), made: 0 };
    let mut known: Vec<String> = Vec::new();
    for mount in container["Mounts"].as_array().into_iter().flatten() {
        let Some(destination) = mount["Destination"].as_str() else { continue };
        known.push(destination.to_owned());
        // The database itself, or a part of it.
        if !Path::new(destination).starts_with(&home.inside) {
            giving.mount(mount, destination)?;
        }
    }
    // What the manifest adds to this version is new, and empty in the shop, too.
    for destination in spec::mounted_by_name(next) {
        let is_known = known.contains(&destination);
        if !is_known && !Path::new(&destination).starts_with(&home.inside) {
            giving.empty(&destination)?;
        }
    }
    let inside = home.inside.to_string_lossy();
    giving.bind(cluster, &inside, false);
    Ok(giving.given)
}

struct Giving<'g> {
    home: &'g Home,
    /// The live database.
    apart: [PathBuf; 1],
    set: &'g Path,
    given: Given,
    made: u32,
}

impl Giving<'_> {
    fn mount(&mut self, mount: &Value, destination: &str) -> Result<(), Failure> {
        if mount["Type"] == "tmpfs" {
            self.given.mounts.push(json!({"Type": "tmpfs", "Target": destination}));
            return Ok(());
        }
        let is_writable = mount["RW"].as_bool() != Some(false);
        let source = mount["Source"].as_str().filter(|source| source.starts_with('/'));
        let Some(source) = source.map(|source| real(Path::new(source))) else {
            self.say(destination, "is empty: it can't be looked at from this host");
            return self.empty(destination);
        };
        match look_into(&source, &self.apart) {
            Ok(Mounted::Special) => {
                self.say(destination, "is empty: it is a socket, a pipe or a device");
                self.empty(destination)
            }
            Ok(Mounted::TooMuch) => {
                self.say(destination, "is empty: it holds too much to be looked at");
                self.empty(destination)
            }
            Ok(Mounted::Directory { special: Some(at), .. }) => {
                self.say(
                    destination,
                    &format!("is empty: it holds a socket, a pipe or a device ({at})"),
                );
                self.empty(destination)
            }
            Ok(Mounted::File(bytes)) if is_writable && is_small(1, bytes) => {
                self.private(&source, destination)
            }
            Ok(Mounted::Directory { files, bytes, .. })
                if is_writable && is_small(files, bytes) =>
            {
                self.private(&source, destination)
            }
            Ok(Mounted::File(_) | Mounted::Directory { .. }) => {
                if is_writable {
                    self.say(destination, "can only be read: it is too large for a copy");
                }
                self.read_only(&source, destination)
            }
            Err(error) => {
                self.say(destination, &format!("is empty: {error}"));
                self.empty(destination)
            }
        }
    }

    fn private(&mut self, source: &Path, destination: &str) -> Result<(), Failure> {
        let to = self.next_path();
        copy_apart(source, &to, &self.apart).map_err(|error| failed(&error))?;
        self.bind(&to, destination, false);
        Ok(())
    }

    /// As it is; where the live database lies in it, something empty covers that.
    fn read_only(&mut self, source: &Path, destination: &str) -> Result<(), Failure> {
        self.bind(source, destination, true);
        let Ok(rest) = self.apart[0].strip_prefix(source).map(Path::to_owned) else {
            return Ok(());
        };
        let covered = Path::new(destination).join(rest);
        match covered == self.home.inside {
            true => Ok(()),
            false => self.empty(&covered.to_string_lossy()),
        }
    }

    fn empty(&mut self, destination: &str) -> Result<(), Failure> {
        let to = self.next_path();
        let made = std::fs::DirBuilder::new().mode(0o755).create(&to);
        made.map_err(|error| {
            let message = format!("create directory {}: {error}", to.display());
            Failure::new(FailureCode::RuntimeInspectionFailed, message)
        })?;
        self.bind(&to, destination, false);
        Ok(())
    }

    /// Without what is mounted below it on this host: that would come along writable.
    fn bind(&mut self, source: &Path, destination: &str, is_read_only: bool) {
        self.given.mounts.push(json!({
            "Type": "bind",
            "Source": source.to_string_lossy(),
            "Target": destination,
            "ReadOnly": is_read_only,
            "BindOptions": {"NonRecursive": true, "Propagation": "rprivate"},
        }));
    }

    fn next_path(&mut self) -> PathBuf {
        self.made += 1;
        self.set.join(format!("mount-{}", self.made))
    }

    fn say(&mut self, destination: &str, how: &str) {
        self.given.said.push(format!("{destination} {how}"));
    }
}

fn is_small(files: u64, bytes: u64) -> bool {
    files <= MOST_FILES && bytes <= MOST_BYTES
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn failed(error: &RestorePointError) -> Failure {
    let code = match error.is_disk_full() {
        true => FailureCode::DiskSpaceLow,
        false => FailureCode::RuntimeInspectionFailed,
    };
    Failure::new(code, format!("copy what the container has mounted: {error}"))
}

/// The place of the database of this container whose server works in `inside`; none where this host
/// does not reach it.
pub(super) fn home(container: &Value, inside: &str) -> Option<Home> {
    let inside = PathBuf::from(inside);
    let source = mounts::host_path(container, &inside)?;
    source.join("PG_VERSION").is_file().then_some(Home { inside, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Host {
        _keeps: tempfile::TempDir,
        root: PathBuf,
        set: PathBuf,
        home: Home,
    }

    /// W, which holds the database, as PayRam's own command mounts it.
    fn host(inside: &str) -> Host {
        let keeps = tempfile::tempdir().expect("a directory");
        let root = keeps.path().canonicalize().expect("a path");
        for directory in ["W/db/postgres", "W/keys", "set", "set/cluster", "sockets", "large"] {
            std::fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        std::fs::write(root.join("W/db/postgres/PG_VERSION"), "15\n").expect("a database");
        std::fs::write(root.join("W/keys/key"), "key").expect("a file");
        let home = Home { inside: inside.into(), source: root.join("W/db/postgres") };
        Host { set: root.join("set"), _keeps: keeps, root, home }
    }

    fn bind(source: &Path, destination: &str, is_writable: bool) -> Value {
        json!({"Type": "bind", "Source": source, "Destination": destination, "RW": is_writable})
    }

    fn given(host: &Host, mounts: Value, next: &Value) -> Given {
        let container = json!({"Mounts": mounts});
        let cluster = host.set.join("cluster");
        give(&container, next, &host.home, (&host.set, &cluster)).expect("given")
    }

    fn at<'g>(given: &'g Given, target: &str) -> &'g Value {
        let found = given.mounts.iter().find(|mount| mount["Target"] == target);
        found.unwrap_or_else(|| panic!("{target}: {:#?}", given.mounts))
    }

    fn source(given: &Given, target: &str) -> PathBuf {
        at(given, target)["Source"].as_str().expect("a source").into()
    }

    #[test]
    fn nothing_of_the_shops_can_be_written_and_the_copy_is_in_the_databases_place() {
        let host = host("/var/lib/payram/db/postgres");
        let nested = json!([
            bind(&host.root.join("W"), "/root/payram", true),
            bind(&host.root.join("W/db/postgres"), "/var/lib/payram/db/postgres", true),
            bind(&host.root.join("large"), "/srv/large", false),
        ]);
        let given = given(&host, nested, &json!({}));
        for mount in &given.mounts {
            let source = Path::new(mount["Source"].as_str().expect("a source"));
            assert!(mount["ReadOnly"] == true || source.starts_with(&host.set), "{mount}");
            assert_eq!(mount["BindOptions"]["NonRecursive"], true);
        }
        assert_eq!(source(&given, "/var/lib/payram/db/postgres"), host.set.join("cluster"));
        let private = source(&given, "/root/payram");
        assert_eq!(std::fs::read_to_string(private.join("keys/key")).expect("a copy"), "key");
        assert!(!private.join("db/postgres/PG_VERSION").exists(), "the database is not in it");
        assert_eq!(source(&given, "/srv/large"), host.root.join("large"));
    }

    #[test]
    fn a_mount_by_which_something_is_reached_is_empty() {
        let host = host("/db");
        let (sockets, pipe) = (host.root.join("sockets"), host.root.join("large/pipe"));
        let _socket = UnixListener::bind(sockets.join("docker.sock")).expect("a socket");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        let mounts = json!([
            bind(&sockets, "/run/docker", false),
            bind(&sockets.join("docker.sock"), "/var/run/docker.sock", true),
            bind(&host.root.join("large"), "/large", true),
            {"Type": "volume", "Name": "nfs", "Source": "", "Destination": "/far", "RW": true},
            {"Type": "tmpfs", "Source": "", "Destination": "/memory", "RW": true},
        ]);
        let given = given(&host, mounts, &json!({"HostConfig": {"Binds": ["new:/new"]}}));
        for target in ["/run/docker", "/var/run/docker.sock", "/large", "/far", "/new"] {
            let held = std::fs::read_dir(source(&given, target)).expect("a directory").count();
            assert_eq!(held, 0, "{target}");
        }
        assert_eq!(at(&given, "/memory")["Type"], "tmpfs");
        assert_eq!(given.said.len(), 4, "{:?}", given.said);
        assert!(given.said.iter().any(|line| line.contains("docker.sock")), "{:?}", given.said);
    }

    #[test]
    fn the_live_database_in_a_mount_that_can_only_be_read_is_covered() {
        let host = host("/elsewhere/db");
        let mounts = json!([bind(&host.root.join("W"), "/root/payram", false)]);
        let given = given(&host, mounts, &json!({}));
        assert_eq!(source(&given, "/root/payram"), host.root.join("W"));
        let cover = source(&given, "/root/payram/db/postgres");
        assert!(cover.starts_with(&host.set), "{}", cover.display());
        assert_eq!(bytes_to_copy(&json!({"Mounts": []}), &host.home), 0);
    }
}
