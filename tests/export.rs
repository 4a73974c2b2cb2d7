//! The rows that a failed version wrote, exported from its database and loaded into the old
//! version's: two real PostgreSQL servers of this test's own, the second a copy of the first.

mod postgres;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use payram_updater::database::{
    Access, CutOver, Database, Heading, Log, Runner, carry_rows, export_rows, fingerprint,
    identity, said_of_carried, said_of_export, said_of_table,
};
use payram_updater::error::Trouble;
use payram_updater::machine::facts::{
    Carried, Cluster, Export, ExportedTable, Fingerprint, RefusedRows,
};
use payram_updater::secret::Secret;

use postgres::{LocalEngine, PASSWORD, ROLE, Server};

const LONG: Duration = Duration::from_secs(120);
const BUDGET: Duration = Duration::from_secs(5);

/// `a_refunds` comes before what it refers to.
const SCHEMA: &str = r#"
    create type mood as enum ('good', 'bad');
    create table payments (
        id serial primary key, amount numeric(12,2) not null, note text, raw bytea, meta jsonb,
        tags text[], state mood, at timestamptz, doubled numeric generated always as (amount * 2) stored);
    create table a_refunds (id int primary key, payment int not null references payments);
    create table legacy (id int primary key, code text not null);
    create table limits (id int primary key, small int not null check (small < 100));
    create table "odd name" (a int);
    create table rewritten (id int primary key, v varchar(20));
    create table untouched (id int generated always as identity primary key, v text);
    insert into payments (amount, note) select n, 'payment ' || n from generate_series(1, 10) n;
    insert into legacy values (1, 'one');
    insert into limits values (1, 1);
    insert into rewritten select n, 'v' || n from generate_series(1, 50) n;
    insert into untouched (v) values ('as it was');
"#;

/// What a failed version does: a migration, then work.
const FAILED_VERSION: &str = r#"
    alter table payments add column currency text not null default 'EUR';
    alter type mood add value 'so-so';
    create table ledger (id int primary key);
    insert into ledger values (1), (2);
    alter table legacy drop column code;
    insert into legacy values (50), (51);
    alter table limits drop constraint limits_small_check;
    alter table limits alter column small type bigint;
    insert into limits values (2, 50), (3, 5000), (4, 500000000000);
    alter table rewritten alter column v type text using v || '';
    update rewritten set v = 'changed' where id = 7;
    alter table rewritten rename to renamed;
    insert into "odd name" values (1);
    insert into untouched (v) values ('inserted');
    insert into payments (id, amount, note, raw, meta, tags, state, at) values
        (101, 12.50, E'it''s\na \\ "quoted"\r\n\t note; -- $$ :name', '\x00ff5c27', '{"a": [1, "x''y"], "b": null}',
         '{"one, two",NULL,"it''s"}', 'bad', '2026-01-31 12:00:00.123456+02'),
        (102, -0.01, null, null, null, null, null, null),
        (103, 1, '', '', '[]', '{}', 'so-so', 'infinity');
    insert into payments (amount, note) values (7, 'by the sequence');
    select setval('payments_id_seq', 103);
    insert into a_refunds values (1, 101), (2, 1);
    update payments set note = E'updated\r\nDROP TABLE untouched; --\nDROP TABLE legacy;' where id = 1;
    update payments set amount = amount + 1 where id = 1;
    update payments set note = note where id = 3;
    delete from payments where id = 2;
    begin; insert into payments (id, amount) values (900, 1); rollback;
    insert into payments (id, amount) values (901, 1);
    delete from payments where id = 901;
"#;

struct World {
    old: Server,
    failed: Server,
    before: Fingerprint,
    cluster: Cluster,
    directory: tempfile::TempDir,
}

impl World {
    /// The old version's database and, after the cut-over, the failed one's on a copy of it.
    async fn new(schema: &str, prepare: impl FnOnce(&Server)) -> Option<Self> {
        Self::in_encoding("UTF8", schema, prepare).await
    }

    async fn in_encoding(
        encoding: &str,
        schema: &str,
        prepare: impl FnOnce(&Server),
    ) -> Option<Self> {
        Self::ended(encoding, schema, prepare, ("", "fast")).await
    }

    /// The same, where the old version wrote on after the note, and how its server ended then.
    async fn ended(
        encoding: &str,
        schema: &str,
        prepare: impl FnOnce(&Server),
        (last, how): (&str, &str),
    ) -> Option<Self> {
        let old = Server::start()?;
        old.sql("postgres", "create role payram login password 'hunter2-of-payram'");
        old.sql(
            "postgres",
            &format!(
                "create database payram owner payram template template0 \
                 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
            ),
        );
        old.sql("payram", &format!("set role payram; {schema}"));
        prepare(&old);
        let before = read(&old).await;
        let cluster = which(&old).await;
        if !last.is_empty() {
            sql(&old, last);
        }
        let failed = old.copy_ended(how);
        let directory = tempfile::tempdir().expect("a directory");
        Some(Self { old, failed, before, cluster, directory })
    }

    /// Carries over what can be, with the old version's database at rest.
    async fn carry(&self) -> Result<Carried, Trouble> {
        let engine = LocalEngine::default();
        let (failed, old) = (database(&self.failed), database(&self.old));
        let directory = self.failed.data();
        let cut_over = self.cut_over(&directory);
        let failed = Runner::new(&engine, "failed", &failed);
        let old = Runner::new(&engine, "old", &old);
        let carried = carry_rows(&failed, &old, &cut_over, &self.path(), LONG).await;
        let left = std::fs::read_dir(self.directory.path()).expect("a directory").count();
        assert_eq!(left, 0, "no file with rows is left behind");
        carried
    }

    /// As it was noted, of the failed server's log in this directory.
    fn cut_over<'c>(&'c self, directory: &'c Path) -> CutOver<'c> {
        CutOver {
            transaction: self.before.next_transaction.expect("it was noted"),
            cluster: &self.cluster,
            directory,
            programs: self.failed.programs().to_str().expect("a path"),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("pg.failed-1.rows.sql")
    }

    async fn export(&self) -> Export {
        self.export_by(&Log::Unknown).await
    }

    async fn export_by(&self, log: &Log<'_>) -> Export {
        let engine = LocalEngine::default();
        let (failed, old) = (database(&self.failed), database(&self.old));
        let heading = Heading {
            upgrade: "job-1 hop 1".into(),
            version: "9.0.5",
            old_version: "1.9.6",
            written_at: "2026-01-31T12:00:00Z".into(),
            directory: Path::new("/srv/pg.failed-1"),
            load_command: self.load_command(),
        };
        let failed = Runner::new(&engine, "failed", &failed);
        let old = Runner::new(&engine, "old", &old);
        let path = self.path();
        export_rows(&failed, &old, &self.before, log, (&path, &heading), LONG)
            .await
            .expect("an export")
    }

    fn load_command(&self) -> String {
        let port = self.old.port;
        format!("PGPASSWORD={PASSWORD} psql -X -h 127.0.0.1 -p {port} -U {ROLE} -d payram")
    }

    /// Loads the file as it says itself, as an operator would whose terminal is in UTF-8.
    fn load_as_the_file_says(&self) -> String {
        let file = std::fs::read(self.path()).expect("the file");
        let head = String::from_utf8_lossy(&file).into_owned();
        let mut lines = head.lines().skip_while(|line| !line.ends_with("To load it:"));
        let command = lines.nth(1).expect("a command").trim_start_matches("-- ");
        let mut shell = std::process::Command::new("sh");
        let done = shell.args(["-c", command]).env("LC_ALL", "C.UTF-8").output().expect("sh");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.is_empty(), "{command}: {said}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    async fn tables(&self) -> Vec<ExportedTable> {
        match self.export().await {
            Export::Written { path, tables, .. } => {
                assert_eq!(Path::new(&path), self.path());
                tables
            }
            found => panic!("{found:?}"),
        }
    }
}

fn database(server: &Server) -> Database {
    Database {
        host: "127.0.0.1".into(),
        port: server.port,
        name: "payram".into(),
        user: ROLE.into(),
        password: Secret::new(PASSWORD.into()),
        sslmode: None,
        access: Access::OnHost,
    }
}

async fn read(server: &Server) -> Fingerprint {
    let (engine, database) = (LocalEngine::default(), database(server));
    fingerprint(&Runner::new(&engine, "old", &database), BUDGET).await.expect("a fingerprint")
}

async fn which(server: &Server) -> Cluster {
    let (engine, database) = (LocalEngine::default(), database(server));
    let runner = Runner::new(&engine, "old", &database);
    identity(&runner, LONG).await.expect("a cluster").cluster
}

fn sql(server: &Server, text: &str) -> String {
    server.sql("payram", &format!("set role payram; set timezone = 'UTC'; {text}"))
}

/// Every row of every table, to see that nothing else was changed.
fn everything(server: &Server) -> String {
    // A row is a line, whatever is in it.
    let row = "translate(t::text, chr(10) || chr(13), '  ')";
    ["payments", "a_refunds", "legacy", "limits", "rewritten", "untouched", "\"odd name\""]
        .map(|table| sql(server, &format!("select '{table}', {row} from {table} t order by 2")))
        .concat()
}

fn refused(rows: u64, reason: &str) -> RefusedRows {
    RefusedRows { rows, reason: reason.into(), is_told: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_version_wrote_is_told_exactly_and_loaded_without_overwriting_a_row() {
    let Some(world) = World::new(SCHEMA, |_| {}).await else { return };
    sql(&world.failed, FAILED_VERSION);
    // The old version serves again meanwhile: its sequence gives the same number.
    sql(&world.old, "insert into payments (amount, note) values (8, 'by the old version')");

    let tables = world.tables().await;
    let mut said: Vec<String> = tables.iter().map(said_of_table).collect();
    println!("{}", said.join("\n"));
    said.sort();
    assert_eq!(
        said,
        [
            "public.\"odd name\": 1 row written; 1 change",
            "public.a_refunds: 2 rows inserted; 2 changes",
            "public.ledger: 2 rows written; 2 changes",
            "public.legacy: 2 rows written; 2 changes",
            "public.limits: 1 row inserted; 3 changes",
            "public.payments: 2 rows inserted, 2 updated, 1 row whose key the old version has written since, how many were deleted is not known; 11 changes",
            "public.rewritten: 1 row updated; 1 change",
            "public.untouched: 1 row inserted; 1 change",
        ]
    );
    let of = |name: &str| tables.iter().find(|table| table.name == name).expect("the table");
    assert_eq!(of("public.ledger").refused, [refused(2, "the old version has no such table")]);
    assert_eq!(
        of("public.legacy").refused,
        [refused(
            2,
            "the old table requires a value in code, which the failed version's does not have"
        )]
    );
    assert_eq!(
        of("public.limits").refused,
        [
            refused(1, "the value of small is not one of integer, but of bigint"),
            refused(1, "the old table's check limits_small_check does not allow it"),
        ]
    );
    assert_eq!(
        of("public.payments").refused,
        [refused(1, "the old public.mood does not have the value of state")]
    );
    let payments = of("public.payments");
    assert_eq!((payments.inserted, payments.updated, payments.taken), (2, 2, 1));
    assert_eq!(payments.left_out, ["currency"]);

    let path = world.path();
    let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let left: Vec<_> = std::fs::read_dir(world.directory.path()).expect("it").flatten().collect();
    assert_eq!(left.len(), 1, "nothing else is left: {left:?}");
    let text = std::fs::read_to_string(&path).expect("text");
    println!("{text}");
    for part in [
        "-- Rows that PayRam 9.0.5 wrote before it was taken back.",
        "-- from:     /srv/pg.failed-1, which is kept",
        "--   1 row only in the comments below: the old version has written another row under the same key since",
        "--   2 rows left out: the old version has no such table",
        "-- updated: '1', '2.00', E'updated\\r\\nDROP TABLE untouched; --\\nDROP TABLE legacy;'",
        "-- key taken since: '11', '7.00', 'by the sequence'",
        "-- SELECT setval('public.payments_id_seq', ",
        "OVERRIDING SYSTEM VALUE",
        "  only in comments, because the old version has no such column: currency",
        "  -- below, without the values of currency: 'EUR'",
        "; 'EUR'",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    let before = everything(&world.old);
    let loaded = world.old.load("payram", &path);
    println!("{loaded}");
    let columns = "id, amount, note, raw, meta, tags, state, at, doubled";
    let select = format!("select {columns} from payments where id in (101, 102) order by id");
    assert_eq!(sql(&world.old, &select), sql(&world.failed, &select));
    assert_eq!(sql(&world.old, "select id, small from limits order by id"), "1|1\n2|50\n");
    assert_eq!(sql(&world.old, "select * from a_refunds order by id"), "1|101\n2|1\n");
    assert_eq!(sql(&world.old, "select v from untouched order by id"), "as it was\ninserted\n");
    let after = everything(&world.old);
    let kept = before.lines().filter(|line| after.contains(line)).count();
    assert_eq!(kept, before.lines().count(), "no row was changed: {before}\n{after}");
    assert_eq!(after.lines().count(), before.lines().count() + 2 + 2 + 1 + 1, "{after}");
    world.old.load("payram", &path);
    assert_eq!(everything(&world.old), after, "a second time changes nothing");

    // What is there now needs no export any more; it is written anew and says so.
    let again = world.tables().await;
    assert_eq!(again.iter().map(|table| table.inserted).sum::<u64>(), 0, "{again:?}");
}

/// Names and values with bytes above ASCII, whatever they mean; `\xNN` is a byte.
const BYTES_SCHEMA: &str = r#"
    do $$ begin execute 'create table "caf' || E'\xc3\xa9' || '" (id int primary key, "n'
        || E'\xc3\xa9' || '" text)'; end $$;
    create table notes (id int primary key, note text default E'gr\xc3\xbc\xc3\x9fe', short varchar(12),
        meta json, words text[], check (note <> E'\xc3\xa9\xc3\xa9'));
    create table keyed (name text primary key, v int);
    insert into notes (id, note) values (1, E'a \xc3\xa4');
    insert into keyed values (E'\xc3\xa4', 1), (E'\xc3\xb6', 2);
"#;

/// What the failed version writes; `BYTES` is replaced by bytes of the encoding.
const BYTES_WRITTEN: &str = r#"
    alter table notes drop constraint notes_note_check;
    insert into notes values
        (101, E'BYTES', E'BYTES', (E'{"k": "BYTES"}')::json, array[E'BYTES', E'a, "BYTES"']),
        (102, E'it''s BYTES
\\ BYTES', null, null, null),
        (103, E'\xc3\xa9\xc3\xa9', null, null, null);
    insert into notes (id) values (104);
    insert into keyed values (E'BYTES', 7);
    update keyed set v = 3 where name = E'\xc3\xb6';
    update notes set note = E'BYTES' where id = 1;
    do $$ begin execute 'insert into "caf' || E'\xc3\xa9' || '" values (1, E''BYTES'')'; end $$;
"#;

/// The rows in their order, as one checksum of their bytes.
const CHECKSUM: &str = r#"
    select count(*), md5(string_agg(t::text, E'\n' order by id)) from notes t where id in (101, 102, 104);
    select count(*), md5(string_agg(t::text, E'\n' order by v)) from keyed t where v in (1, 7);
    do $$ declare sum text; begin
        execute 'select md5(string_agg(t::text, E''\n'')) from "caf' || E'\xc3\xa9' || '" t' into sum;
        perform set_config('sum.of', sum, false);
    end $$;
    select current_setting('sum.of');
"#;

async fn rows_come_back_byte_for_byte(encoding: &str, bytes: &str) {
    let Some(world) = World::in_encoding(encoding, BYTES_SCHEMA, |_| {}).await else { return };
    sql(&world.failed, &BYTES_WRITTEN.replace("BYTES", bytes));
    let tables = world.tables().await;
    let said = said_of_export("/f", &tables);
    println!("{encoding}: {said}");
    assert!(
        said.starts_with(
            "of its 8 rows 7 are exported to /f, 1 is not: 5 can be loaded, 2 are in comments ("
        ),
        "{said}"
    );
    assert!(said.contains("public.notes: 3 rows inserted, 1 updated; 5 changes"), "{said}");
    assert!(said.contains("check notes_note_check does not allow it"), "{said}");
    let file = std::fs::read(world.path()).expect("the file");
    let raw: Vec<u8> = bytes
        .split("\\x")
        .filter(|digits| !digits.is_empty())
        .map(|digits| u8::from_str_radix(digits, 16).expect("a byte"))
        .collect();
    let found = file.windows(raw.len()).filter(|window| *window == raw).count();
    assert_eq!(found, 10, "the bytes are in the file as they are");
    let loaded = world.load_as_the_file_says();
    assert_eq!(loaded.matches("INSERT").count(), 3, "{loaded}");
    assert_eq!(sql(&world.old, CHECKSUM), sql(&world.failed, CHECKSUM), "{encoding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_database_without_an_encoding_are_exported_and_loaded_byte_for_byte() {
    // No character in any encoding that knows such, then one of LATIN1, then a broken UTF-8.
    rows_come_back_byte_for_byte("SQL_ASCII", r"\xff\xe4\xfe\x80\xc3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_database_in_latin1_are_exported_and_loaded_byte_for_byte() {
    rows_come_back_byte_for_byte("LATIN1", r"\xff\xe4\xfc\x85\xa0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_database_in_utf8_are_exported_and_loaded_byte_for_byte() {
    rows_come_back_byte_for_byte("UTF8", r"\xe2\x82\xac\xc2\x85\xc3\xa4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_version_that_wrote_nothing_leaves_no_file() {
    let Some(world) = World::new(SCHEMA, |_| {}).await else { return };
    sql(
        &world.failed,
        "alter table payments add column memo text; alter table limits alter column small type bigint;
         begin; insert into payments (amount) values (1); rollback",
    );
    assert_eq!(world.export().await, Export::Nothing);
    let left = std::fs::read_dir(world.directory.path()).expect("it").count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_are_counted() {
    let Some(world) = World::new(SCHEMA, |_| {}).await else { return };
    sql(
        &world.failed,
        "delete from payments where id > 7; insert into payments (amount) values (1)",
    );
    sql(&world.failed, "truncate rewritten; drop table limits");
    let tables = world.tables().await;
    let said: Vec<String> = tables.iter().map(said_of_table).collect();
    assert_eq!(
        said,
        [
            "public.limits: 1 row deleted",
            "public.payments: 1 row inserted, 3 deleted; 4 changes",
            "public.rewritten: 50 rows deleted; 0 changes",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_begin_to_count_anew_do_not_hide_a_row_nor_add_an_old_one() {
    let freeze = |server: &Server| {
        server.sql("postgres", "alter database template0 allow_connections true");
        for database in ["postgres", "payram", "template0", "template1"] {
            server.sql(database, "vacuum freeze");
        }
        server.stop("fast");
        server.set_next_transaction(u32::MAX - 40);
        server.start_again();
    };
    let Some(world) = World::new(SCHEMA, freeze).await else { return };
    let first = world.before.next_transaction.expect("noted");
    assert!(first > u64::from(u32::MAX) - 60 && first < u64::from(u32::MAX), "{first}");
    // More transactions than there were left: the numbers of the later ones are small.
    let one = "insert into payments (id, amount) values (nextval('payments_id_seq') + 1000, 1);";
    sql(&world.failed, &one.repeat(100));
    let last = read(&world.failed).await.next_transaction.expect("noted");
    assert!(last > 1 << 32, "{last}");
    let tables = world.tables().await;
    let said: Vec<String> = tables.iter().map(said_of_table).collect();
    assert_eq!(said, ["public.payments: 100 rows inserted; 100 changes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_many_rows_is_exported_in_pieces() {
    let Some(world) = World::new(SCHEMA, |_| {}).await else { return };
    sql(
        &world.failed,
        "insert into payments (id, amount) select n, 1 from generate_series(1001, 7200) n;
         update payments set note = 'touched' where id <= 10",
    );
    let tables = world.tables().await;
    let said: Vec<String> = tables.iter().map(said_of_table).collect();
    assert_eq!(said, ["public.payments: 6200 rows inserted, 10 updated; 6210 changes"]);
    world.old.load("payram", &world.path());
    assert_eq!(sql(&world.old, "select count(*), sum(id) from payments"), {
        sql(&world.failed, "select count(*), sum(id) from payments")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cut_overs_transaction_nothing_is_guessed() {
    let Some(mut world) = World::new(SCHEMA, |_| {}).await else { return };
    world.before.next_transaction = None;
    let engine = LocalEngine::default();
    let (failed, old) = (database(&world.failed), database(&world.old));
    let heading = Heading {
        upgrade: String::new(),
        version: "9.0.5",
        old_version: "1.9.6",
        written_at: String::new(),
        directory: Path::new("/srv"),
        load_command: String::new(),
    };
    let (failed, old) = (Runner::new(&engine, "f", &failed), Runner::new(&engine, "o", &old));
    let path = world.path();
    let refused =
        export_rows(&failed, &old, &world.before, &Log::Unknown, (&path, &heading), LONG).await;
    let message = refused.expect_err("a refusal").to_string();
    assert!(message.contains("transaction was not noted"), "{message}");
}

/// Tables that refer to each other in a circle, one without a key, a trigger, a ledger.
const SHOP: &str = "
    create table payments (id int primary key, receipt int, note text);
    create table receipts (id int primary key, payment int not null references payments);
    alter table payments add foreign key (receipt) references receipts
        deferrable initially deferred;
    create table events (of int references payments, what text);
    create table told (payment int);
    create table balances (account text primary key, amount numeric not null);
    create table schema_migrations (version text primary key);
    insert into balances values ('hot', 100), ('cold', 0);
    insert into schema_migrations values ('1');
    insert into payments values (1, null, 'old');
    create function tell() returns trigger language plpgsql as
        'begin insert into told values (new.id); return new; end';
    create trigger tell after insert on payments for each row execute function tell();
";

#[tokio::test(flavor = "multi_thread")]
async fn what_transactions_only_inserted_is_carried_over_once_and_the_others_are_left_out_whole() {
    let Some(world) = World::new(SHOP, |_| {}).await else { return };
    for one in [
        // A circle, and what has no key.
        "begin; insert into payments values (10, 10, E'it''s\\n'); insert into receipts values (10, 10); \
         insert into events values (10, 'paid'), (10, 'paid'); commit;",
        // It also moves a balance.
        "begin; insert into payments values (11, null, 'and more'); \
         update balances set amount = amount - 1 where account = 'hot'; commit;",
        // A part of it removes.
        "begin; insert into payments values (12, null, 'in parts'); savepoint s; \
         insert into payments values (13, null, 'in parts'); savepoint t; \
         delete from payments where id = 1; release t; release s; commit;",
        // In parts, and nothing else.
        "begin; savepoint s; insert into payments values (14, null, 'in parts'); release s; \
         savepoint t; insert into payments values (99, null, 'back'); rollback to t; commit;",
        "begin; insert into payments values (98, null, 'back'); rollback;",
        // Migrations.
        "begin; create table fresh (id int); insert into payments values (15, null, 'seed'); \
         insert into schema_migrations values ('2'); commit;",
        "begin; insert into schema_migrations values ('3'); \
         insert into payments values (16, null, 'seed'); commit;",
        "begin; insert into fresh values (1); insert into payments values (17, null, 'both'); commit;",
        "insert into payments select n, null, 'many' from generate_series(1001, 2500) n",
        // Nobody's row any more.
        "insert into payments values (20, null, 'gone')",
        "delete from payments where id = 20",
    ] {
        sql(&world.failed, one);
    }
    let first = world.carry().await.expect("rows are carried over");
    println!("{}", said_of_carried(&first).join("\n"));
    let said: Vec<String> = first
        .refused
        .iter()
        .map(|one| {
            let of = |table: &payram_updater::machine::facts::CarriedTable| {
                format!("{} {}", table.name, table.rows)
            };
            let tables: Vec<String> = one.tables.iter().map(of).collect();
            format!("{}: {} of {}", one.reason, tables.join(", "), one.transactions)
        })
        .collect();
    assert_eq!(
        said,
        [
            "also changed rows: public.balances 1, public.payments 1, public.told 1 of 1",
            "also changed the schema: public.payments 1, public.schema_migrations 1, public.told 1 of 1",
            "also removed rows: public.payments 2, public.told 2 of 1",
            "also wrote what the old version has no place for: public.fresh 1, public.payments 1, public.told 1 of 1",
            "wrote into a migration ledger: public.payments 1, public.schema_migrations 1, public.told 1 of 1",
        ]
    );
    assert_eq!(first.transactions, 4, "the last one's told row stays of it");
    let there = || {
        let counts = ["payments", "receipts", "events", "told", "schema_migrations"];
        counts.map(|table| sql(&world.old, &format!("select count(*) from {table}")))
    };
    let expected = ["1503", "1", "2", "1503", "1"].map(|count| format!("{count}\n"));
    assert_eq!(there().map(|count| format!("{}\n", count.trim())), expected);
    assert_eq!(sql(&world.old, "select note from payments where id = 10").trim(), "it's");
    assert_eq!(
        sql(&world.old, "select id from payments where id < 100 order by 1")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["1", "10", "14"]
    );
    assert_eq!(sql(&world.old, "select sum(amount) from balances").trim(), "100");
    let as_before = "select string_agg(conname || condeferrable || condeferred, ' ' order by conname) \
        from pg_constraint where contype = 'f'";
    assert_eq!(sql(&world.old, as_before), sql(&world.failed, as_before));
    // Begun again after it was done: it was interrupted before it could say so.
    assert_eq!(world.carry().await.expect("nothing is left to do"), first);
    assert_eq!(there().map(|count| format!("{}\n", count.trim())), expected);
    // As before, the trigger acts and what refers to nothing is refused.
    sql(&world.old, "insert into payments values (3000, null, 'new')");
    assert_eq!(sql(&world.old, "select count(*) from told where payment = 3000").trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_row_does_not_fit_nothing_is_carried_over() {
    let Some(world) =
        World::new(SHOP, |old| drop(sql(old, "create unique index one_note on payments (note)")))
            .await
    else {
        return;
    };
    sql(&world.failed, "drop index one_note");
    sql(&world.failed, "insert into payments values (10, null, 'fits')");
    sql(&world.failed, "insert into payments values (11, null, 'old')");
    let refused = world.carry().await.expect_err("a conflict").to_string();
    assert!(refused.contains("one_note"), "{refused}");
    assert_eq!(sql(&world.old, "select count(*) from payments").trim(), "1");
    assert_eq!(
        sql(&world.old, "select tgenabled::text from pg_trigger where tgname = 'tell'").trim(),
        "O"
    );
    // Somebody has written there since: what was carried over can't be told.
    sql(&world.old, "insert into payments values (500, null, 'by somebody')");
    let refused = world.carry().await.expect_err("a stranger's row").to_string();
    assert!(refused.contains("not by this"), "{refused}");
}

/// Rows that the old version wrote after the note, one of them twice, are in both databases.
async fn its_last_rows_stay_the_old_versions(how: &str) {
    let last = "insert into payments values (2, null, 'at the last'), (3, null, 'moment'); \
        update payments set note = 'again' where id = 3";
    let Some(world) = World::ended("UTF8", SHOP, |_| {}, (last, how)).await else { return };
    sql(&world.failed, "alter table payments add column memo text default 'none'");
    sql(&world.failed, "insert into payments values (10, null, 'new'), (11, null, 'new')");
    sql(&world.failed, "update payments set note = 'touched' where id = 1");
    sql(&world.failed, "begin; insert into payments values (12, null, 'new'); rollback");
    // Once more, as a server that runs alone is: this shutdown is none of the old version's.
    world.failed.stop("fast");
    world.failed.start_again();
    let carried = world.carry().await.expect("rows are carried over");
    println!("{how}: {}", said_of_carried(&carried).join("\n"));
    let tables: Vec<(&str, u64)> =
        carried.tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
    assert_eq!(tables, [("public.payments", 2), ("public.told", 2)]);
    assert_eq!(carried.transactions, 1);
    assert_eq!(world.carry().await.expect("nothing is left to do"), carried);
    let there = "select string_agg(id || ' ' || note, ', ' order by id) from payments";
    assert_eq!(
        sql(&world.old, there).trim(),
        "1 old, 2 at the last, 3 again, 10 new, 11 new",
        "{how}"
    );
    assert_eq!(sql(&world.old, "select count(*) from told").trim(), "4");

    let directory = world.failed.data();
    let export = world.export_by(&Log::CarriedSince(world.cut_over(&directory))).await;
    let Export::Written { tables, .. } = export else { panic!("{export:?}") };
    let set_aside: Vec<(&str, u64)> = tables
        .iter()
        .map(|table| (table.name.as_str(), table.set_aside()))
        .filter(|(_, rows)| *rows > 0)
        .collect();
    assert_eq!(
        set_aside,
        [("public.payments", 1)],
        "what was changed, and nothing else: {tables:?}"
    );
    let export = world.export_by(&Log::Since(world.cut_over(&directory))).await;
    let Export::Written { tables, .. } = export else { panic!("{export:?}") };
    let payments = tables.iter().find(|table| table.name == "public.payments").expect("it");
    assert_eq!(
        (payments.inserted, payments.updated),
        (0, 3),
        "those that it has by now: {tables:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_version_wrote_after_the_note_is_its_own() {
    its_last_rows_stay_the_old_versions("fast").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_version_wrote_after_the_note_is_its_own_where_it_was_killed() {
    its_last_rows_stay_the_old_versions("immediate").await;
}
