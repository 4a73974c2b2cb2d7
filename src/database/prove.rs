//! What a dump holds, read back from the file by `pg_restore --list`.
//!
//! The first proof of a backup (`BACKUP_PROOF=toc`), and what the full one is compared with.
//! Called by the driver's `prove_backup`, by `backup restore`, and by `scratch`. It reads the
//! dump's table of contents and asks the server nothing.

use std::path::Path;
use std::time::Duration;

use super::runner::{Run, Runner, readable};
use super::tool::Tool;
use crate::error::Trouble;
use crate::machine::facts::Proof;
use crate::machine::failure::FailureCode;

/// Bytes of one line of the listing that are kept; names are shorter.
const LONGEST_LINE: usize = 16 * 1024;

/// Proves that the dump's table of contents can be read back.
///
/// # Errors
/// `BACKUP_INVALID` when it can't, with what `pg_restore` said; `BACKUP_TIMEOUT`.
pub async fn prove(runner: &Runner<'_>, path: &Path, timeout: Duration) -> Result<Proof, Trouble> {
    Ok(contents(runner, path, timeout).await?.proof())
}

/// The dump's table of contents.
pub(super) async fn contents(
    runner: &Runner<'_>,
    path: &Path,
    timeout: Duration,
) -> Result<Contents, Trouble> {
    let doing = format!("read back {}", path.display());
    let told = |error: super::tool::ToolError| {
        error.trouble(&doing, FailureCode::BackupInvalid, FailureCode::BackupTimeout)
    };
    let run = Run {
        tool: Tool::PgRestore,
        arguments: vec!["--list".into(), "--format=custom".into()],
        database: None,
        application: "payram-updater",
        stdin: true,
        timeout,
        programs: None,
    };
    let mut contents = Contents::default();
    let running = runner.start(run).await.map_err(told)?;
    running.feed(path, &mut |piece| contents.take(piece)).await.map_err(told)?;
    contents.end();
    if contents.is_archive {
        return Ok(contents);
    }
    Err(Trouble::failed(
        FailureCode::BackupInvalid,
        format!("{doing}: expected a table of contents from pg_restore, found none"),
    ))
}

/// A listing of `pg_restore --list`, taken in piece by piece. Comments begin with `;`, an entry
/// is `3360; 0 16390 TABLE DATA public payments payram`.
#[derive(Default)]
pub(super) struct Contents {
    line: Vec<u8>,
    is_archive: bool,
    entries: u64,
    /// `public payments payram`: schema, table and owner of each table whose data is there.
    pub tables: Vec<String>,
}

impl Contents {
    fn take(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = lines.next() {
            let room = LONGEST_LINE.saturating_sub(self.line.len());
            self.line.extend(part.iter().take(room));
            if lines.peek().is_some() {
                self.end();
            }
        }
    }

    /// Takes in the line that has ended.
    fn end(&mut self) {
        let line = readable(&std::mem::take(&mut self.line));
        if let Some(comment) = line.strip_prefix(';') {
            self.is_archive |= comment.trim_start().starts_with("Archive created at");
            return;
        }
        let Some((_, entry)) = line.split_once("; ") else { return };
        self.entries += 1;
        let what = entry.splitn(3, ' ').nth(2).unwrap_or_default();
        if let Some(table) = what.strip_prefix("TABLE DATA ") {
            self.tables.push(table.to_owned());
        }
    }

    /// How much there is.
    pub fn proof(&self) -> Proof {
        Proof { toc_entries: self.entries, tables: self.tables.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTING: &str = ";\n; Archive created at 2026-01-31 12:00:00 UTC\n;     dbname: payram\n\
        ;     TOC Entries: 9\n;\n;\n; Selected TOC Entries:\n;\n\
        215; 1259 16390 TABLE public payments payram\n\
        214; 1259 16389 SEQUENCE public payments_id_seq payram\n\
        3360; 0 16390 TABLE DATA public payments payram\n\
        3361; 0 16399 TABLE DATA public odd name payram\n\
        3367; 0 0 SEQUENCE SET public payments_id_seq payram\n";

    fn read(pieces: &[&[u8]]) -> Contents {
        let mut contents = Contents::default();
        pieces.iter().for_each(|piece| contents.take(piece));
        contents.end();
        contents
    }

    #[test]
    fn entries_and_the_tables_among_them_are_counted() {
        let contents = read(&[LISTING.as_bytes()]);
        assert!(contents.is_archive);
        assert_eq!(contents.proof(), Proof { toc_entries: 5, tables: 2 });
        assert_eq!(contents.tables, ["public payments payram", "public odd name payram"]);
    }

    #[test]
    fn what_is_no_listing_proves_nothing() {
        assert!(!read(&[b"OCI runtime exec failed"]).is_archive);
        assert!(!read(&[]).is_archive);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_listing_is_cut(at in 0..LISTING.len()) {
            let (first, second) = LISTING.as_bytes().split_at(at);
            let contents = read(&[first, second]);
            prop_assert_eq!(contents.proof(), Proof { toc_entries: 5, tables: 2 });
        }

        #[test]
        fn no_output_is_too_strange_to_be_read(pieces in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..200), 0..10,
        )) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            read(&pieces);
        }
    }
}
