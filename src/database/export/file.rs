//! The file of a failed version's rows: SQL that can be loaded into the old version's database,
//! with everything that must not be loaded in comments.
//!
//! It is written under other names and appears whole, synced, for root alone. Every row is one
//! line (`statement` sees to it), so that a comment ends where its line does. It is in the
//! database's own encoding, and says so: what it holds is loaded byte for byte.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Heading;
use super::bytes::put;
use super::shape::Mapping;
use super::tally::{rows, said_of_refused, said_of_table};
use crate::database::sidecar::sync_directory;
use crate::machine::facts::ExportedTable;

/// Rows of one `INSERT`.
const ROWS_OF_AN_INSERT: usize = 500;

/// Free space that is left to the database that serves on the same disk.
const LEFT_FREE: u64 = 512 * 1024 * 1024;

/// How a value is written, whatever the session that loads it is set to; in a transaction, so
/// that a row that does not fit leaves nothing behind.
const BEGINNING: &str = "\\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_encoding = '{{encoding}}';
SET LOCAL standard_conforming_strings = on;
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = 'postgres';
";

/// The parts of the file, while they are written.
pub(super) struct Draft {
    path: PathBuf,
    encoding: String,
    inserts: Part,
    comments: Part,
    in_insert: usize,
    in_comment: bool,
    /// What ends an `INSERT`.
    ending: &'static str,
}

/// A row whose key is taken is left out.
const OR_NOTHING: &str = "\nON CONFLICT DO NOTHING;";

impl Draft {
    /// Begins anew, whatever an earlier attempt left. All that is written of a database is in
    /// this encoding, as `bytes` has it.
    pub fn begin(path: &Path, encoding: &str) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            encoding: encoding.to_owned(),
            inserts: Part::create(beside(path, ".inserts.partial"))?,
            comments: Part::create(beside(path, ".comments.partial"))?,
            in_insert: 0,
            in_comment: false,
            ending: OR_NOTHING,
        })
    }

    /// The same for rows of which all go in or none.
    pub fn begin_whole(path: &Path, encoding: &str) -> std::io::Result<Self> {
        Ok(Self { ending: ";", ..Self::begin(path, encoding)? })
    }

    /// Refuses to fill the disk that the database lies on.
    pub fn check_space(&self) -> std::io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let space = rustix::fs::statvfs(directory)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free >= LEFT_FREE {
            return Ok(());
        }
        Err(std::io::Error::new(
            std::io::ErrorKind::StorageFull,
            format!("only {free} bytes are free, and {LEFT_FREE} are left to the database"),
        ))
    }

    /// A row that the old table does not have; `further` are the values of columns that it does
    /// not have either.
    pub fn insert(
        &mut self,
        mapping: &Mapping<'_>,
        values: &str,
        further: Option<&str>,
    ) -> std::io::Result<()> {
        let out = &mut self.inserts.out;
        match self.in_insert % ROWS_OF_AN_INSERT {
            0 => {
                if self.in_insert > 0 {
                    writeln!(out, "{}", self.ending)?;
                }
                let overriding = mapping.columns.iter().any(|pair| pair.old.is_always_identity);
                let overriding = if overriding { " OVERRIDING SYSTEM VALUE" } else { "" };
                let (name, columns) = (&mapping.old.name, columns(mapping));
                put(out, &format!("\nINSERT INTO {name} ({columns}){overriding} VALUES"))?;
            }
            _ => write!(out, ",")?,
        }
        if let Some(further) = further {
            let of = one_line(&format!("of {}: {further}", names_of(mapping)));
            put(out, &format!("\n  -- below, without the values {of}"))?;
        }
        put(out, &format!("\n  ({values})"))?;
        self.in_insert += 1;
        Ok(())
    }

    /// A row that is told and not loaded, below `why`.
    pub fn comment(
        &mut self,
        mapping: &Mapping<'_>,
        why: &str,
        values: &str,
        further: Option<&str>,
    ) -> std::io::Result<()> {
        let out = &mut self.comments.out;
        if !self.in_comment {
            let (name, columns) = (&mapping.old.name, columns(mapping));
            let new = match mapping.further.len() {
                0 => String::new(),
                _ => format!("; new: {}", names_of(mapping)),
            };
            put(out, &format!("--\n-- {}\n", one_line(&format!("{name} ({columns}{new})"))))?;
            self.in_comment = true;
        }
        let further = further.map(|further| format!("; {further}")).unwrap_or_default();
        put(out, &format!("-- {why}: {}\n", one_line(&format!("{values}{further}"))))
    }

    /// Ends the table that was written last.
    pub fn end_table(&mut self) -> std::io::Result<()> {
        if self.in_insert > 0 {
            writeln!(self.inserts.out, "{}", self.ending)?;
        }
        self.in_insert = 0;
        self.in_comment = false;
        Ok(())
    }

    /// Puts the rows alone into the file, between these statements, all in one transaction.
    pub fn finish_whole(self, before: &str, after: &str) -> std::io::Result<()> {
        let mut out = Part::create(self.path.clone())?;
        out.out.write_all(BEGINNING.replace("{{encoding}}", &self.encoding).as_bytes())?;
        put(&mut out.out, before)?;
        self.inserts.append_to(&mut out.out)?;
        put(&mut out.out, after)?;
        out.out.write_all(b"COMMIT;\n")?;
        out.out.flush()?;
        out.is_kept = true;
        Ok(())
    }

    /// Puts the file together; from then on it is there.
    pub fn finish(
        self,
        heading: &Heading<'_>,
        tables: &[ExportedTable],
        sequences: &[String],
    ) -> std::io::Result<()> {
        let whole = beside(&self.path, ".partial");
        let mut out = Part::create(whole.clone())?;
        out.out.write_all(head(heading, &self.path, tables).as_bytes())?;
        out.out.write_all(BEGINNING.replace("{{encoding}}", &self.encoding).as_bytes())?;
        self.inserts.append_to(&mut out.out)?;
        out.out.write_all(b"\nCOMMIT;\n")?;
        self.comments.append_to(&mut out.out)?;
        if !sequences.is_empty() {
            out.out.write_all(b"--\n-- Sequences that the failed version moved on:\n")?;
        }
        for sequence in sequences {
            put(&mut out.out, &format!("-- {}\n", one_line(sequence)))?;
        }
        out.out.flush()?;
        out.out.get_ref().sync_all()?;
        std::fs::rename(&whole, &self.path)?;
        out.is_kept = true;
        sync_directory(&self.path)
    }
}

/// A file that goes when it is dropped.
struct Part {
    path: PathBuf,
    out: BufWriter<File>,
    is_kept: bool,
}

impl Part {
    fn create(path: PathBuf) -> std::io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, out: BufWriter::new(file), is_kept: false })
    }

    fn append_to(mut self, out: &mut impl Write) -> std::io::Result<()> {
        self.out.flush()?;
        std::io::copy(&mut File::open(&self.path)?, out).map(drop)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // What is left of it would only be written anew.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// `PATH.SUFFIX`
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn columns(mapping: &Mapping<'_>) -> String {
    let names: Vec<&str> = mapping.columns.iter().map(|pair| pair.old.name.as_str()).collect();
    names.join(", ")
}

/// The columns that only the failed version's table has.
fn names_of(mapping: &Mapping<'_>) -> String {
    let names: Vec<&str> = mapping.further.iter().map(|column| column.name.as_str()).collect();
    names.join(", ")
}

/// In a comment nothing may end the line. Of bytes above ASCII none does, and they stay.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_ascii_control(), " ")
}

/// The shell's command that loads a file.
pub(super) fn loading(heading: &Heading<'_>, path: &str) -> String {
    format!("{} < {}", heading.load_command, quoted(path))
}

fn head(heading: &Heading<'_>, path: &Path, tables: &[ExportedTable]) -> String {
    let mut lines = vec![
        format!("Rows that PayRam {} wrote before it was taken back.", heading.version),
        format!("The database of {}, which serves again, does not have them.", heading.old_version),
        String::new(),
        format!("upgrade:  {}", heading.upgrade),
        format!("written:  {}", heading.written_at),
        format!("from:     {}, which is kept", heading.directory.display()),
        String::new(),
    ];
    for table in tables {
        lines.push(said_of_table(table));
        let refused = table.refused.iter();
        lines.extend(refused.map(|refused| format!("  {}", said_of_refused(refused))));
        if !table.left_out.is_empty() {
            lines.push(format!(
                "  only in comments, because the old version has no such column: {}",
                table.left_out.join(", ")
            ));
        }
        if table.taken > 0 {
            lines.push(format!(
                "  {} only in the comments below: the old version has written another row under \
                 the same key since",
                rows(table.taken)
            ));
        }
    }
    lines.extend([
        String::new(),
        "What was inserted can be loaded; what was updated is in comments below, so that".into(),
        "loading never overwrites a row. Read it first: triggers of the old version's tables fire.".into(),
        "It is one transaction: all of it or nothing. A row whose key is taken by then is left out;".into(),
        "INSERT answers how many went in. To load it:".into(),
        format!("  {}", loading(heading, &path.to_string_lossy())),
    ]);
    let comment = |line: &String| match line.as_str() {
        "" => "--\n".to_owned(),
        line => format!("-- {}\n", one_line(line)),
    };
    lines.iter().map(comment).collect()
}

/// As one word of a shell's command.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}
