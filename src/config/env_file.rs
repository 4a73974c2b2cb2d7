//! Files of `KEY=value`, by the rules of systemd's `EnvironmentFile=`, so that the unit and the
//! command read the same file alike
//! (<https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#EnvironmentFile=>):
//! empty lines and lines that begin with `#` or `;` are skipped; white space around key and
//! unquoted value is dropped; a value may be in single quotes (as it is) or in double quotes
//! (`\"`, `\\`, `\$` and `` \` `` are unescaped); a backslash at the end joins the next line.

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub key: String,
    pub value: String,
    /// Where it stands, from 1.
    pub line: usize,
}

/// The assignments of a file, in order; and the lines that are none, with what is wrong.
pub(super) fn parse(text: &str) -> (Vec<Assignment>, Vec<(usize, String)>) {
    let (mut found, mut bad) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut whole = first.to_owned();
        while whole.ends_with('\\') && !whole.trim_start().starts_with(['#', ';']) {
            whole.pop();
            match lines.next() {
                Some((_, next)) => whole.push_str(next),
                None => break,
            }
        }
        let trimmed = whole.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let line = index + 1;
        match assignment(trimmed) {
            Ok((key, value)) => found.push(Assignment { key, value, line }),
            Err(reason) => bad.push((line, reason)),
        }
    }
    (found, bad)
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| "expected KEY=value, found no =".to_owned())?;
    let key = key.trim();
    let key = key.strip_prefix("export ").unwrap_or(key).trim();
    let is_key = !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if !is_key {
        return Err("expected a key of letters, digits and _ before the =".to_owned());
    }
    Ok((key.to_owned(), unquote(value.trim())?))
}

fn unquote(value: &str) -> Result<String, String> {
    let Some(quote) = value.chars().next().filter(|c| ['"', '\''].contains(c)) else {
        return Ok(value.to_owned());
    };
    let mut out = String::new();
    let mut rest = value.chars().skip(1);
    while let Some(c) = rest.next() {
        match c {
            c if c == quote => {
                let after: String = rest.collect();
                return if after.trim().is_empty() {
                    Ok(out)
                } else {
                    Err("there is text after the closing quote".to_owned())
                };
            }
            '\\' if quote == '"' => match rest.next() {
                Some(escaped @ ('"' | '\\' | '$' | '`')) => out.push(escaped),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    Err("the closing quote is missing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, String)> {
        parse(text).0.into_iter().map(|a| (a.key, a.value)).collect()
    }

    #[test]
    fn quotes_comments_and_joined_lines_are_read_as_systemd_does() {
        let text = "# a comment\n; another\n\nA=1\n B = two words \nC=\"x \\\"y\\\" \\$z\"\n\
                    D='as $it \\is'\nE=one\\\ntwo\nF=a#b\nexport G=7\nH=\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "x \"y\" $z"),
            ("D", "as $it \\is"),
            ("E", "onetwo"),
            ("F", "a#b"),
            ("G", "7"),
            ("H", ""),
        ];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(values(text), expected);
    }

    #[test]
    fn a_line_that_is_no_assignment_is_named() {
        let bad = parse("A=1\nnonsense\nB=\"open\n1C=2\nD='x' y\n").1;
        let lines: Vec<usize> = bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_value_comes_back_as_it_was(value in "[^\\n\\r\u{b}\u{c}\u{85}\u{2028}\u{2029}]{0,60}") {
            let quoted: String = value
                .chars()
                .flat_map(|c| match c {
                    '"' | '\\' | '$' | '`' => vec!['\\', c],
                    c => vec![c],
                })
                .collect();
            prop_assert_eq!(values(&format!("KEY=\"{quoted}\"")), [("KEY".to_owned(), value)]);
        }
    }
}
