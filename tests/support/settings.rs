//! What a run of the tests is asked for by its environment: how much of it, and which.

use std::str::FromStr;

/// What an environment variable says; none where it is missing or says no such thing.
pub fn setting<T: FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Whether the whole matrix is wanted, and not the part of it that an ordinary run takes.
pub fn is_full() -> bool {
    std::env::var_os("PAYRAM_TEST_FULL").is_some_and(|full| full == "1")
}

/// Those of the ordinary run, or all.
pub fn chosen<T: Clone>(ordinary: &[T], further: &[T]) -> Vec<T> {
    let further = if is_full() { further } else { &[] };
    [ordinary, further].concat()
}

/// The steps that `PAYRAM_TEST_STEPS` names (`verify,probation`): everything about them and
/// nothing else is tried. None where it is not set.
pub fn named_steps() -> Option<Vec<String>> {
    let steps = setting::<String>("PAYRAM_TEST_STEPS")?;
    Some(steps.split(',').map(|step| step.trim().to_owned()).collect())
}
