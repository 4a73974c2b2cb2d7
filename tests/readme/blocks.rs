//! The document's blocks of commands: what is typed, and what is shown for it.

/// A command of the document.
#[derive(Debug)]
pub struct Typed {
    /// The heading that it stands below.
    pub section: String,
    /// One line, whatever lines it has in the document; without its comment.
    pub line: String,
    /// What is shown below it; none where nothing is.
    pub shown: Option<String>,
}

/// Every command of the blocks of a document, in its order.
///
/// # Panics
/// When a block is of another language than `sh` (commands) and `console` (`$ ` before each
/// command, its output below it).
pub fn commands(document: &str) -> Vec<Typed> {
    let mut all = Vec::new();
    let mut section = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ").or(line.strip_prefix("### ")) {
            section = heading.to_owned();
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match language {
            "sh" => all.extend(joined(&block).map(|line| Typed {
                section: section.clone(),
                line,
                shown: None,
            })),
            "console" => all.extend(shown(&block).map(|(line, shown)| Typed {
                section: section.clone(),
                line,
                shown: Some(shown),
            })),
            other => panic!("a block of README.md is {other:?}: neither sh nor console"),
        }
    }
    all
}

/// Commands of which one may have several lines.
fn joined(block: &[&str]) -> impl Iterator<Item = String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block {
        let line = line.split("  #").next().unwrap_or_default().trim();
        if goes_on {
            let last = all.last_mut().expect("the line before");
            last.push(' ');
            last.push_str(line);
        } else if !line.is_empty() {
            all.push(line.to_owned());
        }
        goes_on = line.ends_with('|');
    }
    all.into_iter()
}

/// Commands behind `$ `, each with the lines below it.
fn shown(block: &[&str]) -> impl Iterator<Item = (String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push((command.to_owned(), String::new()));
        } else {
            let (_, output) = all.last_mut().expect("a console block begins with a command");
            output.push_str(line);
            output.push('\n');
        }
    }
    all.into_iter()
}

/// What stands between backticks in the text and begins with the program's name.
pub fn inline(document: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut is_prose = true;
    for line in document.lines() {
        if line.starts_with("```") {
            is_prose = !is_prose;
        } else if is_prose {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    let words = spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
    words.filter(|span| program_words(span).is_some()).collect()
}

/// The arguments of a line that calls the program.
pub fn program_words(line: &str) -> Option<Vec<&str>> {
    let mut words = line.split_whitespace().skip_while(|word| *word == "sudo");
    (words.next() == Some("payram-updater")).then(|| words.collect())
}

/// The same for what is written and what comes: numbers, times, dates and ids are `#`, and where
/// lines break and columns begin does not matter. Versions are no numbers here.
pub fn without_what_varies(text: &str) -> String {
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Each run of letters, digits and the signs inside of numbers, with `#` where it holds a digit and
/// is not a version. Of a job's id the parts may be letters alone.
fn word(word: &str) -> String {
    if let Some(id) = word.strip_prefix("job-") {
        let after = id.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-');
        return format!("job-#{after}");
    }
    let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_');
    let mut all = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let core = part.trim_end_matches(['.', ':']);
        all.push_str(if is_version(core) || !core.bytes().any(|b| b.is_ascii_digit()) {
            core
        } else {
            "#"
        });
        all.push_str(&part[core.len()..]);
        let sign = after.chars().next();
        all.extend(sign);
        rest = &after[sign.map_or(0, char::len_utf8)..];
    }
    all
}

/// Three numbers with dots.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u16>().is_ok())
}

#[test]
fn a_document_is_parted_into_what_is_typed_and_what_is_shown() {
    let document = "## One\n```sh\na |\n    b  # c\n\nd\n```\n`payram-updater run\n--to 1.9.7`\n\
        ### Two\n```console\n$ x\n1\n2\n$ y\n```\n";
    let all = commands(document);
    let seen: Vec<_> =
        all.iter().map(|it| (&*it.section, &*it.line, it.shown.as_deref())).collect();
    let expected = [
        ("One", "a | b", None),
        ("One", "d", None),
        ("Two", "x", Some("1\n2\n")),
        ("Two", "y", Some("")),
    ];
    assert_eq!(seen, expected);
    assert_eq!(inline(document), ["payram-updater run --to 1.9.7"]);
    let varies = "12:01:02 at 0.5 s:  1.9.7, job-0198a3-adde, 82.97 GB; 3.";
    assert_eq!(without_what_varies(varies), "# at # s: 1.9.7, job-#, # GB; #.");
    assert_ne!(without_what_varies("2 rows"), without_what_varies("2 row"));
}
