//! Script files that units, crontabs and shells run, read for their container commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::commands::{self, Command};

/// The greatest script that is read.
const LARGEST: u64 = 256 * 1024;

/// How deep scripts that run scripts are followed.
const DEEPEST: usize = 3;

/// The text of a file; none for what is none, is too large or can't be read.
pub(super) fn text(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    // A program.
    if bytes.starts_with(b"\x7fELF") || bytes.contains(&0) {
        return None;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The container commands of these scripts, and of those that they run.
pub(super) fn commands(
    root: &Path,
    scripts: &[String],
    variables: &BTreeMap<String, String>,
) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut ahead: Vec<(PathBuf, usize)> =
        scripts.iter().map(|script| (below(root, script), 1)).collect();
    let mut seen = Vec::new();
    while let Some((path, depth)) = ahead.pop() {
        if depth > DEEPEST || seen.contains(&path) || !is_script(&path) {
            continue;
        }
        let found = text(&path).map(|text| commands::read(&text, variables));
        seen.push(path);
        if let Some(found) = found {
            commands.extend(found.commands);
            ahead.extend(found.scripts.iter().map(|script| (below(root, script), depth + 1)));
        }
    }
    commands
}

/// Whether a file is one that a shell would run, and not one that is only named.
fn is_script(path: &Path) -> bool {
    let is_shell = path.extension().is_some_and(|end| end == "sh" || end == "bash");
    is_shell || text(path).is_some_and(|text| text.starts_with("#!"))
}

pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
