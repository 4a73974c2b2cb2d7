//! The house is in order: no circles between its files, arrows between its rooms that point one
//! way, references that lead somewhere, words that were given up gone. Reads the tree as it is.

mod arrows;
mod contract;
mod references;
mod rooms;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository, by its path from the root.
pub struct Text {
    pub path: String,
    pub text: String,
}

/// The files below these directories that end so, in the order of their paths.
pub fn texts(directories: &[&str], endings: &[&str]) -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ahead: Vec<PathBuf> = directories.iter().map(|name| root.join(name)).collect();
    let mut found = Vec::new();
    while let Some(place) = ahead.pop() {
        if place.is_dir() {
            let entries = fs::read_dir(&place).expect("a directory");
            ahead.extend(entries.map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let path = place.strip_prefix(root).expect("below").display().to_string();
        if endings.iter().any(|ending| path.ends_with(ending)) {
            let text = fs::read_to_string(&place).expect("a text");
            found.push(Text { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}
