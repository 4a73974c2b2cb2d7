//! The stretch of the failed server's write-ahead log since the cut-over, as its own `pg_waldump`
//! prints it.
//!
//! Called by `carry`, which has to know what each transaction did, and by it and the export for the
//! transaction at which the failed version began. That is not always the one that was noted: an old
//! version without a supervisor writes until it is stopped, after the note. But both databases come
//! from the directory that its server left, and the failed version's log still tells how far that
//! was: in the checkpoint of its shutdown, or, where it was killed, in the one that ends the
//! recovery of the next server. It is read from what is kept, so that it is the same however often
//! it is asked for.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::log::{self, Catalogs, Transactions};
use super::rows::Lines;
use super::{broken, bytes};
use crate::database::fingerprint::PINNED;
use crate::database::runner::{READING_TIMEOUT, Run, Runner};
use crate::database::tool::{Tool, ToolError};
use crate::error::Trouble;
use crate::machine::facts::Cluster;
use crate::machine::failure::FailureCode;

/// Since when, and where the log is.
pub struct CutOver<'c> {
    /// The server's next transaction at the cut-over, as it was noted: the old version may have
    /// written after that.
    pub transaction: u64,
    /// Where its log ended then.
    pub cluster: &'c Cluster,
    /// The server's directory, where its container sees it.
    pub directory: &'c Path,
    /// Where the server's own programs are.
    pub programs: &'c str,
}

/// What of the log there is to read.
#[derive(Deserialize)]
pub(super) struct Stretch {
    /// Where it ends.
    end: String,
    /// Whether that is where it began.
    is_empty: bool,
    database: u32,
    /// Of the catalogues of the database.
    files: Vec<u32>,
    major: u32,
}

impl Stretch {
    /// Finds out what there is since the cut-over.
    pub async fn of(failed: &Runner<'_>, cut_over: &CutOver<'_>) -> Result<Self, Trouble> {
        let from = &cut_over.cluster.wal_position;
        if !from.chars().all(|c| c.is_ascii_hexdigit() || c == '/') {
            return Err(broken(format!("{from:?} is no place in the server's log")));
        }
        json(
            failed,
            &format!(
                "select json_build_object('end', pg_current_wal_flush_lsn()::text, \
                   'is_empty', pg_current_wal_flush_lsn() <= '{from}'::pg_lsn, \
                   'database', (select oid::bigint from pg_database where datname = current_database()), \
                   'major', current_setting('server_version_num')::int / 10000, \
                   'files', (select json_agg(pg_relation_filenode(oid)::bigint) from pg_class \
                     where relnamespace = 'pg_catalog'::regnamespace \
                       and pg_relation_filenode(oid) is not null))::text"
            ),
        )
        .await
    }

    /// The first transaction that may be the failed version's: the next one when the old version's
    /// server ended, and what was noted before where the log tells nothing of that.
    pub async fn begins_at(
        &self,
        failed: &Runner<'_>,
        cut_over: &CutOver<'_>,
        deadline: Instant,
    ) -> Result<u64, Trouble> {
        let mut ended_at = None;
        if !self.is_empty {
            let mut lines = self.read(failed, cut_over, &["XLOG"], deadline).await?;
            while let Some(line) = lines.next().await.map_err(unlogged)? {
                ended_at = ended_at.or_else(|| log::ended_at(&line));
            }
            lines.finish().await.map_err(unlogged)?;
        }
        Ok(ended_at.unwrap_or(cut_over.transaction))
    }

    /// What each transaction did.
    pub async fn transactions(
        &self,
        failed: &Runner<'_>,
        cut_over: &CutOver<'_>,
        deadline: Instant,
    ) -> Result<Transactions, Trouble> {
        let mut all = Transactions::default();
        if self.is_empty {
            return Ok(all);
        }
        let catalogs =
            Catalogs { database: self.database, files: self.files.iter().copied().collect() };
        // Before 15 one kind of record could be asked for, or all.
        let kinds: &[&str] = match self.major {
            15.. => &["Heap", "Heap2", "Storage", "Transaction"],
            _ => &[],
        };
        let mut lines = self.read(failed, cut_over, kinds, deadline).await?;
        while let Some(line) = lines.next().await.map_err(unlogged)? {
            all.take(&line, &catalogs);
        }
        lines.finish().await.map_err(unlogged)?;
        Ok(all)
    }

    /// The records of these kinds, a line each; all of them where none is named.
    async fn read<'r>(
        &self,
        failed: &Runner<'r>,
        cut_over: &CutOver<'_>,
        kinds: &[&str],
        deadline: Instant,
    ) -> Result<Lines<'r>, Trouble> {
        let noted = cut_over.cluster;
        let mut arguments = vec![
            format!("--path={}", cut_over.directory.join("pg_wal").display()),
            format!("--timeline={}", noted.timeline),
            format!("--start={}", noted.wal_position),
            format!("--end={}", self.end),
        ];
        arguments.extend(kinds.iter().map(|kind| format!("--rmgr={kind}")));
        let left = deadline.saturating_duration_since(Instant::now());
        let run = Run {
            tool: Tool::PgWaldump,
            arguments,
            database: None,
            application: "payram-updater",
            stdin: false,
            timeout: left.max(Duration::from_secs(1)),
            programs: Some(cut_over.programs),
        };
        Ok(Lines::of(failed.start(run).await.map_err(unlogged)?))
    }
}

fn unlogged(error: ToolError) -> Trouble {
    let code = FailureCode::RuntimeInspectionFailed;
    error.trouble("read the failed version's write-ahead log", code, code)
}

/// The server's answer to one question, as JSON.
pub(super) async fn json<T: serde::de::DeserializeOwned>(
    runner: &Runner<'_>,
    question: &str,
) -> Result<T, Trouble> {
    let answer = runner.exact(&[&PINNED[..], &[question]].concat(), READING_TIMEOUT).await;
    let answer = answer.map_err(unread)?;
    serde_json::from_str(&bytes::text_of(&answer))
        .map_err(|error| broken(format!("read what is to be carried over: {error}")))
}

pub(super) fn unread(error: ToolError) -> Trouble {
    let code = FailureCode::RuntimeInspectionFailed;
    error.trouble("read what is to be carried over", code, code)
}
