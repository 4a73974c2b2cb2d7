//! `journal verify` and `journal export`: the journal itself, read without the daemon, so that
//! they work when it does not.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

use super::args::Journal;
use super::{Exit, Problem, Reading, document};
use crate::journal::{Broken, JournalError, Reader, Verified};

/// `journal …`
pub(super) fn journal(
    state_dir: &Path,
    asked: &Journal,
    reading: Reading,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let path = state_dir.join("journal.db");
    let reader = Reader::open(&path).map_err(unreadable)?;
    match asked {
        Journal::Verify => {
            let verdict = reader.verify().map_err(unreadable)?;
            show(out, reading, &path, &verdict)?;
            Ok(if verdict.is_ok() { Exit::Done } else { Exit::Failed })
        }
        Journal::Export => {
            let mut out = BufWriter::new(out);
            reader.export(&mut out).map_err(|error| match error {
                // What can't be written is the output, not the journal.
                JournalError::Io { source, .. } => Problem::Output(source),
                error @ (JournalError::Sqlite { .. }
                | JournalError::Newer { .. }
                | JournalError::AlreadyActive { .. }
                | JournalError::Row { .. }
                | JournalError::Unsettled { .. }
                | JournalError::Forbidden { .. }) => unreadable(error),
            })?;
            out.flush()?;
            Ok(Exit::Done)
        }
    }
}

fn unreadable(error: JournalError) -> Problem {
    Problem::stopped(Exit::Failed, "JOURNAL_ERROR", error.to_string())
}

fn show(
    out: &mut dyn Write,
    reading: Reading,
    path: &Path,
    verdict: &Result<Verified, Broken>,
) -> io::Result<()> {
    let path = path.display();
    match (reading, verdict) {
        (Reading::Json, Ok(holds)) => {
            document(out, &json!({"ok": true, "rows": holds.rows, "head": holds.head}))
        }
        (Reading::Json, Err(broken)) => {
            document(out, &json!({"ok": false, "seq": broken.seq, "reason": broken.reason}))
        }
        (Reading::Person | Reading::Text, Ok(holds)) => {
            writeln!(out, "{path}: {} rows, every one as it was written.", holds.rows)?;
            writeln!(out, "Head: {}", holds.head)
        }
        (Reading::Person | Reading::Text, Err(broken)) => {
            writeln!(out, "{path}: row {} does not hold: {}.", broken.seq, broken.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_row_is_named() {
        let broken = Err(Broken { seq: 7, reason: "its content does not match its hash".into() });
        let mut out = Vec::new();
        show(&mut out, Reading::Person, Path::new("/s/journal.db"), &broken).expect("written");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "/s/journal.db: row 7 does not hold: its content does not match its hash.\n"
        );
    }

    #[test]
    fn a_journal_that_is_not_there_is_a_failure_that_names_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut out = Vec::new();
        let problem = journal(directory.path(), &Journal::Verify, Reading::Json, &mut out)
            .expect_err("no journal");
        assert_eq!(problem.exit(), Exit::Failed);
        assert!(problem.to_string().contains("journal.db"), "{problem}");
    }
}
