//! Asking the operator for consent.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{Context, Exit, Problem};

/// What an operator decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    Given,
    Declined,
}

/// What is said after a no where nothing is under way.
pub(super) const NOTHING_CHANGED: &str = "Aborted by user. Nothing was changed.";

/// Asks on the terminal; `show` is what the question is about, `declined` what a no means. Without
/// a terminal the command ends with exit 2: silence is no consent.
///
/// The question goes to the output when a person reads it, to stderr otherwise, so that JSON
/// stays JSON.
pub(super) fn on_terminal(
    context: &Context,
    out: &mut dyn Write,
    question: &str,
    declined: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Consent, Problem> {
    put(context, out, &format!("{question} (y/N): "), &["y", "yes"], declined, show)
}

/// The same, where only the whole word is consent.
pub(super) fn for_yes(
    context: &Context,
    out: &mut dyn Write,
    question: &str,
    declined: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Consent, Problem> {
    put(context, out, &format!("{question}: "), &["yes"], declined, show)
}

fn put(
    context: &Context,
    out: &mut dyn Write,
    question: &str,
    consents: &[&str],
    declined: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Consent, Problem> {
    let stdin = io::stdin();
    let is_seen = context.reading.is_person() || io::stderr().is_terminal();
    if !stdin.is_terminal() || !is_seen {
        let message = "this needs a confirmation and there is no terminal to ask on: add --yes";
        return Err(Problem::stopped(Exit::Usage, "CONFIRMATION_NEEDED", message));
    }
    let mut stderr = io::stderr();
    let out: &mut dyn Write = if context.reading.is_person() { out } else { &mut stderr };
    show(out)?;
    let consent = ask(&mut stdin.lock(), out, question, consents)?;
    if consent == Consent::Declined {
        writeln!(out, "{declined}")?;
    }
    Ok(consent)
}

/// Asks; anything but one of these words, and the end of the input, declines.
fn ask(
    answers: &mut dyn BufRead,
    out: &mut dyn Write,
    question: &str,
    consents: &[&str],
) -> io::Result<Consent> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    if answers.read_line(&mut answer)? == 0 {
        writeln!(out)?;
    }
    let is_yes = consents.contains(&answer.trim().to_ascii_lowercase().as_str());
    Ok(if is_yes { Consent::Given } else { Consent::Declined })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> (Consent, String) {
        let mut out = Vec::new();
        let asked = ask(&mut text.as_bytes(), &mut out, "Proceed? (y/N): ", &["y", "yes"]);
        let consent = asked.expect("asked");
        (consent, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for yes in ["y\n", "Y\n", "yes\n", " YES \n"] {
            assert_eq!(answer(yes).0, Consent::Given, "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "yess\n", "ja\n"] {
            assert_eq!(answer(no).0, Consent::Declined, "{no:?}");
        }
        assert_eq!(answer("y\n").1, "Proceed? (y/N): ");
    }
}
