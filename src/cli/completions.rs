//! `completions`: made from the command line's own definition, so that they can't miss one.

use std::fmt::Write;

use clap::{Command, CommandFactory};

use super::args::{CommandLine, Shell};

/// A command or subcommand: its words after the program's name, what follows it, its options.
struct Place {
    words: String,
    next: Vec<(String, String)>,
    options: Vec<Flag>,
}

struct Flag {
    long: String,
    short: Option<char>,
    help: String,
    takes_value: bool,
    values: Vec<String>,
}

/// What can be gone to, asked of the daemon; nothing where it does not answer at once.
const VERSIONS: &str = "timeout 2 payram-updater versions --json 2>/dev/null | sed -n 's/^ *\"version\": \"\\([0-9A-Za-z._-]*\\)\".*/\\1/p'";

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut command = CommandLine::command();
    command.build();
    let mut places = Vec::new();
    collect(&command, String::new(), &mut places);
    match shell {
        Shell::Bash => bash(&places),
        Shell::Zsh => {
            let head = "#compdef payram-updater\nautoload -U +X bashcompinit && bashcompinit\n";
            format!("{head}{}", bash(&places))
        }
        Shell::Fish => fish(&places),
    }
}

fn collect(command: &Command, words: String, places: &mut Vec<Place>) {
    let about =
        |command: &Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    let visible = || command.get_subcommands().filter(|next| !next.is_hide_set());
    let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut next: Vec<(String, String)> =
        visible().map(|next| (next.get_name().to_owned(), about(next))).collect();
    for positional in command.get_positionals() {
        let values = positional.get_possible_values();
        next.extend(values.iter().map(|value| (value.get_name().to_owned(), String::new())));
    }
    places.push(Place {
        words: words.clone(),
        next,
        options: options
            .filter_map(|argument| {
                Some(Flag {
                    long: argument.get_long()?.to_owned(),
                    short: argument.get_short(),
                    help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
                    takes_value: argument.get_action().takes_values(),
                    values: argument
                        .get_possible_values()
                        .iter()
                        .filter(|_| argument.get_action().takes_values())
                        .map(|value| value.get_name().to_owned())
                        .collect(),
                })
            })
            .collect(),
    });
    // `help` repeats the whole tree; it has a place, its children need none.
    for next in visible().filter(|next| next.get_name() != "help") {
        let words = format!("{words} {}", next.get_name()).trim().to_owned();
        collect(next, words, places);
    }
}

fn bash(places: &[Place]) -> String {
    let mut walk = String::new();
    let mut offer = String::new();
    let mut values = String::new();
    for place in places {
        for (next, _) in &place.next {
            let words = format!("{} {next}", place.words);
            if places.iter().any(|place| place.words == words.trim()) {
                line(&mut walk, &format!("            \"{words}\") at=\"{}\" ;;", words.trim()));
            }
        }
        let next = place.next.iter().map(|(next, _)| next.clone());
        let options = place.options.iter().map(|flag| format!("--{}", flag.long));
        let all = next.chain(options).collect::<Vec<_>>().join(" ");
        line(&mut offer, &format!("        \"{}\") offered=\"{all}\" ;;", place.words));
        for flag in place.options.iter().filter(|flag| flag.takes_value) {
            let key = format!("{} --{}", place.words, flag.long);
            let all = match flag.long.as_str() {
                "to" => format!("latest $({VERSIONS})"),
                _ => flag.values.join(" "),
            };
            line(&mut values, &format!("        \"{key}\") offered=\"{all}\" ;;"));
        }
    }
    format!(
        "_payram_updater() {{
    local at=\"\" offered=\"\" word
    for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do
        case \"$at $word\" in
{walk}        esac
    done
    case \"$at\" in
{offer}    esac
    case \"$at ${{COMP_WORDS[COMP_CWORD-1]}}\" in
{values}    esac
    COMPREPLY=($(compgen -W \"$offered\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))
}}
complete -F _payram_updater payram-updater
"
    )
}

fn fish(places: &[Place]) -> String {
    let mut text = String::from("complete -c payram-updater -f\n");
    for place in places {
        let condition = match place.words.as_str() {
            "" => "__fish_use_subcommand".to_owned(),
            words => words
                .split(' ')
                .map(|word| format!("__fish_seen_subcommand_from {word}"))
                .collect::<Vec<_>>()
                .join("; and "),
        };
        let head = format!("complete -c payram-updater -n {}", quoted(&condition));
        for (next, about) in &place.next {
            line(&mut text, &format!("{head} -a {next} -d {}", quoted(about)));
        }
        for flag in &place.options {
            let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
            let value = match (flag.takes_value, flag.values.as_slice()) {
                (false, _) => String::new(),
                (true, []) if flag.long == "to" => {
                    format!(" -x -a {}", quoted(&format!("latest ({VERSIONS})")))
                }
                (true, []) => " -x".to_owned(),
                (true, values) => format!(" -x -a {}", quoted(&values.join(" "))),
            };
            let (long, help) = (&flag.long, quoted(&flag.help));
            line(&mut text, &format!("{head} -l {long}{short}{value} -d {help}"));
        }
    }
    text
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn line(text: &mut String, line: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_is_offered_in_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            let command = CommandLine::command();
            for command in command.get_subcommands() {
                let is_offered = script.contains(command.get_name());
                assert_eq!(is_offered, !command.is_hide_set(), "{}", command.get_name());
            }
            assert!(script.contains("dashboard"), "values are offered");
        }
    }
}
