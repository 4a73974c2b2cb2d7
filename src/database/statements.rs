//! What a dump of statements holds (`pg_dump` without `-Fc`, as the earlier tool wrote it), read
//! from the file alone.
//!
//! Called before such a file is restored. It has no checksum of its own, so that it must begin and
//! end as `pg_dump` writes it: a file that was cut off lacks its last line. And it may hold no
//! command of `psql`, by which it would reach another database than the new one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::machine::failure::{Failure, FailureCode};

/// What `pg_dump` writes into the first lines, and as the last line but for `\unrestrict`.
const HEAD: &[u8] = b"-- PostgreSQL database dump";
const END: &[u8] = b"-- PostgreSQL database dump complete";

/// Lines in which the head must stand.
const HEAD_WITHIN: u64 = 10;

/// Bytes of a line's beginning, and of its end, that are looked at.
const EDGE: usize = 64;

/// What begins a table's rows, and ends that line; the rows end with a line `\.`.
const COPY: (&[u8], &[u8]) = (b"COPY ", b" FROM stdin;");

/// The commands of `psql` that `pg_dump` itself writes: they restrict it further.
const ALLOWED: [&[u8]; 2] = [b"\\restrict ", b"\\unrestrict "];

/// What such a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statements {
    /// Tables whose rows are in it.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
}

/// Reads the file.
///
/// # Errors
/// `BACKUP_INVALID` with what was expected and found.
pub(super) async fn survey(path: &Path) -> Result<Statements, Failure> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = File::open(&owned).map_err(|error| error.to_string())?;
        let mut survey = Survey::default();
        let mut piece = vec![0; 256 * 1024];
        loop {
            match file.read(&mut piece).map_err(|error| error.to_string())? {
                0 => return survey.end(),
                read => survey.take(piece.get(..read).unwrap_or_default())?,
            }
        }
    });
    let read = read.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
    read.map_err(|reason| {
        Failure::new(FailureCode::BackupInvalid, format!("backup {}: {reason}", path.display()))
    })
}

/// Takes the file in piece by piece.
#[derive(Default)]
struct Survey {
    found: Statements,
    line: u64,
    /// The line in hand: its beginning, its end, and how long it is.
    head: Vec<u8>,
    tail: Vec<u8>,
    length: usize,
    is_in_rows: bool,
    has_head: bool,
    has_end: bool,
}

impl Survey {
    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        let mut parts = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = EDGE.saturating_sub(self.head.len());
            self.head.extend(part.iter().take(room));
            self.tail.extend(part.iter().skip(part.len().saturating_sub(EDGE)));
            let over = self.tail.len().saturating_sub(EDGE);
            self.tail.drain(..over);
            self.length += part.len();
            if parts.peek().is_some() {
                self.line()?;
            }
        }
        Ok(())
    }

    /// The line in hand has ended.
    fn line(&mut self) -> Result<(), String> {
        self.line += 1;
        let (head, tail) = (std::mem::take(&mut self.head), std::mem::take(&mut self.tail));
        let is_whole = std::mem::take(&mut self.length) <= EDGE;
        let head = head.trim_ascii_end();
        if self.is_in_rows {
            match is_whole && head == b"\\." {
                true => self.is_in_rows = false,
                false => self.found.rows += 1,
            }
            return Ok(());
        }
        let starts = head.trim_ascii_start();
        if head.starts_with(COPY.0) && tail.trim_ascii_end().ends_with(COPY.1) {
            self.is_in_rows = true;
            self.found.tables += 1;
        } else if starts.starts_with(b"\\") && !ALLOWED.iter().any(|one| starts.starts_with(one)) {
            let command = String::from_utf8_lossy(starts).into_owned();
            return Err(format!(
                "line {} is a command of psql ({command:?}), by which it could reach another database; expected statements alone, as pg_dump writes them",
                self.line
            ));
        }
        self.has_head |= self.line <= HEAD_WITHIN && is_whole && head == HEAD;
        self.has_end |= is_whole && head == END;
        Ok(())
    }

    fn end(mut self) -> Result<Statements, String> {
        if self.length > 0 {
            self.line()?;
        }
        let head = String::from_utf8_lossy(HEAD);
        match (self.has_head, self.has_end && !self.is_in_rows) {
            (true, true) => Ok(self.found),
            (false, _) => Err(format!(
                "it is no dump of PostgreSQL: expected `{head}` in its first {HEAD_WITHIN} lines"
            )),
            (true, false) => Err(format!(
                "it is cut off after line {}: expected `{head} complete` at its end",
                self.line
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\
        SET client_encoding = 'UTF8';\n\
        CREATE TABLE public.payments (id uuid, note text);\n\
        COPY public.payments (id, note) FROM stdin;\n\
        1\t\\N\n\\N\t\\connect other\n\\.\n\n\
        COPY public.wallets (id) FROM stdin;\n\\.\n\
        --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";

    fn read(pieces: &[&[u8]]) -> Result<Statements, String> {
        let mut survey = Survey::default();
        for piece in pieces {
            survey.take(piece)?;
        }
        survey.end()
    }

    #[test]
    fn tables_and_rows_are_counted_and_a_row_is_no_command() {
        assert_eq!(read(&[DUMP.as_bytes()]), Ok(Statements { tables: 2, rows: 2 }));
    }

    #[test]
    fn what_reaches_another_database_is_refused_by_its_line() {
        for command in ["\\connect payram", "  \\c payram", "\\! rm -r /", "\\i other.sql"] {
            let file = DUMP.replace("SET client", &format!("{command}\nSET client"));
            let refusal = read(&[file.as_bytes()]).expect_err("refused");
            assert!(refusal.contains("line 6 is a command of psql"), "{refusal}");
        }
    }

    #[test]
    fn a_cut_off_a_foreign_and_an_empty_file_are_refused() {
        let cut = DUMP.find("\\.").expect("rows");
        assert!(read(&[&DUMP.as_bytes()[..cut]]).expect_err("cut").contains("cut off"));
        assert!(read(&[b"CREATE TABLE a (b int);\n"]).expect_err("foreign").contains("no dump"));
        assert!(read(&[]).expect_err("empty").contains("no dump"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_file_is_read_in_two(at in 0..DUMP.len()) {
            let (first, second) = DUMP.as_bytes().split_at(at);
            prop_assert_eq!(read(&[first, second]), Ok(Statements { tables: 2, rows: 2 }));
        }

        #[test]
        fn every_cut_before_the_last_lines_is_noticed(at in 0..DUMP.find("complete").unwrap_or(0)) {
            prop_assert!(read(&[&DUMP.as_bytes()[..at]]).is_err());
        }

        #[test]
        fn no_file_is_too_strange_to_be_read(pieces in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..200), 0..10,
        )) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert!(read(&pieces).is_err());
        }
    }
}
