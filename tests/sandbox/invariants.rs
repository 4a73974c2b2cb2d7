//! What must be so at every instant of an upgrade, and what when it has come to rest
//! (design.md section 1).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use payram_updater::engine::mounts;
use payram_updater::journal::Reader;
use rusqlite::Connection;
use serde_json::Value;

use crate::points::{Point, Then};
use crate::shop::{SOON, Shop};
use crate::support::wait_until;

/// Label of the containers that an upgrade creates.
const HOP_LABEL: &str = "io.payram.updater.hop";

/// Where a container of the sandbox has its database.
const DATA_DIRECTORY: &str = "/var/lib/payram/db/postgres";

/// What the journal tells of the last upgrade.
#[derive(Debug)]
pub struct Told {
    is_active: bool,
    /// `none` before the first upgrade.
    pub phase: String,
    /// The hop's file of the old container's specification, once the hop has begun.
    spec_file: Option<PathBuf>,
    step: Option<&'static str>,
    /// Whether a watch follows `Verified`.
    is_watched: bool,
    code: Option<String>,
    message: String,
    /// Every step that was begun.
    intents: BTreeSet<String>,
}

impl Told {
    /// Of a shop that has a journal.
    pub fn of(shop: &Shop) -> Option<Self> {
        let path = shop.path("state/journal.db");
        // One that is being made has no tables yet.
        let reader = Reader::open(&path).ok()?;
        let Ok(job) = reader.last_job() else { return None };
        let Some(job) = job else {
            return Some(Self {
                is_active: false,
                phase: "none".to_owned(),
                spec_file: None,
                step: None,
                is_watched: false,
                code: None,
                message: String::new(),
                intents: BTreeSet::new(),
            });
        };
        let hop = job.hop();
        Some(Self {
            is_active: job.is_active(),
            phase: match hop {
                Some(_) => job.phase().as_str().to_owned(),
                None => "none".to_owned(),
            },
            spec_file: hop.map(|hop| hop.machine.state().known().hop.old.spec_file.clone().into()),
            step: hop.and_then(|hop| hop.machine.step()).map(|step| step.as_str()),
            is_watched: hop
                .is_some_and(|hop| hop.machine.state().known().hop.probation_seconds.is_some()),
            code: job.ending.as_ref().and_then(|end| end.failure_code).map(|code| code.to_string()),
            message: job.ending.map(|ending| ending.message).unwrap_or_default(),
            intents: intents(&path),
        })
    }

    /// Whether nothing is under way, what follows `Verified` included.
    pub fn rests(&self) -> bool {
        !self.is_active && self.step.is_none()
    }

    /// Where the upgrade is.
    pub fn place(&self) -> String {
        format!("{} {}", self.phase, self.step.unwrap_or("at rest"))
    }
}

fn intents(path: &Path) -> BTreeSet<String> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let journal = Connection::open_with_flags(path, flags).expect("the journal");
    let sql = "SELECT DISTINCT name FROM journal WHERE kind = 'intent'";
    let mut statement = journal.prepare(sql).expect("its table");
    let names = statement.query_map([], |row| row.get(0)).expect("its rows");
    names.map(|name| name.expect("a name")).collect()
}

/// The invariants that hold at every instant, whoever is dead.
pub fn at_the_crash(shop: &Shop, old: &str, wrong: &mut Vec<String>) {
    let told = Told::of(shop);
    let containers = shop.inspections();
    let is_verified = told.as_ref().is_some_and(|told| told.phase == "VERIFIED");
    let is_watched = told.as_ref().is_some_and(|told| told.is_watched);
    let the_old = containers.iter().find(|one| one["Id"] == *old);
    if the_old.is_none() && !is_verified {
        wrong.push("I1: the old container is gone before Verified".to_owned());
    }
    one_runs(shop, &containers, wrong);
    let armed = containers.iter().filter(|one| is_armed(one)).count();
    if armed > 1 {
        wrong.push(format!("I2: {armed} containers would start with the host"));
    }
    let intents = told.as_ref().map(|told| told.intents.clone()).unwrap_or_default();
    let mut needs = |is_so: bool, step: &str, what: &str| {
        if is_so && !intents.contains(step) {
            wrong.push(format!("I3: {what} without the intent {step}"));
        }
    };
    let next = containers.iter().find(|one| one["Config"]["Labels"][HOP_LABEL].is_string());
    needs(next.is_some(), "create_next", "a container was created");
    let is_next_started = next.is_some_and(|next| {
        next["State"]["StartedAt"].as_str().is_some_and(|at| !at.starts_with("0001-"))
            && next["Config"]["Entrypoint"][0] == "/opt/payram/entrypoint"
    });
    needs(is_next_started, "start_next", "the new container was started");
    needs(next.is_some_and(is_armed), "arm_next", "the new container was armed");
    needs(the_old.is_none(), "tidy", "the old container was removed");
    needs(is_verified && copies(shop).is_empty(), "tidy", "the restore point was removed");
    needs(is_watched && intents.contains("tidy"), "probation", "a watched version was tidied");
    if let Some(the_old) = the_old {
        needs(the_old["Name"] != "/payram", "rename_old", "the old container was renamed");
        needs(!is_armed(the_old), "disarm_old", "the old container was disarmed");
    }
    if let Some(file) = told.as_ref().and_then(|told| told.spec_file.as_ref()) {
        spec_is_kept(file, old, wrong);
    } else if !intents.is_empty() {
        wrong.push("I5: a step was begun and no specification is named".to_owned());
    }
    journal_is_whole(shop, wrong);
}

fn is_armed(container: &Value) -> bool {
    let policy = container["HostConfig"]["RestartPolicy"]["Name"].as_str();
    matches!(policy, Some("always" | "unless-stopped" | "on-failure"))
}

/// The directory of the host that a container has its database in.
fn database_of(container: &Value) -> Option<PathBuf> {
    mounts::host_path(container, Path::new(DATA_DIRECTORY))
}

/// I2, now and at any instant before: the engine has seen them all. The server that an export
/// reads the failed version's rows by has a directory of its own.
fn one_runs(shop: &Shop, containers: &[Value], wrong: &mut Vec<String>) {
    let mut running: BTreeMap<Option<PathBuf>, Vec<&Value>> = BTreeMap::new();
    for one in containers.iter().filter(|one| one["State"]["Running"] == true) {
        running.entry(database_of(one)).or_default().push(&one["Name"]);
    }
    for (directory, names) in running.iter().filter(|(_, names)| names.len() > 1) {
        wrong.push(format!("I2: {names:?} run on one database, {directory:?}"));
    }
    let two = shop.two_at_once();
    if !two.is_empty() {
        wrong.push(format!("I2: two containers ran on one database: {}", two.trim()));
    }
}

/// I5: whole, and for root's eyes.
fn spec_is_kept(file: &Path, old: &str, wrong: &mut Vec<String>) {
    let mode = fs::metadata(file).map(|metadata| metadata.permissions().mode() & 0o777);
    let saved: Option<Value> =
        fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let is_whole = saved.is_some_and(|saved| saved["container"]["Id"] == *old);
    let mode = mode.map_or_else(|error| error.to_string(), |mode| format!("{mode:o}"));
    if !is_whole || mode != "600" {
        wrong.push(format!("I5: {} is whole: {is_whole}, mode {mode}", file.display()));
    }
}

/// I8, and the chain.
fn journal_is_whole(shop: &Shop, wrong: &mut Vec<String>) {
    let path = shop.path("state/journal.db");
    let Ok(reader) = Reader::open(&path) else { return };
    match reader.verify() {
        Ok(Ok(_)) => {}
        // Killed while it made its journal: there are no tables yet.
        Err(_) if !has_tables(&path) => return,
        other => wrong.push(format!("the journal is not whole: {other:?}")),
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let journal = Connection::open_with_flags(path, flags).expect("the journal");
    let active: i64 = journal
        .query_row("SELECT count(*) FROM jobs WHERE active = 1", [], |row| row.get(0))
        .expect("a count");
    if active > 1 {
        wrong.push(format!("I8: {active} upgrades are active"));
    }
}

fn has_tables(path: &Path) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let Ok(journal) = Connection::open_with_flags(path, flags) else { return false };
    journal
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .is_ok_and(|tables| tables > 0)
}

/// What is so when the upgrade has come to rest.
pub fn at_the_end(shop: &Shop, point: &Point<'_>, old: &str, wrong: &mut Vec<String>) {
    let told = Told::of(shop);
    let phase = told.as_ref().map_or("none", |told| told.phase.as_str()).to_owned();
    // A version whose proof a reboot cut short, or that the engine begins late, may go back.
    let is_lenient = point.then == Then::Reboot || is_late(point);
    let is_expected = match phase.as_str() {
        // It was killed before the upgrade was accepted, or it never began.
        "none" => true,
        // One that dies a while after its start, and whose gate was prolonged, dies in its gate.
        "ROLLED_BACK" => point.scenario.phase == phase || is_lenient || point.scenario.is_troubled,
        "NEEDS_OPERATOR" => point.scenario.phase == phase || point.then == Then::Reboot,
        other => other == point.scenario.phase,
    };
    let (code, message) = told.map_or((None, String::new()), |told| (told.code, told.message));
    if !is_expected {
        wrong.push(format!("it ended {phase}: {code:?}: {message}"));
    }
    match phase.as_str() {
        "NEEDS_OPERATOR" => waits_for_a_person(shop, old, &code, &message, wrong),
        // A start with the host is one that nobody watched, and is told.
        "VERIFIED" if point.scenario.is_troubled || is_kept_after(shop, point) => {
            keeps_the_way_back(shop, old, wrong);
            serves_anew(shop, point, wrong);
        }
        "VERIFIED" => serves(shop, "2.0.0", old, &["payram running"], wrong),
        // What the new version took elsewhere is in its container.
        _ if code.as_deref() == Some("DATABASE_MISMATCH") => {
            serves(shop, "1.9.6", old, &["payram running", "payram-next-* exited"], wrong);
            if shop.inspections().iter().any(|one| one["Name"] != "/payram" && is_armed(one)) {
                wrong.push("what served elsewhere would start with the host".to_owned());
            }
        }
        _ => serves(shop, "1.9.6", old, &["payram running"], wrong),
    }
    let kept = failed_directories(shop);
    let is_kept = match (phase.as_str(), point.then) {
        (_, Then::Reboot) | ("NEEDS_OPERATOR", _) => true,
        ("ROLLED_BACK", _) => kept.len() == point.scenario.kept,
        _ => kept.is_empty(),
    };
    if !is_kept {
        wrong.push(format!("I7: of failed versions' directories there are {kept:?}"));
    }
    let migrates = point.scenario.release["migration"]["schema"] == true;
    for directory in kept.into_iter().filter(|_| migrates) {
        let catalogue = fs::read_to_string(directory.join("base/16384/1259")).unwrap_or_default();
        if !catalogue.contains("added_by_2_0_0") {
            wrong.push(format!("I7: {} is not what 2.0.0 left", directory.display()));
        }
    }
    let files = point.scenario.changed_files(shop);
    if phase != "VERIFIED" && phase != "NEEDS_OPERATOR" && !files.is_empty() {
        wrong.push(format!("files are not as they were: {files:?}"));
    }
    let lost = shop.lost();
    if !lost.is_empty() {
        wrong.push(format!("{} acknowledged payments are lost", lost.len()));
    }
    journal_is_whole(shop, wrong);
    let verified = shop.cli(&["journal", "verify"]);
    if verified.status.code() != Some(0) {
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        wrong.push(format!("journal verify: {said}"));
    }
    recover_is_sensible(shop, &phase, wrong);
    one_runs(shop, &shop.inspections(), wrong);
}

fn is_late(point: &Point<'_>) -> bool {
    matches!(point.at, crate::points::At::Request(_, "kill-late"))
}

/// This version serves, whole, in one of these containers and no further ones, and after a reboot
/// too.
fn serves(shop: &Shop, version: &str, old: &str, expected: &[&str], wrong: &mut Vec<String>) {
    if !comes_true(SOON, || shop.serves().as_deref() == Some(version)) {
        wrong.push(format!("{version} does not serve; {:?} does", shop.serves()));
    }
    if !comes_true(SOON, || are_these(&shop.containers(), expected)) {
        wrong.push(format!("there are {:?}", shop.containers()));
        return;
    }
    if (shop.id() == old) != (version == "1.9.6") {
        wrong.push("the old container is not the one that was there".to_owned());
    }
    let policy = shop.ask("/containers/payram/json")["HostConfig"]["RestartPolicy"].clone();
    if policy["Name"] != "unless-stopped" {
        wrong.push(format!("the restart policy is {policy}"));
    }
    let programs = shop.programs();
    if programs.len() != 4 || programs.iter().any(|(_, state)| state != "RUNNING") {
        wrong.push(format!("programs: {programs:?}"));
    }
    if !comes_true(SOON, || left_over(shop).is_empty()) {
        wrong.push(format!("left over: {:?}", left_over(shop)));
    }
}

/// Whether containers are these, a `*` in whose names stands for a hop's id.
fn are_these(containers: &[String], expected: &[&str]) -> bool {
    let is_it = |(container, expected): (&String, &&str)| match expected.split_once('*') {
        Some((before, after)) => container.starts_with(before) && container.ends_with(after),
        None => container == expected,
    };
    containers.len() == expected.len() && containers.iter().zip(expected).all(is_it)
}

/// Whether a good version was started with the host in its watch, so that the way back stays.
fn is_kept_after(shop: &Shop, point: &Point<'_>) -> bool {
    let is_watched = point.scenario.probation != "0" && point.then == Then::Reboot;
    is_watched && Told::of(shop).is_some_and(|told| !told.intents.contains("tidy"))
}

/// The watch after `Verified` found something: this is told, the new version has its name and its
/// policy, and the old container, its image and the restore point are there.
fn keeps_the_way_back(shop: &Shop, old: &str, wrong: &mut Vec<String>) {
    let containers = shop.inspections();
    let policy = |one: &Value| one["HostConfig"]["RestartPolicy"]["Name"].clone();
    match containers.iter().find(|one| one["Id"] == *old) {
        Some(the_old) => {
            let name = the_old["Name"].as_str().unwrap_or_default();
            if !name.starts_with("/payram-previous-") || is_armed(the_old) {
                wrong.push(format!("the old container is {name}, policy {}", policy(the_old)));
            }
            let image = the_old["Image"].as_str().unwrap_or_default();
            if !shop.ask(&format!("/images/{image}/json"))["Id"].is_string() {
                wrong.push("the old version's image is gone".to_owned());
            }
        }
        None => wrong.push("the old container is gone, though something was found".to_owned()),
    }
    if copies(shop).is_empty() {
        wrong.push("the restore point is gone, though something was found".to_owned());
    }
    let next = containers.iter().find(|one| one["Name"] == "/payram");
    if next.is_none_or(|next| next["Id"] == *old || policy(next) != "unless-stopped") {
        wrong.push(format!("what has the shop's name: {:?}", next.map(policy)));
    }
    if containers.len() != 2 {
        wrong.push(format!("there are {:?}", shop.containers()));
    }
    let inspected = shop.cli(&["inspect", "--json"]);
    let report: Value = serde_json::from_slice(&inspected.stdout).unwrap_or_default();
    let issues = report["issues"].as_array().cloned().unwrap_or_default();
    let tells = |issue: &Value| issue["component"] == "probation";
    if !issues.iter().any(tells) || report["overallState"] == "OK" {
        wrong.push(format!("inspect does not tell it: {report}"));
    }
}

/// The new version serves; one that dies again and again, right after a start, so that what is
/// asked next finds it serving.
fn serves_anew(shop: &Shop, point: &Point<'_>, wrong: &mut Vec<String>) {
    let started = || shop.ask("/containers/payram/json")["State"]["StartedAt"].clone();
    let before = started();
    let is_anew = || !point.scenario.is_troubled || started() != before;
    if !comes_true(SOON, || is_anew() && shop.serves().as_deref() == Some("2.0.0")) {
        wrong.push(format!("2.0.0 does not serve; {:?} does", shop.serves()));
    }
}

/// Copies of the database that are restore points.
fn copies(shop: &Shop) -> Vec<String> {
    let mut copies = shop.beside_the_database();
    copies.retain(|name| name.contains(".payram-restore-"));
    copies
}

/// Both containers rest, and a person is told why.
fn waits_for_a_person(
    shop: &Shop,
    old: &str,
    code: &Option<String>,
    message: &str,
    wrong: &mut Vec<String>,
) {
    if code.is_none() || message.is_empty() {
        wrong.push(format!("it needs an operator and says {code:?}: {message:?}"));
    }
    if !shop.inspections().iter().any(|one| one["Id"] == *old) {
        wrong.push("I1: the old container is gone".to_owned());
    }
}

/// `recover` on a finished upgrade changes nothing and says so, or brings it to an end.
fn recover_is_sensible(shop: &Shop, phase: &str, wrong: &mut Vec<String>) {
    let (before, id) = (shop.containers(), shop.id());
    let ran = shop.cli(&["recover", "--yes", "--json"]);
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    let action = serde_json::from_str::<Value>(&said)
        .ok()
        .and_then(|answer| answer["action"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let is_sensible = match (phase, ran.status.code()) {
        ("VERIFIED", Some(0)) => ["none", "tidy"].contains(&action.as_str()),
        ("ROLLED_BACK", Some(0)) => action == "retry",
        ("none", Some(0)) => ["none", "retry"].contains(&action.as_str()),
        ("NEEDS_OPERATOR", Some(0)) => shop.serves().as_deref() == Some("1.9.6"),
        ("NEEDS_OPERATOR", Some(5)) => {
            said.contains("recover --restore-database") || said.contains("payram-updater sync")
        }
        _ => false,
    };
    if !is_sensible {
        wrong.push(format!("recover on {phase} ended {:?}: {said}", ran.status.code()));
    }
    if phase != "NEEDS_OPERATOR" && (shop.containers(), shop.id()) != (before, id) {
        wrong.push("recover changed what serves".to_owned());
    }
}

fn failed_directories(shop: &Shop) -> Vec<PathBuf> {
    let beside = shop.beside_the_database().into_iter();
    let failed = beside.filter(|name| name.starts_with("postgres.failed-"));
    let data = shop.data();
    // Beside it are the rows that the shop does not have.
    failed.map(|name| data.with_file_name(name)).filter(|path| path.is_dir()).collect()
}

/// What a finished upgrade has no use for. Where rows of a failed version's workers stayed, the
/// database as it was before them is kept.
fn left_over(shop: &Shop) -> Vec<String> {
    let status = String::from_utf8_lossy(&shop.cli(&["status", "--json"]).stdout).into_owned();
    let keeps_copy = status.contains("workers wrote is kept in the database");
    let mut left = shop.beside_the_database();
    left.retain(|name| name != "postgres" && !name.starts_with("postgres.failed-"));
    left.retain(|name| !(keeps_copy && name.contains(".payram-restore-")));
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(shop.path(directory)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    left.extend(names("state/restore"));
    let is_whole = |name: &String| name.ends_with(".dump") || name.ends_with(".json");
    left.extend(names("backups").into_iter().filter(|name| !is_whole(name)));
    left
}

/// Whether this becomes so in time.
fn comes_true(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let began = std::time::Instant::now();
    wait_until("it is so, or the time is over", limit * 2, || {
        let so = is_so();
        (so || began.elapsed() > limit).then_some(so)
    })
}
