//! Whether a pooler hands a connection to the next client as the last one left it.
//!
//! What a session sets for itself (a search path, read-only, a time limit) stays in the server's
//! connection until it is reset, and a pooler that gives connections out by the transaction resets
//! nothing (pgbouncer's manual, `pool_mode` and `server_reset_query_always`): what backups and
//! readings set would then be in force for the application, which could write no payment any more.
//! So through such a pooler nothing is asked at all.
//!
//! [`super::Runner`] asks what is said here before the first program that it runs against a database
//! outside of the container: one session marks its connection, and the next one looks whether it was
//! given the same, marked. That sets nothing but a name that no other program knows. Asks nobody.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::locate::Database;

/// How often two sessions one after the other are compared: the application may have taken the
/// connection in between.
pub(super) const ROUNDS: u32 = 4;

/// How long what was found is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(600);

/// By address, port and name: when it was looked at, and whether connections are mixed.
type Verdicts = HashMap<(String, u16, String), (Instant, bool)>;

/// A look costs some sessions, for which the cut-over has no time.
static VERDICTS: LazyLock<Mutex<Verdicts>> = LazyLock::new(Mutex::default);

fn key(database: &Database) -> (String, u16, String) {
    (database.host.clone(), database.port, database.name.clone())
}

/// Whether sessions are mixed on the way to this database, as far as that was found lately.
pub(super) fn known(database: &Database) -> Option<bool> {
    let verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (at, mixes) = verdicts.get(&key(database)).copied()?;
    (at.elapsed() < BELIEVED_FOR).then_some(mixes)
}

/// Notes what was found.
pub(super) fn note(database: &Database, mixes: bool) {
    let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
    verdicts.insert(key(database), (Instant::now(), mixes));
}

/// What a person is told where they are.
pub(super) fn sentence(database: &Database) -> String {
    format!(
        "{}:{} is a pooler that hands a server's connection to the next client as the last one left it (pgbouncer: pool_mode = transaction or statement): what a backup sets for itself, a search path or read-only, would be in force for the application. Nothing was asked through it. Give the application the address of the server itself, or of a pool whose pool_mode is session (POSTGRES_HOST, POSTGRES_PORT)",
        database.host, database.port
    )
}

/// The statements of the first session, which leaves this mark.
pub(super) fn marking(mark: &str) -> [String; 2] {
    [
        format!("set payram_updater.mark = '{mark}'"),
        "select pg_catalog.pg_backend_pid(), extract(epoch from pg_catalog.clock_timestamp())"
            .to_owned(),
    ]
}

/// The statement of the second one, by what the first was answered; none where that says nothing.
pub(super) fn looking(answer: &str) -> Option<String> {
    let (pid, at) = answer.trim().split_once('|')?;
    let (pid, at) = (pid.parse::<u32>().ok()?, at.parse::<f64>().ok()?);
    Some(format!(
        "select pid = {pid}, backend_start < pg_catalog.to_timestamp({at}), \
           coalesce(pg_catalog.current_setting('payram_updater.mark', true), '') <> '' \
         from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid()"
    ))
}

/// Whether sessions are mixed, by what the second one was answered; none where it was given another
/// connection: a new one, or one that another client had meanwhile.
pub(super) fn verdict(answer: &str) -> Option<bool> {
    match answer.trim() {
        // Whatever connection it is: somebody's mark was left in it.
        found if found.ends_with("|t") => Some(true),
        // The same one, cleaned.
        "t|t|f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_was_left_tells_and_a_new_connection_tells_nothing() {
        assert_eq!(verdict("t|t|t\n"), Some(true));
        assert_eq!(verdict("f|t|t\n"), Some(true));
        assert_eq!(verdict("t|t|f\n"), Some(false));
        assert_eq!(verdict("f|f|f\n"), None);
        assert_eq!(verdict("f|t|f\n"), None);
        assert_eq!(verdict(""), None);
    }

    #[test]
    fn only_numbers_get_into_a_statement() {
        assert!(looking("4711|1764446941.25\n").is_some_and(|it| it.contains("pid = 4711")));
        for odd in ["", "4711", "1; drop table x|1", "1|now()"] {
            assert_eq!(looking(odd), None, "{odd}");
        }
    }
}
