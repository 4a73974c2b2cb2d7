//! One word for one thing: the words that `docs/glossary.md` says were given up are in no code,
//! document or sentence that a person is shown.

use crate::texts;

/// The list of the glossary: what was given up, and what is said now.
fn given_up() -> Vec<(&'static str, &'static str)> {
    let glossary = include_str!("../../docs/glossary.md");
    let (_, list) = glossary.split_once("## Words given up").expect("the list");
    let rows = list.lines().filter_map(|line| line.strip_prefix("| "));
    let pairs = rows.filter_map(|row| row.split_once(" | "));
    let pairs = pairs.filter(|(old, _)| !old.starts_with("given up") && !old.starts_with('-'));
    pairs.map(|(old, new)| (old.trim_matches('`'), new.trim_end_matches(" |"))).collect()
}

/// Whether a text has these words, not as a part of others.
fn has(text: &str, words: &str) -> bool {
    let is_inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(words).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + words.len()..]);
        !is_inside(before.chars().next_back()) && !is_inside(after.chars().next())
    })
}

#[test]
fn the_words_given_up_are_gone() {
    let words = given_up();
    assert!(words.len() >= 10, "{words:?}");
    let mut files = texts(&["src", "tests", "benches", "docs"], &[".rs", ".sh", ".md", ".json"]);
    files.extend(texts(&["packaging", "statecharts"], &[".sh", ".service", ".example", ".scxml"]));
    files.extend(texts(&["README.md", "API.md", "CHANGELOG.md"], &[".md"]));
    let mut found = Vec::new();
    for file in files {
        // The list itself, and what says the words in order to find them.
        if file.path == "docs/glossary.md" || file.path.starts_with("tests/house/") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let small = line.to_lowercase();
            for (old, new) in words.iter().filter(|(old, _)| has(&small, old)) {
                found.push(format!("{}:{}: {old}: say {new}", file.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_word_given_up_is_found_where_it_stands_alone() {
    assert!(has("it is called off.", "called off") && !has("is recalled offline", "called off"));
    assert!(!has("mended", "mend"));
}
