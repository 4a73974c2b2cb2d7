//! The two questions of `init`. An empty answer, and the end of the input, is the default.

use std::io::{self, BufRead, Write};

use crate::auto_update::stored::MOST_HOURS;

/// So often is asked for a number that is none.
const TRIES: usize = 3;

/// Somebody who answers.
pub(super) struct Answers<'a> {
    pub input: &'a mut dyn BufRead,
    pub out: &'a mut dyn Write,
}

impl Answers<'_> {
    /// Anything but a yes is a no.
    pub fn yes_or_no(&mut self, question: &str, default: bool) -> io::Result<bool> {
        let choice = if default { "Y/n" } else { "y/N" };
        Ok(match self.ask(&format!("{question} ({choice}): "))?.to_ascii_lowercase().as_str() {
            "" => default,
            "y" | "yes" => true,
            _ => false,
        })
    }

    /// Whole hours; what is no number of hours is asked for again, and then the default stands.
    pub fn hours(&mut self, question: &str, default: u32) -> io::Result<u32> {
        for _ in 0..TRIES {
            let answer = self.ask(&format!("{question} [{default}]: "))?;
            if answer.is_empty() {
                return Ok(default);
            }
            match answer.parse() {
                Ok(hours) if (1..=MOST_HOURS).contains(&hours) => return Ok(hours),
                Ok(_) | Err(_) => {
                    writeln!(self.out, "Whole hours, 1 to {MOST_HOURS}; found {answer:?}.")?;
                }
            }
        }
        writeln!(self.out, "It stays at {default}.")?;
        Ok(default)
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        write!(self.out, "{question}")?;
        self.out.flush()?;
        let mut answer = String::new();
        if self.input.read_line(&mut answer)? == 0 {
            writeln!(self.out)?;
        }
        Ok(answer.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered<T>(text: &str, ask: impl FnOnce(&mut Answers<'_>) -> io::Result<T>) -> (T, String) {
        let (mut input, mut out) = (text.as_bytes(), Vec::new());
        let found = ask(&mut Answers { input: &mut input, out: &mut out }).expect("asked");
        (found, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn nothing_typed_is_the_default_and_only_a_yes_is_a_yes() {
        for (text, default, expected) in [
            ("\n", false, false),
            ("", false, false),
            ("\n", true, true),
            ("Yes\n", false, true),
            ("n\n", true, false),
            ("sure\n", true, false),
        ] {
            let (found, _) = answered(text, |answers| answers.yes_or_no("It?", default));
            assert_eq!(found, expected, "{text:?}");
        }
        let (_, shown) = answered("\n", |answers| answers.yes_or_no("It?", false));
        assert_eq!(shown, "It? (y/N): ");
    }

    #[test]
    fn what_is_no_number_of_hours_is_asked_for_again() {
        let (hours, shown) = answered("soon\n0\n12\n", |answers| answers.hours("Hours?", 24));
        assert_eq!(hours, 12);
        assert_eq!(shown.matches("Hours? [24]: ").count(), 3, "{shown}");
        let (hours, shown) = answered("a\nb\nc\nd\n", |answers| answers.hours("Hours?", 24));
        assert_eq!(hours, 24);
        assert!(shown.contains("It stays at 24."), "{shown}");
        assert_eq!(answered("", |answers| answers.hours("Hours?", 6)).0, 6);
    }
}
