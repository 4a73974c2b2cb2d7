//! What comments and documents refer to is there: sections of the contract and of the design, files
//! that are named, tests that hold an invariant.

use std::collections::BTreeMap;
use std::path::Path;

use crate::texts;

/// Numbers of the `## N.` headings of a document.
fn sections(document: &str) -> Vec<u32> {
    let headings = document.lines().filter_map(|line| line.strip_prefix("## "));
    headings.filter_map(|heading| heading.split('.').next()?.parse().ok()).collect()
}

/// A text as one line, without the signs of comments.
fn flat(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !matches!(*word, "//!" | "///" | "//" | "#"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_section_that_is_referred_to_is_there() {
    let documents = BTreeMap::from([
        ("contract", sections(include_str!("../../docs/contract.md"))),
        ("design", sections(include_str!("../../docs/design.md"))),
    ]);
    assert!(documents.values().all(|numbers| numbers.len() > 4), "{documents:?}");
    let (mut checked, mut nowhere) = (0, Vec::new());
    for file in texts(&["src", "tests", "benches", "packaging", "docs"], &[".rs", ".sh", ".md"]) {
        let text = flat(&file.text);
        for (document, numbers) in &documents {
            let named = [format!("{document} section"), format!("{document}.md section")];
            for part in named.iter().flat_map(|name| text.split(name.as_str()).skip(1)) {
                // `section 1`, `sections 1 and 3`, `sections 1, 3`
                let rest = part.trim_start_matches('s').trim_start();
                let digits = |c: char| c.is_ascii_digit() || ", and".contains(c);
                let list: String = rest.chars().take_while(|c| digits(*c)).collect();
                for word in list.split(|c: char| !c.is_ascii_digit()).filter(|it| !it.is_empty()) {
                    checked += 1;
                    if !word.parse().is_ok_and(|number| numbers.contains(&number)) {
                        nowhere.push(format!("{}: {document} section {word}", file.path));
                    }
                }
            }
        }
    }
    assert_eq!(nowhere, Vec::<String>::new());
    println!("{checked} references to sections, all there");
    assert!(checked > 30, "only {checked} references were found");
}

#[test]
fn every_invariant_names_tests_that_are_there_and_speak_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = include_str!("../../docs/invariants.md");
    let rows = table.lines().filter(|line| line.starts_with("| I"));
    let mut checked = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (number, held_by) = (cells[1], cells[3]);
        let named: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || held_by.starts_with("nothing yet"), "{number}: {held_by}");
        for name in named.iter().filter(|name| !name.contains("::")) {
            let place = match name.starts_with("tests/") {
                true => root.join(name),
                false => root.join("src").join(name),
            };
            let is_there = place.exists() || place.with_extension("rs").exists();
            assert!(is_there, "{number} is held by {name}, which is not there");
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} tests are named");
}

/// Paths as comments write them: `src/machine`, `tests/fixtures/payram-image`.
#[test]
fn every_path_that_a_comment_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rooms =
        ["src/", "tests/", "docs/", "statecharts/", "migrations/", "benches/", "packaging/"];
    let (mut checked, mut nowhere) = (0, Vec::new());
    for file in texts(&["src", "tests", "benches"], &[".rs", ".sh"]) {
        for line in file.text.lines() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            let is_inside = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            for word in comment.split(|c: char| !is_inside(c)) {
                let word = word.trim_end_matches(['.', '/']);
                if !rooms.iter().any(|room| word.starts_with(room)) {
                    continue;
                }
                checked += 1;
                // Of PostgreSQL's own sources, and what a release makes.
                let elsewhere = ["src/include/", "src/backend/", "packaging/build"];
                let is_ours = !elsewhere.iter().any(|it| word.starts_with(it));
                if is_ours && !root.join(word).exists() {
                    nowhere.push(format!("{}: {word}", file.path));
                }
            }
        }
    }
    assert_eq!(nowhere, Vec::<String>::new());
    assert!(checked > 10, "only {checked} paths were found");
}
