//! Sequences of a database that was put back: those that the failed version drew from are set to
//! where it had them, so that nothing that it handed out is handed out again.
//!
//! Called by the driver with what the fingerprint of the failed version says, and with a server
//! that runs alone on the directory which came back. [`compare`] is pure.

use std::collections::BTreeMap;

use super::fingerprint::{PINNED, READ_SEQUENCES};
use super::runner::{READING_TIMEOUT, Runner};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;
use crate::machine::{Sequence, SequenceMove};

const MOVE: &str = include_str!("sql/move_sequences.sql");

/// What is to be done so that every sequence stands at the further of both values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequencesBehind {
    /// Those to set on.
    pub moves: Vec<SequenceMove>,
    /// Those that can't be compared, a sentence each.
    pub unclear: Vec<String>,
}

impl SequencesBehind {
    /// Whether nothing is to be done or said.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.unclear.is_empty()
    }
}

/// Compares the sequences of the database that came back with those of the failed version. One that
/// only one of the two has is left alone: what the failed version made went with it.
///
/// A sequence that begins anew at its end has no higher value: where the failed version left it is
/// the further one, whichever number that is.
pub fn compare(back: &[Sequence], reached: &[Sequence]) -> SequencesBehind {
    let mut found = SequencesBehind::default();
    for now in back {
        // A renamed one keeps its number, one that was made anew its name.
        let same = reached.iter().find(|one| one.id == now.id);
        let Some(then) = same.or_else(|| reached.iter().find(|one| one.name == now.name)) else {
            continue;
        };
        let (Some(from), Some(to)) = (now.last, then.last) else {
            let reached = then.last.map(|at| format!("; the failed version's is at {at}"));
            found.unclear.push(format!(
                "sequence {} may not be read by the application's role{}",
                now.name,
                reached.unwrap_or_default()
            ));
            continue;
        };
        if now.increment.signum() != then.increment.signum() {
            found.unclear.push(format!(
                "sequence {} is at {from} and goes on by {}, the failed version's is at {to} and goes on by {}",
                now.name, now.increment, then.increment
            ));
            continue;
        }
        let (at, is_at) = ((from, now.is_called), (to, then.is_called));
        let is_behind = match (now.cycles, now.increment < 0) {
            (true, _) => at != is_at,
            (false, false) => at < is_at,
            (false, true) => (to, now.is_called) < (from, then.is_called),
        };
        if is_behind {
            let (name, id) = (now.name.clone(), now.id);
            found.moves.push(SequenceMove { name, id, from, to, is_called: then.is_called });
        }
    }
    found
}

/// Where the sequences stand.
///
/// # Errors
/// `RUNTIME_INSPECTION_FAILED` when the server does not answer, `INVALID_DB_CONFIG` when it refuses
/// the credentials.
pub async fn sequences(runner: &Runner<'_>) -> Result<Vec<Sequence>, Trouble> {
    let doing = format!("read the sequences of database {}", runner.database().name);
    let told = "select current_setting('payram_updater.sequences')";
    answer(runner, &doing, &[&PINNED[..], &[READ_SEQUENCES, told]].concat()).await
}

/// Sets these; answers the numbers of those that were refused, with a sentence each. The others are
/// on disk.
///
/// # Errors
/// Those of [`sequences`].
pub async fn move_sequences(
    runner: &Runner<'_>,
    moves: &[SequenceMove],
) -> Result<Vec<(u32, String)>, Trouble> {
    let doing = format!("set the sequences of database {}", runner.database().name);
    let list = serde_json::json!(
        moves
            .iter()
            .map(|one| serde_json::json!({"id": one.id, "to": one.to, "isCalled": one.is_called}))
            .collect::<Vec<_>>()
    );
    let set = MOVE.replace("{{moves}}", &list.to_string());
    let statements = [
        &PINNED[..],
        &[
            "set default_transaction_read_only = off",
            "set synchronous_commit = on",
            &set,
            "select current_setting('payram_updater.refused')",
        ],
    ]
    .concat();
    let refused: BTreeMap<String, String> = answer(runner, &doing, &statements).await?;
    let said = moves.iter().filter_map(|one| {
        let reason = refused.get(&one.id.to_string())?;
        let said = format!(
            "sequence {} is at {} and can't be set to {}: {reason}",
            one.name, one.from, one.to
        );
        Some((one.id, said))
    });
    Ok(said.collect())
}

async fn answer<T: serde::de::DeserializeOwned>(
    runner: &Runner<'_>,
    doing: &str,
    statements: &[&str],
) -> Result<T, Trouble> {
    let code = FailureCode::RuntimeInspectionFailed;
    let answer = runner.psql(None, statements, READING_TIMEOUT).await;
    let answer = answer.map_err(|error| error.trouble(doing, code, code))?;
    serde_json::from_str(&answer).map_err(|error| {
        Trouble::failed(code, format!("{doing}: expected JSON, found {answer:?}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(name: &str, id: u32, last: i64, is_called: bool) -> Sequence {
        let (name, last) = (name.to_owned(), Some(last));
        Sequence { name, id, last, is_called, increment: 1, cycles: false }
    }

    /// From which value to which it is set; none where it stays.
    fn moved(back: Sequence, reached: Sequence) -> Option<(i64, i64)> {
        let found = compare(&[back], &[reached]);
        assert_eq!(found.unclear, Vec::<String>::new());
        found.moves.first().map(|one| (one.from, one.to))
    }

    #[test]
    fn a_sequence_is_set_to_the_higher_value_and_never_back() {
        let at = |last, is_called| sequence("public.s", 7, last, is_called);
        assert_eq!(moved(at(120, true), at(143, true)), Some((120, 143)));
        assert_eq!(moved(at(143, true), at(120, true)), None);
        assert_eq!(moved(at(120, true), at(120, true)), None);
        assert_eq!(moved(at(1, false), at(1, true)), Some((1, 1)), "its first was handed out");
        assert_eq!(moved(at(1, true), at(1, false)), None, "it was made to begin anew");
        assert_eq!(
            moved(at(i64::MAX - 1, true), at(i64::MAX, true)).map(|to| to.1),
            Some(i64::MAX)
        );
    }

    #[test]
    fn a_descending_sequence_is_set_to_the_lower_value() {
        let at = |last, is_called| Sequence {
            increment: -2,
            ..sequence("public.s", 7, last, is_called)
        };
        assert_eq!(moved(at(-10, true), at(-30, true)), Some((-10, -30)));
        assert_eq!(moved(at(-30, true), at(-10, true)), None);
        assert_eq!(moved(at(-1, false), at(-1, true)), Some((-1, -1)));
        assert_eq!(moved(at(-1, true), at(-1, false)), None);
        assert_eq!(moved(at(-30, true), at(-10, false)), None);
    }

    #[test]
    fn a_sequence_that_cycles_is_left_where_the_failed_version_left_it() {
        let at = |last| Sequence { cycles: true, ..sequence("public.s", 7, last, true) };
        assert_eq!(moved(at(98), at(3)), Some((98, 3)), "it began anew meanwhile");
        assert_eq!(moved(at(3), at(98)), Some((3, 98)));
        assert_eq!(moved(at(3), at(3)), None);
    }

    #[test]
    fn a_sequence_is_known_by_its_number_or_else_by_its_name_and_one_of_only_one_side_stays() {
        let back = sequence("public.s", 7, 120, true);
        let found = |reached: Sequence| moved(back.clone(), reached).map(|(_, to)| to);
        assert_eq!(found(sequence("public.renamed", 7, 143, true)), Some(143));
        assert_eq!(found(sequence("public.s", 8, 143, true)), Some(143), "made anew");
        assert_eq!(found(sequence("public.other", 8, 143, true)), None);
        assert!(compare(&[], std::slice::from_ref(&back)).is_empty(), "the failed version made it");
        assert!(compare(&[back], &[]).is_empty(), "the failed version dropped it");
    }

    #[test]
    fn what_can_not_be_compared_is_told_with_what_is_known() {
        let back = sequence("public.s", 7, 120, true);
        let unread = Sequence { last: None, ..back.clone() };
        let turned = Sequence { increment: -1, last: Some(-4), ..back.clone() };
        let found = compare(std::slice::from_ref(&unread), &[sequence("public.s", 7, 143, true)]);
        assert_eq!(
            found.unclear,
            [
                "sequence public.s may not be read by the application's role; the failed version's is at 143"
            ]
        );
        assert!(
            compare(std::slice::from_ref(&back), &[unread]).unclear[0]
                .ends_with("application's role")
        );
        let found = compare(&[back], &[turned]);
        assert!(found.moves.is_empty() && found.unclear[0].contains("goes on by -1"), "{found:?}");
    }
}
