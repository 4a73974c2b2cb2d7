//! Whether the database's indexes were sorted by another version of the system's collation library
//! than the server has now, as after a new image with a newer libc: the same words may then be in
//! another order, and an index on text finds too little (PostgreSQL manual, "ALTER DATABASE",
//! REFRESH COLLATION VERSION; since version 15).
//!
//! Called by `inspect` and by `plan`. Reads only.

use super::runner::{READING_TIMEOUT, Runner};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;

/// The versions where they differ; a locale without one, such as C, has none.
const VERSIONS: &str = "select datcollversion, pg_database_collation_actual_version(oid) \
    from pg_database where datname = current_database() \
    and datcollversion <> pg_database_collation_actual_version(oid)";

/// The versions where they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherCollation {
    database: String,
    made_with: String,
    has: String,
}

impl OtherCollation {
    /// For a person, with the commands.
    pub fn sentence(&self) -> String {
        let Self { database, made_with, has } = self;
        let quoted = database.replace('"', "\"\"");
        format!(
            "database {database} was sorted with version {made_with} of its collation, and the server's library has version {has}: indexes on text may find too little. Have them sorted anew when few pay: REINDEX DATABASE \"{quoted}\"; ALTER DATABASE \"{quoted}\" REFRESH COLLATION VERSION;"
        )
    }
}

/// Whether the application's database has another collation version than its server; none also for
/// servers before PostgreSQL 15, which do not note it.
///
/// # Errors
/// `RUNTIME_INSPECTION_FAILED` when it can't be asked.
pub async fn other_collation(runner: &Runner<'_>) -> Result<Option<OtherCollation>, Trouble> {
    let told = |error: super::tool::ToolError| {
        let code = FailureCode::RuntimeInspectionFailed;
        error.trouble("ask for the database's collation version", code, code)
    };
    let version = runner.psql(None, &["show server_version_num"], READING_TIMEOUT).await;
    if version.map_err(told)?.trim().parse::<u32>().unwrap_or_default() < 150_000 {
        return Ok(None);
    }
    let answer = runner.psql(None, &[VERSIONS], READING_TIMEOUT).await.map_err(told)?;
    let versions = answer.lines().next().and_then(|line| line.split_once('|'));
    Ok(versions.map(|(made_with, has)| OtherCollation {
        database: runner.database().name.clone(),
        made_with: made_with.to_owned(),
        has: has.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_the_commands_for_a_database_of_any_name() {
        let other = OtherCollation {
            database: "pay\"ram".into(),
            made_with: "2.31".into(),
            has: "2.36".into(),
        };
        let said = other.sentence();
        assert!(said.contains("REINDEX DATABASE \"pay\"\"ram\";"), "{said}");
        assert!(said.contains("2.31") && said.contains("2.36"), "{said}");
    }
}
