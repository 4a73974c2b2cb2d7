//! Reads `KEY=value` files as systemd reads an `EnvironmentFile=`, so that one file means the
//! same to the unit and to this program.
//!
//! The rules, from systemd.exec(5) "EnvironmentFile=" and its parser (v254 and later):
//!
//! * An empty line, a line without `=`, and a line that begins with `#` or `;` are ignored. A
//!   `#` further on is part of the value.
//! * Whitespace around the key and around an unquoted value is dropped.
//! * Unquoted, a backslash takes the next character as it is; before the line's end both go.
//! * In `'…'` everything is taken as it is, line ends too.
//! * In `"…"` a backslash takes `"`, `\`, `` ` `` and `$` as they are; before the line's end
//!   both go; before anything else it stays. Line ends are taken as they are.
//! * Quoted pieces of one value are joined. There is no `export` and no `$VARIABLE`.
//! * A key that is set twice has its last value.
//!
//! Stricter than systemd in one point: a quote that is never closed is reported, because it
//! swallows every setting below it. Called by [`super::sources`]; judges no value.

/// A file of settings, read.
#[derive(Default)]
pub(super) struct EnvFile {
    /// In the file's order.
    pub assignments: Vec<Assignment>,
    /// Lines, counted from 1, that are neither an assignment nor a comment nor empty.
    pub ignored_lines: Vec<usize>,
    /// The assignment whose quote is never closed: its line and key.
    pub unclosed: Option<(usize, String)>,
}

/// One `KEY=value`.
pub(super) struct Assignment {
    /// The line that it begins on, counted from 1.
    pub line: usize,
    /// The key; what is not UTF-8 in it is replaced.
    pub key: String,
    /// The value; `None` when it is not UTF-8.
    pub value: Option<String>,
}

impl EnvFile {
    /// The last assignment of this key.
    pub fn get(&self, key: &str) -> Option<&Assignment> {
        self.assignments.iter().rev().find(|assignment| assignment.key == key)
    }

    fn push(&mut self, line: usize, key: &[u8], value: &[u8]) {
        let value = String::from_utf8(value.to_vec()).ok();
        self.assignments.push(Assignment { line, key: key_text(key), value });
    }
}

/// Where in the file the parser is.
#[derive(Clone, Copy)]
enum At {
    LineStart,
    Key,
    BeforeValue,
    Value,
    ValueEscape,
    SingleQuoted,
    DoubleQuoted,
    DoubleQuotedEscape,
    Comment,
}

/// Reads a file; there is no text that it refuses.
pub(super) fn parse(text: &[u8]) -> EnvFile {
    let mut file = EnvFile::default();
    // Some editors begin a file with a byte order mark, which is part of no key.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut at = At::LineStart;
    let (mut line, mut began) = (1, 1);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    // The length that the value keeps when what follows turns out to be trailing whitespace.
    let mut kept = 0;
    for &byte in text {
        let is_line_end = matches!(byte, b'\n' | b'\r');
        at = match at {
            At::LineStart if matches!(byte, b'#' | b';') => At::Comment,
            At::LineStart if is_space(byte) => At::LineStart,
            At::LineStart => {
                began = line;
                key = vec![byte];
                At::Key
            }
            At::Key if is_line_end => {
                file.ignored_lines.push(began);
                At::LineStart
            }
            At::Key if byte == b'=' => {
                value.clear();
                kept = 0;
                At::BeforeValue
            }
            At::Key => {
                key.push(byte);
                At::Key
            }
            At::BeforeValue | At::Value if is_line_end => {
                value.truncate(kept);
                file.push(began, &key, &value);
                At::LineStart
            }
            At::BeforeValue if byte == b'\'' => At::SingleQuoted,
            At::BeforeValue if byte == b'"' => At::DoubleQuoted,
            At::BeforeValue if is_space(byte) => At::BeforeValue,
            At::BeforeValue | At::Value if byte == b'\\' => At::ValueEscape,
            At::BeforeValue | At::Value => {
                value.push(byte);
                if !is_space(byte) {
                    kept = value.len();
                }
                At::Value
            }
            At::ValueEscape => {
                if !is_line_end {
                    value.push(byte);
                }
                kept = value.len();
                At::Value
            }
            At::SingleQuoted if byte == b'\'' => At::BeforeValue,
            At::DoubleQuoted if byte == b'"' => At::BeforeValue,
            At::DoubleQuoted if byte == b'\\' => At::DoubleQuotedEscape,
            At::SingleQuoted | At::DoubleQuoted => {
                value.push(byte);
                kept = value.len();
                at
            }
            At::DoubleQuotedEscape => {
                match byte {
                    b'"' | b'\\' | b'`' | b'$' => value.push(byte),
                    b'\n' => {}
                    other => value.extend([b'\\', other]),
                }
                kept = value.len();
                At::DoubleQuoted
            }
            At::Comment if is_line_end => At::LineStart,
            At::Comment => At::Comment,
        };
        line += usize::from(byte == b'\n');
    }
    match at {
        At::LineStart | At::Comment => {}
        At::Key => file.ignored_lines.push(began),
        At::BeforeValue | At::Value | At::ValueEscape => {
            value.truncate(kept);
            file.push(began, &key, &value);
        }
        At::SingleQuoted | At::DoubleQuoted | At::DoubleQuotedEscape => {
            file.unclosed = Some((began, key_text(&key)));
        }
    }
    file
}

fn key_text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).trim_end_matches([' ', '\t']).to_owned()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes())
            .assignments
            .into_iter()
            .map(|a| (a.key, a.value.expect("UTF-8")))
            .collect()
    }

    fn value(text: &str) -> String {
        let mut pairs = pairs(text);
        assert_eq!(pairs.len(), 1, "{text:?} is one assignment: {pairs:?}");
        pairs.remove(0).1
    }

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        for (text, expected) in [
            ("A=plain", "plain"),
            ("  A = spaced out \t\r\n", "spaced out"),
            ("A=", ""),
            ("A=a#b # c", "a#b # c"),
            ("A=it's", "it's"),
            ("A='single \"$x\" \\n'", "single \"$x\" \\n"),
            (r#"A="double \"q\" \\ \$x \n""#, "double \"q\" \\ $x \\n"),
            ("A='a'\"b\"c", "abc"),
            ("A='a ' \"b\"", "a b"),
            ("A='two\nlines'", "two\nlines"),
            ("A=con\\\ntinued", "continued"),
            ("A=\"con\\\ntinued\"", "continued"),
            ("A=a\\ ", "a "),
            ("A=\\'a", "'a"),
            ("A=b=c", "b=c"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_empty_lines_and_lines_without_an_equals_sign_are_ignored() {
        let file = parse(b"# A=1\n; B=2\n\n \nnonsense\nC=3\n# \\\nD=4");
        assert_eq!(file.ignored_lines, [5]);
        let found: Vec<_> = file.assignments.iter().map(|a| (a.line, a.key.as_str())).collect();
        assert_eq!(found, [(6, "C"), (8, "D")]);
    }

    #[test]
    fn the_last_of_two_values_counts_and_lines_are_counted_across_quotes() {
        let file = parse(b"A=1\nB='x\ny'\nA=2\n");
        let last = file.get("A").expect("there");
        assert_eq!((last.line, last.value.as_deref()), (4, Some("2")));
    }

    #[test]
    fn a_byte_order_mark_is_part_of_no_key() {
        assert_eq!(pairs("\u{feff}A=1"), [("A".into(), "1".into())]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_reported_with_its_line() {
        let file = parse(b"A=1\nPG_PASSWORD=\"secret\nB=2\n");
        assert_eq!(file.unclosed, Some((2, "PG_PASSWORD".into())));
        assert!(file.get("B").is_none());
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_told_apart() {
        let file = parse(b"A=\xff\xfe\nB=2");
        assert_eq!(file.get("A").map(|a| a.value.as_deref()), Some(None));
        assert_eq!(file.get("B").and_then(|b| b.value.as_deref()), Some("2"));
    }

    #[test]
    fn a_line_that_begins_with_an_equals_sign_sets_nothing_that_anybody_knows() {
        assert_eq!(parse(b"=x\n").ignored_lines, [1]);
        assert_eq!(pairs("=x=1\nA=1"), [("=x".into(), "1".into()), ("A".into(), "1".into())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&text);
        }

        #[test]
        fn any_text_of_syntax_is_read_without_panic(text in "[A= '\"\\\\\n\r#;\t$`x]{0,60}") {
            parse(text.as_bytes());
        }

        #[test]
        fn a_double_quoted_value_comes_back_as_it_was(wanted in any::<String>()) {
            let mut quoted = String::from("KEY=\"");
            for c in wanted.chars() {
                if matches!(c, '"' | '\\' | '`' | '$') {
                    quoted.push('\\');
                }
                quoted.push(c);
            }
            quoted.push_str("\"\nNEXT=1\n");
            prop_assert_eq!(pairs(&quoted), [("KEY".into(), wanted), ("NEXT".into(), "1".into())]);
        }

        #[test]
        fn a_single_quoted_value_comes_back_as_it_was(wanted in "[^']*") {
            prop_assert_eq!(value(&format!("KEY='{wanted}'\n")), wanted);
        }
    }
}
