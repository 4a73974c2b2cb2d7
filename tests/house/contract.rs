//! The tables of `docs/contract.md` and `docs/settings.md` are the program's own.

use std::process::Command;

use serde_json::Value;

const CONTRACT: &str = include_str!("../../docs/contract.md");
const SETTINGS: &str = include_str!("../../docs/settings.md");

/// What the program says, without a setting.
fn said(arguments: &[&str]) -> String {
    let place = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_payram-updater"))
        .args(arguments)
        .env_clear()
        .current_dir(place.path())
        .output()
        .expect("the program");
    String::from_utf8(output.stdout).expect("text")
}

/// The cells of the rows below a heading that begin so.
fn rows<'d>(document: &'d str, heading: &str, beginning: &str) -> Vec<Vec<&'d str>> {
    let (_, part) = document.split_once(&format!("\n## {heading}")).expect("the heading");
    let part = part.split("\n## ").next().unwrap_or_default();
    let lines = part.lines().filter(|line| line.starts_with(beginning));
    lines
        .map(|line| {
            line.trim_matches('|').split(" | ").map(|it| it.trim_matches([' ', '`'])).collect()
        })
        .collect()
}

#[test]
fn every_endpoint_is_in_the_contract_with_who_may_ask() {
    let routes = include_str!("../../src/api/routes.rs");
    let (_, table) = routes.split_once("const ROUTES").expect("the table");
    let table = table.split("];").next().unwrap_or_default();
    let lines = table.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let expected: Vec<(String, String)> = lines
        .map(|line| {
            let (path, rest) = line.split_once("\", ").expect("a path");
            (rest.split(',').next().unwrap_or_default().to_owned(), path.to_owned())
        })
        .collect();
    let written = rows(CONTRACT, "1. ", "| GET").into_iter().chain(rows(CONTRACT, "1. ", "| POST"));
    let mut written: Vec<(String, String)> =
        written.map(|cells| (cells[0].to_owned(), cells[1].to_owned())).collect();
    let mut expected = expected;
    expected.sort();
    written.sort();
    assert!(expected.len() > 20, "{expected:?}");
    assert_eq!(written, expected);
    // What has no effect over TCP says so where it is answered.
    let api = include_str!("../../API.md");
    for cells in rows(CONTRACT, "1. ", "| POST") {
        let is_sockets = api.contains(&format!("`POST {}` (socket)", cells[1]));
        assert_eq!(cells[2] == "socket", is_sockets, "{}", cells[1]);
    }
}

#[test]
fn the_words_of_the_history_are_in_the_contract() {
    let list = |words: &[&str]| {
        words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    };
    let types = format!("Types of history events: {}.", list(&payram_updater::history::TYPES));
    let statuses = format!("Statuses: {}.", list(&payram_updater::history::STATUSES));
    assert!(CONTRACT.contains(&types), "{types}");
    assert!(CONTRACT.contains(&statuses), "{statuses}");
}

/// Names of a part of a help text: what begins its lines.
fn named(help: &str, heading: &str) -> Vec<String> {
    let part = help.split(heading).nth(1).unwrap_or_default();
    let part = part.split("\n\n").next().unwrap_or_default();
    let words = part.lines().filter_map(|line| line.split_whitespace().next());
    words.filter(|word| *word != "help").map(str::to_owned).collect()
}

/// The long flags of a command but those that every one has, sorted.
fn flags(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.filter_map(|line| line.split_whitespace().find(|it| it.starts_with("--")));
    let everywhere = ["--json", "--text", "--help", "--version"];
    let mut all: Vec<String> = words
        .map(|it| it.trim_end_matches(',').to_owned())
        .filter(|it| !everywhere.contains(&&**it))
        .collect();
    all.sort();
    all
}

#[test]
fn every_command_is_in_the_contract_with_its_flags() {
    // The manual page has every command as a heading of its own.
    let manual = said(&["man"]);
    let mut expected = Vec::new();
    for line in manual.lines().filter_map(|line| line.strip_prefix(".SS ")) {
        let name = line.trim_matches('"').replace("\\-", "-");
        let name = name.strip_prefix("payram-updater ").unwrap_or(&name).to_owned();
        let words: Vec<&str> = name.split_whitespace().collect();
        let help = said(&[&words[..], &["--help"]].concat());
        if !named(&help, "Commands:\n").is_empty() {
            continue;
        }
        expected.push(format!("| `{name}` | {} |", flags(&help).join(" ")));
    }
    expected.sort();
    let (_, part) = CONTRACT.split_once("\n| Command | Flags |\n|---|---|\n").expect("the table");
    let mut written: Vec<String> =
        part.lines().take_while(|line| line.starts_with('|')).map(str::to_owned).collect();
    written.sort();
    assert!(expected.len() > 20, "{expected:#?}");
    assert_eq!(written, expected, "{}", expected.join("\n"));
}

#[test]
fn the_exit_codes_of_the_contract_are_those_of_the_help() {
    let manual = said(&["man"]);
    let rows = rows(CONTRACT, "7. ", "| ");
    let codes: Vec<&Vec<&str>> =
        rows.iter().filter(|cells| cells[0].starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(codes.len(), 7);
    for cells in codes {
        let is_said = manual
            .lines()
            .any(|line| line.contains(cells[1].split(';').next().unwrap_or_default()));
        assert!(is_said, "{}: {}", cells[0], cells[1]);
    }
}

#[test]
fn every_setting_is_in_the_document_with_what_it_may_be() {
    let answer: Value = serde_json::from_str(&said(&["config", "--json"])).expect("JSON");
    let mut checked = 0;
    for one in answer["settings"].as_array().expect("settings") {
        let text = |name: &str| one[name].as_str().unwrap_or_default().replace('|', "\\|");
        let default = match (one["key"].as_str(), one["default"].as_str()) {
            (Some("POLICY_URL" | "RUNTIME_MANIFEST_URL"), _) => "required".to_owned(),
            (_, Some(default)) => format!("`{default}`"),
            (_, None) => String::new(),
        };
        let row =
            format!("| `{}` | {default} | {} | {} |", text("key"), text("allowed"), text("about"));
        assert!(SETTINGS.contains(&row), "docs/settings.md lacks: {row}");
        checked += 1;
    }
    let written = SETTINGS.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(written, checked, "rows of settings that are none");
}
