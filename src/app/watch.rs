//! Whether the programs of a container stay, from one look to the next: pure.
//!
//! Called by the driver: over the old version before the cut-over, to learn its [`Habits`], and
//! over the new one until it is believed and for a while afterwards. A program that comes back as
//! another process has ended in between, however briefly. What the old version did too while it
//! was watched is no fault of the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::supervisor::Program;
use crate::engine::Process;
use crate::machine::facts::Habits;

/// A process that has lived no longer than this, beside others, was begun for one piece of work.
const BRIEF: Duration = Duration::from_secs(2);

/// What runs a program that is a file of its own.
const INTERPRETERS: [&str; 11] =
    ["sh", "bash", "dash", "ash", "python", "perl", "ruby", "node", "java", "php", "env"];

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

impl Change {
    /// The program.
    pub fn name(&self) -> &str {
        match self {
            Change::Restarted { name, .. } | Change::GivenUp { name } => name,
        }
    }
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

impl Sighting {
    fn is_at_work(&self) -> bool {
        match self.state.as_str() {
            "" => self.processes.values().any(|age| *age >= BRIEF),
            state => state == "RUNNING",
        }
    }
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, Sighting>,
    restless: BTreeMap<String, String>,
    given_up: Vec<String>,
    /// Programs that were seen at work, and no passing process.
    worked: BTreeSet<String>,
    /// Programs that their supervisor was seen to fail to start.
    backed_off: BTreeSet<String>,
    /// Programs that ended and were begun again, of which no look found the process.
    between: BTreeSet<String>,
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
                && !self.is_passing(name, before, sighting)
            {
                changes.push(Change::Restarted { name: name.clone(), how });
            } else if sighting.state == "BACKOFF" {
                let how = "ended right after its start".to_owned();
                changes.push(Change::Restarted { name: name.clone(), how });
            }
        }
        for (name, before) in &self.seen {
            let nothing = Sighting { processes: BTreeMap::new(), state: String::new() };
            if !now.contains_key(name)
                && !before.processes.is_empty()
                && !self.is_passing(name, before, &nothing)
            {
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
        let at_work = now.iter().filter(|(_, sighting)| sighting.is_at_work());
        self.worked.extend(at_work.map(|(name, _)| name.clone()));
        let failing = now.iter().filter(|(_, sighting)| sighting.state == "BACKOFF");
        self.backed_off.extend(failing.map(|(name, _)| name.clone()));
        let ended_between = |name: &String, sighting: &Sighting| {
            let before = self.seen.get(name).map(|before| before.state.as_str());
            matches!(
                (before, sighting.state.as_str()),
                (Some("STARTING"), "EXITED") | (Some("EXITED"), "STARTING")
            )
        };
        let between = now.iter().filter(|(name, sighting)| ended_between(name, sighting));
        let between: Vec<String> = between.map(|(name, _)| name.clone()).collect();
        self.between.extend(between);
        self.seen.extend(now);
        changes
    }

    /// Whether what is gone was begun for one piece of work, as a program begins others: it was
    /// young, and more of its kind go on, or none of its kind ever stayed.
    fn is_passing(&self, name: &str, before: &Sighting, now: &Sighting) -> bool {
        let gone = before.processes.iter().filter(|(pid, _)| !now.processes.contains_key(pid));
        let mut ages = gone.map(|(_, age)| *age).peekable();
        let is_supervised = !before.state.is_empty();
        let others_stay = before.processes.keys().any(|pid| now.processes.contains_key(pid));
        !is_supervised
            && ages.peek().is_some()
            && ages.all(|age| age < BRIEF)
            && (others_stay || !self.worked.contains(name))
    }

    /// What an old version did by itself, for [`is_usual`].
    pub fn habits(&self) -> Habits {
        let restless = self.restless.keys().chain(&self.between);
        let restless: BTreeSet<String> = restless.cloned().collect();
        let restless: Vec<String> = restless.into_iter().collect();
        let is_steady = |name: &String, seen: &Sighting| {
            !restless.contains(name) && !seen.processes.is_empty() && self.worked.contains(name)
        };
        let is_stopped = |name: &String, seen: &Sighting| {
            !restless.contains(name) && seen.state == "STOPPED" && !self.given_up.contains(name)
        };
        let those = |is: &dyn Fn(&String, &Sighting) -> bool| {
            let names = self.seen.iter().filter(|(name, seen)| is(name, seen));
            names.map(|(name, _)| name.clone()).collect()
        };
        Habits {
            given_up: self.given_up.clone(),
            steady: those(&is_steady),
            stopped: those(&is_stopped),
            came_up: restless.iter().filter(|name| self.worked.contains(*name)).cloned().collect(),
            restless,
            ..Habits::default()
        }
    }

    /// Programs that the old version ran steadily and that were never seen in this one.
    pub fn missing<'h>(&self, habits: &'h Habits) -> Vec<&'h str> {
        let names = habits.steady.iter().map(String::as_str);
        names.filter(|name| !self.seen.contains_key(*name)).collect()
    }

    /// A program that was at work in the old version and that is there in this one and was never
    /// seen at work. One that comes and goes in both has to be seen to fail by its supervisor:
    /// looks may miss all of its work, and on a busy host a helper that waits for a moment looks
    /// like a program at work.
    pub fn never_up<'h>(&self, habits: Option<&'h Habits>) -> Option<&'h str> {
        let habits = habits?;
        let is_idle = |name: &&str, is_meant: fn(&Sighting) -> bool| {
            !self.worked.contains(*name) && self.seen.get(*name).is_some_and(is_meant)
        };
        let mut came_up = habits.came_up.iter().map(String::as_str);
        // A supervisor says of a steady one itself that it is still starting, or fails.
        let mut steady = habits.steady.iter().map(String::as_str);
        came_up
            .find(|name| is_idle(name, |_| true) && self.backed_off.contains(*name))
            .or_else(|| steady.find(|name| is_idle(name, |seen| seen.state.is_empty())))
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
        Change::Restarted { name, .. } => {
            habits.restless.contains(name) || habits.stopped.contains(name)
        }
        Change::GivenUp { name } => habits.given_up.contains(name) || habits.stopped.contains(name),
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

/// The processes of a container by the program that they run, without those that a server has
/// forked for its sessions, and without those that were begun from outside. The workers that a
/// program has forked of itself are a kind of their own.
fn bare(processes: &[Process], first: u32) -> BTreeMap<String, Sighting> {
    let by_pid: BTreeMap<u32, &Process> = processes.iter().map(|each| (each.pid, each)).collect();
    let mut seen: BTreeMap<String, Sighting> = BTreeMap::new();
    for process in processes {
        let parent = by_pid.get(&process.parent);
        let is_inside = process.pid == first || descends(process, first, &by_pid);
        if !is_inside || parent.is_some_and(|parent| is_titled(parent, process)) {
            continue;
        }
        let program = program_of(&process.command);
        let name = match parent.is_some_and(|parent| parent.command == process.command) {
            true => format!("a worker of {program}"),
            false => program,
        };
        let sighting = seen
            .entry(name)
            .or_insert_with(|| Sighting { processes: BTreeMap::new(), state: String::new() });
        sighting.processes.insert(process.pid, process.age);
    }
    seen
}

/// A program by its own name, and by its file's where an interpreter runs it: what else is on the
/// command line may be another thing each time.
fn program_of(command: &str) -> String {
    let base = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.trim_start_matches('-').trim_end_matches(':').to_owned()
    };
    let mut words = command.split_whitespace();
    let program = base(words.next().unwrap_or_default());
    let kind = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !INTERPRETERS.contains(&kind) {
        return program;
    }
    match words.find(|word| !word.starts_with('-')) {
        Some(file) => format!("{program} {}", base(file)),
        None => program,
    }
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

/// Whether a process is its parent's own, by a title that begins with the parent's name
/// (`postgres: …`, `nginx: worker process`).
fn is_titled(parent: &Process, process: &Process) -> bool {
    let word = |command: &str| command.split_whitespace().next().unwrap_or_default().to_owned();
    let program =
        |word: &str| word.rsplit('/').next().unwrap_or_default().trim_end_matches(':').to_owned();
    let title = word(&process.command);
    title.ends_with(':') && program(&word(&parent.command)) == program(&title)
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
        assert_eq!(texts(&watch.look(&look(120, 0, 202))), ["python3 core.py was restarted"]);
        // The same number, given to a later process.
        assert_eq!(texts(&watch.look(&look(120, 9, 203))), Vec::<String>::new());
        assert_eq!(texts(&watch.look(&look(120, 1, 204))), ["python3 core.py was restarted"]);
    }

    #[test]
    fn a_program_that_ended_is_told_once_and_is_down_until_it_returns() {
        let mut watch = Watch::default();
        let with = |core: Option<u32>| {
            let mut processes = vec![process(100, 1, 60, "entrypoint")];
            processes.extend(core.map(|pid| process(pid, 100, 5, "core")));
            Running::Bare { first: 100, processes }
        };
        assert!(watch.look(&with(Some(110))).is_empty());
        let habits = watch.habits();
        assert_eq!(texts(&watch.look(&with(None))), ["core ended"]);
        assert!(watch.look(&with(None)).is_empty());
        assert_eq!(watch.down(&habits), ["core"]);
        assert!(watch.look(&with(Some(111))).is_empty());
        assert!(watch.down(&habits).is_empty());
        assert_eq!(watch.habits().restless, ["core"]);
    }

    fn bare(children: &[(u32, u32, u64, &str)]) -> Running {
        let children = children
            .iter()
            .map(|(pid, parent, age, command)| process(*pid, *parent, *age, command));
        Running::Bare {
            first: 100,
            processes: [process(100, 1, 60, "bash /opt/entrypoint")]
                .into_iter()
                .chain(children)
                .collect(),
        }
    }

    #[test]
    fn what_a_program_begins_for_one_piece_of_work_is_no_restart() {
        let mut watch = Watch::default();
        for look in 0..20 {
            let core = (101, 100, 50 + u64::from(look), "python3 -u /opt/core.py --port 80");
            let sleep = format!("/bin/sleep 0.{}", 8000 + look);
            let helper = (200 + look, 101, 0, sleep.as_str());
            // Before it becomes another program, a child looks like its parent.
            let fork = (300 + look, 101, 0, core.3);
            let children = if look % 3 == 2 { vec![core, fork] } else { vec![core, helper] };
            assert_eq!(texts(&watch.look(&bare(&children))), Vec::<String>::new(), "{look}");
        }
        let habits = watch.habits();
        assert_eq!(habits.steady, ["bash entrypoint", "python3 core.py"]);
        // The core itself, however young it ends.
        let changes = watch.look(&bare(&[(400, 100, 1, "python3 -u /opt/core.py --port 81")]));
        assert_eq!(texts(&changes), ["python3 core.py was restarted"]);
        let changes = watch.look(&bare(&[(401, 100, 0, "python3 -u /opt/core.py --port 81")]));
        assert_eq!(texts(&changes), ["python3 core.py was restarted"]);
    }

    #[test]
    fn a_core_that_never_lives_for_two_seconds_is_no_piece_of_work() {
        let core = |pid, age| bare(&[(pid, 100, age, "python3 /opt/core.py")]);
        let (mut old, mut new) = (Watch::default(), Watch::default());
        for look in 0..4 {
            old.look(&core(101, 50 + u64::from(look)));
            new.look(&core(200 + look, 1));
        }
        assert_eq!(new.never_up(Some(&old.habits())), Some("python3 core.py"));
        new.look(&core(204, 2));
        assert_eq!(new.never_up(Some(&old.habits())), None);
    }

    #[test]
    fn looks_do_not_tell_that_a_process_that_comes_and_goes_in_both_never_stays() {
        let of = |pid, age| bare(&[(pid, 100, age, "sleep 0.2"), (90, 100, 60, "core")]);
        let (mut old, mut new) = (Watch::default(), Watch::default());
        for (pid, age) in [(101, 2), (102, 0), (103, 3)] {
            old.look(&of(pid, age));
        }
        let habits = old.habits();
        assert_eq!(habits.came_up, ["sleep"]);
        for look in 0..20 {
            new.look(&of(200 + look, 1));
            assert_eq!(new.never_up(Some(&habits)), None, "{look}");
        }
    }

    #[test]
    fn a_worker_that_dies_every_three_seconds_under_its_master_is_seen() {
        let command = "/usr/bin/python3 /usr/local/bin/gunicorn app:app";
        let dies = |watch: &mut Watch| {
            let mut changes = Vec::new();
            for look in 0..9_u32 {
                let (worker, age) = (200 + look / 3, u64::from(look % 3));
                let children =
                    [(101, 100, 50, command), (110, 101, 50, command), (worker, 101, age, command)];
                changes.extend(watch.look(&bare(&children)));
            }
            changes
        };
        let changes = dies(&mut Watch::default());
        assert_eq!(texts(&changes), ["a worker of python3 gunicorn was restarted"; 2]);
        assert!(!is_usual(&changes[0], Some(&Habits::default())));
        let mut old = Watch::default();
        dies(&mut old);
        assert!(is_usual(&changes[0], Some(&old.habits())), "the old version's did the same");
    }

    #[test]
    fn a_program_that_somebody_had_stopped_is_a_note_when_the_new_version_gives_it_up() {
        let mut old = Watch::default();
        let look = [("core", "RUNNING", Some(6)), ("webhooks", "STOPPED", None)];
        for _ in 0..3 {
            old.look(&supervised(&look));
        }
        let habits = old.habits();
        assert_eq!(habits.stopped, ["webhooks"]);
        let mut new = Watch::default();
        let core = ("core", "RUNNING", Some(6));
        for state in ["BACKOFF", "FATAL"] {
            for change in new.look(&supervised(&[core, ("webhooks", state, None)])) {
                assert!(is_usual(&change, Some(&habits)), "{change}");
            }
        }
    }

    #[test]
    fn a_program_that_no_look_finds_at_work_comes_and_goes_all_the_same() {
        let mut old = Watch::default();
        for state in ["STARTING", "EXITED", "STARTING"] {
            old.look(&supervised(&[("core", "RUNNING", Some(6)), ("cron", state, None)]));
        }
        let habits = old.habits();
        assert_eq!((habits.restless.as_slice(), habits.came_up.len()), (&["cron".into()][..], 0));
        let mut booting = Watch::default();
        for (state, pid) in [("STARTING", None), ("STARTING", None), ("RUNNING", Some(6))] {
            booting.look(&supervised(&[("core", state, pid)]));
        }
        assert_eq!(booting.habits().restless, Vec::<String>::new(), "it has only just begun");
        let mut new = Watch::default();
        new.look(&supervised(&[("cron", "RUNNING", Some(9))]));
        for change in new.look(&supervised(&[("cron", "STARTING", None)])) {
            assert!(is_usual(&change, Some(&habits)), "{change}");
        }
    }

    #[test]
    fn a_restless_program_that_never_comes_up_is_not_as_in_the_old_version() {
        let mut old = Watch::default();
        for (state, pid) in [("RUNNING", Some(5)), ("BACKOFF", None), ("RUNNING", Some(6))] {
            old.look(&supervised(&[("cron", state, pid), ("never", "BACKOFF", None)]));
        }
        let habits = old.habits();
        assert_eq!((habits.restless.len(), habits.came_up.as_slice()), (2, &["cron".into()][..]));
        let mut new = Watch::default();
        for _ in 0..9 {
            new.look(&supervised(&[("cron", "BACKOFF", None), ("never", "BACKOFF", None)]));
        }
        assert_eq!(new.never_up(Some(&habits)), Some("cron"));
        new.look(&supervised(&[("cron", "RUNNING", Some(9)), ("never", "BACKOFF", None)]));
        assert_eq!(new.never_up(Some(&habits)), None);
        assert_eq!(new.never_up(None), None);
    }
}
