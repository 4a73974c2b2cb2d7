//! What a failed version did to the database: two fingerprints compared.
//!
//! Pure. Called by the driver with the fingerprint of the cut-over and one of the failed
//! version. The one mistake it may not make is to call rows unchanged that were changed: the
//! restore point would forget them. So every doubt is [`Assessment::Unreadable`] or
//! [`Assessment::RowsChanged`], and both wait for a person.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::facts::{Assessment, Fingerprint, TableCount};

/// Objects of a changed schema that are named.
const NAMED: usize = 20;

/// Tables in which the applications and frameworks that are in use keep which migrations ran; a
/// table of another name counts as one where its name says so.
const LEDGERS: [&str; 9] = [
    "alembic_version",
    "atlas_schema_revisions",
    "databasechangelog",
    "databasechangeloglock",
    "goose_db_version",
    "schema_info",
    "schema_version",
    "schemaversions",
    "sequelizemeta",
];

/// A table of at most so many rows may be one that workers rewrite all the time: balances,
/// counters, locks.
const SMALL: u64 = 100;

/// Updates for each row of a small table, in all the time that the server has counted, that show
/// that the old version rewrites it all the time, too.
const HOT: u64 = 10;

/// What was done to the rows of one table.
struct Change {
    /// `public.payments: 2 rows inserted; 3 changes`
    line: String,
    /// Why workers don't do that; none when they may.
    beyond: Option<String>,
    /// Whether the table is where migrations are noted.
    is_ledger: bool,
}

/// Compares the database `after` a failed version had it with what it was `before`.
pub fn assess(before: &Fingerprint, after: &Fingerprint) -> Assessment {
    let changes = match changes(before, after) {
        Ok(changes) => changes,
        Err(reason) => return assess_without_counters(before, after, reason),
    };
    let is_same_schema = is_same_schema(before, after);
    let (ledgers, rows): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(|change| change.is_ledger);
    if rows.is_empty() && (!is_same_schema || !ledgers.is_empty()) {
        let mut what: Vec<String> = ledgers.into_iter().map(|change| change.line).collect();
        if !is_same_schema {
            what.insert(0, schema_difference(before, after));
        }
        let what = what.join("; ");
        return match after.unsettled_sessions {
            0 => Assessment::SchemaChanged { what },
            sessions => Assessment::Unreadable {
                reason: format!(
                    "the schema differs ({what}), and {sessions} other sessions are at work in the database, whose writes the server may not have counted yet"
                ),
            },
        };
    }
    if rows.is_empty() {
        return Assessment::Unchanged;
    }
    let are_workers =
        is_same_schema && ledgers.is_empty() && rows.iter().all(|row| row.beyond.is_none());
    let said = ledgers.into_iter().chain(rows).map(|change| match change.beyond {
        Some(why) if is_same_schema => format!("{} ({why})", change.line),
        Some(_) | None => change.line,
    });
    let tables = said.collect();
    match are_workers {
        true => Assessment::WorkersWrote { tables },
        false => Assessment::RowsChanged { tables },
    }
}

/// What was done to the rows of each table, by the server's counters; otherwise why they are no
/// evidence.
fn changes(before: &Fingerprint, after: &Fingerprint) -> Result<Vec<Change>, String> {
    if before.counters_since != after.counters_since {
        return Err(format!(
            "the server's counters were reset since the cut-over, so they are no evidence (reset times then: {}; now: {})",
            before.counters_since, after.counters_since
        ));
    }
    let now: BTreeMap<u32, &TableCount> =
        after.tables.iter().map(|table| (table.id, table)).collect();
    let mut changes = Vec::new();
    for then in &before.tables {
        let now = now.get(&then.id).copied();
        if let Some(now) = now
            && now.changes < then.changes
        {
            return Err(format!(
                "the server's counter of {} went back from {} to {} since the cut-over, so the counters are no evidence",
                then.name, then.changes, now.changes
            ));
        }
        changes.extend(difference(then, now).map(|what| Change {
            line: format!("{}: {what}", then.name),
            beyond: now.map_or_else(|| Some("it is gone".into()), |now| beyond(then, now)),
            is_ledger: is_ledger(&then.name),
        }));
    }
    changes.extend(in_new_tables(before, after));
    changes.extend(in_other_databases(before, after, true));
    Ok(changes)
}

/// What was written in the other databases of the cluster, which come and go with this one. What
/// lies in one that is new nobody has looked at.
fn in_other_databases(before: &Fingerprint, after: &Fingerprint, are_counted: bool) -> Vec<Change> {
    // One that did not note the cluster did not note its databases.
    if before.cluster.is_none() {
        return Vec::new();
    }
    let then = |id| before.databases.iter().find(|one| one.id == id).map(|one| one.kinds);
    let changed = after.databases.iter().filter_map(|now| {
        let what = match then(now.id) {
            None => "it is new, and what it holds was not looked at".to_owned(),
            Some(then) if then == now.kinds || !are_counted => return None,
            Some(then) => {
                let kinds = [
                    now.kinds.inserted.saturating_sub(then.inserted),
                    now.kinds.updated.saturating_sub(then.updated),
                    now.kinds.deleted.saturating_sub(then.deleted),
                ];
                let [inserted, updated, deleted] = kinds;
                format!(
                    "{}, {}, {}",
                    plural(inserted, "insertion", "insertions"),
                    plural(updated, "update", "updates"),
                    plural(deleted, "deletion", "deletions"),
                )
            }
        };
        Some(Change {
            line: format!("database {}: {what}", now.name),
            beyond: None,
            is_ledger: false,
        })
    });
    let gone =
        before.databases.iter().filter(|then| !after.databases.iter().any(|now| now.id == then.id));
    let gone = gone.map(|then| Change {
        line: format!("database {}: it is gone", then.name),
        beyond: Some("a whole database was removed".into()),
        is_ledger: false,
    });
    changed.chain(gone).collect()
}

/// Whether schema, roles and databases are as they were, as far as both noted them.
fn is_same_schema(before: &Fingerprint, after: &Fingerprint) -> bool {
    let is_same_cluster = match (&before.cluster, &after.cluster) {
        (Some(then), Some(now)) => then == now,
        (_, _) => true,
    };
    before.schema == after.schema && is_same_cluster
}

/// What is in tables that were not there at the cut-over. Whether a migration filled them, or
/// payments were taken there, the counters don't tell.
fn in_new_tables(before: &Fingerprint, after: &Fingerprint) -> Vec<Change> {
    let known: BTreeSet<u32> = before.tables.iter().map(|table| table.id).collect();
    let new = after.tables.iter().filter(|table| !known.contains(&table.id));
    new.filter_map(|table| {
        let held = match (table.rows, table.changes) {
            (Some(0), _) | (None, 0) => return None,
            (Some(rows), _) => plural(rows, "row", "rows"),
            (None, changes) => plural(changes, "change", "changes"),
        };
        Some(Change {
            line: format!("{}: new, with {held}", table.name),
            beyond: Some("it is new".into()),
            is_ledger: is_ledger(&table.name),
        })
    })
    .collect()
}

/// The counters are gone: the rows themselves tell, where all of them were looked at before and
/// after. `reason` is said where they don't.
fn assess_without_counters(
    before: &Fingerprint,
    after: &Fingerprint,
    reason: String,
) -> Assessment {
    let is_same_schema = is_same_schema(before, after);
    // Not one transaction took a number since: nothing was written by any.
    let is_idle =
        before.next_transaction.is_some() && before.next_transaction == after.next_transaction;
    if is_same_schema && is_idle {
        return Assessment::Unchanged;
    }
    if after.unsettled_sessions > 0 || before.next_transaction.is_none() {
        return Assessment::Unreadable { reason };
    }
    let now: BTreeMap<u32, &TableCount> =
        after.tables.iter().map(|table| (table.id, table)).collect();
    let mut lines = Vec::new();
    let mut only_inserted = true;
    for then in &before.tables {
        // What the application's role may not read it does not write either.
        if then.rows.is_none() && then.name.starts_with("pg_catalog.") {
            continue;
        }
        let found = now.get(&then.id).copied();
        let seen = found.and_then(|now| Some((then.rows?, now.rows?, now.written?, now.file)));
        let Some((rows, found, written, file)) = seen else {
            return Assessment::Unreadable {
                reason: format!("{reason}; the rows of {} were not all looked at", then.name),
            };
        };
        if file != then.file {
            return Assessment::Unreadable {
                reason: format!("{reason}; the file of {} was replaced", then.name),
            };
        }
        if (written, found) == (0, rows) {
            continue;
        }
        only_inserted &= found.checked_sub(rows) == Some(written) && !is_ledger(&then.name);
        let written = plural(written, "row", "rows");
        lines.push(format!(
            "{}: {written} inserted or updated; {rows} rows at the cut-over, {found} now",
            then.name
        ));
    }
    let mut new = in_new_tables(before, after);
    // Their counters are gone with the others: only what is new or missing is known.
    new.extend(in_other_databases(before, after, false));
    only_inserted &= new.is_empty();
    lines.extend(new.into_iter().map(|change| change.line));
    match (lines.is_empty(), is_same_schema) {
        (true, true) => Assessment::Unchanged,
        (true, false) => Assessment::SchemaChanged { what: schema_difference(before, after) },
        (false, true) if only_inserted => Assessment::WorkersWrote { tables: lines },
        (false, _) => Assessment::RowsChanged { tables: lines },
    }
}

/// Whether migrations are noted in this table, by its name.
pub(super) fn is_ledger(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name).trim_matches('"').to_lowercase();
    let is_known = LEDGERS.contains(&name.as_str());
    is_known || ["migration", "schema_history", "schema_version"].iter().any(|it| name.contains(it))
}

/// What was done to the rows of a table that existed at the cut-over; none when nothing was.
fn difference(then: &TableCount, now: Option<&TableCount>) -> Option<String> {
    let Some(now) = now else {
        return match then.rows {
            Some(0) => None,
            Some(1) => Some("dropped with 1 row".into()),
            Some(rows) => Some(format!("dropped with {rows} rows")),
            None => Some("dropped; how many rows it held was not counted".into()),
        };
    };
    let is_same_file = then.file == now.file;
    match (now.changes - then.changes, then.rows, now.rows) {
        (changes @ 1.., _, _) => Some(changed(then, now, changes)),
        (0, Some(rows), Some(found)) if rows != found => {
            Some(format!("{rows} rows at the cut-over, {found} now"))
        }
        // The second witness: the rows themselves, each of which names who wrote it.
        (0, _, _) if is_same_file && now.written.is_some_and(|written| written > 0) => {
            Some(format!(
                "{} written since the cut-over, which the server did not count",
                plural(now.written.unwrap_or_default(), "row was", "rows were")
            ))
        }
        // Rewritten with all its rows (ALTER TABLE does so), or empty as before.
        (0, Some(_), Some(_)) | (0, Some(0), None) => None,
        (0, _, _) if !is_same_file => Some(
            "its file was replaced and its rows were not counted: it may have been truncated"
                .into(),
        ),
        (0, _, _) => None,
    }
}

/// Why what was done to a table's rows is not what workers do; none when they may have done it.
///
/// Workers insert, and change or remove some of what is there. What changes or removes most of it
/// at once is taken for a migration of the data, unless the old version did so all the time, too:
/// it rewrote the few rows of a small table again and again, or put in about as many rows as it
/// took out.
fn beyond(then: &TableCount, now: &TableCount) -> Option<String> {
    if then.file != now.file {
        return Some("its file was replaced: it was rewritten or truncated".into());
    }
    let Some((life, after)) = then.kinds.zip(now.kinds) else {
        return Some("what kind of changes was not counted".into());
    };
    if now.changes == then.changes {
        return Some("the server did not count it".into());
    }
    let inserted = after.inserted.saturating_sub(life.inserted);
    let updated = after.updated.saturating_sub(life.updated);
    let deleted = after.deleted.saturating_sub(life.deleted);
    // Where they were not counted, at least those that are left of all that were put in.
    let rows = then.rows.unwrap_or_else(|| life.inserted.saturating_sub(life.deleted));
    // Of the rows that were written since, those that are not new.
    let rewritten = match (then.rows, now.rows, now.written) {
        (Some(rows), Some(found), Some(written)) => {
            updated.min(written.saturating_sub(found.saturating_sub(rows)))
        }
        (_, _, _) => updated,
    };
    let is_hot = rows <= SMALL && life.updated >= HOT * rows.max(1);
    // Where rows come and go, as in a queue, those that were written may all be new ones.
    let turns_over = deleted > 0 && life.deleted > 0 && inserted >= rewritten;
    if rewritten > rows / 2 && !is_hot && !turns_over {
        return Some("most of its rows were updated".into());
    }
    let are_cleared_away = life.deleted > 0 && inserted >= deleted / 2;
    if deleted > rows / 2 && !are_cleared_away {
        return Some("most of its rows were deleted".into());
    }
    None
}

/// What `changes` counted changes come to: the rows as they are now and as they were tell how
/// many distinct rows that is, where one of the two kinds that move the number of rows is absent.
fn changed(then: &TableCount, now: &TableCount, changes: u64) -> String {
    let counted = plural(changes, "change", "changes");
    let Some((before, after)) = then.kinds.zip(now.kinds) else { return counted };
    let inserted = after.inserted.saturating_sub(before.inserted);
    let deleted = after.deleted.saturating_sub(before.deleted);
    let updated = after.updated.saturating_sub(before.updated);
    // A table that was rewritten has all its rows written anew.
    let written = now.written.filter(|_| then.file == now.file);
    let distinct = match (then.rows, now.rows) {
        (Some(rows), Some(found)) if deleted == 0 => found.checked_sub(rows).map(|new| (new, 0)),
        (Some(rows), Some(found)) if inserted == 0 => rows.checked_sub(found).map(|gone| (0, gone)),
        (Some(_) | None, Some(_) | None) => None,
    };
    let exact = distinct
        .zip(written)
        .and_then(|((new, gone), written)| Some((new, written.checked_sub(new)?, gone)));
    match (exact, written) {
        (Some((0, 0, 0)), _) => format!("{counted}, none of which is left"),
        (Some((new, other, gone)), _) => format!("{}; {counted}", rows_by_kind(new, other, gone)),
        (None, Some(written)) => format!(
            "{} inserted or updated, {}; {counted}",
            plural(written, "row", "rows"),
            plural(deleted, "deletion", "deletions"),
        ),
        (None, None) => format!(
            "{counted}: {}, {}, {}",
            plural(inserted, "insertion", "insertions"),
            plural(updated, "update", "updates"),
            plural(deleted, "deletion", "deletions"),
        ),
    }
}

/// `12 rows inserted, 3 updated`; what there is none of is not said.
pub(super) fn rows_by_kind(inserted: u64, updated: u64, deleted: u64) -> String {
    let kinds = [(inserted, "inserted"), (updated, "updated"), (deleted, "deleted")];
    let mut said: Vec<String> = Vec::new();
    for (rows, kind) in kinds.into_iter().filter(|(rows, _)| *rows > 0) {
        let number = if said.is_empty() { plural(rows, "row", "rows") } else { rows.to_string() };
        said.push(format!("{number} {kind}"));
    }
    said.join(", ")
}

/// `1 row`, `2 rows`
pub(super) fn plural(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// What was done to the rows of each table in between, a line each, for a person.
///
/// # Errors
/// Why the server's counters don't tell.
pub fn changed_rows(before: &Fingerprint, after: &Fingerprint) -> Result<Vec<String>, String> {
    Ok(changes(before, after)?.into_iter().map(|change| change.line).collect())
}

/// Which objects of the schema, and of the cluster, differ, a line each, for a person.
pub fn changed_schema(before: &Fingerprint, after: &Fingerprint) -> Vec<String> {
    let (mut lines, more) = named_differences(before, after);
    if more > 0 {
        lines.push(format!("{more} more"));
    }
    lines
}

/// Which objects differ, for a person.
fn schema_difference(before: &Fingerprint, after: &Fingerprint) -> String {
    let (mut lines, more) = named_differences(before, after);
    if lines.is_empty() {
        return "the definitions differ; which was not noted".into();
    }
    if more > 0 {
        lines.push(format!("{more} more"));
    }
    lines.join(", ")
}

/// The first of them, and how many there are beyond.
fn named_differences(before: &Fingerprint, after: &Fingerprint) -> (Vec<String>, usize) {
    let are_both_noted = before.cluster.is_some() && after.cluster.is_some();
    let digests = |fingerprint: &Fingerprint| -> BTreeMap<String, String> {
        let cluster = fingerprint.cluster.iter().flatten().filter(|_| are_both_noted);
        let objects = fingerprint.objects.iter().chain(cluster);
        objects.map(|object| (object.name.clone(), object.digest.clone())).collect()
    };
    let (then, now) = (digests(before), digests(after));
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let mut lines: Vec<String> = names
        .into_iter()
        .filter_map(|name| match (then.get(name), now.get(name)) {
            (Some(_), None) => Some(format!("{name} is gone")),
            (None, _) => Some(format!("{name} is new")),
            (Some(then), Some(now)) => (then != now).then(|| format!("{name} differs")),
        })
        .collect();
    let more = lines.len().saturating_sub(NAMED);
    lines.truncate(NAMED);
    (lines, more)
}

#[cfg(test)]
mod tests;
