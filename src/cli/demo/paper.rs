//! What the demo writes, and how: at most 80 columns, whoever reads it. On a terminal there is
//! a display of what goes on below it, the one of `run`.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use crate::cli::follow::{Observer, Snapshot};
use crate::cli::progress::Display;
use crate::cli::screen::{Screen, Tone, wrap};

/// Columns that every terminal has.
const COLUMNS: usize = 80;

/// Digits of a checksum, and how many of them are shown.
const CHECKSUM: (usize, usize) = (64, 12);

/// How many of the last lines that a container wrote are shown.
const CONTAINER_LINES: usize = 3;

/// Columns of a time.
const TIME: usize = "00:00:00 ".len();

/// Where the demo is written.
pub(super) struct Paper {
    /// Whether somebody looks on.
    pub is_terminal: bool,
    screen: Screen,
    display: RefCell<Option<Display>>,
    /// The container's own lines, until it is known which are the last ones.
    aside: RefCell<Vec<String>>,
}

impl Paper {
    /// The standard output.
    pub fn of_stdout() -> Self {
        let screen = Screen::of_stdout();
        let screen = Screen { width: screen.width.min(COLUMNS), ..screen };
        let (display, aside) = (RefCell::default(), RefCell::default());
        Self { is_terminal: io::stdout().is_terminal(), screen, display, aside }
    }

    /// A heading.
    pub fn heading(&self, text: &str) -> io::Result<()> {
        let rule = "─".repeat(self.screen.width.saturating_sub(text.chars().count() + 4));
        let line = format!("── {text} {rule}");
        self.write(&format!("\n{}", self.screen.paint(Tone::Strong, &line)))
    }

    /// A paragraph.
    pub fn say(&self, text: &str) -> io::Result<()> {
        self.write(&wrap(text, self.screen.width).join("\n"))
    }

    /// A command that is about to run.
    pub fn command(&self, arguments: &[&str]) -> io::Result<()> {
        let line = format!("$ payram-updater {}", arguments.join(" "));
        self.write(&format!("\n{}", self.screen.paint(Tone::Strong, &line)))
    }

    /// A line that a command said; its day is cut off, and most of a checksum. Of what a
    /// container wrote only the last lines are shown, when the next line comes.
    pub fn quote(&self, line: &str) -> io::Result<()> {
        let line = shorter(line);
        if is_of_container(&line) {
            self.aside.borrow_mut().push(line);
            return Ok(());
        }
        self.quote_aside()?;
        self.put(&line, tone_of(&line))
    }

    /// Something that happens to the reader's astonishment.
    pub fn event(&self, text: &str) -> io::Result<()> {
        for line in wrap(text, self.screen.width.saturating_sub(4)) {
            self.write(&self.screen.paint(Tone::Bad, &format!(">>> {line}")))?;
        }
        Ok(())
    }

    /// A promise and whether it was kept.
    pub fn verdict(&self, is_kept: bool, text: &str) -> io::Result<()> {
        let (tone, mark) = if is_kept { (Tone::Good, "✔") } else { (Tone::Bad, "✘") };
        let text = self.screen.hang(4, text);
        self.write(&format!("  {} {text}", self.screen.paint(tone, mark)))
    }

    /// Something that takes a while: a line in a pipe, a display on a terminal.
    pub fn begin_wait(&self, what: &str, details: &str) -> io::Result<()> {
        if !self.is_terminal {
            return self.say(&format!("{what}: {details} …"));
        }
        let display = Display::new(self.screen);
        display.wait_for(what, details);
        *self.display.borrow_mut() = Some(display);
        Ok(())
    }

    /// How far an upgrade is.
    pub fn progress(&self, now: &Snapshot) -> io::Result<()> {
        if !self.is_terminal {
            return Ok(());
        }
        self.display.borrow_mut().get_or_insert_with(|| Display::new(self.screen)).state(now)
    }

    /// Nothing goes on any more.
    pub fn end_wait(&self) -> io::Result<()> {
        *self.display.borrow_mut() = None;
        self.quote_aside()
    }

    fn quote_aside(&self) -> io::Result<()> {
        let lines = self.aside.take();
        let left_out = lines.len().saturating_sub(CONTAINER_LINES);
        if left_out > 0 {
            let text =
                format!("{}… {left_out} more lines of the container's log", " ".repeat(TIME));
            self.put(&text, Tone::Faint)?;
        }
        lines.iter().skip(left_out).try_for_each(|line| self.put(line, Tone::Faint))
    }

    /// A line in as many as it takes, each in its tone; none when it has none of its own.
    fn put(&self, line: &str, tone: impl Into<Option<Tone>>) -> io::Result<()> {
        let tone = tone.into();
        for piece in fold(line, self.screen.width) {
            match tone {
                Some(tone) => self.write(&self.screen.paint(tone, &piece))?,
                None => self.write(&piece)?,
            }
        }
        Ok(())
    }

    fn write(&self, text: &str) -> io::Result<()> {
        match &*self.display.borrow() {
            Some(display) => display.say(text),
            None => {
                let mut out = io::stdout();
                writeln!(out, "{text}")?;
                out.flush()
            }
        }
    }
}

/// A line in pieces of at most `width` columns, further ones indented below its text.
fn fold(line: &str, width: usize) -> Vec<String> {
    if line.chars().count() <= width {
        return vec![line.to_owned()];
    }
    let own = line.chars().take_while(|c| *c == ' ').count();
    let (head, hang) = match line.get(..TIME) {
        Some(time) if time.get(2..3) == Some(":") => (time.to_owned(), TIME),
        Some(_) | None => (" ".repeat(own), own + 2),
    };
    let room = width.saturating_sub(hang).max(1);
    let body = line.get(head.len()..).unwrap_or_default();
    let pieces = wrap(body, room).into_iter().flat_map(|piece| cut(&piece, room));
    let indented = pieces.enumerate().map(|(index, piece)| match index {
        0 => format!("{head}{piece}"),
        _ => format!("{}{piece}", " ".repeat(hang)),
    });
    indented.collect()
}

/// Whether a log line quotes what a container wrote: `00:00:00 3f2a… | text`.
fn is_of_container(line: &str) -> bool {
    let id = line.get(TIME..).and_then(|said| said.split_once(" | ")).map(|(id, _)| id);
    id.is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// How a command's line is meant, by how it begins.
fn tone_of(line: &str) -> Option<Tone> {
    match line.chars().next() {
        Some('✔') => Some(Tone::Good),
        Some('↺') => Some(Tone::Unsure),
        Some('✘') => Some(Tone::Bad),
        Some(_) | None => None,
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

    #[test]
    fn a_long_line_is_folded_below_its_text_and_a_longer_word_is_cut() {
        let line = format!("12:00:00 back_up: {}", "x".repeat(100));
        let folded = fold(&line, 80);
        assert!(folded.iter().all(|piece| piece.chars().count() <= 80), "{folded:?}");
        assert_eq!(folded[0], "12:00:00 back_up:");
        assert!(folded[1..].iter().all(|piece| piece.starts_with("         x")), "{folded:?}");
        assert_eq!(fold("  1. short", 80), ["  1. short"]);
    }

    #[test]
    fn what_a_container_wrote_is_told_from_what_the_updater_did() {
        assert!(is_of_container("12:00:00 3f2a3f2a3f2a | payram-core 9.0.4: starts"));
        assert!(!is_of_container("12:00:00 verify: failed: a | b"));
        assert!(!is_of_container("a | b"));
    }
}
