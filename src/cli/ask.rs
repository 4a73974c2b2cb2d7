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
    seen_on_terminal(context, out, declined, show, |answers, out| ask(answers, out, question))
}

fn seen_on_terminal(
    context: &Context,
    out: &mut dyn Write,
    declined: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ask: impl FnOnce(&mut dyn BufRead, &mut dyn Write) -> io::Result<Consent>,
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
    let consent = ask(&mut stdin.lock(), out)?;
    if consent == Consent::Declined {
        writeln!(out, "{declined}")?;
    }
    Ok(consent)
}

/// Asks for the word `yes`, which nobody types by the way, before something is removed for good.
pub(super) fn for_yes(
    context: &Context,
    out: &mut dyn Write,
    declined: &str,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Consent, Problem> {
    seen_on_terminal(context, out, declined, show, |answers, out| {
        let answer = answered(answers, out, "\nThey are removed for good. Type yes to go on: ")?;
        Ok(if answer == "yes" { Consent::Given } else { Consent::Declined })
    })
}

/// Asks; anything but `y` or `yes`, and the end of the input, declines.
fn ask(answers: &mut dyn BufRead, out: &mut dyn Write, question: &str) -> io::Result<Consent> {
    let answer = answered(answers, out, &format!("{question} (y/N): "))?;
    let is_yes = matches!(answer.as_str(), "y" | "yes");
    Ok(if is_yes { Consent::Given } else { Consent::Declined })
}

/// What was typed, in lower case.
fn answered(answers: &mut dyn BufRead, out: &mut dyn Write, question: &str) -> io::Result<String> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    if answers.read_line(&mut answer)? == 0 {
        writeln!(out)?;
    }
    Ok(answer.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> (Consent, String) {
        let mut out = Vec::new();
        let consent = ask(&mut text.as_bytes(), &mut out, "Proceed?").expect("asked");
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
