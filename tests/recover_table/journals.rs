//! Every state that a journal can be in, and how each is made: the product's own daemon runs an
//! upgrade and is killed at a row of its journal. A trigger in the journal refuses that row, as
//! a full disk does, so that it is that row and no other.

use payram_updater::machine::Step;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::place::{END, Place, SOON};
use crate::support::{Daemon, wait_until};

/// A state of the journal.
#[derive(Clone)]
pub struct Journal {
    pub name: String,
    /// What 2.0.0 does while the state is made.
    pub release: Value,
    /// `PROBATION_MINUTES`.
    pub probation: &'static str,
    pub make: Make,
}

/// How it is made.
#[derive(Clone)]
pub enum Make {
    /// Nothing was ever asked.
    Nothing,
    /// A version was asked that there is none of.
    Refused,
    /// The job's row is the last one.
    Accepted,
    /// The container had stopped when the job was to begin.
    Unbegun,
    /// The daemon ends before it can note that the step begins.
    Before(Step),
    /// The same, when the engine refuses its nth request of a kind before that.
    BeforeAfterRefusal(Step, &'static str, usize),
    /// The step's effect is there, and not its outcome.
    After(Step),
    /// The upgrade comes to rest by itself.
    Rest,
    /// The same, when the engine refuses its nth request of a kind.
    RestAfterRefusal(&'static str, usize),
    /// The daemon dies three times in this step.
    Strikes(Step),
    /// The failed version is killed before its database was looked at.
    Unreadable,
    /// The copy has vanished when the database is to be put back.
    NoCopy,
    /// In the watch after its verdict the new version is stopped by somebody and started again.
    Troubled,
    /// The first of two hops is verified, the second not begun.
    BetweenHops,
}

/// Every state.
pub fn all() -> Vec<Journal> {
    use Step::*;
    let good = json!({"migration": {"schema": true}});
    let breaks = json!({"migration": {"schema": true, "fails": true}});
    let rows = json!({"migration": {"schema": true, "rows": 10, "fails": true}});
    let ill = json!({"health": [500], "takesPayments": false});
    let one = |name: &str, release: &Value, make| Journal {
        name: name.to_owned(),
        release: release.clone(),
        probation: "0",
        make,
    };
    let watched =
        |name: &str, minutes, make| Journal { probation: minutes, ..one(name, &good, make) };
    let mut all = vec![
        one("no job", &good, Make::Nothing),
        one("refused at plan", &good, Make::Refused),
        one("accepted, no hop begun", &good, Make::Accepted),
        one("ended before a hop", &good, Make::Unbegun),
    ];
    let forward = [
        (BackUp, "Planned"),
        (ProveBackup, "Planned, dumped"),
        (Pull, "BackedUp"),
        (CreateNext, "BackedUp, image here"),
        (PreCopy, "Pulled, uncopied"),
        (DisarmOld, "Pulled/Ready"),
        (NotePrograms, "Pulled/Disarmed"),
        (Quiesce, "Pulled/Noted"),
        (StopOld, "Pulled/Quiesced"),
        (RestorePoint, "Pulled/OldStopped"),
        (RenameOld, "Pulled/Pointed"),
        (RenameNext, "Pulled/OldRenamed"),
        (StartNext, "Pulled/NextRenamed"),
        (Verify, "Swapped"),
        (ArmNext, "Swapped, verdict"),
    ];
    all.extend(forward.map(|(step, name)| one(name, &good, Make::Before(step))));
    all.push(one("in start_next, done", &good, Make::After(StartNext)));
    let back = [
        AssessDatabase,
        StopNext,
        RestoreDatabase,
        RestoreNextName,
        RestoreOldName,
        RearmOld,
        StartOld,
        ResumePrograms,
        VerifyOld,
        RemoveNext,
        DiscardCopy,
    ];
    all.extend(back.map(|step| one(&format!("RollingBack: {step}"), &breaks, Make::Before(step))));
    all.push(one("RollingBack: restore_database, done", &breaks, Make::After(RestoreDatabase)));
    all.push(one(
        "RollingBack: disarm_next",
        &json!({"takesPayments": false}),
        Make::BeforeAfterRefusal(DisarmNext, "update", 2),
    ));
    all.extend([
        one("RolledBack after pull", &json!({"pullFails": "unexpected EOF"}), Make::Rest),
        one("RolledBack, restored", &breaks, Make::Rest),
        one("NeedsOperator: rows changed", &rows, Make::Rest),
        one(
            "NeedsOperator: unreadable",
            &json!({"migration": {"schema": true}, "health": [500], "takesPayments": false,
                "ignoresTerm": true}),
            Make::Unreadable,
        ),
        one("NeedsOperator: start_old failed", &ill, Make::RestAfterRefusal("start", 2)),
        one("NeedsOperator: a rename failed", &ill, Make::RestAfterRefusal("rename", 3)),
        one("NeedsOperator: no copy", &breaks, Make::NoCopy),
        one("NeedsOperator: three strikes", &ill, Make::Strikes(StopNext)),
        one("RolledBack by three strikes", &good, Make::Strikes(RenameOld)),
        one("Verified, untidied", &good, Make::Before(Tidy)),
        one("Verified, tidied", &good, Make::Rest),
        one("Verified, second hop due", &good, Make::BetweenHops),
        watched("Verified, its watch due", "15", Make::Before(Probation)),
        watched("Verified, its watch done", "0.02", Make::After(Probation)),
        watched("Verified, its watch over", "0.02", Make::Before(Tidy)),
        watched("Verified, and stopped in its watch", "15", Make::Troubled),
    ]);
    all
}

/// A state that was made: the place as it was kept, and what of it can't be kept.
pub struct Made {
    pub place: Place,
    /// The container that served before the upgrade.
    pub old: String,
    /// The container of the new version, where there is one.
    pub next: Option<String>,
    /// Whether the way back has to stay.
    pub is_watched: bool,
    /// What ran, with the programs in it that were stopped.
    running: Vec<(String, Vec<String>)>,
    release: Value,
}

impl Journal {
    /// Makes it.
    pub fn make(&self) -> Made {
        let releases = self.releases();
        let mut place = Place::new(&releases);
        let old = place.container("payram").expect("the shop").id;
        self.run(&mut place);
        let all = place.containers();
        let is_next = |name: &str| !name.contains("-database-");
        let next = all.iter().rfind(|one| one.hop.is_some() && is_next(&one.name));
        let next = next.map(|one| one.id.clone());
        let running = all.iter().filter(|one| one.runs());
        let running =
            running.map(|one| (one.id.clone(), stopped_programs(&place, &one.id))).collect();
        place.stop_engine();
        place.keep();
        let is_watched = self.probation != "0" && !matches!(self.make, Make::Before(Step::Tidy));
        Made { place, old, next, is_watched, running, release: releases }
    }

    fn releases(&self) -> Value {
        match self.make {
            Make::BetweenHops => json!({"1.9.9": self.release, "2.0.0": self.release}),
            _ => json!({"2.0.0": self.release}),
        }
    }

    fn run(&self, place: &mut Place) {
        let begin = |place: &Place| {
            let ran = place.cli(&["run", "--to", "2.0.0", "--yes", "--detach"]);
            assert!(ran.status.success(), "{}: {}", self.name, said(&ran));
        };
        let watched = [("PROBATION_MINUTES", self.probation)];
        let halted = |place: &Place, halt: &Halt| {
            let daemon = place.daemon(&watched);
            halt.set(place);
            begin(place);
            halt.kill(place, daemon);
        };
        match &self.make {
            Make::Nothing => {}
            Make::Refused => {
                let _daemon = place.daemon(&[]);
                let ran = place.cli(&["run", "--to", "7.7.7", "--mode", "dashboard", "--yes"]);
                assert_eq!(ran.status.code(), Some(1), "{}", said(&ran));
            }
            Make::Accepted => halted(place, &Halt::hop(1)),
            Make::Unbegun => {
                halted(place, &Halt::hop(1));
                let old = place.container("payram").expect("the shop").id;
                place.stop(&old);
                drop_triggers(place);
                place.daemon(&[]).wait_settled(END);
                place.start(&old).expect("it starts");
                place.wait_serves(&old);
            }
            Make::Before(step) => halted(place, &Halt::before(*step)),
            Make::After(step) => halted(place, &Halt::after(*step)),
            Make::BeforeAfterRefusal(step, kind, nth) => {
                place.faults(&json!([{"on": kind, "nth": nth, "do": "refuse"}]));
                halted(place, &Halt::before(*step));
            }
            Make::RestAfterRefusal(kind, nth) => {
                let daemon = place.daemon(&[]);
                place.faults(&json!([{"on": kind, "nth": nth, "do": "refuse"}]));
                begin(place);
                daemon.wait_settled(END);
            }
            Make::Rest => {
                let daemon = place.daemon(&[]);
                begin(place);
                let status = daemon.wait_settled(END);
                if status["phase"] == "VERIFIED" {
                    wait_until("it is tidy", SOON, || {
                        (place.containers().len() == 1
                            && place.beside_the_database() == ["postgres"])
                        .then_some(())
                    });
                }
            }
            Make::Strikes(step) => {
                let halt = Halt::after(*step);
                halted(place, &halt);
                for _ in 0..2 {
                    let daemon = place.daemon(&[]);
                    halt.kill(place, daemon);
                }
                drop_triggers(place);
                place.daemon(&[]).wait_settled(END);
            }
            Make::Unreadable => {
                halted(place, &Halt::before(Step::AssessDatabase));
                drop_triggers(place);
                let next = place.container("payram").expect("the new container").id;
                place.tell(&format!("/containers/{next}/stop?t=0"), &json!({})).expect("killed");
                place.daemon(&[]).wait_settled(END);
            }
            Make::NoCopy => {
                halted(place, &Halt::before(Step::RestoreDatabase));
                drop_triggers(place);
                remove_copies(place);
                place.daemon(&[]).wait_settled(END);
            }
            Make::Troubled => {
                let daemon = place.daemon(&watched);
                begin(place);
                daemon.wait_settled(END);
                let next = place.container("payram").expect("the new container").id;
                place.stop(&next);
                wait_until("the watch finds it", SOON, || {
                    daemon.log().contains("after the verdict").then_some(())
                });
                place.start(&next).expect("it starts");
                assert!(daemon.terminate().success());
            }
            Make::BetweenHops => {
                let policy = json!({"latest": "2.0.0", "releases": ["2.0.0", "1.9.9", "1.9.6"],
                    "updater_api_init_version": "1.9.0",
                    "breakpoints": [{"version": "1.9.9"}]});
                std::fs::write(place.path("engine/policy.json"), policy.to_string())
                    .expect("a policy");
                let daemon = place.daemon(&[]);
                let halt = Halt::hop(2);
                halt.set(place);
                let run = ["run", "--to", "2.0.0", "--mode", "dashboard", "--yes", "--detach"];
                let ran = place.cli(&run);
                assert!(ran.status.success(), "{}", said(&ran));
                halt.kill(place, daemon);
            }
        }
        drop_triggers(place);
    }
}

impl Made {
    /// The place as it was kept, with what 2.0.0 does from here on, running again.
    pub fn put_back(&mut self, release: Option<&Value>) {
        self.place.put_back();
        let mut releases = self.release.clone();
        if let Some(release) = release {
            releases["2.0.0"] = release.clone();
            if releases["1.9.9"].is_object() {
                releases["1.9.9"] = release.clone();
            }
        }
        self.place.write_scenario(&releases);
        self.place.start_engine();
        for (id, stopped) in &self.running {
            self.place.start(id).expect("what ran can run");
            if !stopped.is_empty() {
                let mut command = vec!["supervisorctl", "stop"];
                command.extend(stopped.iter().map(String::as_str));
                self.place.exec(id, &command);
            }
        }
        for (id, stopped) in &self.running {
            let is_served = *id == self.old || release.is_none();
            if is_served && stopped.is_empty() && self.is_good(id) {
                self.place.wait_serves(id);
            }
        }
    }

    /// Whether the release in this container comes to answer.
    fn is_good(&self, id: &str) -> bool {
        let is_old = *id == self.old;
        is_old || (self.release["2.0.0"]["migration"]["fails"] != true)
    }
}

/// Programs of a container that its supervisor says are stopped.
fn stopped_programs(place: &Place, id: &str) -> Vec<String> {
    let listed = place.exec(id, &["supervisorctl", "status"]);
    // The first line stands behind the head of its frame.
    let lines = listed.lines().map(|line| line.find("payram").map_or(line, |at| &line[at..]));
    lines
        .filter(|line| line.contains(" STOPPED"))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// Where the journal refuses to go on.
struct Halt {
    /// Of SQL, over the row that is to be written.
    when: String,
    /// The newest row of this kind and name is there when it has halted.
    until: Option<(&'static str, &'static str)>,
}

impl Halt {
    fn before(step: Step) -> Self {
        Self { when: format!("new.kind = 'intent' AND new.name = '{step}'"), until: None }
    }

    fn after(step: Step) -> Self {
        let when = format!(
            "new.kind = 'outcome' AND new.name = '{step}' AND new.body NOT LIKE '%interrupted%'"
        );
        Self { when, until: Some(("intent", step.as_str())) }
    }

    fn hop(number: usize) -> Self {
        Self { when: format!("new.kind = 'hop' AND new.hop = {number}"), until: None }
    }

    fn set(&self, place: &Place) {
        let sql = format!(
            "CREATE TRIGGER test_halt BEFORE INSERT ON journal WHEN {}
             BEGIN SELECT RAISE(ABORT, 'halted by the test'); END",
            self.when
        );
        writer(place).execute_batch(&sql).expect("a trigger");
    }

    /// Kills the daemon when it is there.
    fn kill(&self, place: &Place, daemon: Daemon) {
        wait_until("the journal refuses the row", END, || {
            let count = daemon.log().matches("halted by the test").count();
            (count > place.halts.get()).then(|| place.halts.set(count))
        });
        daemon.kill();
        if let Some((kind, name)) = self.until {
            let last: (String, String) = place
                .journal()
                .expect("a journal")
                .query_row(
                    "SELECT kind, name FROM journal WHERE kind IN ('intent', 'outcome')
                     ORDER BY seq DESC LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .expect("a row");
            assert_eq!((last.0.as_str(), last.1.as_str()), (kind, name));
        }
    }
}

fn writer(place: &Place) -> Connection {
    let path = place.path("state/journal.db");
    let writer = Connection::open(path).expect("the journal");
    writer.busy_timeout(SOON).expect("a patient connection");
    writer
}

fn drop_triggers(place: &Place) {
    if place.path("state/journal.db").exists() {
        writer(place).execute_batch("DROP TRIGGER IF EXISTS test_halt").expect("no trigger");
    }
}

/// Removes the copies of the database; answers whether there was one.
pub fn remove_copies(place: &Place) -> bool {
    let directory = place.data().parent().expect("a directory").to_owned();
    let is_copy = |name: &String| name.contains(".payram-restore-");
    let copies: Vec<String> = place.beside_the_database().into_iter().filter(is_copy).collect();
    let mut was_there = false;
    for name in copies {
        let path = directory.join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("a copy is removed");
            was_there = true;
        }
    }
    was_there
}

pub fn said(ran: &std::process::Output) -> String {
    String::from_utf8_lossy(&[ran.stdout.clone(), ran.stderr.clone()].concat()).into_owned()
}
