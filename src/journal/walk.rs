//! The walk over the hash chain while the daemon runs: on a thread and a connection of its own,
//! so that nobody who reads or writes waits for it.
//!
//! Whoever wants to know ([`ChainWatch::look`]) has the rows walked that came since the last
//! look; all who ask meanwhile share that walk. A change to an older row is not seen by it, so
//! the whole is walked at the start and every day, a slice at a time: a read that lasted longer
//! would keep the write-ahead log from being folded into the database. `journal verify` walks
//! the whole at once, in its own process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::chain::{self, Broken, Jobs, Link, Piece};
use super::record::Seq;
use super::{JournalError, schema};
use crate::clock::Timestamp;

/// Rows that are walked at once: some milliseconds.
const SLICE: u32 = 2_000;

/// Jobs that are compared at once.
const SLICE_OF_JOBS: u32 = 500;

/// Between two slices of the first walk: a third of one processor at most.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two slices of a later walk of the whole, which nobody waits for.
const PAUSE_AGAIN: Duration = Duration::from_millis(200);

/// From the end of one walk of the whole to the next.
const WHOLE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The same while something is wrong: it may have been put right.
const WHOLE_EVERY_WHILE_BROKEN: Duration = Duration::from_secs(10 * 60);

/// The thread's niceness: whatever else the daemon does comes first.
const NICENESS: i32 = 10;

/// How far the chain was walked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainState {
    /// The row up to which the chain holds.
    pub walked: Seq,
    /// The newest row when that was found.
    pub rows: Seq,
    /// The last row and the time of the last walk of the whole; none before the first has ended.
    pub whole: Option<(Seq, Timestamp)>,
    /// What is wrong, or why it can't be read.
    pub fault: Option<String>,
    /// Of those who asked, how many have their answer.
    answered: u64,
}

/// The thread that walks. It ends when this is dropped.
pub struct ChainWatch {
    shared: Arc<Shared>,
    state: watch::Receiver<ChainState>,
}

struct Shared {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    count: u64,
    is_over: bool,
}

impl ChainWatch {
    /// Begins to walk the journal at this path.
    pub fn start(path: &Path) -> Self {
        Self::start_with(path, || {})
    }

    /// The same; `before_slice` is called before each slice.
    pub(crate) fn start_with(path: &Path, before_slice: impl FnMut() + Send + 'static) -> Self {
        let shared = Arc::new(Shared { asked: Mutex::default(), changed: Condvar::new() });
        let (publish, state) = watch::channel(ChainState::default());
        let mut walk = Walk {
            path: path.to_owned(),
            before_slice,
            front: Course::default(),
            again: None,
            whole_at: None,
            found_again: None,
            publish,
        };
        let asked = Arc::clone(&shared);
        let named = std::thread::Builder::new().name("chain".to_owned());
        if let Err(error) = named.spawn(move || walk.run(&asked)) {
            // Its sender is gone with it: whoever looks is told.
            tracing::error!(%error, "the thread that walks the journal's chain can't be started");
        }
        Self { shared, state }
    }

    /// What is so after a walk that began now or later. It takes as long as that walk; who has
    /// no patience for it takes [`ChainWatch::state`].
    pub async fn look(&self) -> ChainState {
        let mine = {
            let mut asked = self.shared.lock();
            asked.count += 1;
            asked.count
        };
        self.shared.changed.notify_one();
        let mut state = self.state.clone();
        match state.wait_for(|state| state.answered >= mine).await {
            Ok(state) => state.clone(),
            Err(_) => ChainState {
                fault: Some("the thread that walks the chain has ended".into()),
                ..self.state()
            },
        }
    }

    /// What is known without a further walk.
    pub fn state(&self) -> ChainState {
        self.state.borrow().clone()
    }
}

impl Drop for ChainWatch {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A walk from the first row on: how far it is.
#[derive(Clone, Debug)]
struct Course {
    upto: Link,
    /// Whether the newest row was reached; then the jobs are next.
    has_rows: bool,
    /// The job up to which they were compared.
    jobs_upto: i64,
    is_done: bool,
}

impl Default for Course {
    fn default() -> Self {
        Self { upto: Link::start(), has_rows: false, jobs_upto: 0, is_done: false }
    }
}

/// What the thread has in hand.
struct Walk<F> {
    path: PathBuf,
    before_slice: F,
    /// The first walk, and after it the rows that have come since.
    front: Course,
    /// A later walk of the whole.
    again: Option<Course>,
    whole_at: Option<Instant>,
    /// What the last walk of the whole but the first has found.
    found_again: Option<String>,
    publish: watch::Sender<ChainState>,
}

impl<F: FnMut()> Walk<F> {
    fn run(&mut self, shared: &Shared) {
        // Without it the thread walks no slower than the others work.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "the thread that walks the chain keeps its priority");
        }
        let mut asked = Asked::default();
        loop {
            let is_asked = { shared.lock().count } > self.publish.borrow().answered;
            if is_asked || !self.front.is_done {
                let count = shared.lock().count;
                self.go_forward(count);
            } else if self.is_whole_due() {
                self.go_again();
            }
            let pause = self.pause();
            let guard = shared.lock();
            let waited = shared
                .changed
                .wait_timeout_while(guard, pause, |now| !now.is_over && now.count == asked.count);
            let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if guard.is_over {
                return;
            }
            asked.count = guard.count;
        }
    }

    fn pause(&self) -> Duration {
        let is_stuck = self.publish.borrow().fault.is_some();
        match (&self.again, self.whole_at) {
            (Some(_), _) => PAUSE_AGAIN,
            (None, _) if !self.front.is_done && !is_stuck => PAUSE,
            (None, Some(at)) => at.saturating_duration_since(Instant::now()),
            (None, None) => WHOLE_EVERY_WHILE_BROKEN,
        }
    }

    fn is_whole_due(&self) -> bool {
        self.again.is_some() || self.whole_at.is_some_and(|at| at <= Instant::now())
    }

    /// The next slice of the first walk; once that is done, all rows that have come since.
    fn go_forward(&mut self, asked: u64) {
        let was_done = self.front.is_done;
        let mut front = self.front.clone();
        let fault = self.slice(&mut front).err();
        let is_current = front.is_done || fault.is_some();
        self.front = front;
        if !was_done && self.front.is_done {
            self.whole_at = Some(Instant::now() + WHOLE_EVERY);
        }
        let whole =
            (!was_done && self.front.is_done).then(|| (self.front.upto.seq, Timestamp::now()));
        let fault = fault.or_else(|| self.found_again.clone());
        self.publish.send_modify(|state| {
            state.walked = self.front.upto.seq;
            state.whole = whole.or(state.whole.take());
            state.fault = fault;
            if is_current {
                state.answered = asked;
            }
        });
    }

    /// The next slice of a later walk of the whole.
    fn go_again(&mut self) {
        let mut course = self.again.take().unwrap_or_default();
        let fault = self.slice(&mut course).err();
        if fault.is_none() && !course.is_done {
            self.again = Some(course);
            return;
        }
        let every = if fault.is_some() { WHOLE_EVERY_WHILE_BROKEN } else { WHOLE_EVERY };
        self.whole_at = Some(Instant::now() + every);
        if let Some(reason) = &fault {
            tracing::warn!(
                reason,
                "the journal was walked from its first row, and is not as it was written"
            );
        }
        let is_put_right = fault.is_none() && self.found_again.is_some();
        self.found_again = fault;
        self.publish.send_modify(|state| {
            if self.found_again.is_none() {
                state.whole = Some((course.upto.seq, Timestamp::now()));
            }
            if self.found_again.is_some() || is_put_right {
                state.fault = self.found_again.clone();
            }
        });
    }

    /// Walks a slice, on a connection opened for it: one that was kept would go on reading a
    /// file that was taken away or replaced.
    fn slice(&mut self, course: &mut Course) -> Result<(), String> {
        (self.before_slice)();
        let was_done = course.is_done;
        loop {
            let walked = slice(&self.path, course).map_err(|error| error.to_string())?;
            let newest =
                walked.map_err(|broken| format!("row {}: {}", broken.seq, broken.reason))?;
            self.publish.send_modify(|state| state.rows = state.rows.max(newest));
            // What has come since the first walk is walked to its end, however much it is.
            if !was_done || course.is_done {
                return Ok(());
            }
        }
    }
}

/// Answers the newest row.
fn slice(path: &Path, course: &mut Course) -> Result<Result<Seq, Broken>, JournalError> {
    let doing = "walk the chain";
    let sqlite = |source| JournalError::Sqlite { doing, path: path.to_owned(), source };
    let connection = schema::open_reader(path)?;
    let transaction = connection.unchecked_transaction().map_err(sqlite)?;
    let newest = transaction
        .query_row("SELECT coalesce(max(seq), 0) FROM journal", [], |row| row.get(0))
        .map_err(sqlite)?;
    Ok(advance(&transaction, course).map_err(sqlite)?.map(|()| newest))
}

fn advance(
    connection: &rusqlite::Connection,
    course: &mut Course,
) -> rusqlite::Result<Result<(), Broken>> {
    if course.has_rows && !course.is_done {
        let Some(last) = chain::job_after(connection, course.jobs_upto, SLICE_OF_JOBS)? else {
            // Rows may have come while the jobs were compared.
            course.is_done = true;
            return advance(connection, course);
        };
        let which = Jobs::After(course.jobs_upto, SLICE_OF_JOBS);
        if let Some(broken) = chain::jobs_differ(connection, which)? {
            return Ok(Err(broken));
        }
        course.jobs_upto = last;
        return Ok(Ok(()));
    }
    let Piece { upto, is_end, jobs } = match chain::follow(connection, &course.upto, SLICE)? {
        Ok(piece) => piece,
        Err(broken) => return Ok(Err(broken)),
    };
    if course.has_rows {
        let touched = jobs.iter().map(|id| Jobs::One(id)).chain([Jobs::Active, Jobs::Last]);
        for which in touched {
            if let Some(broken) = chain::jobs_differ(connection, which)? {
                return Ok(Err(broken));
            }
        }
    }
    course.upto = upto;
    course.is_done = is_end && course.has_rows;
    course.has_rows |= is_end;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::journal::{Journal, NewEvent};

    struct Place {
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Place {
        fn with_rows(rows: usize) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let place = Self { path: directory.path().join("journal.db"), _directory: directory };
            place.add(rows);
            place
        }

        fn add(&self, rows: usize) {
            let event = NewEvent {
                kind: "sync",
                status: "succeeded",
                message: "noted".into(),
                data: std::collections::BTreeMap::new(),
            };
            Journal::open(&self.path).expect("opens").note(&vec![event; rows]).expect("writes");
        }

        fn tamper(&self, sql: &str) {
            let connection = rusqlite::Connection::open(&self.path).expect("opens");
            let triggers = "DROP TRIGGER IF EXISTS journal_is_append_only_update;
                            DROP TRIGGER IF EXISTS journal_is_append_only_delete;";
            connection.execute_batch(&format!("{triggers}{sql}")).expect("tampers");
        }
    }

    /// Walks without the thread and its pauses.
    fn walk(place: &Place) -> Walk<impl FnMut() + use<>> {
        Walk {
            path: place.path.clone(),
            before_slice: || {},
            front: Course::default(),
            again: None,
            whole_at: None,
            found_again: None,
            publish: watch::Sender::new(ChainState::default()),
        }
    }

    #[tokio::test]
    async fn the_first_look_walks_the_whole_and_the_next_one_what_has_come_since() {
        let place = Place::with_rows(5_000);
        let slices = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&slices);
        let watch = ChainWatch::start_with(&place.path, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let state = watch.look().await;
        assert_eq!((state.walked, state.rows, state.fault), (5_000, 5_000, None));
        assert_eq!(state.whole.map(|(upto, _)| upto), Some(5_000));
        // Three of rows, and one that finds no jobs to compare.
        let first = slices.load(Ordering::SeqCst);
        assert!(first >= 4, "{first} slices");
        place.add(10);
        let state = watch.look().await;
        assert_eq!((state.walked, state.whole.map(|(upto, _)| upto)), (5_010, Some(5_000)));
        let further = slices.load(Ordering::SeqCst) - first;
        assert_eq!(further, 1, "a look walks what is new in one go");
    }

    #[tokio::test]
    async fn a_changed_new_row_and_a_lost_end_are_seen_by_the_next_look() {
        for (sql, expected) in [
            ("UPDATE journal SET body = '{}' WHERE seq = 13;", "row 13: its content does not"),
            ("DELETE FROM journal WHERE seq = 20;", "row 20: rows up to 20 were written"),
            ("DELETE FROM journal WHERE seq = 10;", "row 10: it was there when it was walked"),
        ] {
            let place = Place::with_rows(10);
            let watch = ChainWatch::start(&place.path);
            assert_eq!(watch.look().await.fault, None);
            place.add(10);
            place.tamper(sql);
            let fault = watch.look().await.fault.expect(sql);
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    #[test]
    fn a_changed_old_row_is_seen_by_the_next_walk_of_the_whole_and_until_it_is_put_right() {
        let place = Place::with_rows(3_000);
        let mut walk = walk(&place);
        while !walk.front.is_done {
            walk.go_forward(0);
        }
        place.tamper("UPDATE journal SET at_ms = at_ms + 1 WHERE seq = 7;");
        walk.go_forward(1);
        assert_eq!(walk.publish.borrow().fault, None, "a look sees new rows only");
        let fault = |walk: &Walk<_>| walk.publish.borrow().fault.clone();
        walk.go_again();
        assert!(fault(&walk).is_some_and(|fault| fault.starts_with("row 7: its content")));
        walk.go_forward(2);
        assert!(fault(&walk).is_some(), "it is not forgotten by the next look");
        place.tamper("UPDATE journal SET at_ms = at_ms - 1 WHERE seq = 7;");
        walk.go_again();
        while walk.again.is_some() {
            walk.go_again();
        }
        assert_eq!(fault(&walk), None);
    }

    #[tokio::test]
    async fn a_journal_that_was_taken_away_is_a_fault() {
        let place = Place::with_rows(10);
        let watch = ChainWatch::start(&place.path);
        assert_eq!(watch.look().await.fault, None);
        std::fs::remove_file(&place.path).expect("removes");
        let fault = watch.look().await.fault.expect("a fault");
        assert!(fault.contains("No such file"), "{fault}");
    }

    #[tokio::test]
    async fn a_job_with_a_wrong_mark_is_seen_by_the_next_look() {
        let place = Place::with_rows(10);
        let journal = Journal::open(&place.path).expect("opens");
        let watch = ChainWatch::start(&place.path);
        assert_eq!(watch.look().await.fault, None);
        let body = r#"{"mode":"MANUAL","requestedTarget":"2.0.0","resolvedTarget":"2.0.0",
            "containerName":"payram","fromRules":RULES,"overlay":OVERLAY,"dryRun":false,"hops":[]}"#;
        let rules = serde_json::to_string(&crate::app::core::rules_for("2.0.0", None, None));
        let overlay = serde_json::to_string(&crate::machine::facts::Overlay::default());
        let body = body
            .replace("RULES", &rules.expect("JSON"))
            .replace("OVERLAY", &overlay.expect("JSON"));
        journal.begin(&serde_json::from_str(&body).expect("a job"), &[], None).expect("begins");
        assert_eq!(watch.look().await.fault, None);
        place.tamper("UPDATE jobs SET active = 0;");
        let fault = watch.look().await.fault.expect("a fault");
        assert!(fault.contains("is marked as at rest"), "{fault}");
    }
}
