//! What rows the two databases can hold, and how a row of the failed version's table becomes
//! one of the old version's. Pure.
//!
//! The two databases are one cluster's, copied at the cut-over: a table or a column that exists
//! in both has the same number in both, whatever it is called now. Only what was dropped and
//! made again is looked for by its name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The answer of `shape.sql`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Shape {
    /// The database's, as PostgreSQL calls it. All text here is in it, as `bytes` has it.
    pub encoding: String,
    pub tables: Vec<Table>,
    /// Where each sequence is, by qualified name.
    pub sequences: BTreeMap<String, i64>,
}

/// A table that holds rows itself. Names are quoted where SQL needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    pub id: u32,
    pub name: String,
    pub is_readable: bool,
    pub columns: Vec<Column>,
    /// Numbers of the columns that tell rows apart; empty when there are none.
    pub key: Vec<i16>,
    pub checks: Vec<Check>,
    /// Tables that its rows refer to.
    pub references: Vec<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Column {
    pub number: i16,
    pub name: String,
    /// `numeric(20,8)`
    #[serde(rename = "type")]
    pub kind: String,
    /// `numeric`
    pub bare_type: String,
    /// Of an enumeration.
    pub labels: Option<Vec<String>>,
    pub is_required: bool,
    pub has_default: bool,
    pub is_generated: bool,
    pub is_always_identity: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Check {
    pub name: String,
    pub columns: Vec<i16>,
    /// The expression, over columns' names.
    pub holds: String,
}

/// How a failed version's table goes into the old version's.
#[derive(Clone, Debug)]
pub(super) struct Mapping<'s> {
    pub failed: &'s Table,
    pub old: &'s Table,
    /// The old table's columns that a row is written into, each with what it comes from.
    pub columns: Vec<Pair<'s>>,
    /// Of those, the ones that tell rows apart; empty when the old table has no key, or one that
    /// the failed version's rows have no values for.
    pub key: Vec<Pair<'s>>,
    /// Columns of the failed version's table that the old one does not have.
    pub further: Vec<&'s Column>,
    /// Checks of the old table that the failed version's does not have.
    pub checks: Vec<&'s Check>,
}

/// A column of the old table and what it is in the failed version's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'s> {
    pub old: &'s Column,
    pub failed: &'s Column,
}

impl Pair<'_> {
    /// Whether a value of one is a value of the other as it stands.
    pub fn is_same_type(&self) -> bool {
        let labels = |column: &Column| -> BTreeSet<String> {
            column.labels.iter().flatten().cloned().collect()
        };
        self.old.kind == self.failed.kind && labels(self.failed).is_subset(&labels(self.old))
    }
}

/// A table of the failed version, and where its rows can go.
#[derive(Clone, Debug)]
pub(super) enum Fate<'s> {
    /// Into a table of the old version.
    Goes(Mapping<'s>),
    /// Nowhere.
    Stays { failed: &'s Table, name: &'s str, reason: String },
}

/// Every table of the failed version with its fate; those that others refer to come first.
pub(super) fn fates<'s>(failed: &'s Shape, old: &'s Shape) -> Vec<Fate<'s>> {
    let mut fates: Vec<(Option<u32>, Fate<'s>)> = Vec::new();
    for table in &failed.tables {
        let same = old.tables.iter().find(|found| found.id == table.id);
        let same = same.or_else(|| {
            let is_kept = |id: u32| failed.tables.iter().any(|table| table.id == id);
            old.tables.iter().find(|found| found.name == table.name && !is_kept(found.id))
        });
        fates.push((same.map(|old| old.id), fate(table, same)));
    }
    let order = in_order_of_references(&old.tables);
    fates.sort_by_key(|(id, _)| id.and_then(|id| order.iter().position(|found| *found == id)));
    fates.into_iter().map(|(_, fate)| fate).collect()
}

fn fate<'s>(failed: &'s Table, old: Option<&'s Table>) -> Fate<'s> {
    let stays = |name: &'s str, reason: &str| Fate::Stays { failed, name, reason: reason.into() };
    let Some(old) = old else {
        return stays(&failed.name, "the old version has no such table");
    };
    if !failed.is_readable || !old.is_readable {
        return stays(&old.name, "the application's role may not read the table");
    }
    let pairs: Vec<Pair<'s>> = old
        .columns
        .iter()
        .filter(|column| !column.is_generated)
        .filter_map(|column| Some(Pair { old: column, failed: source(failed, old, column)? }))
        .collect();
    let missing: Vec<&str> = old
        .columns
        .iter()
        .filter(|column| column.is_required && !column.has_default && !column.is_generated)
        .filter(|column| !pairs.iter().any(|pair| pair.old.number == column.number))
        .map(|column| column.name.as_str())
        .collect();
    if !missing.is_empty() {
        let reason = format!(
            "the old table requires a value in {}, which the failed version's does not have",
            missing.join(", ")
        );
        return stays(&old.name, &reason);
    }
    if pairs.is_empty() {
        return stays(&old.name, "none of its columns is one of the old table's");
    }
    let of = |number: &i16| pairs.iter().copied().find(|pair| pair.old.number == *number);
    let key = old.key.iter().map(of).collect::<Option<Vec<_>>>().unwrap_or_default();
    let checks = old
        .checks
        .iter()
        .filter(|check| !failed.checks.iter().any(|other| other.holds == check.holds))
        .filter(|check| check.columns.iter().all(|number| of(number).is_some()))
        .collect();
    let is_taken = |column: &Column| pairs.iter().any(|pair| pair.failed.number == column.number);
    let further = failed.columns.iter();
    let further = further.filter(|column| !column.is_generated && !is_taken(column)).collect();
    Fate::Goes(Mapping { failed, old, columns: pairs, key, further, checks })
}

/// What the old table's column is in the failed version's table.
fn source<'s>(failed: &'s Table, old: &Table, column: &Column) -> Option<&'s Column> {
    let kept = |number: i16| {
        (failed.id == old.id)
            .then(|| failed.columns.iter().find(|found| found.number == number))
            .flatten()
    };
    kept(column.number).or_else(|| {
        let taken = |found: &Column| {
            failed.id == old.id && old.columns.iter().any(|other| other.number == found.number)
        };
        failed.columns.iter().find(|found| found.name == column.name && !taken(found))
    })
}

/// Tables, each after those that it refers to; where they refer to each other, as they come.
fn in_order_of_references(tables: &[Table]) -> Vec<u32> {
    let mut order: Vec<u32> = Vec::new();
    let mut left: Vec<&Table> = tables.iter().collect();
    while !left.is_empty() {
        let waits = |table: &Table| {
            table
                .references
                .iter()
                .any(|id| *id != table.id && left.iter().any(|other| other.id == *id))
        };
        let ready: BTreeSet<u32> =
            left.iter().filter(|table| !waits(table)).map(|table| table.id).collect();
        let (now, later): (Vec<&Table>, Vec<&Table>) =
            left.iter().copied().partition(|table| ready.is_empty() || ready.contains(&table.id));
        order.extend(now.iter().map(|table| table.id));
        left = later;
    }
    order
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn column(number: i16, name: &str, kind: &str) -> Value {
        json!({"number": number, "name": name, "type": kind, "bareType": kind, "labels": null,
               "isRequired": false, "hasDefault": false, "isGenerated": false,
               "isAlwaysIdentity": false})
    }

    fn table(id: u32, name: &str, columns: &[Value]) -> Value {
        json!({"id": id, "name": name, "isReadable": true, "columns": columns, "key": [1],
               "checks": [], "references": []})
    }

    fn shape(tables: &[Value]) -> Shape {
        serde_json::from_value(json!({"encoding": "UTF8", "tables": tables, "sequences": {}}))
            .expect("a shape")
    }

    fn required(mut column: Value) -> Value {
        column["isRequired"] = json!(true);
        column
    }

    fn reason(failed: &Shape, old: &Shape) -> String {
        match fates(failed, old).as_slice() {
            [Fate::Stays { reason, .. }] => reason.clone(),
            found => panic!("{found:?}"),
        }
    }

    /// `old <- failed` of each column that goes into the first table.
    fn pairs(failed: &Shape, old: &Shape) -> Vec<String> {
        match fates(failed, old).as_slice() {
            [Fate::Goes(mapping), ..] => {
                let of = |pair: &Pair<'_>| format!("{} <- {}", pair.old.name, pair.failed.name);
                mapping.columns.iter().map(of).collect()
            }
            found => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_table_and_a_column_are_followed_under_the_names_that_a_migration_gave_them() {
        let old = shape(&[table(
            7,
            "public.payments",
            &[column(1, "id", "uuid"), column(2, "amount", "numeric")],
        )]);
        let failed = shape(&[table(
            7,
            "public.charges",
            &[column(1, "id", "uuid"), column(2, "value", "numeric"), column(3, "memo", "text")],
        )]);
        assert_eq!(pairs(&failed, &old), ["id <- id", "amount <- value"]);
        let fates = fates(&failed, &old);
        let [Fate::Goes(mapping)] = fates.as_slice() else { panic!("{fates:?}") };
        assert_eq!(mapping.further.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["memo"]);
    }

    #[test]
    fn what_was_dropped_and_made_again_is_found_by_its_name() {
        let old =
            shape(&[table(7, "public.t", &[column(1, "id", "uuid"), column(2, "amount", "int")])]);
        let column_again = shape(&[table(
            7,
            "public.t",
            &[column(1, "id", "uuid"), column(3, "amount", "bigint")],
        )]);
        assert_eq!(pairs(&column_again, &old), ["id <- id", "amount <- amount"]);
        let table_again =
            shape(&[table(9, "public.t", &[column(1, "amount", "int"), column(2, "id", "uuid")])]);
        assert_eq!(pairs(&table_again, &old), ["id <- id", "amount <- amount"]);
        // Two columns that changed names.
        let crossed =
            shape(&[table(7, "public.t", &[column(1, "amount", "uuid"), column(2, "id", "int")])]);
        assert_eq!(pairs(&crossed, &old), ["id <- amount", "amount <- id"]);
    }

    #[test]
    fn what_the_old_schema_can_not_hold_is_told_with_the_reason() {
        let old = shape(&[table(
            7,
            "public.t",
            &[column(1, "id", "uuid"), required(column(2, "amount", "int"))],
        )]);
        let new_table = shape(&[table(8, "public.ledger", &[column(1, "id", "uuid")])]);
        assert_eq!(reason(&new_table, &old), "the old version has no such table");
        let dropped = shape(&[table(7, "public.t", &[column(1, "id", "uuid")])]);
        assert_eq!(
            reason(&dropped, &old),
            "the old table requires a value in amount, which the failed version's does not have"
        );
        let mut hidden = shape(&[table(7, "public.t", &[column(1, "id", "uuid")])]);
        hidden.tables[0].is_readable = false;
        assert_eq!(reason(&hidden, &old), "the application's role may not read the table");
    }

    #[test]
    fn a_required_column_that_has_a_default_is_left_to_it() {
        let mut with_default = required(column(2, "amount", "int"));
        with_default["hasDefault"] = json!(true);
        let old = shape(&[table(7, "public.t", &[column(1, "id", "uuid"), with_default])]);
        let failed = shape(&[table(7, "public.t", &[column(1, "id", "uuid")])]);
        assert_eq!(pairs(&failed, &old), ["id <- id"]);
    }

    #[test]
    fn a_table_that_others_refer_to_comes_before_them() {
        let mut tables = [
            table(1, "a", &[column(1, "id", "int")]),
            table(2, "b", &[column(1, "id", "int")]),
            table(3, "c", &[column(1, "id", "int")]),
        ];
        tables[0]["references"] = json!([2, 1]);
        tables[1]["references"] = json!([3]);
        let both = shape(&tables);
        let names: Vec<&str> = fates(&both, &both)
            .iter()
            .map(|fate| match fate {
                Fate::Goes(mapping) => mapping.old.name.as_str(),
                Fate::Stays { name, .. } => panic!("{name}"),
            })
            .map(|name| match name {
                "a" => "a",
                "b" => "b",
                _ => "c",
            })
            .collect();
        assert_eq!(names, ["c", "b", "a"]);
        tables[2]["references"] = json!([1]);
        let circle = shape(&tables);
        assert_eq!(fates(&circle, &circle).len(), 3);
    }

    #[test]
    fn an_enumeration_with_a_label_more_is_another_type() {
        let labelled = |labels: &[&str]| {
            let mut mood = column(2, "mood", "public.mood");
            mood["labels"] = json!(labels);
            shape(&[table(7, "public.t", &[column(1, "id", "uuid"), mood])])
        };
        let same = |failed: &Shape, old: &Shape| match fates(failed, old).as_slice() {
            [Fate::Goes(mapping)] => mapping.columns.iter().all(Pair::is_same_type),
            found => panic!("{found:?}"),
        };
        let (old, more) = (labelled(&["good"]), labelled(&["good", "bad"]));
        assert!(same(&old, &old) && same(&old, &more) && !same(&more, &old));
    }
}
