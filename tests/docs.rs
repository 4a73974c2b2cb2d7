//! What the documents name is there: every invariant that the code refers to is explained, and every
//! path that they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const INVARIANTS: &str = include_str!("../docs/invariants.md");

/// Files below a directory of the repository, with this ending.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut ahead, mut found) = (vec![root.join(directory)], Vec::new());
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            match entry.path() {
                path if path.is_dir() => ahead.push(path),
                path if path.to_string_lossy().ends_with(ending) => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// `I` with one or two digits, as words of their own.
fn invariants(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_one = |word: &&str| {
        let number = word.strip_prefix('I').unwrap_or_default();
        matches!(number.len(), 1 | 2) && number.bytes().all(|b| b.is_ascii_digit())
    };
    words.filter(is_one).map(str::to_owned).collect()
}

/// What stands between backticks in a document.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|quoted| !quoted.contains('\n')).collect()
}

#[test]
fn every_invariant_that_the_code_refers_to_is_explained() {
    let explained: BTreeSet<String> = INVARIANTS
        .lines()
        .filter_map(|line| line.strip_prefix("| I"))
        .filter_map(|rest| Some(format!("I{}", rest.split(' ').next()?)))
        .collect();
    assert!(explained.len() >= 16, "{explained:?}");
    let mut missing = Vec::new();
    for path in ["src", "tests"].iter().flat_map(|directory| files(directory, ".rs")) {
        let text = fs::read_to_string(&path).expect("a source file");
        for one in invariants(&text).difference(&explained) {
            missing.push(format!("{}: {one}", path.display()));
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_path_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files("docs", ".md");
    documents.extend(["README.md", "API.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let (mut checked, mut missing) = (0, Vec::new());
    for document in documents {
        let text = fs::read_to_string(&document).expect("a document");
        for named in quoted(&text) {
            let is_path = ["src/", "tests/", "docs/", "statecharts/", "migrations/", "benches/"]
                .iter()
                .any(|room| named.starts_with(room));
            if !is_path || named.contains([' ', '*', '…']) {
                continue;
            }
            checked += 1;
            if !root.join(named).exists() {
                missing.push(format!("{}: {named}", document.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(checked > 40, "only {checked} paths were found");
}
