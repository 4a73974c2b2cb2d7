//! Whether the programs of a container stay, from one look to the next: pure.
//!
//! Called by the driver: over the old version before the cut-over, to learn its [`Habits`], and
//! over the new one until it is believed and for a while afterwards. A program that comes back as
//! another process has ended in between, however briefly. What the old version did too while it
//! was watched is no fault of the new one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::supervisor::Program;
use crate::engine::Process;
use crate::machine::facts::Habits;

/// What runs in a container at one moment.
#[derive(Clone, Debug)]
pub enum Running {
    /// As its supervisor says it.
    Supervised(Vec<Program>),
    /// As the host sees it; `first` is the container's first process.
    Bare {
        /// Every process of the container, and those that were begun in it from outside.
        processes: Vec<Process>,
        /// The first one's number on the host.
        first: u32,
    },
}

/// What became of a program between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended, or came back as another process.
    Restarted {
        /// The program.
        name: String,
        /// What was seen of it.
        how: String,
    },
    /// Its supervisor gave up on it.
    GivenUp {
        /// The program.
        name: String,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Restarted { name, how } => write!(f, "{name} {how}"),
            Change::GivenUp { name } => write!(f, "the supervisor gave up on {name}"),
        }
    }
}

/// One program as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    /// Its processes and how long each has run; one under a supervisor, none when it rests.
    processes: BTreeMap<u32, Duration>,
    /// What its supervisor calls its state.
    state: String,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, Sighting>,
    restless: BTreeMap<String, String>,
    given_up: Vec<String>,
}

impl Watch {
    /// Takes in a look; what has become of the programs since the one before.
    pub fn look(&mut self, running: &Running) -> Vec<Change> {
        let now = sightings(running);
        let mut changes = Vec::new();
        for (name, sighting) in &now {
            if sighting.state == "FATAL" {
                if !self.given_up.contains(name) {
                    self.given_up.push(name.clone());
                    changes.push(Change::GivenUp { name: name.clone() });
                }
                continue;
            }
            if let Some(before) = self.seen.get(name)
                && let Some(how) = left(before, sighting)
            {
                changes.push(Change::Restarted { name: name.clone(), how });
            } else if sighting.state == "BACKOFF" {
                let how = "ended right after its start".to_owned();
                changes.push(Change::Restarted { name: name.clone(), how });
            }
        }
        for (name, before) in &self.seen {
            if !now.contains_key(name) && !before.processes.is_empty() {
                let how = "ended".to_owned();
                changes.push(Change::Restarted { name: name.clone(), how });
            }
        }
        for change in &changes {
            if let Change::Restarted { name, how } = change {
                self.restless.insert(name.clone(), how.clone());
            }
        }
        // What has ended without a supervisor is remembered as down.
        for (name, seen) in &mut self.seen {
            if !now.contains_key(name) {
                seen.processes.clear();
            }
        }
        self.seen.extend(now);
        changes
    }

    /// What an old version did by itself, for [`is_usual`].
    pub fn habits(&self) -> Habits {
        let restless: Vec<String> = self.restless.keys().cloned().collect();
        let is_steady =
            |name: &String, seen: &Sighting| !restless.contains(name) && !seen.processes.is_empty();
        let steady = self.seen.iter().filter(|(name, seen)| is_steady(name, seen));
        Habits {
            given_up: self.given_up.clone(),
            steady: steady.map(|(name, _)| name.clone()).collect(),
            restless,
            ..Habits::default()
        }
    }

    /// Programs that the old version ran steadily and that were never seen in this one.
    pub fn missing<'h>(&self, habits: &'h Habits) -> Vec<&'h str> {
        let names = habits.steady.iter().map(String::as_str);
        names.filter(|name| !self.seen.contains_key(*name)).collect()
    }

    /// Programs that the old version ran steadily and that do not run in this one now.
    pub fn down<'h>(&self, habits: &'h Habits) -> Vec<&'h str> {
        let rests = |name: &&str| self.seen.get(*name).is_some_and(|s| s.processes.is_empty());
        habits.steady.iter().map(String::as_str).filter(rests).collect()
    }
}

/// Whether a change is one that the old version showed too.
pub fn is_usual(change: &Change, habits: Option<&Habits>) -> bool {
    let Some(habits) = habits else { return false };
    match change {
        Change::Restarted { name, .. } => habits.restless.contains(name),
        Change::GivenUp { name } => habits.given_up.contains(name),
    }
}

/// How a program is another one than it was; none while it stays.
fn left(before: &Sighting, now: &Sighting) -> Option<String> {
    if before.processes.is_empty() {
        return None;
    }
    let stays = |(pid, age): (&u32, &Duration)| {
        // A number that was given to a later process.
        now.processes.get(pid).is_some_and(|later| *later + Duration::from_secs(2) >= *age)
    };
    if before.processes.iter().all(stays) {
        return None;
    }
    Some(match (now.processes.is_empty(), now.state.as_str()) {
        (true, "") => "ended".to_owned(),
        (true, state) => format!("is {state}"),
        (false, _) => "was restarted".to_owned(),
    })
}

fn sightings(running: &Running) -> BTreeMap<String, Sighting> {
    match running {
        Running::Supervised(programs) => programs.iter().map(supervised).collect(),
        Running::Bare { processes, first } => bare(processes, *first),
    }
}

fn supervised(program: &Program) -> (String, Sighting) {
    let processes = program.pid.map(|pid| (pid, Duration::ZERO)).into_iter().collect();
    (program.name.clone(), Sighting { processes, state: program.state.clone() })
}

/// The processes of a container by what they run, without those that a program of the same kind
/// has forked for its own work (a server's sessions, a web server's workers), and without those
/// that were begun from outside.
fn bare(processes: &[Process], first: u32) -> BTreeMap<String, Sighting> {
    let by_pid: BTreeMap<u32, &Process> = processes.iter().map(|each| (each.pid, each)).collect();
    let mut seen: BTreeMap<String, Sighting> = BTreeMap::new();
    for process in processes {
        let parent = by_pid.get(&process.parent);
        let is_inside = process.pid == first || descends(process, first, &by_pid);
        if !is_inside || parent.is_some_and(|parent| is_fork(parent, process)) {
            continue;
        }
        let sighting = seen
            .entry(process.command.clone())
            .or_insert_with(|| Sighting { processes: BTreeMap::new(), state: String::new() });
        sighting.processes.insert(process.pid, process.age);
    }
    seen
}

fn descends(process: &Process, first: u32, by_pid: &BTreeMap<u32, &Process>) -> bool {
    let mut parent = process.parent;
    // A chain has no more links than there are processes.
    for _ in 0..=by_pid.len() {
        if parent == first {
            return true;
        }
        match by_pid.get(&parent) {
            Some(above) => parent = above.parent,
            None => return false,
        }
    }
    false
}

/// Whether a process is its parent's own: the same command, or a title that begins with the
/// parent's name (`postgres: …`, `nginx: worker process`).
fn is_fork(parent: &Process, process: &Process) -> bool {
    if parent.command == process.command {
        return true;
    }
    let program = |command: &str| {
        let word = command.split_whitespace().next().unwrap_or_default();
        word.rsplit('/').next().unwrap_or_default().trim_end_matches(':').to_owned()
    };
    let is_title =
        process.command.split_whitespace().next().is_some_and(|word| word.ends_with(':'));
    is_title && program(&parent.command) == program(&process.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, state: &str, pid: Option<u32>) -> Program {
        Program { name: name.into(), state: state.into(), pid }
    }

    fn supervised(programs: &[(&str, &str, Option<u32>)]) -> Running {
        let programs = programs.iter().map(|(name, state, pid)| program(name, state, *pid));
        Running::Supervised(programs.collect())
    }

    fn process(pid: u32, parent: u32, age: u64, command: &str) -> Process {
        Process { pid, parent, age: Duration::from_secs(age), command: command.into() }
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_program_that_comes_back_as_another_process_was_restarted() {
        let mut watch = Watch::default();
        let look = |pid| supervised(&[("core", "RUNNING", Some(pid)), ("db", "RUNNING", Some(7))]);
        assert!(watch.look(&look(10)).is_empty());
        assert!(watch.look(&look(10)).is_empty());
        assert_eq!(texts(&watch.look(&look(11))), ["core was restarted"]);
        assert!(watch.look(&look(11)).is_empty());
        let gone = supervised(&[("core", "EXITED", None), ("db", "RUNNING", Some(7))]);
        assert_eq!(texts(&watch.look(&gone)), ["core is EXITED"]);
        assert!(watch.look(&gone).is_empty(), "told once");
        let fatal = supervised(&[("core", "FATAL", None), ("db", "RUNNING", Some(7))]);
        assert_eq!(texts(&watch.look(&fatal)), ["the supervisor gave up on core"]);
    }

    #[test]
    fn what_the_old_version_did_too_is_usual_and_nothing_else() {
        let mut old = Watch::default();
        let fatal = ("redis", "FATAL", None);
        old.look(&supervised(&[fatal, ("cron", "RUNNING", Some(5)), ("core", "RUNNING", Some(6))]));
        old.look(&supervised(&[fatal, ("cron", "RUNNING", Some(9)), ("core", "RUNNING", Some(6))]));
        let habits = old.habits();
        assert_eq!(habits.given_up, ["redis"]);
        assert_eq!(habits.restless, ["cron"]);
        assert_eq!(habits.steady, ["core"]);
        let usual = |change: &Change| is_usual(change, Some(&habits));
        let restarted =
            |name: &str| Change::Restarted { name: name.into(), how: "was restarted".into() };
        let given_up = |name: &str| Change::GivenUp { name: name.into() };
        assert!(usual(&restarted("cron")) && usual(&given_up("redis")));
        assert!(!usual(&given_up("cron")), "it is judged by its state");
        assert!(!usual(&restarted("core")) && !usual(&given_up("core")));
        assert!(!usual(&restarted("new")), "a program that is new is judged");
        assert!(!is_usual(&restarted("cron"), None));
        let mut new = Watch::default();
        new.look(&supervised(&[("cron", "RUNNING", Some(1))]));
        assert_eq!(new.missing(&habits), ["core"]);
    }

    #[test]
    fn without_a_supervisor_the_containers_processes_are_watched_and_their_forks_are_not() {
        let mut watch = Watch::default();
        let look = |core: u32, age: u64, backend: u32| Running::Bare {
            first: 100,
            processes: vec![
                process(100, 50, 60, "bash /opt/entrypoint"),
                process(101, 100, 59, "/usr/lib/postgresql/15/bin/postgres -D /db"),
                process(backend, 101, 1, "postgres: payram payram ::1(1) idle"),
                process(103, 101, 50, "postgres: checkpointer"),
                process(core, 100, age, "python3 /opt/core.py"),
                process(104, 100, 50, "gunicorn app"),
                process(backend + 1000, 104, 1, "gunicorn app"),
                // Begun from outside.
                process(backend + 2000, 50, 0, "psql -X"),
            ],
        };
        assert!(watch.look(&look(110, 10, 200)).is_empty());
        assert!(watch.look(&look(110, 11, 201)).is_empty(), "sessions come and go");
        assert_eq!(texts(&watch.look(&look(120, 0, 202))), ["python3 /opt/core.py was restarted"]);
        // The same number, given to a later process.
        assert_eq!(texts(&watch.look(&look(120, 9, 203))), Vec::<String>::new());
        assert_eq!(texts(&watch.look(&look(120, 1, 204))), ["python3 /opt/core.py was restarted"]);
    }

    #[test]
    fn a_program_that_ended_is_told_once_and_is_down_until_it_returns() {
        let mut watch = Watch::default();
        let with = |core: Option<u32>| {
            let mut processes = vec![process(100, 1, 60, "entrypoint")];
            processes.extend(core.map(|pid| process(pid, 100, 1, "core")));
            Running::Bare { first: 100, processes }
        };
        assert!(watch.look(&with(Some(110))).is_empty());
        let habits = Watch { seen: watch.seen.clone(), ..Watch::default() }.habits();
        assert_eq!(texts(&watch.look(&with(None))), ["core ended"]);
        assert!(watch.look(&with(None)).is_empty());
        assert_eq!(watch.down(&habits), ["core"]);
        assert!(watch.look(&with(Some(111))).is_empty());
        assert!(watch.down(&habits).is_empty());
        assert_eq!(watch.habits().restless, ["core"]);
    }
}
