//! The whole dump, restored into a scratch database on the same server and counted
//! (`BACKUP_PROOF=full`).
//!
//! Called by the driver's `prove_backup`. The scratch database has a name that nothing else
//! has, is dropped whatever comes of it, and what an interrupted attempt left is dropped before
//! the next. It takes the space of a second copy of the database on the server's disk while it
//! is there. The application's own database is not touched.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::fingerprint::{SCRATCH_PREFIX, counted_rows, in_tables};
use super::prove::{self, Contents};
use super::runner::{READING_TIMEOUT, Run, Runner, unique};
use super::tool::{ENTRY, Tool, ToolError};
use crate::error::Trouble;
use crate::machine::facts::Proof;
use crate::machine::failure::FailureCode;

/// How long creating or dropping the scratch database may take.
pub(super) const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

/// What the server says when it is the role that falls short, not the dump.
const NOT_ALLOWED: [&str; 3] = ["permission denied", "must be superuser", "must be owner"];

/// What the server says when its disk is full.
pub(super) const NO_SPACE: &str = "No space left on device";

/// What came of a full proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FullProof {
    /// It was restored, and every table whose data the dump holds was there.
    Proved {
        /// What the dump's table of contents says.
        proof: Proof,
        /// Rows in the restored tables; none when the time was over before all were counted.
        rows: Option<u64>,
    },
    /// The server or the role does not allow a scratch database; nothing is said of the dump.
    NotAllowed {
        /// Why.
        reason: String,
    },
}

/// Restores the dump into a scratch database, compares the tables and counts their rows.
///
/// # Errors
/// `BACKUP_INVALID` when it can't be restored or a table is missing, `BACKUP_TIMEOUT`,
/// `DISK_SPACE_LOW` when the server's disk can't hold a second copy.
pub async fn prove_full(
    runner: &Runner<'_>,
    path: &Path,
    timeout: Duration,
) -> Result<FullProof, Trouble> {
    let deadline = Instant::now() + timeout;
    let contents = prove::contents(runner, path, timeout).await?;
    drop_leftovers(runner).await?;
    let name = unique(SCRATCH_PREFIX);
    let statement = match creation(runner, &name, "").await? {
        Creation::By(statement) => statement,
        Creation::NotAllowed(reason) => return Ok(FullProof::NotAllowed { reason }),
    };
    let proved = match runner.psql(None, &[&statement], CREATE_TIMEOUT).await {
        Ok(_) => match unreachable(runner, &name).await {
            Ok(None) => restore_and_compare(runner, &name, path, &contents, deadline).await,
            Ok(Some(reason)) => Ok(FullProof::NotAllowed { reason }),
            Err(trouble) => Err(trouble),
        },
        Err(ToolError::Ended { said, .. }) => Ok(FullProof::NotAllowed { reason: said }),
        Err(error) => Err(told(error, "create a scratch database")),
    };
    if let Err(trouble) = drop_database(runner, &name).await {
        // The verdict on the dump stands; the next attempt drops what is left.
        tracing::warn!(error = %trouble, database = %name, "a scratch database is left");
    }
    proved
}

/// Why nobody gets into the scratch database: a pooler, or the server's own rules, may lead to the
/// application's alone. None when it is entered.
async fn unreachable(runner: &Runner<'_>, name: &str) -> Result<Option<String>, Trouble> {
    match runner.psql(Some(name), &["select 1"], READING_TIMEOUT).await {
        Ok(_) => Ok(None),
        Err(ToolError::Ended { said, .. }) => {
            Ok(Some(format!("a database beside the application's can't be connected to: {said}")))
        }
        Err(error) => Err(told(error, &format!("connect to scratch database {name}"))),
    }
}

fn told(error: ToolError, doing: &str) -> Trouble {
    if matches!(&error, ToolError::Ended { said, .. } if said.contains(NO_SPACE)) {
        return Trouble::failed(FailureCode::DiskSpaceLow, format!("{doing}: {error}"));
    }
    error.trouble(doing, FailureCode::BackupInvalid, FailureCode::BackupTimeout)
}

/// How a database beside the application's is made.
pub(super) enum Creation {
    By(String),
    NotAllowed(String),
}

/// The owner and the place of the application's database too, as [`creation`] appends them. The
/// place that `template0` has goes without saying: to name it takes a privilege.
pub(super) const ALIKE: &str = " || format(' owner %I', pg_get_userbyid(datdba)) \
    || coalesce((select format(' tablespace %I', spcname) from pg_tablespace t \
      where t.oid = dattablespace and t.oid <> \
        (select dattablespace from pg_database where datname = 'template0')), '')";

/// From `template0` with the encoding and the locale of the application's database; the server
/// writes the statement, so that it quotes by its own rules.
pub(super) async fn creation(
    runner: &Runner<'_>,
    name: &str,
    further: &str,
) -> Result<Creation, Trouble> {
    let ask = "select case when pg_is_in_recovery() then 'the server is a standby' \
           when not exists (select from pg_roles where rolname = current_user \
             and (rolcreatedb or rolsuper)) \
             then format('role %s may not create databases', current_user) \
           else '' end";
    let reason = runner
        .psql(None, &[ask], READING_TIMEOUT)
        .await
        .map_err(|error| told(error, "ask whether a scratch database is allowed"))?;
    if !reason.is_empty() {
        return Ok(Creation::NotAllowed(reason));
    }
    let ask = statement_of(name, further);
    let statement = runner
        .psql(None, &[&ask], READING_TIMEOUT)
        .await
        .map_err(|error| told(error, "ask how the database was created"))?;
    Ok(Creation::By(statement))
}

/// Asks for the statement that makes a database of this name like the application's.
pub(super) fn statement_of(name: &str, further: &str) -> String {
    let name = name.replace('\'', "''");
    // Columns that a server's version lacks read as null through to_jsonb.
    format!(
        "select format('create database %I template template0 encoding %L lc_collate %L \
           lc_ctype %L%s', '{name}', pg_encoding_to_char(encoding), datcollate, datctype, \
           case to_jsonb(d) ->> 'datlocprovider' \
             when 'i' then format(' locale_provider icu icu_locale %L', \
               coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')) \
             when 'b' then format(' locale_provider builtin builtin_locale %L', \
               to_jsonb(d) ->> 'datlocale') \
             else '' end){further} \
         from pg_database d where datname = current_database()"
    )
}

/// Drops what interrupted attempts left. One that can't be dropped does not keep the next from
/// being made, so it is only warned of.
async fn drop_leftovers(runner: &Runner<'_>) -> Result<(), Trouble> {
    let ask = format!(
        "select datname from pg_database where datname ~ '^{SCRATCH_PREFIX}[0-9a-f]{{8}}$'"
    );
    let names = runner
        .psql(None, &[&ask], READING_TIMEOUT)
        .await
        .map_err(|error| told(error, "look for scratch databases of earlier attempts"))?;
    for name in names.lines() {
        if let Err(trouble) = drop_database(runner, name).await {
            tracing::warn!(error = %trouble, database = %name, "an old scratch database is left");
        }
    }
    Ok(())
}

/// Ends the sessions in a scratch database and drops it; fine when there is none.
pub(super) async fn drop_database(runner: &Runner<'_>, name: &str) -> Result<(), Trouble> {
    let end = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' \
           and pid <> pg_backend_pid()"
    );
    // DROP DATABASE itself waits some seconds for sessions that are about to end.
    let drop = format!("drop database if exists {name}");
    runner
        .psql(None, &[&end, &drop], CREATE_TIMEOUT)
        .await
        .map(|_| ())
        .map_err(|error| told(error, &format!("drop scratch database {name}")))
}

async fn restore_and_compare(
    runner: &Runner<'_>,
    name: &str,
    path: &Path,
    contents: &Contents,
    deadline: Instant,
) -> Result<FullProof, Trouble> {
    let doing = format!("restore {} into a scratch database", path.display());
    let left = |deadline: Instant| {
        deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
    };
    let arguments = [
        "--format=custom",
        "--exit-on-error",
        "--no-password",
        "--no-owner",
        "--no-privileges",
        "--no-comments",
        "--no-publications",
        // A restored subscription would connect to its publisher.
        "--no-subscriptions",
        "--no-security-labels",
        "--no-tablespaces",
        "--dbname",
        name,
    ];
    let run = Run {
        tool: Tool::PgRestore,
        arguments: arguments.map(String::from).into(),
        database: Some(name),
        application: "payram-updater-proof",
        stdin: true,
        timeout: left(deadline),
        programs: None,
    };
    let restored = match runner.start(run).await {
        Ok(running) => running.feed(path, &mut |_| {}).await,
        Err(error) => Err(error),
    };
    match restored {
        Ok(()) => {}
        Err(ToolError::Ended { said, .. })
            if NOT_ALLOWED.iter().any(|words| said.contains(words)) =>
        {
            return Ok(FullProof::NotAllowed { reason: said });
        }
        Err(ToolError::Ended { said, .. }) if !said.contains(NO_SPACE) => {
            return Err(Trouble::failed(FailureCode::BackupInvalid, not_restored(&doing, &said)));
        }
        Err(error) => return Err(told(error, &doing)),
    }
    let tables = in_tables(runner, name).await.map_err(|error| told(error, &doing))?;
    let differences = differences(&contents.tables, &tables);
    if !differences.is_empty() {
        return Err(Trouble::failed(
            FailureCode::BackupInvalid,
            format!("{doing}: {}", differences.join("; ")),
        ));
    }
    let counted = counted_rows(runner, name, left(deadline))
        .await
        .map_err(|error| told(error, &format!("{doing}, count its rows")))?;
    let rows = (counted.len() == tables.len()).then(|| counted.iter().sum());
    Ok(FullProof::Proved { proof: contents.proof(), rows })
}

/// Of a dump that is whole and does not go back as it is: which object it is that does not, and what
/// can be done. It is the database that is so, not the file.
fn not_restored(doing: &str, said: &str) -> String {
    match object(said) {
        None => format!(
            "{doing}: {said}. If the database can't be restored from any dump for this, BACKUP_PROOF=toc goes on without the proof, at your own risk"
        ),
        Some(object) => format!(
            "{doing}: {object} can't be made again from the dump: {said}. The file is whole; it is the definition that does not stand alone (a function that needs another search_path, an object that refers to what comes later). Change it in the database, for a function with ALTER FUNCTION … SET search_path = …, then try again. Or BACKUP_PROOF=toc goes on without this proof, at your own risk: the backup could not be restored without the same change"
        ),
    }
}

/// `TABLE DATA public payments`, of `from TOC entry 3240; 0 16386 TABLE DATA public payments payram`.
fn object(said: &str) -> Option<String> {
    let (_, entry) = said.split_once(ENTRY)?;
    let entry = entry.split(';').nth(1)?;
    // Two numbers come first, the owner last.
    let mut words: Vec<&str> = entry.split_whitespace().skip(2).collect();
    words.pop();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Where the listing of the dump (`schema table owner`) and the restored tables
/// (`schema table`) differ.
pub(super) fn differences(listed: &[String], restored: &[String]) -> Vec<String> {
    let is_of = |entry: &str, table: &str| {
        entry.strip_prefix(table).is_some_and(|rest| rest.starts_with(' '))
    };
    let missing = listed
        .iter()
        .filter(|entry| !restored.iter().any(|table| is_of(entry, table)))
        .map(|entry| {
            format!("the dump holds rows of {entry}, the restored database has no such table")
        });
    let unlisted = restored
        .iter()
        .filter(|table| !listed.iter().any(|entry| is_of(entry, table)))
        .map(|table| {
            format!("the restored database has a table {table}, the dump holds no rows of it")
        });
    missing.chain(unlisted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_object_that_does_not_go_back_is_named_with_what_can_be_done() {
        let said = "pg_restore: from TOC entry 215; 1259 16390 INDEX payments_by_day payram; \
                    pg_restore: error: could not execute query: ERROR:  function day(text) does not exist";
        let told = not_restored("restore b.dump", said);
        for part in ["INDEX payments_by_day can't be made again", "search_path", "BACKUP_PROOF=toc"]
        {
            assert!(told.contains(part), "{told}");
        }
        let nameless = not_restored("restore b.dump", "pg_restore: error: out of memory");
        assert!(nameless.contains("BACKUP_PROOF=toc") && !nameless.contains("again from"));
    }

    #[test]
    fn a_table_on_one_side_only_is_named() {
        let listed = names(&["public payments payram", "public odd name payram"]);
        assert_eq!(
            differences(&listed, &names(&["public odd name", "public payments"])),
            Vec::<String>::new()
        );
        let found = differences(&listed, &names(&["public payments", "public wallets"]));
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|line| line.contains("odd name")));
        assert!(found.iter().any(|line| line.contains("wallets")));
    }
}
