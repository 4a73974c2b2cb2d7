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

/// Compares the database `after` a failed version had it with what it was `before`.
pub fn assess(before: &Fingerprint, after: &Fingerprint) -> Assessment {
    if before.counters_since != after.counters_since {
        return Assessment::Unreadable {
            reason: format!(
                "the server's counters were reset since the cut-over, so they are no evidence \
                 (reset times then: {}; now: {})",
                before.counters_since, after.counters_since
            ),
        };
    }
    let now: BTreeMap<u32, &TableCount> =
        after.tables.iter().map(|table| (table.id, table)).collect();
    let mut changed = Vec::new();
    for then in &before.tables {
        let now = now.get(&then.id).copied();
        if let Some(now) = now
            && now.changes < then.changes
        {
            return Assessment::Unreadable {
                reason: format!(
                    "the server's counter of {} went back from {} to {} since the cut-over, \
                     so the counters are no evidence",
                    then.name, then.changes, now.changes
                ),
            };
        }
        changed.extend(difference(then, now).map(|what| format!("{}: {what}", then.name)));
    }
    if !changed.is_empty() {
        return Assessment::RowsChanged { tables: changed };
    }
    if before.schema == after.schema {
        return Assessment::Unchanged;
    }
    if after.unsettled_sessions > 0 {
        return Assessment::Unreadable {
            reason: format!(
                "the schema differs ({}), and {} other sessions are at work in the database, \
                 whose writes the server may not have counted yet",
                schema_difference(before, after),
                after.unsettled_sessions
            ),
        };
    }
    Assessment::SchemaChanged { what: schema_difference(before, after) }
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
    match (now.changes - then.changes, then.rows, now.rows) {
        (changes @ 1.., _, _) => Some(changed(then, now, changes)),
        (0, Some(rows), Some(found)) if rows != found => {
            Some(format!("{rows} rows at the cut-over, {found} now"))
        }
        // Rewritten with all its rows (ALTER TABLE does so), or empty as before.
        (0, Some(_), Some(_)) | (0, Some(0), None) => None,
        (0, _, _) if then.file != now.file => Some(
            "its file was replaced and its rows were not counted: it may have been truncated"
                .into(),
        ),
        (0, _, _) => None,
    }
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

/// Which objects differ, for a person.
fn schema_difference(before: &Fingerprint, after: &Fingerprint) -> String {
    let digests = |fingerprint: &Fingerprint| -> BTreeMap<String, String> {
        let objects = fingerprint.objects.iter();
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
    if lines.is_empty() {
        return "the definitions differ; which was not noted".into();
    }
    let more = lines.len().saturating_sub(NAMED);
    lines.truncate(NAMED);
    if more > 0 {
        lines.push(format!("{more} more"));
    }
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::machine::facts::{ChangeKinds, ObjectDigest};

    fn payments(changes: u64, rows: Option<u64>) -> TableCount {
        let kinds = Some(ChangeKinds { inserted: changes, updated: 0, deleted: 0 });
        let name = "public.payments".into();
        TableCount { name, id: 1, file: Some(1), changes, rows, kinds, written: None }
    }

    fn wallets() -> TableCount {
        TableCount {
            name: "public.wallets".into(),
            id: 2,
            file: Some(2),
            changes: 9,
            rows: Some(4),
            kinds: None,
            written: None,
        }
    }

    fn fingerprint(schema: &str, tables: &[TableCount]) -> Fingerprint {
        Fingerprint {
            schema: schema.into(),
            counters_since: "database never, server 1".into(),
            unsettled_sessions: 0,
            next_transaction: Some(700),
            tables: tables.to_vec(),
            objects: vec![ObjectDigest {
                name: "table public.payments".into(),
                digest: schema.into(),
            }],
        }
    }

    fn rows_changed(line: &str) -> Assessment {
        Assessment::RowsChanged { tables: vec![line.into()] }
    }

    #[test]
    fn every_kind_of_change_is_told_apart() {
        let before = fingerprint("a", &[payments(10, Some(10)), wallets()]);
        let schema_changed =
            Assessment::SchemaChanged { what: "table public.payments differs".into() };
        let file_replaced = |rows| TableCount { file: Some(77), ..payments(10, rows) };
        let cases = [
            ("a", vec![payments(10, Some(10)), wallets()], Assessment::Unchanged),
            ("b", vec![payments(10, Some(10)), wallets()], schema_changed.clone()),
            // A table that is not counted any more is judged by its counter alone.
            ("b", vec![payments(10, None), wallets()], schema_changed.clone()),
            ("b", vec![file_replaced(Some(10)), wallets()], schema_changed),
            (
                "a",
                vec![payments(11, Some(10)), wallets()],
                rows_changed("public.payments: 1 change: 1 insertion, 0 updates, 0 deletions"),
            ),
            (
                "b",
                vec![payments(13, Some(13)), wallets()],
                rows_changed("public.payments: 3 changes: 3 insertions, 0 updates, 0 deletions"),
            ),
            (
                "a",
                vec![file_replaced(Some(0)), wallets()],
                rows_changed("public.payments: 10 rows at the cut-over, 0 now"),
            ),
            (
                "a",
                vec![file_replaced(None), wallets()],
                rows_changed(
                    "public.payments: its file was replaced and its rows were not counted: \
                     it may have been truncated",
                ),
            ),
            (
                "b",
                vec![payments(10, Some(10))],
                rows_changed("public.wallets: dropped with 4 rows"),
            ),
        ];
        for (schema, tables, expected) in cases {
            let after = fingerprint(schema, &tables);
            assert_eq!(assess(&before, &after), expected, "{tables:?}");
        }
    }

    #[test]
    fn changes_are_told_as_distinct_rows_where_the_rows_tell() {
        let said = |kinds: [u64; 3], rows: [u64; 2], written: Option<u64>, file: u32| {
            let [inserted, updated, deleted] = kinds;
            let then = payments(10, Some(rows[0]));
            let now = TableCount {
                kinds: Some(ChangeKinds { inserted: 10 + inserted, updated, deleted }),
                changes: 10 + kinds.iter().sum::<u64>(),
                rows: Some(rows[1]),
                file: Some(file),
                written,
                ..then.clone()
            };
            difference(&then, Some(&now)).expect("changed")
        };
        assert_eq!(
            said([12, 48, 0], [10, 22], Some(15), 1),
            "12 rows inserted, 3 updated; 60 changes"
        );
        assert_eq!(said([1, 0, 0], [10, 11], Some(1), 1), "1 row inserted; 1 change");
        assert_eq!(said([0, 20, 2], [10, 8], Some(1), 1), "1 row updated, 2 deleted; 22 changes");
        assert_eq!(said([4, 0, 0], [10, 10], Some(0), 1), "4 changes, none of which is left");
        assert_eq!(
            said([4, 0, 1], [10, 13], Some(4), 1),
            "4 rows inserted or updated, 1 deletion; 5 changes"
        );
        // Rewritten: every row is written anew.
        assert_eq!(
            said([4, 0, 0], [10, 14], Some(14), 2),
            "4 changes: 4 insertions, 0 updates, 0 deletions"
        );
    }

    #[test]
    fn an_empty_table_that_is_dropped_and_a_table_that_is_renamed_are_the_schema_alone() {
        let before = fingerprint("a", &[payments(0, Some(0)), wallets()]);
        let renamed = TableCount { name: "public.purses".into(), ..wallets() };
        let Assessment::SchemaChanged { .. } = assess(&before, &fingerprint("b", &[renamed]))
        else {
            panic!("expected a changed schema");
        };
    }

    #[test]
    fn a_table_that_was_dropped_and_made_again_under_its_name_lost_its_rows() {
        let before = fingerprint("a", &[payments(10, Some(10))]);
        let again = TableCount { id: 99, ..payments(10, Some(10)) };
        assert_eq!(
            assess(&before, &fingerprint("a", &[again])),
            rows_changed("public.payments: dropped with 10 rows")
        );
    }

    #[test]
    fn a_table_of_unknown_size_that_is_gone_held_rows() {
        let before = fingerprint("a", &[payments(10, None)]);
        assert!(matches!(assess(&before, &fingerprint("b", &[])), Assessment::RowsChanged { .. }));
    }

    #[test]
    fn counters_that_were_reset_are_no_evidence() {
        let before = fingerprint("a", &[payments(10, Some(10))]);
        let gone_back = fingerprint("a", &[payments(9, Some(10))]);
        assert!(matches!(assess(&before, &gone_back), Assessment::Unreadable { .. }));
        let mut reset = before.clone();
        reset.counters_since = "database never, server 2".into();
        assert!(matches!(assess(&before, &reset), Assessment::Unreadable { .. }));
    }

    #[test]
    fn a_session_that_may_have_written_makes_a_changed_schema_no_proof() {
        let before = fingerprint("a", &[payments(10, Some(10))]);
        let busy =
            |schema| Fingerprint { unsettled_sessions: 1, ..fingerprint(schema, &before.tables) };
        assert!(matches!(assess(&before, &busy("b")), Assessment::Unreadable { .. }));
        // With the same schema the database stays as it is, and nothing can be forgotten.
        assert_eq!(assess(&before, &busy("a")), Assessment::Unchanged);
    }

    fn tables() -> impl Strategy<Value = Vec<TableCount>> {
        let table = (0..5u32, 0..3u32, 0..4u64, prop::option::of(0..4u64));
        prop::collection::vec(table, 0..5).prop_map(|tables| {
            let tables: BTreeMap<u32, TableCount> = tables
                .into_iter()
                .map(|(id, file, changes, rows)| {
                    let name = format!("public.t{id}");
                    let (kinds, written) = (None, None);
                    (id, TableCount { name, id, file: Some(file), changes, rows, kinds, written })
                })
                .collect();
            tables.into_values().collect()
        })
    }

    proptest! {
        #[test]
        fn a_restore_point_is_never_offered_over_a_row_that_is_known_to_have_changed(
            before in tables(), after in tables(), same_schema in any::<bool>(),
        ) {
            let then = fingerprint("a", &before);
            let now = fingerprint(if same_schema { "a" } else { "b" }, &after);
            match assess(&then, &now) {
                Assessment::Unchanged | Assessment::SchemaChanged { .. } => {
                    for table in &before {
                        match after.iter().find(|found| found.id == table.id) {
                            Some(found) => {
                                prop_assert_eq!(found.changes, table.changes);
                                prop_assert!(
                                    table.rows.is_none() || found.rows.is_none()
                                        || table.rows == found.rows
                                );
                            }
                            None => prop_assert_eq!(table.rows, Some(0)),
                        }
                    }
                }
                Assessment::RowsChanged { tables } => prop_assert!(!tables.is_empty()),
                Assessment::Unreadable { reason } => prop_assert!(!reason.is_empty()),
                Assessment::Serves { .. } | Assessment::Damaged { .. } => {
                    prop_assert!(false, "the database says nothing of it")
                }
            }
        }
    }
}
