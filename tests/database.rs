//! Dumps, proofs and fingerprints against a real PostgreSQL server of this test's own.

mod postgres;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use payram_updater::database::{
    self, Access, Database, FullProof, Runner, dump, fingerprint, prove, prove_full, verify_file,
};
use payram_updater::error::Trouble;
use payram_updater::machine::facts::{Assessment, Backup};
use payram_updater::machine::failure::FailureCode;
use payram_updater::secret::Secret;

use postgres::{LocalEngine, PASSWORD, ROLE, Server};

const LONG: Duration = Duration::from_secs(120);
const BUDGET: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    create table payments (id serial primary key, amount numeric not null check (amount > 0));
    create table wallets (id int primary key, note text);
    create table \"odd name\" (a int);
    create view large as select * from payments where amount > 1000;
    create type mood as enum ('good', 'bad');
    insert into payments (amount) select n from generate_series(1, 500) n;
    insert into wallets select n, 'wallet ' || n from generate_series(1, 7) n;
";

/// A server with an application's database on it, and a directory for dumps.
struct World {
    server: Server,
    backups: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let server = Server::start()?;
        server.sql("postgres", "create role payram login password 'hunter2-of-payram'");
        server.sql("postgres", "create database payram owner payram");
        server.sql("payram", &format!("set role payram; {SCHEMA}"));
        Some(Self { server, backups: tempfile::tempdir().expect("a directory") })
    }

    fn database(&self, access: Access) -> Database {
        Database {
            host: "127.0.0.1".into(),
            port: self.server.port,
            name: "payram".into(),
            user: ROLE.into(),
            password: Secret::new(PASSWORD.into()),
            sslmode: None,
            access,
        }
    }

    fn dump_path(&self) -> PathBuf {
        self.backups.path().join("backups/payram.dump")
    }

    fn sql(&self, text: &str) -> String {
        self.server.sql("payram", &format!("set role payram; {text}"))
    }

    fn databases(&self) -> String {
        self.server.sql("postgres", "select datname from pg_database order by 1")
    }

    async fn dumped(&self, runner: &Runner<'_>) -> Backup {
        let path = self.dump_path();
        let made = dump(runner, &path, LONG, &mut |_| {}).await.expect("a dump");
        Backup {
            path: path.to_string_lossy().into_owned(),
            size_bytes: made.size_bytes,
            sha256: made.sha256,
            database_host: "127.0.0.1".into(),
            database_port: self.server.port,
            database_name: "payram".into(),
        }
    }
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn failed(trouble: Trouble) -> (FailureCode, String) {
    match trouble {
        Trouble::Failed(failure) => (failure.code, failure.message),
        Trouble::Unknown(failure) => panic!("expected a failure, found an unknown: {failure}"),
    }
}

/// The whole life of a backup, wherever the programs run.
async fn a_backup_is_made_and_proved(world: &World, engine: &LocalEngine, access: Access) {
    let database = world.database(access);
    let runner = Runner::new(engine, "payram", &database);
    assert!(database::size(&runner).await.expect("a size") > 1_000_000);
    let version = database::server_version(&runner).await.expect("a version");
    assert!(version.starts_with(&world.server.major()), "{version}");

    let path = world.dump_path();
    let mut heard = 0;
    let made = dump(&runner, &path, LONG, &mut |bytes| heard = bytes).await.expect("a dump");
    assert_eq!(heard, made.size_bytes);
    assert_eq!(files(path.parent().unwrap()), ["payram.dump"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

    let backup = world.dumped(&runner).await;
    verify_file(&path, &backup).await.expect("the file is the dump");
    let proof = prove(&runner, &path, LONG).await.expect("a proof");
    assert_eq!(proof.tables, 3);
    assert!(proof.toc_entries > proof.tables);
    let full = prove_full(&runner, &path, LONG).await.expect("a full proof");
    assert_eq!(full, FullProof::Proved { proof, rows: Some(507) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_complete_private_and_proved_by_a_restore_that_leaves_nothing_behind() {
    let Some(world) = World::new() else { return };
    world.server.sql("postgres", "alter role payram createdb");
    // What an interrupted attempt left.
    world.server.sql("postgres", "create database payram_updater_proof_0123abcd owner payram");
    let before = world.databases();
    a_backup_is_made_and_proved(&world, &LocalEngine::default(), Access::OnHost).await;
    assert_eq!(world.databases(), before.replace("payram_updater_proof_0123abcd\n", ""));
}

/// Names, definitions and values with bytes that are no UTF-8.
const BYTES: &str = r#"
    do $$ begin execute 'create table "caf' || E'\xe9' || '" (id int primary key, v text default '''
        || E'\xe9' || ''')'; end $$;
    do $$ begin execute 'insert into "caf' || E'\xe9' || '" values (1, E''\xff\xe4''), (2, default)'; end $$;
"#;

/// Another byte in a definition.
const ANOTHER_BYTE: &str = r#"
    do $$ begin execute 'alter table "caf' || E'\xe9' || '" alter v set default '''
        || E'\xe8' || ''''; end $$;
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_bytes_that_are_no_utf_8_is_dumped_proved_and_fingerprinted() {
    for (encoding, shown) in [("SQL_ASCII", "caf\u{fffd}E9"), ("LATIN1", "caf\u{e9}")] {
        let Some(world) = World::new() else { return };
        let server = &world.server;
        server.sql("postgres", "alter role payram createdb");
        server.sql("postgres", "drop database payram");
        server.sql(
            "postgres",
            &format!(
                "create database payram owner payram template template0 \
                 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
            ),
        );
        world.sql(BYTES);
        let (engine, database) = (LocalEngine::default(), world.database(Access::OnHost));
        let runner = Runner::new(&engine, "payram", &database);
        let backup = world.dumped(&runner).await;
        let path = PathBuf::from(backup.path);
        let proof = prove(&runner, &path, LONG).await.expect("a proof");
        let full = prove_full(&runner, &path, LONG).await.expect("a full proof");
        assert_eq!(full, FullProof::Proved { proof, rows: Some(2) }, "{encoding}");

        let before = fingerprint(&runner, BUDGET).await.expect("a fingerprint");
        let table = before.tables.iter().find(|table| table.name.contains(shown));
        assert_eq!(table.and_then(|table| table.rows), Some(2), "{encoding}: {before:?}");
        let again = fingerprint(&runner, BUDGET).await.expect("another");
        assert_eq!(again.schema, before.schema);
        world.sql(ANOTHER_BYTE);
        let changed = fingerprint(&runner, BUDGET).await.expect("another");
        assert_ne!(changed.schema, before.schema, "{encoding}: one byte of a default is another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_container_whose_path_lacks_the_programs_they_are_found_where_debian_keeps_them() {
    let Some(world) = World::new() else { return };
    world.server.sql("postgres", "alter role payram createdb");
    let engine = LocalEngine::with_path("/nonexistent");
    if !world.server.is_debian() {
        eprintln!("skipped: needs postgres as Debian packages it");
        return;
    }
    a_backup_is_made_and_proved(&world, &engine, Access::InContainer).await;
    assert!(engine.argvs().iter().all(|argv| !argv.contains(PASSWORD)), "a password in an argv");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_a_locale_of_its_own_is_proved_in_one_that_is_like_it() {
    let Some(world) = World::new() else { return };
    world.server.sql("postgres", "alter role payram createdb");
    world.server.sql("postgres", "drop database payram");
    world.server.sql(
        "postgres",
        "create database payram owner payram template template0 encoding 'LATIN1' \
         lc_collate 'C' lc_ctype 'C'",
    );
    world.sql("create table words (w text); insert into words values (U&'caf\\00e9')");
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    world.dumped(&runner).await;
    let full = prove_full(&runner, &world.dump_path(), LONG).await.expect("a full proof");
    assert!(matches!(full, FullProof::Proved { rows: Some(1), .. }), "{full:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_databases_is_told_apart_from_a_bad_dump() {
    let Some(world) = World::new() else { return };
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    world.dumped(&runner).await;
    let full = prove_full(&runner, &world.dump_path(), LONG).await.expect("an answer");
    let FullProof::NotAllowed { reason } = full else { panic!("{full:?}") };
    assert_eq!(reason, "role payram may not create databases");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_dump_is_refused() {
    let Some(world) = World::new() else { return };
    world.server.sql("postgres", "alter role payram createdb");
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    world.dumped(&runner).await;
    let whole = std::fs::read(world.dump_path()).expect("the dump");
    let damaged = world.backups.path().join("damaged.dump");

    // The table of contents is whole and the data is cut: only a restore finds it.
    std::fs::write(&damaged, &whole[..whole.len() - 200]).expect("a file");
    prove(&runner, &damaged, LONG).await.expect("its table of contents");
    let (code, message) = failed(prove_full(&runner, &damaged, LONG).await.unwrap_err());
    assert_eq!(code, FailureCode::BackupInvalid, "{message}");
    assert!(!world.databases().contains("proof"), "the scratch database is left");

    for bad in [&whole[..100], b"not a dump at all, but longer than its header would be", b""] {
        std::fs::write(&damaged, bad).expect("a file");
        let (code, message) = failed(prove(&runner, &damaged, LONG).await.unwrap_err());
        assert_eq!(code, FailureCode::BackupInvalid, "{message}");
        assert!(message.contains("damaged.dump"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_matter_of_settings_and_is_not_repeated() {
    let Some(world) = World::new() else { return };
    let engine = LocalEngine::default();
    let mut database = world.database(Access::OnHost);
    database.password = Secret::new("a-wrong-password".into());
    let runner = Runner::new(&engine, "payram", &database);
    let path = world.dump_path();
    let (code, message) = failed(dump(&runner, &path, LONG, &mut |_| {}).await.unwrap_err());
    assert_eq!(code, FailureCode::InvalidDbConfig, "{message}");
    assert!(!message.contains("a-wrong-password"), "{message}");
    assert_eq!(files(path.parent().unwrap()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_fails_the_backup_and_says_where_it_was_looked_for() {
    let Some(world) = World::new() else { return };
    world.server.stop("immediate");
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let (code, message) = failed(database::size(&runner).await.unwrap_err());
    assert_eq!(code, FailureCode::BackupFailed);
    assert!(message.contains("refused") && message.contains("127.0.0.1"), "{message}");
    fingerprint(&runner, BUDGET).await.expect_err("no fingerprint");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_whose_time_is_over_leaves_no_file_and_no_session_wherever_it_ran() {
    let Some(world) = World::new() else { return };
    let _locked = world.server.hold("payram", "lock table payments in access exclusive mode");
    for access in [Access::OnHost, Access::InContainer] {
        let engine = LocalEngine::default();
        let database = world.database(access);
        let runner = Runner::new(&engine, "payram", &database);
        let path = world.dump_path();
        let short = Duration::from_secs(1);
        let (code, message) = failed(dump(&runner, &path, short, &mut |_| {}).await.unwrap_err());
        assert_eq!(code, FailureCode::BackupTimeout, "{message}");
        assert_eq!(files(path.parent().unwrap()), Vec::<String>::new());
        let left = "select count(*) from pg_stat_activity \
                    where application_name like 'payram-updater-dump%'";
        world.server.until("postgres", left, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_leaves_no_file() {
    let Some(world) = World::new() else { return };
    let Some(disk) = postgres::SmallDisk::mount() else { return };
    world.sql("create table noise as select md5(n::text) from generate_series(1, 200000) n");
    for access in [Access::OnHost, Access::InContainer] {
        let engine = LocalEngine::default();
        let database = world.database(access);
        let runner = Runner::new(&engine, "payram", &database);
        let path = disk.path().join("payram.dump");
        let (code, message) = failed(dump(&runner, &path, LONG, &mut |_| {}).await.unwrap_err());
        assert_eq!(code, FailureCode::DiskSpaceLow, "{message}");
        assert!(message.contains("payram.dump.partial after "), "{message}");
        assert_eq!(files(disk.path()), Vec::<String>::new());
    }
}

/// What is found after a failed version did `what` to the database.
async fn found_after(world: &World, what: impl FnOnce(&World)) -> Assessment {
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let before = fingerprint(&runner, BUDGET).await.expect("a fingerprint");
    assert!(before.tables.iter().any(|table| {
        table.name == "public.payments" && table.rows == Some(500) && table.changes == 500
    }));
    what(world);
    let after = database::fingerprint_since(&runner, BUDGET, &before).await;
    database::assess(&before, &after.expect("a fingerprint"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_only_read_dumped_and_cleanly_restarted_is_unchanged() {
    let Some(world) = World::new() else { return };
    let found = found_after(&world, |world| {
        world.sql("select count(*) from payments; analyze; select nextval('payments_id_seq')");
        world.server.sql("payram", "vacuum");
        world.server.stop("fast");
        world.server.start_again();
    })
    .await;
    assert_eq!(found, Assessment::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_touches_no_row_is_a_changed_schema_and_says_what_differs() {
    let Some(world) = World::new() else { return };
    let found = found_after(&world, |world| {
        world.sql("alter table payments add column memo text default 'none'");
        world.sql("alter table wallets rename to purses");
        world.sql("create table refunds (id int)");
        world.sql("alter type mood add value 'so-so'");
    })
    .await;
    let Assessment::SchemaChanged { what } = found else { panic!("{found:?}") };
    for part in [
        "table public.payments differs",
        "table public.wallets is gone",
        "table public.purses is new",
        "table public.refunds is new",
        "type public.mood differs",
    ] {
        assert!(what.contains(part), "{part}: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_beside_the_tables_is_seen() {
    let Some(world) = World::new() else { return };
    for (what, name) in [
        ("alter role payram connection limit 3", "role payram differs"),
        (
            "alter role payram in database payram set work_mem = '1MB'",
            "settings of database payram",
        ),
        ("create role auditor", "role auditor is new"),
        ("alter database payram connection limit 9", "database payram differs"),
    ] {
        let found = found_after(&world, |world| drop(world.server.sql("payram", what))).await;
        let Assessment::SchemaChanged { what: said } = found else { panic!("{what}: {found:?}") };
        assert!(said.contains(name), "{what}: {said}");
    }
    let found = found_after(&world, |world| {
        world.server.sql("postgres", "create database orders");
    });
    let Assessment::RowsChanged { tables } = found.await else { panic!("a new database") };
    assert!(tables.iter().any(|line| line.starts_with("database orders: it is new")), "{tables:?}");
    let found = found_after(&world, |world| {
        world.server.sql("orders", "create table payments as select generate_series(1, 9)");
    });
    let Assessment::WorkersWrote { tables } = found.await else { panic!("rows in another") };
    assert!(tables.iter().any(|line| line.starts_with("database orders: ")), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_notes_in_a_database_without_tables_is_nobodys_row() {
    let Some(world) = World::new() else { return };
    let found = found_after(&world, |world| drop(world.server.sql("postgres", "analyze"))).await;
    assert_eq!(found, Assessment::Unchanged);
    let found = found_after(&world, |world| {
        world.server.sql("postgres", "create table orders as select 1; drop table orders");
    });
    let Assessment::WorkersWrote { tables } = found.await else { panic!("something was removed") };
    assert!(tables.iter().any(|line| line.starts_with("database postgres: ")), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_rewritten_with_all_its_rows_lost_none() {
    let Some(world) = World::new() else { return };
    let found = found_after(&world, |world| {
        world.sql("alter table wallets alter column id type bigint");
    })
    .await;
    assert!(matches!(found, Assessment::SchemaChanged { .. }), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_change_a_row_is_found() {
    let Some(world) = World::new() else { return };
    let cases = [
        ("insert into payments (amount) values (1)", "public.payments: 1 row inserted; 1 change"),
        ("delete from payments where id = 501", "public.payments: 1 row deleted; 1 change"),
        (
            "update wallets set note = '' where id <= 3; update wallets set note = 'x' where id = 1",
            "public.wallets: 3 rows updated; 4 changes",
        ),
        (
            "insert into wallets values (8, ''), (9, ''); delete from wallets where id >= 8",
            "public.wallets: 0 rows inserted or updated, 2 deletions; 4 changes",
        ),
        ("truncate wallets", "public.wallets: 7 rows at the cut-over, 0 now"),
        ("drop table wallets", ""),
        (
            "select lo_from_bytea(0, 'text')",
            // The role may not read it: its counters alone tell.
            "pg_catalog.pg_largeobject: 1 change: 1 insertion, 0 updates, 0 deletions",
        ),
    ];
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let mut before = fingerprint(&runner, BUDGET).await.expect("a fingerprint");
    for (what, line) in cases {
        world.sql(what);
        let after = database::fingerprint_since(&runner, BUDGET, &before).await.expect("a reading");
        match database::assess(&before, &after) {
            Assessment::RowsChanged { tables } | Assessment::WorkersWrote { tables } => {
                assert!(tables.iter().any(|found| found.starts_with(line)), "{what}: {tables:?}");
            }
            // The table was empty when it went.
            Assessment::SchemaChanged { .. } if line.is_empty() => {}
            found => panic!("{what}: {found:?}"),
        }
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_table_is_found_where_its_rows_can_not_be_counted() {
    let Some(world) = World::new() else { return };
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let without_count = async || {
        let mut found = fingerprint(&runner, Duration::ZERO).await.expect("a fingerprint");
        assert!(found.tables.iter().all(|table| table.rows.is_none()), "{found:?}");
        found.objects.clear();
        found
    };
    let before = without_count().await;
    world.sql("truncate wallets");
    let after = without_count().await;
    let Assessment::RowsChanged { tables } = database::assess(&before, &after) else {
        panic!("expected changed rows")
    };
    assert!(tables[0].starts_with("public.wallets: its file was replaced"), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_too_large_for_the_time_is_not_even_begun_to_be_counted() {
    let Some(world) = World::new() else { return };
    world.sql("create table receipts as select repeat('x', 1000) from generate_series(1, 40000)");
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let rows = async |budget| {
        let found = fingerprint(&runner, budget).await.expect("a fingerprint");
        let receipts = found.tables.iter().find(|table| table.name == "public.receipts");
        receipts.expect("it is there").rows
    };
    assert_eq!(rows(BUDGET).await, Some(40_000));
    assert_eq!(rows(Duration::from_millis(100)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_were_reset_by_hand_or_lost_in_a_crash_are_no_evidence() {
    let Some(world) = World::new() else { return };
    let found = found_after(&world, |world| {
        world.server.sql("payram", "select pg_stat_reset()");
    })
    .await;
    assert_eq!(found, Assessment::Unchanged, "no transaction took a number since");

    // All counters of the application are zero now: only the time of their reset tells.
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let before = fingerprint(&runner, BUDGET).await.expect("a fingerprint");
    world.sql("update wallets set note = 'changed by the failed version'");
    world.server.stop("immediate");
    world.server.start_again();
    let after = fingerprint(&runner, BUDGET).await.expect("a fingerprint");
    let changes = |found: &payram_updater::machine::facts::Fingerprint| -> u64 {
        found.tables.iter().map(|table| table.changes).sum()
    };
    assert_eq!((changes(&before), changes(&after)), (0, 0));
    let found = database::assess(&before, &after);
    assert!(matches!(found, Assessment::Unreadable { .. }), "{found:?}");
    // The rows themselves tell.
    let after = database::fingerprint_since(&runner, BUDGET, &before).await.expect("a reading");
    let Assessment::RowsChanged { tables } = database::assess(&before, &after) else {
        panic!("they were written since")
    };
    assert!(tables.iter().any(|line| line.starts_with("public.wallets: ")), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_still_at_work_keeps_a_changed_schema_from_being_a_proof() {
    let Some(world) = World::new() else { return };
    let mut held = None;
    let found = found_after(&world, |world| {
        world.sql("alter table wallets add column more int");
        held = Some(world.server.hold("payram", "update payments set amount = amount + 1"));
    })
    .await;
    assert!(matches!(found, Assessment::Unreadable { .. }), "{found:?}");
}
