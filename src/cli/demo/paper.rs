//! What the demo writes, and how: at most 80 columns, whoever reads it.

use std::io::{self, IsTerminal, Write};

use crate::cli::screen::{Screen, Tone, wrap};

/// Columns that every terminal has.
const COLUMNS: usize = 80;

/// Digits of a checksum, and how many of them are shown.
const CHECKSUM: (usize, usize) = (64, 12);

/// Where the demo is written.
#[derive(Clone, Copy)]
pub(super) struct Paper {
    /// Whether the commands may draw on it themselves.
    pub is_terminal: bool,
    screen: Screen,
}

impl Paper {
    /// The standard output.
    pub fn of_stdout() -> Self {
        let screen = Screen { width: COLUMNS, ..Screen::of_stdout() };
        Self { is_terminal: io::stdout().is_terminal(), screen }
    }

    /// A heading.
    pub fn heading(&self, text: &str) -> io::Result<()> {
        let rule = "─".repeat(COLUMNS.saturating_sub(text.chars().count() + 4));
        let line = format!("── {text} {rule}");
        self.write(&format!("\n{}", self.screen.paint(Tone::Strong, &line)))
    }

    /// A paragraph.
    pub fn say(&self, text: &str) -> io::Result<()> {
        self.write(&wrap(text, COLUMNS).join("\n"))
    }

    /// A command that is about to run.
    pub fn command(&self, arguments: &[&str]) -> io::Result<()> {
        let line = format!("$ payram-updater {}", arguments.join(" "));
        self.write(&format!("\n{}", self.screen.paint(Tone::Strong, &line)))
    }

    /// A line that a command said; its day is cut off, and most of a checksum.
    pub fn quote(&self, line: &str) -> io::Result<()> {
        let line = shorter(line);
        if line.chars().count() <= COLUMNS {
            return self.write(&line);
        }
        let own = line.chars().take_while(|c| *c == ' ').count();
        let is_log = line.get(2..3) == Some(":");
        let hang = if is_log { "00:00:00 ".len() } else { own + 2 };
        let room = COLUMNS - hang;
        let pieces = wrap(&line, room).into_iter().flat_map(|piece| cut(&piece, room));
        for (index, piece) in pieces.enumerate() {
            let indent = if index == 0 { own } else { hang };
            self.write(&format!("{}{piece}", " ".repeat(indent)))?;
        }
        Ok(())
    }

    /// A promise and whether it was kept.
    pub fn verdict(&self, is_kept: bool, text: &str) -> io::Result<()> {
        let (tone, mark) = if is_kept { (Tone::Good, "✔") } else { (Tone::Bad, "✘") };
        let text = self.screen.hang(4, text);
        self.write(&format!("  {} {text}", self.screen.paint(tone, mark)))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{text}")?;
        out.flush()
    }
}

/// `2026-01-31T12:00:00.25Z said` as `12:00:00 said`, and checksums as their first digits.
fn shorter(line: &str) -> String {
    let is_time = line.get(4..5) == Some("-") && line.get(10..11) == Some("T");
    let time = line.get(11..19).filter(|_| is_time);
    let line = match (time, line.split_once(' ')) {
        (Some(time), Some((_, said))) => format!("{time} {said}"),
        (Some(_) | None, _) => line.to_owned(),
    };
    let mut short = String::new();
    let mut digits = String::new();
    for c in line.chars().map(Some).chain([None]) {
        if let Some(c) = c.filter(char::is_ascii_hexdigit) {
            digits.push(c);
            continue;
        }
        match digits.len() == CHECKSUM.0 {
            true => short.extend(digits.chars().take(CHECKSUM.1).chain(['…'])),
            false => short.push_str(&digits),
        }
        digits.clear();
        short.extend(c);
    }
    short
}

/// In pieces of at most `room` characters: a path may be longer than a line.
fn cut(text: &str, room: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(room.max(1)).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_loses_its_day_and_most_of_a_checksum() {
        assert_eq!(shorter("2026-01-31T12:00:00.25Z stop_old: done"), "12:00:00 stop_old: done");
        assert_eq!(shorter("  Downtime: 0.6 s"), "  Downtime: 0.6 s");
        assert_eq!(shorter(""), "");
        let long = format!("sha256 {}.", "0123456789abcdef".repeat(4));
        assert_eq!(shorter(&long), "sha256 0123456789ab….");
    }
}
