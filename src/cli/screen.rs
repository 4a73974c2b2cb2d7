//! How text meets the eye: colour, width, times, sizes. Pure but for [`Screen::of_stdout`].
//!
//! Whatever comes from the daemon passes [`clean`] on its way to a terminal: a log line may
//! quote a container, and a container may send escape sequences.

use std::io::IsTerminal;

/// A width when nobody knows better.
const DEFAULT_WIDTH: usize = 80;

/// Below it, wrapping makes text worse.
const MIN_WIDTH: usize = 40;

/// What the output is shown on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Whether colours are shown.
    pub color: bool,
    /// Columns.
    pub width: usize,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Unsure,
    Bad,
    Strong,
    Faint,
}

impl Screen {
    /// Of the standard output. Colours only on a terminal that has them, and never with
    /// `NO_COLOR` (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let is_set = |key| std::env::var_os(key).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col.into());
        Self {
            color: stdout.is_terminal() && !is_set("NO_COLOR") && !is_dumb,
            width: if columns == 0 { DEFAULT_WIDTH } else { columns.max(MIN_WIDTH) },
        }
    }

    /// The text in a tone.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Unsure => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text after a head that takes `indent` columns: further lines are indented by it.
    pub(super) fn hang(self, indent: usize, text: &str) -> String {
        let room = self.width.saturating_sub(indent).max(MIN_WIDTH / 2);
        wrap(text, room).join(&format!("\n{}", " ".repeat(indent)))
    }
}

/// Without control characters: each becomes a space, and a line break too.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Lines of at most `room` characters, broken at spaces; a longer word stays whole, so that a
/// path or a command can be copied.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for word in clean(line).split_whitespace() {
            let taken = current.chars().count();
            if taken > 0 && taken + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines
}

/// `2026-01-31 12:00:00` of an RFC 3339 time in UTC.
pub(super) fn date_time(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(date), Some(time)) => clean(&format!("{date} {time}")),
        (None, _) | (_, None) => clean(rfc3339),
    }
}

/// `12:00:00` of an RFC 3339 time in UTC.
pub(super) fn time_of_day(rfc3339: &str) -> String {
    clean(rfc3339.get(11..19).unwrap_or(rfc3339))
}

/// `12.3 MB`
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} B"),
    }
}

/// `3.2 s`, `1 min 12 s`
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_sequence_of_a_container_does_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\r\nc"), "a [2Jb  c");
    }

    #[test]
    fn long_text_is_broken_at_spaces_and_a_long_path_is_not_broken() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("see /var/lib/payram-updater", 8), ["see", "/var/lib/payram-updater"]);
        let screen = Screen { color: false, width: 40 };
        let text = "a b ".repeat(12);
        assert!(screen.hang(10, text.trim()).lines().all(|line| line.len() <= 40));
    }

    #[test]
    fn sizes_and_durations_are_for_a_person() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(seconds(3.24), "3.2 s");
        assert_eq!(seconds(72.4), "1 min 12 s");
    }

    #[test]
    fn a_time_that_is_none_is_shown_as_it_came() {
        assert_eq!(date_time("2026-01-31T12:00:00.25Z"), "2026-01-31 12:00:00");
        assert_eq!(date_time(""), "");
        assert_eq!(time_of_day("later"), "later");
    }
}
