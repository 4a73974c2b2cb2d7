//! One cell of the table: a journal, a world, and what `recover` makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::journals::{Made, said};
use crate::place::{Container, Place, SOON};
use crate::support::wait_until;
use crate::worlds::{Impossible, World};

/// A row of the table.
pub struct Row {
    pub journal: String,
    pub world: &'static str,
    pub daemon: bool,
    pub outcome: Outcome,
}

pub enum Outcome {
    Impossible(String),
    Tried { action: String, exit: i32, said: String, then: String, wrong: Vec<String> },
}

/// What `recover` answered.
struct Answer {
    exit: i32,
    success: bool,
    action: String,
    message: String,
    refusals: Vec<String>,
    raw: String,
}

/// The world, as far as a recovery must not harm it.
struct Seen {
    containers: Vec<Container>,
    serving: Vec<String>,
    rows: i64,
    beside: BTreeMap<String, u64>,
    two: String,
}

impl Seen {
    fn of(place: &Place, has_engine: bool) -> Self {
        let parent = place.data().parent().expect("a directory").to_owned();
        let beside = place.beside_the_database();
        let inode = |name: &String| fs::symlink_metadata(parent.join(name)).map_or(0, |m| m.ino());
        Self {
            containers: if has_engine { place.containers() } else { Vec::new() },
            serving: if has_engine { place.serving() } else { Vec::new() },
            rows: place.rows(),
            beside: beside.into_iter().map(|name| (name.clone(), inode(&name))).collect(),
            two: place.two_at_once(),
        }
    }

    /// What differs, of what a dry run may not change.
    fn differs(&self, after: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.containers != after.containers {
            wrong.push(format!("containers changed: {:?}", after.containers));
        }
        if self.serving != after.serving {
            wrong.push(format!("serving changed: {:?}", after.serving));
        }
        if self.rows != after.rows {
            wrong.push(format!("the journal grew from {} to {}", self.rows, after.rows));
        }
        if self.beside != after.beside {
            wrong.push(format!("directories changed: {:?}", after.beside));
        }
        wrong
    }
}

/// Tries one cell.
pub fn run(made: &mut Made, journal: &str, world: World, daemon: bool) -> Row {
    let row = |outcome| Row { journal: journal.to_owned(), world: world.name(), daemon, outcome };
    made.put_back(world.release().as_ref());
    if let Err(Impossible(why)) = world.make(made) {
        return row(Outcome::Impossible(why));
    }
    let place = &made.place;
    let has_engine = world != World::EngineGone;
    // Without its engine it would try what follows a verdict again and again.
    let daemon = daemon && (has_engine || !made.is_watched);
    // What is unfinished waits for the command, so that it is the command which is seen.
    let _daemon = daemon.then(|| place.daemon(&[("RESUME", "manual")]));
    if daemon && has_engine && status(place)["phase"] == "VERIFIED" {
        wait_until("the daemon has wound up", SOON, || has_wound_up(made).then_some(()));
    }
    let before = Seen::of(place, has_engine);
    let mut wrong = Vec::new();

    let dry = ask(place, &["recover", "--dry-run", "--json"], &mut wrong);
    wrong.extend(
        before.differs(&Seen::of(place, has_engine)).iter().map(|w| format!("dry run: {w}")),
    );

    let done = ask(place, &["recover", "--yes", "--json"], &mut wrong);
    if done.action != dry.action {
        wrong.push(format!("it said {}, and did {}", dry.action, done.action));
    }
    let mut trace = vec![done.action.clone()];
    check(made, &before, &done, false, has_engine, &mut wrong);
    let mut last = done.exit;
    if !done.success {
        if done.exit != 1 && done.exit != 5 {
            wrong.push(format!("refused or failed with exit {}", done.exit));
        }
        // With consent: what is refused for other reasons stays refused.
        let before = Seen::of(place, has_engine);
        let consent = ask(place, &["recover", "--restore-database", "--yes", "--json"], &mut wrong);
        check(made, &before, &consent, true, has_engine, &mut wrong);
        if consent.action != done.action {
            trace.push(format!("--restore-database: {}", consent.action));
            last = consent.exit;
        }
    }
    let then = match has_engine {
        true => rests(place, &mut wrong),
        false => "not asked: no engine".to_owned(),
    };
    let verified = place.cli(&["journal", "verify"]);
    if place.journal().is_some() && verified.status.code() != Some(0) {
        wrong.push(format!("journal verify: {}", said(&verified)));
    }
    row(Outcome::Tried { action: trace.join(", "), exit: last, said: dry.message, then, wrong })
}

fn ask(place: &Place, arguments: &[&str], wrong: &mut Vec<String>) -> Answer {
    let ran = place.cli(arguments);
    let exit = ran.status.code().unwrap_or(-1);
    let raw = said(&ran);
    let answer: Value = serde_json::from_slice(&ran.stdout).unwrap_or(Value::Null);
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| -> Vec<String> {
        let items = answer[key].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let what = arguments.join(" ");
    for key in ["message", "action"] {
        if text(key).trim().is_empty() {
            wrong.push(format!("{what}: no {key} in {raw}"));
        }
    }
    if !answer["success"].is_boolean() || !answer["code"].is_string() {
        wrong.push(format!("{what}: no success or code in {raw}"));
    }
    if list("seen").is_empty() {
        wrong.push(format!("{what}: it does not say what it sees: {raw}"));
    }
    let success = answer["success"] == true;
    if !success && !list("refusals").iter().any(|line| has_command(line)) {
        wrong.push(format!("{what}: refused without an exact command: {raw}"));
    }
    if success && !matches!(exit, 0 | 4) || !success && !matches!(exit, 1 | 5) {
        wrong.push(format!("{what}: exit {exit} with success {success}: {raw}"));
    }
    Answer {
        exit,
        success,
        action: text("action"),
        message: text("message"),
        refusals: list("refusals"),
        raw,
    }
}

fn has_command(line: &str) -> bool {
    ["payram-updater ", "docker ", "systemctl ", "mv "].iter().any(|command| line.contains(command))
}

/// What holds after every recovery.
fn check(
    made: &Made,
    before: &Seen,
    answer: &Answer,
    consent: bool,
    has_engine: bool,
    wrong: &mut Vec<String>,
) {
    let place = &made.place;
    let after = Seen::of(place, has_engine);
    if ["refused", "failed", "none", "retry"].contains(&answer.action.as_str()) {
        wrong.extend(before.differs(&after).iter().map(|w| format!("{}: {w}", answer.action)));
    }
    if after.two != before.two {
        wrong.push(format!("I2: two containers ran on one database: {}", after.two));
    }
    let phase = status(place)["phase"].as_str().unwrap_or("none").to_owned();
    // I1
    let old_was_there = before.containers.iter().any(|one| one.id == made.old);
    let old_is_there = after.containers.iter().any(|one| one.id == made.old);
    if old_was_there && !old_is_there && phase != "VERIFIED" {
        wrong.push(format!("I1: the old container was removed in {phase}"));
    }
    let is_copy = |name: &&String| name.contains(".payram-restore-");
    let copies = |seen: &Seen| seen.beside.keys().filter(is_copy).count();
    let is_told_kept = answer.message.contains("are kept")
        || answer.refusals.iter().any(|line| line.contains(" rm  &&"));
    if made.is_watched && is_told_kept && has_engine && (!old_is_there || copies(&after) == 0) {
        wrong.push(format!("it says that they are kept, and they are not: {}", answer.message));
    }
    if made.is_watched && copies(&after) < copies(before) {
        wrong.push("the copy of a version that is watched is gone".to_owned());
    }
    if made.is_watched && old_was_there && !old_is_there {
        wrong.push("the old container of a version that is watched is gone".to_owned());
    }
    // Nothing that served is stopped.
    if has_engine {
        for id in &before.serving {
            let serves = after.serving.contains(id);
            let is_replaced = answer.message.contains("stopped and replaced")
                && !after.serving.is_empty()
                && phase == "VERIFIED";
            let goes_on_verifying =
                Some(id) != Some(&made.old) && answer.message.contains("goes on being verified");
            if !serves && !is_replaced && !goes_on_verifying {
                wrong.push(format!("what served was stopped ({}): {}", answer.action, answer.raw));
            }
        }
    }
    // I7: what lay in the database's place is there or aside, and what was aside stays.
    for (name, inode) in &before.beside {
        let is_kept = after.beside.values().any(|other| other == inode);
        if (name == "postgres" || name.contains(".failed-")) && !is_kept {
            wrong.push(format!("I7: {name} is gone"));
        }
    }
    if after.beside.contains_key("postgres") || before.beside.contains_key("postgres") {
        let current = place.payments(&place.data());
        let parent = place.data().parent().expect("a directory").to_owned();
        let aside: BTreeSet<String> = after
            .beside
            .keys()
            .filter(|name| name.contains(".failed-"))
            .flat_map(|name| place.payments(&parent.join(name)))
            .collect();
        let acknowledged = place.acknowledged();
        let lost = acknowledged.iter().filter(|(id, by)| {
            let is_aside = consent && by != "1.9.6" && aside.contains(id);
            !current.contains(id) && !is_aside
        });
        let lost = lost.count();
        // A payment that is taken while this looks is in the database first.
        let again = place.payments(&place.data());
        let lost = if lost > 0 {
            let missing = acknowledged.iter().filter(|(id, by)| {
                let is_aside = consent && by != "1.9.6" && aside.contains(id);
                !again.contains(id) && !is_aside
            });
            missing.count()
        } else {
            0
        };
        if lost > 0 && after.beside.contains_key("postgres") {
            wrong.push(format!("{lost} acknowledged payments are lost"));
        }
    }
}

/// Asked again, it has come to rest: final, or a person is told the exact command.
fn rests(place: &Place, wrong: &mut Vec<String>) -> String {
    let now = status(place);
    let phase = now["phase"].as_str().unwrap_or("none").to_owned();
    let again = ask(place, &["recover", "--dry-run", "--json"], wrong);
    let is_final = matches!(phase.as_str(), "VERIFIED" | "ROLLED_BACK" | "none")
        || phase == "PLANNED" && now["active"] != true;
    let is_told = !again.refusals.is_empty() && again.refusals.iter().any(|l| has_command(l));
    let may_go_on = ["rollback", "restore_database", "none"].contains(&again.action.as_str());
    if !is_final && !is_told && !may_go_on {
        wrong.push(format!("it rests in {phase} and says {}: {}", again.action, again.message));
    }
    format!("{phase}, then {}", again.action)
}

/// The job, from the journal: by the daemon or without one.
fn status(place: &Place) -> Value {
    let Some(journal) = place.journal() else { return Value::Null };
    let last = |sql: &str| -> Option<String> { journal.query_row(sql, [], |row| row.get(0)).ok() };
    let to = last(
        "SELECT json_extract(body, '$.to') FROM journal WHERE kind = 'transition'
         AND job = (SELECT id FROM jobs ORDER BY rowid DESC LIMIT 1)
         AND hop = (SELECT max(hop) FROM journal WHERE kind = 'hop'
             AND job = (SELECT id FROM jobs ORDER BY rowid DESC LIMIT 1))
         ORDER BY seq DESC LIMIT 1",
    );
    let job = last("SELECT id FROM jobs ORDER BY rowid DESC LIMIT 1");
    let active = journal
        .query_row("SELECT count(*) FROM jobs WHERE active = 1", [], |row| row.get::<_, i64>(0))
        .unwrap_or(0);
    let phase = job.map(|_| to.unwrap_or_else(|| "PLANNED".to_owned()));
    serde_json::json!({"phase": phase.unwrap_or_else(|| "none".into()), "active": active == 1})
}

/// Whether the watch has come to its end, which finds that its version was started again while
/// nobody watched; where there is none, whether it was tried to tidy.
fn has_wound_up(made: &Made) -> bool {
    let step = if made.is_watched { "probation" } else { "tidy" };
    let sql = "SELECT count(*) FROM journal WHERE kind = 'outcome' AND name = ?
         AND body NOT LIKE '%interrupted%'";
    let count = |journal: rusqlite::Connection| {
        journal.query_row(sql, [step], |row| row.get::<_, i64>(0)).unwrap_or(0)
    };
    made.place.journal().is_some_and(|journal| count(journal) > 0)
}
