//! Each way of `recover` out of one failure, a release that migrates, takes payments and then
//! fails, as one table: what it asks, what is served after it, and where each payment is that was
//! acknowledged. None is anywhere else.

mod support;

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use support::operator::{assert_parts, inspection, issues, said};
use support::{Daemon, Fixture, World, in_long_run, require};

/// From the start of an upgrade to its end.
const END_LIMIT: Duration = Duration::from_secs(300);

/// A line of the table.
struct Row {
    way: String,
    exit: Option<i32>,
    phase: String,
    serves: String,
    /// Of the payments that the failed version acknowledged: all, in the served database, in the
    /// file, in a database that is kept aside.
    theirs: [usize; 4],
    /// Of the old version's: all, and in the served database.
    ours: [usize; 2],
}

/// The shop, and what was acknowledged before the upgrade at hand.
struct Case {
    world: World,
    daemon: Daemon,
    tag: String,
    before: HashSet<String>,
}

impl Case {
    fn open() -> Self {
        let world = World::build("1.9.6").rows(200).impatient().nested_mounts().start();
        let daemon = world.daemon();
        let tag = Fixture::get().tag_of("migration-schema-writes").to_owned();
        Self { world, daemon, tag, before: HashSet::new() }
    }

    /// The upgrade that fails.
    fn fails(&mut self) {
        self.before = self.acked(&self.tag);
        self.world.begin_upgrade(&self.tag);
        let status = self.daemon.wait_settled(END_LIMIT);
        assert_eq!(status["phase"], "NEEDS_OPERATOR", "{status:#}\n{}", self.daemon.log());
    }

    /// What a version acknowledged.
    fn acked(&self, version: &str) -> HashSet<String> {
        let log = fs::read_to_string(self.world.ack_dir().join("acked.log")).unwrap_or_default();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let words = whole.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            Some((words.next()?.to_owned(), words.next()? == version))
        });
        words.filter(|(_, is_its)| *is_its).map(|(id, _)| id).collect()
    }

    fn recover(&self, ways: &[&str]) -> Row {
        let ran = self.world.cli(&[&["recover", "--yes"], ways].concat());
        println!("recover {}: {:?}\n{}", ways.join(" "), ran.status.code(), said(&ran));
        self.row(&format!("recover {}", ways.join(" ")), ran.status.code())
    }

    fn row(&self, way: &str, exit: Option<i32>) -> Row {
        let world = &self.world;
        let status = self.daemon.status();
        let phase = status["phase"].as_str().unwrap_or_default().to_owned();
        if phase == "ROLLED_BACK" {
            world.wait_healthy();
        }
        let theirs: Vec<String> = self.acked(&self.tag).difference(&self.before).cloned().collect();
        let ours: HashSet<String> = world
            .acked()
            .into_iter()
            .filter(|id| !theirs.contains(id) && !self.before.contains(id))
            .collect();
        // Where nothing runs, nothing is served.
        let there = world.try_sql("SELECT id FROM payments").unwrap_or_default();
        let there: HashSet<&str> = there.lines().collect();
        let kept = world.failed_directories();
        let read = |name: &String| {
            fs::read_to_string(world.data_dir().join("db").join(name)).unwrap_or_default()
        };
        let files: String = kept.iter().filter(|name| name.ends_with(".sql")).map(read).collect();
        let loaded: Vec<&str> = files.lines().filter(|line| !line.starts_with("--")).collect();
        let has_directory = kept.iter().any(|name| !name.contains(".rows"));
        let in_file = |id: &&String| loaded.iter().any(|line| line.contains(id.as_str()));
        Row {
            way: way.to_owned(),
            exit,
            phase,
            serves: world.version().unwrap_or_else(|| "nothing".to_owned()),
            theirs: [
                theirs.len(),
                theirs.iter().filter(|id| there.contains(id.as_str())).count(),
                theirs.iter().filter(in_file).count(),
                if has_directory { theirs.len() } else { 0 },
            ],
            ours: [ours.len(), ours.iter().filter(|id| there.contains(id.as_str())).count()],
        }
    }

    fn states(&self) -> Vec<Value> {
        let all = self.world.containers();
        all.iter().map(|one| one["State"]["Status"].clone()).collect()
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<46}{:>6}  {:<16}{:<10}{:>8}{:>8}{:>8}{:>8}{:>10}{:>10}",
        "", "exit", "phase", "serves", "new", "in shop", "in file", "aside", "old", "in shop"
    );
    for row in rows {
        let exit = row.exit.map_or("-".to_owned(), |exit| exit.to_string());
        let theirs: String = row.theirs.iter().map(|count| format!("{count:>8}")).collect();
        let ours: String = row.ours.iter().map(|count| format!("{count:>10}")).collect();
        println!("{:<46}{exit:>6}  {:<16}{:<10}{theirs}{ours}", row.way, row.phase, row.serves);
    }
}

#[test]
fn every_way_out_of_a_migration_with_rows_says_where_each_payment_is() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let mut case = Case::open();
    case.fails();
    let mut rows = vec![case.row("(the upgrade)", None)];
    assert_eq!(rows[0].theirs[1..], [0, 0, 0], "both are stopped, and nothing was put back");

    // It asks, and names each way.
    let asked = case.world.cli(&["recover", "--yes"]);
    assert_parts(
        &said(&asked),
        &["public.payments", "recover --restore-database", "--carry-rows", "recover --keep-new"],
    );
    rows.push(case.row("recover", asked.status.code()));
    assert_eq!((rows[1].exit, rows[1].phase.as_str()), (Some(5), "NEEDS_OPERATOR"));
    assert_eq!(case.states(), ["exited", "exited"]);
    assert_eq!(case.world.failed_directories(), Vec::<String>::new());

    // It does not pass: it is left as it is, and everything for the way back with it.
    let kept = case.recover(&["--keep-new"]);
    assert_eq!((kept.exit, kept.phase.as_str()), (Some(5), "NEEDS_OPERATOR"));
    assert_eq!(kept.theirs[0], kept.theirs[1], "they are in the database as it is");
    assert_eq!(kept.ours[0], kept.ours[1]);
    rows.push(kept);
    let mut states = case.states();
    states.sort_by_key(Value::to_string);
    assert_eq!(states, ["exited", "running"]);
    let left = case.world.leftovers();
    assert!(left.iter().any(|name| name.contains("payram-restore")), "nothing is tidied: {left:?}");
    let report = inspection(&case.world);
    assert_eq!(report["overallState"], "BROKEN", "{report:#}");
    assert!(issues(&report).iter().any(|issue| issue.contains("CRITICAL")), "{report:#}");

    case.world.docker(&["stop", &case.world.name]);
    let carried = case.recover(&["--restore-database", "--carry-rows"]);
    assert_eq!((carried.exit, carried.serves.as_str()), (Some(0), "1.9.6"));
    let [theirs, in_shop, in_file, aside] = carried.theirs;
    assert!(theirs > 0 && in_shop == theirs && in_file == 0 && aside == theirs);
    let status = case.daemon.status();
    let message = status["message"].as_str().unwrap_or_default();
    assert_parts(message, &[&format!("public.payments {theirs} rows")]);
    assert_eq!(carried.ours[0], carried.ours[1]);
    rows.push(carried);
    assert_eq!(case.world.payments_lost(), Vec::<String>::new());

    // Once more from the beginning, for the way that does not carry them over.
    for name in case.world.failed_directories() {
        let path = case.world.data_dir().join("db").join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.expect("what the first failure left is removed");
    }
    case.fails();
    let restored = case.recover(&["--restore-database"]);
    assert_eq!((restored.exit, restored.serves.as_str()), (Some(0), "1.9.6"));
    let [theirs, in_shop, in_file, aside] = restored.theirs;
    assert!(theirs > 0 && in_shop == 0 && in_file == theirs && aside == theirs);
    assert_eq!(restored.ours[0], restored.ours[1]);
    rows.push(restored);
    let (_, twice) = case.world.addresses();
    assert_eq!(twice, Vec::<String>::new(), "addresses that were handed out twice");
    print(&rows);
    assert_eq!(case.world.two_at_once(), Vec::<String>::new());
}
