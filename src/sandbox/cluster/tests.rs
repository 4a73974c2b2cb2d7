//! The make-believe directory from outside and over its servers' lives.

use super::*;
use crate::restore_point;

fn place(others: &[u32]) -> Place<'_> {
    Place { inside: "/inside", port: 5432, pid: 8, others }
}

fn identity(cluster: &Cluster) -> (String, u64) {
    let found = cluster.identity(0);
    let position = found["walPosition"].as_str().expect("a position").to_owned();
    let (high, low) = position.split_once('/').expect("two parts");
    let part = |text| u64::from_str_radix(text, 16).expect("hex");
    let system = found["systemIdentifier"].as_str().expect("a number").to_owned();
    (system, part(high) << 32 | part(low))
}

#[test]
fn a_cluster_keeps_its_name_and_its_log_goes_on_over_stops_and_kills() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("postgres");
    let started = || Cluster::start(&at, &place(&[1])).expect("it starts");
    let cluster = started();
    let (system, mut position) = identity(&cluster);
    let mut clean = true;
    let mut running = cluster;
    for _ in 0..4 {
        running.pay("1").expect("a payment");
        let (_, paid) = identity(&running);
        assert!(paid > position, "a payment is in the log: {paid} after {position}");
        if clean {
            running.stop(false).expect("it stops");
            let control = fs::read(at.join("global/pg_control")).expect("a control file");
            let checkpoint = control[32..40].try_into().map(u64::from_le_bytes);
            assert!(checkpoint.expect("eight bytes") >= paid);
        }
        clean = !clean;
        running = started();
        let (again, later) = identity(&running);
        assert_eq!(again, system);
        assert!(later > paid, "{later} after {paid}");
        position = later;
    }
    let other = Cluster::start(&root.path().join("other"), &place(&[1])).expect("it starts");
    assert_ne!(identity(&other).0, system, "another cluster has another name");
}

#[test]
fn a_lock_file_that_names_another_process_of_the_container_keeps_the_server_from_starting() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("postgres");
    let cluster = Cluster::start(&at, &place(&[1])).expect("it starts");
    cluster.stop(true).expect("it stops and leaves its lock file");
    let locked = Cluster::start(&at, &place(&[1, 8]));
    assert!(matches!(locked, Err(NotStarted::Locked { pid: 8 })));
    assert!(Cluster::start(&at, &place(&[1])).is_ok(), "its own number is no other's");
}

#[test]
fn rows_that_were_changed_are_read_like_those_that_were_added() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("postgres");
    let cluster = Cluster::start(&at, &place(&[1])).expect("it starts");
    for _ in 0..3 {
        cluster.pay("1").expect("a payment");
    }
    let next = cluster.fingerprint().expect("it")["nextTransaction"].as_u64().expect("one");
    let migration = Migration { schema: true, rows: 2, fails: false };
    cluster.migrate("2", migration).expect("read").expect("done");
    let since = |table| cluster.rows_since(table, next).expect("read").expect("a table").len();
    assert_eq!((since("public.payments"), since("public.schema_migrations")), (2, 1));
    assert!(cluster.rows_since("public.other", next).expect("read").is_none());
}

#[test]
fn counters_survive_a_clean_stop_and_not_a_kill() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("postgres");
    let started = || Cluster::start(&at, &place(&[1])).expect("it starts");
    let cluster = started();
    cluster.pay("1").expect("a payment");
    let before = cluster.fingerprint().expect("a fingerprint");
    cluster.stop(false).expect("it stops");
    let again = started();
    assert_eq!(again.fingerprint().expect("a fingerprint"), before);
    drop(again);
    let killed = started().fingerprint().expect("a fingerprint");
    assert_eq!(killed["tables"][0]["changes"], 0);
    assert_eq!(killed["rows"]["16390"], 1);
}

#[test]
fn the_restore_point_takes_the_directory_for_a_real_one() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("postgres");
    let cluster = Cluster::start(&at, &place(&[1])).expect("it starts");
    let survey = restore_point::survey(&at).expect("it can be copied");
    assert_eq!(survey.postgres_major, MAJOR);
    assert!(survey.has_postmaster_pid);
    cluster.stop(false).expect("it stops");
    assert!(!restore_point::survey(&at).expect("still").has_postmaster_pid);
}

#[test]
fn the_log_tells_what_each_transaction_did_and_where_a_server_ended() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().join("postgres");
    let cluster = Cluster::start(&at, &place(&[1])).expect("it starts");
    cluster.pay("1").expect("a payment");
    let from = cluster.identity(0)["walPosition"].as_str().expect("a place").to_owned();
    cluster.stop(false).expect("it stops");
    let cluster = Cluster::start(&at, &place(&[1])).expect("it starts");
    let next = cluster.fingerprint().expect("it")["nextTransaction"].as_u64().expect("one");
    cluster.pay("2").expect("a payment");
    let migration = Migration { schema: true, rows: 2, fails: false };
    cluster.migrate("2", migration).expect("read").expect("done");
    let stretch = cluster.stretch(&from);
    assert_eq!(stretch["is_empty"], false);
    let to = stretch["end"].as_str().expect("a place");
    let told = |managers: &[&str]| cluster.records(&from, to, managers).expect("lines");
    let ended = told(&["XLOG"]);
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(ended[0].contains(&format!("CHECKPOINT_SHUTDOWN redo {from};")), "{ended:?}");
    assert!(ended[0].contains(&format!("; xid 0:{next};")), "{ended:?}");
    let rows: Vec<String> = told(&["Heap"])
        .iter()
        .map(|line| line.split("desc: ").nth(1).expect("it").into())
        .collect();
    assert_eq!(
        rows,
        [PAYMENT_ROW, CATALOG_ROW, CATALOG_ROW, PAYMENT_CHANGED, PAYMENT_CHANGED, MIGRATION_ROW]
    );
    let weighed = cluster.weighed_since("public.payments", next).expect("read").expect("a table");
    assert_eq!(weighed.len(), 1, "both were changed at once: {weighed:?}");
    assert_eq!(weighed[0][2], 2);
}

#[test]
fn payments_that_are_inserted_at_once_are_one_transaction_or_none() {
    let root = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(&root.path().join("postgres"), &place(&[1])).expect("it starts");
    let next = cluster.fingerprint().expect("it")["nextTransaction"].as_u64().expect("one");
    let row = |id: &str| [id.to_owned(), "1.00".to_owned(), "2".to_owned()];
    cluster.insert(&[row("a"), row("b")]).expect("written").expect("they fit");
    let refused = cluster.insert(&[row("c"), row("a")]).expect("read").expect_err("a conflict");
    assert!(refused.contains("Key (id)=(a) already exists"), "{refused}");
    let weighed = cluster.weighed_since("public.payments", next).expect("read").expect("a table");
    assert_eq!(weighed, [serde_json::json!([next, null, 2])]);
}
