//! What was exported and what was not, counted and in words. Pure.
//!
//! Called by the export for the head of its file, and by the driver for what it tells a person:
//! no sentence says of a row that it is exported when it is not (I16).

use crate::database::assess::rows_by_kind;
use crate::machine::facts::{ExportedTable, RefusedRows};

/// Updated rows of a table that are told one by one; the others are only counted.
pub(super) const UPDATED_TOLD: u64 = 10_000;

/// Distinct rows of the failed version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    /// In the file, to be loaded.
    pub loadable: u64,
    /// In the file, in comments.
    pub in_comments: u64,
    /// Not in the file, as far as that is known.
    pub missing: u64,
    /// Whether `missing` is all.
    pub is_known: bool,
}

impl Tally {
    pub fn of(table: &ExportedTable) -> Self {
        let refused = |is_told: bool| -> u64 {
            let some = table.refused.iter().filter(|refused| refused.is_told == is_told);
            some.map(|refused| refused.rows).sum()
        };
        Self {
            loadable: table.inserted,
            in_comments: table.taken + table.updated.min(UPDATED_TOLD) + refused(true),
            missing: refused(false),
            is_known: table.refused.iter().all(|refused| refused.rows > 0),
        }
    }

    fn of_all(tables: &[ExportedTable]) -> Self {
        let none = Self { loadable: 0, in_comments: 0, missing: 0, is_known: true };
        tables.iter().map(Self::of).fold(none, |all, one| Self {
            loadable: all.loadable + one.loadable,
            in_comments: all.in_comments + one.in_comments,
            missing: all.missing + one.missing,
            is_known: all.is_known && one.is_known,
        })
    }

    pub fn sum(&self) -> u64 {
        self.loadable + self.in_comments + self.missing
    }
}

/// `public.payments: 12 rows inserted, 3 updated; 60 changes`
pub fn said_of_table(table: &ExportedTable) -> String {
    let deleted = table.deleted.unwrap_or(0);
    let mut said = rows_by_kind(table.inserted, table.updated, deleted);
    if table.taken > 0 {
        let parted = if said.is_empty() { "" } else { ", " };
        let taken = rows(table.taken);
        said.push_str(&format!("{parted}{taken} whose key the old version has written since"));
    }
    if said.is_empty() {
        let refused: u64 = table.refused.iter().map(|refused| refused.rows).sum();
        said = if refused > 0 { format!("{} written", rows(refused)) } else { "changed".into() };
    }
    if table.deleted.is_none() {
        said.push_str(", how many were deleted is not known");
    }
    match table.changes {
        Some(1) => format!("{}: {said}; 1 change", table.name),
        Some(changes) => format!("{}: {said}; {changes} changes", table.name),
        None => format!("{}: {said}", table.name),
    }
}

/// `3 rows left out: the old version has no such table`
pub fn said_of_refused(refused: &RefusedRows) -> String {
    let how = if refused.is_told { "in comments only" } else { "left out" };
    match refused.rows {
        0 => format!("rows left out, how many is not known: {}", refused.reason),
        number => format!("{} {how}: {}", rows(number), refused.reason),
    }
}

/// What became of a failed version's rows, as the end of a sentence about it, with the file.
pub fn said_of_export(path: &str, tables: &[ExportedTable]) -> String {
    let tally = Tally::of_all(tables);
    let there = tally.loadable + tally.in_comments;
    let are = |number: u64| if number == 1 { "is" } else { "are" };
    let head = match (there, tally.missing, tally.is_known) {
        (0, 0, true) => {
            format!("it had written nothing that is missing now, what it changed is told in {path}")
        }
        (_, 0, true) => format!("its rows are exported to {path}"),
        (0, missing, true) => {
            format!("none of its {missing} rows is exported, {path} says why")
        }
        (0, _, false) => format!("none of its rows is exported, {path} says why"),
        (_, missing, true) => format!(
            "of its {} rows {there} {} exported to {path}, {missing} {} not",
            tally.sum(),
            are(there),
            are(missing)
        ),
        (_, _, false) => format!(
            "{there} of its rows {} exported to {path}, others are not, how many is not known",
            are(there)
        ),
    };
    let comments = match (tally.loadable, tally.in_comments) {
        (_, 0) => String::new(),
        (0, _) => ", in comments".to_owned(),
        (loadable, number) => {
            format!(": {loadable} can be loaded, {number} {} in comments", are(number))
        }
    };
    let mut told: Vec<String> = tables.iter().map(said_of_table).collect();
    for table in tables {
        let missing = table.refused.iter().filter(|refused| !refused.is_told);
        told.extend(missing.map(|some| format!("{}: {}", table.name, said_of_refused(some))));
    }
    format!("{head}{comments} ({})", told.join("; "))
}

pub(super) fn rows(number: u64) -> String {
    if number == 1 { "1 row".into() } else { format!("{number} rows") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(inserted: u64, updated: u64, refused: &[(u64, &str, bool)]) -> ExportedTable {
        let refused = refused.iter().map(|(rows, reason, is_told)| RefusedRows {
            rows: *rows,
            reason: (*reason).to_owned(),
            is_told: *is_told,
        });
        ExportedTable {
            name: "public.t".into(),
            inserted,
            updated,
            deleted: Some(0),
            refused: refused.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn rows_are_called_exported_only_when_they_are_all_in_the_file() {
        let said = |tables: &[ExportedTable]| said_of_export("/f.sql", tables);
        assert_eq!(
            said(&[table(12, 0, &[])]),
            "its rows are exported to /f.sql (public.t: 12 rows inserted)"
        );
        assert_eq!(
            said(&[table(12, 1, &[])]),
            "its rows are exported to /f.sql: 12 can be loaded, 1 is in comments (public.t: 12 rows inserted, 1 updated)"
        );
        assert_eq!(
            said(&[table(0, 0, &[(3, "no key", true)])]),
            "its rows are exported to /f.sql, in comments (public.t: 3 rows written)"
        );
        assert_eq!(
            said(&[table(12, 0, &[]), table(0, 0, &[(3, "no such table", false)])]),
            "of its 15 rows 12 are exported to /f.sql, 3 are not (public.t: 12 rows inserted; \
             public.t: 3 rows written; public.t: 3 rows left out: no such table)"
        );
        assert_eq!(
            said(&[table(0, 0, &[(3, "no such table", false)])]),
            "none of its 3 rows is exported, /f.sql says why (public.t: 3 rows written; \
             public.t: 3 rows left out: no such table)"
        );
        let unread = "the table could not be read: psql";
        assert_eq!(
            said(&[table(2, 0, &[(0, unread, false)])]),
            "2 of its rows are exported to /f.sql, others are not, how many is not known \
             (public.t: 2 rows inserted; public.t: rows left out, how many is not known: \
             the table could not be read: psql)"
        );
        let deleted = ExportedTable { deleted: Some(2), ..table(0, 0, &[]) };
        assert_eq!(
            said(&[deleted]),
            "it had written nothing that is missing now, what it changed is told in /f.sql \
             (public.t: 2 rows deleted)"
        );
    }

    #[test]
    fn an_updated_row_that_is_only_counted_is_counted_once_and_as_missing() {
        let many = table(1, UPDATED_TOLD + 5, &[(5, "beyond", false)]);
        let tally = Tally::of(&many);
        assert_eq!((tally.loadable, tally.in_comments, tally.missing), (1, UPDATED_TOLD, 5));
        assert_eq!(tally.sum(), UPDATED_TOLD + 6);
    }
}
