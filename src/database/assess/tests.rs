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
        objects: vec![ObjectDigest { name: "table public.payments".into(), digest: schema.into() }],
        cluster: Some(Vec::new()),
        databases: Vec::new(),
        sequences: None,
    }
}

fn rows_changed(line: &str) -> Assessment {
    Assessment::RowsChanged { tables: vec![line.into()] }
}

#[test]
fn every_kind_of_change_is_told_apart() {
    let before = fingerprint("a", &[payments(10, Some(10)), wallets()]);
    let schema_changed = Assessment::SchemaChanged { what: "table public.payments differs".into() };
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
            Assessment::WorkersWrote {
                tables: vec![
                    "public.payments: 1 change: 1 insertion, 0 updates, 0 deletions".into(),
                ],
            },
        ),
        (
            "b",
            vec![payments(13, Some(13)), wallets()],
            rows_changed("public.payments: 3 changes: 3 insertions, 0 updates, 0 deletions"),
        ),
        (
            "a",
            vec![file_replaced(Some(0)), wallets()],
            rows_changed(
                "public.payments: 10 rows at the cut-over, 0 now \
                 (its file was replaced: it was rewritten or truncated)",
            ),
        ),
        (
            "a",
            vec![file_replaced(None), wallets()],
            rows_changed(
                "public.payments: its file was replaced and its rows were not counted: \
                 it may have been truncated (its file was replaced: it was rewritten or truncated)",
            ),
        ),
        ("b", vec![payments(10, Some(10))], rows_changed("public.wallets: dropped with 4 rows")),
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
    assert_eq!(said([12, 48, 0], [10, 22], Some(15), 1), "12 rows inserted, 3 updated; 60 changes");
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
    let Assessment::SchemaChanged { .. } = assess(&before, &fingerprint("b", &[renamed])) else {
        panic!("expected a changed schema");
    };
}

#[test]
fn a_table_that_was_dropped_and_made_again_under_its_name_lost_its_rows() {
    let before = fingerprint("a", &[payments(10, Some(10))]);
    let again = TableCount { id: 99, ..payments(10, Some(10)) };
    assert_eq!(
        assess(&before, &fingerprint("a", &[again])),
        Assessment::RowsChanged {
            tables: vec![
                "public.payments: dropped with 10 rows (it is gone)".into(),
                "public.payments: new, with 10 rows (it is new)".into(),
            ]
        }
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
    let later = |table| Fingerprint {
        next_transaction: Some(705),
        counters_since: "database never, server 2".into(),
        ..fingerprint("a", &[table])
    };
    let gone_back = Fingerprint {
        counters_since: before.counters_since.clone(),
        ..later(payments(9, Some(10)))
    };
    assert!(matches!(assess(&before, &gone_back), Assessment::Unreadable { .. }));
    assert!(matches!(
        assess(&before, &later(payments(0, Some(10)))),
        Assessment::Unreadable { .. }
    ));
    // The rows themselves are, where each of them was looked at.
    let seen = |rows, written| {
        let table = TableCount { written: Some(written), ..payments(0, Some(rows)) };
        assess(&before, &later(table))
    };
    assert_eq!(seen(10, 0), Assessment::Unchanged);
    assert!(matches!(seen(12, 2), Assessment::WorkersWrote { .. }));
    for (rows, written) in [(10, 1), (9, 0), (12, 3), (11, 2)] {
        let found = seen(rows, written);
        assert!(matches!(found, Assessment::RowsChanged { .. }), "{rows} {written}: {found:?}");
    }
    // No transaction took a number: whatever the counters say.
    let idle = Fingerprint { next_transaction: Some(700), ..later(payments(0, None)) };
    assert_eq!(assess(&before, &idle), Assessment::Unchanged);
    let idle = Fingerprint { schema: "b".into(), ..idle };
    assert!(matches!(assess(&before, &idle), Assessment::Unreadable { .. }), "it can't be");
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
        let now = Fingerprint {
            next_transaction: Some(705),
            ..fingerprint(if same_schema { "a" } else { "b" }, &after)
        };
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
            Assessment::WorkersWrote { tables } => {
                prop_assert!(same_schema && !tables.is_empty());
            }
            Assessment::RowsChanged { tables } => prop_assert!(!tables.is_empty()),
            Assessment::Unreadable { reason } => prop_assert!(!reason.is_empty()),
            Assessment::Serves { .. } | Assessment::Damaged { .. } => {
                prop_assert!(false, "the database says nothing of it")
            }
        }
    }
}

/// One table: its rows at the cut-over, the changes of its whole life until then, and what came
/// since: changes by kind, rows now, and those of them that were written since.
fn since(life: [u64; 3], rows: u64, changes: [u64; 3], now: u64, written: u64) -> Assessment {
    of_table("public.payments", life, rows, changes, now, written)
}

fn of_table(
    name: &str,
    life: [u64; 3],
    rows: u64,
    changes: [u64; 3],
    now: u64,
    written: u64,
) -> Assessment {
    let table = |[inserted, updated, deleted]: [u64; 3], rows, written| TableCount {
        name: name.into(),
        changes: inserted + updated + deleted,
        kinds: Some(ChangeKinds { inserted, updated, deleted }),
        rows: Some(rows),
        written,
        ..payments(0, None)
    };
    let before = fingerprint("a", &[table(life, rows, None)]);
    let sum = [0, 1, 2].map(|kind| life[kind] + changes[kind]);
    assess(&before, &fingerprint("a", &[table(sum, now, Some(written))]))
}

#[test]
fn what_workers_do_is_told_from_a_migration_of_the_data() {
    for (what, found) in [
        ("payments come in", since([200, 0, 0], 200, [9, 0, 0], 209, 9)),
        ("and are confirmed, some old ones too", since([200, 0, 0], 200, [9, 12, 0], 209, 12)),
        ("two balances move with each payment", since([2, 90, 0], 2, [0, 40, 0], 2, 2)),
        ("jobs go through a queue", since([120, 119, 70], 50, [100, 100, 100], 50, 50)),
        ("old ones are cleared away", since([200, 0, 0], 200, [0, 0, 60], 140, 0)),
        ("all attempts were rolled back", since([200, 0, 0], 200, [40, 0, 0], 200, 0)),
    ] {
        assert!(matches!(found, Assessment::WorkersWrote { .. }), "{what}: {found:?}");
    }
    for (what, found) in [
        ("another unit of every amount", since([200, 0, 0], 200, [0, 200, 0], 200, 200)),
        ("the same while payments come in", since([200, 0, 0], 200, [250, 200, 0], 450, 450)),
        ("the same, of payments that were confirmed each", {
            since([200, 200, 0], 200, [5, 200, 0], 205, 205)
        }),
        ("three keys encrypted anew", since([3, 0, 0], 3, [0, 3, 0], 3, 3)),
        ("all but some are deleted", since([200, 0, 0], 200, [0, 0, 150], 50, 0)),
        ("every row copied anew", since([200, 0, 0], 200, [200, 0, 200], 200, 200)),
        ("a note of a migration", {
            of_table("public.schema_migrations", [4, 0, 0], 4, [1, 1, 0], 5, 2)
        }),
    ] {
        let is_kept = matches!(found, Assessment::WorkersWrote { .. } | Assessment::Unchanged);
        assert!(!is_kept, "{what}: {found:?}");
    }
}

#[test]
fn what_lies_in_a_new_table_is_forgotten_by_nobody_but_a_note_of_the_migration_itself() {
    let before = fingerprint("a", &[payments(10, Some(10))]);
    let with = |name: &str, rows| {
        let table = TableCount { name: name.into(), id: 99, ..payments(rows, Some(rows)) };
        assess(&before, &fingerprint("b", &[payments(10, Some(10)), table]))
    };
    assert!(matches!(with("public.payments_ledger", 3), Assessment::RowsChanged { .. }));
    assert!(matches!(with("public.payments_ledger", 0), Assessment::SchemaChanged { .. }));
    assert!(matches!(with("public.goose_db_version", 3), Assessment::SchemaChanged { .. }));
    assert!(matches!(with("drizzle.__drizzle_migrations", 3), Assessment::SchemaChanged { .. }));
}

#[test]
fn a_row_that_was_written_and_not_counted_is_seen_by_its_own_transaction() {
    let before = fingerprint("a", &[payments(10, Some(10))]);
    let table = TableCount { written: Some(1), ..payments(10, Some(10)) };
    let found = assess(&before, &fingerprint("b", std::slice::from_ref(&table)));
    assert!(matches!(found, Assessment::RowsChanged { .. }), "{found:?}");
    // A table that the migration rewrote has all its rows written anew.
    let rewritten = TableCount { file: Some(9), written: Some(10), ..table };
    let found = assess(&before, &fingerprint("b", &[rewritten]));
    assert!(matches!(found, Assessment::SchemaChanged { .. }), "{found:?}");
}
