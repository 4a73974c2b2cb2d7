//! The rows of one table: read from the failed version's server as they come, looked for in the
//! old version's database a batch at a time, and written into the file where each belongs.
//!
//! Called by the export for each table that rows can go to. Both databases are only read, and
//! memory holds one batch, however large the table is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::shape::Mapping;
use super::tally::UPDATED_TOLD;
use super::{Exporting, Problem, bytes, file, refuse, statement, unwritten};
use crate::database::fingerprint::PINNED;
use crate::database::runner::READING_TIMEOUT;
use crate::database::tool::{Running, ToolError};
use crate::machine::facts::{ExportedTable, Fingerprint};

/// Rows, and bytes of them, that the old version is asked about at once.
const BATCH_ROWS: usize = 2000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// A row of the failed version's, as [`statement::reading`] answers it.
type Answered =
    (u32, Option<usize>, Option<String>, Option<String>, Option<String>, Option<String>);

/// A row that the old table can hold.
struct Row {
    key: String,
    digest: String,
    values: String,
    further: Option<String>,
}

/// What the old version answers to [`statement::question`].
type Answer = (usize, String, bool);

impl Exporting<'_> {
    /// Streams the rows of a table, a batch at a time.
    pub(super) async fn rows(
        &mut self,
        mapping: &Mapping<'_>,
        table: &mut ExportedTable,
    ) -> Result<(), Problem> {
        let reading = statement::reading(mapping, self.cut_over);
        let mut refused: HashMap<usize, u64> = HashMap::new();
        let whole = ["set synchronize_seqscans = off", "set statement_timeout = 0"];
        let settings = [&PINNED[..], &whole].concat();
        let statement = bytes::bytes_of(&format!("{};\n", reading.statement))
            .map_err(|error| self.unwritten(&error))?;
        let begun = self.failed.begin_exact(&settings, &statement, self.left()).await;
        let mut lines = Lines::of(begun.map_err(Problem::of)?);
        let mut batch: Vec<Row> = Vec::new();
        let mut size = 0;
        while let Some(line) = lines.next().await.map_err(Problem::of)? {
            match serde_json::from_str::<Answered>(&line) {
                Ok((writer, ..)) if self.is_carried(writer) => self.carried += 1,
                Ok((_, None, key, Some(digest), Some(values), further)) => {
                    size += values.len();
                    batch.push(Row { key: key.unwrap_or_default(), digest, values, further });
                }
                Ok((_, Some(why), ..)) => *refused.entry(why).or_default() += 1,
                Ok(_) => return Err(Problem::Table("a row without values".into())),
                Err(error) => return Err(Problem::Table(error.to_string())),
            }
            if batch.len() >= BATCH_ROWS || size >= BATCH_BYTES {
                self.settle(mapping, table, &std::mem::take(&mut batch)).await?;
                size = 0;
            }
        }
        lines.finish().await.map_err(Problem::of)?;
        self.settle(mapping, table, &batch).await?;
        self.draft.end_table().map_err(|error| self.unwritten(&error))?;
        for (number, reason) in reading.refusals.iter().enumerate() {
            if let Some(rows) = refused.get(&number) {
                refuse(table, *rows, &self.said(reason));
            }
        }
        Ok(())
    }

    /// Whether the rows that this transaction wrote were carried over.
    fn is_carried(&self, writer: u32) -> bool {
        self.left_out.as_ref().is_some_and(|left_out| !left_out.contains(&writer))
    }

    /// Asks the old version about a batch, and writes each row where it belongs.
    async fn settle(
        &mut self,
        mapping: &Mapping<'_>,
        table: &mut ExportedTable,
        batch: &[Row],
    ) -> Result<(), Problem> {
        if batch.is_empty() {
            return Ok(());
        }
        self.draft.check_space().map_err(|error| self.unwritten(&error))?;
        if mapping.key.is_empty() {
            let why = "the table has no key, so whether a row is new can't be told; \
                       they are in the comments below";
            refuse(table, batch.len() as u64, why);
            for refused in table.refused.iter_mut().filter(|refused| refused.reason == why) {
                refused.is_told = true;
            }
            for row in batch {
                self.comment(mapping, "written", row)?;
            }
            return Ok(());
        }
        let found = self.ask(mapping, batch).await?;
        for (number, row) in batch.iter().enumerate() {
            match found.get(&number) {
                None => {
                    table.inserted += 1;
                    let written = self.draft.insert(mapping, &row.values, row.further.as_deref());
                    written.map_err(|error| self.unwritten(&error))?;
                }
                Some((same, _)) if *same == row.digest && mapping.further.is_empty() => {}
                Some((same, _)) if *same == row.digest && self.is_rewritten(mapping) => {
                    refuse(table, 1, &self.said(&rewritten(mapping)));
                }
                Some((same, true)) if *same != row.digest => {
                    table.taken += 1;
                    self.comment(mapping, "key taken since", row)?;
                }
                Some(_) => {
                    table.updated += 1;
                    if table.updated <= UPDATED_TOLD {
                        self.comment(mapping, "updated", row)?;
                    } else {
                        let why = format!(
                            "updated, of which only the first {UPDATED_TOLD} are told one by one"
                        );
                        refuse(table, 1, &why);
                    }
                }
            }
        }
        Ok(())
    }

    fn comment(&mut self, mapping: &Mapping<'_>, why: &str, row: &Row) -> Result<(), Problem> {
        let written = self.draft.comment(mapping, why, &row.values, row.further.as_deref());
        written.map_err(|error| self.unwritten(&error))
    }

    /// What the old version has under these keys, by place in the batch.
    async fn ask(
        &self,
        mapping: &Mapping<'_>,
        batch: &[Row],
    ) -> Result<HashMap<usize, (String, bool)>, Problem> {
        let keys: Vec<String> = batch
            .iter()
            .enumerate()
            .map(|(number, row)| format!("({number}, {})", row.key))
            .collect();
        let question = statement::question(mapping, &keys.join(", "), self.cut_over);
        let asked =
            Question::write(self.path, &question).map_err(|error| self.unwritten(&error))?;
        let mut answer = Vec::new();
        let settings = [&PINNED[..], &["set statement_timeout = '60s'"]].concat();
        let within = self.left().min(READING_TIMEOUT * 3);
        self.old
            .exact_of_file(&settings, &asked.0, within, &mut |piece| {
                answer.extend_from_slice(piece)
            })
            .await
            .map_err(Problem::of)?;
        let text = String::from_utf8_lossy(&answer);
        let mut found = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (number, digest, since): Answer =
                serde_json::from_str(line).map_err(|error| Problem::Table(error.to_string()))?;
            found.insert(number, (digest, since));
        }
        Ok(found)
    }

    /// Whether the failed version wrote every row of the table anew, as `ALTER TABLE` may.
    fn is_rewritten(&self, mapping: &Mapping<'_>) -> bool {
        let file = |of: &Fingerprint| {
            of.tables.iter().find(|table| table.id == mapping.failed.id).map(|table| table.file)
        };
        file(self.before) != file(self.now)
    }

    fn unwritten(&self, error: &std::io::Error) -> Problem {
        Problem::Trouble(unwritten(self.path, error))
    }
}

fn rewritten(mapping: &Mapping<'_>) -> String {
    let names: Vec<&str> = mapping.further.iter().map(|column| column.name.as_str()).collect();
    format!(
        "rewritten with the whole table; what was written into {}, which the old version does not \
         have, is not told apart",
        names.join(", ")
    )
}

/// Keys that the old version is asked about, in a file that goes with it.
struct Question(PathBuf);

impl Question {
    fn write(beside: &Path, text: &str) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        let path = file::beside(beside, ".question.partial");
        let mut options = std::fs::OpenOptions::new();
        let question = Self(path);
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&question.0)?;
        bytes::put(&mut file, text)?;
        Ok(question)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // It would only be written anew.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The lines of a program's output, as `bytes` has them.
pub(super) struct Lines<'r> {
    running: Running<'r>,
    buffer: Vec<u8>,
    is_over: bool,
}

impl<'r> Lines<'r> {
    pub fn of(running: Running<'r>) -> Self {
        Self { running, buffer: Vec::new(), is_over: false }
    }

    pub async fn next(&mut self) -> Result<Option<String>, ToolError> {
        let mut searched = 0;
        loop {
            let new = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                return Ok(Some(bytes::text_of(&line)));
            }
            searched = self.buffer.len();
            if self.is_over {
                return Ok(None);
            }
            match self.running.stdout().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => self.is_over = true,
            }
        }
    }

    pub async fn finish(self) -> Result<(), ToolError> {
        self.running.finish().await
    }
}
