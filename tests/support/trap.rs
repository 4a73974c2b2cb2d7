//! A trap between the updater and the engine: it stops the daemon at a chosen point of a chosen
//! step, so that a test can kill it there, for certain and without the product's help.
//!
//! The daemon's engine is a socket of the trap's, which passes everything on. At each request
//! the trap looks into the journal; when the chosen step's intent is there and its outcome is
//! not, it takes SQLite's write lock on the journal and looks again. From then on nothing can be
//! journaled: wherever the daemon goes, it dies in that step.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use payram_updater::machine::Step;
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{Daemon, World, wait_until};

/// Between two looks at the journal in a step that asks the engine nothing.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Without a request for so long, a step has done what it can without its journal.
const QUIET: Duration = Duration::from_millis(1200);
/// The product waits 10 s for its journal; it is killed before it gives up.
const QUIET_LIMIT: Duration = Duration::from_secs(8);
/// From the start of a job to any of its steps.
const SPRING_LIMIT: Duration = Duration::from_secs(150);

/// Where in a step the daemon is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// At its first request, which the engine never sees.
    Unasked,
    /// The engine carried out its first change; the answer is lost.
    Unanswered,
    /// The same of a later one, counted from 1; one of which there may be less.
    After(usize),
    /// In the middle of its work on files.
    Midway,
    /// Its effect is done, or waits for the journal; the outcome is not journaled.
    Unjournaled,
}

impl Point {
    /// The points that a step has.
    pub fn of(step: Step) -> &'static [Point] {
        match step {
            // Nothing but files.
            Step::RestorePoint | Step::DiscardCopy => &[Point::Midway, Point::Unjournaled],
            // Looks and changes nothing; or changes only what is not the engine's.
            Step::Verify
            | Step::Probation
            | Step::VerifyOld
            | Step::RestoreDatabase
            | Step::RestoreFiles => &[Point::Unasked, Point::Unjournaled],
            // They find the world as it should be already when the version has exited, or when
            // the container has started its programs itself.
            Step::AssessDatabase | Step::AssessAgain | Step::StopNext | Step::ResumePrograms => {
                &[Point::Unasked, Point::Unjournaled]
            }
            Step::BackUp
            | Step::ProveBackup
            | Step::Pull
            | Step::CreateNext
            | Step::PreCopy
            | Step::DisarmOld
            | Step::NotePrograms
            | Step::Quiesce
            | Step::StopOld
            | Step::RenameOld
            | Step::RenameNext
            | Step::StartNext
            | Step::StartAgain
            | Step::ArmNext
            | Step::Tidy
            | Step::DisarmNext
            | Step::RestoreNextName
            | Step::RestoreOldName
            | Step::StartOld
            | Step::RearmOld
            | Step::ExportRows
            | Step::RemoveNext => &[Point::Unasked, Point::Unanswered, Point::Unjournaled],
        }
    }
}

/// The trap of one world.
pub struct Trap {
    shared: Arc<Shared>,
}

struct Shared {
    journal: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    armed: Option<(&'static str, Point)>,
    /// Changes that the step has asked for.
    changes: usize,
    /// Whether what is held may go on when the trap is disarmed.
    lets_go: bool,
    /// Whether the daemon must not journal anything from there on.
    locks: bool,
    /// The intent at which it sprung last. One that was killed is found again by the next
    /// daemon, before it begins the step anew: that is no second time.
    last_intent: i64,
    /// The write lock, while the trap has sprung.
    lock: Option<Connection>,
    last_traffic: Instant,
}

impl Trap {
    /// Puts itself between a world's updater and the engine, for all daemons and commands that
    /// are started from here on.
    pub fn between(world: &World) -> Trap {
        let socket = world.path("engine.sock");
        let listener = UnixListener::bind(&socket).expect("a socket for the trap");
        let shared = Arc::new(Shared {
            journal: world.state_dir().join("journal.db"),
            state: Mutex::new(State {
                armed: None,
                changes: 0,
                lets_go: false,
                locks: true,
                last_intent: 0,
                lock: None,
                last_traffic: Instant::now(),
            }),
            changed: Condvar::new(),
        });
        let passing = Arc::clone(&shared);
        let engine = world.engine().to_owned();
        // Ends with the test's process; it holds no more than a socket.
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                pass_on(&passing, client, &engine);
            }
        });
        world.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
        Trap { shared }
    }

    /// Waits for this point of this step.
    pub fn arm(&self, step: Step, point: Point) {
        self.set(step.as_str(), point, true);
    }

    /// The same for a step of another job than an upgrade, by its name.
    pub fn arm_named(&self, step: &'static str, point: Point) {
        self.set(step, point, true);
    }

    /// Waits for this point of this step, to do something [`Trap::meanwhile`] that may take
    /// longer than the product waits for its journal.
    pub fn arm_patiently(&self, step: Step, point: Point) {
        self.set(step.as_str(), point, false);
    }

    /// The same for a step of another job than an upgrade, by its name.
    pub fn arm_patiently_named(&self, step: &'static str, point: Point) {
        self.set(step, point, false);
    }

    fn set(&self, step: &'static str, point: Point, locks: bool) {
        let mut state = self.shared.lock();
        state.armed = Some((step, point));
        state.changes = 0;
        state.lets_go = false;
        state.locks = locks;
        drop(state);
        let is_of_files = [Step::RestorePoint, Step::DiscardCopy].map(Step::as_str).contains(&step);
        let may_pass = matches!(point, Point::After(_));
        if is_of_files || may_pass {
            let shared = Arc::clone(&self.shared);
            std::thread::spawn(move || shared.watch_for(step, is_of_files));
        }
    }

    /// Kills the daemon when it is at the point, and lets the world go on. Answers whether it
    /// died there: only a step that asks the engine nothing can be missed.
    pub fn kill(&self, daemon: Daemon) -> bool {
        let Some((step, point)) = self.wait_sprung(&daemon) else {
            daemon.kill();
            return false;
        };
        if point == Point::Unjournaled {
            let began = Instant::now();
            wait_until("the step has done what it can", SPRING_LIMIT, || {
                let is_quiet = self.shared.lock().last_traffic.elapsed() > QUIET;
                (is_quiet || began.elapsed() > QUIET_LIMIT).then_some(())
            });
        }
        daemon.kill();
        let is_hit = self.shared.lock().lock.is_some() && self.pending().as_deref() == Some(step);
        self.disarm();
        is_hit
    }

    /// Does something while the daemon is at the point, and lets it go on from there.
    pub fn meanwhile(&self, daemon: &Daemon, work: impl FnOnce()) {
        self.meanwhile_then(daemon, work, None);
    }

    /// The same, and waits for the beginning of a further step from there on.
    pub fn meanwhile_then(&self, daemon: &Daemon, work: impl FnOnce(), next: Option<Step>) {
        assert!(self.wait_sprung(daemon).is_some(), "the step was missed");
        work();
        let mut state = self.shared.lock();
        state.lets_go = true;
        state.armed = next.map(|step| (step.as_str(), Point::Unasked));
        // Closing it rolls back.
        state.lock = None;
        self.shared.changed.notify_all();
    }

    /// Where it has sprung; none when the step has passed unnoticed.
    fn wait_sprung(&self, daemon: &Daemon) -> Option<(&'static str, Point)> {
        let deadline = Instant::now() + SPRING_LIMIT;
        let mut state = self.shared.lock();
        loop {
            let armed = state.armed?;
            if state.lock.is_some() {
                return Some(armed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                panic!("{armed:?} was never reached:\n{}", daemon.log());
            }
            state = self.shared.changed.wait_timeout(state, left).expect("not poisoned").0;
        }
    }

    /// The step whose intent is journaled and whose outcome is not.
    pub fn pending(&self) -> Option<String> {
        self.shared.pending()
    }

    fn disarm(&self) {
        let mut state = self.shared.lock();
        state.armed = None;
        // Closing it rolls back.
        state.lock = None;
        self.shared.changed.notify_all();
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn pending(&self) -> Option<String> {
        pending(&reader(&self.journal)?).map(|(_, step)| step)
    }

    /// Takes the journal's write lock if `step` is under way, and says so.
    fn spring(&self, state: &mut State, step: &'static str) -> bool {
        if state.lock.is_some() {
            return false;
        }
        let due = |journal: &Connection| {
            pending(journal).filter(|(seq, name)| *seq > state.last_intent && name == step)
        };
        if reader(&self.journal).and_then(|reader| due(&reader)).is_none() {
            return false;
        }
        let writer = Connection::open_with_flags(&self.journal, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .expect("the journal opens");
        // What a killed daemon leaves in the WAL must stay there for the next one.
        writer
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .expect("a connection that checkpoints nothing");
        writer.busy_timeout(Duration::from_secs(5)).expect("a patient connection");
        if state.locks {
            writer.execute_batch("BEGIN IMMEDIATE").expect("the journal's write lock");
        }
        let Some((seq, _)) = due(&writer) else { return false };
        state.last_intent = seq;
        state.lock = Some(writer);
        state.last_traffic = Instant::now();
        self.changed.notify_all();
        true
    }

    /// Springs as soon as `step` is under way, where it should; gives up when it has passed.
    fn watch_for(&self, step: &'static str, springs: bool) {
        let mut before = None;
        loop {
            let mut state = self.lock();
            if state.armed.is_none_or(|(armed, _)| armed != step)
                || state.lock.is_some()
                || springs && self.spring(&mut state, step)
            {
                return;
            }
            let now = self.pending();
            if before.as_deref() == Some(step) && now != before {
                state.armed = None;
                self.changed.notify_all();
                return;
            }
            before = now;
            drop(state);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether a request may pass; when not, the daemon is being killed.
    fn may_ask(&self, request: &[u8], holds_answer: &AtomicBool) -> bool {
        let mut state = self.lock();
        state.last_traffic = Instant::now();
        let armed = state.armed;
        match armed {
            Some((step, Point::Unasked)) if self.spring(&mut state, step) => self.hold(state),
            Some((step, Point::Midway | Point::Unjournaled)) => {
                self.spring(&mut state, step);
                true
            }
            Some((step, Point::Unanswered)) if is_change(request) => {
                holds_answer.store(self.pending().as_deref() == Some(step), Ordering::Relaxed);
                true
            }
            Some((step, Point::After(nth))) if is_change(request) => {
                if self.pending().as_deref() == Some(step) {
                    state.changes += 1;
                    holds_answer.store(state.changes == nth, Ordering::Relaxed);
                }
                true
            }
            Some((_, Point::Unasked | Point::Unanswered | Point::After(_))) | None => true,
        }
    }

    /// Whether an answer may pass; when not, the daemon is being killed.
    fn may_answer(&self, holds_answer: &AtomicBool) -> bool {
        let mut state = self.lock();
        state.last_traffic = Instant::now();
        let armed = state.armed;
        match armed {
            Some((step, Point::Unanswered | Point::After(_)))
                if holds_answer.load(Ordering::Relaxed) && self.spring(&mut state, step) =>
            {
                self.hold(state)
            }
            Some(_) | None => true,
        }
    }

    /// Until the trap is disarmed; answers whether what is held may go on.
    fn hold(&self, state: MutexGuard<'_, State>) -> bool {
        let held_at = state.last_intent;
        let state = self.changed.wait_while(state, |state| {
            state.armed.is_some() && state.last_intent == held_at && state.lock.is_some()
        });
        state.expect("not poisoned").lets_go
    }
}

/// Copies one connection's bytes both ways, as far as the trap lets them.
fn pass_on(shared: &Arc<Shared>, client: UnixStream, engine: &Path) {
    // An engine that is being restarted refuses: so does the trap, by closing.
    let Ok(server) = UnixStream::connect(engine) else { return };
    let holds_answer = Arc::new(AtomicBool::new(false));
    let twin = |stream: &UnixStream| stream.try_clone().expect("a second handle");
    let (from, to) = (twin(&client), twin(&server));
    let (asking, holds) = (Arc::clone(shared), Arc::clone(&holds_answer));
    std::thread::spawn(move || copy(from, to, |request| asking.may_ask(request, &holds)));
    let answering = Arc::clone(shared);
    std::thread::spawn(move || copy(server, client, |_| answering.may_answer(&holds_answer)));
}

fn copy(mut from: UnixStream, mut to: UnixStream, may_pass: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    let goes_on = loop {
        match from.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) if may_pass(&buffer[..read]) && to.write_all(&buffer[..read]).is_ok() => {}
            Ok(_) | Err(_) => break false,
        }
    };
    // Both ends are gone when either can't be shut down any more.
    if goes_on {
        to.shutdown(Shutdown::Write).ok();
    } else {
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    }
}

/// Whether this is the head of a request that changes something. An exec changes nothing
/// before it is started.
fn is_change(request: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&request[..request.len().min(256)]);
    let line = head.lines().next().unwrap_or_default();
    let makes_exec = line.contains("/containers/") && line.contains("/exec ");
    (line.starts_with("POST ") || line.starts_with("DELETE ")) && !makes_exec
}

/// A connection that only reads; none before the daemon has made its journal.
pub fn reader(journal: &Path) -> Option<Connection> {
    let reader = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    reader.busy_timeout(Duration::from_secs(5)).ok()?;
    Some(reader)
}

/// The newest intent without an outcome: its row, and its step.
fn pending(journal: &Connection) -> Option<(i64, String)> {
    let sql = "SELECT seq, name, kind = 'intent' FROM journal
               WHERE kind IN ('intent', 'outcome') ORDER BY seq DESC LIMIT 1";
    journal
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, bool>(2)?)))
        .ok()
        .and_then(|(seq, step, is_pending)| is_pending.then_some((seq, step)))
}
