//! A path inside a make-believe container as a tar archive: what lies on a mount as it is, and
//! of the container's own files those that its release is said to have changed.
//!
//! Called by `route`. Pure but for the files that it reads; the format is POSIX ustar.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::answer::{Answer, Refusal};
use super::inspection::SERVER;
use super::scenario::{Changed, Release};
use crate::engine::mounts;

const BLOCK: usize = 512;

/// What a file holds that is only said to be there.
const MADE_UP: &[u8] = b"make-believe\n";

/// The archive of one path.
pub(super) fn archive(inspection: &Value, release: &Release, path: &str) -> Answer<Vec<u8>> {
    let id = inspection["Id"].as_str().unwrap_or_default();
    let missing = || Refusal::new(404, format!("Could not find the file {path} in container {id}"));
    let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "/".to_owned());
    let mut tar = Vec::new();
    match mounts::host_path(inspection, Path::new(path)) {
        Some(source) if !source.exists() => return Err(missing()),
        Some(source) => add(&mut tar, &name, &source)
            .map_err(|error| Refusal::new(500, format!("read {}: {error}", source.display())))?,
        // What every release has in its image.
        None if path == SERVER => {
            header(&mut tar, &name, b'0', 0o755, MADE_UP.len() as u64, 0);
            content(&mut tar, MADE_UP);
        }
        None => match release.changes.get(path) {
            Some(Changed::Added | Changed::Modified) => {
                header(&mut tar, &name, b'0', 0o644, MADE_UP.len() as u64, 0);
                content(&mut tar, MADE_UP);
            }
            Some(Changed::Deleted) | None => return Err(missing()),
        },
    }
    tar.extend([0; 2 * BLOCK]);
    Ok(tar)
}

fn add(tar: &mut Vec<u8>, name: &str, path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let (mode, time) = (metadata.mode() & 0o7777, metadata.mtime());
    if metadata.is_dir() {
        header(tar, &format!("{name}/"), b'5', mode, 0, time);
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let below = format!("{name}/{}", entry.file_name().to_string_lossy());
            match add(tar, &below, &entry.path()) {
                // A server at work removes files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                added => added?,
            }
        }
        return Ok(());
    }
    let bytes = fs::read(path)?;
    header(tar, name, b'0', mode, bytes.len() as u64, time);
    content(tar, &bytes);
    Ok(())
}

fn header(tar: &mut Vec<u8>, name: &str, kind: u8, mode: u32, size: u64, time: i64) {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        // Whoever makes a longer name in a make-believe shop gets its beginning.
        block.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
    };
    put(0, name.as_bytes().get(..100).unwrap_or(name.as_bytes()));
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\x000000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", time.max(0)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    block.iter_mut().skip(148).zip(sum.as_bytes()).for_each(|(place, byte)| *place = *byte);
    tar.extend(block);
}

fn content(tar: &mut Vec<u8>, bytes: &[u8]) {
    tar.extend(bytes);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_archive_is_one_that_tar_reads() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("db")).expect("a directory");
        fs::write(root.path().join("db/file"), "x".repeat(700)).expect("a file");
        let inspection = json!({"Id": "c", "Mounts": [
            {"Source": root.path().to_str(), "Destination": "/data"},
        ]});
        let changes = [("/opt/logo.png".to_owned(), Changed::Added)].into();
        let release = Release { changes, ..Release::default() };
        for (path, expected) in [("/data/db", "db/\ndb/file\n"), ("/opt/logo.png", "logo.png\n")] {
            let tar = archive(&inspection, &release, path).expect("an archive");
            let file = root.path().join("it.tar");
            fs::write(&file, tar).expect("written");
            let listed = std::process::Command::new("tar").arg("-tf").arg(&file).output();
            let listed = listed.expect("tar");
            assert_eq!(String::from_utf8_lossy(&listed.stdout), expected, "{listed:?}");
        }
        for path in ["/data/none", "/etc/passwd"] {
            let refused = archive(&inspection, &release, path).expect_err("nothing is there");
            assert_eq!(refused.status, 404);
        }
    }
}
