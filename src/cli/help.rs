//! `--help` of the program itself: every command in a group, on one screen of 24 lines.
//!
//! The groups are here, the commands in [`super::args`]: one that is in no group is named in the
//! last, so that none is missing. What a command knows, its own `--help` says.

use clap::{Command, CommandFactory};

use super::args::CommandLine;

/// Columns of a terminal that nobody made wider.
const WIDTH: usize = 80;

/// Columns before the commands of a group.
const INDENT: usize = 13;

/// Columns of a command's name, and of what it does.
const NAME: usize = 10;
const BRIEF: usize = 24;

/// What a person wants to do, and the commands for it.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Upgrade", &["versions", "dry-run", "rehearse", "run", "watch", "cancel"]),
    ("Look", &["status", "inspect", "logs", "history", "health"]),
    ("Put right", &["recover", "sync", "undo", "cleanup"]),
    ("Back up", &["backup"]),
    ("Set up", &["init", "config", "serve", "restart"]),
];

/// What a command does, in few enough words for its cell.
fn brief(name: &str) -> &'static str {
    match name {
        "versions" => "what can be installed",
        "dry-run" => "what run would do",
        "run" => "plan, ask, upgrade",
        "rehearse" => "try one on a copy",
        "watch" => "see one that runs",
        "cancel" => "undo one that runs",
        "status" => "the last upgrade",
        "inspect" => "this host; what to do",
        "logs" => "the log of an upgrade",
        "history" => "what happened",
        "health" => "does the daemon answer",
        "recover" => "see and fix a failure",
        "sync" => "what runs now is good",
        "undo" => "to the version before",
        "cleanup" => "remove old files",
        "backup" => "make, list, put back",
        "init" => "checks and auto-update",
        "config" => "the settings",
        "serve" => "the daemon",
        "restart" => "the daemon, again",
        _ => "",
    }
}

const HEAD: &str = "\
Upgrades a self-hosted PayRam: ends verified, or exactly where it was before

Usage: payram-updater [OPTIONS] [COMMAND]      (without a command: serve)
";

const FOOT: &str = "
Options:     --json, --text  JSON in a pipe and text on a terminal, or so always
             -h, --help      this, or that of a command; -V, --version
Exit codes:  0  done                        3  the daemon can't be reached
             1  failed or refused           4  rolled back: the old one serves
             2  usage, or nobody to ask     5  needs an operator
";

/// The command line, with this help.
pub(super) fn command() -> Command {
    let command = CommandLine::command();
    let text = text(&command);
    command.override_help(text)
}

fn text(command: &Command) -> String {
    let names: Vec<&str> = command
        .get_subcommands()
        .filter(|next| !next.is_hide_set())
        .map(Command::get_name)
        .collect();
    let mut text = HEAD.to_owned();
    text.push('\n');
    for (heading, group) in GROUPS {
        let there: Vec<&str> = group.iter().copied().filter(|name| names.contains(name)).collect();
        add(&mut text, heading, &there);
    }
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, group)| group.contains(&name));
    let others: Vec<&str> = names.into_iter().filter(|name| !is_grouped(name)).collect();
    let more = [&others[..], &["help"]].concat().join(", ");
    for (at, line) in super::screen::wrap(&more, WIDTH - INDENT).iter().enumerate() {
        text.push_str(&format!("{:<INDENT$}{line}\n", if at == 0 { "More" } else { "" }));
    }
    text + FOOT
}

/// A group: two commands on a line, each with what it does.
fn add(text: &mut String, heading: &str, names: &[&str]) {
    for (at, pair) in names.chunks(2).enumerate() {
        let mut line = format!("{:<INDENT$}", if at == 0 { heading } else { "" });
        for name in pair {
            line.push_str(&format!("{name:<NAME$}{:<BRIEF$}", brief(name)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_a_screen_and_names_every_command() {
        let command = CommandLine::command();
        let text = text(&command);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 23, "{} lines, and one for the prompt:\n{text}", lines.len());
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
        assert!(widest <= WIDTH, "{widest}:\n{text}");
        let words: Vec<&str> =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        for next in command.get_subcommands() {
            let is_named = words.contains(&next.get_name());
            assert_eq!(is_named, !next.is_hide_set(), "{}:\n{text}", next.get_name());
        }
    }
}
