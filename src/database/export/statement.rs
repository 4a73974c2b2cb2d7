//! The statements that read a failed version's rows and ask the old version about them. Pure;
//! the server itself quotes every value.

use super::shape::{Mapping, Pair};
use crate::database::fingerprint::written_since;

/// What a statement calls the table of the failed version, and the old one.
const ROW: &str = "r";

/// The number of the transaction that wrote a row; no column of the old table has this name.
const WRITER: &str = "\"payram-updater writer\"";

/// A row for which something in `refusals` holds is not one that the old table can hold.
pub(super) struct Reading {
    /// Answers a JSON array for each row: the number of the transaction that wrote it, the number
    /// of the refusal or null, the key or null,
    /// the digest of its values, the values as a list of SQL literals, and those of the columns
    /// that the old table does not have, or null when there are none.
    pub statement: String,
    /// Why a row is refused, by number.
    pub refusals: Vec<String>,
}

/// Reads the rows that were written since the cut-over as rows of the old table.
pub(super) fn reading(mapping: &Mapping<'_>, cut_over: u64) -> Reading {
    let (source, refusals) = source(mapping, cut_over);
    let further = match mapping.further.len() {
        0 => "null".to_owned(),
        number => {
            literals(&(0..number).map(|n| format!("{ROW}.{}", further_name(n))).collect::<Vec<_>>())
        }
    };
    let key = match mapping.key.as_slice() {
        [] => "null".to_owned(),
        key => literals(&values(key)),
    };
    let statement = format!(
        "select json_build_array({ROW}.{WRITER}, w.why, \
           case when w.why is null then {key} end, \
           case when w.why is null then {} end, \
           case when w.why is null then {} end, \
           case when w.why is null then {further} end)::text \
         from {source}",
        digest(&values(&mapping.columns)),
        literals(&values(&mapping.columns)),
    );
    Reading { statement, refusals }
}

/// Counts the same rows by the transaction that wrote them: a JSON array of its number, the number
/// of the refusal or null, and how many.
pub(super) fn weighing(mapping: &Mapping<'_>, cut_over: u64) -> String {
    let (source, _) = source(mapping, cut_over);
    format!(
        "select json_build_array({ROW}.{WRITER}, w.why, count(*))::text from {source} \
         group by {ROW}.{WRITER}, w.why"
    )
}

/// The same of a table whose rows go nowhere.
pub(super) fn weighing_whole(table: &str, cut_over: u64) -> String {
    format!(
        "select json_build_array(t.xmin::text::bigint, null, count(*))::text \
         from only {table} t where {} group by t.xmin::text",
        written_since("t.xmin", cut_over)
    )
}

/// The rows that the old table can hold, in the order in which they lie: a JSON array of the number
/// of the transaction that wrote it, and the values as a list of SQL literals.
pub(super) fn carrying(mapping: &Mapping<'_>, cut_over: u64) -> String {
    let (source, _) = source(mapping, cut_over);
    format!(
        "select json_build_array({ROW}.{WRITER}, {})::text from {source} where w.why is null",
        literals(&values(&mapping.columns)),
    )
}

/// The rows of a table that were written since the cut-over, with the old table's names, and for
/// each why the old table can't hold it; these reasons, by number.
fn source(mapping: &Mapping<'_>, cut_over: u64) -> (String, Vec<String>) {
    let (conditions, refusals): (Vec<String>, Vec<String>) = refusals(mapping).into_iter().unzip();
    let cases: String = conditions
        .iter()
        .enumerate()
        .map(|(number, condition)| format!(" when {condition} then {number}"))
        .collect();
    let refusal =
        if cases.is_empty() { "null::int".to_owned() } else { format!("case{cases} end") };
    let sources =
        mapping.columns.iter().map(|pair| format!("t.{} as {}", pair.failed.name, pair.old.name));
    let further_sources = mapping
        .further
        .iter()
        .enumerate()
        .map(|(number, column)| format!("t.{} as {}", column.name, further_name(number)));
    let sources: Vec<String> = sources.chain(further_sources).collect();
    let source = format!(
        "(select t.xmin::text::bigint as {WRITER}, {} from only {} t where {}) {ROW} \
           cross join lateral (select {refusal} as why) w",
        sources.join(", "),
        mapping.failed.name,
        written_since("t.xmin", cut_over),
    );
    (source, refusals)
}

/// A name that no column of the old table has.
fn further_name(number: usize) -> String {
    format!("\"payram-updater {number}\"")
}

fn values(pairs: &[Pair<'_>]) -> Vec<String> {
    pairs.iter().map(value).collect()
}

/// Counts the rows of a table that were written since the cut-over.
pub(super) fn counting(table: &str, cut_over: u64) -> String {
    format!("select count(*) from only {table} t where {}", written_since("t.xmin", cut_over))
}

/// Asks the old version for the rows of these keys, `(0, 'key')` each: a JSON array for each
/// that it has, of the number, the digest, and whether it was written since the cut-over too.
pub(super) fn question(mapping: &Mapping<'_>, keys: &str, cut_over: u64) -> String {
    let columns: Vec<String> =
        mapping.columns.iter().map(|pair| format!("{ROW}.{}", pair.old.name)).collect();
    let names: String = (0..mapping.key.len()).map(|number| format!(", k{number}")).collect();
    let matches: Vec<String> = mapping
        .key
        .iter()
        .enumerate()
        .map(|(number, pair)| {
            format!("{ROW}.{} = v.k{number}::{}", pair.old.name, pair.old.bare_type)
        })
        .collect();
    format!(
        "select json_build_array(v.n, {}, {})::text from (values {keys}) v (n{names}) \
         join only {} {ROW} on {};\n",
        digest(&columns),
        written_since(&format!("{ROW}.xmin"), cut_over),
        mapping.old.name,
        matches.join(" and "),
    )
}

fn digest(values: &[String]) -> String {
    format!("md5(row({})::text)", values.join(", "))
}

/// The value as the old column holds it.
fn value(pair: &Pair<'_>) -> String {
    let column = format!("{ROW}.{}", pair.old.name);
    if pair.is_same_type() { column } else { format!("{column}::text::{}", pair.old.kind) }
}

/// The values as SQL literals on one line, parted by commas. A line break inside a value is
/// written as an escape: in a comment it would end the comment, and what follows would be run.
fn literals(values: &[String]) -> String {
    let texts: Vec<String> = values.iter().map(|value| format!("{value}::text")).collect();
    format!(
        "(select string_agg(case when strpos(l, chr(10)) + strpos(l, chr(13)) = 0 then l \
           else replace(replace(case when l like 'E%' then l else 'E' || l end, \
             chr(10), '\\n'), chr(13), '\\r') end, ', ' order by n) \
         from (select quote_nullable(v) as l, n \
           from unnest(array[{}]) with ordinality u (v, n)) q)",
        texts.join(", ")
    )
}

/// What makes a row none of the old table's: a condition on it, and the reason.
fn refusals(mapping: &Mapping<'_>) -> Vec<(String, String)> {
    let mut refusals = Vec::new();
    for pair in &mapping.columns {
        let column = format!("{ROW}.{}", pair.old.name);
        if pair.old.is_required && !pair.failed.is_required {
            refusals.push((
                format!("{column} is null"),
                format!("{} is empty, and the old table requires a value", pair.old.name),
            ));
        }
        if !pair.is_same_type() {
            let (old, failed) = (&pair.old.kind, &pair.failed.kind);
            let reason = match old == failed {
                true => format!("the old {old} does not have the value of {}", pair.old.name),
                false => {
                    format!("the value of {} is not one of {old}, but of {failed}", pair.old.name)
                }
            };
            refusals
                .push((format!("{column} is not null and not ({})", fits(&column, pair)), reason));
        }
    }
    for check in &mapping.checks {
        refusals.push((
            format!("not ({})", check.holds),
            format!("the old table's check {} does not allow it", check.name),
        ));
    }
    refusals
}

/// Whether a value of another type can be taken over unchanged. Only what is certain is.
fn fits(column: &str, pair: &Pair<'_>) -> String {
    let text = format!("{column}::text");
    if let Some(labels) = &pair.old.labels {
        let labels: Vec<String> =
            labels.iter().map(|label| format!("'{}'", label.replace('\'', "''"))).collect();
        return format!("{text} = any (array[{}]::text[])", labels.join(", "));
    }
    let (bare, limits) = match pair.old.kind.split_once('(') {
        Some((_, limits)) => (pair.old.bare_type.as_str(), limits.trim_end_matches(')')),
        None => (pair.old.kind.as_str(), ""),
    };
    let whole = |low: &str, high: &str| {
        format!(
            "case when {text} ~ '^-?[0-9]+$' then {text}::numeric between {low} and {high} \
             else false end"
        )
    };
    match (bare, limits) {
        ("smallint", _) => whole("-32768", "32767"),
        ("integer", _) => whole("-2147483648", "2147483647"),
        ("bigint", _) => whole("-9223372036854775808", "9223372036854775807"),
        ("text" | "character varying", "") => "true".to_owned(),
        ("character varying" | "character" | "bpchar", length) if length.parse::<u32>().is_ok() => {
            format!("length({text}) <= {length}")
        }
        ("numeric", limits) => {
            let limit = match limits.split_once(',') {
                Some((all, after)) => match (all.parse::<u32>(), after.parse::<u32>()) {
                    (Ok(all), Ok(after)) if after <= all => format!(
                        "{text}::numeric = round({text}::numeric, {after}) \
                         and abs({text}::numeric) < 1{}",
                        "0".repeat((all - after) as usize)
                    ),
                    _ => "false".to_owned(),
                },
                None if limits.is_empty() => "true".to_owned(),
                None => "false".to_owned(),
            };
            format!("case when {text} ~ '^-?[0-9]+([.][0-9]+)?$' then {limit} else false end")
        }
        _ => "false".to_owned(),
    }
}
