//! The processes of a make-believe container and its supervisor's table of them.
//!
//! Kept by `shop`; read by `exec` (`supervisorctl`) and by the engine's list of processes.
//! Nothing here runs: numbers and times are given out as a kernel and a supervisor would.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::sandbox::inspection::{DATA_DIRECTORY, SERVER};

pub(in crate::sandbox) const CORE: &str = "payram-core";
pub(in crate::sandbox) const WORKER: &str = "payram-worker";
pub(in crate::sandbox) const WEBHOOKS: &str = "payram-webhooks";
pub(in crate::sandbox) const POSTGRES: &str = "postgres";

/// As supervisord says it of a program that did not stay.
pub(in crate::sandbox) const TOO_QUICKLY: &str =
    "Exited too quickly (process log may have details)";

/// The container's first process, in its own count.
const FIRST: u32 = 1;
/// What the next one's number is.
const SECOND: u32 = 8;

/// How supervisord calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum State {
    Stopped,
    Running,
    /// Ended after a while, and is about to be started again.
    Exited,
    /// Ended at once, and is about to be started again.
    Backoff,
    /// Given up on, with this sentence.
    Fatal(&'static str),
}

struct Program {
    name: &'static str,
    state: State,
    /// The last process: number on the host, number in the container, start.
    process: Option<(u32, u32, Instant)>,
    stopped: Option<Timestamp>,
}

/// See the module.
pub(in crate::sandbox) struct Programs {
    /// Of the supervisor, or of the server that is alone in its container.
    pub first: u32,
    began: Instant,
    is_alone: bool,
    next: AtomicU32,
    table: Mutex<Vec<Program>>,
}

impl Programs {
    /// A table in which nothing runs.
    pub fn new(is_alone: bool) -> Self {
        let program = |name| Program { name, state: State::Stopped, process: None, stopped: None };
        let names: &[&'static str] = match is_alone {
            true => &[POSTGRES],
            false => &[CORE, WEBHOOKS, WORKER, POSTGRES],
        };
        Self {
            first: host_number(),
            began: Instant::now(),
            is_alone,
            next: AtomicU32::new(SECOND),
            table: Mutex::new(names.iter().map(|name| program(name)).collect()),
        }
    }

    /// The container's numbers of the supervisor and the programs that run.
    pub fn inside(&self) -> Vec<u32> {
        let table = self.table();
        let running = table.iter().filter(|one| one.state == State::Running);
        let numbers = running.filter_map(|one| one.process.map(|(_, inside, _)| inside));
        numbers.chain((!self.is_alone).then_some(FIRST)).collect()
    }

    /// A program's new process; answers its number in the container, where it is `as_first` if
    /// it is the container's first one.
    pub fn begin(&self, name: &str, as_first: bool) -> u32 {
        let inside = match as_first || self.is_alone {
            true => FIRST,
            false => self.next.fetch_add(1, Ordering::SeqCst),
        };
        let outside = if self.is_alone { self.first } else { host_number() };
        self.change(name, |one| {
            one.state = State::Running;
            one.process = Some((outside, inside, Instant::now()));
        });
        inside
    }

    /// The supervisor starts a program again that ended by itself, unless somebody stopped it.
    pub fn again(&self, name: &str) {
        let (outside, inside) = (host_number(), self.next.fetch_add(1, Ordering::SeqCst));
        self.change(name, |one| {
            if matches!(one.state, State::Exited | State::Backoff) {
                one.state = State::Running;
                one.process = Some((outside, inside, Instant::now()));
            }
        });
    }

    /// Stops a program that needs no more than that; false when it does not run.
    pub fn stop(&self, name: &str) -> bool {
        let mut was_running = false;
        self.change(name, |one| {
            was_running = matches!(one.state, State::Running | State::Exited | State::Backoff);
            if was_running {
                one.state = State::Stopped;
                one.stopped = Some(Timestamp::now());
            }
        });
        was_running
    }

    /// A program's process is gone.
    pub fn end(&self, name: &str, state: State) {
        self.change(name, |one| {
            one.stopped = Some(Timestamp::now());
            one.state = state;
        });
    }

    pub fn state(&self, name: &str) -> Option<State> {
        self.table().iter().find(|one| one.name == name).map(|one| one.state.clone())
    }

    /// Does something that only a running program does; whoever stops it waits for the end.
    pub fn while_running<T>(&self, name: &str, act: impl FnOnce() -> T) -> Option<T> {
        let table = self.table();
        let runs = table.iter().any(|one| one.name == name && one.state == State::Running);
        runs.then(act)
    }

    /// Name and state of every program.
    pub fn states(&self) -> Vec<(String, &'static str)> {
        self.table().iter().map(|one| (one.name.to_owned(), word(&one.state))).collect()
    }

    /// As `supervisorctl status` prints it.
    pub fn status(&self) -> String {
        let line = |one: &Program| {
            let (word, about) = (word(&one.state), about(one));
            format!("{:<33}{word:<10}{about}", one.name).trim_end().to_owned() + "\n"
        };
        self.table().iter().map(line).collect()
    }

    /// The rows of `ps` for these columns; `None` when there is one that is not played.
    pub fn top(&self, columns: &[&str], sessions: usize) -> Option<Vec<Value>> {
        let mut rows: Vec<(u32, u32, Instant, String)> = Vec::new();
        if !self.is_alone {
            let supervisor = "/usr/bin/python3 /usr/bin/supervisord -n".to_owned();
            rows.push((self.first, std::process::id(), self.began, supervisor));
        }
        for one in self.table().iter().filter(|one| one.state == State::Running) {
            let Some((pid, _, began)) = one.process else { continue };
            let parent = if self.is_alone { std::process::id() } else { self.first };
            let command = match one.name {
                POSTGRES => format!("{SERVER} -D {DATA_DIRECTORY}"),
                name => format!("/opt/payram/{name}"),
            };
            rows.push((pid, parent, began, command));
            if one.name == POSTGRES {
                let session = "postgres: payram payram 127.0.0.1 idle";
                let own = ["postgres: checkpointer", "postgres: walwriter"];
                let all = own.into_iter().chain(std::iter::repeat_n(session, sessions));
                // Numbers right after the server's, which leaves room for them.
                rows.extend((pid + 1..).zip(all).map(|(own, it)| (own, pid, began, it.to_owned())));
            }
        }
        let row = |(pid, parent, began, command): &(u32, u32, Instant, String)| {
            let field = |column: &&str| match *column {
                "pid" => Some(pid.to_string()),
                "ppid" => Some(parent.to_string()),
                "etimes" => Some(began.elapsed().as_secs().to_string()),
                "args" | "cmd" => Some(command.clone()),
                _ => None,
            };
            columns.iter().map(field).collect::<Option<Vec<String>>>().map(|row| json!(row))
        };
        rows.iter().map(row).collect()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Program)) {
        if let Some(one) = self.table().iter_mut().find(|one| one.name == name) {
            change(one);
        }
    }

    fn table(&self) -> MutexGuard<'_, Vec<Program>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(state: &State) -> &'static str {
    match state {
        State::Stopped => "STOPPED",
        State::Running => "RUNNING",
        State::Exited => "EXITED",
        State::Backoff => "BACKOFF",
        State::Fatal(_) => "FATAL",
    }
}

fn about(one: &Program) -> String {
    match (&one.state, one.process, one.stopped) {
        (State::Running, Some((_, inside, began)), _) => {
            format!("pid {inside}, uptime {}", uptime(began.elapsed()))
        }
        (State::Fatal(why), _, _) => (*why).to_owned(),
        (State::Backoff, _, _) => TOO_QUICKLY.to_owned(),
        (State::Stopped | State::Exited, _, Some(at)) => day_and_hour(at),
        (State::Stopped | State::Exited | State::Running, _, _) => "Not started".to_owned(),
    }
}

/// `0:00:10`, `2 days, 0:00:10`
fn uptime(age: Duration) -> String {
    let seconds = age.as_secs();
    let clock = format!("{}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match seconds / 86_400 {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

/// `Nov 28 07:00 PM`
fn day_and_hour(at: Timestamp) -> String {
    let seconds = at.millis().div_euclid(1000);
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(seconds) else { return String::new() };
    let month: String = at.month().to_string().chars().take(3).collect();
    let (hour, half) = match at.hour() {
        0 => (12, "AM"),
        hour @ 1..12 => (hour, "AM"),
        12 => (12, "PM"),
        hour => (hour - 12, "PM"),
    };
    format!("{month} {:02} {hour:02}:{:02} {half}", at.day(), at.minute())
}

/// A number that no process of another container here has; none of the host's is meant.
fn host_number() -> u32 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Another one after a restart of the engine, too.
    let first =
        || AtomicU32::new(20_000 + (Timestamp::now().millis().unsigned_abs() % 2_000_000) as u32);
    NEXT.get_or_init(first).fetch_add(16, Ordering::SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_a_real_supervisor() {
        let programs = Programs::new(false);
        programs.begin(CORE, false);
        programs.end(WEBHOOKS, State::Fatal(TOO_QUICKLY));
        let status = programs.status();
        let lines: Vec<&str> = status.lines().collect();
        assert_eq!(
            lines,
            [
                "payram-core                      RUNNING   pid 8, uptime 0:00:00",
                "payram-webhooks                  FATAL     Exited too quickly (process log may have details)",
                "payram-worker                    STOPPED   Not started",
                "postgres                         STOPPED   Not started",
            ]
        );
        programs.end(CORE, State::Stopped);
        let status = programs.status();
        let rested = status.lines().next().expect("a line");
        assert!(rested.starts_with("payram-core                      STOPPED   "), "{rested}");
        assert!(rested.ends_with(" AM") || rested.ends_with(" PM"), "{rested}");
        assert_eq!(programs.begin(CORE, false), 9, "another process has another number");
    }

    #[test]
    fn hours_are_counted_as_a_clock_with_twelve_of_them() {
        let at = |hour: i64| day_and_hour(Timestamp::from_millis(hour * 3_600_000));
        assert_eq!(at(0), "Jan 01 12:00 AM");
        assert_eq!(at(11), "Jan 01 11:00 AM");
        assert_eq!(at(12), "Jan 01 12:00 PM");
        assert_eq!(at(23), "Jan 01 11:00 PM");
        assert_eq!(uptime(Duration::from_secs(2 * 86_400 + 3_661)), "2 days, 1:01:01");
    }

    #[test]
    fn a_process_is_the_child_of_the_supervisor_and_the_servers_are_its_own() {
        let programs = Programs::new(false);
        programs.begin(POSTGRES, false);
        let rows = programs.top(&["pid", "ppid", "etimes", "args"], 2).expect("rows");
        assert_eq!(rows.len(), 1 + 3 + 2, "{rows:?}");
        assert_eq!(rows[1][1], rows[0][0]);
        assert_eq!(rows[2][1], rows[1][0]);
        assert!(programs.top(&["rss"], 0).is_none());
        let alone = Programs::new(true);
        assert_eq!(alone.begin(POSTGRES, false), 1);
        let rows = alone.top(&["pid"], 0).expect("rows");
        assert_eq!(rows[0][0], alone.first.to_string());
    }
}
