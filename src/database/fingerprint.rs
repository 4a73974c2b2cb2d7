//! What the database holds at one moment: its schema, and the server's own counters of rows
//! inserted, updated and deleted in each table.
//!
//! Called by the driver after `quiesce` and again before the way back is chosen;
//! [`super::assess`] compares the two. It is one read-only session of `psql`.
//!
//! How far the counters can be trusted (PostgreSQL manual, section 28.2): a session adds what
//! it wrote to the server's counters when it ends, or some time after it fell idle, up to 10 s
//! later; servers before 15 send it to a collector whose file is up to 0.5 s old. So the
//! reading waits, for a short time, until two readings agree and no session can have anything
//! left to add; the sessions that still can are counted. A clean shutdown keeps the counters, a
//! crash discards them and moves the server's reset time, which is noted with the database's
//! own. `TRUNCATE` is in no counter, but it gives the table another file. Rows of a transaction
//! that was rolled back are counted: that errs to the side of "changed".

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::runner::{READING_TIMEOUT, Runner, readable};
use super::sidecar::hex;
use super::tool::ToolError;
use crate::error::Trouble;
use crate::machine::Sequence;
use crate::machine::facts::{ChangeKinds, Fingerprint, ObjectDigest, OtherDatabase, TableCount};
use crate::machine::failure::FailureCode;

/// What the name of every scratch database begins with: none of them is counted.
pub(super) const SCRATCH_PREFIX: &str = "payram_updater_proof_";

const SETTLE: &str = include_str!("sql/settle.sql");
const COUNT_ROWS: &str = include_str!("sql/count_rows.sql");
pub(super) const READ_SEQUENCES: &str = include_str!("sql/sequences.sql");
const FINGERPRINT: &str = include_str!("sql/fingerprint.sql");

/// How long the counters may take to settle, at most; the application is silent meanwhile.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// How much longer than its budget a count may run before the server ends it: it looks at the
/// time only between two tables.
const COUNT_GRACE: Duration = Duration::from_millis(250);

/// Bytes of a table whose rows are counted in a second, as far as it is sensible to begin: one
/// that is given up in the middle has cost its time for nothing.
const COUNTED_PER_SECOND: u64 = 256 << 20;

/// Sessions that may have written what is not counted yet: all but those that have been idle
/// for longer than a server keeps it back (10 s). Of another role's session an ordinary role
/// sees neither state nor kind: it counts as unsettled. Autovacuum belongs to no role.
const UNSETTLED: &str = "datname = current_database() and pid <> pg_backend_pid() \
    and usesysid is not null \
    and coalesce(backend_type, '') not in ('parallel worker', 'walsender') \
    and (state is distinct from 'idle' \
      or state_change > clock_timestamp() - interval '11 seconds')";

/// What makes the server write a definition or a value the same way whoever asks and however the
/// database is set. Nothing is written by a reading.
pub(super) const PINNED: [&str; 11] = [
    "set default_transaction_read_only = on",
    "set search_path = pg_catalog",
    "set timezone = 'UTC'",
    "set datestyle = 'ISO, YMD'",
    "set intervalstyle = 'postgres'",
    "set quote_all_identifiers = off",
    "set standard_conforming_strings = on",
    "set bytea_output = 'hex'",
    "set extra_float_digits = 3",
    "set row_security = off",
    "set statement_timeout = '20s'",
];

/// Reads the database's fingerprint; rows are counted for about `budget`, small tables first.
///
/// # Errors
/// `RUNTIME_INSPECTION_FAILED` when the server does not answer or does not keep counters,
/// `INVALID_DB_CONFIG` when it refuses the credentials.
pub async fn fingerprint(runner: &Runner<'_>, budget: Duration) -> Result<Fingerprint, Trouble> {
    read(runner, budget, None).await
}

/// The same, and of the rows that are counted those that were written since `before` was read.
///
/// # Errors
/// Those of [`fingerprint`].
pub async fn fingerprint_since(
    runner: &Runner<'_>,
    budget: Duration,
    before: &Fingerprint,
) -> Result<Fingerprint, Trouble> {
    let mut now = read(runner, budget, before.next_transaction).await?;
    for other in &mut now.databases {
        let then = before.databases.iter().find(|then| then.id == other.id);
        if let Some(then) = then.filter(|then| then.kinds != other.kinds)
            && never_held_a_row(runner, &other.name).await
        {
            other.kinds = then.kinds;
        }
    }
    Ok(now)
}

/// Whether another database has nothing that could hold a row, and nothing was ever removed from
/// it, as far as its server counts: what was written there are notes of the server's own, as those
/// of its autovacuum. Not where it can't be asked.
async fn never_held_a_row(runner: &Runner<'_>, database: &str) -> bool {
    let ask = "select not exists (select from pg_largeobject_metadata) \
        and coalesce((select n_tup_del from pg_stat_all_tables \
          where relid = 'pg_catalog.pg_class'::regclass), 0) = 0 \
        and not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
          where c.relkind in ('r', 'm', 'S') \
            and n.nspname not in ('pg_catalog', 'information_schema') \
            and n.nspname !~ '^pg_(toast|temp)')";
    let answer = runner.psql(Some(database), &[ask], READING_TIMEOUT).await;
    answer.is_ok_and(|answer| answer.trim() == "t")
}

async fn read(
    runner: &Runner<'_>,
    budget: Duration,
    since: Option<u64>,
) -> Result<Fingerprint, Trouble> {
    let doing = format!("fingerprint database {}", runner.database().name);
    let settle = with_budget(SETTLE, SETTLE_WITHIN).replace("{{unsettled}}", UNSETTLED);
    let limit = statement_timeout(budget);
    let count = count_rows(budget, since);
    let scratch = format!("^{}", SCRATCH_PREFIX);
    let read = FINGERPRINT.replace("{{unsettled}}", UNSETTLED).replace("{{scratch}}", &scratch);
    let mut statements = PINNED.to_vec();
    statements.extend([
        &settle,
        &limit,
        &count,
        "set statement_timeout = '20s'",
        READ_SEQUENCES,
        &read,
    ]);
    let answer = runner
        .psql(None, &statements, budget + SETTLE_WITHIN + READING_TIMEOUT)
        .await
        .map_err(|error| {
            let code = FailureCode::RuntimeInspectionFailed;
            error.trouble(&doing, code, code)
        })?;
    parse(&answer).map_err(|reason| {
        Trouble::failed(FailureCode::RuntimeInspectionFailed, format!("{doing}: {reason}"))
    })
}

fn with_budget(statement: &str, budget: Duration) -> String {
    statement
        .replace("{{budget_ms}}", &budget.as_millis().to_string())
        .replace("{{bytes_per_second}}", &COUNTED_PER_SECOND.to_string())
}

fn count_rows(budget: Duration, since: Option<u64>) -> String {
    let written = since.map_or("null::bigint".to_owned(), |since| {
        format!("count(*) filter (where {})", written_since("xmin", since))
    });
    with_budget(COUNT_ROWS, budget).replace("{{written}}", &written)
}

/// True of a row version that a transaction with this number, or a later one, wrote. `xmin` is
/// the row's own, with its table's name before it where that is needed.
///
/// A row keeps the number of the transaction that wrote it when it is frozen (PostgreSQL manual,
/// section 25.1.5), so a number of an earlier epoch may be among them; it seems to lie ahead,
/// where its age is negative.
pub(super) fn written_since(xmin: &str, transaction: u64) -> String {
    format!("age({xmin}) between 0 and age('{}'::xid)", transaction % (1 << 32))
}

fn statement_timeout(budget: Duration) -> String {
    format!("set statement_timeout = {}", (budget + COUNT_GRACE).as_millis().max(1))
}

/// Rows of the tables of another database that could be counted, one number a table.
pub(super) async fn counted_rows(
    runner: &Runner<'_>,
    database: &str,
    budget: Duration,
) -> Result<Vec<u64>, ToolError> {
    let (limit, count) = (statement_timeout(budget), count_rows(budget, None));
    let read = "select value from jsonb_each_text(current_setting('payram_updater.rows')::jsonb)";
    let answer =
        runner.psql(Some(database), &[&limit, &count, read], budget + READING_TIMEOUT).await?;
    Ok(answer.lines().filter_map(|line| line.parse().ok()).collect())
}

/// `schema table` of every table of another database that holds rows itself; without those
/// that belong to an extension, whose rows no dump holds. As the dump's table of contents has
/// them: in the database's encoding.
pub(super) async fn in_tables(
    runner: &Runner<'_>,
    database: &str,
) -> Result<Vec<String>, ToolError> {
    let ask = "select encode(convert_to(n.nspname || ' ' || c.relname, \
            current_setting('server_encoding')), 'hex') \
        from pg_class c join pg_namespace n on n.oid = c.relnamespace \
        where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema') \
          and n.nspname !~ '^pg_(toast|temp)' \
          and not exists (select from pg_depend d where d.deptype = 'e' \
            and d.classid = 'pg_class'::regclass and d.objid = c.oid)";
    let answer = runner.psql(Some(database), &[ask], READING_TIMEOUT).await?;
    answer
        .lines()
        .map(|line| {
            unhex(line).map(|name| readable(&name)).ok_or_else(|| ToolError::Broken {
                tool: "psql",
                reason: format!("expected the name of a table in hex, found {line:?}"),
            })
        })
        .collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| match pair {
            [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
            _ => None,
        })
        .collect()
}

/// The answer of `fingerprint.sql`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reading {
    counting: String,
    since: String,
    sessions: u64,
    #[serde(default)]
    next_transaction: Option<u64>,
    tables: Vec<TableReading>,
    rows: HashMap<String, u64>,
    #[serde(default)]
    written: HashMap<String, u64>,
    objects: Vec<(String, String)>,
    #[serde(default)]
    cluster: Option<Vec<(String, String)>>,
    #[serde(default)]
    databases: Vec<OtherDatabase>,
    #[serde(default)]
    sequences: Option<Vec<Sequence>>,
}

#[derive(Deserialize)]
struct TableReading {
    name: String,
    id: u32,
    file: Option<u32>,
    changes: u64,
    #[serde(default)]
    kinds: Option<ChangeKinds>,
}

fn parse(answer: &str) -> Result<Fingerprint, String> {
    let mut reading: Reading = serde_json::from_str(answer)
        .map_err(|error| format!("psql's answer is not what was asked for: {error}"))?;
    if reading.counting != "on" {
        return Err(format!(
            "the server does not count what is written (track_counts is {})",
            reading.counting
        ));
    }
    reading.objects.sort();
    reading.tables.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    let mut schema = Sha256::new();
    let mut objects = Vec::with_capacity(reading.objects.len());
    for (name, definition) in reading.objects {
        // Lengths first: no two lists of objects have the same bytes.
        for text in [&name, &definition] {
            schema.update((text.len() as u64).to_be_bytes());
            schema.update(text.as_bytes());
        }
        objects.push(digested((name, definition)));
    }
    let cluster = reading.cluster.map(|mut objects| {
        objects.sort();
        objects.into_iter().map(digested).collect()
    });
    let tables = reading
        .tables
        .into_iter()
        .map(|table| TableCount {
            rows: reading.rows.get(&table.id.to_string()).copied(),
            written: reading.written.get(&table.id.to_string()).copied(),
            kinds: table.kinds,
            name: table.name,
            id: table.id,
            file: table.file,
            changes: table.changes,
        })
        .collect();
    Ok(Fingerprint {
        schema: hex(&schema.finalize()),
        counters_since: reading.since,
        unsettled_sessions: reading.sessions,
        next_transaction: reading.next_transaction,
        tables,
        objects,
        cluster,
        databases: reading.databases,
        sequences: reading.sequences,
    })
}

fn digested((name, definition): (String, String)) -> ObjectDigest {
    let digest: String = hex(&Sha256::digest(definition.as_bytes())).chars().take(32).collect();
    ObjectDigest { name, digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(counting: &str, objects: &str) -> String {
        format!(
            r#"{{"counting": "{counting}", "since": "database never, server 1", "sessions": 1,
                "tables": [{{"name": "public.b", "id": 7, "file": 8, "changes": 3}},
                           {{"name": "public.a", "id": 9, "file": null, "changes": 0}}],
                "rows": {{"7": 12}}, "objects": {objects}}}"#
        )
    }

    #[test]
    fn an_answer_becomes_a_fingerprint_in_stable_order() {
        let one = parse(&answer("on", r#"[["table a", "x"], ["table b", "y"]]"#)).expect("one");
        let two = parse(&answer("on", r#"[["table b", "y"], ["table a", "x"]]"#)).expect("two");
        assert_eq!(one, two);
        assert_eq!(one.unsettled_sessions, 1);
        let names: Vec<&str> = one.tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["public.a", "public.b"]);
        let rows: Vec<Option<u64>> = one.tables.iter().map(|table| table.rows).collect();
        assert_eq!(rows, [None, Some(12)]);
    }

    #[test]
    fn text_that_moves_from_a_name_to_a_definition_is_another_schema() {
        let one = parse(&answer("on", r#"[["table a", "bc"]]"#)).expect("one");
        let two = parse(&answer("on", r#"[["table ab", "c"]]"#)).expect("two");
        assert_ne!(one.schema, two.schema);
    }

    #[test]
    fn a_server_that_does_not_count_gives_no_evidence() {
        assert!(parse(&answer("off", "[]")).expect_err("a refusal").contains("track_counts"));
        assert!(parse("").is_err());
    }
}
