//! A backup loaded beside the application's database and both renamed, on a real PostgreSQL of this
//! test's own: wherever the programs run, while sessions come back all the time.

mod postgres;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use payram_updater::database::{self, Access, Database, Renaming, Runner};
use payram_updater::error::Trouble;
use payram_updater::machine::failure::FailureCode;
use payram_updater::restore::{Format, Loaded};
use payram_updater::secret::Secret;

use postgres::{LocalEngine, PASSWORD, ROLE, Server};

const LONG: Duration = Duration::from_secs(120);
const MADE: &str = "payram_updater_restore_00000001";
const ASIDE: &str = "payram_before_restore_20260131_120000";

const SCHEMA: &str = "
    create table payments (id serial primary key, amount numeric not null);
    create table wallets (id int primary key, note text);
    insert into payments (amount) select n from generate_series(1, 500) n;
    insert into wallets select n, E'wallet\\t' || n || E'\\n\\\\connect other' from generate_series(1, 7) n;
";

/// A server with an application's database on it, and a directory for dumps.
struct World {
    server: Server,
    backups: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let server = Server::start()?;
        server.sql("postgres", "create role payram login createdb password 'hunter2-of-payram'");
        server.sql("postgres", "create role reader login");
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

    fn sql(&self, text: &str) -> String {
        self.server.sql("payram", text).trim().to_owned()
    }

    fn databases(&self) -> Vec<String> {
        let names = "select datname from pg_database where not datistemplate order by 1";
        self.server.sql("postgres", names).lines().map(str::to_owned).collect()
    }

    fn plain_dump(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.backups.path().join(name);
        let dumped = Command::new("pg_dump")
            .args(["-h", "127.0.0.1", "-p", &self.server.port.to_string(), "-U", ROLE])
            .args(arguments)
            .args(["-f", &path.display().to_string(), "payram"])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .expect("pg_dump");
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        path
    }

    /// Programs of the application that connect again as soon as they are thrown out.
    fn clients(&self, count: usize) -> Clients {
        let once = format!(
            "while :; do PGPASSWORD='{PASSWORD}' psql -XqAt -h 127.0.0.1 -p {} -U {ROLE} \
             -d payram -c 'select pg_sleep(0.05)'; done",
            self.server.port
        );
        let one = || {
            Command::new("setsid")
                .args(["sh", "-c", &once])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("sh")
        };
        let clients = Clients((0..count).map(|_| one()).collect());
        let there = "select count(*) > 0 from pg_stat_activity where datname = 'payram'";
        self.server.until("postgres", there, "t");
        clients
    }
}

struct Clients(Vec<Child>);

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let group = rustix::process::Pid::from_child(child);
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
            child.wait().ok();
        }
    }
}

async fn load(
    runner: &Runner<'_>,
    path: &Path,
    format: Format,
    rows: Option<u64>,
) -> Result<Loaded, Trouble> {
    database::load(runner, MADE, path, format, rows, LONG).await
}

fn renaming(loaded: &Loaded) -> Renaming<'static> {
    Renaming {
        live: "payram",
        aside: ASIDE,
        coming: MADE,
        leaves: loaded.present,
        comes: loaded.made,
    }
}

fn refusal(trouble: Trouble) -> (FailureCode, String) {
    match trouble {
        Trouble::Failed(failure) => (failure.code, failure.message),
        Trouble::Unknown(failure) => panic!("expected a failure, found an unknown: {failure}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_the_place_of_the_database_while_sessions_come_back_all_the_time() {
    let Some(world) = World::new() else { return };
    world.server.sql(
        "postgres",
        "alter database payram set statement_timeout = '77s'; \
         alter database payram set search_path = '$user', 'public'; \
         alter role payram in database payram set work_mem = '5MB'; \
         comment on database payram is 'the shop''s'; alter database payram connection limit 90; \
         revoke all on database payram from public; grant connect on database payram to reader;",
    );
    let described = || {
        world.server.sql(
            "postgres",
            "select datdba::regrole, datconnlimit, datacl, shobj_description(d.oid, 'pg_database'), \
               pg_encoding_to_char(encoding), datcollate, \
               (select string_agg(setrole || ' ' || setconfig::text, ',' order by setrole) \
                from pg_db_role_setting s where s.setdatabase = d.oid) \
             from pg_database d where datname = 'payram'",
        )
    };
    let before = described();
    let engine = LocalEngine::default();
    for access in [Access::InContainer, Access::OnHost] {
        let database = world.database(access);
        let runner = Runner::new(&engine, "payram", &database);
        let path = world.backups.path().join("payram.dump");
        database::dump(&runner, &path, LONG, &mut |_| {}).await.expect("a dump");
        world.sql("drop table wallets; insert into payments (amount) values (9)");

        let clients = world.clients(4);
        let loaded = load(&runner, &path, Format::Dump, Some(507)).await.expect("loaded");
        assert_eq!((loaded.tables, loaded.rows), (2, Some(507)));
        assert_eq!(world.sql("select to_regclass('wallets') is null"), "t", "not before the swap");
        let renaming = renaming(&loaded);
        database::rename_both(&runner, &renaming).await.expect("renamed");
        database::rename_both(&runner, &renaming).await.expect("it is so already");
        drop(clients);
        assert_eq!(world.databases(), ["payram", ASIDE, "postgres"]);
        assert_eq!(world.sql("select count(*) from wallets"), "7");
        assert_eq!(world.sql("select count(*) from payments"), "500");
        let kept = world.server.sql(ASIDE, "select count(*) from payments");
        assert_eq!(kept.trim(), "501", "what was there before is whole");
        assert_eq!(described(), before);
        world.server.sql("postgres", &format!("drop database {ASIDE}"));
    }
    let argvs = engine.argvs().join("\n");
    assert!(!argvs.contains(PASSWORD), "no password in an argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_earlier_tool_are_restored_whole_or_not_at_all() {
    let Some(world) = World::new() else { return };
    let engine = LocalEngine::default();
    let database = world.database(Access::InContainer);
    let runner = Runner::new(&engine, "payram", &database);
    let path = world.plain_dump("payram.sql", &[]);
    world.sql("drop table wallets");
    let loaded = load(&runner, &path, Format::Sql, None).await.expect("loaded");
    assert_eq!((loaded.tables, loaded.rows), (2, Some(507)));
    // What an interrupted attempt left is made anew.
    let again = load(&runner, &path, Format::Sql, None).await.expect("loaded");
    assert_ne!(again.made, loaded.made);
    database::rename_both(&runner, &renaming(&again)).await.expect("renamed");
    assert_eq!(
        world.sql("select count(*), min(note) from wallets").lines().next(),
        Some("7|wallet\t1")
    );
    world.server.sql("postgres", &format!("drop database {ASIDE}"));

    let text = std::fs::read_to_string(&path).expect("a dump");
    let cut = &text[..text.find("wallet\\t3").expect("a row")];
    let stray = text.replace("SET client_encoding", "\\connect postgres\nSET client_encoding");
    let wrong = text.replace("CREATE TABLE public.wallets", "CREATE TABLE public.wallets_");
    for (name, text, code, why) in [
        ("cut.sql", cut, FailureCode::BackupInvalid, "cut off after line"),
        ("stray.sql", &stray, FailureCode::BackupInvalid, "is a command of psql"),
        ("wrong.sql", &wrong, FailureCode::RestoreFailed, "does not exist"),
    ] {
        let bad = world.backups.path().join(name);
        std::fs::write(&bad, text).expect("a file");
        let refused = load(&runner, &bad, Format::Sql, None).await.expect_err(name);
        let (found, message) = refusal(refused);
        assert_eq!(found, code, "{name}: {message}");
        assert!(message.contains(why), "{name}: {message}");
    }
    let created = world.plain_dump("created.sql", &["--create", "--clean", "--if-exists"]);
    let refused =
        load(&runner, &created, Format::Sql, None).await.expect_err("it would reach others");
    let (code, message) = refusal(refused);
    assert_eq!(code, FailureCode::BackupInvalid, "{message}");
    database::drop_made(&runner, MADE).await.expect("dropped");
    assert_eq!(world.databases(), ["payram", "postgres"]);
    assert_eq!(world.sql("select count(*) from wallets"), "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_and_one_of_other_contents_change_nothing() {
    let Some(world) = World::new() else { return };
    let engine = LocalEngine::default();
    let database = world.database(Access::OnHost);
    let runner = Runner::new(&engine, "payram", &database);
    let path = world.backups.path().join("payram.dump");
    database::dump(&runner, &path, LONG, &mut |_| {}).await.expect("a dump");
    let good = std::fs::read(&path).expect("a dump");
    let refused = load(&runner, &path, Format::Dump, Some(508)).await.expect_err("one row short");
    assert!(refusal(refused).1.contains("expected 508 rows, found 507"));
    // Behind the table of contents, where the rows are.
    let at = good.len() - 40;
    let mut flipped = good.clone();
    flipped[at] ^= 0x10;
    for (name, bytes) in [("cut.dump", &good[..at]), ("flipped.dump", &flipped)] {
        let bad = world.backups.path().join(name);
        std::fs::write(&bad, bytes).expect("a file");
        let refused = load(&runner, &bad, Format::Dump, None).await.expect_err(name);
        println!("{name}: {:?}", refusal(refused));
    }
    database::drop_made(&runner, MADE).await.expect("dropped");
    assert_eq!(world.databases(), ["payram", "postgres"]);
    assert_eq!(world.sql("select count(*) from payments"), "500");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_not_be_ended_keeps_both_names_and_is_named() {
    let Some(world) = World::new() else { return };
    let engine = LocalEngine::default();
    let database = world.database(Access::InContainer);
    let runner = Runner::new(&engine, "payram", &database);
    let path = world.backups.path().join("payram.dump");
    database::dump(&runner, &path, LONG, &mut |_| {}).await.expect("a dump");
    let loaded = load(&runner, &path, Format::Dump, None).await.expect("loaded");
    // The server's keeper is a superuser.
    let held = world.server.hold("payram", "lock table payments in access exclusive mode");
    let refused = database::rename_both(&runner, &renaming(&loaded)).await.expect_err("held");
    let (code, message) = refusal(refused);
    assert_eq!(code, FailureCode::RestoreFailed);
    assert!(message.contains("held-") && message.contains("of role keeper"), "{message}");
    assert_eq!(world.databases(), ["payram", MADE, "postgres"]);
    drop(held);
    world.server.until(
        "postgres",
        "select count(*) from pg_stat_activity where application_name like 'held-%'",
        "0",
    );
    database::rename_both(&runner, &renaming(&loaded)).await.expect("renamed");
    assert_eq!(world.databases(), ["payram", ASIDE, "postgres"]);
    // Somebody made another one of that name: it is not taken for ours.
    world.server.sql("postgres", &format!("create database {MADE}"));
    let wrong = Renaming { comes: loaded.made + 1, ..renaming(&loaded) };
    let refused = database::rename_both(&runner, &wrong).await.expect_err("another");
    assert_eq!(refusal(refused).0, FailureCode::DatabaseMismatch);
}
