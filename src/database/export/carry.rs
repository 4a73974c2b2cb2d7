//! The rows that a failed version inserted, carried over into the database that came back, before
//! the old version starts: transaction by transaction, all of it or nothing.
//!
//! Called by the driver where a person asked for it, with two servers that run alone, one on each
//! directory. Which transactions only inserted is read from the failed server's log ([`log`]): of
//! one that also changed or removed rows, changed the schema, wrote into a migration ledger, or
//! wrote what the old version has no place for, nothing is carried over. The rows go in as one
//! transaction of the database that came back, with the tables' triggers off and every reference
//! checked; what conflicts ends all of it. Run again after it was done, it finds that and says the
//! same: nobody else has written there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::file::Draft;
use super::log::{self, Transactions};
use super::rows::Lines;
use super::shape::{self, Fate, Mapping};
use super::stretch::{CutOver, Stretch, json, unread};
use super::{broken, bytes, shape as read_shape, statement, unwritten};
use crate::database::fingerprint::PINNED;
use crate::database::runner::Runner;
use crate::error::Trouble;
use crate::machine::facts::{Carried, CarriedTable, RefusedTransactions};
use crate::machine::failure::FailureCode;

const GUARDS: &str = include_str!("../sql/guards.sql");

/// Numbers of transactions that are named for one reason.
const NUMBERS_NAMED: usize = 20;

const LEDGER: &str = "wrote into a migration ledger";
const NO_PLACE: &str = "also wrote what the old version has no place for";

/// Carries over what transactions of the failed version inserted that did nothing else. `path` is
/// where a file may be written meanwhile.
///
/// # Errors
/// `DISK_SPACE_LOW`, or `RUNTIME_INSPECTION_FAILED` when one of the two can't be read or a row does
/// not fit: nothing was carried over then.
pub async fn carry_rows(
    failed: &Runner<'_>,
    back: &Runner<'_>,
    cut_over: &CutOver<'_>,
    path: &Path,
    within: Duration,
) -> Result<Carried, Trouble> {
    let deadline = Instant::now() + within;
    let (failed_shape, back_shape) = (read_shape(failed).await?, read_shape(back).await?);
    if failed_shape.encoding != back_shape.encoding {
        return Err(broken(format!(
            "the failed version's database is in encoding {}, the old version's in {}",
            failed_shape.encoding, back_shape.encoding
        )));
    }
    let fates = shape::fates(&failed_shape, &back_shape);
    let place = (path, back_shape.encoding.as_str(), deadline);
    let carrying = Carrying::weighed(failed, back, cut_over, &fates, place).await?;
    let mappings: Vec<&Mapping<'_>> = fates
        .iter()
        .filter_map(|fate| match fate {
            Fate::Goes(mapping) => Some(mapping),
            Fate::Stays { .. } => None,
        })
        .collect();
    let carried = carrying.told();
    if carried.tables.is_empty() {
        return Ok(carried);
    }
    match carrying.is_done(&mappings).await? {
        None => carrying.load(&mappings, &carried).await?,
        Some(rows) if rows == carried.tables.iter().map(|table| table.rows).sum::<u64>() => {}
        Some(rows) => {
            return Err(broken(format!(
                "{rows} rows were written into the database that came back, and not by this"
            )));
        }
    }
    Ok(carried)
}

/// What is carried over, or was.
pub(super) struct Carrying<'c> {
    failed: &'c Runner<'c>,
    back: &'c Runner<'c>,
    /// The failed version's first transaction.
    since: u64,
    deadline: Instant,
    path: &'c Path,
    encoding: &'c str,
    transactions: Transactions,
    /// Rows by table and by the number that wrote them.
    rows: Vec<(String, BTreeMap<u32, u64>)>,
}

/// A number, the refusal's or null, and how many rows.
type Weighed = (u32, Option<usize>, u64);

impl<'c> Carrying<'c> {
    /// Finds out for each transaction whether it goes. `place` is where a file may be written, the
    /// encoding, and until when.
    pub async fn weighed(
        failed: &'c Runner<'c>,
        back: &'c Runner<'c>,
        cut_over: &CutOver<'_>,
        fates: &[Fate<'_>],
        (path, encoding, deadline): (&'c Path, &'c str, Instant),
    ) -> Result<Self, Trouble> {
        let stretch = Stretch::of(failed, cut_over).await?;
        let since = stretch.begins_at(failed, cut_over, deadline).await?;
        let transactions = stretch.transactions(failed, cut_over, deadline).await?;
        let rows = Vec::new();
        let mut all = Self { failed, back, since, deadline, path, encoding, transactions, rows };
        let unlogged = all.unlogged().await?;
        for fate in fates {
            all.weigh(fate, &unlogged).await?;
        }
        Ok(all)
    }

    /// The numbers whose rows stay behind.
    pub fn stays_behind(&self) -> BTreeSet<u32> {
        let refused = self.transactions.refused();
        let numbers = self.rows.iter().flat_map(|(_, rows)| rows.keys().copied());
        numbers.filter(|number| refused.contains_key(&self.transactions.whole(*number))).collect()
    }

    /// Counts the rows of a table by transaction, and refuses those that can't go whole.
    async fn weigh(&mut self, fate: &Fate<'_>, unlogged: &BTreeSet<u32>) -> Result<(), Trouble> {
        let (failed, name, question) = match fate {
            Fate::Goes(mapping) => (
                mapping.failed,
                mapping.old.name.as_str(),
                statement::weighing(mapping, self.since),
            ),
            Fate::Stays { failed, name, .. } => {
                (*failed, *name, statement::weighing_whole(&failed.name, self.since))
            }
        };
        let said = bytes::said(name, self.encoding);
        if !failed.is_readable {
            return Err(broken(format!("table {said} may not be read by the application's role")));
        }
        let question = bytes::bytes_of(&format!("{question};\n"))
            .map_err(|error| unwritten(self.path, &error))?;
        let mut rows = BTreeMap::new();
        let stays = matches!(fate, Fate::Stays { .. });
        for line in self.asked(self.failed, &question).await? {
            let (number, refusal, count): Weighed = serde_json::from_str(&line)
                .map_err(|error| broken(format!("read table {said}: {error}")))?;
            *rows.entry(number).or_insert(0) += count;
            let why = if super::super::assess::is_ledger(name) {
                Some(LEDGER)
            } else if stays || refusal.is_some() {
                Some(NO_PLACE)
            } else if !self.transactions.told_of(number) || unlogged.contains(&failed.id) {
                Some(log::UNKNOWN)
            } else {
                None
            };
            if let Some(why) = why {
                self.transactions.refuse(number, why);
            }
        }
        if !rows.is_empty() {
            self.rows.push((said, rows));
        }
        Ok(())
    }

    /// Tables that the log does not tell of.
    async fn unlogged(&self) -> Result<BTreeSet<u32>, Trouble> {
        let list = "select coalesce(json_agg(oid::bigint), '[]')::text from pg_class \
                    where relkind = 'r' and relpersistence <> 'p'";
        json(self.failed, list).await
    }

    /// What goes and what stays, by what was weighed.
    fn told(&self) -> Carried {
        let refused = self.transactions.refused();
        let mut carried = Carried::default();
        let mut whole = BTreeSet::new();
        let mut left: BTreeMap<&str, (BTreeSet<u32>, BTreeMap<&str, u64>)> = BTreeMap::new();
        for (name, rows) in &self.rows {
            let mut goes = 0;
            for (number, count) in rows {
                let transaction = self.transactions.whole(*number);
                match refused.get(&transaction) {
                    None => {
                        whole.insert(transaction);
                        goes += count;
                    }
                    Some(why) => {
                        let (numbers, tables) = left.entry(why).or_default();
                        numbers.insert(transaction);
                        *tables.entry(name).or_default() += count;
                    }
                }
            }
            if goes > 0 {
                carried.tables.push(CarriedTable { name: name.clone(), rows: goes });
            }
        }
        carried.tables.sort_by(|a, b| a.name.cmp(&b.name));
        carried.transactions = whole.len() as u64;
        let refused = left.into_iter().map(|(reason, (numbers, tables))| RefusedTransactions {
            reason: reason.to_owned(),
            transactions: numbers.len() as u64,
            numbers: numbers.into_iter().take(NUMBERS_NAMED).collect(),
            tables: tables
                .into_iter()
                .map(|(name, rows)| CarriedTable { name: name.to_owned(), rows })
                .collect(),
        });
        carried.refused = refused.collect();
        carried
    }

    /// Rows that are in the database that came back and were written since the cut-over; none
    /// where there are none, which is so until they were carried over.
    async fn is_done(&self, mappings: &[&Mapping<'_>]) -> Result<Option<u64>, Trouble> {
        let counts: Vec<String> = mappings
            .iter()
            .map(|mapping| format!("({})", statement::counting(&mapping.old.name, self.since)))
            .collect();
        let question = bytes::bytes_of(&format!("select {};\n", counts.join(" + ")))
            .map_err(|error| unwritten(self.path, &error))?;
        let answer = self.asked(self.back, &question).await?.join("");
        let rows: u64 = answer.trim().parse().map_err(|_| {
            broken(format!("count the rows that are there: not a number: {answer}"))
        })?;
        Ok((rows > 0).then_some(rows))
    }

    /// Writes the rows into a file of statements, has it run, and removes it.
    async fn load(&self, mappings: &[&Mapping<'_>], carried: &Carried) -> Result<(), Trouble> {
        let gone = |mapping: &&&Mapping<'_>| {
            let name = bytes::said(&mapping.old.name, self.encoding);
            carried.tables.iter().any(|table| table.name == name)
        };
        let mappings: Vec<&Mapping<'_>> = mappings.iter().filter(gone).copied().collect();
        let guards = self.guards(&mappings).await?;
        let (before, after) = guards.statements()?;
        let path = super::file::beside(self.path, ".carried");
        let unwritten = |error: &std::io::Error| unwritten(&path, error);
        let mut draft =
            Draft::begin_whole(&path, self.encoding).map_err(|error| unwritten(&error))?;
        let refused = self.transactions.refused();
        let mut written = 0;
        for mapping in mappings {
            draft.check_space().map_err(|error| unwritten(&error))?;
            let question =
                bytes::bytes_of(&format!("{};\n", statement::carrying(mapping, self.since)))
                    .map_err(|error| unwritten(&error))?;
            let mut lines = self.lines(self.failed, &question).await?;
            while let Some(line) = lines.next().await.map_err(unread)? {
                let (number, values): (u32, String) = serde_json::from_str(&line)
                    .map_err(|error| broken(format!("read a row: {error}")))?;
                if !refused.contains_key(&self.transactions.whole(number)) {
                    written += 1;
                    draft.insert(mapping, &values, None).map_err(|error| unwritten(&error))?;
                }
            }
            lines.finish().await.map_err(unread)?;
            draft.end_table().map_err(|error| unwritten(&error))?;
        }
        let expected: u64 = carried.tables.iter().map(|table| table.rows).sum();
        if written != expected {
            return Err(broken(format!(
                "{expected} rows were counted and {written} were read to be carried over"
            )));
        }
        draft.finish_whole(&before, &after).map_err(|error| unwritten(&error))?;
        let settings = [
            "set default_transaction_read_only = off",
            "set synchronous_commit = on",
            "set statement_timeout = 0",
        ];
        let left = self.left();
        let done = self
            .back
            .exact_of_file(&[&PINNED[..], &settings].concat(), &path, left, &mut |_| ())
            .await;
        let removed = std::fs::remove_file(&path);
        done.map_err(|error| {
            let code = FailureCode::RuntimeInspectionFailed;
            error.trouble("insert the rows into the database that came back", code, code)
        })?;
        removed.map_err(|error| unwritten(&error))
    }

    async fn guards(&self, mappings: &[&Mapping<'_>]) -> Result<Guards, Trouble> {
        let tables: Vec<String> = mappings.iter().map(|one| one.old.id.to_string()).collect();
        let question = GUARDS.replace("{{tables}}", &format!("{{{}}}", tables.join(",")));
        json(self.back, &question).await
    }

    async fn lines<'r>(&self, of: &Runner<'r>, question: &[u8]) -> Result<Lines<'r>, Trouble> {
        let settings = ["set statement_timeout = 0"];
        let begun = of.begin_exact(&[&PINNED[..], &settings].concat(), question, self.left()).await;
        Ok(Lines::of(begun.map_err(unread)?))
    }

    async fn asked(&self, of: &Runner<'_>, question: &[u8]) -> Result<Vec<String>, Trouble> {
        let mut lines = self.lines(of, question).await?;
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.map_err(unread)? {
            all.push(line);
        }
        lines.finish().await.map_err(unread)?;
        Ok(all)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
    }
}

/// What would act when rows are inserted, or checks them one by one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Guards {
    event_triggers: Vec<String>,
    rules: Vec<String>,
    triggers: Vec<Trigger>,
    references: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Trigger {
    table: String,
    name: String,
    enabled: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    table: String,
    name: String,
    is_deferrable: bool,
    is_deferred: bool,
}

impl Guards {
    /// What goes before the rows, and what after them, so that everything is as it was.
    fn statements(&self) -> Result<(String, String), Trouble> {
        if let Some(name) = self.event_triggers.first() {
            return Err(broken(format!("the event trigger {name} would act on it")));
        }
        if let Some(table) = self.rules.first() {
            return Err(broken(format!("a rule of {table} would act on it")));
        }
        let (mut before, mut after) = (String::new(), String::new());
        for Trigger { table, name, enabled } in &self.triggers {
            before.push_str(&format!("ALTER TABLE {table} DISABLE TRIGGER {name};\n"));
            let how = match enabled.as_str() {
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            after.push_str(&format!("ALTER TABLE {table} {how} TRIGGER {name};\n"));
        }
        let mut seen: HashMap<(&str, &str), ()> = HashMap::new();
        let mut again = String::new();
        for Reference { table, name, is_deferrable, is_deferred } in &self.references {
            if seen.insert((table, name), ()).is_some() {
                continue;
            }
            before.push_str(&format!(
                "ALTER TABLE {table} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED;\n"
            ));
            let how = match (is_deferrable, is_deferred) {
                (false, _) => "NOT DEFERRABLE",
                (true, false) => "DEFERRABLE INITIALLY IMMEDIATE",
                (true, true) => "DEFERRABLE INITIALLY DEFERRED",
            };
            again.push_str(&format!("ALTER TABLE {table} ALTER CONSTRAINT {name} {how};\n"));
        }
        Ok((before, format!("SET CONSTRAINTS ALL IMMEDIATE;\n{again}{after}")))
    }
}

/// What was carried over, a sentence each.
pub fn said_of_carried(carried: &Carried) -> Vec<String> {
    let listed = |tables: &[CarriedTable]| {
        let each = tables.iter().map(|table| format!("{} {}", table.name, rows(table.rows)));
        each.collect::<Vec<_>>().join(", ")
    };
    let mut said = vec![match carried.tables.as_slice() {
        [] => "no rows were carried over".to_owned(),
        tables => {
            let all = tables.iter().map(|table| table.rows).sum();
            let of = of_transactions(carried.transactions);
            format!("{} {of} carried over: {}", rows(all), listed(tables))
        }
    }];
    for refused in &carried.refused {
        let numbers: Vec<String> = refused.numbers.iter().map(u32::to_string).collect();
        let more = refused.transactions.saturating_sub(numbers.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        said.push(format!(
            "not carried over, because the transactions {}: {} ({}; transactions {}{more})",
            refused.reason,
            listed(&refused.tables),
            count(refused.transactions, "transaction"),
            numbers.join(", "),
        ));
    }
    said
}

fn rows(rows: u64) -> String {
    count(rows, "row")
}

fn of_transactions(transactions: u64) -> String {
    format!("of {}", count(transactions, "transaction"))
}

fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_for_the_rows_is_as_it_was_afterwards() {
        let guards: Guards = serde_json::from_value(serde_json::json!({
            "eventTriggers": [], "rules": [],
            "triggers": [
                {"table": "public.payments", "name": "tell", "enabled": "O"},
                {"table": "public.payments", "name": "\"Copy\"", "enabled": "A"},
            ],
            "references": [
                {"table": "public.lines", "name": "lines_of", "isDeferrable": false, "isDeferred": false},
                {"table": "public.lines", "name": "late", "isDeferrable": true, "isDeferred": true},
            ],
        }))
        .expect("guards");
        let (before, after) = guards.statements().expect("statements");
        assert_eq!(
            before,
            "ALTER TABLE public.payments DISABLE TRIGGER tell;\n\
             ALTER TABLE public.payments DISABLE TRIGGER \"Copy\";\n\
             ALTER TABLE public.lines ALTER CONSTRAINT lines_of DEFERRABLE INITIALLY DEFERRED;\n\
             ALTER TABLE public.lines ALTER CONSTRAINT late DEFERRABLE INITIALLY DEFERRED;\n"
        );
        assert_eq!(
            after,
            "SET CONSTRAINTS ALL IMMEDIATE;\n\
             ALTER TABLE public.lines ALTER CONSTRAINT lines_of NOT DEFERRABLE;\n\
             ALTER TABLE public.lines ALTER CONSTRAINT late DEFERRABLE INITIALLY DEFERRED;\n\
             ALTER TABLE public.payments ENABLE TRIGGER tell;\n\
             ALTER TABLE public.payments ENABLE ALWAYS TRIGGER \"Copy\";\n"
        );
        let acts = Guards { rules: vec!["public.payments".into()], ..guards };
        assert!(acts.statements().is_err());
    }

    #[test]
    fn what_was_carried_over_and_what_was_not_is_counted() {
        let table = |name: &str, rows| CarriedTable { name: name.into(), rows };
        let carried = Carried {
            tables: vec![table("public.ledger", 7), table("public.payments", 5)],
            transactions: 5,
            refused: vec![RefusedTransactions {
                reason: log::CHANGED.into(),
                transactions: 1,
                tables: vec![table("public.balances", 1)],
                numbers: vec![4711],
            }],
        };
        assert_eq!(
            said_of_carried(&carried),
            [
                "12 rows of 5 transactions carried over: public.ledger 7 rows, public.payments 5 rows",
                "not carried over, because the transactions also changed rows: public.balances 1 row (1 transaction; transactions 4711)",
            ]
        );
    }
}
