//! Command lines that are none: what is said, and that nothing of a mistake is echoed without bound.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The longest argument, in bytes; a path may have 4096 (`PATH_MAX` of Linux).
const LONGEST: usize = 4096;

/// What people who know other tools type, and what they mean.
const MEANT: [(&str, &str); 8] = [
    (
        "upgrade",
        "to upgrade: payram-updater run --to latest (what it would do: dry-run --to latest)",
    ),
    (
        "update",
        "to upgrade: payram-updater run --to latest (what it would do: dry-run --to latest)",
    ),
    ("plan", "what an upgrade would do: payram-updater dry-run --to latest"),
    (
        "rollback",
        "an upgrade that fails goes back by itself; what else can be put back: payram-updater recover",
    ),
    (
        "revert",
        "an upgrade that fails goes back by itself; what else can be put back: payram-updater recover",
    ),
    ("resume", "an upgrade that was stopped half way: payram-updater recover"),
    ("log", "the log of the last upgrade: payram-updater logs"),
    ("start", "to start the daemon: systemctl start payram-updater, or payram-updater serve"),
];

/// Why these arguments are not even looked at; none when they are.
pub(super) fn too_long(arguments: &[OsString]) -> Option<String> {
    let at = arguments.iter().position(|one| one.len() > LONGEST)?;
    let bytes = arguments.get(at).map_or(0, |one| one.len());
    Some(format!(
        "argument {at} has {bytes} bytes; an argument has at most {LONGEST}. For more information, try '--help'."
    ))
}

/// What is meant by a command that there is not.
pub(super) fn hint(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let (_, meant) = MEANT.iter().find(|(known, _)| typed.eq_ignore_ascii_case(known))?;
    Some(format!("there is no command '{typed}'; {meant}\n\nFor more information, try '--help'."))
}

/// `help --help` means the help.
pub(super) fn plain(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_help = |at: usize, names: &[&str]| {
        arguments.get(at).is_some_and(|one| names.iter().any(|name| one == name))
    };
    if is_help(1, &["help"]) && (2..arguments.len()).any(|at| is_help(at, &["--help", "-h"])) {
        arguments.truncate(2);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::super::help;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_other_tools_call_it_is_answered_with_what_to_type() {
        for (typed, meant) in MEANT {
            let error = help::command()
                .try_get_matches_from(["payram-updater", typed])
                .expect_err("no such command");
            let hint = hint(&error).unwrap_or_else(|| panic!("{typed}"));
            assert!(hint.contains(meant) && hint.contains(typed), "{hint}");
        }
        let error = help::command().try_get_matches_from(["payram-updater", "statsu"]);
        assert_eq!(hint(&error.expect_err("no such command")), None, "clap knows what is near");
    }

    #[test]
    fn what_a_hint_says_to_type_is_a_command() {
        for (_, meant) in MEANT {
            for typed in meant.split("payram-updater ").skip(1) {
                let line = typed.split([',', '(']).next().unwrap_or_default().trim();
                let mut all = vec!["payram-updater"];
                all.extend(line.split(' '));
                let parsed = help::command().try_get_matches_from(&all);
                assert!(parsed.is_ok(), "{all:?}");
            }
        }
    }

    #[test]
    fn help_of_help_is_help_and_a_long_argument_is_not_echoed() {
        assert_eq!(plain(words("p help --help")), words("p help"));
        assert_eq!(plain(words("p help run")), words("p help run"));
        assert_eq!(plain(words("p run --help")), words("p run --help"));
        assert_eq!(too_long(&words("p run --to 1.9.7")), None);
        let long = vec!["p".into(), OsString::from("x".repeat(100_000))];
        let said = too_long(&long).expect("too long");
        assert!(said.starts_with("argument 1 has 100000 bytes") && said.len() < 200, "{said}");
    }
}
