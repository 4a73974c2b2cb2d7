//! `man`: the manual page in roff, made from the command line's own definition.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::args::{CommandLine, EXIT_CODES};
use crate::config::{Sources, Survey};

/// The page, for `man -l -`.
pub(super) fn page() -> String {
    let mut command = CommandLine::command();
    command.build();
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    say(&mut page, &format!(".TH PAYRAM-UPDATER 8 \"\" \"payram-updater {version}\""));
    say(&mut page, ".SH NAME\npayram-updater \\- upgrade a self-hosted PayRam");
    say(&mut page, ".SH SYNOPSIS\n.B payram-updater\n[\\-\\-json] [COMMAND]");
    say(&mut page, ".SH DESCRIPTION");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    say(&mut page, &format!("{}.", escaped(&about)));
    say(&mut page, "Without a command it is the daemon. Text on a terminal, JSON otherwise.");
    say(&mut page, ".SH OPTIONS");
    options(&mut page, &command);
    say(&mut page, ".SH COMMANDS");
    commands(&mut page, &command, "");
    say(&mut page, ".SH EXIT STATUS\n.nf");
    EXIT_CODES.lines().skip(1).for_each(|code| say(&mut page, &escaped(code)));
    say(&mut page, ".fi");
    say(&mut page, ".SH ENVIRONMENT");
    say(&mut page, &escaped(WHERE));
    // Of no source: each setting with its default.
    for one in Survey::from_sources(&Sources { environment: &|_| None, files: Vec::new() }).settings
    {
        let default = one.default.map(|default| format!(" ({default})")).unwrap_or_default();
        say(
            &mut page,
            &format!(".TP\n.B {}{}\n{}", escaped(one.key), escaped(&default), escaped(&one.about)),
        );
    }
    say(&mut page, ".SH FILES");
    pairs(&mut page, FILES);
    say(&mut page, ".SH EXAMPLES");
    for (command, what) in EXAMPLES {
        say(&mut page, &format!("{}\n.PP\n.RS\n.B {}\n.RE\n.PP", escaped(what), escaped(command)));
    }
    page
}

const WHERE: &str = "\
Settings come from the environment, then from .env in the working directory, then from
/etc/payram/updater.env. A bad value stops the start and says what is allowed.";

const FILES: &[(&str, &str)] = &[
    ("/etc/payram/updater.env", "Settings, KEY=value."),
    ("STATE_DIR/journal.db", "The journal: everything that was done. Never deleted by itself."),
    ("STATE_DIR/updater-config.json", "Whether this host updates by itself; written by init."),
    ("STATE_DIR/specs", "How to make again the containers of the last upgrade. Holds secrets."),
    ("BACKUP_DIR/payram-backup-*.dump", "Backups, each with a description beside it."),
    ("RUN_DIR/updater.sock", "The commands' socket, for root."),
];

const EXAMPLES: &[(&str, &str)] = &[
    ("payram-updater versions", "What this shop can be upgraded to:"),
    ("payram-updater dry-run --to latest", "What an upgrade would do:"),
    ("payram-updater run --to 1.9.7", "Upgrade, after a question:"),
    (
        "payram-updater run --to latest --yes --mode dashboard",
        "Upgrade from a script, as far as the policy allows:",
    ),
    ("payram-updater logs --follow --until-done", "Follow an upgrade that somebody else began:"),
    ("payram-updater inspect", "Something is wrong:"),
    ("payram-updater init --autoupdate --interval-hours 12", "Let the shop update by itself:"),
];

fn pairs(page: &mut String, list: &[(&str, &str)]) {
    for (name, what) in list {
        say(page, &format!(".TP\n.B {}\n{}", escaped(name), escaped(what)));
    }
}

fn commands(page: &mut String, command: &Command, words: &str) {
    let visible = |next: &&Command| !next.is_hide_set() && next.get_name() != "help";
    for next in command.get_subcommands().filter(visible) {
        let words = format!("{words} {}", next.get_name());
        say(page, &format!(".SS {}", escaped(words.trim())));
        say(page, &escaped(&next.get_about().map(ToString::to_string).unwrap_or_default()));
        options(page, next);
        if let Some(more) = next.get_after_help() {
            say(page, &format!(".PP\n{}", escaped(&more.to_string())));
        }
        commands(page, next, &words);
    }
}

fn options(page: &mut String, command: &Command) {
    // What every command knows is said once, at the top.
    let is_top = command.get_name() == NAME;
    let own = |argument: &&Arg| {
        let is_common = argument.is_global_set() || argument.get_id() == "help";
        !argument.is_hide_set() && (is_top || !is_common)
    };
    for argument in command.get_arguments().filter(own) {
        let names = [
            argument.get_short().map(|short| format!("-{short}")),
            argument.get_long().map(|long| format!("--{long}")),
        ];
        let mut name = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if argument.get_action().takes_values() {
            let value = argument.get_value_names().unwrap_or_default().join(" ");
            name = format!("{name} {value}").trim().to_owned();
        }
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        say(page, &format!(".TP\n.B {}\n{}", escaped(&name), escaped(&help)));
    }
}

const NAME: &str = "payram-updater";

/// Text that roff takes as text: no escapes, no requests at the start of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let guarded = text.lines().map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    guarded.collect::<Vec<_>>().join("\n")
}

fn say(page: &mut String, line: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(page, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_setting_and_what_its_examples_type_is_a_command() {
        for (command, _) in EXAMPLES {
            let parsed = CommandLine::command().try_get_matches_from(command.split(' '));
            assert!(parsed.is_ok(), "{command}");
        }
        let page = page();
        for setting in ["UPDATER_PORT (2567)", "AUTO_UPDATE_WINDOW (any)", "POLICY_URL"] {
            assert!(page.contains(&format!(".B {}\n", escaped(setting))), "{setting}: {page}");
        }
        for section in ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"] {
            assert!(page.contains(&format!(".SH {section}\n")), "{section}");
        }
    }

    #[test]
    fn the_page_has_every_command_and_every_exit_code() {
        let page = page();
        for words in ["dry\\-run", "journal verify", "cancel", "completions"] {
            assert!(page.contains(&format!(".SS {words}\n")), "{words}");
        }
        assert!(page.contains("rolled back"));
        assert!(!page.contains("statechart"));
    }
}
