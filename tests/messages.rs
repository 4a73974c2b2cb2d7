//! Every sentence that the product says, in one list, to be read through as somebody does who has
//! never seen it: `cargo test --test messages -- --nocapture`. What can be judged without a reader
//! is judged here: words that make one stumble, spaces, commands that there are not, and lines that
//! a terminal of 80 columns would break.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Columns of a terminal.
const COLUMNS: usize = 80;

/// Words that a reader stumbles over, each with the one that is used instead (docs/glossary.md).
const STUMBLES: &[(&str, &str)] = &[
    ("mend", "fix"),
    ("mended", "fixed"),
    ("mends", "fixes"),
    ("call off", "cancel"),
    ("called off", "cancelled"),
    ("calling off", "cancelling"),
    ("calls off", "cancels"),
    ("gone to", "upgraded to"),
    ("all the same", "anyway"),
    ("take the setting over", "apply the setting"),
    ("turned round", "went back"),
    ("could not be had", "could not be fetched"),
    ("forget that", "drop these changes"),
    ("nobody reads this", "output closed"),
];

/// A text in the sources that a person may read.
struct Message {
    file: String,
    line: usize,
    text: String,
}

#[test]
fn every_message_reads_well_as_far_as_a_program_can_tell() {
    let messages = messages();
    let mut file = "";
    for message in &messages {
        if message.file != file {
            file = &message.file;
            println!("\n## {file}");
        }
        println!("{:>4}  {}", message.line, message.text.replace('\n', "\n      "));
    }
    assert!(messages.len() > 1_500, "only {} messages were found", messages.len());
    let mut found = Vec::new();
    for message in &messages {
        let mut wrong = |what: &str| {
            found.push(format!("{}:{}: {what}: {:?}", message.file, message.line, message.text));
        };
        let words = format!(" {} ", spaced(&message.text));
        for (stumble, better) in STUMBLES {
            if words.contains(&format!(" {} ", spaced(stumble))) {
                wrong(&format!("say {better:?} for {stumble:?}"));
            }
        }
        if is_running_text(&message.text) && message.text.trim().contains("  ") {
            wrong("two spaces");
        }
        if message.text.contains(" ,") || message.text.contains(" . ") {
            wrong("a space before a stop");
        }
        // The manual's lines are filled by its reader.
        let is_screen = message.file.starts_with("src/cli")
            && !message.file.contains("/demo/")
            && !message.file.ends_with("/man.rs");
        let is_page = message.text.lines().count() > 1 && !message.text.contains('{');
        if is_screen && is_page && !message.text.starts_with('#') {
            for line in message.text.lines().filter(|line| line.chars().count() > COLUMNS) {
                wrong(&format!("a line of {} columns", line.chars().count()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_command_that_a_message_names_is_there() {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for message in messages() {
        for rest in message.text.split("payram-updater ").skip(1) {
            let word: String =
                rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            // What stands before it is a path or a name, or a word of the sentence follows.
            let is_command = !word.is_empty() && !word.starts_with('-');
            let is_sentence = ["has", "works", "starts", "command", "is", "knows", "makes"];
            if is_command && !is_sentence.contains(&word.as_str()) {
                named.entry(word).or_insert(format!("{}:{}", message.file, message.line));
            }
        }
    }
    assert!(named.len() > 15, "{named:?}");
    let known = |word: &str| {
        let asked = Command::new(env!("CARGO_BIN_EXE_payram-updater"))
            .args([word, "--help"])
            .output()
            .expect("the product starts");
        asked.status.success()
    };
    assert!(!known("mend"), "a command that is not there is not known");
    let missing: Vec<_> = named.iter().filter(|(word, _)| !known(word)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// In lower case, with a space in the place of everything that is no letter.
fn spaced(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' })
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Not a table, a screen or the beginning of one.
fn is_running_text(text: &str) -> bool {
    !text.contains(['\n', '│', '║', '…', '⚠']) && !text.contains("{:")
        // A command with a comment behind it, a label with its value.
        && !text.contains("  #")
        && !text.contains("   ")
        && !text.contains(":  ")
}

/// All of them, in the order of the files.
fn messages() -> Vec<Message> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut all = Vec::new();
    for path in files {
        let file = path.strip_prefix(root).expect("below it").display().to_string();
        let text = fs::read_to_string(&path).expect("a source file");
        // Helpers of tests, and what the make-believe engine says to its own clients.
        let is_told = !file.contains("tests")
            && !file.ends_with("/fake.rs")
            && !file.contains("/testing.rs")
            && !file.starts_with("src/sandbox");
        if !is_told {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (line, text) in literals(product) {
            if is_sentence(&text) {
                all.push(Message { file: file.clone(), line, text });
            }
        }
        // Help is written as documentation of the command line.
        if file == "src/cli/args.rs" {
            all.extend(product.lines().zip(1..).filter_map(|(text, line)| {
                let text = text.trim_start().strip_prefix("/// ")?.to_owned();
                Some(Message { file: file.clone(), line, text })
            }));
        }
    }
    let playbooks = root.join("src/plan/playbooks.json");
    let text = fs::read_to_string(&playbooks).expect("the playbooks");
    let told = literals(&text).into_iter().filter(|(_, text)| is_sentence(text));
    let file = "src/plan/playbooks.json".to_owned();
    all.extend(told.map(|(line, text)| Message { file: file.clone(), line, text }));
    all
}

/// The files of the product, sorted.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Three words or more, and no statement of a database or a shell's script.
fn is_sentence(text: &str) -> bool {
    let words = text.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic));
    let is_code = [
        "select ",
        "insert ",
        "update ",
        "create ",
        "alter ",
        "set ",
        "with ",
        "do $",
        "drop ",
        "begin",
        "pragma ",
        "#compdef",
        "_payram",
        "<",
        "text{",
        "while read",
        "timeout ",
    ];
    let start = text.trim_start().to_lowercase();
    let has_statement = text.contains(" from pg_")
        || text.contains("pg_terminate")
        || text.contains("current_setting(");
    words.count() >= 3 && !has_statement && !is_code.iter().any(|code| start.starts_with(code))
}

/// The string literals of a file, with their lines.
fn literals(source: &str) -> Vec<(usize, String)> {
    let bytes: Vec<char> = source.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    let starts = |at: usize, text: &str| {
        text.chars().enumerate().all(|(offset, c)| bytes.get(at + offset) == Some(&c))
    };
    while let Some(&c) = bytes.get(at) {
        if starts(at, "//") {
            while bytes.get(at).is_some_and(|c| *c != '\n') {
                at += 1;
            }
            continue;
        }
        if c == '\'' {
            // A character, and no lifetime.
            let end = if bytes.get(at + 1) == Some(&'\\') { at + 3 } else { at + 2 };
            let end = (end..end + 8).find(|end| bytes.get(*end) == Some(&'\''));
            let is_character = bytes.get(at + 1) == Some(&'\\') || bytes.get(at + 2) == Some(&'\'');
            at = end.filter(|_| is_character).map_or(at + 1, |end| end + 1);
            continue;
        }
        let hashes = bytes.iter().skip(at + 1).take_while(|c| **c == '#').count();
        let is_raw = c == 'r' && bytes.get(at + 1 + hashes) == Some(&'"');
        if is_raw {
            let begins = at + 2 + hashes;
            let end = format!("\"{}", "#".repeat(hashes));
            let ends = (begins..bytes.len()).find(|at| starts(*at, &end)).expect("it is closed");
            found.push((line, bytes[begins..ends].iter().collect()));
            line += bytes[at..ends].iter().filter(|c| **c == '\n').count();
            at = ends + end.chars().count();
            continue;
        }
        if c == '"' {
            let (began, mut text) = (line, String::new());
            at += 1;
            while let Some(&c) = bytes.get(at).filter(|c| **c != '"') {
                at += 1;
                line += usize::from(c == '\n');
                if c != '\\' {
                    text.push(c);
                    continue;
                }
                let escaped = bytes.get(at).copied().unwrap_or_default();
                at += 1;
                match escaped {
                    '\n' => {
                        line += 1;
                        while bytes.get(at).is_some_and(|c| c.is_whitespace()) {
                            line += usize::from(bytes[at] == '\n');
                            at += 1;
                        }
                    }
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                }
            }
            found.push((began, text));
        }
        line += usize::from(c == '\n');
        at += 1;
    }
    found
}
